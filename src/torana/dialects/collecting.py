"""Chunks gathered into one answer, for the formats' JSON answers."""

from dataclasses import dataclass, field

from torana.chat import Chunk, FinishReason, ToolCall, Usage


@dataclass(slots=True)
class Choice:
    """One of possibly several answers."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish: FinishReason = "stop"


@dataclass(slots=True)
class Collected:
    choices: list[Choice]
    """By number, without gaps, at least one."""
    usage: Usage


def collect(chunks: list[Chunk]) -> Collected:
    """The whole answer; usage is zero where nobody counted."""
    numbers = {chunk.choice for chunk in chunks}
    usage = Usage()
    for chunk in chunks:
        usage = chunk.usage or usage
    choices = [_collect_choice([chunk for chunk in chunks if chunk.choice == number]) for number in sorted(numbers)]
    return Collected(choices or [Choice()], usage)


def _collect_choice(chunks: list[Chunk]) -> Choice:
    choice = Choice(
        text="".join(chunk.text for chunk in chunks), reasoning="".join(chunk.reasoning for chunk in chunks)
    )
    names: dict[int, tuple[str, str]] = {}
    arguments: dict[int, list[str]] = {}
    for chunk in chunks:
        choice.finish = chunk.finish or choice.finish
        if piece := chunk.tool_call:
            known_id, known_name = names.get(piece.position, ("", ""))
            names[piece.position] = (known_id or piece.id, known_name or piece.name)
            arguments.setdefault(piece.position, []).append(piece.arguments)
    for position, (call_id, name) in names.items():
        choice.tool_calls.append(ToolCall(call_id, name, "".join(arguments[position]) or "{}"))
    return choice
