"""POST for the features of the catalogue: one YAML file, one endpoint, no Python (docs/reference/features.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from torana.access.permissions import permit
from torana.answers import Answer
from torana.api import reading
from torana.api.code import code_failed
from torana.api.envelope import read_envelope, write_envelope
from torana.api.exchange import Exchange, Reply, Route, StreamReply, json_reply
from torana.api.metadata import read_model_metadata
from torana.api.streaming import RAW_TEXT, STREAM_HEADERS, text_reply
from torana.caller import Permit
from torana.catalog.feature_file import EMPTY
from torana.catalog.records import FeatureInput, FeatureRecord
from torana.chat import ModelWish
from torana.clock import Clock
from torana.errors import Invalid, ProviderBroke, ProviderError
from torana.gateway import Gateway
from torana.prompts.prompt import Prompt
from torana.routing.models import Model, refuse_unable
from torana.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureOrder:
    """A request for a feature, looked up."""

    feature: FeatureRecord
    prompt: Prompt
    model: Model
    inputs: dict[str, Any]
    stream: bool


class FeatureEndpoints:
    """One route for each feature of a catalogue."""

    def __init__(self, gateway: Gateway, features: Iterable[FeatureRecord], settings: Settings, clock: Clock) -> None:
        self.gateway = gateway
        self.features = tuple(features)
        self.settings = settings
        self.clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                path=feature.path,
                read=partial(self.read, feature=feature),
                policy=self.policy,
                handle=self.answer,
                feature=feature,
                is_background=feature.is_background,
            )
            for feature in self.features
        ]

    def read(self, exchange: Exchange, feature: FeatureRecord) -> FeatureOrder:
        body = reading.read_object(exchange.body)
        component = read_envelope(body, feature.components)
        inputs = {
            name: _read_input(component.payload, name, each, component.loc) for name, each in feature.inputs.items()
        }
        wish = self._wish(body, feature)
        prompt, model = self.gateway.find_prompt(feature.prompt_id, feature.prompt_constraint, wish, exchange.caller)
        refuse_unable(model, feature.needs)
        exchange.facts["feature"] = feature.name
        return FeatureOrder(feature=feature, prompt=prompt, model=model, inputs=inputs, stream=component.stream)

    def _wish(self, body: dict[str, Any], feature: FeatureRecord) -> ModelWish:
        """The model that the client's administrator chose, else the feature's own."""
        own = ModelWish(role=feature.model, feature_setting=feature.feature_setting)
        wish = read_model_metadata(body.get("model_metadata"), self.settings.providers)
        if wish is None:
            return own
        is_chosen = wish.is_own or wish.identifier or wish.client_name or wish.feature_setting
        return msgspec.structs.replace(wish, role=feature.model) if is_chosen else own

    def policy(self, exchange: Exchange, order: FeatureOrder) -> Permit:
        name = order.feature.unit_primitive
        return permit(exchange.caller, name, denied=f"Unauthorized to access {name}")

    async def answer(self, exchange: Exchange, permit: Permit, order: FeatureOrder) -> Reply | StreamReply:
        try:
            # A JSON answer is checked before the first byte goes out, so that it cannot stream.
            is_streamed = order.stream and order.feature.answer == "text"
            user = exchange.headers.text(b"x-gitlab-global-user-id")
            answer = await self.gateway.run_prompt(
                permit, order.prompt, order.model, order.inputs, exchange.facts, stream=is_streamed, user=user
            )
            if is_streamed:
                return text_reply(answer, code_failed)
            return await self._whole(exchange, answer, order)
        except ProviderError as error:
            raise code_failed(error) from error

    async def _whole(self, exchange: Exchange, answer: Answer, order: FeatureOrder) -> Reply:
        try:
            found = await answer.collect()
        finally:
            await answer.aclose()
        text = found.texts[0]
        if order.feature.answer == "json":
            text = read_json_answer(text)
        if order.stream:
            return Reply(
                200, text.encode("utf-8", "replace"), [(b"content-type", RAW_TEXT), *STREAM_HEADERS, *answer.headers]
            )
        return json_reply(
            write_envelope(
                text,
                is_cut=found.finish == "length",
                engine=answer.engine,
                model=answer.model,
                timestamp=int(self.clock.now()),
                flags=exchange.flags,
                usage=found.usage,
            ),
            answer.headers,
        )


def read_json_answer(text: str) -> str:
    """The JSON object in a model's answer, as it wrote it, without a code fence; raises ProviderBroke."""
    inside = _unfence(text.strip())
    try:
        reading.read_object(inside.encode("utf-8", "replace"))
    except Invalid:
        raise ProviderBroke("the answer is no JSON object") from None
    return inside


def _unfence(told: str) -> str:
    if not told.startswith("```") or not told.endswith("```"):
        return told
    info, _, inside = told[3:-3].partition("\n")
    return inside.strip() if not info.strip() or info.strip().isalpha() else told


def _read_input(payload: dict[str, Any], name: str, each: FeatureInput, loc: reading.Loc) -> Any:
    default: Any = EMPTY[each.type] if each.default is None else each.default
    wanted = each.is_required
    match each.type:
        case "string":
            return reading.text(payload, name, loc, limit=each.max_chars, required=wanted, default=default)
        case "integer":
            return reading.integer(payload, name, loc, required=wanted, default=default)
        case "boolean":
            return reading.boolean(payload, name, loc, required=wanted, default=default)
    if not wanted and payload.get(name) is None:
        return default
    items = reading.items(payload, name, loc, required=wanted, at_most=each.max_items)
    for number, item in enumerate(items):
        here = (*loc, name, number)
        if not isinstance(item, str):
            raise Invalid(here, "Input should be a valid string", "string_type")
        if len(item) > each.max_chars:
            raise Invalid(here, f"String should have at most {each.max_chars} characters", "string_too_long")
    return items
