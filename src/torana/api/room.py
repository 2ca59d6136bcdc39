"""File descriptors for those who ask: when they run short, connections on which nobody asks are closed."""

import logging
import time
from collections.abc import Callable, Collection
from heapq import nsmallest
from operator import attrgetter
from typing import Protocol

logger = logging.getLogger("torana.api")

SPARE_FILES = 128
"""File descriptors that no client gets: for probes, providers' answers under way, logs, the metrics port."""
LENT_FILES, MOST_LENT_FILES = SPARE_FILES // 4, SPARE_FILES // 2
"""So many of these clients may have that have connected and not asked yet; probes are among them."""
SILENT_S = 1.0
"""Who has just connected will ask in a moment, and be answered, if only with a refusal."""
CLOSED_AT_ONCE = 32
"""To find the longest silent ones takes a look at all."""
LOOK_AGAIN_S = 0.25
"""Where all connections are at work, a crowd of requests must not look at all of them each time."""
WARN_AGAIN_S = 60.0


class Quiet(Protocol):
    """A connection of a client."""

    since: float

    def is_quiet(self, *, answered: bool) -> bool:
        """Nobody asks on it; `answered`: or has been answered for the last time."""
        ...

    def end(self) -> None:
        """Close it at once."""
        ...


class Room:
    """How many clients one listener has room for.

    max_files  connections of clients and to providers together; requests beyond are turned away
    """

    def __init__(self, max_files: int, now: Callable[[], float] = time.monotonic) -> None:
        self.max_files = max_files
        self._now = now
        self._look_again = self._warn_again = 0.0

    def for_request(self, connections: Collection[Quiet], tasks: int) -> bool:
        """Whether one more may begin where there are `max_files` already."""
        if self._now() < self._look_again:
            return False
        if self._close_quiet(connections, SILENT_S, answered=False):
            return True
        self._look_again = self._now() + LOOK_AGAIN_S
        return False

    def for_connection(self, connections: Collection[Quiet], tasks: int) -> None:
        """One more has connected."""
        lent = len(connections) + tasks - self.max_files
        if lent > LENT_FILES and self._now() >= self._look_again:
            if self._close_quiet(connections, SILENT_S, answered=True):
                return
            self._look_again = self._now() + LOOK_AGAIN_S
        if lent > MOST_LENT_FILES:
            self._close_quiet(connections, 0.0, answered=True)

    def _close_quiet(self, connections: Collection[Quiet], silent_s: float, *, answered: bool) -> bool:
        until = self._now() - silent_s
        quiet = [each for each in connections if each.since <= until and each.is_quiet(answered=answered)]
        for each in nsmallest(CLOSED_AT_ONCE, quiet, key=attrgetter("since")):
            each.end()
        if quiet and self._now() >= self._warn_again:
            self._warn_again = self._now() + WARN_AGAIN_S
            logger.warning("file descriptors run short: idle connections are closed", extra={"files": self.max_files})
        return bool(quiet)
