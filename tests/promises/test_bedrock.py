"""Bedrock: converse over its own event stream, greeted by token or signature, failing in its own ways."""

import hashlib
import hmac
import json
import re
from pathlib import Path

import pytest
from tests.conftest import StartGateway
from tests.support.bedrock_answers import exception, frame
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Request
from tests.support.provider import ScriptedProvider
from tests.support.saying import ToolUse

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
IN_PATH = "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
CATALOGUE = f"""\
models:
- name: claude_on_bedrock
  title: Claude on Bedrock
  deployments: [{{provider: bedrock, model: "{MODEL}"}}]
aliases:
- {{name: chat_default, models: [claude_on_bedrock]}}
"""
TOKEN = {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-token"}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "bedrock-secret", "AWS_SESSION_TOKEN": "session"}


@pytest.fixture
def start(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path):
    """A gateway whose chat is answered by Bedrock."""
    (tmp_path / "models.yml").write_text(CATALOGUE)

    async def start(**env: str) -> RunningGateway:
        region = {"AWS_REGION_NAME": "eu-west-1", "AWS_BEDROCK_RUNTIME_ENDPOINT": provider.url}
        return await start_gateway(env={"AIGW_CATALOG": str(tmp_path), **region, **env})

    return start


async def ask(gateway: RunningGateway, *, stream: bool = False) -> Answer:
    return await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={"inputs": {"input": "why", "selected_text": "x = 1"}, "stream": stream},
        token=gateway.token(unit_primitives=["explain_code"]),
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_on_bedrock_answers_with_a_token(start, provider: ScriptedProvider, stream: bool) -> None:
    gateway = await start(**TOKEN)

    answer = await ask(gateway, stream=stream)

    assert answer.status == 200
    assert "Hello from the scripted provider." in answer.body.decode()
    assert answer.header("x-aigw-model") == f"bedrock/{MODEL}"
    (sent,) = provider.requests
    assert sent.target.decode() == f"/model/{IN_PATH}/converse" + ("-stream" if stream else "")
    assert sent.header("authorization") == "Bearer bedrock-token"
    assert {"model", "stream"}.isdisjoint(sent.json())
    assert sent.json()["messages"][-1]["role"] == "user"


@pytest.mark.parametrize("segment_bytes", [1, 7])
async def test_an_answer_in_small_segments_is_the_same(start, provider: ScriptedProvider, segment_bytes: int) -> None:
    gateway = await start(**TOKEN)
    provider.answer_with(pieces=("größe ", "🙂"), segment_bytes=segment_bytes)

    answer = await ask(gateway, stream=True)

    assert "größe 🙂" in answer.body.decode()


async def test_a_request_is_signed_with_the_keys_of_the_environment(start, provider: ScriptedProvider) -> None:
    gateway = await start(**KEYS)

    answer = await ask(gateway, stream=True)

    assert answer.status == 200
    (sent,) = provider.requests
    assert sent.header("x-amz-security-token") == "session"
    assert sent.header("authorization") == signature_of(sent, "eu-west-1")


def signature_of(sent: Request, region: str) -> str:
    """The signature as AWS's General Reference derives it, step by step."""
    told = sent.header("authorization") or ""
    names = re.findall("SignedHeaders=([^,]+)", told)[0].split(";")
    date = sent.header("x-amz-date") or ""
    day = date[:8]
    # The path that was sent is encoded once more, for every service but S3.
    path = sent.target.decode().replace("%", "%25")
    lines = [f"{name}:{(sent.header(name) or '').strip()}" for name in names]
    digest = hashlib.sha256(sent.body).hexdigest()
    request = "\n".join(["POST", path, "", *lines, "", ";".join(names), digest])
    scope = f"{day}/{region}/bedrock/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = b"AWS4bedrock-secret"
    for part in (day, region, "bedrock", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    credential = f"AKIDEXAMPLE/{scope}"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(names)}, Signature={signature}"


async def test_keys_are_found_where_the_vendors_own_libraries_find_them(
    start, provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = FROMFILE\naws_secret_access_key = s\n")
    # The vendor's library reads the process's own environment.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    gateway = await start(AWS_SHARED_CREDENTIALS_FILE=str(file))

    answers = [await ask(gateway) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert all("Credential=FROMFILE/" in (sent.header("authorization") or "") for sent in provider.requests)


NOWHERE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/none",
    "AWS_CONFIG_FILE": "/none",
}


async def test_without_credentials_the_operator_is_told_what_to_set(start, provider: ScriptedProvider) -> None:
    gateway = await start(**NOWHERE)

    answer = await ask(gateway)

    assert answer.refusal.code == "provider_no_credentials"
    assert provider.requests == []
    assert any("AWS_BEARER_TOKEN_BEDROCK" in json.dumps(line) for line in gateway.log.lines)


BOTH = CATALOGUE.replace("models: [claude_on_bedrock]", "models: [claude_on_bedrock, claude_sonnet_4_6]")


@pytest.mark.parametrize(
    ("there", "answers"),
    [
        ({}, "anthropic"),
        ({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"}, "anthropic"),  # half a key is none
        (TOKEN, "bedrock"),
        (KEYS, "bedrock"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "[default]\naws_access_key_id = A\naws_secret_access_key = s\n"}, "bedrock"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "[default]\n"}, "anthropic"),
        ({"AWS_CONFIG_FILE": "[default]\nregion = eu-west-1\n"}, "anthropic"),
        ({"AWS_CONFIG_FILE": "[profile a]\nrole_arn = arn:aws:iam::1:role/a\n"}, "bedrock"),
        ({"AWS_PROFILE": "a"}, "bedrock"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, "bedrock"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2"}, "bedrock"),
    ],
)
async def test_bedrock_is_configured_where_credentials_can_be_found(
    start, tmp_path: Path, there: dict[str, str], answers: str
) -> None:
    (tmp_path / "models.yml").write_text(BOTH)
    env = {**NOWHERE, **there}
    for name, text in there.items():
        if name.endswith(("CREDENTIALS_FILE", "CONFIG_FILE")):
            (tmp_path / "aws").write_text(text)
            env[name] = str(tmp_path / "aws")
    gateway = await start(**env)

    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    told = (await gateway.get("/openai/v1/models/chat_default", headers={"Authorization": f"Bearer {token}"})).json()

    assert told["registry"]["deployments"][0].partition("/")[0] == answers


async def test_a_tool_call_and_its_cost_come_through(start, provider: ScriptedProvider) -> None:
    gateway = await start(**TOKEN)
    provider.answer_with(tool_call=ToolUse(name="look", arguments={"at": "ü"}), input_tokens=40, output_tokens=9)
    tools = [{"name": "look", "input_schema": {"type": "object"}}]

    answer = await gateway.post(
        "/anthropic/v1/messages",
        json={
            "model": "claude_on_bedrock",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "?"}],
            "tools": tools,
        },
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    said = answer.json()
    assert said["stop_reason"] == "tool_use"
    assert said["content"] == [{"type": "tool_use", "id": "call_scripted_1", "name": "look", "input": {"at": "ü"}}]
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == (40, 9)
    assert provider.requests[0].json()["toolConfig"]["tools"][0]["toolSpec"]["name"] == "look"


async def test_a_proven_thought_goes_out_to_the_client_and_back_to_the_model(start, provider: ScriptedProvider) -> None:
    gateway = await start(**TOKEN)
    thought = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}}
    call = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}}
    provider.answer_with(
        body={
            "output": {"message": {"role": "assistant", "content": [thought, call]}},
            "stopReason": "tool_use",
            "usage": {"inputTokens": 1, "outputTokens": 1},
        }
    )
    asked = {
        "model": "claude_on_bedrock",
        "max_tokens": 4000,
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": "?"}],
    }
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    said = (await gateway.post("/anthropic/v1/messages", json=asked, token=token)).json()
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "nothing"}
    more = [{"role": "assistant", "content": said["content"]}, {"role": "user", "content": [result]}]
    await gateway.post("/anthropic/v1/messages", json={**asked, "messages": asked["messages"] + more}, token=token)

    assert said["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    first, second = (sent.json() for sent in provider.requests)
    assert first["additionalModelRequestFields"]["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert second["messages"][1]["content"] == [thought, call]


async def test_what_is_to_be_cached_is_marked_for_claude(start, provider: ScriptedProvider) -> None:
    gateway = await start(**TOKEN)
    system = [{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}}]

    await gateway.post(
        "/anthropic/v1/messages",
        json={
            "model": "claude_on_bedrock",
            "max_tokens": 9,
            "system": system,
            "messages": [{"role": "user", "content": "?"}],
        },
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    assert provider.requests[0].json()["system"] == [{"text": "Long."}, {"cachePoint": {"type": "default"}}]


@pytest.mark.parametrize(
    "name",
    ["throttlingException", "serviceUnavailableException", "internalServerException", "modelStreamErrorException"],
)
async def test_an_exception_as_the_first_event_is_tried_again(start, provider: ScriptedProvider, name: str) -> None:
    gateway = await start(**TOKEN, AIGW_ROUTING__TRIES="2")
    provider.answer_with(events=[exception(name)], times=1)

    answer = await ask(gateway, stream=True)

    if name == "throttlingException":  # the same account stays limited
        assert answer.status != 200
        assert len(provider.requests) == 1
    else:
        assert "Hello from" in answer.body.decode()
        assert len(provider.requests) == 2


@pytest.mark.parametrize("end", ["exception", "cut", "no_end"])
async def test_an_answer_that_fails_midway_is_never_a_success(start, provider: ScriptedProvider, end: str) -> None:
    gateway = await start(**TOKEN)
    begun = [
        frame({"role": "assistant"}, "messageStart"),
        frame({"contentBlockIndex": 0, "delta": {"text": "Half"}}, "contentBlockDelta"),
    ]
    ends = {
        "exception": [exception("modelStreamErrorException")],
        "cut": [frame({"stopReason": "end_turn"}, "messageStop")[:-5]],
        "no_end": [frame({"stopReason": "end_turn"}, "messageStop")],
    }
    provider.answer_with(events=[*begun, *ends[end]])

    answer = await gateway.post(
        "/openai/v1/chat/completions",
        json={"model": "claude_on_bedrock", "stream": True, "messages": [{"role": "user", "content": "?"}]},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    text = answer.body.decode()
    assert "Half" in text
    assert "error" in text
    assert "[DONE]" not in text


async def test_a_refused_signature_tells_of_clocks_that_differ(start, provider: ScriptedProvider) -> None:
    gateway = await start(**KEYS)
    provider.fail_with(403, headers={"Date": "Sun, 06 Nov 1994 08:49:37 GMT"})

    answer = await ask(gateway)

    assert answer.status in (421, 500, 502, 503)
    alarm = await gateway.log.find(message="our clock and the provider's differ, and it refuses our key")
    assert alarm["kind"] == "AccessDeniedException"
    assert alarm["clock_off_s"] > 10**8


async def test_a_client_names_a_bedrock_model_of_the_catalogue_and_no_other(start, provider: ScriptedProvider) -> None:
    gateway = await start(**TOKEN, AIGW_CUSTOM_MODELS__ENABLED="true")

    async def ask_own(model: str) -> Answer:
        metadata = {
            "provider": "openai",
            "name": "claude_3",
            "endpoint": "http://127.0.0.1:9/v1",
            "api_key": "theirs",
            "identifier": f"bedrock/{model}",
        }
        return await gateway.post(
            "/v1/prompts/chat/explain_code",
            json={"inputs": {"input": "why", "selected_text": "x = 1"}, "model_metadata": metadata},
            token=gateway.token(unit_primitives=["explain_code"]),
        )

    listed, other = await ask_own(MODEL), await ask_own("anthropic.claude-instant-v1")

    assert (listed.status, other.status) == (200, 422)
    (sent,) = provider.requests
    assert sent.header("authorization") == "Bearer bedrock-token"
