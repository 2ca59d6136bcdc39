"""Records that a sink will not get by itself: refused by it, or too old to be sent again. An operator decides.

`torana usage resend` empties the file in place, under its lock.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from torana.usage.lines import append_lines

FOLDER = "_parked"


class Parking:
    """One sink's file, a JSON object a line: `at`, `sink`, `why`, `event`. Durable when `park` returns."""

    def __init__(self, spool: Path, sink: str) -> None:
        self.path = spool / FOLDER / f"{sink}.jsonl"
        self._sink = sink

    def park(self, parked: Sequence[tuple[bytes, str]], at: str) -> None:
        """Puts down all of them or none, each with why. Raises OSError; then the records are still where they were."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = b"".join([self._line(event, why, at) for event, why in parked])
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            append_lines(fd, data)
        finally:
            os.close(fd)

    def _line(self, event: bytes, why: str, at: str) -> bytes:
        head = json.dumps({"at": at, "sink": self._sink, "why": why})[:-1].encode()
        return head + b', "event": ' + event + b"}\n"
