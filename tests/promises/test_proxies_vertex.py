"""Vertex AI's own API behind our gate (contract 9): paths, place, model, headers, bytes, usage, failures."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.google import PROJECT, FakeGoogle
from tests.support.http_client import Answer, fetch
from tests.support.provider import ScriptedProvider

PROXY = "ai_gateway_model_provider_proxy"
PREFIX = "/v1/proxy/vertex-ai"
GOOGLE = "/v1/projects/theirs/locations/anywhere/publishers/google/models"
CLAUDE = "/v1/projects/theirs/locations/anywhere/publishers/anthropic/models/claude-sonnet-4-6:streamRawPredict"
OURS = f"/v1/projects/{PROJECT}/locations/us-central1/publishers"
ASK: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
ASK_CLAUDE: dict[str, Any] = {
    "anthropic_version": "vertex-2023-10-16",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hi"}],
}
EMBED: dict[str, Any] = {"instances": [{"content": "Hi"}]}
GENERATE, STREAM = f"{GOOGLE}/gemini-3.8-flash:generateContent", f"{GOOGLE}/gemini-3.8-flash:streamGenerateContent"
PREDICT, PREDICT_STREAM = f"{GOOGLE}/text-embedding-005:predict", f"{GOOGLE}/text-bison@002:serverStreamingPredict"


@pytest.fixture
async def google() -> AsyncIterator[FakeGoogle]:
    async with FakeGoogle() as google:
        yield google


@pytest.fixture
def env(provider: ScriptedProvider, google: FakeGoogle) -> dict[str, str]:
    return {
        "AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY": google.key(),
        "VERTEX_BASE_URL": provider.url,
    }


@pytest.fixture
async def vertex(start_gateway: StartGateway, env: dict[str, str]) -> RunningGateway:
    return await start_gateway(env=env)


async def ask(
    gateway: RunningGateway,
    path: str = GENERATE,
    asked: Any = ASK,
    *,
    body: bytes | None = None,
    headers: dict[str, str | None] | None = None,
    scopes: tuple[str, ...] = (PROXY,),
    method: str = "POST",
) -> Answer:
    return await gateway.request(
        method,
        PREFIX + path,
        body=json.dumps(asked).encode() if body is None else body,
        token=gateway.token(unit_primitives=scopes),
        headers={"X-Gitlab-Unit-Primitive": scopes[0]} | (headers or {}),
    )


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "asked", "sent"),
    [
        (GENERATE, ASK, f"{OURS}/google/models/gemini-3.8-flash:generateContent"),
        (STREAM, ASK, f"{OURS}/google/models/gemini-3.8-flash:streamGenerateContent"),
        (PREDICT, EMBED, f"{OURS}/google/models/text-embedding-005:predict"),
        (PREDICT_STREAM, EMBED, f"{OURS}/google/models/text-bison@002:serverStreamingPredict"),
        (CLAUDE, ASK_CLAUDE, f"{OURS}/anthropic/models/claude-sonnet-4-6:streamRawPredict"),
    ],
)
async def test_an_allowed_path_leads_into_our_own_project_and_location(
    vertex: RunningGateway, path: str, asked: dict[str, Any], sent: str
) -> None:
    for spelled in (path, path.replace("/publishers", "%2Fpublishers")):
        answer = await ask(vertex, spelled, asked)

        assert answer.status == 200
        assert vertex.provider.requests[-1].path == sent


async def test_the_location_is_the_one_that_is_set(start_gateway: StartGateway, env: dict[str, str]) -> None:
    for place, names in (
        ("europe-west4", {"AIGW_GOOGLE_CLOUD_PLATFORM__LOCATION": "europe-west4", "RUNWAY_REGION": "us-east1"}),
        ("us-east1", {"RUNWAY_REGION": "us-east1"}),
        ("global", {"VERTEXAI_LOCATION": "global"}),
    ):
        gateway = await start_gateway(env=env | names | {"VERTEXAI_PROJECT": "named"})

        await ask(gateway)

        assert f"/projects/named/locations/{place}/" in gateway.provider.requests[-1].path


FORBIDDEN = [
    f"{GOOGLE}/gemini-3.8-flash:countTokens",
    f"{GOOGLE}/gemini-3.8-flash:rawPredict",
    f"{GOOGLE}/gemini-3.8-flash:streamRawPredict",
    f"{GOOGLE}/gemini-3.8-flash",
    f"{GOOGLE}/gemini-3.8-flash:",
    f"{GOOGLE}/gemini-3.8-flash:predict/",
    f"{GOOGLE}/gemini-3.8-flash:predict:predict",
    f"{GOOGLE}/../gemini-3.8-flash:predict",
    f"{GOOGLE}/gemini%2F..%2Fx:predict",
    f"{GOOGLE}//gemini-3.8-flash:predict",
    f"{GOOGLE}/.gemini:predict",
    f"{GOOGLE}/gemini-%00:predict",
    f"{GOOGLE}/gemini-3.8-flash:Predict",
    CLAUDE.replace("streamRawPredict", "generateContent"),
    GENERATE.replace("google", "mistralai"),
    GENERATE.replace("google", "Google"),
    GENERATE.replace("/v1/", "/v1beta1/"),
    GENERATE.replace("theirs", ".."),
    GENERATE.replace("theirs", "%2e%2e"),
    GENERATE.replace("anywhere", "."),
    GENERATE.replace("anywhere", ""),
    GENERATE.replace("theirs", "a/b"),
    GENERATE.removeprefix("/v1"),
    "/v1/projects/p/locations/l/endpoints/1:predict",
    "/v1/projects/p/locations/l/publishers/google/models/x:predict/../y:predict",
    "/v1/messages",
]


async def test_every_other_path_is_404_and_nothing_is_sent(vertex: RunningGateway, google: FakeGoogle) -> None:
    for path in FORBIDDEN:
        assert said(await ask(vertex, path)) == (404, "Not found"), path
    assert vertex.provider.requests == google.asked == []


FAULTS: list[tuple[tuple[int, str], dict[str, Any]]] = [
    ((400, "Missing x-gitlab-unit-primitive header"), {"headers": {"X-Gitlab-Unit-Primitive": None}}),
    ((404, "Not found"), {"path": f"{GOOGLE}/gemini-3.8-flash:countTokens"}),
    ((400, "Invalid JSON"), {"body": b"{"}),
    ((400, "Unsupported model"), {"path": f"{GOOGLE}/mistral-large:predict"}),
    ((500, "Credentials not found"), {}),
]
"""One fault a row, in the contract's order; the credentials are missing in every one of them."""


