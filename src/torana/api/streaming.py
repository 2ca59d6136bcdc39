"""Answers as streams of bytes, in the formats of contract 1.5."""

from collections.abc import AsyncIterator

from torana.answers import Answer, CodeAnswer
from torana.api.exchange import StreamCut, StreamReply
from torana.errors import ProviderError

RAW_TEXT = b"text/event-stream; charset=utf-8"
"""The content type that clients know; the bytes are plain text without any framing."""

STREAM_HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]

UnderWay = Answer | CodeAnswer
"""Its first batch is in; whoever streams it closes it."""


class ClosingStream(AsyncIterator[bytes]):
    """`parts`, whose answer is closed with it. A generator that never ran would leave the answer open.

    A provider's failure ends the stream by a cut.
    """

    __slots__ = ("answer", "parts")

    def __init__(self, answer: UnderWay, parts: AsyncIterator[bytes]) -> None:
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


async def raw_text(answer: UnderWay) -> AsyncIterator[bytes]:
    """The text of each batch as it came: no framing, no terminator."""
    async for batch in answer:
        text = "".join([chunk.text for chunk in batch])
        if text:
            yield text.encode("utf-8", "replace")


def text_reply(answer: UnderWay) -> StreamReply:
    """An answer streamed as raw text, closed with its stream."""
    return StreamReply(RAW_TEXT, ClosingStream(answer, raw_text(answer)), headers=STREAM_HEADERS + answer.headers)
