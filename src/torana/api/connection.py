"""One client connection: uvicorn's httptools protocol with the caps and the patience it lacks.

uvicorn has no cap on headers and no time-out for receiving. Both are here, together with: a connection that
is refused in the middle of its request lingers until the client has read the answer; a client that is gone
cancels the call it was waiting for; trailers never become headers; an `Upgrade` is ignored, body and all; HTTP/1.0
gets no chunks. Depends on details of uvicorn, which is pinned for that reason.
"""

import asyncio
import re
import socket
import struct
import sys
import time
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from torana.api.admission import Admission, Standing
from torana.api.answer_writer import AnswerWriter
from torana.api.leaving import Leaving
from torana.settings import ServeSettings

LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is cut."""
ASKING_S = 1.0
"""How long a drain waits for the request of a client that has connected already."""
MAX_DISCARDED_BYTES = 1 << 20
"""What is read of a body after its answer, so that the connection can be used again; more ends it."""

MAX_HELD_BYTES = 65_536
"""What is read of a request that waits in line; the rest waits with its client."""

MAX_AHEAD = 4
"""Requests that may wait behind the one that is answered before nothing more is read."""

CLIENT_GONE = "client gone"
READER_TOO_SLOW = "reader too slow"
DRAINING = "server draining"
BODY_TOO_SLOW = "body too slow"
BODY_MALFORMED = "body malformed"
"""Why a request's task is cancelled; the application answers all but the first two."""

_PROBES = tuple(
    b"%b %b/monitoring/%b " % (method, prefix, name)
    for method in (b"GET", b"HEAD")
    for prefix in (b"", b"/ai")
    for name in (b"healthz", b"ready")
)
"""How requests begin that wait in no line."""
SPARE_FILES = 128
"""File descriptors that no client gets: for probes, providers' answers under way, logs, the metrics port."""

