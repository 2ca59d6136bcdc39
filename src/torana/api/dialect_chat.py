"""Any client, any model: chat completions, responses and messages, asked as their vendors' SDKs ask them.

A provider that speaks the client's dialect gets the client's bytes, and the client its answer's. Any other
one gets our words for the request, and its answer is written in the client's dialect.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace as replace_fields

from torana.access.permissions import permit_proxy
from torana.answers import Answer
from torana.api.connection import DRAINING
from torana.api.dialect_front import ANTHROPIC, OPENAI, Front, provider_failed
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route, StreamCut, StreamReply
from torana.api.streaming import STREAM_HEADERS
from torana.caller import Permit
from torana.catalog.records import UnitPrimitive
from torana.chat import ChatRequest, Chunk, Source
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import EventWriter, ServedDialect
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.errors import Invalid, ProviderError, ProviderRefusedKey, Refusal
from torana.gateway import Gateway
from torana.routing.models import Model
from torana.routing.offered import OfferedModels
from torana.settings import Settings
from torana.telemetry.redaction import Redactor

logger = logging.getLogger("torana.api.dialects")

UNIT_PRIMITIVE = "ai_gateway_model_provider_proxy"
"""Where the header names no other."""

EVENT_STREAM = b"text/event-stream; charset=utf-8"

FORWARDED = {"messages": (b"anthropic-version", b"anthropic-beta")}
"""Headers of a client that a provider of its dialect may see."""


class _Peek(msgspec.Struct):
    """What is looked at before anything is read."""

    model: Any = None
    stream: Any = None


_peek = msgspec.json.Decoder(_Peek)


class DialectEndpoints:
    """`/openai/v1/…` and `/anthropic/v1/…`."""

    def __init__(
        self,
        gateway: Gateway,
        unit_primitives: Mapping[str, UnitPrimitive],
        settings: Settings,
        redactor: Redactor,
    ) -> None:
        self.gateway = gateway
        self.offered = OfferedModels(gateway.models)
        self.unit_primitives = unit_primitives
        self.settings = settings
        self.mask = redactor.text

    def routes(self) -> list[Route]:
        return [
            self._route(OPENAI, CHAT_COMPLETIONS),
            self._route(OPENAI, RESPONSES),
            self._route(ANTHROPIC, MESSAGES),
            *(
                Route(path=path, methods=("HEAD",), handle=self.show_life, body="none", is_open=True)
                for path in ("/", *(front.prefix + end for front in (OPENAI, ANTHROPIC) for end in ENDS))
            ),
        ]

    def policy(self, exchange: Exchange, _order: Any) -> Permit:
        return permit_proxy(
            exchange.caller,
            exchange.headers,
            self.unit_primitives,
            self.settings.auth,
            default=UNIT_PRIMITIVE,
            lenient=True,
        )

    async def show_life(self, _exchange: Exchange, _permit: Permit, _order: Any) -> Reply:
        return Reply(200)

    def _route(self, front: Front, dialect: ServedDialect) -> Route:
        return Route(
            path=front.prefix + dialect.path,
            policy=self.policy,
            handle=partial(self._converse, front, dialect),
            body="proxy",
            quota="ai_gateway_proxy_use",
        )

    async def _converse(
        self, front: Front, dialect: ServedDialect, exchange: Exchange, permit: Permit, _order: Any
    ) -> Reply | StreamReply:
        model, chat = self._read(dialect, exchange)
        failed = partial(self._failed, front)
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
        name, is_streamed = _peek_at(exchange.body)
        model = self.offered.find(name)
        source = Source(
            dialect=dialect.name,
            body=exchange.body,
            headers=_forwarded(exchange, FORWARDED.get(dialect.name, ())),
            query=_beta_of(exchange.query) if dialect is MESSAGES else "",
        )
        try:
            chat, _ = dialect.read_request(exchange.body)
        except Invalid:
            # A member that is new to us is none of our business where its own vendor answers.
            if not self.gateway.speaks(model, dialect.name):
                raise
            chat, source = ChatRequest(messages=()), replace_fields(source, is_read=False)
        return model, replace_fields(chat, stream=is_streamed, source=source)

    def _failed(self, front: Front, error: ProviderError) -> Refusal:
        level = logging.ERROR if isinstance(error, ProviderRefusedKey) else logging.WARNING
        logger.log(level, "model call failed", extra={"code": error.code, "where": error.where, "reason": str(error)})
        return provider_failed(error, front, self.mask)


ENDS = ("", "/", "/v1", "/v1/")
"""What clients have behind the prefix when they ask whether anybody is there."""


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


def _peek_at(body: bytes) -> tuple[str, bool]:
    try:
        found = _peek.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Refusal(400, "json_invalid", "The body is not a JSON object") from None
    if not isinstance(found.model, str) or not found.model:
        raise Refusal(400, "model_missing", "The body names no model", missing="model")
    return found.model, found.stream is True


def _forwarded(exchange: Exchange, names: tuple[bytes, ...]) -> dict[str, str]:
    """The client's allow-listed headers; repeated ones are joined, as HTTP has it."""
    found: dict[str, str] = {}
    for name, value in exchange.headers.pairs:
        if name in names:
            key, text = name.decode(), value.decode("latin-1").strip()
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _beta_of(query: bytes) -> str:
    """Of the query only this goes on; SDKs send it with requests for beta features."""
    return "?beta=true" if query and ("beta", "true") in parse_qsl(query.decode("latin-1")) else ""


_ID_PREFIXES = {"messages": "msg_", "responses": "resp_"}


def _answer_id(dialect: ServedDialect, request_id: str) -> str:
    """An id of the shape that the dialect's clients know, and that leads to the request's log line."""
    safe = "".join(letter for letter in request_id if letter.isalnum() or letter in "-_")[:64]
    return _ID_PREFIXES.get(dialect.name, "chatcmpl-") + safe
