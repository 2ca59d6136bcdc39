"""The entrance: order of checks, refusals, sizes, loops, CORS, prefixes, response headers, access lines."""

import re
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

COMPLETION = {"current_file": {"file_name": "app.py", "content_above_cursor": "def hi", "content_below_cursor": ""}}
GENERATION = COMPLETION | {"current_file": COMPLETION["current_file"] | {"content_above_cursor": "# greet"}}
ENVELOPE = {
    "prompt_components": [{"type": "code_editor_completion", "payload": COMPLETION["current_file"]}],
}
PROMPT = "/v1/prompts/generate_commit_message"
MEBIBYTE = b"x" * 2**20


# Order of checks


async def test_a_refusal_names_the_first_check_that_fails(gateway: RunningGateway) -> None:
    """Each row breaks one check less than the row before it (contract 1.1)."""
    mark = (await loop_mark(gateway)) or ""
    token = gateway.token(unit_primitives=["duo_chat"])
    preflight = {"Origin": "https://ide.example", "Access-Control-Request-Method": "PUT"}
    steps: list[tuple[int, str, str, dict[str, Any]]] = [
        (414, "OPTIONS", "/v2/none?" + "q" * 8192, {"headers": preflight | {"Via": mark, "Big": "x" * 40_000}}),
        (431, "OPTIONS", "/v2/none", {"headers": preflight | {"Via": mark, "Big": "x" * 40_000}}),
        (508, "OPTIONS", "/v2/none", {"headers": preflight | {"Via": mark}}),
        (400, "OPTIONS", "/v2/none", {"headers": preflight}),
        (401, "GET", "/v2/none", {}),
        (404, "GET", "/v2/none", {"token": token}),
        (405, "GET", "/v2/completions", {"token": token}),
        (413, "POST", "/v2/completions", {"token": token, "headers": {"Content-Length": "16777217"}}),
        (422, "POST", "/v2/completions", {"token": token, "json": {}}),
        (403, "POST", "/v2/completions", {"token": token, "json": COMPLETION}),
    ]

    assert [(await gateway.request(method, path, **more)).status for _, method, path, more in steps] == [
        status for status, *_ in steps
    ]
    assert gateway.provider.requests == []


async def loop_mark(gateway: RunningGateway) -> str | None:
    """The `Via` that this gateway's providers see, learned from one call."""
    token = gateway.token(unit_primitives=["complete_code"])
    await gateway.post("/v2/completions", json=COMPLETION, token=token)
    request = await gateway.provider.request()
    gateway.provider.requests.clear()
    return request.header("via")


async def test_an_unknown_path_is_401_without_a_token_and_404_with_one(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["duo_chat"])

    for path in ("/unknown", "/v1/proxy/nobody/v1", "/v1/prompts/", "/", "/ai/unknown", "/v2/completions/"):
        without = await gateway.post(path, json={})
        assert (path, without.status, without.json()["error"]) == (path, 401, "No authorization header presented")
        assert (path, (await gateway.post(path, json={}, token=token)).status) == (path, 404)


async def test_not_found_and_method_not_allowed_have_their_texts(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=[])

    missing = await gateway.get("/v9/unknown", token=token)
    wrong = await gateway.get("/v2/code/completions", token=token)
    without_token = await gateway.get("/v2/code/completions")

    assert (missing.status, missing.json()["detail"]) == (404, "Not Found")
    assert (wrong.status, wrong.json()["detail"], wrong.header("allow")) == (405, "Method Not Allowed", "POST")
    assert without_token.status == 401


OPEN = [
    "/v1/models/definitions",
    "/v1/models%2Fdefinitions",
    "/v1%2fmodels%2Fdefinitions",
    "/monitoring/healthz",
    "/monitoring%2Fhealthz",
    "/monitoring/ready",
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
]


