"""Requests and answers that pass in the dialect they came in: nothing is lost, little is read.

Of a request the model's name is replaced; of a stream whole events go on, and what they say of usage and
of their end is seen in passing. The first ones are read in full: until something is said, an error may still
be mended by asking elsewhere.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from torana.chat import Chunk, ToolCallPiece
from torana.dialects.bodies import BOM, decode_mended
from torana.dialects.dialect import Dialect, EventReader, RelayScan
from torana.dialects.members import Members, finite
from torana.dialects.openai_style import DONE
from torana.dialects.sse import MAX_EVENT_BYTES, read_event
from torana.dialects.streams import MAX_WATCHED_LINE_BYTES
from torana.errors import Invalid, ProviderBroke, ProviderError, ProviderGaveUp, ProviderRefused

MAX_HELD_EVENTS = 16
"""Events that say nothing we know of; behind so many the answer has begun, whatever it is."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_json = msgspec.json.Decoder(msgspec.Raw)
_options: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=finite)
_blank_line = re.compile(rb"\r?\n\r?\n")
_ERROR = b'"error"'
# JSON escapes quotes, so none of these can stand in a text of the model.
_error = re.compile(rb'"error"\s*(?::\s*(?!null)|[,}])|"response\.failed"')
_no_choices = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_some_usage = re.compile(rb'"usage"\s*:\s*\{')


def pass_on(dialect: Dialect, body: bytes, model: str, *, stream: bool) -> tuple[bytes, bool]:
    """The same request for this model, and whether its stream will tell a usage that nobody asked for.

    Every other member goes on byte for byte. Raises Invalid for what is no JSON object.
    """
    members = _split(body)
    members["model"] = model
    is_usage_ours = False
    if stream and dialect.tells_usage_when_asked:
        options = _options.decode(members.get("stream_options", b"null"))
        if not isinstance(options, dict):
            options = {}
        is_usage_ours = options.get("include_usage") is not True
        members["stream_options"] = {**options, "include_usage": True}
    return msgspec.json.encode(members), is_usage_ours


def replace_model(body: bytes, model: str) -> bytes:
    """The same request for this model; raises Invalid for what is no JSON object."""
    return msgspec.json.encode({**_split(body), "model": model})


