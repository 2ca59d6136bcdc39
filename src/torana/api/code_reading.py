"""Bodies of the code endpoints, read into orders (contract 6). Knows the product's members and providers.

v2 has flat members, one document for each endpoint. v3 and v4 share an envelope of components, the
first of which says what is wanted. Either way the provider that a client names only chooses the model,
how its answer is cleaned, and how much attached code may enter the prompt.
"""

import re
from typing import Any, Literal, cast

import msgspec
from msgspec.structs import replace

from torana.api import reading
from torana.api.exchange import Exchange
from torana.api.metadata import AMAZON_Q, may_cache_prompt, own_model, read_model_metadata, refuse_custom_models
from torana.chat import Message, ModelWish, Role, Text
from torana.code.orders import Attachment, Cleaning, CompletionOrder, Cursor, GenerationOrder
from torana.errors import Invalid
from torana.headers import Headers
from torana.prompts.versions import read_constraint
from torana.settings import ProviderSettings, Settings

COMPLETIONS_PROMPT = "code_suggestions/completions"
MAX_CHOICES = 8
"""What one request may multiply its cost by; editors ask for 4."""
FAST_MAX_TOKENS = 64
SMALL_CONTEXT_SHARE = 0.3

_FLAT_PROVIDERS = ("anthropic", "vertex-ai", "litellm", "codestral", "fireworks_ai", "amazon_q", "gitlab")
_COMPONENT_PROVIDERS = ("vertex-ai", "anthropic", "amazon_q")
_COMPONENTS = ("code_editor_completion", "code_editor_generation", "code_context")
_ROLES = ("system", "user", "assistant")
_FEATURE_SETTINGS = {"completion": "code_completions", "generation": "code_generations"}
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII)

Kind = Literal["completion", "generation"]
Prompt = str | tuple[Message, ...] | None


class Feedback(msgspec.Struct, frozen=True):
    """What became of suggestions that the client was given earlier."""

    engine: str
    model: str
    language: str
    requests: int
    accepts: int
    errors: int


