"""A model's text in the ReAct form, read piece by piece into the events of one step (contract 7.1).

The form is `Thought:`, then either `Action:` with `Action Input:`, or `Final Answer:`. An answer wins over
an action of the same text, wherever it stands; therefore an action is certain only at the end of the text.
That is the stop text `Observation:` behind an action: some models take no stop text, go on, and invent what
the tool found. Whatever they conclude from it is not read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from torana.agents.markers import (
    ACTION,
    ACTION_INPUT,
    ANSWER,
    EMPHASIS,
    OBSERVATION,
    THOUGHT,
    emphasis_before,
    open_fence,
    straighten,
    window_of,
    without_decoration,
    without_emphasis,
    without_fence_end,
)
from torana.agents.tools import find_tool
from torana.chat import ToolCallPiece
from torana.errors import ProviderBroke

MAX_CHARS = 2_000_000
"""Of a step whose answer has not begun, and of a tool's arguments; a model's longest output is a quarter of it."""

_LAST_LINE_CHARS = 1_000
"""Of what may be the last line of a code fence; white space without an end is no such line."""

_NEXT = (OBSERVATION, *(f"\n{sign}{marker}" for sign in ("", *EMPHASIS) for marker in (THOUGHT, ACTION)))
"""How what follows an action's input begins."""


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
    finish_reason: str = ""
    """Of the last one, for clients who ask: `stop`, `length` or `content_filter`."""


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
        self._tools = frozenset(tools)
        self._held: list[str] = []
        """All text so far, until the answer begins."""
        self._window = ""
        """The end of the held text: it may be the start of a marker, emphasis included."""
        self._emphasis = ""
        """Of the marker, as long as it may still end behind it."""
        self._fence = ""
        """Of a code fence around the whole step; its last line is no part of the answer."""
        self._fence_signs = 0
        """Those of fences within the answer so far."""
        self._tail = ""
        """The end of what came in a fence: it may be that last line."""
        self._in_answer = False
        self._has_answered = False
        self._is_over = False
        """The model went on behind its action; the rest is invented."""
        self._call_name = ""
        self._call_arguments: list[str] = []
        self._call_position: int | None = None
        self._chars = 0
        """Held altogether."""

    def feed(self, text: str) -> list[AnswerDelta]:
        """Take the next piece of text; raises ProviderBroke for a step without an end."""
        if not text or self._is_over:
            return []
        self._hold(len(text))
        if not self._in_answer:
            self._held.append(text)
            window = self._window + text
            found = ANSWER.search(window)
            if found is None:
                self._window = window_of(window)
                return []
            self._window, text = "", window[found.end() :]
            head = "".join(self._held).removesuffix(text)
            if _invents(head):
                self._is_over = True
                return []
            self._in_answer = True
            self._emphasis = "" if found[1] else emphasis_before(window, found.start())
            self._fence = open_fence(head)
        elif not self._has_answered:
            self._held.append(text)
        return self._read_answer(text) if self._has_answered else self._begin_answer(text)

    def feed_call(self, piece: ToolCallPiece) -> None:
        """Take a piece of a native tool call; a step has one action, so the first call counts."""
        if self._call_position is None:
            self._call_position = piece.position
        if piece.position == self._call_position:
            self._hold(len(piece.name) + len(piece.arguments))
            self._call_name += piece.name
            self._call_arguments.append(piece.arguments)

    def _hold(self, chars: int) -> None:
        self._chars += 0 if self._has_answered else chars
        if self._chars > MAX_CHARS:
            raise ProviderBroke("a step without an end")

    def close(self) -> list[Event]:
        """End of the model's answer."""
        if self._has_answered:
            rest = without_fence_end(self._tail, self._fence, self._fence_signs)
            return [AnswerDelta(rest)] if rest else []
        text = "".join(self._held)
        # A marker with nothing behind it is no answer; what stands before it may still be an action.
        found = ANSWER.search(text)
        head = text if found is None else text[: found.start()]
        if self._call_name:
            return [self._act(self._call_name, _read_arguments("".join(self._call_arguments)), _read_thought(head))]
        parts = split_action(head)
        return [Unknown(text) if parts is None else self._act(*parts)]

    def _begin_answer(self, text: str) -> list[AnswerDelta]:
        """Pass over white space and the end of the marker's emphasis."""
        text = (self._window + text).lstrip()
        if self._emphasis.startswith(text) and text != self._emphasis:
            self._window = text  # it may be the first half of what ends the emphasis
            return []
        if self._emphasis and text.startswith(self._emphasis):
            text = text.removeprefix(self._emphasis).lstrip()
            self._emphasis = ""
        self._window = ""
        events = self._read_answer(text)
        if events:
            self._has_answered = True
            self._held.clear()
        else:
            self._window, self._tail = text, ""
        return events

    def _read_answer(self, text: str) -> list[AnswerDelta]:
        """The next piece; in a fence without what may be its last line, which waits for what follows."""
        if self._fence:
            text = self._tail + text
            whole, text = text, text.rstrip(f"{self._fence[0]} \t\r\n")
            if len(whole) - len(text) > _LAST_LINE_CHARS:
                text = whole
            self._tail = whole[len(text) :]
            self._fence_signs += text.count(self._fence)
        return [AnswerDelta(text)] if text else []

    def _act(self, tool: str, tool_input: str, thought: str) -> Event:
        name = find_tool(tool)
        if name not in self._tools:
            return Failed("tool not available", retryable=False)
        return Action(name, tool_input, unescape_underscores(thought))


def split_action(text: str) -> tuple[str, str, str] | None:
    """(tool, input, thought) of a text in the action form, None for any other text.

    The tool stands between `Action Input:` and the nearest `Action:` before it; a thought may talk of
    either. The input ends where the model invents an observation, or begins a line with a new step.
    """
    text = straighten(text)
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
    tool_input = rest[:end].removesuffix(emphasis_before(rest, end) if end < len(rest) else "")
    tool_input = without_fence_end(tool_input, open_fence(text[:stop]))
    head = text[:start].removesuffix(emphasis_before(text, start))
    return tool, without_emphasis(tool_input, emphasis_before(text, stop)), _read_thought(head)


def _read_thought(head: str) -> str:
    """The thought of what stands before an action."""
    before, found, thought = without_decoration(straighten(head)).partition(THOUGHT)
    return without_emphasis(thought, emphasis_before(before, len(before))) if found else before.strip()


def _invents(head: str) -> bool:
    """True where an observation follows an action of the same text."""
    _, _, rest = straighten(head[max(0, head.find("Action")) :]).partition(ACTION_INPUT)
    return OBSERVATION in rest and split_action(head) is not None


def unescape_underscores(text: str) -> str:
    r"""Models that think they write Markdown put `\_` where they mean `_`."""
    return text.replace("\\_", "_")


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
