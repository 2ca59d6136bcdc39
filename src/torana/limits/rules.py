"""One limit, ready to count with: which calls it is for, under which key, and what a slot of the table means to it.

All three kinds ask first and take afterwards, so that a call which meets several limits takes from all or none.
Amounts are whole: requests, bytes, tokens, billionths of a dollar, streams.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from torana.caller import Caller
from torana.catalog.limit_text import USD, LimitTerms, Unit, read_limit
from torana.catalog.model_records import ModelRecord
from torana.catalog.records import LimitMatch, LimitRecord
from torana.clock import Clock
from torana.limits.calendar import SHORTEST_S, end_of
from torana.limits.reached import Shown
from torana.limits.spent import MEASURES, Spent
from torana.limits.table import END, FOREVER, UNTIL, USED, Key, Numbers, Table
from torana.telemetry.limit_figures import LimitFigures
from torana.telemetry.metrics import Metrics

SECOND = 1_000_000_000
"""Times are whole nanoseconds."""


class _Call(NamedTuple):
    user: str
    instance: str
    realm: str
    unit_primitive: str
    feature: str
    model_name: str
    """The catalogue's name of the model."""
    model: str
    """The provider's name of it."""
    provider: str


class Call(_Call):
    """A call as limits see it: who sends it, and to what. Calls of the same kind and caller are equal."""

    __slots__ = ()

    def __new__(
        cls,
        caller: Caller,
        user: str,
        unit_primitive: str = "",
        *,
        feature: str = "",
        model_name: str = "",
        model: str = "",
        provider: str = "",
    ) -> "Call":
        instance = caller.instance_id or caller.instance_uid
        # Without a call in between: one is made for each request.
        return tuple.__new__(cls, (user, instance, caller.realm, unit_primitive, feature, model_name, model, provider))


class Match:
    """Which calls a limit is for; an empty part is for all."""

    def __init__(self, match: LimitMatch, models: Mapping[str, ModelRecord]) -> None:
        self.instances, self.realms = frozenset(match.instances), frozenset(match.realms)
        self.unit_primitives, self.features = frozenset(match.unit_primitives), frozenset(match.features)
        self.providers = frozenset(match.providers)
        # A relayed call has the provider's name of a model only.
        deployments = [each for name in match.models if name in models for each in models[name].deployments]
        self.models = frozenset((*match.models, *(each.model for each in deployments if each.model)))

    def is_for(self, call: Call) -> bool:
        return (
            (not self.instances or call.instance in self.instances)
            and (not self.realms or call.realm in self.realms)
            and self.is_for_what(call)
        )

    def is_for_what(self, call: Call) -> bool:
        """As `is_for`, for what is asked alone, whoever asks."""
        return (
            (not self.unit_primitives or call.unit_primitive in self.unit_primitives)
            and (not self.features or call.feature in self.features)
            and (not self.models or call.model_name in self.models or call.model in self.models)
            and (not self.providers or call.provider in self.providers)
        )


