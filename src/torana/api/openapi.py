"""The OpenAPI document, made from the route list. Every route has a page here; a test keeps it so."""

from collections.abc import Iterable
from typing import Any

from torana import __version__
from torana.api.exchange import Route
from torana.catalog.records import FeatureInput, FeatureRecord

Schema = dict[str, Any]


def _text(limit: int | None = None, **more: Any) -> Schema:
    return {"type": "string", **({"maxLength": limit} if limit else {}), **more}


def _object(required: Iterable[str] = (), **members: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": members}


def _list(items: Schema, low: int | None = None, high: int | None = None) -> Schema:
    bounds = {name: value for name, value in (("minItems", low), ("maxItems", high)) if value is not None}
    return {"type": "array", "items": items, **bounds}


_ANY: Schema = {}
_FREE: Schema = {"type": "object", "additionalProperties": True}
_FLAG: Schema = {"type": "boolean", "default": False}
_INTEGER: Schema = {"type": "integer"}

_MODEL = _text(description="an alias, a name of the catalogue, or the provider's own name of the model")

_METADATA = _object(
    ["provider"],
    provider=_text(255),
    name=_text(255, description="family of a self-hosted model"),
    endpoint=_text(255, format="uri"),
    api_key=_text(2000, format="password"),
    identifier=_text(1000),
    feature_setting=_text(255),
)
_FILE = _object(
    ["file_name", "content_above_cursor", "content_below_cursor"],
    file_name=_text(255),
    language_identifier=_text(255),
    content_above_cursor=_text(100_000),
    content_below_cursor=_text(100_000),
)
_CODE_V2 = _object(
    ["current_file"],
    prompt_version={"type": "integer", "enum": [1, 2, 3], "default": 1},
    project_path=_text(255),
    project_id=_INTEGER,
    current_file=_FILE,
    model_provider=_text(enum=["anthropic", "vertex-ai", "litellm", "codestral", "fireworks_ai", "amazon_q", "gitlab"]),
    model_name=_text(50),
    model_endpoint=_text(),
    model_api_key=_text(format="password"),
    model_identifier=_text(),
    stream=_FLAG,
    choices_count=_INTEGER,
    context=_list(_object(type=_text(1024), name=_text(1024), content=_text(500_000)), high=100),
    prompt=_ANY,
    prompt_id=_text(),
)
_COMPONENTS = _object(
    ["prompt_components"],
    prompt_components=_list(
        _object(
            ["type", "payload"],
            type=_text(enum=["code_editor_completion", "code_editor_generation", "code_context"]),
            payload=_FREE,
            metadata=_object(source=_text(255), version=_text(255)),
        ),
        1,
        100,
    ),
    model_metadata=_METADATA,
)
_CHAT = _object(
    ["messages"],
    messages=_list(
        _object(["role"], role=_text(enum=["system", "user", "assistant"]), content={"type": ["string", "null"]}), 1
    ),
    options=_FREE,
    model_metadata=_METADATA,
    unavailable_resources=_list(_text()),
)
_PROMPT = _object(
    ["inputs"],
    inputs=_FREE,
    prompt_version=_text(description="constraint, such as ^1.0.0"),
    stream=_FLAG,
    model_metadata=_METADATA,
)

_CHAT_V1 = _object(
    ["prompt_components"],
    prompt_components=_list(
        _object(
            ["type", "metadata", "payload"],
            type=_text(100),
            metadata=_object(["source", "version"], source=_text(100), version=_text(100)),
            payload=_object(
                ["content"],
                content={"oneOf": [_text(400_000), _list(_object(["role", "content"]), 1, 100)]},
                provider=_text(enum=["anthropic", "litellm"]),
                model=_text(255),
                params=_object(
                    stop_sequences=_list(_text(225), 1, 10),
                    temperature={"type": "number", "minimum": 0, "maximum": 1, "default": 0.2},
                    max_tokens_to_sample={"type": "integer", "minimum": 1, "maximum": 8192},
                ),
                model_endpoint=_text(255, format="uri"),
                model_api_key=_text(2000, format="password"),
                model_identifier=_text(1000),
            ),
        ),
        1,
        1,
    ),
    stream=_FLAG,
)
_X_RAY = _object(
    ["prompt_components"],
    prompt_components=_list(
        _object(
            ["type", "payload"],
            type=_text(enum=["x_ray_package_file_prompt"]),
            payload=_object(["prompt"], prompt=_text(400_000), provider=_text(), model=_text()),
            metadata=_FREE,
        ),
        1,
        1,
    ),
)
_SEARCH = _object(
    ["type", "metadata", "payload"],
    type=_text(100),
    metadata=_object(["source", "version"], source=_text(100), version=_text(100)),
    payload=_object(
        ["query"],
        query=_text(400_000),
        page_size={"type": "integer", "minimum": 1, "maximum": 20, "default": 4},
    ),
)
_EMBEDDINGS = _object(
    ["model_metadata", "contents"],
    model_metadata=_METADATA,
    contents=_list(_text(), 1, 2048),
    dimensions={"type": "integer", "minimum": 1, "maximum": 4096},
    litellm_drop_params=_ANY,
)
_ROLE = _object(["role_arn"], role_arn=_text(2048))

_CODE_ANSWER = _object(choices=_list(_object(text=_text(), index=_INTEGER, finish_reason=_text())), model=_FREE)

_SEARCH_ANSWER = _object(response=_object(results=_list(_FREE)), metadata=_FREE)
_EMBEDDINGS_ANSWER = _object(
    model=_object(engine=_text(), name=_text(), identifier=_text()),
    predictions=_list(_object(embedding=_list({"type": "number"}), index=_INTEGER)),
)

# path → (group, summary, request body, what a 200 holds)
PAGES: dict[str, tuple[str, str, Schema | None, Schema]] = {
    "/monitoring/healthz": ("Monitoring", "Liveness", None, _object()),
    "/monitoring/ready": ("Monitoring", "Readiness", None, _object()),
    "/.well-known/jwks.json": ("Issuer", "Public keys that verify user tokens", None, _FREE),
    "/.well-known/openid-configuration": ("Issuer", "Discovery document", None, _FREE),
    "/v1/models/definitions": ("Models", "The model catalogue", None, _FREE),
    "/v1/code/user_access_token": (
        "Access",
        "Mint a one-hour user token",
        None,
        _object(token=_text(), expires_at=_INTEGER),
    ),
    "/auth/v1/code/user_access_token": (
        "Access",
        "Alias of minting",
        None,
        _object(token=_text(), expires_at=_INTEGER),
    ),
    "/v2/code/completions": ("Code", "Complete code at the cursor", _CODE_V2, _CODE_ANSWER),
    "/v2/completions": ("Code", "Alias for direct connections", _CODE_V2, _CODE_ANSWER),
    "/v2/code/generations": ("Code", "Generate code from an instruction", _CODE_V2, _CODE_ANSWER),
    "/v3/code/completions": ("Code", "Completion or generation, component envelope", _COMPONENTS, _CODE_ANSWER),
    "/v4/code/suggestions": ("Code", "As v3; streams are server-sent events", _COMPONENTS, _CODE_ANSWER),
    "/v2/chat/agent": ("Chat", "One ReAct step, as JSON lines", _CHAT, _FREE),
    "/v1/prompts/{tail}": ("Prompts", "Run a named prompt; a JSON string, or a text stream", _PROMPT, _text()),
    "/v2/prompts/{tail}": (
        "Prompts",
        "Run a named prompt; an object with token usage, or JSON lines",
        _PROMPT,
        _object(content=_text(), usage=_FREE),
    ),
    "/v1/proxy/anthropic/{tail}": ("Pass-through", "Anthropic's own API behind the gate", _FREE, _ANY),
    "/v1/proxy/openai/v1/models": ("Pass-through", "The models that OpenAI lists", None, _FREE),
    "/v1/proxy/openai/models": ("Pass-through", "Alias of the list of models", None, _FREE),
    "/v1/proxy/openai/{tail}": ("Pass-through", "OpenAI's own API behind the gate", _FREE, _ANY),
    "/v1/proxy/vertex-ai/{tail}": ("Pass-through", "Vertex AI's own API behind the gate", _FREE, _ANY),
    "/openai/v1/chat/completions": (
        "Dialects",
        "OpenAI's chat completions, with any model behind them",
        _object(["model", "messages"], model=_MODEL, messages=_list(_FREE, 1), stream=_FLAG),
        _FREE,
    ),
    "/openai/v1/responses": (
        "Dialects",
        "OpenAI's responses, with any model behind them; nothing is stored",
        _object(["model", "input"], model=_MODEL, input=_ANY, stream=_FLAG),
        _FREE,
    ),
    "/anthropic/v1/messages": (
        "Dialects",
        "Anthropic's messages, with any model behind them",
        _object(
            ["model", "max_tokens", "messages"],
            model=_MODEL,
            max_tokens=_INTEGER,
            messages=_list(_FREE, 1),
            stream=_FLAG,
        ),
        _FREE,
    ),
    "/openai/v1/embeddings": (
        "Dialects",
        "OpenAI's embeddings",
        _object(["model", "input"], model=_MODEL, input=_ANY),
        _FREE,
    ),
    "/anthropic/v1/messages/count_tokens": (
        "Dialects",
        "How long a prompt is, as its provider counts or as we estimate",
        _object(["model", "messages"], model=_MODEL, messages=_list(_FREE, 1)),
        _object(input_tokens=_INTEGER),
    ),
    "/openai/v1/models": ("Dialects", "The configured models, as OpenAI lists its own", None, _FREE),
    "/openai/v1/models/{tail}": ("Dialects", "One model, by any of its names", None, _FREE),
    "/anthropic/v1/models": ("Dialects", "The configured models, as Anthropic lists its own", None, _FREE),
    "/anthropic/v1/models/{tail}": ("Dialects", "One model, by any of its names", None, _FREE),
    "/v1/chat/{tail}": (
        "Chat",
        "A client's own prompt; deprecated",
        _CHAT_V1,
        _object(response=_text(), metadata=_FREE),
    ),
    "/v1/search/gitlab-docs": ("Search", "Search the documentation", _SEARCH, _SEARCH_ANSWER),
    "/v1/embeddings/code_embeddings": ("Embeddings", "Vectors for code", _EMBEDDINGS, _EMBEDDINGS_ANSWER),
    "/v1/embeddings/code_embeddings/index": ("Embeddings", "As above, to index", _EMBEDDINGS, _EMBEDDINGS_ANSWER),
    "/v1/embeddings/code_embeddings/search": ("Embeddings", "As above, to search", _EMBEDDINGS, _EMBEDDINGS_ANSWER),
    "/v1/x-ray/libraries": ("Code", "Summarize dependencies; deprecated", _X_RAY, _object(response=_text())),
    "/v1/amazon_q/oauth/application": (
        "Amazon Q",
        "Checked, then 501",
        _object(
            ["client_id", "client_secret", "instance_url", "redirect_url", "role_arn"],
            client_id=_text(255),
            client_secret=_text(1000, format="password"),
            instance_url=_text(500),
            redirect_url=_text(500),
            role_arn=_text(2048),
        ),
        _ANY,
    ),
    "/v1/amazon_q/oauth/application/delete": ("Amazon Q", "Checked, then 501", _ROLE, _ANY),
    "/v1/amazon_q/oauth/application/verify": (
        "Amazon Q",
        "Checked, then 501",
        _object(["role_arn", "code"], role_arn=_text(2048), code=_text(255)),
        _ANY,
    ),
    "/v1/amazon_q/events": (
        "Amazon Q",
        "Checked, then 501",
        _object(
            ["role_arn", "code", "payload"],
            role_arn=_text(2048),
            code=_text(255),
            event_id=_text(255, default="Quick Action"),
            payload=_FREE,
        ),
        _ANY,
    ),
}

_STREAMS = {
    "/openai/v1/chat/completions": "text/event-stream",
    "/openai/v1/responses": "text/event-stream",
    "/anthropic/v1/messages": "text/event-stream",
    "/v2/chat/agent": "application/x-ndjson",
    "/v4/code/suggestions": "text/event-stream",
}

_REFUSAL = _object(
    code=_text(description="stable; `torana error CODE` explains it"),
    layer=_text(),
    missing=_text(),
    remedy=_text(),
    request_id=_text(),
    retryable={"type": "boolean"},
)


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1, one entry a route and method."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        page = PAGES.get(route.path) or (feature_page(route.feature) if route.feature is not None else None)
        if page is None:
            continue
        group, summary, body, answer = page
        for method in route.methods:
            if method == "HEAD":
                continue
            paths.setdefault(route.path, {})[method.lower()] = _operation(route, group, summary, body, answer, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "torana",
            "version": __version__,
            "description": "An AI gateway: single-purpose endpoints for every installation of a product.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "type": {"type": "apiKey", "in": "header", "name": "X-Gitlab-Authentication-Type"},
            },
            "schemas": {
                "Unauthenticated": _object(["error"], error=_text(), refusal=_REFUSAL),
                "Refused": _object(["detail"], detail=_text(), refusal=_REFUSAL),
                "Invalid": _object(
                    ["detail"],
                    detail=_list(_object(["loc", "msg", "type"], loc=_list(_ANY), msg=_text(), type=_text())),
                    refusal=_REFUSAL,
                ),
            },
        },
    }


