"""The usage quota over HTTP, with a portal that answers as the test says (contract 13, checklist J1)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import USER_ID, RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.issuer import INSTANCE_ID

RESOLVE = "/api/v1/consumers/resolve"
CURSOR = {"file_name": "a.py", "content_above_cursor": "def hello", "content_below_cursor": ""}
COMPLETION = {"prompt_version": 1, "current_file": CURSOR}
PROXY = "ai_gateway_model_provider_proxy"
RIGHTS = ("complete_code", "generate_code", "duo_chat", "amazon_q_integration", PROXY)


class Portal:
    """The customer portal on loopback: `status` and `headers` are its answer; `held` keeps it silent."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[str, str]] = []
        self.held: asyncio.Event | None = None
        self.is_cut = False
        self.questions: list[Request] = []
        self.asked = asyncio.Event()
        self.server = LoopbackServer(self._handle)

    async def _handle(self, request: Request, answering: Answering) -> None:
        if request.path != RESOLVE:  # it is an issuer's base as well, one that never answers well
            await answering.whole(404, b"", [])
            return
        self.questions.append(request)
        self.asked.set()
        if self.held is not None:
            await self.held.wait()
        if self.is_cut:
            answering.reset()
            return
        await answering.head(self.status, [*self.headers, ("Content-Length", "0")])

    def asked_for(self, number: int = -1) -> dict[str, str]:
        """The parameters of a question."""
        query = parse_qs(self.questions[number].query, keep_blank_values=True, strict_parsing=True)
        assert all(len(values) == 1 for values in query.values())
        return {name: values[0] for name, values in query.items()}


@pytest.fixture
async def portal() -> AsyncIterator[Portal]:
    portal = Portal()
    async with portal.server:
        yield portal


@pytest.fixture
async def gateway(start_gateway: StartGateway, portal: Portal, clock: HandClock) -> RunningGateway:
    return await start_gateway(env=with_portal(portal), clock=clock)


def with_portal(portal: Portal, **env: str) -> dict[str, str]:
    return {
        "AIGW_CUSTOMER_PORTAL_URL": portal.server.url,
        "AIGW_CUSTOMERSDOT__API_USER": "gateway@example.com",
        "AIGW_CUSTOMERSDOT__API_TOKEN": "portal-secret",
    } | env


async def complete(
    gateway: RunningGateway, headers: Mapping[str, str | None] | None = None, token: str | None = None
) -> Answer:
    token = token or gateway.token(unit_primitives=RIGHTS)
    return await gateway.post("/v2/code/completions", json=COMPLETION, token=token, headers=headers)


@pytest.mark.parametrize(
    ("answered", "status", "error", "error_code", "code"),
    [
        (402, 402, "insufficient_credits", "USAGE_QUOTA_EXCEEDED", "insufficient_credits"),
        (403, 403, "not_entitled", "USAGE_QUOTA_NOT_ENTITLED", "not_entitled"),
        (500, 403, "not_entitled", "USAGE_QUOTA_NOT_ENTITLED", "quota_unavailable"),
        (302, 403, "not_entitled", "USAGE_QUOTA_NOT_ENTITLED", "quota_unavailable"),
        (401, 403, "not_entitled", "USAGE_QUOTA_NOT_ENTITLED", "quota_unavailable"),
        ("cut", 403, "not_entitled", "USAGE_QUOTA_NOT_ENTITLED", "quota_unavailable"),
        ("down", 403, "not_entitled", "USAGE_QUOTA_NOT_ENTITLED", "quota_unavailable"),
    ],
)
async def test_a_no_of_the_portal_and_its_absence_refuse_and_nothing_is_sent(
    gateway: RunningGateway, portal: Portal, answered: Any, status: int, error: str, error_code: str, code: str
) -> None:
    if answered == "down":
        portal.server.stop_listening()
    elif answered == "cut":
        portal.is_cut = True
    else:
        portal.status = answered
        portal.headers = [("Location", portal.server.url)]

    answer = await complete(gateway)

    assert answer.status == status
    assert (answer.json()["error"], answer.json()["error_code"]) == (error, error_code)
    assert answer.json()["message"]
    assert (answer.refusal.code, answer.refusal.layer) == (code, "quota")
    assert gateway.provider.requests == []
    line = await gateway.log.find(logger="api.access", status_code=status)
    assert (line["refusal_code"], line["refusal_layer"]) == (code, "quota")
    assert "portal-secret" not in b"".join(gateway.log.raw).decode()


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/anthropic/v1/messages"])
async def test_a_refusal_on_a_dialect_route_is_two_sentences(
    gateway: RunningGateway, portal: Portal, path: str
) -> None:
    portal.status = 402
    body = {"model": "claude-sonnet-4-6", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}

    answer = await gateway.post(path, json=body, token=gateway.token(unit_primitives=RIGHTS))

    assert answer.json()["error"]["message"] == "The usage credits of this consumer are used up. Buy credits, or wait."


