"""Log lines kept in memory, and a way to wait for one: the access line comes after the answer's last byte."""

import asyncio
import json
from collections.abc import Callable
from typing import Any


class MemoryLog:
    """Stands in for the gateway's LogSink: takes lines, writes nothing."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        """Lines as they would go to stdout, without their newline."""
        self.dropped_lines = 0
        self.on_drop: Callable[[int], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()

    def write(self, line: bytes) -> None:
        self.raw.append(line)
        if not self._loop.is_closed():  # lines may come from threads
            self._loop.call_soon_threadsafe(self._came.set)

    def close(self, timeout_s: float = 0.0) -> None:
        """Nothing waits here."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Only with AIGW_LOGGING__FORMAT_JSON, which is the default."""
        return [json.loads(line) for line in self.raw]

    async def find(self, **members: Any) -> dict[str, Any]:
        """The first line with all these members; waits until there is one."""
        while True:
            for line in self.lines:
                if all(line.get(name) == value for name, value in members.items()):
                    return line
            self._came.clear()
            await self._came.wait()
