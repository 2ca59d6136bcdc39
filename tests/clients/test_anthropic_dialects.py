"""Anthropic's own Python SDK works through /anthropic with every kind of provider behind it; a token is its key."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel
from tests.clients.behind import BEHIND, UNTIL_FIRST_PIECE
from tests.clients.conftest import sdk_token
from tests.support.gateway import RunningGateway
from tests.support.provider import ScriptedProvider
from tests.support.saying import PIECES, ToolUse, event

ASK: Any = [{"role": "user", "content": "Hello"}]
TEXT = "".join(PIECES)
TOOLS: Any = [
    {
        "name": "weather",
        "description": "The weather of a town",
        "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}},
    }
]
CALLS = [
    ToolUse(name="weather", arguments={"town": "Tromsø"}, id="toolu_1"),
    ToolUse(name="weather", arguments={"town": "Bergen"}, id="toolu_2"),
]


class Town(BaseModel):
    name: str
    is_cold: bool


@pytest.fixture(params=["auth_token", "api_key"])
async def client(request: pytest.FixtureRequest, anything: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Once with the token as bearer, once where a key stands."""
    keys: Any = {request.param: sdk_token(anything)}
    async with anthropic.AsyncAnthropic(base_url=f"{anything.url}/anthropic", max_retries=0, **keys) as client:
        yield client


@pytest.fixture
async def bearer(anything: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=f"{anything.url}/anthropic", max_retries=0, auth_token=sdk_token(anything)
    ) as client:
        yield client


async def test_a_message_comes_whole(client: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str) -> None:
    message = await client.messages.create(model=model, max_tokens=64, messages=ASK, system="Be brief")

    assert message.content[0].text == TEXT
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 25, 7)
    (request,) = provider.requests
    assert request.path.startswith(BEHIND[model][2])
    assert "Be brief" in request.body.decode()


async def test_a_message_streams_piece_by_piece(client: anthropic.AsyncAnthropic, model: str) -> None:
    async with client.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()

    assert pieces == list(PIECES)
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 7)


async def test_parallel_tools_are_called_and_their_results_answered(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    provider.answer_with(text="I look.", tool_call=CALLS[0], further_calls=CALLS[1:], times=2)

    async with bearer.messages.stream(model=model, max_tokens=64, messages=ASK, tools=TOOLS) as stream:
        streamed = await stream.get_final_message()
    whole = await bearer.messages.create(model=model, max_tokens=64, messages=ASK, tools=TOOLS)
    results: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"Snow {at}"}
        for at, call in enumerate(calls_of(whole))
    ]
    turns: Any = [*ASK, {"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
    answer = await bearer.messages.create(model=model, max_tokens=64, messages=turns, tools=TOOLS)

    for called in (streamed, whole):
        assert called.stop_reason == "tool_use"
        assert [block.text for block in called.content if block.type == "text"] == ["I look."]
        assert [(call.name, call.input) for call in calls_of(called)] == [(call.name, call.arguments) for call in CALLS]
    assert answer.content[0].text == TEXT
    sent = provider.requests[2].body.decode()
    assert "Snow 0" in sent
    assert "Snow 1" in sent


@pytest.mark.parametrize("stream", [False, True])
async def test_a_block_with_nulls_is_a_block(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, stream: bool
) -> None:
    # A compaction has no signature, and other servers of this format write null for what a block has not.
    blocks = [
        {"type": "compaction", "content": "We spoke of snow.", "encrypted_content": "x", "signature": None},
        {"type": "text", "text": "Go on.", "id": None, "name": None, "signature": None},
    ]
    told = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    told["usage"] = {"input_tokens": 1, "output_tokens": 1}
    rows: list[dict[str, Any]] = [{"type": "message_start", "message": {**told, "content": []}}]
    for at, block in enumerate(blocks):
        rows.append({"type": "content_block_start", "index": at, "content_block": block})
        rows.append({"type": "content_block_stop", "index": at})
    rows += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}, {"type": "message_stop"}]
    events = [event(row, row["type"]) for row in rows]
    provider.answer_with(events=events) if stream else provider.answer_with(body={**told, "content": blocks})

    if stream:
        async with bearer.beta.messages.stream(model="by_messages", max_tokens=9, messages=ASK) as streaming:
            message = await streaming.get_final_message()
    else:
        message = await bearer.beta.messages.create(model="by_messages", max_tokens=9, messages=ASK)

    assert [block.type for block in message.content] == ["compaction", "text"]
    assert message.content[1].text == "Go on."


