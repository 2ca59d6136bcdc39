"""An answer under way, batch by batch: a vendor's bytes become chunks as they come in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from torana.chat import ChatRequest, Chunk
from torana.dialects.bodies import BOM
from torana.dialects.dialect import Dialect, EventReader
from torana.dialects.digits import DigitWatch
from torana.dialects.passing import PassingReader, pass_answer
from torana.errors import ProviderBroke, ProviderError
from torana.providers.provider import Deployment
from torana.transport import WireAnswer

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""A whole answer; a model's longest output is far below."""

LARGE_BYTES = 256 * 1024
"""Larger answers are read in a thread, for a server may write them to take long."""

MAX_CHUNKS = 10_000
"""Of a whole answer: texts, thoughts and calls of all its choices."""

MAX_EVENTS_CHUNKS = 100_000
"""The same of an answer that streams although nobody asked for it: a chunk a token."""

MAX_BLANK_BYTES = 64 * 1024
"""Before an answer; servers send some to keep the connection."""

PART_BYTES = 64 * 1024

_EVENTS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a stream of events begins."""

TAIL_S = 0.25
"""Patience for the end of a body whose answer is complete."""

Read = TypeVar("Read")

Batch = list[Chunk]
"""Chunks that one read from the provider brought; never empty."""


class Batches(Protocol):
    """An answer under way, batch by batch."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...
    def __anext__(self) -> Coroutine[Any, Any, Batch]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...


Passing = Literal["no", "whole", "usage hidden"]
"""Whether an answer goes on as it came, and whether the client is shown the usage that we asked for."""


Send = Callable[[Deployment, ChatRequest], Awaitable[tuple[WireAnswer, Dialect, Passing]]]
"""Asks once; the answer's head is in. Raises ProviderError."""


class Sending:
    """One call of a provider and its answer. No generator: each of those costs the event loop its bookkeeping."""

    __slots__ = ("_answer", "_chat", "_deployment", "_is_over", "_is_said", "_reader", "_send")

    def __init__(self, send: Send, deployment: Deployment, chat: ChatRequest) -> None:
        self._send = send
        self._deployment = deployment
        self._chat = chat
        self._answer: WireAnswer | None = None
        self._reader: EventReader | PassingReader | None = None
        self._is_said = False
        """The last batch is out, HTTP's own end is not in."""
        self._is_over = False

    def __aiter__(self) -> "Sending":
        return self

    async def __anext__(self) -> Batch:
        if self._is_over:
            raise StopAsyncIteration
        try:
            batch = await self._read()
        except BaseException:
            self._end()
            raise
        if batch is None:
            self._end()
            raise StopAsyncIteration
        return batch

    async def _read(self) -> Batch | None:
        answer, reader = self._answer, self._reader
        if answer is None or reader is None:
            answer, dialect, passing = await self._send(self._deployment, self._chat)
            self._answer = answer
            begun = await _read_beginning(answer) if self._chat.stream else b""
            if not self._chat.stream or _bare(begun).startswith(b"{"):
                return await self._read_whole(answer, dialect, passing, begun)
            reader = self._reader = (
                dialect.read_events()
                if passing == "no"
                else PassingReader(dialect, hides_usage=passing == "usage hidden")
            )
            if batch := reader.feed(begun):
                self._is_said = batch[-1].is_last
                return batch
        if self._is_said:
            await _read_tail(answer)
            return None
        while data := await answer.read():
            if batch := reader.feed(data):
                self._is_said = batch[-1].is_last
                return batch
        self._end()
        return reader.close() or None

    async def _read_whole(self, answer: WireAnswer, dialect: Dialect, passing: Passing, begun: bytes) -> Batch:
        """All of an answer. Some servers stream to everybody, others to nobody; what came is read as what it is."""
        said = begun + await answer.read_all(MAX_ANSWER_BYTES, DigitWatch().see)
        self._end()
        is_stream = _bare(said[: MAX_BLANK_BYTES + PART_BYTES]).startswith(_EVENTS)
        read: Callable[[bytes], Batch] = dialect.read_answer
        if is_stream:
            read = partial(_read_events, dialect)
        elif passing != "no" and not self._chat.stream:
            read = partial(pass_answer, dialect)
        chunks = await in_thread_if_large(read, said)
        if len(chunks) > MAX_CHUNKS and not is_stream:
            raise ProviderBroke("an answer of more parts than any has")
        return chunks

    async def aclose(self) -> None:
        self._end()

    def _end(self) -> None:
        self._is_over = True
        answer, self._answer = self._answer, None
        self._reader = None  # which may keep the failure that it has met
        if answer is not None:
            answer.close()


async def in_thread_if_large(read: Callable[[bytes], Read], said: bytes) -> Read:
    """What is read of a whole answer."""
    return read(said) if len(said) <= LARGE_BYTES else await asyncio.to_thread(read, said)


async def _read_beginning(answer: WireAnswer) -> bytes:
    """The first bytes of a body that say something."""
    begun = b""
    while data := await answer.read():
        begun += data
        if len(begun) > MAX_BLANK_BYTES or _bare(begun):
            break
    return begun


def _bare(begun: bytes) -> bytes:
    return begun.removeprefix(BOM).lstrip()


def _read_events(dialect: Dialect, said: bytes) -> Batch:
    reader, chunks = dialect.read_events(), list[Chunk]()
    for start in range(0, len(said), PART_BYTES):
        chunks += reader.feed(said[start : start + PART_BYTES])
        if len(chunks) > MAX_EVENTS_CHUNKS:
            raise ProviderBroke("an answer of more parts than any has")
    return chunks + reader.close()


async def _read_tail(answer: WireAnswer) -> None:
    """HTTP's own end gives the connection back; an answer that is complete does not fail for want of it."""
    with suppress(TimeoutError, ProviderError):
        async with asyncio.timeout(TAIL_S):
            while await answer.read():
                pass
