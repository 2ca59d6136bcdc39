"""AWS's binary event stream: the same events however the bytes are split, and nothing believed unchecked."""

import json
import struct
from contextlib import suppress
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.dialects.event_stream import EventStreamParser, write_event
from torana.dialects.sse import MAX_EVENT_BYTES
from torana.errors import ProviderBroke, ProviderRefused


def message(headers: bytes, payload: bytes = b"{}") -> bytes:
    """One message, built from the specification alone."""
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
    return body + struct.pack(">I", crc32(body))


def header(name: str, value: bytes, kind: int = 7) -> bytes:
    size = struct.pack(">H", len(value)) if kind in (6, 7) else b""
    return bytes([len(name)]) + name.encode() + bytes([kind]) + size + value


def event(name: str, payload: bytes = b"{}") -> bytes:
    return message(header(":event-type", name.encode()) + header(":message-type", b"event"), payload)


def read(*parts: bytes) -> list[Any]:
    parser = EventStreamParser()
    found = [data for part in parts for _, data in parser.feed(part)] + [data for _, data in parser.close()]
    return [json.loads(data) for data in found]


STREAM = (
    event("messageStart", b'{"role":"assistant"}') + event("contentBlockDelta", '{"x":"ü🙂"}'.encode()) + event("end")
)
EVENTS = [{"messageStart": {"role": "assistant"}}, {"contentBlockDelta": {"x": "ü🙂"}}, {"end": {}}]


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=40))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(STREAM)) for cut in cuts), len(STREAM)]

    assert read(*(STREAM[start:end] for start, end in pairwise(places))) == EVENTS


def test_one_byte_at_a_time_gives_the_same_events() -> None:
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == EVENTS


def test_what_we_write_the_vendors_own_parser_reads() -> None:
    written = write_event("event", "contentBlockDelta", {"text": "ü"}) + write_event(
        "exception", "throttlingException", {}
    )
    buffer = EventStreamBuffer()

    buffer.add_data(written)

    told = [(found.headers, json.loads(found.payload)) for found in buffer]
    assert told == [
        (
            {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"},
            {"text": "ü"},
        ),
        (
            {
                ":exception-type": "throttlingException",
                ":content-type": "application/json",
                ":message-type": "exception",
            },
            {},
        ),
    ]
    assert read(written) == [{"contentBlockDelta": {"text": "ü"}}, {"throttlingException": {}}]


def test_headers_of_every_type_are_passed_over() -> None:
    others = b"".join(
        header(f"h{kind}", b"x" * size, kind)
        for kind, size in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 5), (7, 5), (8, 8), (9, 16)]
    )

    assert read(message(others + header(":event-type", b"ping"), b"")) == [{"ping": {}}]


@pytest.mark.parametrize("at", range(len(event("end"))))
def test_a_flipped_bit_anywhere_breaks_the_stream_after_the_good_events(at: int) -> None:
    first, broken = event("messageStart"), bytearray(event("end"))
    broken[at] ^= 0x10
    parser = EventStreamParser()

    good = [data for _, data in parser.feed(first + bytes(broken))]

    assert good == [b'{"messageStart":{}}']
    with pytest.raises(ProviderBroke):
        parser.close()


@pytest.mark.parametrize("length", range(1, len(event("end"))))
def test_a_stream_cut_within_an_event_breaks(length: int) -> None:
    with pytest.raises(ProviderBroke):
        read(event("messageStart"), event("end")[:length])


@pytest.mark.parametrize(
    "lengths",
    [(0, 0), (15, 0), (16, 1), (2**32 - 1, 0), (MAX_EVENT_BYTES + 17, 0), (2**31, 2**31 - 16), (200_000, 150_000)],
)
def test_lengths_that_cannot_be_are_refused_before_anything_is_kept(lengths: tuple[int, int]) -> None:
    prelude = struct.pack(">II", *lengths)

    with pytest.raises(ProviderBroke):
        EventStreamParser().feed(prelude + struct.pack(">I", crc32(prelude)))


def test_the_largest_event_passes_and_one_byte_more_does_not() -> None:
    payload = b'"' + b"x" * (MAX_EVENT_BYTES - 2) + b'"'

    assert read(event("end", payload)) == [{"end": "x" * (MAX_EVENT_BYTES - 2)}]
    with pytest.raises(ProviderBroke):
        read(event("end", payload + b" "))


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        header(":event-type", b""),
        header(":event-type", b'x":1,"y'),
        header(":event-type", b"x" * 65),
        header(":event-type", b"end")[:-1],
        header(":event-type", b"end", 6),
        header(":event-type", b"end") + header("odd", b"", 10),
        header(":event-type", b"end") + b"\x05ab",
        header(":exception-type", b"end"),
    ],
)
def test_an_event_without_a_readable_name_breaks_the_stream(headers: bytes) -> None:
    with pytest.raises(ProviderBroke):
        read(message(headers))


def test_an_error_without_a_shape_is_a_refusal() -> None:
    headers = (
        header(":message-type", b"error") + header(":error-code", b"InternalError") + header(":error-message", b"oh")
    )

    with pytest.raises(ProviderRefused) as caught:
        read(message(headers, b""))

    assert (caught.value.upstream_code, caught.value.kind, str(caught.value)) == (500, "InternalError", "oh")


@settings(max_examples=300, deadline=None)
@given(junk=st.binary(max_size=200))
def test_junk_raises_nothing_but_provider_errors(junk: bytes) -> None:
    parser = EventStreamParser()

    try:
        parser.feed(junk)
        parser.close()
    except ProviderBroke:
        pass
    else:
        assert junk == b""


@settings(max_examples=300, deadline=None)
@given(head=st.binary(max_size=60), payload=st.binary(max_size=60))
def test_whatever_stands_in_a_whole_message_only_provider_errors_come_out(head: bytes, payload: bytes) -> None:
    parser = EventStreamParser()

    with suppress(ProviderBroke, ProviderRefused):
        parser.feed(message(head, payload))
