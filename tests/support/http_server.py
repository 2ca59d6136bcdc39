"""A real HTTP/1.1 server on loopback whose every byte the test decides; the fakes stand on it.

It keeps requests exactly as they came, and it notices at once when the peer hangs up, which the
usual servers tell a handler late or never.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
from bench.processes import keep_port
from tests.support.lasting import Lasting


@dataclass(slots=True, kw_only=True)
class Request:
    """One request as it came: nothing decoded, nothing folded."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: int
    """Which connection it came on, counted from 1: two requests of one number reused it."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the peer closed the connection before the answer was whole."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection is gone, whoever closed it."""

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def query(self) -> str:
        return self.target.partition(b"?")[2].decode("latin-1")

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case; None where there is none."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:
        return json.loads(self.body)


class Answering:
    """What a handler writes with. Writing after the peer has gone raises ConnectionError."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection

    async def write(self, data: bytes) -> None:
        """Send bytes as they are; waits while the peer does not read."""
        await self._connection.write(data)

    async def head(self, status: int, headers: list[tuple[str, str]]) -> None:
        lines = [
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Status'}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def whole(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        """An answer with its Content-Length, in one go."""
        await self.head(status, [*headers, ("Content-Length", str(len(body)))])
        await self.write(body)

    async def chunk(self, data: bytes) -> None:
        """One HTTP chunk; empty `data` is the final one."""
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def close(self) -> None:
        """End the connection with FIN, after what is already written."""
        self._connection.close(reset=False)

    def reset(self) -> None:
        """End the connection with RST, at once."""
        self._connection.close(reset=True)


Handler = Callable[[Request, Answering], Awaitable[None]]


class LoopbackServer(Lasting):
    """Serves `handle` on 127.0.0.1, one request after another on each connection.

    A handler is cancelled when its peer hangs up. What a handler raises comes out of `aclose`.
    """

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.port = 0
        self.connections = 0
        """How many were ever accepted."""
        self.sent_bytes = 0
        """What peers have let it write, their sockets' buffers included."""
        self.failures: list[BaseException] = []
        self.open: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._place: socket.socket | None = None
        """Has the port while nobody listens, or another test's server might."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a free port; after `stop_listening`, on the same one again."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, reuse_port=True)
        self.port = self._listener.sockets[0].getsockname()[1]
        self._leave()

    def stop_listening(self) -> None:
        """Refuse new connections and drop the open ones, as a machine that went down."""
        if self._listener is not None:
            self._place = keep_port(self.port)
            self._listener.close()
            self._listener = None
        for connection in list(self.open):
            connection.close(reset=True)

    def _leave(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None

    async def aclose(self) -> None:
        self.stop_listening()
        self._leave()
        tasks = [connection.task for connection in self.open]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.failures:
            raise ExceptionGroup(
                "a fake server's handler failed", [e for e in self.failures if isinstance(e, Exception)]
            )


class LoopbackFake(Lasting):
    """A fake that answers on a LoopbackServer."""

    server: LoopbackServer

    @property
    def url(self) -> str:
        return self.server.url

    async def start(self) -> None:
        await self.server.start()

    async def aclose(self) -> None:
        await self.server.aclose()


class _Connection(asyncio.Protocol):
    """Parses requests, hands them to the server's handler one by one, and watches for the peer's end."""

    transport: asyncio.Transport

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.waiting: asyncio.Queue[Request] = asyncio.Queue()
        self.current: Request | None = None
        self.seen: list[Request] = []
        self.is_closed_by_us = False
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it
        self.server.connections += 1
        self.number = self.server.connections
        self.server.open.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.close(reset=False)

    def eof_received(self) -> None:
        self._peer_left()

    def connection_lost(self, error: Exception | None) -> None:
        self._peer_left()
        self.may_write.set()
        self.task.cancel()
        for request in self.seen:
            request.closed.set()
        self.server.open.discard(self)

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    # What httptools calls.

    def on_message_begin(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        request = Request(
            method=self.parser.get_method().decode("ascii"),
            target=self.target,
            headers=self.headers,
            body=b"".join(self.body),
            connection=self.number,
        )
        self.seen.append(request)
        self.waiting.put_nowait(request)

    async def write(self, data: bytes) -> None:
        await self.may_write.wait()
        if self.transport.is_closing():
            raise ConnectionResetError("the peer has gone")
        self.transport.write(data)
        self.server.sent_bytes += len(data)
        # A turn of the loop, so that a peer that left is noticed between two writes.
        await asyncio.sleep(0)

    def close(self, *, reset: bool) -> None:
        self.is_closed_by_us = True
        if reset:
            linger_zero = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
            self.transport.abort()
        else:
            self.transport.close()

    def _peer_left(self) -> None:
        if self.current is not None and not self.is_closed_by_us:
            self.current.hung_up.set()

    async def _serve(self) -> None:
        while True:
            request = self.current = await self.waiting.get()
            try:
                await self.server.handle(request, Answering(self))
            except ConnectionError:
                return
            except Exception as error:  # noqa: BLE001 - told by aclose, where the test sees it
                self.server.failures.append(error)
                self.close(reset=True)
                return
            self.current = None
