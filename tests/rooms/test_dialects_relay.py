"""Streams that pass as they come: usage, model and the end are seen, whatever the split."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.compare import read

from torana.chat import Usage
from torana.dialects import embeddings, streams
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import RelayScan, ServedDialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.errors import ProviderLimited

TOOLS_USAGE = Usage(120, 34, 100, reasoning_tokens=5)
STREAMS = [
    (MESSAGES, "messages/tools.sse", Usage(120, 89, 100, 8), "claude-sonnet-4-6"),
    (MESSAGES, "messages/thinking.sse", Usage(10, 9, 3, reasoning_tokens=4), "claude-sonnet-4-6"),
    (CHAT_COMPLETIONS, "chat_completions/tools.sse", TOOLS_USAGE, "gpt-5-mini-2025-08-07"),
    (TEXT_COMPLETIONS, "text_completions/plain.sse", Usage(9, 6), "codestral"),
    (RESPONSES, "responses/answer.written.sse", Usage(120, 34, 100, 8, 5), "the-model"),
]
streams_of_all = pytest.mark.parametrize(("dialect", "name", "usage", "model"), STREAMS)


def scan(dialect: ServedDialect, parts: Iterator[bytes]) -> RelayScan:
    watch = dialect.scan_events()
    for part in parts:
        watch.feed(part)
    return watch


def split(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


@streams_of_all
def test_a_relayed_stream_tells_its_usage_model_and_end(
    dialect: ServedDialect, name: str, usage: Usage, model: str
) -> None:
    stream = read(name)

    for size in [*range(1, 200), len(stream)]:
        watch = scan(dialect, split(stream, size))

        assert (watch.usage, watch.model, watch.is_complete) == (usage, model, True)


@streams_of_all
@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.floats(0, 1), max_size=12))
def test_a_relayed_stream_cut_at_random_tells_the_same(
    dialect: ServedDialect, name: str, usage: Usage, model: str, cuts: list[float]
) -> None:
    stream = read(name)
    places = [0, *sorted(int(cut * len(stream)) for cut in cuts), len(stream)]

    watch = scan(dialect, (stream[a:b] for a, b in pairwise(places)))

    assert (watch.usage, watch.model, watch.is_complete) == (usage, model, True)


@pytest.mark.parametrize(("dialect", "name"), [(row[0], row[1]) for row in STREAMS if "thinking" not in row[1]])
def test_a_relayed_stream_that_is_cut_is_never_complete(dialect: ServedDialect, name: str) -> None:
    stream = read(name).rstrip(b"\n")

    for length in range(0, len(stream), 3):
        assert not scan(dialect, iter([stream[:length]])).is_complete
    assert not scan(dialect, iter([stream[:-1]])).is_complete
    assert scan(dialect, iter([stream])).is_complete


@pytest.mark.parametrize("dialect", [MESSAGES, CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_a_model_that_writes_our_markers_fools_nobody(dialect: ServedDialect) -> None:
    text = 'data: [DONE]\n\ndata: {"type":"message_stop"}\n\n{"type":"response.completed","usage":{"input_tokens":1}}'
    line = json.dumps(
        {"type": "content_block_delta", "delta": {"text": text}, "choices": [{"delta": {"content": text}}]}
    )

    watch = scan(dialect, iter([b"data: " + line.encode() + b"\n\n"]))

    assert (watch.usage, watch.is_complete) == (None, False)


@pytest.mark.parametrize(
    "junk",
    [b"", b"\n", b"data:", b'data: {"usage"', b'data: {"usage":{"x":\n', b'"usage"\n', b"\xff" * 9 + b'"usage"\n'],
)
def test_a_scan_survives_junk(junk: bytes) -> None:
    for dialect in (MESSAGES, CHAT_COMPLETIONS, RESPONSES):
        watch = scan(dialect, iter([junk, junk]))

        assert (watch.usage, watch.is_complete) == (None, False)


def test_a_line_beyond_what_is_watched_is_skipped_and_the_next_one_read() -> None:
    watch = CHAT_COMPLETIONS.scan_events()
    piece = b"x" * (1024 * 1024)

    watch.feed(b'data: {"usage":')
    for _ in range(streams.MAX_WATCHED_LINE_BYTES // len(piece) + 1):
        watch.feed(piece)
    watch.feed(b'\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\ndata: [DONE]\n\n')

    assert (watch.usage, watch.is_complete) == (Usage(3, 4), True)


def test_an_end_that_failed_is_an_end() -> None:
    failed = {"model": "m", "usage": None, "error": {"code": "rate_limit_exceeded", "message": "Slow down."}}
    watch = scan(
        RESPONSES, iter([b"data: %b\n\n" % json.dumps({"type": "response.failed", "response": failed}).encode()])
    )

    assert (watch.usage, watch.is_complete) == (None, True)
    assert isinstance(watch.failure, ProviderLimited)


@pytest.mark.parametrize(
    ("dialect", "name", "usage"),
    [
        (MESSAGES, "messages/tools.answer.json", Usage(120, 89, 100, 8)),
        (CHAT_COMPLETIONS, "chat_completions/tools.answer.json", TOOLS_USAGE),
        (TEXT_COMPLETIONS, "text_completions/plain.answer.json", Usage(9, 6)),
        (RESPONSES, "responses/answer.written.json", Usage(120, 34, 100, 8, 5)),
    ],
)
def test_a_relayed_answer_tells_its_usage(dialect: ServedDialect, name: str, usage: Usage) -> None:
    assert dialect.scan_answer(read(name)) == usage
    assert dialect.scan_answer(b"<html>") is None
    assert dialect.scan_answer(b"{}") is None


def test_relayed_embeddings_tell_their_usage() -> None:
    assert embeddings.scan_answer(b'{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}') == Usage(input_tokens=8)


@pytest.mark.parametrize(
    ("dialect", "events", "finish"),
    [
        (MESSAGES, [{"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {}}], "content_filter"),
        (MESSAGES, [{"type": "message_delta", "delta": {"stop_reason": None}, "usage": {}}], None),
        (CHAT_COMPLETIONS, [{"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}], "tool_calls"),
        (
            CHAT_COMPLETIONS,
            [{"choices": [{"delta": {"content": '"finish_reason":"stop"'}, "finish_reason": None}]}],
            None,
        ),
        (TEXT_COMPLETIONS, [{"choices": [{"text": "x", "finish_reason": "length"}]}], "length"),
        (RESPONSES, [{"type": "response.completed", "response": {"output": []}}], "stop"),
        (
            RESPONSES,
            [{"type": "response.completed", "response": {"output": [{"type": "function_call"}]}}],
            "tool_calls",
        ),
        (
            RESPONSES,
            [{"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}],
            "length",
        ),
        (RESPONSES, [{"type": "response.failed", "response": {}}], None),
        (GENERATE_CONTENT, [{"candidates": [{"finishReason": "SAFETY"}]}], "content_filter"),
    ],
)
def test_a_relayed_stream_tells_why_it_ended(dialect: ServedDialect, events: list[Any], finish: str | None) -> None:
    stream = b"".join(b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode() for event in events)

    assert scan(dialect, iter([stream])).finish == finish


def of_choice(number: int, finish: str | None, **more: Any) -> bytes:
    choice = {"index": number, "delta": {"content": "x"}, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"choices": [choice], **more}, separators=(",", ":")).encode()


@given(cuts=st.lists(st.integers(0, 10_000), max_size=5))
def test_the_last_of_several_ends_is_told_and_nothing_behind_the_terminal_event(cuts: list[int]) -> None:
    early, late = {"prompt_tokens": 10, "completion_tokens": 5}, {"prompt_tokens": 10, "completion_tokens": 9}
    stream = of_choice(0, "length", usage=early) + of_choice(1, "stop", usage=late) + b"data: [DONE]\n\n"
    stream += of_choice(0, "content_filter", usage={"prompt_tokens": 1, "completion_tokens": 1})
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})

    watch = scan(CHAT_COMPLETIONS, (stream[start:end] for start, end in pairwise(places)))

    assert (watch.finish, watch.usage, watch.is_complete) == ("stop", Usage(10, 9), True)
