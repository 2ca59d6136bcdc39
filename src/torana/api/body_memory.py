"""The memory that long bodies take, from their first bytes to the end of their answers, within a bound.

A few dozen connections could send bodies of 32 MiB each, and leave them a byte short; the process would be killed, and
everybody's calls with it. Short bodies are not counted: there are only so many connections.
"""

from collections import Counter
from typing import Protocol

from torana.caller import Caller
from torana.errors import Refusal
from torana.headers import retry_after, soon

SHORT_BYTES = 65_536
OWN_SHARE, FREE_SHARE = 0.5, 0.25
"""One party may take half of it, and more only while so much is left to others."""


class Request(Protocol):
    """Whose body it is."""

    caller: Caller
    held_bytes: int
    """How much of the memory it has taken."""


class Meter(Protocol):
    """What metrics are told."""

    def shed(self, reason: str) -> None: ...

    def body_memory(self, size: int) -> None: ...


class BodyMemory:
    """That of one worker.

    most_bytes  of all bodies together
    """

    def __init__(self, most_bytes: int, meter: Meter) -> None:
        self._most = most_bytes
        self._meter = meter
        self._taken = 0
        self._by_party: Counter[str] = Counter()

    def hold(self, request: Request, size: int) -> None:
        """`size` bytes of a body have come. Raises Refusal 503 where there is no room for it; alone, any finds some."""
        if size <= SHORT_BYTES:
            return
        party, more = request.caller.party, size - request.held_bytes
        taken, own = self._taken + more, self._by_party[party] + more
        is_greedy = own > OWN_SHARE * self._most and taken > (1 - FREE_SHARE) * self._most
        is_alone = self._taken == request.held_bytes
        if not is_alone and (taken > self._most or is_greedy):
            self._meter.shed("memory")
            raise Refusal(503, "overloaded", "Service Unavailable", headers=retry_after(soon()), closes=True)
        self._taken, self._by_party[party], request.held_bytes = taken, own, size
        self._meter.body_memory(taken)

    def leave(self, request: Request) -> None:
        """The request is over."""
        if not request.held_bytes:
            return
        party = request.caller.party
        self._taken -= request.held_bytes
        self._by_party[party] -= request.held_bytes
        if not self._by_party[party]:
            del self._by_party[party]
        request.held_bytes = 0
        self._meter.body_memory(self._taken)
