"""The converse dialect: reading answers, streamed and whole, and errors.

Source: Amazon Bedrock API reference, "Converse", "ConverseStream" and their data types.
"""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects.bodies import decode_answer
from torana.dialects.event_stream import MAX_MESSAGE_CHARS, EventStreamParser
from torana.dialects.members import finite, read_tiers, read_tokens, suspect
from torana.errors import ProviderBroke, ProviderError, ProviderGaveUp, ProviderRefused, provider_refused

NAME = "converse"

PROOF = "messages"
"""Whose proofs its thoughts carry: only Claude signs, and what it signs in one cloud holds in the others and at
Anthropic. Source: Claude docs, "Extended thinking", signatures across platforms."""

_FINISHES: dict[str, FinishReason] = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
}
_GIVEN_UP = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Ends of answers that are none."""

ERROR_STATUS = {
    "validationException": 400,
    "accessDeniedException": 403,
    "resourceNotFoundException": 404,
    "throttlingException": 429,
    "modelNotReadyException": 429,
    "internalServerException": 500,
    "modelErrorException": 502,
    "modelStreamErrorException": 502,
    "serviceUnavailableException": 503,
    "modelTimeoutException": 504,
}
"""Within a stream. The model's own failures have 424 and 408 of HTTP; here they are what they are to our caller."""

_STATUS_MEANT = {408: 504, 424: 502}


class _Failure(msgspec.Struct, rename="camel"):
    """An exception within a stream, or the body of an error status. Older servers write the name large."""

    message: str | None = None
    large: str | None = msgspec.field(default=None, name="Message")
    original_status_code: int | None = None

    @property
    def text(self) -> str:
        return (self.message or self.large or "no reason given")[:MAX_MESSAGE_CHARS]


class _ToolUse(msgspec.Struct, rename="camel"):
    """A call, the beginning of one, or a piece of its arguments."""

    tool_use_id: str = ""
    name: str = ""
    input: Any = None
    type: str | None = None
    """`server_tool_use`: the provider runs it itself."""


