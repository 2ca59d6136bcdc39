"""OpenAI's own Python SDK works through /openai/v1 with every kind of provider behind it, given a token for a key."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from tests.clients.behind import BEHIND, UNTIL_FIRST_PIECE, stand_behind
from tests.clients.conftest import sdk_token
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.provider import ScriptedProvider
from tests.support.saying import PIECES, ToolUse, event

ASK: Any = [{"role": "user", "content": "Hello"}]
TEXT = "".join(PIECES)
WEATHER = {
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
        "additionalProperties": False,
    },
}
TOOLS: Any = [{"type": "function", "function": WEATHER}]
CALLS = [
    ToolUse(name="weather", arguments={"town": "Tromsø"}, id="call_1"),
    ToolUse(name="weather", arguments={"town": "Bergen"}, id="call_2"),
]


class Town(BaseModel):
    name: str
    is_cold: bool


@pytest.fixture
async def client(anything: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=sdk_token(anything), base_url=f"{anything.url}/openai/v1", max_retries=0
    ) as client:
        yield client


async def test_a_chat_completion_comes_whole(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str
) -> None:
    completion = await client.chat.completions.create(model=model, messages=ASK, max_completion_tokens=64)

    assert completion.choices[0].message.content == TEXT
    assert (completion.choices[0].finish_reason, completion.usage.total_tokens) == ("stop", 32)
    (request,) = provider.requests
    assert request.path.startswith(BEHIND[model][2])


@pytest.mark.parametrize("with_usage", [False, True])
async def test_a_chat_completion_streams_piece_by_piece(
    client: openai.AsyncOpenAI, model: str, with_usage: bool
) -> None:
    more: Any = {"stream_options": {"include_usage": True}} if with_usage else {}

    stream = await client.chat.completions.create(model=model, messages=ASK, stream=True, **more)
    chunks = [chunk async for chunk in stream]

    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert said == list(PIECES)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    if with_usage:
        assert next(chunk.usage.total_tokens for chunk in reversed(chunks) if chunk.usage) == 32
    else:
        assert all(chunk.choices for chunk in chunks)


async def test_parallel_tools_are_called_and_their_results_answered(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str
) -> None:
    provider.answer_with(tool_call=CALLS[0], further_calls=CALLS[1:], times=2)

    async with client.chat.completions.stream(model=model, messages=ASK, tools=TOOLS) as stream:
        streamed = (await stream.get_final_completion()).choices[0]
    whole = (await client.chat.completions.create(model=model, messages=ASK, tools=TOOLS)).choices[0]
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"Snow {at}"}
        for at, call in enumerate(whole.message.tool_calls or ())
    ]
    turns: Any = [*ASK, whole.message.to_dict(), *results]
    answer = await client.chat.completions.create(model=model, messages=turns, tools=TOOLS)

    for called in (streamed, whole):
        assert called.finish_reason == "tool_calls"
        assert [
            (call.function.name, json.loads(call.function.arguments)) for call in called.message.tool_calls or ()
        ] == [(call.name, call.arguments) for call in CALLS]
    assert len({call.id for call in whole.message.tool_calls or ()}) == 2
    assert answer.choices[0].message.content == TEXT
    sent = provider.requests[2].body.decode()
    assert "Snow 0" in sent
    assert "Snow 1" in sent


async def test_an_answer_keeps_to_a_schema(client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str) -> None:
    provider.answer_with(text='{"name": "Tromsø", "is_cold": true}')

    completion = await client.chat.completions.parse(model=model, messages=ASK, response_format=Town)

    assert completion.choices[0].message.parsed == Town(name="Tromsø", is_cold=True)
    assert "is_cold" in provider.requests[0].body.decode()  # the model was told


async def test_an_answer_that_was_cut_by_its_limit_says_so(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str
) -> None:
    provider.answer_with(text="Hello", is_cut_by_limit=True)

    whole = await client.chat.completions.create(model=model, messages=ASK)
    response = await client.responses.create(model=model, input="Hello")

    assert whole.choices[0].finish_reason == "length"
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_responses_come_whole_and_streamed(client: openai.AsyncOpenAI, model: str) -> None:
    whole = await client.responses.create(model=model, input="Hello", instructions="Be brief", store=False)
    async with client.responses.stream(model=model, input="Hello", store=False) as stream:
        pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        streamed = await stream.get_final_response()

    assert (whole.output_text, whole.status) == (TEXT, "completed")
    assert (pieces, streamed.output_text) == (list(PIECES), TEXT)
    assert whole.usage.total_tokens == streamed.usage.total_tokens == 32


async def test_a_tool_is_called_through_responses(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str
) -> None:
    provider.answer_with(tool_call=CALLS[0], further_calls=CALLS[1:], times=1)
    tools: Any = [{"type": "function", "strict": True, **WEATHER}]

    called = await client.responses.create(model=model, input="Hello", tools=tools, store=False)
    calls = [item for item in called.output if item.type == "function_call"]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "Snow"} for call in calls]
    turns: Any = [*ASK, *[call.to_dict() for call in calls], *results]
    answer = await client.responses.create(model=model, input=turns, tools=tools, store=False)

    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        (call.name, call.arguments) for call in CALLS
    ]
    assert answer.output_text == TEXT
    assert "Snow" in provider.requests[1].body.decode()


@pytest.mark.parametrize("namespace", ["mcp__weather", "mcp__weather__"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_of_mcp_servers_that_codex_tells_in_a_namespace_are_called(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str, namespace: str, stream: bool
) -> None:
    tools: Any = [
        {"type": "namespace", "name": namespace, "description": "", "tools": [{"type": "function", **WEATHER}]},
        {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}},
    ]
    passes = model == "by_responses"
    provider.answer_with(tool_call=ToolUse(name="mcp__weather__weather", arguments={"town": "Tromsø"}), times=1)

    if stream:
        async with client.responses.stream(model=model, input="Hello", tools=tools, store=False) as events:
            output = (await events.get_final_response()).output
    else:
        output = (await client.responses.create(model=model, input="Hello", tools=tools, store=False)).output
    call: Any = output[-1]
    turns: Any = [*ASK, call.to_dict(), {"type": "function_call_output", "call_id": call.call_id, "output": "Snow"}]
    await client.responses.create(model=model, input=turns, tools=tools, store=False)

    asked, told = (request.body.decode() for request in provider.requests)
    if passes:
        assert json.loads(asked)["tools"] == tools
    else:
        assert (call.name, call.namespace) == ("weather", namespace)
        assert "mcp__weather__weather" in asked
        assert '"look"' in asked
        assert told.count("mcp__weather__weather") >= 2


SEARCHED = [
    {
        "id": "tsc_1", "type": "tool_search_call", "execution": "server", "call_id": None, "status": "completed",
        "arguments": {"paths": ["crm"]},
    },
    {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Found.", "annotations": []}],
    },
]  # fmt: skip
"""What OpenAI's own search for tools did, and what was said then."""