@pytest.mark.parametrize("prefix", ["", "/ai", "/my/gateway"])
async def test_open_paths_need_no_token_under_any_prefix(start_gateway: StartGateway, prefix: str) -> None:
    gateway = await start_gateway(env={"AIGW_ROOT_PATH": "/my/gateway", "AIGW_PUBLIC_URL": "https://ai.example"})

    assert {path: (await gateway.get(prefix + path)).status for path in OPEN} == dict.fromkeys(OPEN, 200)


async def test_an_encoded_prefix_is_the_prefix(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_ROOT_PATH": "my/gateway/"})

    for path in ("/ai%2Fmonitoring%2Fhealthz", "/my%2Fgateway%2Fmonitoring/healthz"):
        assert (await gateway.get(path)).status == 200


async def test_only_the_exact_open_paths_are_open(gateway: RunningGateway) -> None:
    for path in ("/monitoring/healthz/", "/monitoring/healthzz", "/v1/models/definitions/x", "/monitoring//healthz"):
        answer = await gateway.get(path)
        assert (path, answer.status, answer.header("location")) == (path, 401, None)


async def test_every_route_answers_under_a_root_path_below_the_other_prefix(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_ROOT_PATH": "/ai/gateway"})

    for path in ("/ai/gateway/monitoring/healthz", "/ai/monitoring/healthz", "/monitoring/healthz"):
        assert (await gateway.get(path)).status == 200


async def test_another_method_on_an_open_path_is_405_without_a_token(gateway: RunningGateway) -> None:
    assert (await gateway.post("/monitoring/healthz")).status == 405


async def test_metrics_on_the_main_port_are_not_found_without_a_token(gateway: RunningGateway) -> None:
    for path in ("/metrics", "/ai/metrics"):
        answer = await gateway.get(path)
        assert (answer.status, answer.json()["detail"]) == (404, "Not Found")


async def test_documentation_is_open_only_where_it_is_switched_on(start_gateway: StartGateway) -> None:
    off = await start_gateway()
    on = await start_gateway(env={"AIGW_FASTAPI__DOCS_URL": "/docs", "AIGW_FASTAPI__OPENAPI_URL": "/openapi.json"})

    for path in ("/docs", "/openapi.json"):
        assert (await off.get(path)).status == 401
        assert (await on.get(path)).status == 200
    assert (await on.get("/redoc")).status == 401


@pytest.mark.parametrize("prefix", ["/ai", "/gateway"])
async def test_documentation_is_where_its_setting_says_prefix_included(
    start_gateway: StartGateway, prefix: str
) -> None:
    gateway = await start_gateway(env={"AIGW_ROOT_PATH": "/gateway", "AIGW_FASTAPI__DOCS_URL": f"{prefix}/docs"})

    assert [(await gateway.get(path)).status for path in (f"{prefix}/docs", "/docs")] == [200, 200]


async def test_the_discovery_document_is_404_without_a_public_url_and_never_made_of_the_host(
    start_gateway: StartGateway,
) -> None:
    unset = await start_gateway()
    known = await start_gateway(env={"AIGW_PUBLIC_URL": "https://ai.example"})
    path = "/.well-known/openid-configuration"

    assert (await unset.get(path, headers={"Host": "evil.example"})).status == 404
    document = (await known.get(path, headers={"Host": "evil.example"})).json()
    assert document["issuer"] == "gitlab-ai-gateway"
    assert document["jwks_uri"] == "https://ai.example/.well-known/jwks.json"


ROUTES: list[tuple[str, Any]] = [
    ("/v2/completions", COMPLETION),
    ("/v2/code/completions", COMPLETION),
    ("/v2/code/generations", GENERATION),
    ("/v3/code/completions", ENVELOPE),
    ("/v4/code/suggestions", ENVELOPE),
    ("/v2%2Fcode%2Fcompletions", COMPLETION),
    ("/v2/chat/agent", {"messages": [{"role": "user", "content": "Hello"}]}),
    (PROMPT, {"inputs": {"diff": "+"}}),
    ("/v2/prompts/generate_commit_message", {"inputs": {"diff": "+"}}),
    ("/v1/prompts/model_configuration%2Fcheck", {"inputs": {}}),
    ("/v1/code/user_access_token", None),
    ("/auth/v1/code/user_access_token", None),
]


@pytest.mark.parametrize("prefix", ["", "/ai", "/my/gateway"])
async def test_every_route_answers_at_the_root_under_ai_and_under_the_root_path(
    start_gateway: StartGateway, prefix: str
) -> None:
    gateway = await start_gateway(env={"AIGW_ROOT_PATH": "/my/gateway"})
    token = gateway.token(unit_primitives=["complete_code", "generate_code", "generate_commit_message", "duo_chat"])

    answers = {path: await gateway.post(prefix + path, json=body, token=token) for path, body in ROUTES}

    assert {path: answer.status for path, answer in answers.items()} == dict.fromkeys(answers, 200)


# CORS


async def test_a_preflight_for_post_is_answered_without_a_token(gateway: RunningGateway) -> None:
    answer = await gateway.request(
        "OPTIONS",
        "/v2/completions",
        headers={
            "Origin": "https://ide.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-gitlab-realm",
        },
    )

    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == "*"
    assert answer.header("access-control-allow-methods") == "POST"
    assert answer.header("access-control-allow-headers") == "authorization,x-gitlab-realm"
    assert answer.header("access-control-max-age") == "600"  # else editors in browsers ask before every completion


async def test_a_preflight_for_another_method_is_400(gateway: RunningGateway) -> None:
    for method in ("GET", "PUT", "DELETE", "x"):
        answer = await gateway.request(
            "OPTIONS", "/any", headers={"Origin": "https://ide.example", "Access-Control-Request-Method": method}
        )
        assert answer.status == 400
        assert answer.header("access-control-allow-origin") == "*"
        assert answer.header("access-control-allow-methods") == "POST"


async def test_options_that_is_no_preflight_is_a_request_like_any_other(gateway: RunningGateway) -> None:
    assert (await gateway.request("OPTIONS", "/v2/completions", headers={"Origin": "https://x.example"})).status == 401


async def test_every_answer_to_an_origin_may_be_read_by_it(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])
    origin: dict[str, str | None] = {"Origin": "https://ide.example"}

    answers = [
        await gateway.post("/v2/completions", json=COMPLETION, headers=origin),
        await gateway.post("/v2/completions", json=COMPLETION, token=token, headers=origin),
        await gateway.post("/v2/completions", json={}, token=token, headers=origin),
        await gateway.post("/v2/completions", json=COMPLETION | {"stream": True}, token=token, headers=origin),
        await gateway.get("/monitoring/healthz", headers=origin),
    ]

    assert [answer.status for answer in answers] == [401, 200, 422, 200, 200]
    for answer in answers:
        assert answer.header("access-control-allow-origin") == "*"
        assert answer.header("access-control-expose-headers") == "X-Request-ID, X-Streaming-Format, Retry-After"


async def test_without_an_origin_there_are_no_cors_headers(gateway: RunningGateway) -> None:
    answer = await gateway.get("/monitoring/healthz")

    assert not [name for name, _ in answer.header_pairs if name.lower().startswith(b"access-control")]


# Sizes


async def test_each_kind_of_body_has_its_own_limit_however_it_is_framed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        env={"AIGW_MAX_BODY_BYTES": "2000", "AIGW_MAX_PROXY_BODY_BYTES": "3000", "AIGW_MAX_MINT_BODY_BYTES": "1000"}
    )
    token = gateway.token(unit_primitives=["complete_code"])

    async def ask(path: str, body: bytes, is_chunked: bool) -> Answer:
        if not is_chunked:
            return await gateway.post(path, body=body, token=token)
        small = b"".join(b"1\r\n%c\r\n" % letter for letter in body[:10])
        chunks = small + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - 10, body[10:])
        return await gateway.post(path, body=chunks, token=token, headers={"Transfer-Encoding": "chunked"})

    limits = {"/v2/completions": 2000, "/v1/proxy/openai/v1/responses": 3000, "/v1/code/user_access_token": 1000}
    for path, limit_bytes in limits.items():
        for is_chunked in (False, True):
            within = await ask(path, b" " * limit_bytes, is_chunked)
            beyond = await ask(path, b" " * (limit_bytes + 1), is_chunked)
            assert within.status in (200, 400, 422)
            assert (path, beyond.status, beyond.json()["detail"]) == (path, 413, "Request body too large")
            assert beyond.header("connection") == "close"


