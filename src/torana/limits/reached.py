"""What a caller is told: the 429 that names the limit, whose it is and when it is free again, and the headers."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from torana.catalog.limit_text import USD, Unit
from torana.errors import Refusal
from torana.headers import retry_after, soon

TEXT = "Too many requests. Please try again later."
"""Contract 1.2."""
LONGEST_SLEEP_S = 300
"""Nobody who sits before an agent waits for longer without a word."""
SHOWN_CHARS = 80
"""Of a caller's own names in the refusal; they may be of any length."""

DEGRADED = (b"x-torana-limits", b"degraded")
"""This server counted by itself: the shared counts cannot be reached."""

_QUOTA_UNITS = {"requests": "requests", "bytes": "content-bytes", "streams": "concurrent-requests", "usd": "micro-usd"}


class Shown:
    """What is told of a limit, made once for all its answers."""

    __slots__ = ("amount", "is_even", "item", "name", "period_s", "policy", "unit")

    def __init__(self, name: str, unit: Unit, amount: int, period_s: float, *, is_even: bool = False) -> None:
        """
        period_s  0 for streams
        is_even   what is used up comes back evenly over the period, and not at its end
        """
        self.name = name
        self.unit = unit
        self.amount = amount
        self.period_s = period_s
        self.is_even = is_even
        window = f";w={period_s:.0f}" if period_s else ""
        shown_unit = _QUOTA_UNITS.get(unit, unit.replace("_", "-"))
        self.policy = f'"{name}";q={shown_amount(unit, amount)};qu="{shown_unit}"{window}'.encode()
        self.item = f'"{name}";r='.encode()


class Standing(NamedTuple):
    """How a call stands with one limit: after it was taken, or when it was refused."""

    limit: Shown
    left: int
    """Below 0 where answers came out longer than reserved."""
    reset_s: float
    """Until the whole amount is there again."""


def told_amount(unit: Unit, amount: int) -> str:
    """For people to read."""
    return f"{Decimal(amount) / USD:f} USD" if unit == "usd" else str(amount)


def shown_amount(unit: Unit, amount: int) -> int:
    """Headers hold whole numbers: money in millionths of a dollar."""
    return amount * 1_000_000 // USD if unit == "usd" else amount


Headers = list[tuple[bytes, bytes]]


