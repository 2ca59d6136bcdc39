"""Stop texts, kept on our side as well: reasoning models take none, and some servers pass them over.

Some models also write the tag that a stop text would close.
"""

from collections.abc import Sequence

_MOST_BLANKS = 1_000
"""Before a tag. Each piece of an answer makes all of them be looked at again."""


class StopCutter:
    """Lets an answer pass up to its first stop text. Only what may still become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self._is_over = False

    def feed(self, text: str) -> str:
        """The part of the answer that is certain by now."""
        if self._is_over or not self._stops:
            return "" if self._is_over else text
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._is_over, self._held = True, ""
            return text[: min(found)]
        held = max(_begun(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def close(self) -> str:
        """What was held back, once the answer has ended."""
        held, self._held = self._held, ""
        return held


class StartCutter:
    """Lets an answer pass without the tag that its stop text closes: `<new_code>` where `</new_code>` stops.

    Only the beginning that may still become one is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._tags = tuple(f"<{stop[2:]}" for stop in stops if stop.startswith("</"))
        self._held = ""
        self._is_begun = not self._tags

    def feed(self, text: str) -> str:
        """The part of the answer that is certain by now."""
        if self._is_begun:
            return text
        self._held += text
        begun = self._held.lstrip()
        if len(self._held) - len(begun) > _MOST_BLANKS:
            return self.close()
        for tag in self._tags:
            if tag.startswith(begun) or (begun.startswith(tag) and begun[len(tag) :] in ("", "\r")):
                return ""
        return self.close()

    def close(self) -> str:
        """What was held back, once the answer has ended or begun."""
        self._is_begun = True
        held, self._held = self._held, ""
        begun = held.lstrip()
        for tag in self._tags:
            if begun.startswith(tag):
                rest = begun[len(tag) :]
                return rest[1:] if rest.startswith("\n") else rest.removeprefix("\r\n")
        return held


def cut_at_start(text: str, stops: Sequence[str]) -> str:
    """`text` without the tag that one of `stops` closes."""
    cutter = StartCutter(stops)
    return cutter.feed(text) + cutter.close()


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of `stops`."""
    cutter = StopCutter(stops)
    return cutter.feed(text) + cutter.close()


def _begun(text: str, stop: str) -> int:
    """How many letters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
