"""What limits would do to traffic: the real rules over a table of their own, with a clock that is moved by hand.

Calls of a flow come evenly, its users in turn, and nobody asks again; so a figure is what the limits let pass at
best. All servers together count as one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count

from torana.caller import Caller
from torana.catalog.limit_text import USD
from torana.catalog.snapshot import Catalogue
from torana.chat import Usage
from torana.clock import Clock
from torana.limits.estimate import DEFAULT_OUTPUT_TOKENS, price
from torana.limits.here import Here
from torana.limits.hold import Hold, Met, Refused, Tally, Together
from torana.limits.limits import all_records
from torana.limits.reached import retry_after_s
from torana.limits.rules import SECOND, Call, Rule, make_rule
from torana.limits.spent import Spent
from torana.limits.table import Table
from torana.telemetry.metrics import Metrics
from torana.usage.prices import Price

MOST_CALLS = 1_000_000
"""In one simulation: about half a minute's work."""
REMEMBERED = 10_000
"""Users of a flow whose limits are worked out once; those of all others each time, so that memory is bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Calls of one kind."""

    name: str
    calls_per_s: Fraction
    """Of all users together."""
    users: int = 1
    instance: str = ""
    realm: str = ""
    unit_primitive: str = ""
    feature: str = ""
    model_name: str = ""
    model: str = ""
    provider: str = ""
    prices: Price | None = None
    body_bytes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    """What an answer uses in the end."""
    allowed_tokens: int = DEFAULT_OUTPUT_TOKENS
    """Output tokens that are reserved until then."""
    seconds: float = 0.0
    """How long an answer takes."""


@dataclass(slots=True)
class Outcome:
    """What became of a flow."""

    flow: Flow
    sent: int = 0
    passed: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)
    """Limit → calls; of several that refuse, the one that takes longest."""
    first_refused_s: float | None = None
    """Seconds from the beginning."""
    longest_wait_s: int = 0
    """The longest `Retry-After`."""
    lowest: dict[str, float] = field(default_factory=dict)
    """Limit → what was left of it when it was least, in its unit, of money dollars; only limits that the flow meets."""
    uncounted: tuple[str, ...] = ()
    """Limits on money that let it pass uncounted, for no price is known."""

    @property
    def refused(self) -> int:
        return self.sent - self.passed

    def refuse(self, refused: Refused, now_s: float) -> None:
        which = refused.longest
        self.refused_by[refused.rules[which].name] += 1
        self.longest_wait_s = max(self.longest_wait_s, retry_after_s(refused.waits_ns[which] / SECOND))
        if self.first_refused_s is None:
            self.first_refused_s = now_s


class SimulatedClock(Clock):
    """Begins at a moment of the real calendar and goes on when it is told to."""

    def __init__(self, begins_at: float) -> None:
        self._begins_at = begins_at
        self.gone_ns = 0
        """Whole, as rules count: by seconds that are a little short, a period would end after the call that begins
        the next one."""

    @property
    def gone_s(self) -> float:
        return self.gone_ns / SECOND

    def now(self) -> float:
        return self._begins_at + self.gone_s

    def monotonic(self) -> float:
        return 1.0 + (self.gone_ns + 0.5) / SECOND  # so that what is cut off is no whole nanosecond


class _Run:
    """One flow under way. What all its calls have in common is worked out once."""

    def __init__(self, flow: Flow, rules: Iterable[Rule]) -> None:
        self.outcome = Outcome(flow)
        self.wanted = _spent(flow, flow.allowed_tokens)
        self.together = Together([rule for rule in rules if rule.match.is_for(self._call(0))])
        limited = self.together.rules
        if self.wanted.cost is None:
            self.outcome.uncounted = tuple(rule.name for rule in limited if rule.unit == "usd")
        self.reserved = self.together.amounts(flow.body_bytes)
        for index, rule in self.together.metered:
            self.reserved[index] = rule.used(0, self.wanted)
        used = _spent(flow, flow.output_tokens)
        self.used = [rule.used(reserved, used) for rule, reserved in zip(limited, self.reserved, strict=True)]
        self.lowest = [rule.whole for rule in limited]
        self._known: dict[int, Met] = {}
        self._of_all = [
            None if "user" in rule.per else Tally.of(index, rule, self._call(0)) for index, rule in enumerate(limited)
        ]
        """The counts that all users have together."""

    def send(self, here: Here, now_s: float) -> Hold | None:
        """The next call; None where nothing of it is given back when it ends."""
        outcome = self.outcome
        user = outcome.sent % outcome.flow.users
        outcome.sent += 1
        met = self._known.get(user) or self._meet(user)
        try:
            hold = here.take(met, self.reserved, self.wanted)
        except Refused as refused:
            outcome.refuse(refused, now_s)
            return None
        outcome.passed += 1
        if hold is not None:
            self.lowest = list(map(min, self.lowest, hold.lefts))
        return hold if met.returning else None

    def end(self) -> Outcome:
        if self.outcome.passed:
            for rule, left in zip(self.together.rules, self.lowest, strict=True):
                self.outcome.lowest[rule.name] = left / USD if rule.unit == "usd" else left
        return self.outcome

    def _meet(self, user: int) -> Met:
        call = self._call(user)
        tallies = [
            shared or Tally.of(index, rule, call)
            for index, (rule, shared) in enumerate(zip(self.together.rules, self._of_all, strict=True))
        ]
        found = Met(self.together, tallies)
        if user < REMEMBERED:
            self._known[user] = found
        return found

    def _call(self, user: int) -> Call:
        flow = self.outcome.flow
        return Call(
            Caller(instance_id=flow.instance, realm=flow.realm),
            f"user-{user + 1}",
            flow.unit_primitive,
            feature=flow.feature,
            model_name=flow.model_name,
            model=flow.model,
            provider=flow.provider,
        )


def simulate(
    catalogue: Catalogue, metrics: Metrics, flows: Sequence[Flow], lasts_s: float, begins_at: float
) -> tuple[list[Outcome], int]:
    """Send every flow for `lasts_s`; the outcomes in the flows' order, and how many counts a server would give up.

    begins_at  Unix seconds; days, weeks and months go by the calendar
    """
    clock = SimulatedClock(begins_at)
    here = Here(Table(), clock)
    rules = [make_rule(record, catalogue.models, clock, metrics) for record in all_records(catalogue)]
    runs = [_Run(flow, rules) for flow in flows]
    order = count()
    events: list[tuple[int, int, _Run, Hold | None]] = [(0, next(order), run, None) for run in runs]
    while events:
        clock.gone_ns, _, run, hold = heappop(events)
        if hold is not None:
            here.settle(hold, run.used)
            continue
        flow = run.outcome.flow
        hold = run.send(here, clock.gone_s)
        if hold is not None:
            heappush(events, (clock.gone_ns + int(flow.seconds * SECOND), next(order), run, hold))
        due_ns = run.outcome.sent * SECOND * flow.calls_per_s.denominator // flow.calls_per_s.numerator
        if due_ns < lasts_s * SECOND:
            heappush(events, (due_ns, next(order), run, None))
    return [run.end() for run in runs], here.table.lost


def _spent(flow: Flow, output_tokens: int) -> Spent:
    return price(Usage(input_tokens=flow.input_tokens, output_tokens=output_tokens), flow.prices)
