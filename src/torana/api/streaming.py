"""Answers as streams of bytes, in the formats of contract 1.5."""

from collections.abc import AsyncIterator
from typing import Protocol

from torana.api.exchange import StreamCut
from torana.chat import Chunk
from torana.errors import ProviderError

RAW_TEXT = b"text/event-stream; charset=utf-8"
"""The content type that clients know; the bytes are plain text without any framing."""

STREAM_HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Closable(Protocol):
    """An answer under way."""

    def __aiter__(self) -> AsyncIterator[list[Chunk]]: ...
    async def aclose(self) -> None: ...


class ClosingStream(AsyncIterator[bytes]):
    """`parts`, whose answer is closed with it. A generator that never ran would leave the answer open.

    A provider's failure ends the stream by a cut.
    """

    __slots__ = ("answer", "parts")

    def __init__(self, answer: Closable, parts: AsyncIterator[bytes]) -> None:
        self.answer = answer
        self.parts = parts

    async def __anext__(self) -> bytes:
        try:
            return await anext(self.parts)
        except ProviderError as error:
            raise StreamCut from error

    async def aclose(self) -> None:
        try:
            close = getattr(self.parts, "aclose", None)
            if close is not None:
                await close()
        finally:
            await self.answer.aclose()


async def raw_text(answer: Closable) -> AsyncIterator[bytes]:
    """The text of each batch as it came: no framing, no terminator."""
    async for batch in answer:
        text = "".join([chunk.text for chunk in batch])
        if text:
            yield text.encode("utf-8", "replace")
