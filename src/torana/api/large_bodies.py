"""Large bodies: one in each turn of the event loop is decoded, rendered and sent on. Those that end together would hold
up everybody else for as long as all of them take."""

import asyncio

from torana.heap import Heap

LARGE_BYTES = 262_144
"""About 1.5 ms of work and more; 8 MiB are 50."""


class LargeBodies:
    """Those of one worker."""

    def __init__(self, heap: Heap) -> None:
        self._next = asyncio.Lock()
        self._heap = heap

    async def take_turn(self) -> None:
        """Returns in a turn of the event loop in which no other one does, first come, first served."""
        self._heap.keep()
        async with self._next:
            await asyncio.sleep(0)
