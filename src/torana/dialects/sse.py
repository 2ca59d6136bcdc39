"""Server-sent events, read from bytes as they come.

The hot path of every stream: a read that holds whole events with plain `data:` lines costs a split
and a slice an event. Source: WHATWG HTML, "Server-sent events", parsing an event stream.
"""

from torana.dialects.bodies import BOM
from torana.errors import ProviderBroke

MAX_EVENT_BYTES = 1024 * 1024
"""An event of more bytes is no answer of a model but an attack on our memory."""

Event = tuple[bytes, bytes]
"""Name, empty where none is given, and data."""


class SseParser:
    """Bytes in, whole events out; the same events however the bytes are split.

    Raises ProviderBroke for an event above `limit_bytes`, after the events before it were given out.
    """

    __slots__ = ("_begun", "_ended_in_cr", "_is_broken", "_limit_bytes", "_rest")

    def __init__(self, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._begun = False
        self._ended_in_cr = False
        self._is_broken = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if self._is_broken:
            raise self._too_large()
        if not self._begun:
            data = self._skip_bom(data)
        if self._ended_in_cr or b"\r" in data:
            data = self._normalize(data)
        if not data:
            return []
        rest = self._rest
        if rest:
            # The blank line may be split: its first half is the last byte we hold.
            seen = len(rest) - 1
            rest += data
            end = rest.find(b"\n\n", seen)
            if end < 0:
                return self._stop_if_large([])
            data = bytes(rest)
            rest.clear()
        blocks = data.split(b"\n\n")
        rest += blocks.pop()
        events: list[Event] = []
        for block in blocks:
            if len(block) > self._limit_bytes:
                self._is_broken = True
                break
            event = read_event(block)
            if event is not None:
                events.append(event)
        return self._stop_if_large(events)

    @property
    def rest(self) -> bytes:
        """The event that has begun."""
        return bytes(self._rest)

    def close(self) -> list[Event]:
        """The event that the end of the stream completes: some servers leave out the last blank line."""
        if self._is_broken:
            raise self._too_large()
        event = read_event(bytes(self._rest))
        self._rest.clear()
        return [] if event is None else [event]

    def _stop_if_large(self, events: list[Event]) -> list[Event]:
        # One byte more than the limit may be the first half of the blank line that ends the event.
        if len(self._rest) > self._limit_bytes + 1:
            self._is_broken = True
        if self._is_broken:
            self._rest.clear()
            if not events:
                raise self._too_large()
        return events

    def _too_large(self) -> ProviderBroke:
        return ProviderBroke(f"an event of more than {self._limit_bytes} bytes")

    def _skip_bom(self, data: bytes) -> bytes:
        data = bytes(self._rest) + data
        self._rest.clear()
        if len(data) < len(BOM) and BOM.startswith(data):
            self._rest += data
            return b""
        self._begun = True
        return data.removeprefix(BOM)

    def _normalize(self, data: bytes) -> bytes:
        """CRLF and CR become LF, also where a CRLF is split between two reads."""
        if self._ended_in_cr and data:
            data = data.removeprefix(b"\n")
            self._ended_in_cr = False
        if data:
            self._ended_in_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def read_event(block: bytes) -> Event | None:
    """One event from its lines, LF between them; None where it has no data."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return b"", block[6:]
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return (name, b"\n".join(data)) if data else None
