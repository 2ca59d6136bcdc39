"""One client connection: uvicorn's httptools protocol with the caps and the patience it lacks.

uvicorn has no cap on headers and no time-out for receiving. Both are here, together with: a connection that
is refused in the middle of its request lingers until the client has read the answer; a client that is gone
cancels the call it was waiting for; trailers never become headers; an `Upgrade` is ignored, body and all; HTTP/1.0
gets no chunks. Depends on details of uvicorn, which is pinned for that reason.
"""

import asyncio
import fcntl
import termios
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from torana.api.answer_writer import AnswerWriter
from torana.api.answering import CORS_HEADERS
from torana.api.cycles import Careful, LingeringTransport
from torana.api.discarding import LEAST_PIECE_BYTES, MAX_DISCARDED_BYTES, Discarding
from torana.api.heads import answered_to
from torana.api.turns import Turns
from torana.headers import Headers
from torana.settings import ServeSettings

LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is cut."""
ASKING_S = 1.0
"""How long a drain waits for the request of a client that has connected already."""
GOODBYE_S = 1.0
"""How long a drain waits for a client to close what we have closed."""
MAX_HEADERS = 1_000
"""Lines of one head. Each costs more than its bytes do."""

MAX_AHEAD = 4
"""Requests that may wait behind the one that is answered before nothing more is read."""

CANCELS_PER_TURN = 16
"""Calls whose clients have left. Each costs some tenths of a millisecond: the hang-up on the provider, the books, the
access line."""

CLIENT_GONE = "client gone"
READER_TOO_SLOW = "reader too slow"
DRAINING = "server draining"
BODY_TOO_SLOW = "body too slow"
BODY_MALFORMED = "body malformed"
"""Why a request's task is cancelled; the application answers all but the first two."""

