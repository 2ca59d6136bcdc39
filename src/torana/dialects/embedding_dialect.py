"""What a format of embeddings is: texts in, vectors out, as pure functions; nothing streams."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from torana.chat import Usage
from torana.errors import Invalid, ProviderBroke, ProviderRefused

Encoding = Literal["float", "base64"]
Purpose = Literal["", "index", "search"]
"""What the vectors are for: to be found, or to find by. Some vendors' models make different ones."""
Input = str | tuple[int, ...]
"""One text, or one text as the numbers of its tokens."""

MAX_DIMENSIONS = 4_096
"""No vendor's vectors are longer; with the bound on texts it caps what an answer weighs."""


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[Input, ...]
    dimensions: int | None = None
    """Length of each vector, where the model lets one choose."""
    encoding: Encoding = "float"
    user: str = ""
    purpose: Purpose = ""
    source: bytes = b""
    """The body as its client wrote it, for providers that speak its dialect; empty: written anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingDialect:
    """A format that providers of vectors speak.

    most_inputs    model → texts that it takes in one request
    write_request  the body that asks a model; raises Invalid for what it cannot be told
    read_answer    (body, number of texts) → a vector for each, in their order; raises ProviderBroke
    read_usage     (body, headers) → what an answer says it used; None where it does not say
    read_error     (status, body) → the error, whatever the body is
    """

    path: str
    """Tells a provider what is asked; vendors that name the model in the path have their own."""
    most_inputs: Callable[[str], int]
    write_request: Callable[[EmbeddingsRequest, str], bytes]
    read_answer: Callable[[bytes, int], list[list[float]]]
    read_usage: Callable[[bytes, Mapping[str, str]], Usage | None]
    read_error: Callable[[int, bytes], ProviderRefused]
    cuts: bool = False
    """A vector of a length that was asked for is the beginning of a longer one, as it stood there."""
    takes_source: bool = False
    """A client's bytes go on as they came, with the model's name replaced."""


def texts_of(request: EmbeddingsRequest) -> list[str]:
    """The inputs; raises Invalid for numbers of tokens, which mean something to one vendor's models alone."""
    for at, each in enumerate(request.inputs):
        if not isinstance(each, str):
            raise Invalid(("input", at), "This model takes texts, and no tokens", "string_type")
    return [str(each) for each in request.inputs]


def expect(vectors: list[list[float]], wanted: int) -> list[list[float]]:
    """The vectors; raises ProviderBroke where they are not as many as the texts."""
    if len(vectors) != wanted:
        raise ProviderBroke(f"{len(vectors)} vectors for {wanted} inputs")
    return vectors


def of_length_one(vectors: list[list[float]]) -> list[list[float]]:
    """The same directions; what has length 1, as far as such numbers can tell, or none stays as it is."""
    lengths = [math.hypot(*vector) for vector in vectors]
    return [
        vector if abs(length - 1) < 1e-6 or not 0 < length < math.inf else [each / length for each in vector]
        for vector, length in zip(vectors, lengths, strict=True)
    ]
