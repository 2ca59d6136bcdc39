"""What one step asks the model, in our words, and the inputs that the prompt `chat/react` makes of it.

The conversation is laid out so that every kind of server takes it: one system text; turns that alternate
and begin with the user; everything about the current question, the steps taken so far included, in the last
user turn. (Several models refuse a conversation that ends with the assistant, so the steps do not stand there.)
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from torana.agents.react import unescape_underscores
from torana.agents.tools import ToolSpec
from torana.chat import ModelWish, Role

PROMPT_ID = "chat/react"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The page that the user looks at; `kind` is issue, merge_request, …"""

    kind: str
    title: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """The file in the user's editor; `is_selection`: `text` is the part that is selected."""

    path: str
    text: str
    is_selection: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Context that the user added; `category` decides the unit primitive it needs."""

    category: str
    id: str = ""
    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastStep:
    """A step taken before; one without `tool` is a thought, or an observation, alone."""

    thought: str = ""
    tool: str = ""
    tool_input: str = ""
    observation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of the conversation, with what came along with it."""

    role: Role
    text: str = ""
    page: Page | None = None
    file: OpenFile | None = None
    attachments: tuple[Attachment, ...] = ()
    steps: tuple[PastStep, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOrder:
    """One step, ready for the gateway."""

    turns: tuple[Turn, ...]
    steps: tuple[PastStep, ...] = ()
    """Steps given beside the turns; they win over those inside."""
    tools: tuple[ToolSpec, ...] = ()
    unavailable_resources: tuple[str, ...] = ()
    wish: ModelWish = field(default_factory=lambda: ModelWish(role="chat_default"))
    user: str = ""
    """Opaque id of the end user."""
    is_first_form: bool = False
    """Sent in the form of GitLab 17.3, which reads no line but those it was made for."""

    @property
    def question(self) -> Turn:
        """The latest user turn, empty where there is none."""
        return next((turn for turn in reversed(self.turns) if turn.role == "user"), Turn(role="user"))

    @property
    def categories(self) -> list[str]:
        """Categories of everything attached, each once."""
        return sorted({attachment.category for turn in self.turns for attachment in turn.attachments})


def step_inputs(order: StepOrder) -> dict[str, Any]:
    """The inputs of `chat/react`; every one is always there, empty where nothing is known.

    instructions  text of the conversation's own system turns
    history       earlier turns, {role, content}: alternating, from a user turn to an assistant turn
    question      the latest user turn, with user turns that nobody answered before it
    page, file    of the latest user turn, or None
    attachments   of all turns; of those with one category and id, the latest
    steps         {thought, tool, tool_input, observation}
    tools         {name, description, example}
    unavailable_resources   texts
    """
    asked = max((i for i, turn in enumerate(order.turns) if turn.role == "user"), default=-1)
    history = _alternate(order.turns[:asked] if asked >= 0 else ())
    unanswered = [history.pop()["content"]] if history and history[-1]["role"] == "user" else []
    question = order.question
    return {
        "instructions": "\n\n".join(turn.text for turn in order.turns if turn.role == "system" and turn.text),
        "history": history,
        "question": "\n\n".join(text for text in (*unanswered, question.text) if text),
        "page": asdict(question.page) if question.page else None,
        "file": asdict(question.file) if question.file else None,
        "attachments": _latest_attachments(order.turns),
        "steps": [_plain_step(step) for step in order.steps or _steps_after(order.turns[asked + 1 :])],
        "tools": [
            {"name": tool.name, "description": tool.description, "example": tool.example} for tool in order.tools
        ],
        "unavailable_resources": list(order.unavailable_resources),
    }


def _alternate(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    """User and assistant turns with text, neighbours of one role joined, from the first user turn on."""
    joined: list[tuple[str, list[str]]] = []
    for turn in turns:
        if turn.role == "system" or not turn.text.strip() or (not joined and turn.role == "assistant"):
            continue
        if joined and joined[-1][0] == turn.role:
            joined[-1][1].append(turn.text)
        else:
            joined.append((turn.role, [turn.text]))
    return [{"role": role, "content": "\n\n".join(texts)} for role, texts in joined]


def _steps_after(turns: tuple[Turn, ...]) -> list[PastStep]:
    """Steps of the assistant turns behind the question; what such a turn said stands as a thought."""
    steps: list[PastStep] = []
    for turn in turns:
        if turn.role == "assistant":
            steps.extend(turn.steps)
            if turn.text.strip():
                steps.append(PastStep(thought=turn.text))
    return steps


def _plain_step(step: PastStep) -> dict[str, str]:
    return {
        "thought": unescape_underscores(step.thought),
        "tool": unescape_underscores(step.tool),
        "tool_input": step.tool_input,
        "observation": step.observation,
    }


def _latest_attachments(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    found: dict[tuple[str, str, str], Attachment] = {}
    for turn in turns:
        for attachment in turn.attachments:
            # Without an id only the same text is the same thing.
            key = (attachment.category, attachment.id, "" if attachment.id else attachment.text)
            found.pop(key, None)
            found[key] = attachment
    return [asdict(attachment) for attachment in found.values()]
