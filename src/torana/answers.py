"""Answers under way: what the gateway hands out, and the final word on each model call.

Whoever holds one reads it once and closes it in every case; the last of both settles its metrics and facts.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.chat import ChatRequest, FinishReason, Usage
from torana.code.clean import clean
from torana.code.fences import FenceStripper
from torana.code.orders import Cleaning, Cursor
from torana.code.window import Window
from torana.counting import count_bytes, estimate_tokens
from torana.errors import ProviderError, provider_refused
from torana.prompts.prompt import Prompt
from torana.providers.send import MAX_ANSWER_BYTES, Batch
from torana.routing.router import Flow
from torana.telemetry.metrics import InFlight, Metrics
from torana.transport import WireAnswer


@dataclass(frozen=True, slots=True)
class Collected:
    """A whole answer: one text per choice, and how it ended."""

    texts: tuple[str, ...]
    usage: Usage | None
    finish: FinishReason | None


@dataclass(slots=True, kw_only=True)
class ModelCall:
    """What the metrics and the access line are to know of one model call."""

    metrics: Metrics
    facts: dict[str, Any]
    unit_primitive: str
    feature_category: str
    prompt: Prompt | None = None
    """The registry's prompt that the answer names."""
    is_streamed: bool = False
    suggested: ChatRequest | None = None
    """What was asked, where the call is for a code suggestion: those have figures of their own."""

    def record_failure(self, provider: str, model: str, seconds: float, error: BaseException) -> None:
        """The final word on a call that never got an answer: refused, cut, or left by its client."""
        if isinstance(error, ProviderError):
            self.record(provider, model, "failed", None, seconds, error)
        elif isinstance(error, asyncio.CancelledError):
            self.record(provider, model, "client_cancelled", None, seconds)

    def record(
        self,
        provider: str,
        model: str,
        outcome: str,
        usage: Usage | None,
        seconds: float,
        failure: ProviderError | None = None,
        finish: str | None = None,
    ) -> None:
        """The final word on the call. `outcome`: completed, failed or client_cancelled."""
        self.metrics.inference(
            engine=provider,
            model=model,
            feature_category=self.feature_category,
            unit_primitive=self.unit_primitive,
            is_streamed=self.is_streamed,
            error=failure,
            finish_reason=finish or "",
            seconds=seconds,
            usage=usage,
        )
        if self.suggested is not None:
            texts = list(_prompt_texts(self.suggested))
            tokens = sum(map(estimate_tokens, texts)) if usage is None else usage.input_tokens
            self.metrics.suggestion(provider, model, seconds, sum(map(count_bytes, texts)), tokens)
        facts = self.facts
        facts["provider"], facts["model"], facts["outcome"] = provider, model, outcome
        if self.prompt is not None:
            facts["prompt"] = f"{self.prompt.id}@{self.prompt.version}"
        if usage is not None:
            facts["input_tokens"], facts["output_tokens"] = usage.input_tokens, usage.output_tokens
            facts["usage_source"] = "counted" if usage.is_counted else "provider"
        if failure is not None:
            facts["provider_error"] = failure.code
            facts["provider_status"] = failure.upstream_code


@dataclass(slots=True, kw_only=True)
class Answer:
    """An answer under way. Its first batch is in; read it once, then close it in every case."""

    flow: Flow
    call: ModelCall
    chat: ChatRequest
    started: float
    under_way: InFlight
    """Closed with the final word: until then the call counts as in flight."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """x-aigw-* and the demo's mark, to be added to the reply."""
    leaks_reasoning: bool = False
    """The model may begin with a <think> block that is to be removed."""
    usage: Usage | None = None
    finish: FinishReason | None = None
    _failure: ProviderError | None = None
    _counted_chars: int = 0
    _is_settled: bool = False

    @property
    def is_demo(self) -> bool:
        return self.flow.deployment.provider == "demo"

    @property
    def engine(self) -> str:
        """`agent` for answers from the registry's prompts, else the provider (contract 6.1)."""
        if self.is_demo:
            return "demo"
        return "agent" if self.call.prompt is not None else self.flow.deployment.provider

    @property
    def model(self) -> str:
        """The prompt file's name for the registry's prompts, else the upstream model (contract 6.1)."""
        prompt = self.call.prompt
        return prompt.name if prompt is not None else self.flow.deployment.model

    @property
    def upstream_model(self) -> str:
        return self.flow.deployment.model

    @property
    def is_passing(self) -> bool:
        """The chunks carry the provider's own bytes, in the dialect that the client speaks."""
        return bool(self.flow.first[0].raw)

    @property
    def region(self) -> str:
        return self.flow.deployment.region

    async def batches(self) -> AsyncIterator[Batch]:
        """The chunks as they come; raises ProviderError where the provider fails from here on."""
        is_whole = False
        try:
            async for batch in self.flow.batches():
                for chunk in batch:
                    self._counted_chars += len(chunk.text) + len(chunk.reasoning)
                    if chunk.tool_call is not None:
                        self._counted_chars += len(chunk.tool_call.arguments)
                    if chunk.raw:
                        # An event of a stream that passes is about a token, which is about four letters.
                        self._counted_chars += 4 * chunk.raw.count(b"\n\n")
                    if chunk.usage is not None:
                        self.usage = chunk.usage
                    if chunk.finish is not None:
                        self.finish = chunk.finish
                yield batch
            is_whole = True
        except ProviderError as error:
            self._failure = error
            raise
        finally:
            self._settle("completed" if is_whole else "failed" if self._failure else "client_cancelled")

    async def collect(self) -> Collected:
        """The answer as one; raises ProviderError where the provider fails before its end."""
        parts: dict[int, list[str]] = {0: []}
        try:
            async for batch in self.batches():
                for chunk in batch:
                    if chunk.text:
                        parts.setdefault(chunk.choice, []).append(chunk.text)
        finally:
            await self.flow.aclose()
        texts = tuple("".join(parts[choice]) for choice in sorted(parts))
        return Collected(texts, self.usage, self.finish)

    async def aclose(self) -> None:
        """End the call; a provider still answering is hung up on."""
        await self.flow.aclose()
        self._settle("client_cancelled")

    def _settle(self, outcome: str) -> None:
        if self._is_settled:
            return
        self._is_settled = True
        self.under_way.end()
        deployment = self.flow.deployment
        usage = self.usage
        if usage is None or usage.is_suspect:
            usage = _estimate(self.chat, self._counted_chars, is_suspect=usage is not None)
        seconds = time.monotonic() - self.started
        self.call.record(deployment.provider, deployment.model, outcome, usage, seconds, self._failure, self.finish)
        self.call.facts["attempts"] = self.flow.attempts