_START = re.compile(rb"[a-z]{1,20} [!-~]{1,8192} http/1\.1\r\n")
_UNSURE = re.compile(rb"\r\n(?:transfer-encoding|upgrade|expect|connection|[ \t])")
"""How lines begin over which readers might disagree. Both are for heads in small letters, which costs a tenth."""
_TELLS_PATIENCE = b"imeout"

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
    """One client connection. `phase` is about reading: it tells of the newest message, not of answers."""

    serve: ServeSettings
    """Set on the subclass that `Listener` makes."""
    max_files: int
    """Connections of clients and to providers together; requests beyond are turned away."""
    is_draining: Callable[[], bool]
    leaving: Leaving
    door: "Door | None"
    """None: everybody begins at once, and nobody keeps the books of requests that never got in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""
        self.phase = _FRESH
        self.since = time.monotonic()
        self.pending_bytes = 0
        """Fed since the parser last told something: an unfinished header or trailer is the parser's own."""
        self.discarded_bytes = 0
        self.header_bytes = 0
        self.refusal = 0
        self.owed = 0
        """Status of a refusal that waits for the answers before it."""
        self.paused_since = 0.0
        self.written_at_pause = 0
        self.why_gone = CLIENT_GONE
        self.active: RequestResponseCycle | None = None
        """The request that is being answered; those behind it wait in `pipeline`."""
        self.task: asyncio.Task[None] | None = None
        self.held: bytes | None = None
        """What has come of a request that waits in line; None: none does."""
        self.asked_as: tuple[bytes, int, bytes, Standing] | None = None
        """How the last request that waited began, where its token stood, the token, and what followed from them."""
        self.writer = AnswerWriter(self)

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self.phase == _LINGERING or self.owed:
            return
        if self.held is not None:
            self.held += data
            if len(self.held) > MAX_HELD_BYTES:
                self.flow.pause_reading()
        elif self.phase > _FRESH or self.door is None or data.startswith(_PROBES):
            self._receive(data)
        elif len(self.connections) + len(self.tasks) >= self.max_files:
            # Each call may open a connection to a provider. Without a descriptor it would fail half-way.
            self.held = data
            self._turn_away(self.door, "overloaded", may_stay=False)
        elif self.door.admission.begins():
            self._receive(data)
        else:
            self.held = data
            self.door.admission.wait(self, self._standing(self.door, data))

    def begin(self) -> None:
        """Read what waited in line."""
        held, self.held = self.held, None
        if held is not None:
            self.flow.resume_reading()
            self._receive(held)

    def _standing(self, door: "Door", data: bytes) -> Standing:
        """As the last time, where the same token asks for the same; clients mostly do."""
        if self.asked_as is not None and _TELLS_PATIENCE not in data:
            start, at, token, standing = self.asked_as
            if data.startswith(start) and data.startswith(token, at):
                return standing
        standing, token = door.standing(data)
        at = data.find(token) if standing.instance else -1
        self.asked_as = (data[: data.find(b"\r\n") + 2], at, token, standing) if at > 0 else None
        return standing

    def turn_away(self, code: str) -> None:
        """Answer what waited in line with 503."""
        if self.held is not None and self.door is not None:
            self.flow.resume_reading()
            self._turn_away(self.door, code, may_stay=True)

    @property
    def is_gone(self) -> bool:
        return self.held is None

    def _turn_away(self, door: "Door", code: str, *, may_stay: bool) -> None:
        assert self.held is not None
        data, self.held = self.held, None
        # Where the request is plainly whole, the next one may follow; else nobody knows where it would begin.
        may_stay = may_stay and is_whole_request(data) and not self.is_draining()
        self.transport.write(door.turn_away(self, data, code, may_stay=may_stay))
        if may_stay:
            self.phase, self.since = _IDLE, time.monotonic()
        else:
            self.linger()

    def _receive(self, data: bytes) -> None:
        self.pending_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self.refusal or 400)
        else:
            if self.pending_bytes > self.serve.max_header_bytes + self.serve.max_uri_bytes:
                self._refuse(431)
            elif self.phase == _BODY:
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
        self.header_bytes = 0
        self.phase = _HEADERS
        self.since = time.monotonic()
        self.pending_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.serve.max_uri_bytes:
            self.refusal = 414
            raise _Refused(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are dropped: merged into the headers they would slip past whoever checked those.
        if self.phase == _HEADERS:
            # As uvicorn's, without another call for each header.
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.header_bytes += len(name) + len(value) + 4
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.header_bytes > self.serve.max_header_bytes:
            self.refusal = 431
            raise _Refused(431)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Refused(400)
            return  # it comes again, see `_feed`
        self.phase = _BODY
        self.since = time.monotonic()
        self.pending_bytes = self.discarded_bytes = 0
        super().on_headers_complete()
        if 0 < len(self.pipeline) <= MAX_AHEAD:
            # Unread, a client that leaves would not be noticed. The body that comes has a bound of its own.
            self.flow.resume_reading()
        if self.is_draining():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.pending_bytes = 0
        if self.cycle.response_complete:
            self.discarded_bytes += len(body)
            if self.discarded_bytes > MAX_DISCARDED_BYTES:
                raise _Refused(413)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self.phase = _HANDLING if not self.cycle.response_complete else _IDLE
        self.since = time.monotonic()
        self.pending_bytes = 0
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _refuse(self, status: int) -> None:
        """End a message that is no good, and the connection with it, after the answers that come before."""
        if self.phase == _BODY:
            if self.cycle is self.active:
                self.phase, self.since = _LINGERING, time.monotonic()
                assert self.task is not None
                # One turn later: a task that has not begun yet could not tell of its end.
                self.loop.call_soon(self.task.cancel, BODY_TOO_SLOW if status == 408 else BODY_MALFORMED)
                return
            if self.cycle.response_complete:
                self.linger()
                return
            self.pipeline.popleft()
            self.phase = _HEADERS
        if self.active is not None:
            self.owed = status
            return
        request_id = uuid.uuid4().hex
        body = _REFUSALS[status]
        head = b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n" % (status, _PHRASES[status])
        head += b"x-request-id: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (
            request_id.encode(),
            len(body),
        )
        self.transport.write(head + body)
        if self.door is not None:
            self.door.note_refusal(self, status, request_id)
        self.linger()

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.active = cycle
        cycle.transport = _LingeringTransport(self, self.transport)  # type: ignore[assignment]
        if cycle.waiting_for_100_continue or cycle.scope["http_version"] != "1.1":
            app = _Careful(app, cycle)
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
        if self.phase == _LINGERING:
            self.linger()
            return
        # What the next message has taken so far was not its client's doing.
        self.since = time.monotonic()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.owed:
            self._refuse(self.owed)
        elif self.phase == _HANDLING:
            self.phase = _IDLE

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        task, self.task = self.task, None
        if self.held is not None:
            self.held = None
            if self.door is not None:
                self.door.note_refusal(self, 499, uuid.uuid4().hex)
        if task is not None:
            # Nobody tells a handler that waits for a provider that its client has left.
            self.leaving.cancel(task, self.why_gone)

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
        is_reading_ahead = self.active is not None and (self.phase == _HEADERS or self.cycle is not self.active)
        if self.phase == _FRESH:
            if waited_s > serve.header_timeout_s:
                self.transport.close()
        elif self.phase in (_HEADERS, _BODY) and not is_reading_ahead:
            if waited_s > (serve.header_timeout_s if self.phase == _HEADERS else serve.body_timeout_s):
                self._refuse(408)
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
                self.why_gone = READER_TOO_SLOW
                self.transport.abort()

    def shutdown(self) -> None:
        """Part of a drain: close when idle, else after the answer under way."""
        if self.cycle is None or self.cycle.response_complete:
            # Who has just connected, or is in the middle of a request's headers, is still answered.
            is_asking = self.held is not None or (
                self.phase in (_FRESH, _HEADERS) and time.monotonic() - self.since < ASKING_S
            )
            if self.phase != _LINGERING and not is_asking:
                self.transport.close()
        else:
            self.cycle.keep_alive = False


