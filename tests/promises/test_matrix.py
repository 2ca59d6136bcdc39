"""Who may use which route: the route table times every kind of caller (contract 2 and 3).

A route of the server without a row here fails; so does a row whose route is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

PROXY = "ai_gateway_model_provider_proxy"
CURSOR = {"file_name": "a.py", "content_above_cursor": "def hello", "content_below_cursor": ""}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
MESSAGE = {"model": "claude-sonnet-4-6", "max_tokens": 9, **CHAT}
PROXY_HEADER = {"X-Gitlab-Unit-Primitive": PROXY}
WITH_BYPASS = {"AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER": "true"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one route expects.

    path   an address of it
    holds  scopes that are enough
    denied the text for a token without them
    users  whether a user's token with these scopes passes
    """

    path: str
    body: Any = None
    holds: tuple[str, ...]
    denied: str
    users: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    wants_headers: bool = True
    """Headers that say who calls must be there; else they must only match where they are."""
    reaches: tuple[int, str] = (200, "")
    """What a permitted call gets from a gateway with nothing but the fakes."""


def component(kind: str) -> dict[str, Any]:
    return {"prompt_components": [{"type": f"code_editor_{kind}", "payload": CURSOR}]}


def prompt_component(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"prompt_components": [{"type": kind, "metadata": ENVELOPE, "payload": payload}]}


