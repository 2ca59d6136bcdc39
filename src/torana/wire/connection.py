"""One connection, and the one answer that may be under way on it."""

import asyncio
import select
import ssl
from typing import Protocol

import httptools

from torana.errors import ProviderBroke, ProviderError, ProviderTimedOut, ProviderTlsFailed, ProviderUnreachable
from torana.wire.target import Key

MAX_HEAD_BYTES = 64 * 1024
"""Head of an answer, interim answers included; also framing and trailers without a byte of body between."""
HIGH_WATER_BYTES = 32 * 1024
"""Unread body on one connection; beyond it, plus what one read brings, the provider is told to wait, by TCP."""
_READ = memoryview(bytearray(64 * 1024))
"""What one read may bring: the event loops' own measure is four times as much, for each of many slow readers."""
ONE_WRITE_BYTES = 256 * 1024
"""Up to here head and body are joined, for one system call; copying more costs more than the call."""
CLOSING_RACE_S = 1.0
"""A connection that the provider closed before it saw the request is told so within a round trip. Later it may
be working on it, and sending again could be charged twice."""


class Keeper(Protocol):
    """Who is told what becomes of a connection."""

    def add(self, connection: "Connection") -> None: ...

    def release(self, connection: "Connection") -> None: ...

    def forget(self, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Writes a request, parses its answer and wakes the one who waits for it."""

    def __init__(self, keeper: Keeper, key: Key, loop: asyncio.AbstractEventLoop) -> None:
        self.keeper = keeper
        self.key = key
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.parser: httptools.HttpResponseParser | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.opened_at = loop.time()
        self.idle_since = 0.0
        """When it was last released; 0: never."""
        self.is_done = False
        """The answer under way has ended as it should."""
        self.has_answered = False
        """At least one byte of the answer came."""
        self.has_surplus = False
        """Bytes came after the answer's end."""
        self.failure: ProviderError | None = None
        self._poll = select.poll()
        self._asked_at = 0.0
        self._buffered_bytes = 0
        self._is_paused = False
        self._is_asked = False
        self._framing_bytes = 0
        self._is_head_in = False
        self._ends_with_connection = False
        self._is_bodiless = False
        self._keeps_alive = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        """Open and silent since its last answer: nothing waits in the socket either, no byte and no FIN."""
        transport = self.transport
        return transport is not None and not self._is_asked and not transport.is_closing() and not self._poll.poll(0)

    @property
    def was_closed_on_asking(self) -> bool:
        """It was lost right away and without a byte: the provider never saw the request."""
        return not self.has_answered and self.loop.time() - self._asked_at < CLOSING_RACE_S

    # What the client does with it

    def ask(self, head: bytes, body: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ProviderUnreachable("the provider closes connections at once")
        self._is_bodiless = head.startswith((b"HEAD ", b"CONNECT "))
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers = {}
        self.is_done = self.has_answered = self.has_surplus = self._is_head_in = self._ends_with_connection = False
        self._framing_bytes = 0
        self._is_asked = True
        self._asked_at = self.loop.time()
        if len(body) < ONE_WRITE_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    async def wait_for_head(self, patience_s: float) -> None:
        while not self._is_head_in:
            await self.wait(patience_s)

    async def wait(self, patience_s: float) -> None:
        """Until the head is in, body came, or the answer ended.

        Raises the failure there is, or ProviderTimedOut after `patience_s`.
        """
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
        """The body that came since the last time."""
        chunks, self.chunks = self.chunks, []
        self._buffered_bytes = 0
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def finish(self) -> None:
        """The answer was read to its end: back to the keeper, if this connection may be used again."""
        transport = self.transport
        if (
            transport is None
            or not self._keeps_alive
            or self.has_surplus
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            # Not `close`: it would wait for a provider that answered early to take the rest of the request.
            self.abort()
            return
        self.rest()
        self.idle_since = self.loop.time()
        self.keeper.release(self)

    def rest(self) -> None:
        """No answer is awaited: whatever comes now comes unasked."""
        self._is_asked = False
        self.parser = None

    def abort(self) -> None:
        """Close the socket now. Who waits for this answer is told; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport, self.transport = self.transport, None
        self.parser = None
        self.keeper.forget(self)
        if transport is not None:
            transport.abort()
        if self.failure is None and not self.is_done:
            self.failure = ProviderBroke("the connection was given up")
        self._wake()

    def give_up(self, failure: ProviderError) -> None:
        """As `abort`, unless the answer is here; who waits for it is told why."""
        if not self.is_done:
            self._fail(failure)

    # What the network does with it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.keeper.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        # One for all: what a read brings is copied before the next.
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_READ[:nbytes]))

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        if parser is None:
            # Bytes that nobody asked for would pass for the next answer.
            self.abort()
            return
        if self.is_done:
            self.has_surplus = True
            return
        self.has_answered = True
        self._framing_bytes += len(data)
        try:
            if self._framing_bytes > MAX_HEAD_BYTES and not self._is_head_in:
                data = self._feed_head(parser, data)
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ProviderBroke) as error:
            self._stumble(error)
            return
        if self._framing_bytes > MAX_HEAD_BYTES and not self.is_done:
            self._fail(ProviderBroke("the answer is all framing and no body"))
        elif self.chunks or self.is_done:
            self._wake()

    def _feed_head(self, parser: httptools.HttpResponseParser, data: bytes) -> bytes:
        """Feed as much as may still be head, for one read may bring more; returns the rest."""
        room_bytes = len(data) - (self._framing_bytes - MAX_HEAD_BYTES)
        parser.feed_data(data[:room_bytes])
        if not self._is_head_in:
            raise self._refuse("the answer's head is too large")
        return data[room_bytes:]

    def _stumble(self, error: Exception) -> None:
        """The parser did not like what came: within the answer a fault of it, after it nobody's concern."""
        if self.is_done:
            self.has_surplus = True
            self._wake()
        else:
            self._fail(self.failure or ProviderBroke(f"the answer is no HTTP: {error}"))

    def eof_received(self) -> bool:
        if self._is_asked and not self.is_done:
            if self._ends_with_connection and self._said_farewell():
                self.is_done = True
                self._wake()
            else:
                self._fail(ProviderBroke("the connection was closed before the answer's end"))
        return False

    def _said_farewell(self) -> bool:
        """With TLS, whether close_notify came: anybody on the way can send a FIN, and asyncio passes it on as well."""
        secured = self.transport and self.transport.get_extra_info("ssl_object")
        try:
            return not secured or not secured.read(1)
        except ssl.SSLError:
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.failure is None and not self.is_done:
            if isinstance(exc, ssl.SSLError) and not self.has_answered and not self.idle_since:
                # TLS 1.3 tells only after the handshake that a client certificate is missing.
                self.failure = ProviderTlsFailed(exc.reason or type(exc).__name__)
            else:
                self.failure = ProviderBroke("the connection was lost before the answer's end")
        self.abort()

    # What the parser finds

    def on_message_begin(self) -> None:
        if self.is_done:
            raise ProviderBroke("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head_in:
            return  # a trailer; nobody asked for one, and the head has been read
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        self.status = self.parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:
            return
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            raise self._refuse("the answer is of a version of HTTP that nobody asked for")
        if not 200 <= self.status < 600:
            raise self._refuse(f"the answer has the status {self.status}, which nobody asked for")
        coding = self.headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise self._refuse("the answer has a transfer coding that nobody asked for")
        self._keeps_alive = self.parser.should_keep_alive()
        self._ends_with_connection = (
            coding is None and "content-length" not in self.headers and self.status not in (204, 304)
        )
        self._is_head_in = True
        if self._is_bodiless:
            # An answer to HEAD announces a body that never comes; after one to CONNECT the line is the host's.
            self.is_done = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self.is_done:
            raise ProviderBroke("a body where none belongs")
        self.chunks.append(body)
        self._framing_bytes = 0
        self._buffered_bytes += len(body)
        if self._buffered_bytes > HIGH_WATER_BYTES and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._is_head_in:
            self.is_done = True
        else:
            # An interim answer: the real one follows.
            self.headers = {}

    def _refuse(self, text: str) -> ProviderBroke:
        self.failure = ProviderBroke(text)
        return self.failure

    # Waking whoever waits

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self.failure is not None and not self.chunks:
            waiter.set_exception(self.failure)
        else:
            waiter.set_result(None)

    def _fail(self, failure: ProviderError) -> None:
        self.failure = failure
        self.abort()

    def _look_at_the_clock(self) -> None:
        # Re-armed lazily: waiting only moves the deadline, so a busy stream costs no timers.
        self._timer = None
        if not self._deadline:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._look_at_the_clock)
        elif self._waiter is not None and not self._waiter.done():
            kind = "silence within the answer" if self._is_head_in else "no whole head in time"
            self._waiter.set_exception(ProviderTimedOut(kind))
