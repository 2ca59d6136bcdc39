"""The memory that large bodies and answers take, kept from one to the next while they come.

glibc gives each buffer of some MiB back to the system as soon as it is free, and asks anew for the next one: the system
then clears thousands of pages, which is half of what a large body costs. What came in small pieces it keeps for good
where anything younger lies behind them. So it is told to keep all, and when nothing large has come for a while, to give
all back.
"""

import asyncio
from collections.abc import Callable
from typing import Any

KEPT_BYTES = 32 << 20
"""What the C library takes and keeps without asking the system; the most that it lets itself be told."""
USUAL_BYTES = 1 << 20
"""About what it comes to by itself."""
OVER_S = 2.0
"""So long after the last large body or answer all is given back."""
LARGE_BYTES = 256 * 1024
"""What counts as large."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


class Heap:
    """This process's. Another C library than glibc does as it likes.

    over_s  see OVER_S
    """

    def __init__(self, over_s: float = OVER_S) -> None:
        self._over_s = over_s
        self._library: Any = None
        self._used_at = 0.0
        self.is_keeping = False

    def keep(self) -> None:
        """A large body has come, or some more of a large answer."""
        loop = asyncio.get_running_loop()
        self._used_at = loop.time()
        if not self.is_keeping:
            self.is_keeping = True
            self._tell(KEPT_BYTES)
            loop.call_later(self._over_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        left_s = self._used_at + self._over_s - loop.time()
        if left_s > 0:
            loop.call_later(left_s, self._look, loop)
            return
        self.is_keeping = False
        self._tell(USUAL_BYTES)
        self._call("malloc_trim", 0)

    def _tell(self, size_bytes: int) -> None:
        self._call("mallopt", _MMAP_THRESHOLD, size_bytes)
        self._call("mallopt", _TRIM_THRESHOLD, size_bytes)

    def _call(self, name: str, *args: int) -> None:
        if self._library is None:
            import ctypes  # most gateways never need it

            self._library = ctypes.CDLL(None)
        function: Callable[..., int] | None = getattr(self._library, name, None)
        if function is not None:
            function(*args)
