"""Finds in rendered messages what the user asked, and the code that came with it.

Prompts put code between tags or fences and the question behind `Question:` or `Instruction:`; with
messages of another form the last user message, without such blocks, is the question.
"""

import re
from collections.abc import Sequence

from torana.chat import Message, Text

LOOKED_AT_CHARS = 20_000
"""Of the last user message: its end, where prompts put the question."""

_ASKED = re.compile(r"^(?:Question|Instruction): *(.*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
# What names the language has no backticks, or the rest of the line would be looked through from each of them.
_FENCE = re.compile(r"(?<!`)`{3,}+[^`\n]*+\n(.*?)(?:```|\Z)", re.DOTALL)
_TAG = re.compile(r"<(\w{1,40})>")
_SURROUNDINGS = re.compile(r"<([\w-]{1,40})>.*</\1>", re.DOTALL)
MAX_TAGS = 100
"""Opening tags whose ends are looked for; prompts have a handful."""

_NOT_CODE = frozenset(
    {"page", "steps", "example", "library", "libraries", "language_info", "request", "question", "instruction"}
)
_SELECTED = frozenset({"code", "selected_code"})
_ASKING = frozenset({"request", "question", "instruction"})
_CONTINUE = "Write the code that best continues at the cursor."


def find_question(messages: Sequence[Message]) -> str:
    """What the user asked; empty where nothing was."""
    text = _last_user_text(messages)
    asked = _ASKED.findall(text)
    if asked:
        question = str(asked[-1]).strip()
        return "" if question == _CONTINUE else question
    for tag, told in reversed(_blocks(text)):
        if tag in _ASKING:
            return told.strip()
    bare = _FENCE.sub(" ", text)
    for tag, code in _blocks(bare):
        bare = bare.replace(f"<{tag}>{code}</{tag}>", " ", 1)
    return bare.strip() or text.strip()


def find_code(messages: Sequence[Message]) -> str:
    """The selected code, else the longest fenced or tagged block of the last user message; empty without any."""
    text = _last_user_text(messages)
    blocks = _blocks(text)
    # A selection stands behind the file around it, and is what the question is about.
    selected = [code for tag, code in blocks if tag in _SELECTED]
    if selected:
        return selected[-1].strip("\n")
    found = [str(code) for code in _FENCE.findall(text)] + [code for tag, code in blocks if tag not in _NOT_CODE]
    return max(found, key=len, default="").strip("\n")


def _blocks(text: str) -> list[tuple[str, str]]:
    """(tag, what stands between it and its end) of elements outside of others, in order."""
    found = []
    place = 0
    for _ in range(MAX_TAGS):
        opening = _TAG.search(text, place)
        if opening is None:
            break
        end = text.find(f"</{opening[1]}>", opening.end())
        place = opening.end() if end < 0 else end
        if end >= 0:
            found.append((opening[1], text[opening.end() : end]))
    return found


def _last_user_text(messages: Sequence[Message]) -> str:
    last = next((message for message in reversed(messages) if message.role == "user"), None)
    if last is None:
        return ""
    texts = [part.text for part in last.parts if isinstance(part, Text)]
    # Agents send their surroundings as parts of their own, in one element each, beside what was asked.
    asked = [text for text in texts if _SURROUNDINGS.fullmatch(text.strip()) is None]
    return (asked[-1] if len(texts) > 1 and asked else "".join(texts))[-LOOKED_AT_CHARS:]
