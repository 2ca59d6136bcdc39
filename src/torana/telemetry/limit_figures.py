"""The figures of limits, found once and then added to: this is on the path of every limited call."""

from collections.abc import Sequence


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
        values = each.values
        values[each.passed] += 1
        values[each.held] += amounts[index] * each.scale


def note_spent(figures: Numbered, reserved: Sequence[int], amounts: Sequence[int]) -> None:
    """A call ended."""
    for index, each in figures:
        values = each.values
        values[each.held] -= reserved[index] * each.scale
        values[each.used] += amounts[index] * each.scale
