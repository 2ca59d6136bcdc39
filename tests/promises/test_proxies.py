"""The gate of the pass-through (contract 9): what is refused, in which order, in which words; nothing of it is sent."""

import json
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.issuer import INSTANCE_ID
from tests.support.provider import ScriptedProvider

PROXY = "ai_gateway_model_provider_proxy"
ANTHROPIC = "/v1/proxy/anthropic/v1/messages"
OPENAI = "/v1/proxy/openai/v1/chat/completions"
GOOD: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
GOOD_OPENAI = GOOD | {"model": "gpt-5-mini-2025-08-07"}


async def ask(
    gateway: RunningGateway,
    path: str = ANTHROPIC,
    asked: Any = GOOD,
    *,
    body: bytes | None = None,
    method: str = "POST",
    headers: dict[str, str | None] | None = None,
    scopes: tuple[str, ...] = (PROXY,),
    **claims: Any,
) -> Answer:
    payload = body if body is not None else None if method == "GET" else json.dumps(asked).encode()
    return await gateway.request(
        method,
        path,
        body=payload,
        token=gateway.token(unit_primitives=scopes, **claims),
        headers={"X-Gitlab-Unit-Primitive": PROXY} | (headers or {}),
    )


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["detail"]


FAULTS: list[tuple[tuple[int, str], dict[str, Any]]] = [
    ((400, "Missing x-gitlab-unit-primitive header"), {"headers": {"X-Gitlab-Unit-Primitive": None}}),
    ((400, "Unknown unit primitive header nonsense"), {"headers": {"X-Gitlab-Unit-Primitive": "nonsense"}}),
    ((402, "Proxy endpoints are not enabled for this instance"), {"gitlab_instance_uid": "not-listed"}),
    ((403, f"Unauthorized to access {PROXY}"), {"scopes": ("duo_chat",)}),
    (
        (400, "This endpoint cannot be used for complete_code purpose"),
        {"headers": {"X-Gitlab-Unit-Primitive": "complete_code"}, "scopes": ("complete_code",)},
    ),
    ((403, "Gitlab instance uid mismatch"), {"gitlab_instance_uid": "uid-listed"}),
    ((404, "Not found"), {"path": "/v1/proxy/anthropic/v1/files"}),
    ((400, "Invalid JSON"), {"body": b"{"}),
    ((400, "Failed to extract model name"), {"asked": {"messages": []}}),
    ((400, "Unsupported model"), {"asked": {"model": "gpt-5"}}),
    ((400, "API key not found"), {}),
]
"""One fault a row, in the contract's order; the key is missing in every one of them."""


async def test_of_two_faults_the_earlier_one_of_the_contract_is_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        env={
            "ANTHROPIC_API_KEY": "",
            "AIGW_PROXY_ENDPOINTS__SELF_MANAGED_ENABLED": f"{INSTANCE_ID},uid-listed",
        }
    )

    for at, (expected, fault) in enumerate(FAULTS):
        assert said(await ask(gateway, **fault)) == expected
        for _, later in FAULTS[at + 1 :]:
            # A fault in the same place cannot be combined with this one.
            if not later.keys() & fault.keys():
                assert said(await ask(gateway, **fault, **later)) == expected, later
    assert gateway.provider.requests == []


async def test_another_method_is_405_before_anything_else_is_looked_at(gateway: RunningGateway) -> None:
    bare: dict[str, str | None] = {"X-Gitlab-Unit-Primitive": None}
    for method, path in [
        ("GET", ANTHROPIC),
        ("PUT", ANTHROPIC),
        ("DELETE", OPENAI),
        ("GET", OPENAI),
        ("GET", "/v1/proxy/openai/v1/unknown"),
        ("PATCH", "/v1/proxy/openai/v1/models"),
        ("POST", "/v1/proxy/openai/v1/models"),
        ("POST", "/v1/proxy/openai/models"),
    ]:
        answer = await ask(gateway, path, None, method=method, headers=bare)
        assert said(answer) == (405, "Method Not Allowed"), (method, path)


async def test_a_proxy_without_a_token_is_401(gateway: RunningGateway) -> None:
    answer = await gateway.post(ANTHROPIC, json=GOOD)

    assert answer.status == 401
    assert "error" in answer.json()


