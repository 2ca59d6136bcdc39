"""Requests that nobody has read: what a glance at their bytes tells, and the answer to those that are turned away.

They come in floods, and what each of them costs is missing for those that are let in. So the answer and its access
line are written once for all requests that start alike, and filled in with what differs.
"""

import random
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from torana.api.access_log import refused_line
from torana.api.answering import CORS_HEADERS
from torana.api.connection import Connection
from torana.api.exchange import Exchange, Reply
from torana.errors import Refusal
from torana.headers import Headers, retry_after, soon
from torana.telemetry.log import Log

MAX_GLANCED_BYTES = 2048
MOULDS = 256
"""Kept at a time; clients have a say in them, so a full memory is emptied."""

_TOKEN_HEADERS = (b"\r\nauthorization:", b"\r\nx-api-key:", b"\r\napi-key:")
_PATIENCE = re.compile(rb"\r\nx-stainless-timeout:[ \t]*([0-9]{1,5}(?:\.[0-9]{1,3})?)[ \t]*\r\n")
_REPEATED = {
    name: re.compile(rb"\r\n%b:[ \t]*([\x20-\x7e\x80-\xff]{1,1024})(?=\r\n)" % name, re.IGNORECASE)
    for name in (b"x-request-id", b"origin")
}
"""Looked for in a request that is turned away unread; what looks different is as good as absent."""
_PLAIN_ID = re.compile(rb"[0-9A-Za-z._:-]{16,64}")

_STAMP = datetime(2000, 1, 1, tzinfo=UTC)
_PORT = 9_007_199_254_740_881
"""Stand in the moulds for what is filled in; no port is so high."""


class Mould:
    """A text, and the places in it where marks stand for what is filled in."""

    def __init__(self, text: bytes, marks: Sequence[bytes]) -> None:
        pieces = re.split(b"(%b)" % b"|".join(map(re.escape, marks)), text)
        self._places = [marks.index(mark) for mark in pieces[1::2]]
        self._form = b"%b".join(piece.replace(b"%", b"%%") for piece in pieces[::2])

    def fill(self, values: Sequence[bytes]) -> bytes:
        """`values` in the order of the marks."""
        return self._form % tuple([values[place] for place in self._places])


class _Shape(NamedTuple):
    """What decides how an answer reads, but for what is filled in."""

    start: bytes
    """The request's first line."""
    code: str
    may_stay: bool
    has_origin: bool
    after_s: int
    id_length: int


class _Moulds(NamedTuple):
    method: str
    answer: Mould
    line: Mould | None


