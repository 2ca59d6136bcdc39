"""The books of one model call: limits, usage record, metrics and access line hear of its end here, and once.

answers.py reads the answer; what it has cost is known here.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace as replace_fields

from torana.caller import Permit
from torana.chat import ChatRequest, Usage
from torana.counting import BYTES_PER_TOKEN, count_bytes, estimate_body, estimate_tokens
from torana.errors import ProviderError, ProviderTlsFailed, Refusal, was_sent
from torana.facts import Facts
from torana.limits.estimate import input_tokens, price
from torana.limits.hold import Hold
from torana.limits.limits import Limits
from torana.prompts.prompt import Prompt
from torana.providers.provider import Deployment
from torana.routing.tries import Try
from torana.telemetry.metrics import Metrics
from torana.usage.event import MAX_TEXT, Status, ToldTry
from torana.usage.ledger import Ledger, Record, Site
from torana.usage.prices import Price, price_text

MAX_SITES = 1_000
"""Sites that are remembered."""

Outcome = Literal["completed", "failed", "client_cancelled"]
"""How a call ended, as its access line says it."""

STATUSES: dict[Outcome, Status] = {
    "completed": "completed",
    "failed": "upstream_error",
    "client_cancelled": "client_cancelled",
}
"""How an outcome reads in a usage record."""


class ModelCall(msgspec.Struct, kw_only=True):
    """The books of one model call: what metrics, access line and usage record are to know of it."""

    metrics: Metrics
    facts: Facts
    unit_primitive: str
    feature_category: str
    prompt: Prompt | None = None
    """The registry's prompt that the answer names."""
    is_streamed: bool = False
    suggested: ChatRequest | None = None
    """What was asked, where the call is for a code suggestion: those have figures of their own."""
    entry: Record | None = None
    """The usage record, from admission on."""
    limits: Limits
    hold: Hold | None = None
    """What the call has taken of its limits; settled with the final word."""
    prices: Price | None = None
    """Of the deployment that answers."""
    tries: Sequence[Try] = ()
    """Every sending, as routing books them meanwhile."""
    is_relayed: bool = False
    """A relay was sent, which books no tries."""

    def admit(
        self, ledger: Ledger | None, permit: Permit, model: str, deployment: Deployment, regions: tuple[str, ...] = ()
    ) -> None:
        """Open the usage record, before anything is sent; raises Refusal 503 where none can be kept.

        model    the catalogue's name
        regions  where the caller's data may be; empty: anywhere
        """
        if ledger is not None:
            prompt = self.prompt
            self.entry = ledger.open(
                self.facts.origin,
                permit.caller,
                site_of(deployment),
                unit_primitive=self.unit_primitive,
                model=model,
                prompt=f"{prompt.id}@{prompt.version}" if prompt is not None else "",
                stream=self.is_streamed,
                residency=regions,
            )

    def move(self, deployment: Deployment) -> None:
        """This one answers, whichever was asked first."""
        self.prices = deployment.prices
        if self.entry is not None:
            self.entry.move(site_of(deployment), self._told_tries(None) if len(self.tries) > 1 else ())

    async def settled(self) -> None:
        """Returns once the usage record is durable; nothing that ends the answer goes out before."""
        if self.entry is not None:
            await self.entry.settled()

    def record_failure(
        self, provider: str, model: str, seconds: float, error: BaseException, asked_tokens: Callable[[], int]
    ) -> None:
        """The final word on a call that never got an answer: refused, cut, or left by its client.

        asked_tokens  what was sent, as we count it
        """
        if not self.tries and not self.is_relayed:
            self.limits.release(self.hold)
        if isinstance(error, ProviderError):
            self.record(provider, model, "failed", None, seconds, error)
        elif isinstance(error, asyncio.CancelledError):
            usage: Usage | None = None
            if any(each.may_be_charged for each in self.tries) or (self.is_relayed and was_sent(error)):
                # The provider has read the prompt, whether or not anybody has waited for the answer.
                usage = Usage(input_tokens=asked_tokens(), is_counted=True)
            self.record(provider, model, "client_cancelled", usage, seconds)
        else:
            if self.entry is not None:
                code = error.code if isinstance(error, Refusal) else "internal"
                self.entry.close("upstream_error", None, error_code=code, tries=self._told_tries(None))
                # Admitted: the access line names what its record names.
                self.facts["provider"], self.facts["model"], self.facts["outcome"] = provider, model, "failed"
            self.limits.settle(self.hold, price(None, None))

    def record(
        self,
        provider: str,
        model: str,
        outcome: Outcome,
        usage: Usage | None,
        seconds: float,
        failure: ProviderError | None = None,
        finish: str | None = None,
    ) -> None:
        """The final word on the call."""
        if self.entry is not None:
            self.entry.close(
                STATUSES[outcome],
                usage,
                error_code=failure.code if failure is not None else "",
                finish_reason=finish or "",
                tries=self._told_tries(usage),
            )
        if self.hold is not None:
            self._settle(self.hold, outcome, usage)
        origin = self.facts.origin
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
            client_name=origin.client_name,
            client_version=origin.client_version,
        )
        if self.suggested is not None:
            texts = list(prompt_texts(self.suggested))
            tokens = sum(map(estimate_tokens, texts)) if usage is None else usage.input_tokens
            self.metrics.suggestion(provider, model, seconds, sum(map(count_bytes, texts)), tokens)
        facts = self.facts
        is_cut_by_us = self.entry is not None and self.entry.status == "interrupted"
        facts["provider"], facts["model"] = provider, model
        facts["outcome"] = "interrupted" if is_cut_by_us else outcome
        if self.prompt is not None:
            facts["prompt"] = f"{self.prompt.id}@{self.prompt.version}"
        if usage is not None:
            facts["input_tokens"], facts["output_tokens"] = usage.input_tokens, usage.output_tokens
            facts["usage_source"] = "suspect" if usage.is_suspect else "counted" if usage.is_counted else "provider"
        if failure is not None:
            facts["provider_error"] = failure.code
            facts["provider_status"] = failure.upstream_code
            if isinstance(failure, ProviderTlsFailed):
                # Whose certificate was refused, and why, nobody else can tell; nothing of a prompt is in it.
                facts["provider_reason"] = failure.reason

    def _told_tries(self, usage: Usage | None) -> list[ToldTry]:
        """The sendings, for the usage record; one that answered is told by the record itself."""
        tries = self.tries
        if len(tries) < 2 and not any(each.may_be_charged and each.outcome != "answered" for each in tries):
            return []
        return [tell_try(each, usage if each.outcome == "answered" else each.usage) for each in tries]

    def _settle(self, hold: Hold, outcome: Outcome, usage: Usage | None) -> None:
        if usage is None and outcome == "completed":
            self.limits.settle(hold, hold.expected)  # nobody counted: what was reserved stands
            return
        self.limits.settle(hold, price(usage, self.prices if self.limits.count_money else None))


