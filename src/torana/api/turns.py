"""Work that comes in crowds, of which each turn of the event loop does so much: who comes or leaves together with a
thousand others holds nobody up."""

import asyncio
from collections import deque
from collections.abc import Callable

Work = Callable[[], bool | None]
"""Returns False where there was nothing to do any more, which is not counted."""


class Turns:
    """Work of one kind, done in the order in which it came.

    per_turn  pieces of it
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._done = 0
        """In this turn of the event loop."""
        self._waiting: deque[Work] = deque()

    def take(self) -> bool:
        """True where a piece may be done at once; it is counted as done. False: let it be `put_off`."""
        if self._done >= self._per_turn or self._waiting:
            return False
        if not self._done:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._done += 1
        return True

    def put_off(self, work: Work) -> None:
        """Until its turn comes."""
        self._waiting.append(work)

    def do(self, work: Work) -> None:
        """At once, or when its turn comes."""
        if self.take():
            work()
        else:
            self.put_off(work)

    def _next_turn(self) -> None:
        self._done = 0
        try:
            while self._waiting and self._done < self._per_turn:
                self._done += 1
                if self._waiting.popleft()() is False:
                    self._done -= 1
        finally:
            # Also where a piece of work has failed: the others wait for their turn all the same.
            if self._done:
                asyncio.get_running_loop().call_soon(self._next_turn)
