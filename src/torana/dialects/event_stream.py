"""AWS's binary event stream, read from bytes as they come, and written.

A message is: its length, its headers' length, a checksum of both, the headers, the payload, a checksum of all
before it. Source: "Amazon Event Stream Specification" of Smithy (application/vnd.amazon.eventstream).
"""

import re
import struct
from zlib import crc32

import msgspec

from torana.dialects.sse import MAX_EVENT_BYTES, Event
from torana.errors import ProviderBroke, ProviderError, provider_refused

MAX_HEADER_BYTES = 128 * 1024
"""The specification's own limit."""

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; 6 and 7, bytes and text, bring their own length."""
_MAX_HEADS = 64

MAX_MESSAGE_CHARS = 300
"""Of a provider's error, for the log."""

_is_name = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,63}").fullmatch

Headers = dict[bytes, bytes]


class EventStreamParser:
    """Bytes in, whole events out; the same events however the bytes are split.

    An event comes as the API references write them: a member of a union, `{"messageStop":{…}}`; an exception is
    a member as well. Its name is empty: the data says all.

    Raises ProviderBroke for what is none, ProviderRefused for an error that has no shape of its own; never before
    the events ahead of it were given out.
    """

    __slots__ = ("_failure", "_heads", "_limit_bytes", "_needed", "_rest")

    def __init__(self, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._needed = _PRELUDE.size
        """So many bytes complete the event that has begun, as far as is known."""
        self._heads: dict[bytes, bytes] = {}
        """Header blocks that were read before: those of one kind of event are alike to the byte."""
        self._failure: ProviderError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if self._failure is not None:
            raise self._failure
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return []
            data = bytes(rest)
            rest.clear()
        events: list[Event] = []
        at, self._needed = 0, _PRELUDE.size
        try:
            while len(data) - at >= _PRELUDE.size:
                length = self._measure(data, at)
                if at + length > len(data):
                    self._needed = length
                    break
                events.append((b"", self._read(data, at, at + length)))
                at += length
        except ProviderError as failure:
            self._failure = failure
            if not events:
                raise
            return events
        rest += data[at:]
        return events

    def close(self) -> list[Event]:
        if self._failure is not None:
            raise self._failure
        if self._rest:
            raise ProviderBroke("the stream ended within an event")
        return []

    def _measure(self, data: bytes, at: int) -> int:
        """Length of the message that begins at `at`, once it can be believed."""
        total, head_bytes, checksum = _PRELUDE.unpack_from(data, at)
        if crc32(data[at : at + 8]) != checksum:
            raise ProviderBroke("an event whose lengths do not match their checksum")
        if head_bytes > MAX_HEADER_BYTES or total < _OVERHEAD + head_bytes:
            raise ProviderBroke("an event with lengths that cannot be")
        if total - _OVERHEAD - head_bytes > self._limit_bytes:
            raise ProviderBroke(f"an event of more than {self._limit_bytes} bytes")
        return int(total)

    def _read(self, data: bytes, at: int, end: int) -> bytes:
        (checksum,) = _CRC.unpack_from(data, end - _CRC.size)
        if crc32(memoryview(data)[at : end - _CRC.size]) != checksum:
            raise ProviderBroke("an event that does not match its checksum")
        body = at + _PRELUDE.size + _PRELUDE.unpack_from(data, at)[1]
        head = data[at + _PRELUDE.size : body]
        name = self._heads.get(head)
        if name is None:
            name = _read_name(head)
            if len(self._heads) < _MAX_HEADS:
                self._heads[head] = name
        return b'{"%b":%b}' % (name, data[body : end - _CRC.size].strip() or b"{}")


def _read_name(head: bytes) -> bytes:
    """The member that an event or an exception is; raises ProviderRefused for an error without a shape."""
    headers = read_headers(head)
    kind = headers.get(b":message-type", b"event")
    if kind == b"error":
        code, message = (
            headers.get(name, b"").decode(errors="replace") for name in (b":error-code", b":error-message")
        )
        raise provider_refused(500, message[:MAX_MESSAGE_CHARS] or "no reason given", kind=code[:MAX_MESSAGE_CHARS])
    name = headers.get(b":exception-type" if kind == b"exception" else b":event-type", b"")
    if not _is_name(name):
        raise ProviderBroke("an event without a name")
    return name


def read_headers(head: bytes) -> Headers:
    """Those that hold text; raises ProviderBroke."""
    found: Headers = {}
    at = 0
    try:
        while at < len(head):
            after_name = at + 1 + head[at]
            name, kind = head[at + 1 : after_name], head[after_name]
            at = after_name + 1
            if kind in (6, 7):
                length = int.from_bytes(head[at : at + 2], "big")
                value, at = head[at + 2 : at + 2 + length], at + 2 + length
                if kind == 7:
                    found[name] = value
            else:
                at += _SIZES[kind]
    except (IndexError, KeyError):
        at = len(head) + 1
    if at != len(head):
        raise ProviderBroke("an event with headers that cannot be read")
    return found


def write_event(kind: str, name: str, members: object) -> bytes:
    """One message. kind: `event` or `exception`."""
    texts = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    head = b"".join(
        b"%c%b\x07%b%b" % (len(key), key.encode(), len(text).to_bytes(2, "big"), text.encode())
        for key, text in texts.items()
    )
    payload = msgspec.json.encode(members)
    lengths = struct.pack(">II", _OVERHEAD + len(head) + len(payload), len(head))
    message = lengths + _CRC.pack(crc32(lengths)) + head + payload
    return message + _CRC.pack(crc32(message))
