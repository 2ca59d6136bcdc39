"""Tokens that nobody has counted: how many a text, or a whole request, is about."""

import base64
import json
from random import Random
from typing import Any

import pytest

from torana.counting import BYTES_PER_TOKEN, IMAGE_TOKENS, estimate_body

BEGINNINGS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x01\x02\x03WEBP",
}
AUDIO = b"RIFF\x00\x01\x02\x03WAVE"


def base64_of(beginning: bytes, size: int = 60_000) -> str:
    return base64.b64encode(beginning + Random(1).randbytes(size)).decode()


def anthropic(kind: str, data: str) -> Any:
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def openai(kind: str, data: str) -> Any:
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def google(kind: str, data: str) -> Any:
    return {"inlineData": {"mimeType": kind, "data": data}}


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.parametrize("write", [anthropic, openai, google])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_pictures_in_a_request_are_counted_as_vendors_do(kind: str, write: Any, separators: Any) -> None:
    picture = write(kind, base64_of(BEGINNINGS[kind]))
    body = json.dumps({"content": ["Hi" * 350, picture, "and", picture]}, separators=separators).encode()

    assert 2 * IMAGE_TOKENS + 200 <= estimate_body(body) <= 2 * IMAGE_TOKENS + 320


@pytest.mark.parametrize(
    "content",
    [
        "x" * 60_000,
        "Hello, world. " * 5_000,
        "ab\n" * 20_000,
        "",
        openai("audio/wav", base64_of(AUDIO)),
        anthropic("application/pdf", base64_of(b"%PDF-1.7")),
        json.dumps(anthropic("image/png", base64_of(BEGINNINGS["image/png"]))),  # told in a text
        json.dumps(openai("image/png", base64_of(BEGINNINGS["image/png"]))),
        anthropic("image/png", base64_of(BEGINNINGS["image/png"], 300)),
    ],
)
def test_everything_else_is_counted_by_its_bytes(content: Any) -> None:
    body = json.dumps({"content": content}).encode()

    assert estimate_body(body) == int(len(body) / BYTES_PER_TOKEN)


def test_a_request_that_is_cut_in_a_picture_is_counted_by_its_bytes() -> None:
    body = json.dumps(anthropic("image/png", base64_of(BEGINNINGS["image/png"]))).encode()[:-5]

    assert estimate_body(body) == int(len(body) / BYTES_PER_TOKEN)
