"""The OpenAPI document, made from the route list. Every route has a page here; a test keeps it so."""

from collections.abc import Iterable
from typing import Any

from torana import __version__
from torana.api.exchange import Route

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

_CODE_ANSWER = _object(choices=_list(_object(text=_text(), index=_INTEGER, finish_reason=_text())), model=_FREE)

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
    "/v1/proxy/openai/{tail}": ("Pass-through", "OpenAI's own API behind the gate", _FREE, _ANY),
}

_STREAMS = {
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
        page = PAGES.get(route.path)
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


def _operation(route: Route, group: str, summary: str, body: Schema | None, answer: Schema, method: str) -> Schema:
    operation: Schema = {
        "tags": [group],
        "summary": summary,
        "operationId": f"{method.lower()}{route.path}".replace("/", "_").replace(".", "_").replace("{tail}", "tail"),
        "responses": {"200": {"description": "Answer", "content": {"application/json": {"schema": answer}}}},
    }
    if "{tail}" in route.path:
        operation["parameters"] = [{"name": "tail", "in": "path", "required": True, "schema": _text()}]
    stream = _STREAMS.get(route.path)
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
