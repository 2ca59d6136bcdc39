"""What a format of embeddings is: texts in, vectors out, as pure functions; nothing streams."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from torana.chat import Usage
from torana.dialects.bodies import decode_answer
from torana.dialects.members import finite
from torana.errors import Invalid, ProviderBroke, ProviderRefused

Encoding = Literal["float", "base64"]
Purpose = Literal["", "index", "search"]
"""What the vectors are for: to be found, or to find by. Some vendors' models make different ones."""
Input = str | tuple[int, ...]
"""One text, or one text as the numbers of its tokens."""
Vector = list[float] | msgspec.Raw
"""Numbers, or their JSON as its vendor wrote it: to read and write them anew takes three times as long."""

MAX_DIMENSIONS = 4_096
"""No vendor's vectors are longer; with the bound on texts it caps what an answer weighs."""


_NUMBERS = b"0123456789+-.eE, \t\r\n"
_numbers = msgspec.json.Decoder(list[float])
_odd_numbers = msgspec.json.Decoder(list[Any], float_hook=finite)


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
    read_answer: Callable[[bytes, int], list[Vector]]
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


def expect(vectors: Iterable[msgspec.Raw], wanted: int) -> list[Vector]:
    """The vectors; raises ProviderBroke where they are not as many as the texts, or one of them is none."""
    found = [_sound(vector) for vector in vectors]
    if len(found) != wanted:
        raise ProviderBroke(f"{len(found)} vectors for {wanted} inputs")
    return found


def _sound(vector: msgspec.Raw) -> Vector:
    """As it came, where it holds nothing but numbers: that it is JSON was seen when it was cut out."""
    said = bytes(vector)
    is_plain = said.translate(None, _NUMBERS) == b"[]" and said[:1] == b"["
    if not is_plain or any(map(_may_be_huge, said.replace(b"E", b"e").split(b"e")[1:])):
        return _read_odd(said)
    return vector


def _read_odd(said: bytes) -> list[float]:
    """Raises ProviderBroke for what are no numbers."""
    with suppress(msgspec.ValidationError, OverflowError):
        return msgspec.convert(decode_answer(_odd_numbers, said), list[float])
    raise ProviderBroke("a vector of something else than numbers")


def _may_be_huge(exponent: bytes) -> bool:
    """Three digits may be more than numbers hold."""
    return exponent[:4].lstrip(b"+")[:3].isdigit()


def numbers_of(vector: Vector) -> list[float]:
    """Raises ProviderBroke for what are none."""
    return vector if isinstance(vector, list) else decode_answer(_numbers, bytes(vector))


def of_length_one(vectors: Sequence[Vector]) -> list[list[float]]:
    """The same directions; what has length 1, as far as such numbers can tell, or none stays as it is."""
    rows = [numbers_of(vector) for vector in vectors]
    lengths = [math.hypot(*vector) for vector in rows]
    return [
        vector if abs(length - 1) < 1e-6 or not 0 < length < math.inf else [each / length for each in vector]
        for vector, length in zip(rows, lengths, strict=True)
    ]