async def test_a_body_that_is_no_json_is_never_sent(vertex: RunningGateway) -> None:
    for body in (b"[", b'"a', b"[1] x", b"{"):
        assert said(await ask(vertex, body=body)) == (400, "Invalid JSON"), body

    assert vertex.provider.requests == []


async def test_of_two_faults_the_earlier_one_of_the_contract_is_told(gateway: RunningGateway) -> None:
    for at, (expected, fault) in enumerate(FAULTS):
        for _, later in FAULTS[at:]:
            if later is fault or not later.keys() & fault.keys():
                assert said(await ask(gateway, **{**later, **fault})) == expected, (fault, later)
    assert gateway.provider.requests == []


async def test_another_method_is_405(vertex: RunningGateway) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert said(await ask(vertex, method=method)) == (405, "Method Not Allowed")


@pytest.mark.parametrize(
    ("model", "is_allowed"),
    [
        ("gemini-2.5-pro", True),
        ("claude-x", True),
        ("text-embedding-005", True),
        ("textembedding-gecko@003", True),
        ("codechat-bison@002", True),
        ("gemma-3", False),
        ("imagen-4", False),
        ("Gemini-2.5-pro", False),
        ("xgemini-", False),
    ],
)
async def test_the_models_name_in_the_path_must_be_on_the_list(
    vertex: RunningGateway, model: str, is_allowed: bool
) -> None:
    answer = await ask(vertex, f"{GOOGLE}/{model}:predict", EMBED | {"model": "gemini-of-the-body"})

    assert answer.status == 200 if is_allowed else said(answer) == (400, "Unsupported model")
    assert len(vertex.provider.requests) == is_allowed


async def test_old_primitives_may_be_used_on_this_proxy(vertex: RunningGateway) -> None:
    for primitive in ("generate_commit_message", "semantic_search_issue", "generate_cube_query"):
        assert (await ask(vertex, PREDICT, EMBED, scopes=(primitive,))).status == 200


async def test_google_gets_the_content_type_our_token_and_nothing_else(vertex: RunningGateway) -> None:
    canaries: dict[str, str | None] = {
        "User-Agent": "agent/1.0",
        "Accept": "application/json",
        "x-goog-api-key": "canary",
        "x-goog-user-project": "canary",
        "anthropic-beta": "canary",
        "Cookie": "canary=1",
        "Accept-Encoding": "gzip",
    }

    await ask(vertex, headers=canaries)

    sent = {name.lower().decode(): value.decode() for name, value in vertex.provider.requests[0].headers}
    assert sent.pop("via").startswith("1.1 torana-")
    assert sent.pop("host") == vertex.provider.url.removeprefix("http://")
    assert sent.pop("content-length") == str(len(json.dumps(ASK)))
    assert sent == {
        "content-type": "application/json",
        "authorization": "Bearer ya29.token-1",
        "accept-encoding": "identity",
    }


