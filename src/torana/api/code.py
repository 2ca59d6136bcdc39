"""Code completions and generations: /v2, /v3 and /v4 (contract 6). Reads, asks who may, writes the answer."""

from collections.abc import Awaitable
from functools import partial
from typing import Any

from torana.access.permissions import permit
from torana.answers import Collected
from torana.api.amazon_q import amazon_q_unavailable
from torana.api.code_events import SuggestionEvents
from torana.api.code_reading import Kind, Suggestion, read_components, read_flat
from torana.api.exchange import Exchange, Reply, Route, StreamReply, json_reply
from torana.api.metadata import named
from torana.api.streaming import text_reply
from torana.caller import Permit
from torana.chat import Usage
from torana.clock import Clock
from torana.code.orders import CompletionOrder
from torana.code_answers import CodeAnswer
from torana.errors import Invalid, ProviderError, Refusal
from torana.gateway import Gateway
from torana.headers import retry_after, soon
from torana.settings import Settings


class CodeEndpoints:
    """Three versions of one thing; they differ in the envelope around request and answer."""

    def __init__(self, gateway: Gateway, settings: Settings, clock: Clock) -> None:
        self.gateway = gateway
        self.settings = settings
        self.clock = clock

    def routes(self) -> list[Route]:
        completions = partial(
            Route,
            read=partial(self.read_v2, kind="completion"),
            policy=self.permit_completion,
            handle=self.answer_v2,
            quota="code_completions",
        )
        components = partial(Route, read=self.read_components, policy=self.permit_component, quota="code_completions")
        return [
            completions(path="/v2/code/completions"),
            completions(path="/v2/completions", label="/v2/code/completions"),
            Route(
                path="/v2/code/generations",
                read=partial(self.read_v2, kind="generation"),
                policy=self.permit_generation,
                handle=self.answer_v2,
                quota="code_generations",
            ),
            components(path="/v3/code/completions", handle=self.answer_v3),
            components(path="/v4/code/suggestions", handle=self.answer_v4),
        ]

    def read_v2(self, exchange: Exchange, kind: Kind) -> Suggestion:
        return self._check(exchange, read_flat(exchange, self.settings, kind))

    def read_components(self, exchange: Exchange) -> Suggestion:
        return self._check(exchange, read_components(exchange, self.settings))

    def _check(self, exchange: Exchange, wanted: Suggestion) -> Suggestion:
        # A name that nobody knows is a fault of the body, and those are told before permissions.
        if not wanted.is_amazon_q:
            models = self.gateway.models
            find = models.find_completing if wanted.kind == "completion" else models.find
            try:
                find(wanted.order.wish)
                if wanted.idle_pair is not None:
                    models.find_completing(wanted.idle_pair)
            except Invalid as error:
                if wanted.model_at is None:
                    raise
                raise named(error, wanted.order.wish, wanted.model_at, "model_name") from None
        exchange.facts["code_suggestion_type"] = f"{wanted.kind}s"
        # One path serves both kinds, so that the route alone cannot tell what the quota is asked for.
        exchange.quota_event = "amazon_q_integration" if wanted.is_amazon_q else f"code_{wanted.kind}s"
        return wanted

    def permit_completion(self, exchange: Exchange, wanted: Suggestion) -> Permit:
        unit_primitive = "amazon_q_integration" if wanted.is_amazon_q else "complete_code"
        return permit(exchange.caller, unit_primitive, denied="Unauthorized to access code completions")

    def permit_generation(self, exchange: Exchange, wanted: Suggestion) -> Permit:
        denied = "Unauthorized to access code generations"
        permitted = permit(exchange.caller, "generate_code", denied=denied, instance_only=True)
        self._permit_prompt(exchange, wanted, denied)
        return permitted

    def permit_component(self, exchange: Exchange, wanted: Suggestion) -> Permit:
        unit_primitive = "complete_code" if wanted.kind == "completion" else "generate_code"
        if wanted.is_amazon_q:
            unit_primitive = "amazon_q_integration"
        denied = "Unauthorized to access code suggestions"
        permitted = permit(exchange.caller, unit_primitive, denied=denied, instance_only=True)
        self._permit_prompt(exchange, wanted, denied)
        return permitted

    def _permit_prompt(self, exchange: Exchange, wanted: Suggestion, denied: str) -> None:
        """A prompt that the client names needs its own rights on this way as well (contract 8.1)."""
        order = wanted.order
        if isinstance(order, CompletionOrder) or not order.prompt_id or wanted.is_amazon_q:
            return
        prompt, _ = self.gateway.find_prompt(order.prompt_id, order.prompt_version, order.wish, exchange.caller)
        permit(exchange.caller, prompt.unit_primitives, any_of=prompt.any_of, denied=denied)

    async def answer_v2(self, exchange: Exchange, permit: Permit, wanted: Suggestion) -> Reply | StreamReply:
        for told in wanted.feedback:
            self.gateway.metrics.suggestion_feedback(
                told.engine, told.model, told.language,
                requests=told.requests, accepts=told.accepts, errors=told.errors,
            )  # fmt: skip
        answer = await self._ask(exchange, permit, wanted)
        if wanted.order.stream:
            return text_reply(answer, code_failed)
        collected = await _collect(answer)
        model: dict[str, Any] = self._model(answer, wanted)
        if wanted.kind == "completion":
            usage = collected.usage or Usage()
            model["tokens_consumption_metadata"] = {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "max_output_tokens_used": collected.finish == "length",
                "context_tokens_sent": answer.context_tokens_sent,
                "context_tokens_used": answer.context_tokens_used,
            }
        if answer.region:
            model["region"] = answer.region
        body = {
            "id": "id",
            "model": model,
            "experiments": [],
            "object": "text_completion",
            "created": int(self.clock.now()),
            "choices": _choices(collected),
            "metadata": {"enabled_feature_flags": sorted(exchange.flags)},
        }
        return json_reply(body, answer.headers)

    async def answer_v3(self, exchange: Exchange, permit: Permit, wanted: Suggestion) -> Reply | StreamReply:
        answer = await self._ask(exchange, permit, wanted)
        if wanted.order.stream:
            return text_reply(answer, code_failed)
        collected = await _collect(answer)
        model = self._model(answer, wanted)
        metadata = {
            "model": model,
            "timestamp": int(self.clock.now()),
            "enabled_feature_flags": sorted(exchange.flags),
        }
        return json_reply({"choices": _choices(collected), "metadata": metadata, "model": model}, answer.headers)

    async def answer_v4(self, exchange: Exchange, permit: Permit, wanted: Suggestion) -> Reply | StreamReply:
        if not wanted.order.stream:
            return await self.answer_v3(exchange, permit, wanted)
        _refuse_amazon_q(wanted)
        events = SuggestionEvents(
            partial(self._open, exchange, permit, wanted),
            self._start_metadata,
            code_failed,
            self.settings.serve.stream_keepalive_s,
        )
        return events.reply

    async def _ask(self, exchange: Exchange, permit: Permit, wanted: Suggestion) -> CodeAnswer:
        _refuse_amazon_q(wanted)
        try:
            return await self._open(exchange, permit, wanted)
        except ProviderError as error:
            raise code_failed(error) from error

    def _open(self, exchange: Exchange, permit: Permit, wanted: Suggestion) -> Awaitable[CodeAnswer]:
        if isinstance(wanted.order, CompletionOrder):
            return self.gateway.complete(permit, wanted.order, exchange.facts)
        return self.gateway.generate(permit, wanted.order, exchange.facts)

    def _model(self, answer: CodeAnswer, wanted: Suggestion) -> dict[str, Any]:
        return {"engine": answer.engine, "name": answer.model, "lang": wanted.order.cursor.language}

    def _start_metadata(self, answer: CodeAnswer) -> dict[str, Any]:
        model = {"engine": answer.engine, "name": answer.model}
        # Editors of 18 drop a start without a region that is a text, and what it says of the model with it.
        return {"model": model, "timestamp": int(self.clock.now()), "region": answer.region}


def code_failed(error: ProviderError) -> Refusal:
    """What a failed model call is on the code endpoints (contract 1.2)."""
    # A time to come back is for those whom coming back may help.
    if error.upstream_code == 429:
        limited = "Too many requests. Please try again later."
        return Refusal(429, error.code, limited, layer="provider", headers=retry_after(error.retry_after_s))
    told_s = soon() if error.retry_after_s is None else error.retry_after_s
    headers = retry_after(told_s) if error.is_retryable else ()
    return Refusal(503, error.code, "Inference failed", layer="provider", headers=headers)


def _refuse_amazon_q(wanted: Suggestion) -> None:
    if wanted.is_amazon_q:
        raise amazon_q_unavailable()


async def _collect(answer: CodeAnswer) -> Collected:
    try:
        return await answer.collect()
    except ProviderError as error:
        raise code_failed(error) from error
    finally:
        await answer.aclose()


def _choices(collected: Collected) -> list[dict[str, Any]]:
    """An empty answer is no choice, and no error either."""
    return [{"text": text, "index": 0, "finish_reason": "length"} for text in collected.texts if text]
