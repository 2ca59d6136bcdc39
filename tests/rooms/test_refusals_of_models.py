"""Models of OpenAI's that will not answer: told to each client as its own vendor tells it."""

import json
from typing import Any

import pytest

from torana.chat import Chunk
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES

NO = "I cannot help with that."
CHAT_ANSWER = {"choices": [{"message": {"content": None, "refusal": NO}, "finish_reason": "stop"}]}
CHAT_EVENTS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "refusal": NO[:9]}}]},
    {"choices": [{"index": 0, "delta": {"refusal": NO[9:]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
ITEM = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "refusal", "refusal": NO}]}
RESPONSE = {"status": "completed", "output": [ITEM], "usage": {}}
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {}},
    {"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "content": []}},
    {"type": "response.refusal.delta", "output_index": 0, "delta": NO},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": RESPONSE},
]


def streamed(events: list[dict[str, Any]], end: bytes = b"") -> list[Chunk]:
    reader = (RESPONSES if events is EVENTS else CHAT_COMPLETIONS).read_events()
    return reader.feed(b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + end)


@pytest.mark.parametrize(
    "chunks",
    [
        CHAT_COMPLETIONS.read_answer(json.dumps(CHAT_ANSWER).encode()),
        streamed(CHAT_EVENTS, b"data: [DONE]\n\n"),
        RESPONSES.read_answer(json.dumps(RESPONSE).encode()),
        streamed(EVENTS),
    ],
    ids=["chat", "chat streamed", "responses", "responses streamed"],
)
def test_a_refusal_stays_one(chunks: list[Chunk]) -> None:
    chat = json.loads(CHAT_COMPLETIONS.write_answer(chunks, "m", "id", 0))["choices"][0]
    message = json.loads(MESSAGES.write_answer(chunks, "m", "id", 0))
    chat_stream = CHAT_COMPLETIONS.write_events("m", "id", 0).write(chunks)
    message_stream = MESSAGES.write_events("m", "id", 0).write(chunks)

    assert (chat["message"]["content"], chat["message"]["refusal"], chat["finish_reason"]) == (None, NO, "stop")
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": NO}], "refusal")
    read_again = CHAT_COMPLETIONS.read_events().feed(chat_stream)
    assert "".join(chunk.text for chunk in read_again if chunk.is_refusal) == NO
    assert not any(chunk.text and not chunk.is_refusal for chunk in read_again)
    assert b'"stop_reason":"refusal"' in message_stream


def test_an_answer_is_no_refusal() -> None:
    answer = {"choices": [{"message": {"content": "Hi", "refusal": None}, "finish_reason": "stop"}]}
    chunks = CHAT_COMPLETIONS.read_answer(json.dumps(answer).encode())

    assert json.loads(MESSAGES.write_answer(chunks, "m", "id", 0))["stop_reason"] == "end_turn"
    assert json.loads(CHAT_COMPLETIONS.write_answer(chunks, "m", "id", 0))["choices"][0]["message"]["refusal"] is None
