"""The event stream of /v4/code/suggestions: exact bytes (contract 6.4), keep-alive comments, errors (1.5)."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from torana.api.connection import DRAINING
from torana.api.exchange import StreamCut, StreamReply
from torana.api.streaming import RAW_TEXT, STREAM_HEADERS
from torana.code_answers import CodeAnswer
from torana.errors import ProviderError, Refusal
from torana.refusals import may_be_retried

KEEP_ALIVE = b": keep-alive\r\n\r\n"
STREAM_END = b"event: stream_end\r\ndata: null\r\n\r\n"
SSE_HEADERS = [*STREAM_HEADERS, (b"x-streaming-format", b"sse")]


class SuggestionEvents(AsyncIterator[bytes]):
    """One answer as events. The call is opened with the first step, so that silence can be told meanwhile.

    begin     opens the call to the gateway
    metadata  what `stream_start` says about the answer
    failed    a provider's failure as the refusal that it would have been
    silence_s the longest time without a byte; 0: no keep-alive comments
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[CodeAnswer]],
        metadata: Callable[[CodeAnswer], dict[str, Any]],
        failed: Callable[[ProviderError], Refusal],
        silence_s: float,
    ) -> None:
        self._begin = begin
        self._metadata = metadata
        self._failed = failed
        self._answer: CodeAnswer | None = None
        self._parts = self._write()
        self.reply = StreamReply(
            RAW_TEXT, self, headers=list(SSE_HEADERS), waits=True, silence_s=silence_s, comment=KEEP_ALIVE
        )

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """Ends the call in whatever state it is; the provider is hung up on."""
        await self._parts.aclose()
        if self._answer is not None:
            await self._answer.aclose()

    async def _write(self) -> AsyncGenerator[bytes, None]:
        is_told = False
        try:
            answer = self._answer = await self._begin()
            self.reply.headers += answer.headers
            start = write_start(self._metadata(answer))
            async for batch in answer:
                text = "".join([chunk.text for chunk in batch])
                if text:
                    is_told = True
                    yield start + write_chunk(text)
                    start = b""
            yield start + STREAM_END
        except ProviderError as error:
            if not self.reply.is_begun:
                raise self._failed(error) from error
            refusal = self._failed(error)
            if is_told:
                # Asked again, the model would begin anew behind what was said already.
                refusal.is_retryable = False
            yield write_error(refusal)
            raise StreamCut from error
        except Refusal as refusal:
            # Before anything was sent it is the answer; behind a comment it can only be told.
            if not self.reply.is_begun:
                raise
            yield write_error(refusal)
            raise StreamCut from refusal
        except asyncio.CancelledError as stopped:
            if stopped.args != (DRAINING,) or not self.reply.is_begun:
                raise
            yield write_error(Refusal(503, "server_draining", "The gateway is stopping; ask again"))
            raise StreamCut from stopped


def write_start(metadata: dict[str, Any]) -> bytes:
    return b"event: stream_start\r\ndata: " + _write({"metadata": metadata}) + b"\r\n\r\n"


def write_chunk(text: str) -> bytes:
    return (
        b'event: content_chunk\r\ndata: {"choices": [{"delta": {"content": '
        + _write(text)
        + b'}, "index": 0}]}\r\n\r\n'
    )


def write_error(refusal: Refusal) -> bytes:
    data = {"code": refusal.code, "message": str(refusal), "retryable": may_be_retried(refusal)}
    return b"event: error\r\ndata: " + _write(data) + b"\r\n\r\n"


def _write(value: Any) -> bytes:
    # The contract's samples have spaces; ASCII only, so that no letter can be taken for a line end.
    return json.dumps(value).encode()
