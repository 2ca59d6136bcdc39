"""Providers that speak responses: as their own format, or for clients who speak it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.golden.compare import read
from tests.promises.test_dialect_routes import CHAT, MESSAGES, RESPONSES, ask, data_of
from tests.support.gateway import RunningGateway
from tests.support.provider import ScriptedProvider

MODELS = """\
models:
- {name: acme_large, title: Acme Large, vendor: Acme, deployments: [{provider: acme, model: acme-large-1}]}
"""
STREAM = read("responses/tools.sse")
ANSWER = json.loads(read("responses/tools.answer.json"))


async def start(start_gateway: StartGateway, provider: ScriptedProvider, folder: Path, row: str) -> RunningGateway:
    write_overlay(folder, f"- {{name: acme, base_url: {provider.url}/acme, {row}}}\n")
    return await start_gateway(env={"AIGW_CATALOG": str(folder)})


def write_overlay(folder: Path, rows: str) -> None:
    folder.mkdir()
    (folder / "providers.yml").write_text(rows)
    (folder / "models.yml").write_text(MODELS)


@pytest.fixture
async def gateway(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path) -> RunningGateway:
    return await start(start_gateway, provider, tmp_path / "overlay", "dialect: responses")


async def test_its_answer_reaches_a_client_of_messages_with_thoughts_and_calls(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body=ANSWER)

    answer = await ask(gateway, MESSAGES, "acme_large")

    (sent,) = gateway.provider.requests
    assert (sent.path, sent.json()["model"], sent.json()["store"]) == ("/acme/v1/responses", "acme-large-1", False)
    said = answer.json()
    assert [block["type"] for block in said["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert said["content"][0] == {
        "type": "thinking", "thinking": "Größe first.\n\nThen 🙂.", "signature": "responses:gAAAA-_x",
    }  # fmt: skip
    assert said["stop_reason"] == "tool_use"
    assert said["usage"]["cache_read_input_tokens"] == 100


async def test_its_stream_reaches_a_client_of_chat_completions(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(events=[STREAM])

    answer = await ask(gateway, CHAT, "acme_large", stream=True)

    deltas = [row["choices"][0]["delta"] for row in data_of(answer)[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Größe first.\n\nThen 🙂."
    assert "".join(delta.get("content") or "" for delta in deltas) == "I will look 🙂."
    assert [row["index"] for delta in deltas for row in delta.get("tool_calls", ())] == [0, 0, 0, 1, 1]
    line = await gateway.log.find(path=CHAT)
    assert (line["input_tokens"], line["output_tokens"], line["outcome"]) == (120, 34, "completed")


async def test_a_thought_that_a_client_sends_back_reaches_the_one_who_thought_it(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body=ANSWER)
    said = (await ask(gateway, MESSAGES, "acme_large")).json()["content"]
    results = [{"type": "tool_result", "tool_use_id": f"call_{n}", "content": "x"} for n in (1, 2)]
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": results},
    ]

    await ask(gateway, MESSAGES, "acme_large", messages=turns)

    thought = gateway.provider.requests[1].json()["input"][1]
    assert thought == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Größe first.\n\nThen 🙂."}],
        "encrypted_content": "gAAAA-_x",
    }


async def test_a_failed_response_is_a_failed_call(gateway: RunningGateway) -> None:
    failed: dict[str, Any] = {**ANSWER, "status": "failed", "error": {"code": "server_error", "message": "secret"}}
    gateway.provider.answer_with(body=failed)

    answer = await ask(gateway, MESSAGES, "acme_large")

    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_overloaded")
    assert "secret" not in answer.text


@pytest.mark.parametrize(("path", "way"), [(RESPONSES, "/acme/v1/responses"), (CHAT, "/acme/v1/chat/completions")])
async def test_a_client_is_passed_on_in_the_further_format_that_a_row_names(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, path: str, way: str
) -> None:
    row = "dialect: chat_completions, also: [responses]"
    gateway = await start(start_gateway, provider, tmp_path / "overlay", row)
    if path == RESPONSES:
        gateway.provider.answer_with(body=ANSWER)

    answer = await ask(gateway, path, "acme_large", tomorrow={"a": 1})

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)
    (sent,) = gateway.provider.requests
    assert (sent.path, sent.json()["tomorrow"]) == (way, {"a": 1})
    if path == RESPONSES:
        assert answer.json() == ANSWER
