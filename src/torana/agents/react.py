"""A model's text in the ReAct form, read piece by piece into the events of one step (contract 7.1).

The form is `Thought:`, then either `Action:` with `Action Input:`, or `Final Answer:`. An answer wins over
an action of the same text, wherever it stands; therefore an action is certain only at the end of the text.
That is the stop text `Observation:` behind an action: some models take no stop text, go on, and invent what
the tool found. Whatever they conclude from it is not read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from torana.chat import ToolCallPiece

THOUGHT = "Thought:"
ACTION = "Action:"
ACTION_INPUT = "Action Input:"
OBSERVATION = "Observation:"
FINAL_ANSWER = "Final Answer:"
EMPHASIS = ("**", "__")
"""What Markdown's authors put around a marker: `**Final Answer:** It was Mia.`"""
_NEXT = (OBSERVATION, *(f"\n{sign}{marker}" for sign in ("", *EMPHASIS) for marker in (THOUGHT, ACTION)))
"""How what follows an action's input begins."""
_WINDOW = len(FINAL_ANSWER) - 1 + len(EMPHASIS[0])


@dataclass(frozen=True, slots=True)
class Action:
    """The client is to run a tool."""

    tool: str
    tool_input: str
    thought: str


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Text that is neither an action nor an answer, whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The step came to nothing."""

    message: str
    retryable: bool


Event = Action | AnswerDelta | Unknown | Failed


class StepReader:
    """Reads the pieces of one model answer; yields one action, or answer deltas, or one unknown.

    tools  names of the tools that were offered
    """

    def __init__(self, tools: Iterable[str]) -> None:
        self._tools = {_plain_name(tool): tool for tool in tools}
        self._held: list[str] = []
        """All text so far, until the answer begins."""
        self._window = ""
        """The end of the held text: it may be the start of a marker, emphasis included."""
        self._emphasis = ""
        """Of the marker, as long as it may still end behind it."""
        self._in_answer = False
        self._has_answered = False
        self._is_over = False
        """The model went on behind its action; the rest is invented."""
        self._call_name = ""
        self._call_arguments: list[str] = []
        self._call_position: int | None = None

    def feed(self, text: str) -> list[Event]:
        """Take the next piece of text."""
        return self._read(text)

    def feed_call(self, piece: ToolCallPiece) -> None:
        """Take a piece of a native tool call; a step has one action, so the first call counts."""
        if self._call_position is None:
            self._call_position = piece.position
        if piece.position == self._call_position:
            self._call_name += piece.name
            self._call_arguments.append(piece.arguments)

    def close(self) -> list[Event]:
        """End of the model's answer."""
        if self._has_answered:
            return []
        text = "".join(self._held)
        # A marker with nothing behind it is no answer; what stands before it may still be an action.
        head = text.partition(FINAL_ANSWER)[0]
        if self._call_name:
            return [self._act(self._call_name, _read_arguments("".join(self._call_arguments)), _read_thought(head))]
        parts = split_action(head)
        return [Unknown(text) if parts is None else self._act(*parts)]

    def _read(self, text: str) -> list[Event]:
        if not text or self._is_over:
            return []
        if not self._in_answer:
            self._held.append(text)
            window = self._window + text
            found = window.find(FINAL_ANSWER)
            if found < 0:
                self._window = window[-_WINDOW:]
                return []
            if _invents("".join(self._held).partition(FINAL_ANSWER)[0]):
                self._is_over = True
                return []
            self._in_answer = True
            self._emphasis = _emphasis_before(window, found)
            self._window, text = "", window[found + len(FINAL_ANSWER) :]
        elif not self._has_answered:
            self._held.append(text)
        if not self._has_answered:
            text = (self._window + text).lstrip()
            if self._emphasis.startswith(text) and text != self._emphasis:
                self._window = text  # it may be the first half of what ends the emphasis
                return []
            if self._emphasis and text.startswith(self._emphasis):
                text = text.removeprefix(self._emphasis).lstrip()
                self._emphasis = ""
            self._window = ""
            if not text:
                return []
            self._has_answered = True
            self._held.clear()
        return [AnswerDelta(text)]

    def _act(self, tool: str, tool_input: str, thought: str) -> Event:
        name = self._tools.get(_plain_name(tool))
        if name is None:
            return Failed("tool not available", retryable=False)
        return Action(name, tool_input, unescape_underscores(thought))


def split_action(text: str) -> tuple[str, str, str] | None:
    """(tool, input, thought) of a text in the action form, None for any other text.

    The tool stands between `Action Input:` and the nearest `Action:` before it; a thought may talk of
    either. The input ends where the model invents an observation, or begins a line with a new step.
    """
    first = text.find(ACTION)
    stop = text.find(ACTION_INPUT, first) if first >= 0 else -1
    if stop < 0:
        return None
    start = text.rfind(ACTION, 0, stop)
    tool = text[start + len(ACTION) : stop].strip()
    if not tool:
        return None
    rest = text[stop + len(ACTION_INPUT) :]
    end = min((found for marker in _NEXT if (found := rest.find(marker)) >= 0), default=len(rest))
    tool_input = rest[:end].removesuffix(_emphasis_before(rest, end) if end < len(rest) else "")
    head = text[:start].removesuffix(_emphasis_before(text, start))
    return tool, _without_emphasis(tool_input, _emphasis_before(text, stop)), _read_thought(head)


def _emphasis_before(text: str, marker_at: int) -> str:
    """What begins right before a marker; empty where nothing does."""
    return next((sign for sign in EMPHASIS if text.endswith(sign, 0, marker_at)), "")


def _without_emphasis(text: str, emphasis: str) -> str:
    """What stands behind a marker, without the emphasis that ends there: right behind it, or at the very end."""
    text = text.strip()
    if text.startswith(emphasis):
        return text.removeprefix(emphasis).lstrip()
    return text.removesuffix(emphasis).rstrip()


def _read_thought(head: str) -> str:
    """The thought of what stands before an action."""
    before, found, thought = head.partition(THOUGHT)
    return _without_emphasis(thought, _emphasis_before(before, len(before))) if found else head.strip()


def _invents(head: str) -> bool:
    """True where an observation follows an action of the same text."""
    _, _, rest = head[max(0, head.find(ACTION)) :].partition(ACTION_INPUT)
    return OBSERVATION in rest and split_action(head) is not None


def unescape_underscores(text: str) -> str:
    r"""Models that think they write Markdown put `\_` where they mean `_`."""
    return text.replace("\\_", "_")


def _plain_name(tool: str) -> str:
    """`MergeRequestReader`, merge\\_request\\_reader and merge_request_reader are one tool."""
    return tool.strip(" \t\r\n`'\"*[]()").replace("\\", "").replace("_", "").lower()


def _read_arguments(arguments: str) -> str:
    """The input in a native call's arguments: the text of the only member, else all of it as it came."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(value, dict) and len(value) == 1:
        (only,) = value.values()
        if isinstance(only, str):
            return only
    return arguments
