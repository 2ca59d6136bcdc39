"""The only place from which model vendors are called."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.chat import ChatRequest, Source, Usage
from torana.counting import estimate_tokens
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect
from torana.dialects.digits import DigitWatch
from torana.dialects.embedding_dialect import EmbeddingDialect, EmbeddingsRequest
from torana.dialects.lengths import fit_lengths
from torana.dialects.manners import wants_responses
from torana.dialects.messages import MESSAGES, read_count
from torana.dialects.openai_models import traits_of
from torana.dialects.passing import pass_on, replace_model
from torana.dialects.responses import RESPONSES
from torana.dialects.thoughts import has_thoughts, leave_thoughts_out, taken_by
from torana.errors import (
    MISCALLED,
    Invalid,
    NoCredentials,
    ProviderBlocked,
    ProviderBroke,
    ProviderError,
    ProviderGaveUp,
    ProviderRefused,
    ProviderRefusedKey,
)
from torana.providers.anthropic import Anthropic
from torana.providers.batches import MAX_ANSWER_BYTES, Batches, Passing, Sending, in_thread_if_large
from torana.providers.demo.demo import DemoProvider
from torana.providers.demo.embed import embed
from torana.providers.provider import Deployment, Provider
from torana.providers.retry_after import read_date, read_retry_after
from torana.providers.vectors import Vectors, pass_vectors, read_vectors
from torana.settings import TransportSettings
from torana.transport import Transport, WireAnswer

MAX_ERROR_BYTES = 64 * 1024
"""Of an error's words; servers that quote the whole request in theirs are cut short."""
ERROR_PATIENCE_S = 2.0
"""For an error's words: its status has come, and says most."""

MAX_HEADER_CHARS = 256

MAX_SKEW_S = 60.0
"""Clocks that differ by more are told of where a key or a signature is refused."""

logger = logging.getLogger("torana.providers")

COUNT_PATH = "/v1/messages/count_tokens"

SPOKEN_BY_CLIENTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (MESSAGES, CHAT_COMPLETIONS, RESPONSES)}

PARALLEL_PARTS = 8
"""Requests at a time for texts that one request does not take; some vendors' models take one text."""

DEMO_DIMENSIONS = 768
"""Length of the demo's vectors where nobody asks for another."""


