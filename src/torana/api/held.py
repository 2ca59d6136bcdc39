"""A client connection whose requests may have to wait in line, unread, or be turned away.

Probes never wait, and neither does what follows the first bytes of a request that was let in.
"""

import asyncio
import time
from typing import Any, Protocol

from torana.api.admission import Admission
from torana.api.connection import FRESH, HEADERS, IDLE, LINGERING, Connection
from torana.api.crowds import Crowds, kind_of
from torana.api.heads import Head, answered_to
from torana.api.over_limit import Asked, OverLimit
from torana.api.room import Room
from torana.api.turns import Turns
from torana.api.unread import start_of
from torana.limits.reached import LimitReached

MAX_HELD_BYTES = 65_536
"""What is read of a request that waits in line; the rest waits with its client."""

_PROBES = tuple(
    b"%b %b/monitoring/%b " % (method, prefix, name)
    for method in (b"GET", b"HEAD")
    for prefix in (b"", b"/ai")
    for name in (b"healthz", b"ready")
)
"""How requests begin that wait in no line."""


class HeldConnection(Connection):
    """One client connection behind a door."""

    door: "Door"
    """Set on the subclass that `Listener` makes, as is:"""
    room: Room
    coming: Turns
    """Of requests that nobody has looked at."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: bytes | None = None
        """What has come of a request that waits to be looked at, or in line; None: none does."""
        self.head: Head | None = None
        """Of the last request that had to wait or was turned away."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.room.welcome(self)

    def data_received(self, data: bytes) -> None:
        if self.held is not None:
            self.held += data
            self.head = None
            if len(self.held) > MAX_HELD_BYTES:
                self.flow.pause_reading()
        elif self.phase > FRESH or data.startswith(_PROBES):
            super().data_received(data)
        elif self.coming.take():
            self._come(data)
        else:
            self.held = data
            self.coming.put_off(self._come_now)

    def _come_now(self) -> bool:
        if self.is_gone:
            return False
        held, self.held = self.held, None
        assert held is not None
        self.flow.resume_reading()
        self._come(held)
        return True

    def _come(self, data: bytes) -> None:
        """Begin a request, let it wait in line, or turn it away."""
        if not self.room.let_in(self):
            # Without a descriptor for the provider's connection it would fail half-way.
            self._turn_away(self._look(data), data, "overloaded", may_stay=False)
        elif (self.door.crowds.are_any or self.door.over_limit.are_any) and self._is_one_too_many(data):
            pass  # and answered
        elif self.door.admission.begins():
            self._start(data)
        else:
            self.held = data
            head = self._look(data)
            self.door.admission.wait(self, head.standing, head.body_bytes)

    def begin(self) -> None:
        """Read what waited in line."""
        held, self.held = self.held, None
        if held is None:
            return
        self.flow.resume_reading()
        if self.door.over_limit.are_any and self._is_over_limit(self._look(held), held):
            return  # the places were taken while it waited
        if self.head is not None and not self.head.standing.instance:
            self.head = None  # who sends it will be known now, or refused
        self._start(held)

    def turn_away(self, code: str) -> None:
        """Answer what waited in line with 503."""
        held, self.held = self.held, None
        if held is not None:
            self.flow.resume_reading()
            self._turn_away(self.head or self._look(held), held, code, may_stay=not self.is_draining())

    @property
    def is_gone(self) -> bool:
        # A connection hears of its end a turn after it; a task that begins between the two is ended before its first
        # step, and nobody would keep the books of its request.
        return self.held is None or self.transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        if self.active is not None or self.held is not None:
            return False
        return not self.transport.is_closing() and not self.transport.get_write_buffer_size()

    def end(self) -> None:
        self.connections.discard(self)  # counted no longer, though the descriptor is free a turn later
        self.transport.abort()

    def linger(self) -> None:
        super().linger()
        if self.active is None:
            self.room.leave(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.active is None and self.phase != HEADERS:
            # Of a body that still comes nobody asks anything.
            self.room.leave(self)

    def _forget(self, _task: object = None) -> None:
        super()._forget()
        self.room.leave(self)

    def note_refusal(self, status: int, request_id: str, path: str) -> None:
        self.door.note_refusal(self, status, request_id, path)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        held, self.held = self.held, None
        if held is not None:
            request_id, _ = answered_to([], held)
            self.note_refusal(499, request_id.decode("latin-1"), start_of(held)[1])

    def sweep(self, now: float) -> None:
        # Whoever waits in line does not do so by their own fault, and the line has a patience of its own.
        if self.held is None:
            super().sweep(now)

    def shutdown(self, began: float = 0.0) -> None:
        # Whoever waits in line is still answered.
        if self.held is None:
            super().shutdown(began)

    def _is_one_too_many(self, data: bytes) -> bool:
        """Turns a request away for which there will hardly be room, or which is over its limit."""
        head = self._look(data)
        head.look_closer(data)
        if not head.standing.instance:
            self.head = None  # who sends it will be known now, or refused
        if not head.is_whole:
            return False
        if self._is_over_limit(head, data):
            return True
        if not self.door.crowds.are_any:
            return False
        kind = kind_of(head.path, head.standing.instance, data[len(data) - head.body_bytes :])
        if self.door.crowds.lets_in(kind):
            return False
        self._turn_away(head, data, "overloaded", may_stay=not self.is_draining())
        return True

    def _is_over_limit(self, head: Head, data: bytes) -> bool:
        """Answers a request of an instance that has used up its limit."""
        limit = self.door.over_limit.find(Asked(head.route, head.standing.instance))
        if limit is None:
            return False
        head.look_closer(data)
        # The connection might be kept, were it read; and who is not let in hears that first (contract 1.1).
        if not head.is_whole or not self.door.admits(head, data):
            return False
        self._turn_away(head, data, limit.code, may_stay=not self.is_draining(), limit=limit)
        return True

    def _start(self, data: bytes) -> None:
        # Where any are over their limit it was looked at just now; who sends it is unknown if that is not kept.
        if self.door.over_limit.are_any and self.head is not None:
            self.door.over_limit.begin(Asked(self.head.route, self.head.standing.instance))
        self._receive(data)

    def _look(self, data: bytes) -> Head:
        head = self.head
        if head is None or not head.fits(data):
            head = self.head = self.door.look(data)
        return head

    def _turn_away(
        self, head: Head, data: bytes, code: str, *, may_stay: bool, limit: LimitReached | None = None
    ) -> None:
        head.look_closer(data)
        # Where the request is plainly whole, the next one may follow; else nobody knows where it would begin. Who does
        # not read its answers need not ask for more.
        stays = may_stay and head.is_whole and not self.flow.write_paused
        self.transport.write(self.door.turn_away(self, head, code, stays=stays, limit=limit))
        if stays:
            self.phase, self.since = IDLE, time.monotonic()
            self.room.leave(self)
        elif head.is_whole:
            # Nothing comes that closing could reset the answer for, and the descriptor is needed.
            self.phase, self.since = LINGERING, time.monotonic()
            self.room.leave(self)
            self.transport.close()
        else:
            self.linger()


class Door(Protocol):
    """What stands behind a connection: who may come in, and the books of those who may not."""

    admission: Admission
    crowds: Crowds
    over_limit: OverLimit

    def look(self, data: bytes) -> Head:
        """What the first bytes of a request tell; nothing of it was checked."""
        ...

    def admits(self, head: Head, data: bytes) -> bool:
        """Whether a whole request's token and headers let it in."""
        ...

    def turn_away(
        self, connection: Connection, head: Head, code: str, *, stays: bool, limit: LimitReached | None
    ) -> bytes:
        """The whole answer to a request that there is no room for, or that is over its `limit`.

        stays  the connection is kept
        """
        ...

    def note_refusal(self, connection: Connection, status: int, request_id: str, path: str) -> None:
        """A request was answered here, or its client left, and the application never heard of it.

        request_id  empty: it gave none
        """
        ...
