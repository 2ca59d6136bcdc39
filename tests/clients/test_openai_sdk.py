"""OpenAI's own Python SDK works through /v1/proxy/openai as coding agents use it."""

import asyncio
import json

import openai
import pytest
from tests.clients.conftest import Access
from tests.support.gateway import OPENAI_KEY
from tests.support.provider import ScriptedProvider
from tests.support.saying import PIECES, ToolUse

MODEL = "gpt-5-mini-2025-08-07"
ASK = [{"role": "user", "content": "Hello"}]
TEXT = "".join(PIECES)
WEATHER = {
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
}
CALL = ToolUse(name="weather", arguments={"town": "Tromsø"}, id="call_1")


def client_of(access: Access) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=access.token, base_url=access.openai_url, default_headers=access.headers, max_retries=0
    )


async def test_a_chat_completion_comes_whole(access: Access, provider: ScriptedProvider) -> None:
    async with client_of(access) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=ASK)

    assert completion.choices[0].message.content == TEXT
    assert (completion.model, completion.choices[0].finish_reason, completion.usage.total_tokens) == (MODEL, "stop", 32)
    (request,) = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.header("authorization") == f"Bearer {OPENAI_KEY}"


async def test_a_chat_completion_streams_piece_by_piece(access: Access, provider: ScriptedProvider) -> None:
    async with client_of(access) as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        ]

    assert [
        chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
    ] == list(PIECES)
    assert chunks[-1].usage.total_tokens == 32


async def test_the_first_piece_arrives_while_the_model_still_thinks(
    user_access: Access, provider: ScriptedProvider
) -> None:
    provider.stall(after_events=2)

    async with (
        client_of(user_access) as client,
        await client.chat.completions.create(model=MODEL, messages=ASK, stream=True) as stream,
    ):
        chunks = aiter(stream)
        await anext(chunks)
        second = await anext(chunks)
        provider.release()
        rest = [chunk async for chunk in chunks]

    assert second.choices[0].delta.content == PIECES[0]
    assert rest[-1].choices[0].finish_reason == "stop"


async def test_responses_come_whole_and_streamed(access: Access, provider: ScriptedProvider) -> None:
    async with client_of(access) as client:
        whole = await client.responses.create(model="gpt-5-codex", input="Hello")
        async with client.responses.stream(model="gpt-5-codex", input="Hello") as stream:
            streamed = await stream.get_final_response()

    assert whole.output_text == streamed.output_text == TEXT
    assert whole.usage.total_tokens == streamed.usage.total_tokens == 32
    assert [request.path for request in provider.requests] == ["/v1/responses", "/v1/responses"]


async def test_the_sync_client_works_in_a_thread(user_access: Access, provider: ScriptedProvider) -> None:
    def talk() -> tuple[str | None, str]:
        with openai.OpenAI(
            api_key=user_access.token,
            base_url=user_access.openai_url,
            default_headers=user_access.headers,
            max_retries=0,
        ) as client:
            whole = client.chat.completions.create(model=MODEL, messages=ASK)
            with client.chat.completions.create(model=MODEL, messages=ASK, stream=True) as stream:
                return whole.choices[0].message.content, "".join(
                    chunk.choices[0].delta.content or "" for chunk in stream
                )

    assert await asyncio.to_thread(talk) == (TEXT, TEXT)


async def test_a_tool_is_called_and_its_result_answered(user_access: Access, provider: ScriptedProvider) -> None:
    provider.answer_with(tool_call=CALL, times=1)
    tools = [{"type": "function", "function": WEATHER}]

    async with client_of(user_access) as client:
        async with client.chat.completions.stream(model=MODEL, messages=ASK, tools=tools) as stream:
            called = (await stream.get_final_completion()).choices[0]
        call = called.message.tool_calls[0]
        result = {"role": "tool", "tool_call_id": call.id, "content": "Snow"}
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
        ]
        turns = [*ASK, {"role": "assistant", "tool_calls": calls}, result]
        answer = await client.chat.completions.create(model=MODEL, messages=turns, tools=tools)

    assert (called.finish_reason, call.function.name, json.loads(call.function.arguments)) == (
        "tool_calls",
        "weather",
        CALL.arguments,
    )
    assert answer.choices[0].message.content == TEXT
    assert provider.requests[0].json()["tools"] == tools
    assert provider.requests[1].json()["messages"][2] == result


