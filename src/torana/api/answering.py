"""Writes one answer, once: whole, or in parts with a sign of life where nothing else comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from torana.api.answer_writer import AnswerWriter
from torana.api.exchange import Exchange, Reply, StreamCut, StreamReply

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CORS_HEADERS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"X-Request-ID, X-Streaming-Format, Retry-After"),
]


class Answering:
    """The answer to one request."""

    __slots__ = ("began", "content_type", "exchange", "first_part", "has_origin", "send", "started", "status", "writer")

    def __init__(
        self, exchange: Exchange, send: Send, writer: AnswerWriter | None, started: float, has_origin: bool
    ) -> None:
        self.exchange = exchange
        self.send = send
        self.writer = writer
        """The quick way out; None for the rare requests that need the server's care."""
        self.started = started
        self.has_origin = has_origin
        self.status = 0
        self.began = 0.0
        self.first_part = 0.0
        self.content_type = b""

    async def whole(self, reply: Reply, *, closes: bool = False) -> None:
        if self.writer is not None and self.writer.must_wait and not closes:
            # Who asks on and on and reads nothing would have its answers gather here.
            await self.writer.wait()
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        if closes:
            headers.append((b"connection", b"close"))
        self._begin(reply.status, headers)
        if self.writer is not None:
            self.writer.whole(reply.status, headers, reply.body)
            return
        await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": reply.body})

    async def refuse(self, reply: Reply, *, closes: bool = False) -> None:
        """Unless the answer has begun: then its end says that it failed."""
        if not self.status:
            await self.whole(reply, closes=closes)

    async def parts(self, reply: StreamReply) -> None:
        """Each part as it comes; a cut leaves the answer without its final HTTP chunk."""
        parts = reply.parts
        try:
            if self.writer is not None:
                await self._write_parts(self.writer, reply)
            else:
                await self._send_parts(reply)
        except StreamCut:
            # Returning without the last message makes the server close the connection as it stands.
            self.exchange.facts.setdefault("outcome", "failed")
        finally:
            del reply.parts  # which may know their reply: a ring, that only the collector would free
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()

    async def _write_parts(self, writer: AnswerWriter, reply: StreamReply) -> None:
        def begin() -> None:
            writer.head(reply.status, self._begin_parts(reply))

        def say_comment() -> None:
            # Who does not read what is there already needs no sign of life.
            if not writer.must_wait:
                if not reply.is_begun:
                    begin()
                writer.part(reply.comment)

        if not reply.waits:
            begin()
        silence = Silence(reply.silence_s, say_comment) if reply.silence_s else None
        try:
            async for part in reply.parts:
                if not self.first_part:
                    self.first_part = time.perf_counter()
                    if not reply.is_begun:
                        begin()
                if writer.must_wait:
                    await writer.wait()
                writer.part(part)
                if silence is not None:
                    silence.broken()
        finally:
            if silence is not None:
                silence.end()
        if not reply.is_begun:
            begin()
        writer.end()

    async def _send_parts(self, reply: StreamReply) -> None:
        lock = asyncio.Lock()

        async def send(data: bytes) -> None:
            async with lock:
                if not reply.is_begun:
                    headers = self._begin_parts(reply)
                    await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})
                if data:
                    await self.send({"type": "http.response.body", "body": data, "more_body": True})

        signs: set[asyncio.Task[None]] = set()

        def say_comment() -> None:
            if not signs:
                sign = asyncio.get_running_loop().create_task(send(reply.comment))
                signs.add(sign)
                sign.add_done_callback(signs.discard)

        if not reply.waits:
            await send(b"")
        silence = Silence(reply.silence_s, say_comment) if reply.silence_s else None
        try:
            async for part in reply.parts:
                if not self.first_part:
                    self.first_part = time.perf_counter()
                await send(part)
                if silence is not None:
                    silence.broken()
        finally:
            if silence is not None:
                silence.end()
            for sign in signs:
                sign.cancel()
        await send(b"")
        await self.send({"type": "http.response.body", "body": b""})

    def _begin_parts(self, reply: StreamReply) -> list[tuple[bytes, bytes]]:
        reply.is_begun = True
        headers = [(b"content-type", reply.content_type), *reply.headers]
        self._begin(reply.status, headers)
        return headers

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Note the beginning, and add what every answer carries."""
        self.began = time.perf_counter()
        self.status = status
        self.content_type = headers[0][1]
        headers.append((b"x-request-id", self.exchange.request_id.encode("latin-1")))
        headers.append((b"x-process-time", b"%.6f" % (self.began - self.started)))
        if self.exchange.front is not None and self.exchange.front.request_id_header:
            headers.append((self.exchange.front.request_id_header, self.exchange.request_id.encode("latin-1")))
        if self.has_origin:
            headers.extend(CORS_HEADERS)


class Silence:
    """Calls `say` whenever `seconds` have gone by without a word. One timer, however many words there are."""

    __slots__ = ("_loop", "_say", "_seconds", "_since", "_timer")

    def __init__(self, seconds: float, say: Callable[[], None]) -> None:
        self._seconds = seconds
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_at(self._since + seconds, self._look)

    def broken(self) -> None:
        self._since = self._loop.time()

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._loop.time() >= self._since + self._seconds:
            self._since = self._loop.time()
            self._say()
        self._timer = self._loop.call_at(self._since + self._seconds, self._look)
