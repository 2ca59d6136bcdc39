"""The messages dialect: reading answers, streamed and whole, and errors.

Source: Anthropic API reference, "Streaming Messages" and "Errors".
"""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects.bodies import decode_answer, plain_text
from torana.dialects.members import finite, read_tiers, read_tokens, suspect
from torana.dialects.streams import Seen
from torana.errors import ProviderBroke, ProviderRefused, provider_refused

NAME = "messages"

MAX_MESSAGE_CHARS = 300
"""Of a provider's error, for the log."""

_FINISHES: dict[str, FinishReason] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "stop_sequence": "stop_sequence",
    "refusal": "content_filter",
}
ERROR_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Error(msgspec.Struct):
    type: str | None = None
    message: str | None = None
    details: Any = None

    @property
    def kind(self) -> str:
        """The code where there is one: `enforced_spend_limit_reached` says more than `rate_limit_error`."""
        code = self.details.get("error_code") if isinstance(self.details, dict) else None
        return code if isinstance(code, str) and code else self.type or ""


class _Block(msgspec.Struct):
    """Null says nothing: a compaction has no signature, and other servers write null for what a block has not."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    """Of a thought that is sealed."""
    input: Any = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Answer(msgspec.Struct):
    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Any = None
    error: _Error | None = None


class _Event(msgspec.Struct):
    type: str = ""
    """Empty: LiteLLM's error event."""
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Answer | None = None
    usage: Any = None
    error: _Error | None = None


class _Glance(msgspec.Struct):
    """What a relayed event or answer is looked at for."""

    type: str = ""
    message: "_Glance | None" = None
    delta: Any = None
    model: str | None = None
    usage: Any = None


_NOTHING = Usage()

_answers = msgspec.json.Decoder(_Answer, float_hook=finite)
_events = msgspec.json.Decoder(_Event, float_hook=finite)
_glances = msgspec.json.Decoder(_Glance, float_hook=finite)


def merge_usage(before: Usage | None, said: Any) -> Usage | None:
    """Usage after the provider said `said`.

    Counts are cumulative and the last one wins, each member on its own. `input_tokens` excludes what
    was read from the cache or written to it; our word includes both. A report with an impossible
    number is suspect: what was known before it stands, and is marked until a report has both numbers.
    """
    if not isinstance(said, dict):
        return before
    known = before or _NOTHING
    read, written = known.cache_read_tokens, known.cache_write_tokens
    try:
        fresh = _count(said, "input_tokens", known.input_tokens - read - written)
        read = _count(said, "cache_read_input_tokens", read)
        written = _count(said, "cache_creation_input_tokens", written)
        output = _count(said, "output_tokens", known.output_tokens)
        reasoning = _count(said.get("output_tokens_details"), "thinking_tokens", known.reasoning_tokens)
        for_an_hour = _count(said.get("cache_creation"), "ephemeral_1h_input_tokens", known.cache_write_1h_tokens)
    except ValueError:
        return suspect(before)
    has_output = said.get("output_tokens") is not None
    return Usage(
        input_tokens=fresh + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(reasoning, output),
        cache_write_1h_tokens=min(for_an_hour, written),
        is_counted=not has_output and (before is None or before.is_counted),
        is_suspect=known.is_suspect and not (has_output and said.get("input_tokens") is not None),
        tiers=read_tiers(said.get("service_tier"), said.get("speed"), said.get("inference_geo")) or known.tiers,
    )


