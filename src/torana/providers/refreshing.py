"""Credentials that run out: fetched once at a time, off the event loop, and ahead of their end.

The clouds' own libraries know how; most of them block. Whoever needs a value meanwhile gets the last one that
still holds, or waits for the one fetch that is under way. How long a value holds is measured by the clock that only
grows: somebody who sets the wall clock neither revives one that has ended nor delays the next try. But the former
stands still while a machine sleeps: a value that has ended by the latter is renewed at once.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from torana.clock import Clock
from torana.errors import NoCredentials

T = TypeVar("T")

AHEAD_S = 300.0
"""A value is renewed this long before it ends. The clouds' own libraries hand out a new one by then."""

PATIENCE_S = 30.0
"""For a fetch, since it began: one that waits for somebody to log in would hold every call. It goes on without them."""

RETRY_S = 5.0
"""A fetch that failed is not tried again before this; calls in between fail as it did."""

logger = logging.getLogger("torana.providers")


class Refreshing(Generic[T]):
    """One value, kept fresh.

    what   its name, for the log
    fetch  blocks, in a thread of its own → the value, and when it ends, in Unix seconds or infinite; raises
           NoCredentials, whose text tells the operator what to do, or whatever a library does of which only the kind
           is told
    """

    def __init__(
        self, what: str, fetch: Callable[[], tuple[T, float]], clock: Clock, patience_s: float = PATIENCE_S
    ) -> None:
        self.what = what
        self._patience_s = patience_s
        self._fetch = fetch
        self._clock = clock
        self._value: T | None = None
        self._ends_at = self._ends_at_by_wall = -math.inf
        self._flight: asyncio.Task[None] | None = None
        self._took_off_at = 0.0
        self._failure: NoCredentials | None = None
        self._retry_at = -math.inf

    async def current(self) -> T:
        """The value; raises NoCredentials where there is none to be had."""
        now = self._clock.monotonic()
        is_early = now < self._ends_at - AHEAD_S and self._clock.now() < self._ends_at_by_wall - AHEAD_S
        if is_early and self._value is not None:
            return self._value
        if self._failure is None or now >= self._retry_at:
            if self._flight is None:
                self._flight, self._took_off_at = asyncio.get_running_loop().create_task(self._renew()), now
            if now >= self._ends_at:
                # A caller who hangs up does not take the others' fetch along.
                await asyncio.wait([self._flight], timeout=max(0.0, self._took_off_at + self._patience_s - now))
        if self._value is not None and self._clock.monotonic() < self._ends_at:
            return self._value
        if self._flight is not None:
            raise NoCredentials(f"the {self.what} cannot be fetched within {self._patience_s:g} s")
        raise NoCredentials(str(self._failure)) if self._failure is not None else NoCredentials(f"no {self.what}")

    async def _renew(self) -> None:
        try:
            self._value, self._ends_at_by_wall = await asyncio.to_thread(self._fetch)
            self._ends_at = self._clock.monotonic() + self._ends_at_by_wall - self._clock.now()
            self._failure = None
        except NoCredentials as failure:
            self._fail(failure)
        except Exception as error:  # noqa: BLE001 odd files and answers lead the libraries to anything, which may quote them
            self._fail(NoCredentials(f"the {self.what} cannot be fetched: {type(error).__name__}"))
        finally:
            self._flight = None

    def _fail(self, failure: NoCredentials) -> None:
        self._failure, self._retry_at = failure, self._clock.monotonic() + RETRY_S
        logger.error("credentials cannot be fetched", extra={"credentials": self.what, "reason": str(failure)})
