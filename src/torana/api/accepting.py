"""Listening sockets, and how clients come in: a few in each turn of the event loop, none while there is no room."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

BACKLOG = 4096
"""Connections that may wait to be accepted."""
ACCEPTED_PER_TURN = 16
"""New connections that one turn of the event loop takes in. In a crowd a turn is long: one by one, a probe would wait
seconds behind clients that connect; were all taken at once, whoever is answered would wait for them."""
UNSENT_BYTES = 64 * 1024
"""Of one connection, in the kernel, beside what is on its way already."""
LOOK_AGAIN_S = 0.01
"""How often to look for room where there is none."""
WITHOUT_S = 0.1
"""So long nobody is accepted where the system has no descriptor, or no memory, for it."""


class Greetings:
    """Clients that have connected and are no connections yet: over TLS, until hands are shaken."""

    def __init__(self) -> None:
        self._begun: dict[asyncio.Task[None], float] = {}
        """When; the oldest first."""

    def __len__(self) -> int:
        return len(self._begun)

    def add(self, task: asyncio.Task[None]) -> None:
        self._begun[task] = time.monotonic()
        task.add_done_callback(self._begun.pop)

    def end_begun_until(self, moment: float) -> bool:
        """Whether there were any."""
        late = []
        for task, begun in self._begun.items():
            if begun > moment:
                break
            late.append(task)
        for task in late:
            task.cancel()
        return bool(late)


class Acceptor:
    """What listens on one socket, from the beginning until `close`.

    make        a protocol for each connection
    greeting_s  how long shaking hands may take
    has_room    asked before each is accepted; None: there always is
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        greetings: Greetings,
        *,
        greeting_s: float,
        has_room: Callable[[], bool] | None,
    ) -> None:
        self._sock = sock
        self._make = make
        self._tls = tls
        self._greetings = greetings
        self._greeting_s = greeting_s
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Whoever waits hears that nobody listens; who is greeted is left."""
        self._loop.remove_reader(self._sock)
        if self._paused is not None:
            self._paused.cancel()
        self._sock.close()
        self._greetings.end_begun_until(time.monotonic())

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._sock, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._paused = self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            if self._has_room is not None and not self._has_room():
                self._pause(LOOK_AGAIN_S)
                return
            try:
                client, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._pause(WITHOUT_S)
                return
            if self._tls is None:
                self._begin(client)
            else:
                self._greetings.add(self._loop.create_task(self._greet(client)))

    def _begin(self, client: socket.socket) -> None:
        """As a task, the first step would be taken a turn later, and in a crowd turns are long."""
        greeting = self._loop.connect_accepted_socket(self._make, client)
        with suppress(OSError):
            made: asyncio.Future[None] = greeting.send(None)
            made.add_done_callback(lambda _made: _end(greeting))

    async def _greet(self, client: socket.socket) -> None:
        # Who leaves meanwhile, or speaks another language, is nobody's concern.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._make, client, ssl=self._tls, ssl_handshake_timeout=self._greeting_s
            )


def _end(greeting: Coroutine[Any, Any, object]) -> None:
    with suppress(OSError, StopIteration):
        greeting.send(None)


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket; `shared` lets several processes bind the same port. Raises OSError."""
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    # Of a name that means both, clients come by the older one, as they always have.
    family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    # Named, because asyncio switches Nagle off only on sockets that say they are TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # not every sandbox knows it
            # Connections inherit it: what a slow reader has not taken waits with the provider, not in our kernel.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