BARE: dict[str, Any] = {"type": "object"}
LOOSE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "targets": {"type": ["array", "null"], "description": "Any"},
        "type": {"anyOf": [{"type": "object", "additionalProperties": {"type": "array"}}, {"type": "string"}]},
    },
}
NAMED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "targets": {"type": ["array", "null"], "description": "Any", "items": {}},
        "type": {
            "anyOf": [
                {"type": "object", "properties": {}, "additionalProperties": {"type": "array", "items": {}}},
                {"type": "string"},
            ]
        },
    },
}


@pytest.mark.parametrize("model", ["by_chat_completions", "by_responses"])
async def test_tools_of_mcp_servers_that_claude_takes_are_written_as_openai_wants_them(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    tools: Any = [{"name": f"tool_{at}", "input_schema": schema} for at, schema in enumerate((BARE, LOOSE))]

    await bearer.messages.create(model=model, max_tokens=64, messages=ASK, tools=tools)

    told = [tool.get("function", tool) for tool in provider.requests[0].json()["tools"]]
    assert [tool["parameters"] for tool in told] == [{**BARE, "properties": {}}, NAMED]


LONG_NAME = "mcp__plugin_chrome-devtools-mcp_chrome-devtools__performance_analyze_insight"
LONG_USER = json.dumps(
    {"device_id": "7f" * 32, "account_uuid": "", "session_id": "5c3e2f1a-90cd-4f0e-8f0e-0123456789ab"}
)
LONG_ID = "chatcmpl-tool-" + "4f" * 32
FIT = {
    "by_messages": {}, "by_chat_completions": {"name": 64, "user": 64, "id": 40},
    "by_responses": {"name": 64, "user": 64, "call_id": 64}, "by_generate_content": {"name": 64},
    "by_converse": {"name": 64, "toolUseId": 64},
}  # fmt: skip
"""What OpenAI, Google and AWS refuse when it is longer."""


@pytest.mark.parametrize("stream", [False, True])
async def test_what_claude_code_writes_longer_than_others_take_is_fitted_and_comes_back(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str, stream: bool
) -> None:
    tools: Any = [TOOLS[0], {**TOOLS[0], "name": LONG_NAME}]
    asked: Any = {"model": model, "max_tokens": 64, "tools": tools, "metadata": {"user_id": LONG_USER}}
    turns: Any = [
        *ASK,
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": LONG_ID, "name": LONG_NAME, "input": {"town": "x"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": LONG_ID, "content": "Snow"}]},
    ]

    await bearer.messages.create(messages=turns, tool_choice={"type": "tool", "name": LONG_NAME}, **asked)
    sent = provider.requests[0].json()
    (name,) = {text for text in members_of(sent, "name") if text.startswith("mcp__")}
    provider.answer_with(tool_call=ToolUse(name=name, arguments={"town": "Bergen"}))
    if stream:
        async with bearer.messages.stream(messages=ASK, **asked) as streaming:
            message = await streaming.get_final_message()
    else:
        message = await bearer.messages.create(messages=ASK, **asked)

    assert [call.name for call in calls_of(message)] == [LONG_NAME]
    for member, longest in FIT[model].items():
        assert all(len(text) <= longest for text in members_of(sent, member))
    ids = {
        text
        for member in ("id", "call_id", "tool_call_id", "toolUseId", "tool_use_id")
        for text in members_of(sent, member)
    }
    assert len(ids) == 1


def members_of(value: Any, name: str) -> list[str]:
    """All texts of this name in a body."""
    if isinstance(value, list):
        return [text for each in value for text in members_of(each, name)]
    if not isinstance(value, dict):
        return []
    own = [text for key, text in value.items() if key == name and isinstance(text, str)]
    return own + [text for each in value.values() for text in members_of(each, name)]


