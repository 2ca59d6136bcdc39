"""The markers of the ReAct form, and what models put around them: Markdown's emphasis, headings, code fences."""

import re

THOUGHT = "Thought:"
ACTION = "Action:"
ACTION_INPUT = "Action Input:"
OBSERVATION = "Observation:"

EMPHASIS = ("**", "__")
"""What Markdown's authors put around a marker: `**Final Answer:** It was Mia.`"""

_QUOTED = "[^\\n][\"'`“„]"
_FINAL_ANSWER = r"(?:(\*\*|__)Final Answer\1:|Final Answer:)"
ANSWER = re.compile(f"(?<!{_QUOTED}){_FINAL_ANSWER}")
"""Where an answer begins; not where a thought quotes the marker in the middle of a line. Group 1: an emphasis that
ends before the colon."""
_QUOTED_MARKER = re.compile(_QUOTED + _FINAL_ANSWER)
_WINDOW = len("x'**Final Answer**")

_ENDED_EARLY = re.compile(r"(\*\*|__)(Thought|Action|Action Input|Observation)\1:")
_FENCE = r"[ \t]*+(`{3,}+|~{3,}+)[^\n`]*+"
_FENCE_ABOVE = re.compile(rf"^{_FENCE}\n\s*+(?:\*\*|__)?(?:Thought|Action|Final Answer)(?:\*\*|__)?:", re.MULTILINE)
_DECORATION = re.compile(rf"(?:^|\n)(?:{_FENCE}|[ \t]*+#++)\s*+\Z")


def window_of(text: str) -> str:
    """The end of a text without `ANSWER` that may belong to one whose rest is still to come.

    A quoted marker goes but for two signs: without what stands before it, it would look like any other.
    """
    return _QUOTED_MARKER.sub(lambda quoted: quoted[0][-2:], text)[-_WINDOW:]


def straighten(text: str) -> str:
    """`**Action**: x` as `**Action:** x`."""
    return _ENDED_EARLY.sub(r"\1\2:\1", text)


def emphasis_before(text: str, marker_at: int) -> str:
    """What begins right before a marker; empty where nothing does."""
    return next((sign for sign in EMPHASIS if text.endswith(sign, 0, marker_at)), "")


def without_emphasis(text: str, emphasis: str) -> str:
    """What stands behind a marker, without the emphasis that ends there: right behind it, or at the very end."""
    text = text.strip()
    if text.startswith(emphasis):
        return text.removeprefix(emphasis).lstrip()
    return text.removesuffix(emphasis).rstrip()


def without_decoration(head: str) -> str:
    """What stands before a marker, without the line that begins a code fence around it, or its heading's signs."""
    return _DECORATION.sub("", head)


def open_fence(head: str) -> str:
    """The sign of a code fence that begins right above the first line of a step, and has not ended in `head`."""
    found = _FENCE_ABOVE.search(head)
    return found[1] if found is not None and head.count(found[1]) % 2 else ""


def without_fence_end(text: str, fence: str, signs_before: int = 0) -> str:
    """The end of what stands in `fence`, without the line that ends it; fences inside are left alone.

    signs_before  so many signs of fences inside stood before `text`
    """
    body = text.rstrip()
    if not fence or not body.endswith(fence) or (signs_before + body.count(fence)) % 2 == 0:
        return text
    return body.removesuffix(fence).rstrip()
