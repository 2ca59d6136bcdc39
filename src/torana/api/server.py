"""The HTTP server: a listening socket, its connections, the clock that sweeps them, and a drain of ours."""

import asyncio
import logging
import resource
import socket
import sys
import time
from functools import partial
from typing import Any, cast

import uvicorn

from torana.api.accepting import Acceptor, Greetings
from torana.api.admission import LOOKED_AT_PER_TURN
from torana.api.connection import CANCELS_PER_TURN, DRAINING, Connection
from torana.api.discarding import Discarding
from torana.api.held import Door, HeldConnection
from torana.api.room import SPARE_FILES, Room, Upstream
from torana.api.turns import Turns
from torana.settings import ServeSettings

TICK_S = 0.25
MOST_LOOKS, LOOK_S = 40, 0.05
"""How often in vain it is looked whether calls that are cut have said so; how long each look takes. Looks are counted,
not seconds: while the event loop stands still, nobody can say anything."""


class Listener:
    """One listening socket and its connections; `app` is an ASGI application.

    door      who may come in, and in which order; None: everybody, at once
    upstream  where calls go on, which takes descriptors as well; None: they go nowhere
    """

    def __init__(
        self,
        app: Any,
        serve: ServeSettings,
        *,
        with_tls: bool,
        door: Door | None = None,
        upstream: Upstream | None = None,
    ) -> None:
        self.is_draining = False
        self.serve = serve
        tls: dict[str, Any] = {}
        if with_tls and serve.tls_enabled:
            tls = {"ssl_certfile": serve.tls_cert_file, "ssl_keyfile": serve.tls_key_file or None}
            if serve.tls_ciphers:
                tls["ssl_ciphers"] = serve.tls_ciphers
        # With `workers` told, it does not read WEB_CONCURRENCY: an empty one, which here means none, would end it.
        config = uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, workers=1, **tls,
        )  # fmt: skip
        # Its lines about answers cut on purpose would be noise; ours tell the cause.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.server = uvicorn.Server(config)
        self.greetings = Greetings()
        members: dict[str, Any] = {
            "serve": serve,
            "is_draining": staticmethod(lambda: self.is_draining),
            "leaving": Turns(CANCELS_PER_TURN),
            "discarding": Discarding(),
        }
        self.room: Room | None = None
        if door is not None:
            connections: Any = self.server.server_state.connections
            self.room = Room(_files_for_requests(), connections, self.greetings, upstream)
            members |= {"door": door, "room": self.room, "coming": Turns(LOOKED_AT_PER_TURN)}
        self.protocol = type("Protocol", (Connection if door is None else HeldConnection,), members)
        self.acceptor: Acceptor | None = None
        self.ticker: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        config, state = self.server.config, self.server.server_state
        config.load()
        await self.server.on_tick(0)
        self.acceptor = Acceptor(
            sock, partial(self.protocol, config, state, {}), config.ssl, self.greetings,
            greeting_s=self.serve.header_timeout_s, has_room=self.room.has_file if self.room is not None else None,
        )  # fmt: skip
        self.ticker = asyncio.get_running_loop().create_task(self._tick())

    async def drain(self, limit_s: float) -> None:
        """Let running requests finish for up to `limit_s`, then end the rest. New ones are answered meanwhile."""
        self.is_draining = True
        state = self.server.server_state
        began = time.monotonic()
        while time.monotonic() < began + limit_s:
            for connection in cast("list[Connection]", list(state.connections)):
                connection.shutdown(began)
            if not state.tasks and not state.connections:
                break
            await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        """Stop listening, cancel what still runs, and close every connection."""
        if self.acceptor is not None:
            self.acceptor.close()
            self.acceptor = None  # who closes twice has done so
        if self.ticker is not None:
            self.ticker.cancel()
        await self._end_tasks()
        for connection in list(self.server.server_state.connections):
            if isinstance(connection, HeldConnection):
                connection.turn_away("server_draining")  # where its request waits in line still
            connection.transport.close()
        # One turn of the loop lets the transports say goodbye.
        await asyncio.sleep(0)

    async def _end_tasks(self) -> None:
        """Those too that begin meanwhile: who has connected may still ask, and is told the same."""
        told: set[asyncio.Task[None]] = set()
        vain_looks = 0
        while (tasks := set(self.server.server_state.tasks)) and vain_looks < MOST_LOOKS:
            await asyncio.sleep(0)  # a task that has not begun yet could not tell of its end
            for task in tasks - told:
                task.cancel(DRAINING)
            told |= tasks
            ended, _ = await asyncio.wait(tasks, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            vain_looks += not ended

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


def _files_for_requests() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(2, soft - SPARE_FILES)