def tell_try(each: Try, usage: Usage | None) -> ToldTry:
    """One sending as the usage record has it. What an unanswered one has cost, its provider alone knows."""
    told = ToldTry(
        deployment=each.deployment.name[:MAX_TEXT],
        outcome=each.outcome,
        status=each.status,
        error_code=each.code,
        is_charged=each.may_be_charged,
        duration_s=round(each.seconds, 6),
    )
    if usage is None:
        return told
    return replace_fields(
        told,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=price_text(usage, each.deployment.prices)[0],
    )


def site_of(deployment: Deployment) -> Site:
    """Where a usage record says that a call went, and at what price."""
    # By identity, which costs less than a hash; the deployment is kept beside its site, so its number is no other's.
    known = _sites.get(id(deployment))
    if known is None or known[0] is not deployment:
        if len(_sites) >= MAX_SITES:
            _sites.clear()  # clients bring ever new deployments of their own
        site = Site(deployment.provider, deployment.model, deployment.name, deployment.region, deployment.prices)
        known = _sites[id(deployment)] = (deployment, site)
    return known[1]


_sites: dict[int, tuple[Deployment, Site]] = {}


def asked_tokens(chat: ChatRequest) -> int:
    """What is sent, as we count it."""
    if chat.source is not None and not chat.source.is_read:
        return estimate_body(chat.source.body)
    return input_tokens(chat)


def count_said(body: bytes, said: Callable[[bytes], str] | None) -> int:
    """About how many tokens a relayed answer is; all of it counts where nobody can tell what it says."""
    try:
        return int(len(body) / BYTES_PER_TOKEN) if said is None else estimate_tokens(said(body))
    except ProviderError:
        return int(len(body) / BYTES_PER_TOKEN)


def prompt_texts(chat: ChatRequest) -> Iterator[str]:
    """The texts that are sent."""
    if chat.fill_in is not None and chat.fill_in.marked_prompt:
        yield chat.fill_in.marked_prompt
    else:
        yield from (message.text for message in chat.messages)
