"""Writes answers straight to the connection that asked.

uvicorn's own way checks each header name and value with regular expressions, takes two coroutine calls and two
system calls for an answer, and as many for each part of a stream. What we write is our own or has passed a parser
already, so one look at the finished head is enough. Requests that need uvicorn's care keep its way.
"""

from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Headers = list[tuple[bytes, bytes]]

_LINE = b": ".join


class Answered(Protocol):
    """A connection with a request under way."""

    active: RequestResponseCycle | None


class AnswerWriter:
    """One a connection; writes the answer to whichever request is under way on it."""

    __slots__ = ("connection",)

    def __init__(self, connection: Answered) -> None:
        self.connection = connection

    def take_body(self) -> bytes | None:
        """The request's body where all of it has come already, as it mostly has; else None."""
        cycle = self.connection.active
        if cycle is None or cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    @property
    def must_wait(self) -> bool:
        """The client reads more slowly than we write."""
        cycle = self.connection.active
        return cycle is not None and cycle.flow.write_paused

    async def wait(self) -> None:
        """Until the client has read some of what waits; returns at once when it is gone."""
        cycle = self.connection.active
        if cycle is not None and not cycle.disconnected:
            await cycle.flow.drain()

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Head and body in one piece. `headers` hold the Content-Length."""
        cycle = self._begin(is_chunked=False)
        if cycle is None:
            return
        head = _write_head(cycle, status, headers)
        cycle.transport.write(head if cycle.scope["method"] == "HEAD" else head + body)
        _complete(cycle)

    def head(self, status: int, headers: Headers) -> None:
        """The head of a stream."""
        cycle = self._begin(is_chunked=True)
        if cycle is not None:
            cycle.transport.write(_write_head(cycle, status, headers))

    def part(self, data: bytes) -> None:
        """One part of a stream, as a chunk of its own; an empty one would end it and is left out."""
        cycle = self.connection.active
        if cycle is not None and data and not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        cycle = self.connection.active
        if cycle is not None and not cycle.disconnected:
            cycle.transport.write(b"0\r\n\r\n")
            _complete(cycle)

    def _begin(self, *, is_chunked: bool) -> RequestResponseCycle | None:
        cycle = self.connection.active
        if cycle is None or cycle.disconnected:
            return None
        cycle.response_started = True
        cycle.chunked_encoding = is_chunked
        return cycle


def _write_head(cycle: RequestResponseCycle, status: int, headers: Headers) -> bytes:
    lines = [*map(_LINE, cycle.default_headers), *map(_LINE, headers)]
    if (b"connection", b"close") in headers:
        cycle.keep_alive = False
    elif not cycle.keep_alive:
        lines.append(b"connection: close")
    if cycle.chunked_encoding:
        lines.append(b"transfer-encoding: chunked")
    head = b"%b%b\r\n\r\n" % (STATUS_LINE[status], b"\r\n".join(lines))
    # Each line's end, the status line's and the empty line's.
    if head.count(b"\n") != len(lines) + 2 or head.count(b"\r") != len(lines) + 2:
        raise ValueError("a header of the answer holds a line break")
    return head


def _complete(cycle: RequestResponseCycle) -> None:
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
