"""Token estimates without a tokenizer: what windows, limits and uncounted answers are measured with."""

import math

BYTES_PER_TOKEN = 3.5
"""Between source code (about 3 bytes of UTF-8 per token) and English prose (about 4.5)."""
IMAGE_TOKENS = 1_600
"""About what vendors count for a picture of usual size, which they scale down to."""

_STRIDE, _RUN = 8_192, 2_048
"""Smaller pictures than both together take about as many tokens by their bytes."""
_BEFORE_PICTURES = (b'"data":"', b";base64,", b'"data": "')
"""Anthropic's and Google's blocks; behind `"data:image/png`, OpenAI's. In a text, quotes would be escaped."""
_MOST_LOOKS = 1_000
"""More pictures no vendor takes."""
_PICTURES = (b"iVBORw0KGg", b"/9j/", b"R0lGOD")
"""PNG, JPEG, GIF in base64."""


def estimate_tokens(text: str) -> int:
    """Roughly how many tokens `text` is; 0 for empty text, never 0 otherwise."""
    return math.ceil(count_bytes(text) / BYTES_PER_TOKEN)


def count_bytes(text: str) -> int:
    """Length in UTF-8; costs nothing for ASCII."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def bytes_of(tokens: int) -> int:
    """How many bytes fit into `tokens`; the inverse of `estimate_tokens`, rounded down."""
    return int(tokens * BYTES_PER_TOKEN)


def estimate_body(body: bytes) -> int:
    """Roughly how many tokens a vendor counts for a request's JSON: for each picture as it does, else by the bytes."""
    size, pictures = len(body), 0
    if size > _STRIDE + _RUN and _has_long_run(body):
        pictures, taken = _find_pictures(body)
        size -= taken
    return int(size / BYTES_PER_TOKEN) + pictures * IMAGE_TOKENS


def _has_long_run(body: bytes) -> bool:
    """Whether letters stand there, far and wide without a blank or a quote, as only base64 does: a look here and there
    takes a hundredth of the time that a search takes."""
    find, places = body.find, range(0, len(body) - _RUN, _STRIDE)
    return any(max(find(b'"', at, at + _RUN), find(b" ", at, at + _RUN)) < 0 for at in places)


def _find_pictures(body: bytes) -> tuple[int, int]:
    """(how many, their bytes)"""
    count = taken = 0
    for before in _BEFORE_PICTURES:
        end = 0
        for _ in range(_MOST_LOOKS):
            at = body.find(before, end)
            if at < 0:
                break
            start = end = at + len(before)
            is_data = before != b";base64," or _begins_a_picture(body, at)
            is_webp = body[start + 12 : start + 16] == b"RUJQ" and body.startswith(b"UklGR", start)
            if is_data and (is_webp or body.startswith(_PICTURES, start)):
                end = body.find(b'"', start)
                if end < 0:
                    break
                count, taken = count + 1, taken + end - start
        if count:
            break  # a request has one way to write them
    return count, taken


def _begins_a_picture(body: bytes, at: int) -> bool:
    """Whether `"data:image/…` stands before `at`, and in no text."""
    quote = body.rfind(b'"data:image/', max(0, at - 40), at)
    return quote > 0 and body[quote - 1] != ord("\\")
