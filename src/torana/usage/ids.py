"""Ids of usage records: UUIDv7 from a clock that only grows, so that their order is that of admission.

Source: RFC 9562, section 5.7, with method 3 of 6.2 (a fraction of the millisecond behind the millisecond).
"""

import secrets

from torana.clock import Clock

STEPS_PER_S = 4_096_000
"""4096 steps a millisecond: what the twelve bits behind it tell apart."""


class Ids:
    """One process's ids. The wall clock is read once; what it does afterwards changes nothing here.

    No step is used twice, which makes ids of one process differ; 62 random bits make those of two.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._base_s = clock.now() - clock.monotonic()
        self._last = 0
        tail = f"{0b10 << 62 | secrets.randbits(62):016x}"
        self._tail = f"{tail[:4]}-{tail[4:]}"

    def make(self) -> str:
        """The next one, `0198c5f2-3a4b-7c1d-9e2f-…`; greater than every earlier one."""
        step = int((self._base_s + self._monotonic()) * STEPS_PER_S)
        if step <= self._last:
            step = self._last + 1
        self._last = step
        text = f"{step:015x}"
        return f"{text[:8]}-{text[8:12]}-7{text[12:]}-{self._tail}"
