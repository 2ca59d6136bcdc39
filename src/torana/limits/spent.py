"""What a call uses of limits that count different things."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torana.catalog.limit_text import Unit


class Spent(NamedTuple):
    """What a call uses, or is expected to. Money in billionths of a dollar, None where no price is known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None


NOTHING = Spent()


def _reserved(reserved: int, spent: Spent) -> int:
    return reserved


MEASURES: Mapping[Unit, Callable[[int, Spent], int]] = {
    "requests": _reserved,
    "bytes": _reserved,
    "streams": _reserved,
    "tokens": lambda _, spent: spent.input_tokens + spent.output_tokens,
    "input_tokens": lambda _, spent: spent.input_tokens,
    "output_tokens": lambda _, spent: spent.output_tokens,
    "usd": lambda reserved, spent: reserved if spent.cost is None else spent.cost,
}
"""Unit → (what was reserved, what the call has spent) → what it uses of a limit in that unit."""
