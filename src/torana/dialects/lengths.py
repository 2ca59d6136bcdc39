"""Names and ids that a vendor does not take: what one vendor's clients may write, another's model refuses.

Claude Code names tools `mcp__<server>__<tool>` and its user in 150 letters; OpenCode begins names with a server's,
`21st_magic_…`, and clients of open models put dots into them. Sources: OpenAI API reference, "Function calling"
(names), and its errors `string_above_max_length` (ids, `user`); Anthropic API reference, "Tool use"; Bedrock API
reference, "ToolSpecification"; Vertex AI reference, "FunctionDeclaration": "Must start with a letter or an underscore".
"""

import dataclasses
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from msgspec.structs import replace

from torana.chat import ChatRequest, Chunk, Message, Part, ToolCall, ToolResult
from torana.dialects.openai_models import traits_of

_HASH_CHARS = 8

_PROVEN = "__thought__"
"""In ids that LiteLLM made: behind it stands the proof of Gemini's thought, which it needs back. OpenAI's own models
have no use for it, and refuse the length."""

_is_usual = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}").fullmatch
"""What everybody takes, and nearly every name is."""


@dataclass(frozen=True, slots=True)
class _Names:
    """What a tool may be called."""

    chars: int = 64
    forbidden: re.Pattern[str] = re.compile(r"[^a-zA-Z0-9_-]")

    def fit(self, name: str) -> str:
        if _is_usual(name):
            return name
        legal = self.forbidden.sub("_", name)
        return _shorten(name, self.chars, legal) if legal != name else _shorten(name, self.chars)


_USUAL = _Names()


@dataclass(frozen=True, slots=True)
class _Limits:
    """Zero: any length, or the dialect's own affair."""

    id_chars: int = 0
    user_chars: int = 0
    names: _Names = _USUAL
    keeps_proofs: bool = True
    """Ids that hold one stay as they are."""

    def shorten_id(self, id: str) -> str:
        return id if self.keeps_proofs and _PROVEN in id else _shorten(id, self.id_chars)


_LIMITS = {
    "messages": _Limits(user_chars=256, names=_Names(chars=128)),
    "chat_completions": _Limits(id_chars=40, user_chars=64),
    "responses": _Limits(id_chars=64, user_chars=64),
    "converse": _Limits(),
    "generate_content": _Limits(names=_Names(forbidden=re.compile(r"[^a-zA-Z0-9_.-]|^(?=[^a-zA-Z_])"))),
}


def fit_lengths(chat: ChatRequest, dialect: str, model: str = "") -> ChatRequest:
    """The same request with what `dialect` does not take made fit, the same for a call and its result.

    What a client wrote in this dialect is its own affair.
    """
    limits = _LIMITS.get(dialect)
    if limits is None or chat.extra_dialect == dialect:
        return chat
    fitted = chat
    if limits.user_chars and len(chat.user) > limits.user_chars:
        fitted = replace(fitted, user=sha256(chat.user.encode(errors="replace")).hexdigest()[: limits.user_chars])
    names = limits.names
    if any(names.fit(tool.name) != tool.name for tool in chat.tools):
        tools = tuple(replace(tool, name=names.fit(tool.name)) for tool in chat.tools)
        fitted = replace(fitted, tools=tools, tool_choice=names.fit(chat.tool_choice))
    if not _has_calls(chat.messages):
        return fitted
    if traits_of(model).is_openais:
        limits = dataclasses.replace(limits, keeps_proofs=False)
    messages = tuple(_fit_message(message, limits) for message in _tell_apart(chat.messages))
    if any(ours is not theirs for ours, theirs in zip(messages, chat.messages, strict=True)):
        fitted = replace(fitted, messages=messages)
    return fitted


def _has_calls(messages: Sequence[Message]) -> bool:
    # Loops, for this is asked of each request: a generator costs as much as all the rest.
    for message in messages:
        for part in message.parts:
            if isinstance(part, (ToolCall, ToolResult)):
                return True
    return False


