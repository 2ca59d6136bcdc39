"""OpenAI's embeddings, which clients speak too. Source: OpenAI API reference, "Embeddings"."""

import base64
import struct
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from torana.chat import Usage
from torana.dialects import openai_style
from torana.dialects.bodies import decode_answer, decode_request
from torana.dialects.embedding_dialect import (
    EmbeddingDialect,
    EmbeddingsRequest,
    Encoding,
    Input,
    Vector,
    expect,
    numbers_of,
)
from torana.dialects.members import Members, find_text, find_whole, need_text
from torana.errors import Invalid, ProviderBroke

PATH = "/v1/embeddings"
MAX_INPUTS = 2_048
"""Texts in one request of a client's. Source: OpenAI API reference, "Create embeddings"."""
PART_INPUTS = 256
"""Texts in one request of ours: their vectors are 29 MB of JSON at most, and more is not read."""


class _Row(msgspec.Struct):
    embedding: msgspec.Raw
    index: int | None = None
    """Gemini's server of this format leaves a zero out, others all of them; some write nothing but zeros."""


class _Answer(msgspec.Struct):
    data: list[_Row]


class _Glance(msgspec.Struct):
    data: list[msgspec.Raw]


_answers = msgspec.json.Decoder(_Answer)
_glances = msgspec.json.Decoder(_Glance)


def read_request(body: bytes) -> tuple[EmbeddingsRequest, str]:
    """A body of POST /v1/embeddings → (request, model); raises Invalid."""
    members = decode_request(body)
    model = need_text(members, "model")
    encoding = find_text(members, "encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise Invalid(("encoding_format",), "Input should be 'float' or 'base64'", "literal_error")
    request = EmbeddingsRequest(
        inputs=_read_inputs(members),
        dimensions=find_whole(members, "dimensions"),
        encoding="base64" if encoding == "base64" else "float",
        user=find_text(members, "user"),
    )
    return request, model


def _read_inputs(members: Members) -> tuple[Input, ...]:
    """A text, texts, the tokens of one text, or of several."""
    if "input" not in members:
        raise Invalid(("input",), "Field required", "missing")
    value = members["input"]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise Invalid(("input",), "Input should be a string or a list", "list_type")
    if not value:
        raise Invalid(("input",), "List should have at least 1 item", "too_short")
    if all(isinstance(text, str) for text in value):
        return tuple(value)
    rows = [value] if all(_is_token(token) for token in value) else value
    for at, row in enumerate(rows):
        if not isinstance(row, list) or not row or not all(_is_token(token) for token in row):
            raise Invalid(("input", at), "Input should be strings or lists of tokens", "list_type")
    return tuple(tuple(row) for row in rows)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def write_request(request: EmbeddingsRequest, model: str) -> bytes:
    """The body that asks `model`; always for plain numbers, which every server can give."""
    members: Members = {"model": model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        members["dimensions"] = request.dimensions
    if request.user:
        members["user"] = request.user
    return msgspec.json.encode(members)


def read_answer(body: bytes, wanted: int) -> list[Vector]:
    """One vector for each of the `wanted` inputs, in their order; raises ProviderBroke."""
    rows = decode_answer(_answers, body).data
    numbers = [row.index or 0 for row in rows]
    if not any(numbers):
        numbers = list(range(len(rows)))  # as they came
    if sorted(numbers) != list(range(wanted)):
        raise ProviderBroke(f"{len(rows)} vectors for {wanted} inputs, or misnumbered ones")
    in_order = sorted(zip(numbers, rows, strict=True), key=lambda each: each[0])
    return expect((row.embedding for _, row in in_order), wanted)


def check_answer(body: bytes, wanted: int) -> None:
    """Raises ProviderBroke unless there is a vector, in whatever form, for each of the `wanted` inputs."""
    rows = decode_answer(_glances, body).data
    if len(rows) != wanted:
        raise ProviderBroke(f"{len(rows)} vectors for {wanted} inputs")


def write_answer(vectors: Sequence[Vector], model: str, usage: Usage, encoding: Encoding = "float") -> bytes:
    """One JSON answer. In base64 a vector is its numbers as little-endian 32-bit floats; raises ProviderBroke for what
    is none."""
    data = [
        {"object": "embedding", "index": at, "embedding": _pack(vector) if encoding == "base64" else vector}
        for at, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": counts})


def _pack(vector: Vector) -> str:
    numbers = numbers_of(vector)
    try:
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except OverflowError:
        raise ProviderBroke("a vector of numbers that none has") from None


def scan_answer(body: bytes) -> Usage | None:
    """What an answer says it used; never raises. There is no output."""
    usage = openai_style.scan_answer(body)
    return usage and replace(usage, output_tokens=0, reasoning_tokens=0, is_counted=False)


def _read_usage(body: bytes, _headers: Mapping[str, str]) -> Usage | None:
    return scan_answer(body)


read_error = openai_style.read_error

OPENAI_EMBEDDINGS = EmbeddingDialect(
    path=PATH,
    most_inputs=lambda _model: PART_INPUTS,
    write_request=write_request,
    read_answer=read_answer,
    read_usage=_read_usage,
    read_error=read_error,
    takes_source=True,
)
