"""Clients that leave: their calls are cancelled a few in each turn of the event loop, so that a crowd that leaves at
once holds nobody up."""

import asyncio
from collections import deque

CANCELS_PER_TURN = 32
"""Each costs about a tenth of a millisecond: the hang-up on the provider, the books, the access line."""


class Leaving:
    """The calls of one listener whose clients have left."""

    def __init__(self) -> None:
        self._cancelled = 0
        """In this turn of the event loop."""
        self._waiting: deque[tuple[asyncio.Task[None], str]] = deque()

    def cancel(self, task: asyncio.Task[None], why: str) -> None:
        """Cancel a call: at once, or when its turn comes. One that ends meanwhile is left alone."""
        if self._cancelled >= CANCELS_PER_TURN or self._waiting:
            self._waiting.append((task, why))
            return
        if not self._cancelled:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._cancelled += 1
        task.cancel(why)

    def _next_turn(self) -> None:
        self._cancelled = 0
        while self._waiting and self._cancelled < CANCELS_PER_TURN:
            task, why = self._waiting.popleft()
            self._cancelled += task.cancel(why)
        if self._cancelled:
            asyncio.get_running_loop().call_soon(self._next_turn)
