"""The scripted provider keeps its own promises; a fake that lies makes every other test worthless."""

import asyncio
import json

import anthropic
import openai
import pytest
from tests.support.http_client import Answer, connect, fetch, write_request
from tests.support.provider import Malformation, ScriptedProvider
from tests.support.saying import PIECES, ToolUse

TEXT = "".join(PIECES)
ASK = [{"role": "user", "content": "Hello"}]
STREAM = {"model": "m", "stream": True, "messages": ASK}


async def ask(provider: ScriptedProvider, path: str, asked: dict[str, object]) -> Answer:
    return await fetch(provider.server.port, "POST", path, {}, json.dumps(asked).encode())


def openai_client(provider: ScriptedProvider) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{provider.url}/any/prefix/v1", api_key="k", max_retries=0)


def anthropic_client(provider: ScriptedProvider) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=f"{provider.url}/any/prefix", api_key="k", max_retries=0)


async def test_the_anthropic_sdk_accepts_its_messages_whole_and_streamed(provider: ScriptedProvider) -> None:
    provider.answer_with(text="One.", tool_call=ToolUse(name="look_up", arguments={"word": "torana"}), output_tokens=9)

    async with anthropic_client(provider) as client:
        whole = await client.messages.create(model="claude-x", max_tokens=9, messages=ASK)
        async with client.messages.stream(model="claude-x", max_tokens=9, messages=ASK) as stream:
            streamed = await stream.get_final_message()
        count = await client.messages.count_tokens(model="claude-x", messages=ASK)

    assert [block.type for block in whole.content] == ["text", "tool_use"]
    assert whole.content[1].input == {"word": "torana"}
    assert whole.stop_reason == "tool_use"
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (25, 9)
    assert count.input_tokens == 25


async def test_the_openai_sdk_accepts_its_chat_completions_whole_and_streamed(provider: ScriptedProvider) -> None:
    provider.answer_with(text="One.", tool_call=ToolUse(name="look_up", arguments={"word": "torana"}))

    async with openai_client(provider) as client:
        whole = await client.chat.completions.create(model="gpt-x", messages=ASK)
        async with client.chat.completions.stream(
            model="gpt-x", messages=ASK, stream_options={"include_usage": True}
        ) as stream:
            streamed = await stream.get_final_completion()

    for completion in (whole, streamed):
        message = completion.choices[0].message
        assert message.content == "One."
        assert json.loads(message.tool_calls[0].function.arguments) == {"word": "torana"}
        assert completion.choices[0].finish_reason == "tool_calls"
        assert completion.usage.total_tokens == 32


async def test_the_openai_sdk_accepts_its_responses_whole_and_streamed(provider: ScriptedProvider) -> None:
    provider.answer_with(text="One.", tool_call=ToolUse(name="look_up", arguments={"word": "torana"}))

    async with openai_client(provider) as client:
        whole = await client.responses.create(model="gpt-x", input="Hello")
        async with client.responses.stream(model="gpt-x", input="Hello") as stream:
            streamed = await stream.get_final_response()

    for response in (whole, streamed):
        assert response.output_text == "One."
        assert response.output[1].arguments == '{"word": "torana"}'
        assert response.usage.total_tokens == 32


async def test_the_openai_sdk_accepts_its_completions_embeddings_and_models(provider: ScriptedProvider) -> None:
    async with openai_client(provider) as client:
        text = await client.completions.create(model="m", prompt="def hello")
        pieces = [
            chunk.choices[0].text async for chunk in await client.completions.create(model="m", prompt="x", stream=True)
        ]
        vectors = await client.embeddings.create(model="m", input=["a", "b"])
        models = await client.models.list()

    assert text.choices[0].text == "".join(pieces) == TEXT
    assert [row.embedding for row in vectors.data] == [
        pytest.approx([1, 1 / 2, 1 / 3, 1 / 4]),
        pytest.approx([2, 1, 2 / 3, 1 / 2]),
    ]
    assert [model.id for model in models.data] == provider.models
    assert len(provider.requests) == 3  # the list of models is no model call


async def test_a_request_is_kept_as_it_came(provider: ScriptedProvider) -> None:
    async with await connect(provider.server.port) as connection:
        await connection.send(
            write_request("POST", "/a%2Fb/v1/messages?beta=true", {"X-ODD-case": "1", "x-odd-CASE": "2"}, b'{"a":1}')
        )
        await connection.read_answer()

    request = await provider.request(1)
    assert (request.method, request.path, request.query) == ("POST", "/a%2Fb/v1/messages", "beta=true")
    assert request.headers[1:3] == [(b"X-ODD-case", b"1"), (b"x-odd-CASE", b"2")]
    assert request.header("x-Odd-Case") == "1"
    assert (request.body, request.json()) == (b'{"a":1}', {"a": 1})


async def test_a_connection_is_used_again(provider: ScriptedProvider) -> None:
    ask_bytes = write_request("POST", "/v1/messages", {}, b"{}")

    async with await connect(provider.server.port) as connection:
        for _ in range(2):
            await connection.send(ask_bytes)
            assert (await connection.read_answer()).status == 200

    assert provider.connections == 1
    assert [request.connection for request in provider.requests] == [1, 1]


async def test_a_script_with_times_is_used_up_before_the_standing_one(provider: ScriptedProvider) -> None:
    provider.answer_with(text="standing")
    provider.fail_with(529, headers={"Retry-After": "2"}, times=1)
    provider.answer_with(text="second", times=1)

    answers = [await ask(provider, "/v1/messages", {"model": "m"}) for _ in range(3)]

    assert (answers[0].status, answers[0].header("retry-after")) == (529, "2")
    assert answers[0].json()["error"]["type"] == "overloaded_error"
    assert [answer.json()["content"][0]["text"] for answer in answers[1:]] == ["second", "standing"]


