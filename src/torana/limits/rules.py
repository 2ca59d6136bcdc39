"""One limit, ready to count with: which calls it is for, under which key, and what a slot of the table means to it.

All three kinds ask first and take afterwards, so that a call which meets several limits takes from all or none.
Amounts are whole: requests, tokens, billionths of a dollar, streams.
"""

from collections.abc import Mapping
from hashlib import blake2b

from torana.caller import Caller
from torana.catalog.limit_text import USD, LimitTerms, Unit, read_limit
from torana.catalog.model_records import ModelRecord
from torana.catalog.records import LimitMatch, LimitRecord
from torana.clock import Clock
from torana.limits.calendar import end_of
from torana.limits.reached import Shown, Standing
from torana.limits.table import FOREVER, UNTIL, USED, Key, Table
from torana.telemetry.limit_figures import LimitFigures
from torana.telemetry.metrics import Metrics

SECOND = 1_000_000_000
"""Times are whole nanoseconds."""


class Call:
    """A call as limits see it: who sends it, and to what. `values` are looked up by a limit's `per`."""

    __slots__ = (
        "estimate",
        "feature",
        "instance",
        "model",
        "model_name",
        "provider",
        "realm",
        "unit_primitive",
        "user",
    )

    def __init__(
        self,
        caller: Caller,
        user: str,
        unit_primitive: str = "",
        *,
        feature: str = "",
        model_name: str = "",
        model: str = "",
        provider: str = "",
    ) -> None:
        self.instance = caller.instance_id or caller.instance_uid
        self.user = user
        self.realm = caller.realm
        self.unit_primitive = unit_primitive
        self.feature = feature
        self.model_name = model_name
        """The catalogue's name of the model."""
        self.model = model
        """The provider's name of it."""
        self.provider = provider


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
        self.is_metered = terms.unit not in ("requests", "streams")
        """Counts tokens or money, of which a call takes an estimate first."""
        self.gives_back = terms.unit != "requests"
        """Something of what a call takes may be free again when it ends."""
        self.per = terms.per
        self.shown = Shown(record.name, terms.unit, terms.amount, terms.period_s)
        self.period = terms.period
        self.period_s = terms.period_s
        self.period_ns = int(terms.period_s * SECOND)
        self.is_calendar = terms.is_calendar
        self.figures = figures
        self._clock = clock
        # The amount is no part of it: a reload that changes it goes on with what was counted.
        kept = f"{self.unit} {self.period} {terms.periods} {bool(record.burst)} {' '.join(self.per)}"
        self._seed = blake2b(f"{self.name}\n{kept}".encode(), digest_size=16).digest()

    def whom(self, call: Call) -> tuple[str, ...]:
        """The values of `per`; a user is one of an instance."""
        values = tuple(getattr(call, name) for name in self.per)
        return (*values, call.instance) if "user" in self.per and "instance" not in self.per else values

    def key(self, whom: tuple[str, ...]) -> Key:
        digest = blake2b(self._seed, digest_size=16)
        for value in whom:
            raw = value.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(raw) + raw)
        whole = digest.digest()
        # The lowest bit is set: a number of 0 is a slot that was never used.
        return int.from_bytes(whole[:8], "big", signed=True) | 1, int.from_bytes(whole[8:], "big", signed=True)

    def left(self, table: Table, slot: int, now: int) -> int:
        """What is left of the amount; below 0 where answers came out longer than reserved."""
        numbers = table.numbers
        return self.amount - (numbers[slot + USED] if numbers[slot + UNTIL] > now else 0)

    def fits(self, table: Table, slot: int, now: int, wanted: int) -> bool:
        """True where `wanted` may be taken. A call larger than the whole limit passes while nothing is taken."""
        left = self.left(table, slot, now)
        return wanted <= left or (wanted > self.amount == left)

    def take(self, table: Table, slot: int, now: int, wanted: int) -> int:
        """Count; returns when the slot is over, which tells this period from the next."""
        numbers = table.numbers
        until = numbers[slot + UNTIL]
        if until <= now:
            until = numbers[slot + UNTIL] = now + self.length_ns()
            numbers[slot + USED] = wanted
        else:
            numbers[slot + USED] += wanted
        return until

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        """Correct a taking by `more`, below 0 for less: in its own period, else what is too much in the present one."""
        numbers = table.numbers
        if table.holds(slot, key) and numbers[slot + UNTIL] == until > now:
            numbers[slot + USED] = max(0, numbers[slot + USED] + more)
        elif more > 0:
            self.take(table, table.find(key, now), now, more)

    def weight(self, amount: int) -> int:
        """What taking `amount` changed a number of the slot by."""
        return amount

    def wait_ns(self, table: Table, slot: int, now: int, wanted: int) -> int:
        """How long until `wanted` fits, if nobody else takes."""
        return max(0, table.numbers[slot + UNTIL] - now)

    def standing(self, table: Table, slot: int, now: int) -> Standing:
        until = table.numbers[slot + UNTIL]
        reset_s = (until - now) / SECOND if now < until < FOREVER else 0.0
        left = self.left(table, slot, now)
        return Standing(self.shown, left, reset_s)

    def length_ns(self) -> int:
        """How long a window lasts that begins now."""
        if not self.is_calendar:
            return self.period_ns
        wall = self._clock.now()
        return int((end_of(self.period, wall) - wall) * SECOND)