async def test_a_portal_that_keeps_silent_for_a_second_refuses(gateway: RunningGateway, portal: Portal) -> None:
    portal.held = asyncio.Event()
    before = asyncio.get_running_loop().time()

    answer = await complete(gateway)

    waited_s = asyncio.get_running_loop().time() - before
    assert (answer.status, answer.refusal.code, answer.refusal.retryable) == (403, "quota_unavailable", True)
    assert waited_s > 0.9
    await portal.questions[0].hung_up.wait()  # nothing is left open at the portal


async def test_half_a_letter_in_a_claim_stops_no_question(gateway: RunningGateway, portal: Portal) -> None:
    token = gateway.token(unit_primitives=RIGHTS, gitlab_root_namespace_id="7\ud800")

    assert (await complete(gateway, token=token)).status == 200

    assert portal.asked_for()["root_namespace_id"] == "7\ufffd"


async def test_the_question_is_exactly_the_contracts(gateway: RunningGateway, portal: Portal) -> None:
    headers = {
        "X-Request-ID": "request-7",
        "X-Gitlab-Deployment-Type": "self-managed",
        "X-Gitlab-Feature-Enablement-Type": "add_on",
        "X-Gitlab-User-Id": "12",
        "X-Gitlab-Project-Id": "34",
        "X-Gitlab-Namespace-Id": "null",
        "X-Gitlab-Root-Namespace-Id": "56 & co",
    }

    assert (
        await complete(
            gateway, headers, gateway.token(unit_primitives=RIGHTS, gitlab_instance_uid="uid-1", sub=INSTANCE_ID)
        )
    ).status == 200

    question = portal.questions[0]
    assert (question.method, question.path, question.body) == ("HEAD", RESOLVE, b"")
    assert question.header("X-Admin-Email") == "gateway@example.com"
    assert question.header("X-Admin-Token") == "portal-secret"
    assert question.header("Authorization") is None
    assert portal.asked_for(0) == {
        "event_type": "code_completions",
        "feature_qualified_name": "code_suggestions",
        "feature_ai_catalog_item": "",
        "realm": "self-managed",
        "unique_instance_id": "uid-1",
        "instance_id": INSTANCE_ID,
        "host_name": "gitlab.example.com",
        "instance_version": "18.6.1-ee",
        "deployment_type": "self-managed",
        "feature_enablement_type": "add_on",
        "user_id": "12",
        "global_user_id": USER_ID,
        "project_id": "34",
        "root_namespace_id": "56 & co",
        "environment": "test",
        "source": "torana",
        "correlation_id": "request-7",
    }


