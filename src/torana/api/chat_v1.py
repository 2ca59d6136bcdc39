"""POST /v1/chat/{invokable}: a client's own prompt, sent as it is; deprecated (contract 7.2).

Instances of 17.x still use it, and administrators test self-hosted set-ups with it.
"""

from dataclasses import dataclass
from typing import Any, cast

from torana.access.permissions import permit
from torana.answers import Answer
from torana.api import reading
from torana.api.exchange import Exchange, Reply, Route, StreamReply, json_reply
from torana.api.metadata import named, own_model, refuse_custom_models
from torana.api.streaming import text_reply
from torana.caller import Permit
from torana.chat import ChatRequest, Message, ModelWish, Role, Text
from torana.clock import Clock
from torana.errors import (
    Invalid,
    ProviderBroke,
    ProviderError,
    ProviderTimedOut,
    ProviderUnreachable,
    Refusal,
)
from torana.gateway import Gateway
from torana.headers import retry_after
from torana.routing.models import Model
from torana.settings import ProviderSettings, Settings

INVOKABLES = {
    "agent": "duo_chat",
    "explain_code": "duo_chat",
    "write_tests": "duo_chat",
    "refactor_code": "duo_chat",
    "explain_vulnerability": "explain_vulnerability",
    "summarize_comments": "summarize_comments",
    "troubleshoot_job": "troubleshoot_job",
}
"""Name in the path → unit primitive."""

MAX_CHARS = 400_000
MAX_TOKENS, MAX_TOKENS_OF_MESSAGES = 8_192, 4_096
DEFAULT_TOKENS = 2_048
"""Where the request names no bound; some providers demand one."""

DEFAULT_TEMPERATURE = 0.2
MAX_STOP_CHARS = 225

_COMPONENT: reading.Loc = ("prompt_components", 0)
_PAYLOAD: reading.Loc = (*_COMPONENT, "payload")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOrder:
    """A request, read and looked up."""

    unit_primitive: str
    chat: ChatRequest
    model: Model
    own_name: str
    """The family that a client calls its own model; empty where the catalogue's answers."""


class ChatV1Endpoints:
    def __init__(self, gateway: Gateway, settings: Settings, clock: Clock) -> None:
        self.gateway = gateway
        self.settings = settings.providers
        self.clock = clock

    def routes(self) -> list[Route]:
        return [Route(path="/v1/chat/{tail}", read=self.read, policy=self.policy, handle=self.answer)]

    def read(self, exchange: Exchange) -> ChatOrder:
        """The body first: an unknown name is 404 only where everything else is right (contract 1.1)."""
        body = reading.read_object(exchange.body)
        stream = reading.boolean(body, "stream")
        rows = reading.items(body, "prompt_components", at_least=1, at_most=1, required=True)
        component = reading.as_object(rows[0], _COMPONENT)
        reading.text(component, "type", _COMPONENT, limit=100, required=True)
        metadata = reading.mapping(component, "metadata", _COMPONENT, required=True)
        for name in ("source", "version"):
            reading.text(metadata, name, (*_COMPONENT, "metadata"), limit=100, required=True)
        payload = reading.mapping(component, "payload", _COMPONENT, required=True)
        messages = _read_content(payload)
        max_tokens = MAX_TOKENS_OF_MESSAGES if isinstance(payload["content"], list) else MAX_TOKENS
        wish = _read_wish(payload, self.settings)
        params = _read_params(payload)
        model = self._find(wish)
        unit_primitive = INVOKABLES.get(exchange.tail)
        if unit_primitive is None:
            raise Refusal(404, "not_found", "Not found")
        return ChatOrder(
            unit_primitive=unit_primitive,
            chat=ChatRequest(
                messages=messages,
                carries_on=True,
                max_tokens=min(params.max_tokens, max_tokens),
                temperature=params.temperature,
                stop=params.stop,
                user=exchange.headers.text(b"x-gitlab-global-user-id"),
                stream=stream,
            ),
            model=model,
            own_name=wish.family if wish.is_own else "",
        )

    def _find(self, wish: ModelWish) -> Model:
        try:
            return self.gateway.models.find(wish)
        except Invalid as error:
            raise named(error, wish, _PAYLOAD, "model") from None

    def policy(self, exchange: Exchange, order: ChatOrder) -> Permit:
        return permit(exchange.caller, order.unit_primitive, denied=f"Unauthorized to access {order.unit_primitive}")

    async def answer(self, exchange: Exchange, permit: Permit, order: ChatOrder) -> Reply | StreamReply:
        try:
            answer = await self.gateway.ask(permit, order.model, order.chat, exchange.facts)
            if order.chat.stream:
                return text_reply(answer, chat_failed)
            text = (await answer.collect()).texts[0]
        except ProviderError as error:
            raise chat_failed(error) from error
        provider, model = _names(order, answer)
        metadata = {"provider": provider, "model": model, "timestamp": int(self.clock.now())}
        return json_reply({"response": text, "metadata": metadata}, answer.headers)


