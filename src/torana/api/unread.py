"""The answer to requests that are turned away before anybody has read them: 503, or 429 for a limit that is used up.

They come in floods, and what each of them costs is missing for those that are let in. So the answer and its access
line are written once for all requests that start alike, and filled in with what differs.
"""

import random
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from torana.api.access_log import refused_line
from torana.api.answering import CORS_HEADERS
from torana.api.connection import Connection
from torana.api.exchange import Exchange, Reply
from torana.api.heads import MAX_GLANCED_BYTES, Head
from torana.errors import Refusal
from torana.headers import Headers, retry_after, soon
from torana.limits.reached import LimitReached
from torana.telemetry.log import Log
from torana.telemetry.metrics import Metrics

MOULDS = 256
"""Kept at a time; clients have a say in them, so a full memory is emptied."""

STAMP_S = 0.0005
"""Requests that are turned away within so short a time have the same moment in their access lines."""

_PLAIN_ID = re.compile(rb"[0-9A-Za-z._:-]{16,64}")


class Mould:
    """A text, and the places in it where marks stand for what is filled in."""

    def __init__(self, text: bytes, marks: Sequence[bytes]) -> None:
        pieces = re.split(b"(%b)" % b"|".join(map(re.escape, marks)), text)
        self._pick = itemgetter(*[marks.index(mark) for mark in pieces[1::2]], 0)
        # One more than there are places, for one alone would not be picked as a tuple.
        self._form = b"%b".join(piece.replace(b"%", b"%%") for piece in pieces[::2]) + b"%.0b"

    def fill(self, values: Sequence[bytes]) -> bytes:
        """`values` in the order of the marks."""
        filled: bytes = self._form % self._pick(values)
        return filled


class _Shape(NamedTuple):
    """What decides how an answer reads, but for what is filled in."""

    start: bytes
    """The request's first line."""
    code: str
    stays: bool
    has_origin: bool
    id_length: int
    after_s: int
    """Of a 503; a limit says so itself."""
    limit: LimitReached | None
    instance: str
    """Whose limit that is."""


class _Moulds(NamedTuple):
    method: str
    answer: Mould
    line: Mould | None


class TurnedAway:
    """Answers to requests that there is no time for, or that are over a limit, and their access lines.

    strip_prefix   the path of a target, without what stands before the routes
    write_refusal  the answer in the words of whichever front was asked
    """

    def __init__(
        self,
        log: Log,
        strip_prefix: Callable[[str], str],
        write_refusal: Callable[[Refusal, Exchange], Reply],
        metrics: Metrics,
    ) -> None:
        self._log = log
        self._strip_prefix = strip_prefix
        self._write_refusal = write_refusal
        self._metrics = metrics
        self._moulds: dict[_Shape, _Moulds] = {}
        self._standing_headers: list[tuple[bytes, bytes]] = []
        self._stamp, self._stamped_at = b"", 0.0
        # Marks that no client can know; where its path held one, its line would tell of another path.
        self._client = f"client-{secrets.token_hex(8)}"
        self._port = 2**60 + secrets.randbelow(2**60)
        self._ended = datetime.fromtimestamp(secrets.randbelow(2**30), UTC).replace(
            microsecond=secrets.randbelow(10**6)
        )
        self._ids = {length: secrets.token_hex(32)[:length].encode() for length in range(16, 65)}

    def answer(
        self, connection: Connection, head: Head, code: str, *, stays: bool, limit: LimitReached | None = None
    ) -> bytes:
        """The whole answer, 503 or that of the limit; its access line is written.

        stays  the connection is kept
        """
        request_id, is_plain = head.request_id, True
        if not request_id:
            request_id = b"%032x" % random.getrandbits(128)
        else:
            is_plain = _PLAIN_ID.fullmatch(request_id) is not None
        if limit is None:
            told: tuple[int, LimitReached | None, str] = soon(), None, ""
        else:
            told = 0, limit, head.standing.instance
        shape = _Shape(head.start, code, stays, head.has_origin, len(request_id), *told)
        standing, client = connection.server_state.default_headers, connection.client or ("", 0)
        if is_plain:
            method, answer_mould, line_mould = self._find(shape, standing)
            if (now := time.monotonic()) - self._stamped_at > STAMP_S:
                self._stamp, self._stamped_at = _text(datetime.now(UTC)), now
            values = request_id, self._stamp, client[0].encode(), b"%d" % client[1]
            answer, line = answer_mould.fill(values), line_mould.fill(values) if line_mould is not None else None
        else:
            method, answer, line = self._write(shape, standing, request_id, client, datetime.now(UTC))
        if limit is None:
            self._metrics.request("turned away", method, 503, 0.0)
        else:
            self._metrics.request(head.route, method, limit.status, 0.0)
            self._metrics.refusal(limit.code)
            limit.count()
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
            method, answer, line = self._write(shape, standing, mark, (self._client, self._port), self._ended)
            marks = mark, _text(self._ended), self._client.encode(), b"%d" % self._port
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
        refusal = shape.limit or Refusal(503, shape.code, "Service Unavailable", headers=retry_after(shape.after_s))
        reply = self._write_refusal(refusal, exchange)
        headers = [
            *standing,
            *reply.headers,
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-request-id", request_id),
        ]
        if shape.has_origin:
            headers += CORS_HEADERS
        if not shape.stays:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[reply.status], *[b"%b: %b\r\n" % pair for pair in headers], b"\r\n"]
        answer = b"".join(lines) + (b"" if method == "HEAD" else reply.body)
        line = refused_line(
            client, ended, reply.status, exchange.request_id,
            path=exchange.path, method=method or "other", instance=shape.instance,
        )  # fmt: skip
        return method, answer, self._log.encode_access(line, exchange.facts)


def start_of(data: bytes) -> tuple[str, str]:
    """Method and path of what looks like a request, percent-decoded; empty where it does not."""
    parts = data[:MAX_GLANCED_BYTES].split(b"\r\n", 1)[0].split(b" ", 2)
    if len(parts) < 3:
        return "", ""
    return parts[0].decode("latin-1"), unquote(parts[1].partition(b"?")[0].decode("latin-1"))


def _text(moment: datetime) -> bytes:
    """As access lines have it."""
    quoted: bytes = msgspec.json.encode(moment)
    return quoted[1:-1]
