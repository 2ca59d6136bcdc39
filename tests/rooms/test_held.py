"""Connections whose requests wait in line, unread."""

import asyncio
import socket
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

from tests.support.http_client import RawConnection, connect, write_request
from tests.support.waiting import eventually

from torana.api.accepting import bind
from torana.api.admission import LOOKED_AT_PER_TURN, Admission, Request, Standing
from torana.api.connection import Connection
from torana.api.crowds import Crowds
from torana.api.heads import Head
from torana.api.held import HeldConnection
from torana.api.over_limit import OverLimit
from torana.api.server import LOOK_S, MOST_LOOKS, Listener
from torana.limits.reached import LimitReached
from torana.settings import ServeSettings

REQUEST = write_request("GET", "/", {}, b"")
LONG_S = 1000.0
"""Beyond any patience."""


class Line(Admission):
    """Everybody waits until the test says so."""

    def __init__(self) -> None:
        super().__init__(self, max_waiting=1, max_age_s=1.0, weights={})
        self.came: asyncio.Queue[HeldConnection] = asyncio.Queue()

    def begins(self) -> bool:
        return False

    def wait(self, request: Request, standing: Standing, body_bytes: int) -> None:
        assert isinstance(request, HeldConnection)
        self.came.put_nowait(request)

    def shed(self, reason: str) -> None: ...


class HandDoor:
    def __init__(self) -> None:
        self.admission = self.line = Line()
        self.crowds = Crowds(self.line.shed)
        self.over_limit = OverLimit()
        self.noted: list[tuple[int, str, str]] = []

    def look(self, data: bytes) -> Head:
        return Head(data)

    def turn_away(
        self, connection: Connection, head: Head, code: str, *, stays: bool, limit: LimitReached | None
    ) -> bytes:
        return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%b" % (len(code), code.encode())

    def note_refusal(self, connection: Connection, status: int, request_id: str, path: str) -> None:
        self.noted.append((status, request_id, path))


async def say_ok(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def ask_late(client: RawConnection, line: Line) -> int:
    """The status of a request that comes when its connection has been idle for all its time, and has to wait."""
    await client.send(REQUEST)
    held = await line.came.get()
    held.sweep(held.since + LONG_S)
    held.begin()
    return (await client.read_answer("GET")).status


async def test_no_patience_ends_for_a_request_that_waits_in_line() -> None:
    door, sock = HandDoor(), bind("127.0.0.1", 0, shared=False)
    listener = Listener(say_ok, ServeSettings(), with_tls=False, door=door)
    await listener.start(sock)
    try:
        async with await connect(_port_of(sock)) as client:
            statuses = [await ask_late(client, door.line) for _ in range(2)]  # freshly connected, then idle
    finally:
        await listener.aclose()

    assert statuses == [200, 200]


async def test_whoever_waits_in_line_when_the_server_ends_is_told() -> None:
    door, sock = HandDoor(), bind("127.0.0.1", 0, shared=False)
    listener = Listener(say_ok, ServeSettings(), with_tls=False, door=door)
    await listener.start(sock)
    async with await connect(_port_of(sock)) as client:
        await client.send(REQUEST)
        await door.line.came.get()
        await listener.drain(0.0)
        await listener.aclose()
        answer = await client.read_answer("GET")

    assert (answer.status, answer.text) == (503, "server_draining")


async def stand_still_and_say_so(_scope: Any, _receive: Any, send: Any) -> None:
    """Until it is ended; the word needs some turns of the loop, as one that is written down first does."""
    try:
        await asyncio.Event().wait()
    finally:
        time.sleep(MOST_LOOKS * LOOK_S)  # noqa: ASYNC251  nothing else stops the loop
        await asyncio.sleep(2 * LOOK_S)
        await say_ok(_scope, _receive, send)


async def test_a_loop_that_stands_still_at_the_end_takes_nobodys_last_word() -> None:
    sock = bind("127.0.0.1", 0, shared=False)
    listener = Listener(stand_still_and_say_so, ServeSettings(), with_tls=False)
    await listener.start(sock)
    async with await connect(_port_of(sock)) as client:
        await client.send(REQUEST)
        await eventually(lambda: _has_begun(listener))
        await listener.aclose()

        assert (await client.read_answer("GET")).status == 200


async def _has_begun(listener: Listener) -> bool:
    return bool(listener.server.server_state.tasks)


async def test_a_request_whose_turn_comes_in_the_moment_its_client_leaves_is_not_begun_and_not_forgotten() -> None:
    door, sock = HandDoor(), bind("127.0.0.1", 0, shared=False)
    listener = Listener(say_ok, ServeSettings(), with_tls=False, door=door)
    await listener.start(sock)
    try:
        async with await connect(_port_of(sock)) as client:
            await client.send(write_request("GET", "/left?it=1", {"X-Request-ID": "left"}, b""))
            held = await door.line.came.get()
            client.reset()
            while not held.transport.is_closing():  # noqa: ASYNC110  nobody is told before its end
                await asyncio.sleep(0)
            is_begun = not held.is_gone  # as the line asks
            await eventually(lambda: _have_come(listener, 0))
    finally:
        await listener.aclose()

    assert (is_begun, door.noted) == (False, [(499, "left", "/left")])


async def test_of_a_crowd_that_asks_in_one_moment_one_turn_of_the_loop_looks_at_some() -> None:
    door, sock = HandDoor(), bind("127.0.0.1", 0, shared=False)
    listener = Listener(say_ok, ServeSettings(), with_tls=False, door=door)
    await listener.start(sock)
    looked_at = [0]
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", _port_of(sock))))
            for _ in range(3 * LOOKED_AT_PER_TURN + 1)
        ]
        await eventually(lambda: _have_come(listener, len(crowd)))

        for client in crowd:
            client.sendall(REQUEST)
        while looked_at[-1] < len(crowd):
            await asyncio.sleep(0)
            looked_at.append(door.line.came.qsize())
        await listener.aclose()

    assert max(later - before for before, later in pairwise(looked_at)) == LOOKED_AT_PER_TURN


class WordyDoor(HandDoor):
    """Its refusals are longer than what the system takes of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stayed: list[bool] = []

    def turn_away(
        self, connection: Connection, head: Head, code: str, *, stays: bool, limit: LimitReached | None
    ) -> bytes:
        self.stayed.append(stays)
        return bytes(16 * 2**20)


async def test_who_is_turned_away_and_does_not_read_it_cannot_ask_on_and_on() -> None:
    door, sock = WordyDoor(), bind("127.0.0.1", 0, shared=False)
    listener = Listener(say_ok, ServeSettings(), with_tls=False, door=door)
    await listener.start(sock)
    with socket.create_connection(("127.0.0.1", _port_of(sock))) as client:
        for _ in range(2):
            client.sendall(REQUEST)
            (await door.line.came.get()).turn_away("overloaded")
    await listener.aclose()

    assert door.stayed == [True, False]


async def _have_come(listener: Listener, count: int) -> bool:
    return len(listener.server.server_state.connections) == count


def _port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port
