"""What a rehearsal decided, told in the order of the walk: for `torana explain request`, and for a dry run."""

import asyncio
import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from torana.api.exchange import Exchange
from torana.catalog.limit_text import USD
from torana.errors import Refusal
from torana.facts import Facts
from torana.prompts.reasons import explain_variant, explain_version
from torana.providers.provider import Deployment
from torana.refusals import CODES, refusal_text
from torana.rehearsal import Notes, Rehearsal
from torana.routing.models import PSEUDO, SETTINGS_OF_ROLES, known_elsewhere


def tell(scene: Rehearsal, exchange: Exchange, notes: Notes) -> dict[str, Any]:
    """The decisions in the order of the walk; what was not reached is left out."""
    told: dict[str, Any] = {"request": f"{exchange.method} {exchange.path}"}
    if notes.route is not None:
        told["route"] = notes.route.path
        if notes.route.is_open:
            told["access"] = "open to everybody"
    if notes.unit_primitives:
        told["access"] = {
            "unit_primitives": notes.unit_primitives,
            "instance_token_only": notes.is_instance_only,
            "quota_event": notes.quota_event,
        }
    if notes.prompt is not None:
        told["prompt"] = _tell_prompt(scene, notes)
    if notes.calls_no_model:
        told["model"] = "this endpoint calls none"
    elif notes.model is not None:
        told["model"] = _tell_model(scene, exchange, notes)
    if notes.deployment is not None:
        told["sent_to"] = notes.deployment.name + (f" {notes.upstream_path}" if notes.upstream_path else "")
    if notes.chat is not None:
        told["sent"] = _tell_chat(scene, notes)
    if notes.expected is not None:
        told["cost"] = _tell_cost(notes)
    told["limits"] = notes.limits or "none"
    if notes.refusal is not None:
        told["refused"] = tell_refusal(notes.refusal)
    return told


def _tell_prompt(scene: Rehearsal, notes: Notes) -> dict[str, Any]:
    prompt = notes.prompt
    assert prompt is not None
    source = scene.catalogue.prompts[prompt.id][prompt.variant][prompt.version]
    return {
        "id": prompt.id,
        "version": prompt.version,
        "why_version": explain_version(prompt, notes.constraint),
        "variant": prompt.variant,
        "why_variant": explain_variant(scene.settings.catalogue, prompt, notes.families),
        "file": str(source.path),
    }


def _tell_model(scene: Rehearsal, exchange: Exchange, notes: Notes) -> dict[str, Any]:
    model = notes.model
    assert model is not None
    return {
        "name": model.name,
        "why": _explain_model(scene, exchange, notes),
        "stage": model.stage,
        "families": list(model.families),
        "input_limit": model.input_limit,
        "tokens": "estimated" if model.vocabulary is None else "counted with the model's own tokenizer",
        "fill_in": model.fill_in,
        "candidates": _tell_candidates(scene, notes),
    }


def _tell_candidates(scene: Rehearsal, notes: Notes) -> list[dict[str, Any]]:
    """Every deployment of the model, in the order of trying; without an order where the walk did not get there."""
    model = notes.model
    assert model is not None
    reasons: list[tuple[Deployment, str, str]] = [(each, "", "") for each in model.deployments]
    if notes.picked is not None:
        reasons = [(each.deployment, each.part, each.why) for each in notes.picked.reasons]
    record = scene.catalogue.models.get(model.name)
    if record is not None and not model.is_own and not model.is_demo:
        # A model knows its deployments with credentials, unless it has no others.
        known = {each.name for each, _, _ in reasons}
        rest = [scene.models.vendors.deploy(item) for item in record.deployments if item.label not in known]
        reasons += [(each, "left out", "no credentials") for each in rest if not each.is_configured]
    return [
        {
            "deployment": each.name,
            "part": part,
            "why": why,
            "configured": each.is_configured,
            "region": each.region,
            "text_completions": each.as_text_completion,
        }
        for each, part, why in reasons
    ]


class _Named(msgspec.Struct):
    model: str


