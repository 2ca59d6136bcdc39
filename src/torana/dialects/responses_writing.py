"""The responses dialect: writing answers. Source: OpenAI API reference, "Responses", "Streaming events"."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from torana.chat import ChatRequest, Chunk, FinishReason, Text, Thought, ToolCall, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.collecting import Said, collect
from torana.dialects.freeform import Unwrapping, mark_freeform, names_of, unwrap
from torana.dialects.members import Members
from torana.dialects.namespaces import homes_of
from torana.dialects.openai_style import describe_error
from torana.dialects.responses_answers import NAME
from torana.dialects.thoughts import seal
from torana.errors import PromptTooLong

MAX_ID_CHARS = 64
"""Of an item. OpenAI refuses longer ones, and such as do not begin with their kind: "Expected an ID that begins with
'msg'"."""

_INCOMPLETE: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class _Open:
    """An item that is not finished."""

    number: int
    id: str
    part: Said
    pieces: list[str] = field(default_factory=list)
    """Of its text, or of its arguments."""
    unwrapping: Unwrapping | None = None
    """Of a call of a custom tool, whose arguments are a text here."""
    is_refusal: bool = False
    """Its text says that the model will not answer."""


class ResponsesWriter:
    """Writes a stream of output items; all of them once more in the terminal event.

    Texts and thoughts are open one at a time; calls stay open until the end, for their pieces may come in turns.
    Of several choices the first one is written.
    """

    __slots__ = (
        "_calls",
        "_created",
        "_done",
        "_finish",
        "_freeform",
        "_homes",
        "_id",
        "_is_begun",
        "_items",
        "_model",
        "_number",
        "_open",
        "_usage",
    )

    def __init__(self, model: str, id: str, created: int, asked: ChatRequest | None = None) -> None:
        self._model = model
        self._id = id
        self._created = created
        self._freeform = names_of(asked)
        self._homes = homes_of(asked)
        self._is_begun = False
        self._number = 0
        """Of the next event."""
        self._items = 0
        """How many have begun."""
        self._done: dict[int, Members] = {}
        """Finished items by number."""
        self._open: _Open | None = None
        """The text or thought that goes on."""
        self._calls: dict[int, _Open] = {}
        """Open calls by position."""
        self._finish: FinishReason = "stop"
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
                    write = self._write_refusal if chunk.is_refusal else self._write_text
                    write(chunk.text, out)
                if chunk.tool_call:
                    self._write_call(chunk.tool_call, out)
                self._finish = chunk.finish or self._finish
            if chunk.is_last:
                self._close_all(out)
                status = "incomplete" if self._finish in _INCOMPLETE else "completed"
                out.append(self._event(f"response.{status}", {"response": self._response(status)}))
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        """The error event, which OpenAI's SDKs raise, and the failed response, which others wait for."""
        out: list[bytes] = []
        if not self._is_begun:
            self._begin(out)
        failed = self._response("failed")
        failed["error"] = {"code": _failure_code(status, code), "message": message}
        out.append(_write_error_event(status, code, message, self._number))
        self._number += 1
        out.append(self._event("response.failed", {"response": failed}))
        return b"".join(out)

    def _begin(self, out: list[bytes]) -> None:
        self._is_begun = True
        for kind in ("response.created", "response.in_progress"):
            out.append(self._event(kind, {"response": self._response("in_progress")}))

    def _write_text(self, text: str, out: list[bytes]) -> None:
        item = self._open
        if item is None or item.is_refusal or not isinstance(item.part, Text):
            item = self._begin_text(out)
        item.pieces.append(text)
        out.append(
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%d,'
            b'"item_id":%b,"output_index":%d,"content_index":0,"delta":%b,"logprobs":[]}\n\n'
            % (self._number, msgspec.json.encode(item.id), item.number, msgspec.json.encode(text))
        )
        self._number += 1

    def _write_refusal(self, text: str, out: list[bytes]) -> None:
        item = self._open
        if item is None or not item.is_refusal:
            item = self._begin_text(out, is_refusal=True)
        item.pieces.append(text)
        place = {"item_id": item.id, "output_index": item.number, "content_index": 0}
        out.append(self._event("response.refusal.delta", {**place, "delta": text}))

    def _begin_text(self, out: list[bytes], *, is_refusal: bool = False) -> _Open:
        item = self._begin_item(Text(""), out)
        item.is_refusal = is_refusal
        place = {"item_id": item.id, "output_index": item.number, "content_index": 0}
        part = _write_part("", is_refusal=is_refusal)
        out.append(self._event("response.content_part.added", {**place, "part": part}))
        return item

    def _write_thought(self, chunk: Chunk, out: list[bytes]) -> None:
        if chunk.reasoning or chunk.signature:
            item = self._open
            if item is None or not isinstance(item.part, Thought):
                item = self._begin_item(Thought(dialect=chunk.dialect), out)
            if chunk.reasoning:
                self._write_summary(item, chunk.reasoning, out)
            if chunk.signature:
                # The proof ends its thought.
                item.part = Thought(signature=chunk.signature, dialect=chunk.dialect)
                self._close(out)
        if chunk.redacted:
            self._begin_item(Thought(redacted=chunk.redacted, dialect=chunk.dialect), out)
            self._close(out)

    def _write_summary(self, item: _Open, text: str, out: list[bytes]) -> None:
        place = {"item_id": item.id, "output_index": item.number, "summary_index": 0}
        if not item.pieces:
            out.append(self._event("response.reasoning_summary_part.added", {**place, "part": _write_summary("")}))
        item.pieces.append(text)
        out.append(self._event("response.reasoning_summary_text.delta", {**place, "delta": text}))

    def _write_call(self, piece: ToolCallPiece, out: list[bytes]) -> None:
        item = self._calls.get(piece.position)
        if item is None:
            is_freeform = piece.name in self._freeform
            item = self._begin_item(ToolCall(piece.id, piece.name, "", is_freeform=is_freeform), out)
            item.unwrapping = Unwrapping() if is_freeform else None
            self._calls[piece.position] = item
            self._open = None
        if item.unwrapping is not None:
            self._write_input(item, item.unwrapping.feed(piece.arguments), out)
        elif piece.arguments:
            item.pieces.append(piece.arguments)
            place = {"item_id": item.id, "output_index": item.number}
            out.append(self._event("response.function_call_arguments.delta", {**place, "delta": piece.arguments}))

    def _write_input(self, item: _Open, text: str, out: list[bytes]) -> None:
        if text:
            item.pieces.append(text)
            place = {"item_id": item.id, "output_index": item.number}
            out.append(self._event("response.custom_tool_call_input.delta", {**place, "delta": text}))

    def _begin_item(self, part: Said, out: list[bytes]) -> _Open:
        self._close(out)
        self._open = item = _Open(self._items, _item_id(self._id, self._items, part), part)
        self._items += 1
        shown = {**_write_item(item.id, part, "", self._homes), "status": "in_progress"}
        if isinstance(part, Text):
            shown["content"] = []
        out.append(self._event("response.output_item.added", {"output_index": item.number, "item": shown}))
        return item

    def _close_all(self, out: list[bytes]) -> None:
        self._close(out)
        for item in self._calls.values():
            self._finish_item(item, out)
        self._calls.clear()

    def _close(self, out: list[bytes]) -> None:
        """Finish the open text or thought, if any."""
        if self._open is not None:
            item, self._open = self._open, None
            self._finish_item(item, out)

    def _finish_item(self, item: _Open, out: list[bytes]) -> None:
        if item.unwrapping is not None:
            self._write_input(item, item.unwrapping.close(), out)
        text = "".join(item.pieces)
        place: Members = {"item_id": item.id, "output_index": item.number}
        match item.part:
            case Text():
                place["content_index"] = 0
                if item.is_refusal:
                    out.append(self._event("response.refusal.done", {**place, "refusal": text}))
                else:
                    out.append(self._event("response.output_text.done", {**place, "text": text, "logprobs": []}))
                part = _write_part(text, is_refusal=item.is_refusal)
                out.append(self._event("response.content_part.done", {**place, "part": part}))
            case Thought() if text:
                place["summary_index"] = 0
                out.append(self._event("response.reasoning_summary_text.done", {**place, "text": text}))
                out.append(self._event("response.reasoning_summary_part.done", {**place, "part": _write_summary(text)}))
            case ToolCall(is_freeform=True):
                out.append(self._event("response.custom_tool_call_input.done", {**place, "input": text}))
            case ToolCall():
                text = text or "{}"
                named = {**place, **_write_name(item.part, self._homes), "arguments": text}
                out.append(self._event("response.function_call_arguments.done", named))
        done = _write_item(item.id, item.part, text, self._homes, is_refusal=item.is_refusal)
        out.append(self._event("response.output_item.done", {"output_index": item.number, "item": done}))
        self._done[item.number] = done

    def _response(self, status: str) -> Members:
        usage = self._usage if status in ("completed", "incomplete") else None
        output = [self._done[number] for number in sorted(self._done)]
        return _write_response(self._id, self._model, self._created, status, output, self._finish, usage)

    def _event(self, kind: str, members: Members) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))


