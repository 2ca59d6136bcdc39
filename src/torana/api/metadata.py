"""`model_metadata`, and the flat `model_*` fields of older clients: which model a request wants (contract 10)."""

from typing import Any

from torana.api import reading
from torana.chat import ModelWish
from torana.errors import Invalid, Refusal
from torana.headers import Headers
from torana.settings import ProviderSettings
from torana.wire.endpoint import Prefixes, fault_of

AMAZON_Q = ModelWish(client_name="amazon_q/amazon_q")


def read_model_metadata(
    value: Any, settings: ProviderSettings, loc: tuple[str | int, ...] = ("model_metadata",)
) -> ModelWish | None:
    """The wish in a `model_metadata` member; None where it says nothing usable and names no server of the client's.

    Raises Invalid for a limit that is exceeded, and for any fault beside a client's own endpoint: that
    customer's data must never go to another model. Raises Refusal 400 while custom models are off.
    """
    if not isinstance(value, dict):
        return None
    has_endpoint = bool(value.get("endpoint"))
    refuse_custom_models(value.get("endpoint"), value.get("api_key"), settings)
    try:
        provider = reading.text(value, "provider", loc, limit=255, required=True)
        name = reading.text(value, "name", loc, limit=255)
        identifier = reading.text(value, "identifier", loc, limit=1000)
        setting = reading.text(value, "feature_setting", loc, limit=255)
        endpoint = reading.text(value, "endpoint", loc, limit=255)
        api_key = reading.text(value, "api_key", loc, limit=2000)
        for other in ("friendly_name", "role_arn"):
            reading.text(value, other, loc, limit=255)
    except Invalid as error:
        if has_endpoint or error.type == "string_too_long":
            raise
        return None
    if provider == "amazon_q":
        return AMAZON_Q
    if provider == "gitlab" and not endpoint:
        return ModelWish(identifier=identifier, feature_setting=setting)
    return own_model(name, endpoint, api_key, identifier, settings, (*loc, "endpoint"))


def own_model(
    family: str,
    endpoint: str,
    api_key: str,
    identifier: str,
    settings: ProviderSettings,
    loc: tuple[str | int, ...],
    *,
    name: str = "name",
) -> ModelWish:
    """A wish for a client's own model server, its endpoint checked.

    name   what the request calls the family
    """
    refuse_custom_models(endpoint, api_key, settings)
    if endpoint:
        _check_endpoint(endpoint, settings, loc)
        if not family and not identifier:
            # Nothing says what to ask that server for, and it is not ours to guess.
            raise Invalid((*loc[:-1], name), "Field required", "missing")
    return ModelWish(
        is_own=True,
        family=family,
        endpoint=endpoint,
        api_key=api_key.strip(),  # a key is pasted, and its line end with it
        identifier=identifier,
    )


def refuse_custom_models(endpoint: Any, api_key: Any, settings: ProviderSettings) -> None:
    """Refusal 400 for a client's endpoint or key while the switch is off (contract 10.3)."""
    if (endpoint or api_key) and not settings.custom_models:
        raise Refusal(400, "custom_models_disabled", "Custom models are disabled")


def _check_endpoint(endpoint: str, settings: ProviderSettings, loc: tuple[str | int, ...]) -> None:
    """What its name leads to is looked up, and checked, when the call is sent."""
    fault = fault_of(endpoint)
    if fault == "no_url":
        raise Invalid(loc, "Input should be an http or https URL", "value_error")
    if fault or (settings.allowed_endpoints and not Prefixes(settings.allowed_endpoints).hold(endpoint)):
        raise Invalid(loc, "This endpoint is not allowed", "value_error", code="endpoint_not_allowed")


def named(error: Invalid, wish: ModelWish, loc: reading.Loc, name: str) -> Invalid:
    """The registry's fault in the words of a request with flat members: the registry speaks of `model_metadata`.

    loc   where those members stand
    name  what the request calls a model, or the family of a client's own
    """
    member = error.members["detail"][0]["loc"][-1]
    return error.at(*loc, f"model_{member}" if wish.is_own and member != "name" else name)


def may_cache_prompt(headers: Headers) -> bool:
    """False where the instance wants no provider to keep prompts; for completions, named prompts and dialects."""
    return headers.text(b"x-gitlab-model-prompt-cache-enabled").lower() != "false"