def _count(said: Any, name: str, last: int) -> int:
    """A number of a report, `last` where it has none; raises ValueError for one that cannot be."""
    value = said.get(name) if isinstance(said, dict) else None
    if value is None:
        return last
    count = read_tokens(value)
    if count is None:
        raise ValueError("no number of tokens")
    return count


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = ("_calls", "_is_begun", "_is_finished", "_silent_calls", "_usage")

    def __init__(self) -> None:
        self._is_begun = False
        self._is_finished = False
        """It has told why it ended."""
        self._usage: Usage | None = None
        self._calls: dict[int, int] = {}
        """Block number → position among the tool calls."""
        self._silent_calls: dict[int, str] = {}
        """Block number of a tool call without a piece of its arguments → those that it began with."""

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings; True for the terminal one."""
        event = decode_answer(_events, data)
        kind = event.type
        if kind == "content_block_delta":
            if event.delta is not None:
                self._take_delta(event.index, event.delta, chunks)
        elif kind == "content_block_start":
            if event.content_block is not None:
                self._take_block(event.index, event.content_block, chunks)
        elif kind == "message_start":
            self._is_begun = True
            message = event.message or _Answer()
            self._usage = merge_usage(self._usage, message.usage)
            chunks.append(Chunk(id=message.id or "", model=message.model or "", usage=self._usage))
        elif kind == "message_delta":
            self._usage = merge_usage(self._usage, event.usage)
            reason = event.delta.stop_reason if event.delta else None
            if reason is not None:
                self._complete_calls(chunks)
                self._is_finished = True
            finish = None if reason is None else _finish(reason, has_calls=bool(self._calls))
            ended_by = (event.delta.stop_sequence if event.delta else None) or ""
            chunks.append(Chunk(finish=finish, stop_sequence=ended_by, usage=self._usage))
        elif kind == "message_stop":
            if not self._is_begun:
                raise ProviderBroke("the stream ended before it began")
            self._complete_calls(chunks)
            finish = None if self._is_finished else _finish(None, has_calls=bool(self._calls))
            chunks.append(Chunk(finish=finish, usage=self._usage, is_last=True))
            return True
        elif kind == "error" or event.error is not None:
            raise _refused(event.error)
        return False

    def _complete_calls(self, chunks: list[Chunk]) -> None:
        """Pieces that come stand for what a call began with, as SDKs have it; where none do, that is all there is."""
        for index, arguments in sorted(self._silent_calls.items()):
            chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[index], arguments=arguments)))
        self._silent_calls.clear()

    def _take_block(self, index: int, block: _Block, chunks: list[Chunk]) -> None:
        if block.type == "tool_use":
            position = self._calls[index] = len(self._calls)
            # Arguments usually follow in pieces; some servers send them here, whole.
            self._silent_calls[index] = msgspec.json.encode(block.input or {}).decode()
            chunks.append(Chunk(tool_call=ToolCallPiece(position, block.id or "", block.name or "")))
        else:
            _take_words(block, chunks)

    def _take_delta(self, index: int, delta: _Delta, chunks: list[Chunk]) -> None:
        if delta.text:
            chunks.append(Chunk(text=delta.text))
        elif delta.thinking:
            chunks.append(Chunk(reasoning=delta.thinking, dialect=NAME))
        elif delta.signature:
            chunks.append(Chunk(signature=delta.signature, dialect=NAME))
        elif delta.partial_json and index in self._calls:
            self._silent_calls.pop(index, None)
            chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[index], arguments=delta.partial_json)))


def _finish(reason: str | None, *, has_calls: bool) -> FinishReason:
    """Servers that follow Anthropic end with `end_turn` after calls too, or tell no reason."""
    finish = _FINISHES.get(reason or "end_turn", "other")
    return "tool_calls" if finish == "stop" and has_calls else finish


def _take_words(block: _Block, chunks: list[Chunk]) -> None:
    """A text or a thought, as much of it as is there."""
    if block.type == "redacted_thinking":
        chunks.append(Chunk(redacted=block.data or "", dialect=NAME))
    elif block.type == "thinking":
        if block.thinking or block.signature:
            chunks.append(Chunk(reasoning=block.thinking or "", signature=block.signature or "", dialect=NAME))
    elif block.text:
        chunks.append(Chunk(text=block.text))


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks; raises ProviderBroke, or ProviderRefused for an error with status 200."""
    answer = decode_answer(_answers, body)
    if answer.type == "error" or answer.error is not None:
        raise _refused(answer.error)
    if answer.type != "message":
        raise ProviderBroke("not a message")
    usage = merge_usage(None, answer.usage)
    chunks = [Chunk(id=answer.id or "", model=answer.model or "")]
    position = 0
    for block in answer.content or ():
        if block.type == "tool_use":
            arguments = msgspec.json.encode(block.input or {}).decode()
            chunks.append(Chunk(tool_call=ToolCallPiece(position, block.id or "", block.name or "", arguments)))
            position += 1
        else:
            _take_words(block, chunks)
    finish = _finish(answer.stop_reason, has_calls=position > 0)
    chunks.append(Chunk(finish=finish, stop_sequence=answer.stop_sequence or "", usage=usage, is_last=True))
    return chunks


def read_error(status: int, body: bytes) -> ProviderRefused:
    """The error behind an error status, whatever the body is."""
    try:
        error = decode_answer(_answers, body).error or _Error()
    except ProviderBroke:
        error = _Error()
    message = error.message or plain_text(body) or "no reason given"
    refused = provider_refused(status, message[:MAX_MESSAGE_CHARS], kind=error.kind)
    if error.kind != (error.type or ""):
        refused.details = {"error_code": error.kind}
    return refused


def _refused(error: _Error | None) -> ProviderRefused:
    """The error told in place of an answer: its status is known by its kind alone."""
    error = error or _Error()
    status = ERROR_STATUS.get(error.type or "", 500)
    return provider_refused(status, (error.message or "no reason given")[:MAX_MESSAGE_CHARS], kind=error.kind)


def look(data: bytes, usage: Usage | None) -> Seen:
    """What a relayed event says; raises ProviderBroke for junk."""
    event = decode_answer(_glances, data)
    if event.message is not None:
        return merge_usage(usage, event.message.usage), event.message.model or "", False, None
    reason = event.delta.get("stop_reason") if isinstance(event.delta, dict) else None
    finish = _finish(reason, has_calls=False) if isinstance(reason, str) else None
    return merge_usage(usage, event.usage), event.model or "", event.type == "message_stop", finish


def scan_answer(body: bytes) -> Usage | None:
    try:
        return merge_usage(None, decode_answer(_glances, body).usage)
    except ProviderBroke:
        return None
