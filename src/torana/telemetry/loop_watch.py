"""How late the event loop is, looked at twice a second; what blocks it shows here first."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

from torana.clock import Clock
from torana.telemetry.metrics import Metrics


async def watch_loop(
    metrics: Metrics,
    clock: Clock,
    *,
    period_s: float = 0.5,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Runs until it is cancelled."""
    while True:
        due = clock.monotonic() + period_s
        await sleep(period_s)
        metrics.loop_lag(max(0.0, clock.monotonic() - due))
        metrics.threads(threading.active_count())
