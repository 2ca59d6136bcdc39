"""The HTTP server: a listening socket, its connections, the clock that sweeps them, and a drain of ours."""

import asyncio
import logging
import resource
import socket
import time
from contextlib import suppress
from typing import Any

import uvicorn

from torana.api.connection import DRAINING, Connection
from torana.api.held import Door, HeldConnection
from torana.api.leaving import Leaving
from torana.api.room import SPARE_FILES, Room
from torana.settings import ServeSettings

TICK_S = 0.25
ENDING_S, LOOK_S = 2.0, 0.05
"""How long calls that are cut may take to say so; how often to look for new ones meanwhile."""
BACKLOG = 4096
"""Connections that may wait to be accepted."""
ACCEPTED_PER_TURN = 16
"""New connections that one turn of the event loop takes in. The loop takes one for each descriptor, however many wait,
and in a crowd a turn is long: with one descriptor a probe would wait seconds behind clients that connect."""
UNSENT_BYTES = 64 * 1024
"""Of one connection, in the kernel, beside what is on its way already."""


class Listener:
    """One listening socket and its connections; `app` is an ASGI application.

    door    who may come in, and in which order; None: everybody, at once
    """

    def __init__(self, app: Any, serve: ServeSettings, *, with_tls: bool, door: Door | None = None) -> None:
        self.is_draining = False

        members: dict[str, Any] = {
            "serve": serve,
            "room": Room(max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)),
            "is_draining": staticmethod(lambda: self.is_draining),
            "leaving": Leaving(),
            "door": door,
        }
        protocol = type("Protocol", (Connection if door is None else HeldConnection,), members)
        tls: dict[str, Any] = {}
        if with_tls and serve.tls_enabled:
            tls = {"ssl_certfile": serve.tls_cert_file, "ssl_keyfile": serve.tls_key_file or None}
            if serve.tls_ciphers:
                tls["ssl_ciphers"] = serve.tls_ciphers
        config = uvicorn.Config(
            app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, backlog=BACKLOG, **tls,
        )  # fmt: skip
        # Its lines about answers cut on purpose would be noise; ours tell the cause.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.server = uvicorn.Server(config)
        self.ticker: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        self.server.config.load()
        self.server.lifespan = self.server.config.lifespan_class(self.server.config)
        await self.server.on_tick(0)
        await self.server.startup(sockets=[sock, *(sock.dup() for _ in range(ACCEPTED_PER_TURN - 1))])
        self.ticker = asyncio.get_running_loop().create_task(self._tick())

    async def drain(self, limit_s: float) -> None:
        """Let running requests finish for up to `limit_s`, then end the rest. New ones are answered meanwhile."""
        self.is_draining = True
        state = self.server.server_state
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for connection in list(state.connections):
                connection.shutdown()
            if not state.tasks and not state.connections:
                break
            await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        """Stop listening, cancel what still runs, and close every connection."""
        for server in self.server.servers:
            server.close()
        if self.ticker is not None:
            self.ticker.cancel()
        await self._end_tasks()
        for connection in list(self.server.server_state.connections):
            connection.transport.close()
        # One turn of the loop lets the transports say goodbye.
        await asyncio.sleep(0)

    async def _end_tasks(self) -> None:
        """Those too that begin meanwhile: who has connected may still ask, and is told the same."""
        told: set[asyncio.Task[None]] = set()
        end = time.monotonic() + ENDING_S
        while (tasks := set(self.server.server_state.tasks)) and time.monotonic() < end:
            await asyncio.sleep(0)  # a task that has not begun yet could not tell of its end
            for task in tasks - told:
                task.cancel(DRAINING)
            told |= tasks
            await asyncio.wait(tasks, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)

    async def _tick(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(TICK_S)
            count += 1
            if count % 4 == 0:
                await self.server.on_tick(0)
            now = time.monotonic()
            for connection in list(self.server.server_state.connections):
                assert isinstance(connection, Connection)
                connection.sweep(now)


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket; `shared` lets several processes bind the same port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio switches Nagle off only on sockets that say they are TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # not every sandbox knows it
            # Connections inherit it: what a slow reader has not taken waits with the provider, not in our kernel.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