def feature_page(feature: FeatureRecord) -> tuple[str, str, Schema | None, Schema]:
    """The page of an endpoint that the catalogue declares."""
    required = [name for name, each in feature.inputs.items() if each.is_required]
    payload = _object(required, **{name: _input(each) for name, each in feature.inputs.items()}, stream=_FLAG)
    component = _object(["type", "payload"], type=_text(enum=list(feature.components)), payload=payload)
    body = _object(
        ["prompt_components"],
        prompt_components=_list({"anyOf": [component, _FREE]}, 1, 100),
        stream=_FLAG,
        model_metadata=_METADATA,
    )
    answer = _object(["choices", "metadata"], **_CODE_ANSWER["properties"], metadata=_FREE)
    return "Features", feature.description or feature.name, body, answer


def _input(each: FeatureInput) -> Schema:
    more: Schema = {"description": each.description} if each.description else {}
    if each.default is not None:
        more["default"] = each.default
    if each.type == "list":
        return {**_list(_text(each.max_chars), high=each.max_items), **more}
    return _text(each.max_chars, **more) if each.type == "string" else {"type": each.type, **more}


def _operation(route: Route, group: str, summary: str, body: Schema | None, answer: Schema, method: str) -> Schema:
    operation: Schema = {
        "tags": [group],
        "summary": summary,
        "operationId": f"{method.lower()}{route.path}".replace("/", "_").replace(".", "_").replace("{tail}", "tail"),
        "responses": {"200": {"description": "Answer", "content": {"application/json": {"schema": answer}}}},
    }
    if "{tail}" in route.path:
        operation["parameters"] = [{"name": "tail", "in": "path", "required": True, "schema": _text()}]
    stream = "text/event-stream" if route.feature is not None else _STREAMS.get(route.path)
    if stream:
        operation["responses"]["200"]["content"][stream] = {"schema": _text()}
    if not route.is_open:
        operation["security"] = [{"token": [], "type": []}]
        for status, name in (("401", "Unauthenticated"), ("403", "Refused"), ("429", "Refused")):
            operation["responses"][status] = _refusal(name)
    if body is not None and method == "POST":
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        operation["responses"]["422"] = _refusal("Invalid")
    return operation


def _refusal(name: str) -> Schema:
    return {
        "description": name,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
