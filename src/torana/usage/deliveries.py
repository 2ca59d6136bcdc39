"""All sinks of this worker, and what becomes of a folder that all of them have."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from torana.usage.delivery import Delivery
from torana.usage.folder import START, Folder, Position, receiver_of
from torana.usage.spool import Spool

GRACE_S = 5.0
"""What a sink is given at the end of the process, and a disk that is to delete."""

logger = logging.getLogger("torana.usage")


class Deliveries:
    """Starts and ends deliveries, and deletes what everybody has. Without any sink, that is everything."""

    def __init__(self, spool: Spool, makers: Mapping[str, Callable[[], Delivery]]) -> None:
        self._spool = spool
        self._deliveries: dict[str, Delivery] = {}
        self._tidying: asyncio.Task[None] | None = None
        self._is_untidy = False
        self._is_complete = False
        """Every sink has been started: what all of these have, everybody has."""
        spool.on_change = self._notify
        spool.is_done = self._has_all
        self._makers = makers
        self._exchange: asyncio.Task[None] | None = None
        self._start()

    def replace(self, makers: Mapping[str, Callable[[], Delivery]]) -> None:
        """From now on these sinks get the records; each begins once its predecessor has ended."""
        self._is_complete = False
        self._makers = makers
        if self._exchange is None:  # else it starts these when all have ended
            self._exchange = asyncio.get_running_loop().create_task(self._change())

    async def _change(self) -> None:
        earlier, self._deliveries = self._deliveries, {}
        await asyncio.gather(*(delivery.aclose(GRACE_S) for delivery in earlier.values()))
        for name in earlier.keys() - self._makers.keys():
            earlier[name].owe_nothing()
        self._exchange = None
        self._start()

    def _start(self) -> None:
        for name, make in self._makers.items():
            self._deliveries[name] = delivery = make()
            delivery.moved = self._tidy
        self._is_complete = True
        self._notify()

    async def aclose(self) -> None:
        """The sinks get what is left, as far as they take it within a moment; the rest stays in the spool."""
        if self._exchange is not None:
            await asyncio.wait((self._exchange,))
        await asyncio.gather(*(delivery.aclose(GRACE_S) for delivery in self._deliveries.values()))
        if self._tidying is not None:
            await asyncio.wait((self._tidying,), timeout=GRACE_S)

    def _notify(self) -> None:
        for delivery in self._deliveries.values():
            delivery.notify()
        if not self._deliveries:
            self._tidy()

    def _tidy(self) -> None:
        """Delete what everybody has; one at a time, and once more where something has moved meanwhile."""
        self._is_untidy = True
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.get_running_loop().create_task(self._delete())

    async def _delete(self) -> None:
        while self._is_untidy and self._is_complete:
            self._is_untidy = False
            for folder in list(self._spool.folders):
                if self._is_complete:  # looked at for each: sinks may have been exchanged while one was deleted
                    with suppress(OSError):  # the next one tries again
                        await self._delete_from(folder)

    def _reached(self, folder: Folder) -> Position:
        """How far all sinks have it."""
        receiver = receiver_of(folder.name)
        if receiver and receiver not in self._deliveries:
            return START  # an operator wants it sent: until that sink is there, nobody has it
        return min((delivery.position(folder) for delivery in self._deliveries.values()), default=folder.end)

    def _has_all(self, folder: Folder) -> bool:
        # Without any sink nobody has said that the records may go.
        return self._is_complete and bool(self._deliveries) and self._reached(folder) >= folder.end

    async def _delete_from(self, folder: Folder) -> None:
        reached = folder.delivered = self._reached(folder)
        if folder is self._spool.own or reached < folder.end:
            await asyncio.to_thread(folder.forget, reached.segment)
            return
        self._spool.folders.remove(folder)
        try:
            await asyncio.to_thread(folder.remove)
        except OSError:
            self._spool.folders.append(folder)
            raise
        for delivery in self._deliveries.values():
            delivery.forget(folder)
        logger.info("a dead worker's usage records are all delivered", extra={"folder": str(folder.path)})