def write_answer(chunks: list[Chunk], model: str, id: str, created: int, asked: ChatRequest | None = None) -> bytes:
    """One JSON answer; further choices are left out, as in a stream."""
    collected = collect(chunks)
    choice = collected.choices[0]
    status = "incomplete" if choice.finish in _INCOMPLETE else "completed"
    parts = mark_freeform(choice.parts, names_of(asked))
    homes = homes_of(asked)
    output = [
        _write_item(_item_id(id, number, part), part, _text_of(part), homes, is_refusal=choice.is_refusal)
        for number, part in enumerate(parts)
    ]
    return msgspec.json.encode(_write_response(id, model, created, status, output, choice.finish, collected.usage))


def _text_of(part: Said) -> str:
    if not isinstance(part, ToolCall):
        return part.text
    return unwrap(part.arguments) if part.is_freeform else part.arguments


def _item_id(id: str, number: int, part: Said) -> str:
    """One that OpenAI takes back: a conversation may go on with a model of its own, which gets the client's bytes."""
    match part:
        case Text():
            kind = "msg"
        case Thought():
            kind = "rs"
        case ToolCall():
            kind = "ctc" if part.is_freeform else "fc"
    head = f"{kind}_{number}_"
    return head + id.removeprefix("resp_")[len(head) - MAX_ID_CHARS :]


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
        "previous_response_id": None,
        "store": False,
        "usage": None if usage is None else openai_style.write_responses_usage(usage),
    }


