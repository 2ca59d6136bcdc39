"""Requests that are turned away unread: whether the next one may follow must not depend on who reads them."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torana.api.heads import Head

STARTS = [
    b"POST / HTTP/1.1",
    b"GET / HTTP/1.1",
    b"POST / HTTP/1.0",
    b"POST /",
    b"\r\nGET / HTTP/1.1",
    b"PUT  / HTTP/1.1",
    b"get / HTTP/1.1",
]
FRAGMENTS = [
    b"Host: x",
    b"Content-Length: 3",
    b"content-length:3",
    b"Content-Length: 5",
    b"Content-Length: +3",
    b"Content-Length: 0x3",
    b"Content-Length: 3, 3",
    b"Content-Length : 3",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tgzip",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Upgrade: h2c",
    b" folded: 1",
    b"X: a\nContent-Length: 3",
    b"X: \xff\x00",
    b"A: b\r",
    b": empty",
    b"no colon",
]
BODIES = [b"", b"abc", b"abcde", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"abcGET / HTTP/1.1\r\n\r\n"]


def seen(data: bytes) -> Head:
    """A head that was looked at closely."""
    head = Head(data)
    head.look_closer(data)
    return head


def is_whole(data: bytes) -> bool:
    return seen(data).is_whole


class Messages:
    """What the server's own parser makes of bytes."""

    def __init__(self) -> None:
        self.begun = 0
        self.whole = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


@given(st.sampled_from(STARTS), st.lists(st.sampled_from(FRAGMENTS), max_size=4), st.sampled_from(BODIES))
def test_what_passes_for_whole_is_exactly_one_request_to_the_parser(
    start: bytes, fragments: list[bytes], body: bytes
) -> None:
    data = b"\r\n".join([start, *fragments, b"", b""]) + body
    if not is_whole(data):
        return
    messages = Messages()
    parser = httptools.HttpRequestParser(messages)

    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        pytest.fail("the parser refuses it")

    assert (messages.begun, messages.whole) == (1, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
    ],
)
def test_plain_requests_pass_for_whole(data: bytes) -> None:
    assert is_whole(data)
    assert not is_whole(data[:-1])
    assert not is_whole(data + b"G")
    assert not is_whole(data + b"\r\n")  # which the parser passes over


VALUES = [b"3", b"5", b"+3", b"0", b"03", b"3 ", b"0123456789abcdef", b"fedcba9876543210", b"a\r\nX: yz90123456"]


def request(length: bytes, request_id: bytes, body: bytes, middle: bytes = b"Authorization: Bearer t") -> bytes:
    lines = [b"POST /x HTTP/1.1", b"Content-Length: " + length, middle, b"X-Request-Id: " + request_id]
    return b"\r\n".join([*lines, b"", b""]) + body


@given(
    st.sampled_from(VALUES),
    st.sampled_from(VALUES),
    st.sampled_from(BODIES),
    st.sampled_from([b"Authorization: Bearer t", b"Authorization: Bearer u", b"Transfer-Encoding: chunked"]),
)
def test_a_head_that_is_known_again_is_read_as_if_it_were_new(
    length: bytes, request_id: bytes, body: bytes, middle: bytes
) -> None:
    head = seen(request(b"3", b"0123456789abcdef", b"abc"))
    data = request(length, request_id, body, middle)
    if not head.fits(data):
        return
    anew = seen(data)

    found = [(each.is_whole, each.request_id, each.token, each.body_bytes) for each in (head, anew)]
    assert found[0] == found[1]


def test_a_head_is_known_again_with_another_id_and_another_body() -> None:
    head = seen(request(b"3", b"0123456789abcdef", b"abc"))

    assert head.fits(request(b"5", b"fedcba9876543210", b"abcde"))
    assert (head.request_id, head.is_whole) == (b"fedcba9876543210", True)
    assert head.fits(request(b"5", b"fedcba9876543210", b"abcdefGET / HTTP/1.1\r\n\r\n"))
    assert not head.is_whole


@pytest.mark.parametrize(
    ("line", "body_bytes"),
    [
        (b"Content-Length: 8388608", 8_388_608),
        (b"content-length:7 ", 7),
        (b"Content-Length: +7", 0),
        (b"Transfer-Encoding: chunked", 0),
    ],
)
def test_a_head_tells_how_long_a_body_is_that_has_not_come(line: bytes, body_bytes: int) -> None:
    assert Head(b"POST / HTTP/1.1\r\n" + line + b"\r\n\r\n{").body_bytes == body_bytes


def test_a_head_that_was_no_whole_request_is_looked_at_each_time() -> None:
    data = request(b"5", b"0123456789abcdef", b"abc")

    assert not seen(data).fits(data)


def test_a_head_that_was_only_glanced_at_is_looked_at_anew() -> None:
    data = request(b"3", b"0123456789abcdef", b"abc")

    assert not Head(data).fits(data)


@pytest.mark.parametrize(
    ("line", "is_whole"),
    [
        (b"Connection: keep-alive", True),
        (b"Connection: Keep-Alive ", True),
        (b"Connection: keep-alive, upgrade", False),
        (b"Connection: close", False),
    ],
)
def test_a_client_that_asks_for_what_it_gets_anyway_keeps_its_connection(line: bytes, is_whole: bool) -> None:
    assert is_whole == seen(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n").is_whole
