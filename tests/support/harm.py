"""A TCP proxy before a fake server that harms what passes: the network's own faults, which no server can script.

`proxy.fault = Fault(…)` holds for connections made from then on; `proxy.stop_listening()` refuses new ones.
"""

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Literal, Self

from bench.processes import keep_port
from tests.support.lasting import Lasting


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one connection. Nothing, by default."""

    swallow: bool = False
    """It is accepted and read, and nothing ever comes back."""
    delay_s: float = 0.0
    """Each piece of the answer comes so much later."""
    drip_s: float = 0.0
    """The answer comes byte by byte, so far apart."""
    cut_after: int | None = None
    """So many bytes of the answer pass, then the connection ends."""
    cut_by: Literal["reset", "close"] = "reset"
    requests: int | None = None
    """So many requests are answered; the next one, on a connection kept alive, finds it closed as it comes."""


WELL = Fault()


class HarmfulProxy(Lasting):
    """Listens on 127.0.0.1 and passes on to `target_port` there."""

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self.fault = WELL
        self.port = 0
        self.connections = 0
        """How many were ever accepted."""
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._place: socket.socket | None = None
        """Has the port while nobody listens, or another test's server might."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def start(self) -> None:
        """Listen; after `stop_listening`, on the same port again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls, reuse_port=True)
        self.port = self._server.sockets[0].getsockname()[1]
        self._leave()

    def stop_listening(self) -> None:
        """Refuse new connections, and end those there are."""
        if self._server is not None:
            self._place = keep_port(self.port)
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()

    def _leave(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None

    async def aclose(self) -> None:
        self.stop_listening()
        self._leave()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._pass(reader, writer, self.fault)
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        if fault.swallow:
            while await reader.read(65536):
                pass
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        asked = asyncio.create_task(_pass_requests(reader, back, writer, fault))
        answered = asyncio.create_task(_pass_answer(there, writer, fault))
        try:
            await asyncio.wait((asked, answered), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (asked, answered):
                each.cancel()
            await asyncio.gather(asked, answered, return_exceptions=True)
            back.close()


async def _pass_requests(
    reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter, fault: Fault
) -> None:
    requests = 0
    while data := await reader.read(65536):
        requests += data.startswith((b"POST ", b"GET "))
        if fault.requests is not None and requests > fault.requests:
            reset(writer)
            return
        back.write(data)
        await back.drain()


async def _pass_answer(there: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
    passed = 0
    while data := await there.read(65536):
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.cut_after is not None:
            data = data[: fault.cut_after - passed]
        for start in range(0, len(data), 1 if fault.drip_s else len(data)):
            writer.write(data[start : start + 1] if fault.drip_s else data)
            await writer.drain()
            if fault.drip_s:
                await asyncio.sleep(fault.drip_s)
        passed += len(data)
        if fault.cut_after is not None and passed >= fault.cut_after:
            if fault.cut_by == "reset":
                reset(writer)
            return


def reset(writer: asyncio.StreamWriter) -> None:
    """RST, at once."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class FullListener:
    """A port whose queue of connections is full: further ones get no answer, as if their packets were dropped."""

    def __enter__(self) -> Self:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        self._callers = []
        for _ in range(4):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", self.port))
            self._callers.append(caller)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (*self._callers, self._listener):
            each.close()