def _estimate(chat: ChatRequest, answer_chars: int, *, is_suspect: bool) -> Usage:
    """Tokens counted by us where the provider told none, or some that cannot be; marked as such."""
    asked = sum(map(estimate_tokens, _prompt_texts(chat)))
    return Usage(input_tokens=asked, output_tokens=(answer_chars + 3) // 4, is_counted=True, is_suspect=is_suspect)


def _prompt_texts(chat: ChatRequest) -> Iterator[str]:
    """The texts that are sent."""
    if chat.fill_in is not None and chat.fill_in.marked_prompt:
        yield chat.fill_in.marked_prompt
    else:
        yield from (message.text for message in chat.messages)


@dataclass(slots=True, kw_only=True)
class Relay:
    """A relayed answer under way; its head is in. Settle it once, close its answer in every case."""

    answer: WireAnswer
    provider: str
    model: str
    call: ModelCall
    started: float
    under_way: InFlight
    """Closed with the final word."""
    _is_settled: bool = False

    async def read_all(self, scan: Callable[[bytes], Usage | None] | None) -> bytes:
        """A body that does not stream, read whole and settled; raises ProviderError when it is cut."""
        try:
            body = await self.answer.read_all(MAX_ANSWER_BYTES)
            usage = scan(body) if scan is not None and self.answer.status == 200 else None
            self.settle("completed" if self.answer.status < 400 else "failed", usage)
        except ProviderError as error:
            self.settle("failed", None, error)
            raise
        finally:
            self.answer.close()
            self.settle("client_cancelled", None)
        return body

    def settle(self, outcome: str, usage: Usage | None, failure: ProviderError | None = None) -> None:
        """The final word; only the first one counts."""
        if self._is_settled:
            return
        self._is_settled = True
        self.under_way.end()
        seconds = time.monotonic() - self.started
        if failure is None and self.answer.status >= 400:
            # Passed on as it came, but a failed call all the same.
            failure = provider_refused(self.answer.status, "an error status")
        self.call.record(self.provider, self.model, outcome, usage, seconds, failure)


@dataclass(slots=True)
class CodeAnswer:
    """An answer in code, cleaned as the order says (contract 6.7)."""

    answer: Answer
    cursor: Cursor
    cleaning: Cleaning
    window: Window
    excluded: tuple[str, ...]

    @property
    def engine(self) -> str:
        return self.answer.engine

    @property
    def model(self) -> str:
        return self.answer.model

    @property
    def region(self) -> str:
        return self.answer.region

    @property
    def is_demo(self) -> bool:
        return self.answer.is_demo

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.answer.headers

    @property
    def context_tokens_sent(self) -> int:
        return self.window.context_tokens_sent

    @property
    def context_tokens_used(self) -> int:
        return self.window.context_tokens_used

    async def collect(self) -> Collected:
        found = await self.answer.collect()
        if self.cleaning == "none":
            return found
        started = time.perf_counter()
        is_cut = found.finish == "length"
        texts = tuple(
            clean(text, self.cursor, self.cleaning, excluded=self.excluded, is_cut=is_cut) for text in found.texts
        )
        self.answer.call.metrics.suggestion_cleaned(time.perf_counter() - started)
        return Collected(texts, found.usage, found.finish)

    async def batches(self) -> AsyncIterator[Batch]:
        """The chunks as they come; generations lose their fence lines on the way."""
        if self.cleaning != "generation":
            async for batch in self.answer.batches():
                yield batch
            return
        stripper = FenceStripper(self.cursor.language)
        async for batch in self.answer.batches():
            text = stripper.feed("".join([chunk.text for chunk in batch]))
            if batch[-1].is_last:
                text += stripper.close()
            yield [replace_fields(batch[-1], text=text)]

    async def aclose(self) -> None:
        await self.answer.aclose()


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors for texts, and who made them. Whole and settled: nothing of it is under way."""

    rows: list[list[float]]
    """In the order of the texts."""
    provider: str
    upstream_model: str
    headers: list[tuple[bytes, bytes]]
    """x-aigw-* and the demo's mark, to be added to the reply."""
