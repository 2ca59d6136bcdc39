"""The event stream of /v4/code/suggestions: exact bytes (contract 6.4), keep-alive comments, errors (1.5)."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from torana.api.exchange import StreamCut
from torana.api.streaming import Closable
from torana.chat import Chunk
from torana.errors import ProviderError, Refusal
from torana.refusals import may_be_retried

KEEP_ALIVE = b": keep-alive\r\n\r\n"
STREAM_END = b"event: stream_end\r\ndata: null\r\n\r\n"

AnswerT = TypeVar("AnswerT", bound=Closable)


class SuggestionEvents(AsyncIterator[bytes], Generic[AnswerT]):
    """One answer as events; made before or after the answer has begun.

    opening   the call to the gateway, done or not; it is ended together with the stream
    metadata  what `stream_start` says about the answer
    failed    a provider's failure as the refusal that it would have been
    silence_s the longest time without a byte; None: no keep-alive comments
    """

    def __init__(
        self,
        opening: "asyncio.Task[AnswerT]",
        metadata: Callable[[AnswerT], dict[str, Any]],
        failed: Callable[[ProviderError], Refusal],
        silence_s: float | None,
    ) -> None:
        self._opening = opening
        self._metadata = metadata
        self._failed = failed
        self._silence_s = silence_s
        self._reading: asyncio.Task[list[Chunk] | None] | None = None
        self._parts = self._write()

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """Ends the call in whatever state it is; the provider is hung up on."""
        await self._parts.aclose()
        if self._reading is not None:
            await end_task(self._reading)
        await close_opening(self._opening)

    async def _write(self) -> AsyncGenerator[bytes, None]:
        try:
            while not await is_done(self._opening, self._silence_s):
                yield KEEP_ALIVE
            answer = self._opening.result()
            batches = answer.batches()
            start = write_start(self._metadata(answer))
            while True:
                # A task, because a time-out on the iterator itself would end the answer.
                self._reading = asyncio.create_task(_next_batch(batches))
                while not await is_done(self._reading, self._silence_s):
                    yield KEEP_ALIVE
                batch = self._reading.result()
                if batch is None:
                    break
                text = "".join([chunk.text for chunk in batch])
                part = start + write_chunk(text) if text else start
                start = b""
                if part:
                    yield part
            yield start + STREAM_END
        except ProviderError as error:
            yield write_error(self._failed(error))
            raise StreamCut from error
        except Refusal as refusal:
            # Only where a keep-alive has already committed the status.
            yield write_error(refusal)
            raise StreamCut from refusal


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


async def is_done(task: "asyncio.Task[Any]", patience_s: float | None) -> bool:
    """True once the task has ended, False after `patience_s`; the task itself goes on."""
    done, _ = await asyncio.wait((task,), timeout=patience_s)
    return bool(done)


async def close_opening(opening: "asyncio.Task[AnswerT]") -> None:
    """End a call to the gateway, and close the answer where it had already come."""
    await end_task(opening)
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().aclose()


async def end_task(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and wait for its end; its outcome is looked at, so that nothing is reported as lost."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


async def _next_batch(batches: AsyncIterator[list[Chunk]]) -> list[Chunk] | None:
    return await anext(batches, None)


def _write(value: Any) -> bytes:
    # The contract's samples have spaces; ASCII only, so that no letter can be taken for a line end.
    return json.dumps(value).encode()
