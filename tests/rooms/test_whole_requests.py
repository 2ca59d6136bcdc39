"""Requests that are turned away unread: whether the next one may follow must not depend on who reads them."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torana.api.connection import is_whole_request

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
    if not is_whole_request(data):
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
    assert is_whole_request(data)
    assert not is_whole_request(data[:-1])
    assert not is_whole_request(data + b"G")
