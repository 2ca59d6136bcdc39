"""What a sink is, and the two ways in which it can fail."""

from dataclasses import dataclass
from typing import Protocol

from torana.usage.folder import Position

CLOSE_S = 0.5
"""What a receiver is given at its end: a reload and the end of the process wait for it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of one folder, in order."""

    folder: str
    events: list[bytes]
    positions: list[Position]
    """The place behind each."""

    def part(self, start: int, end: int) -> "Batch":
        return Batch(self.folder, self.events[start:end], self.positions[start:end])


class SinkDown(Exception):
    """The receiver has a problem, not the records: the same ones are sent again later.

    is_ambiguous   they may have arrived all the same
    retry_after_s  how long the receiver wants to be left alone
    """

    def __init__(self, reason: str, *, is_ambiguous: bool, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.is_ambiguous = is_ambiguous
        self.retry_after_s = retry_after_s


class SinkRefused(Exception):
    """The receiver takes no such record: one of the batch is bad, and sending it again will not help."""


class Sink(Protocol):
    """One receiver."""

    async def send(self, batch: Batch) -> None:
        """Returns once the receiver has all of them. Raises SinkDown, SinkRefused."""
        ...

    async def position(self, folder: str) -> Position | None:
        """How far the receiver itself says that it has a folder; None: it does not know. Raises SinkDown."""
        ...

    async def aclose(self) -> None: ...
