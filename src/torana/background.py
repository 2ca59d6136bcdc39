"""Work that nobody waits for: so much at a time, and none of it is left at the end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def within(seconds: float, work: Callable[[], None]) -> None:
    """Work that blocks, in a thread; where it takes longer it goes on, and nobody waits for it any more."""
    await asyncio.wait((asyncio.ensure_future(asyncio.to_thread(work)),), timeout=seconds)


class Background:
    """The tasks of one kind in one worker.

    limit  of those under way; who begins one looks at `is_full` first; None: there is none
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        return self._limit is not None and len(self._under_way) >= self._limit

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def aclose(self) -> None:
        """End what is under way."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
