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
from torana.limits.hold import NOTHING, Asked, Hold, Refused, Spent, used
from torana.limits.reached import SHOWN_CHARS, LimitReached
from torana.limits.rules import SECOND, Call, Rule, make_rule
from torana.telemetry.metrics import Metrics

REMEMBERED, REMEMBERED_CHARS = 8_192, 512
"""Callers and kinds of calls whose limits are remembered; clients have a say in them: a full memory is emptied."""


class Counts(Protocol):
    """Who counts: this server by itself (here.py), or all of them together (leases.py)."""

    def take(self, asked: Sequence[Asked], expected: Spent) -> Hold | None: ...

    async def ask(self, asked: Sequence[Asked], expected: Spent) -> Hold: ...

    def glance(self, asked: Sequence[Asked]) -> None: ...

    def left(self, asked: Sequence[Asked]) -> list[int]: ...

    def settle(self, hold: Hold, amounts: Sequence[int]) -> None: ...


class Met:
    """The limits that calls of one kind and caller meet, with their keys."""

    __slots__ = ("asked", "is_metered", "rules")

    def __init__(self, call: Call, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.asked: Sequence[Asked] = [Asked(rule, rule.key(rule.whom(call)), 1) for rule in rules]
        self.is_metered = any(rule.is_metered for rule in rules)


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
        self._known: dict[tuple[str, ...], Met] = {}
        self._known_early: dict[tuple[str, ...], tuple[Call, list[Asked]]] = {}

    def applying(self, call: Call) -> tuple[Rule, ...]:
        """The limits that a call meets."""
        return self._met(call).rules

    def _met(self, call: Call) -> Met:
        kind = (
            call.user, call.instance, call.realm, call.unit_primitive, call.feature, call.model_name, call.model,
            call.provider,
        )  # fmt: skip
        found = self._known.get(kind)
        if found is None:
            found = Met(call, [rule for rule in self.rules if rule.match.is_for(call)])
            # Names may be of any length: the long ones are worked out each time, so that they cannot fill memory.
            if sum(map(len, kind)) <= REMEMBERED_CHARS:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[kind] = found
        return found

    def glance(self, caller: Caller, user: str, feature: str = "") -> None:
        """Turn a call away before its body is read, where its caller has used up a limit on requests already.

        feature  that of the route, where it has one
        Takes nothing. Raises LimitReached.
        """
        if not self._early[feature]:
            return
        kind = (caller.instance_id or caller.instance_uid, user, caller.realm, feature)
        call, asked = self._known_early.get(kind) or self._meet_early(kind, Call(caller, user, feature=feature))
        try:
            self._counts.glance(asked)
        except Refused as refused:
            raise self._refusal(call, refused) from None

    def _meet_early(self, kind: tuple[str, ...], call: Call) -> tuple[Call, list[Asked]]:
        """The limits of a call of which only the caller and the route are known; remembered as `_met` does."""
        rules = [rule for rule in self._early[call.feature] if rule.match.is_for(call)]
        found = call, [Asked(rule, rule.key(rule.whom(call)), 1) for rule in rules]
        if sum(map(len, kind)) <= REMEMBERED_CHARS:
            if len(self._known_early) >= REMEMBERED:
                self._known_early.clear()
            self._known_early[kind] = found
        return found

    def left(self, call: Call) -> list[tuple[Rule, int]]:
        """How much each limit that the call meets has left, as far as this server knows; takes nothing."""
        met = self._met(call)
        return list(zip(met.rules, self._counts.left(met.asked), strict=True))

    async def hold(self, call: Call, expected: Callable[[], Spent]) -> Hold | None:
        """Reserve what the call is expected to use; None where nothing limits it.

        expected  asked only where a limit counts tokens or money
        Raises LimitReached, or LimitsUnavailable.
        """
        if not self.rules:
            return None
        met = self._met(call)
        if not met.rules:
            return None
        estimate, asked = NOTHING, met.asked
        if met.is_metered:
            estimate = expected()
            asked = [Asked(each.rule, each.key, self._amount(each.rule, estimate)) for each in asked]
        try:
            hold = self._counts.take(asked, estimate)
            if hold is None:
                hold = await self._counts.ask(asked, estimate)
        except Refused as refused:
            raise self._refusal(call, refused) from None
        for taken in hold.taken:
            taken.rule.figures.took(taken.amount)
        return hold

    def settle(self, hold: Hold | None, spent: Spent) -> None:
        """The call has ended, having used so much; what was reserved beyond it is free again."""
        if hold is None or hold.is_settled:
            return
        hold.is_settled = True
        amounts = [used(taken.rule.unit, taken.amount, spent) for taken in hold.taken]
        self._counts.settle(hold, amounts)
        for taken, amount in zip(hold.taken, amounts, strict=True):
            taken.rule.figures.spent(taken.amount, amount)

    def _amount(self, rule: Rule, estimate: Spent) -> int:
        if not rule.is_metered:
            return 1
        if rule.unit == "usd" and estimate.cost is None:
            self._metrics.unpriced(rule.name, rule.unit)
        return used(rule.unit, 0, estimate)

    def _refusal(self, call: Call, refused: Refused) -> LimitReached:
        """Names the limit that lets the call wait longest."""
        for each, wait_ns in zip(refused.asked, refused.waits_ns, strict=True):
            if wait_ns >= 0:
                each.rule.figures.refused()
        longest_ns = max(refused.waits_ns)
        which = refused.waits_ns.index(longest_ns)
        rule = refused.asked[which].rule
        return LimitReached(
            refused.standings,
            refused.standings[which],
            rule.text,
            describe(rule, call),
            longest_ns / SECOND,
            self._clock.now(),
            is_degraded=refused.is_degraded,
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
