"""ADMIT: reserve before a call is sent, settle when it has ended.

`Limits` is one catalogue's limits over the counts of this server; a reload makes another over the same counts.
A call takes from every limit that it meets, or from none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torana.caller import Caller
from torana.catalog.limit_text import Unit
from torana.catalog.records import FeatureRecord, LimitMatch, LimitRecord
from torana.catalog.snapshot import Catalogue
from torana.clock import Clock
from torana.limits.reached import SHOWN_CHARS, LimitReached, Standing
from torana.limits.rules import SECOND, Call, Rule, make_rule
from torana.limits.table import Key, Table
from torana.telemetry.metrics import Metrics

REMEMBERED = 2_000
"""Kinds of calls whose limits are remembered; clients have a say in them, so that a full memory is emptied."""


class Spent(NamedTuple):
    """What a call uses, or is expected to. Money in billionths of a dollar, None where no price is known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None


class Taken(NamedTuple):
    """What one limit has given a call."""

    rule: Rule
    key: Key
    slot: int
    until: int
    amount: int
    line: int
    """Where it is noted, should the worker die."""


class Hold:
    """What a call has taken of its limits. Settle it in every case; only the first time counts."""

    __slots__ = ("expected", "is_settled", "standings", "taken")

    def __init__(self, taken: Sequence[Taken], standings: Sequence[Standing], expected: Spent) -> None:
        self.taken = taken
        self.expected = expected
        """What was reserved; nothing where no limit counts tokens or money."""
        self.standings = standings
        """For the headers of the answer."""
        self.is_settled = False


