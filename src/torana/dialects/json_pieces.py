"""Google's streams, cut into events: server-sent, or the objects of one JSON array where `alt=sse` is not asked for.

Source: Gemini API reference, "streamGenerateContent".
"""

import re

from torana.dialects.sse import MAX_EVENT_BYTES, Event, SseParser
from torana.errors import ProviderBroke

_BETWEEN = b" \t\r\n,[]"
"""What may stand outside the objects."""

_in_text = re.compile(rb'["\\]')
_in_object = re.compile(rb'["{}]')


class JsonPieces:
    """Bytes in, whole objects out, each an event without a name; the same ones however the bytes are split.

    Raises ProviderBroke for what is neither, and for an object above `limit_bytes`, after the objects before it
    were given out.
    """

    __slots__ = ("_depth", "_failure", "_is_text", "_limit_bytes", "_rest", "_skip")

    def __init__(self, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        """The object that has begun."""
        self._depth = 0
        self._is_text = False
        self._skip = 0
        """1 where the next byte is escaped."""
        self._failure = ""

    def feed(self, data: bytes) -> list[Event]:
        """The objects that `data` completes."""
        events: list[Event] = []
        begin = at = 0
        while at < len(data) and not self._failure:
            if self._depth:
                at = self._step(data, at)
                if not self._depth:
                    self._end(events, bytes(self._rest) + data[begin:at])
                continue
            found = data.find(b"{", at)
            begin = len(data) if found < 0 else found
            if data[at:begin].strip(_BETWEEN):
                self._failure = "not the stream of JSON objects that this dialect promises"
            elif found >= 0:
                self._depth = 1
            at = begin + 1
        if self._depth:
            self._rest += data[begin:]
            if len(self._rest) > self._limit_bytes:
                self._failure = self._too_large()
        if self._failure:
            self._rest.clear()
            if not events:
                raise ProviderBroke(self._failure)
        return events

    @property
    def rest(self) -> bytes:
        return bytes(self._rest)

    def close(self) -> list[Event]:
        """An object that was cut is handed on: whoever decodes it will say so."""
        if self._failure:
            raise ProviderBroke(self._failure)
        return [(b"", bytes(self._rest))] if self._rest else []

    def _end(self, events: list[Event], piece: bytes) -> None:
        self._rest.clear()
        if len(piece) > self._limit_bytes:
            self._failure = self._too_large()
        else:
            events.append((b"", piece))

    def _too_large(self) -> str:
        return f"an object of more than {self._limit_bytes} bytes"

    def _step(self, data: bytes, at: int) -> int:
        """On to behind the next byte that matters."""
        at += self._skip
        self._skip = 0
        found = (_in_text if self._is_text else _in_object).search(data, at)
        if found is None:
            return len(data)
        letter = found[0]
        if letter == b"\\":
            self._skip = 1
        elif letter == b'"':
            self._is_text = not self._is_text
        else:
            self._depth += 1 if letter == b"{" else -1
        return found.end()


class EitherForm:
    """Events as they come, server-sent or the elements of a JSON array: the first letter tells."""

    __slots__ = ("_head", "_limit_bytes", "_parser")

    def __init__(self, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._head = b""
        self._parser: JsonPieces | SseParser | None = None

    def feed(self, data: bytes) -> list[Event]:
        if self._parser is None:
            data = self._head + data
            self._head = b""
            letter = data.lstrip()[:1]
            if not letter:
                return []
            self._parser = JsonPieces(self._limit_bytes) if letter in b"[{" else _ServerSent(self._limit_bytes)
        return self._parser.feed(data)

    def close(self) -> list[Event]:
        return [] if self._parser is None else self._parser.close()

    @property
    def rest(self) -> bytes:
        """The event that has begun."""
        return b"" if self._parser is None else self._parser.rest


class _ServerSent(SseParser):
    """An error in the middle of a stream comes as bare JSON, no `data:` before it, and ends the body."""

    __slots__ = ()

    def close(self) -> list[Event]:
        rest = bytes(self._rest).strip()
        if not rest.startswith(b"{"):
            return super().close()
        self._rest.clear()
        return [(b"", rest)]
