"""System text in the first user turn, for model families whose templates refuse a system turn."""

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from torana.chat import ChatRequest, Foreign, Message, Role, Text
from torana.routing.folding import fold_system


def turn(role: Role, *texts: str) -> Message:
    return Message(role, tuple(Text(text) for text in texts))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([turn("user", "u")], [turn("user", "u")]),
        ([turn("system", ""), turn("user", "u")], [turn("user", "u")]),
        ([turn("system", "")], [turn("system", "")]),
        ([turn("system", "s"), turn("user", "u")], [turn("user", "s\n\nu")]),
        ([turn("system", "s"), turn("system", "t"), turn("user", "u", "v")], [turn("user", "s\n\nt\n\nu", "v")]),
        (
            [turn("system", "r"), turn("user", "u"), turn("assistant", "a"), turn("system", "s"), turn("user", "v")],
            [turn("user", "r\n\nu"), turn("assistant", "a"), turn("user", "s", "v")],
        ),
        ([turn("system", "s"), turn("assistant", "a")], [turn("user", "s"), turn("assistant", "a")]),
        ([turn("system", "s"), turn("user")], [turn("user", "s")]),
    ],
)
def test_system_text_stands_at_the_head_of_the_first_user_turn(before: list[Message], after: list[Message]) -> None:
    assert list(fold_system(ChatRequest(messages=tuple(before))).messages) == after


def test_parts_that_are_no_text_stay_behind_it() -> None:
    image = Foreign(dialect="messages", kind="image", value={})

    chat = fold_system(ChatRequest(messages=(turn("system", "s"), Message("user", (image, Text("u"))))))

    assert chat.messages == (Message("user", (Text("s"), image, Text("u"))),)


turns = st.lists(st.builds(turn, st.sampled_from(["system", "user", "assistant"]), st.text("aé\n", max_size=3)))


@given(turns)
@hypothesis_settings(max_examples=80)
def test_folding_loses_no_letter_and_is_done_once(messages: list[Message]) -> None:
    chat = ChatRequest(messages=tuple(messages), max_tokens=7)

    folded = fold_system(chat)

    head = list(takewhile(lambda message: message.role != "assistant", messages))
    told = [message.text for message in head if message.role == "system" and message.text]
    if told or any(message.role != "system" for message in messages):
        assert all(message.role != "system" for message in folded.messages)
    if told:
        first = next(message for message in folded.messages if message.role == "user")
        assert first.text.startswith("\n\n".join(told))
    before, after = ("".join(message.text for message in each) for each in (messages, folded.messages))
    assert sorted(after.replace("\n", "")) == sorted(before.replace("\n", ""))
    assert fold_system(folded) == folded
    assert folded.max_tokens == 7
