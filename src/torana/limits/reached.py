"""What a caller is told: the 429 that names the limit, whose it is and when it is free again, and the headers."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from torana.catalog.limit_text import USD, Unit
from torana.errors import Refusal

TEXT = "Too many requests. Please try again later."
"""Contract 1.2."""
SHOWN_CHARS = 80
"""Of a caller's own names in the refusal; they may be of any length."""

DEGRADED = (b"x-torana-limits", b"degraded")
"""This server counted by itself: the shared counts cannot be reached."""

_QUOTA_UNITS = {"requests": "requests", "streams": "concurrent-requests", "usd": "micro-usd"}


class Standing:
    """How a call stands with one limit: after it was taken, or when it was refused."""

    __slots__ = ("amount", "left", "name", "period_s", "reset_s", "unit")

    def __init__(self, name: str, unit: Unit, amount: int, left: int, period_s: float, reset_s: float) -> None:
        self.name = name
        self.unit = unit
        self.amount = amount
        self.left = max(0, left)
        self.period_s = period_s
        """0 for streams."""
        self.reset_s = reset_s
        """Until the whole amount is there again."""


Headers = list[tuple[bytes, bytes]]


class LimitReached(Refusal):
    """429 for a limit of our own."""

    def __init__(
        self,
        standings: Sequence[Standing],
        reached: Standing,
        text: str,
        whose: str,
        wait_s: float,
        now: float,
        *,
        is_degraded: bool = False,
    ) -> None:
        """
        standings  every limit that the call met
        reached    the one that lets no more pass for longest
        text       as the operator wrote it
        wait_s     until the call would pass, if nobody else takes
        now        Unix seconds
        """
        after_s = max(1, math.ceil(wait_s))
        self.standings = tuple(standings)
        self.reached = reached
        self.retry_after_s = after_s
        is_spent = reached.period_s >= 86_400
        headers = [(b"retry-after", b"%d" % after_s)]
        if is_spent:
            # The vendors' SDKs obey it: without it they would sleep until midnight, or ask again and again.
            headers.append((b"x-should-retry", b"false"))
        if reached.period_s:
            when = f"free again at {datetime.fromtimestamp(now + after_s, UTC):%Y-%m-%dT%H:%M:%SZ}, in {after_s} s"
        else:
            when = "free again when one of them ends"
        super().__init__(
            429,
            "limit_reached",
            TEXT,
            missing=f"{reached.name}: {text}",
            remedy=f"Limit `{reached.name}` ({text}) is used up for {whose}; {when}.",
            headers=tuple(headers + ratelimit_headers(standings, is_degraded=is_degraded)),
            is_retryable=not is_spent,
        )


class LimitsUnavailable(Refusal):
    """503: a limit says `when_down: closed`, and the shared counts cannot be reached."""

    def __init__(self, name: str, text: str) -> None:
        # Spread out, so that not everybody comes back in the same second.
        after_s = random.randint(1, 5)  # noqa: S311 jitter, no secret
        super().__init__(
            503,
            "limits_unavailable",
            "Service Unavailable",
            missing=f"{name}: {text}",
            headers=((b"retry-after", b"%d" % after_s), DEGRADED),
        )


def ratelimit_headers(standings: Sequence[Standing], *, is_degraded: bool = False) -> Headers:
    """RateLimit and RateLimit-Policy, one item for each limit.

    Source: IETF draft-ietf-httpapi-ratelimit-headers-11. Money is told in millionths of a dollar.
    """
    if not standings:
        return []
    policies, items = [], []
    for each in standings:
        quota, left = each.amount, each.left
        if each.unit == "usd":
            quota, left = quota * 1_000_000 // USD, left * 1_000_000 // USD
        unit = _QUOTA_UNITS.get(each.unit, each.unit.replace("_", "-"))
        window = f";w={each.period_s:.0f}" if each.period_s else ""
        policies.append(f'"{each.name}";q={quota};qu="{unit}"{window}')
        items.append(f'"{each.name}";r={left}' + (f";t={math.ceil(each.reset_s)}" if each.period_s else ""))
    found = [(b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(items).encode())]
    return [*found, DEGRADED] if is_degraded else found


def openai_headers(standings: Sequence[Standing]) -> Headers:
    """x-ratelimit-*, as OpenAI's SDKs and tools read them. Source: OpenAI API reference, rate limits in headers."""
    found: Headers = []
    for name, units in (("requests", ("requests",)), ("tokens", ("tokens", "input_tokens", "output_tokens"))):
        each = _tightest(standings, units)
        if each is not None:
            found += [
                (f"x-ratelimit-limit-{name}".encode(), b"%d" % each.amount),
                (f"x-ratelimit-remaining-{name}".encode(), b"%d" % each.left),
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
                (f"{name}-limit".encode(), b"%d" % each.amount),
                (f"{name}-remaining".encode(), b"%d" % each.left),
                (f"{name}-reset".encode(), reset.encode()),
            ]
    return found


def _tightest(standings: Sequence[Standing], units: Sequence[str]) -> Standing | None:
    """Of several limits on the same thing, the one that will stop the caller first; the first unit that has one."""
    for unit in units:
        found = [each for each in standings if each.unit == unit]
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
