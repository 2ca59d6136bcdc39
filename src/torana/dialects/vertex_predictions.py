"""Vertex AI's predictions, the format of its embedding models, and of its text models of old.

Source: Vertex AI reference, "Text embeddings API" and "PaLM API for text", response body.
"""

from typing import Any

import msgspec

from torana.chat import Usage
from torana.dialects.bodies import decode_answer
from torana.dialects.embedding_dialect import EmbeddingDialect, EmbeddingsRequest, Vector, expect, texts_of
from torana.dialects.gemini_embeddings import TASKS
from torana.dialects.generate_content_errors import read_error
from torana.dialects.members import Members, finite, read_tokens
from torana.errors import ProviderBroke

PATH = "/v1/models:predict"
MAX_INPUTS = 250
"""Of the older models; Gemini's take one."""


class _Statistics(msgspec.Struct):
    token_count: Any = None


class _Embeddings(msgspec.Struct):
    statistics: _Statistics | None = None
    values: msgspec.Raw = msgspec.Raw(b"null")


class _Prediction(msgspec.Struct):
    embeddings: _Embeddings | None = None


class _Counts(msgspec.Struct, rename="camel"):
    total_tokens: Any = None


class _TokenMetadata(msgspec.Struct, rename="camel"):
    input_token_count: _Counts | None = None
    output_token_count: _Counts | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    token_metadata: _TokenMetadata | None = None


class _Answer(msgspec.Struct):
    predictions: list[_Prediction] | None = None
    metadata: _Metadata | None = None


_answers = msgspec.json.Decoder(_Answer, float_hook=finite)


def write_request(request: EmbeddingsRequest, _model: str) -> bytes:
    """What is too long is to be refused, not cut, which is what happens where nobody says so."""
    usual = {"task_type": TASKS[request.purpose]} if request.purpose else {}
    parameters: Members = {"autoTruncate": False}
    if request.dimensions is not None:
        parameters["outputDimensionality"] = request.dimensions
    rows = [{"content": text, **usual} for text in texts_of(request)]
    return msgspec.json.encode({"instances": rows, "parameters": parameters})


def read_answer(body: bytes, wanted: int) -> list[Vector]:
    found = [row.embeddings.values for row in decode_answer(_answers, body).predictions or () if row.embeddings]
    return expect((values for values in found if bytes(values) != b"null"), wanted)


def scan_answer(body: bytes) -> Usage | None:
    """What a relayed answer says it used; never raises."""
    try:
        answer = decode_answer(_answers, body)
    except ProviderBroke:
        return None
    tokens = answer.metadata.token_metadata if answer.metadata is not None else None
    if tokens is not None:
        taken, given = (
            read_tokens(counts.total_tokens) if counts is not None else 0
            for counts in (tokens.input_token_count, tokens.output_token_count)
        )
        return None if taken is None or given is None else Usage(taken, given)
    rows = [row.embeddings for row in answer.predictions or () if row.embeddings is not None]
    counted = [read_tokens(row.statistics.token_count) for row in rows if row.statistics is not None]
    told = [count for count in counted if count is not None]
    return Usage(sum(told)) if told and len(told) == len(rows) else None


def said_in(body: bytes) -> str:
    """Vectors say nothing; what else is predicted has a form for each kind of model, and counts whole. Raises
    ProviderBroke."""
    has_vectors = any(row.embeddings is not None for row in decode_answer(_answers, body).predictions or ())
    return "" if has_vectors else body.decode(errors="replace")


VERTEX_EMBEDDINGS = EmbeddingDialect(
    path=PATH,
    most_inputs=lambda model: 1 if model.startswith("gemini-") else MAX_INPUTS,
    write_request=write_request,
    read_answer=read_answer,
    read_usage=lambda body, _headers: scan_answer(body),
    read_error=read_error,
    cuts=True,
)
