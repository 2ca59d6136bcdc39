"""Anthropic's own Python SDK works through /v1/proxy/anthropic as coding agents use it."""

import asyncio

import anthropic
import pytest
from tests.clients.conftest import Access
from tests.support.gateway import ANTHROPIC_KEY
from tests.support.provider import ScriptedProvider
from tests.support.saying import PIECES, ToolUse

MODEL = "claude-sonnet-4-6"
ASK = [{"role": "user", "content": "Hello"}]
TEXT = "".join(PIECES)
TOOLS = [
    {
        "name": "weather",
        "description": "The weather of a town",
        "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}},
    }
]


def client_of(access: Access) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        auth_token=access.token, base_url=access.anthropic_url, default_headers=access.headers, max_retries=0
    )


async def test_a_message_comes_whole(access: Access, provider: ScriptedProvider) -> None:
    async with client_of(access) as client:
        message = await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)

    assert message.content[0].text == TEXT
    assert (message.model, message.stop_reason, message.usage.output_tokens) == (MODEL, "end_turn", 7)
    (request,) = provider.requests
    assert request.path == "/v1/messages"
    assert request.header("x-api-key") == ANTHROPIC_KEY
    assert request.header("authorization") is None


async def test_a_message_streams_piece_by_piece(access: Access, provider: ScriptedProvider) -> None:
    async with client_of(access) as client, client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()

    assert pieces == list(PIECES)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (25, 7)
    assert provider.requests[0].json()["stream"] is True


async def test_the_first_piece_arrives_while_the_model_still_thinks(
    user_access: Access, provider: ScriptedProvider
) -> None:
    provider.stall(after_events=4)

    async with (
        client_of(user_access) as client,
        client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream,
    ):
        pieces = aiter(stream.text_stream)
        first = await anext(pieces)
        provider.release()
        rest = [piece async for piece in pieces]

    assert [first, *rest] == list(PIECES)


async def test_the_sync_client_works_in_a_thread(user_access: Access, provider: ScriptedProvider) -> None:
    def talk() -> tuple[str, str]:
        with anthropic.Anthropic(
            auth_token=user_access.token,
            base_url=user_access.anthropic_url,
            default_headers=user_access.headers,
            max_retries=0,
        ) as client:
            whole = client.messages.create(model=MODEL, max_tokens=64, messages=ASK)
            with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
                return whole.content[0].text, "".join(stream.text_stream)

    assert await asyncio.to_thread(talk) == (TEXT, TEXT)


async def test_a_tool_is_called_and_its_result_answered(user_access: Access, provider: ScriptedProvider) -> None:
    provider.answer_with(
        text="I look.", tool_call=ToolUse(name="weather", arguments={"town": "Tromsø"}, id="toolu_1"), times=1
    )

    async with client_of(user_access) as client:
        async with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK, tools=TOOLS) as stream:
            called = await stream.get_final_message()
        call = called.content[1]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Snow"}
        turns = [*ASK, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
        answer = await client.messages.create(model=MODEL, max_tokens=64, messages=turns, tools=TOOLS)

    assert (called.stop_reason, call.name, call.input) == ("tool_use", "weather", {"town": "Tromsø"})
    assert answer.content[0].text == TEXT
    assert provider.requests[0].json()["tools"] == TOOLS
    assert provider.requests[1].json()["messages"][2]["content"] == [result]


async def test_tokens_are_counted(user_access: Access, provider: ScriptedProvider) -> None:
    async with client_of(user_access) as client:
        count = await client.messages.count_tokens(model=MODEL, messages=ASK)

    assert count.input_tokens == 25
    assert provider.requests[0].path == "/v1/messages/count_tokens"


async def test_beta_header_and_query_reach_the_provider_and_no_other_query(
    user_access: Access, provider: ScriptedProvider
) -> None:
    async with client_of(user_access) as client:
        await client.beta.messages.create(
            model=MODEL,
            max_tokens=64,
            messages=ASK,
            betas=["some-beta-2026-01-01"],
            extra_query={"beta": "true", "other": "1"},
            extra_headers={"anthropic-version": "2023-06-01"},
        )

    (request,) = provider.requests
    assert request.query == "beta=true"
    assert request.header("anthropic-beta") == "some-beta-2026-01-01"
    assert request.header("anthropic-version") == "2023-06-01"


async def test_an_expired_token_raises_authentication_error(
    rejected_access: Access, provider: ScriptedProvider
) -> None:
    async with client_of(rejected_access) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)

    assert provider.requests == []


async def test_a_token_without_the_unit_primitive_raises_permission_denied(
    powerless_access: Access, provider: ScriptedProvider
) -> None:
    async with client_of(powerless_access) as client:
        with pytest.raises(anthropic.PermissionDeniedError):
            await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)

    assert provider.requests == []


async def test_a_model_off_the_list_raises_bad_request(user_access: Access, provider: ScriptedProvider) -> None:
    async with client_of(user_access) as client:
        with pytest.raises(anthropic.BadRequestError) as raised:
            await client.messages.create(model="some-model", max_tokens=64, messages=ASK)

    assert raised.value.response.json()["detail"] == "Unsupported model"
    assert provider.requests == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (404, anthropic.NotFoundError),
        (413, anthropic.APIStatusError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.APIStatusError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_error_raises_its_own_exception(
    user_access: Access, provider: ScriptedProvider, status: int, error: type[anthropic.APIStatusError], stream: bool
) -> None:
    provider.fail_with(status, headers={"Retry-After": "7", "x-should-retry": "false"})

    async with client_of(user_access) as client:
        with pytest.raises(error) as raised:
            await client.messages.create(model=MODEL, max_tokens=64, messages=ASK, stream=stream)

    assert raised.value.status_code == status
    assert "scripted failure" in raised.value.message
    assert raised.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [401, 403])
async def test_our_own_refused_key_is_never_the_agents_fault(
    user_access: Access, provider: ScriptedProvider, status: int
) -> None:
    provider.fail_with(status)

    async with client_of(user_access) as client:
        with pytest.raises(anthropic.InternalServerError) as raised:
            await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)

    assert raised.value.status_code == 502


async def test_an_unreachable_provider_raises_internal_server_error(
    user_access: Access, provider: ScriptedProvider
) -> None:
    provider.server.stop_listening()

    async with client_of(user_access) as client:
        with pytest.raises(anthropic.InternalServerError) as raised:
            await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)

    assert raised.value.status_code == 502


@pytest.mark.parametrize("how", ["reset", "close", "no_end"])
async def test_a_broken_stream_raises_and_never_looks_whole(
    user_access: Access, provider: ScriptedProvider, how: str
) -> None:
    if how == "no_end":
        provider.answer_malformed("no_end")
    else:
        provider.cut_after(5, by=how)  # type: ignore[arg-type]

    async with client_of(user_access) as client:
        with pytest.raises(anthropic.APIError):
            async with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
                await stream.until_done()


async def test_a_client_that_leaves_early_ends_the_call_upstream(
    user_access: Access, provider: ScriptedProvider
) -> None:
    provider.stall(after_events=4)

    async with (
        client_of(user_access) as client,
        client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream,
    ):
        await anext(aiter(stream.text_stream))

    request = await provider.request(1)
    await request.hung_up.wait()
