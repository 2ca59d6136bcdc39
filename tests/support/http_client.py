"""A small HTTP/1.1 client that hides nothing: exact header bytes, each chunk, and how the answer ended.

One connection a request, no redirects, no decompression, no retries.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

HeaderPairs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refused:
    """The member `refusal` of an answer (contract 1.2, Additions)."""

    code: str
    layer: str
    missing: str | None
    remedy: str
    request_id: str
    retryable: bool


class _Head:
    """Status line and headers of an answer."""

    def __init__(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        self.status_line = lines[0]
        self.status = int(lines[0].split(b" ", 2)[1])
        self.header_pairs: HeaderPairs = []
        """As they came: order, case and repetitions kept."""
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.header_pairs.append((name, value.strip()))

    def header(self, name: str) -> str | None:
        """The only header of this name, in any case; None where there is none; a repeated one is an error."""
        values = [value.decode("latin-1") for key, value in self.header_pairs if key.lower() == name.lower().encode()]
        if len(values) > 1:
            raise AssertionError(f"{name} came {len(values)} times")
        return values[0] if values else None


class Answer(_Head):
    """A whole answer."""

    def __init__(self, head: bytes, chunks: list[bytes], is_whole: bool) -> None:
        super().__init__(head)
        self.chunks = chunks
        """The HTTP chunks, one by one; a body without chunks in the pieces that it was read in."""
        self.body = b"".join(chunks)
        self.is_whole = is_whole
        """Every promised byte came: the length, or the final chunk."""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> Refused:
        return Refused(**{"missing": None, **self.json()["refusal"]})

    def __repr__(self) -> str:  # what a failed assertion shows
        return f"<Answer {self.status} {'whole' if self.is_whole else 'CUT'} {self.body[:300]!r}>"


class StreamedAnswer(_Head):
    """An answer under way. Iterate over it for its chunks; leave early to hang up."""

    def __init__(self, head: bytes, connection: "RawConnection", has_body: bool = True) -> None:
        super().__init__(head)
        self.connection = connection
        self.has_body = has_body and self.status not in (204, 304)
        self.is_whole: bool | None = None
        """None until the end: True with the final chunk, False where the stream was cut."""
        self._chunks = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def next_chunk(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Hang up, unless it was read to the end."""
        await self._chunks.aclose()
        await self.connection.aclose()

    async def rest(self) -> Answer:
        """Read to the end, however it ends. Only what was not read before is in the body."""
        chunks = [chunk async for chunk in self._chunks]
        head = b"\r\n".join([self.status_line, *(b": ".join(pair) for pair in self.header_pairs)])
        return Answer(head, chunks, bool(self.is_whole))

    async def _read(self) -> AsyncGenerator[bytes, None]:
        reader = self.connection.reader
        self.is_whole = False
        try:
            if not self.has_body:
                pass
            elif self.header("transfer-encoding") == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    data = await reader.readexactly(size + 2)
                    assert data.endswith(b"\r\n")
                    yield data[:-2]
                assert await reader.readexactly(2) == b"\r\n"
            elif (length := self.header("content-length")) is not None:
                missing_bytes = int(length)
                while missing_bytes:
                    data = await reader.read(missing_bytes)
                    if not data:
                        return
                    missing_bytes -= len(data)
                    yield data
            else:
                while data := await reader.read(65536):
                    yield data
            self.is_whole = True
        except (asyncio.IncompleteReadError, ConnectionError):
            return


class RawConnection:
    """A TCP connection for tests that write bytes themselves. Use it with `async with`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_answer(self, method: str = "POST") -> Answer:
        """One whole answer; the connection stays usable. Answers of 1xx are skipped."""
        return await (await self.read_head(method)).rest()

    async def read_head(self, method: str = "POST") -> StreamedAnswer:
        while True:
            head = (await self.reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
            answer = StreamedAnswer(head, self, has_body=method != "HEAD")
            if answer.status >= 200:
                return answer

    async def read_to_end(self) -> bytes:
        """Every byte until the peer closes; a reset counts as an end."""
        received = bytearray()
        try:
            while data := await self.reader.read(65536):
                received += data
        except ConnectionError:
            pass
        return bytes(received)

    async def is_closed_by_peer(self) -> bool:
        """Waits for the peer's end; False where more bytes come instead."""
        return await self.read_to_end() == b""

    def reset(self) -> None:
        """Hang up with RST."""
        linger_zero = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        self.writer.transport.abort()

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def write_request(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of a request; Host and Content-Length are added where `headers` lacks them."""
    names = {name.lower() for name in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in names:
        lines.append("Host: gateway.test")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not names & {"content-length", "transfer-encoding"} and (body or method in ("POST", "PUT", "PATCH")):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def connect(port: int) -> RawConnection:
    # The limit is for one line or one read: large answers must fit.
    return RawConnection(*await asyncio.open_connection("127.0.0.1", port, limit=64 * 2**20))


async def fetch(
    port: int, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    async with await connect(port) as connection:
        await connection.send(write_request(method, target, headers or {}, body))
        return await connection.read_answer(method)