@pytest.mark.parametrize(("realm", "is_saas"), [("self-managed", False), ("saas", True)])
async def test_nobody_escapes_their_account_by_leaving_headers_out(
    gateway: RunningGateway, portal: Portal, realm: str, is_saas: bool
) -> None:
    claims = {"gitlab_project_id": 34, "gitlab_namespace_id": "55", "gitlab_root_namespace_id": 56} if is_saas else {}
    token = gateway.user_token(unit_primitives=RIGHTS, gitlab_realm=realm, **claims)
    body = {"model": "claude-sonnet-4-6", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}

    await gateway.post("/anthropic/v1/messages", json=body, headers={"x-api-key": token})

    asked = portal.asked_for()
    assert (asked["instance_id"], asked["global_user_id"]) == (INSTANCE_ID, USER_ID)
    ids = {name: asked.get(f"{name}_id") for name in ("project", "namespace", "root_namespace")}
    assert ids == ({"project": "34", "namespace": "55", "root_namespace": "56"} if is_saas else dict.fromkeys(ids))


async def test_a_user_is_asked_for_with_the_account_of_their_token_whatever_their_headers_say(
    gateway: RunningGateway, portal: Portal
) -> None:
    claims = {"gitlab_project_id": 34, "gitlab_namespace_id": "55", "gitlab_root_namespace_id": 56}
    token = gateway.user_token(unit_primitives=RIGHTS, gitlab_realm="saas", **claims)
    others = {"X-Gitlab-Project-Id": "1", "X-Gitlab-Namespace-Id": "2", "X-Gitlab-Root-Namespace-Id": "3"}

    assert (await complete(gateway, others, token)).status == 200

    asked = portal.asked_for()
    assert (asked["project_id"], asked["namespace_id"], asked["root_namespace_id"]) == ("34", "55", "56")


def component(kind: str, **members: Any) -> dict[str, Any]:
    payload = CURSOR | ({"prompt": "Write hello"} if kind == "generation" else {})
    return {"prompt_components": [{"type": f"code_editor_{kind}", "payload": payload}], **members}


AMAZON = {"provider": "amazon_q", "name": "amazon_q", "role_arn": "arn:x"}
NAMED = {"provider": "gitlab", "name": "claude", "identifier": ""}
ASKS: list[tuple[str, str, Any, str, str]] = [
    ("POST", "/v1/code/user_access_token", None, "code_completions", ""),
    ("POST", "/auth/v1/code/user_access_token", None, "code_completions", ""),
    ("POST", "/v2/code/completions", COMPLETION, "code_completions", ""),
    ("POST", "/v2/completions", COMPLETION, "code_completions", ""),
    ("POST", "/v2/code/generations", COMPLETION, "code_generations", ""),
    ("POST", "/v3/code/completions", component("completion"), "code_completions", ""),
    ("POST", "/v3/code/completions", component("generation"), "code_generations", ""),
    ("POST", "/v4/code/suggestions", component("completion"), "code_completions", ""),
    ("POST", "/v4/code/suggestions", component("generation"), "code_generations", ""),
    ("POST", "/v4/code/suggestions", component("generation", model_metadata=NAMED), "code_generations", "claude"),
    (
        "POST",
        "/v3/code/completions",
        component("completion", model_metadata=AMAZON),
        "amazon_q_integration",
        "amazon_q",
    ),
    ("POST", "/v1/proxy/anthropic/v1/messages", {"model": "claude-x", "max_tokens": 1}, "ai_gateway_proxy_use", ""),
    ("POST", "/v1/proxy/openai/v1/responses", {"model": "gpt-5"}, "ai_gateway_proxy_use", ""),
    ("GET", "/v1/proxy/openai/v1/models", None, "ai_gateway_proxy_use", ""),
]


