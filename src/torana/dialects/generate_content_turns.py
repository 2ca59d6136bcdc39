"""The generate content dialect: writing conversations. What it does not take is left out, and named in `lost`.

Source: Gemini API reference, "Content" and "Part"; "Thought signatures"; "Function calling", parallel calls and
multimodal responses.
"""

import re
from itertools import groupby
from operator import attrgetter

from torana.chat import Document, Foreign, Image, Message, Part, Text, Thought, ToolCall, ToolResult
from torana.dialects.generate_content_answers import NAME
from torana.dialects.generate_content_parts import ANY_SIGNATURE, is_second
from torana.dialects.media import note_detail, tell_document, text_of
from torana.dialects.members import Members, read_arguments
from torana.errors import Invalid

_MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown",
    "html": "text/html", "csv": "text/csv", "json": "application/json",
}  # fmt: skip
_FILES_HOST = "generativelanguage.googleapis.com"


def write_contents(messages: tuple[Message, ...], model: str, lost: set[str]) -> list[Members]:
    """Neighbours of one role become one content; results stand in one of their own, right behind their calls.

    They stand in the order of the calls: where ids are not told, that alone says which is whose.
    """
    names = {part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)}
    order = {id_: place for place, id_ in enumerate(names)}
    turns: list[tuple[str, list[Members]]] = []

    def add(role: str, parts: list[Members]) -> None:
        if parts and turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((role, parts))

    said = (message for message in messages if message.role != "system")
    for role, neighbours in groupby(said, attrgetter("role")):
        sides = [message.parts for message in neighbours]
        if role == "assistant":
            for side in sides:
                add("model", _write_said(side, lost))
            continue
        results = [part for side in sides for part in side if isinstance(part, ToolResult)]
        results.sort(key=lambda result: order.get(result.call_id, len(order)))
        add("results", [row for part in results for row in _write_result(part, names, model, lost)])
        add("user", [row for side in sides for part in side for row in _write_part(part, lost)])
    if not is_second(model):
        for role, parts in turns:
            if role == "model":
                _prove_first_call(parts)
    return [{"role": "user" if role == "results" else role, "parts": parts} for role, parts in turns]


def write_system(messages: tuple[Message, ...], lost: set[str]) -> list[Members]:
    """The parts of the system instruction."""
    told = [part for message in messages if message.role == "system" for part in message.parts]
    return [row for part in told for row in _write_part(part, lost)]


def _write_said(parts: tuple[Part, ...], lost: set[str]) -> list[Members]:
    """What the model said. A signature that stands before a call belongs to it, any other to a part of its own."""
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
        if isinstance(part, Thought) and part.dialect == NAME:
            rows += [{"text": part.text, "thought": True}] if part.text else []
            signature = part.signature
        else:
            rows += _write_part(part, lost)
    return [*rows, {"text": "", "thoughtSignature": signature}] if signature else rows


def _prove_first_call(parts: list[Members]) -> None:
    """Gemini 3 refuses a step whose first call has no signature."""
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None and "thoughtSignature" not in first:
        first["thoughtSignature"] = ANY_SIGNATURE


def _write_call(call: ToolCall, signature: str) -> Members:
    written: Members = {"functionCall": {"id": call.id, "name": call.name, "args": read_arguments(call.arguments)}}
    return {**written, "thoughtSignature": signature} if signature else written


def _write_result(result: ToolResult, names: dict[str, str], model: str, lost: set[str]) -> list[Members]:
    rows = [row for part in result.parts for row in _write_part(part, lost)]
    told = "\n\n".join(row["text"] for row in rows if "text" in row)
    response: Members = {
        "id": result.call_id,
        "name": names.get(result.call_id, result.call_id),
        "response": {"error" if result.is_error else "output": told},
    }
    # Gemini 3 is shown pictures within the result, but not such as it has to fetch; older models beside it.
    shows_within = not is_second(model)
    shown = [row for row in rows if "text" not in row]
    within = [row for row in shown if shows_within and "inlineData" in row]
    beside = [row for row in shown if not (shows_within and "inlineData" in row)]
    return [{"functionResponse": {**response, "parts": within} if within else response}, *beside]


def _write_part(part: Part, lost: set[str]) -> list[Members]:
    """A part that either side may say; none for an empty text, which the API refuses, and for results."""
    match part:
        case Text():
            return [{"text": part.text}] if part.text else []
        case Image():
            note_detail(part, lost)
            return [_write_media(part.media_type or ("image/png" if part.data else ""), part.data, part.url)]
        case Document() if (text := text_of(part)) is not None:
            return [{"text": tell_document(part.title, text)}]
        case Document():
            if part.title:
                lost.add("document.title")
            return [_write_media(part.media_type or ("application/pdf" if part.data else ""), part.data, part.url)]
        case ToolCall():
            return [_write_call(part, "")]
        case ToolResult():
            return []
        case Thought():
            lost.add("thought")
            return []
        case Foreign(dialect=dialect) if dialect == NAME:
            return [part.value]
        case Foreign() if part.is_aside:
            lost.add(part.kind[:40])
            return []
        case Foreign():
            raise Invalid(("messages",), f"This model cannot be given content of type {part.kind[:40]}")


def _write_media(media_type: str, data: str, url: str) -> Members:
    if data:
        return {"inlineData": {"mimeType": media_type, "data": data}}
    if not url.lower().startswith(("https://", "http://")):
        # What lies in the cloud's own store (`gs://…`) it reads with our rights, and its caller may have none to it.
        raise Invalid(
            ("messages",), "This model can be given a picture or document by its bytes, or by an address of https"
        )
    # By hand: an address that none can be is the vendor's to refuse, and `urlsplit` raises.
    host, _, path = url.partition("://")[2].partition("/")
    if _FILES_HOST in host.lower():
        # Gemini's own files, which it reads with our rights, too; one that is not there is refused like a bad key.
        raise Invalid(("messages",), "This model can be given no file by its vendor's id")
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    media_type = media_type or _MEDIA_TYPES.get(path.rpartition(".")[2].lower(), "")
    return {"fileData": {**({"mimeType": media_type} if media_type else {}), "fileUri": url}}
