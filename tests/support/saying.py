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

    def in_pieces(self) -> tuple[str, ...]:
        """The arguments' JSON text in two pieces, so that nobody relies on getting it whole."""
        text = json.dumps(self.arguments)
        middle = len(text) // 2
        return text[:middle], text[middle:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """What a model says: text in pieces, perhaps a tool call, and what it cost."""

    pieces: tuple[str, ...] = PIECES
    tool_call: ToolUse | None = None
    further_calls: tuple[ToolUse, ...] = ()
    """Asked for in the same turn."""
    input_tokens: int = 25
    output_tokens: int = 7
    is_cut_by_limit: bool = False
    """The answer ends because `max_tokens` was reached."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def calls(self) -> tuple[ToolUse, ...]:
        return (*((self.tool_call,) if self.tool_call else ()), *self.further_calls)


Whole = dict[str, Any]
Events = list[bytes]


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
