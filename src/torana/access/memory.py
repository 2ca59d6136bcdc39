"""What access remembers between requests, bounded in number so that no flood can make it grow."""

import math
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from torana.clock import Clock

K = TypeVar("K")
V = TypeVar("V")

WINDOW_S = 60.0


class Bounded(Generic[K, V]):
    """A mapping of at most `limit` entries; the oldest leaves first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.get = self._entries.get  # bound once: this is on the path of every request

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= self._limit:
            self._entries.popitem(last=False)
        self._entries[key] = value

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)


class Counts(Protocol):
    """How often each key was counted within a minute."""

    def count(self, key: str) -> int:
        """Count once more; returns how often it was within this minute."""
        ...

    def wait_s(self, key: str) -> int:
        """Whole seconds until `key` is below its limit again; 0 when it is."""
        ...


class MinuteCounts:
    """Counts of one process, for tools and tests; the server's are those of the limits room, for all its workers.

    limit   per key and minute, which begins with the first count; 0: no bound
    """

    def __init__(self, limit: int, clock: Clock, max_keys: int = 10_000) -> None:
        self.limit = limit
        self._clock = clock
        self._windows: Bounded[str, tuple[float, int]] = Bounded(max_keys)

    def count(self, key: str) -> int:
        """Count once more; returns how often it was within this minute."""
        if not self.limit:
            return 0
        now = self._clock.monotonic()
        begun_at, so_far = self._windows.get(key) or (now, 0)
        if now - begun_at >= WINDOW_S:
            begun_at, so_far = now, 0
        self._windows.put(key, (begun_at, so_far + 1))
        return so_far + 1

    def wait_s(self, key: str) -> int:
        """Whole seconds until `key` is below its limit again; 0 when it is."""
        begun_at, so_far = self._windows.get(key) or (0.0, 0)
        left_s = begun_at + WINDOW_S - self._clock.monotonic()
        return math.ceil(left_s) if self.limit and so_far >= self.limit and left_s > 0 else 0