@pytest.mark.parametrize(("method", "path", "body", "event", "model_id"), ASKS)
async def test_each_endpoint_asks_for_its_own_event(
    gateway: RunningGateway, portal: Portal, method: str, path: str, body: Any, event: str, model_id: str
) -> None:
    portal.status = 402
    token = gateway.token(unit_primitives=RIGHTS)

    answer = await gateway.request(method, path, json=body, token=token, headers={"X-Gitlab-Unit-Primitive": PROXY})

    assert answer.status == 402
    asked = portal.asked_for()
    assert (asked["event_type"], asked.get("model_id", "")) == (event, model_id)
    feature = "code_suggestions" if event.startswith("code_") else event
    assert asked["feature_qualified_name"] == feature
    assert gateway.provider.requests == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/chat/agent", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/prompts/model_configuration%2Fcheck", {"inputs": {}}),
        ("/v2/prompts/model_configuration/check", {"inputs": {}}),
    ],
)
async def test_chat_and_prompts_ask_nobody(gateway: RunningGateway, portal: Portal, path: str, body: Any) -> None:
    portal.status = 402

    assert (await gateway.post(path, json=body, token=gateway.token(unit_primitives=RIGHTS))).status == 200
    assert portal.questions == []


async def test_whoever_may_not_anyway_is_refused_before_the_portal_is_asked(
    gateway: RunningGateway, portal: Portal
) -> None:
    portal.status = 402
    token = gateway.token(unit_primitives=["duo_chat"])

    assert (await complete(gateway, token=token)).refusal.code == "unit_primitive_missing"
    assert (await gateway.post("/v2/code/completions", json={}, token=token)).status == 422
    assert portal.questions == []
    line = await gateway.log.find(logger="api.access", status_code=403)
    assert not {"quota_event", "quota_model_id"} & line.keys()


@pytest.mark.parametrize(("claim", "asked"), [(True, 0), (False, 1), ("true", 1), (1, 1), (None, 1)])
async def test_the_skip_claim_is_exactly_true(gateway: RunningGateway, portal: Portal, claim: Any, asked: int) -> None:
    await complete(gateway, token=gateway.token(unit_primitives=RIGHTS, skip_usage_cutoff=claim))

    assert len(portal.questions) == asked


async def test_a_minted_token_inherits_the_skip_claim(gateway: RunningGateway, portal: Portal) -> None:
    token = gateway.token(unit_primitives=RIGHTS, skip_usage_cutoff=True)
    minted = (await gateway.post("/v1/code/user_access_token", token=token)).json()["token"]
    portal.status = 402

    assert (await complete(gateway, token=minted)).status == 200
    assert portal.questions == []


@pytest.mark.parametrize("missing", ["AIGW_CUSTOMERSDOT__API_USER", "AIGW_CUSTOMERSDOT__API_TOKEN"])
async def test_without_both_credentials_the_gate_is_off(
    start_gateway: StartGateway, portal: Portal, missing: str
) -> None:
    gateway = await start_gateway(env=with_portal(portal, **{missing: ""}))
    portal.status = 402

    assert (await complete(gateway)).status == 200
    assert portal.questions == []
    line = await gateway.log.find(level="warning", missing=missing)
    assert line["message"] == "usage quota is not checked: one of its two credentials is not set"


async def test_the_credentials_have_a_second_name(start_gateway: StartGateway, portal: Portal) -> None:
    second = {
        "AIGW_CUSTOMERSDOT__API_USER": "",
        "AIGW_CUSTOMERSDOT__API_TOKEN": "",
        "CUSTOMER_PORTAL_USAGE_QUOTA_API_USER": "a",
        "CUSTOMER_PORTAL_USAGE_QUOTA_API_TOKEN": "b",
    }
    gateway = await start_gateway(env=with_portal(portal, **second))

    assert (await complete(gateway)).status == 200
    assert portal.questions[0].header("X-Admin-Email") == "a"