async def test_a_tool_is_called_through_responses(user_access: Access, provider: ScriptedProvider) -> None:
    provider.answer_with(tool_call=CALL, times=1)
    tools = [{"type": "function", "strict": False, **WEATHER}]

    async with client_of(user_access) as client:
        called = await client.responses.create(model=MODEL, input="Hello", tools=tools)
        call = called.output[0]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Snow"}
        answer = await client.responses.create(model=MODEL, input=[*ASK, call.to_dict(), result], tools=tools)

    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", CALL.arguments)
    assert answer.output_text == TEXT
    assert provider.requests[1].json()["input"][2] == result


async def test_embeddings_arrive_as_numbers(user_access: Access, provider: ScriptedProvider) -> None:
    async with client_of(user_access) as client:
        vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])

    assert [len(row.embedding) for row in vectors.data] == [4, 4]
    assert provider.requests[0].path == "/v1/embeddings"


async def test_models_are_listed(access: Access, provider: ScriptedProvider) -> None:
    async with client_of(access) as client:
        models = await client.models.list()

    assert [model.id for model in models.data] == provider.models
    assert provider.model_lists[-1].header("authorization") == f"Bearer {OPENAI_KEY}"


async def test_an_expired_token_raises_authentication_error(
    rejected_access: Access, provider: ScriptedProvider
) -> None:
    async with client_of(rejected_access) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model=MODEL, messages=ASK)

    assert provider.requests == []


async def test_a_token_without_the_unit_primitive_raises_permission_denied(
    powerless_access: Access, provider: ScriptedProvider
) -> None:
    async with client_of(powerless_access) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model=MODEL, messages=ASK)

    assert provider.requests == []


async def test_a_model_off_the_list_raises_bad_request(user_access: Access, provider: ScriptedProvider) -> None:
    async with client_of(user_access) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="some-model", messages=ASK)

    assert raised.value.response.json()["detail"] == "Unsupported model"
    assert provider.requests == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_error_raises_its_own_exception(
    user_access: Access, provider: ScriptedProvider, status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    provider.fail_with(status, headers={"Retry-After": "7", "x-ratelimit-remaining-requests": "0"})

    async with client_of(user_access) as client:
        with pytest.raises(error) as raised:
            await client.chat.completions.create(model=MODEL, messages=ASK, stream=stream)

    assert raised.value.status_code == status
    assert "scripted failure" in raised.value.message
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.response.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("status", [401, 403])
async def test_our_own_refused_key_is_never_the_agents_fault(
    user_access: Access, provider: ScriptedProvider, status: int
) -> None:
    provider.fail_with(status)

    async with client_of(user_access) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model=MODEL, messages=ASK)

    assert raised.value.status_code == 502


@pytest.mark.parametrize("how", ["reset", "close", "no_end"])
async def test_a_broken_stream_raises_and_never_looks_whole(
    user_access: Access, provider: ScriptedProvider, how: str
) -> None:
    if how == "no_end":
        provider.answer_malformed("no_end")
    else:
        provider.cut_after(3, by=how)  # type: ignore[arg-type]

    async with client_of(user_access) as client:
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(model=MODEL, messages=ASK, stream=True):
                pass


async def test_a_client_that_leaves_early_ends_the_call_upstream(
    user_access: Access, provider: ScriptedProvider
) -> None:
    provider.stall(after_events=2)

    async with (
        client_of(user_access) as client,
        await client.chat.completions.create(model=MODEL, messages=ASK, stream=True) as stream,
    ):
        await anext(aiter(stream))

    request = await provider.request(1)
    await request.hung_up.wait()
