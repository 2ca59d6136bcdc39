"""What a call asks of its limits, what it is given, and what it has used in the end."""

from collections.abc import Callable, Sequence

import msgspec

from torana.limits.reached import Headers, Standing, Told
from torana.limits.rules import SECOND, Call, Rule
from torana.limits.spent import Spent
from torana.limits.table import FOREVER, Key


class Tally:
    """The count of one limit that calls of one kind and caller meet."""

    __slots__ = ("index", "key", "rule", "slot")

    def __init__(self, index: int, rule: Rule, key: Key) -> None:
        self.index = index
        """Its place among the limits that the call meets."""
        self.rule = rule
        self.key = key
        self.slot = 0
        """Of the table: where it was last."""

    @classmethod
    def of(cls, index: int, rule: Rule, call: Call) -> "Tally":
        return cls(index, rule, rule.key(rule.whom(call)))


class Together:
    """The limits that calls of one kind meet, whoever sends them.

    Sequences beside one another, here, in a `Met` and in a `Hold`, are in the order of `rules`.
    """

    __slots__ = ("_sized", "figures", "metered", "ones", "rules", "told")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.ones = (1,) * len(self.rules)
        """What a call takes of limits that are neither metered nor sized."""
        self._sized = tuple(index for index, rule in enumerate(rules) if rule.unit == "bytes")
        self.metered = tuple((index, rule) for index, rule in enumerate(rules) if rule.is_metered)
        self.figures = tuple(enumerate(rule.figures for rule in rules))
        self.told = Told([rule.shown for rule in rules])

    def amounts(self, body_bytes: int) -> list[int]:
        """What a call takes of each limit; of metered ones, that is still to be said."""
        amounts = [*self.ones]
        for index in self._sized:
            amounts[index] = body_bytes
        return amounts

    def meet(self, call: Call) -> "Met":
        """With the counts of its caller."""
        return Met(self, [Tally.of(index, rule, call) for index, rule in enumerate(self.rules)])


class Met:
    """The limits that calls of one kind and caller meet: worked out once, and gone through for each call."""

    __slots__ = ("amounts", "figures", "metered", "ones", "returning", "rules", "tallies", "told")

    def __init__(self, together: Together, tallies: Sequence[Tally]) -> None:
        self.rules = together.rules
        self.ones = together.ones
        self.metered = together.metered
        self.amounts = together.amounts
        self.figures = together.figures
        self.told = together.told
        self.tallies = tallies
        self.returning = [tally for tally in tallies if tally.rule.gives_back]
        """Those of which something may be free again when a call ends."""


class Refused(Exception):
    """Nothing was taken.

    rules     the limits that were looked at
    lefts     what is left of each
    ends      when the whole amount is there again; nanoseconds of the clock that says `now`
    waits_ns  how long the call would have to wait for each; below 0: that one lets it pass
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        lefts: Sequence[int],
        ends: Sequence[int],
        now: int,
        waits_ns: Sequence[int],
        *,
        is_degraded: bool = False,
    ) -> None:
        super().__init__("a limit is used up")
        self.rules = rules
        self.waits_ns = waits_ns
        self._lefts, self._ends, self._now = lefts, ends, now
        self._is_degraded = is_degraded

    @property
    def longest(self) -> int:
        """Which of them lets the call wait longest."""
        return self.waits_ns.index(max(self.waits_ns))

    @property
    def standings(self) -> Sequence[Standing]:
        return standings(self.rules, self._lefts, self._ends, self._now)

    def headers(self) -> Headers:
        told = Told([rule.shown for rule in self.rules])
        return told.headers(self._lefts, self._ends, self._now, is_degraded=self._is_degraded)


class Hold(msgspec.Struct):
    """What a call has taken of its limits. Settle it in every case; only the first time counts."""

    met: Met
    amounts: Sequence[int]
    """What was taken of each limit."""
    slots: Sequence[int]
    """Where it is counted."""
    ends: Sequence[int]
    """When that slot is over, which tells its period from the next."""
    lefts: Sequence[int]
    """What was left then."""
    now: int
    """When it was taken."""
    expected: Spent
    """What was reserved; nothing where no limit counts tokens or money."""
    lines: Sequence[int] = ()
    """Where it is noted, should the worker die."""
    is_degraded: bool = False
    """This server counted by itself, because the shared counts could not be reached."""
    is_settled: bool = False

    @property
    def standings(self) -> Sequence[Standing]:
        """How the call stands with each limit, for the headers of dialects."""
        return standings(self.met.rules, self.lefts, self.ends, self.now)

    def headers(self) -> Headers:
        """For the answer."""
        return self.met.told.headers(self.lefts, self.ends, self.now, is_degraded=self.is_degraded)


def standings(rules: Sequence[Rule], lefts: Sequence[int], ends: Sequence[int], now: int) -> list[Standing]:
    return [
        Standing(rule.shown, left, (end - now) / SECOND if now < end < FOREVER else 0.0)
        for rule, left, end in zip(rules, lefts, ends, strict=True)
    ]


def note_all(note: Callable[[Key, int, int], int], met: Met, amounts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The lines of what may be free again."""
    return [note(each.key, *each.rule.noted(ends[each.index], amounts[each.index])) for each in met.returning]