class _Reasoning(msgspec.Struct, rename="camel"):
    """A thought or a piece of one: whole ones stand in `reasoningText`."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None
    reasoning_text: "_Reasoning | None" = None


class _Cited(msgspec.Struct, rename="camel"):
    text: str | None = None


class _Citations(msgspec.Struct, rename="camel"):
    content: list[_Cited] = []


class _Block(msgspec.Struct, rename="camel"):
    """A block of content, or a piece of one."""

    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None


class _Start(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    start: _Block | None = None


class _Delta(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    delta: _Block | None = None


class _Stop(msgspec.Struct, rename="camel"):
    content_block_index: int = 0


class _MessageStop(msgspec.Struct, rename="camel"):
    stop_reason: str | None = None
    additional_model_response_fields: Any = None


class _Metadata(msgspec.Struct, rename="camel"):
    usage: Any = None
    service_tier: Any = None


class _Event(msgspec.Struct, rename="camel"):
    """One event: the union ConverseStreamOutput, with the exceptions that only HTTP knows so far."""

    content_block_delta: _Delta | None = None
    message_start: Any = None
    content_block_start: _Start | None = None
    content_block_stop: _Stop | None = None
    message_stop: _MessageStop | None = None
    metadata: _Metadata | None = None


class _Message(msgspec.Struct, rename="camel"):
    content: list[_Block] = []


class _Output(msgspec.Struct, rename="camel"):
    message: _Message | None = None


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None
    usage: Any = None
    service_tier: Any = None
    additional_model_response_fields: Any = None


class _Glance(msgspec.Struct, rename="camel"):
    """What a relayed event is looked at for."""

    metadata: _Metadata | None = None


_events = msgspec.json.Decoder(_Event, float_hook=finite)
_exceptions = msgspec.json.Decoder(dict[str, _Failure], float_hook=finite)
_answers = msgspec.json.Decoder(_Answer, float_hook=finite)
_failures = msgspec.json.Decoder(_Failure, float_hook=finite)
_glances = msgspec.json.Decoder(_Glance, float_hook=finite)


def read_usage(told: "_Metadata | _Answer") -> Usage | None:
    """None where it is missing, suspect where a number cannot be, counted where the output is missing.

    `inputTokens` counts what was neither read from the cache nor written to it.
    Source: Bedrock user guide, "Prompt caching".
    """
    said, tier = told.usage, told.service_tier
    if not isinstance(said, dict):
        return None
    counts: list[int] = []
    for name in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens"):
        count = read_tokens(said.get(name) or 0)
        if count is None:
            return suspect(None)
        counts.append(count)
    fresh, read, written, output = counts
    return Usage(
        input_tokens=fresh + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        is_counted=said.get("outputTokens") is None,
        cache_write_1h_tokens=min(_read_hours(said.get("cacheDetails")), written),
        tiers=read_tiers(tier.get("type")) if isinstance(tier, dict) else (),
    )


def _read_hours(details: Any) -> int:
    """What is kept for an hour. Source: API reference, "CacheDetail"."""
    rows = [row for row in details if isinstance(row, dict)] if isinstance(details, list) else []
    return sum(read_tokens(row.get("inputTokens")) or 0 for row in rows if row.get("ttl") == "1h")


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = ("_calls", "_finish", "_has_said", "_is_begun", "_silent_calls")

    def __init__(self) -> None:
        self._is_begun = False
        self._finish: FinishReason | None = None
        self._has_said = False
        self._calls: dict[int, int] = {}
        """Block number → position among the tool calls."""
        self._silent_calls: set[int] = set()
        """Blocks of tool calls of whose arguments nothing was heard."""

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings; True for the terminal one, which tells the usage."""
        event = decode_answer(_events, data)
        known = len(chunks)
        if event.content_block_delta is not None:
            if event.content_block_delta.delta is not None:
                self._take_delta(event.content_block_delta.content_block_index, event.content_block_delta.delta, chunks)
        elif event.content_block_start is not None:
            start = event.content_block_start
            if start.start is not None and start.start.tool_use is not None:
                self._begin_call(start.content_block_index, start.start.tool_use, chunks)
        elif event.content_block_stop is not None:
            index = event.content_block_stop.content_block_index
            if index in self._silent_calls:
                chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[index], arguments="{}")))
        elif event.message_start is not None:
            self._is_begun = True
            chunks.append(Chunk())
        elif event.message_stop is not None:
            self._finish = _finish(event.message_stop.stop_reason or "", has_said=self._has_said)
            chunks.append(Chunk(finish=self._finish, stop_sequence=_ended_by(event.message_stop)))
        elif event.metadata is not None:
            if not self._is_begun or self._finish is None:
                raise ProviderBroke("the stream told its cost before its end")
            chunks.append(Chunk(usage=read_usage(event.metadata), is_last=True))
            return True
        elif data.find(b"Exception", 0, 64) > 0:
            raise _refused(data)
        self._has_said = self._has_said or any(chunk.says_something for chunk in chunks[known:])
        return False

    def _begin_call(self, index: int, call: _ToolUse, chunks: list[Chunk]) -> None:
        if call.type is not None:
            return
        position = self._calls[index] = len(self._calls)
        self._silent_calls.add(index)
        chunks.append(Chunk(tool_call=ToolCallPiece(position, call.tool_use_id, call.name)))

    def _take_delta(self, index: int, delta: _Block, chunks: list[Chunk]) -> None:
        if delta.text:
            chunks.append(Chunk(delta.text))
        elif delta.tool_use is not None:
            if index in self._calls and isinstance(delta.tool_use.input, str) and delta.tool_use.input:
                self._silent_calls.discard(index)
                chunks.append(Chunk(tool_call=ToolCallPiece(self._calls[index], arguments=delta.tool_use.input)))
        elif delta.reasoning_content is not None:
            _take_thought(delta.reasoning_content, chunks)


