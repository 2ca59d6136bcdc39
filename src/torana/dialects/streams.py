"""The two ways through a stream of events: read it whole, or watch it pass."""

from collections.abc import Callable
from typing import Protocol

from torana.chat import Chunk, FinishReason, Usage
from torana.dialects.sse import Event, SseParser
from torana.errors import ProviderBroke, ProviderError

MAX_WATCHED_LINE_BYTES = 8 * 1024 * 1024
"""Of a relayed stream. Final events of the responses dialect repeat the whole answer and its instructions."""

_USAGE = b'"usage"'
_MODEL = b'"model"'


class EventParser(Protocol):
    """Bytes in, whole events out; both raise ProviderError, never before the events ahead of the failure."""

    def feed(self, data: bytes) -> list[Event]: ...

    def close(self) -> list[Event]: ...


class StreamReader:
    """Feeds the data of each event to `take`, which appends chunks and says whether it was the terminal event.

    A failure behind good chunks is kept for the next call, so that the chunks do not depend on how
    the bytes were split.

    end  asked at the end of the body, for dialects without a terminal event: appends the last chunk and says
         whether the answer is whole
    """

    __slots__ = ("_end", "_failure", "_is_done", "_parser", "_take")

    def __init__(
        self,
        take: Callable[[bytes, list[Chunk]], bool],
        parser: EventParser | None = None,
        end: Callable[[list[Chunk]], bool] | None = None,
    ) -> None:
        self._parser = parser or SseParser()
        self._take = take
        self._end = end
        self._is_done = False
        self._failure: ProviderError | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        return self._read(lambda: self._parser.feed(data))

    def close(self) -> list[Chunk]:
        chunks = self._read(self._parser.close)
        if self._end is not None and self._failure is None and not self._is_done:
            self._is_done = self._end(chunks)
        if not self._is_done:
            raise self._failure or ProviderBroke("the stream ended without its terminal event")
        return chunks

    def _read(self, events: Callable[[], list[Event]]) -> list[Chunk]:
        if self._failure is not None:
            raise self._failure
        chunks: list[Chunk] = []
        if self._is_done:
            return chunks
        try:
            for _, data in events():
                # An empty data line is a heartbeat of some proxies; white space around data means nothing in any.
                if (told := data.strip()) and self._take(told, chunks):
                    self._is_done = True
                    break
        except ProviderError as failure:
            self._failure = failure
            if not chunks:
                raise
        return chunks


Seen = tuple[Usage | None, str, bool, FinishReason | None]
"""Usage, the model's name, whether this was the terminal event, and why the answer ended."""


class LineScan:
    """Looks for a few markers in bytes that pass, and decodes only the lines that hold one.

    JSON escapes quotes, so a marker with quotes never stands in a text of the model.

    endings  what marks a line that may be the terminal event
    reasons  what marks one that may tell why the answer ended, and tells neither usage nor end
    look     the data of such a line, usage so far → what it says; raises ProviderBroke for junk, and what else the
             terminal event tells of a failure
    """

    __slots__ = (
        "_endings",
        "_is_complete",
        "_is_skipping",
        "_look",
        "_reasons",
        "_rest",
        "failure",
        "finish",
        "model",
        "usage",
    )

    def __init__(
        self,
        endings: tuple[bytes, ...],
        look: Callable[[bytes, Usage | None], Seen],
        reasons: tuple[bytes, ...] = (),
    ) -> None:
        self._endings = endings
        self._reasons = reasons
        self._look = look
        self._rest = bytearray()
        self._is_skipping = False
        self._is_complete = False
        self.usage: Usage | None = None
        self.model = ""
        self.finish: FinishReason | None = None
        self.failure: ProviderError | None = None

    def feed(self, data: bytes) -> None:
        if self._is_complete:
            return
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return
        whole = data[:cut] if cut < len(data) else data
        if self._is_skipping:
            whole = whole[whole.find(b"\n") + 1 :]
            self._is_skipping = False
        elif self._rest:
            self._rest += whole
            whole = bytes(self._rest)
            self._rest.clear()
        self._search(whole)
        if cut < len(data):
            self._hold(data[cut:])

    @property
    def is_complete(self) -> bool:
        # A stream may end without the last line's end.
        if not self._is_complete and self._rest:
            self._search(bytes(self._rest))
        return self._is_complete

    def _hold(self, data: bytes) -> None:
        if self._is_skipping:
            return
        self._rest += data
        if len(self._rest) > MAX_WATCHED_LINE_BYTES:
            self._rest.clear()
            self._is_skipping = True

    def _search(self, lines: bytes) -> None:
        """Each line that holds a marker once, in order, up to the terminal event: however the bytes were split."""
        told: dict[int, int] = {}
        if not self.model:
            _find_lines(_MODEL, lines, told, only_first=True)
        for marker in (_USAGE, *self._reasons, *self._endings):
            if marker in lines:
                _find_lines(marker, lines, told)
        for start, end in sorted(told.items()):
            if not self._is_complete:
                self._read_line(lines[start:end])

    def _read_line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        try:
            usage, model, is_end, finish = self._look(line[5:].strip(), self.usage)
        except ProviderBroke:
            return
        except ProviderError as failure:
            self.failure, self._is_complete = failure.with_traceback(None), True
            return
        self.usage = usage or self.usage
        self.model = self.model or model
        self.finish = finish or self.finish
        self._is_complete = self._is_complete or is_end


def _find_lines(marker: bytes, lines: bytes, told: dict[int, int], *, only_first: bool = False) -> None:
    """Put down start → end of the lines that hold `marker`."""
    at = lines.find(marker)
    while at >= 0:
        after = at + len(marker)
        # With usage asked for, every event of chat completions but one says `"usage":null`.
        if marker is _USAGE and lines[after : after + 3].lstrip(b": ").startswith(b"n"):
            at = lines.find(marker, after)
            continue
        end = lines.find(b"\n", at)
        told[lines.rfind(b"\n", 0, at) + 1] = end if end >= 0 else len(lines)
        if end < 0 or only_first:
            return
        at = lines.find(marker, end)