ENVELOPE = {"source": "GitLab EE", "version": "18.6.1"}
AMAZON_Q: dict[str, dict[str, Any]] = {
    "oauth/application": {
        "client_id": "c",
        "client_secret": "s",
        "instance_url": "https://gitlab.example.com",
        "redirect_url": "https://gitlab.example.com/back",
        "role_arn": "arn",
    },
    "oauth/application/delete": {"role_arn": "arn"},
    "oauth/application/verify": {"role_arn": "arn", "code": "c"},
    "events": {"role_arn": "arn", "code": "c", "payload": {"source": "web_hook", "data": {}}},
}
COMPLETION = {"prompt_version": 1, "current_file": CURSOR}
MINTING = Row(path="", holds=("complete_code",), denied="Unauthorized to create user access token")
MATRIX: dict[tuple[str, str], list[Row]] = {
    ("POST", "/v1/code/user_access_token"): [
        Row(path="/v1/code/user_access_token", holds=MINTING.holds, denied=MINTING.denied),
        Row(path="/v1/code/user_access_token", holds=(PROXY,), denied=MINTING.denied),
    ],
    ("POST", "/auth/v1/code/user_access_token"): [
        Row(path="/auth/v1/code/user_access_token", holds=MINTING.holds, denied=MINTING.denied)
    ],
    **{
        ("POST", path): [
            Row(
                path=path,
                body=COMPLETION,
                holds=("complete_code",),
                denied="Unauthorized to access code completions",
                users=True,
            )
        ]
        for path in ("/v2/code/completions", "/v2/completions")
    },
    ("POST", "/v2/code/generations"): [
        Row(
            path="/v2/code/generations",
            body=COMPLETION,
            holds=("generate_code",),
            denied="Unauthorized to access code generations",
        )
    ],
    **{
        ("POST", path): [
            Row(path=path, body=component(kind), holds=(name,), denied="Unauthorized to access code suggestions")
            for kind, name in (("completion", "complete_code"), ("generation", "generate_code"))
        ]
        for path in ("/v3/code/completions", "/v4/code/suggestions")
    },
    ("POST", "/v2/chat/agent"): [
        Row(path="/v2/chat/agent", body=CHAT, holds=(name,), denied="Unauthorized to access duo chat", users=True)
        for name in ("duo_chat", "duo_classic_chat")
    ],
    **{
        ("POST", f"/{version}/prompts/{{tail}}"): [
            Row(
                path=f"/{version}/prompts/model_configuration/check",
                body={"inputs": {}},
                holds=("complete_code",),
                denied="Unauthorized to access 'model_configuration/check'",
                users=True,
            )
        ]
        for version in ("v1", "v2")
    },
    ("POST", "/v1/proxy/vertex-ai/{tail}"): [
        Row(
            path="/v1/proxy/vertex-ai/v1/projects/p/locations/l/publishers/google/models/gemini-x:generateContent",
            body={"contents": [{"parts": [{"text": "Hi"}]}]},
            holds=(PROXY,),
            denied=f"Unauthorized to access {PROXY}",
            users=True,
            headers=PROXY_HEADER,
            reaches=(500, "provider_key_missing"),
        )
    ],
    **{
        (method, route): [
            Row(
                path=path,
                body=body,
                holds=(PROXY,),
                denied=f"Unauthorized to access {PROXY}",
                users=True,
                headers=PROXY_HEADER,
            )
        ]
        for method, route, path, body in (
            ("POST", "/v1/proxy/anthropic/{tail}", "/v1/proxy/anthropic/v1/messages", MESSAGE),
            ("POST", "/v1/proxy/openai/{tail}", "/v1/proxy/openai/v1/chat/completions", MESSAGE | {"model": "gpt-5"}),
            ("GET", "/v1/proxy/openai/v1/models", "/v1/proxy/openai/v1/models", None),
            ("GET", "/v1/proxy/openai/models", "/v1/proxy/openai/models", None),
        )
    },
    **{
        (method, route): [
            Row(
                path=route.replace("{tail}", "anthropic/claude-sonnet-4-6"),
                body=body,
                holds=(PROXY,),
                denied=f"Unauthorized to access {PROXY}",
                users=True,
                wants_headers=False,
            )
        ]
        for method, route, body in (
            ("POST", "/openai/v1/chat/completions", CHAT | {"model": "gpt_5_4_mini"}),
            ("POST", "/openai/v1/responses", {"input": "Hi", "model": "chat_default"}),
            ("POST", "/openai/v1/embeddings", {"input": "Hi", "model": "embeddings_default"}),
            ("GET", "/openai/v1/models", None),
            ("GET", "/openai/v1/models/{tail}", None),
            ("POST", "/anthropic/v1/messages", MESSAGE),
            ("POST", "/anthropic/v1/messages/count_tokens", MESSAGE),
            ("GET", "/anthropic/v1/models", None),
            ("GET", "/anthropic/v1/models/{tail}", None),
        )
    },
    ("POST", "/v1/chat/{tail}"): [
        Row(
            path=f"/v1/chat/{name}",
            body=prompt_component("text", {"content": "Hi"}),
            holds=(unit_primitive,),
            denied=f"Unauthorized to access {unit_primitive}",
            users=True,
        )
        for name, unit_primitive in (("agent", "duo_chat"), ("troubleshoot_job", "troubleshoot_job"))
    ],
    ("POST", "/v1/x-ray/libraries"): [
        Row(
            path="/v1/x-ray/libraries",
            body=prompt_component("x_ray_package_file_prompt", {"prompt": "gem 'rails'"}),
            holds=("generate_code",),
            denied="Unauthorized to access X Ray",
        )
    ],
    ("POST", "/v1/search/gitlab-docs"): [
        Row(
            path="/v1/search/gitlab-docs",
            body={"type": "search", "metadata": ENVELOPE, "payload": {"query": "runners"}},
            holds=("documentation_search",),
            denied="Unauthorized to search documentations",
            users=True,
            reaches=(400, "docs_release_missing"),
        )
    ],
    **{
        ("POST", path): [
            Row(
                path=path,
                body={"model_metadata": {"provider": "gitlab", "identifier": None}, "contents": ["x"]},
                holds=("generate_embeddings_codebase",),
                denied="Unauthorized to access generate_embeddings_codebase",
                users=True,
            )
        ]
        for path in (f"/v1/embeddings/code_embeddings{end}" for end in ("", "/index", "/search"))
    },
    **{
        ("POST", f"/v1/amazon_q/{path}"): [
            Row(
                path=f"/v1/amazon_q/{path}",
                body=body,
                holds=("amazon_q_integration",),
                denied="Unauthorized to perform action",
                users=True,
                reaches=(501, "amazon_q_unavailable"),
            )
        ]
        for path, body in AMAZON_Q.items()
    },
    **{
        ("POST", f"/v1/{name}"): [
            Row(
                path=f"/v1/{name}",
                body=prompt_component(name, payload),
                holds=(name,),
                denied=f"Unauthorized to access {name}",
                users=True,
            )
        ]
        for name, payload in (("summarize_text", {"content": "x"}), ("generate_release_notes", {"changes": ["x"]}))
    },
}
"""(method, path of the route) → what it expects; several rows where several rights open it."""