def _explain_model(scene: Rehearsal, exchange: Exchange, notes: Notes) -> str:
    """Which member of the request chose, in the order in which they are looked at."""
    wish, catalogue = notes.wish, scene.catalogue
    if wish is None:  # a vendor's dialect, whose body names it
        try:
            name = msgspec.json.decode(exchange.body, type=_Named).model
        except msgspec.DecodeError:  # half a letter, which the dialects read all the same
            return "the body's model"
        alias = catalogue.aliases.get(name)
        return f"model {name}" + (f", the first configured of {', '.join(alias.models)}" if alias is not None else "")
    if wish.is_own:
        return f"the client's own server, family {wish.family or 'none'}"
    if wish.identifier and not wish.identifier.startswith(PSEUDO):
        if old := known_elsewhere(catalogue, wish.identifier):
            return f"identifier {wish.identifier}, client name {old} -> {catalogue.client_names[old].model}"
        is_heir = (
            notes.model is not None and wish.identifier in catalogue.models and notes.model.name != wish.identifier
        )
        heir = f" -> {notes.model.name}, its successor" if is_heir and notes.model is not None else ""
        return f"identifier {wish.identifier}{heir}"
    if wish.client_name:
        record = catalogue.client_names.get(wish.client_name)
        return f"client name {wish.client_name}" + (f" -> {record.model}" if record is not None else "")
    chosen = wish.identifier.removeprefix(PSEUDO) or wish.feature_setting
    overridable = chosen or wish.usual_setting or SETTINGS_OF_ROLES.get(wish.role, "")
    if scene.settings.providers.default_models.get(overridable):
        return f"AIGW_MODEL_SELECTION__DEFAULT_MODELS for feature setting {overridable}"
    setting = catalogue.feature_settings.get(chosen)
    name = setting.default if setting is not None else wish.role or "chat_default"
    why = f"feature setting {setting.name} -> {name}" if setting is not None else f"default {name}"
    alias = catalogue.aliases.get(name)
    return why + (f", the first configured of {', '.join(alias.models)}" if alias is not None else "")


def _tell_chat(scene: Rehearsal, notes: Notes) -> dict[str, Any]:
    """Settings; the texts are shown by `torana prompts render`, their size stands with the cost."""
    chat = notes.chat
    assert chat is not None
    is_marked = chat.fill_in is not None and bool(chat.fill_in.marked_prompt)
    return {
        "roles": [] if is_marked else [message.role for message in chat.messages],
        "max_tokens": chat.max_tokens,
        "temperature": chat.temperature,
        "stop": list(chat.stop),
        "dialect": scene.sender.dialect_of(notes.deployment, chat) if notes.deployment is not None else "",
        "dropped": list(scene.sender.losses(notes.deployment, chat)) if notes.deployment is not None else [],
        "stream": chat.stream,
        "choices": chat.choices,
        "first_byte_s": chat.timeout_s or scene.settings.transport.first_byte_s,
        "tries": scene.settings.routing.tries if chat.tries is None else chat.tries,
    }


def _tell_cost(notes: Notes) -> dict[str, Any]:
    """Before anything is sent the input is counted by us, and the output is what the request allows."""
    expected, deployment = notes.expected, notes.deployment
    assert expected is not None
    prices = deployment.prices if deployment is not None else None
    return {
        "estimated_input_tokens": expected.input_tokens,
        "output_tokens_at_most": expected.output_tokens,
        "usd_at_most": "unknown" if expected.cost is None else f"{Decimal(expected.cost) / USD:f}",
        "prices_as_of": prices.as_of if prices is not None else "",
    }


def tell_refusal(refusal: Refusal) -> dict[str, Any]:
    known = CODES.get(refusal.code)
    return {
        "status": refusal.status,
        "code": refusal.code,
        "text": refusal_text(refusal),
        "layer": refusal.layer or (known.layer if known is not None else "gateway"),
        "missing": refusal.missing,
        "remedy": refusal.remedy or (known.remedy if known is not None else ""),
    }


class DryRun:
    """Answers a request with every decision about it; made when the first one is asked for."""

    def __init__(self, open_rehearsal: Callable[[], Rehearsal]) -> None:
        self._open = open_rehearsal
        self._rehearsal: Rehearsal | None = None

    async def __call__(self, exchange: Exchange) -> dict[str, Any]:
        """Raises Refusal 400 for an endpoint that calls no model."""
        if self._rehearsal is None:
            # A second set of rooms takes a while to furnish; others go on meanwhile.
            self._rehearsal = await asyncio.to_thread(self._open)
        rehearsal, caller = self._rehearsal, exchange.caller
        route = rehearsal.routes.find(exchange.method, exchange.path)[0]
        if route is None or route.asks_no_model:
            raise Refusal(400, "dry_run_unavailable", "This endpoint calls no model")
        # The access line is made of the request itself, and nothing of this walk belongs into it.
        walked = copy.copy(exchange)
        walked.facts = Facts()
        notes, order = await rehearsal.walk(walked, caller)
        told = tell(rehearsal, walked, notes)
        verdict = rehearsal.verdict(walked, notes, order, caller)
        told["token"] = {"allowed": verdict is None, **(tell_refusal(verdict) if verdict is not None else {})}
        return told
