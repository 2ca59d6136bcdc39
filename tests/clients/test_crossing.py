"""The vendors' own SDKs, each with the other vendor's model behind the dialect routes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel
from tests.clients.conftest import PRIMITIVE
from tests.golden.compare import read
from tests.support.gateway import RunningGateway

CLAUDE, GPT = "claude-sonnet-4-6", "gpt-5-mini-2025-08-07"
ASK: list[Any] = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
NAMES = ["Read", "read_file", "list_files"]


class Found(BaseModel):
    lines: list[int]


@pytest.fixture
async def chat(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    token = gateway.token(unit_primitives=[PRIMITIVE])
    async with openai.AsyncOpenAI(api_key=token, base_url=f"{gateway.url}/openai/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def messages(gateway: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    token = gateway.token(unit_primitives=[PRIMITIVE])
    async with anthropic.AsyncAnthropic(api_key=token, base_url=f"{gateway.url}/anthropic", max_retries=0) as client:
        yield client


def signed(text: str = "Hm, größe.", answer: str = "It is 3.") -> list[bytes]:
    """Claude's stream of a thought with its proof, an answer, and two calls."""
    rows: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": CLAUDE, "usage": {"input_tokens": 9}}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": text}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": answer}},
        {"type": "content_block_stop", "index": 1},
    ]
    for number, name in enumerate(("read_file", "list_files")):
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": '{"path":"ü"}'}
        rows += [
            {"type": "content_block_start", "index": 2 + number, "content_block": block},
            {"type": "content_block_delta", "index": 2 + number, "delta": delta},
            {"type": "content_block_stop", "index": 2 + number},
        ]
    rows += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return [f"event: {row['type']}\ndata: {json.dumps(row)}\n\n".encode() for row in rows]


async def test_openais_sdk_streams_claudes_thoughts_text_and_calls(
    gateway: RunningGateway, chat: openai.AsyncOpenAI
) -> None:
    gateway.provider.answer_with(events=signed())
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]

    async with chat.chat.completions.stream(model=CLAUDE, messages=ASK, tools=tools) as stream:
        choice = (await stream.get_final_completion()).choices[0]

    assert (choice.message.content, choice.finish_reason) == ("It is 3.", "tool_calls")
    assert choice.message.model_extra["reasoning_content"] == "Hm, größe."
    calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert calls == [("toolu_0", "read_file", '{"path":"ü"}'), ("toolu_1", "list_files", '{"path":"ü"}')]


async def test_openais_sdk_sends_claudes_proofs_back_through_responses(
    gateway: RunningGateway, chat: openai.AsyncOpenAI
) -> None:
    gateway.provider.answer_with(events=signed(), times=1)
    tools: Any = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES]

    async with chat.responses.stream(model=CLAUDE, input=ASK, tools=tools, reasoning={"effort": "high"}) as stream:
        kinds = [event.type async for event in stream]
        said = await stream.get_final_response()
    results: Any = [
        {"type": "function_call_output", "call_id": f"toolu_{n}", "output": [{"type": "input_text", "text": "x"}]}
        for n in (0, 1)
    ]
    turns = [*ASK, *(item.model_dump(exclude_none=True) for item in said.output), *results]
    await chat.responses.create(model=CLAUDE, input=turns, tools=tools, reasoning={"effort": "high"})

    assert kinds[-1] == "response.completed"
    assert [item.type for item in said.output] == ["reasoning", "message", "function_call", "function_call"]
    assert (said.output_text, said.usage.total_tokens) == ("It is 3.", 16)
    sent = gateway.provider.requests[1].json()
    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent["output_config"] == {"effort": "high"}
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm, größe.", "signature": "c2ln"}
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result", "tool_result"]


async def test_anthropics_sdk_streams_thoughts_and_calls_of_openais_model(
    gateway: RunningGateway, messages: anthropic.AsyncAnthropic
) -> None:
    gateway.provider.answer_with(events=[read("chat_completions/tools.sse")])
    tools: Any = [{"name": name, "input_schema": SCHEMA} for name in NAMES]

    async with messages.messages.stream(model=GPT, max_tokens=4096, messages=ASK, tools=tools) as stream:
        said = await stream.get_final_message()

    assert said.stop_reason == "tool_use"
    calls = [(block.name, block.input) for block in said.content if block.type == "tool_use"]
    assert calls == [("read_file", {"path": "größe.py"}), ("list_files", {})]
    assert said.usage.input_tokens + (said.usage.cache_read_input_tokens or 0) == 120


async def test_structured_answers_cross_both_ways(
    gateway: RunningGateway, chat: openai.AsyncOpenAI, messages: anthropic.AsyncAnthropic
) -> None:
    gateway.provider.answer_with(text='{"lines": [1, 2]}')

    by_chat = await chat.chat.completions.parse(model=CLAUDE, messages=ASK, response_format=Found)
    by_responses = await chat.responses.parse(model=CLAUDE, input=ASK, text_format=Found)
    by_messages = await messages.messages.parse(model=GPT, max_tokens=99, messages=ASK, output_format=Found)

    assert by_chat.choices[0].message.parsed == Found(lines=[1, 2])
    assert by_responses.output_parsed == Found(lines=[1, 2])
    assert by_messages.parsed_output == Found(lines=[1, 2])
    claude, other, gpt = (request.json() for request in gateway.provider.requests)
    assert claude["output_config"]["format"]["schema"]["properties"]["lines"]["items"] == {"type": "integer"}
    assert other["output_config"] == claude["output_config"]
    assert gpt["response_format"]["json_schema"]["schema"]["required"] == ["lines"]
    assert gpt["max_completion_tokens"] == 99
