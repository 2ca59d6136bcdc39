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


async def test_a_model_that_is_to_answer_in_json_is_told_so_in_its_input(gateway: RunningGateway) -> None:
    """OpenAI looks for the word there, and not in the instructions."""
    gateway.provider.answer_with(body=ANSWER)
    turns = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "Hi"}]

    await ask(gateway, CHAT, "acme_large", messages=turns, response_format={"type": "json_object"})
    await ask(gateway, CHAT, "acme_large", messages=turns)

    in_json, usual = (request.json() for request in gateway.provider.requests)
    assert in_json["input"] == turns
    assert (usual["instructions"], usual["input"]) == ("Answer in JSON.", turns[1:])


async def test_a_conversation_of_a_system_message_alone_is_something_to_answer(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body=ANSWER)
    told = {"role": "system", "content": "Say hello."}

    await ask(gateway, CHAT, "acme_large", messages=[told])

    sent = gateway.provider.requests[0].json()
    assert (sent["input"], "instructions" in sent) == ([told], False)


@pytest.mark.parametrize("odd", [{"status": None}, {"status": "incomplete", "incomplete_details": {"reason": None}}])
async def test_an_answer_that_does_not_say_how_it_ended_is_one(gateway: RunningGateway, odd: dict[str, Any]) -> None:
    """As OpenAI's own types allow."""
    gateway.provider.answer_with(body={**ANSWER, **odd})

    answer = await ask(gateway, CHAT, "acme_large")

    assert answer.json()["choices"][0]["message"]["content"] == "I will look 🙂."


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


TOOLS = [{"name": "read_file", "description": "Reads", "input_schema": {"type": "object", "properties": {}}}]
THINKING = {"type": "enabled", "budget_tokens": 4096}


def write_openais(folder: Path, base_url: str, model: str, more: str) -> None:
    folder.mkdir()
    row = f"dialect: chat_completions, base_url: {base_url}/acme, quirks: {{thinks_with_tools: false}}{more}"
    (folder / "providers.yml").write_text(f"- {{name: acme, {row}}}\n")
    (folder / "models.yml").write_text(MODELS.replace("acme-large-1", model))


@pytest.mark.parametrize("model", ["gpt-5.4-mini-2026-03-17", "gpt-5.6-terra"])
async def test_a_model_that_thinks_beside_tools_in_responses_alone_is_asked_there(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, model: str
) -> None:
    write_openais(tmp_path / "overlay", provider.url, model, ", also: [responses]")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})
    provider.answer_with(body=ANSWER)

    answer = await ask(gateway, MESSAGES, "acme_large", tools=TOOLS, thinking=THINKING, max_tokens=9000)

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)
    (sent,) = provider.requests
    assert (sent.path, sent.json()["reasoning"]) == ("/acme/v1/responses", {"effort": "low"})
    assert [block["type"] for block in answer.json()["content"]] == ["thinking", "text", "tool_use", "tool_use"]


@pytest.mark.parametrize(
    ("model", "more", "effort", "dropped"),
    [
        ("gpt-5.4-mini", {"tools": TOOLS, "thinking": THINKING}, "none", "reasoning"),
        ("gpt-5.6-terra", {"tools": TOOLS, "thinking": THINKING}, "none", "reasoning"),
        ("gpt-5.6-terra", {"tools": TOOLS}, "none", None),
        ("gpt-5.6-terra", {"thinking": THINKING}, "low", None),
        ("gpt-5.4-mini", {"tools": TOOLS}, None, None),
        ("gpt-5.1", {"tools": TOOLS, "thinking": THINKING}, "low", None),
    ],
)
async def test_without_responses_such_a_model_is_kept_from_thinking_beside_tools(
    start_gateway: StartGateway,
    provider: ScriptedProvider,
    tmp_path: Path,
    model: str,
    more: dict[str, Any],
    effort: str | None,
    dropped: str | None,
) -> None:
    write_openais(tmp_path / "overlay", provider.url, model, "")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})

    answer = await ask(gateway, MESSAGES, "acme_large", max_tokens=9000, **more)

    assert (answer.status, answer.header("x-torana-dropped")) == (200, dropped)
    (sent,) = provider.requests
    assert (sent.path, sent.json().get("reasoning_effort")) == ("/acme/v1/chat/completions", effort)


async def test_a_client_of_chat_completions_is_passed_on_there_whatever_it_asks(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    write_openais(tmp_path / "overlay", provider.url, "gpt-5.6-terra", ", also: [responses]")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})
    tools = [{"type": "function", "function": {"name": "read_file"}}]

    await ask(gateway, CHAT, "acme_large", tools=tools, reasoning_effort="high")

    (sent,) = provider.requests
    assert (sent.path, sent.json()["reasoning_effort"]) == ("/acme/v1/chat/completions", "high")


@pytest.mark.parametrize("model", ["gpt-5.3-codex", "gpt-5.4-pro-2026-03-05", "o3-pro", "o3-deep-research"])
@pytest.mark.parametrize("path", [MESSAGES, CHAT])
async def test_a_model_that_is_at_responses_alone_is_asked_there_for_every_client(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, model: str, path: str
) -> None:
    write_openais(tmp_path / "overlay", provider.url, model, ", also: [responses]")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})
    provider.answer_with(body=ANSWER)

    answer = await ask(gateway, path, "acme_large")

    (sent,) = provider.requests
    assert (answer.status, sent.path) == (200, "/acme/v1/responses")


async def test_a_model_that_always_thinks_is_asked_for_the_least_and_has_tools_in_responses_alone(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    write_openais(tmp_path / "overlay", provider.url, "gpt-6.1-sol", ", also: [responses]")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})
    provider.answer_with(body=ANSWER, times=1)

    await ask(gateway, MESSAGES, "acme_large", thinking={"type": "disabled"}, tools=TOOLS)
    await ask(gateway, MESSAGES, "acme_large", thinking={"type": "disabled"})

    with_tools, without = provider.requests
    assert (with_tools.path, with_tools.json()["reasoning"]) == ("/acme/v1/responses", {"effort": "low"})
    assert (without.path, without.json()["reasoning_effort"]) == ("/acme/v1/chat/completions", "low")


@pytest.mark.parametrize("more", [{}, {"stream": True}])
async def test_nobody_has_work_done_when_nobody_is_there_to_count_it(
    gateway: RunningGateway, more: dict[str, bool]
) -> None:
    """Its end could not be asked for here, and what it cost would stand in no usage record."""
    answer = await ask(gateway, RESPONSES, "acme_large", background=True, **more)

    assert (answer.status, gateway.provider.requests) == (400, [])
    assert answer.json()["error"]["message"].startswith("background: Nothing is stored here")


async def test_an_empty_text_beside_a_call_is_no_message(gateway: RunningGateway) -> None:
    """As clients of chat completions tell an answer that is a call alone."""
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]

    await ask(gateway, CHAT, "acme_large", messages=turns)

    items = gateway.provider.requests[0].json()["input"]
    assert [item.get("type", item.get("role")) for item in items] == ["user", "function_call", "function_call_output"]
