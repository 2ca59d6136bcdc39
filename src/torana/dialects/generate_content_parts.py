"""The generate content dialect: conversations, as its contents and parts.

Source: Gemini API reference, "Content" and "Part"; "Thought signatures"; "Function calling", multimodal function
responses; Vertex AI reference, "Content".
"""

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from torana.chat import Document, Foreign, Image, Message, Part, Role, Text, Thought, ToolCall, ToolResult
from torana.dialects.generate_content_answers import make_call_id
from torana.dialects.members import Loc, Members, find_object, find_text, need_rows, need_text
from torana.errors import Invalid

NAME = "generate_content"

ANY_SIGNATURE = "skip_thought_signature_validator"
"""Taken for the signature of a call that this very model never made: another one's, or one whose proof was lost."""

_MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown",
    "html": "text/html", "csv": "text/csv", "json": "application/json",
}  # fmt: skip

_FOREIGN_ID = re.compile(r"(call_|toolu_|tooluse_|fc_|chatcmpl-tool-)")
"""Ids of other vendors, and ours: Google's own ones alone are sent back."""

_second_model = re.compile(r"gem(ini-[12]|ma)\b")

_objects = msgspec.json.Decoder(dict[str, Any])


def is_second(model: str) -> bool:
    """Gemini 2.5 and before: thoughts by budget, no pictures in results, no signatures asked for."""
    return _second_model.match(model) is not None


def find_member(members: Members, name: str) -> Any:
    """Google's JSON names members in two ways, `inlineData` and `inline_data`."""
    found = members.get(name)
    return members.get(_snake(name)) if found is None else found


def _snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


# Contents → our words


def read_contents(rows: list[Members], loc: Loc) -> list[Message]:
    """Raises Invalid."""
    reader = _Reader()
    return [reader.read(row, (*loc, number)) for number, row in enumerate(rows)]


def read_system(value: Any) -> list[Message]:
    """A content, or just its text."""
    if isinstance(value, str):
        return [Message("system", (Text(value),))]
    if not isinstance(value, dict):
        raise Invalid(("systemInstruction",), "Input should be an object", "dict_type")
    parts = _Reader().read({**value, "role": "user"}, ("systemInstruction",)).parts
    return [Message("system", parts)] if parts else []


class _Reader:
    """Gives calls and results that came without an id the same one."""

    def __init__(self) -> None:
        self._turn = 0
        self._calls = 0
        self._waiting: dict[str, list[str]] = {}
        """Name of a function → ids of its calls that nobody has answered."""

    def read(self, row: Members, loc: Loc) -> Message:
        role: Role = "assistant" if row.get("role") == "model" else "user"
        self._turn += 1
        parts: list[Part] = []
        for number, block in enumerate(need_rows(row, "parts", loc)):
            parts += self._read_part(block, (*loc, "parts", number))
        return Message(role, tuple(parts))

    def _read_part(self, block: Members, loc: Loc) -> list[Part]:
        sealed = find_member(block, "thoughtSignature")
        signature = sealed if isinstance(sealed, str) else ""
        proof: list[Part] = [Thought(signature=signature, dialect=NAME)] if signature else []
        if block.get("text") is not None:
            text = need_text(block, "text", loc)
            if block.get("thought") is True:
                return [Thought(text, signature, dialect=NAME)]
            return [Text(text), *proof] if text or not proof else proof
        for name, read in (("functionCall", self._read_call), ("functionResponse", self._read_result)):
            if (value := find_member(block, name)) is not None:
                return [*proof, read(_as_object(value, (*loc, name)), (*loc, name))]
        media = _read_media(block, loc)
        if media is None:
            kind = next((name for name in block if name not in ("thought", "thoughtSignature")), "part")
            return [Foreign(NAME, kind, block)]
        return [media, *proof]

    def _read_call(self, call: Members, loc: Loc) -> ToolCall:
        name = need_text(call, "name", loc)
        arguments = msgspec.json.encode(find_object(call, "args", loc)).decode()
        call_id = find_text(call, "id", loc) or make_call_id(f"turn {self._turn}", 0, self._calls, name, arguments)
        self._calls += 1
        self._waiting.setdefault(name, []).append(call_id)
        return ToolCall(call_id, name, arguments)

    def _read_result(self, result: Members, loc: Loc) -> ToolResult:
        name = need_text(result, "name", loc)
        waiting = self._waiting.get(name, [])
        call_id = find_text(result, "id", loc) or (waiting[0] if waiting else name)
        if call_id in waiting:
            waiting.remove(call_id)
        response = find_object(result, "response", loc)
        text, is_error = _read_response(response)
        media = [] if result.get("parts") is None else need_rows(result, "parts", loc)
        shown = [found for block in media if (found := _read_media(block, loc)) is not None]
        return ToolResult(call_id, (Text(text), *shown) if text or not shown else tuple(shown), is_error)


def _read_response(response: Members) -> tuple[str, bool]:
    """The text of a result, and whether it is an error's."""
    if len(response) == 1:
        [(name, value)] = response.items()
        if name in ("output", "result", "error") and isinstance(value, str):
            return value, name == "error"
    return msgspec.json.encode(response).decode(), False


