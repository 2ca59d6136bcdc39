"""Which text to stop at ended an answer: Anthropic's clients hear it where the provider tells, or it is clear."""

import json
from typing import Any

import pytest

from torana.chat import ChatRequest, Chunk, Message, Text
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES

Told = tuple[str, str | None]


def chat(told: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return {"id": "c", "choices": [{**choice, **told}]}


def converse(reason: str, **more: Any) -> dict[str, Any]:
    output = {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}
    return {"output": output, "stopReason": reason, "usage": {"inputTokens": 1, "outputTokens": 1}, **more}


def messages(reason: str, sequence: str | None) -> dict[str, Any]:
    told = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "usage": {}}
    return {**told, "stop_reason": reason, "stop_sequence": sequence}


ENDED: Told = ("end_turn", None)


@pytest.mark.parametrize(
    ("dialect", "said", "stops", "told"),
    [
        # OpenAI says `stop` of every end; vLLM and SGLang name the text, or a token by its number
        (CHAT_COMPLETIONS, chat({}), ("#",), ENDED),
        (CHAT_COMPLETIONS, chat({"stop_reason": None}), ("#",), ENDED),
        (CHAT_COMPLETIONS, chat({"stop_reason": "##"}), ("#", "##"), ("stop_sequence", "##")),
        (CHAT_COMPLETIONS, chat({"matched_stop": "##"}), ("#", "##"), ("stop_sequence", "##")),
        (CHAT_COMPLETIONS, chat({"matched_stop": 151645}), ("#",), ENDED),
        (CHAT_COMPLETIONS, chat({"stop_reason": "eos"}), ("#",), ENDED),
        (CHAT_COMPLETIONS, chat({"stop_reason": "#", "finish_reason": "length"}), ("#",), ("max_tokens", None)),
        # Bedrock names it where it is asked to and can
        (CONVERSE, converse("stop_sequence"), ("#",), ("stop_sequence", "#")),
        (CONVERSE, converse("stop_sequence"), ("#", "##"), ("stop_sequence", None)),
        (
            CONVERSE,
            converse("stop_sequence", additionalModelResponseFields={"stop_sequence": "##"}),
            ("#", "##"),
            ("stop_sequence", "##"),
        ),
        (CONVERSE, converse("end_turn", additionalModelResponseFields={"stop_sequence": None}), ("#",), ENDED),
        (MESSAGES, messages("stop_sequence", "##"), ("#", "##"), ("stop_sequence", "##")),
        (MESSAGES, messages("end_turn", None), ("#",), ENDED),
        (MESSAGES, messages("stop_sequence", "x"), (), ("stop_sequence", None)),
    ],
)
def test_the_stop_sequence_is_told_where_it_is_known(
    dialect: Dialect, said: dict[str, Any], stops: tuple[str, ...], told: Told
) -> None:
    asked = ChatRequest(messages=(Message("user", (Text("Hi"),)),), stop=stops)
    chunks = dialect.read_answer(json.dumps(said).encode())

    whole = json.loads(MESSAGES.write_answer(chunks, "m", "id", 0, asked))
    streamed = MESSAGES.write_events("m", "id", 0, asked).write(chunks)

    assert (whole["stop_reason"], whole["stop_sequence"]) == told
    delta = next(
        json.loads(line[6:]) for line in streamed.split(b"\n") if b'"message_delta"' in line and b"data" in line
    )
    assert (delta["delta"]["stop_reason"], delta["delta"]["stop_sequence"]) == told


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (
            MESSAGES,
            [
                {"type": "message_start", "message": {"id": "m"}},
                {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "##"}},
                {"type": "message_stop"},
            ],
        ),
        (
            CHAT_COMPLETIONS,
            [{"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop", "stop_reason": "##"}]}],
        ),
    ],
    ids=["messages", "chat_completions"],
)
def test_a_stream_tells_it_too(dialect: Dialect, events: list[dict[str, Any]]) -> None:
    reader = dialect.read_events()
    chunks: list[Chunk] = []
    for event in events:
        chunks += reader.feed(b"data: %b\n\n" % json.dumps(event).encode())
    chunks += reader.feed(b"data: [DONE]\n\n")

    assert [chunk.stop_sequence for chunk in chunks if chunk.finish] == ["##"]


def test_claude_on_bedrock_is_asked_which_one_it_was() -> None:
    asked = ChatRequest(messages=(Message("user", (Text("Hi"),)),), stop=("#", "##"))

    claude = json.loads(CONVERSE.write_request(asked, "anthropic.claude-sonnet-4-6", stream=False))
    nova = json.loads(CONVERSE.write_request(asked, "amazon.nova-pro-v1:0", stream=False))

    assert claude["additionalModelResponseFieldPaths"] == ["/stop_sequence"]
    assert "additionalModelResponseFieldPaths" not in nova
    assert RESPONSES.losses(asked, "gpt-5-mini") == ("stop",)
