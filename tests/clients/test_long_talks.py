"""What agents tell in later turns leaves the beginning of a prompt as it was: providers keep it in their caches."""

import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from tests.clients.behind import BEHIND, stand_behind
from tests.clients.conftest import sdk_token
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.provider import ScriptedProvider

CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Tromsø"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Snow"}
TURNS: list[Any] = [
    {"role": "user", "content": "How is the weather?"},
    {"role": "system", "content": "You may ask other agents."},
    {"role": "assistant", "content": [CALL]},
    {"role": "user", "content": [RESULT]},
    {"role": "system", "content": "You have no list of tasks yet."},
    {"role": "assistant", "content": "It snows."},
    {"role": "system", "content": "It is late."},
    {"role": "user", "content": "And tomorrow?"},
]
"""As Claude Code tells its reminders."""


def said_in(asked: dict[str, Any]) -> list[Any]:
    """System text and turns, in order; the last turns may be told as one or as several."""
    turns = asked.get("messages") or asked.get("contents") or asked["input"]
    return [asked.get("system"), asked.get("systemInstruction"), asked.get("instructions"), *turns]


@pytest.mark.parametrize("model", BEHIND)
async def test_what_the_system_says_later_stands_where_it_was_said(anything: RunningGateway, model: str) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=f"{anything.url}/anthropic", auth_token=sdk_token(anything), max_retries=0
    ) as client:
        for length in (2, 5, 8):
            tools: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
            await client.messages.create(
                model=model, max_tokens=64, messages=TURNS[:length], system="Be brief.", tools=tools
            )

    first, second, third = (said_in(request.json()) for request in anything.provider.requests)
    assert second[: len(first)] == first
    assert third[: len(second)] == second
    texts = str(third)
    assert texts.index("Snow") < texts.index("no list") < texts.index("It snows.") < texts.index("late")


MARK = {"cache_control": {"type": "ephemeral"}}
TOOLS: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
ITEMS: list[Any] = [
    {"role": "developer", "content": "You may write here."},
    {"role": "user", "content": "How is the weather?"},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
    {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "Snow"},
    {"type": "function_call_output", "call_id": "call_2", "output": "Rain"},
]
"""As Codex tells a turn."""


async def ask_claude(gateway: RunningGateway, items: list[Any], **more: Any) -> None:
    """As OpenAI's clients ask: theirs is a vendor that keeps prompts by itself."""
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/openai/v1", api_key=sdk_token(gateway), max_retries=0
    ) as client:
        asked = {"instructions": "You are Codex.", "tools": TOOLS, "store": False, **more}
        await client.responses.create(model="by_messages", input=items, **asked)


async def test_claude_is_told_what_to_keep_of_the_talk_with_openais_client(
    anything: RunningGateway, provider: ScriptedProvider
) -> None:
    await ask_claude(anything, ITEMS[:2])
    await ask_claude(anything, ITEMS)

    first, second = (request.json() for request in provider.requests)
    system = [
        {"type": "text", "text": "You are Codex."},
        {"type": "text", "text": "You may write here.", **MARK},
    ]
    question = {"role": "user", "content": [{"type": "text", "text": "How is the weather?", **MARK}]}
    assert (first["system"], first["messages"]) == (system, [question])
    assert (second["system"], second["messages"][0]) == (system, question)
    assert [block.get("cache_control") for block in second["messages"][-1]["content"]] == [None, MARK["cache_control"]]
    assert json.dumps(second).count("cache_control") == 3


async def test_claude_on_bedrock_is_told_so_too(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    env = stand_behind(provider.url, tmp_path / "overlay")
    gateway = await start_gateway(env=env)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/openai/v1", api_key=sdk_token(gateway)) as client:
        await client.responses.create(
            model="claude_sonnet_4_6_bedrock", input=ITEMS, instructions="You are Codex.", tools=TOOLS
        )

    asked = provider.requests[0].json()
    point = {"cachePoint": {"type": "default"}}
    assert (asked["system"][-1], asked["messages"][0]["content"][-1]) == (point, point)
    assert asked["messages"][-1]["content"][-1] == point
    assert json.dumps(asked).count("cachePoint") == 3


@pytest.mark.parametrize("choice", ["none", "required"])
async def test_what_hardly_goes_on_is_not_kept(
    anything: RunningGateway, provider: ScriptedProvider, choice: str
) -> None:
    """To keep a prompt costs a quarter more than to read it."""
    await ask_claude(anything, ITEMS[:2], tool_choice=choice)

    assert b"cache_control" not in provider.requests[0].body


async def test_an_instance_that_wants_no_cache_gets_none_here_either(
    anything: RunningGateway, provider: ScriptedProvider
) -> None:
    await ask_claude(anything, ITEMS, extra_headers={"X-Gitlab-Model-Prompt-Cache-Enabled": "false"})

    assert b"cache_control" not in provider.requests[0].body
