"""The chat completions dialect: writing answers, streamed and whole. Source: OpenAI API reference, "Streaming"."""

from collections.abc import Iterator

import msgspec

from torana.chat import ChatRequest, Chunk, FinishReason, ToolCall, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.chat_completions_answers import NAME
from torana.dialects.collecting import Choice, collect
from torana.dialects.freeform import Unwrapping, names_of, unwrap
from torana.dialects.members import Members, said_in


class ChatCompletionsWriter:
    """Writes a stream of pieces.

    The last finish waits for the end and carries the usage. An event of its own with no choices,
    which OpenAI sends to those who asked, trips clients who did not ask.
    """

    __slots__ = ("_begun", "_calls", "_envelope", "_finish", "_freeform", "_head", "_is_older", "_texts", "_usage")

    def __init__(self, model: str, id: str, created: int, asked: ChatRequest | None = None) -> None:
        self._envelope: Members = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = b"data: %b" % msgspec.json.encode(self._envelope)[:-1]
        self._begun: set[int] = set()
        self._calls: set[tuple[int, int]] = set()
        self._is_older = _is_older(asked)
        self._freeform = names_of(asked)
        self._texts: dict[tuple[int, int], Unwrapping] = {}
        """Of calls of custom tools, by choice and position."""
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
            if chunk.is_refusal:
                out.append(self._write_delta(number, {"refusal": chunk.text}))
            elif chunk.text:
                out.append(
                    b'%b,"choices":[{"index":%d,"delta":{"content":%b},"finish_reason":null}]}\n\n'
                    % (self._head, number, msgspec.json.encode(chunk.text))
                )
            if chunk.reasoning:
                out.append(self._write_delta(number, {"reasoning_content": chunk.reasoning}))
            if chunk.tool_call and (call := self._write_call(number, chunk.tool_call)):
                out.append(self._write_delta(number, call))
            if chunk.finish:
                out += self._close_texts(number)
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
        """A delta; empty where the client's format has no place for this piece."""
        place = (choice, piece.position)
        is_new = place not in self._calls
        self._calls.add(place)
        if self._is_older:
            # It has room for one call, and was asked for no more.
            named = {"name": piece.name} if is_new else {}
            return {} if piece.position else {"function_call": {**named, "arguments": piece.arguments}}
        if is_new and piece.name in self._freeform:
            self._texts[place] = Unwrapping()
        if (text := self._texts.get(place)) is not None:
            kind, told = "custom", {"input": text.feed(piece.arguments)}
            if not is_new and not told["input"]:
                return {}
        else:
            kind, told = "function", {"arguments": piece.arguments}
        if not is_new:
            return {"tool_calls": [{"index": piece.position, kind: told}]}
        return {
            "tool_calls": [{"index": piece.position, "id": piece.id, "type": kind, kind: {"name": piece.name, **told}}]
        }

    def _close_texts(self, choice: int) -> Iterator[bytes]:
        for (number, position), text in self._texts.items():
            if number == choice and (rest := text.close()):
                yield self._write_delta(choice, {"tool_calls": [{"index": position, "custom": {"input": rest}}]})

    def _write_finish(self, choice: int, finish: FinishReason, more: Members) -> bytes:
        return self._write_delta(choice, {}, _finish_name(finish, is_older=self._is_older), more)

    def _write_delta(
        self, choice: int, delta: Members, finish: str | None = None, more: Members | None = None
    ) -> bytes:
        choices = [{"index": choice, "delta": delta, "finish_reason": finish}]
        return b"data: %b\n\n" % msgspec.json.encode({**self._envelope, "choices": choices, **(more or {})})


def write_answer(chunks: list[Chunk], model: str, id: str, created: int, asked: ChatRequest | None = None) -> bytes:
    """One JSON answer."""
    collected = collect(chunks)
    return msgspec.json.encode(
        {
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [_write_choice(number, choice, asked) for number, choice in enumerate(collected.choices)],
            "usage": openai_style.write_usage(collected.usage),
        }
    )


def _is_older(asked: ChatRequest | None) -> bool:
    """Asked with `functions`: such a client knows no `tool_calls`."""
    return asked is not None and bool(said_in(asked, NAME).get("functions"))


def _finish_name(finish: FinishReason, *, is_older: bool) -> str:
    return "function_call" if is_older and finish == "tool_calls" else openai_style.FINISH_NAMES[finish]


def _write_choice(number: int, choice: Choice, asked: ChatRequest | None) -> Members:
    message: Members = {"role": "assistant", "content": choice.text or None, "refusal": None}
    if choice.is_refusal:
        message |= {"content": None, "refusal": choice.text}
    elif not choice.tool_calls:
        message["content"] = choice.text
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    is_older = _is_older(asked)
    if choice.tool_calls and is_older:
        call = choice.tool_calls[0]
        message["function_call"] = {"name": call.name, "arguments": call.arguments}
    elif choice.tool_calls:
        freeform = names_of(asked)
        message["tool_calls"] = [_write_call(call, is_freeform=call.name in freeform) for call in choice.tool_calls]
    finish = _finish_name(choice.finish, is_older=is_older)
    return {"index": number, "message": message, "logprobs": None, "finish_reason": finish}


def _write_call(call: ToolCall, *, is_freeform: bool) -> Members:
    if is_freeform:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": unwrap(call.arguments)}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
