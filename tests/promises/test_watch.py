"""What operators see: metrics, access lines, readiness, the API page (contract 15, interface 6 and 7)."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY, SIGNING_KEY, RunningGateway
from tests.support.http_client import Answer
from tests.support.issuer import FakeIssuer
from tests.support.keys import pem, rsa_key
from tests.support.waiting import WAIT_S

PROXY = "ai_gateway_model_provider_proxy"
MESSAGES = "/v1/proxy/anthropic/v1/messages"
ASKED: dict[str, Any] = {"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": "canary-prompt"}]}


async def ask(gateway: RunningGateway, asked: Any = ASKED, path: str = MESSAGES, **headers: str) -> Answer:
    return await gateway.post(
        path,
        json=asked,
        token=gateway.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY, **headers},
    )


async def until(found: Callable[[], Any]) -> Any:
    """What `found` returns as soon as it is true."""
    async with asyncio.timeout(WAIT_S):
        value = found()
        while not value:
            await asyncio.sleep(0.01)
            value = found()
    return value


async def metrics(gateway: RunningGateway) -> dict[str, float]:
    """`name{label="value",…}` → number."""
    answer = await gateway.monitoring("/metrics")
    assert (answer.header("content-type") or "").startswith("text/plain")
    rows = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


# Metrics


async def test_every_metric_of_the_contract_is_shown_from_the_start(gateway: RunningGateway) -> None:
    text = (await gateway.monitoring("/metrics")).text

    shown = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert shown >= {
        "http_request_duration_seconds", "http_requests_total", "model_inferences_in_flight",
        "model_inferences_max_concurrent", "model_max_input_tokens", "model_max_output_tokens",
        "model_max_total_tokens", "model_inferences_total", "inference_request_duration_seconds",
        "inference_input_tokens_total", "inference_output_tokens_total", "inference_total_tokens_total",
        "code_suggestions_prompt_language_total", "code_suggestions_post_processing_duration_seconds",
        "usage_quota_check_total", "usage_quota_customersdot_requests_total",
        "usage_quota_customersdot_latency_seconds", "ai_gateway_threads_count",
        "code_suggestions_inference_requests_total", "code_suggestions_inference_request_duration_seconds",
        "code_suggestions_inference_prompt_size_bytes", "code_suggestions_inference_prompt_size_tokens",
        "code_suggestions_accepts_total", "code_suggestions_requests_total", "code_suggestions_errors_total",
    }  # fmt: skip


async def test_requests_are_counted_by_route_method_and_grouped_status(gateway: RunningGateway) -> None:
    await ask(gateway)
    await ask(gateway, {"model": "gpt-5"})
    await gateway.get("/monitoring/healthz")
    await gateway.post("/v1/code/user_access_token", token=None)
    await gateway.post("/nowhere", token=None)

    found = await metrics(gateway)
    assert found['http_requests_total{handler="/v1/code/user_access_token",method="POST",status="4xx"}'] == 1
    assert found['http_requests_total{handler="unknown",method="POST",status="4xx"}'] == 1
    proxy = 'handler="/v1/proxy/anthropic",method="POST"'
    assert found[f'http_requests_total{{{proxy},status="2xx"}}'] == 1
    assert found['http_requests_total{handler="/monitoring/healthz",method="GET",status="2xx"}'] == 1
    assert found[f'http_request_duration_seconds_count{{{proxy},status="2xx"}}'] == 1
    bounds = {
        float(match[1])
        for name in found
        if name.startswith("http_request_duration_seconds_bucket") and (match := re.search(r'le="([^"+]+)"', name))
    }
    assert bounds == {0.5, 1, 2.5, 5, 10, 30, 60}


async def test_model_calls_are_counted_with_their_labels_and_tokens(gateway: RunningGateway) -> None:
    await ask(gateway)
    await ask(gateway, ASKED | {"stream": True})
    gateway.provider.fail_with(529)
    await ask(gateway)

    text = (await gateway.monitoring("/metrics")).text
    rows = [
        (dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
        for labels, value in re.findall(r"^model_inferences_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    ]
    assert sorted((row["error"], row["error_type"], row["streaming"], count) for row, count in rows) == [
        ("no", "none", "no", 1),
        ("no", "none", "yes", 1),
        ("yes", "overloaded", "no", 1),
    ]
    assert {(row["model_engine"], row["model_name"], row["unit_primitive"]) for row, _ in rows} == {
        ("anthropic", "claude-sonnet-4-6", PROXY)
    }
    found = await metrics(gateway)
    tokens = {name.partition("{")[0]: value for name, value in found.items() if name.startswith("inference_")}
    assert tokens["inference_input_tokens_total"] == 50
    assert tokens["inference_output_tokens_total"] == 14
    assert tokens["inference_total_tokens_total"] == 64


async def test_model_calls_tell_the_kind_of_client_where_it_is_a_known_one(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["generate_commit_message"])
    for name in ("gitlab-extension", "made-up-client", None):
        headers = {"X-Gitlab-Client-Name": name, "X-Gitlab-Client-Version": "1.0" if name else None}
        path = "/v1/prompts/generate_commit_message"
        await gateway.post(path, json={"inputs": {"diff": "+x"}}, token=token, headers=headers)

    text = (await gateway.monitoring("/metrics")).text
    pairs = re.findall(r'^model_inferences_total\{.*client_name="([^"]*)",client_version="([^"]*)"', text, re.MULTILINE)
    assert sorted(pairs) == [("gitlab-extension", "other"), ("none", "none"), ("other", "other")]


async def test_a_call_under_way_is_in_flight_until_its_end(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=1)
    series = 'model_inferences_in_flight{model_engine="anthropic",model_name="claude-sonnet-4-6"}'

    asking = asyncio.create_task(ask(gateway, ASKED | {"stream": True}))
    await gateway.provider.request()
    assert (await metrics(gateway))[series] == 1
    gateway.provider.release()
    await asking

    assert (await metrics(gateway))[series] == 0


async def test_names_that_clients_make_up_become_other(gateway: RunningGateway) -> None:
    for number in range(20):
        await ask(gateway, ASKED | {"model": f"claude-made-up-{number}"})
        await gateway.get(f"/made-up-{number}", token=gateway.token(unit_primitives=[]))
        await gateway.request("BREW", "/v1/nowhere", token=gateway.token(unit_primitives=[]))

    text = (await gateway.monitoring("/metrics")).text
    assert "made-up" not in text
    assert "BREW" not in text
    assert 'model_engine="anthropic",model_name="other"' in text
    assert len(re.findall(r"^http_requests_total\{", text, re.MULTILINE)) <= 3


async def test_models_that_the_operator_names_are_shown_by_name(start_gateway: StartGateway) -> None:
    limits = {"anthropic": {"claude-limited": {"concurrency": 3}}}
    gateway = await start_gateway(
        env={
            "ANTHROPIC_API_KEY": "",
            "AIGW_OPENAI_MODEL": "our-llama",
            "AIGW_MODEL_ENGINE_LIMITS": json.dumps(limits),
        }
    )

    await gateway.post(
        "/v1/prompts/model_configuration/check",
        json={"inputs": {}},
        token=gateway.token(unit_primitives=["complete_code"]),
    )

    text = (await gateway.monitoring("/metrics")).text
    assert 'model_inferences_total{model_engine="openai",model_name="our-llama"' in text


async def test_no_label_holds_an_id_of_a_user_or_an_instance(gateway: RunningGateway) -> None:
    await ask(gateway, **{"X-Gitlab-Global-User-Id": "canary-user", "X-Gitlab-Instance-Uid": "canary-uid"})

    text = (await gateway.monitoring("/metrics")).text
    assert "canary" not in text
    assert not set(re.findall(r'(\w+)="', text)) & {"user", "user_id", "instance", "instance_id", "realm_id"}


async def test_metrics_on_the_main_port_are_404_without_a_token(gateway: RunningGateway) -> None:
    answer = await gateway.get("/metrics")

    assert (answer.status, answer.json()["detail"]) == (404, "Not Found")


# Log lines

ACCESS_MEMBERS = {
    "url", "path", "status_code", "method", "http_version", "client_ip", "client_port", "duration_s",
    "duration_request", "request_arrived_at", "response_start_duration_s", "first_chunk_duration_s", "cpu_s",
    "content_type", "user_agent", "gitlab_language_server_version", "gitlab_instance_id",
    "gitlab_global_user_id", "gitlab_host_name", "gitlab_version", "gitlab_saas_duo_pro_namespace_ids",
    "gitlab_feature_enabled_by_namespace_ids", "gitlab_feature_enablement_type", "gitlab_realm",
    "gitlab_root_namespace_id", "gitlab_organization_id", "is_gitlab_team_member", "gitlab_duo_seat_count",
    "auth_duration_s", "token_issuer", "meta.unit_primitive", "message", "level", "logger", "timestamp", "type",
    "stage", "correlation_id",
}  # fmt: skip


async def test_each_request_has_exactly_one_access_line_with_the_contracts_members(gateway: RunningGateway) -> None:
    await ask(gateway, **{"X-Request-Id": "request-1", "X-Gitlab-Rails-Send-Start": "1.5"})
    await gateway.post(MESSAGES, headers={"X-Request-Id": "request-2"})

    first = await gateway.log.find(correlation_id="request-1", logger="api.access")
    second = await gateway.log.find(correlation_id="request-2", logger="api.access")
    lines = [line for line in gateway.log.lines if line["logger"] == "api.access"]
    assert [line["correlation_id"] for line in lines] == ["request-1", "request-2"]
    assert first.keys() >= ACCESS_MEMBERS
    assert (first["type"], first["stage"], first["message"], first["level"]) == ("mlops", "main", "request", "info")
    assert (first["path"], first["status_code"], first["method"]) == (MESSAGES, 200, "POST")
    assert first["token_issuer"] == gateway.issuer.url
    assert (second["status_code"], second["refusal_code"], second["refusal_layer"]) == (401, "token_missing", "client")
    assert second["auth_error_details"]
    assert "event" not in first


async def test_the_access_line_of_a_refusal_tells_the_cause(gateway: RunningGateway) -> None:
    await ask(gateway, {"model": "gpt-5"})

    line = await gateway.log.find(path=MESSAGES)
    assert (line["status_code"], line["refusal_code"]) == (400, "model_unsupported")
    assert line["http_exception_details"] == "Unsupported model"


async def test_no_key_token_or_prompt_reaches_any_output(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_LOGGING__LEVEL": "DEBUG"})
    token = gateway.token(unit_primitives=[PROXY, "duo_chat", "complete_code"])
    forged = gateway.token(unit_primitives=[PROXY], key=rsa_key(77))
    answers = []
    for held in (token, forged, token[:-8] + "AAAAAAAA", "sk-canary-not-a-token"):
        for path, asked in [
            (MESSAGES, ASKED),
            (MESSAGES + "?key=canary-query", ASKED | {"stream": True, "metadata": {"user_id": "canary-member"}}),
            ("/v2/code/completions", {"current_file": {"file_name": "canary-file.py"}, "prompt": "canary-prompt"}),
            ("/v2/chat/agent", {"messages": [{"role": "user", "content": "canary-prompt"}]}),
            (f"/v1/nowhere/{held}", {}),
        ]:
            headers = {
                "X-Gitlab-Unit-Primitive": PROXY,
                "x-api-key": "canary-client-key",
                "Cookie": "canary-cookie",
                "Authorization": f"Bearer {held}",
            }
            answers.append(await gateway.post(path, json=asked, token=token, headers=headers))
    gateway.provider.fail_with(401, body=b'{"error":{"message":"bad key canary-upstream"}}')
    answers.append(await ask(gateway))
    gateway.provider.answer_malformed("cut_json")
    answers.append(await ask(gateway, ASKED | {"stream": True}))
    gateway.provider.server.stop_listening()
    answers.append(await ask(gateway))
    await gateway.log.find(refusal_code="provider_unreachable")

    logged = b"\n".join(gateway.log.raw).decode()
    shown = (await gateway.monitoring("/metrics")).text + (await gateway.monitoring("/readyz")).text
    headers_back = str([answer.header_pairs for answer in answers])
    refused = "".join(answer.text for answer in answers if answer.status >= 400)
    signing = pem(rsa_key(SIGNING_KEY)).splitlines()[1]
    for secret in (ANTHROPIC_KEY, OPENAI_KEY, token, token.split(".")[2], forged.split(".")[2], signing, "canary"):
        for place, text in {"log": logged, "ports": shown, "headers": headers_back, "refusals": refused}.items():
            assert secret not in text, (secret, place)


@pytest.mark.parametrize(
    ("level", "logged"), [("INFO", set()), ("debug", {"/monitoring/healthz", "/monitoring/ready", "/metrics"})]
)
async def test_probes_and_scrapes_are_logged_at_debug_level_only(
    start_gateway: StartGateway, level: str, logged: set[str]
) -> None:
    gateway = await start_gateway(env={"AIGW_LOGGING__LEVEL": level})

    for path in ("/monitoring/healthz", "/monitoring/ready", "/ai/monitoring/ready"):
        assert (await gateway.get(path)).status == 200
    assert (await gateway.monitoring("/metrics")).status == 200
    await gateway.post("/v1/last")

    await gateway.log.find(path="/v1/last")
    assert {line["path"] for line in gateway.log.lines if "path" in line} == logged | {"/v1/last"}
    assert {line["level"] for line in gateway.log.lines if line.get("path") in logged} <= {"debug"}


async def test_lines_can_be_key_value_pairs(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_LOGGING__FORMAT_JSON": "false"})

    await ask(gateway)

    line = await until(lambda: next((line for line in gateway.log.raw if b"logger=api.access" in line), b""))
    assert b"status_code=200" in line
    assert b"path=" + MESSAGES.encode() in line
    assert not line.startswith(b"{")


# Readiness


async def test_without_any_key_the_gateway_is_alive_but_not_ready_until_an_issuer_answers(
    start_gateway: StartGateway, issuer: FakeIssuer
) -> None:
    issuer.go_down()
    gateway = await start_gateway(
        env={"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": "", "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": ""}
    )

    assert (await gateway.get("/monitoring/healthz")).body == b"{}"
    unready = await gateway.get("/monitoring/ready")
    reasons = await gateway.monitoring("/readyz")
    refused = await ask(gateway)
    await issuer.come_back()
    await until(lambda: gateway.running.parts.keys.has_keys)
    ready = await gateway.get("/monitoring/ready")

    assert (unready.status, unready.body) == (503, b"{}")
    assert reasons.status == 503
    assert reasons.json()["ready"] is False
    assert reasons.json()["checks"]["keys"]["ok"] is False
    assert (refused.status, refused.refusal.code) == (503, "keys_unavailable")
    assert ready.status == 200
    assert (await ask(gateway)).status == 200


async def test_readiness_has_its_reasons_on_the_metrics_port(gateway: RunningGateway, issuer: FakeIssuer) -> None:
    await ask(gateway)  # so that the issuer has been asked for its keys

    answer = await gateway.monitoring("/readyz")

    shown = answer.json()
    assert (answer.status, shown["ready"], answer.header("content-type")) == (200, True, "application/json")
    for row in shown["checks"].values():
        assert row.keys() == {"ok", "detail"}
        assert isinstance(row["ok"], bool)
    assert shown["checks"][f"issuer {issuer.url}"]["ok"] is True
    assert {"keys", "default_models"} <= shown["checks"].keys()


async def test_one_issuer_of_several_down_is_shown_and_not_unready(
    start_gateway: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOMER_PORTAL_URL": "http://127.0.0.1:9"})
    assert (await ask(gateway)).status == 200

    answer = await gateway.monitoring("/readyz")

    assert answer.status == 200
    assert answer.json()["checks"]["issuer http://127.0.0.1:9"]["ok"] is False


async def test_a_bypass_makes_ready_without_keys(start_gateway: StartGateway, issuer: FakeIssuer) -> None:
    issuer.go_down()
    gateway = await start_gateway(
        env={
            "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": "",
            "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": "",
            "AIGW_AUTH__BYPASS_EXTERNAL": "true",
        }
    )

    assert (await gateway.get("/monitoring/ready")).status == 200


async def test_draining_is_unready_at_once_on_both_ports(gateway: RunningGateway) -> None:
    gateway.running.serving.readiness.is_draining = True

    main = await gateway.get("/monitoring/ready")
    operators = await gateway.monitoring("/readyz")

    assert (main.status, main.body) == (503, b"{}")
    assert (operators.status, operators.json()["checks"]["draining"]["ok"]) == (503, False)
    assert (await gateway.get("/monitoring/healthz")).status == 200


async def test_the_metrics_port_answers_what_the_interface_names_and_nothing_else(gateway: RunningGateway) -> None:
    from torana import __version__

    assert (await gateway.monitoring("/healthz")).body == b"{}"
    assert (await gateway.monitoring("/version")).json() == {"version": __version__}
    assert (await gateway.monitoring("/v1/models/definitions")).status == 404
    assert (await gateway.monitoring("/")).status == 404


# The API page

PAGES = ("/docs", "/openapi.json", "/redoc")


async def statuses(gateway: RunningGateway, *paths: str) -> list[int]:
    return [(await gateway.get(path)).status for path in paths]


async def test_the_api_page_is_off_unless_switched_on(start_gateway: StartGateway) -> None:
    production = await start_gateway(env={"AIGW_ENVIRONMENT": "production"})
    development = await start_gateway(env={"AIGW_ENVIRONMENT": "development"})
    off = await start_gateway(
        env={
            "AIGW_ENVIRONMENT": "development",
            "AIGW_FASTAPI__DOCS_URL": "null",
            "AIGW_FASTAPI__OPENAPI_URL": "null",
        }
    )
    elsewhere = await start_gateway(
        env={
            "AIGW_FASTAPI__DOCS_URL": "/api/page",
            "AIGW_FASTAPI__OPENAPI_URL": "/api/openapi.json",
            "AIGW_FASTAPI__REDOC_URL": "/redoc",
        }
    )

    assert await statuses(production, *PAGES) == [401, 401, 401]
    assert await statuses(development, *PAGES) == [200, 200, 401]
    assert await statuses(off, *PAGES) == [401, 401, 401]
    assert await statuses(elsewhere, *PAGES, "/api/page", "/api/openapi.json") == [401, 401, 200, 200, 200]
    token = production.token(unit_primitives=[])
    assert (await production.get("/docs", token=token)).status == 404


async def test_the_api_page_needs_no_network(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_ENVIRONMENT": "development"})

    page = await gateway.get("/docs")

    assert page.header("content-type") == "text/html; charset=utf-8"
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="(?!data:)', page.text)
    assert (page.header("content-security-policy") or "").startswith("default-src 'none'; ")
    # The browser ends a script at its first end tag, so there are exactly ours.
    assert page.text.count("</script") == 2


async def test_the_openapi_document_has_every_route_and_holds_together(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_ENVIRONMENT": "development"})

    document = (await gateway.get("/openapi.json")).json()

    assert document["openapi"].startswith("3.1")
    assert document["info"].keys() >= {"title", "version"}
    routes = gateway.running.listeners[0].server.config.app.routes.routes
    served = {
        (route.path, method.lower()) for route in routes for method in route.methods if method not in ("HEAD",)
    } - {("/docs", "get"), ("/openapi.json", "get")}
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == served
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    for path, item in document["paths"].items():
        for operation in item.values():
            named = {row["name"] for row in operation.get("parameters", ()) if row["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path)), path
            assert operation["responses"]
            assert all(response["description"] for response in operation["responses"].values())
    schemes = document["components"]["securitySchemes"].keys()
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    for item in document["paths"].values():
        for operation in item.values():
            for requirement in operation.get("security", ()):
                assert requirement.keys() <= schemes
