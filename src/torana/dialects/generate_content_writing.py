"""The generate content dialect: writing answers, streamed and whole, and errors.

Source: Gemini API reference, "GenerateContentResponse"; google.rpc.Status for errors.
"""

import msgspec

from torana.chat import ChatRequest, Chunk, FinishReason, Usage
from torana.dialects.generate_content_answers import NAME
from torana.dialects.generate_content_errors import STATUSES
from torana.dialects.members import Members, read_arguments
from torana.dialects.thoughts import seal

_FINISHES: dict[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "stop_sequence": "STOP",
    "content_filter": "SAFETY",
    "other": "OTHER",
}
_STATUS_NAMES = {status: name for name, status in reversed(STATUSES.items())}


class _Parts:
    """One candidate's parts, from chunks. Calls are written whole, so they wait for their end."""

    def __init__(self) -> None:
        self._calls: dict[int, list[str]] = {}
        """Position → id, name, and pieces of the arguments."""
        self._signatures: dict[int, str] = {}
        self._signature = ""
        self.finish: FinishReason | None = None

    def take(self, chunk: Chunk) -> list[Members]:
        """The parts that `chunk` completes."""
        self.finish = chunk.finish or self.finish
        if piece := chunk.tool_call:
            call = self._calls.setdefault(piece.position, [piece.id, piece.name])
            call.append(piece.arguments)
            if self._signature:
                self._signatures[piece.position], self._signature = self._signature, ""
            return []
        signature = seal(chunk.signature, chunk.dialect, NAME) if chunk.signature else ""
        if not (chunk.text or chunk.reasoning):
            self._signature = signature or self._signature
            return []
        parts = self.flush()
        if chunk.reasoning:
            parts.append({"text": chunk.reasoning, "thought": True})
        if chunk.text:
            parts.append({"text": chunk.text})
        self._signature = signature
        return parts

    def flush(self) -> list[Members]:
        parts = [
            self._write_call(position, call_id, name, "".join(arguments))
            for position, (call_id, name, *arguments) in sorted(self._calls.items())
        ]
        if self._signature:
            parts.append({"text": "", "thoughtSignature": self._signature})
            self._signature = ""
        self._calls.clear()
        return parts

    def _write_call(self, position: int, call_id: str, name: str, arguments: str) -> Members:
        written: Members = {"functionCall": {"id": call_id, "name": name, "args": read_arguments(arguments)}}
        signature = self._signatures.get(position)
        return {**written, "thoughtSignature": signature} if signature else written


class ContentWriter:
    """Writes a stream of server-sent events, each a whole response of a few more parts."""

    def __init__(self, model: str, id: str, created: int, _asked: ChatRequest | None = None) -> None:
        self._frame = {"modelVersion": model, "responseId": id}
        self._candidates: dict[int, _Parts] = {}
        self._usage = Usage()

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            parts = self._candidates.setdefault(chunk.choice, _Parts()).take(chunk)
            if parts:
                self._add([_write_candidate(chunk.choice, parts)], out)
            if chunk.is_last:
                self._end(out)
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return write_error_event(status, code, message)

    def _end(self, out: list[bytes]) -> None:
        ends = [_end_candidate(choice, parts, []) for choice, parts in sorted(self._candidates.items())]
        self._add(ends, out, usage=True)

    def _add(self, candidates: list[Members], out: list[bytes], *, usage: bool = False) -> None:
        counted = {"usageMetadata": write_usage(self._usage)} if usage else {}
        event = {"candidates": candidates, **counted, **self._frame}
        out.append(b"data: %b\r\n\r\n" % msgspec.json.encode(event))


def write_answer(chunks: list[Chunk], model: str, id: str, created: int, _asked: ChatRequest | None = None) -> bytes:
    candidates: dict[int, tuple[_Parts, list[Members]]] = {}
    usage = Usage()
    for chunk in chunks:
        usage = chunk.usage or usage
        maker, parts = candidates.setdefault(chunk.choice, (_Parts(), []))
        for part in maker.take(chunk):
            if parts and "text" in part and parts[-1].keys() == part.keys() and "thoughtSignature" not in part:
                parts[-1]["text"] += part["text"]
            else:
                parts.append(part)
    answer = {
        "candidates": [_end_candidate(choice, maker, parts) for choice, (maker, parts) in sorted(candidates.items())],
        "usageMetadata": write_usage(usage),
        "modelVersion": model,
        "responseId": id,
    }
    return msgspec.json.encode(answer)


def _write_candidate(choice: int, parts: list[Members]) -> Members:
    return {"content": {"parts": parts, "role": "model"}, "index": choice}


def _end_candidate(choice: int, maker: _Parts, parts: list[Members]) -> Members:
    """A candidate at its end: `parts`, what was still waiting, and why it has ended."""
    written = _write_candidate(choice, [*parts, *maker.flush()])
    return {**written, "finishReason": _FINISHES[maker.finish or "stop"]}


def write_usage(usage: Usage) -> Members:
    written: Members = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.reasoning_tokens:
        written["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cache_read_tokens:
        written["cachedContentTokenCount"] = usage.cache_read_tokens
    return written


def write_error(status: int, code: str, message: str, request_id: str) -> bytes:
    return msgspec.json.encode(_describe(status, code, message))


def write_error_event(status: int, code: str, message: str) -> bytes:
    return b"data: %b\r\n\r\n" % msgspec.json.encode(_describe(status, code, message))


def _describe(status: int, code: str, message: str) -> Members:
    name = _STATUS_NAMES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.upper(), "domain": "torana"}
    return {"error": {"code": status, "message": message, "status": name, "details": [info]}}
