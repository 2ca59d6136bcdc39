"""A server that says exactly the bytes a test wants, when it wants, and tells when its peer has gone."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

from tests.support.lasting import Lasting


class Line:
    """One accepted connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        """Counted from 1."""
        self.requests: list[bytes] = []
        self._reader = reader
        self._writer = writer

    async def read_request(self) -> bytes:
        """One request, head and body; raises IncompleteReadError when the peer left instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        request = head + await self._reader.readexactly(size)
        self.requests.append(request)
        return request

    async def read_head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def read_piece(self) -> bytes:
        """Whatever came; empty at the peer's end."""
        return await self._reader.read(65536)

    async def send(self, *pieces: bytes) -> None:
        """Each piece as one segment, if the network likes."""
        for piece in pieces:
            if self._writer.is_closing():
                raise ConnectionResetError("the peer has gone")
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Until the peer has closed, however it did."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass

    def finish(self) -> None:
        """FIN; the peer may still send."""
        self._writer.write_eof()

    def reset(self) -> None:
        """RST, at once."""
        linger_zero = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


Script = Callable[[Line], Awaitable[None]]


class RawServer(Lasting):
    """Runs `script` for each connection on 127.0.0.1 and closes it afterwards.

    A peer that leaves ends a script without a fault; any other exception comes out of `aclose`.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.lines: list[Line] = []
        self.port = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    @property
    def requests(self) -> list[bytes]:
        return [request for line in self.lines for request in line.requests]

    async def all_gone(self) -> None:
        """Until every script has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._failures:
            raise ExceptionGroup("a script failed", self._failures)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(len(self.lines) + 1, reader, writer)
        self.lines.append(line)
        try:
            await self.script(line)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001 - told by aclose, where the test sees it
            self._failures.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
