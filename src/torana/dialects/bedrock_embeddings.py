"""Embeddings on Bedrock: Amazon's Titan, which takes one text at a time, and Cohere's models.

Source: Amazon Bedrock user guide, "Amazon Titan Embeddings Text" and "Cohere Embed v3", "Cohere Embed v4";
API reference, "InvokeModel".
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from torana.chat import Usage
from torana.dialects.bodies import decode_answer
from torana.dialects.converse_answers import read_error
from torana.dialects.embedding_dialect import EmbeddingDialect, EmbeddingsRequest, Purpose, Vector, expect, texts_of
from torana.dialects.members import Members, finite, read_tokens
from torana.errors import Invalid, ProviderBroke

PATH = "/invoke"
MAX_COHERE_INPUTS = 96

COUNT_HEADER = "x-amzn-bedrock-input-token-count"

_KINDS: dict[Purpose, str] = {"": "search_document", "index": "search_document", "search": "search_query"}


class _Titan(msgspec.Struct, rename="camel"):
    embedding: msgspec.Raw


class _Count(msgspec.Struct, rename="camel"):
    input_text_token_count: Any = None


class _Floats(msgspec.Struct):
    float: list[msgspec.Raw]


class _Cohere(msgspec.Struct):
    embeddings: list[msgspec.Raw] | _Floats
    """By kind, where kinds were asked for."""


_titan = msgspec.json.Decoder(_Titan)
_counts = msgspec.json.Decoder(_Count, float_hook=finite)
_cohere = msgspec.json.Decoder(_Cohere)


def embeddings_of(model: str) -> EmbeddingDialect | None:
    """The format of a model, by its name; None for one that is not known to make vectors."""
    if "titan-embed" in model:
        return TITAN_EMBEDDINGS
    return COHERE_EMBEDDINGS if "cohere.embed" in model else None


def _write_titan(request: EmbeddingsRequest, model: str) -> bytes:
    (text,) = texts_of(request)
    members: Members = {"inputText": text}
    if request.dimensions is not None:
        _check_length(model, is_free="titan-embed-text-v1" not in model)
        members["dimensions"] = request.dimensions
    return msgspec.json.encode(members)


def _write_cohere(request: EmbeddingsRequest, model: str) -> bytes:
    members: Members = {"texts": texts_of(request), "input_type": _KINDS[request.purpose], "truncate": "NONE"}
    members["embedding_types"] = ["float"]
    if request.dimensions is not None:
        _check_length(model, is_free="-v3" not in model)
        members["output_dimension"] = request.dimensions
    return msgspec.json.encode(members)


def _check_length(model: str, *, is_free: bool) -> None:
    """Raises Invalid where the model leaves no choice."""
    if not is_free:
        raise Invalid(("dimensions",), f"The vectors of {model[:80]} have one length")


def _read_titan(body: bytes, wanted: int) -> list[Vector]:
    return expect([decode_answer(_titan, body).embedding], wanted)


def _read_cohere(body: bytes, wanted: int) -> list[Vector]:
    found = decode_answer(_cohere, body).embeddings
    return expect(found.float if isinstance(found, _Floats) else found, wanted)


def _read_usage(body: bytes, headers: Mapping[str, str]) -> Usage | None:
    told = headers.get(COUNT_HEADER, "")
    if told.isascii() and told.isdigit() and len(told) < 10:
        return Usage(int(told))
    try:
        tokens = read_tokens(decode_answer(_counts, body).input_text_token_count)
    except ProviderBroke:
        return None
    return None if tokens is None else Usage(tokens)


_on_bedrock = partial(EmbeddingDialect, path=PATH, read_usage=_read_usage, read_error=read_error)

TITAN_EMBEDDINGS = _on_bedrock(most_inputs=lambda _model: 1, write_request=_write_titan, read_answer=_read_titan)
COHERE_EMBEDDINGS = _on_bedrock(
    most_inputs=lambda _model: MAX_COHERE_INPUTS, write_request=_write_cohere, read_answer=_read_cohere
)
