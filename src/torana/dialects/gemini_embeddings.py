"""The Gemini API's embeddings.

Source: Gemini API reference, "batchEmbedContents"; "Embeddings", task types, and "Ensuring quality for smaller
dimensions": vectors of gemini-embedding-001 have length 1 only where they are whole.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from torana.chat import Usage
from torana.dialects.bodies import decode_answer
from torana.dialects.embedding_dialect import EmbeddingDialect, EmbeddingsRequest, Purpose, Vector, expect, texts_of
from torana.dialects.generate_content_errors import read_error
from torana.dialects.members import Members, finite, read_tokens
from torana.errors import ProviderBroke

PATH = "/v1beta/models:batchEmbedContents"
MAX_INPUTS = 100

TASKS: dict[Purpose, str] = {"index": "RETRIEVAL_DOCUMENT", "search": "CODE_RETRIEVAL_QUERY"}
"""Google's words for it; code is searched among documents."""


class _Vector(msgspec.Struct):
    values: msgspec.Raw


class _Counts(msgspec.Struct, rename="camel"):
    prompt_token_count: Any = None


class _Answer(msgspec.Struct, rename="camel"):
    embeddings: list[_Vector]


class _Glance(msgspec.Struct, rename="camel"):
    usage_metadata: _Counts | None = None


_answers = msgspec.json.Decoder(_Answer)
_glances = msgspec.json.Decoder(_Glance, float_hook=finite)


def write_request(request: EmbeddingsRequest, model: str) -> bytes:
    """One request for each text; each names the model once more."""
    usual: Members = {"model": f"models/{model}"}
    if request.purpose:
        usual["taskType"] = TASKS[request.purpose]
    if request.dimensions is not None:
        usual["outputDimensionality"] = request.dimensions
    rows = [{**usual, "content": {"parts": [{"text": text}]}} for text in texts_of(request)]
    return msgspec.json.encode({"requests": rows})


def read_answer(body: bytes, wanted: int) -> list[Vector]:
    return expect((row.values for row in decode_answer(_answers, body).embeddings), wanted)


def read_usage(body: bytes, _headers: Mapping[str, str]) -> Usage | None:
    """Newer models tell it."""
    try:
        counts = decode_answer(_glances, body).usage_metadata
    except ProviderBroke:
        return None
    tokens = read_tokens(counts.prompt_token_count) if counts is not None else None
    return None if tokens is None else Usage(tokens)


GEMINI_EMBEDDINGS = EmbeddingDialect(
    path=PATH,
    most_inputs=lambda _model: MAX_INPUTS,
    write_request=write_request,
    read_answer=read_answer,
    read_usage=read_usage,
    read_error=read_error,
    cuts=True,
)