@pytest.mark.parametrize(("beyond", "status"), [(0, 422), (1, 413)])
async def test_a_body_that_comes_while_it_is_read_has_the_same_limit(
    start_gateway: StartGateway, beyond: int, status: int
) -> None:
    gateway = await start_gateway(env={"AIGW_MAX_BODY_BYTES": "2000"})
    token = gateway.token(unit_primitives=["complete_code"])
    head = gateway.request_bytes("POST", "/v2/completions", token=token, headers={"Transfer-Encoding": "chunked"})

    async with await gateway.connect() as connection:
        await connection.send(head + b"3e8\r\n" + b" " * 1000 + b"\r\n")
        await gateway.monitoring("/healthz")
        await connection.send(b"%x\r\n" % (1000 + beyond) + b" " * (1000 + beyond) + b"\r\n0\r\n\r\n")
        answer = await connection.read_answer()

    assert answer.status == status


async def test_a_body_that_is_too_large_is_refused_only_after_authentication(gateway: RunningGateway) -> None:
    answer = await gateway.post("/v2/completions", headers={"Content-Length": str(2**40)})

    assert answer.status == 401


async def test_a_client_reads_the_413_although_it_is_still_sending(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MAX_BODY_BYTES": "100000"})
    token = gateway.token(unit_primitives=["complete_code"])
    head = gateway.request_bytes("POST", "/v2/completions", token=token, headers={"Content-Length": str(8 * 2**20)})

    async with await gateway.connect() as connection:
        await connection.send(head)
        for _ in range(8):
            await connection.send(MEBIBYTE)
        answer = await connection.read_answer()

    assert (answer.status, answer.header("connection")) == (413, "close")
    assert answer.json()["detail"] == "Request body too large"


async def test_a_client_reads_the_413_although_its_chunks_never_end(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MAX_BODY_BYTES": "100000"})
    token = gateway.token(unit_primitives=["complete_code"])
    head = gateway.request_bytes("POST", "/v2/completions", token=token, headers={"Transfer-Encoding": "chunked"})

    async with await gateway.connect() as connection:
        await connection.send(head)
        for _ in range(4):
            await connection.send(b"100000\r\n" + MEBIBYTE + b"\r\n")
        answer = await connection.read_answer()
        assert await connection.is_closed_by_peer()

    assert answer.status == 413


async def test_a_target_over_8_kib_is_414(gateway: RunningGateway) -> None:
    for size, status in ((8192, 401), (8193, 414), (70_000, 414)):
        answer = await gateway.get("/" + "a" * (size - 1))
        assert (size, answer.status) == (size, status)
    assert (answer.header("connection"), answer.header("content-type")) == ("close", "text/plain; charset=utf-8")


def header_block(size: int) -> dict[str, str | None]:
    """Headers that are `size` bytes with their colons and line ends, the client's own Host included."""
    host = len("Host: gateway.test\r\n")
    return {"X": "x" * (size - host - len("X: \r\n"))}


async def test_a_header_block_over_32_kib_is_431(gateway: RunningGateway) -> None:
    asked: list[tuple[dict[str, str | None], int]] = [
        (header_block(32_768), 401),
        ({f"X-{number}": "1" for number in range(900)}, 401),
        (header_block(32_769), 431),
        (header_block(70_000), 431),
        (header_block(1_000_000), 431),
        ({f"X-{number}": "a value of some length" for number in range(2000)}, 431),
        ({f"X-{number}": "1" for number in range(2000)}, 431),  # 24 KiB
    ]

    for headers, status in asked:
        answer = await gateway.get("/v2/completions", headers=headers)
        assert answer.status == status
    assert (answer.header("connection"), answer.header("content-type")) == ("close", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("status", "path", "headers", "code"),
    [
        (414, "/" + "a" * 8192, {}, "uri_too_long"),
        (431, "/v2/completions", header_block(32_000), "headers_too_large"),
    ],
)
async def test_what_is_too_large_to_be_read_is_answered_to_its_request_id_and_its_page(
    gateway: RunningGateway, status: int, path: str, headers: dict[str, str | None], code: str
) -> None:
    named = {"X-Request-ID": "big 1", "Origin": "https://ide.example"}

    answer = await gateway.get(path, headers=named | headers | {"Y": "y" * 900 if headers else "y"})

    assert (answer.status, answer.header("x-request-id")) == (status, "big 1")
    assert answer.header("access-control-allow-origin") == "*"
    line = await gateway.log.find(correlation_id="big 1")
    assert (line["status_code"], line["refusal_code"]) == (status, code)
    plain = await gateway.get(path, headers=headers | {"Y": "y" * 900 if headers else "y"})
    assert (plain.status, plain.header("access-control-allow-origin")) == (status, None)
    assert len(plain.header("x-request-id") or "") == 32


async def test_so_is_a_header_block_whose_end_comes_later(gateway: RunningGateway) -> None:
    first = gateway.request_bytes("GET", "/monitoring/healthz")
    named = {"X-Request-ID": "big 2", "Origin": "https://ide.example"}
    begun = gateway.request_bytes("GET", "/v2/completions", headers=named).removesuffix(b"\r\n")

    async with await gateway.connect() as connection:
        await connection.send(first + begun)
        assert (await connection.read_answer()).status == 200  # so the beginning was read, too
        await connection.send(b"X: " + b"x" * 33_000 + b"\r\n\r\n")
        answer = await connection.read_answer()

    assert (answer.status, answer.header("x-request-id")) == (431, "big 2")
    assert answer.header("access-control-allow-origin") == "*"
    assert (await gateway.log.find(correlation_id="big 2"))["status_code"] == 431


# Loops


async def test_a_request_that_went_through_this_gateway_is_a_loop(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_GATEWAY_ID": "eu"})

    for via in ("1.1 torana-eu", "1.0 edge, 1.1 torana-eu (comment)", "1.1 torana-eu,1.1 other"):
        answer = await gateway.post("/v2/completions", json=COMPLETION, headers={"Via": via})
        assert (via, answer.status, answer.json()["detail"]) == (via, 508, "Loop detected")
    for via in ("1.1 torana-eu2", "1.1 torana", "1.1 other", ""):
        assert (via, (await gateway.post("/v2/completions", headers={"Via": via})).status) == (via, 401)


async def test_a_loop_is_seen_in_every_line_of_via(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_GATEWAY_ID": "eu"})

    answer = await gateway.get("/x", headers={"Via": "1.1 edge\r\nVia: 1.1 torana-eu"})

    assert answer.status == 508


# What every answer carries


async def test_a_legal_request_id_comes_back_unchanged(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])

    for given in (
        "abc",
        'with blank, "quotes" and {braces}',
        "x" * 1024,
        "caf\xe9",
        "voil\xc3\xa0",
        "tab\there",
        "%00../",
    ):
        refused = await gateway.get("/monitoring/ready", headers={"X-Request-ID": given})
        answered = await gateway.post("/v2/completions", json=COMPLETION, token=token, headers={"x-request-id": given})
        assert refused.header("x-request-id") == answered.header("x-request-id") == given


async def test_without_a_usable_request_id_a_new_one_is_made(gateway: RunningGateway) -> None:
    seen = set()

    for given in (None, None, "", "x" * 1025):
        made = (await gateway.get("/monitoring/healthz", headers={"X-Request-ID": given})).header("x-request-id")
        assert made not in (None, "", given)
        seen.add(made)

    assert len(seen) == 4


async def test_every_answer_tells_its_process_time_in_seconds(gateway: RunningGateway) -> None:
    for path in ("/monitoring/healthz", "/v2/completions"):
        seconds = (await gateway.get(path)).header("x-process-time")
        assert re.fullmatch(r"\d+\.\d+", seconds or "")
        assert 0 <= float(seconds or "-1") < 10


async def test_refusals_explain_themselves_in_one_member_beside_the_contracts_own(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["duo_chat"])
    post, get, path = "POST", "GET", "/v2/completions"
    preflight = {"Origin": "https://ide.example", "Access-Control-Request-Method": "PUT"}
    asked: list[tuple[str, str, dict[str, Any], int, str, str]] = [
        (post, path, {}, 401, "token_missing", "client"),
        (post, path, {"token": token, "json": {}}, 422, "request_invalid", "client"),
        (post, path, {"token": token, "json": COMPLETION}, 403, "unit_primitive_missing", "unit_primitive"),
        (get, path, {"token": token}, 405, "method_not_allowed", "client"),
        (get, "/nowhere", {"token": token}, 404, "not_found", "client"),
        (post, path, {"token": token, "headers": {"Content-Length": "99999999"}}, 413, "body_too_large", "client"),
        (
            post,
            "/v1/proxy/openai/v1/responses",
            {"token": token},
            400,
            "unit_primitive_header_missing",
            "unit_primitive",
        ),
        ("OPTIONS", "/", {"headers": preflight}, 400, "cors_method", "client"),
    ]

    for method, where, more, status, code, layer in asked:
        answer = await gateway.request(method, where, **more)
        refusal = answer.refusal
        assert (answer.status, refusal.code, refusal.layer) == (status, code, layer), answer
        assert set(answer.json()) == {"error" if status == 401 else "detail", "refusal"}
        assert refusal.request_id == answer.header("x-request-id")
        assert refusal.remedy
        assert refusal.retryable is False
    denied = await gateway.post("/v2/completions", json=COMPLETION, token=token)
    assert denied.refusal.missing == "complete_code"


# Access lines


ACCESS_MEMBERS = {
    "url", "path", "status_code", "method", "http_version", "client_ip", "client_port", "duration_s",
    "duration_request", "request_arrived_at", "response_start_duration_s", "first_chunk_duration_s", "cpu_s",
    "content_type", "user_agent", "gitlab_language_server_version", "gitlab_instance_id", "gitlab_global_user_id",
    "gitlab_host_name", "gitlab_version", "gitlab_saas_duo_pro_namespace_ids",
    "gitlab_feature_enabled_by_namespace_ids", "gitlab_feature_enablement_type", "gitlab_realm",
    "gitlab_root_namespace_id", "gitlab_organization_id", "is_gitlab_team_member", "gitlab_duo_seat_count",
    "correlation_id", "message", "level", "logger", "timestamp", "type", "stage", "auth_duration_s", "token_issuer",
    "meta.unit_primitive", "enabled_feature_flags",
}  # fmt: skip


async def test_an_id_that_is_null_is_none_in_the_access_line(gateway: RunningGateway) -> None:
    ids = {"X-Gitlab-Root-Namespace-Id": "null", "X-Gitlab-Organization-Id": "7"}

    await gateway.get("/nowhere", token=gateway.token(unit_primitives=[]), headers=ids | {"X-Request-ID": "line-2"})

    line = await gateway.log.find(logger="api.access", correlation_id="line-2")
    assert (line["gitlab_root_namespace_id"], line["gitlab_organization_id"]) == (None, "7")


@pytest.mark.parametrize(
    "header",
    [
        "X-Gitlab-Version", "X-Gitlab-Host-Name", "X-Gitlab-Language-Server-Version", "X-Gitlab-Organization-Id",
        "X-Gitlab-Saas-Duo-Pro-Namespace-Ids", "User-Agent", "X-Request-ID",
    ],
)  # fmt: skip
async def test_a_credential_in_any_header_stays_out_of_the_access_line(gateway: RunningGateway, header: str) -> None:
    await gateway.get("/nowhere", headers={header: "glpat-abcdef123456"})

    line = await gateway.log.find(logger="api.access", path="/nowhere")
    assert "abcdef123456" not in str(line)
    assert "***" in str(line)


async def test_an_access_line_has_the_members_that_operators_search_for(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])

    await gateway.post(
        "/ai/v2/completions?key=secret",
        json=COMPLETION,
        token=token,
        headers={
            "X-Request-ID": "line-1",
            "X-Gitlab-Enabled-Feature-Flags": "one,two",
            "X-Gitlab-Language-Server-Version": "7.17.1",
            "X-Gitlab-Rails-Send-Start": "1.5",
        },
    )

    line = await gateway.log.find(logger="api.access", correlation_id="line-1")
    assert set(line) >= ACCESS_MEMBERS
    assert (line["path"], line["status_code"], line["method"], line["type"], line["stage"]) == (
        "/v2/completions",
        200,
        "POST",
        "mlops",
        "main",
    )
    assert line["url"] == "http://gateway.test/ai/v2/completions"
    assert (line["client_ip"], line["http_version"], line["user_agent"]) == ("127.0.0.1", "1.1", "gitlab-test")
    assert (line["gitlab_realm"], line["gitlab_language_server_version"]) == ("self-managed", "7.17.1")
    assert (line["token_issuer"], line["meta.unit_primitive"]) == (gateway.issuer.url, "complete_code")
    assert line["enabled_feature_flags"] == ["one", "two"]
    assert line["duration_request"] == -1  # a day and more is no network delay


async def test_there_is_exactly_one_access_line_for_each_request_however_it_ends(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])
    stream = COMPLETION | {"stream": True}
    asked: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/v2/completions", {"token": token, "json": COMPLETION}, 200),
        ("POST", "/v2/completions", {"token": token, "json": stream}, 200),
        ("POST", "/v2/completions", {"token": token, "json": {}}, 422),
        ("POST", "/v2/completions", {"json": {}}, 401),
        ("GET", "/nowhere", {"token": token}, 404),
        ("GET", "/v2/completions", {"token": token}, 405),
        ("POST", "/v2/completions", {"token": token, "headers": {"Content-Length": "99999999"}}, 413),
        ("OPTIONS", "/x", {"headers": {"Origin": "a", "Access-Control-Request-Method": "POST"}}, 200),
        ("GET", "/" + "a" * 9000, {}, 414),
        ("GET", "/big", {"headers": header_block(70_000)}, 431),
        ("GET", "/bad", {"headers": {"Content-Length": "x"}}, 400),
    ]

    answers = [await gateway.request(method, path, **more) for method, path, more, _ in asked]

    assert [answer.status for answer in answers] == [status for *_, status in asked]
    for answer in answers:
        request_id = answer.header("x-request-id")
        await gateway.log.find(logger="api.access", correlation_id=request_id, status_code=answer.status)
    written = [line["correlation_id"] for line in gateway.log.lines if line["logger"] == "api.access"]
    assert sorted(written) == sorted(answer.header("x-request-id") or "" for answer in answers)