class TurnedAway:
    """Answers to requests that there is no time for, and their access lines.

    strip_prefix   the path of a target, without what stands before the routes
    write_refusal  the answer in the words of whichever front was asked
    count          told the method of each
    """

    def __init__(
        self,
        log: Log,
        strip_prefix: Callable[[str], str],
        write_refusal: Callable[[Refusal, Exchange], Reply],
        count: Callable[[str], None],
    ) -> None:
        self._log = log
        self._strip_prefix = strip_prefix
        self._write_refusal = write_refusal
        self._count = count
        self._moulds: dict[_Shape, _Moulds] = {}
        self._standing_headers: list[tuple[bytes, bytes]] = []
        # Marks that no client can know.
        self._client = f"client-{secrets.token_hex(8)}"
        self._ids = {length: secrets.token_hex(32)[:length].encode() for length in range(16, 65)}

    def answer(self, connection: Connection, data: bytes, code: str, *, may_stay: bool) -> bytes:
        """The whole answer 503; its access line is written."""
        low = small_head(data)
        request_id, is_plain = b"%032x" % random.getrandbits(128), True
        if (at := low.find(b"\r\nx-request-id:")) >= 0 and (given := _REPEATED[b"x-request-id"].match(data, at)):
            request_id = given[1].strip()
            is_plain = _PLAIN_ID.fullmatch(request_id) is not None
        at = low.find(b"\r\norigin:")
        has_origin = at >= 0 and _REPEATED[b"origin"].match(data, at) is not None
        after_s = soon()
        start = data[: low.find(b"\r\n", 0, MAX_GLANCED_BYTES)]
        shape = _Shape(start, code, may_stay, has_origin, after_s, len(request_id))
        standing, client = connection.server_state.default_headers, connection.client or ("", 0)
        if is_plain:
            method, answer_mould, line_mould = self._find(shape, standing)
            values = request_id, _now(), client[0].encode(), b"%d" % client[1]
            answer, line = answer_mould.fill(values), line_mould.fill(values) if line_mould is not None else None
        else:
            method, answer, line = self._write(shape, standing, request_id, client, datetime.now(UTC))
        self._count(method)
        if line is not None:
            self._log.sink.write(line)
        return answer

    def _find(self, shape: _Shape, standing: list[tuple[bytes, bytes]]) -> _Moulds:
        if standing is not self._standing_headers or len(self._moulds) >= MOULDS:
            # A second has passed: their date is another.
            self._moulds.clear()
            self._standing_headers = standing
        found = self._moulds.get(shape)
        if found is None:
            mark = self._ids[shape.id_length]
            method, answer, line = self._write(shape, standing, mark, (self._client, _PORT), _STAMP)
            marks = mark, _STAMP_TEXT, self._client.encode(), b"%d" % _PORT
            found = _Moulds(method, Mould(answer, marks), Mould(line, marks) if line is not None else None)
            self._moulds[shape] = found
        return found

    def _write(
        self,
        shape: _Shape,
        standing: list[tuple[bytes, bytes]],
        request_id: bytes,
        client: tuple[str, int],
        ended: datetime,
    ) -> tuple[str, bytes, bytes | None]:
        """(method, answer, access line)"""
        method, target = start_of(shape.start)
        exchange = Exchange(method, self._strip_prefix(target), b"", Headers([]), "", request_id.decode("latin-1"))
        reply = self._write_refusal(
            Refusal(503, shape.code, "Service Unavailable", headers=retry_after(shape.after_s)), exchange
        )
        headers = [
            *standing,
            *reply.headers,
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-request-id", request_id),
        ]
        if shape.has_origin:
            headers += CORS_HEADERS
        if not shape.may_stay:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[reply.status], *[b"%b: %b\r\n" % pair for pair in headers], b"\r\n"]
        answer = b"".join(lines) + (b"" if method == "HEAD" else reply.body)
        line = refused_line(
            client, ended, reply.status, exchange.request_id, path=exchange.path, method=method or "other"
        )
        return method, answer, self._log.encode_access(line, exchange.facts)


def start_of(data: bytes) -> tuple[str, str]:
    """Method and path of what looks like a request, percent-decoded; empty where it does not."""
    parts = data[:MAX_GLANCED_BYTES].split(b"\r\n", 1)[0].split(b" ", 2)
    if len(parts) < 3:
        return "", ""
    return parts[0].decode("latin-1"), unquote(parts[1].partition(b"?")[0].decode("latin-1"))


def standing_of(data: bytes) -> tuple[bytes, float]:
    """The token that a request shows, and how many seconds its client says that it waits; empty and 0 without."""
    low = small_head(data)
    patience = _PATIENCE.search(low)
    token = b""
    for name in _TOKEN_HEADERS:
        if (at := low.find(name)) >= 0:
            token = data[at + len(name) : data.find(b"\r\n", at + 2)].strip()
            break
    if token[:7].lower() == b"bearer ":
        token = token[7:].strip()
    return token, float(patience[1]) if patience is not None else 0.0


def small_head(data: bytes) -> bytes:
    """The head in small letters, as far as it has come: looking for a name in any case takes ten times as long."""
    end = data.find(b"\r\n\r\n")
    return data.lower() if end < 0 else data[: end + 2].lower()


def _now() -> bytes:
    stamp: bytes = msgspec.json.encode(datetime.now(UTC))
    return stamp[1:-1]


_STAMP_TEXT: bytes = msgspec.json.encode(_STAMP)[1:-1]