ALLOWED = {
    ANTHROPIC: "/v1/messages",
    "/ai" + ANTHROPIC: "/v1/messages",
    "/v1/proxy/anthropic/v1%2Fmessages": "/v1/messages",
    "/v1/proxy/anthropic/v1/messages/count_tokens": "/v1/messages/count_tokens",
    "/v1/proxy/anthropic/v1/complete": "/v1/complete",
    OPENAI: "/v1/chat/completions",
    "/v1/proxy/openai/chat/completions": "/v1/chat/completions",
    "/v1/proxy/openai/v1/responses": "/v1/responses",
    "/v1/proxy/openai/responses": "/v1/responses",
    "/v1/proxy/openai/v1/embeddings": "/v1/embeddings",
    "/v1/proxy/openai/embeddings": "/v1/embeddings",
}


async def test_an_allowed_path_leads_to_the_vendors_own(gateway: RunningGateway) -> None:
    for path in ALLOWED:
        answer = await ask(gateway, path, (GOOD_OPENAI if "openai" in path else GOOD) | {"input": "Hi"})
        assert answer.status == 200, path

    assert [request.path for request in gateway.provider.requests] == list(ALLOWED.values())


async def test_the_list_of_models_is_asked_for_without_a_body(gateway: RunningGateway) -> None:
    for path in ("/v1/proxy/openai/v1/models", "/v1/proxy/openai/models"):
        answer = await ask(gateway, path, method="GET")

        assert [row["id"] for row in answer.json()["data"]] == gateway.provider.models
        request = gateway.provider.model_lists[-1]
        assert (request.method, request.path, request.body) == ("GET", "/v1/models", b"")
        assert request.header("content-length") is None


FORBIDDEN = [
    "anthropic/v1/files",
    "anthropic/messages",
    "anthropic/v1/messages/",
    "anthropic/v1//messages",
    "anthropic//v1/messages",
    "anthropic/v1/../v1/messages",
    "anthropic/v1/messages/../messages",
    "anthropic/%2e%2e/v1/messages",
    "anthropic/v1/%2E/messages",
    "anthropic/v1/%252e/messages",
    "anthropic/v1/messages%00",
    "anthropic/v1/messages%3Fa",
    "anthropic/v1/Messages",
    "anthropic/v1/messages/batches",
    "openai/v1/v1/chat/completions",
    "openai//chat/completions",
    "openai/v1/chat/completions/../../files",
    "openai/v1/files",
    "openai/v1/completions",
    "openai/v1/images/generations",
]


async def test_every_other_path_is_404_and_nothing_is_sent(gateway: RunningGateway) -> None:
    for tail in FORBIDDEN:
        assert said(await ask(gateway, f"/v1/proxy/{tail}")) == (404, "Not found"), tail
    assert gateway.provider.requests == gateway.provider.model_lists == []


async def test_a_path_without_a_proxy_is_unknown(gateway: RunningGateway) -> None:
    for path in ("/v1/proxy/anthropic", "/v1/proxy/anthropic/", "/v1/proxy/mistral/v1/messages"):
        assert said(await ask(gateway, path)) == (404, "Not Found"), path


NO_JSON = [
    b"", b" ", b"{", b"[", b'["a"', b'"a', b"[1] x",
    b'{"model":"claude-x"', b'{"model":"claude-x"} x', b'{"model":claude}', b'{"a":NaN}',
    b'{"model":"claude-\xff"}', b'{"a":' * 5000, b'{"model":"claude-x","a":' + b"[" * 5000 + b"]" * 5000 + b"}",
]  # fmt: skip


async def test_a_body_that_is_no_json_is_400(gateway: RunningGateway) -> None:
    for body in NO_JSON:
        assert said(await ask(gateway, body=body)) == (400, "Invalid JSON"), body[:30]
    assert gateway.provider.requests == []


async def test_a_body_without_a_model_is_400(gateway: RunningGateway) -> None:
    for path in (ANTHROPIC, OPENAI):
        for asked in ({}, {"model": None}, {"model": ""}, {"model": 5}, {"model": ["claude-x"]}, [], "x"):
            assert said(await ask(gateway, path, asked)) == (400, "Failed to extract model name"), asked
    assert gateway.provider.requests == []


