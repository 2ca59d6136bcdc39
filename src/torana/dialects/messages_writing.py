"""The messages dialect: writing answers, streamed and whole, and errors.

Source: Anthropic API reference, "Streaming Messages" and "Errors".
"""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects.collecting import collect
from torana.dialects.members import Members
from torana.dialects.messages_answers import ERROR_STATUS

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "refusal",
    "other": "end_turn",
}
_ERROR_KIND = {status: kind for kind, status in ERROR_STATUS.items()} | {503: "overloaded_error"}


_objects = msgspec.json.Decoder(dict[str, Any])


class MessagesWriter:
    """Writes a stream of blocks, one open at a time. Thoughts are left out: they lack Anthropic's signature.

    Of several choices the first one is written.
    """

    __slots__ = ("_block", "_calls", "_finish", "_id", "_is_begun", "_is_text_open", "_model", "_usage")

    def __init__(self, model: str, id: str, created: int) -> None:
        self._model = model
        self._id = id
        self._is_begun = False
        self._block = -1
        """Number of the newest block."""
        self._is_text_open = False
        self._calls: dict[int, int] = {}
        """Position of a tool call → its block."""
        self._finish: FinishReason = "stop"
        self._usage = Usage()

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            if not self._is_begun:
                self._begin(out)
            if chunk.choice == 0:
                if chunk.text:
                    self._write_text(chunk.text, out)
                if chunk.tool_call:
                    self._write_call(chunk.tool_call, out)
                self._finish = chunk.finish or self._finish
            if chunk.is_last:
                self._end(out)
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return write_error_event(status, code, message)

    def _begin(self, out: list[bytes]) -> None:
        self._is_begun = True
        message = _write_message(self._id, self._model, [], None, self._usage)
        out.append(_write_event("message_start", {"message": message}))

    def _write_text(self, text: str, out: list[bytes]) -> None:
        if not self._is_text_open:
            self._open({"type": "text", "text": ""}, out)
            self._is_text_open = True
        out.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":%b}}\n\n' % (self._block, msgspec.json.encode(text))
        )

    def _write_call(self, piece: ToolCallPiece, out: list[bytes]) -> None:
        if piece.position not in self._calls:
            self._open({"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}, out)
            self._calls[piece.position] = self._block
        if piece.arguments:
            # A piece for an earlier call is rare, and clients tell blocks apart by number.
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            out.append(_write_event("content_block_delta", {"index": self._calls[piece.position], "delta": delta}))

    def _open(self, block: Members, out: list[bytes]) -> None:
        self._close(out)
        self._block += 1
        out.append(_write_event("content_block_start", {"index": self._block, "content_block": block}))

    def _close(self, out: list[bytes]) -> None:
        self._is_text_open = False
        if self._block >= 0:
            out.append(_write_event("content_block_stop", {"index": self._block}))

    def _end(self, out: list[bytes]) -> None:
        self._close(out)
        delta = {"stop_reason": _STOP_REASONS[self._finish], "stop_sequence": None}
        out.append(_write_event("message_delta", {"delta": delta, "usage": write_usage(self._usage)}))
        out.append(_write_event("message_stop", {}))


def write_answer(chunks: list[Chunk], model: str, id: str, created: int) -> bytes:
    """One JSON answer; thoughts and further choices are left out, as in a stream."""
    collected = collect(chunks)
    choice = collected.choices[0]
    content: list[Members] = [{"type": "text", "text": choice.text}] if choice.text else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": read_arguments(call.arguments)}
        for call in choice.tool_calls
    ]
    return msgspec.json.encode(_write_message(id, model, content, _STOP_REASONS[choice.finish], collected.usage))


def _write_message(id: str, model: str, content: list[Members], stop_reason: str | None, usage: Usage) -> Members:
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": write_usage(usage),
    }


def _write_event(kind: str, members: Members) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **members}))


def write_usage(usage: Usage) -> Members:
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    return {
        "input_tokens": max(usage.input_tokens - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }


def read_arguments(text: str) -> Members:
    """Arguments of a tool call as the object that this API demands."""
    try:
        return _objects.decode(text or "{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # A call that was cut by its token limit; the API's documents suggest this shape.
        return {"INVALID_JSON": text}


def write_error(status: int, code: str, message: str, request_id: str) -> bytes:
    return msgspec.json.encode({**_write_error(status, code, message), "request_id": request_id})


def write_error_event(status: int, code: str, message: str) -> bytes:
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(_write_error(status, code, message))


def _write_error(status: int, code: str, message: str) -> Members:
    kind = _ERROR_KIND.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message, "code": code}}
