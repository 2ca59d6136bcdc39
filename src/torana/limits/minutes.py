"""Counts of a minute for the access room: user tokens minted, tokens refused; one count for all workers of a server.

With shared counts, one for all servers: what was counted here is told a moment later, and the answer says what all have
counted. So nobody waits; together servers may let a few more pass, those of that moment.
"""

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import Protocol

from torana.clock import Clock
from torana.limits.questions import Command, minute_arguments, read_answers
from torana.limits.table import END, UNTIL, USED, Key, Table

MINUTE = 60_000_000_000
"""Nanoseconds."""
TELL_S, AGAIN_S = 0.02, 1.0
"""For so long counts gather before they are told, and after they could not be."""
BATCH, MAX_UNTOLD = 40, 4_096


class Store(Protocol):
    """Where all servers count."""

    def put(self, limits: Sequence[tuple[Key, Command]]) -> "asyncio.Future[list[int]]": ...


class MinuteLimit:
    """How often each key was counted within its minute, which begins with the first count.

    name   tells its counts from others in the table
    limit  per key and minute; 0: no bound
    store  None: this server counts for itself
    """

    def __init__(self, name: str, limit: int, table: Table, clock: Clock, store: Store | None = None) -> None:
        self.limit = limit
        self._seed = name.encode()
        self._table = table
        self._clock = clock
        self._store = store
        self._untold: dict[Key, tuple[int, int]] = {}
        """How often since the last telling, and when the minute of it is over."""
        self._timer: asyncio.TimerHandle | None = None

    def count(self, key: str) -> int:
        """Count once more; returns how often it was within this minute."""
        if not self.limit:
            return 0
        now, table, hashed = int(self._clock.monotonic() * 1e9), self._table, self._hash(key)
        numbers = table.numbers
        table.lock()
        try:
            slot = table.find(hashed, now)
            if numbers[slot + UNTIL] <= now:
                numbers[slot + UNTIL], numbers[slot + USED], numbers[slot + END] = now + MINUTE, 0, 0
            numbers[slot + USED] += 1
            counted, until = numbers[slot + USED], numbers[slot + UNTIL]
        finally:
            table.unlock()
        if self._store is not None and len(self._untold) < MAX_UNTOLD:
            self._keep(hashed, 1, until, now)
            self._tell_in(TELL_S)
        return counted

    def wait_s(self, key: str) -> int:
        """Whole seconds until `key` is below its limit again; 0 when it is."""
        if not self.limit:
            return 0
        slot = self._table.look(self._hash(key))
        if slot < 0 or self._table.numbers[slot + USED] < self.limit:
            return 0
        return max(0, math.ceil((self._table.numbers[slot + UNTIL] - int(self._clock.monotonic() * 1e9)) / 1e9))

    def _tell_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tell)

    def _keep(self, key: Key, count: int, until: int, now: int) -> None:
        """For the next telling. A minute that is over, because nobody listened for so long, is nobody's any more."""
        known, known_until = self._untold.get(key, (0, 0))
        self._untold[key] = (count + known, known_until) if known_until > now else (count, until)

    def _tell(self) -> None:
        assert self._store is not None
        self._timer = None
        now = int(self._clock.monotonic() * 1e9)
        popped = [(key, *self._untold.pop(key)) for key in list(self._untold)[:BATCH]]
        batch = [each for each in popped if each[2] > now]
        if batch:
            future = self._store.put([(key, minute_arguments(self.limit, count)) for key, count, _ in batch])
            future.add_done_callback(partial(self._heard, batch))
        if self._untold:
            self._tell_in(TELL_S)

    def _heard(self, batch: Sequence[tuple[Key, int, int]], future: "asyncio.Future[list[int]]") -> None:
        if future.cancelled():
            return
        now, table = int(self._clock.monotonic() * 1e9), self._table
        if future.exception() is not None:
            for key, count, until in batch:
                if until > now:
                    self._keep(key, count, until, now)
            if self._untold:
                self._tell_in(AGAIN_S)
            return
        numbers = table.numbers
        table.lock()
        try:
            for (key, *_), answer in zip(batch, read_answers(future.result()).limits, strict=True):
                slot, total = table.find(key, now), self.limit - answer.left
                is_same = numbers[slot + UNTIL] > now and numbers[slot + END] == answer.end
                numbers[slot + USED] = max(numbers[slot + USED], total) if is_same else total
                numbers[slot + UNTIL], numbers[slot + END] = now + answer.reset_ms * 1_000_000, answer.end
        finally:
            table.unlock()

    def _hash(self, key: str) -> Key:
        whole = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16, key=self._seed).digest()
        return int.from_bytes(whole[:8], "big", signed=True) | 1, int.from_bytes(whole[8:], "big", signed=True)