OPEN = {
    "/monitoring/healthz": 200,
    "/monitoring/ready": 200,
    "/v1/models/definitions": 200,
    "/.well-known/jwks.json": 200,
    "/.well-known/openid-configuration": 404,
}
"""Routes without a token; the last one needs AIGW_PUBLIC_URL."""

PROBES = {"/", *(prefix + end for prefix in ("/openai", "/anthropic") for end in ("", "/", "/v1", "/v1/"))}
"""Answered to HEAD alone, and that without a token."""

Expected = tuple[int, str]
"""Status, and the refusal code; empty for an answer."""


def for_instance(row: Row) -> Expected:
    return row.reaches


def for_user(row: Row) -> Expected:
    return row.reaches if row.users else (403, "user_token_not_accepted")


def always(status: int, code: str) -> Callable[[Row], Expected]:
    return lambda _row: (status, code)


def instance_token(gateway: RunningGateway, row: Row) -> str:
    return gateway.token(unit_primitives=row.holds)


def user_token(gateway: RunningGateway, row: Row) -> str:
    return gateway.user_token(unit_primitives=row.holds)


def no_token(_gateway: RunningGateway, _row: Row) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Who:
    """One kind of caller."""

    token: Callable[[RunningGateway, Row], str | None] = instance_token
    headers: dict[str, str | None] = field(default_factory=dict)
    expected: Callable[[Row], Expected]


CALLERS = {
    "nobody": Who(token=no_token, expected=always(401, "token_missing")),
    "the instance": Who(expected=for_instance),
    "a user": Who(token=user_token, expected=for_user),
    "an instance without the right": Who(
        token=lambda gateway, _row: gateway.token(unit_primitives=["no_such_right"]),
        expected=always(403, "unit_primitive_missing"),
    ),
    "an instance without any scopes": Who(
        token=lambda gateway, _row: gateway.token(scopes=None, unit_primitives=()),
        expected=always(403, "unit_primitive_missing"),
    ),
    "a wrong realm": Who(headers={"X-Gitlab-Realm": "saas"}, expected=always(401, "header_mismatch")),
    "no realm": Who(
        headers={"X-Gitlab-Realm": None},
        expected=lambda row: (401, "header_mismatch") if row.wants_headers else for_instance(row),
    ),
    "a wrong instance": Who(headers={"X-Gitlab-Instance-Id": "another"}, expected=always(401, "header_mismatch")),
    "a wrong user": Who(
        token=user_token,
        headers={"X-Gitlab-Global-User-Id": "another"},
        expected=always(401, "header_mismatch"),
    ),
    "an expired token": Who(
        token=lambda gateway, row: gateway.token(unit_primitives=row.holds, lifetime_s=-300),
        expected=always(401, "token_expired"),
    ),
    "an expired user token": Who(
        token=lambda gateway, row: gateway.user_token(unit_primitives=row.holds, exp=1),
        expected=always(401, "token_expired"),
    ),
    "a dry run without the operator's token": Who(
        headers={"X-Torana-Dry-Run": "true"}, expected=always(403, "operator_token_required")
    ),
    "a dry run by nobody": Who(
        token=no_token, headers={"X-Torana-Dry-Run": "true"}, expected=always(401, "token_missing")
    ),
    "the bypass header": Who(token=no_token, headers={"Bypass-Auth": "true"}, expected=always(401, "token_missing")),
}


