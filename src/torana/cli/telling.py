"""What a running server says on stderr. Whoever reads it may be gone, or may have stopped reading."""

import os
import select
from contextlib import suppress

from torana.cli.plain_text import plain

STDOUT, STDERR = 1, 2


def tell(text: str) -> None:
    """A line, or several. Never waits and never fails: what finds no room is dropped."""
    rest = memoryview(f"{plain(text)}\n".encode())
    room = select.poll()
    room.register(STDERR, select.POLLOUT)
    with suppress(OSError):
        # A pipe that has room takes so much without waiting.
        while rest and room.poll(0):
            rest = rest[os.write(STDERR, rest[: select.PIPE_BUF]) :]