def _tell_apart(messages: Sequence[Message]) -> Sequence[Message]:
    """With an id of its own for each call: some servers count anew in each answer, and some clients know no ids.

    Vendors refuse it ("`tool_use` ids must be unique"), or would take a result for another function's.
    """
    ids = [part.id for message in messages for part in message.parts if isinstance(part, ToolCall)]
    if len(set(ids)) == len(ids) and "" not in ids:
        return messages
    own = _OwnIds(ids)
    return [own.tell_message(message) for message in messages]


class _OwnIds:
    """Given to calls and their results in the order of the conversation."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._taken = {*ids, ""}
        self._counts: Counter[str] = Counter()
        self._waiting: dict[str, deque[str]] = {}
        """An id as it came → those of its calls in the latest turn that nobody has answered."""
        self._latest: dict[str, str] = {}
        self._is_turn = False

    def tell_message(self, message: Message) -> Message:
        is_turn = message.role == "assistant"
        if is_turn and not self._is_turn:
            self._waiting.clear()
        self._is_turn = is_turn
        return Message(message.role, tuple(self._tell(part) for part in message.parts))

    def _tell(self, part: Part) -> Part:
        if isinstance(part, ToolCall):
            self._latest[part.id] = own = self._find(part.id)
            self._waiting.setdefault(part.id, deque()).append(own)
            return replace(part, id=own)
        if isinstance(part, ToolResult):
            waiting = self._waiting.get(part.call_id)
            own = waiting.popleft() if waiting else self._latest.get(part.call_id, part.call_id)
            return replace(part, call_id=own)
        return part

    def _find(self, id: str) -> str:
        self._counts[id] += 1
        if id and self._counts[id] == 1:
            return id
        while (own := f"{id or 'call'}_{self._counts[id]}") in self._taken:
            self._counts[id] += 1
        self._taken.add(own)
        return own


def _fit_message(message: Message, limits: _Limits) -> Message:
    """The message itself where everything fits."""
    parts = tuple(_fit_part(part, limits) for part in message.parts)
    is_same = all(ours is theirs for ours, theirs in zip(parts, message.parts, strict=True))
    return message if is_same else Message(message.role, parts)


def _fit_part(part: Part, limits: _Limits) -> Part:
    if isinstance(part, ToolCall):
        id_, name = limits.shorten_id(part.id), limits.names.fit(part.name)
        return part if (id_, name) == (part.id, part.name) else replace(part, id=id_, name=name)
    if isinstance(part, ToolResult):
        id_ = limits.shorten_id(part.call_id)
        return part if id_ == part.call_id else replace(part, call_id=id_)
    return part


def _shorten(text: str, chars: int, legal: str = "") -> str:
    """Two texts that begin alike stay two; `chars` of 0 leaves it as it is.

    legal  the text without the letters that are forbidden, where it has any: two that differ in these stay two as well
    """
    if not chars or (len(text) <= chars and not legal):
        return text
    digest = sha256(text.encode(errors="replace")).hexdigest()[:_HASH_CHARS]
    return f"{(legal or text)[: chars - _HASH_CHARS - 1]}_{digest}"


class OwnNames:
    """Gives tools their own names back in an answer."""

    __slots__ = ("_names",)

    def __init__(self, chat: ChatRequest) -> None:
        rules = {limits.names for limits in _LIMITS.values()}
        odd = (tool.name for tool in chat.tools if not _is_usual(tool.name))
        fitted = ((names.fit(name), name) for name in odd for names in rules)
        self._names = {theirs: ours for theirs, ours in fitted if theirs != ours}

    def __bool__(self) -> bool:
        """False where every vendor takes every name."""
        return bool(self._names)

    def take(self, chunks: list[Chunk]) -> list[Chunk]:
        return [self._restore(chunk) for chunk in chunks]

    def _restore(self, chunk: Chunk) -> Chunk:
        piece = chunk.tool_call
        if piece is None or piece.name not in self._names:
            return chunk
        return replace(chunk, tool_call=replace(piece, name=self._names[piece.name]))
