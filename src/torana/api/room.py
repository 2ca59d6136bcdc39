"""File descriptors for those who ask, where they run short.

A request takes two: its client's connection, and one to a provider. So half as many can be under way as there are, and
each has a place. Who connects while there are places has one at once, and is let in with whatever it asks. Beyond, a
few are taken in to hear that there is no room; everybody else waits with the system until one of them has gone. For
all of them, connections on which nobody asks are closed.
"""

import logging
import time
from collections.abc import Callable, Collection
from heapq import nsmallest
from operator import attrgetter
from typing import Protocol

logger = logging.getLogger("torana.api")

SPARE_FILES = 128
"""File descriptors that no request gets: for probes, keys, logs, records, the metrics port, and"""
LENT_FILES = 48
"""so many for clients that are turned away, or have a connection and ask nothing."""
SILENT_S = 1.0
"""Who has just connected will ask in a moment, and be answered, if only with a refusal."""
HASTY_S = 0.05
"""Where descriptors have run short for longer than that, moments are short too, but for shaking hands: clients that
connect all the time and say nothing would keep everybody else waiting with the system."""
CLOSED_AT_ONCE = 32
"""To find the longest silent ones takes a look at all."""
LOOK_AGAIN_S = 0.05
"""Where all connections are at work, a crowd of requests must not look at all of them each time."""
WARN_AGAIN_S = 60.0

_PLACES, _FILES = "places", "files"


class Quiet(Protocol):
    """A connection of a client."""

    since: float

    @property
    def is_quiet(self) -> bool:
        """Nobody asks on it, and what was answered is on its way."""
        ...

    def end(self) -> None:
        """Close it at once."""
        ...


class Coming(Protocol):
    """Clients that have connected and are no connections yet."""

    def __len__(self) -> int: ...

    def end_begun_until(self, moment: float) -> bool:
        """Give those up who connected so long ago; whether there were any."""
        ...


class Upstream(Protocol):
    """Connections to providers."""

    @property
    def resting(self) -> int:
        """How many are open, and serve no request."""
        ...

    def close_resting(self) -> None: ...


class Room:
    """How many clients one listener has room for.

    max_files    connections of clients and to providers together, for requests
    connections  of clients, all of them
    upstream     None: no request needs a connection to a provider
    """

    def __init__(
        self,
        max_files: int,
        connections: Collection[Quiet],
        coming: Coming,
        upstream: Upstream | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_files = max_files
        self._connections = connections
        self._coming = coming
        self._upstream = upstream
        self._now = now
        self._places: set[Quiet] = set()
        self._look_again = {_PLACES: 0.0, _FILES: 0.0}
        self._warn_again = 0.0
        self._short_since = self._short_at = -SILENT_S
        """When descriptors, or places, began to run short, and did last."""

    def has_file(self) -> bool:
        """Whether one more client may connect."""
        return self._finds_files(self.max_files + LENT_FILES)

    def welcome(self, connection: Quiet) -> None:
        """It has connected, and has a place from now on if there is one."""
        if self._finds_place() and self._finds_files(self.max_files):
            self._places.add(connection)

    def let_in(self, connection: Quiet) -> bool:
        """Whether a request on it may be answered; its place stays taken until it is told to `leave`."""
        if connection in self._places:
            return True
        # Where connections without a place have taken descriptors of those that have one, what is lent will do.
        if not self._finds_place() or not self._finds_files(self.max_files + LENT_FILES, connection):
            return False
        self._places.add(connection)
        return True

    def leave(self, connection: Quiet) -> None:
        """Nothing is asked on it any more. Idempotent."""
        self._places.discard(connection)

    def _finds_place(self) -> bool:
        return 2 * len(self._places) + 1 < self.max_files or self._close_quiet(_PLACES)

    def _finds_files(self, limit: int, but: Quiet | None = None) -> bool:
        resting = self._upstream.resting if self._upstream is not None else 0
        # Each place is for a connection to a provider, beside its client's.
        used = len(self._connections) + len(self._coming) + len(self._places)
        if used + resting < limit:
            return True
        if resting and self._upstream is not None:
            self._upstream.close_resting()
            if used < limit:
                return True
        return self._close_quiet(_FILES, but)

    def _close_quiet(self, what: str, but: Quiet | None = None) -> bool:
        """Whether any of those that have `what` was closed."""
        now = self._now()
        if now < self._look_again[what]:
            return False
        if now - self._short_at > SILENT_S:
            self._short_since = now
        self._short_at = now
        until = now - (SILENT_S if now - self._short_since < SILENT_S else HASTY_S)
        among = self._places if what == _PLACES else self._connections
        quiet = [each for each in among if each.since <= until and each.is_quiet and each is not but]
        for each in nsmallest(CLOSED_AT_ONCE, quiet, key=attrgetter("since")):
            self._places.discard(each)
            each.end()
        is_any = bool(quiet)
        if what == _FILES:
            is_any = self._coming.end_begun_until(now - SILENT_S) or is_any
        if not is_any:
            self._look_again[what] = now + LOOK_AGAIN_S
        elif now >= self._warn_again:
            self._warn_again = now + WARN_AGAIN_S
            logger.warning("file descriptors run short: idle connections are closed", extra={"files": self.max_files})
        return is_any
