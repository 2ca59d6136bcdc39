"""The converse dialect: writing answers, streamed and whole, and errors.

Source: Amazon Bedrock API reference, "Converse", "ConverseStream".
"""

import msgspec

from torana.chat import ChatRequest, Chunk, FinishReason, Text, Thought, ToolCall, ToolCallPiece, Usage
from torana.dialects.collecting import Said, collect
from torana.dialects.converse_answers import ERROR_STATUS, PROOF
from torana.dialects.event_stream import write_event
from torana.dialects.members import Members, read_arguments
from torana.dialects.thoughts import seal

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "content_filtered",
    "other": "end_turn",
}
_EXCEPTIONS = {status: name for name, status in reversed(ERROR_STATUS.items())}


class ConverseWriter:
    """Writes a stream of blocks, one open at a time. Of several choices the first one is written."""

    __slots__ = ("_block", "_calls", "_finish", "_is_begun", "_open", "_thinker", "_usage")

    def __init__(self, model: str, id: str, created: int, _asked: ChatRequest | None = None) -> None:
        self._is_begun = False
        self._block = -1
        """Number of the newest block."""
        self._open = ""
        """What it holds: `text`, `thought`, `signed` for one with its proof, `sealed`, `call`; empty: none is open."""
        self._thinker = ""
        """The dialect whose thought is open."""
        self._calls: dict[int, int] = {}
        """Position of a tool call → its block."""
        self._finish: FinishReason = "stop"
        self._usage = Usage()

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            if not self._is_begun:
                self._is_begun = True
                out.append(write_event("event", "messageStart", {"role": "assistant"}))
            if chunk.choice == 0:
                self._write_thought(chunk, out)
                if chunk.text:
                    self._write_delta("text", {"text": chunk.text}, out)
                if chunk.tool_call:
                    self._write_call(chunk.tool_call, out)
                self._finish = chunk.finish or self._finish
            if chunk.is_last:
                self._end(out)
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return write_error_event(status, code, message)

    def _write_thought(self, chunk: Chunk, out: list[bytes]) -> None:
        if chunk.reasoning or chunk.signature:
            if self._open != "thought":
                self._thinker = chunk.dialect
            if chunk.reasoning:
                self._write_delta("thought", _thought(text=chunk.reasoning), out)
            if chunk.signature:
                self._sign(chunk.signature, out)
        if chunk.redacted:
            self._close(out)
            self._write_delta(
                "sealed", _thought(redactedContent=seal(chunk.redacted, chunk.dialect, PROOF, is_whole=True)), out
            )
            self._close(out)

    def _sign(self, proof: str, out: list[bytes]) -> None:
        """The proof ends its thought; one without any is at least marked as another dialect's."""
        if signature := seal(proof, self._thinker, PROOF):
            self._write_delta("thought", _thought(signature=signature), out)
        self._open = "signed"

    def _write_call(self, piece: ToolCallPiece, out: list[bytes]) -> None:
        if piece.position not in self._calls:
            self._close(out)
            self._block += 1
            self._open = "call"
            self._calls[piece.position] = self._block
            start = {"toolUse": {"toolUseId": piece.id, "name": piece.name}}
            out.append(write_event("event", "contentBlockStart", {"start": start, "contentBlockIndex": self._block}))
        if piece.arguments:
            # A piece for an earlier call is rare, and clients tell blocks apart by number.
            self._write_piece(self._calls[piece.position], {"toolUse": {"input": piece.arguments}}, out)

    def _write_delta(self, kind: str, delta: Members, out: list[bytes]) -> None:
        if self._open != kind:
            self._close(out)
            self._block += 1
            self._open = kind
        self._write_piece(self._block, delta, out)

    def _write_piece(self, block: int, delta: Members, out: list[bytes]) -> None:
        out.append(write_event("event", "contentBlockDelta", {"delta": delta, "contentBlockIndex": block}))

    def _close(self, out: list[bytes]) -> None:
        if self._open == "thought":
            self._sign("", out)
        if self._open:
            self._open = ""
            out.append(write_event("event", "contentBlockStop", {"contentBlockIndex": self._block}))

    def _end(self, out: list[bytes]) -> None:
        self._close(out)
        out.append(write_event("event", "messageStop", {"stopReason": _STOP_REASONS[self._finish]}))
        metadata = {"usage": write_usage(self._usage), "metrics": {"latencyMs": 0}}
        out.append(write_event("event", "metadata", metadata))


def _thought(**members: str) -> Members:
    return {"reasoningContent": members}


def write_answer(chunks: list[Chunk], model: str, id: str, created: int, _asked: ChatRequest | None = None) -> bytes:
    """One JSON answer; further choices are left out, as in a stream."""
    collected = collect(chunks)
    choice = collected.choices[0]
    content = [_write_part(part) for part in choice.parts]
    return msgspec.json.encode(
        {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _STOP_REASONS[choice.finish],
            "usage": write_usage(collected.usage),
            "metrics": {"latencyMs": 0},
        }
    )


def _write_part(part: Said) -> Members:
    match part:
        case Text():
            return {"text": part.text}
        case ToolCall():
            use = {"toolUseId": part.id, "name": part.name, "input": read_arguments(part.arguments)}
            return {"toolUse": use}
        case Thought(redacted=redacted) if redacted:
            return _thought(redactedContent=seal(redacted, part.dialect, PROOF, is_whole=True))
        case Thought():
            proof = seal(part.signature, part.dialect, PROOF)
            told = {"text": part.text, "signature": proof} if proof else {"text": part.text}
            return {"reasoningContent": {"reasoningText": told}}


def write_usage(usage: Usage) -> Members:
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    return {
        "inputTokens": max(usage.input_tokens - read - written, 0),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }


def write_error(status: int, code: str, message: str, request_id: str) -> bytes:
    """One JSON error; AWS names the exception and the request in headers, not here."""
    return msgspec.json.encode({"message": message, "code": code})


def write_error_event(status: int, code: str, message: str) -> bytes:
    name = _EXCEPTIONS.get(status, "validationException" if status < 500 else "internalServerException")
    return write_event("exception", name, {"message": message, "code": code})
