"""Prompts and answers in the log: nobody's by default, and whose on request (contract 15)."""

import json
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import ANTHROPIC_KEY, RunningGateway

FLAGS, VERBOSE = "X-Gitlab-Enabled-Feature-Flags", "X-Gitlab-Enabled-Instance-Verbose-Ai-Logs"
SELF_HOSTED = {"AIGW_CUSTOM_MODELS__ENABLED": "true"}
EXPANDED = "a_flag,expanded_ai_logging"


async def ask(gateway: RunningGateway, headers: dict[str, str], *, stream: bool = False) -> list[dict[str, Any]]:
    """Ask with a prompt and an answer that are easy to find, and give the lines that hold either."""
    gateway.provider.answer_with(pieces=["canary-", "answer"])
    token = gateway.token(unit_primitives=["generate_commit_message"])
    asked = {"inputs": {"diff": "canary-prompt"}, "stream": stream}

    answer = await gateway.post("/v1/prompts/generate_commit_message", json=asked, token=token, headers=headers)

    assert answer.status == 200
    await gateway.log.find(path="/v1/prompts/generate_commit_message")
    return [line for line in gateway.log.lines if "canary" in json.dumps(line)]


@pytest.mark.parametrize(
    ("env", "headers"),
    [
        ({}, {}),
        ({}, {VERBOSE: "true"}),
        (SELF_HOSTED, {FLAGS: EXPANDED}),
        (SELF_HOSTED, {VERBOSE: "True"}),
        (SELF_HOSTED, {VERBOSE: "1"}),
        ({"AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS": '{"self-managed": ["expanded_ai_logging"]}'}, {FLAGS: EXPANDED}),
    ],
)
async def test_texts_of_requests_are_not_logged(
    start_gateway: StartGateway, env: dict[str, str], headers: dict[str, str]
) -> None:
    assert await ask(await start_gateway(env=env), headers) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("env", "headers"),
    [
        ({"AIGW_LOGGING__ENABLE_REQUEST_LOGGING": "true"}, {}),
        ({"AIGW_LOGGING__ENABLE_LITELLM_LOGGING": "true"}, {}),
        (SELF_HOSTED, {VERBOSE: "true"}),
        ({}, {FLAGS: EXPANDED}),
    ],
)
async def test_who_may_say_so_has_prompt_and_answer_logged(
    start_gateway: StartGateway, env: dict[str, str], headers: dict[str, str], stream: bool
) -> None:
    gateway = await start_gateway(env=env)

    (line,) = await ask(gateway, {**headers, "X-Request-ID": "request-1"}, stream=stream)

    assert (line["logger"], line["correlation_id"]) == ("torana.contents", "request-1")
    assert "canary-prompt" in "".join(line["prompt"])
    assert (line["answer"], line["outcome"]) == ("canary-answer", "completed")
    assert ANTHROPIC_KEY not in json.dumps(gateway.log.lines)
