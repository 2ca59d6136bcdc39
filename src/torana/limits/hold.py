"""What a call asks of its limits, what it is given, and what it has used in the end."""

from collections.abc import Sequence
from typing import NamedTuple

from torana.catalog.limit_text import Unit
from torana.limits.reached import Standing
from torana.limits.rules import Rule
from torana.limits.table import Key


class Spent(NamedTuple):
    """What a call uses, or is expected to. Money in billionths of a dollar, None where no price is known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None


NOTHING = Spent()


class Taken(NamedTuple):
    """What one limit has given a call."""

    rule: Rule
    key: Key
    slot: int
    until: int
    amount: int
    line: int
    """Where it is noted, should the worker die."""


class Asked(NamedTuple):
    """What a call asks one limit for."""

    rule: Rule
    key: Key
    amount: int


class Refused(Exception):
    """Nothing was taken.

    asked      the limits that were looked at
    standings  how the call stands with each
    waits_ns   how long it would have to wait for each; below 0: that one lets it pass
    """

    def __init__(
        self,
        asked: Sequence[Asked],
        standings: Sequence[Standing],
        waits_ns: Sequence[int],
        *,
        is_degraded: bool = False,
    ) -> None:
        super().__init__("a limit is used up")
        self.asked = asked
        self.standings = standings
        self.waits_ns = waits_ns
        self.is_degraded = is_degraded


class Hold:
    """What a call has taken of its limits. Settle it in every case; only the first time counts."""

    __slots__ = ("expected", "is_degraded", "is_settled", "standings", "taken")

    def __init__(
        self, taken: Sequence[Taken], standings: Sequence[Standing], expected: Spent, *, is_degraded: bool = False
    ) -> None:
        self.taken = taken
        self.is_degraded = is_degraded
        """This server counted by itself, because the shared counts could not be reached."""
        self.expected = expected
        """What was reserved; nothing where no limit counts tokens or money."""
        self.standings = standings
        """For the headers of the answer."""
        self.is_settled = False


def used(unit: Unit, reserved: int, spent: Spent) -> int:
    """What a call uses of a limit that counts `unit`."""
    match unit:
        case "tokens":
            return spent.input_tokens + spent.output_tokens
        case "input_tokens":
            return spent.input_tokens
        case "output_tokens":
            return spent.output_tokens
        case "usd":
            return reserved if spent.cost is None else spent.cost
        case _:
            return reserved
