"""Who may begin now, who waits, and who is turned away: decided before a body is read or a token is looked at.

The event loop takes so many requests in one of its turns and finishes what it has begun; the others wait in line,
unread. As long as the gateway keeps up there is no line, and a request costs a comparison. Behind it, interactive
work goes before background work, and instances take turns, so that a busy one waits for itself, and one that sends
large requests takes fewer turns. A line that would take longer than its age limit takes nobody in: the answer is 503
at once, and the instance that waits for most hears it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torana.api.fair_line import FairLine, Request, Waiting

STARTS_PER_TURN = 32
"""Requests begun in one turn of the event loop, at most; each costs some tenths of a millisecond until it waits for a
model."""
TURN_S = 0.0015
"""How long a turn is to take while requests wait: fewer are begun in it where it takes longer. Whoever is turned away,
every probe and every running stream wait for the turn to end."""
LEAST_STARTS_PER_TURN = 2
COMERS_PER_START = 24
"""Where many more come in a turn than are begun, turning them away takes its own time. For so many of them one is
begun at least, so that much of the time goes into answers however many come."""
LOOKED_AT_PER_TURN = 3 * COMERS_PER_START
"""Requests that are looked at in one turn, to be begun, to wait or to be turned away; that takes most, tenths of a
millisecond. The others wait as they have come."""
TURN_WEIGHT = 0.1
"""How much the newest turn counts in what turns take and begin."""
BYTES_PER_TURN = 65_536
"""A body of so many bytes costs as much again as the request itself: 5 to 6 ms a MiB, and half a millisecond."""
MOST_BYTES = 32 * 1024 * 1024
"""Longer bodies count as so long: the length is the client's own word, and most of them are refused unread."""
SWEEP_S = 0.05
"""Between two looks for those who have waited too long and whose turn is not near."""
HEADROOM = 0.5
"""How much of a patience the line may take by that estimate: nobody is to wait, and then be turned away."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about a request's place in the line."""

    is_background: bool = False
    instance: str = ""
    """Who has vouched for it, where its token is known already; strangers share one place."""
    patience_s: float = 0.0
    """How long its client waits, where it says so; 0: it does not."""


class Meter(Protocol):
    """What the line tells the metrics."""

    def shed(self, reason: str) -> None: ...

    def waiting(self, requests: int) -> None: ...


class Admission:
    """The line of one worker.

    max_waiting  requests in line, at most
    max_age_s    nobody waits longer, and nobody is taken in who would have to
    weights      instance → its share beside others', 1 where it is not named
    """

    def __init__(
        self,
        meter: Meter,
        *,
        max_waiting: int,
        max_age_s: float,
        weights: Mapping[str, float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meter = meter
        self._max_waiting = max_waiting
        self._max_age_s = max_age_s
        self._now = now
        self._begun = 0
        """Requests begun in this turn of the event loop."""
        self._came = 0
        """Requests that came in this turn and were not begun at once."""
        self._usual_turn_s = self._usual_starts = 0.0
        """What a turn takes and begins, lately."""
        self._turn_began = 0.0
        self._has_large = False
        """A large body is worked on in this turn."""
        self._swept = 0.0
        self._lines = (FairLine(weights), FairLine(weights))  # interactive, background

    @property
    def waiting(self) -> int:
        return self._lines[0].waiting + self._lines[1].waiting

    def begins(self) -> bool:
        """True where a request may begin at once; it is counted as begun. False: let it `wait`."""
        if self._begun >= STARTS_PER_TURN or self.waiting:
            return False
        if not self._begun:
            self._turn_began = self._now()
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += 1
        return True

    def wait(self, request: Request, standing: Standing, body_bytes: int = 0) -> None:
        """Put a request in line, or turn it or another one away.

        body_bytes  as its head says; 0: it does not
        """
        now = self._now()
        self._came += 1
        line = self._lines[standing.is_background]
        patience_s = self._max_age_s
        if 0 < standing.patience_s < patience_s:
            patience_s = standing.patience_s
            if self._comes_too_late(standing):
                # Whoever made room for it would do so in vain, and for the next one like it again.
                self._meter.shed("full")
                request.turn_away("overloaded")
                return
        if self._is_full(standing):
            if self._lines[1].waiting and not standing.is_background:
                self._shed(self._lines[1].take_from_longest(), "overtaken")
            elif line.is_longer_elsewhere(standing.instance):
                self._shed(line.take_from_longest(), "overtaken")
            else:
                self._meter.shed("full")
                request.turn_away("overloaded")
                return
        turns = 1 + min(body_bytes, MOST_BYTES) / BYTES_PER_TURN
        line.put(standing.instance, Waiting(request, turns, now + patience_s))
        self._meter.waiting(self.waiting)

    def note_large(self) -> None:
        """A large body takes this turn: how long it takes says nothing about those in line."""
        self._has_large = True

    def _is_full(self, standing: Standing) -> bool:
        ahead = self.waiting if standing.is_background else self._lines[0].waiting
        if self.waiting >= self._max_waiting:
            return True
        return ahead * self._usual_turn_s > HEADROOM * self._max_age_s * self._usual_starts

    def _comes_too_late(self, standing: Standing) -> bool:
        """Whether a client that waits less than others will hardly be there when its turn comes."""
        ahead = self._lines[standing.is_background].count_before(standing.instance)
        if standing.is_background:
            ahead += self._lines[0].waiting
        turns = max(self._usual_starts, ahead + 1.0)
        return turns * self._usual_turn_s > HEADROOM * standing.patience_s * self._usual_starts

    def _next_turn(self) -> None:
        now = self._now()
        took_s, self._turn_began = now - self._turn_began, now
        if not self._has_large:
            # Apart, and not their quotient: one turn in which the process stood still says little about the others.
            self._usual_turn_s += TURN_WEIGHT * (took_s - self._usual_turn_s)
            self._usual_starts += TURN_WEIGHT * (self._begun - self._usual_starts)
        self._has_large = False
        starts = self._starts()
        self._begun = self._came = 0
        if not self.waiting:
            return
        try:
            if now - self._swept > SWEEP_S:
                self._swept = now
                for line in self._lines:
                    for late in line.take_late(now):
                        self._shed(late, "aged")
            while self._begun < starts and (found := self._take()) is not None:
                if found.request.is_gone:
                    continue
                if now > found.until:
                    self._shed(found, "aged")
                    continue
                self._begun += 1
                found.request.begin()
        finally:
            # Also where one of them has failed: nobody else would ever be begun again.
            self._meter.waiting(self.waiting)
            if self._begun or self.waiting:
                asyncio.get_running_loop().call_soon(self._next_turn)

    def _starts(self) -> int:
        """How many the turn that begins may begin."""
        usual_s = self._usual_turn_s
        fitting = int(TURN_S / usual_s * self._usual_starts) if usual_s > 0 else STARTS_PER_TURN
        return min(max(fitting, LEAST_STARTS_PER_TURN, self._came // COMERS_PER_START), STARTS_PER_TURN)

    def _take(self) -> Waiting | None:
        return self._lines[0].take() or self._lines[1].take()

    def _shed(self, found: Waiting, reason: str) -> None:
        self._meter.shed(reason)
        if not found.request.is_gone:
            found.request.turn_away("overloaded")
