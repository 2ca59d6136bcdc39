"""A TCP proxy on loopback that does to its connections what the test asks: for providers, Redis, issuers and sinks.

async with FaultProxy(port) as proxy:     # of whatever listens on 127.0.0.1:port
    proxy.latency_s = 0.2                 # each piece of an answer comes so much later
    proxy.delay = lambda: 1.0 if … else 0 # as `latency_s`, decided for each piece
    proxy.is_silent = True                # connections stand, nothing passes
    proxy.refuses = True                  # new connections are closed at once
    proxy.reset_all(); proxy.close_all()  # RST, FIN for those that stand
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from tests.support.lasting import Lasting


class FaultProxy(Lasting):
    """Passes bytes on between a port of its own and `port`, well or badly."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.target = (host, port)
        self.connections = 0
        """How many were ever made."""
        self.latency_s = 0.0
        self.delay: Callable[[], float] | None = None
        self.refuses = False
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def is_silent(self) -> bool:
        return not self._passes.is_set()

    @is_silent.setter
    def is_silent(self, is_so: bool) -> None:
        if is_so:
            self._passes.clear()
        else:
            self._passes.set()

    def reset_all(self) -> None:
        """RST for every connection that stands."""
        for writer in list(self._open):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close_all(self) -> None:
        """FIN for every connection that stands."""
        for writer in list(self._open):
            writer.close()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        tasks = {
            asyncio.create_task(self._pass(reader, back, is_answer=False)),
            asyncio.create_task(self._pass(there, writer, is_answer=True)),
        }
        self._tasks |= tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            self._tasks -= tasks
            self._open -= {writer, back}
            writer.close()
            back.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self._passes.wait()
                wait_s = self.delay() if self.delay is not None else self.latency_s
                if is_answer and wait_s:
                    await asyncio.sleep(wait_s)
                sink.write(data)
                await sink.drain()
