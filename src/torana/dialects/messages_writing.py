"""The messages dialect: writing answers, streamed and whole, and errors.

Source: Anthropic API reference, "Streaming Messages" and "Errors".
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from torana.chat import ChatRequest, Chunk, FinishReason, Text, Thought, ToolCall, ToolCallPiece, Usage
from torana.dialects.collecting import Said, collect
from torana.dialects.members import Members, finite, read_arguments
from torana.dialects.messages_answers import ERROR_STATUS, NAME
from torana.dialects.thoughts import seal
from torana.too_long import read_counted

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "refusal",
    "other": "end_turn",
}
_ERROR_KIND = {status: kind for kind, status in ERROR_STATUS.items()} | {503: "overloaded_error"}

MAX_WATCHED_CHARS = 64 * 1024
"""Of the arguments of a call for whose end others wait: with each piece they are put together, and read. Behind longer
ones the others, and texts, wait for the end."""

_TOO_LONG = "prompt is too long"
_NO_ROOM = "input length and `max_tokens` exceed context limit"

_objects = msgspec.json.Decoder(dict[str, Any], float_hook=finite)


class MessagesWriter:
    """Writes a stream of blocks, one open at a time. Of several choices the first one is written.

    A thought of another dialect goes out with that dialect's proof, sealed: the client shows it and sends
    it back, and it is known again.
    """

    __slots__ = (
        "_argument_chars",
        "_arguments",
        "_asked",
        "_block",
        "_calls",
        "_finish",
        "_held",
        "_id",
        "_is_begun",
        "_is_refusal",
        "_model",
        "_open",
        "_stop_sequence",
        "_thinker",
        "_usage",
        "_waiting",
    )

    def __init__(self, model: str, id: str, created: int, asked: ChatRequest | None = None) -> None:
        self._model = model
        self._asked = asked
        self._id = id
        self._is_begun = False
        self._block = -1
        """Number of the newest block."""
        self._open = ""
        """What goes on in it: `text`, `thinking`, `call`, or nothing that does."""
        self._thinker = ""
        """The dialect whose thought is open."""
        self._calls: dict[int, int] = {}
        """Position of a tool call → its block."""
        self._arguments: list[str] = []
        """Pieces of the newest call's, so far."""
        self._argument_chars = 0
        self._waiting: dict[int, list[ToolCallPiece]] = {}
        """Of calls that some servers begin before the newest one is whole, by position: a block that is closed takes no
        more."""
        self._held: list[Chunk] = []
        """Texts and thoughts that came within the pieces of a call, as servers tell a line's end beside the last."""
        self._finish: FinishReason = "stop"
        self._stop_sequence = ""
        self._is_refusal = False
        self._usage = Usage()

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            if not self._is_begun:
                self._begin(out)
            if chunk.choice == 0:
                if chunk.reasoning or chunk.signature or chunk.redacted:
                    self._write_thought(chunk, out)
                if chunk.text:
                    self._write_text(chunk.text, out)
                if chunk.tool_call:
                    self._take_call(chunk.tool_call, out)
                self._finish = chunk.finish or self._finish
                self._stop_sequence = chunk.stop_sequence or self._stop_sequence
                self._is_refusal = self._is_refusal or chunk.is_refusal
            if chunk.is_last:
                self._end(out)
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return write_error_event(status, code, message)

    def _begin(self, out: list[bytes]) -> None:
        self._is_begun = True
        message = _write_message(self._id, self._model, [], (None, None), self._usage)
        out.append(_write_event("message_start", {"message": message}))

    def _write_text(self, text: str, out: list[bytes]) -> None:
        if self._open != "text":
            if self._must_wait(Chunk(text), out):
                return
            if self._open != "text":
                self._begin_block({"type": "text", "text": ""}, out)
                self._open = "text"
        out.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":%b}}\n\n' % (self._block, msgspec.json.encode(text))
        )

    def _must_wait(self, chunk: Chunk, out: list[bytes]) -> bool:
        """Whether it is held, for more of the open call is to come; if not, what was held is written."""
        if self._open == "call" and (self._argument_chars > MAX_WATCHED_CHARS or not _is_whole(self._arguments)):
            self._held.append(chunk)
            return True
        if self._held:
            self._write_held(out)
        return False

    def _write_held(self, out: list[bytes]) -> None:
        held, self._held, self._open = self._held, [], ""
        for chunk in held:
            if chunk.text:
                self._write_text(chunk.text, out)
            else:
                self._write_thought(chunk, out)

    def _write_thought(self, chunk: Chunk, out: list[bytes]) -> None:
        if self._open == "call" and self._must_wait(replace(chunk, text=""), out):
            return
        if chunk.reasoning or chunk.signature:
            if self._open != "thinking":
                self._begin_block({"type": "thinking", "thinking": "", "signature": ""}, out)
                self._open, self._thinker = "thinking", chunk.dialect
            if chunk.reasoning:
                self._write_delta({"type": "thinking_delta", "thinking": chunk.reasoning}, out)
            if chunk.signature:
                self._sign(chunk.signature, out)
        if chunk.redacted:
            data = seal(chunk.redacted, chunk.dialect, NAME, is_whole=True)
            self._begin_block({"type": "redacted_thinking", "data": data}, out)

    def _sign(self, proof: str, out: list[bytes]) -> None:
        """The proof ends its thought; one without any is at least marked as another dialect's."""
        if signature := seal(proof, self._thinker, NAME):
            self._write_delta({"type": "signature_delta", "signature": signature}, out)
        self._open = ""

    def _take_call(self, piece: ToolCallPiece, out: list[bytes]) -> None:
        """Write it, or have it wait until the block that is open is whole."""
        is_open = self._calls.get(piece.position) == self._block
        if not is_open and (self._waiting or (self._open == "call" and not _is_whole(self._arguments))):
            self._waiting.setdefault(piece.position, []).append(piece)
            return
        self._write_call(piece, out)
        if self._argument_chars < MAX_WATCHED_CHARS:
            self._write_waiting(out)

    def _write_waiting(self, out: list[bytes], *, all_of_them: bool = False) -> None:
        """Each call in one go, in the order in which they began; not beyond one of which more is to come."""
        while self._waiting and (all_of_them or _is_whole(self._arguments)):
            for piece in self._waiting.pop(next(iter(self._waiting))):
                self._write_call(piece, out)

    def _write_call(self, piece: ToolCallPiece, out: list[bytes]) -> None:
        if piece.position not in self._calls:
            self._start_block({"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}, out)
            self._calls[piece.position] = self._block
            self._open, self._arguments, self._argument_chars = "call", [], 0
        if piece.arguments:
            self._arguments.append(piece.arguments)
            self._argument_chars += len(piece.arguments)
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            out.append(_write_event("content_block_delta", {"index": self._calls[piece.position], "delta": delta}))

    def _write_delta(self, delta: Members, out: list[bytes]) -> None:
        out.append(_write_event("content_block_delta", {"index": self._block, "delta": delta}))

    def _begin_block(self, block: Members, out: list[bytes]) -> None:
        """Begin a text or a thought: no call waits beyond it."""
        self._write_waiting(out, all_of_them=True)
        self._start_block(block, out)

    def _start_block(self, block: Members, out: list[bytes]) -> None:
        self._end_block(out)
        self._block += 1
        out.append(_write_event("content_block_start", {"index": self._block, "content_block": block}))

    def _end_block(self, out: list[bytes]) -> None:
        if self._open == "thinking":
            self._sign("", out)
        self._open = ""
        if self._block >= 0:
            out.append(_write_event("content_block_stop", {"index": self._block}))

    def _end(self, out: list[bytes]) -> None:
        self._write_waiting(out, all_of_them=True)
        if self._held:
            self._write_held(out)
        self._end_block(out)
        finish = _end_of(self._finish, is_refusal=self._is_refusal)
        reason, sequence = _tell_end(finish, self._stop_sequence, self._asked)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        out.append(_write_event("message_delta", {"delta": delta, "usage": write_usage(self._usage)}))
        out.append(_write_event("message_stop", {}))


def write_answer(chunks: list[Chunk], model: str, id: str, created: int, asked: ChatRequest | None = None) -> bytes:
    """One JSON answer; further choices are left out, as in a stream."""
    collected = collect(chunks)
    choice = collected.choices[0]
    content = [_write_said(part) for part in choice.parts]
    end = _tell_end(_end_of(choice.finish, is_refusal=choice.is_refusal), choice.stop_sequence, asked)
    return msgspec.json.encode(_write_message(id, model, content, end, collected.usage))


def _end_of(finish: FinishReason, *, is_refusal: bool) -> FinishReason:
    """OpenAI's models end a refusal as they end an answer."""
    return "content_filter" if is_refusal and finish == "stop" else finish


def _tell_end(finish: FinishReason, told: str, asked: ChatRequest | None) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence`: that of those asked for which the provider names, or which alone it can be."""
    stops = asked.stop if asked is not None else ()
    if finish in ("stop", "stop_sequence") and told in stops:
        return "stop_sequence", told
    return _STOP_REASONS[finish], stops[0] if finish == "stop_sequence" and len(stops) == 1 else None


def _write_said(part: Said) -> Members:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Thought(redacted=redacted) if redacted:
            return {"type": "redacted_thinking", "data": seal(redacted, part.dialect, NAME, is_whole=True)}
        case Thought():
            signature = seal(part.signature, part.dialect, NAME)
            return {"type": "thinking", "thinking": part.text, "signature": signature}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": read_arguments(part.arguments)}


def _write_message(
    id: str, model: str, content: list[Members], end: tuple[str | None, str | None], usage: Usage
) -> Members:
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": end[0],
        "stop_sequence": end[1],
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
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _is_whole(pieces: list[str]) -> bool:
    if not pieces or not pieces[-1].endswith("}"):
        return False
    try:
        return _objects.decode("".join(pieces)) is not None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def write_error(status: int, code: str, message: str, request_id: str) -> bytes:
    return msgspec.json.encode({**_write_error(status, code, message), "request_id": request_id})


def tell_too_long(said: str) -> str:
    """A vendor's words for a prompt that is too long, as Anthropic says it: Claude Code goes by these.

    It shortens the conversation by what is too much, or asks for a shorter answer where that is all it takes.
    """
    for theirs in (_TOO_LONG, _NO_ROOM):
        if theirs in said:
            return said[said.index(theirs) :]
    counted = read_counted(said)
    if counted is None:
        return f"{_TOO_LONG}: {said}"
    tokens, answer, limit = counted
    if tokens < limit < tokens + answer:
        return f"{_NO_ROOM}: {tokens} + {answer} > {limit}, decrease input length or `max_tokens` and try again: {said}"
    return f"{_TOO_LONG}: {tokens} tokens > {limit} maximum: {said}" if tokens > limit else f"{_TOO_LONG}: {said}"


def write_error_event(status: int, code: str, message: str) -> bytes:
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(_write_error(status, code, message))


def _write_error(status: int, code: str, message: str) -> Members:
    kind = _ERROR_KIND.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message, "code": code}}