IDLE, FRESH, HEADERS, BODY, HANDLING, LINGERING = range(6)
"""What a connection is doing, for the sweep that ends those without progress. In the first two a byte begins a request.

IDLE all was answered; FRESH nothing has ever come; HEADERS, BODY so much of a request is being read; HANDLING it has
come whole and is being answered; LINGERING the last answer is written, and what still comes is thrown away.
"""

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
    """One client connection. `phase` is about reading: it tells of the newest message, not of answers."""

    serve: ServeSettings
    """Set on the subclass that `Listener` makes."""
    is_draining: Callable[[], bool]
    leaving: Turns
    """Of calls whose clients have left."""
    discarding: Discarding

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""
        self.phase = FRESH
        self.since = time.monotonic()
        self.pending_bytes = 0
        """Fed since the parser last told something: an unfinished header or trailer is the parser's own."""
        self.discarded_bytes = 0
        self.request_headers: Headers | None = None
        """Those of the request that came last."""
        self.refusal = 0
        self.owed = 0
        """Status of a refusal that waits for the answers before it."""
        self.paused_since = 0.0
        self.closing_since = 0.0
        self.written_at_pause = 0
        self.why_gone = CLIENT_GONE
        self.active: RequestResponseCycle | None = None
        """The request that is being answered; those behind it wait in `pipeline`."""
        self.task: asyncio.Task[None] | None = None
        self.writer = AnswerWriter(self)
        self.lingering: LingeringTransport | None = None
        """What answers are written to, from the first one on."""

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self.phase != LINGERING and not self.owed:
            self._receive(data)
            if self.phase != BODY or not self.cycle.response_complete:
                return
        self.flow.pause_reading()
        self.loop.call_later(self.discarding.wait_s(len(data)), self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _receive(self, data: bytes) -> None:
        self.pending_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self.refusal or 400, data)
        else:
            if self.pending_bytes > self.serve.max_header_bytes + self.serve.max_uri_bytes:
                self._refuse(431, data)
            elif self.phase == BODY:
                self.since = time.monotonic()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser takes what follows for another protocol, the request's body included. It is read
            # again without the wish: nothing is upgraded here, and no body may pass for a second request.
            version = self.parser.get_http_version().encode()
            head = [b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)]
            head += [b"%s: %s\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self._feed(b"".join(head) + b"\r\n" + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.phase = HEADERS
        self.since = time.monotonic()
        self.pending_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.serve.max_uri_bytes:
            self.refusal = 414
            raise _Refused(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are dropped: merged into the headers they would slip past whoever checked those.
        if self.phase == HEADERS:
            # There are many: all that can be looked at once, later, is.
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        pairs = self.headers
        size = sum(map(len, chain.from_iterable(pairs))) + 4 * len(pairs)
        if size > self.serve.max_header_bytes or len(pairs) > MAX_HEADERS:
            self.refusal = 431
            raise _Refused(431)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Refused(400)
            return  # it comes again, see `_feed`
        headers = self.request_headers = Headers(pairs, self.request_headers)
        hosts = headers.count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            raise _Refused(400)  # RFC 9112, 3.2: who stands before us may have read another host, or none
        if headers.count(b"expect"):
            self.expect_100_continue = any(
                name == b"expect" and value.lower() == b"100-continue" for name, value in pairs
            )
        self.scope["torana.headers"] = headers  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()  # may find that the target is none; until then there is no request
        self.phase = BODY
        self.since = time.monotonic()
        self.pending_bytes = self.discarded_bytes = 0
        if 0 < len(self.pipeline) <= MAX_AHEAD:
            # Unread, a client that leaves would not be noticed. The body that comes has a bound of its own.
            self.flow.resume_reading()
        if self.is_draining():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.pending_bytes = 0
        if self.cycle.response_complete:
            self.discarded_bytes += max(len(body), LEAST_PIECE_BYTES)
            if self.discarded_bytes > MAX_DISCARDED_BYTES:
                raise _Refused(413)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self.phase = HANDLING if not self.cycle.response_complete else IDLE
        self.since = time.monotonic()
        self.pending_bytes = 0
        super().on_message_complete()
        if self.flow.read_paused and self.cycle is self.active:
            # Its body was long. All of it is there now, and unread, a client that leaves would not be noticed.
            self.flow.resume_reading()

    def _should_upgrade(self) -> bool:
        return False

    def _refuse(self, status: int, data: bytes = b"") -> None:
        """End a message that is no good, and the connection with it, after the answers that come before.

        data  what of it came last: beside the headers that were read, it may say what its answer is to repeat
        """
        if self.phase == BODY:
            if self.cycle is self.active:
                self.phase, self.since = LINGERING, time.monotonic()
                assert self.task is not None
                # One turn later: a task that has not begun yet could not tell of its end.
                self.loop.call_soon(self.task.cancel, BODY_TOO_SLOW if status == 408 else BODY_MALFORMED)
                return
            if self.cycle.response_complete:
                self.linger()
                return
            self.pipeline.popleft()
            self.phase = HEADERS
        if self.active is not None:
            self.owed = status
            return
        # Where readers disagree on what a request is, an id in it may be another one's.
        given, has_origin = answered_to(self.headers or [], data) if status != 400 else (b"", False)
        request_id = given or uuid.uuid4().hex.encode()
        body = _REFUSALS[status]
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"x-request-id", request_id),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *(CORS_HEADERS if has_origin else ()),
        ]
        head = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES[status]), *[b"%b: %b\r\n" % pair for pair in headers]]
        self.transport.write(b"".join(head) + b"\r\n" + body)
        path = self.url.partition(b"?")[0].decode("latin-1")
        self.note_refusal(status, request_id.decode("latin-1"), path)
        self.linger()

    def note_refusal(self, status: int, request_id: str, path: str) -> None:
        """A request was answered here, or its client left, and the application never heard of it.

        request_id  empty: it gave none
        """

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.active = cycle
        lingering = self.lingering
        if lingering is None:
            lingering = self.lingering = LingeringTransport(self, self.transport)
        cycle.transport = lingering  # type: ignore[assignment]
        if cycle.waiting_for_100_continue or cycle.scope["http_version"] != "1.1":
            app = Careful(app, cycle)
        else:
            cycle.scope["torana.writer"] = self.writer  # type: ignore[typeddict-unknown-key]
        task = self.loop.create_task(cycle.run_asgi(app))
        self.task = task
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        # As uvicorn's, without a timer of its own per answer: the sweep ends idle connections.
        self.server_state.total_requests += 1
        self.active = self.task = None
        if self.transport.is_closing():
            return
        if self.phase == LINGERING:
            self.linger()
            return
        # What the next message has taken so far was not its client's doing.
        self.since = time.monotonic()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.owed:
            self._refuse(self.owed)
        elif self.phase == HANDLING:
            self.phase = IDLE

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.active is not None:
            self.active.disconnected = True  # uvicorn says so to the newest request alone
        for cycle, _ in reversed(self.pipeline):
            request_id, _ = answered_to(list(cycle.scope["headers"]), b"")
            self.note_refusal(499, request_id.decode("latin-1"), cycle.scope["path"])
        task, self.task = self.task, None
        if task is None:
            self._forget()
        else:
            task.add_done_callback(self._forget)
            # Nobody tells a handler that waits for a provider that its client has left.
            self.leaving.do(partial(task.cancel, self.why_gone))

    def _forget(self, _task: object = None) -> None:
        """Each of these leads back here, and holds a request's headers: the collector would come for the ring when
        some thousand more connections are over."""
        self.scope = self.cycle = self.active = self.writer = None  # type: ignore[assignment]
        self.lingering = self.request_headers = None
        self.pipeline.clear()

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
        self.phase = LINGERING
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
        is_reading_ahead = self.active is not None and (self.phase == HEADERS or self.cycle is not self.active)
        if self.phase == FRESH:
            if waited_s > serve.header_timeout_s:
                self.transport.close()
        elif self.phase in (HEADERS, BODY) and not is_reading_ahead:
            if waited_s > (serve.header_timeout_s if self.phase == HEADERS else serve.body_timeout_s):
                self._refuse(408)
        elif self.phase == IDLE:
            if waited_s > serve.keepalive_idle_s:
                self.transport.close()
        elif self.phase == LINGERING and waited_s > LINGER_S:
            self.transport.abort()
        if self.paused_since or self.transport.is_closing():
            left = self.transport.get_write_buffer_size()
            # Who is closed has to read on, too: it closes behind what was answered, which nobody adds to any more.
            if left < self.written_at_pause or not self.paused_since:
                self.paused_since, self.written_at_pause = now, left
            elif now - self.paused_since > serve.write_timeout_s:
                self.why_gone = READER_TOO_SLOW
                self.transport.abort()

    def shutdown(self, began: float = 0.0) -> None:
        """Part of a drain: close when idle, else after the answer under way. Asked again and again until it is over.

        began  the drain, on the monotonic clock
        """
        if self.transport.is_closing():
            self._cut_when_read()
        elif self.cycle is None or self.cycle.response_complete:
            # Who has just connected, or is in the middle of a request's headers, is still answered; so is a pool that
            # does not know yet, and whose request would cross our closing: it may not be sent twice.
            is_asking = time.monotonic() - max(self.since, began) < ASKING_S
            if self.phase != LINGERING and not is_asking:
                self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _cut_when_read(self) -> None:
        """Over TLS, half a minute would pass in waiting for the goodbye of a client that does not look."""
        self.closing_since = self.closing_since or time.monotonic()
        if time.monotonic() - self.closing_since > GOODBYE_S and not self.transport.get_write_buffer_size():
            sock = self.transport.get_extra_info("socket")
            with suppress(OSError, ValueError):
                # What its kernel has not acknowledged may still wait in ours, or before it.
                if sock is not None and not any(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))):
                    self.transport.abort()