class Sender:
    """Sends chat requests and relayed bodies, each exactly once; choosing and retrying is routing's business."""

    def __init__(
        self,
        transport: Transport,
        providers: Mapping[str, Provider],
        demo: DemoProvider,
        via: str,
        settings: TransportSettings,
    ) -> None:
        self.transport = transport
        self.providers = providers
        self.demo = demo
        self.via = via
        self.usual_headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "Via": via}
        """Of what is written here; a relayed body brings its own kind along."""
        self.settings = settings

    def stream(self, deployment: Deployment, chat: ChatRequest) -> Batches:
        """The answer in batches; the last chunk of the last one has `is_last`. Nothing is sent before the first step.

        Raises ProviderError, at any point. To be closed in every case.
        """
        if deployment.provider == self.demo.name:
            return self.demo.answer(chat)
        return Sending(self.send, deployment, chat)

    async def send(self, deployment: Deployment, chat: ChatRequest) -> tuple[WireAnswer, Dialect, Passing]:
        """Ask; the answer's head is in, and is no error. Raises ProviderError."""
        provider = self.providers[deployment.greeted_as]
        dialect = self._dialect(deployment, chat)
        headers = dict(self.usual_headers)
        if chat.user and deployment.quirks.affinity_header and _is_header_text(chat.user):
            headers[deployment.quirks.affinity_header] = chat.user
        source, path = chat.source, dialect.path
        if source is not None and not source.is_read and source.dialect != dialect.name:
            raise _unreadable(source.dialect)
        is_passing = source is not None and _passes(source, chat, dialect, deployment.model)
        is_usage_ours = False
        if source is not None and is_passing:
            body, is_usage_ours = pass_on(dialect, source.body, deployment.model, stream=chat.stream)
            path += source.query
            headers |= source.headers
        else:
            if source is not None and source.dialect == dialect.name:
                chat = leave_thoughts_out(chat, but_for=taken_by(deployment.model, dialect.name))
            body = dialect.write_request(
                fit_lengths(chat, dialect.name, deployment.model), deployment.model, stream=chat.stream
            )
        request = await provider.prepare(deployment, path, body, headers, stream=chat.stream)
        first_byte_s = chat.timeout_s or deployment.timeout_s or self.settings.first_byte_s
        idle_s = deployment.idle_s or None
        if source is not None and not chat.stream:
            # An answer that does not stream may take its whole time before the first byte; its client waits.
            first_byte_s, idle_s = self.settings.request_s, self.settings.request_s
        answer = await self.transport.send(request, first_byte_s=first_byte_s, idle_s=idle_s)
        try:
            await _check_head(answer, deployment, dialect.read_error)
        except BaseException:
            answer.close()
            raise
        return answer, dialect, "no" if not is_passing else "usage hidden" if is_usage_ours else "whole"

    def losses(self, deployment: Deployment, chat: ChatRequest) -> tuple[str, ...]:
        """What of a client's own words this deployment would not be told, by name.

        Raises Invalid for what cannot be left out either.
        """
        if chat.source is None or deployment.provider == self.demo.name:
            return ()
        dialect = self._dialect(deployment, chat)
        if _passes(chat.source, chat, dialect, deployment.model):
            return ()
        if not chat.source.is_read:
            raise _unreadable(chat.source.dialect)
        return dialect.losses(chat, deployment.model)

    def speaks(self, deployment: Deployment, dialect: str) -> bool:
        """True where a client's bytes in this dialect could be sent as they are."""
        if deployment.provider == self.demo.name:
            return False
        return dialect in deployment.also or dialect == self._own_dialect(deployment).name

    def dialect_of(self, deployment: Deployment, chat: ChatRequest | None = None) -> str:
        """The name of the format that the deployment is usually spoken to in, or is for this request."""
        if deployment.greeted_as not in self.providers:
            return self.demo.name
        return (self._own_dialect(deployment) if chat is None else self._dialect(deployment, chat)).name

    def _dialect(self, deployment: Deployment, chat: ChatRequest) -> Dialect:
        """The client's own, where the deployment speaks it; else the one it is usually spoken to in, or that in
        which its model may think beside tools."""
        asked = "" if chat.source is None else chat.source.dialect
        if asked in deployment.also:
            return SPOKEN_BY_CLIENTS[asked]
        own = self._own_dialect(deployment)
        is_better_asked = own.name == CHAT_COMPLETIONS.name != asked and RESPONSES.name in deployment.also
        if is_better_asked and wants_responses(chat, deployment.quirks, deployment.model):
            return RESPONSES
        return own

    def _own_dialect(self, deployment: Deployment) -> Dialect:
        own = self.providers[deployment.greeted_as].dialect_for(deployment)
        if own.name == CHAT_COMPLETIONS.name and RESPONSES.name in deployment.also:
            return RESPONSES if traits_of(deployment.model).in_responses_alone else own
        return own

    async def count(self, deployment: Deployment, chat: ChatRequest) -> int | None:
        """The provider's own count of a prompt in the messages dialect; None where it has no way to ask for it, or
        would refuse to: it wants its own proof of thoughts here too.

        Raises ProviderError.
        """
        provider = self.providers.get(deployment.greeted_as)
        source = chat.source
        if source is None or provider is None or provider.name != Anthropic.name or source.dialect != MESSAGES.name:
            return None
        if has_thoughts(chat, but_for=taken_by(deployment.model, MESSAGES.name)):
            return None
        headers = {**self.usual_headers, **source.headers}
        body = replace_model(source.body, deployment.model)
        request = await provider.prepare(deployment, COUNT_PATH + source.query, body, headers, stream=False)
        answer = await self.transport.send(request, first_byte_s=self.settings.first_byte_s)
        try:
            await _check_head(answer, deployment, MESSAGES.read_error)
            return read_count(await answer.read_all(MAX_ERROR_BYTES))
        finally:
            answer.close()

    async def embed(self, deployment: Deployment, request: EmbeddingsRequest) -> Vectors:
        """One vector for each input, in their order; raises ProviderError."""
        if deployment.provider == self.demo.name:
            # Long texts take a while; others go on meanwhile.
            return await asyncio.to_thread(_embed_as_demo, request)
        provider = self.providers[deployment.greeted_as]
        dialect = provider.embeddings_for(deployment)
        if dialect is None:
            raise ProviderError("no embeddings here", deployment.name)
        if request.source and dialect.takes_source:
            body = replace_model(request.source, deployment.model)
            said, _ = await self._ask_for_vectors(provider, dialect, deployment, body)
            return await in_thread_if_large(partial(pass_vectors, dialect, len(request.inputs)), said)
        most, inputs = dialect.most_inputs(deployment.model), request.inputs
        parts = [replace_fields(request, inputs=inputs[at : at + most]) for at in range(0, len(inputs), most)]
        bodies = [dialect.write_request(part, deployment.model) for part in parts]
        found: list[Vectors] = []
        for at in range(0, len(parts), PARALLEL_PARTS):
            asked = zip(parts[at : at + PARALLEL_PARTS], bodies[at : at + PARALLEL_PARTS], strict=True)
            found += await _all_of(self._embed_part(provider, dialect, deployment, part, body) for part, body in asked)
        told = [each.usage for each in found if each.usage is not None]
        usage: Usage | None = None
        if len(told) == len(found):
            usage = Usage(sum(each.input_tokens for each in told), is_suspect=any(each.is_suspect for each in told))
        return Vectors([row for each in found for row in each.rows], usage)

    def check_inputs(self, deployment: Deployment, request: EmbeddingsRequest) -> None:
        """Raises Invalid for what this deployment cannot be told."""
        provider = self.providers.get(deployment.greeted_as)
        dialect = provider.embeddings_for(deployment) if provider is not None else None
        if dialect is not None and not dialect.takes_source:
            # What is wrong with one text is wrong with all.
            first = replace_fields(request, inputs=request.inputs[:1])
            dialect.write_request(first, deployment.model)

    async def _embed_part(
        self,
        provider: Provider,
        dialect: EmbeddingDialect,
        deployment: Deployment,
        part: EmbeddingsRequest,
        body: bytes,
    ) -> Vectors:
        """As many texts as one request takes."""
        said, headers = await self._ask_for_vectors(provider, dialect, deployment, body)
        return await in_thread_if_large(partial(read_vectors, dialect, part, headers), said)

    async def _ask_for_vectors(
        self, provider: Provider, dialect: EmbeddingDialect, deployment: Deployment, body: bytes
    ) -> tuple[bytes, Mapping[str, str]]:
        headers = self.usual_headers
        wire = await provider.prepare(deployment, dialect.path, body, headers, stream=False)
        first_byte_s = deployment.timeout_s or self.settings.first_byte_s
        answer = await self.transport.send(wire, first_byte_s=first_byte_s, idle_s=deployment.idle_s or None)
        try:
            await _check_head(answer, deployment, dialect.read_error)
            return await answer.read_all(MAX_ANSWER_BYTES, DigitWatch().see), answer.headers
        finally:
            answer.close()

    async def relay(
        self,
        deployment: Deployment,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        stream: bool,
        method: str = "POST",
    ) -> WireAnswer:
        """Send a body on as it came; `headers` are the caller's allowed ones. The answer's head is in.

        Raises ProviderError when nothing answered, ProviderRefusedKey when our own key is bad.
        """
        provider = self.providers.get(deployment.greeted_as)
        if provider is None:
            raise NoCredentials(f"no provider {deployment.provider}", deployment.name)
        sent = {**headers, "Accept-Encoding": "identity", "Via": self.via}
        request = await provider.prepare(deployment, path, body, sent, stream=stream)
        if method != request.method:
            request = type(request)(url=request.url, headers=request.headers, method=method)
        # An answer that does not stream may take its whole time before the first byte.
        patience_s = self.settings.first_byte_s if stream else self.settings.request_s
        answer = await self.transport.send(
            request, first_byte_s=patience_s, idle_s=None if stream else self.settings.request_s
        )
        if answer.status in (401, 403):
            answer.close()
            raise ProviderRefusedKey(answer.status, "the provider refuses our key", deployment.name)
        return answer


