"""The figures of limits, found once and then added to: this is on the path of every limited call."""

from collections.abc import Sequence

MONEY_DIGITS = 9
"""Behind the point: limits count billionths of a dollar."""


class LimitFigures:
    """Counts of one limit, in its own unit; money in dollars. The places are those of its series in `values`."""

    __slots__ = ("held", "passed", "refused_place", "scale", "used", "values")

    def __init__(
        self, values: "memoryview[float]", *, passed: int, refused: int, used: int, held: int, scale: float
    ) -> None:
        self.values = values
        self.passed = passed
        self.refused_place = refused
        self.used = used
        self.held = held
        self.scale = scale

    def refused(self) -> None:
        self.values[self.refused_place] += 1


Numbered = Sequence[tuple[int, LimitFigures]]
"""Counted through from 0."""


def note_taken(figures: Numbered, amounts: Sequence[int]) -> None:
    """A call passed, with so much reserved for it of each limit."""
    for index, each in figures:
        each.values[each.passed] += 1
        _add(each, each.held, amounts[index])


def note_spent(figures: Numbered, reserved: Sequence[int], amounts: Sequence[int]) -> None:
    """A call ended."""
    for index, each in figures:
        _add(each, each.held, -reserved[index])
        _add(each, each.used, amounts[index])


def _add(figures: LimitFigures, place: int, amount: int) -> None:
    """Binary fractions do not add up: what is held of money would never be nothing again."""
    if figures.scale == 1.0:
        figures.values[place] += amount
    else:
        figures.values[place] = round(figures.values[place] + amount * figures.scale, MONEY_DIGITS)
