"""`60 per minute per user`: how limits are written down, read into terms. Pure; knows no counting.

    [amount] [unit] per [period] [per whom]        60 requests per minute per user
    [amount] concurrent streams [per whom]         20 concurrent streams per user and model

Without a unit, requests are meant; without `per whom`, all callers together.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Unit = Literal["requests", "bytes", "input_tokens", "output_tokens", "tokens", "usd", "streams"]
Dimension = Literal["instance", "user", "feature", "unit_primitive", "model", "provider", "realm"]

USD = 1_000_000_000
"""Money is counted in billionths of a dollar: one token of the cheapest models costs some dozens of them."""

EXPECTED = (
    "expected a limit such as `60 per minute per user`, `2M tokens per day per instance`, `5 USD per month` or "
    "`20 concurrent streams per user`"
)
MAX_AMOUNT = 2**53 - 1
"""Beyond it, not every store of counts knows whole numbers exactly."""

PERIOD_S: dict[str, float] = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000}
"""Seconds; of a month, 30 days. Days, weeks and months follow the calendar, see `LimitTerms.is_calendar`."""

_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS: dict[str, Unit] = {
    "": "requests", "request": "requests", "requests": "requests", "call": "requests", "calls": "requests",
    "byte": "bytes", "bytes": "bytes", **dict.fromkeys(_SIZES, "bytes"),
    "input token": "input_tokens", "input tokens": "input_tokens",
    "output token": "output_tokens", "output tokens": "output_tokens",
    "token": "tokens", "tokens": "tokens",
    "usd": "usd", "dollar": "usd", "dollars": "usd",
    "concurrent stream": "streams", "concurrent streams": "streams",
    "concurrent request": "streams", "concurrent requests": "streams",
}  # fmt: skip
_DIMENSIONS: dict[str, Dimension] = {
    "instance": "instance", "user": "user", "feature": "feature", "unit primitive": "unit_primitive",
    "unit_primitive": "unit_primitive", "model": "model", "provider": "provider", "realm": "realm",
}  # fmt: skip
_SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_HEAD = re.compile(
    r"(?P<dollar>\$\s*)?(?P<number>[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]{1,18})(?P<fraction>\.[0-9]{1,9})?"
    r"\s*(?P<scale>[kmb](?![a-z]))?\s*(?P<unit>[a-z_ ]*?)",
    re.ASCII,
)
_PERIOD = re.compile(r"(?:(?P<count>[0-9]{1,4})\s+)?(?P<name>second|minute|hour|day|week|month)s?", re.ASCII)


class BadLimit(Exception):
    """The text is no limit; reads as what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitTerms:
    """How much, of what, in which time, for each of whom."""

    amount: int
    """In `unit`; of money, billionths of a US dollar."""
    unit: Unit
    period: str = ""
    """second, minute, hour, day, week, month; empty for streams, which are counted while they run."""
    periods: int = 1
    """`per 10 minutes` is ten of them."""
    per: tuple[Dimension, ...] = ()
    """One count for each combination of these; none: one count for all."""

    @property
    def is_calendar(self) -> bool:
        """Days, weeks and months begin at midnight UTC, on Monday, on the first; others with their first call."""
        return self.period in ("day", "week", "month")

    @property
    def period_s(self) -> float:
        return PERIOD_S[self.period] * self.periods if self.period else 0.0


def read_limit(text: str) -> LimitTerms:
    """The terms that a text stands for. Raises BadLimit."""
    parts = [part.strip() for part in re.split(r"\bper\b", " ".join(text.lower().split()))]
    head = _HEAD.fullmatch(parts[0])
    if head is None:
        raise BadLimit(f"`{text[:80]}` is no limit")
    unit = _unit(head)
    amount = Decimal(re.sub("[,_]", "", head["number"]) + (head["fraction"] or "")) * _SCALE[head["scale"] or ""]
    if unit == "usd":
        amount *= USD
    amount *= _SIZES.get(head["unit"].strip(), 1)
    if amount != int(amount) or not 1 <= amount <= MAX_AMOUNT:
        raise BadLimit(f"`{parts[0]}` is no amount that can be counted")
    period, periods = "", 1
    whom = parts[1:]
    if unit != "streams":
        if not whom:
            raise BadLimit(f"`{text[:80]}` says no time, such as `per minute`")
        period, periods = _period(whom.pop(0))
    return LimitTerms(amount=int(amount), unit=unit, period=period, periods=periods, per=_dimensions(whom))


def _unit(head: re.Match[str]) -> Unit:
    name = head["unit"].strip()
    if head["dollar"] and name in ("", "usd"):
        return "usd"
    if head["dollar"] or name not in _UNITS:
        known = "requests, bytes, MB, tokens, input tokens, output tokens, USD, concurrent streams"
        raise BadLimit(f"unknown unit `{name[:40]}` (known: {known})")
    return _UNITS[name]


def _period(text: str) -> tuple[str, int]:
    found = _PERIOD.fullmatch(text)
    periods = 0 if found is None else int(found["count"] or 1)
    if found is None or not periods:
        raise BadLimit(f"unknown time `{text[:40]}` (known: second, minute, hour, day, week, month, `10 minutes`)")
    if periods > 1 and found["name"] in ("day", "week", "month"):
        raise BadLimit(f"`{text}` is no part of the calendar (known: day, week, month, or so many hours)")
    return found["name"], periods


def _dimensions(parts: list[str]) -> tuple[Dimension, ...]:
    found: list[Dimension] = []
    for part in parts:
        for name in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", part):
            if name not in _DIMENSIONS:
                raise BadLimit(f"unknown `per {name[:40]}` (known: {', '.join(dict.fromkeys(_DIMENSIONS.values()))})")
            if _DIMENSIONS[name] in found:
                raise BadLimit(f"`per {name}` stands twice")
            found.append(_DIMENSIONS[name])
    return tuple(found)