def calls_of(message: Any) -> list[Any]:
    """Gemini signs its calls; the signature comes back and forth as a thought."""
    return [block for block in message.content if block.type == "tool_use"]


async def test_an_answer_keeps_to_a_schema(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    provider.answer_with(text='{"name": "Tromsø", "is_cold": true}')

    message = await bearer.messages.parse(model=model, max_tokens=64, messages=ASK, output_format=Town)

    assert message.parsed_output == Town(name="Tromsø", is_cold=True)
    assert "is_cold" in provider.requests[0].body.decode()


async def test_a_compaction_is_read_by_other_vendors_models_and_not_made_by_them(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    summary: Any = {"type": "compaction", "content": "We spoke of snow.", "encrypted_content": "c2VhbGVk"}
    turns: Any = [{"role": "assistant", "content": [summary]}, *ASK]
    more: Any = {"model": model, "max_tokens": 64}

    await bearer.beta.messages.create(messages=[*ASK, *turns], **more)
    if model == "by_messages":
        await bearer.beta.messages.create(messages=ASK, compaction={"type": "summarize"}, **more)
    else:
        with pytest.raises(anthropic.BadRequestError, match="compaction"):
            await bearer.beta.messages.create(messages=ASK, compaction={"type": "summarize"}, **more)

    sent = provider.requests[0].body.decode()
    assert "We spoke of snow." in sent
    assert ("c2VhbGVk" in sent) == (model == "by_messages")


async def test_items_of_a_result_do_not_run_into_each_other(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    items = [{"type": "text", "text": text} for text in ("app.py", "", "main.py")]
    turns: Any = [
        *ASK,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": items}]},
    ]

    await bearer.messages.create(model=model, max_tokens=64, messages=turns, tools=TOOLS)

    sent = provider.requests[0].body.decode()
    assert r"app.py\n\nmain.py" in sent or ('app.py"' in sent and 'main.py"' in sent)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_runner_tells_the_whole_conversation_where_nothing_holds_it(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str, stream: bool
) -> None:
    @anthropic.beta_async_tool
    async def weather(town: str) -> str:
        """The weather of a town."""
        return f"Snow in {town}"

    if model == "by_messages":  # Anthropic may hold conversations, and says so where it does not
        details = {"error_code": "thread_unsupported_request", "unsupported": ["tools"]}
        told = {"type": "invalid_request_error", "message": "No.", "details": details}
        provider.fail_with(400, {"type": "error", "error": told}, times=1)
    provider.answer_with(tool_call=CALLS[0], times=1)
    runner = bearer.beta.messages.tool_runner(model=model, max_tokens=64, messages=ASK, tools=[weather], stream=stream)
    message = await runner.until_done()

    assert message.content[0].text == TEXT
    sent = provider.requests[-1].body.decode()
    assert "Hello" in sent
    assert "Snow in Troms" in sent
    assert "thread" not in sent


async def test_a_picture_and_a_document_reach_the_model(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    paper = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}
    content: Any = [
        {"type": "image", "source": picture},
        {"type": "document", "source": paper, "title": "report.pdf"},
        {"type": "text", "text": "What is it?"},
    ]

    message = await bearer.messages.create(model=model, max_tokens=64, messages=[{"role": "user", "content": content}])

    assert message.content[0].text == TEXT
    sent = provider.requests[0].body.decode()
    assert "iVBORw0KGgo=" in sent
    assert "JVBERi0xLjQ=" in sent


async def test_tokens_are_counted_or_estimated(bearer: anthropic.AsyncAnthropic, model: str) -> None:
    answer = await bearer.messages.with_raw_response.count_tokens(model=model, messages=ASK)

    is_estimated = answer.headers.get("x-torana-estimated") == "true"
    count = await answer.parse()
    assert (count.input_tokens, is_estimated) == ((25, False) if model == "by_messages" else (2, True))


async def test_models_are_listed_page_by_page(bearer: anthropic.AsyncAnthropic) -> None:
    models = [model async for model in bearer.models.list(limit=3)]
    one = await bearer.models.retrieve("by_converse")

    assert set(BEHIND) < {model.id for model in models}
    assert (one.id, one.max_input_tokens, one.lifecycle) == ("by_converse", 200_000, "active")


async def test_the_sync_client_works_in_a_thread(anything: RunningGateway, model: str) -> None:
    def talk() -> tuple[str, str]:
        with anthropic.Anthropic(
            api_key=sdk_token(anything), base_url=f"{anything.url}/anthropic", max_retries=0
        ) as client:
            whole = client.messages.create(model=model, max_tokens=64, messages=ASK)
            with client.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
                return whole.content[0].text, "".join(stream.text_stream)

    assert await asyncio.to_thread(talk) == (TEXT, TEXT)


async def test_a_request_can_be_found_again_by_its_id(
    bearer: anthropic.AsyncAnthropic, anything: RunningGateway, provider: ScriptedProvider, model: str
) -> None:
    message = await bearer.messages.create(model=model, max_tokens=64, messages=ASK)
    provider.fail_with(400)
    with pytest.raises(anthropic.BadRequestError) as raised:
        await bearer.messages.create(model=model, max_tokens=64, messages=ASK)

    for found in (message._request_id, raised.value.request_id):
        assert await anything.log.find(correlation_id=found, path="/anthropic/v1/messages")
    assert raised.value.body["request_id"] == raised.value.request_id  # type: ignore[index]


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_error_raises_its_own_exception(
    bearer: anthropic.AsyncAnthropic,
    provider: ScriptedProvider,
    model: str,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
    stream: bool,
) -> None:
    provider.fail_with(status)

    with pytest.raises(error) as raised:
        await bearer.messages.create(model=model, max_tokens=64, messages=ASK, stream=stream)

    assert raised.value.body["error"]["type"] == kind  # type: ignore[index]
    assert ("scripted failure" in raised.value.message) == (status < 429)


async def test_refusals_of_our_own_raise_their_exceptions(
    anything: RunningGateway, bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider
) -> None:
    expired = bearer.with_options(auth_token=sdk_token(anything, exp=1_000_000_000))
    powerless = bearer.with_options(auth_token=anything.user_token(unit_primitives=["complete_code"]))

    with pytest.raises(anthropic.AuthenticationError) as unknown:
        await expired.messages.create(model="by_converse", max_tokens=64, messages=ASK)
    with pytest.raises(anthropic.PermissionDeniedError) as denied:
        await powerless.messages.create(model="by_converse", max_tokens=64, messages=ASK)
    with pytest.raises(anthropic.NotFoundError) as missing:
        await bearer.messages.create(model="nobody", max_tokens=64, messages=ASK)

    codes = [raised.value.response.headers["x-torana-code"] for raised in (unknown, denied, missing)]
    assert codes == ["token_expired", "unit_primitive_missing", "model_not_found"]
    assert provider.requests == []


@pytest.mark.parametrize(("status", "asks"), [(401, 1), (529, 3)])
async def test_the_sdk_asks_again_only_where_that_can_help(
    bearer: anthropic.AsyncAnthropic, anything: RunningGateway, provider: ScriptedProvider, status: int, asks: int
) -> None:
    provider.fail_with(status, headers={"Retry-After": "0.001"})

    with pytest.raises(anthropic.APIStatusError):
        await bearer.with_options(max_retries=2).messages.create(model="by_messages", max_tokens=64, messages=ASK)

    lines = [line for line in anything.log.lines if line.get("path") == "/anthropic/v1/messages"]
    assert len(lines) == asks


async def test_a_broken_stream_raises_and_never_looks_whole(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    provider.cut_after(UNTIL_FIRST_PIECE[model] + 1)

    async def read() -> None:
        async with bearer.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
            await stream.until_done()

    with pytest.raises(anthropic.APIError):
        await read()


async def test_a_client_that_leaves_early_ends_the_call_upstream(
    bearer: anthropic.AsyncAnthropic, provider: ScriptedProvider, model: str
) -> None:
    provider.stall(after_events=UNTIL_FIRST_PIECE[model])

    async with bearer.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
        await anext(aiter(stream.text_stream))

    request = await provider.request(1)
    await request.hung_up.wait()
