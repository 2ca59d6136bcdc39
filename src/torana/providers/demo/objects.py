"""JSON answers: an object with the keys that the messages show or list, and nothing around it."""

import json
import re
from collections.abc import Sequence
from typing import Any

from torana.chat import Message
from torana.providers.demo.tool_call import make_value

LOOKED_AT_CHARS = 20_000
MAX_TRIES = 50
"""Opening braces at which an example is looked for, the last ones first."""

_LISTED = re.compile(
    r"\b(?:keys?|fields?|properties|members|attributes)\b([^.\n]{1,300}(?:\n[ \t]*[-*].{1,100}){0,20})", re.IGNORECASE
)
_NAME = re.compile(r"[`'\"]([A-Za-z_][\w-]{0,60})[`'\"]")
_BARE_NAME = re.compile(r"(?:^|,|\band\b|:)\s*([a-z_]\w{0,60})(?=\s*(?:,|and\b|$))")

_GAP = re.compile(r"<[^<>]+>")


def answer_object(messages: Sequence[Message], schema: dict[str, Any] | None = None) -> str:
    """One JSON object as text: by the schema asked for, by an example, by listed keys, else empty."""
    if schema is not None:
        value = make_value(schema)
        return json.dumps(value if isinstance(value, dict) else {}, ensure_ascii=False)
    # What the system says comes first: an object in a user's words may be material.
    latest_first = messages[::-1]
    for message in sorted(latest_first, key=lambda each: each.role != "system"):
        text = message.text[-LOOKED_AT_CHARS:]
        example = _find_example(text)
        if example is not None:
            return json.dumps(_without_gaps(example), ensure_ascii=False)
    for message in reversed(messages):
        names = _find_names(message.text[-LOOKED_AT_CHARS:])
        if names:
            return json.dumps(dict.fromkeys(names, ""), ensure_ascii=False)
    return "{}"


def _find_example(text: str) -> dict[str, Any] | None:
    """The largest object among the last ones, best without gaps; an object inside another is not tried before it."""
    decoder = json.JSONDecoder()
    best: dict[str, Any] | None = None
    best_rank = (False, 0)
    for found in [place.start() for place in re.finditer(r"\{", text)][-MAX_TRIES:]:
        try:
            value, end = decoder.raw_decode(text, found)
            rank = (_without_gaps(value) == value, end - found)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value and rank > best_rank:
            best, best_rank = value, rank
    return best


def _without_gaps(value: Any) -> Any:
    """As it is, but for texts such as `<intent>`, which stand for what is to be put there."""
    if isinstance(value, dict):
        return {name: _without_gaps(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_gaps(each) for each in value]
    return "" if isinstance(value, str) and _GAP.fullmatch(value) else value


def _find_names(text: str) -> list[str]:
    for found in _LISTED.finditer(text):
        names = _NAME.findall(found[1]) or _BARE_NAME.findall(found[1].strip())
        if names:
            return list(dict.fromkeys(names))[:20]
    return []
