"""Chunks gathered into one answer, for the formats' JSON answers."""

from dataclasses import dataclass, field

from torana.chat import Chunk, FinishReason, Text, Thought, ToolCall, ToolCallPiece, Usage

Said = Text | Thought | ToolCall


@dataclass(slots=True)
class Choice:
    """One of possibly several answers."""

    parts: list[Said] = field(default_factory=list)
    """In the order in which each began."""
    finish: FinishReason = "stop"
    stop_sequence: str = ""
    is_refusal: bool = False
    """Its text says that the model will not answer."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Thought))

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]


@dataclass(slots=True)
class Collected:
    choices: list[Choice]
    """By number, without gaps, at least one."""
    usage: Usage


def collect(chunks: list[Chunk]) -> Collected:
    """The whole answer; usage is zero where nobody counted."""
    usage = Usage()
    choices: dict[int, _Gathering] = {}
    for chunk in chunks:
        usage = chunk.usage or usage
        choices.setdefault(chunk.choice, _Gathering()).take(chunk)
    gathered = [choices[number].close() for number in sorted(choices)]
    return Collected(gathered or [Choice()], usage)


class _Gathering:
    """One answer while its chunks come."""

    __slots__ = ("_calls", "_finish", "_is_refusal", "_open", "_parts", "_pieces", "_stop_sequence")

    def __init__(self) -> None:
        self._parts: list[Said] = []
        self._pieces: list[list[str]] = []
        """Of the text of each part, or its arguments."""
        self._open = -1
        """Place of the text or thought that goes on; -1: none does."""
        self._calls: dict[int, int] = {}
        """Position of a tool call → its place."""
        self._finish: FinishReason = "stop"
        self._stop_sequence = ""
        self._is_refusal = False

    def take(self, chunk: Chunk) -> None:
        self._finish = chunk.finish or self._finish
        self._stop_sequence = chunk.stop_sequence or self._stop_sequence
        self._is_refusal = self._is_refusal or chunk.is_refusal
        if chunk.reasoning or chunk.signature:
            self._take_thought(chunk)
        if chunk.redacted:
            self._begin(Thought(redacted=chunk.redacted, dialect=chunk.dialect))
            self._open = -1
        if chunk.text:
            if self._open < 0 or not isinstance(self._parts[self._open], Text):
                self._begin(Text(""))
            self._pieces[self._open].append(chunk.text)
        if chunk.tool_call:
            self._take_call(chunk.tool_call)

    def close(self) -> Choice:
        parts = [_fill(part, "".join(pieces)) for part, pieces in zip(self._parts, self._pieces, strict=True)]
        return Choice(parts, self._finish, self._stop_sequence, self._is_refusal)

    def _begin(self, part: Said) -> None:
        self._open = len(self._parts)
        self._parts.append(part)
        self._pieces.append([])

    def _take_thought(self, chunk: Chunk) -> None:
        if self._open < 0 or not isinstance(self._parts[self._open], Thought):
            self._begin(Thought(dialect=chunk.dialect))
        if chunk.reasoning:
            self._pieces[self._open].append(chunk.reasoning)
        if chunk.signature:
            # The proof ends its thought.
            self._parts[self._open] = Thought(signature=chunk.signature, dialect=chunk.dialect)
            self._open = -1

    def _take_call(self, piece: ToolCallPiece) -> None:
        place = self._calls.get(piece.position)
        if place is None:
            self._begin(ToolCall(piece.id, piece.name, ""))
            place = self._calls[piece.position] = self._open
            self._open = -1
        else:
            known = self._parts[place]
            if (piece.id or piece.name) and isinstance(known, ToolCall):
                self._parts[place] = ToolCall(known.id or piece.id, known.name or piece.name, "")
        self._pieces[place].append(piece.arguments)


def _fill(part: Said, text: str) -> Said:
    match part:
        case Text():
            return Text(text)
        case Thought():
            return Thought(text, part.signature, part.redacted, part.dialect)
        case ToolCall():
            return ToolCall(part.id, part.name, text or "{}")