class Suggestion(msgspec.Struct, frozen=True):
    """A code request, read."""

    order: CompletionOrder | GenerationOrder
    is_amazon_q: bool = False
    feedback: tuple[Feedback, ...] = ()
    model_at: reading.Loc | None = None
    """Where the flat members stand that name the model; None: `model_metadata` names it."""
    idle_pair: ModelWish | None = None
    """Provider and name that have no say in who generates, and must be known all the same."""

    @property
    def kind(self) -> Kind:
        return "completion" if isinstance(self.order, CompletionOrder) else "generation"


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What both envelopes say, before it becomes an order."""

    kind: Kind
    cursor: Cursor
    wish: ModelWish
    provider: str
    model_name: str
    uses_context: bool = True
    prompt: Prompt = None
    prompt_id: str = ""
    prompt_version: str | None = None
    inputs: dict[str, Any] = msgspec.field(default_factory=dict)
    stream: bool = False
    choices: int = 0
    is_flat: bool = False
    feedback: tuple[Feedback, ...] = ()
    model_at: reading.Loc | None = ()


def read_flat(exchange: Exchange, settings: Settings, kind: Kind) -> Suggestion:
    """The body of /v2/code/completions or /v2/code/generations; raises Invalid, or Refusal 400 (contract 10.3)."""
    body = reading.read_object(exchange.body)
    version = reading.integer(body, "prompt_version", default=1)
    if version not in (1, 2, 3):
        raise Invalid(("prompt_version",), "Input should be 1, 2 or 3", "literal_error")
    reading.text(body, "project_path", limit=255, trim=True)
    reading.integer(body, "project_id")
    cursor = _read_cursor(reading.mapping(body, "current_file", required=True), ("current_file",))
    context = tuple(
        _read_attachment(reading.as_object(item, ("context", number)), ("context", number), 500_000)
        for number, item in enumerate(reading.items(body, "context", at_most=100))
    )
    provider = reading.choice(body, "model_provider", _FLAT_PROVIDERS)
    if provider == "amazon_q" or "role_arn" in body:
        _check_role_arn(body, (), provider)
    model_name = reading.text(body, "model_name", limit=50, trim=True)
    prompt: Prompt = None
    is_required = kind == "generation"
    if version == 2:
        prompt = reading.text(body, "prompt", required=is_required) or None
    elif version == 3:
        prompt = _read_messages(body, (), required=is_required) or None
    wish = _read_flat_wish(body, provider, model_name, kind, settings.providers)
    asked = _Asked(
        kind=kind,
        cursor=replace(cursor, context=context) if context else cursor,
        wish=wish,
        provider=provider,
        model_name=model_name,
        uses_context=provider not in ("anthropic", "amazon_q"),
        prompt=prompt,
        prompt_id=_read_prompt_id(body) if kind == "generation" else "",
        stream=reading.boolean(body, "stream"),
        choices=reading.integer(body, "choices_count"),
        is_flat=True,
        feedback=_read_feedback(body) if "telemetry" in body else (),
    )
    return _suggestion(asked, exchange.headers)


def read_components(exchange: Exchange, settings: Settings) -> Suggestion:
    """The body of /v3/code/completions or /v4/code/suggestions; raises as `read_flat` does."""
    body = reading.read_object(exchange.body)
    editors: list[_Asked] = []
    context: list[Attachment] = []
    for number, value in enumerate(reading.items(body, "prompt_components", required=True, at_least=1, at_most=100)):
        loc: reading.Loc = ("prompt_components", number)
        component = reading.as_object(value, loc)
        type_ = reading.choice(component, "type", _COMPONENTS, loc, required=True)
        if number == 0 and type_ == "code_context":
            raise Invalid((*loc, "type"), "The first component should be an editor's", "literal_error")
        source = reading.mapping(component, "metadata", loc)
        for name in ("source", "version"):
            reading.text(source, name, (*loc, "metadata"), limit=255)
        payload = reading.mapping(component, "payload", loc, required=True)
        if type_ == "code_context":
            context.append(_read_attachment(payload, (*loc, "payload"), 100_000))
        else:
            kind: Kind = "completion" if type_ == "code_editor_completion" else "generation"
            editors.append(_read_editor(payload, (*loc, "payload"), kind))
    asked = editors[0]
    wish = read_model_metadata(body.get("model_metadata"), settings.providers)
    if wish is not None:
        # What the instance's administrator chose wins over what the editor's component names.
        role = _wish_of("", "", asked.kind).role
        asked = replace(asked, provider="", wish=replace(wish, role=role), model_at=None)
        exchange.quota_model_id = body["model_metadata"].get("name") or ""
    is_recent = _read_version(exchange.headers.text(b"x-gitlab-language-server-version")) >= _read_version(
        settings.catalogue.context_min_ls_version
    )
    asked = replace(asked, cursor=replace(asked.cursor, context=tuple(context)), uses_context=is_recent)
    return _suggestion(asked, exchange.headers)


def _read_editor(payload: dict[str, Any], loc: reading.Loc, kind: Kind) -> _Asked:
    cursor = _read_cursor(payload, loc)
    provider = reading.choice(payload, "model_provider", _COMPONENT_PROVIDERS, loc)
    model_name = reading.text(payload, "model_name", loc)
    _check_role_arn(payload, loc, provider)
    asked = _Asked(
        kind=kind,
        cursor=cursor,
        wish=_wish_of(provider, model_name, kind),
        provider=provider,
        model_name=model_name,
        stream=reading.boolean(payload, "stream", loc),
        model_at=loc,
    )
    if kind == "completion":
        is_text = not isinstance(payload.get("prompt"), list)
        prompt = reading.text(payload, "prompt", loc) if is_text else _read_messages(payload, loc)
        return replace(asked, prompt=prompt or None, choices=reading.integer(payload, "choices_count", loc))
    prompt_id = reading.text(payload, "prompt_id", loc)
    prompt_version = reading.text(payload, "prompt_version", loc) or None
    if prompt_id and prompt_version is not None:
        # A fault of the body is told before permissions; the prompt is looked up after them.
        try:
            read_constraint(prompt_version)
        except Invalid as error:
            raise error.at(*loc, "prompt_version") from None
    return replace(
        asked,
        prompt=reading.text(payload, "prompt", loc, limit=400_000) or None,
        prompt_id=prompt_id,
        prompt_version=prompt_version,
        inputs=reading.mapping(payload, "prompt_enhancer", loc),
    )


def _read_cursor(members: dict[str, Any], loc: reading.Loc) -> Cursor:
    return Cursor(
        file_name=reading.text(members, "file_name", loc, limit=255, trim=True, required=True),
        editor_language=reading.text(members, "language_identifier", loc, limit=255),
        prefix=reading.text(members, "content_above_cursor", loc, limit=100_000, required=True),
        suffix=reading.text(members, "content_below_cursor", loc, limit=100_000, required=True),
    )


def _read_prompt_id(body: dict[str, Any]) -> str:
    """`agent_id` is what the first instances with models of their own called it."""
    return reading.text(body, "prompt_id") or reading.text(body, "agent_id")


def _read_attachment(members: dict[str, Any], loc: reading.Loc, content_chars: int) -> Attachment:
    return Attachment(
        kind=reading.text(members, "type", loc, limit=1024, required=True),
        name=reading.text(members, "name", loc, limit=1024, required=True),
        content=reading.text(members, "content", loc, limit=content_chars, required=True),
    )


def _read_messages(members: dict[str, Any], loc: reading.Loc, *, required: bool = False) -> tuple[Message, ...]:
    """The client's own prompt; empty where a turn of it says nothing."""
    messages, is_told = [], True
    for number, item in enumerate(reading.items(members, "prompt", loc, required=required)):
        here = (*loc, "prompt", number)
        message = reading.as_object(item, here)
        role = cast(Role, reading.choice(message, "role", _ROLES, here, required=True))
        # GitLab 17 and 18 have no words where nothing stands before the cursor.
        is_told = is_told and message.get("content", "") is not None
        messages.append(Message(role, (Text(reading.text(message, "content", here, required=is_told)),)))
    return tuple(messages) if is_told else ()


