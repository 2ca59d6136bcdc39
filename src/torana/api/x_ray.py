"""POST /v1/x-ray/libraries: a summary of a project's dependencies, asked by 17.x instances only (contract 6.8)."""

from typing import Any

from torana.access.permissions import permit
from torana.api import reading
from torana.api.code import code_failed
from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.caller import Permit
from torana.chat import ChatRequest, Message, ModelWish, Text
from torana.errors import Invalid, ProviderError
from torana.gateway import Gateway

MAX_TOKENS = 2_048
"""A list of libraries with a line each is far below."""

_COMPONENT: reading.Loc = ("prompt_components", 0)


class XRayEndpoints:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route(
                path="/v1/x-ray/libraries", read=self.read, policy=self.policy, handle=self.answer, is_background=True
            )
        ]

    def read(self, exchange: Exchange) -> str:
        """The prompt. Provider and model can only be the ones that once were; the default chat model answers."""
        body = reading.read_object(exchange.body)
        rows = reading.items(body, "prompt_components", at_least=1, at_most=1, required=True)
        component = reading.as_object(rows[0], _COMPONENT)
        reading.choice(component, "type", ("x_ray_package_file_prompt",), _COMPONENT, required=True)
        payload = reading.mapping(component, "payload", _COMPONENT, required=True)
        here = (*_COMPONENT, "payload")
        prompt = reading.text(payload, "prompt", here, limit=400_000, required=True)
        reading.choice(payload, "provider", ("anthropic",), here)
        reading.choice(payload, "model", ("claude-2.1",), here)
        _check_metadata(reading.mapping(component, "metadata", _COMPONENT))
        return prompt

    def policy(self, exchange: Exchange, prompt: str) -> Permit:
        return permit(exchange.caller, "generate_code", denied="Unauthorized to access X Ray", instance_only=True)

    async def answer(self, exchange: Exchange, permit: Permit, prompt: str) -> Reply:
        chat = ChatRequest(messages=(Message("user", (Text(prompt),)),), max_tokens=MAX_TOKENS, stream=False)
        model = self.gateway.models.find(ModelWish(role="chat_default"))
        try:
            answer = await self.gateway.ask(permit, model, chat, exchange.facts)
            collected = await answer.collect()
        except ProviderError as error:
            raise code_failed(error) from error
        return json_reply({"response": collected.texts[0]}, answer.headers)


def _check_metadata(members: dict[str, Any]) -> None:
    here = (*_COMPONENT, "metadata")
    if len(members) > 10:
        raise Invalid(here, "Dictionary should have at most 10 items", "too_long")
    for name in members:
        if len(name) > 100:
            raise Invalid(here, "Keys should have at most 100 characters", "string_too_long")
        reading.text(members, name, here, limit=255, required=True)