class Rule:
    """A limit whose amount is there at any time within its period.

    The period begins with the first call, or with the calendar; so no more than the amount passes within it.
    """

    def __init__(
        self, record: LimitRecord, terms: LimitTerms, match: Match, clock: Clock, figures: LimitFigures
    ) -> None:
        self.name = record.name
        self.text = " ".join(record.limit.split())
        self.match = match
        self.is_exact = record.exact
        self.when_down = record.when_down
        self.amount = terms.amount
        self.unit: Unit = terms.unit
        self.is_known_unread = terms.unit in ("requests", "bytes")
        """What a call takes shows before its body is read, and stays taken."""
        self.is_metered = not self.is_known_unread and terms.unit != "streams"
        """Counts tokens or money, of which a call takes an estimate first."""
        self.gives_back = not self.is_known_unread
        """Something of what a call takes may be free again when it ends."""
        self.used: Callable[[int, Spent], int] = MEASURES[terms.unit]
        """(what was reserved, what the call has spent) → what it uses of this limit."""
        self.whole = terms.amount
        """What is there when nothing is taken."""
        self.per = terms.per
        self.shown = Shown(record.name, terms.unit, terms.amount, terms.period_s, is_even=record.burst > 0)
        self.period = terms.period
        self.period_s = terms.period_s
        self.period_ns = int(terms.period_s * SECOND)
        self.is_calendar = terms.is_calendar
        self.figures = figures
        self._clock = clock
        # The amount is no part of it: a reload that changes it goes on with what was counted.
        kept = f"{self.unit} {self.period} {terms.periods} {bool(record.burst)} {' '.join(self.per)}"
        seed = blake2b(f"{self.name}\n{kept}".encode(), digest_size=16).digest()
        self._seeded = blake2b(seed, digest_size=16)

    def whom(self, call: Call) -> tuple[str, ...]:
        """The values of `per`; a user is one of an instance."""
        values = tuple(getattr(call, name) for name in self.per)
        return (*values, call.instance) if "user" in self.per and "instance" not in self.per else values

    def key(self, whom: tuple[str, ...]) -> Key:
        digest = self._seeded.copy()
        for value in whom:
            raw = value.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(raw), raw))
        whole = digest.digest()
        # The lowest bit is set: a number of 0 is a slot that was never used.
        return int.from_bytes(whole[:8], "big", signed=True) | 1, int.from_bytes(whole[8:], "big", signed=True)

    def left(self, numbers: Numbers, slot: int, now: int) -> int:
        """What is left of the amount; below 0 where answers came out longer than reserved."""
        return self.amount - numbers[slot + USED] if numbers[slot + UNTIL] > now else self.amount

    def fits(self, left: int, wanted: int) -> bool:
        """True where `wanted` may be taken. A call larger than the whole limit passes while nothing is taken.

        One that asks nothing of it (no known price, a look at a list) passes always, also where it is overdrawn.
        """
        return wanted <= left or not wanted or wanted > self.whole == left

    def take(self, numbers: Numbers, slot: int, now: int, wanted: int) -> int | None:
        """Count, and return what is left then; None: `wanted` does not fit, and nothing was counted."""
        until = numbers[slot + UNTIL]
        used = numbers[slot + USED] if until > now else 0
        left = self.amount - used
        if wanted > left and not self.fits(left, wanted):
            return None
        if until <= now:
            numbers[slot + UNTIL] = self.end(now)
        numbers[slot + USED] = used + wanted
        return left - wanted

    def untake(self, numbers: Numbers, slot: int, amount: int) -> None:
        """Another limit has refused, in the same moment."""
        numbers[slot + USED] -= amount
        if not numbers[slot + USED]:
            numbers[slot + UNTIL] = 0  # the period begins with a call that passes

    def count(self, numbers: Numbers, slot: int, now: int, more: int) -> None:
        """As `take`, whether or not it fits."""
        if numbers[slot + UNTIL] <= now:
            numbers[slot + UNTIL], numbers[slot + USED] = self.end(now), 0
        numbers[slot + USED] += more

    def end(self, now: int) -> int:
        """Of a slot that begins now."""
        return now + self.length_ns()

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        """Correct a taking by `more`, below 0 for less: in its own period, else what is too much in the present one."""
        numbers = table.numbers
        if table.holds(slot, key) and numbers[slot + UNTIL] == until > now:
            numbers[slot + USED] = max(0, numbers[slot + USED] + more)
        elif more > 0:
            self.count(numbers, table.find(key, now), now, more)

    def noted(self, until: int, amount: int) -> tuple[int, int]:
        """What is written down of a taking, should the worker die."""
        return until, amount

    def wait_ns(self, numbers: Numbers, slot: int, now: int, wanted: int) -> int:
        """How long until `wanted` fits, if nobody else takes."""
        return max(0, numbers[slot + UNTIL] - now)

    def length_ns(self) -> int:
        """How long a window lasts that begins now."""
        if not self.is_calendar:
            return self.period_ns
        wall = self._clock.now()
        return int((end_of(self.period, wall) - wall) * SECOND)


