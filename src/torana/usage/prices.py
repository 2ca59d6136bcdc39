"""What a call costs: whole tokens times the list price of the day, exact. An unknown price stays unknown."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from torana.chat import Usage

_MILLION = Decimal(1_000_000)
_NOTHING = Decimal(0)
_PARTS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


class UnknownPrice(Exception):
    """The price list lacks a figure that this usage needs; the cost is then unknown, never nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens. None where the list names no figure; a vendor's free part says 0."""

    as_of: str
    """The day of the list, `2026-05-01`; kept with each record, so that its cost can be explained later."""
    input: Decimal | None = None
    """Tokens read afresh: neither from the provider's prompt cache nor into it."""
    output: Decimal | None = None
    """Reasoning included, as vendors bill it."""
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    """Of what is kept for an hour."""

    @classmethod
    def of(
        cls,
        as_of: str,
        *,
        input: str = "",
        output: str = "",
        cache_read: str = "",
        cache_write: str = "",
        cache_write_1h: str = "",
    ) -> "Price":
        """From decimal texts, `3.00`; an empty one is unknown. Raises ValueError for what is no such amount."""
        texts = dict(zip(_PARTS, (input, output, cache_read, cache_write, cache_write_1h), strict=True))
        return cls(as_of=as_of, **{name: _amount(name, text) for name, text in texts.items()})

    def figures(self) -> dict[str, str]:
        """What the list names, as decimal texts by name: `input`, `output`, `cache_read` …"""
        return {name: f"{amount:f}" for name in _PARTS if (amount := getattr(self, name)) is not None}


def cost_usd(usage: Usage, price: Price | None) -> Decimal:
    """Price one call.

    usage    whole tokens; `cache_*_tokens` are part of `input_tokens`, not on top, `reasoning_tokens` of output
    price    US dollars per million tokens; None where nobody wrote one down
    returns  US dollars, exact; rounding is the bill's business, not the meter's

    Raises UnknownPrice where tokens were spent of a kind that has no price.
    Source: `prices` in models.yml, dated there.
    """
    if price is None:
        raise UnknownPrice("no price is known for this model")
    read, written, output = usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens
    fresh, for_an_hour = usage.input_tokens - read - written, usage.cache_write_1h_tokens
    if min(fresh, read, written - for_an_hour, for_an_hour, output) < 0:
        raise ValueError("less than no tokens cannot be priced")
    total = _NOTHING
    for name, tokens, usd_per_million in (
        ("input", fresh, price.input),
        ("output", output, price.output),
        ("cache_read", read, price.cache_read),
        ("cache_write", written - for_an_hour, price.cache_write),
        ("cache_write_1h", for_an_hour, price.cache_write_1h),
    ):
        if tokens:
            if usd_per_million is None:
                raise UnknownPrice(f"the price list of {price.as_of} has no `{name}` price")
            total += tokens * usd_per_million
    return total / _MILLION


def price_text(usage: Usage, price: Price | None) -> tuple[str | None, str]:
    """(US dollars as decimal text without an exponent, None where unknown; day of the price list)."""
    if price is None:
        return None, ""
    try:
        return f"{cost_usd(usage, price):f}", price.as_of
    except (UnknownPrice, ValueError):
        return None, price.as_of


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