def _take_thought(thought: _Reasoning, chunks: list[Chunk]) -> None:
    if thought.reasoning_text is not None:
        _take_thought(thought.reasoning_text, chunks)
    if thought.text:
        chunks.append(Chunk(reasoning=thought.text, dialect=PROOF))
    if thought.signature:
        chunks.append(Chunk(signature=thought.signature, dialect=PROOF))
    if thought.redacted_content:
        chunks.append(Chunk(redacted=thought.redacted_content, dialect=PROOF))


def _refused(data: bytes) -> ProviderRefused:
    """The exception told within a stream: its status is known by its name alone."""
    name, failure = next(iter(decode_answer(_exceptions, data).items()))
    status = ERROR_STATUS.get(name, 500)
    if failure.original_status_code is not None and 400 <= failure.original_status_code <= 599:
        status = failure.original_status_code
    return provider_refused(status, failure.text, kind=name)


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks; raises ProviderBroke."""
    answer = decode_answer(_answers, body)
    if answer.output is None or answer.output.message is None or answer.stop_reason is None:
        raise ProviderBroke("no message")
    chunks: list[Chunk] = []
    position = 0
    for block in answer.output.message.content:
        if block.text:
            chunks.append(Chunk(block.text))
        elif block.citations_content is not None:
            chunks += [Chunk(part.text) for part in block.citations_content.content if part.text]
        elif block.reasoning_content is not None:
            _take_thought(block.reasoning_content, chunks)
        elif block.tool_use is not None and block.tool_use.type is None:
            call = block.tool_use
            arguments = msgspec.json.encode(call.input or {}).decode()
            chunks.append(Chunk(tool_call=ToolCallPiece(position, call.tool_use_id, call.name, arguments)))
            position += 1
    finish = _finish(answer.stop_reason, has_said=bool(chunks))
    ended_by, usage = _ended_by(answer), read_usage(answer)
    chunks.append(Chunk(finish=finish, stop_sequence=ended_by, usage=usage, is_last=True))
    return chunks


def _finish(reason: str, *, has_said: bool) -> FinishReason:
    """Raises ProviderGaveUp for an answer that came to nothing."""
    if reason in _GIVEN_UP and not has_said:
        raise ProviderGaveUp(f"the model's answer came to nothing: {reason}")
    return _FINISHES.get(reason, "other")


def _ended_by(end: _MessageStop | _Answer) -> str:
    """The text that ended the answer: Claude's own answer holds it, as converse.py asks."""
    told = end.additional_model_response_fields
    ended_by = told.get("stop_sequence") if isinstance(told, dict) else None
    return ended_by if isinstance(ended_by, str) else ""


def read_error(status: int, body: bytes) -> ProviderRefused:
    """The error behind an error status, whatever the body is; its kind stands in a header of HTTP's."""
    try:
        failure = decode_answer(_failures, body)
    except ProviderBroke:
        failure = _Failure()
    return provider_refused(_STATUS_MEANT.get(status, status), failure.text)


class Scan:
    """Watches a stream that is passed on as it comes."""

    __slots__ = ("_parser", "failure", "finish", "is_complete", "model", "usage")

    def __init__(self) -> None:
        self._parser: EventStreamParser | None = EventStreamParser()
        self.usage: Usage | None = None
        self.model = ""
        self.finish: FinishReason | None = None
        self.failure: ProviderError | None = None
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            for _, event in self._parser.feed(data):
                if event.startswith(b'{"metadata"'):
                    metadata = decode_answer(_glances, event).metadata or _Metadata()
                    self.usage = read_usage(metadata) or self.usage
                    self.is_complete = True
        except ProviderError:
            self._parser = None  # nobody can tell where the next event begins


def scan_answer(body: bytes) -> Usage | None:
    try:
        return read_usage(decode_answer(_answers, body))
    except ProviderBroke:
        return None
