"""The chat completions dialect: answers, streamed and whole. Source: OpenAI API reference, "Streaming"."""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.collecting import Choice, collect
from torana.dialects.members import Members, decode_answer
from torana.dialects.streams import Seen
from torana.errors import ProviderBroke

_OTHER: FinishReason = "other"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    """A message or a piece of one. Servers name their thoughts in two ways."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    """An answer or an event of one."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: openai_style.Error | str | None = None


class _Glance(msgspec.Struct):
    """What a relayed event is looked at for."""

    model: str | None = None
    usage: Any = None


_answers = msgspec.json.Decoder(_Answer)
_glances = msgspec.json.Decoder(_Glance)


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = ("_calls", "_is_begun", "_usage")

    def __init__(self) -> None:
        self._is_begun = False
        self._usage: Usage | None = None
        self._calls: set[tuple[int, int]] = set()
        """Choice and position of each tool call that has begun."""

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings; True for the terminal one."""
        if data == openai_style.DONE:
            if not self._is_begun:
                raise ProviderBroke("the stream ended before it began")
            chunks.append(Chunk(usage=self._usage, is_last=True))
            return True
        event = decode_answer(_answers, data)
        if event.error is not None:
            raise openai_style.refused(event.error)
        if event.choices is None:
            # A server's own kind of event, such as content filter results.
            return False
        self._usage = openai_style.read_usage(event.usage) or self._usage
        # Azure begins with an event without choices, id or model.
        if event.choices and not self._is_begun:
            self._is_begun = True
            chunks.append(Chunk(id=event.id or "", model=event.model or ""))
        for choice in event.choices:
            if choice.delta is not None:
                self._take_said(choice.index, choice.delta, chunks)
            if choice.finish_reason:
                finish = openai_style.FINISHES.get(choice.finish_reason, _OTHER)
                chunks.append(Chunk(choice=choice.index, finish=finish, usage=self._usage))
        return False

    def _take_said(self, choice: int, said: _Said, chunks: list[Chunk]) -> None:
        if text := said.content or said.refusal:
            chunks.append(Chunk(text, choice))
        if reasoning := said.reasoning_content or said.reasoning:
            chunks.append(Chunk(choice=choice, reasoning=reasoning))
        for at, call in enumerate(said.tool_calls or ()):
            position = at if call.index is None else call.index
            function = call.function or _Function()
            arguments = function.arguments or ""
            if (choice, position) in self._calls:  # some servers repeat id and name with every piece
                piece = ToolCallPiece(position, arguments=arguments)
            else:
                self._calls.add((choice, position))
                piece = ToolCallPiece(position, call.id or "", function.name or "", arguments)
            chunks.append(Chunk(choice=choice, tool_call=piece))


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks; raises ProviderBroke, or ProviderRefused for an error with status 200."""
    answer = decode_answer(_answers, body)
    if answer.error is not None:
        raise openai_style.refused(answer.error)
    if not answer.choices:
        raise ProviderBroke("no choices")
    chunks = [Chunk(id=answer.id or "", model=answer.model or "")]
    state = StreamedAnswer()
    for choice in answer.choices:
        if choice.message is None:
            raise ProviderBroke("a choice without its message")
        # A message of its own numbers no calls, but then their order does.
        state._take_said(choice.index, choice.message, chunks)
        finish = openai_style.FINISHES.get(choice.finish_reason or "", _OTHER)
        chunks.append(Chunk(choice=choice.index, finish=finish))
    chunks.append(Chunk(usage=openai_style.read_usage(answer.usage), is_last=True))
    return chunks


class ChatCompletionsWriter:
    """Writes a stream of pieces.

    The last finish waits for the end and carries the usage. An event of its own with no choices,
    which OpenAI sends to those who asked, trips clients who did not ask.
    """

    __slots__ = ("_begun", "_calls", "_envelope", "_finish", "_head", "_usage")

    def __init__(self, model: str, id: str, created: int) -> None:
        self._envelope: Members = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = b"data: %b" % msgspec.json.encode(self._envelope)[:-1]
        self._begun: set[int] = set()
        self._calls: set[tuple[int, int]] = set()
        self._finish: tuple[int, FinishReason] | None = None
        self._usage: Usage | None = None

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            number = chunk.choice
            if number not in self._begun and not chunk.is_last:
                self._begun.add(number)
                out.append(self._write_delta(number, {"role": "assistant", "content": ""}))
            if chunk.text:
                out.append(
                    b'%b,"choices":[{"index":%d,"delta":{"content":%b},"finish_reason":null}]}\n\n'
                    % (self._head, number, msgspec.json.encode(chunk.text))
                )
            if chunk.reasoning:
                out.append(self._write_delta(number, {"reasoning_content": chunk.reasoning}))
            if chunk.tool_call:
                out.append(self._write_delta(number, {"tool_calls": [self._write_call(number, chunk.tool_call)]}))
            if chunk.finish:
                if self._finish:
                    out.append(self._write_finish(*self._finish, {}))
                self._finish = (number, chunk.finish)
            if chunk.is_last:
                usage = {"usage": openai_style.write_usage(self._usage)} if self._usage else {}
                out.append(self._write_finish(*(self._finish or (0, "stop")), usage))
                out.append(b"data: [DONE]\n\n")
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return openai_style.write_error_event(status, code, message)

    def _write_call(self, choice: int, piece: ToolCallPiece) -> Members:
        if (choice, piece.position) in self._calls:
            return {"index": piece.position, "function": {"arguments": piece.arguments}}
        self._calls.add((choice, piece.position))
        function = {"name": piece.name, "arguments": piece.arguments}
        return {"index": piece.position, "id": piece.id, "type": "function", "function": function}

    def _write_finish(self, choice: int, finish: FinishReason, more: Members) -> bytes:
        return self._write_delta(choice, {}, openai_style.FINISH_NAMES[finish], more)

    def _write_delta(
        self, choice: int, delta: Members, finish: str | None = None, more: Members | None = None
    ) -> bytes:
        choices = [{"index": choice, "delta": delta, "finish_reason": finish}]
        return b"data: %b\n\n" % msgspec.json.encode({**self._envelope, "choices": choices, **(more or {})})


def write_answer(chunks: list[Chunk], model: str, id: str, created: int) -> bytes:
    """One JSON answer."""
    collected = collect(chunks)
    return msgspec.json.encode(
        {
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [_write_choice(number, choice) for number, choice in enumerate(collected.choices)],
            "usage": openai_style.write_usage(collected.usage),
        }
    )


def _write_choice(number: int, choice: Choice) -> Members:
    message: Members = {"role": "assistant", "content": choice.text or None, "refusal": None}
    if not choice.tool_calls:
        message["content"] = choice.text
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.tool_calls
        ]
    finish = openai_style.FINISH_NAMES[choice.finish]
    return {"index": number, "message": message, "logprobs": None, "finish_reason": finish}


def look(data: bytes, usage: Usage | None) -> Seen:
    """What a relayed event says; raises ProviderBroke for junk."""
    if data == openai_style.DONE:
        return usage, "", True
    event = decode_answer(_glances, data)
    return openai_style.read_usage(event.usage) or usage, event.model or "", False