@pytest.mark.parametrize("stream", [False, True])
async def test_items_of_openais_own_tools_pass_and_spoil_no_other_clients_answer(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, stream: bool
) -> None:
    response: dict[str, Any] = {
        "id": "r",
        "object": "response",
        "model": "m",
        "status": "completed",
        "output": SEARCHED,
    }
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {**response, "output": []}}]
    for at, item in enumerate(SEARCHED):
        events.append({"type": "response.output_item.added", "output_index": at, "item": item})
        events.append(
            {"type": "response.shell_call_output_content.delta", "output_index": at, "delta": {"stdout": "x"}}
        )
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    events.append({"type": "response.completed", "response": response})
    lines = [event({**row, "sequence_number": at}, row["type"]) for at, row in enumerate(events)]
    provider.answer_with(events=lines) if stream else provider.answer_with(body=response)

    if stream:
        parts = await client.responses.create(model="by_responses", input="Hello", stream=True)
        own = [part async for part in parts][-1].response
        pieces = await client.chat.completions.create(model="by_responses", messages=ASK, stream=True)
        other = "".join([piece.choices[0].delta.content or "" async for piece in pieces if piece.choices])
    else:
        own = await client.responses.create(model="by_responses", input="Hello")
        completion = await client.chat.completions.create(model="by_responses", messages=ASK)
        other = completion.choices[0].message.content or ""

    assert [item.to_dict() for item in own.output] == SEARCHED
    assert other == "Found."


