"""Around uvicorn's cycles: how an answer ends, and the rare requests that uvicorn would answer wrongly."""

import asyncio
import socket
import struct
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Lingering(Protocol):
    """A connection, as the end of an answer sees it."""

    active: RequestResponseCycle | None

    def linger(self) -> None:
        """Close once the client has had time to read."""
        ...


class LingeringTransport:
    """What a cycle writes to; it knows how a connection ends."""

    __slots__ = ("connection", "is_closing", "transport", "write")

    def __init__(self, connection: "Lingering", transport: asyncio.Transport) -> None:
        self.connection = connection
        self.transport = transport
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        cycle = self.connection.active
        if cycle is None or cycle.response_complete:
            if cycle is not None and cycle.more_body:
                self.connection.linger()
            else:
                self.transport.close()
        elif cycle.chunked_encoding:
            self.transport.close()
        else:
            # Without chunks only a reset tells a cut answer from a whole one.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class Careful:
    """Around the application for the rare requests that uvicorn would answer wrongly."""

    def __init__(self, app: ASGI3Application, cycle: RequestResponseCycle) -> None:
        self.app = app
        self.cycle = cycle
        self.is_endless = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def write(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._prepare(message)
            elif self.is_endless and not message.get("more_body"):
                self.cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, write)

    def _prepare(self, message: MutableMapping[str, Any]) -> None:
        cycle = self.cycle
        if cycle.waiting_for_100_continue:
            # Nobody asked for the body, and the client need not send it: what comes next is uncertain.
            cycle.keep_alive = False
        is_old = cycle.scope["http_version"] != "1.1"
        if is_old and not any(name == b"content-length" for name, _ in message["headers"]):
            # HTTP/1.0 knows no chunks: the answer ends with the connection.
            self.is_endless = True
            cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
