"""A new catalogue without a restart: read and check everything anew, then swap it in as one snapshot."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torana.catalog.load import fingerprint
from torana.errors import BadCatalogue, ToranaError
from torana.telemetry.metrics import Metrics

logger = logging.getLogger("torana.reload")

WATCH_S = 1.0
"""How often the watch looks. It polls: ConfigMaps are swapped by links, which file events miss."""


class Reloader:
    """Builds off the event loop, swaps on it. A bad catalogue is refused and the old one stays.

    build   reads and checks everything; the callable that it returns swaps the result in
    """

    def __init__(self, build: Callable[[], Callable[[], None]], metrics: Metrics, overlays: Sequence[Path]) -> None:
        self._build = build
        self._metrics = metrics
        self._overlays = overlays
        self._lock = asyncio.Lock()
        self._is_due = False
        """Somebody has asked for one that has not begun."""
        self._tasks: set[asyncio.Task[bool]] = set()
        self._watch: asyncio.Task[None] | None = None

    def request(self) -> None:
        """Reload soon; for signal handlers. However many ask while one reload runs, one follows it and reads it all."""
        if self._is_due:
            return
        self._is_due = True
        task = asyncio.get_running_loop().create_task(self.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> bool:
        """True once the new catalogue serves; False where it was refused. One at a time, the last one wins."""
        async with self._lock:
            self._is_due = False
            try:
                swap = await asyncio.to_thread(self._build)
            except Exception as error:  # noqa: BLE001 whatever a file holds, the watch must go on
                if isinstance(error, BadCatalogue):
                    problems = error.problems
                else:
                    problems = [str(error) if isinstance(error, (ToranaError, OSError)) else type(error).__name__]
                for problem in problems:
                    logger.error("reload refused, the old catalogue stays", extra={"problem": problem})
                self._metrics.config_stale(True)
                return False
            swap()
            self._metrics.config_stale(False)
            logger.info("catalogue reloaded")
            return True

    def watch(self) -> None:
        """Reload whenever a file below the overlays has changed."""
        # Looked at here and now: a change right after the start must not pass for the beginning.
        seen = fingerprint(self._overlays)
        self._watch = asyncio.get_running_loop().create_task(self._keep_watching(seen))

    async def aclose(self) -> None:
        running = [*self._tasks, *([self._watch] if self._watch is not None else [])]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _keep_watching(self, seen: frozenset[tuple[str, int, int, int]]) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            now = await asyncio.to_thread(fingerprint, self._overlays)
            if now != seen:
                seen = now
                await self.reload()
