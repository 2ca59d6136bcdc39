"""POST /v1/prompts/{id} and /v2/prompts/{id}: a named, versioned prompt, filled in and answered (contract 8)."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from torana.access.permissions import permit
from torana.answers import Answer
from torana.api import reading
from torana.api.amazon_q import amazon_q_unavailable
from torana.api.exchange import Exchange, Reply, Route, StreamReply, json_reply
from torana.api.metadata import AMAZON_Q, may_cache_prompt, read_model_metadata
from torana.api.streaming import text_reply
from torana.caller import Permit
from torana.chat import ModelWish, Usage
from torana.errors import Invalid, ProviderError, Refusal
from torana.gateway import Gateway
from torana.headers import retry_after
from torana.json_lines import one_line
from torana.prompts.prompt import Prompt
from torana.routing.models import Model
from torana.settings import Settings


class PromptOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a prompt, looked up."""

    prompt: Prompt
    model: Model
    inputs: dict[str, Any]
    stream: bool
    is_amazon_q: bool


class PromptEndpoints:
    """Both versions; they differ in how the answer is written."""

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self.gateway = gateway
        self.settings = settings

    def routes(self) -> list[Route]:
        return [
            Route(path="/v1/prompts/{tail}", read=self.read, policy=self.policy, handle=self.answer_v1),
            Route(path="/v2/prompts/{tail}", read=self.read, policy=self.policy, handle=self.answer_v2),
        ]

    def read(self, exchange: Exchange) -> PromptOrder:
        body = reading.read_object(exchange.body)
        inputs = reading.mapping(body, "inputs", required=True)
        constraint = reading.text(body, "prompt_version")
        stream = reading.boolean(body, "stream")
        wish = read_model_metadata(body.get("model_metadata"), self.settings.providers)
        if wish is not None and wish.is_own and exchange.tail.startswith("code_suggestions/completions"):
            wish = msgspec.structs.replace(wish, as_text_completion=True)
        # Whether the caller may have the prompt comes before what becomes of Amazon Q.
        is_amazon_q = wish is not None and wish.client_name == AMAZON_Q.client_name
        if wish is None or is_amazon_q:
            wish = usual_wish(exchange.tail)
        elif not wish.is_own and not wish.identifier and not wish.feature_setting:
            usual = usual_wish(exchange.tail)
            wish = msgspec.structs.replace(wish, role=usual.role, usual_setting=usual.usual_setting)
        prompt, model = self.gateway.find_prompt(exchange.tail, constraint or None, wish, exchange.caller)
        if not prompt.is_simple:
            raise Invalid((), f"Prompt '{exchange.tail}' is not supported")
        return PromptOrder(prompt=prompt, model=model, inputs=inputs, stream=stream, is_amazon_q=is_amazon_q)

    def policy(self, exchange: Exchange, order: PromptOrder) -> Permit:
        """Every unit primitive that the prompt declares must be held, and one of its alternatives."""
        denied = f"Unauthorized to access '{exchange.tail}'"
        prompt = order.prompt
        return permit(exchange.caller, prompt.unit_primitives, any_of=prompt.any_of, denied=denied)

    async def answer_v1(self, exchange: Exchange, permit: Permit, order: PromptOrder) -> Reply | StreamReply:
        answer = await self._run(exchange, permit, order)
        if order.stream:
            return text_reply(answer, model_failed)
        return json_reply(await self._collect(answer), answer.headers)

    async def answer_v2(self, exchange: Exchange, permit: Permit, order: PromptOrder) -> Reply | StreamReply:
        answer = await self._run(exchange, permit, order)
        if order.stream:
            return text_reply(answer, model_failed, _lines)
        content = await self._collect(answer)
        return json_reply({"content": content, **_usage_member(answer)}, answer.headers)

    async def _run(self, exchange: Exchange, permit: Permit, order: PromptOrder) -> Answer:
        if order.is_amazon_q:
            raise amazon_q_unavailable()
        user = exchange.headers.text(b"x-gitlab-global-user-id")
        try:
            return await self.gateway.run_prompt(
                permit,
                order.prompt,
                order.model,
                order.inputs,
                exchange.facts,
                stream=order.stream,
                user=user,
                may_cache=may_cache_prompt(exchange.headers),
            )
        except ProviderError as error:
            raise model_failed(error) from error

    async def _collect(self, answer: Answer) -> str:
        try:
            return (await answer.collect()).texts[0]
        except ProviderError as error:
            raise model_failed(error) from error


def usual_wish(prompt_id: str) -> ModelWish:
    """What answers a prompt where the request chooses no model."""
    if prompt_id in ("code_suggestions/completions", "model_configuration/check"):
        return ModelWish(role="completions_default")
    if prompt_id == "code_suggestions/generations":
        return ModelWish(role="generation_default")
    setting = prompt_id
    if prompt_id.startswith("chat/"):
        name = prompt_id.removeprefix("chat/")
        # The chat's own steps and tools have no setting of their own.
        is_tool = name in ("react", "documentation_search") or name.endswith("_reader")
        setting = "duo_chat" if is_tool else f"duo_chat_{name}"
    return ModelWish(role="chat_default", usual_setting=setting)


def model_failed(error: ProviderError) -> Refusal:
    """421: the model failed, not the gateway; the upstream code comes first (contract 1.2)."""
    return Refusal(421, error.code, error.phrase, layer="provider", headers=retry_after(error.retry_after_s))


async def _lines(answer: Answer) -> AsyncIterator[bytes]:
    async for batch in answer:
        text = "".join(chunk.text for chunk in batch)
        if text:
            yield one_line(msgspec.json.encode({"content": text})) + b"\n"
    usage = _usage_member(answer)
    if usage:
        yield msgspec.json.encode({"content": "", **usage}) + b"\n"


def _usage_member(answer: Answer) -> dict[str, Any]:
    """`usage` by model name; left out where the provider told none."""
    usage: Usage | None = answer.usage
    if usage is None:
        return {}
    tokens = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return {"usage": {answer.upstream_model: tokens}}
