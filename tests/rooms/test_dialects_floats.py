"""Numbers of other people's JSON: read by what takes about as long for each, and read as they stand there."""

import importlib
import json
import pkgutil
from typing import Any

import msgspec
import pytest

import torana.dialects
from torana.api.judged import JudgedReader
from torana.dialects.bodies import decode_request
from torana.dialects.embedding_dialect import expect, numbers_of
from torana.dialects.members import finite
from torana.errors import Invalid, ProviderBroke

NUMBERS = [
    *("0.0", "-0.0", "1.5", "1E5", "1e-7", "0.1", "3.141592653589793", "12345678901234567890.5", "9007199254740993.0"),
    *("1e23", "1e288", "1e289", "1e308", "1.7976931348623157e308", "1e-307", "1e-308", "5e-324", "1e-400"),
    *("2.2250738585072011e-308", "0." + "0" * 300 + "1" * 100, "0." + "9" * 800),
]


def decoders() -> list[tuple[str, msgspec.json.Decoder[Any]]]:
    modules = [
        importlib.import_module(f"torana.dialects.{found.name}")
        for found in pkgutil.iter_modules(torana.dialects.__path__)
    ]
    return [
        (f"{module.__name__}.{name}", value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, msgspec.json.Decoder)
    ]


def takes_anything(decoder: msgspec.json.Decoder[Any]) -> bool:
    return "AnyType" in repr(msgspec.inspect.type_info(decoder.type))


def test_every_decoder_that_takes_what_it_finds_reads_each_number_at_one_price() -> None:
    taking = [(name, decoder) for name, decoder in decoders() if takes_anything(decoder)]

    assert len(taking) > 20
    assert [name for name, decoder in taking if decoder.float_hook is not finite] == []


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_read_as_it_stands_there(text: str) -> None:
    said = b'{"a":[%s]}' % text.encode()

    assert repr(decode_request(said)) == repr(json.loads(said))


@pytest.mark.parametrize("text", ["1e309", "-1e309", "1e400", "1e99999", "9" * 400 + ".5"])
def test_a_number_that_no_float_can_hold_is_no_json(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode_request(b'{"a":[%s]}' % text.encode())

    assert refused.value.type == "json_invalid"


def test_the_gate_reads_odd_numbers_of_what_it_looks_at() -> None:
    assert JudgedReader().read(b'{"model":[1e300,5e-324],"x":1e400}') == {"model": [1e300, 5e-324]}


def test_a_vector_of_odd_numbers_is_one() -> None:
    (vector,) = expect([msgspec.Raw(b"[1e300, 5e-324, 1, -2.5E+3]")], 1)

    assert numbers_of(vector) == [1e300, 5e-324, 1.0, -2500.0]


@pytest.mark.parametrize("said", [b"[1e400]", b"[1e300,null]", b'[1e300,"1"]', b"[true]", b'{"a":1}', b"[[1]]", b"1"])
def test_what_holds_no_numbers_is_no_vector(said: bytes) -> None:
    with pytest.raises(ProviderBroke):
        expect([msgspec.Raw(said)], 1)
