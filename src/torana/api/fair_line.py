"""Requests that wait: instances take turns by their shares, each with its own in order of arrival."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Protocol


class Request(Protocol):
    """A request that has come; nothing of it was read yet."""

    def begin(self) -> None:
        """Read and answer it; called at most once, and not after `turn_away`."""
        ...

    def turn_away(self, code: str) -> None:
        """Answer 503."""
        ...

    @property
    def is_gone(self) -> bool:
        """The client has left."""
        ...


@dataclass(slots=True)
class Waiting:
    request: Request
    turns: float
    """How many of its instance's turns it takes."""
    until: float = inf


class FairLine:
    """Requests of one kind.

    weights  instance → its share beside others', 1 where it is not named
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.waiting = 0
        self._most = 0.0
        """No instance waits for more than so many, by its share."""
        self._weights = weights
        self._of: dict[str, deque[Waiting]] = {}
        self._turns: list[tuple[float, int, str]] = []
        """A heap: when each waiting instance's turn is, in no unit of time but its own."""
        self._next: dict[str, float] = {}
        """When the turn of an instance may be that had one since the line was empty last."""
        self._passed = 0.0
        """Whose turn it was last."""
        self._count = 0

    def put(self, instance: str, waiting: Waiting) -> None:
        own = self._of.get(instance)
        if own is None:
            own = self._of[instance] = deque()
            self._queue_up(instance)
        own.append(waiting)
        self.waiting += 1
        self._most = max(self._most, len(own) / self._weight(instance))

    def take(self) -> Waiting | None:
        """The oldest request of the instance whose turn it is."""
        if not self._turns:
            return None
        self._passed, _, instance = heappop(self._turns)
        own = self._of[instance]
        found = own.popleft()
        self.waiting -= 1
        # Paid for afterwards: however large a request is, it is not behind those who have had a turn since it came.
        self._next[instance] = self._passed + found.turns / self._weight(instance)
        if own:
            self._queue_up(instance)
        else:
            del self._of[instance]
            self._forget()
        return found

    def take_late(self, now: float) -> list[Waiting]:
        """Those first of their instances whose time is up; whoever has left goes with them, and is not told of.
        Nobody pays for what was not begun."""
        late = []
        for own in self._of.values():
            while own and (own[0].until < now or own[0].request.is_gone):
                found = own.popleft()
                self.waiting -= 1
                if not found.request.is_gone:
                    late.append(found)
        self._leave_turns()
        return late

    def is_longer_elsewhere(self, instance: str) -> bool:
        """Whether another instance waits for more, by its share, than `instance` with one more would."""
        own = (len(self._of.get(instance, ())) + 1) / self._weight(instance)
        if self._most > own:
            # It may have become less since.
            self._most = max((len(others) / self._weight(name) for name, others in self._of.items()), default=0.0)
        return self._most > own

    def count_before(self, instance: str) -> float:
        """About how many are begun before one more of `instance`."""
        own = (len(self._of.get(instance, ())) + 1) / self._weight(instance)
        return sum(min(len(others), own * self._weight(name)) for name, others in self._of.items())

    def take_from_longest(self) -> Waiting:
        """The newest request of the instance that waits for most, by its share."""
        instance = max(self._of, key=lambda name: len(self._of[name]) / self._weight(name))
        own = self._of[instance]
        found = own.pop()
        self.waiting -= 1
        if not own:
            self._leave_turns()
        return found

    def _leave_turns(self) -> None:
        """Of instances that wait for nothing any more."""
        if all(self._of.values()):
            return
        self._of = {name: own for name, own in self._of.items() if own}
        self._turns = sorted(turn for turn in self._turns if turn[2] in self._of)
        self._forget()

    def _forget(self) -> None:
        """Where nobody waits, nobody owes anything."""
        if not self.waiting:
            self._next.clear()
            self._passed = 0.0

    def _queue_up(self, instance: str) -> None:
        self._count += 1
        heappush(self._turns, (max(self._passed, self._next.get(instance, 0.0)), self._count, instance))

    def _weight(self, instance: str) -> float:
        return self._weights.get(instance, 1.0)