class FlowRule(Rule):
    """A limit with a burst: so much at once, then evenly. GCRA: a slot's UNTIL is when it will have drained."""

    def __init__(
        self, record: LimitRecord, terms: LimitTerms, match: Match, clock: Clock, figures: LimitFigures
    ) -> None:
        super().__init__(record, terms, match, clock, figures)
        self.burst = record.burst

    def left(self, table: Table, slot: int, now: int) -> int:
        drained_ns = max(0, table.numbers[slot + UNTIL] - now)
        # Rounded up: half a request that has not yet flowed off is one that is still there.
        return self.burst - -(-drained_ns * self.amount // self.period_ns)

    def fits(self, table: Table, slot: int, now: int, wanted: int) -> bool:
        left = self.left(table, slot, now)
        return wanted <= left or (wanted > self.burst == left)

    def take(self, table: Table, slot: int, now: int, wanted: int) -> int:
        numbers = table.numbers
        numbers[slot + UNTIL] = max(now, numbers[slot + UNTIL]) + self.weight(wanted)
        return 0

    def weight(self, amount: int) -> int:
        return amount * self.period_ns // self.amount

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        slot = table.find(key, now)
        numbers = table.numbers
        numbers[slot + UNTIL] = max(now, numbers[slot + UNTIL]) + self.weight(more)

    def wait_ns(self, table: Table, slot: int, now: int, wanted: int) -> int:
        over = min(wanted, self.burst) - self.left(table, slot, now)
        return max(0, over * self.period_ns // self.amount)


class StreamRule(Rule):
    """A limit on what is under way at the same time."""

    def take(self, table: Table, slot: int, now: int, wanted: int) -> int:
        numbers = table.numbers
        numbers[slot + UNTIL] = FOREVER
        numbers[slot + USED] += wanted
        return FOREVER

    def give(self, table: Table, key: Key, slot: int, until: int, now: int, more: int) -> None:
        numbers = table.numbers
        if table.holds(slot, key):
            numbers[slot + USED] = max(0, numbers[slot + USED] + more)
            if not numbers[slot + USED]:
                numbers[slot + UNTIL] = 0

    def wait_ns(self, table: Table, slot: int, now: int, wanted: int) -> int:
        return SECOND  # nobody knows when an answer ends


def make_rule(record: LimitRecord, models: Mapping[str, ModelRecord], clock: Clock, metrics: Metrics) -> Rule:
    """The rule of a record that `torana check` found good."""
    terms = read_limit(record.limit)
    kind = FlowRule if record.burst else Rule if terms.period else StreamRule
    figures = metrics.limit(record.name, terms.unit, 1 / USD if terms.unit == "usd" else 1.0)
    return kind(record, terms, Match(record.match, models), clock, figures)