@pytest.mark.parametrize("stream", [False, True])
async def test_arguments_that_are_an_object_are_arguments(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, stream: bool
) -> None:
    # So say Mistral's reference of its answers, and some servers of open models.
    function = {"name": "weather", "arguments": {"town": "Tromsø"}}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    said = {"role": "assistant", "content": [{"type": "text", "text": None}], "tool_calls": [call]}
    choice = {"index": 0, "delta" if stream else "message": said, "finish_reason": "tool_calls"}
    answer = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}
    provider.answer_with(events=[event(answer), event("[DONE]")]) if stream else provider.answer_with(body=answer)
    model = "by_chat_completions"

    if stream:
        chunks = await client.chat.completions.create(model=model, messages=ASK, tools=TOOLS, stream=True)
        first, *_ = [chunk async for chunk in chunks]
        own = first.choices[0].delta.tool_calls[0]
        async with client.responses.stream(
            model=model, input="Hello", tools=[{"type": "function", **WEATHER}]
        ) as events:
            other = (await events.get_final_response()).output[-1]
    else:
        own = (await client.chat.completions.create(model=model, messages=ASK)).choices[0].message.tool_calls[0]
        other = (await client.responses.create(model=model, input="Hello")).output[-1]

    assert own.function.arguments == function["arguments"]
    assert json.loads(other.arguments) == {"town": "Tromsø"}


async def test_instructions_of_codex_are_one_system_message_for_open_models(
    client: openai.AsyncOpenAI, provider: ScriptedProvider
) -> None:
    # Chat templates as Qwen's take one, at the beginning, and refuse the request for any other.
    turns: Any = [
        {"role": "developer", "content": "You may write here."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "developer", "content": "It is late."},
        {"role": "user", "content": "Go on"},
    ]

    await client.responses.create(model="by_chat_completions", instructions="You are Codex.", input=turns, store=False)
    await client.chat.completions.create(model="by_chat_completions", messages=turns)

    crossed, passed = (request.json()["messages"] for request in provider.requests)
    assert crossed == [
        {"role": "system", "content": "You are Codex.\n\nYou may write here."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "It is late.\n\nGo on"},
    ]
    assert passed == turns


async def test_a_response_keeps_to_a_schema(client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str) -> None:
    provider.answer_with(text='{"name": "Tromsø", "is_cold": true}')

    response = await client.responses.parse(model=model, input="Hello", text_format=Town, store=False)

    assert response.output_parsed == Town(name="Tromsø", is_cold=True)


async def test_the_sync_client_works_in_a_thread(anything: RunningGateway, model: str) -> None:
    def talk() -> tuple[Any, ...]:
        with openai.OpenAI(api_key=sdk_token(anything), base_url=f"{anything.url}/openai/v1", max_retries=0) as client:
            whole = client.chat.completions.create(model=model, messages=ASK)
            with client.chat.completions.create(model=model, messages=ASK, stream=True) as stream:
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            response = client.responses.create(model=model, input="Hello")
            with client.responses.stream(model=model, input="Hello") as events:
                later = events.get_final_response()
            return whole.choices[0].message.content, streamed, response.output_text, later.output_text

    assert await asyncio.to_thread(talk) == (TEXT, TEXT, TEXT, TEXT)


async def test_embeddings_arrive_as_numbers(client: openai.AsyncOpenAI) -> None:
    vectors = await client.embeddings.create(model="text_embedding_3_small", input=["a", "b"])
    plain = await client.embeddings.create(model="text_embedding_3_small", input="a", encoding_format="float")

    assert [len(row.embedding) for row in vectors.data] == [4, 4]
    assert plain.data[0].embedding[0] == 1.0
    assert vectors.usage.total_tokens == 10


async def test_models_are_listed_and_each_is_there(client: openai.AsyncOpenAI) -> None:
    models = await client.models.list()
    one = await client.models.retrieve("anthropic/claude-behind")

    ids = [model.id for model in models.data]
    assert set(BEHIND) < set(ids)
    assert one.id == "anthropic/claude-behind"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


