"""ADMIT: reserve before a call is sent, settle when it has ended.

`Limits` is one catalogue's limits over the counts of this server; a reload makes another over the same counts.
A call takes from every limit that it meets, or from none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torana.caller import Caller
from torana.catalog.records import FeatureRecord, LimitMatch, LimitRecord
from torana.catalog.snapshot import Catalogue
from torana.clock import Clock
from torana.limits.hold import Hold, Met, Refused, Together
from torana.limits.reached import SHOWN_CHARS, LimitReached
from torana.limits.rules import SECOND, Call, Rule, make_rule
from torana.limits.spent import NOTHING, Spent
from torana.telemetry.limit_figures import note_spent, note_taken
from torana.telemetry.metrics import Metrics

REMEMBERED, REMEMBERED_CHARS = 8_192, 512
"""Callers and kinds of calls whose limits are remembered; clients have a say in them: a full memory is emptied."""


class Counts(Protocol):
    """Who counts: this server by itself (here.py), or all of them together (leases.py)."""

    def take(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold | None: ...

    async def ask(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold: ...

    def is_short(self) -> bool: ...

    def glance(self, met: Met, amounts: Sequence[int]) -> None: ...

    def places(self, met: Met) -> int: ...

    def left(self, met: Met) -> list[int]: ...

    def settle(self, hold: Hold, amounts: Sequence[int], *, was_sent: bool = True) -> None: ...


class Limits:
    """The limits of one catalogue."""

    def __init__(self, catalogue: Catalogue, counts: Counts, clock: Clock, metrics: Metrics) -> None:
        self._counts = counts
        self._clock = clock
        self._metrics = metrics
        self.rules = tuple(make_rule(record, catalogue.models, clock, metrics) for record in all_records(catalogue))
        self._early = {
            name: tuple(rule for rule in self.rules if _is_early(rule, name)) for name in ("", *catalogue.features)
        }
        """Feature → its limits that can be looked at before the body is there; none by the empty name."""
        self.count_money = any(rule.unit == "usd" for rule in self.rules)
        """Else nobody needs to know what a call costs."""
        self._kinds: dict[tuple[Rule, ...], Together] = {}
        self._known: dict[Call, Met] = {}
        self._known_early: dict[tuple[str, ...], tuple[Call, Met]] = {}

    def _met(self, call: Call) -> Met:
        return self._known.get(call) or self._meet(call)

    def _meet(self, call: Call) -> Met:
        rules = tuple(rule for rule in self.rules if rule.match.is_for(call))
        found = self._together(rules).meet(call)
        # Names may be of any length: the long ones are worked out each time, so that they cannot fill memory.
        if sum(map(len, call)) <= REMEMBERED_CHARS:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[call] = found
        return found

    def _together(self, rules: tuple[Rule, ...]) -> Together:
        found = self._kinds.get(rules)
        if found is None:
            if len(self._kinds) >= REMEMBERED:
                self._kinds.clear()
            found = self._kinds[rules] = Together(rules)
        return found

    def glance(self, caller: Caller, user: str, feature: str = "", body_bytes: int = 1) -> None:
        """Turn a call away before its body is read, where a limit on requests or bytes has no room for it any more.

        feature     that of the route, where it has one
        body_bytes  as its head says; 1 where it does not
        Takes nothing. Raises LimitReached.
        """
        # Mostly nobody is short of anything, and everybody is spared the look.
        if not self._counts.is_short() or not self._early[feature]:
            return
        kind = (caller.instance_id or caller.instance_uid, user, caller.realm, feature)
        call, met = self._known_early.get(kind) or self._meet_early(kind, Call(caller, user, feature=feature))
        try:
            self._counts.glance(met, met.amounts(body_bytes))
        except Refused as refused:
            refusal = self._refusal(call, refused)
            rule = refused.rules[refused.longest]
            # How many pass of those that are counted by their bytes, nobody knows.
            is_told = rule.unit == "requests" and set(rule.per) <= {"instance"} and not rule.match.realms
            if caller.instance_id and is_told:
                alone = Together([rule]).meet(call)
                refusal.places = lambda: self._counts.places(alone)
                refusal.count = rule.figures.refused
            raise refusal from None

    def _meet_early(self, kind: tuple[str, ...], call: Call) -> tuple[Call, Met]:
        """The limits of a call of which only the caller and the route are known; remembered as `_meet` does."""
        rules = tuple(rule for rule in self._early[call.feature] if rule.match.is_for(call))
        found = call, self._together(rules).meet(call)
        if sum(map(len, kind)) <= REMEMBERED_CHARS:
            if len(self._known_early) >= REMEMBERED:
                self._known_early.clear()
            self._known_early[kind] = found
        return found

    def left(self, call: Call) -> list[tuple[Rule, int]]:
        """How much each limit that the call meets has left, as far as this server knows; takes nothing."""
        met = self._met(call)
        return list(zip(met.rules, self._counts.left(met), strict=True))

    async def hold(self, call: Call, expected: Callable[[], Spent], body_bytes: int) -> Hold | None:
        """Reserve what the call is expected to use; None where nothing limits it.

        expected    asked only where a limit counts tokens or money
        body_bytes  of the request, as it came
        Raises LimitReached, or LimitsUnavailable.
        """
        met = self._known.get(call) or self._meet(call)
        if not met.rules:
            return None
        estimate, amounts = NOTHING, met.amounts(body_bytes)
        if met.metered:
            estimate = expected()
            for index, rule in met.metered:
                amounts[index] = rule.used(0, estimate)
                if rule.unit == "usd" and estimate.cost is None:
                    self._metrics.unpriced(rule.name, rule.unit)
        try:
            hold = self._counts.take(met, amounts, estimate)
            if hold is None:
                hold = await self._counts.ask(met, amounts, estimate)
        except Refused as refused:
            raise self._refusal(call, refused) from None
        note_taken(met.figures, amounts)
        return hold

    def settle(self, hold: Hold | None, spent: Spent) -> None:
        """The call has ended, having used so much; what was reserved beyond it is free again."""
        if hold is None or hold.is_settled:
            return
        hold.is_settled = True
        met, amounts = hold.met, [*hold.amounts]
        for index, rule in met.metered:
            amounts[index] = rule.used(amounts[index], spent)
        self._counts.settle(hold, amounts)
        note_spent(met.figures, hold.amounts, amounts)

    def release(self, hold: Hold | None) -> None:
        """The call was never sent: it counts nowhere, as a request neither."""
        if hold is None or hold.is_settled:
            return
        hold.is_settled = True
        amounts = [0] * len(hold.amounts)
        self._counts.settle(hold, amounts, was_sent=False)
        note_spent(hold.met.figures, hold.amounts, amounts)

    def _refusal(self, call: Call, refused: Refused) -> LimitReached:
        """Names the limit that lets the call wait longest."""
        for rule, wait_ns in zip(refused.rules, refused.waits_ns, strict=True):
            if wait_ns >= 0:
                rule.figures.refused()
        which = refused.longest
        rule, standings = refused.rules[which], refused.standings
        return LimitReached(
            standings,
            refused.headers(),
            standings[which],
            rule.text,
            describe(rule, call),
            refused.waits_ns[which] / SECOND,
            self._clock.now(),
        )


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
    if not rule.is_known_unread or match.unit_primitives or match.models or match.providers:
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