def _read_media(block: Members, loc: Loc) -> Image | Document | None:
    """A picture or a document; None for what has no word here, such as sound."""
    inline, file = find_member(block, "inlineData"), find_member(block, "fileData")
    value = inline if inline is not None else file
    if value is None:
        return None
    source = _as_object(value, loc)
    media_type = find_member(source, "mimeType")
    if not isinstance(media_type, str):
        return None
    data, url = find_text(source, "data", loc), str(find_member(source, "fileUri") or "")
    if media_type.startswith("image/"):
        return Image(media_type, data, url)
    if media_type == "application/pdf" or media_type.startswith("text/"):
        return Document(media_type, data, url)
    return None


def _as_object(value: Any, loc: Loc) -> Members:
    if not isinstance(value, dict):
        raise Invalid(loc, "Input should be an object", "dict_type")
    return value


# Our words → contents


def write_contents(messages: tuple[Message, ...], model: str) -> list[Members]:
    """Neighbours of one role become one content; results stand in one of their own, right behind their calls."""
    names = {part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)}
    turns: list[tuple[str, list[Members]]] = []

    def add(role: str, parts: list[Members]) -> None:
        if parts and turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((role, parts))

    for message in messages:
        if message.role == "assistant":
            add("model", _write_said(message.parts, model))
        elif message.role == "user":
            results = [part for part in message.parts if isinstance(part, ToolResult)]
            add("results", [row for part in results for row in _write_result(part, names, model)])
            add("user", [row for part in message.parts for row in _write_part(part)])
    if not is_second(model):
        for role, parts in turns:
            if role == "model":
                _prove_first_call(parts)
    return [{"role": "user" if role == "results" else role, "parts": parts} for role, parts in turns]


def write_system(messages: tuple[Message, ...]) -> list[Members]:
    """The parts of the system instruction."""
    return [
        row for message in messages if message.role == "system" for part in message.parts for row in _write_part(part)
    ]


def _write_said(parts: tuple[Part, ...], model: str) -> list[Members]:
    """What the model said. A signature that stands before a call belongs to it."""
    rows: list[Members] = []
    signature = ""
    for part in parts:
        if isinstance(part, ToolCall):
            rows.append(_write_call(part, signature))
            signature = ""
            continue
        if signature:
            rows.append({"text": "", "thoughtSignature": signature})
            signature = ""
        if isinstance(part, Thought):
            if part.dialect == NAME:
                rows += [{"text": part.text, "thought": True}] if part.text else []
                signature = part.signature
        else:
            rows += _write_part(part)
    return [*rows, {"text": "", "thoughtSignature": signature}] if signature else rows


def _prove_first_call(parts: list[Members]) -> None:
    """Gemini 3 refuses a step whose first call has no signature."""
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None and "thoughtSignature" not in first:
        first["thoughtSignature"] = ANY_SIGNATURE


def _write_call(call: ToolCall, signature: str) -> Members:
    written: Members = {
        "functionCall": {**_own_id(call.id), "name": call.name, "args": _read_arguments(call.arguments)}
    }
    return {**written, "thoughtSignature": signature} if signature else written


def _own_id(call_id: str) -> Members:
    return {} if not call_id or _FOREIGN_ID.match(call_id) else {"id": call_id}


def _read_arguments(text: str) -> Members:
    try:
        return _objects.decode(text or "{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # A call that was cut by its token limit; the API demands an object.
        return {"INVALID_JSON": text}


def _write_result(result: ToolResult, names: dict[str, str], model: str) -> list[Members]:
    said = [part.text for part in result.parts if not isinstance(part, Image)]
    shown = [part for part in result.parts if isinstance(part, Image) or not (isinstance(part, Text) or part.text)]
    media = [row for part in shown for row in _write_part(part)]
    response: Members = {
        **_own_id(result.call_id),
        "name": names.get(result.call_id, result.call_id),
        "response": {"error" if result.is_error else "output": "".join(said)},
    }
    if media and is_second(model):
        # These models are shown pictures beside the result.
        return [{"functionResponse": response}, *media]
    return [{"functionResponse": {**response, "parts": media} if media else response}]


def _write_part(part: Part) -> list[Members]:
    """A part that either side may say; none for an empty text, which the API refuses, and for results and thoughts."""
    if isinstance(part, Text):
        return [{"text": part.text}] if part.text else []
    if isinstance(part, Document) and part.text:
        return [{"text": part.text}]
    if isinstance(part, (Image, Document)):
        return [_write_media(part)]
    if isinstance(part, ToolCall):
        return [_write_call(part, "")]
    if isinstance(part, (Thought, ToolResult)):
        return []
    if part.dialect == NAME:
        return [part.value]
    if part.is_aside:
        return []
    raise Invalid(("messages",), f"This model cannot be given content of type {part.kind[:40]}")


def _write_media(part: Image | Document) -> Members:
    if part.data:
        return {"inlineData": {"mimeType": part.media_type or "application/pdf", "data": part.data}}
    media_type = part.media_type or _MEDIA_TYPES.get(urlsplit(part.url).path.rpartition(".")[2].lower(), "")
    return {"fileData": {**({"mimeType": media_type} if media_type else {}), "fileUri": part.url}}
