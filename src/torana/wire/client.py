"""Send a request, read the answer: the client's face."""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping, Sequence

from torana.errors import (
    NOTHING_SENT,
    AnswerTooLarge,
    ProviderBroke,
    ProviderTimedOut,
    ProviderTlsFailed,
    ProviderUnreachable,
)
from torana.heap import LARGE_BYTES, Heap
from torana.wire.addresses import Resolve
from torana.wire.connection import Connection
from torana.wire.large_answers import LargeAnswers
from torana.wire.pool import IDLE_CONNECTION_S, LIFE_S, Pool
from torana.wire.target import Peer, Target

MAX_TARGETS = 1024
"""URLs remembered in their parts; beyond it all are forgotten, for clients may bring ever new ones."""


class WireAnswer:
    """An answer whose head is in. Read it to its end or close it; closing early aborts the connection."""

    __slots__ = ("_connection", "_heap", "_idle_s", "_large", "headers", "status")

    def __init__(self, connection: Connection, idle_s: float, heap: Heap, large: LargeAnswers) -> None:
        self._connection: Connection | None = connection
        self._idle_s = idle_s
        self._heap = heap
        self._large = large
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        """Lower-case names; a repeated header's values are joined with commas."""

    async def read(self) -> bytes:
        """The next bytes as they came, b"" at the end.

        Raises ProviderTimedOut after a silence, ProviderBroke when the body is cut; both end the connection.
        """
        connection = self._connection
        if connection is None:
            return b""
        try:
            while not connection.chunks and not connection.is_done:
                await connection.wait(self._idle_s)
        except BaseException:
            # Kept, not let go: reading on must fail again, never look like the end.
            connection.abort()
            raise
        if connection.chunks:
            return connection.take()
        self._connection = None
        connection.finish()
        return b""

    async def read_all(self, limit_bytes: int, see: Callable[[Sequence[bytes]], None] | None = None) -> bytes:
        """The whole body; raises AnswerTooLarge beyond `limit_bytes`, or where many large ones are read at once.

        see  shown all parts whenever a further one came; may raise, and the caller closes as ever
        """
        parts: list[bytes] = []
        total_bytes = 0
        try:
            while data := await self.read():
                total_bytes += len(data)
                if total_bytes > limit_bytes:
                    self.close()
                    raise AnswerTooLarge(f"the answer is larger than {limit_bytes} bytes")
                parts.append(data)
                if total_bytes > LARGE_BYTES:
                    self._heap.keep()
                    self._large.hold(self, total_bytes)
                if see is not None:
                    see(parts)
        except BaseException:
            # Whoever keeps the error keeps this frame, and would keep the body with it.
            parts.clear()
            raise
        finally:
            self._large.leave(self)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def give_up(self) -> None:
        """Whoever reads it hears that it is too large."""
        if self._connection is not None:
            self._connection.give_up(AnswerTooLarge("too many large answers come at once"))

    def close(self) -> None:
        """Abort what has not been read to its end. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.is_done and not connection.chunks:
                connection.finish()
            else:
                connection.abort()


class WireClient:
    """Connections to all providers of one process, pooled by scheme, host, port and proxy."""

    def __init__(
        self,
        connect_s: float,
        tls: Callable[[], ssl.SSLContext],
        resolve: Resolve,
        *,
        doubt: Callable[[str, int], None] | None = None,
        heap: Heap | None = None,
        large: LargeAnswers | None = None,
        idle_connection_s: float = IDLE_CONNECTION_S,
        connection_life_s: float = LIFE_S,
    ) -> None:
        """
        doubt  told of a host and port where no address lets us in
        heap   the memory of this process; None: nobody else looks after it
        large  what is in it of large answers; None: of this client's
        """
        self._connect_s = connect_s
        self._tls = tls
        self._resolve = resolve
        self._doubt = doubt
        self._heap = heap or Heap()
        self.large = large or LargeAnswers()
        self.pool = Pool(idle_connection_s, connection_life_s)
        self._targets: dict[tuple[str, str], Target] = {}

    @property
    def open_connections(self) -> int:
        """Connections that are being opened, in use or at rest."""
        return len(self.pool.open)

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
        first_byte_s  patience for the whole head, sending included
        idle_s        patience for each further piece of the body
        proxy         URL of an HTTP proxy to go through; empty: none

        Raises ProviderUnreachable, ProviderTlsFailed, ProviderTimedOut, ProviderBroke; ProviderError itself for a
        request that cannot be written.
        """
        target = self._targets.get((url, proxy)) or self._remember(url, proxy)
        head = target.write_head(method, headers, len(body) if body or method == "POST" else None)
        connection = self.pool.reuse(target.key)
        may_repeat = connection is not None
        while True:
            if connection is None:
                connection = await self._connect(target)
            try:
                connection.ask(head, body)
                await connection.wait_for_head(first_byte_s)
            except BaseException as error:
                connection.abort()
                # A provider may close an idle connection just as we use it. A new one meets no such fate.
                if may_repeat and isinstance(error, ProviderBroke) and connection.was_closed_on_asking:
                    # Its frames hold the connection, which keeps it: a ring for the collector.
                    error.with_traceback(None)
                    connection, may_repeat = None, False
                    continue
                raise
            return WireAnswer(connection, idle_s, self._heap, self.large)

    async def aclose(self) -> None:
        """Abort everything; who still reads gets ProviderBroke."""
        self.pool.close()
        # A turn of the loop for the sockets, another for what TLS puts on top.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _remember(self, url: str, proxy: str) -> Target:
        target = Target(url, proxy)
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        self._targets[url, proxy] = target
        return target

    async def _connect(self, target: Target) -> Connection:
        """A connection on which the next byte is the request's: TCP, the proxy's tunnel, TLS."""
        connection: Connection | None = None
        is_greeting = False
        try:
            async with asyncio.timeout(self._connect_s):
                peer = target.proxy or target
                connection = await self._open(peer, target)
                if peer.is_tls:
                    is_greeting = True
                    await self._greet(connection, peer.host)
                if target.proxy is not None and target.is_tls:
                    is_greeting = False
                    await self._tunnel(connection, target)
                    is_greeting = True
                    await self._greet(connection, target.host)
        except BaseException as error:
            if connection is not None:
                connection.abort()
            if isinstance(error, OSError):
                raise _failure_of(error, self._connect_s, is_greeting=is_greeting) from error
            error.add_note(NOTHING_SENT)
            raise
        return connection

    async def _open(self, peer: Peer, target: Target) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_s
        failure = OSError(0, "no address")
        addresses = await self._resolve(peer.host, peer.port)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # An address that swallows packets must leave the others time.
            patience_s = (deadline - loop.time()) / (2 if left > 1 else 1)
            try:
                return await self._call(Connection(self.pool, target.key, loop), address, peer.port, patience_s)
            except OSError as error:
                failure = error
        if self._doubt is not None:
            self._doubt(peer.host, peer.port)
        try:
            raise failure
        finally:
            del failure  # it holds this frame: a ring for the collector

    async def _call(self, connection: Connection, address: str, port: int, patience_s: float) -> Connection:
        """The connection, made; raises OSError."""
        try:
            async with asyncio.timeout(patience_s):
                await connection.loop.create_connection(lambda: connection, address, port)
        except BaseException:
            # Where its caller goes just as it is made, uvloop does not tell a connection of its end.
            connection.abort()
            raise
        return connection

    async def _greet(self, connection: Connection, host: str) -> None:
        """TLS; the certificate must be `host`'s, whatever address was called."""
        plain = connection.transport
        if plain is None or plain.is_closing():
            raise ConnectionResetError(0, "closed before TLS began")
        transport = await connection.loop.start_tls(plain, connection, self._tls(), server_hostname=host)
        if transport is None or transport.is_closing() or connection.failure is not None:
            raise ConnectionResetError(0, "closed while TLS began")
        connection.connection_made(transport)

    async def _tunnel(self, connection: Connection, target: Target) -> None:
        """Ask the proxy for a way to the target's host."""
        try:
            connection.ask(target.write_connect_head(), b"")
            # Never the one to end: the patience for connecting is over before.
            await connection.wait_for_head(2 * self._connect_s)
        except (ProviderBroke, ProviderTimedOut) as error:
            raise ProviderUnreachable(f"the proxy: {error}") from error
        if not 200 <= connection.status < 300:
            raise ProviderUnreachable(f"the proxy refuses to connect: {connection.status}")
        if connection.has_surplus:
            raise ProviderUnreachable("the proxy sends bytes of its own into the tunnel")
        connection.rest()


def _failure_of(error: OSError, connect_s: float, *, is_greeting: bool) -> ProviderUnreachable:
    """What a failed connection is called; the text names no host."""
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason
        return ProviderTlsFailed(reason or type(error).__name__)
    if isinstance(error, TimeoutError):
        text = f"no connection within {connect_s:g} s"
    else:
        # The loops' own texts name the address; the system's do not. A look-up's numbers are below zero.
        number = error.errno or 0
        text = (os.strerror(number) if number > 0 else error.strerror) or type(error).__name__
    if not is_greeting:
        return ProviderUnreachable(text)
    failure = ProviderTlsFailed(f"within the handshake: {text}")
    # No certificate was refused and nothing was sent.
    failure.is_retryable = True
    return failure
