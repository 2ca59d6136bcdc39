"""What limits would do to traffic: the real rules over a table of their own, with a clock that is moved by hand.

Calls of a flow come evenly, its users in turn, and nobody asks again; so a figure is what the limits let pass at
best. All servers together count as one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from torana.caller import Caller
from torana.catalog.limit_text import USD
from torana.catalog.snapshot import Catalogue
from torana.chat import Usage
from torana.clock import Clock
from torana.limits.estimate import DEFAULT_OUTPUT_TOKENS, price
from torana.limits.here import Here
from torana.limits.hold import Hold
from torana.limits.limits import Limits
from torana.limits.reached import LimitReached
from torana.limits.rules import Call
from torana.limits.spent import Spent
from torana.limits.table import Table
from torana.telemetry.metrics import Metrics
from torana.usage.prices import Price

MOST_CALLS = 1_000_000
"""In one simulation: about a minute's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Calls of one kind."""

    name: str
    calls_per_s: float
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

    @property
    def refused(self) -> int:
        return self.sent - self.passed


class SimulatedClock(Clock):
    """Begins at a moment of the real calendar and goes on when it is told to."""

    def __init__(self, begins_at: float) -> None:
        self._begins_at = begins_at
        self.gone_s = 0.0

    def now(self) -> float:
        return self._begins_at + self.gone_s

    def monotonic(self) -> float:
        return 1.0 + self.gone_s


async def simulate(
    catalogue: Catalogue, metrics: Metrics, flows: Sequence[Flow], lasts_s: float, begins_at: float
) -> list[Outcome]:
    """Send every flow for `lasts_s`; the outcomes in the flows' order.

    begins_at  Unix seconds; days, weeks and months go by the calendar
    """
    clock = SimulatedClock(begins_at)
    limits = Limits(catalogue, Here(Table(), clock), clock, metrics)
    outcomes = [Outcome(flow) for flow in flows]
    order = count()
    events: list[tuple[float, int, Outcome, Hold | None]] = []
    for outcome in outcomes:
        heappush(events, (0.0, next(order), outcome, None))
    while events:
        clock.gone_s, _, outcome, hold = heappop(events)
        flow = outcome.flow
        if hold is not None:
            limits.settle(hold, _spent(flow, flow.output_tokens))
            continue
        hold = await _send(limits, outcome, clock.gone_s)
        if hold is not None:
            heappush(events, (clock.gone_s + flow.seconds, next(order), outcome, hold))
        due_s = outcome.sent / flow.calls_per_s
        if due_s < lasts_s:
            heappush(events, (due_s, next(order), outcome, None))
    return outcomes


async def _send(limits: Limits, outcome: Outcome, now_s: float) -> Hold | None:
    flow = outcome.flow
    user = f"user-{outcome.sent % flow.users + 1}"
    outcome.sent += 1
    call = Call(
        Caller(instance_id=flow.instance, realm=flow.realm),
        user,
        flow.unit_primitive,
        feature=flow.feature,
        model_name=flow.model_name,
        model=flow.model,
        provider=flow.provider,
    )
    try:
        hold = await limits.hold(call, lambda: _spent(flow, flow.allowed_tokens))
    except LimitReached as reached:
        outcome.refused_by[reached.reached.limit.name] += 1
        outcome.longest_wait_s = max(outcome.longest_wait_s, reached.retry_after_s)
        if outcome.first_refused_s is None:
            outcome.first_refused_s = now_s
        return None
    outcome.passed += 1
    for standing in hold.standings if hold is not None else ():
        name = standing.limit.name
        left = standing.left / USD if standing.limit.unit == "usd" else standing.left
        outcome.lowest[name] = min(left, outcome.lowest.get(name, left))
    return hold


def _spent(flow: Flow, output_tokens: int) -> Spent:
    return price(Usage(input_tokens=flow.input_tokens, output_tokens=output_tokens), flow.prices)
