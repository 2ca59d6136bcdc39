"""Answers that are none: cut, garbled, refused. Whatever arrives, only provider errors come out."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.compare import read

from torana.chat import Chunk, Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect, ServedDialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.sse import SseParser
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.errors import (
    ProviderBroke,
    ProviderError,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
    ProviderSpent,
)

DIALECTS = [MESSAGES, CHAT_COMPLETIONS, TEXT_COMPLETIONS, RESPONSES, GENERATE_CONTENT]
STREAMS = {
    "messages": "messages/tools.sse",
    "chat_completions": "chat_completions/tools.sse",
    "text_completions": "text_completions/plain.sse",
    "generate_content": "generate_content/tools.sse",
    "responses": "responses/tools.sse",
}
dialects = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def sample(dialect: Dialect) -> bytes:
    """A good stream; Google ends its lines in CRLF."""
    return read(STREAMS[dialect.name]).replace(b"\r\n", b"\n")


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def read_stream(dialect: Dialect, *parts: bytes) -> list[Chunk]:
    reader = dialect.read_events()
    return [chunk for part in parts for chunk in reader.feed(part)] + reader.close()


@dialects
def test_a_stream_cut_at_any_byte_is_a_failure(dialect: Dialect) -> None:
    stream = sample(dialect).rstrip(b"\n")

    for length in range(len(stream)):
        with pytest.raises(ProviderBroke):
            read_stream(dialect, stream[:length])


@dialects
def test_a_stream_without_its_last_line_end_is_whole(dialect: Dialect) -> None:
    stream = sample(dialect)

    assert read_stream(dialect, stream.rstrip(b"\n")) == read_stream(dialect, stream)


@dialects
@pytest.mark.parametrize(
    "junk",
    [
        b"<html><body>502</body></html>",
        b'{"type": "message_delta", "delta": {"text": "cut',
        b"\xff\xfe",
        b'{"type":"ping","x":"\xff"}'.replace(b"ping", b"\xff"),
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"choices": NaN, "type": NaN}',
        b'{"choices": 5, "type": 5}',
        b"[]",
        b"null",
        b'"text"',
        b'{"type":"content_block_delta","index":1e400,"choices":[{"index":1e400}]}',
    ],
    ids=range(12),
)
def test_garbage_in_a_stream_breaks_it(dialect: Dialect, junk: bytes) -> None:
    with pytest.raises(ProviderBroke):
        read_stream(dialect, event(junk))
    with pytest.raises(ProviderBroke):
        dialect.read_answer(junk)


@dialects
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mangled_stream_gives_provider_errors_and_nothing_else(dialect: Dialect, data: st.DataObject) -> None:
    stream = bytearray(sample(dialect))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(stream) - 1), st.integers(0, 255)), max_size=5)):
        stream[at] = byte
    cut = data.draw(st.integers(0, len(stream)))
    scan = dialect.scan_events()

    scan.feed(bytes(stream[:cut]))
    scan.feed(bytes(stream[cut:]))
    try:
        assert read_stream(dialect, bytes(stream[:cut]), bytes(stream[cut:]))[-1].is_last
    except ProviderError:
        return


NAMES = st.sampled_from(["type", "choices", "content", "usage", "error", "message", "index", "delta", "text", "id"])
LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(["message", "message_stop", "error", "text", ""])
BODIES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=12)


@dialects
@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=60) | BODIES.map(lambda value: json.dumps(value).encode()))
def test_any_body_gives_an_answer_or_a_provider_error(dialect: Dialect, body: bytes) -> None:
    assert isinstance(dialect.read_error(500, body), ProviderRefused)
    dialect.scan_answer(body)
    for read_it in (dialect.read_answer, lambda body: read_stream(dialect, event(body))):
        try:
            assert read_it(body)[-1].is_last
        except ProviderError:
            continue


@dialects
def test_an_empty_body_is_no_answer(dialect: Dialect) -> None:
    with pytest.raises(ProviderBroke):
        read_stream(dialect)
    with pytest.raises(ProviderBroke):
        read_stream(dialect, b"data: [DONE]\n\n", b'data: {"type":"message_stop"}\n\n')
    with pytest.raises(ProviderBroke):
        dialect.read_answer(b"")


@dialects
def test_chunks_ahead_of_a_failure_are_given_out_first(dialect: Dialect) -> None:
    stream = sample(dialect)
    begun = stream[: stream.index(b"\n\n", len(stream) // 3) + 2]
    reader = dialect.read_events()

    chunks = reader.feed(begun + event(b"<html>"))

    assert chunks == dialect.read_events().feed(begun)
    with pytest.raises(ProviderBroke):
        reader.feed(b"data: more\n\n")
    with pytest.raises(ProviderBroke):
        reader.close()


@pytest.mark.parametrize(
    ("dialect", "error", "status", "kind"),
    [
        (MESSAGES, {"type": "overloaded_error", "message": "Overloaded"}, 529, ProviderOverloaded),
        (MESSAGES, {"type": "rate_limit_error", "message": "Slow"}, 429, ProviderLimited),
        (MESSAGES, {"type": "error_of_tomorrow"}, 500, ProviderOverloaded),
        (CHAT_COMPLETIONS, {"type": "server_error", "message": "Oops", "code": None}, 500, ProviderOverloaded),
        (CHAT_COMPLETIONS, {"type": "requests", "code": "rate_limit_exceeded"}, 429, ProviderLimited),
        (CHAT_COMPLETIONS, {"type": "BadRequestError", "code": 400}, 400, ProviderRefused),
        (CHAT_COMPLETIONS, {"type": "invalid_request_error", "code": "string_above_max_length"}, 400, ProviderRefused),
        (CHAT_COMPLETIONS, {"code": 10**30}, 500, ProviderOverloaded),
        (CHAT_COMPLETIONS, "model is loading", 500, ProviderOverloaded),
        (TEXT_COMPLETIONS, {"type": "insufficient_quota"}, 429, ProviderSpent),
    ],
)
def test_an_error_told_within_a_200_keeps_its_meaning(
    dialect: Dialect, error: Any, status: int, kind: type[ProviderRefused]
) -> None:
    body = {"type": "error", "error": error}

    with pytest.raises(kind) as in_stream:
        read_stream(dialect, b": ping\n\n" + event(body))
    with pytest.raises(kind) as in_answer:
        dialect.read_answer(json.dumps(body).encode())

    assert (in_stream.value.upstream_code, in_answer.value.upstream_code) == (status, status)


@pytest.mark.parametrize(
    ("dialect", "body", "kind", "message"),
    [
        (
            MESSAGES,
            b'{"type":"error","error":{"type":"not_found_error","message":"No model"}}',
            "not_found_error",
            "No model",
        ),
        (
            CHAT_COMPLETIONS,
            b'{"error":{"message":"No model","type":"x","code":"model_not_found"}}',
            "model_not_found",
            "No model",
        ),
        (CHAT_COMPLETIONS, b'{"object":"error","message":"No model","code":404}', "", "No model"),
        (CHAT_COMPLETIONS, b'{"error":"No model"}', "", "No model"),
        (CHAT_COMPLETIONS, b"<html>", "", "no reason given"),
        (CHAT_COMPLETIONS, b'[{"error":{"code":404,"message":"No model","status":"NOT_FOUND"}}]', "", "No model"),
        (CHAT_COMPLETIONS, b"Failed to deserialize the JSON body", "", "Failed to deserialize the JSON body"),
        (CHAT_COMPLETIONS, b'{"error":{"message":{"why":"No model"},"code":{}}}', "", '{"why":"No model"}'),
        (CHAT_COMPLETIONS, b'{"error":{"message":"No model","type":"x","code":"404"}}', "x", "No model"),
        (CHAT_COMPLETIONS, b'{"errors":[{"text":"No model"}]}', "", '{"errors":[{"text":"No model"}]}'),
        (MESSAGES, b'{"error":{"type":null,"message":"No model"}}', "", "No model"),
        (MESSAGES, b'{"detail":"No model"}', "", '{"detail":"No model"}'),
        (MESSAGES, b"\xff", "", "no reason given"),
        (MESSAGES, json.dumps({"error": {"message": "x" * 9999}}).encode(), "", "x" * 300),
    ],
)
def test_an_error_body_of_any_kind_is_read(dialect: Dialect, body: bytes, kind: str, message: str) -> None:
    error = dialect.read_error(404, body)

    assert (error.upstream_code, error.kind, str(error)) == (404, kind, message)


def test_a_letter_that_a_server_cut_in_two_does_not_break_the_stream() -> None:
    halves = event(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}') + event(
        rb'{"choices":[{"delta":{"content":"\ude42b\\ud83d"}}]}'
    )

    chunks = read_stream(CHAT_COMPLETIONS, halves, b"data: [DONE]\n\n")

    assert "".join(chunk.text for chunk in chunks) == "a\ufffd\ufffdb\\ud83d"


@pytest.mark.parametrize("value", [-1, 10**12 + 1, 10**30, 1.5, "12", True, [1]])
def test_impossible_usage_is_suspect_and_what_was_known_stands(value: Any) -> None:
    openai = {"choices": [{"delta": {}}], "usage": {"prompt_tokens": 5, "completion_tokens": value}}
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}
    delta = {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 9, "output_tokens": value}}

    chat = read_stream(CHAT_COMPLETIONS, event(openai), b"data: [DONE]\n\n")
    messages = read_stream(MESSAGES, event(start), event(delta), event({"type": "message_stop"}))

    assert chat[-1].usage == Usage(is_suspect=True)
    assert messages[-1].usage == Usage(input_tokens=5, output_tokens=1, is_suspect=True)


def test_a_usage_at_the_limit_counts() -> None:
    body = {"choices": [{"message": {"content": ""}}], "usage": {"prompt_tokens": 10**12, "completion_tokens": 0}}

    assert CHAT_COMPLETIONS.read_answer(json.dumps(body).encode())[-1].usage == Usage(input_tokens=10**12)


@pytest.mark.parametrize(
    ("first", "reason", "told"),
    [
        ({"function": {"name": "f", "arguments": ""}}, "tool_calls", "{}"),
        ({"function": {"name": "f"}}, "stop", "{}"),
        ({"function": {"name": "f", "arguments": "{}"}}, "tool_calls", "{}"),
        ({"function": {"name": "f", "arguments": "null"}}, "tool_calls", "{}"),
        ({"function": {"name": "f", "arguments": ""}}, "length", ""),
        ({"custom": {"name": "f", "input": ""}}, "tool_calls", '{"input":""}'),
    ],
)
def test_a_call_of_whose_arguments_nothing_was_heard_has_none_unless_it_was_cut(
    first: dict[str, Any], reason: str, told: str
) -> None:
    """Clients read them as JSON."""
    call = {"index": 0, "id": "c1", **first}

    chunks = read_stream(
        CHAT_COMPLETIONS,
        event({"choices": [{"delta": {"tool_calls": [call]}}]}),
        event({"choices": [{"delta": {}, "finish_reason": reason}]}),
        b"data: [DONE]\n\n",
    )

    assert "".join(chunk.tool_call.arguments for chunk in chunks if chunk.tool_call) == told


@pytest.mark.parametrize(
    ("begun", "pieces", "told"),
    [({}, [], "{}"), ({"a": 1}, [], '{"a":1}'), ({}, ['{"a":', "2}"], '{"a":2}'), ({"a": 1}, ['{"a":1}'], '{"a":1}')],
)
def test_the_pieces_of_a_call_stand_for_what_it_began_with(begun: Any, pieces: list[str], told: str) -> None:
    """Anthropic's SDK reads it so; servers that follow it send one, the other, or both."""
    block = {"type": "tool_use", "id": "t", "name": "f", "input": begun}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]

    chunks = read_stream(
        MESSAGES,
        event({"type": "message_start", "message": {"id": "m", "model": "m"}}),
        event({"type": "content_block_start", "index": 0, "content_block": block}),
        *(event({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas),
        event({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
        event({"type": "message_stop"}),
    )

    assert "".join(chunk.tool_call.arguments for chunk in chunks if chunk.tool_call) == told


def test_tool_calls_without_index_and_with_repeated_names_are_read() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"a":'}}
    rest = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "1}"}}

    chunks = read_stream(
        CHAT_COMPLETIONS,
        event({"choices": [{"delta": {"tool_calls": [call]}}]}),
        event({"choices": [{"delta": {"tool_calls": [rest]}}]}),
        b"data: [DONE]\n\n",
    )

    pieces = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    assert [(piece.id, piece.name, piece.arguments) for piece in pieces] == [("c1", "f", '{"a":'), ("", "", "1}")]


@pytest.mark.parametrize("dialect", DIALECTS[:4], ids=lambda dialect: dialect.name)
def test_our_errors_have_the_dialects_shape_and_our_code(dialect: ServedDialect) -> None:
    body = json.loads(dialect.write_error(401, "token_missing", "No token came.", "req-1"))

    assert body["error"]["type"] == "authentication_error"
    assert (body["error"]["code"], body["error"]["message"]) == ("token_missing", "No token came.")
    assert b"provider_broke" in dialect.write_error_event(502, "provider_broke", "The answer was cut.")
    assert b"provider_broke" in dialect.write_events("m", "id", 0).error(502, "provider_broke", "The answer was cut.")


@dialects
def test_what_an_error_event_of_ours_says_our_reader_understands(dialect: Dialect) -> None:
    with pytest.raises(ProviderRefused):
        read_stream(dialect, dialect.write_error_event(429, "limit", "Too many."))


@pytest.mark.parametrize(
    ("creation", "for_an_hour"),
    [
        ({"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}, 4),
        ({"ephemeral_1h_input_tokens": 9}, 7),
        ({"ephemeral_1h_input_tokens": None}, 0),
        ({}, 0),
        (None, 0),
        ("7", 0),
    ],
)
def test_what_the_cache_keeps_for_an_hour_is_a_part_of_what_was_written(creation: Any, for_an_hour: int) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 7, "cache_creation": creation}
    start = {"type": "message_start", "message": {"usage": usage}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}

    streamed = read_stream(MESSAGES, event(start), event(delta), event({"type": "message_stop"}))[-1].usage
    whole = MESSAGES.scan_answer(json.dumps({"usage": usage}).encode())

    for told in (streamed, whole):
        assert told is not None
        assert (told.cache_write_tokens, told.cache_write_1h_tokens) == (7, for_an_hour)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("context_length_exceeded", 400),
        ("invalid_prompt", 400),
        ("invalid_image_url", 400),
        ("rate_limit_exceeded", 429),
        (429, 429),
        ("server_is_overloaded", 529),
        ("server_error", 500),
        ("vector_store_timeout", 500),
    ],
)
def test_a_failed_response_is_known_by_its_code(code: str | int, status: int) -> None:
    failed = {"status": "failed", "error": {"code": code, "message": "m"}}

    for told in ({"type": "response.failed", "response": failed}, {"type": "error", "code": code, "message": "m"}):
        with pytest.raises(ProviderRefused) as raised:
            read_stream(RESPONSES, event(told))
        assert raised.value.upstream_code == status


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "context_length_exceeded", "context_length_exceeded"),
        (400, "provider_refused", "invalid_prompt"),
        (429, "provider_limited", "rate_limit_exceeded"),
        (503, "provider_overloaded", "server_error"),
    ],
)
def test_a_failed_response_of_ours_has_the_code_by_which_agents_go(status: int, code: str, told: str) -> None:
    *_, error, failed = SseParser().feed(RESPONSES.write_events("m", "id", 0).error(status, code, "No."))

    assert json.loads(error[1])["error"]["code"] == json.loads(error[1])["code"] == code
    assert json.loads(failed[1])["response"]["error"] == {"code": told, "message": "No."}


@pytest.mark.parametrize(
    ("body", "details"),
    [
        (b'{"error":{"type":"invalid_request_error","message":"m"}}', None),
        (b'{"detail":"Not this way"}', None),
        (b'{"error":{"message":"m"}}', None),
        (b"", None),
        (b'{"error":{"type":"x","details":{"error_code":"y"}}}', {"error_code": "y"}),
    ],
)
def test_an_error_without_a_code_is_told_without_one(body: bytes, details: dict[str, str] | None) -> None:
    """By the member `details` Anthropic's SDKs go."""
    assert MESSAGES.read_error(400, body).details == details


def test_anthropics_spend_limit_is_told_by_the_code_in_its_details() -> None:
    body = {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": "m",
            "details": {"error_code": "enforced_spend_limit_reached"},
        },
    }

    assert isinstance(MESSAGES.read_error(429, json.dumps(body).encode()), ProviderSpent)
    for details in (None, {}, [], "x", {"error_code": None}, {"error_code": 5}):
        body["error"]["details"] = details  # type: ignore[index]
        assert isinstance(MESSAGES.read_error(429, json.dumps(body).encode()), ProviderLimited)
