"""Ids of usage records: UUIDv7 from a clock that only grows, so that their order is that of admission.

Source: RFC 9562, section 5.7, with method 3 of 6.2 (a fraction of the millisecond behind the millisecond).
"""

import random

from torana.clock import Clock

_VERSION, _VARIANT = 0x7 << 76, 0b10 << 62


class Ids:
    """One process's ids. The wall clock is read once; what it does afterwards changes nothing here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._base_s = clock.now() - clock.monotonic()
        self._last = 0

    def make(self) -> str:
        """The next one, `0198c5f2-3a4b-7c1d-9e2f-…`; greater than every earlier one."""
        # 4096 steps a millisecond, and never the same step twice.
        step = max(int((self._base_s + self._clock.monotonic()) * 4_096_000), self._last + 1)
        self._last = step
        number = (step >> 12) % (1 << 48) << 80 | _VERSION | (step & 0xFFF) << 64 | _VARIANT | random.getrandbits(62)
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