@pytest.mark.parametrize("status", [200, 429])
async def test_the_client_gets_the_content_type_and_when_to_come_back(vertex: RunningGateway, status: int) -> None:
    headers = {
        "Content-Type": "application/json; charset=UTF-8",
        "Retry-After": "7",
        "x-should-retry": "false",
        "Server": "canary",
        "Set-Cookie": "canary=1",
        "x-goog-ext": "canary",
        "x-ratelimit-remaining": "canary",
        "Alt-Svc": "canary",
    }
    for path, asked in ((GENERATE, ASK), (STREAM, ASK), (PREDICT, EMBED)):
        vertex.provider.answer_with(status=status, body=b'{"a": 1}', headers=headers)

        answer = await ask(vertex, path, asked)

        got = {name.lower(): value for name, value in answer.header_pairs}
        assert b"canary" not in b"".join(got.values())
        passed = (got[b"content-type"], got[b"retry-after"], got[b"x-should-retry"])
        assert (answer.status, passed) == (status, (b"application/json; charset=UTF-8", b"7", b"false"))


QUERIES = [("", ""), ("?alt=sse", "alt=sse"), ("?key=canary&alt=sse&$fields=x", "alt=sse"), ("?beta=true", "beta=true")]


async def test_of_the_query_only_alt_and_beta_go_on(vertex: RunningGateway) -> None:
    for query, sent in QUERIES:
        await ask(vertex, STREAM + query)

        assert vertex.provider.requests[-1].query == sent


STREAMED = [
    (f"{STREAM}?alt=sse", ASK, "text/event-stream"),
    (STREAM, ASK, "application/json"),
    (PREDICT_STREAM, EMBED, "application/json"),
    (CLAUDE, ASK_CLAUDE | {"stream": True}, "text/event-stream"),
]
streamed = pytest.mark.parametrize(("path", "asked", "kind"), STREAMED)


@streamed
async def test_streams_pass_byte_for_byte_however_they_are_cut(
    vertex: RunningGateway, path: str, asked: dict[str, Any], kind: str
) -> None:
    for segment_bytes in (None, 1, 7):
        vertex.provider.answer_with(pieces=["grün ", "\u2028 €", "😀"], segment_bytes=segment_bytes)
        direct = await fetch(vertex.provider.server.port, "POST", path, {}, json.dumps(asked).encode())

        answer = await ask(vertex, path, asked)

        assert answer.is_whole
        assert answer.body == direct.body
        assert (answer.header("content-type") or "").startswith(kind)


@streamed
async def test_each_piece_arrives_before_the_next_is_sent(
    vertex: RunningGateway, path: str, asked: dict[str, Any], kind: str
) -> None:
    vertex.provider.stall(after_events=1)

    async with vertex.stream(
        PREFIX + path,
        json=asked,
        token=vertex.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY},
    ) as answer:
        first = await answer.next_chunk()
        vertex.provider.release()
        rest = await answer.rest()

    assert first
    assert rest.body
    assert rest.is_whole


async def test_claude_without_stream_in_its_body_answers_whole(vertex: RunningGateway) -> None:
    answer = await ask(vertex, CLAUDE, ASK_CLAUDE)

    assert answer.header("content-type") == "application/json"
    assert answer.json()["content"][0]["text"] == "Hello from the scripted provider."


async def test_bodies_go_both_ways_byte_for_byte(vertex: RunningGateway) -> None:
    back = b' {"usage": 1, "x":"\xc3\xa9\\u0000", "not JSON at all \xff\n\r\n'
    sent = '\n{ "model":"ignored",  "z":1.10,"é":"\\u00e9","n":1e400,"a":[ ]\t}\r\n'.encode()
    vertex.provider.answer_with(body=back)

    for path in (GENERATE, PREDICT, CLAUDE):
        answer = await ask(vertex, path, body=sent)

        assert vertex.provider.requests[-1].body == sent
        assert (answer.status, answer.body) == (200, back)


USAGES = [
    (GENERATE, ASK, (25, 7)),
    (f"{STREAM}?alt=sse", ASK, (25, 7)),
    (STREAM, ASK, (25, 7)),
    (PREDICT, EMBED, (25, 0)),
    (CLAUDE, ASK_CLAUDE, (25, 7)),
    (CLAUDE, ASK_CLAUDE | {"stream": True}, (25, 7)),
]


@pytest.mark.parametrize(("path", "asked", "tokens"), USAGES)
async def test_what_either_publisher_says_it_used_is_booked(
    vertex: RunningGateway, path: str, asked: dict[str, Any], tokens: tuple[int, int]
) -> None:
    await ask(vertex, path, asked)

    line = await vertex.log.find(logger="api.access", provider="vertex_ai")
    assert (line["input_tokens"], line["output_tokens"], line["outcome"]) == (*tokens, "completed")
    assert line["usage_source"] == "provider"


