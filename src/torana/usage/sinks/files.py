"""Records as JSON lines: into a file that rotates, or to stdout."""

import asyncio
import os
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torana.json_lines import one_line
from torana.usage.folder import Position
from torana.usage.lines import append_lines, lock
from torana.usage.sinks.sink import Batch, SinkDown


class LineSink:
    """Writes lines in a thread of its own, so that nobody waits for a slow disk or reader, or one that hangs."""

    def __init__(self, write: Callable[[list[bytes]], None]) -> None:
        """write  raises OSError"""
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage-lines")

    async def send(self, batch: Batch) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write_events, batch.events)
        except OSError as error:
            raise SinkDown(str(error), is_ambiguous=True) from error

    async def position(self, folder: str) -> Position | None:
        del folder
        return None

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False)

    def _write_events(self, events: list[bytes]) -> None:
        self._write([one_line(event) for event in events])


class RotatingFile:
    """`path`, and `path.1` … `path.N` for what it held before. Several workers may append to it.

    max_bytes  at which it is moved on
    keep       how many old ones there are; the oldest is deleted
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, events: list[bytes]) -> None:
        """Durable when it returns. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = self._open()
        try:
            append_lines(fd, b"\n".join(events) + b"\n")
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
            # Under a lock of its own, so that two workers do not move one file twice.
            import fcntl

            lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
                    self._rotate()
            finally:
                os.close(lock)
        return os.open(self._path, flags, 0o640)

    def _rotate(self) -> None:
        if not self._keep:
            # Not deleted: whoever has it open just now would write where nobody looks.
            with self._path.open("ab") as file:
                lock(file.fileno())
                file.truncate(0)
            return
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.rename(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.rename(self._path.with_name(f"{self._path.name}.1"))


def write_stdout(events: list[bytes]) -> None:
    """One line a call: a line of another thread may come between two, never into one. Raises OSError."""
    for event in events:
        rest = memoryview(b'{"logger":"torana.usage","message":"usage",' + event[1:] + b"\n")
        while rest:
            try:
                rest = rest[os.write(1, rest) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(1, select.POLLOUT)
                poll.poll(1000)