def _read_feedback(body: dict[str, Any]) -> tuple[Feedback, ...]:
    found = []
    for number, item in enumerate(reading.items(body, "telemetry", at_most=10)):
        loc: reading.Loc = ("telemetry", number)
        report = reading.as_object(item, loc)
        engine, model, language = (
            reading.text(report, name, loc, limit=50) for name in ("model_engine", "model_name", "lang")
        )
        for place, value in enumerate(reading.items(report, "experiments", loc)):
            here = (*loc, "experiments", place)
            experiment = reading.as_object(value, here)
            reading.text(experiment, "name", here, required=True)
            reading.integer(experiment, "variant", here, required=True)
        counts = (reading.integer(report, name, loc, required=True) for name in ("requests", "accepts", "errors"))
        found.append(Feedback(engine, model, language.lower(), *counts))
    return tuple(found)


def _check_role_arn(members: dict[str, Any], loc: reading.Loc, provider: str) -> None:
    role_arn = reading.text(members, "role_arn", loc)
    if provider == "amazon_q" and not role_arn:
        raise Invalid((*loc, "role_arn"), "Field required", "missing")


def _read_flat_wish(
    body: dict[str, Any], provider: str, model_name: str, kind: Kind, settings: ProviderSettings
) -> ModelWish:
    endpoint = reading.text(body, "model_endpoint", limit=255)
    api_key = reading.text(body, "model_api_key", limit=2000)
    identifier = reading.text(body, "model_identifier", limit=1000)
    # A request with an endpoint of its own never leaves that endpoint, whatever provider it names.
    if endpoint or provider in ("litellm", "codestral"):
        return own_model(model_name, endpoint, api_key, identifier, settings, ("model_endpoint",), name="model_name")
    refuse_custom_models(endpoint, api_key, settings)
    if provider == "gitlab":
        wish = _wish_of("", "", kind)
        return replace(wish, identifier=model_name, feature_setting=_FEATURE_SETTINGS[kind])
    return _wish_of(provider, model_name, kind)


