"""A lean HTTP/1.1 client: one asyncio protocol per connection, parsed by httptools, pooled.

It exists because of the hot path: the general client costs more than the rest of a relayed request
(docs/decisions/0003). It does what model calls need and no more: one request at a time on a connection,
a body in memory, HTTP proxies; no redirects, no cookies, no decompression. Everything a provider can do wrong
ends in one of four errors; a connection on which anything unasked arrives is never used again.
"""

import asyncio
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote, urlsplit

import httptools

from torana.errors import ProviderBroke, ProviderError, ProviderTimedOut, ProviderTlsFailed, ProviderUnreachable

IDLE_CONNECTION_S = 30.0
"""A pooled connection is closed after this long without use; providers close theirs later."""
MAX_HEAD_BYTES = 64 * 1024
HIGH_WATER_BYTES = 256 * 1024
"""Unread body on one connection; beyond it the provider is told to wait, by TCP."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → addresses to try, in order; raises OSError."""


class WireAnswer:
    """An answer whose head is in. Read it to its end or close it; closing early aborts the connection."""

    __slots__ = ("_connection", "_idle_s", "headers", "status")

    def __init__(self, connection: "_Connection", idle_s: float) -> None:
        self._connection: _Connection | None = connection
        self._idle_s = idle_s
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        """Lower-case names; a repeated header's values are joined with commas."""

    async def read(self) -> bytes:
        """The next bytes as they came, b"" at the end.

        Raises ProviderTimedOut after a silence, ProviderBroke when the body is cut.
        """
        connection = self._connection
        if connection is None:
            return b""
        while not connection.chunks and not connection.is_done:
            await connection.wait(self._idle_s)
        if connection.chunks:
            return connection.take()
        self._connection = None
        connection.finish()
        return b""

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole body; raises ProviderBroke beyond `limit_bytes`."""
        data = await self.read()
        if self._connection is None:
            return data
        parts, total = [data], len(data)
        while data := await self.read():
            total += len(data)
            if total > limit_bytes:
                self.close()
                raise ProviderBroke(f"the answer is larger than {limit_bytes} bytes")
            parts.append(data)
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        """Abort what has not been read to its end. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.is_done and not connection.chunks and not connection.failure:
                connection.finish()
            else:
                connection.abort()


class WireClient:
    """Connections to all providers of one process, pooled by scheme, host and port."""

    def __init__(self, connect_s: float, tls: Callable[[], ssl.SSLContext], resolve: Resolve) -> None:
        self._connect_s = connect_s
        self._tls = tls
        self._resolve = resolve
        self._idle: dict[_Key, deque[_Connection]] = {}
        self._all: set[_Connection] = set()
        self._targets: dict[tuple[str, str], _Target] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        first_byte_s: float,
        idle_s: float,
        proxy: str = "",
    ) -> WireAnswer:
        """Send one request and wait for the answer's head.

        headers       all that goes out besides Host and Content-Length
        first_byte_s  patience for the head
        proxy         URL of an HTTP proxy to go through; empty: none

        Raises ProviderUnreachable, ProviderTlsFailed, ProviderTimedOut, ProviderBroke.
        """
        target = self._targets.get((url, proxy)) or self._remember(url, proxy)
        head = target.head(method, headers, len(body) if body or method == "POST" else None)
        while True:
            connection = self._reuse(target.key)
            is_reused = connection is not None
            if connection is None:
                connection = await self._connect(target)
            try:
                connection.ask(head, body)
                await connection.wait_for_head(first_byte_s)
            except ProviderBroke:
                connection.abort()
                # The provider closed an idle connection just as we used it: it never saw the request.
                if is_reused and not connection.has_answered:
                    continue
                raise
            except BaseException:
                connection.abort()
                raise
            return WireAnswer(connection, idle_s)

    async def aclose(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._all):
            connection.abort()
        # One turn of the loop lets the transports close.
        await asyncio.sleep(0)

    def _remember(self, url: str, proxy: str) -> "_Target":
        target = _Target(url, proxy)
        # URLs with a query may never come again.
        if len(self._targets) < 1024 and "?" not in url:
            self._targets[url, proxy] = target
        return target

    def _reuse(self, key: "_Key") -> "_Connection | None":
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self, target: "_Target") -> "_Connection":
        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._open(target)
                if target.proxy is not None and target.scheme == "https":
                    await self._tunnel(connection, target)
        except TimeoutError as error:
            raise ProviderUnreachable(f"no connection within {self._connect_s:g} s") from error
        except ssl.SSLError as error:
            raise ProviderTlsFailed(error.reason or type(error).__name__) from error
        except OSError as error:
            raise ProviderUnreachable(error.strerror or type(error).__name__) from error
        self._all.add(connection)
        return connection

    async def _open(self, target: "_Target") -> "_Connection":
        loop = asyncio.get_running_loop()
        peer = target.proxy or target
        is_tls = peer.scheme == "https"
        failure = OSError(0, "no address")
        for address in await self._resolve(peer.host, peer.port):
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, target.key, loop),
                    address,
                    peer.port,
                    ssl=self._tls() if is_tls else None,
                    server_hostname=peer.host if is_tls else None,
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure

    async def _tunnel(self, connection: "_Connection", target: "_Target") -> None:
        """Through a proxy to a host that speaks TLS: ask the proxy to connect, then greet the host."""
        try:
            connection.ask(target.connect_head(), b"")
            await connection.wait_for_head(self._connect_s)
            if connection.status != 200:
                raise ProviderUnreachable(f"the proxy refuses to connect: {connection.status}")
            assert connection.transport is not None
            transport = await connection.loop.start_tls(
                connection.transport, connection, self._tls(), server_hostname=target.host
            )
        except BaseException:
            connection.abort()
            raise
        assert transport is not None
        connection.connection_made(transport)

    def release(self, connection: "_Connection") -> None:
        """Take a connection back whose answer was read to its end."""
        self._idle.setdefault(connection.key, deque()).append(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(IDLE_CONNECTION_S / 3, self._sweep, connection.loop)

    def forget(self, connection: "_Connection") -> None:
        self._all.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        oldest = loop.time() - IDLE_CONNECTION_S
        for key, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since < oldest or not idle[0].is_reusable):
                idle.popleft().abort()
            if not idle:
                del self._idle[key]
        if self._idle:
            self._sweeper = loop.call_later(IDLE_CONNECTION_S / 3, self._sweep, loop)


