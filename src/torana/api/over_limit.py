"""Requests of an instance that has used up its limit, told so at the door.

That a limit is reached shows when a request was read and authorized, and that takes half of what an answer does. An
instance that asks ten times as much as its limit allows would cost more in refusals than it may cost in answers, and
everybody's time. So while the count says that nothing is left, whoever asks for the same hears the same, unread.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from torana.limits.reached import LimitReached

KEPT_S = 1.0
"""For so long a refusal is repeated; then one is worked out anew, with what it says of the time left."""
MOST_KEPT = 256


class Asked(NamedTuple):
    """What is limited together: what one instance asks of one route."""

    route: str
    instance: str


class OverLimit:
    """The limits of instances that were found used up a moment ago, as one worker sees them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._refusals: dict[Asked, tuple[float, LimitReached]] = {}
        self._begun: Counter[Asked] = Counter()
        """Requests begun in this turn of the event loop: they will have taken a place each when it ends."""

    @property
    def are_any(self) -> bool:
        """Mostly nobody has used anything up, and nobody need be looked at."""
        return bool(self._refusals)

    def forget(self) -> None:
        """The limits are others now."""
        self._refusals.clear()

    def note(self, asked: Asked, refusal: LimitReached) -> None:
        """A request was refused, though nothing was known of it but who asked for what."""
        if refusal.places is None:
            return
        now = self._now()
        if len(self._refusals) >= MOST_KEPT:
            self._refusals = {kind: kept for kind, kept in self._refusals.items() if kept[0] > now}
        if len(self._refusals) < MOST_KEPT:
            self._refusals[asked] = now + KEPT_S, refusal
            # What it was raised from holds the request.
            refusal.__traceback__ = refusal.__context__ = None

    def find(self, asked: Asked) -> LimitReached | None:
        """What a request hears; None: there is a place for it, as far as is known here."""
        until, refusal = self._refusals.get(asked, (0.0, None))
        if refusal is None or refusal.places is None:
            return None
        if until <= self._now():
            del self._refusals[asked]
            return None
        return refusal if refusal.places() <= self._begun[asked] else None

    def begin(self, asked: Asked) -> None:
        """A request begins, for which there was a place."""
        if asked not in self._refusals:
            return
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._begun.clear)
        self._begun[asked] += 1
