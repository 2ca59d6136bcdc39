"""Numbers without an end, seen while they come (ST11)."""

import pytest

from torana.dialects.digits import MAX_DIGITS, DigitWatch
from torana.errors import ProviderBroke

PART = b"9" * 1000
MANY = [PART] * (MAX_DIGITS // len(PART) + 1)


def see(*parts: bytes) -> int:
    """How many parts were let through."""
    watch, seen = DigitWatch(), list[bytes]()
    try:
        for part in parts:
            seen.append(part)
            watch.see(seen)
    except ProviderBroke:
        return len(seen) - 1
    return len(seen)


NUMBERS: dict[str, list[bytes]] = {
    "a member": [b'{"choices":'],
    "a fraction": [b'{"choices":-0.'],
    "an exponent": [b"[1e"],
    "behind a text": [b'{"a":"b', b'c","d":'],
    "behind a text that ends in a backslash": [rb'{"a":"b\\', rb'\",":'],
    "behind a text with a quote": [rb'{"a":"b\"c","d":['],
    "behind a text of digits": [b'{"a":"', *MANY, b'","b":'],
    "nothing before": [],
}
TEXTS: dict[str, list[bytes]] = {
    "a text": [b'{"a":"'],
    "a text that has begun long ago": [b'{"a":"b', *MANY, b"c"],
    "a text with a quote": [rb'{"a":"b\"'],
    "a text with a backslash": [rb'{"a":"b\\'],
    "a text behind a text of digits": [b'{"a":"', *MANY, b'","b":"'],
}


@pytest.mark.parametrize("said", NUMBERS.values(), ids=NUMBERS)
def test_a_number_without_an_end_is_refused_while_it_comes(said: list[bytes]) -> None:
    assert see(*said, *MANY, *MANY) == len(said) + len(MANY) - 1


@pytest.mark.parametrize("said", TEXTS.values(), ids=TEXTS)
def test_a_text_of_digits_is_let_through(said: list[bytes]) -> None:
    assert see(*said, *MANY, *MANY, b'"}') == len(said) + 2 * len(MANY) + 1


def test_many_numbers_are_let_through() -> None:
    assert see(b"[", *[PART, b","] * 200, b"1]") == 402


def test_digits_are_counted_and_not_their_parts() -> None:
    assert see(b"[", *[b"9"] * MAX_DIGITS) == MAX_DIGITS + 1
    assert see(b"[", *[b"9"] * (MAX_DIGITS + 1)) == MAX_DIGITS + 1
