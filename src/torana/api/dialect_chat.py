"""Any client, any model: chat completions, responses and messages, asked as their vendors' SDKs ask them.

A provider that speaks the client's dialect gets the client's bytes, and the client its answer's. Any other
one gets our words for the request, and its answer is written in the client's dialect.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.answers import Answer
from torana.api.connection import DRAINING
from torana.api.dialect_front import ANTHROPIC, OPENAI, Front
from torana.api.dialect_gate import QUOTA, DialectGate, beta_of, forwarded
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route, StreamCut, StreamReply
from torana.api.metadata import may_cache_prompt
from torana.api.streaming import STREAM_HEADERS
from torana.caller import Permit
from torana.chat import ChatRequest, Chunk, Source
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import EventWriter, ServedDialect
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES, UNATTENDED
from torana.errors import Invalid, ProviderError, Refusal
from torana.gateway import Gateway
from torana.routing.models import Model

EVENT_STREAM = b"text/event-stream; charset=utf-8"
COMMENT = b": keep-alive\n\n"

MAX_UNSTREAMED_TOKENS = 16_384
"""Of an answer that names no limit and does not stream: longer ones outlast connections. Source: Anthropic API
reference, "Errors", long requests."""


class DialectChat:
    """One call of a model, in each of the three dialects."""

    def __init__(self, gateway: Gateway, gate: DialectGate, silence_s: float) -> None:
        self.gateway = gateway
        self.gate = gate
        self.silence_s = silence_s
        """The longest time without a byte on a stream; 0: any."""

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
        model, chat = self._read(dialect, exchange, permit)
        failed = partial(self.gate.failed, front)
        ask = partial(self.gateway.ask, permit, model, chat, exchange.facts)
        id_, created = _answer_id(dialect, exchange.request_id), int(time.time())
        if chat.stream:
            return DialectStream(
                ask, dialect, lambda name: dialect.write_events(name, id_, created, chat), front, failed, self.silence_s
            ).reply
        try:
            answer = await ask()
            try:
                chunks = [chunk async for batch in answer for chunk in batch]
            finally:
                await answer.aclose()
        except ProviderError as error:
            raise failed(error) from error
        if answer.is_passing:
            body = b"".join([chunk.raw for chunk in chunks])
        else:
            body = dialect.write_answer(chunks, answer.upstream_model, id_, created, chat)
        return Reply(200, body, [JSON_HEADER, *answer.headers, *front.write_limits(answer.standings)])

    def _read(self, dialect: ServedDialect, exchange: Exchange, permit: Permit) -> tuple[Model, ChatRequest]:
        """The model that is asked and what it is asked; raises Invalid, Refusal 400, 404, or 503 for want of room."""
        name, is_streamed, allowed = self.gate.peek(exchange.body)
        model = self.gate.offered.answering(name)
        if model.dimensions:
            raise Invalid(("model",), "This model makes embeddings, and no answers")
        self.gateway.look(permit, model, exchange.facts)
        source = Source(
            dialect=dialect.name,
            body=exchange.body,
            headers=forwarded(exchange, dialect.name),
            query=beta_of(exchange.query) if dialect is MESSAGES else "",
        )
        try:
            chat, _ = dialect.read_request(exchange.body)
        except Invalid as fault:
            # A member that is new to us is none of our business where its own vendor answers.
            if fault.type in ("json_invalid", UNATTENDED) or not self.gateway.speaks(model, dialect.name):
                raise
            chat, source = ChatRequest(messages=()), replace_fields(source, is_read=False, allowed_tokens=allowed)
        # Agents seldom name a limit, and mean the model's own.
        limit = model.output_limit if is_streamed else min(model.output_limit, MAX_UNSTREAMED_TOKENS)
        # Anthropic's clients mark what is to be kept themselves.
        wants_cache = dialect is not MESSAGES and may_cache_prompt(exchange.headers)
        return model, replace_fields(
            chat, stream=is_streamed, source=source, output_limit=limit, wants_cache=wants_cache
        )


class DialectStream(AsyncIterator[bytes]):
    """One answer as events of the client's dialect; one that breaks is told so by an error event, then cut.

    A class and no generator: one that is closed before its first step would leave the answer open.

    ask           opens the call; with the first step, so that silence can be told meanwhile
    write_events  the answering model's name → a writer; not needed where the answer passes as it comes
    """

    __slots__ = (
        "_answer",
        "_ask",
        "_batches",
        "_dialect",
        "_failed",
        "_failure",
        "_front",
        "_write_events",
        "_writer",
        "reply",
    )

    def __init__(
        self,
        ask: Callable[[], Awaitable[Answer]],
        dialect: ServedDialect,
        write_events: Callable[[str], EventWriter],
        front: Front,
        failed: Callable[[ProviderError], Refusal],
        silence_s: float,
    ) -> None:
        self._ask = ask
        self._dialect = dialect
        self._write_events = write_events
        self._front = front
        self._failed = failed
        self._answer: Answer | None = None
        self._batches: AsyncIterator[list[Chunk]] | None = None
        self._writer: EventWriter | None = None
        self._failure: BaseException | None = None
        self.reply = StreamReply(
            EVENT_STREAM, self, headers=list(STREAM_HEADERS), waits=True, silence_s=silence_s, comment=COMMENT
        )

    async def __anext__(self) -> bytes:
        if self._failure is not None:
            raise StreamCut from self._failure
        try:
            batches = self._batches or await self._open()
            while True:
                batch = await anext(batches)
                if self._writer is not None:
                    data = self._writer.write(batch)
                else:
                    data = batch[0].raw if len(batch) == 1 else b"".join([chunk.raw for chunk in batch])
                if data:
                    return data
        except ProviderError as error:
            if not self.reply.is_begun:
                raise self._failed(error) from error
            return self._tell(error, self._failed(error))
        except Refusal as refusal:
            if not self.reply.is_begun:
                raise
            return self._tell(refusal, refusal)
        except asyncio.CancelledError as stopped:
            if stopped.args != (DRAINING,) or not self.reply.is_begun:
                raise
            return self._tell(stopped, Refusal(503, "server_draining", "The gateway is stopping; ask again"))

    async def aclose(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()

    async def _open(self) -> AsyncIterator[list[Chunk]]:
        answer = self._answer = await self._ask()
        self.reply.headers += answer.headers + self._front.write_limits(answer.standings)
        if not answer.is_passing:
            self._writer = self._write_events(answer.upstream_model)
        self._batches = answer
        return answer

    def _tell(self, failure: BaseException, refusal: Refusal) -> bytes:
        """The error event of an answer that has begun."""
        self._failure = failure.with_traceback(None)  # its frames hold this: a ring for the collector
        write = self._dialect.write_error_event if self._writer is None else self._writer.error
        return write(refusal.status, refusal.code, str(refusal))


_ID_PREFIXES = {"messages": "msg_", "responses": "resp_"}


def _answer_id(dialect: ServedDialect, request_id: str) -> str:
    """An id of the shape that the dialect's clients know, and that leads to the request's log line."""
    safe = "".join(letter for letter in request_id if letter.isalnum() or letter in "-_")[:64]
    return _ID_PREFIXES.get(dialect.name, "chatcmpl-") + safe
