"""Any client, any model: chat completions, responses and messages, asked as their vendors' SDKs ask them.

A provider that speaks the client's dialect gets the client's bytes, and the client its answer's. Any other
one gets our words for the request, and its answer is written in the client's dialect.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.answers import Answer
from torana.api.connection import DRAINING
from torana.api.dialect_front import ANTHROPIC, OPENAI, Front
from torana.api.dialect_gate import QUOTA, DialectGate, beta_of, forwarded, peek
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route, StreamCut, StreamReply
from torana.api.streaming import STREAM_HEADERS
from torana.caller import Permit
from torana.chat import ChatRequest, Chunk, Source
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import EventWriter, ServedDialect
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.errors import Invalid, ProviderError, Refusal
from torana.gateway import Gateway
from torana.routing.models import Model

EVENT_STREAM = b"text/event-stream; charset=utf-8"


class DialectChat:
    """One call of a model, in each of the three dialects."""

    def __init__(self, gateway: Gateway, gate: DialectGate) -> None:
        self.gateway = gateway
        self.gate = gate

    def routes(self) -> list[Route]:
        return [
            self._route(OPENAI, CHAT_COMPLETIONS),
            self._route(OPENAI, RESPONSES),
            self._route(ANTHROPIC, MESSAGES),
        ]

    def _route(self, front: Front, dialect: ServedDialect) -> Route:
        return Route(
            path=front.prefix + dialect.path,
            policy=self.gate.policy,
            handle=partial(self._converse, front, dialect),
            body="proxy",
            quota=QUOTA,
        )

    async def _converse(
        self, front: Front, dialect: ServedDialect, exchange: Exchange, permit: Permit, _order: Any
    ) -> Reply | StreamReply:
        model, chat = self._read(dialect, exchange)
        failed = partial(self.gate.failed, front)
        id_, created = _answer_id(dialect, exchange.request_id), int(time.time())
        try:
            answer = await self.gateway.ask(permit, model, chat, exchange.facts)
        except ProviderError as error:
            raise failed(error) from error
        if chat.stream:
            writer = None if answer.is_passing else dialect.write_events(answer.upstream_model, id_, created)
            parts = DialectStream(answer, dialect, writer, failed)
            return StreamReply(EVENT_STREAM, parts, headers=STREAM_HEADERS + answer.headers)
        try:
            chunks = [chunk async for batch in answer.batches() for chunk in batch]
        except ProviderError as error:
            raise failed(error) from error
        finally:
            await answer.aclose()
        if answer.is_passing:
            body = b"".join([chunk.raw for chunk in chunks])
        else:
            body = dialect.write_answer(chunks, answer.upstream_model, id_, created)
        return Reply(200, body, [JSON_HEADER, *answer.headers])

    def _read(self, dialect: ServedDialect, exchange: Exchange) -> tuple[Model, ChatRequest]:
        """The model that is asked and what it is asked; raises Invalid, Refusal 400 or 404."""
        name, is_streamed = peek(exchange.body)
        model = self.gate.offered.find(name)
        source = Source(
            dialect=dialect.name,
            body=exchange.body,
            headers=forwarded(exchange, dialect.name),
            query=beta_of(exchange.query) if dialect is MESSAGES else "",
        )
        try:
            chat, _ = dialect.read_request(exchange.body)
        except Invalid:
            # A member that is new to us is none of our business where its own vendor answers.
            if not self.gateway.speaks(model, dialect.name):
                raise
            chat, source = ChatRequest(messages=()), replace_fields(source, is_read=False)
        return model, replace_fields(chat, stream=is_streamed, source=source)


class DialectStream(AsyncIterator[bytes]):
    """One answer as events of the client's dialect; one that breaks is told so by an error event, then cut.

    A class and no generator: one that is closed before its first step would leave the answer open.

    writer  None where the answer passes as it comes
    """

    __slots__ = ("_answer", "_batches", "_dialect", "_failed", "_failure", "_writer")

    def __init__(
        self,
        answer: Answer,
        dialect: ServedDialect,
        writer: EventWriter | None,
        failed: Callable[[ProviderError], Refusal],
    ) -> None:
        self._answer = answer
        self._batches = answer.batches()
        self._dialect = dialect
        self._writer = writer
        self._failed = failed
        self._failure: BaseException | None = None

    async def __anext__(self) -> bytes:
        if self._failure is not None:
            raise StreamCut from self._failure
        try:
            while True:
                batch = await anext(self._batches)
                if data := self._write(batch):
                    return data
        except ProviderError as error:
            self._failure = error
            refusal = self._failed(error)
            return self._write_error(refusal.status, refusal.code, str(refusal))
        except asyncio.CancelledError as stopped:
            if stopped.args != (DRAINING,):
                raise
            self._failure = stopped
            return self._write_error(503, "server_draining", "The gateway is stopping; ask again.")

    async def aclose(self) -> None:
        await self._answer.aclose()

    def _write(self, batch: list[Chunk]) -> bytes:
        if self._writer is not None:
            return self._writer.write(batch)
        return batch[0].raw if len(batch) == 1 else b"".join([chunk.raw for chunk in batch])

    def _write_error(self, status: int, code: str, message: str) -> bytes:
        if self._writer is not None:
            return self._writer.error(status, code, message)
        return self._dialect.write_error_event(status, code, message)


_ID_PREFIXES = {"messages": "msg_", "responses": "resp_"}


def _answer_id(dialect: ServedDialect, request_id: str) -> str:
    """An id of the shape that the dialect's clients know, and that leads to the request's log line."""
    safe = "".join(letter for letter in request_id if letter.isalnum() or letter in "-_")[:64]
    return _ID_PREFIXES.get(dialect.name, "chatcmpl-") + safe
