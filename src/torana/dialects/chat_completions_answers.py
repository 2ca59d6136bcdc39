"""The chat completions dialect: reading answers, streamed and whole. Source: OpenAI API reference, "Streaming"."""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.members import decode_answer
from torana.dialects.streams import Seen
from torana.errors import ProviderBroke

NAME = "chat_completions"

_OTHER: FinishReason = "other"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Text(msgspec.Struct):
    """A part of a message, where a server writes several."""

    text: str = ""


class _Said(msgspec.Struct):
    """A message or a piece of one. Servers name their thoughts in two ways."""

    content: str | list[_Text] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    """The older way, of one call without an id."""


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
        self._usage = openai_style.read_usage(event.usage, self._usage)
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
        # A message's thoughts came first, whatever the order of its members.
        if reasoning := said.reasoning_content or said.reasoning:
            chunks.append(Chunk(choice=choice, reasoning=reasoning, dialect=NAME))
        if text := said.content or said.refusal:
            if not isinstance(text, str):
                text = "".join(part.text for part in text)
            chunks.append(Chunk(text, choice))
        calls = said.tool_calls or ()
        if said.function_call is not None:
            name = said.function_call.name
            calls = (*calls, _Call(0, name, said.function_call))
        for at, call in enumerate(calls):
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


def look(data: bytes, usage: Usage | None) -> Seen:
    """What a relayed event says; raises ProviderBroke for junk."""
    if data == openai_style.DONE:
        return usage, "", True
    event = decode_answer(_glances, data)
    return openai_style.read_usage(event.usage, usage), event.model or "", False