def _split(body: bytes) -> Members:
    """The members of an object, their values still bytes."""
    try:
        members = decode_mended(_members, body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Invalid((), "JSON decode error", "json_invalid") from None
    return {**members}


def pass_answer(dialect: Dialect, body: bytes) -> list[Chunk]:
    """A whole JSON answer as one chunk; raises ProviderBroke, or ProviderRefused for an error with status 200.

    What it says stands beside its bytes, all choices and calls together, for those who count or log it.
    """
    chunks = dialect.read_answer(body)
    raw = sound_answer(body)
    usage = finish = None
    for chunk in chunks:
        usage, finish = chunk.usage or usage, chunk.finish or finish
    calls = "".join(chunk.tool_call.arguments for chunk in chunks if chunk.tool_call is not None)
    return [
        Chunk(
            "".join(chunk.text for chunk in chunks),
            raw=raw,
            reasoning="".join(chunk.reasoning for chunk in chunks),
            tool_call=ToolCallPiece(0, arguments=calls) if calls else None,
            usage=usage,
            finish=finish,
            is_last=True,
        )
    ]


def said_in(dialect: Dialect, body: bytes) -> str:
    """All that a whole JSON answer says, arguments of calls included; raises as `pass_answer` does."""
    (answer,) = pass_answer(dialect, body)
    return answer.text + answer.reasoning + (answer.tool_call.arguments if answer.tool_call is not None else "")


class WholeEvents:
    """Bytes in, whole events out, byte for byte: one that breaks off in the middle is never passed on."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()
        """An event that is not whole."""

    def feed(self, data: bytes) -> bytes:
        """Raises ProviderBroke for an event that does not end within MAX_WATCHED_LINE_BYTES."""
        if not self._rest:
            cut = _end_of_events(data, 0)
            whole = data if cut == len(data) else data[:cut]
            self._rest += data[cut:]
        else:
            known = len(self._rest)
            self._rest += data
            cut = _end_of_events(self._rest, max(0, known - 3))
            whole = bytes(self._rest[:cut])
            del self._rest[:cut]
        if len(self._rest) > MAX_WATCHED_LINE_BYTES:
            raise ProviderBroke("an event without end")
        return whole

    def take_rest(self) -> bytes:
        """What has come of the event that has begun."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


class PassingReader:
    """Reads a stream for a client who speaks its dialect; an EventReader whose chunks are raw.

    hides_usage  events that tell the usage alone are kept back: their client did not ask for them
    """

    __slots__ = (
        "_dialect",
        "_events",
        "_failure",
        "_first",
        "_held",
        "_held_events",
        "_hides_usage",
        "_is_done",
        "_scan",
    )

    def __init__(self, dialect: Dialect, *, hides_usage: bool = False) -> None:
        self._dialect = dialect
        self._scan: RelayScan = dialect.scan_events()
        self._first: EventReader | None = dialect.read_events()
        """Reads until something is said; then None."""
        self._held = b""
        """Whole events that wait for that."""
        self._held_events = 0
        self._events = WholeEvents()
        self._hides_usage = hides_usage
        self._is_done = False
        self._failure: ProviderError | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        if self._failure is not None:
            raise self._failure
        if self._is_done:
            return []
        whole = self._events.feed(data)
        return self._pass(whole) if whole else []

    def close(self) -> list[Chunk]:
        if self._failure is not None:
            raise self._failure
        # A stream may end without its last blank line.
        rest = self._events.take_rest()
        chunks = self._pass(rest + b"\n\n") if rest and not self._is_done else []
        if not self._is_done:
            raise self._failure or ProviderBroke("the stream ended without its terminal event")
        return chunks

    def _pass(self, whole: bytes) -> list[Chunk]:
        if self._first is not None:
            self._held += whole
            self._held_events += sum(1 for _ in _events(whole))
            is_large = len(whole) > MAX_EVENT_BYTES  # it says something, and may take long to read
            says_something = is_large or any(chunk.says_something for chunk in self._first.feed(whole))
            if not says_something:
                self._first.feed(b"")  # raises what failed behind events that say nothing
                if self._held_events < MAX_HELD_EVENTS:
                    return []
            whole, self._held, self._first = self._held.removeprefix(BOM), b"", None
        if _ERROR in whole:
            whole = self._cut_at_error(whole)
        if not whole:
            return []
        self._scan.feed(whole)
        if self._scan.is_complete:
            self._is_done, self._failure = True, None  # an error behind the end is none of the answer's
            whole = self._cut_at_end(whole)
        whole = self._cut_at_junk(whole)
        if self._hides_usage:
            whole = _without_usage(whole)
        finish = self._scan.finish if self._is_done else None
        # The end is told even where nothing is left to pass.
        if not whole and not self._is_done:
            return []
        return [Chunk(raw=whole, finish=finish, usage=self._scan.usage, is_last=self._is_done)]

    def _cut_at_error(self, whole: bytes) -> bytes:
        """What stands before an error; that is raised now, or with the next call where something does."""
        for start, end in _events(whole):
            if _error.search(whole, start, end) is None:
                continue
            try:
                self._dialect.read_events().feed(whole[start:end])
            except (ProviderRefused, ProviderGaveUp) as failure:
                self._failure = failure
                if not start:
                    raise
                return whole[:start]
            except ProviderBroke:
                continue  # an event that only looks like one
        return whole

    def _cut_at_junk(self, whole: bytes) -> bytes:
        """What stands before an event that is no JSON; that fails now, or with the next call where something does."""
        if not whole.isascii():
            whole = _sound(whole)
        is_one = whole.startswith(b"data: {") and whole.find(b"\n") == len(whole) - 2  # what a read mostly brings
        for start, end in ((0, len(whole)),) if is_one else _events(whole):
            if not _is_json(whole[start:end]):
                self._failure, self._is_done = ProviderBroke("an event that is no JSON"), False
                if not start:
                    raise self._failure
                return whole[:start]
        return whole

    def _cut_at_end(self, whole: bytes) -> bytes:
        """Without what follows the terminal event."""
        for start, end in _events(whole):
            scan = self._dialect.scan_events()
            scan.feed(whole[start:end])
            if scan.is_complete:
                return whole[:end]
        return whole


def sound_answer(body: bytes) -> bytes:
    """A whole JSON answer as it came, but for what no client's reader of JSON takes."""
    raw = body.removeprefix(BOM)
    return raw if raw.isascii() else _sound(raw)


def _sound(said: bytes) -> bytes:
    """The same, letters that no UTF-8 has as what readers show for them."""
    return said.decode("utf-8", "replace").encode()


def _is_json(event: bytes) -> bool:
    """Whether the data of an event is JSON, or the text that ends a stream, or there is none."""
    if event.startswith(b"data: {") and event.find(b"\n") == len(event) - 2:
        data = event[6:]
    else:
        read = read_event(event.replace(b"\r\n", b"\n").rstrip(b"\n"))
        if read is None or read[1].strip() in (b"", DONE):
            return True
        data = read[1]
    try:
        # Half a letter in an escape is JSON too: the client joins it with the half in the next event.
        decode_mended(_any_json, data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _end_of_events(data: bytes | bytearray, start: int) -> int:
    """Where the last whole event ends; 0 where none does."""
    plain, wide = data.rfind(b"\n\n", start), data.rfind(b"\n\r\n", start)
    return max(plain + 2 if plain >= 0 else 0, wide + 3 if wide >= 0 else 0)


def _events(whole: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each event."""
    start = 0
    for blank in _blank_line.finditer(whole):
        yield start, blank.end()
        start = blank.end()
    if start < len(whole):
        yield start, len(whole)


def _without_usage(whole: bytes) -> bytes:
    if _some_usage.search(whole) is None:
        return whole
    kept = [
        whole[start:end]
        for start, end in _events(whole)
        if _some_usage.search(whole, start, end) is None or _no_choices.search(whole, start, end) is None
    ]
    return b"".join(kept)