class _LingeringTransport:
    """What a cycle writes to; it knows how a connection ends."""

    __slots__ = ("connection", "is_closing", "transport", "write")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self.connection = connection
        self.transport = transport
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        cycle = self.connection.active
        if cycle is None or cycle.response_complete:
            if cycle is not None and cycle.more_body:
                self.connection.linger()
            else:
                self.transport.close()
        elif cycle.chunked_encoding:
            self.transport.close()
        else:
            # Without chunks only a reset tells a cut answer from a whole one.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class _Careful:
    """Around the application for the rare requests that uvicorn would answer wrongly."""

    def __init__(self, app: ASGI3Application, cycle: RequestResponseCycle) -> None:
        self.app = app
        self.cycle = cycle
        self.is_endless = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def write(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._prepare(message)
            elif self.is_endless and not message.get("more_body"):
                self.cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, write)

    def _prepare(self, message: MutableMapping[str, Any]) -> None:
        cycle = self.cycle
        if cycle.waiting_for_100_continue:
            # Nobody asked for the body, and the client need not send it: what comes next is uncertain.
            cycle.keep_alive = False
        is_old = cycle.scope["http_version"] != "1.1"
        if is_old and not any(name == b"content-length" for name, _ in message["headers"]):
            # HTTP/1.0 knows no chunks: the answer ends with the connection.
            self.is_endless = True
            cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize


class _Messages:
    """How many the parser finds."""

    begun = whole = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


def is_whole_request(data: bytes) -> bool:
    """True where `data` is one request and nothing else, whoever reads it. False wherever readers might disagree."""
    low = data[: data.find(b"\r\n\r\n") + 2].lower()
    if not _START.match(low) or _UNSURE.search(low):
        return False
    found = _Messages()
    try:
        # It takes no bare CR or LF, no blank before a colon, no second Content-Length and none but digits in it.
        httptools.HttpRequestParser(found).feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return False
    return found.begun == found.whole == 1


class Door(Protocol):
    """What stands behind a connection: who may come in, and the books of those who may not."""

    admission: Admission

    def standing(self, data: bytes) -> tuple[Standing, bytes]:
        """What the first bytes of a request tell, and the token that it shows; nothing of it was checked."""
        ...

    def turn_away(self, connection: Connection, data: bytes, code: str, *, may_stay: bool) -> bytes:
        """The whole answer to a request that there is no room for.

        may_stay  the connection is kept
        """
        ...

    def note_refusal(self, connection: Connection, status: int, request_id: str) -> None:
        """A request was answered here, or its client left, and the application never heard of it."""
        ...