class Told:
    """RateLimit and RateLimit-Policy, one item for each of several limits; made once for all calls that meet them.

    Source: IETF draft-ietf-httpapi-ratelimit-headers-11. Money is told in millionths of a dollar.
    """

    __slots__ = ("_limits", "_pattern", "_policy")

    def __init__(self, limits: Sequence[Shown]) -> None:
        self._limits = tuple(enumerate(limits))
        self._policy = (b"ratelimit-policy", b", ".join([limit.policy for limit in limits]))
        items = [limit.item.replace(b"%", b"%%") + (b"%d;t=%d" if limit.period_s else b"%d") for limit in limits]
        self._pattern = b", ".join(items)

    def headers(self, lefts: Sequence[int], ends: Sequence[int], now: int, *, is_degraded: bool = False) -> Headers:
        """
        lefts  what is left of each limit, in its own unit
        ends   when the whole amount is there again; nanoseconds of the clock that says `now`
        """
        if not self._limits:
            return []
        numbers = []
        for index, limit in self._limits:
            left = lefts[index]
            numbers.append(0 if left <= 0 else left if limit.unit != "usd" else shown_amount("usd", left))
            if limit.period_s:
                numbers.append(max(0, -((now - ends[index]) // 1_000_000_000)))  # whole seconds, rounded up
        found = [self._policy, (b"ratelimit", self._pattern % tuple(numbers))]
        return [*found, DEGRADED] if is_degraded else found


def retry_after_s(wait_s: float) -> int:
    """Whole seconds, as `Retry-After` has them."""
    return max(1, math.ceil(wait_s))


class LimitReached(Refusal):
    """429 for a limit of our own."""

    places: Callable[[], int] | None = None
    """How many calls of the same instance the limit lets pass now; None: more than the instance decides about it."""
    count: Callable[[], None]
    """Counts it once more among the limit's refusals; set where `places` is."""

    def __init__(
        self,
        standings: Sequence[Standing],
        headers: Headers,
        reached: Standing,
        text: str,
        whose: str,
        wait_s: float,
        now: float,
    ) -> None:
        """
        standings  every limit that the call met
        headers    that tell of them
        reached    the one that lets no more pass for longest
        text       as the operator wrote it
        wait_s     until the call would pass, if nobody else takes
        now        Unix seconds
        """
        after_s = retry_after_s(wait_s)
        self.standings = tuple(standings)
        self.reached = reached
        self.retry_after_s = after_s
        self.free_at = int(now + after_s)
        is_spent = reached.limit.period_s >= 86_400 and (not reached.limit.is_even or after_s > LONGEST_SLEEP_S)
        told = [(b"retry-after", b"%d" % after_s)]
        if is_spent:
            # The vendors' SDKs obey it: without it they would sleep until midnight, or ask again and again.
            told.append((b"x-should-retry", b"false"))
        if reached.limit.period_s:
            when = f"free again at {datetime.fromtimestamp(self.free_at, UTC):%Y-%m-%dT%H:%M:%SZ}, in {after_s} s"
        else:
            when = "free again when one of them ends"
        unit, left = reached.limit.unit, reached.left
        stands = f"is used up for {whose}"
        if left > 0 and unit not in ("requests", "streams"):
            # Most of it may be left: what a call may take is reserved, however little it would use.
            call = "this call with its prompt and `max_tokens` may take more"
            if unit == "bytes":
                call = "the body of this call is longer"
            stands = f"has {told_amount(unit, left)} left for {whose}, and {call}"
        super().__init__(
            429,
            "limit_reached",
            TEXT,
            missing=f"{reached.limit.name}: {text}",
            remedy=f"Limit `{reached.limit.name}` ({text}) {stands}; {when}.",
            headers=(*told, *headers),
            is_retryable=not is_spent,
        )


class LimitsUnavailable(Refusal):
    """503: a limit says `when_down: closed`, and the shared counts cannot be reached."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(
            503,
            "limits_unavailable",
            "Service Unavailable",
            missing=f"{name}: {text}",
            headers=(*retry_after(soon()), DEGRADED),
        )


def openai_headers(standings: Sequence[Standing]) -> Headers:
    """x-ratelimit-*, as OpenAI's SDKs and tools read them. Source: OpenAI API reference, rate limits in headers."""
    found: Headers = []
    for name, units in (("requests", ("requests",)), ("tokens", ("tokens", "input_tokens", "output_tokens"))):
        each = _tightest(standings, units)
        if each is not None:
            found += [
                (f"x-ratelimit-limit-{name}".encode(), b"%d" % each.limit.amount),
                (f"x-ratelimit-remaining-{name}".encode(), b"%d" % max(0, each.left)),
                (f"x-ratelimit-reset-{name}".encode(), _duration(each.reset_s).encode()),
            ]
    return found


def anthropic_headers(standings: Sequence[Standing], now: float) -> Headers:
    """anthropic-ratelimit-*; `now` in Unix seconds. Source: Anthropic API reference, rate limits, response headers."""
    found: Headers = []
    for unit in ("requests", "tokens", "input_tokens", "output_tokens"):
        each = _tightest(standings, (unit,))
        if each is not None:
            name = f"anthropic-ratelimit-{unit.replace('_', '-')}"
            reset = f"{datetime.fromtimestamp(math.ceil(now + each.reset_s), UTC):%Y-%m-%dT%H:%M:%SZ}"
            found += [
                (f"{name}-limit".encode(), b"%d" % each.limit.amount),
                (f"{name}-remaining".encode(), b"%d" % max(0, each.left)),
                (f"{name}-reset".encode(), reset.encode()),
            ]
    return found


def _tightest(standings: Sequence[Standing], units: Sequence[str]) -> Standing | None:
    """Of several limits on the same thing, the one that will stop the caller first; the first unit that has one."""
    for unit in units:
        found = [each for each in standings if each.limit.unit == unit]
        if found:
            return min(found, key=lambda each: each.left)
    return None


def _duration(seconds: float) -> str:
    """`1s`, `6m0s`, `1h0m0s`; below a second `120ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