class CalendarRule(Rule):
    """A limit of a day, a week or a month: over when the wall clock says so, too.

    The other clock knows nothing of a wall clock that was wrong and is set right, nor of a machine that slept.
    """

    def left(self, numbers: Numbers, slot: int, now: int) -> int:
        self._look_at_the_wall(numbers, slot, now)
        return super().left(numbers, slot, now)

    def take(self, numbers: Numbers, slot: int, now: int, wanted: int) -> int | None:
        self._look_at_the_wall(numbers, slot, now)
        left = super().take(numbers, slot, now, wanted)
        if left is not None and not numbers[slot + END]:
            self._begin(numbers, slot)
        return left

    def count(self, numbers: Numbers, slot: int, now: int, more: int) -> None:
        super().count(numbers, slot, now, more)
        if not numbers[slot + END]:
            self._begin(numbers, slot)

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        if table.holds(slot, key):
            self._look_at_the_wall(table.numbers, slot, now)
        super().give(table, key, slot, until, now, more)

    def _begin(self, numbers: Numbers, slot: int) -> None:
        numbers[slot + END] = int(end_of(self.period, self._clock.now()))

    def _look_at_the_wall(self, numbers: Numbers, slot: int, now: int) -> None:
        end, wall = numbers[slot + END], self._clock.now()
        if 0 < end <= wall:
            numbers[slot + UNTIL] = numbers[slot + END] = 0
        elif end - wall > SHORTEST_S[self.period] and (nearer := end_of(self.period, wall)) < end:
            # Begun by a clock that was ahead: it would last into the next one.
            numbers[slot + END] = int(nearer)
            numbers[slot + UNTIL] = min(numbers[slot + UNTIL], now + int((nearer - wall) * SECOND))


class FlowRule(Rule):
    """A limit with a burst: so much at once, then evenly. GCRA: a slot's UNTIL is when it will have drained."""

    def __init__(
        self, record: LimitRecord, terms: LimitTerms, match: Match, clock: Clock, figures: LimitFigures
    ) -> None:
        super().__init__(record, terms, match, clock, figures)
        self.burst = self.whole = record.burst

    def left(self, numbers: Numbers, slot: int, now: int) -> int:
        drained_ns = max(0, numbers[slot + UNTIL] - now)
        # Rounded up: half a request that has not yet flowed off is one that is still there.
        return self.burst - -(-drained_ns * self.amount // self.period_ns)

    def take(self, numbers: Numbers, slot: int, now: int, wanted: int) -> int | None:
        left = self.left(numbers, slot, now)
        if wanted > left and not self.fits(left, wanted):
            return None
        numbers[slot + UNTIL] = max(now, numbers[slot + UNTIL]) + self.weight(wanted)
        return self.left(numbers, slot, now)

    def untake(self, numbers: Numbers, slot: int, amount: int) -> None:
        numbers[slot + UNTIL] -= self.weight(amount)

    def length_ns(self) -> int:
        """While this server counts alone, by windows: in this time the whole burst has flowed off."""
        return self.weight(self.burst)

    def noted(self, until: int, amount: int) -> tuple[int, int]:
        return 0, self.weight(amount)

    def weight(self, amount: int) -> int:
        """How long `amount` takes to flow off, in nanoseconds; below 0 for less than nothing."""
        return max(-FOREVER // 2, min(amount * self.period_ns // self.amount, FOREVER // 2))

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        slot = table.find(key, now)
        numbers = table.numbers
        numbers[slot + UNTIL] = max(now, numbers[slot + UNTIL]) + self.weight(more)

    def wait_ns(self, numbers: Numbers, slot: int, now: int, wanted: int) -> int:
        return self.flow_ns(numbers[slot + UNTIL] - now, wanted)

    def flow_ns(self, drained_ns: int, wanted: int) -> int:
        """How long until `wanted` is there again, where all that was taken has flowed off in `drained_ns`."""
        return max(0, drained_ns - self.weight(self.burst - min(wanted, self.burst)))


class StreamRule(Rule):
    """A limit on what is under way at the same time."""

    def end(self, now: int) -> int:
        return FOREVER

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        numbers = table.numbers
        if table.holds(slot, key):
            numbers[slot + USED] = max(0, numbers[slot + USED] + more)
            if not numbers[slot + USED]:
                numbers[slot + UNTIL] = 0

    def wait_ns(self, numbers: Numbers, slot: int, now: int, wanted: int) -> int:
        return SECOND  # nobody knows when an answer ends


def make_rule(record: LimitRecord, models: Mapping[str, ModelRecord], clock: Clock, metrics: Metrics) -> Rule:
    """The rule of a record that `torana check` found good."""
    terms = read_limit(record.limit)
    kind = FlowRule if record.burst else _kind(terms)
    figures = metrics.limit(record.name, terms.unit, 1 / USD if terms.unit == "usd" else 1.0)
    return kind(record, terms, Match(record.match, models), clock, figures)


def _kind(terms: LimitTerms) -> type[Rule]:
    if not terms.period:
        return StreamRule
    return CalendarRule if terms.is_calendar else Rule
