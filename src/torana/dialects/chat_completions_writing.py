"""The chat completions dialect: writing answers, streamed and whole. Source: OpenAI API reference, "Streaming"."""

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.collecting import Choice, collect
from torana.dialects.members import Members


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
