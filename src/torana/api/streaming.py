"""Answers as streams of bytes, in the formats of contract 1.5."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from torana.answers import Answer
from torana.api.exchange import StreamCut, StreamReply
from torana.code_answers import CodeAnswer
from torana.errors import ProviderError, Refusal

RAW_TEXT = b"text/event-stream; charset=utf-8"
"""The content type that clients know; the bytes are plain text without any framing."""

STREAM_HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]

UnderWay = Answer | CodeAnswer
"""Its first batch is in; whoever streams it closes it."""
U = TypeVar("U", Answer, CodeAnswer)

Failed = Callable[[ProviderError], Refusal]
"""What a provider's failure is on an endpoint."""


class ClosingStream(AsyncIterator[bytes]):
    """`parts`, whose answer is closed with it. A generator that never ran would leave the answer open.

    A provider's failure ends the stream by a cut.

    failed  what a failure is before the first part, where the head waits for that; a model may think and then fail
    """

    __slots__ = ("answer", "failed", "parts")

    def __init__(self, answer: UnderWay, parts: AsyncIterator[bytes], failed: Failed | None = None) -> None:
        self.answer = answer
        self.parts = parts
        self.failed = failed

    async def __anext__(self) -> bytes:
        try:
            part = await anext(self.parts)
        except ProviderError as error:
            if self.failed is not None:
                raise self.failed(error) from error
            raise StreamCut from error
        self.failed = None
        return part

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


def text_reply(answer: U, failed: Failed, write: Callable[[U], AsyncIterator[bytes]] = raw_text) -> StreamReply:
    """An answer streamed as raw text, or as `write` has it, and closed with its stream."""
    parts = ClosingStream(answer, write(answer), failed)
    return StreamReply(RAW_TEXT, parts, headers=STREAM_HEADERS + answer.headers, waits=True)
