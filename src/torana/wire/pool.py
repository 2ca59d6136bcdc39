"""Connections at rest, and the list of all that are open."""

import asyncio
from collections import deque

from torana.wire.connection import Connection
from torana.wire.target import Key

IDLE_CONNECTION_S = 30.0
"""A pooled connection is closed after this long without use; providers close theirs later."""

LIFE_S = 300.0
"""A connection in steady use is not used again after this long: its name may lead elsewhere by now."""

SURPLUS_S = 5.0
"""What a burst has left goes sooner, but for a few that stay warm."""
KEPT_WARM = 2
"""To each place."""


class Pool:
    """Hands the connection used last out first, and closes those that rest for `idle_s`, surplus ones sooner."""

    def __init__(self, idle_s: float, life_s: float = LIFE_S) -> None:
        self.open: set[Connection] = set()
        self.resting = 0
        """How many of them, roughly: who is closed by the other side rests until somebody looks."""
        self._idle_s = idle_s
        self._life_s = life_s
        self._idle: dict[Key, deque[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    def reuse(self, key: Key) -> Connection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            self.resting -= 1
            if connection.is_reusable and connection.loop.time() < connection.opened_at + self._life_s:
                return connection
            connection.abort()
        return None

    def close(self) -> None:
        """Abort all, and from now on whatever is still being opened."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self.open):
            connection.abort()
        self._idle.clear()
        self.resting = 0

    def close_resting(self) -> None:
        """Their descriptors are needed."""
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()
        self.resting = 0

    # What a connection tells

    def add(self, connection: Connection) -> None:
        """It is open."""
        self.open.add(connection)
        if self._is_closed:
            connection.abort()

    def release(self, connection: Connection) -> None:
        """Its answer was read to the end, and it may be used again."""
        idle = self._idle.get(connection.key)
        if idle is None:
            idle = self._idle[connection.key] = deque()
        idle.append(connection)
        self.resting += 1
        if self._sweeper is None or len(idle) == KEPT_WARM + 1:
            self._sweep_within(min(SURPLUS_S, self._idle_s), connection.loop)

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self.open.discard(connection)

    def _sweep_within(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """A sweep that waits for what stays warm would come late for what a burst has left."""
        if self._sweeper is not None:
            if self._sweeper.when() <= loop.time() + seconds:
                return
            self._sweeper.cancel()
        self._sweeper = loop.call_later(seconds, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        now = loop.time()
        for key, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since <= now - self._patience_s(idle) or not idle[0].is_reusable):
                idle.popleft().abort()
                self.resting -= 1
            if not idle:
                del self._idle[key]
        if self._idle:
            # The one that goes first, but not for each of many a timer.
            first = min(idle[0].idle_since + self._patience_s(idle) for idle in self._idle.values())
            self._sweeper = loop.call_at(max(first, now + self._idle_s / 10), self._sweep, loop)

    def _patience_s(self, idle: deque[Connection]) -> float:
        return self._idle_s if len(idle) <= KEPT_WARM else min(SURPLUS_S, self._idle_s)
