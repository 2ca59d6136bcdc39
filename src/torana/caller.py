"""Who calls, and the proof that they may. Product-neutral: no header names here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One verified token: an instance, or a user on it."""

    issuer: str = ""
    subject: str = ""
    realm: str = ""
    instance_id: str = ""
    """The instance's id as vouched for: claim first; empty where the token names none."""
    instance_uid: str = ""
    scopes: frozenset[str] = frozenset()
    """Unit primitives the token lists, old names already read as new ones."""
    is_user: bool = False
    """The token is one that we minted for a user's direct connection."""
    is_debug: bool = False
    """A bypass let this caller in: every permission, no claims."""
    token_id: str = ""
    expires_at: float = 0.0
    """Unix seconds."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Every claim of the token, known or not."""

    @property
    def party(self) -> str:
        """Whose requests take turns with others', and find room or none together: the instance's, or where the token
        names none, its subject's. Decides about no rights."""
        return self.instance_id or self.subject


DEBUG_CALLER = Caller(is_debug=True)


class Permit(msgspec.Struct, frozen=True):
    """Proof that `caller` may use `unit_primitives`; routing and limits ask for it.

    Made by `access.permissions` and by nothing else.
    """

    caller: Caller
    unit_primitives: tuple[str, ...]
    user: str = ""
    """The user of the instance for whom it calls: of a user's token its subject, else as the instance says."""
