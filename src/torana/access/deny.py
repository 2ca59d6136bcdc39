"""The deny list: who is refused although the token is good. Reloaded with the catalogue."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from torana.caller import Caller
from torana.catalog.records import DenyRecord


@dataclass(frozen=True, slots=True)
class DenyList:
    """Records of `deny.yml`; of several members of one record all must match."""

    rows: frozenset[tuple[str, str, str]] = frozenset()
    """(instance id or uid, user, token id); an empty member matches anything."""

    @classmethod
    def of(cls, records: Iterable[DenyRecord]) -> "DenyList":
        rows = {(row.instance, row.user, row.token_id) for row in records}
        return cls(frozenset(rows - {("", "", "")}))  # a record without members denies nobody

    def holds(self, caller: Caller, *, instance_header: str = "", user_header: str = "") -> bool:
        """Whether the caller is on the list, by the token's claims or by what it vouches for in headers."""
        if not self.rows:
            return False
        instances = {"", caller.instance_id, caller.instance_uid, instance_header}
        users = {"", caller.subject if caller.is_user else user_header}
        return not self.rows.isdisjoint(product(instances, users, {"", caller.token_id}))
