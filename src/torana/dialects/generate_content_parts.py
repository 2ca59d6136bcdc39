"""The generate content dialect: reading conversations. Source: Gemini API reference, "Content" and "Part"."""

import re
from typing import Any

import msgspec

from torana.chat import Document, Foreign, Image, Message, Part, Role, Text, Thought, ToolCall, ToolResult
from torana.dialects.call_ids import make_call_id
from torana.dialects.generate_content_answers import NAME
from torana.dialects.members import Loc, Members, find_object, find_text, need_rows, need_text
from torana.dialects.thoughts import unseal
from torana.errors import Invalid

ANY_SIGNATURE = "skip_thought_signature_validator"
"""Taken for the signature of a call that this very model never made: another one's, or one whose proof was lost."""

_second_model = re.compile(r"gem(ini-[12]|ma)\b")


def is_second(model: str) -> bool:
    """Gemini 2.5 and before: thoughts by budget, no pictures in results, no signatures asked for."""
    return _second_model.match(model) is not None


def find_member(members: Members, name: str) -> Any:
    """Google's JSON names members in two ways, `inlineData` and `inline_data`."""
    found = members.get(name)
    return members.get(_snake(name)) if found is None else found


def _snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


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
            for part in self._read_part(block, (*loc, "parts", number)):
                # A proof behind a thought that has none is that thought's.
                is_proof = isinstance(part, Thought) and not part.text
                if is_proof and parts and isinstance(last := parts[-1], Thought) and not last.signature:
                    part = msgspec.structs.replace(part, text=last.text)
                    del parts[-1]
                parts.append(part)
        return Message(role, tuple(parts))

    def _read_part(self, block: Members, loc: Loc) -> list[Part]:
        sealed = find_member(block, "thoughtSignature")
        signature = sealed if isinstance(sealed, str) and sealed != ANY_SIGNATURE else ""
        proof: list[Part] = [unseal("", signature, NAME)] if signature else []
        if block.get("text") is not None:
            text = need_text(block, "text", loc)
            if block.get("thought") is True:
                return [unseal(text, signature, NAME) if signature else Thought(text, dialect=NAME)]
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
