"""The event-stream parser: what it reads does not depend on how the bytes come."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.dialects.sse import Event, SseParser
from torana.errors import ProviderBroke


def read_all(*parts: bytes, limit_bytes: int = 1024) -> list[Event]:
    parser = SseParser(limit_bytes)
    return [event for part in parts for event in parser.feed(part)] + parser.close()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a \n\n", [(b"", b" a ")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data: a\ndata: b\ndata:\n\n", [(b"", b"a\nb\n")]),
        (b"event: x\ndata: a\n\n", [(b"x", b"a")]),
        (b"data: a\nevent: x\nid: 1\nretry: 5\nother\n\n", [(b"x", b"a")]),
        (b"event: x\n\ndata: a\n\n", [(b"", b"a")]),
        (b": ping\n\ndata: a\n: ping\n\n", [(b"", b"a")]),
        (b"data: a: b\n\n", [(b"", b"a: b")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\ndata: d\r\n\n", [(b"", b"a"), (b"", b"b"), (b"", b"c"), (b"", b"d")]),
        (b"\n\ndata: a\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\n", [(b"", b"a")]),
        (b"data: a", [(b"", b"a")]),
        (b"data: a\r", [(b"", b"a")]),
        ("data: é\u2028🙂\x00\n\n".encode(), [(b"", "é\u2028🙂\x00".encode())]),
    ],
)
def test_events_are_read_as_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert read_all(stream) == events


LINES = st.sampled_from(
    [
        b"data: a",
        b"data:",
        b"data",
        b"event: x",
        b": c",
        b"",
        b"",
        "data: é🙂".encode(),
        b"\xef\xbb\xbf",
        b"id: 1",
        b"data: \xff",
    ]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]))).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@settings(max_examples=150, deadline=None)
@given(stream=STREAMS, data=st.data())
def test_any_split_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))

    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert read_all(*parts) == read_all(stream)
    assert read_all(*(stream[at : at + 1] for at in range(len(stream)))) == read_all(stream)


@pytest.mark.parametrize("size", [1, 7, 2000])
def test_an_event_at_the_limit_passes_and_one_byte_more_does_not(size: int) -> None:
    def feed(length: int) -> list[Event]:
        stream = b"data: ok\n\n" + b"data: " + b"x" * (length - 6) + b"\n\n"
        return read_all(*(stream[at : at + size] for at in range(0, len(stream), size)), limit_bytes=100)

    assert len(feed(100)) == 2
    with pytest.raises(ProviderBroke):
        feed(101)


def test_events_before_one_that_is_too_large_are_given_out() -> None:
    parser = SseParser(100)

    assert parser.feed(b"data: ok\n\ndata: " + b"x" * 200) == [(b"", b"ok")]
    with pytest.raises(ProviderBroke):
        parser.feed(b"x")
    with pytest.raises(ProviderBroke):
        parser.close()


def test_a_line_without_end_is_given_up_within_the_limit() -> None:
    parser = SseParser(1000)

    for _ in range(10):
        parser.feed(b"x" * 100)

    with pytest.raises(ProviderBroke):
        parser.feed(b"x" * 100)


@pytest.mark.drill
def test_one_byte_at_a_time_costs_linear_time() -> None:
    def seconds(length: int) -> float:
        parser = SseParser()
        byte = b"x"
        start = time.process_time()
        for _ in range(length):
            parser.feed(byte)
        return time.process_time() - start

    seconds(1000)

    # Quadratic work would take 64 times as long for 8 times the bytes.
    assert seconds(400_000) < 30 * max(seconds(50_000), 0.001)
