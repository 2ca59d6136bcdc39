"""Answers that clients have begun, and that a model begins anew instead of going on.

GitLab 17 sends `<new_code>`, or half a JSON object, as the assistant's last words, and reads the answer as what comes
behind them. Models that do not go on from them repeat them.
"""

from torana.chat import ChatRequest, Text

_LEAST_CHARS = 4
"""Fewer may well come twice: a bracket, a word."""

_MOST_CHARS, _MOST_LINES = 200, 8
"""Of the beginning, from its end. All of it is held back while it may still come."""


class BegunAnswer:
    """One answer's text as it comes in pieces, without the beginning that the client has. White space may differ."""

    __slots__ = ("_awaited", "_held")

    def __init__(self, awaited: tuple[str, ...]) -> None:
        self._awaited = awaited
        """Beginnings, without white space, of which one may still come; none: the answer is its own."""
        self._held = ""

    def feed(self, text: str) -> tuple[str, str]:
        """("", said)"""
        if not self._awaited:
            return "", text
        self._held += text
        seen = ""
        for place, letter in enumerate(self._held):
            if letter.isspace():
                continue
            seen += letter
            self._awaited = tuple(each for each in self._awaited if each.startswith(seen))
            if seen in self._awaited:
                self._held = self._held[place + 1 :]
                return self.close()
            if not self._awaited:
                return self.close()
        # White space alone stays short.
        return ("", "") if len(self._held) <= 4 * _MOST_CHARS else self.close()

    def close(self) -> tuple[str, str]:
        """What was held back."""
        self._awaited = ()
        held, self._held = self._held, ""
        return "", held


def awaited_in(chat: ChatRequest) -> tuple[str, ...]:
    """What a model would repeat of the beginning: all of it, or its last lines."""
    if chat.carries_on is None or not chat.is_begun:
        return ()
    begun = "".join(part.text for part in chat.messages[-1].parts if isinstance(part, Text))
    lines = begun.splitlines()[-_MOST_LINES:]
    tails = ("".join("".join(lines[at:]).split()) for at in range(len(lines)))
    return tuple(dict.fromkeys(tail for tail in tails if _LEAST_CHARS <= len(tail) <= _MOST_CHARS))
