"""Where an instance's calls may be answered: its allowed regions are never left, whatever fails."""

from collections.abc import Iterable
from dataclasses import dataclass

from torana.caller import Caller
from torana.catalog.model_records import ResidencyRecord
from torana.providers.provider import Deployment
from torana.regions import is_in


@dataclass(frozen=True, slots=True)
class Fence:
    """The rules that hold for one caller; a region must be allowed by each of them."""

    rules: tuple[ResidencyRecord, ...]

    def allows(self, deployment: Deployment) -> bool:
        """A deployment that does not say where it is, is outside.

        The demo answers within this process, and a client's own server is where the client put it.
        """
        return (
            deployment.is_client_given
            or deployment.provider == "demo"
            or all(is_in(deployment.region, rule.regions) for rule in self.rules)
        )

    @property
    def allowed(self) -> tuple[str, ...]:
        """The names and beginnings that every rule allows, for whoever else keeps the caller's data inside."""
        names = dict.fromkeys(name for rule in self.rules for name in rule.regions)
        return tuple(
            name
            for name in names
            # Of `*` nothing is left that would be in a region.
            if all(name in rule.regions or is_in(name.removesuffix("*"), rule.regions) for rule in self.rules)
        )

    @property
    def regions(self) -> str:
        """For refusals and explanations."""
        return " and ".join(", ".join(rule.regions) for rule in self.rules)


class Fences:
    """`residency` of a catalogue. An instance's own rule stands in place of its realm's and of everybody's."""

    def __init__(self, records: Iterable[ResidencyRecord]) -> None:
        self._of_instances = tuple(record for record in records if record.instance)
        self._of_realms = tuple(record for record in records if not record.instance)
        self.are_any = bool(self._of_instances or self._of_realms)

    def of(self, caller: Caller) -> Fence | None:
        """None: the caller's calls may go anywhere.

        Who does not say which instance or realm it is might be any of them, so every such rule holds.
        """
        own = {caller.instance_id, caller.instance_uid} - {""}
        rules = tuple(rule for rule in self._of_instances if not own or rule.instance in own)
        if not own or not rules:
            realm = caller.realm.lower()
            rules += tuple(
                rule for rule in self._of_realms if not rule.realm or not realm or rule.realm.lower() == realm
            )
        return Fence(rules) if rules else None