def _unreadable(dialect: str) -> Invalid:
    """Its own vendor may know what the body means; here nobody does."""
    return Invalid((), f"This model cannot be asked in {dialect} what this body asks")


async def _check_head(
    answer: WireAnswer, deployment: Deployment, read_error: Callable[[int, bytes], ProviderRefused]
) -> None:
    """Raises ProviderRefused for an error status, ProviderBroke for a body that nobody here can read, or for none."""
    if 200 < answer.status < 300:
        raise ProviderBroke(
            f"the answer has the status {answer.status} and no content that was asked for", deployment.name
        )
    if answer.status != 200:
        # Not named here: it holds this frame, which would hold it, and all that came by it, for the collector.
        raise await _read_refusal(answer, deployment, read_error)
    encoding = answer.headers.get("content-encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise ProviderBroke(f"the answer is {encoding}-encoded although identity was asked for", deployment.name)


async def _read_refusal(
    answer: WireAnswer, deployment: Deployment, read_error: Callable[[int, bytes], ProviderRefused]
) -> ProviderRefused | ProviderGaveUp:
    words = await _read_words(answer)
    error = read_error(answer.status, words)
    if error.upstream_code == 403 and isinstance(error, ProviderRefusedKey) and words.lstrip().startswith(b"<"):
        error = ProviderBlocked(403, "a page in place of an error", kind="blocked")
    if error.kind == MISCALLED:
        return ProviderGaveUp("the model wrote a call that is none", deployment.name)
    error.where = deployment.name
    _note(error, answer.headers)
    return error


async def _read_words(answer: WireAnswer) -> bytes:
    """An error's body, as far as it comes: the status stands whether it is cut, stalls, or is too long."""
    words = bytearray()
    with suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(ERROR_PATIENCE_S):
            while len(words) < MAX_ERROR_BYTES and (data := await answer.read()):
                words += data
    return bytes(words[:MAX_ERROR_BYTES])


def _passes(source: Source, chat: ChatRequest, dialect: Dialect, model: str) -> bool:
    """Whether the client's bytes go on as they came."""
    if source.dialect != dialect.name:
        return False
    # What another vendor's model thought in this conversation bears a seal that would be refused.
    return not source.is_read or (dialect.passes_on and not has_thoughts(chat, but_for=taken_by(model, dialect.name)))


def _is_header_text(text: str) -> bool:
    """What a header can carry: clients choose the ids of their users."""
    return len(text) <= MAX_HEADER_CHARS and text.isascii() and text.isprintable()


def _note(error: ProviderRefused, headers: Mapping[str, str]) -> None:
    """What an answer's head tells of its error."""
    now = time.time()
    told_s = read_retry_after(headers, now)
    # Google tells it in the body.
    error.retry_after_s = error.retry_after_s if told_s is None else told_s
    if headers.get("x-should-retry") == "false":
        error.is_retryable = False
    # AWS names the exception here and nowhere else: `ThrottlingException:http://…`.
    error.kind = error.kind or headers.get("x-amzn-errortype", "").partition(":")[0]
    sent = read_date(headers.get("date", ""))
    if isinstance(error, ProviderRefusedKey) and sent is not None and abs(sent - now) > MAX_SKEW_S:
        # Signatures and tokens are refused by the clock, and the vendor's text need not say so.
        told = {"deployment": error.where, "kind": error.kind, "clock_off_s": round(now - sent)}
        logger.error("our clock and the provider's differ, and it refuses our key", extra=told)


async def _all_of(parts: Iterable[Coroutine[Any, Any, Vectors]]) -> list[Vectors]:
    """What all of them bring; where one fails, the others end with it."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _embed_as_demo(request: EmbeddingsRequest) -> Vectors:
    texts = [each if isinstance(each, str) else " ".join(map(str, each)) for each in request.inputs]
    tokens = sum(map(estimate_tokens, texts))
    rows = [embed(text, request.dimensions or DEMO_DIMENSIONS) for text in texts]
    return Vectors(rows, Usage(input_tokens=tokens, is_counted=True))