@pytest.mark.parametrize("by", ["reset", "close"])
async def test_a_cut_stream_lacks_its_end_and_its_final_chunk(provider: ScriptedProvider, by: str) -> None:
    provider.cut_after(2, by=by)  # type: ignore[arg-type]

    answer = await ask(provider, "/v1/chat/completions", STREAM)

    assert not answer.is_whole
    assert b"[DONE]" not in answer.body
    assert len(answer.chunks) == 2 or by == "reset"  # a reset may overtake what was sent


async def test_a_stall_ends_with_its_release(provider: ScriptedProvider) -> None:
    provider.stall(after_events=2)

    async with await connect(provider.server.port) as connection:
        await connection.send(write_request("POST", "/v1/messages", {}, json.dumps(STREAM).encode()))
        head = await connection.read_head()
        assert b"message_start" in await head.next_chunk()
        await head.next_chunk()
        provider.release()
        rest = await head.rest()

    assert rest.is_whole
    assert b"message_stop" in rest.chunks[-1]


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_peer_that_hangs_up_while_it_stalls_is_noticed(provider: ScriptedProvider, how: str) -> None:
    provider.stall()

    async with await connect(provider.server.port) as connection:
        await connection.send(write_request("POST", "/v1/messages", {}, b"{}"))
        request = await provider.request(1)
        assert not request.hung_up.is_set()
        if how == "reset":
            connection.reset()

    await request.hung_up.wait()
    await request.closed.wait()


async def test_a_peer_that_leaves_after_the_whole_answer_has_not_hung_up(provider: ScriptedProvider) -> None:
    await ask(provider, "/v1/messages", {"model": "m"})

    request = await provider.request(1)
    await request.closed.wait()

    assert not request.hung_up.is_set()


async def test_an_answer_waits_for_the_event_it_was_given(provider: ScriptedProvider) -> None:
    go = asyncio.Event()
    provider.answer_with(first_byte_after=go)

    asking = asyncio.create_task(ask(provider, "/v1/messages", {"model": "m"}))
    await provider.request(1)
    assert not asking.done()
    go.set()

    assert (await asking).status == 200


async def test_raw_bytes_go_out_as_they_are(provider: ScriptedProvider) -> None:
    provider.answer_with(raw=b"HTTP/1.0 200 Fine\r\nX: y\r\n\r\nuntil the end")

    answer = await ask(provider, "/v1/messages", {})

    assert (answer.status_line, answer.header_pairs, answer.body) == (
        b"HTTP/1.0 200 Fine",
        [(b"X", b"y")],
        b"until the end",
    )


async def test_segments_split_letters_and_line_ends(provider: ScriptedProvider) -> None:
    provider.answer_with(pieces=["grün"], segment_bytes=1)

    answer = await ask(provider, "/v1/messages", STREAM)

    assert {len(chunk) for chunk in answer.chunks} == {1}
    assert "grün" in answer.text


@pytest.mark.parametrize(
    ("how", "is_whole", "holds"),
    [
        ("html", True, b"<html>"),
        ("cut_json", True, b"message_stop"),
        ("no_end", True, b"message_delta"),
        ("short_body", False, b"message_start"),
        ("bad_chunk", None, b""),
        ("not_utf8", True, b"Hel\xfflo"),
        ("endless_line", True, b"x" * 2**21),
        ("error_event", True, b"event: error\n"),
    ],
)
async def test_each_malformation_is_what_it_says(
    provider: ScriptedProvider, how: Malformation, is_whole: bool | None, holds: bytes
) -> None:
    provider.answer_malformed(how)

    if is_whole is None:
        with pytest.raises(ValueError, match="invalid literal"):
            await ask(provider, "/v1/messages", STREAM)
        return
    answer = await ask(provider, "/v1/messages", STREAM)

    assert answer.is_whole is is_whole
    assert holds in answer.body
    assert how != "no_end" or b"message_stop" not in answer.body


async def test_a_whole_answer_can_be_malformed_too(provider: ScriptedProvider) -> None:
    provider.answer_malformed("cut_json", times=1)
    provider.answer_malformed("short_body", times=1)

    cut = await ask(provider, "/v1/messages", {"model": "m"})
    short = await ask(provider, "/v1/messages", {"model": "m"})

    assert cut.is_whole
    with pytest.raises(json.JSONDecodeError):
        cut.json()
    assert not short.is_whole


async def test_an_unknown_path_is_404_and_is_kept(provider: ScriptedProvider) -> None:
    answer = await ask(provider, "/v1/unknown", {})

    assert answer.status == 404
    assert [request.path for request in provider.requests] == ["/v1/unknown"]


async def test_a_request_body_in_chunks_is_joined(provider: ScriptedProvider) -> None:
    async with await connect(provider.server.port) as connection:
        await connection.send(
            write_request("POST", "/v1/messages", {"Transfer-Encoding": "chunked"}, b"2\r\n{}\r\n0\r\n\r\n")
        )
        await connection.read_answer()

    assert provider.requests[0].body == b"{}"


async def test_an_error_inside_a_handler_is_not_swallowed() -> None:
    provider = ScriptedProvider()
    await provider.start()

    async with await connect(provider.server.port) as connection:
        await connection.send(write_request("POST", "/v1/messages", {}, b"no JSON"))
        await connection.read_to_end()

    with pytest.raises(ExceptionGroup, match="handler failed"):
        await provider.aclose()