def chat_failed(error: ProviderError) -> Refusal:
    """What a failed model call is here (contract 1.2); clients know these texts, whoever the provider is."""
    headers = retry_after(error.retry_after_s)
    if isinstance(error, ProviderTimedOut):
        return Refusal(504, error.code, "Anthropic API Timeout Error.", layer="provider", headers=headers)
    is_connection = isinstance(error, (ProviderUnreachable, ProviderBroke))
    kind = "Connection" if is_connection else "Status"
    return Refusal(502, error.code, f"Anthropic API {kind} Error.", layer="provider", headers=headers)


def _names(order: ChatOrder, answer: Answer) -> tuple[str, str]:
    """Who answered: a client's own model under the client's words for it."""
    if order.own_name and not answer.is_demo:
        return "litellm", order.own_name
    return answer.engine, answer.upstream_model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Params:
    stop: tuple[str, ...]
    temperature: float
    max_tokens: int


def _read_params(payload: dict[str, Any]) -> _Params:
    here = (*_PAYLOAD, "params")
    params = reading.mapping(payload, "params", _PAYLOAD)
    has_stop = params.get("stop_sequences") is not None
    rows = reading.items(params, "stop_sequences", here, at_least=1 if has_stop else 0, at_most=10)
    max_tokens = reading.integer(params, "max_tokens_to_sample", here, default=DEFAULT_TOKENS)
    if not 1 <= max_tokens <= MAX_TOKENS:
        raise Invalid((*here, "max_tokens_to_sample"), f"Input should be from 1 to {MAX_TOKENS}", "value_error")
    return _Params(
        stop=tuple(_read_stop(row, (*here, "stop_sequences", number)) for number, row in enumerate(rows)),
        temperature=reading.number(params, "temperature", here, default=DEFAULT_TEMPERATURE, low=0, high=1),
        max_tokens=max_tokens,
    )


def _read_stop(row: Any, loc: reading.Loc) -> str:
    if not isinstance(row, str):
        raise Invalid(loc, "Input should be a valid string", "string_type")
    if len(row) > MAX_STOP_CHARS:
        raise Invalid(loc, f"String should have at most {MAX_STOP_CHARS} characters", "string_too_long")
    return row


def _read_content(payload: dict[str, Any]) -> tuple[Message, ...]:
    """A text, which becomes one turn of the user's, or messages."""
    if not isinstance(payload.get("content"), list):
        text = reading.text(payload, "content", _PAYLOAD, limit=MAX_CHARS, required=True)
        return (Message("user", (Text(text),)),)
    messages = []
    for number, row in enumerate(reading.items(payload, "content", _PAYLOAD, at_least=1, at_most=100)):
        here = (*_PAYLOAD, "content", number)
        members = reading.as_object(row, here)
        role = reading.choice(members, "role", ("system", "user", "assistant"), here, required=True)
        text = reading.text(members, "content", here, required=True)
        messages.append(Message(cast(Role, role), (Text(text),)))
    return tuple(filter(_says_something, messages)) or tuple(messages)


def _says_something(message: Message) -> bool:
    """A blank turn of the assistant's begins no answer; GitLab 17 ends some of its lists with one."""
    return message.role != "assistant" or any(isinstance(part, Text) and part.text.strip() for part in message.parts)


def _read_wish(payload: dict[str, Any], settings: ProviderSettings) -> ModelWish:
    provider = reading.choice(payload, "provider", ("anthropic", "litellm"), _PAYLOAD, default="anthropic")
    model = reading.text(payload, "model", _PAYLOAD, limit=255)
    endpoint = reading.text(payload, "model_endpoint", _PAYLOAD, limit=255)
    api_key = reading.text(payload, "model_api_key", _PAYLOAD, limit=2000)
    identifier = reading.text(payload, "model_identifier", _PAYLOAD, limit=1000)
    # A request with an endpoint of its own never leaves that endpoint, whatever provider it names.
    if endpoint or provider == "litellm":
        return own_model(model, endpoint, api_key, identifier, settings, (*_PAYLOAD, "model_endpoint"), name="model")
    refuse_custom_models(endpoint, api_key, settings)
    return ModelWish(role="chat_default", client_name=f"anthropic/{model}" if model else "")
