"""The memory of large answers that are read whole, within a bound.

A server that a client brought could send a few dozen of 32 MiB each, and leave them a byte short; the process would be
killed, and everybody's calls with it.
"""

from typing import Protocol

MOST_BYTES = 512 * 1024 * 1024
"""Of all together. Those of vendors take a second or two, and a MiB or two, where they are large at all."""


class Answer(Protocol):
    """One of them."""

    def give_up(self) -> None:
        """Whoever reads it hears that it is too large."""
        ...


class LargeAnswers:
    """Those that are being read."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self.size_bytes = 0
        """What they take."""
        self._of: dict[Answer, int] = {}

    def hold(self, answer: Answer, size: int) -> None:
        """`size` bytes of it are here. Where all together take too much, those that began first are given up: whoever
        fills the memory takes long over it. Alone, any finds room."""
        self.size_bytes += size - self._of.get(answer, 0)
        self._of[answer] = size
        while self.size_bytes > self._most_bytes and len(self._of) > 1:
            oldest = next(iter(self._of))
            self.leave(oldest)
            oldest.give_up()

    def leave(self, answer: Answer) -> None:
        """It was read, or is not to be any more. Idempotent."""
        self.size_bytes -= self._of.pop(answer, 0)
