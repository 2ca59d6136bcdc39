"""Letters that were cut in two: each half an escape of its own, and no UTF-8 has it."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torana.dialects.bodies import MAX_ESCAPES, decode_request, mend_half_letters
from torana.errors import Invalid

PIECES = st.sampled_from(
    ["\ud83d", "\ude00", "\udbff", "\udfff", "\\", "u", "d83d", "\\ud83d", '"', "\n", "é", "\0", "x"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("\\\ud83d")
@example("\ud83d\ude00\ude00")
@example("\ud83d\ud83d\ude00")
def test_halves_that_belong_together_are_a_letter_and_each_other_one_is_replaced(text: str) -> None:
    body = json.dumps({"text": text}).encode()

    found = decode_request(body)

    joined: str = json.loads(body)["text"]
    assert found == {"text": "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in joined)}


def test_beyond_a_bound_they_stay_as_they_are() -> None:
    body = json.dumps({"text": "\ud83d" * (MAX_ESCAPES + 1)}).encode()

    assert mend_half_letters(body) == body
    with pytest.raises(Invalid):
        decode_request(body)


def test_what_is_no_json_is_not_made_json() -> None:
    with pytest.raises(Invalid):
        decode_request(b'{"text":"\\ud83d","more":"\0ud83d"}')
