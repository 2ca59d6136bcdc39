"""AIGW_MOCK_MODEL_RESPONSES: every proxy path answers in its own dialect, without keys and without any upstream."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway, gitlab_headers
from tests.support.http_client import Answer

PROXY = "ai_gateway_model_provider_proxy"
ASK: Any = [{"role": "user", "content": "What is a stoat?"}]
TOOL: Any = {"name": "look_up", "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}}}
CLAUDE, GPT = "claude-sonnet-4-6", "gpt-5-codex"
GOOGLE = "vertex-ai/v1/projects/p/locations/l/publishers/google/models"


@pytest.fixture
async def demo(start_gateway: StartGateway) -> AsyncIterator[RunningGateway]:
    gateway = await start_gateway(
        env={
            "AIGW_MOCK_MODEL_RESPONSES": "true",
            "ANTHROPIC_API_KEY": "",
            "OPENAI_API_KEY": "",
            "OPENAI_BASE_URL": "",
        }
    )
    yield gateway
    assert gateway.provider.requests == gateway.provider.model_lists == []


def agent_headers(gateway: RunningGateway) -> tuple[str, dict[str, str]]:
    token = gateway.user_token(unit_primitives=[PROXY])
    headers = gitlab_headers(token) | {"X-Gitlab-Unit-Primitive": PROXY}
    del headers["Authorization"], headers["User-Agent"]
    return token, headers


@pytest.fixture
async def claude(demo: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    token, headers = agent_headers(demo)
    async with anthropic.AsyncAnthropic(
        auth_token=token, base_url=f"{demo.url}/v1/proxy/anthropic", default_headers=headers, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def gpt(demo: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    token, headers = agent_headers(demo)
    async with openai.AsyncOpenAI(
        api_key=token, base_url=f"{demo.url}/v1/proxy/openai", default_headers=headers, max_retries=0
    ) as client:
        yield client


async def post(gateway: RunningGateway, path: str, asked: Any) -> Answer:
    return await gateway.post(
        path,
        json=asked,
        token=gateway.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY},
    )


async def test_messages_whole_and_streamed(claude: anthropic.AsyncAnthropic) -> None:
    whole = await claude.messages.create(model=CLAUDE, max_tokens=99, messages=ASK)
    async with claude.messages.stream(model=CLAUDE, max_tokens=99, messages=ASK) as stream:
        streamed = await stream.get_final_message()

    assert "demo" in whole.content[0].text
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
    assert (whole.model, whole.stop_reason, streamed.stop_reason) == (CLAUDE, "end_turn", "end_turn")
    assert whole.usage.output_tokens == streamed.usage.output_tokens > 0


async def test_messages_call_a_tool_that_is_demanded(claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(
        model=CLAUDE, max_tokens=99, messages=ASK, tools=[TOOL], tool_choice={"type": "any"}
    )

    assert (message.stop_reason, message.content[-1].type) == ("tool_use", "tool_use")


async def test_tokens_are_counted(claude: anthropic.AsyncAnthropic) -> None:
    assert (await claude.messages.count_tokens(model=CLAUDE, messages=ASK)).input_tokens > 0


async def test_completions_of_old_whole_and_streamed(demo: RunningGateway) -> None:
    path = "/v1/proxy/anthropic/v1/complete"
    asked = {"model": "claude-2.1", "max_tokens_to_sample": 99, "prompt": "\n\nHuman: Hi\n\nAssistant:"}

    whole = (await post(demo, path, asked)).json()
    streamed = await post(demo, path, asked | {"stream": True})

    # No SDK of today has this API, so the events are read by hand.
    events = [event.split("\n") for event in streamed.text.strip().split("\n\n")]
    assert {name for name, _ in events} == {"event: completion"}
    parts = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert whole["completion"] == "".join(part["completion"] for part in parts) != ""
    assert (whole["type"], whole["stop_reason"], whole["model"]) == ("completion", "stop_sequence", "claude-2.1")
    assert [part["stop_reason"] for part in parts] == [None] * (len(parts) - 1) + ["stop_sequence"]


async def test_chat_completions_whole_and_streamed(gpt: openai.AsyncOpenAI) -> None:
    whole = await gpt.chat.completions.create(model=GPT, messages=ASK)
    async with gpt.chat.completions.stream(model=GPT, messages=ASK, stream_options={"include_usage": True}) as stream:
        streamed = await stream.get_final_completion()

    assert whole.choices[0].message.content == streamed.choices[0].message.content
    assert "demo" in (whole.choices[0].message.content or "")
    assert whole.usage is not None
    assert streamed.usage is not None
    assert whole.usage.total_tokens == streamed.usage.total_tokens > 0


async def test_responses_whole_and_streamed(gpt: openai.AsyncOpenAI) -> None:
    whole = await gpt.responses.create(model=GPT, input="What is a stoat?")
    async with gpt.responses.stream(model=GPT, input="What is a stoat?") as stream:
        streamed = await stream.get_final_response()

    assert whole.output_text == streamed.output_text != ""
    assert (whole.status, streamed.status) == ("completed", "completed")


async def test_embeddings_as_numbers_and_in_base64(demo: RunningGateway, gpt: openai.AsyncOpenAI) -> None:
    packed = await gpt.embeddings.create(model="text-embedding-3-small", input=["a cat", "a dog"], dimensions=8)
    plain = await post(
        demo, "/v1/proxy/openai/embeddings", {"model": "text-embedding-3-small", "input": "a cat", "dimensions": 8}
    )

    assert [len(row.embedding) for row in packed.data] == [8, 8]
    assert plain.json()["data"][0]["embedding"] == pytest.approx(packed.data[0].embedding, abs=1e-6)


async def test_a_listed_model_can_be_asked(gpt: openai.AsyncOpenAI) -> None:
    (model,) = (await gpt.models.list()).data

    assert (await gpt.chat.completions.create(model=model.id, messages=ASK)).model == model.id


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("anthropic/v1/messages", {"model": CLAUDE, "max_tokens": 5, "messages": ASK}),
        ("anthropic/v1/messages", {"model": CLAUDE, "max_tokens": 5, "messages": ASK, "stream": True}),
        ("anthropic/v1/messages/count_tokens", {"model": CLAUDE, "messages": ASK}),
        ("anthropic/v1/complete", {"model": CLAUDE, "prompt": "Hi"}),
        ("openai/v1/chat/completions", {"model": GPT, "messages": ASK, "stream": True}),
        ("openai/v1/responses", {"model": GPT, "input": "Hi"}),
        ("openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hi"}),
    ],
)
async def test_every_answer_says_that_it_is_a_demos(demo: RunningGateway, path: str, asked: Any) -> None:
    answer = await post(demo, f"/v1/proxy/{path}", asked)

    assert (answer.status, answer.is_whole, answer.header("x-torana-demo")) == (200, True, "true")
    is_streamed = asked.get("stream", False)
    assert (answer.header("content-type") or "").startswith("text/event-stream" if is_streamed else "application/json")


async def test_the_demos_vectors_leave_a_usage_record(demo: RunningGateway) -> None:
    instances = {"instances": [{"content": "a cat"}]}
    google = f"{GOOGLE}/text-embedding-005:predict"

    await post(demo, "/v1/proxy/openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "a cat"})
    await post(demo, f"/v1/proxy/{google}", instances)

    told = [(each["provider"], each["status"], each["input_tokens"] > 0) for each in demo.usage()]
    assert told == [("demo", "completed", True)] * 2


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("anthropic/v1/messages", {"model": CLAUDE}),
        ("anthropic/v1/complete", {"model": CLAUDE}),
        ("anthropic/v1/complete", {"model": CLAUDE, "prompt": 5}),
        ("openai/v1/chat/completions", {"model": GPT, "messages": "x"}),
        ("openai/v1/responses", {"model": GPT}),
        ("openai/v1/embeddings", {"model": "text-embedding-3-small"}),
        ("openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "x", "dimensions": 10**9}),
        ("openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "x", "dimensions": 0}),
        ("openai/v1/embeddings", {"model": "text-embedding-3-small", "input": []}),
        (f"{GOOGLE}/text-embedding-005:predict", [5]),
        (f"{GOOGLE}/text-embedding-005:predict", {"instances": "x"}),
    ],
)
async def test_what_the_demo_cannot_read_is_400(demo: RunningGateway, path: str, asked: Any) -> None:
    answer = await post(demo, f"/v1/proxy/{path}", asked)

    assert answer.status == 400
    assert isinstance(answer.json()["detail"], str)


async def test_the_gate_stands_before_the_demo_too(demo: RunningGateway) -> None:
    unsupported = await post(demo, "/v1/proxy/anthropic/v1/messages", {"model": "gpt-5"})
    unknown = await post(demo, "/v1/proxy/anthropic/v1/files", {})

    assert (unsupported.status, unsupported.json()["detail"]) == (400, "Unsupported model")
    assert (unknown.status, unknown.json()["detail"]) == (404, "Not found")


# Dialect routes


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/openai/v1/chat/completions", {"model": "no-such-model", "messages": ASK}),
        ("/openai/v1/responses", {"model": "no-such-model", "input": "Hi"}),
        ("/openai/v1/embeddings", {"model": "no-such-model", "input": "Hi"}),
        ("/anthropic/v1/messages", {"model": "no-such-model", "max_tokens": 9, "messages": ASK}),
        ("/anthropic/v1/messages/count_tokens", {"model": "no-such-model", "messages": ASK}),
    ],
)
async def test_dialect_routes_answer_under_every_name(demo: RunningGateway, path: str, asked: Any) -> None:
    answer = await post(demo, path, asked)

    assert (answer.status, answer.header("x-torana-demo")) == (200, "true")


async def test_a_model_that_is_not_there_is_not_listed_either(demo: RunningGateway) -> None:
    answer = await demo.get("/openai/v1/models/no-such-model", token=demo.token(unit_primitives=[PROXY]))

    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
