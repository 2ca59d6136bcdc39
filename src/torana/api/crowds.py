"""Requests that would ask a full provider in vain, turned away at the door for the most part.

That there is no room shows when a request was read, authorized and understood, and that takes two thirds of what an
answer does. So those of a kind that was refused for want of room lately are let in only twice as often as there was
room, and the others hear at once what they would hear anyway. A kind is what one instance asks of one URL and one
model; others are not held up by it.
"""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

SHARE = 2
"""Let in for each one that there was room for: places that come free must find somebody."""
FEW = 10
"""Let in each second however full it is: nobody waits long to hear that there is room again."""
MOST_AT_ONCE = 100
"""What may gather while fewer come than would be let in."""
OVER_S = 3.0
"""A kind that nobody was refused for so long has room."""
MOST_KINDS = 256
"""Clients have a say in them; beyond these, nobody else is turned away here."""
MAX_BODY_BYTES = 16_384
"""Longer ones are always let in: looking for the model takes a microsecond a KiB."""

_NAMED = re.compile(rb'"(?:model|model_name|identifier|(?:model_)?endpoint)"\s*:\s*"([^"\\]{1,200})"')


class Kind(NamedTuple):
    """What requests have in common that find room, or none, together. It decides about nothing else."""

    path: str
    instance: str
    names: tuple[bytes, ...]
    """What the body calls models, wherever it does."""


def kind_of(path: str, instance: str, body: bytes) -> Kind | None:
    """None for requests that are always let in: of instances that are not known yet, or too large to be looked at."""
    if not instance or len(body) > MAX_BODY_BYTES:
        return None
    return Kind(path, instance, tuple(_NAMED.findall(body)))


class _Crowd:
    """How many of a kind may come in now."""

    __slots__ = ("may_come", "refused_at", "seen_at")

    def __init__(self, now: float) -> None:
        self.may_come = float(FEW)
        self.seen_at = self.refused_at = now


class Crowds:
    """The kinds that there is no room for, of one worker."""

    def __init__(self, shed: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """
        shed  told why, for each that is not let in
        """
        self._shed = shed
        self._now = now
        self._crowds: dict[Kind, _Crowd] = {}
        self._swept = now()

    @property
    def are_any(self) -> bool:
        """Mostly there are none, and nobody need be looked at."""
        return bool(self._crowds)

    def lets_in(self, kind: Kind | None) -> bool:
        """Whether a request may come in; asked once for each, while there are any crowds."""
        now = self._now()
        if now - self._swept > OVER_S:
            self._sweep(now)
        crowd = self._crowds.get(kind) if kind is not None else None
        if crowd is None:
            return True
        crowd.may_come = min(crowd.may_come + FEW * (now - crowd.seen_at), MOST_AT_ONCE)
        crowd.seen_at = now
        if crowd.may_come >= 1:
            crowd.may_come -= 1
            return True
        self._shed("no_room")
        return False

    def note(self, kind: Kind | None, *, was_refused: bool) -> None:
        """How a request ended that had come in; `was_refused`: for want of room."""
        now = self._now()
        crowd = self._crowds.get(kind) if kind is not None else None
        if crowd is None:
            if kind is None or not was_refused or len(self._crowds) >= MOST_KINDS:
                return
            crowd = self._crowds[kind] = _Crowd(now)
        if was_refused:
            crowd.refused_at = now
        else:
            crowd.may_come += SHARE

    def _sweep(self, now: float) -> None:
        self._swept = now
        self._crowds = {kind: crowd for kind, crowd in self._crowds.items() if now - crowd.refused_at <= OVER_S}
