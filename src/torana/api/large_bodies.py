"""Large bodies: one in each turn of the event loop is decoded, rendered and sent on. Those that end together would hold
up everybody else for as long as all of them take.

Such a turn may take hundreds of times as long as others do. So whoever came meanwhile goes before the next large body,
for as long as the last one took, and is not measured by it. Large bodies wait in a line of their own, in which
instances take turns; one that would take too long takes nobody in, and the instance that waits for most hears it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from torana.api.fair_line import FairLine, Waiting
from torana.errors import Refusal
from torana.headers import retry_after, soon

LARGE_BYTES = 65_536
"""About half a millisecond of work and more; 8 MiB are 50, and 2 MiB of thousands of messages some hundreds."""
FEW = 8
"""So many may wait in any case: one client's few calls at once, however long they are."""
NEWEST = 0.2
"""How much the newest body counts in what they take."""


class Line(Protocol):
    """Of requests that wait to begin."""

    @property
    def waiting(self) -> int: ...

    def note_large(self) -> None:
        """A large body takes this turn."""
        ...


class LargeBodies:
    """Those of one worker.

    line        goes before them
    shed        told why, for each that is turned away
    max_wait_s  nobody is to wait longer, by what the last ones took
    weights     instance → its share beside others', 1 where it is not named
    """

    def __init__(
        self,
        line: Line,
        shed: Callable[[str], None],
        max_wait_s: float,
        weights: Mapping[str, float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line
        self._shed = shed
        self._max_wait_s = max_wait_s
        self._now = now
        self._waiting = FairLine(weights)
        self._is_under_way = False
        """Somebody waits, or has just had a turn."""
        self._began = 0.0
        self._usual_s = 0.0
        """What one takes, lately."""
        self._rests_until = 0.0
        """Until then others go first."""

    async def take_turn(self, instance: str, size: int) -> None:
        """Returns in a turn of the event loop in which no other one does. Raises Refusal 503.

        instance  whose turn it is
        size      of the body, bytes
        """
        waiting = self._waiting.waiting
        if waiting >= FEW and waiting * self._usual_s > self._max_wait_s:
            if not self._waiting.is_longer_elsewhere(instance):
                self._shed("full")
                raise _no_room()
            self._shed("overtaken")
            self._waiting.take_from_longest().request.turn_away("overloaded")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.put(instance, Waiting(_Large(turn), float(size)))
        if not self._is_under_way:
            self._is_under_way = True
            loop.call_soon(self._next)
        await turn
        self._line.note_large()
        self._began = self._now()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        if self._line.waiting and self._now() < self._rests_until:
            loop.call_soon(self._next)
            return
        while (found := self._waiting.take()) is not None and found.request.is_gone:
            pass
        if found is None:
            self._is_under_way = False
            return
        self._began = self._now()
        found.request.begin()
        loop.call_soon(self._end)  # in the next turn, right after it

    def _end(self) -> None:
        now = self._now()
        took_s = now - self._began
        self._usual_s += NEWEST * (took_s - self._usual_s)
        self._rests_until = now + took_s
        asyncio.get_running_loop().call_soon(self._next)


class _Large:
    """One of them, as the line sees it."""

    __slots__ = ("_turn",)

    def __init__(self, turn: "asyncio.Future[None]") -> None:
        self._turn = turn

    def begin(self) -> None:
        self._turn.set_result(None)

    def turn_away(self, code: str) -> None:
        if not self._turn.done():
            self._turn.set_exception(_no_room())

    @property
    def is_gone(self) -> bool:
        return self._turn.done()


def _no_room() -> Refusal:
    return Refusal(503, "overloaded", "Service Unavailable", headers=retry_after(soon()))
