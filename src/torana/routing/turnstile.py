"""Places that only so many may have at once, and a short, fair wait for one.

Whoever would wait in vain is told so at once, by how fast places have come free lately. A queue that never leaves a
place free takes no gust off the provider, it only makes everybody late: then no more wait than keep the places taken,
a call's time at most, but for those who stand in a queue that one other party has made.

Whose turn it is when a place falls free: of those who wait, the party that has the fewest places now; among equals
who came first. A party that fills the queue, or the places, cannot keep others out of the queue: where that is full,
who has most calls in it and at the places together makes room.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MAX_WAITING = 100
"""Calls that wait at one turnstile; more would only wait in vain."""
LEAST_LEAVINGS = 8
GUST_CALLS = 8
"""A crowd that lasts longer than so many calls take, one after another, is no gust."""


class Full(Exception):
    """No place came free in time, or too many wait already."""


class Turnstile:
    """`await enter(party, patience_s)` or `take(party)`, and `leave(party)` once for each time it let somebody in."""

    __slots__ = (
        "_apart_s",
        "_at_once",
        "_crowded_since",
        "_held",
        "_left",
        "_left_at",
        "_now",
        "_waiting",
        "in_use",
        "max_waiting",
        "places",
        "waiting",
    )

    def __init__(self, places: int, max_waiting: int = MAX_WAITING, now: Callable[[], float] = time.monotonic) -> None:
        self.places = places
        self.max_waiting = max_waiting
        self.in_use = 0
        self.waiting = 0
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._now = now
        self._apart_s = 0.0
        """Between two places that come free while somebody waits; 0: not known yet."""
        self._left, self._left_at = 0, 0.0
        """How many came free while somebody waited, and since when."""
        self._crowded_since = 0.0
        """0: places have been free."""
        self._at_once = 0
        """How many came in at once since somebody had to wait."""

    @property
    def is_full(self) -> bool:
        return self.in_use >= self.places

    async def enter(self, party: str, patience_s: float) -> None:
        """Raises Full. Cancelled, it leaves nothing behind."""
        if self.in_use < self.places and not self.waiting:
            # Calls end in bunches, or the loop stands still for a moment, and the next few find places that those who
            # were turned away would have had. Only as many as there are places end a crowd.
            self._at_once += 1
            if self._at_once >= self.places:
                self._crowded_since = 0.0
            self._let_in(party)
            return
        waiter = self._queue(party, patience_s)
        try:
            async with asyncio.timeout(patience_s):
                await waiter
        except BaseException as error:
            self._forget(party, waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # The place came just as the patience ended: it goes to the next one.
                self.leave(party)
            if isinstance(error, TimeoutError):
                raise Full("no place in time") from None
            raise

    def take(self, party: str) -> bool:
        """A place for somebody who does not wait; False: there is none."""
        if self.is_full or self.waiting:
            return False
        self._let_in(party)
        return True

    def turns_away(self, party: str, patience_s: float) -> bool:
        """Whether `enter` would raise Full now, without a wait."""
        if self.in_use < self.places and not self.waiting:
            return False
        return self.waiting >= self._room(party, patience_s) and self._who_makes_room(party) is None

    def leave(self, party: str) -> None:
        self.in_use -= 1
        left = self._held.get(party, 0) - 1
        if left > 0:
            self._held[party] = left
        else:
            self._held.pop(party, None)
        self._note_leaving()
        self._hand_out()

    def _note_leaving(self) -> None:
        """Places come free in bunches: the mean of as many as there are places, and of some at least, tells."""
        if not self.waiting:
            self._left = 0
            return
        now = self._now()
        if not self._left:
            self._left_at = now
        elif self._left >= max(self.places, LEAST_LEAVINGS):
            self._apart_s, self._left, self._left_at = (now - self._left_at) / self._left, 0, now
        self._left += 1

    def _room(self, party: str, patience_s: float) -> int:
        """How many may wait before the party does, too."""
        now = self._now()
        self._crowded_since, self._at_once = self._crowded_since or now, 0
        if not self._apart_s:
            return self.max_waiting
        room = min(self.max_waiting, max(1, int(patience_s / self._apart_s)))
        gust_s = GUST_CALLS * self._apart_s * self.places
        if now - self._crowded_since > gust_s and not self._is_anothers(party):
            return min(room, self._standing_room)
        return room

    @property
    def _standing_room(self) -> int:
        """How many wait in a crowd that does not end. Few places come free least evenly: for them, it is one call's
        time; for many, a quarter of it."""
        return min(self.places, self.places // 4 + 6)

    def _is_anothers(self, party: str) -> bool:
        """Whether the crowd is the doing of one party, which has half of the places, and not of this one."""
        most = max(self._held.values(), default=0)
        return 2 * self._calls(party) < self.places <= 2 * most and most > 1

    def resize(self, places: int) -> None:
        """A reload changed the number. Whoever is in stays in."""
        self.places = places
        self._hand_out()

    def _hand_out(self) -> None:
        while self.waiting and self.in_use < self.places:
            # Parties stand in the order in which they began to wait.
            party = min(self._waiting, key=lambda name: self._held.get(name, 0))
            waiter = self._waiting[party].popleft()
            self._forget(party, waiter)
            if not waiter.done():
                self._let_in(party)
                waiter.set_result(None)

    def _let_in(self, party: str) -> None:
        self.in_use += 1
        self._held[party] = self._held.get(party, 0) + 1

    def _queue(self, party: str, patience_s: float) -> "asyncio.Future[None]":
        if self.waiting >= self._room(party, patience_s):
            busiest = self._who_makes_room(party)
            if busiest is None:
                raise Full("too many wait already")
            displaced = self._waiting[busiest][-1]
            self._forget(busiest, displaced)
            if not displaced.done():  # its caller may be leaving by itself
                displaced.set_exception(Full("a party with fewer calls needs the room"))
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(party, deque()).append(waiter)
        self.waiting += 1
        return waiter

    def _who_makes_room(self, party: str) -> str | None:
        """Whose call leaves a full queue for one of the party's; None: nobody has so many more."""
        busiest = max(self._waiting, key=self._calls, default=party)
        return busiest if self._calls(party) + 1 < self._calls(busiest) else None

    def _calls(self, party: str) -> int:
        """How many of the party's are in, or wait."""
        return self._held.get(party, 0) + len(self._waiting.get(party, ()))

    def _forget(self, party: str, waiter: "asyncio.Future[None]") -> None:
        """Take a waiter out of the queue, if it still stands there."""
        queue = self._waiting.get(party)
        if queue is None:
            return
        with suppress(ValueError):
            queue.remove(waiter)
        if not queue:
            del self._waiting[party]
        self.waiting = sum(map(len, self._waiting.values()))