async def test_googles_status_and_body_pass(vertex: RunningGateway) -> None:
    statuses = (400, 404, 429, 500, 503)
    for status in statuses:
        vertex.provider.fail_with(status, body=b'[{"error": {"message":"their own words"}}]')
        for path in (GENERATE, STREAM, CLAUDE):
            answer = await ask(vertex, path)
            assert (answer.status, answer.body) == (status, b'[{"error": {"message":"their own words"}}]')

    assert len(vertex.provider.requests) == 3 * len(statuses)


async def test_our_own_token_refused_is_502_and_an_alarm(vertex: RunningGateway) -> None:
    for status in (401, 403):
        vertex.provider.fail_with(status, body=b'{"error":{"message":"canary"}}')
        for path in (GENERATE, STREAM, CLAUDE):
            answer = await ask(vertex, path)
            assert said(answer) == (502, "Bad Gateway")
            assert b"canary" not in answer.body

        alarm = await vertex.log.find(level="error", status=status)
        assert alarm["provider"] == "vertex_ai"


async def test_no_token_to_be_had_is_502_and_an_alarm(vertex: RunningGateway, google: FakeGoogle) -> None:
    google.refusal = 400, {"error": "invalid_grant", "error_description": "account disabled"}

    answer = await ask(vertex)

    assert said(answer) == (502, "Bad Gateway")
    assert answer.json()["refusal"]["code"] == "provider_no_credentials"
    assert b"disabled" not in answer.body
    alarm = await vertex.log.find(level="error", message="credentials cannot be fetched")
    assert "invalid_grant: account disabled" in alarm["reason"]
    assert vertex.provider.requests == []


async def test_an_upstream_that_refuses_connections_is_502(vertex: RunningGateway) -> None:
    vertex.provider.server.stop_listening()

    assert said(await ask(vertex)) == (502, "Bad Gateway")


CUT = [
    (f"{STREAM}?alt=sse", ASK, b'"code":502'),
    (CLAUDE, ASK_CLAUDE | {"stream": True}, b"event: error"),
]


@pytest.mark.parametrize(("path", "asked", "last_words"), CUT)
async def test_a_stream_of_events_that_is_cut_ends_in_its_dialects_own_error(
    vertex: RunningGateway, path: str, asked: dict[str, Any], last_words: bytes
) -> None:
    for malformed in ("no_end", "short_body", "bad_chunk"):
        vertex.provider.answer_malformed(malformed)  # type: ignore[arg-type]

        answer = await ask(vertex, path, asked)

        assert (answer.status, answer.is_whole) == (200, False), malformed
        assert last_words in answer.body.splitlines()[-2] + answer.body.splitlines()[-3], malformed


async def test_an_array_that_is_cut_is_aborted_without_a_word(vertex: RunningGateway) -> None:
    for events in (1, 3):
        vertex.provider.cut_after(events)

        answer = await ask(vertex, STREAM)

        assert (answer.status, answer.is_whole) == (200, False)
        assert b"error" not in answer.body


async def test_a_client_who_hangs_up_takes_the_upstream_along(vertex: RunningGateway) -> None:
    vertex.provider.stall(after_events=1)
    async with vertex.stream(
        PREFIX + STREAM,
        json=ASK,
        token=vertex.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY},
    ) as answer:
        await answer.next_chunk()

    await (await vertex.provider.request()).hung_up.wait()
    line = await vertex.log.find(logger="api.access", provider="vertex_ai")
    assert line["outcome"] == "client_cancelled"


async def test_the_demo_speaks_every_format_of_this_proxy(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MOCK_MODEL_RESPONSES": "true"})

    whole = (await ask(gateway)).json()
    events = await ask(gateway, f"{STREAM}?alt=sse")
    array = (await ask(gateway, STREAM)).json()
    claude = (await ask(gateway, CLAUDE, ASK_CLAUDE)).json()
    vectors = (await ask(gateway, PREDICT, EMBED)).json()
    text = (await ask(gateway, f"{GOOGLE}/text-bison:predict", {"instances": [{"prompt": "Hi"}]})).json()
    pieces = (await ask(gateway, PREDICT_STREAM, EMBED)).json()

    assert whole["candidates"][0]["finishReason"] == "STOP"
    assert events.header("x-torana-demo") == "true"
    last = json.loads(events.body.strip().splitlines()[-1].removeprefix(b"data: "))
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert array == [whole | {"responseId": array[0]["responseId"]}]
    assert (claude["type"], claude["model"]) == ("message", "claude-sonnet-4-6")
    assert len(vectors["predictions"][0]["embeddings"]["values"]) == 256
    assert text["predictions"][0]["content"]
    assert pieces[0]["outputs"][0]["structVal"]["content"]["stringVal"]
    assert gateway.provider.requests == []
