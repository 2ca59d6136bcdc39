"""Markdown code fences around generated code: taken out line by line, also while the answer still comes."""

import re

_FENCE = re.compile(r"[ \t]*```")
_FENCE_LINES = re.compile(r"^[ \t]*```.*\n", re.MULTILINE)
_MAYBE_FENCE = re.compile(r"[ \t]{0,64}`{0,2}")

_INFO = re.compile(r"[\w+#.-]*\s*")
_CLOSING = re.compile(r"(?:\A|\r?\n)[ \t]*```\s*?(?:\n|\Z)")
DOCSTRINGS = ('"""', "'''")


class FenceStripper:
    """Removes the lines that begin with three backticks; all else passes unchanged.

    Only the beginning of a line that may still become a fence is held back. Markdown keeps its fences.
    """

    def __init__(self, language: str = "") -> None:
        self._is_off = language == "markdown"
        self._held = ""
        self._is_inside_line = False
        """The current line has begun and is no fence: the rest of it passes at once."""
        self._is_inside_fence = False

    def feed(self, text: str) -> str:
        """The part of the answer that is certain by now."""
        if self._is_off:
            return text
        text, self._held = self._held + text, ""
        # Lines end at a line feed and nowhere else: splitlines() would also split at form feeds and U+2028.
        end = text.rfind("\n") + 1
        lines, last = text[:end], text[end:]
        kept: list[str] = []
        if lines and (self._is_inside_line or self._is_inside_fence):
            begun = lines.find("\n") + 1
            kept.append("" if self._is_inside_fence else lines[:begun])
            lines = lines[begun:]
        if end:
            kept.append(_FENCE_LINES.sub("", lines))
            self._is_inside_fence = self._is_inside_line = False
        if not self._is_inside_line and not self._is_inside_fence and _MAYBE_FENCE.fullmatch(last):
            self._held = last
        elif last:
            kept.append(self._pass(last))
        return "".join(kept)

    def close(self) -> str:
        """What was held back, once the answer has ended."""
        held, self._held = self._held, ""
        return held

    def _pass(self, part: str) -> str:
        if not self._is_inside_line and not self._is_inside_fence:
            self._is_inside_fence = _FENCE.match(part) is not None
            self._is_inside_line = not self._is_inside_fence
        return "" if self._is_inside_fence else part


def unwrap(text: str, language: str = "") -> str:
    """The code of an answer that puts it between fences, without what is said around them; others as they are.

    The fence has to come first, or behind a line that announces it: within code, it may be part of a docstring.
    """
    before, fence, after = text.partition("```")
    said, begun = before.rstrip(), before[before.rfind("\n") + 1 :]
    info, end, inside = after.partition("\n")
    if language == "markdown" or not (fence and end) or begun.strip() or not _INFO.fullmatch(info):
        return text
    if said and (not said.endswith(":") or any(quotes in said for quotes in DOCSTRINGS)):
        return text
    closing = _CLOSING.search(inside)
    return inside[: closing.start()] if closing else inside


def strip_fences(text: str, language: str = "") -> str:
    """`text` without its fence lines."""
    stripper = FenceStripper(language)
    return stripper.feed(text) + stripper.close()
