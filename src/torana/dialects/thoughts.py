"""What the formats say of thinking: how much of it is asked for, and whose proof a thought carries.

Some take an effort in words, some a budget of tokens; the tables convert. A proof means something to
the dialect that gave it alone. One that leaves in another dialect is sealed: it carries its dialect's
name before a colon, no letter of base64, and finds its way back when the client sends it along. A
star behind the name tells that what is sealed is no proof but the thought itself.
"""

import re

from msgspec.structs import replace

from torana.chat import ChatRequest, Effort, Message, Part, Reasoning, Text, Thought
from torana.dialects import claude

LEAST_BUDGET = 1024
"""No provider that counts takes a smaller one. Source: Anthropic API reference, `thinking.budget_tokens`."""

BUDGETS: dict[Effort, int] = {
    "minimal": 1024,
    "low": 4096,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 32768,
}
EFFORTS: tuple[Effort, ...] = ("none", *BUDGETS)

_sealed = re.compile(r"(messages|chat_completions|responses|generate_content|converse)(\*?):")


def find_budget(reasoning: Reasoning) -> int | None:
    """Tokens of thinking, 0 for none at all; None where nobody says how many."""
    if reasoning.effort == "none":
        return 0
    if reasoning.budget_tokens is not None:
        return reasoning.budget_tokens
    return BUDGETS.get(reasoning.effort)


def find_effort(reasoning: Reasoning) -> Effort:
    """The effort, or the one whose budget comes nearest from above; empty where nobody says."""
    if reasoning.effort or reasoning.budget_tokens is None:
        return reasoning.effort
    if reasoning.budget_tokens <= 0:
        return "none"
    return next((effort for effort, budget in BUDGETS.items() if reasoning.budget_tokens <= budget), "max")


def read_effort(said: str) -> Effort:
    """What a request says; empty for a word of tomorrow."""
    return next((effort for effort in EFFORTS if effort == said), "")


def nearest_effort(effort: Effort, known: tuple[Effort, ...]) -> Effort:
    """The one of `known`, in their order of growth, that comes closest; of two the smaller."""
    if effort in known:
        return effort
    place = EFFORTS.index(effort)
    return min(known, key=lambda each: abs(EFFORTS.index(each) - place))


def seal(proof: str, dialect: str, into: str, *, is_whole: bool = False) -> str:
    """The proof of `dialect` as the dialect `into` writes it; `is_whole` where it is the thought itself.

    Empty `dialect`: nobody's thought, which nobody takes back, and no proof.
    """
    if not dialect:
        return ""
    return proof if dialect == into else f"{dialect}{'*' if is_whole else ''}:{proof}"


def unseal(text: str, proof: str, here: str, *, is_whole: bool = False) -> Thought:
    """A thought that came back in the dialect `here`."""
    dialect = here if proof else ""
    if found := _sealed.match(proof):
        dialect, is_whole, proof = found[1], bool(found[2]), proof[found.end() :]
    return Thought(text, "" if is_whole else proof, proof if is_whole else "", dialect)


def taken_by(model: str, dialect: str) -> tuple[str, ...]:
    """Whose thoughts `model` takes in what its client wrote in `dialect`: the dialect's own and nobody's, but Claude
    none without proof."""
    is_claude = dialect == "messages" and claude.traits_of(model) is not claude.GENERAL
    return (dialect,) if is_claude else (dialect, "")


def has_thoughts(chat: ChatRequest, *, but_for: tuple[str, ...] = ()) -> bool:
    """Whether it tells of thoughts, those of the dialects `but_for` not counted; an empty one: nobody's."""
    # Loops, for this is asked of each request: a generator costs as much as all the rest.
    for message in chat.messages:
        for part in message.parts:
            if isinstance(part, Thought) and part.dialect not in but_for:
                return True
    return False


def leave_thoughts_out(chat: ChatRequest, *, but_for: tuple[str, ...] = ()) -> ChatRequest:
    """The same conversation without what `has_thoughts` finds; the request itself where it finds none."""
    if not has_thoughts(chat, but_for=but_for):
        return chat
    kept: list[Message] = []
    for message in chat.messages:
        parts = tuple(part for part in message.parts if not isinstance(part, Thought) or part.dialect in but_for)
        if parts or not message.parts:
            kept.append(Message(message.role, parts))
    return replace(chat, messages=tuple(kept))


def leave_last_thoughts_out(chat: ChatRequest, lost: set[str]) -> tuple[Message, ...]:
    """The messages without thoughts behind which their turn says nothing, as of answers that were cut while thinking.

    Vendors refuse them, and with them all that is asked in this conversation from then on: Claude's "The final block in
    an assistant message cannot be `thinking`", OpenAI's "reasoning … without its required following item".
    """
    if not has_thoughts(chat):
        return chat.messages
    kept: list[Message] = []
    is_last = True
    for message in reversed(chat.messages):
        parts = message.parts
        if message.role == "user":
            is_last = True
        elif message.role == "assistant" and is_last:
            said = next((at for at in range(len(parts), 0, -1) if not _says_nothing(parts[at - 1])), 0)
            if any(isinstance(part, Thought) for part in parts[said:]):
                lost.add("thought")
            parts = parts[:said]
            is_last = not parts
        if parts or not message.parts:
            kept.append(message if parts is message.parts else Message(message.role, parts))
    return tuple(reversed(kept))


def _says_nothing(part: Part) -> bool:
    return isinstance(part, Thought) or (isinstance(part, Text) and not part.text.strip())
