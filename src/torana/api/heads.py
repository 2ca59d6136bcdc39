"""Heads of requests that nobody has read: what a glance at one tells, and how the next one like it is known again.

A client that is turned away asks again on the same connection with the same head, but for a few values. Looking at a
head costs more than all else that a refusal takes; comparing it with the last one costs next to nothing.
"""

import re

import httptools

from torana.api.admission import Standing

MAX_GLANCED_BYTES = 2048
MAX_REQUEST_ID_BYTES = 1024

_START = re.compile(rb"[a-z]{1,20} [!-~]{1,8192} http/1\.1\r\n")
_UNSURE = re.compile(
    rb"\r\n(?:transfer-encoding|upgrade|expect|connection(?!:[ \t]{0,9}keep-alive[ \t]{0,9}\r\n)|[ \t])"
)
"""How lines begin over which readers might disagree. Both are for heads in small letters, which costs a tenth."""

_TOKEN_NAMES = (b"\r\nauthorization:", b"\r\nx-api-key:", b"\r\napi-key:")
_LENGTH, _ID, _SENT = b"\r\ncontent-length:", b"\r\nx-request-id:", b"\r\nx-gitlab-rails-send-start:"
_DIFFERING = (_LENGTH, _ID, _SENT)
"""Headers whose values differ from one request of a client to the next."""
_PLAIN = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._:-"
_VALUE = re.compile(rb"[ \t]{0,9}([0-9A-Za-z._:-]{1,64})\r\n")
_BODY_BYTES = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n")
_PATIENCE = re.compile(rb"\r\nx-stainless-timeout:[ \t]*([0-9]{1,5}(?:\.[0-9]{1,3})?)[ \t]*\r\n")
_REPEATED = {
    name: re.compile(
        rb"\r\n%b:[ \t]*([\x20-\x7e\x80-\xff]{1,%d})(?=\r\n)" % (name, MAX_REQUEST_ID_BYTES), re.IGNORECASE
    )
    for name in (b"x-request-id", b"origin")
}
"""Looked for in a request that is turned away unread; what looks different is as good as absent."""


class Head:
    """What the first bytes of a request tell; nothing of it was checked.

    A glance tells what its place in the line depends on:

    start       the first line, without its end, as far as it is looked at
    token       that the request shows; empty: none
    patience_s  how long its client says that it waits; 0: it does not
    body_bytes  its Content-Length; 0 where it has none that is plain
    standing    what follows for its place; whoever looks sets it
    path        what it asks for, as routes have it; so, too
    route       the name of the route that answers it; empty: none does

    and a closer look what its refusal depends on, which most of those that wait never need:

    has_origin  it comes from a page of another origin
    request_id  that the client gave it; empty: none
    is_whole    the bytes are one request and nothing else, whoever reads them
    """

    __slots__ = (
        "_is_known",
        "_pieces",
        "body_bytes",
        "has_origin",
        "is_whole",
        "path",
        "patience_s",
        "request_id",
        "route",
        "standing",
        "start",
        "token",
    )

    def __init__(self, data: bytes) -> None:
        low = _small_head(data)
        end = low.find(b"\r\n", 0, MAX_GLANCED_BYTES)
        self.start = data[: end if end >= 0 else MAX_GLANCED_BYTES]
        patience = _PATIENCE.search(low)
        self.patience_s = float(patience[1]) if patience is not None else 0.0
        length = _BODY_BYTES.search(low)
        self.body_bytes = int(length[1]) if length is not None else 0
        self.token = _token(data, low)
        self.standing = Standing()
        self.path = self.route = ""
        self.has_origin, self.request_id, self.is_whole = False, b"", False
        self._is_known = False
        self._pieces: tuple[tuple[bytes, bytes, int], ...] = ()

    def look_closer(self, data: bytes) -> None:
        """The rest, from the bytes that were glanced at, or that fitted; once is enough."""
        if self._is_known:
            return
        low = _small_head(data)
        self.request_id, self.has_origin = _answered_to(data, low)
        self.is_whole = is_whole_request(data, low, self.body_bytes)
        self._pieces = _pieces(data, low) if self.is_whole else ()
        self._is_known = True

    def fits(self, data: bytes) -> bool:
        """True where `data` begins with this very head, but for values that differ; `request_id`, `body_bytes` and
        `is_whole` are those of `data` then. False: nothing has changed, look at it anew; so it is with what was only
        glanced at."""
        at = length = 0
        request_id = self.request_id  # one that does not differ stands in the pieces
        for literal, name, size in self._pieces:
            if not data.startswith(literal, at):
                return False
            at += len(literal)
            if size:
                value = data[at : at + size]
                at += size
                # Nothing but plain signs, as many as before: whoever found the end of that head finds it here.
                if value.translate(None, _PLAIN):
                    return False
                if name is _ID:
                    request_id = value
                elif name is _LENGTH:
                    if not value.isdigit():
                        return False
                    length = int(value)
        if not at:
            return False
        self.request_id, self.body_bytes = request_id, length
        self.is_whole = len(data) == at + length
        return True


