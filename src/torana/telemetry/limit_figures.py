"""The figures of one limit, found once and then added to: this is on the path of every limited call."""


class LimitFigures:
    """Counts of one limit, in its own unit; money in dollars."""

    __slots__ = ("_held", "_passed", "_refused", "_scale", "_used", "_values")

    def __init__(
        self, values: "memoryview[float]", *, passed: int, refused: int, used: int, held: int, scale: float
    ) -> None:
        self._values = values
        self._passed = passed
        self._refused = refused
        self._used = used
        self._held = held
        self._scale = scale

    def took(self, amount: int) -> None:
        """A call passed, with so much reserved for it."""
        self._values[self._passed] += 1
        self._values[self._held] += amount * self._scale

    def spent(self, reserved: int, amount: int) -> None:
        """A call ended."""
        self._values[self._held] -= reserved * self._scale
        self._values[self._used] += amount * self._scale

    def refused(self) -> None:
        self._values[self._refused] += 1