@pytest.mark.parametrize(
    ("status", "cache_control", "lasts_s"),
    [
        (200, "", 3600),
        (402, "", 3600),
        (403, "private", 3600),
        (200, "private, max-age=120", 120),
        (402, "Max-Age=60", 60),
        (500, "max-age=3600", 5),
        (302, "", 5),
    ],
)
async def test_an_answer_is_remembered_as_long_as_the_contract_says(
    gateway: RunningGateway, portal: Portal, clock: HandClock, status: int, cache_control: str, lasts_s: float
) -> None:
    portal.status = status
    portal.headers = [("Cache-Control", cache_control)] if cache_control else []
    jitter = 0.0 if lasts_s == 5 else 0.1

    first = (await complete(gateway)).status
    clock.advance(lasts_s * (1 - jitter) - 0.5)
    token = gateway.token(unit_primitives=RIGHTS, lifetime_s=9000)

    assert (await complete(gateway, token=token)).status == first
    assert len(portal.questions) == 1
    clock.advance(lasts_s * 2 * jitter + 1)
    await complete(gateway, token=token)
    assert len(portal.questions) == 2


async def test_a_portal_that_recovers_lets_calls_pass_after_five_seconds(
    gateway: RunningGateway, portal: Portal, clock: HandClock
) -> None:
    portal.status = 503
    assert (await complete(gateway)).status == 403
    portal.status = 200

    assert (await complete(gateway)).status == 403
    clock.advance(5.1)
    assert (await complete(gateway)).status == 200


KEY_HEADERS = {
    "X-Gitlab-User-Id": "other",
    "X-Gitlab-Global-User-Id": "other",
    "X-Gitlab-Root-Namespace-Id": "99",
    "X-Gitlab-Feature-Enablement-Type": "beta",
}


@pytest.mark.parametrize("header", KEY_HEADERS)
async def test_one_consumers_answer_is_never_anothers(gateway: RunningGateway, portal: Portal, header: str) -> None:
    portal.status = 402
    assert (await complete(gateway)).status == 402
    portal.status = 200

    assert (await complete(gateway, {header: KEY_HEADERS[header]})).status == 200
    assert (await complete(gateway)).status == 402
    assert len(portal.questions) == 2


@pytest.mark.parametrize("claim", ["gitlab_instance_uid", "gitlab_realm"])
async def test_one_instances_answer_is_never_anothers(gateway: RunningGateway, portal: Portal, claim: str) -> None:
    tokens = [gateway.token(unit_primitives=RIGHTS, **{claim: value}) for value in ("self-managed", "saas")]

    for token in tokens:
        await complete(gateway, token=token)

    assert len(portal.questions) == 2


@pytest.mark.parametrize("header", ["X-Gitlab-Project-Id", "X-Gitlab-Host-Name", "X-Request-ID"])
async def test_what_is_not_in_the_key_shares_the_answer(gateway: RunningGateway, portal: Portal, header: str) -> None:
    for value in ("1", "2"):
        await complete(gateway, {header: value})

    assert len(portal.questions) == 1


async def test_identical_questions_at_once_are_asked_once_and_a_caller_who_leaves_takes_nothing_along(
    gateway: RunningGateway, portal: Portal
) -> None:
    portal.held = asyncio.Event()
    token = gateway.token(unit_primitives=RIGHTS)
    async with await gateway.connect() as leaving:
        await leaving.send(gateway.request_bytes("POST", "/v2/code/completions", json=COMPLETION, token=token))
        await portal.asked.wait()
        waiting = [asyncio.create_task(complete(gateway, token=token)) for _ in range(20)]
        await gateway.monitoring("/healthz")
    portal.held.set()

    answers = await asyncio.gather(*waiting)

    assert {answer.status for answer in answers} == {200}
    assert len(portal.questions) == 1


async def test_checks_and_questions_are_counted(gateway: RunningGateway, portal: Portal) -> None:
    portal.status = 402
    await complete(gateway)
    await complete(gateway)

    shown = (await gateway.monitoring("/metrics")).text
    assert 'usage_quota_check_total{result="deny",realm="self-managed"} 2' in shown
    assert 'usage_quota_customersdot_requests_total{outcome="answered",status="402"} 1' in shown
    assert 'usage_quota_customersdot_latency_seconds_count{realm="self-managed"} 1' in shown
    assert 'torana_auth_refusals_total{code="insufficient_credits"} 2' in shown
