"""Answers under way: what the gateway hands out.

Whoever holds one reads it once and closes it in every case; the last of both settles its metrics and facts.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace as replace_fields

from torana.books import ModelCall, Outcome, asked_tokens, count_said, prompt_texts
from torana.chat import ChatRequest, FinishReason, Usage
from torana.counting import count_bytes
from torana.dialects.begun_answers import BegunAnswer, awaited_in
from torana.dialects.dialect import RelayScan
from torana.dialects.embedding_dialect import Vector
from torana.dialects.lengths import OwnNames
from torana.dialects.think_blocks import OpenedThinkBlock, ThinkBlock, ThinkBlocks, opens_blocks_itself
from torana.errors import ProviderError, provider_refused
from torana.limits.reached import Standing
from torana.providers.batches import MAX_ANSWER_BYTES, Batch
from torana.routing.router import Flow
from torana.telemetry.metrics import InFlight
from torana.transport import WireAnswer
from torana.usage.told import complete, is_told

contents_logger = logging.getLogger("torana.contents")
"""Prompts and answers, of requests whose contents may be logged (contract 15); nothing else writes any."""

MAX_LOGGED_CHARS = 100_000
"""Of one text."""


class Collected(msgspec.Struct, frozen=True):
    """A whole answer: one text per choice, and how it ended."""

    texts: tuple[str, ...]
    usage: Usage | None
    finish: FinishReason | None
    scores: Mapping[int, float] = msgspec.field(default_factory=dict)
    """Choice → its `Chunk.score`, where there is one."""


class Answer(msgspec.Struct, kw_only=True):
    """An answer under way. Its first batch is in; read it once, then close it in every case."""

    flow: Flow
    call: ModelCall
    chat: ChatRequest
    started: float
    under_way: InFlight
    """Closed with the final word: until then the call counts as in flight."""
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    """x-aigw-* and the demo's mark, to be added to the reply."""
    leaks_reasoning: bool = False
    """The text may begin with a <think> block; it is given out as the thought that it is."""
    usage: Usage | None = None
    finish: FinishReason | None = None
    _counted_bytes: int = 0
    _asked_tokens: int = -1
    _is_settled: bool = False
    _has_told: bool = False
    """The answer is whole, and the provider has told what it used."""
    _said: list[str] | None = None
    """The text so far, where it is to be logged, and as far as it is."""
    _said_chars: int = 0
    _blocks: ThinkBlocks | None = None
    _begun: ThinkBlocks | None = None
    _names: OwnNames | None = None

    def __post_init__(self) -> None:
        if self.leaks_reasoning and not self.is_passing:
            is_open = not self.chat.stream or opens_blocks_itself(self.upstream_model)
            self._blocks = ThinkBlocks(OpenedThinkBlock if is_open else ThinkBlock, ThinkBlock)
        if not self.is_passing and (awaited := awaited_in(self.chat)):
            self._begun = ThinkBlocks(lambda: BegunAnswer(awaited))
        if self.chat.tools and not self.is_passing:
            self._names = OwnNames(self.chat) or None
        if self.call.facts.logs_contents:
            self._said = []
        self.call.move(self.flow.deployment)
        if self.call.entry is not None:
            self.call.entry.progress = self.so_far

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
    def standings(self) -> Sequence[Standing]:
        """How the caller stands with its limits, this call included."""
        return self.call.hold.standings if self.call.hold is not None else ()

    @property
    def is_passing(self) -> bool:
        """The chunks carry the provider's own bytes, in the dialect that the client speaks."""
        return bool(self.flow.first[0].raw)

    @property
    def region(self) -> str:
        return self.flow.deployment.region

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> Batch:
        """The chunks as they come; raises ProviderError where the provider fails from here on."""
        try:
            batch = self._take(await self.flow.__anext__())
            while not batch:
                batch = self._take(await self.flow.__anext__())
            if batch[-1].is_last:
                self._settle("completed")
                await self.call.settled()
        except StopAsyncIteration:
            self._settle("completed")
            await self.call.settled()
            raise
        except ProviderError as error:
            self._settle("failed", error)
            await self.call.settled()
            # The frames that it came through hold whoever keeps it for a further question: rings for the collector.
            raise error.with_traceback(None) from None
        except BaseException:
            self._settle("client_cancelled")
            raise
        return batch

    def _take(self, batch: Batch) -> Batch:
        """Note what a batch tells; what of it may go on."""
        for chunk in batch:
            text = chunk.text
            self._counted_bytes += len(text) if text.isascii() else count_bytes(text)
            if chunk.reasoning:
                self._counted_bytes += count_bytes(chunk.reasoning)
            if chunk.tool_call is not None:
                self._counted_bytes += count_bytes(chunk.tool_call.arguments)
            if chunk.raw and self.chat.stream:
                # An event of a stream that passes is about a token, which is about four bytes.
                self._counted_bytes += 4 * (chunk.raw.count(b"\n\n") or chunk.raw.count(b"\r\n\r\n"))
            if chunk.usage is not None:
                self.usage = chunk.usage
            if chunk.finish is not None:
                self.finish = chunk.finish
        if batch[-1].is_last:
            self._has_told = is_told(self.usage)
            if not self._has_told and not self.is_passing:
                # Clients measure by it how full their model's window is: our count serves them better than none.
                batch = [*batch[:-1], replace_fields(batch[-1], usage=self.so_far())]
        if self._said is not None and self._said_chars < MAX_LOGGED_CHARS:
            told = [chunk.text for chunk in batch if chunk.choice == 0]
            self._said += told
            self._said_chars += sum(map(len, told))
        if self._names is not None:
            batch = self._names.take(batch)
        if self._blocks is not None:
            batch = self._blocks.take(batch)
        return batch if self._begun is None else self._begun.take(batch)

    async def collect(self) -> Collected:
        """The answer as one; raises ProviderError where the provider fails before its end."""
        parts: dict[int, list[str]] = {0: []}
        scores: dict[int, float] = {}
        try:
            async for batch in self:
                for chunk in batch:
                    if chunk.text:
                        parts.setdefault(chunk.choice, []).append(chunk.text)
                    if chunk.score is not None:
                        scores[chunk.choice] = chunk.score
        finally:
            await self.flow.aclose()
        texts = tuple("".join(parts[choice]) for choice in sorted(parts))
        return Collected(texts, self.usage, self.finish, scores)

    async def aclose(self) -> None:
        """End the call; a provider still answering is hung up on."""
        await self.flow.aclose()
        self._settle("client_cancelled")

    def _settle(self, outcome: Outcome, failure: ProviderError | None = None) -> None:
        if self._is_settled:
            return
        self._is_settled = True
        self.under_way.end()
        deployment = self.flow.deployment
        is_known = outcome == "completed" and (self._has_told or is_told(self.usage))
        usage = self.usage if is_known else self.so_far()
        seconds = time.monotonic() - self.started
        self.call.record(deployment.provider, deployment.model, outcome, usage, seconds, failure, self.finish)
        self.call.facts["attempts"] = self.flow.attempts
        if self._said is not None:
            asked = [text[:MAX_LOGGED_CHARS] for text in prompt_texts(self.chat)]
            contents = {"prompt": asked, "answer": "".join(self._said)[:MAX_LOGGED_CHARS], "outcome": outcome}
            contents_logger.info("what a model was asked and said", extra=contents)

    def so_far(self) -> Usage:
        """Tokens until now, for an answer that stops here; checkpoints ask from another thread."""
        if self._asked_tokens < 0:
            self._asked_tokens = asked_tokens(self.chat)
        return complete(self.usage, self._asked_tokens, (self._counted_bytes + 3) // 4)


class Relay(msgspec.Struct, kw_only=True):
    """A relayed answer under way; its head is in. Settle it once, close its answer in every case."""

    answer: WireAnswer
    provider: str
    model: str
    call: ModelCall
    started: float
    under_way: InFlight
    """Closed with the final word."""
    asked_tokens: int = 0
    """Of what was sent, as we count them; 0 where the answer costs none."""
    scan: RelayScan | None = None
    """Watches a stream for what its provider says."""
    answered_tokens: int = 0
    """About as many as have passed."""
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    """How the caller stands with its limits, to be added to the reply."""
    leave: Callable[[], None] = lambda: None
    """Gives the connection's place to the next one."""
    _is_settled: bool = False

    def watch(self, scan: RelayScan | None) -> None:
        """The answer is a stream, and from now on it counts."""
        self.scan = scan
        if self.call.entry is not None:
            self.call.entry.progress = self.so_far

    def passed(self, data: bytes) -> None:
        """A piece of a stream on its way to the client."""
        # An event is about a token; it is only looked at where the provider says nothing better.
        # Google ends its lines in CRLF, or sends an array; there a text stands in each.
        self.answered_tokens += data.count(b"\n\n") or data.count(b'"text"')
        if self.scan is not None:
            self.scan.feed(data)

    def so_far(self, told: Usage | None = None) -> Usage:
        """Tokens until now, for an answer that stops here; checkpoints ask from another thread."""
        if self.scan is not None:
            told = self.scan.usage
        return complete(told, self.asked_tokens, self.answered_tokens)

    async def read_all(
        self, scan: Callable[[bytes], Usage | None] | None, said: Callable[[bytes], str] | None
    ) -> bytes:
        """A body that does not stream, read whole and settled; raises ProviderError when it is cut.

        scan  what it says of its usage
        said  what it says at all, which is counted where it says nothing of that
        """
        try:
            body = await self.answer.read_all(MAX_ANSWER_BYTES)
            usage = scan(body) if scan is not None and self.answer.status == 200 else None
            if is_told(usage):
                self._end("completed", usage)
            elif self.answer.status < 400:
                self.answered_tokens = count_said(body, said)
                self.settle("completed", usage)
            else:
                self.settle("failed")
            await self.call.settled()
        except ProviderError as error:
            self.settle("failed", None, error)
            await self.call.settled()
            raise error.with_traceback(None) from None  # as above
        finally:
            self.answer.close()
            self.settle("client_cancelled", None)
        return body

    def settle(self, outcome: Outcome, usage: Usage | None = None, failure: ProviderError | None = None) -> None:
        """The final word; only the first one counts. `usage` None: what the stream told."""
        if self._is_settled:
            return
        if failure is None and self.answer.status >= 400:
            # Passed on as it came, but a failed call all the same.
            failure = provider_refused(self.answer.status, "an error status")
        if usage is None and self.scan is not None:
            usage = self.scan.usage
        if outcome != "completed" or not is_told(usage):
            # An error status costs nothing, and neither does what is only looked up.
            usage = self.so_far(usage) if self.asked_tokens and self.answer.status < 400 else None
        self._end(outcome, usage, failure)

    def _end(self, outcome: Outcome, usage: Usage | None, failure: ProviderError | None = None) -> None:
        self._is_settled = True
        self.under_way.end()
        self.leave()
        seconds = time.monotonic() - self.started
        finish = self.scan.finish if self.scan is not None else None
        self.call.record(self.provider, self.model, outcome, usage, seconds, failure, finish)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors for texts, and who made them. Whole and settled: nothing of it is under way."""

    rows: Sequence[Vector]
    """In the order of the texts."""
    provider: str
    upstream_model: str
    headers: list[tuple[bytes, bytes]]
    """x-aigw-* and the demo's mark, to be added to the reply."""
    usage: Usage
    raw: bytes = b""
    """The provider's answer as it came, in place of `rows`, where the request passed as it came too."""
    standings: Sequence[Standing] = ()