class Limits:
    """The limits of one catalogue."""

    def __init__(self, catalogue: Catalogue, table: Table, clock: Clock, metrics: Metrics) -> None:
        self._table = table
        self._clock = clock
        self._metrics = metrics
        self.rules = tuple(make_rule(record, catalogue.models, clock, metrics) for record in all_records(catalogue))
        self._early = {
            name: tuple(rule for rule in self.rules if _is_early(rule, name)) for name in ("", *catalogue.features)
        }
        """Feature → its limits that can be looked at before the body is there; none by the empty name."""
        self._applying: dict[tuple[str, ...], tuple[Rule, ...]] = {}

    def applying(self, call: Call) -> tuple[Rule, ...]:
        """The limits that a call meets."""
        if not self.rules:
            return ()
        kind = (
            call.unit_primitive,
            call.feature,
            call.model_name,
            call.model,
            call.provider,
            call.realm,
            call.instance,
        )
        found = self._applying.get(kind)
        if found is None:
            found = tuple(rule for rule in self.rules if rule.match.is_for(call))
            if len(self._applying) >= REMEMBERED:
                self._applying.clear()
            self._applying[kind] = found
        return found

    def glance(self, caller: Caller, user: str, feature: str = "") -> None:
        """Turn a call away before its body is read, where its caller has used up a limit on requests already.

        feature  that of the route, where it has one
        Takes nothing. Raises LimitReached.
        """
        if not self._early[feature]:
            return
        call = Call(caller, user, feature=feature)
        now = int(self._clock.monotonic() * SECOND)
        table = self._table
        table.lock()
        try:
            met = [
                (rule, slot)
                for rule in self._early[feature]
                if rule.match.is_for(call) and (slot := table.look(rule.key(rule.whom(call)))) >= 0
            ]
            if not all(rule.fits(table, slot, now, 1) for rule, slot in met):
                raise self._refusal([rule for rule, _ in met], call, [slot for _, slot in met], [1] * len(met), now)
        finally:
            table.unlock()

    def left(self, call: Call) -> list[tuple[Rule, int]]:
        """How much each limit that the call meets has left; takes nothing."""
        now = int(self._clock.monotonic() * SECOND)
        table = self._table
        table.lock()
        try:
            met = [(rule, table.look(rule.key(rule.whom(call)))) for rule in self.applying(call)]
            return [(rule, rule.amount if slot < 0 else max(0, rule.left(table, slot, now))) for rule, slot in met]
        finally:
            table.unlock()

    async def hold(self, call: Call, expected: Callable[[], Spent]) -> Hold | None:
        """Reserve what the call is expected to use; None where nothing limits it. Raises LimitReached.

        expected  asked only where a limit counts tokens or money
        """
        rules = self.applying(call)
        if not rules:
            return None
        estimate = expected() if any(rule.is_metered for rule in rules) else Spent()
        return self._take(rules, call, estimate)

    def settle(self, hold: Hold | None, spent: Spent) -> None:
        """The call has ended, having used so much; what was reserved beyond it is free again."""
        if hold is None or hold.is_settled:
            return
        hold.is_settled = True
        now = int(self._clock.monotonic() * SECOND)
        table = self._table
        table.lock()
        try:
            for rule, key, slot, until, reserved, line in hold.taken:
                used = _used(rule.unit, reserved, spent)
                rule.figures.spent(reserved, used)
                more = -reserved if rule.unit == "streams" else used - reserved
                if more:
                    rule.give(table, key, slot, until, now, more)
                table.forget(line)
        finally:
            table.unlock()

    def _amount(self, rule: Rule, estimate: Spent) -> int:
        if rule.unit == "usd" and estimate.cost is None:
            self._metrics.unpriced(rule.name, rule.unit)
        return _used(rule.unit, 0, estimate) if rule.is_metered else 1

    def _take(self, rules: Sequence[Rule], call: Call, estimate: Spent) -> Hold:
        wanted = [self._amount(rule, estimate) for rule in rules]
        now = int(self._clock.monotonic() * SECOND)
        table = self._table
        keys = [rule.key(rule.whom(call)) for rule in rules]
        taken, standings = [], []
        table.lock()
        try:
            slots = table.find_all(keys, now)
            for rule, slot, amount in zip(rules, slots, wanted, strict=True):
                if not rule.fits(table, slot, now, amount):
                    raise self._refusal(rules, call, slots, wanted, now)
            for rule, key, slot, amount in zip(rules, keys, slots, wanted, strict=True):
                until = rule.take(table, slot, now, amount)
                line = table.note(key, until, rule.weight(amount)) if rule.gives_back else -1
                taken.append(Taken(rule, key, slot, until, amount, line))
                standings.append(rule.standing(table, slot, now))
                rule.figures.took(amount)
        finally:
            table.unlock()
        return Hold(taken, standings, estimate)

    def _refusal(
        self, rules: Sequence[Rule], call: Call, slots: Sequence[int], wanted: Sequence[int], now: int
    ) -> LimitReached:
        """Names the limit that lets the call wait longest."""
        table = self._table
        standings = [rule.standing(table, slot, now) for rule, slot in zip(rules, slots, strict=True)]
        longest, which = -1, 0
        for index, (rule, slot, amount) in enumerate(zip(rules, slots, wanted, strict=True)):
            if rule.fits(table, slot, now, amount):
                continue
            rule.figures.refused()
            wait_ns = rule.wait_ns(table, slot, now, amount)
            if wait_ns > longest:
                longest, which = wait_ns, index
        rule = rules[which]
        whose = describe(rule, call)
        return LimitReached(standings, standings[which], rule.text, whose, longest / SECOND, self._clock.now())


def all_records(catalogue: Catalogue) -> Iterable[LimitRecord]:
    """The limits of limits.yml, then those of the features."""
    yield from catalogue.limits.values()
    for feature in catalogue.features.values():
        if feature.limit:
            yield of_feature(feature)


def of_feature(feature: FeatureRecord) -> LimitRecord:
    return LimitRecord(name=f"feature/{feature.name}", limit=feature.limit, match=LimitMatch(features=(feature.name,)))


def _is_early(rule: Rule, feature: str) -> bool:
    """Whether nothing but the caller and the route's feature decides about a limit."""
    match = rule.match
    if rule.unit != "requests" or match.unit_primitives or match.models or match.providers:
        return False
    known = {"instance", "user", "realm"} | ({"feature"} if feature else set())
    return known.issuperset(rule.per) and (not match.features or feature in match.features)


def describe(rule: Rule, call: Call) -> str:
    """Whose limit it is: `user 7 of instance acme and model gpt-5`."""
    if not rule.per:
        return "all callers together"
    words = []
    for name in rule.per:
        value = getattr(call, name)[:SHOWN_CHARS] or "(none)"
        words.append(f"{name.replace('_', ' ')} {value}")
        if name == "user" and call.instance:
            words[-1] += f" of instance {call.instance[:SHOWN_CHARS]}"
    return " and ".join(words)


def _used(unit: Unit, reserved: int, spent: Spent) -> int:
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
