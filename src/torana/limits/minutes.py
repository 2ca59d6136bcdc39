"""Counts of a minute for the access room: user tokens minted, tokens refused; one count for all workers of a server."""

import math
from hashlib import blake2b

from torana.clock import Clock
from torana.limits.table import UNTIL, USED, Key, Table

MINUTE = 60_000_000_000
"""Nanoseconds."""


class MinuteLimit:
    """How often each key was counted within its minute, which begins with the first count.

    name   tells its counts from others in the table
    limit  per key and minute; 0: no bound
    """

    def __init__(self, name: str, limit: int, table: Table, clock: Clock) -> None:
        self.limit = limit
        self._seed = name.encode()
        self._table = table
        self._clock = clock

    def count(self, key: str) -> int:
        """Count once more; returns how often it was within this minute."""
        if not self.limit:
            return 0
        now, table = int(self._clock.monotonic() * 1e9), self._table
        numbers = table.numbers
        table.lock()
        try:
            slot = table.find(self._hash(key), now)
            if numbers[slot + UNTIL] <= now:
                numbers[slot + UNTIL], numbers[slot + USED] = now + MINUTE, 0
            numbers[slot + USED] += 1
            return numbers[slot + USED]
        finally:
            table.unlock()

    def wait_s(self, key: str) -> int:
        """Whole seconds until `key` is below its limit again; 0 when it is."""
        if not self.limit:
            return 0
        slot = self._table.look(self._hash(key))
        if slot < 0 or self._table.numbers[slot + USED] < self.limit:
            return 0
        return max(0, math.ceil((self._table.numbers[slot + UNTIL] - int(self._clock.monotonic() * 1e9)) / 1e9))

    def _hash(self, key: str) -> Key:
        whole = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16, key=self._seed).digest()
        return int.from_bytes(whole[:8], "big", signed=True) | 1, int.from_bytes(whole[8:], "big", signed=True)
