"""OpenAI's two odd kinds of tools: custom ones, which take one text, and the older `functions`."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torana.chat import ChatRequest, Chunk, Tool, ToolCall, ToolCallPiece, ToolResult
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.collecting import collect
from torana.dialects.dialect import Dialect
from torana.dialects.freeform import Unwrapping, schema_of, unwrap, wrap
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES

PATCH = '*** Begin Patch\n+größe = "5" \\ 🙂\n*** End Patch'
ASKED = ChatRequest(messages=(), tools=(Tool("patch", parameters=schema_of({}), freeform={}), Tool("read")))
both = pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)

letters = st.text(st.characters(exclude_categories=["Cs"]))


def unwrap_in_pieces(pieces: list[str]) -> str:
    unwrapping = Unwrapping()
    return "".join([unwrapping.feed(piece) for piece in pieces]) + unwrapping.close()


@given(text=letters, is_ascii=st.booleans(), size=st.integers(1, 7))
def test_a_text_is_the_same_after_its_way_as_arguments(text: str, is_ascii: bool, size: int) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=is_ascii)

    assert unwrap(wrap(text)) == unwrap(arguments) == text
    assert unwrap_in_pieces([arguments[at : at + size] for at in range(0, len(arguments), size)]) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", ""),
        ("{}", ""),
        ('{"patch":"x"}', "x"),
        ('{ "input" : "a\nb"}', "a\nb"),
        ('{"input":"\\ud83d"}', "?"),
        ("*** Begin Patch", "*** Begin Patch"),
        ('{"input":1}', '{"input":1}'),
        ('{"a":"x","b":"y"}', '{"a":"x","b":"y"}'),
        ("[" * 100_000, "[" * 100_000),
        # Backslashes that models forget to double
        (r'{"input":"\d+ \w\\ \n"}', "\\d+ \\w\\ \n"),
        (r'{"input": "C:\users\u12"}', r"C:\users\u12"),
        (r'{"input":"\ud83d\users \ud83d\ude00"}', "?\\users \U0001f600"),
        # Cut off
        (r'{"input":"*** Begin Pa', "*** Begin Pa"),
        ('{"input":"a\\', "a"),
        (r'{"input":"a\u00', "a"),
    ],
)
def test_what_a_model_makes_of_the_one_argument_is_understood(arguments: str, text: str) -> None:
    assert unwrap(arguments) == text
    assert unwrap_in_pieces(list(arguments)) == text


@pytest.mark.parametrize("blanks", ["", " " * 900, " " * 5_000])
def test_white_space_before_the_argument_takes_linear_time_and_loses_nothing(blanks: str) -> None:
    unwrapping = Unwrapping()
    before = time.thread_time()

    said = [unwrapping.feed(piece) for piece in (*([blanks] * 4_000), '{"input": "a', '\\n" }')]

    assert "".join(said) + unwrapping.close() == "a\n"
    assert time.thread_time() - before < 1


def test_a_function_that_stands_for_a_custom_tool_tells_its_grammar() -> None:
    flat = {"type": "grammar", "syntax": "lark", "definition": "start: LF"}

    assert schema_of(flat) == schema_of({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: LF"}})
    assert "(lark):\nstart: LF" in schema_of(flat)["properties"]["input"]["description"]
    assert schema_of({"type": "text"}) == schema_of({})


def called(*pieces: str) -> list[Chunk]:
    """What a model says that knows functions alone."""
    first = Chunk(tool_call=ToolCallPiece(0, "call_1", "patch", pieces[0]))
    rest = [Chunk(tool_call=ToolCallPiece(0, arguments=piece)) for piece in pieces[1:]]
    other = Chunk(tool_call=ToolCallPiece(1, "call_2", "read", "{}"))
    return [first, *rest, other, Chunk(finish="tool_calls", is_last=True)]


@both
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_functions_call_is_written_as_the_custom_tools_that_was_asked_for(dialect: Dialect, size: int) -> None:
    arguments = json.dumps({"input": PATCH})
    chunks = called(*(arguments[at : at + size] for at in range(0, len(arguments), size)))
    reader = dialect.read_events()

    stream = dialect.write_events("m", "id", 0, ASKED).write(chunks)
    whole = dialect.write_answer(chunks, "m", "id", 0, ASKED)

    for told in (reader.feed(stream) + reader.close(), dialect.read_answer(whole)):
        calls = collect(told).choices[0].tool_calls
        assert [(call.id, call.name) for call in calls] == [("call_1", "patch"), ("call_2", "read")]
        assert json.loads(calls[0].arguments) == {"input": PATCH}
        assert calls[1].arguments == "{}"
    for text in (stream, whole):
        assert b"custom" in text
        assert b"Begin Patch" in text or (text is stream and size < 1000)
        assert b'{\\"input' not in text


@both
def test_an_odd_call_of_a_custom_tool_still_gives_its_text(dialect: Dialect) -> None:
    stream = dialect.write_events("m", "id", 0, ASKED).write(called('{"patch":', '"x"}'))

    reader = dialect.read_events()
    assert collect(reader.feed(stream) + reader.close()).choices[0].tool_calls[0].arguments == wrap("x")


def test_custom_tools_cross_between_openais_formats_as_what_they_are() -> None:
    body = {
        "model": "gpt-5.4",
        "messages": [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "custom", "custom": {"name": "patch", "input": PATCH}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        ],
        "tools": [{"type": "custom", "custom": {"name": "patch", "format": {
            "type": "grammar", "grammar": {"syntax": "lark", "definition": "start: LF"}}}}],
        "tool_choice": {"type": "custom", "custom": {"name": "patch"}},
    }  # fmt: skip

    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(body).encode())
    sent = json.loads(RESPONSES.write_request(chat, "gpt-5.4", stream=False))
    elsewhere = json.loads(RESPONSES.write_request(chat, "qwen", stream=False))

    assert [item.get("type", "message") for item in sent["input"]] == [
        "message", "custom_tool_call", "custom_tool_call_output",
    ]  # fmt: skip
    assert sent["input"][1]["input"] == PATCH
    assert sent["tools"] == [
        {"type": "custom", "name": "patch",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: LF"}}
    ]  # fmt: skip
    assert sent["tool_choice"] == {"type": "custom", "name": "patch"}
    assert [item.get("type", "message") for item in elsewhere["input"]] == [
        "message", "function_call", "function_call_output",
    ]  # fmt: skip
    assert elsewhere["tools"][0]["type"] == elsewhere["tool_choice"]["type"] == "function"
    assert RESPONSES.losses(chat, "gpt-5.4") == ()
    assert RESPONSES.losses(chat, "qwen") == MESSAGES.losses(chat, "claude") == ("tool.grammar",)


OLDER: dict[str, Any] = {
    "model": "m",
    "functions": [{"name": "weather", "parameters": {"type": "object"}}],
    "function_call": {"name": "weather"},
    "messages": [
        {"role": "user", "content": "Bonn?"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"in":"Bonn"}'}},
        {"role": "function", "name": "weather", "content": "Rain"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"in":"Köln"}'}},
        {"role": "function", "name": "weather", "content": "Sun"},
    ],
}


def test_calls_of_the_older_way_get_ids_that_no_two_share() -> None:
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(OLDER).encode())

    parts = [part for message in chat.messages for part in message.parts]
    assert [part.id for part in parts if isinstance(part, ToolCall)] == ["weather", "weather_2"]
    assert [part.call_id for part in parts if isinstance(part, ToolResult)] == ["weather", "weather_2"]
    assert (chat.tool_choice, chat.parallel_tool_calls) == ("weather", False)
    assert json.loads(CHAT_COMPLETIONS.write_request(chat, "m", stream=False)) == OLDER


def test_a_client_of_the_older_way_is_answered_in_it() -> None:
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(OLDER).encode())
    said = [
        Chunk("Well."),
        Chunk(tool_call=ToolCallPiece(0, "call_1", "weather", '{"in":')),
        Chunk(tool_call=ToolCallPiece(0, arguments='"Ulm"}')),
        Chunk(tool_call=ToolCallPiece(1, "call_2", "weather", "{}")),
        Chunk(finish="tool_calls", is_last=True),
    ]

    whole = json.loads(CHAT_COMPLETIONS.write_answer(said, "m", "id", 0, chat))["choices"][0]
    stream = CHAT_COMPLETIONS.write_events("m", "id", 0, chat).write(said)

    call = {"name": "weather", "arguments": '{"in":"Ulm"}'}
    assert (whole["message"]["function_call"], whole["finish_reason"]) == (call, "function_call")
    assert "tool_calls" not in whole["message"]
    rows = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    deltas = [row["choices"][0]["delta"] for row in rows]
    assert [delta["function_call"] for delta in deltas if "function_call" in delta] == [
        {"name": "weather", "arguments": '{"in":'}, {"arguments": '"Ulm"}'},
    ]  # fmt: skip
    assert rows[-1]["choices"][0]["finish_reason"] == "function_call"
    assert b"tool_calls" not in stream
