"""Google's models behind every endpoint: the Gemini API with a key, Vertex AI with a service account."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.gateway import RunningGateway
from tests.support.google import PROJECT, FakeGoogle
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider
from tests.support.saying import ToolUse, event

StartGateway = Callable[..., Awaitable[RunningGateway]]

METADATA = {"source": "GitLab EE", "version": "17.11.0"}
TEXT = "Hello from the scripted provider."
VERTEX = f"/v1/projects/{PROJECT}/locations/global/publishers"
BARE = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}


@pytest.fixture
async def google() -> AsyncIterator[FakeGoogle]:
    async with FakeGoogle() as google:
        yield google


@pytest.fixture
def gemini_env(provider: ScriptedProvider) -> dict[str, str]:
    return {"GEMINI_API_KEY": "gemini-key", "GEMINI_BASE_URL": provider.url}


@pytest.fixture
def vertex_env(provider: ScriptedProvider, google: FakeGoogle) -> dict[str, str]:
    return {
        "AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY": google.key(),
        "VERTEX_BASE_URL": provider.url,
    }


async def explain(gateway: RunningGateway, identifier: str, *, stream: bool = False) -> Answer:
    return await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={
            "inputs": {"input": "why", "selected_text": "x = 1"},
            "stream": stream,
            "model_metadata": {"provider": "gitlab", "identifier": identifier},
        },
        token=gateway.token(unit_primitives=["explain_code"]),
    )


async def test_gemini_is_asked_with_its_key_at_its_own_path(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)

    whole = await explain(gateway, "gemini_3_8_flash")
    streamed = await explain(gateway, "gemini_3_8_flash", stream=True)

    assert (whole.status, whole.json()) == (200, TEXT)
    assert (streamed.status, streamed.body.decode()) == (200, TEXT)
    assert whole.header("x-aigw-model") == "gemini/gemini-3.8-flash"
    first, second = gateway.provider.requests
    assert (first.path, first.query) == ("/v1beta/models/gemini-3.8-flash:generateContent", "")
    assert (second.path, second.query) == ("/v1beta/models/gemini-3.8-flash:streamGenerateContent", "alt=sse")
    assert first.header("x-goog-api-key") == "gemini-key"
    assert first.header("authorization") is None
    assert first.json()["systemInstruction"]["parts"][0]["text"]


async def test_an_answer_that_an_older_client_begins_is_asked_to_be_gone_on_with(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env={**BARE, **gemini_env})
    told = "Requests ending with a model turn are not supported."
    gateway.provider.fail_with(400, {"error": {"code": 400, "message": told, "status": "INVALID_ARGUMENT"}}, times=1)
    content = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi,"}]

    answer = await gateway.post(
        "/v1/chat/agent",
        json={"prompt_components": [{"type": "prompt", "metadata": METADATA, "payload": {"content": content}}]},
        token=gateway.token(unit_primitives=["duo_chat"]),
    )

    assert answer.status == 200
    sent = [[each["role"] for each in request.json()["contents"]] for request in gateway.provider.requests]
    assert sent == [["user", "model"], ["user", "model", "user"]]


async def test_a_row_of_ones_own_is_asked_googles_way(
    start_gateway: StartGateway, vertex_env: dict[str, str], google: FakeGoogle, tmp_path: Path
) -> None:
    address = f"{vertex_env['VERTEX_BASE_URL']}/psc/"
    row = f"- {{name: private, dialect: generate_content, auth: google, base_url: '{address}'}}"
    (tmp_path / "providers.yml").write_text(row)
    model = "- {name: own, title: Own, deployments: [{provider: private, model: gemini-3.8-flash}]}"
    (tmp_path / "models.yml").write_text(f"models:\n{model}\n")
    gateway = await start_gateway(env=vertex_env | {"AIGW_CATALOG": str(tmp_path)})

    answer = await explain(gateway, "own")

    assert (answer.status, answer.json()) == (200, TEXT)
    (sent,) = gateway.provider.requests
    assert sent.path == f"/psc{VERTEX}/google/models/gemini-3.8-flash:generateContent"
    assert (sent.header("authorization") or "").startswith("Bearer ")
    assert sent.header("x-goog-api-key") is None


async def test_either_name_of_geminis_key_is_read(start_gateway: StartGateway, gemini_env: dict[str, str]) -> None:
    del gemini_env["GEMINI_API_KEY"]
    gateway = await start_gateway(env=gemini_env | {"GOOGLE_API_KEY": "google-key"})

    await explain(gateway, "gemini_3_8_flash")

    assert gateway.provider.requests[0].header("x-goog-api-key") == "google-key"


async def test_vertex_is_asked_in_its_project_with_a_token_that_is_fetched_once(
    start_gateway: StartGateway, vertex_env: dict[str, str], google: FakeGoogle
) -> None:
    gateway = await start_gateway(env=vertex_env)

    whole = await explain(gateway, "gemini_3_8_flash")
    streamed = await explain(gateway, "gemini_3_8_flash", stream=True)

    assert [whole.json(), streamed.body.decode()] == [TEXT, TEXT]
    assert whole.header("x-aigw-model") == "vertex_ai/gemini-3.8-flash"
    model = f"{VERTEX}/google/models/gemini-3.8-flash"
    assert [request.path for request in gateway.provider.requests] == [
        f"{model}:generateContent",
        f"{model}:streamGenerateContent",
    ]
    assert {request.header("authorization") for request in gateway.provider.requests} == {"Bearer ya29.token-1"}
    assert len(google.asked) == 1


async def test_claude_on_vertex_speaks_messages_without_a_model_in_the_body(
    start_gateway: StartGateway, vertex_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=vertex_env | {"VERTEXAI_LOCATION": "us-east5"})

    whole = await explain(gateway, "claude_sonnet_4_6_vertex")
    streamed = await explain(gateway, "claude_sonnet_4_6_vertex", stream=True)

    assert [whole.json(), streamed.body.decode()] == [TEXT, TEXT]
    model = f"/v1/projects/{PROJECT}/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-6"
    first, second = gateway.provider.requests
    assert (first.path, second.path) == (f"{model}:rawPredict", f"{model}:streamRawPredict")
    for request in (first, second):
        body = request.json()
        assert body["anthropic_version"] == "vertex-2023-10-16"
        assert "model" not in body
        assert request.header("x-api-key") is None


async def test_a_dated_claude_keeps_its_at_sign_in_the_path(
    start_gateway: StartGateway, vertex_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=vertex_env)

    await explain(gateway, "claude_haiku_4_5_vertex")

    path = gateway.provider.requests[0].path
    assert path == f"{VERTEX}/anthropic/models/claude-haiku-4-5@20251001:rawPredict"


PROMPT = """\
name: Where
unit_primitives: [explain_code]
prompt_template: {user: "{{input}}"}
params: {vertex_location: europe-west4}
"""


async def test_a_prompt_file_says_where_vertex_is_asked(
    start_gateway: StartGateway, vertex_env: dict[str, str], gemini_env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "overlay" / "prompts" / "chat" / "explain_code" / "gemini" / "1.0.0.yml"
    file.parent.mkdir(parents=True)
    file.write_text(PROMPT)
    gateway = await start_gateway(env=vertex_env | gemini_env | {"AIGW_CATALOG": str(tmp_path / "overlay")})
    gateway.provider.fail_with(503, times=1)

    answer = await explain(gateway, "gemini_3_8_flash")

    assert answer.status == 200
    assert [request.path.rpartition("/models/")[0] for request in gateway.provider.requests] == [
        f"/v1/projects/{PROJECT}/locations/europe-west4/publishers/google",
        "/v1beta",
    ]


async def test_the_delay_that_google_tells_in_the_body_reaches_the_client(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=BARE | gemini_env)
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.2s"}
    gateway.provider.fail_with(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [retry]}})

    answer = await gateway.post(
        "/v2/code/completions",
        json={
            "prompt_version": 1,
            "current_file": {"file_name": "a.py", "content_above_cursor": "def a", "content_below_cursor": ""},
        },
        token=gateway.token(unit_primitives=["complete_code"]),
    )

    assert (answer.status, answer.header("retry-after")) == (429, "18")


async def test_vertex_comes_before_the_gemini_api_where_both_are_there(
    start_gateway: StartGateway, vertex_env: dict[str, str], gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=vertex_env | gemini_env)
    gateway.provider.fail_with(503, times=1)

    answer = await explain(gateway, "gemini_3_8_flash")

    assert (answer.status, answer.header("x-aigw-model")) == (200, "gemini/gemini-3.8-flash")
    assert [request.path.rpartition("/models/")[0] for request in gateway.provider.requests] == [
        f"{VERTEX}/google",
        "/v1beta",
    ]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "400: Bad Request"),
        (401, "401: Unauthorized"),
        (403, "403: Forbidden"),
        (404, "404: Not Found"),
        (429, "429: Too Many Requests"),
        (500, "500: Internal Server Error"),
        (503, "503: Service Unavailable"),
    ],
)
async def test_googles_errors_are_told_as_every_providers(
    start_gateway: StartGateway, gemini_env: dict[str, str], status: int, told: str
) -> None:
    gateway = await start_gateway(env=gemini_env | {"AIGW_ROUTING__TRIES": "1"})
    gateway.provider.fail_with(status)

    for stream in (False, True):
        answer = await explain(gateway, "gemini_3_8_flash", stream=stream)

        assert (answer.status, answer.json()["detail"]) == (421, told)
        assert "scripted failure" not in answer.body.decode()


async def test_a_bad_key_that_google_tells_with_400_counts_as_one(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": [info]}
    gateway.provider.fail_with(400, {"error": error})

    answer = await explain(gateway, "gemini_3_8_flash")

    assert (answer.status, answer.json()["detail"]) == (421, "401: Unauthorized")
    assert answer.json()["refusal"]["code"] == "provider_key_refused"


async def test_a_file_that_a_client_names_and_nobody_may_read_stops_no_others(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env={**BARE, **gemini_env})
    told = "You do not have permission to access the File abc or it may not exist."
    gateway.provider.fail_with(403, {"error": {"code": 403, "message": told, "status": "PERMISSION_DENIED"}}, times=8)
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    async def look_at(url: str) -> Answer:
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"model": "gemini_3_8_flash", "messages": [{"role": "user", "content": content}]}
        return await gateway.post("/openai/v1/chat/completions", json=body, token=token)

    geminis_own = await look_at("https://generativelanguage.googleapis.com/v1beta/files/abc")
    refused = [await look_at("https://youtu.be/abc") for _ in range(8)]
    answer = await explain(gateway, "gemini_3_8_flash")

    assert (geminis_own.status, [each.status for each in refused], answer.status) == (400, [400] * 8, 200)
    assert told in refused[0].json()["error"]["message"]
    assert len(gateway.provider.requests) == 9
    assert not [line for line in gateway.log.lines if line["level"] == "error"]


async def test_an_overload_is_asked_again_and_a_day_without_quota_is_not(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)
    gateway.provider.fail_with(503, times=1)
    assert (await explain(gateway, "gemini_3_8_flash")).status == 200
    assert len(gateway.provider.requests) == 2

    quota = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
    }
    gateway.provider.fail_with(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [quota]}})
    answer = await explain(gateway, "gemini_3_8_flash")

    assert answer.json()["refusal"]["code"] == "provider_spent"
    assert len(gateway.provider.requests) == 3


async def test_an_error_as_the_first_event_is_a_failed_try(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)
    gateway.provider.answer_malformed("error_event", times=1)

    answer = await explain(gateway, "gemini_3_8_flash", stream=True)

    assert (answer.status, answer.body.decode(), answer.is_whole) == (200, TEXT, True)
    assert len(gateway.provider.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"])
async def test_a_call_that_the_model_got_wrong_is_tried_again(
    start_gateway: StartGateway, gemini_env: dict[str, str], reason: str, stream: bool
) -> None:
    gateway = await start_gateway(env=gemini_env)
    nothing = {"candidates": [{"content": {"role": "model"}, "finishReason": reason}]}
    script: dict[str, Any] = {"events": [event(nothing)]} if stream else {"body": nothing}

    gateway.provider.answer_with(**script, times=1)
    answer = await explain(gateway, "gemini_3_8_flash", stream=stream)
    gateway.provider.answer_with(**script)
    failed = [await explain(gateway, "gemini_3_8_flash", stream=stream) for _ in range(6)]
    gateway.provider.answer_with(text=TEXT)
    after = await explain(gateway, "gemini_3_8_flash", stream=stream)

    assert (answer.status, TEXT in answer.body.decode(), answer.is_whole) == (200, True, True)
    assert all(each.status >= 421 for each in failed)
    # The provider is well, and nobody is kept from it.
    assert after.status == 200


async def test_a_call_that_went_wrong_behind_a_text_ends_the_answer(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)
    parts = [{"text": TEXT}]
    said = {"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "MALFORMED_FUNCTION_CALL"}]}
    gateway.provider.answer_with(events=[event(said)])

    answer = await explain(gateway, "gemini_3_8_flash", stream=True)

    assert (answer.status, answer.body.decode(), answer.is_whole) == (200, TEXT, True)


async def test_a_stream_without_its_finish_reason_is_a_broken_one(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)
    gateway.provider.answer_malformed("no_end")

    answer = await explain(gateway, "gemini_3_8_flash", stream=True)

    assert (answer.status, answer.is_whole) == (200, False)


async def test_a_token_server_that_refuses_is_an_answer_without_credentials(
    start_gateway: StartGateway, vertex_env: dict[str, str], google: FakeGoogle
) -> None:
    gateway = await start_gateway(env=vertex_env)
    google.refusal = 400, {"error": "invalid_grant"}

    answer = await explain(gateway, "claude_sonnet_4_6_vertex")

    assert (answer.status, answer.json()["detail"]) == (421, "401: Unauthorized")
    assert gateway.provider.requests == []
    assert "private_key" not in json.dumps(gateway.log.lines)


async def test_with_google_alone_the_defaults_are_geminis(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=BARE | gemini_env)

    await gateway.post(
        "/v2/code/completions",
        json={
            "prompt_version": 1,
            "current_file": {"file_name": "a.py", "content_above_cursor": "def a", "content_below_cursor": ""},
        },
        token=gateway.token(unit_primitives=["complete_code"]),
    )

    assert gateway.provider.requests[0].path == "/v1beta/models/gemini-3.5-flash-lite:generateContent"


OWN: dict[str, Any] = {"provider": "openai", "name": "gemini"}


async def test_a_client_may_bring_its_own_gemini(start_gateway: StartGateway, provider: ScriptedProvider) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})

    answer = await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={
            "inputs": {"input": "why", "selected_text": "x = 1"},
            "model_metadata": OWN
            | {"identifier": "gemini/gemini-3.8-flash", "endpoint": f"{provider.url}/own", "api_key": "own-key"},
        },
        token=gateway.token(unit_primitives=["explain_code"]),
    )

    assert (answer.status, answer.json()) == (200, TEXT)
    (sent,) = provider.requests
    assert sent.path == "/own/v1beta/models/gemini-3.8-flash:generateContent"
    assert sent.header("x-goog-api-key") == "own-key"


async def test_vertex_ignores_a_clients_endpoint_and_serves_the_catalogues_models_alone(
    start_gateway: StartGateway, vertex_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=vertex_env | {"AIGW_CUSTOM_MODELS__ENABLED": "true"})

    async def ask(model: str) -> Answer:
        metadata = OWN | {"identifier": f"vertex_ai/{model}", "endpoint": "http://127.0.0.1:9", "api_key": "k"}
        return await gateway.post(
            "/v1/prompts/chat/explain_code",
            json={"inputs": {"input": "why", "selected_text": "x = 1"}, "model_metadata": metadata},
            token=gateway.token(unit_primitives=["explain_code"]),
        )

    listed, unlisted = await ask("gemini-3.8-flash"), await ask("gemini-9")

    assert (listed.status, listed.json()) == (200, TEXT)
    assert gateway.provider.requests[0].header("authorization") == "Bearer ya29.token-1"
    assert unlisted.status == 422


async def test_a_tool_call_and_its_signature_cross_to_a_client_of_messages_and_back(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=gemini_env)
    gateway.provider.answer_with(tool_call=ToolUse(name="look", arguments={"at": "x"}))
    asked: dict[str, Any] = {
        "model": "gemini_3_8_flash",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Look."}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    }
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    first = await gateway.post("/anthropic/v1/messages", json=asked, token=token)
    content = first.json()["content"]
    results = [{"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "seen"}]
    asked["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    await gateway.post("/anthropic/v1/messages", json=asked, token=token)

    assert (content[-1]["type"], content[-1]["input"]) == ("tool_use", {"at": "x"})
    said, answered = gateway.provider.requests[1].json()["contents"][1:]
    assert said["parts"][-1]["thoughtSignature"] == "c2NyaXB0ZWQ="
    assert answered["parts"][0]["functionResponse"]["response"] == {"output": "seen"}