def _write_name(call: ToolCall, homes: Mapping[str, Members]) -> Members:
    return homes.get(call.name) or {"name": call.name}


def _write_item(id: str, part: Said, text: str, homes: Mapping[str, Members], *, is_refusal: bool = False) -> Members:
    match part:
        case Text():
            content = [_write_part(text, is_refusal=is_refusal)]
            return {"id": id, "type": "message", "role": "assistant", "status": "completed", "content": content}
        case ToolCall(is_freeform=True):
            told = {"call_id": part.id, **_write_name(part, homes), "input": text}
            return {"id": id, "type": "custom_tool_call", "status": "completed", **told}
        case ToolCall():
            named = {"call_id": part.id, **_write_name(part, homes), "arguments": text}
            return {"id": id, "type": "function_call", "status": "completed", **named}
        case Thought():
            item: Members = {"id": id, "type": "reasoning", "summary": [_write_summary(text)] if text else []}
            if part.redacted:
                item["encrypted_content"] = seal(part.redacted, part.dialect, NAME, is_whole=True)
            elif proof := seal(part.signature, part.dialect, NAME):
                item["encrypted_content"] = proof
            return item


def _write_part(text: str, *, is_refusal: bool = False) -> Members:
    if is_refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _write_summary(text: str) -> Members:
    return {"type": "summary_text", "text": text}


def write_error_event(status: int, code: str, message: str) -> bytes:
    """For a relayed stream, whose count of events is not ours to know."""
    return _write_error_event(status, code, message, 0)


def _write_error_event(status: int, code: str, message: str, number: int) -> bytes:
    """As the reference has it, with what OpenAI itself sends in `error`: SDKs and agents look there."""
    event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode({**event, **describe_error(status, code, message)})


def _failure_code(status: int, code: str) -> str:
    """OpenAI's word in a failed response, by which Codex knows whether asking again may help."""
    if code == PromptTooLong.code:
        return code
    if status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status < 500 else "server_error"
