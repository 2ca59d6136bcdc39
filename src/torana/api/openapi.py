"""The OpenAPI document, made from the route list and the pages."""

from collections.abc import Iterable, Iterator
from typing import Any

from torana import __version__
from torana.api.dialect_front import ANTHROPIC, OPENAI, front_of
from torana.api.exchange import Route
from torana.api.openapi_examples import EXAMPLES, TAILS, feature_example
from torana.api.openapi_pages import PAGES, PROXY_GROUP, feature_page
from torana.api.openapi_schemas import ANYTHING, Schema, a_list, a_text, an_object, lenient

_JSON, _EVENTS, _LINES = "application/json", "text/event-stream", "application/x-ndjson"

_STREAMS = frozenset(
    (
        "/v2/code/completions", "/v2/completions", "/v2/code/generations", "/v3/code/completions",
        "/v4/code/suggestions", "/v1/prompts/{tail}", "/v2/prompts/{tail}", "/v1/chat/{tail}",
        "/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages",
    )
)  # fmt: skip
"""They answer as JSON or, where the request says so, as a stream."""

_HOW_TO_GET_ONE = "`torana token --headers` prints one for a trial, and the headers that go with it."
_IDENTITY = {
    "type": ("X-Gitlab-Authentication-Type", "`oidc`"),
    "realm": ("X-Gitlab-Realm", "As the token has it, such as `self-managed`."),
    "instance": ("X-Gitlab-Instance-Id", "As the token has it; `torana-dev` with `torana token`."),
}
"""Headers without which no token counts, `type` aside those that match its claims; and what to send."""

_REFUSAL = an_object(
    code=a_text(description="stable; `torana error CODE` explains it"),
    layer=a_text(),
    missing=a_text(),
    remedy=a_text(),
    request_id=a_text(),
    retryable={"type": "boolean"},
)


_PROBLEMS: dict[str, Schema] = {
    "Unauthenticated": an_object(["error", "refusal"], error=a_text(), refusal=_REFUSAL),
    "Refused": an_object(
        ["refusal"], detail=a_text(), error=a_text(), error_code=a_text(), message=a_text(), refusal=_REFUSAL
    ),
    "Invalid": an_object(
        ["detail", "refusal"],
        detail=a_list(an_object(["loc", "msg", "type"], loc=a_list(ANYTHING), msg=a_text(), type=a_text())),
        refusal=_REFUSAL,
    ),
    "OpenAIError": an_object(
        ["error", "refusal"],
        error=an_object(
            ["message", "type", "param", "code"],
            message=a_text(),
            type=a_text(),
            param={"type": ["string", "null"]},
            code=a_text(),
        ),
        refusal=_REFUSAL,
    ),
    "AnthropicError": an_object(
        ["type", "error", "refusal"],
        type=a_text(enum=["error"]),
        error=an_object(["type", "message"], type=a_text(), message=a_text(), code=a_text()),
        request_id=a_text(),
        refusal=_REFUSAL,
    ),
}


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
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": _HOW_TO_GET_ONE},
                **{
                    key: {"type": "apiKey", "in": "header", "name": name, "description": told}
                    for key, (name, told) in _IDENTITY.items()
                },
            },
            "schemas": _PROBLEMS,
        },
    }


def _operation(
    route: Route, group: str, summary: str, body: Schema | None, answer: Schema | None, method: str
) -> Schema:
    operation: Schema = {
        "tags": [group],
        "summary": summary,
        "operationId": f"{method.lower()}{route.path}".replace("/", "_").replace(".", "_").replace("{tail}", "tail"),
        "responses": _answers(route, answer),
    }
    if parameters := list(_parameters(route, group)):
        operation["parameters"] = parameters
    front = front_of(route.path)
    if not route.is_open:
        # The fronts ask for the token alone, as SDKs send it.
        operation["security"] = [{"token": [], **({} if front is not None else {key: [] for key in _IDENTITY})}]
    if body is not None and method == "POST":
        example = EXAMPLES[route.path] if route.feature is None else feature_example(route.feature)
        content = {_JSON: {"schema": lenient(body), "example": example}}
        operation["requestBody"] = {"required": True, "content": content}
        if front is None:
            operation["responses"]["422"] = _refusal("Invalid")
    return operation


def _parameters(route: Route, group: str) -> Iterator[Schema]:
    if "{tail}" in route.path:
        told, example = TAILS[route.path]
        path: Schema = {"name": "tail", "in": "path", "required": True, "schema": a_text()}
        yield {**path, "description": told, "example": example}
    if group == PROXY_GROUP:
        right: Schema = {"name": "X-Gitlab-Unit-Primitive", "in": "header", "required": True, "schema": a_text()}
        yield {**right, "example": "ai_gateway_model_provider_proxy"}


def _answers(route: Route, answer: Schema | None) -> dict[str, Schema]:
    front = front_of(route.path)
    refused = {OPENAI: "OpenAIError", ANTHROPIC: "AnthropicError"}[front] if front is not None else "Refused"
    answers: dict[str, Schema] = {}
    if answer is None:
        answers["501"] = _refusal("Refused")
    else:
        content = {_LINES: {"schema": a_text()}} if route.path == "/v2/chat/agent" else {_JSON: {"schema": answer}}
        if route.feature is not None or route.path in _STREAMS:
            content[_EVENTS] = {"schema": a_text()}
        answers["200"] = {"description": "Answer", "content": content}
    if not route.is_open:
        answers["401"] = _refusal("Unauthenticated" if front is None else refused)
        answers |= {status: _refusal(refused) for status in ("403", "429")}
    return {**answers, "default": _refusal(refused)}


def _refusal(name: str) -> Schema:
    return {"description": name, "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
