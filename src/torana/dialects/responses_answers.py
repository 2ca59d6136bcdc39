"""The responses dialect: writing answers, and watching relayed ones. Source: OpenAI API reference, "Responses"."""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCall, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.collecting import Choice, collect
from torana.dialects.members import Members, decode_answer
from torana.dialects.streams import Seen
from torana.errors import ProviderBroke

_ENDS = ("response.completed", "response.incomplete", "response.failed")
ENDINGS = tuple(b'"%b"' % end.encode() for end in _ENDS)

_INCOMPLETE: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Response(msgspec.Struct):
    model: str = ""
    usage: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None


_events = msgspec.json.Decoder(_Event)
_responses = msgspec.json.Decoder(_Response)


class ResponsesWriter:
    """Writes a stream of output items, one open at a time; all of them once more in the terminal event.

    Thoughts are left out, and of several choices the first one is written.
    """

    __slots__ = ("_call", "_created", "_done", "_finish", "_id", "_is_begun", "_model", "_number", "_texts", "_usage")

    def __init__(self, model: str, id: str, created: int) -> None:
        self._model = model
        self._id = id
        self._created = created
        self._is_begun = False
        self._number = 0
        """Of the next event."""
        self._done: list[Members] = []
        """Finished items."""
        self._texts: list[str] = []
        """Pieces of the open message; empty while none is open."""
        self._call: tuple[int, ToolCall, list[str]] | None = None
        """Position, call and pieces of the arguments of the open call."""
        self._finish: FinishReason = "stop"
        self._usage = Usage()

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            if not self._is_begun:
                self._is_begun = True
                for kind in ("response.created", "response.in_progress"):
                    out.append(self._event(kind, {"response": self._response("in_progress")}))
            if chunk.choice == 0:
                if chunk.text:
                    self._write_text(chunk.text, out)
                if chunk.tool_call:
                    self._write_call(chunk.tool_call, out)
                self._finish = chunk.finish or self._finish
            if chunk.is_last:
                self._close(out)
                status = "incomplete" if self._finish in _INCOMPLETE else "completed"
                out.append(self._event(f"response.{status}", {"response": self._response(status)}))
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return _write_error_event(code, message, self._number)

    def _write_text(self, text: str, out: list[bytes]) -> None:
        is_new = not self._texts
        if is_new:
            self._close(out)
        place = {"item_id": self._item_id, "output_index": len(self._done), "content_index": 0}
        if is_new:
            item = {**_write_message(self._item_id, ""), "status": "in_progress", "content": []}
            out.append(self._event("response.output_item.added", {"output_index": len(self._done), "item": item}))
            out.append(self._event("response.content_part.added", {**place, "part": _write_part("")}))
        self._texts.append(text)
        out.append(self._event("response.output_text.delta", {**place, "delta": text, "logprobs": []}))

    def _write_call(self, piece: ToolCallPiece, out: list[bytes]) -> None:
        if self._call is None or self._call[0] != piece.position:
            self._close(out)
            call = ToolCall(piece.id, piece.name, "")
            self._call = (piece.position, call, [])
            item = {**_write_function_call(self._item_id, call), "status": "in_progress"}
            out.append(self._event("response.output_item.added", {"output_index": len(self._done), "item": item}))
        if piece.arguments:
            self._call[2].append(piece.arguments)
            place = {"item_id": self._item_id, "output_index": len(self._done)}
            out.append(self._event("response.function_call_arguments.delta", {**place, "delta": piece.arguments}))

    def _close(self, out: list[bytes]) -> None:
        """Finish the open item, if any."""
        place: Members = {"item_id": self._item_id, "output_index": len(self._done)}
        if self._texts:
            text = "".join(self._texts)
            item = _write_message(self._item_id, text)
            in_item = {**place, "content_index": 0}
            out.append(self._event("response.output_text.done", {**in_item, "text": text, "logprobs": []}))
            out.append(self._event("response.content_part.done", {**in_item, "part": _write_part(text)}))
        elif self._call is not None:
            _, call, pieces = self._call
            arguments = "".join(pieces) or "{}"
            item = _write_function_call(self._item_id, ToolCall(call.id, call.name, arguments))
            named = {**place, "name": call.name, "arguments": arguments}
            out.append(self._event("response.function_call_arguments.done", named))
        else:
            return
        out.append(self._event("response.output_item.done", {"output_index": len(self._done), "item": item}))
        self._done.append(item)
        self._texts, self._call = [], None

    @property
    def _item_id(self) -> str:
        return _item_id(self._id, len(self._done))

    def _response(self, status: str) -> Members:
        usage = None if status == "in_progress" else self._usage
        return _write_response(self._id, self._model, self._created, status, self._done, self._finish, usage)

    def _event(self, kind: str, members: Members) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))


def write_answer(chunks: list[Chunk], model: str, id: str, created: int) -> bytes:
    """One JSON answer; thoughts and further choices are left out, as in a stream."""
    collected = collect(chunks)
    choice = collected.choices[0]
    status = "incomplete" if choice.finish in _INCOMPLETE else "completed"
    output = _write_output(id, choice)
    return msgspec.json.encode(_write_response(id, model, created, status, output, choice.finish, collected.usage))


def _write_output(id: str, choice: Choice) -> list[Members]:
    items: list[Members] = [_write_message(_item_id(id, 0), choice.text)] if choice.text else []
    for call in choice.tool_calls:
        items.append(_write_function_call(_item_id(id, len(items)), call))
    return items


def _item_id(id: str, number: int) -> str:
    return f"item_{number}_{id}"


def _write_response(
    id: str, model: str, created: int, status: str, output: list[Members], finish: FinishReason, usage: Usage | None
) -> Members:
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": status,
        "model": model,
        "output": output,
        "error": None,
        "incomplete_details": {"reason": _INCOMPLETE[finish]} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "top_p": None,
        "tool_choice": "auto",
        "tools": [],
        "usage": None if usage is None else openai_style.write_responses_usage(usage),
    }


def _write_message(id: str, text: str) -> Members:
    return {"id": id, "type": "message", "role": "assistant", "status": "completed", "content": [_write_part(text)]}


def _write_part(text: str) -> Members:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _write_function_call(id: str, call: ToolCall) -> Members:
    named = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": id, "type": "function_call", "status": "completed", **named}


def write_error_event(status: int, code: str, message: str) -> bytes:
    """For a relayed stream, whose count of events is not ours to know."""
    return _write_error_event(code, message, 0)


def _write_error_event(code: str, message: str, number: int) -> bytes:
    event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)


def look(data: bytes, usage: Usage | None) -> Seen:
    """What a relayed event says; raises ProviderBroke for junk."""
    event = decode_answer(_events, data)
    response = event.response or _Response()
    return openai_style.read_responses_usage(response.usage) or usage, response.model, event.type in _ENDS


def scan_answer(body: bytes) -> Usage | None:
    try:
        return openai_style.read_responses_usage(decode_answer(_responses, body).usage)
    except ProviderBroke:
        return None