def _wish_of(provider: str, model_name: str, kind: Kind) -> ModelWish:
    """The model behind a provider's name (contract 6.1, 6.2); a model name without a provider says nothing."""
    if provider == "amazon_q":
        return AMAZON_Q
    client_name = _client_name(provider, model_name)
    if kind == "generation":
        return ModelWish(role="generation_default", client_name=client_name if provider == "anthropic" else "")
    roles = {"fireworks_ai": "completions_fast", "anthropic": "chat_default"}
    return ModelWish(role=roles.get(provider, "completions_default"), client_name=client_name)


def _client_name(provider: str, model_name: str) -> str:
    return f"{provider}/{model_name}" if provider and model_name else ""


def _suggestion(asked: _Asked, headers: Headers) -> Suggestion:
    user = headers.text(b"x-gitlab-global-user-id")
    may_cache = may_cache_prompt(headers)
    is_amazon_q = asked.wish.client_name == AMAZON_Q.client_name or asked.provider == "amazon_q"
    write = _completion_order if asked.kind == "completion" else _generation_order
    return Suggestion(write(asked, user, may_cache), is_amazon_q, asked.feedback, asked.model_at, _idle_pair(asked))


def _idle_pair(asked: _Asked) -> ModelWish | None:
    client_name = _client_name(asked.provider, asked.model_name)
    is_idle = asked.kind == "generation" and asked.provider in ("vertex-ai", "fireworks_ai") and not asked.wish.is_own
    return ModelWish(client_name=client_name) if is_idle and client_name else None


def _completion_order(asked: _Asked, user: str, may_cache: bool) -> CompletionOrder:
    is_own = asked.wish.is_own
    is_fast = asked.provider == "fireworks_ai" and not is_own
    is_codestral = asked.provider == "vertex-ai" and asked.model_name.startswith("codestral") and not is_own
    cleaning: Cleaning = "completion"
    if is_own or asked.provider == "anthropic":
        cleaning = "none"
    elif is_fast:
        cleaning = "fast_completion"
    elif is_codestral:
        cleaning = "codestral_completion"
    is_bare = is_own and asked.prompt is None
    wish = asked.wish
    if is_own:
        wish = replace(wish, as_text_completion=is_bare, is_flat=is_bare and asked.is_flat)
    return CompletionOrder(
        cursor=asked.cursor,
        wish=wish,
        prompt=asked.prompt,
        prompt_id=COMPLETIONS_PROMPT if is_bare else "",
        cleaning=cleaning,
        uses_context=asked.uses_context,
        context_share=SMALL_CONTEXT_SHARE if is_fast or is_codestral else 1.0,
        max_tokens=FAST_MAX_TOKENS if is_fast else 128,
        choices=1 if asked.stream else min(max(asked.choices, 1), MAX_CHOICES),
        stream=asked.stream,
        user=user,
        may_cache_prompt=may_cache,
    )


def _generation_order(asked: _Asked, user: str, may_cache: bool) -> GenerationOrder:
    is_plain_anthropic = asked.provider == "anthropic" and not asked.prompt_id and not asked.wish.is_own
    return GenerationOrder(
        cursor=asked.cursor,
        wish=asked.wish,
        # With a prompt id, the client's prompt is what the user typed, and the registry's is sent.
        prompt=None if asked.prompt_id else asked.prompt,
        prompt_id=asked.prompt_id,
        prompt_version=asked.prompt_version,
        instruction=_instruction_of(asked),
        inputs=asked.inputs,
        cleaning="blank_only" if is_plain_anthropic else "generation",
        uses_context=asked.uses_context,
        stream=asked.stream,
        user=user,
        may_cache_prompt=may_cache,
    )


def _instruction_of(asked: _Asked) -> str:
    if isinstance(asked.prompt, str):
        return asked.prompt
    if asked.prompt is not None:
        return next((message.text for message in reversed(asked.prompt) if message.role == "user"), "")
    instruction = asked.inputs.get("user_instruction")
    return instruction if isinstance(instruction, str) else ""


def _read_version(text: str) -> tuple[int, int, int, bool]:
    """Comparable; an absent or unreadable version counts as 0.0.0, a pre-release as less than its release."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return (0, 0, 0, True)
    return (int(match[1]), int(match[2]), int(match[3]), match[4] is None)
