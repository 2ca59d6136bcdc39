"""Wait for what happens in the background, without guessing how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable

PATIENT = {"AIGW_ADMISSION__QUEUE_S": "60"}
"""A gateway under test shares its cores with whoever asks it: nobody is turned away because a moment was long."""
WAIT_S = 20.0
"""For what takes a moment on an idle machine: only what never comes should wait so long."""


async def eventually(is_so: Callable[[], Awaitable[bool]], within_s: float = WAIT_S) -> float:
    """Seconds until `is_so` holds, looked at every 20 ms; TimeoutError where it does not within `within_s`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within_s):
        while not await is_so():  # noqa: ASYNC110  what it waits for has no event of ours
            await asyncio.sleep(0.02)
    return loop.time() - began
