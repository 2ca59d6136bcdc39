"""What vendors answer to a request for vectors, read in one go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torana.chat import Usage
from torana.dialects.embedding_dialect import EmbeddingDialect, EmbeddingsRequest, Vector, of_length_one
from torana.dialects.embeddings import check_answer
from torana.dialects.passing import sound_answer


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings, in the order of what was embedded."""

    rows: Sequence[Vector]
    usage: Usage | None
    """None where the provider told none."""
    raw: bytes = b""
    """The answer as it came, in place of `rows`, for a request that passed as its client wrote it."""


def pass_vectors(dialect: EmbeddingDialect, wanted: int, said: bytes) -> Vectors:
    """The answer as it came, for a client that speaks its dialect; raises ProviderBroke."""
    check_answer(said, wanted)
    return Vectors([], dialect.read_usage(said, {}), sound_answer(said))


def read_vectors(
    dialect: EmbeddingDialect, asked: EmbeddingsRequest, headers: Mapping[str, str], said: bytes
) -> Vectors:
    """A vector for each text; raises ProviderBroke."""
    rows: Sequence[Vector] = dialect.read_answer(said, len(asked.inputs))
    if dialect.cuts and asked.dimensions is not None:
        # OpenAI's have it, and clients that speak its format count on it: their product is their likeness.
        rows = of_length_one(rows)
    return Vectors(rows, dialect.read_usage(said, headers))