async def test_probes_and_scrapes_are_logged_at_debug_level_only(start_gateway: StartGateway) -> None:
    quiet = await start_gateway()
    chatty = await start_gateway(env={"AIGW_LOGGING__LEVEL": "DEBUG"})
    for gateway in (quiet, chatty):
        for path in ("/monitoring/healthz", "/ai/monitoring/ready", "/metrics"):
            await gateway.get(path)
        await gateway.get("/nowhere", headers={"X-Request-ID": "last"})
        await gateway.log.find(correlation_id="last")

    def paths(gateway: RunningGateway) -> list[str]:
        return [line["path"] for line in gateway.log.lines if line["logger"] == "api.access"]

    assert paths(quiet) == ["/nowhere"]
    assert paths(chatty) == ["/monitoring/healthz", "/monitoring/ready", "/metrics", "/nowhere"]


async def test_no_line_holds_tokens_prompts_or_answers(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_LOGGING__LEVEL": "DEBUG"})
    gateway.provider.answer_with(text="the-answer-5150")
    token = gateway.token(unit_primitives=["complete_code"])
    asked = {
        "file_name": "prompt-5150.py",
        "content_above_cursor": "prompt-5150",
        "content_below_cursor": "prompt-5150",
    }

    await gateway.post("/v2/completions", json={"current_file": asked}, token=token)
    await gateway.post("/v2/completions", json={"current_file": asked | {"file_name": 5}}, token=token)
    await gateway.post("/v2/completions", body=b'{"prompt-5150": ', token=token)
    await gateway.post("/v2/completions?text=prompt-5150", json={}, headers={"Authorization": f"Bearer {token}x"})
    last = await gateway.get("/nowhere?text=prompt-5150", token=token)
    await gateway.log.find(correlation_id=last.header("x-request-id"))

    everything = b"\n".join(gateway.log.raw)
    for secret in ("prompt-5150", "the-answer-5150", token, token.rpartition(".")[2]):
        assert secret.encode() not in everything


async def test_a_request_id_cannot_forge_a_log_line(gateway: RunningGateway) -> None:
    given = 'x","status_code":200,"forged":"\\'

    await gateway.get("/nowhere", headers={"X-Request-ID": given})

    line = await gateway.log.find(correlation_id=given)
    assert "forged" not in line
    assert line["status_code"] == 401


# Who the client is


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ("", "203.0.113.7", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.0/8,10.0.0.0/8", "198.51.100.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "1.2.3.4:5678", "1.2.3.4"),
        ("127.0.0.1", "[2001:DB8:0::1]:443", "2001:db8::1"),
        ("127.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ("127.0.0.1, 10.0.0.0/8", "1.2.3.4, 10.0.0.1:5678", "1.2.3.4"),
        ("::ffff:127.0.0.0/104", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "unknown", "unknown"),
        ("127.0.0.1", "1.2.3.4\r\nX-Forwarded-For: 203.0.113.7", "203.0.113.7"),
    ],
    ids=[
        *("nobody is trusted", "one proxy", "several", "no header", "with a port", "IPv6", "IPv4 in IPv6"),
        *("a proxy's port", "a proxy in IPv6", "no address", "a second line"),
    ],
)
async def test_a_forwarded_address_is_believed_from_trusted_proxies_only(
    start_gateway: StartGateway, trusted: str, forwarded: str, client: str
) -> None:
    gateway = await start_gateway(env={"AIGW_TRUSTED_PROXIES": trusted})

    await gateway.get("/nowhere", headers={"X-Forwarded-For": forwarded, "X-Request-ID": "who"})

    assert (await gateway.log.find(correlation_id="who"))["client_ip"] == client


async def test_a_proxy_is_known_on_a_socket_for_both_kinds_of_addresses(start_gateway: StartGateway) -> None:
    try:
        gateway = await start_gateway(env={"AIGW_FASTAPI__API_HOST": "::", "AIGW_TRUSTED_PROXIES": "127.0.0.1"})
    except OSError:
        pytest.skip("this machine has no IPv6")

    await gateway.get("/nowhere", headers={"X-Forwarded-For": "203.0.113.7", "X-Request-ID": "who"})

    assert (await gateway.log.find(correlation_id="who"))["client_ip"] == "203.0.113.7"