_Key = tuple[str, str, int, str]
"""Connections with one key lead to the same place: scheme, host, port, proxy."""


class _Peer:
    """Scheme, host and port of a URL."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ProviderUnreachable("an outbound address is no URL") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ProviderUnreachable("an outbound address is no http or https URL")
        self.scheme = parts.scheme
        self.host = parts.hostname
        default = 443 if parts.scheme == "https" else 80
        self.port = port or default
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.host_line = shown if self.port == default else f"{shown}:{self.port}"
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.credentials = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.credentials = b64encode(pair.encode()).decode()


class _Target(_Peer):
    """Where a request goes, taken apart once."""

    def __init__(self, url: str, proxy: str) -> None:
        super().__init__(url)
        self.proxy = _Peer(proxy) if proxy else None
        self.key: _Key = (self.scheme, self.host, self.port, proxy)
        # A proxy is told the whole address, unless it only passes a tunnel.
        self._start = self.path
        if self.proxy is not None and self.scheme == "http":
            self._start = f"http://{self.host_line}{self.path}"

    def head(self, method: str, headers: Mapping[str, str], body_bytes: int | None) -> bytes:
        lines = [f"{method} {self._start} HTTP/1.1\r\nHost: {self.host_line}\r\n"]
        if self.proxy is not None and self.scheme == "http" and self.proxy.credentials:
            lines.append(f"Proxy-Authorization: Basic {self.proxy.credentials}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if body_bytes is not None:
            lines.append(f"Content-Length: {body_bytes}\r\n")
        lines.append("\r\n")
        head = "".join(lines)
        # A line break inside a name or a value would begin a header, or a request, of somebody else's.
        if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
            raise ProviderBroke("a header cannot be sent")
        return head.encode("latin-1", "replace")

    def connect_head(self) -> bytes:
        """Asks a proxy for a tunnel."""
        assert self.proxy is not None
        shown = f"[{self.host}]" if ":" in self.host else self.host
        lines = f"CONNECT {shown}:{self.port} HTTP/1.1\r\nHost: {shown}:{self.port}\r\n"
        if self.proxy.credentials:
            lines += f"Proxy-Authorization: Basic {self.proxy.credentials}\r\n"
        return f"{lines}\r\n".encode("latin-1")


class _Connection(asyncio.Protocol):
    """One connection and the one answer that may be under way on it."""

    def __init__(self, client: WireClient, key: _Key, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self.key = key
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.parser: httptools.HttpResponseParser | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.idle_since = 0.0
        self.is_done = False
        """The answer under way has ended as it should."""
        self.has_answered = False
        """At least one byte of the answer came."""
        self.failure: ProviderError | None = None
        self._buffered_bytes = 0
        self._is_paused = False
        self._is_asked = False
        self._head_bytes = 0
        self._is_head_in = False
        self._ends_with_connection = False
        self._is_bodiless = False
        self._keeps_alive = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        return self.transport is not None and not self._is_asked and not self.transport.is_closing()

    # What the client does with it

    def ask(self, head: bytes, body: bytes) -> None:
        assert self.transport is not None
        self._is_bodiless = head.startswith((b"HEAD ", b"CONNECT "))
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers = {}
        self.is_done = self.has_answered = self._is_head_in = self._ends_with_connection = False
        self._head_bytes = 0
        self._is_asked = True
        if len(body) < HIGH_WATER_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    async def wait_for_head(self, patience_s: float) -> None:
        while not self._is_head_in:
            await self.wait(patience_s)

    async def wait(self, patience_s: float) -> None:
        """Until something arrived; raises the failure there is, or ProviderTimedOut after `patience_s`."""
        if self.failure is not None:
            raise self.failure
        waiter = self._waiter = self.loop.create_future()
        self._deadline = self.loop.time() + patience_s
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline, self._look_at_the_clock)
        elif self._timer.when() > self._deadline + 0.01:
            self._timer.cancel()
            self._timer = self.loop.call_at(self._deadline, self._look_at_the_clock)
        try:
            await waiter
        finally:
            # Watched only while somebody waits: a slow reader of ours is no silent provider.
            self._waiter = None
            self._deadline = 0.0

    def take(self) -> bytes:
        chunks, self.chunks = self.chunks, []
        self._buffered_bytes = 0
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def finish(self) -> None:
        """The answer was read to its end: back to the pool, if this connection may be used again."""
        if self.failure is not None:
            raise self.failure
        transport = self.transport
        if transport is None or not self._keeps_alive or transport.is_closing() or transport.get_write_buffer_size():
            if transport is not None:
                transport.close()
            return
        self._is_asked = False
        self.parser = None
        self.idle_since = self.loop.time()
        self.client.release(self)

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport, self.transport = self.transport, None
        self.parser = None
        self.client.forget(self)
        if transport is not None:
            transport.abort()

    # What the network does with it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        if parser is None or self.is_done:
            # Bytes that nobody asked for would pass for the next answer.
            self._keeps_alive = False
            if parser is None:
                self.abort()
            return
        self.has_answered = True
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keeps_alive = False
            if not self._has_ended():
                self._fail(ProviderBroke(f"the answer is no HTTP: {type(error).__name__}"))
                return
        if not self._is_head_in:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(ProviderBroke("the answer's head is too large"))
                return
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        was_asked = self._is_asked and not self.is_done
        if was_asked and self._is_head_in and self._ends_with_connection and exc is None:
            self.is_done = True
        elif was_asked and self.failure is None:
            self.failure = ProviderBroke("the connection was lost before the answer's end")
        self._keeps_alive = False
        self.transport = None
        self.client.forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    # What the parser finds

    def on_message_begin(self) -> None:
        if self.is_done:
            raise ProviderBroke("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        self.status = self.parser.get_status_code()
        if self.status < 200:
            return
        self._keeps_alive = self.parser.should_keep_alive()
        self._ends_with_connection = (
            "content-length" not in self.headers
            and "chunked" not in self.headers.get("transfer-encoding", "").lower()
            and self.status not in (204, 304)
        )
        self._is_head_in = True
        if self._is_bodiless:
            # An answer to HEAD announces a body that never comes.
            self.is_done, self._keeps_alive = True, False

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > HIGH_WATER_BYTES and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status < 200:
            # An interim answer: the real one follows.
            self.headers = {}
            return
        self.is_done = True

    def _has_ended(self) -> bool:
        return self.is_done

    # Waking whoever waits

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self.failure is not None and not self.chunks:
            waiter.set_exception(self.failure)
        elif self.chunks or self.is_done or self._is_head_in:
            waiter.set_result(None)

    def _fail(self, failure: ProviderError) -> None:
        self.failure = failure
        self._keeps_alive = False
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def _look_at_the_clock(self) -> None:
        # Re-armed lazily: waiting only moves the deadline, so a busy stream costs no timers.
        self._timer = None
        if not self._deadline:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._look_at_the_clock)
        elif self._waiter is not None and not self._waiter.done():
            kind = "silence within the answer" if self._is_head_in else "no first byte"
            self._waiter.set_exception(ProviderTimedOut(kind))
