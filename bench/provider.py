"""A mock provider that costs so little that whoever stands before it is what gets measured.

Both dialects, one JSON answer of about 1 KB or a stream of server-sent events. A model name tells the
stream's shape: `…-e200-p5` means 200 events, 5 ms apart; `…-w50-c20` is a provider that takes 20 calls at a time,
and 50 ms for each. Run: python -m bench.provider PORT
"""

import asyncio
import json
import re
import sys
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

_HEAD_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_HEAD_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_STREAMS = re.compile(rb'"stream"\s*:\s*true')
_SHAPE = re.compile(rb"-e(\d+)-p(\d+)")
_NARROW = re.compile(rb"-w(\d+)-c(\d+)")
# Code, as code completions are: parsing prose as code is all error recovery and would be what is measured.
_TEXT = (
    "first, second, third):\n" + "    total = first + second + third\n    print(total)\n" * 14 + "    return total\n"
)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _whole(value: object) -> bytes:
    body = _json(value)
    return _HEAD_JSON % (len(body), body)


def _event(value: object, name: str = "") -> bytes:
    body = (f"event: {name}\n".encode() if name else b"") + b"data: " + _json(value) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(body), body)


def _chunk(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-bench", "choices": [choice], **more}
    )


_USAGE = {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400}
_CHAT = _whole(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
)
_MESSAGES = _whole(
    {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude-bench",
        "content": [{"type": "text", "text": _TEXT}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 200, "output_tokens": 200},
    }
)
_CHAT_EVENT = _chunk({"content": "some words of it "})
_CHAT_END = _chunk({}, "stop", usage=_USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_MESSAGES_START = _event(
    {
        "type": "message_start",
        "message": {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "claude-bench",
            "content": [],
            "usage": {"input_tokens": 200, "output_tokens": 1},
        },
    },
    "message_start",
) + _event(
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, "content_block_start"
)
_MESSAGES_EVENT = _event(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "some words of it "}},
    "content_block_delta",
)
_MESSAGES_END = (
    _event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    + _event(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 200}},
        "message_delta",
    )
    + _event({"type": "message_stop"}, "message_stop")
    + b"0\r\n\r\n"
)


class Places:
    """So many at a time; the others wait, in order."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        if self._free:
            self._free -= 1
            begin()
        else:
            self._waiting.append(begin)

    def leave(self) -> None:
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


PLACES: dict[int, Places] = {}


class Provider(asyncio.Protocol):
    """One connection; no pipelining, as no gateway pipelines."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url
        self._body = []

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        assert self._transport is not None
        body = b"".join(self._body)
        is_messages = self._url.endswith(b"/messages")
        if not _STREAMS.search(body):
            self._answer(_MESSAGES if is_messages else _CHAT, _NARROW.search(body))
            return
        shape = _SHAPE.search(body)
        events, pace_ms = (int(shape[1]), int(shape[2])) if shape else (20, 0)
        self._transport.write(_HEAD_STREAM + (_MESSAGES_START if is_messages else b""))
        event, end = (_MESSAGES_EVENT, _MESSAGES_END) if is_messages else (_CHAT_EVENT, _CHAT_END)
        self._stream(event, end, events, pace_ms / 1000)

    def _answer(self, whole: bytes, narrow: re.Match[bytes] | None) -> None:
        if narrow is None:
            self._write(whole)
            return
        places = PLACES.setdefault(int(narrow[2]), Places(int(narrow[2])))

        def end() -> None:
            self._write(whole)
            places.leave()

        def begin() -> None:
            self._loop.call_later(int(narrow[1]) / 1000, end)

        places.enter(begin)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _stream(self, event: bytes, end: bytes, left: int, pace_s: float) -> None:
        if self._transport is None:
            return
        if left == 0:
            self._transport.write(end)
            return
        self._transport.write(event)
        self._loop.call_later(pace_s, self._stream, event, end, left - 1, pace_s)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
