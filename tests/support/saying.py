"""What a scripted model says, before any wire format: text, a tool call, what it cost."""

import json
from dataclasses import dataclass
from typing import Any

PIECES = ("Hello from ", "the scripted ", "provider.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A call of one tool, as the model asks for it."""

    name: str
    arguments: dict[str, Any]
    id: str = "call_scripted_1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """What a model says: text in pieces, perhaps a tool call, and what it cost."""

    pieces: tuple[str, ...] = PIECES
    tool_call: ToolUse | None = None
    input_tokens: int = 25
    output_tokens: int = 7
    is_cut_by_limit: bool = False
    """The answer ends because `max_tokens` was reached."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def arguments_in_pieces(self) -> tuple[str, ...]:
        """The arguments' JSON text in two pieces, so that nobody relies on getting it whole."""
        assert self.tool_call is not None
        text = json.dumps(self.tool_call.arguments)
        middle = len(text) // 2
        return text[:middle], text[middle:]


Whole = dict[str, Any]
Events = list[bytes]


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
