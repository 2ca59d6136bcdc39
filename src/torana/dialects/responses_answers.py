"""The responses dialect: reading answers. Source: OpenAI API reference, "Responses", "Streaming events"."""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.bodies import decode_answer
from torana.dialects.freeform import BEGIN, END, escape, wrap
from torana.dialects.members import arguments_text, finite
from torana.dialects.streams import Seen
from torana.errors import ProviderBroke, ProviderGaveUp, ProviderRefused

NAME = "responses"

_ENDS = ("response.completed", "response.incomplete", "response.failed")
ENDINGS = tuple(b'"%b"' % end.encode() for end in _ENDS)

_CALLS = ("function_call", "custom_tool_call")
_CUTS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
BETWEEN = "\n\n"
"""Parts of a thought's summary are paragraphs."""


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    """What calls, messages and thoughts say. Items of OpenAI's own tools have other things by these names."""

    type: str = ""
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    """Of a custom tool's call, in place of arguments."""
    encrypted_content: str | None = None
    content: list[_Part] | None = None
    summary: list[_Part] | None = None


class _Details(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[_Item] | None = None
    usage: Any = None
    service_tier: Any = None
    error: openai_style.Error | str | None = None
    incomplete_details: _Details | None = None


class _Event(msgspec.Struct):
    type: str = ""
    """Empty: an error of a server that tells all of its formats alike."""
    delta: Any = ""
    """A text in all that is read here."""
    output_index: int = 0
    summary_index: int = 0
    item: _Item | None = None
    response: msgspec.Raw = msgspec.Raw()
    code: Any = None
    """Of an error; some servers tell a status."""
    message: Any = None
    error: openai_style.Error | str | None = None


class _Told(msgspec.Struct):
    """What is looked at of a relayed response, or of the one in an event: mostly not its output."""

    id: str | None = None
    model: str | None = None
    usage: Any = None
    service_tier: Any = None
    error: openai_style.Error | str | None = None
    incomplete_details: _Details | None = None


_CALL_MARKS = tuple(b'"%b"' % kind.encode() for kind in _CALLS)


class _Glance(msgspec.Struct):
    type: str = ""
    response: _Told | None = None


_events = msgspec.json.Decoder(_Event, float_hook=finite)
_responses = msgspec.json.Decoder(_Response, float_hook=finite)
_told = msgspec.json.Decoder(_Told, float_hook=finite)
_glances = msgspec.json.Decoder(_Glance, float_hook=finite)


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = ("_calls", "_heard", "_is_begun")

    def __init__(self) -> None:
        self._is_begun = False
        self._calls: dict[int, int] = {}
        """Number of an item → position among the tool calls."""
        self._heard: set[int] = set()
        """Items of which more than the beginning was heard."""

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings; True for the terminal one."""
        event = decode_answer(_events, data)
        kind, delta = event.type, event.delta if isinstance(event.delta, str) else ""
        if kind == "response.output_text.delta" or kind == "response.refusal.delta":
            self._heard.add(event.output_index)
            chunks.append(Chunk(delta, is_refusal=kind == "response.refusal.delta"))
        elif kind == "response.function_call_arguments.delta":
            if event.output_index in self._calls:
                self._heard.add(event.output_index)
                piece = ToolCallPiece(self._calls[event.output_index], arguments=delta)
                chunks.append(Chunk(tool_call=piece))
        elif kind == "response.custom_tool_call_input.delta":
            if event.output_index in self._calls:
                begin = "" if event.output_index in self._heard else BEGIN
                self._heard.add(event.output_index)
                piece = ToolCallPiece(self._calls[event.output_index], arguments=begin + escape(delta))
                chunks.append(Chunk(tool_call=piece))
        elif kind == "response.reasoning_summary_text.delta" or kind == "response.reasoning_text.delta":
            self._heard.add(event.output_index)
            chunks.append(Chunk(reasoning=delta, dialect=NAME))
        elif kind == "response.reasoning_summary_part.added":
            if event.summary_index:
                chunks.append(Chunk(reasoning=BETWEEN, dialect=NAME))
        elif kind == "response.output_item.added":
            self._begin_item(event.output_index, event.item or _Item(), chunks)
        elif kind == "response.output_item.done":
            self._end_item(event.output_index, event.item or _Item(), chunks)
        elif kind == "response.created":
            self._is_begun = True
            response = decode_answer(_told, bytes(event.response))
            chunks.append(Chunk(id=response.id or "", model=response.model or ""))
        elif kind in _ENDS:
            self._end(kind, bytes(event.response), chunks)
            return True
        elif kind == "error" or event.error is not None:
            raise openai_style.refused(event.error or openai_style.Error(event.message, code=event.code))
        return False

    def _begin_item(self, number: int, item: _Item, chunks: list[Chunk]) -> None:
        if item.type in _CALLS:
            position = self._calls[number] = len(self._calls)
            chunks.append(Chunk(tool_call=ToolCallPiece(position, item.call_id or "", item.name or "")))

    def _end_item(self, number: int, item: _Item, chunks: list[Chunk]) -> None:
        """The proof of a thought comes here; and the whole item, where a server streamed none of it."""
        is_heard = number in self._heard
        self._heard.add(number)
        if item.type in _CALLS and number not in self._calls:
            self._begin_item(number, item, chunks)
        if item.type == "reasoning":
            _take_thought(item, chunks, is_told=is_heard)
        elif not is_heard:
            if item.type in _CALLS:
                chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[number], arguments=_arguments_of(item))))
            elif item.type == "message":
                _take_message(item, chunks)
        elif item.type == "custom_tool_call":
            chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[number], arguments=END)))

    def _end(self, kind: str, said: bytes, chunks: list[Chunk]) -> None:
        response = decode_answer(_told, said)
        if kind == "response.failed":
            raise _failed(response.error)
        if not self._heard:
            # Some servers stream no more than this.
            for number, item in enumerate(decode_answer(_responses, said).output or ()):
                self._end_item(number, item, chunks)
        elif not self._calls and any(mark in said for mark in _CALL_MARKS):
            # Others stream the text alone.
            for number, item in enumerate(decode_answer(_responses, said).output or ()):
                if item.type in _CALLS:
                    self._begin_item(number, item, chunks)
                    chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[number], arguments=_arguments_of(item))))
        if not (self._is_begun or self._heard):
            raise ProviderBroke("the stream ended before it began")
        usage = openai_style.read_responses_usage(response.usage, tier=response.service_tier)
        finish = _finish(kind.rpartition(".")[2], response.incomplete_details, has_calls=bool(self._calls))
        chunks.append(Chunk(finish=finish, usage=usage, is_last=True))


def _arguments_of(item: _Item) -> str:
    is_custom = item.type == "custom_tool_call"
    return wrap(arguments_text(item.input)) if is_custom else arguments_text(item.arguments) or "{}"


def _take_thought(item: _Item, chunks: list[Chunk], *, is_told: bool) -> None:
    text = "" if is_told else BETWEEN.join(part.text or "" for part in item.summary or item.content or ())
    if text or item.encrypted_content:
        chunks.append(Chunk(reasoning=text, signature=item.encrypted_content or "", dialect=NAME))


def _take_message(item: _Item, chunks: list[Chunk]) -> None:
    if text := "".join(part.text or "" for part in item.content or ()):
        chunks.append(Chunk(text))
    if refusal := "".join(part.refusal or "" for part in item.content or ()):
        chunks.append(Chunk(refusal, is_refusal=True))


def _finish(status: str, details: _Details | None, *, has_calls: bool) -> FinishReason:
    if status == "incomplete":
        return _CUTS.get((details and details.reason) or "", "other")
    return "tool_calls" if has_calls else "stop"


def _failed(error: openai_style.Error | str | None) -> ProviderRefused | ProviderGaveUp:
    return openai_style.refused(error or openai_style.Error("the response failed", code="server_error"))


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks; raises ProviderBroke, or ProviderRefused for an error with status 200."""
    answer = decode_answer(_responses, body)
    if answer.error is not None or answer.status == "failed":
        raise _failed(answer.error)
    if answer.output is None or answer.status not in ("completed", "incomplete", "", None):
        raise ProviderBroke("no output")
    chunks = [Chunk(id=answer.id or "", model=answer.model or "")]
    position = 0
    for item in answer.output:
        if item.type in _CALLS:
            piece = ToolCallPiece(position, item.call_id or "", item.name or "", _arguments_of(item))
            chunks.append(Chunk(tool_call=piece))
            position += 1
        elif item.type == "reasoning":
            _take_thought(item, chunks, is_told=False)
        elif item.type == "message":
            _take_message(item, chunks)
    usage = openai_style.read_responses_usage(answer.usage, tier=answer.service_tier)
    finish = _finish(answer.status or "", answer.incomplete_details, has_calls=position > 0)
    chunks.append(Chunk(finish=finish, usage=usage, is_last=True))
    return chunks


def look(data: bytes, usage: Usage | None) -> Seen:
    """What a relayed event says; raises ProviderBroke for junk, and what a failed response tells."""
    event = decode_answer(_glances, data)
    response = event.response or _Told()
    told = openai_style.read_responses_usage(response.usage, usage, response.service_tier)
    if event.type not in _ENDS:
        return told, response.model or "", False, None
    status = event.type.rpartition(".")[2]
    if status == "failed":
        raise _failed(response.error)
    finish = _finish(status, response.incomplete_details, has_calls=any(mark in data for mark in _CALL_MARKS))
    return told, response.model or "", True, finish


def scan_answer(body: bytes) -> Usage | None:
    try:
        told = decode_answer(_told, body)
        return openai_style.read_responses_usage(told.usage, tier=told.service_tier)
    except ProviderBroke:
        return None
