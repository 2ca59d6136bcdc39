"""Signs of life: a number for each worker, in memory that it shares with its supervisor."""

import mmap
from collections.abc import Callable

BEAT_S = 0.5
"""Between two signs of life of an event loop that is well."""
LOOK_S = 1.0
STUCK_LOOKS = 10
"""A worker is stuck that gave no sign between so many looks. Looks are counted, not seconds: a machine that slept, or
a container that was frozen, stopped the looks as well."""


class Pulse:
    """Make it before the first fork."""

    def __init__(self, workers: int) -> None:
        self._beats = memoryview(mmap.mmap(-1, 8 * workers)).cast("Q")
        self._last = [0] * workers
        self._silent_looks = [0] * workers

    def begin(self, slot: int) -> None:
        """A new worker takes the place."""
        self._beats[slot] = self._last[slot] = self._silent_looks[slot] = 0

    def beater(self, slot: int) -> Callable[[], None]:
        """For the worker itself."""

        def beat() -> None:
            self._beats[slot] += 1

        return beat

    def look(self, slot: int, *, is_ending: bool = False) -> bool:
        """To be called every LOOK_S: whether the worker is stuck. One that has not begun yet is not: it may have much
        to read, and would have as much the next time. Where all are to end, it has nothing to finish."""
        beats = self._beats[slot]
        is_silent = beats == self._last[slot] and (beats or is_ending)
        self._silent_looks[slot] = self._silent_looks[slot] + 1 if is_silent else 0
        self._last[slot] = beats
        return self._silent_looks[slot] >= STUCK_LOOKS
