"""How fast is read what nobody wants: the rest of requests that were refused before all of them had come.

It is thrown away, for closing on it would reset the answer. A few clients that are refused, and come again at once with
megabytes each, would take all of a worker's time if that were read as fast as it comes; so all of them together have a
share of it, and wait for their turns in their own kernels.
"""

import time
from collections.abc import Callable

MAX_DISCARDED_BYTES = 1 << 20
"""What is read of a body after its answer, so that the connection can be used again; more ends it."""
LEAST_PIECE_BYTES = 64
"""What a piece of that counts at least: some send one byte in each, and a piece costs about as much as a kilobyte."""
BYTES_PER_S = 64 * 1024 * 1024
"""By all connections of a worker: about a fiftieth of its time."""
LEAST_READ_BYTES = 16_384
"""What one reading counts at least: it costs about as much as copying so many."""
MOST_WAIT_S = 2.0
"""Nobody is waited for longer, so that nobody need wait for those who are gone."""


class Discarding:
    """The turns of one worker's connections."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until = 0.0
        """What was thrown away so far is paid for then."""

    def wait_s(self, size: int) -> float:
        """How long its connection is not to be read, when `size` bytes of it were thrown away."""
        now = self._now()
        until = max(self._until, now) + max(size, LEAST_READ_BYTES) / BYTES_PER_S
        self._until = min(until, now + MOST_WAIT_S)
        return self._until - now
