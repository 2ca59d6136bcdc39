"""How many tries may be made on top of the first ones: a tenth of the traffic, and a few a second.

Without it, a provider that fails is asked several times as often as one that works, just when it can least bear it.
"""

from torana.clock import Clock

SHARE = 0.1
"""Further tries for each first one."""
PER_S = 3.0
"""Further tries a second that are always free, so that a quiet gateway retries as well."""
MOST_SAVED = 10.0
"""What a busy time may leave for a bad one."""


class RetryBudget:
    """One worker's.

    workers  how many share the free tries of a second
    """

    __slots__ = ("_clock", "_free", "_most_free", "_per_s", "_saved", "_since")

    def __init__(self, clock: Clock, *, workers: int = 1, per_s: float = PER_S) -> None:
        self._clock = clock
        self._per_s = per_s / workers
        self._most_free = max(1.0, self._per_s) if per_s else 0.0
        self._free = self._most_free
        self._saved = 0.0
        self._since = clock.monotonic()

    def first_try(self) -> None:
        """A call goes out for the first time."""
        self._saved = min(MOST_SAVED, self._saved + SHARE)

    def take(self) -> bool:
        """True where one further try may be made; it is then spent."""
        now = self._clock.monotonic()
        self._free = min(self._most_free, self._free + (now - self._since) * self._per_s)
        self._since = now
        if self._free >= 1.0:
            self._free -= 1.0
            return True
        if self._saved >= 1.0 - 1e-9:
            self._saved = max(0.0, self._saved - 1.0)
            return True
        return False
