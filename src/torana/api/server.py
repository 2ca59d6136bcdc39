"""The HTTP server: uvicorn's httptools protocol with the caps and the patience it lacks, and a drain of ours.

uvicorn has no cap on headers and no time-out for receiving. Both are here, together with: a connection that
is refused in the middle of its request lingers until the client has read the answer; a client that is gone
cancels the call it was waiting for. Depends on details of uvicorn, which is pinned for that reason.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import httptools
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from torana.settings import ServeSettings

TICK_S = 0.25
LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is cut."""

# What a connection is doing, for the sweep that ends those without progress.
_IDLE, _FRESH, _HEADERS, _BODY, _HANDLING, _LINGERING = range(6)

_REFUSALS = {
    400: b"Invalid HTTP request received.",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
}
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 414: b"URI Too Long", 431: b"Request Header Fields Too Large"}


class _Refused(Exception):
    """Leaves the parser's callbacks with the status to answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(HttpToolsProtocol):
    """One client connection."""

    serve: ServeSettings
    """Set on the subclass that `Listener` makes."""
    is_draining: Callable[[], bool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.phase = _FRESH
        self.since = time.monotonic()
        self.head_bytes = 0
        self.refusal = 0
        self.paused_since = 0.0
        self.written_at_pause = 0
        self.task: asyncio.Task[None] | None = None

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self.phase == _LINGERING:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400)
        except httptools.HttpParserError:
            self._refuse(self.refusal or 400)
        else:
            if self.phase == _HEADERS:
                # The parser keeps an unfinished header to itself, so count what it was fed.
                self.head_bytes += len(data)
                if self.head_bytes > self.serve.max_header_bytes + self.serve.max_uri_bytes:
                    self._refuse(431)
            elif self.phase == _BODY:
                self.since = time.monotonic()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.phase = _HEADERS
        self.since = time.monotonic()
        self.head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.serve.max_uri_bytes:
            self.refusal = 414
            raise _Refused(414)

    def on_headers_complete(self) -> None:
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > self.serve.max_header_bytes:
            self.refusal = 431
            raise _Refused(431)
        self.phase = _BODY
        self.since = time.monotonic()
        super().on_headers_complete()
        if self.is_draining():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self.phase = _HANDLING if not self.cycle.response_complete else _IDLE
        self.since = time.monotonic()
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _refuse(self, status: int) -> None:
        """Answer a request that never reaches the application, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            # An earlier answer is under way on this connection; nothing may be written between.
            self.transport.close()
            return
        body = _REFUSALS[status]
        head = b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n" % (status, _PHRASES[status])
        self.transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        self.linger()

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.more_body:
            cycle.transport = _LingeringTransport(self, self.transport)  # type: ignore[assignment]
        task = self.loop.create_task(cycle.run_asgi(app))
        self.task = task
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        # As uvicorn's, without a timer of its own per answer: the sweep ends idle connections.
        self.server_state.total_requests += 1
        self.task = None
        if self.transport.is_closing():
            return
        if self.phase == _HANDLING:
            self.phase = _IDLE
            self.since = time.monotonic()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        task, self.task = self.task, None
        if task is not None and self.cycle is not None:
            # Nobody tells a handler that waits for a provider that its client has left.
            task.cancel("client gone")

    def pause_writing(self) -> None:
        self.paused_since = time.monotonic()
        self.written_at_pause = self.transport.get_write_buffer_size()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.paused_since = 0.0
        super().resume_writing()

    # Ending

    def linger(self) -> None:
        """Close once the client has had time to read: closing on unread input would reset the answer away."""
        self.phase = _LINGERING
        self.since = time.monotonic()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def sweep(self, now: float) -> None:
        """End this connection if it has been without progress for too long."""
        serve = self.serve
        waited_s = now - self.since
        if self.phase in (_FRESH, _HEADERS):
            if waited_s > serve.header_timeout_s:
                self.transport.close() if self.phase == _FRESH else self._refuse(408)
        elif self.phase == _BODY:
            if waited_s > serve.body_timeout_s:
                if self.cycle is not None and not self.cycle.response_started:
                    if self.task is not None:
                        self.task.cancel("body too slow")
                    self.cycle.disconnected = self.cycle.response_complete = True
                    self._refuse(408)
                else:
                    self.transport.close()
        elif self.phase == _IDLE:
            if waited_s > serve.keepalive_idle_s:
                self.transport.close()
        elif self.phase == _LINGERING and waited_s > LINGER_S:
            self.transport.abort()
        if self.paused_since:
            left = self.transport.get_write_buffer_size()
            if left < self.written_at_pause:
                self.paused_since, self.written_at_pause = now, left
            elif now - self.paused_since > serve.write_timeout_s:
                self.transport.abort()

    def shutdown(self) -> None:
        """Part of a drain: close when idle, else after the answer under way."""
        if self.cycle is None or self.cycle.response_complete:
            if self.phase != _LINGERING:
                self.transport.close()
        else:
            self.cycle.keep_alive = False


class _LingeringTransport:
    """What a cycle writes to while its request's body is still coming in."""

    __slots__ = ("connection", "is_closing", "transport", "write")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self.connection = connection
        self.transport = transport
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        if self.connection.cycle.more_body and self.connection.cycle.response_complete:
            self.connection.linger()
        else:
            self.transport.close()


class Listener:
    """One listening socket and its connections; `app` is an ASGI application."""

    def __init__(self, app: Any, serve: ServeSettings, *, with_tls: bool) -> None:
        self.is_draining = False

        class Protocol(Connection):
            pass

        Protocol.serve = serve
        Protocol.is_draining = staticmethod(lambda: self.is_draining)
        tls: dict[str, Any] = {}
        if with_tls and serve.tls_enabled:
            tls = {"ssl_certfile": serve.tls_cert_file, "ssl_keyfile": serve.tls_key_file or None}
            if serve.tls_ciphers:
                tls["ssl_ciphers"] = serve.tls_ciphers
        config = uvicorn.Config(
            app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, backlog=4096, **tls,
        )  # fmt: skip
        # Its lines about answers cut on purpose would be noise; ours tell the cause.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.server = uvicorn.Server(config)
        self.ticker: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        self.server.config.load()
        self.server.lifespan = self.server.config.lifespan_class(self.server.config)
        await self.server.on_tick(0)
        await self.server.startup(sockets=[sock])
        self.ticker = asyncio.get_running_loop().create_task(self._tick())

    async def drain(self, limit_s: float) -> None:
        """Let running requests finish for up to `limit_s`, then end the rest. New ones are answered meanwhile."""
        self.is_draining = True
        state = self.server.server_state
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for connection in list(state.connections):
                connection.shutdown()
            if not state.tasks and not state.connections:
                break
            await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        """Stop listening, cancel what still runs, and close every connection."""
        for server in self.server.servers:
            server.close()
        if self.ticker is not None:
            self.ticker.cancel()
        tasks = list(self.server.server_state.tasks)
        for task in tasks:
            task.cancel("server draining")
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        for connection in list(self.server.server_state.connections):
            connection.transport.close()
        # One turn of the loop lets the transports say goodbye.
        await asyncio.sleep(0)

    async def _tick(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(TICK_S)
            count += 1
            if count % 4 == 0:
                await self.server.on_tick(0)
            now = time.monotonic()
            for connection in list(self.server.server_state.connections):
                assert isinstance(connection, Connection)
                connection.sweep(now)


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket; `shared` lets several processes bind the same port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
