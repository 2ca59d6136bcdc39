"""One deadline over everything that a call waits for: what `asyncio.timeout_at` does, with one timer for all calls.

Every call has one, and next to none meets it.
"""

import asyncio
from collections.abc import Callable
from operator import attrgetter
from types import TracebackType

GRAIN_S = 0.02
"""At least so long lies between two looks at all that wait, and a deadline may be met so much later. Ten thousand calls
that nobody answers would take the loop for themselves."""


class Deadlines:
    """Those of all calls under way."""

    __slots__ = ("_at", "_loop", "_timer", "_waiting")

    def __init__(self) -> None:
        self._waiting: set[Deadline] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0
        """When it goes off."""

    def at(self, loop: asyncio.AbstractEventLoop, when: float) -> "Deadline":
        return Deadline(self, loop, when)

    def add(self, deadline: "Deadline") -> None:
        self._waiting.add(deadline)
        if self._timer is None or deadline.when < self._at or self._loop is not deadline.loop:
            self._set(deadline.loop, deadline.when)

    def drop(self, deadline: "Deadline") -> None:
        # The timer stays: it goes off for nobody, once in the length of a deadline.
        self._waiting.discard(deadline)

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop, self._at = loop, when
        self._timer = loop.call_at(when, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for deadline in sorted((each for each in self._waiting if each.when <= now), key=_when):
            self._waiting.discard(deadline)
            deadline.end()
        if self._waiting:
            self._set(loop, max(now + GRAIN_S, min(map(_when, self._waiting))))


class Deadline:
    """`with deadlines.at(loop, when):` raises TimeoutError where the block still runs at `when`, the loop's time."""

    __slots__ = ("_all", "_cancelled_before", "_is_over", "_task", "loop", "when")

    def __init__(self, all_: Deadlines, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._all = all_
        self.loop = loop
        self.when = when
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task(self.loop)
        assert task is not None
        self._task = task
        self._cancelled_before = task.cancelling()
        self._all.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.drop(self)
        # Somebody else's cancellation that came meanwhile goes on as one.
        if self._is_over and self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> None:
        self._is_over = True
        self._task.cancel()


_when: Callable[[Deadline], float] = attrgetter("when")
