"""OpenAI's custom tools, for which the model writes one text and no JSON. Everywhere else they are functions with that
text as their one argument, and the other way round when the answer comes.

Source: OpenAI API reference, "Custom tools".
"""

import json
import re
from typing import Any

import msgspec

from torana.chat import ChatRequest, ToolCall
from torana.dialects.collecting import Said

INPUT = "input"
"""The one argument."""

BEGIN, END = '{"input":"', '"}'
"""Around the pieces of a text that `escape` has made fit."""

MAX_START_CHARS = 1_000
"""Before the text, white space included: as much of it is looked at again with each piece."""

_HINT = "All that the tool is given, as plain text."

_start = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_ODD_U = r"\\u(?=[0-9a-fA-F]{0,3}[^0-9a-fA-F])"
_letters = re.compile(
    rf'(?:[^"\\]++|\\[^u]|{_ODD_U}|\\u(?![dD][89abAB])[0-9a-fA-F]{{4}}'
    rf"|\\u[dD][89abAB][0-9a-fA-F]{{2}}(?:\\u[0-9a-fA-F]{{4}}|(?=[^\\]|\\[^u]|{_ODD_U})))*",
    re.DOTALL,
)
"""Whole letters of a JSON text; one outside the BMP may be two escapes."""

_backslash = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')


def schema_of(form: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of the function that stands for a custom tool.

    form  what OpenAI's formats say of the text: `{"type":"grammar","syntax":"lark","definition":…}`; empty: any
    """
    hint = _HINT
    grammar = spread_grammar(form)
    if isinstance(grammar.get("definition"), str):
        hint = f"{_HINT} It follows this grammar ({grammar.get('syntax', 'lark')}):\n{grammar['definition']}"
    text = {"type": "string", "description": hint}
    return {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}


def spread_grammar(form: dict[str, Any]) -> dict[str, Any]:
    """As responses have it: chat completions put the grammar into a member of its own."""
    inner = form.get("grammar")
    return {"type": "grammar", **inner} if isinstance(inner, dict) else form


def fold_grammar(form: dict[str, Any]) -> dict[str, Any]:
    """As chat completions have it."""
    if form.get("type") != "grammar" or "grammar" in form:
        return form
    return {"type": "grammar", "grammar": {name: value for name, value in form.items() if name != "type"}}


def lost_grammars(asked: ChatRequest) -> set[str]:
    """What is lost where custom tools are functions: the model is told of a grammar, and nobody holds it to that."""
    has_one = any(spread_grammar(tool.freeform).get("type") == "grammar" for tool in asked.tools if tool.freeform)
    return {"tool.grammar"} if has_one else set()


def names_of(asked: ChatRequest | None) -> frozenset[str]:
    """The custom tools of a request."""
    return (
        frozenset(tool.name for tool in asked.tools if tool.freeform is not None) if asked is not None else frozenset()
    )


def wrap(text: str) -> str:
    """The arguments that say a text."""
    return BEGIN + escape(text) + END


def escape(text: str) -> str:
    """A text, or a piece of one, as it stands between the quotes of a JSON text."""
    return msgspec.json.encode(text).decode()[1:-1]


def unwrap(arguments: str) -> str:
    """The text that arguments say; what has another shape is taken for the text itself."""
    try:
        read = json.loads(arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        # Cut off, or no JSON: what a stream would give of it.
        return Unwrapping().feed(arguments) if _start.match(arguments) else arguments
    if not isinstance(read, dict):
        return arguments
    texts = [read[INPUT]] if INPUT in read else list(read.values())
    if len(texts) != 1 or not isinstance(texts[0], str):
        return arguments if read else ""
    return _whole(texts[0])


def mark_freeform(parts: list[Said], names: frozenset[str]) -> list[Said]:
    """The parts of an answer; calls of the custom tools of these names are marked as such."""
    if not names:
        return parts
    return [
        msgspec.structs.replace(part, is_freeform=True) if isinstance(part, ToolCall) and part.name in names else part
        for part in parts
    ]


class Unwrapping:
    """`unwrap` for arguments that come in pieces: each gives as much of the text as is whole."""

    __slots__ = ("_held", "_is_inside", "_odd")

    def __init__(self) -> None:
        self._held = ""
        """Of which nothing was given out yet."""
        self._is_inside = False
        self._odd: list[str] = []
        """All there is, where the text does not begin as it should."""

    def feed(self, piece: str) -> str:
        if self._odd:
            self._odd.append(piece)
            return ""
        self._held += piece
        if not self._is_inside:
            found = _start.match(self._held)
            if found is None:
                if len(self._held) > MAX_START_CHARS:
                    self._odd, self._held = [self._held], ""
                return ""
            self._is_inside, self._held = True, self._held[found.end() :]
        letters = _letters.match(self._held)
        assert letters is not None  # none is one, too
        self._held = self._held[letters.end() :]
        if self._held.startswith('"'):
            self._held = '"'  # the text has ended: what follows says nothing
        return _read(letters[0]) if letters[0] else ""

    def close(self) -> str:
        """What is left, where the arguments had another shape than one would think."""
        return "" if self._is_inside else unwrap("".join(self._odd) or self._held)


def _read(letters: str) -> str:
    """What they say. A backslash that escapes nothing stands for itself: small models double none."""
    whole = _backslash.sub(lambda found: found[0] if found[1] else r"\\", letters)
    return _whole(json.loads(f'"{whole}"', strict=False))


def _whole(text: str) -> str:
    """Without the half letters that no UTF-8 has."""
    return text.encode("utf-8", "replace").decode()
