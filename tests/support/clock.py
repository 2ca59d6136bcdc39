"""A clock that stands still until the test moves it."""

import time

from torana.clock import Clock


class HandClock(Clock):
    """Starts at the real time, so that tokens of the fake issuer are valid by it."""

    def __init__(self, now: float | None = None) -> None:
        self._now = time.time() if now is None else now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time has passed."""
        self._now += seconds
