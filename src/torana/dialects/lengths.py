"""Names and ids that are longer than a vendor takes: what one vendor's clients may write, another's model refuses.

Claude Code names tools `mcp__<server>__<tool>` and its user in 150 letters. Sources: OpenAI API reference, "Function
calling" (names), and its errors `string_above_max_length` (ids, `user`); Bedrock API reference, "ToolSpecification";
Vertex AI reference, "FunctionDeclaration".
"""

from dataclasses import dataclass
from hashlib import sha256

from msgspec.structs import replace

from torana.chat import ChatRequest, Chunk, Message, Part, ToolCall, ToolResult

MAX_NAME_CHARS = 64
"""Of a tool."""

_HASH_CHARS = 8


@dataclass(frozen=True, slots=True)
class _Limits:
    """Zero: any length, or the dialect's own affair."""

    id_chars: int = 0
    user_chars: int = 0


_LIMITS = {
    "chat_completions": _Limits(id_chars=40, user_chars=64),
    "responses": _Limits(id_chars=64, user_chars=64),
    "converse": _Limits(),
    "generate_content": _Limits(),
}
"""Of the dialects whose tools have names of MAX_NAME_CHARS at most."""


def fit_lengths(chat: ChatRequest, dialect: str) -> ChatRequest:
    """The same request with what is too long in `dialect` made shorter, the same for a call and its result.

    What a client wrote in this dialect is its own affair.
    """
    limits = _LIMITS.get(dialect)
    if limits is None or chat.extra_dialect == dialect:
        return chat
    fitted = chat
    if limits.user_chars and len(chat.user) > limits.user_chars:
        fitted = replace(fitted, user=sha256(chat.user.encode(errors="replace")).hexdigest()[: limits.user_chars])
    if any(len(tool.name) > MAX_NAME_CHARS for tool in chat.tools):
        tools = tuple(replace(tool, name=_shorten(tool.name, MAX_NAME_CHARS)) for tool in chat.tools)
        fitted = replace(fitted, tools=tools, tool_choice=_shorten(chat.tool_choice, MAX_NAME_CHARS))
    messages = tuple(_fit_message(message, limits.id_chars) for message in chat.messages)
    if any(ours is not theirs for ours, theirs in zip(messages, chat.messages, strict=True)):
        fitted = replace(fitted, messages=messages)
    return fitted


def _fit_message(message: Message, id_chars: int) -> Message:
    """The message itself where everything fits."""
    parts = tuple(_fit_part(part, id_chars) for part in message.parts)
    is_same = all(ours is theirs for ours, theirs in zip(parts, message.parts, strict=True))
    return message if is_same else Message(message.role, parts)


def _fit_part(part: Part, id_chars: int) -> Part:
    if isinstance(part, ToolCall):
        id_, name = _shorten(part.id, id_chars), _shorten(part.name, MAX_NAME_CHARS)
        return part if (id_, name) == (part.id, part.name) else replace(part, id=id_, name=name)
    if isinstance(part, ToolResult) and id_chars and len(part.call_id) > id_chars:
        return replace(part, call_id=_shorten(part.call_id, id_chars))
    return part


def _shorten(text: str, chars: int) -> str:
    """Two texts that begin alike stay two; `chars` of 0 leaves it as it is."""
    if not chars or len(text) <= chars:
        return text
    digest = sha256(text.encode(errors="replace")).hexdigest()[:_HASH_CHARS]
    return f"{text[: chars - _HASH_CHARS - 1]}_{digest}"


class LongNames:
    """Gives tools their own names back in an answer."""

    __slots__ = ("_names",)

    def __init__(self, chat: ChatRequest) -> None:
        long = (tool.name for tool in chat.tools if len(tool.name) > MAX_NAME_CHARS)
        self._names = {_shorten(name, MAX_NAME_CHARS): name for name in long}

    def __bool__(self) -> bool:
        """False where no tool has a long name."""
        return bool(self._names)

    def take(self, chunks: list[Chunk]) -> list[Chunk]:
        return [self._restore(chunk) for chunk in chunks]

    def _restore(self, chunk: Chunk) -> Chunk:
        piece = chunk.tool_call
        if piece is None or piece.name not in self._names:
            return chunk
        return replace(chunk, tool_call=replace(piece, name=self._names[piece.name]))
