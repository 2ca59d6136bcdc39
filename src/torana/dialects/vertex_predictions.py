"""Vertex AI's predictions, the format of its older text and embedding models: what an answer says it used.

Source: Vertex AI reference, "Text embeddings API" and "PaLM API for text", response body.
"""

from typing import Any

import msgspec

from torana.chat import Usage
from torana.dialects.members import decode_answer, read_tokens
from torana.errors import ProviderBroke


class _Statistics(msgspec.Struct):
    token_count: Any = None


class _Embeddings(msgspec.Struct):
    statistics: _Statistics | None = None


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


_answers = msgspec.json.Decoder(_Answer)


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