@pytest.mark.parametrize(
    ("path", "models"),
    [
        (ANTHROPIC, ["claude-opus-4-6", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001", "claude-x"]),
        (OPENAI, ["gpt-5.1-2025-11-13", "gpt-5-codex", "o1", "o3-mini", "o4-mini", "codex-mini-latest"]),
        (OPENAI, ["chatgpt-4o-latest", "text-embedding-3-small"]),
    ],
)
async def test_models_of_the_allow_list_are_let_by(gateway: RunningGateway, path: str, models: list[str]) -> None:
    for model in models:
        assert (await ask(gateway, path, GOOD | {"model": model})).status == 200, model
    assert [request.json()["model"] for request in gateway.provider.requests] == models


@pytest.mark.parametrize(
    ("path", "models"),
    [
        (ANTHROPIC, ["gpt-5", "claude", "Claude-x", " claude-x", "anthropic/claude-x", "xclaude-"]),
        (OPENAI, ["claude-sonnet-4-6", "GPT-5", "dall-e-3", "gpt", "whisper-1", "mistral", "o2", "\u0000gpt-5"]),
    ],
)
async def test_every_other_model_is_400(gateway: RunningGateway, path: str, models: list[str]) -> None:
    for model in models:
        assert said(await ask(gateway, path, {"model": model})) == (400, "Unsupported model"), model
    assert gateway.provider.requests == []


QUERIES = [
    ("", ""),
    ("?beta=true", "beta=true"),
    ("?alt=sse&key=canary", "alt=sse"),
    ("?key=canary&beta=a%20b&x=1&alt=json", "beta=a%20b&alt=json"),
    ("?betas=1&BETA=2&&=", ""),
    ("?beta", "beta="),
    ("?beta=%26key%3Dcanary", "beta=%26key%3Dcanary"),
    ("?beta=%E2%82%AC", "beta=%E2%82%AC"),
]


async def test_of_the_query_only_beta_and_alt_go_on(gateway: RunningGateway) -> None:
    for query, sent in QUERIES:
        assert (await ask(gateway, ANTHROPIC + query)).status == 200
        assert gateway.provider.requests[-1].query == sent


async def test_a_server_without_keys_says_so_in_each_providers_way(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""})

    anthropic, openai = await ask(gateway), await ask(gateway, OPENAI, GOOD_OPENAI)
    assert said(anthropic) == (400, "API key not found")
    assert openai.status == 500
    settings = [answer.json()["refusal"]["missing"] for answer in (anthropic, openai)]
    assert settings == ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"]
    assert gateway.provider.requests == []


async def test_an_openai_server_of_ones_own_needs_no_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"OPENAI_API_KEY": ""})

    assert (await ask(gateway, OPENAI, GOOD_OPENAI)).status == 200
    assert (gateway.provider.requests[0].header("authorization") or "").startswith("Bearer ")


@pytest.mark.parametrize("suffix", ["/", "/v1"])
async def test_base_urls_lead_to_exactly_one_v1(
    start_gateway: StartGateway, provider: ScriptedProvider, suffix: str
) -> None:
    base = provider.url + "/team" + suffix
    gateway = await start_gateway(env={"ANTHROPIC_BASE_URL": base, "OPENAI_BASE_URL": base})

    await ask(gateway)
    await ask(gateway, OPENAI, GOOD_OPENAI)

    assert [request.path for request in gateway.provider.requests] == [
        "/team/v1/messages",
        "/team/v1/chat/completions",
    ]


UIDS: list[tuple[dict[str, str | None], dict[str, Any], int]] = [
    ({}, {}, 200),
    ({}, {"gitlab_instance_uid": ""}, 200),
    ({}, {"gitlab_instance_uid": INSTANCE_ID}, 200),
    ({"X-Gitlab-Instance-Uid": "uid-1"}, {"gitlab_instance_uid": "uid-1"}, 200),
    ({"X-Gitlab-Instance-Uid": "uid-2"}, {"gitlab_instance_uid": "uid-1"}, 403),
    ({}, {"gitlab_instance_uid": "uid-1"}, 403),
]


async def test_a_self_managed_instance_uid_must_agree_where_the_token_has_one(gateway: RunningGateway) -> None:
    for headers, claims, status in UIDS:
        answer = await ask(gateway, headers=headers, **claims)
        assert answer.status == status, (headers, claims)
        assert status == 200 or said(answer)[1] == "Gitlab instance uid mismatch"
    assert len(gateway.provider.requests) == sum(status == 200 for *_, status in UIDS)


