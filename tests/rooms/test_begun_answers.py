"""Answers that a client has begun and a model begins anew."""

import pytest

from torana.chat import ChatRequest, Message, Text
from torana.dialects.begun_answers import BegunAnswer, awaited_in

READER = '\n```json\n          {\n            "ResourceIdentifierType": "'


def asked(begun: str, carries_on: bool | None = True) -> ChatRequest:
    messages = (Message("user", (Text("Who wrote #12?"),)), Message("assistant", (Text(begun),)))
    return ChatRequest(messages=messages, max_tokens=10, carries_on=carries_on)


def told(begun: str, answer: str, size: int) -> str:
    cutter = BegunAnswer(awaited_in(asked(begun)))
    pieces = [cutter.feed(answer[at : at + size]) for at in range(0, len(answer), size)] + [cutter.close()]
    assert not any(thought for thought, _ in pieces)
    return "".join(said for _, said in pieces)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("begun", "answer", "rest"),
    [
        ("<new_code>", "<new_code>\nx = 1", "\nx = 1"),
        ("<new_code>", "\n <new_code>x = 1", "x = 1"),
        ("<new_code>", "<new_code>", ""),
        (
            READER,
            '```json\n{"ResourceIdentifierType": "iid", "ResourceIdentifier": 12}\n```',
            'iid", "ResourceIdentifier": 12}\n```',
        ),
        (READER, '{"ResourceIdentifierType":"url"}', 'url"}'),
        (f"Please retry\n{READER}", '{\n "ResourceIdentifierType": "iid"}', 'iid"}'),
        ("Thought: ", "Thought: I know.", " I know."),
    ],
)
def test_what_was_begun_comes_once(begun: str, answer: str, rest: str, size: int) -> None:
    assert told(begun, answer, size) == rest


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("begun", "answer"),
    [
        ("<new_code>", "x = 1"),
        ("<new_code>", "<new_co"),
        ("<new_code>", "<new_class>"),
        ("<new_code>", "x <new_code>"),
        ("{", "{}"),
        (READER, 'iid", "ResourceIdentifier": 12}'),
        ("<new_code>", "\n\n    x = 1"),
        ("<new_code>", ""),
        ("", "x = 1"),
        ("x" * 300, "x" * 300),
    ],
)
def test_other_answers_come_as_they_are(begun: str, answer: str, size: int) -> None:
    assert told(begun, answer, size) == answer


def test_only_clients_who_send_begun_answers_to_be_carried_on_are_meant() -> None:
    assert awaited_in(asked("<new_code>", carries_on=None)) == ()
    assert (
        awaited_in(ChatRequest(messages=(Message("user", (Text("<new_code>"),)),), max_tokens=1, carries_on=True)) == ()
    )