async def ask(gateway: RunningGateway, method: str, row: Row, who: Who) -> Answer:
    return await gateway.request(
        method,
        row.path,
        json=row.body,
        token=who.token(gateway, row),
        headers={"X-Gitlab-Global-User-Id": "dGVzdC11c2VyLTE=", **row.headers, **who.headers},
    )


def found(answer: Answer) -> Expected:
    return answer.status, answer.refusal.code if answer.status >= 400 else ""


async def test_every_route_has_a_row_and_every_row_a_route(gateway: RunningGateway) -> None:
    routes = gateway.running.serving.entrance.routes.routes
    closed = {(method, route.path) for route in routes if not route.is_open for method in route.methods}
    assert closed == MATRIX.keys(), "add the route to MATRIX: who may use it, with which scopes?"
    probes = {route.path for route in routes if route.methods == ("HEAD",)}
    open_to_all = {route.path for route in routes if route.is_open} - probes
    assert open_to_all == OPEN.keys(), "is the route really for everybody?"
    assert probes == PROBES


@pytest.mark.parametrize("name", CALLERS)
async def test_each_caller_gets_what_the_matrix_says_on_each_route(gateway: RunningGateway, name: str) -> None:
    who = CALLERS[name]
    wrong = {}
    reached = 0
    for (method, route), rows in MATRIX.items():
        for row in rows:
            before = len(gateway.provider.requests)
            answer = await ask(gateway, method, row, who)
            expected = who.expected(row)
            if found(answer) != expected:
                wrong[method, route, row.holds] = (found(answer), expected, answer)
            if expected[0] >= 400 and len(gateway.provider.requests) != before:
                wrong[method, route] = "a refused call reached the provider"
            if expected == (403, "unit_primitive_missing") and row.denied not in answer.text:
                wrong[method, route, row.denied] = answer.json()
            reached += len(gateway.provider.requests) - before
    assert wrong == {}
    assert bool(reached) == (name in ("the instance", "a user", "no realm"))


async def test_where_the_bypass_is_on_its_header_opens_every_route(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=WITH_BYPASS)
    bypass = Who(token=no_token, headers={"Bypass-Auth": "true"}, expected=for_instance)
    realm = {"X-Gitlab-Realm": "self-managed", "X-Gitlab-Instance-Id": "i"}
    for (method, route), rows in MATRIX.items():
        for row in rows:
            named = Row(path=row.path, body=row.body, holds=(), denied="", headers=row.headers | realm)
            assert found(await ask(gateway, method, named, bypass)) == row.reaches, route
    assert (await gateway.post("/v2/completions", json=COMPLETION)).status == 401


@pytest.mark.parametrize("kind", ["none", "good", "expired", "rubbish"])
async def test_open_routes_ask_nobody_who_they_are(gateway: RunningGateway, kind: str) -> None:
    token = {
        "none": None,
        "good": gateway.token(unit_primitives=["complete_code"]),
        "expired": gateway.token(unit_primitives=["complete_code"], lifetime_s=-300),
        "rubbish": None,
    }[kind]
    headers: dict[str, str | None] = {"Authorization": "Bearer rubbish"} if kind == "rubbish" else {}
    for path, status in OPEN.items():
        assert (await gateway.get(path, token=token, headers=headers)).status == status, path


async def test_an_attached_context_needs_its_own_right(gateway: RunningGateway) -> None:
    attached = {"category": "issue", "content": "x", "metadata": {}, "id": "1"}
    body = {"messages": [{"role": "user", "content": "Hi", "additional_context": [attached]}]}

    refused = await gateway.post("/v2/chat/agent", json=body, token=gateway.token(unit_primitives=["duo_chat"]))
    rights = ["duo_chat", "include_issue_context"]
    passed = await gateway.post("/v2/chat/agent", json=body, token=gateway.token(unit_primitives=rights))

    assert (refused.status, refused.json()["detail"]) == (403, "Unauthorized to access include_issue_context")
    assert refused.refusal.missing == "include_issue_context"
    assert passed.status == 200