async def test_an_instance_uid_can_be_demanded(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_PROXY_ENDPOINTS__REQUIRE_INSTANCE_UID": "true"})

    assert said(await ask(gateway)) == (403, "Gitlab instance uid mismatch")
    assert (await ask(gateway, gitlab_instance_uid=INSTANCE_ID)).status == 200


IDS = {"gitlab_project_id": "7", "gitlab_namespace_id": "8", "gitlab_root_namespace_id": "9"}
ID_HEADERS = {"X-Gitlab-Project-Id": "7", "X-Gitlab-Namespace-Id": "8", "X-Gitlab-Root-Namespace-Id": "9"}


SAAS_IDS: list[tuple[dict[str, str], dict[str, Any], str]] = [
    (ID_HEADERS, IDS, ""),
    (ID_HEADERS, {"gitlab_project_id": 7, "gitlab_namespace_id": 8, "gitlab_root_namespace_id": 9}, ""),
    ({}, {}, ""),
    ({"X-Gitlab-Project-Id": "null"}, {"gitlab_namespace_id": None}, ""),
    (ID_HEADERS | {"X-Gitlab-Project-Id": "1"}, IDS, "Gitlab project id mismatch"),
    (ID_HEADERS | {"X-Gitlab-Namespace-Id": "1"}, IDS, "Gitlab namespace id mismatch"),
    (ID_HEADERS | {"X-Gitlab-Root-Namespace-Id": "1"}, IDS, "Gitlab root namespace id mismatch"),
    (ID_HEADERS, {}, "Gitlab project id mismatch"),
    ({}, IDS, "Gitlab project id mismatch"),
    ({"X-Gitlab-Project-Id": "null"}, IDS, "Gitlab project id mismatch"),
]


async def test_saas_ids_must_equal_the_claims(gateway: RunningGateway) -> None:
    for headers, claims, text in SAAS_IDS:
        answer = await ask(gateway, headers={**headers}, realm="saas", **claims)
        told = (answer.status, answer.json().get("detail", ""))
        assert told == ((403, text) if text else (200, "")), (headers, claims)


async def test_realm_lists_decide_who_may_use_the_proxies(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        env={
            "AIGW_PROXY_ENDPOINTS__SAAS_ENABLED": "9, 10",
            "AIGW_PROXY_ENDPOINTS__SELF_MANAGED_ENABLED": '["uid-1"]',
        }
    )
    root_9: dict[str, Any] = {"headers": {"X-Gitlab-Root-Namespace-Id": "9"}, "gitlab_root_namespace_id": 9}
    root_1: dict[str, Any] = {"headers": {"X-Gitlab-Root-Namespace-Id": "1"}, "gitlab_root_namespace_id": 1}
    uid_1: dict[str, Any] = {"headers": {"X-Gitlab-Instance-Uid": "uid-1"}, "gitlab_instance_uid": "uid-1"}
    not_instance = (402, "Proxy endpoints are not enabled for this instance")
    not_namespace = (402, "Proxy endpoints are not enabled for this namespace")

    assert (await ask(gateway, realm="saas", **root_9)).status == 200
    assert said(await ask(gateway, realm="saas", **root_1)) == not_namespace
    assert said(await ask(gateway, realm="saas")) == not_namespace
    assert (await ask(gateway, **uid_1)).status == 200
    assert said(await ask(gateway)) == not_instance  # without a uid the instance id counts
    assert said(await ask(gateway, realm="dedicated")) == not_instance
    assert (await ask(gateway, instance_id="uid-1")).status == 200


async def test_a_body_over_the_proxies_limit_is_413_and_at_the_limit_passes(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MAX_PROXY_BODY_BYTES": "1000"})
    frame = len(json.dumps(GOOD | {"pad": ""}))
    at_limit = GOOD | {"pad": "x" * (1000 - frame)}

    passed = await ask(gateway, asked=at_limit)
    refused = await ask(gateway, asked=at_limit | {"pad": at_limit["pad"] + "x"})

    assert passed.status == 200
    assert len(gateway.provider.requests[0].body) == 1000
    assert said(refused) == (413, "Request body too large")
    assert refused.header("connection") == "close"


async def test_a_body_of_32_mib_is_passed_on_as_it_came(gateway: RunningGateway) -> None:
    text = json.dumps(GOOD | {"pad": ""})
    body = text.replace('"pad": ""', '"pad": "' + "x" * (32 * 2**20 - len(text)) + '"').encode()
    assert len(body) == 32 * 2**20

    answer = await ask(gateway, body=body)

    assert answer.status == 200
    assert gateway.provider.requests[0].body == body


async def test_a_user_token_may_use_the_proxies(gateway: RunningGateway) -> None:
    answer = await gateway.post(
        ANTHROPIC,
        json=GOOD,
        token=gateway.user_token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY},
    )

    assert answer.status == 200
