"""What is written to see what gets lost on the way is what is sent, and is written once."""

import json

import pytest
from msgspec.structs import replace
from tests.rooms.test_dialects_matrix import DIALECTS, words

from torana.chat import ChatRequest, Message, Source, Text
from torana.dialects.dialect import Dialect
from torana.dialects.messages import MESSAGES

MODEL = "a-model"
TARGETS = pytest.mark.parametrize("target", DIALECTS, ids=lambda dialect: dialect.name)


def as_sent(target: Dialect) -> ChatRequest:
    """As a client of the messages dialect has sent it."""
    body = MESSAGES.write_request(words("full", MESSAGES, target), MODEL, stream=False)
    chat, _ = MESSAGES.read_request(body)
    return replace(chat, source=Source(dialect=MESSAGES.name, body=body))


@TARGETS
def test_a_request_that_was_weighed_is_written_as_one_that_was_not(target: Dialect) -> None:
    fresh, weighed = as_sent(target), as_sent(target)

    lost = [target.losses(weighed, MODEL) for _ in range(2)]
    bodies = [target.write_request(chat, MODEL, stream=True) for chat in (weighed, weighed, fresh)]

    assert lost == [target.losses(fresh, MODEL)] * 2
    assert bodies == [bodies[2]] * 3


@TARGETS
def test_what_was_weighed_is_not_written_again(target: Dialect) -> None:
    chat = as_sent(target)
    assert chat.source is not None

    target.losses(chat, MODEL)
    kept = [draft.members for draft in chat.source.drafts]
    target.write_request(chat, MODEL, stream=False)

    assert [bool(members) for members in kept] == [True]
    assert chat.source.drafts == []


@TARGETS
def test_a_request_that_was_changed_since_is_written_anew(target: Dialect) -> None:
    chat = as_sent(target)
    target.losses(chat, MODEL)

    changed = replace(chat, messages=(Message("user", (Text("Something else"),)),))
    written = json.loads(target.write_request(changed, MODEL, stream=False))

    assert "Something else" in json.dumps(written)
    assert written == json.loads(target.write_request(replace(changed, source=None), MODEL, stream=False))


@TARGETS
def test_a_draft_for_one_model_is_not_sent_to_another(target: Dialect) -> None:
    weighed, fresh = as_sent(target), as_sent(target)
    target.losses(weighed, "gpt-5.4")

    assert target.write_request(weighed, "claude-3-haiku", stream=False) == target.write_request(
        fresh, "claude-3-haiku", stream=False
    )