class _Messages:
    """How many the parser finds."""

    begun = whole = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


def is_whole_request(data: bytes, low: bytes, body_bytes: int) -> bool:
    """True where `data` is one request and nothing else, whoever reads it. False wherever readers might disagree.

    low         its head in small letters
    body_bytes  as that says
    """
    if not _START.match(low) or _UNSURE.search(low):
        return False
    found = _Messages()
    try:
        # It takes no bare CR or LF, no blank before a colon, no second Content-Length and none but digits in it.
        httptools.HttpRequestParser(found).feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return False
    # The parser passes over line ends behind a request.
    return found.begun == found.whole == 1 and len(data) == len(low) + 2 + body_bytes


def _pieces(data: bytes, low: bytes) -> tuple[tuple[bytes, bytes, int], ...]:
    """What stays of a whole request's head, each piece with the differing header behind it and the size of its value;
    nothing where it cannot be told."""
    places = []
    for name in _DIFFERING:
        if (at := low.find(name)) >= 0:
            value = _VALUE.match(data, at + len(name))
            if value is not None:
                places.append((value.start(1), name, len(value[1])))
            elif name is _LENGTH:
                return ()
    pieces, begun = [], 0
    for at, name, size in sorted(places):
        pieces.append((data[begun:at], name, size))
        begun = at + size
    return (*pieces, (data[begun : len(low) + 2], b"", 0))


def _token(data: bytes, low: bytes) -> bytes:
    for name in _TOKEN_NAMES:
        if (at := low.find(name)) >= 0:
            token = data[at + len(name) : data.find(b"\r\n", at + 2)].strip()
            return token[7:].strip() if token[:7].lower() == b"bearer " else token
    return b""


def pairs_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a whole request, as its parser would tell them."""
    lines = data[: data.find(b"\r\n\r\n")].split(b"\r\n")[1:]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def answered_to(headers: list[tuple[bytes, bytes]], data: bytes) -> tuple[bytes, bool]:
    """`request_id` and `has_origin` of a request that is not read to its end.

    headers  those that were read of it
    data     what came of it last, with others perhaps: a large head comes in pieces
    """
    request_id, has_origin = _answered_to(data, _small_head(data))
    told = {name: value.strip() for name, value in reversed(headers)}
    given = told.get(b"x-request-id", b"")
    return given if 0 < len(given) <= MAX_REQUEST_ID_BYTES else request_id, has_origin or b"origin" in told


def _answered_to(data: bytes, low: bytes) -> tuple[bytes, bool]:
    return _repeated(data, low, b"x-request-id"), bool(_repeated(data, low, b"origin"))


def _repeated(data: bytes, low: bytes, name: bytes) -> bytes:
    """The value of a header that the answer repeats; empty where it is absent, or looks odd."""
    at = low.find(b"\r\n%b:" % name)
    found = _REPEATED[name].match(data, at) if at >= 0 else None
    return found[1].strip() if found is not None else b""


def _small_head(data: bytes) -> bytes:
    """The head in small letters, as far as it has come: looking for a name in any case takes ten times as long."""
    end = data.find(b"\r\n\r\n")
    return data.lower() if end < 0 else data[: end + 2].lower()
