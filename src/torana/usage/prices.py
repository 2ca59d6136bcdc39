"""What a call costs: whole tokens times the list price of the day, exact. An unknown price stays unknown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from torana.chat import Usage

_MILLION = Decimal(1_000_000)
_NOTHING = Decimal(0)
PARTS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


class UnknownPrice(Exception):
    """The price list lacks a figure that this usage needs; the cost is then unknown, never nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """US dollars per million tokens. None where the list names no figure; a vendor's free part says 0."""

    input: Decimal | None = None
    """Tokens read afresh: neither from the provider's prompt cache nor into it."""
    output: Decimal | None = None
    """Reasoning included, as vendors bill it."""
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    """Of what is kept for an hour."""

    def figures(self) -> dict[str, Any]:
        """What the list names, as decimal texts by name: `input`, `output`, `cache_read` …"""
        return {name: f"{amount:f}" for name in PARTS if (amount := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPrice(Figures):
    """What all tokens of a call with a long prompt cost."""

    over: int
    """Tokens of input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Figures):
    as_of: str
    """The day of the list, `2026-05-01`; kept with each record, so that its cost can be explained later."""
    long: LongPrice | None = None
    times: tuple[tuple[str, Decimal], ...] = ()
    """`Usage.tiers` → how many times the figures such a call costs."""

    @classmethod
    def of(
        cls,
        as_of: str,
        *,
        long: tuple[int, Mapping[str, str]] | None = None,
        times: Mapping[str, str] = {},
        **texts: str,
    ) -> "Price":
        """From decimal texts by the names of `Figures`; an empty one is unknown.

        long   (over, texts)

        Raises ValueError for what is no such amount.
        """
        return cls(
            as_of=as_of,
            long=None if long is None else LongPrice(over=long[0], **_amounts(long[1])),
            times=tuple((tier, amount) for tier, amount in _amounts(times).items() if amount is not None),
            **_amounts(texts),
        )

    def figures(self) -> dict[str, Any]:
        """As `Figures.figures`, with `long` and `times` where the list has them."""
        told = super(Price, self).figures()
        if self.long is not None:
            told["long"] = {"over": self.long.over, **self.long.figures()}
        if self.times:
            told["times"] = {tier: f"{times:f}" for tier, times in self.times}
        return told


def cost_usd(usage: Usage, price: Price | None) -> Decimal:
    """Price one call.

    usage    whole tokens; `cache_*_tokens` are part of `input_tokens`, not on top, `reasoning_tokens` of output
    price    US dollars per million tokens; None where nobody wrote one down
    returns  US dollars, exact; rounding is the bill's business, not the meter's

    Raises UnknownPrice where tokens were spent of a kind, or in a tier, that has no price.
    Source: `prices` in models.yml, dated there.
    """
    if price is None:
        raise UnknownPrice("no price is known for this model")
    read, written, output = usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens
    fresh, for_an_hour = usage.input_tokens - read - written, usage.cache_write_1h_tokens
    if min(fresh, read, written - for_an_hour, for_an_hour, output) < 0:
        raise ValueError("less than no tokens cannot be priced")
    figures = price if price.long is None or usage.input_tokens <= price.long.over else price.long
    total = _NOTHING
    for tokens, name in zip((fresh, output, read, written - for_an_hour, for_an_hour), PARTS, strict=True):
        if tokens:
            usd_per_million = getattr(figures, name)
            if usd_per_million is None:
                raise UnknownPrice(f"the price list of {price.as_of} has no `{name}` price")
            total += tokens * usd_per_million
    if usage.tiers and total:
        total *= _times(usage.tiers, price)
    return total / _MILLION


def price_text(usage: Usage, price: Price | None) -> tuple[str | None, str]:
    """(US dollars as decimal text without an exponent, None where unknown; day of the price list)."""
    if price is None:
        return None, ""
    try:
        return f"{cost_usd(usage, price):f}", price.as_of
    except (UnknownPrice, ValueError):
        return None, price.as_of


def why_unknown(usage: Usage, price: Price) -> str:
    """What of a list keeps the cost from being known; empty where it is."""
    try:
        cost_usd(usage, price)
    except (UnknownPrice, ValueError) as error:
        return str(error)
    return ""


def _times(tiers: Iterable[str], price: Price) -> Decimal:
    known, times = dict(price.times), Decimal(1)
    for tier in tiers:
        if tier not in known:
            raise UnknownPrice(f"the price list of {price.as_of} does not say what `{tier}` costs")
        times *= known[tier]
    return times


def _amounts(texts: Mapping[str, str]) -> dict[str, Decimal | None]:
    return {name: _amount(name, text) for name, text in texts.items()}


def _amount(name: str, text: str) -> Decimal | None:
    if not text:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{name}: {text!r} is no price, expected US dollars per million tokens such as 3.00")
    return amount