async def test_a_request_can_be_found_again_by_its_id(
    client: openai.AsyncOpenAI, anything: RunningGateway, provider: ScriptedProvider, model: str
) -> None:
    whole = await client.chat.completions.create(model=model, messages=ASK)
    provider.fail_with(400)
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model=model, messages=ASK)

    for found in (whole._request_id, raised.value.request_id):
        assert await anything.log.find(correlation_id=found, path="/openai/v1/chat/completions")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_error_raises_its_own_exception(
    client: openai.AsyncOpenAI,
    provider: ScriptedProvider,
    model: str,
    status: int,
    error: type[openai.APIStatusError],
    stream: bool,
) -> None:
    provider.fail_with(status)

    with pytest.raises(error) as raised:
        await client.chat.completions.create(model=model, messages=ASK, stream=stream)

    assert raised.value.code == raised.value.response.headers["x-torana-code"]
    assert ("scripted failure" in raised.value.message) == (status < 429)


async def test_refusals_of_our_own_raise_their_exceptions(
    anything: RunningGateway, client: openai.AsyncOpenAI, provider: ScriptedProvider
) -> None:
    expired = client.with_options(api_key=sdk_token(anything, exp=1_000_000_000))
    powerless = client.with_options(api_key=anything.user_token(unit_primitives=["complete_code"]))

    with pytest.raises(openai.AuthenticationError) as unknown:
        await expired.chat.completions.create(model="by_messages", messages=ASK)
    with pytest.raises(openai.PermissionDeniedError) as denied:
        await powerless.chat.completions.create(model="by_messages", messages=ASK)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nobody", messages=ASK)

    codes = [raised.value.code for raised in (unknown, denied, missing)]
    assert codes == ["token_expired", "unit_primitive_missing", "model_not_found"]
    assert missing.value.param == "model"
    assert provider.requests == []


@pytest.mark.parametrize(("status", "asks"), [(401, 1), (529, 3)])
async def test_the_sdk_asks_again_only_where_that_can_help(
    client: openai.AsyncOpenAI, anything: RunningGateway, provider: ScriptedProvider, status: int, asks: int
) -> None:
    provider.fail_with(status, headers={"Retry-After": "0.001"})

    with pytest.raises(openai.InternalServerError):
        await client.with_options(max_retries=2).chat.completions.create(model="by_messages", messages=ASK)

    lines = [line for line in anything.log.lines if line.get("path") == "/openai/v1/chat/completions"]
    assert len(lines) == asks


@pytest.mark.parametrize("path", ["chat", "responses"])
async def test_a_broken_stream_raises_and_never_looks_whole(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str, path: str
) -> None:
    provider.cut_after(3)

    async def read() -> None:
        if path == "chat":
            stream: Any = await client.chat.completions.create(model=model, messages=ASK, stream=True)
        else:
            stream = await client.responses.create(model=model, input="Hello", stream=True)
        async for _ in stream:
            pass

    with pytest.raises(openai.APIError) as raised:
        await read()
    assert raised.value.code == "provider_broke"


async def test_signs_of_life_do_not_disturb_the_sdk(
    start_gateway: StartGateway, provider: ScriptedProvider, model: str, tmp_path: Path
) -> None:
    gateway = await start_gateway(
        env={"AIGW_STREAM__KEEPALIVE_S": "0.01", **stand_behind(provider.url, tmp_path / "overlay")}
    )
    provider.stall(after_events=UNTIL_FIRST_PIECE[model])

    async with openai.AsyncOpenAI(
        api_key=sdk_token(gateway), base_url=f"{gateway.url}/openai/v1", max_retries=0
    ) as client:
        pieces = aiter(await client.chat.completions.create(model=model, messages=ASK, stream=True))
        first = await anext(pieces)
        provider.release()
        rest = [chunk async for chunk in pieces]

    said = [chunk.choices[0].delta.content or "" for chunk in (first, *rest)]
    assert "".join(said) == TEXT


async def test_a_client_that_leaves_early_ends_the_call_upstream(
    client: openai.AsyncOpenAI, provider: ScriptedProvider, model: str
) -> None:
    provider.stall(after_events=UNTIL_FIRST_PIECE[model])

    async with await client.chat.completions.create(model=model, messages=ASK, stream=True) as stream:
        await anext(aiter(stream))

    request = await provider.request(1)
    await request.hung_up.wait()
