"""The converse dialect: golden files, AWS's own model of the API as oracle, and what no other dialect has."""

import base64
import gzip
import json
import time
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import botocore
import msgspec
import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.model import ServiceModel
from botocore.parsers import EventStreamJSONParser, RestJSONParser
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.compare import WRITTEN, assert_golden, assert_golden_words, read
from tests.support.bedrock_answers import exception, frame

from torana.chat import (
    ChatRequest,
    Chunk,
    Document,
    Image,
    Message,
    Part,
    Reasoning,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from torana.dialects.converse import CONVERSE
from torana.errors import (
    Invalid,
    ProviderBroke,
    ProviderError,
    ProviderGaveUp,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
)

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
GPT = "openai.gpt-oss-120b-1:0"
LLAMA = "us.meta.llama4-maverick-17b-instruct-v1:0"
OWN = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123"
MODELS = (CLAUDE, NOVA, GPT, LLAMA, OWN)


def stream_of(name: str) -> bytes:
    return b"".join(frame(payload, kind) for kind, payload in json.loads(read(f"converse/{name}.events.json")))


def read_stream(*parts: bytes) -> list[Chunk]:
    reader = CONVERSE.read_events()
    return [chunk for part in parts for chunk in reader.feed(part)] + reader.close()


def words(name: str) -> ChatRequest:
    """A request in our words, less what Bedrock can be given by no model: a picture by its URL."""
    chat = msgspec.json.decode(read(f"{name}.json"), type=ChatRequest)
    messages = tuple(
        Message(message.role, tuple(part for part in message.parts if not (isinstance(part, Image) and part.url)))
        for message in chat.messages
    )
    return msgspec.structs.replace(chat, messages=messages)


def written(chat: ChatRequest, model: str = CLAUDE) -> Any:
    return json.loads(CONVERSE.write_request(chat, model, stream=True))


def asked(*parts: Part, **members: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("user", parts or (Text("Hi."),)),), **members)


# Golden files


@pytest.mark.parametrize("name", ["full", "thinking"])
def test_a_request_is_written_as_in_the_golden_file(name: str) -> None:
    assert_golden(f"converse/{name}.request.json", written(words(name)))


def test_a_clients_request_is_read_as_in_the_golden_file() -> None:
    chat, model = CONVERSE.read_request(read("converse/client.request.json"))

    assert model == ""
    assert_golden_words("converse/client.words.json", chat, ChatRequest)


@pytest.mark.parametrize("name", ["client", "full", "thinking"])
def test_a_request_that_is_read_and_written_again_is_unchanged(name: str) -> None:
    body = read(f"converse/{name}.request.json")

    chat, _ = CONVERSE.read_request(body)

    assert written(chat, "the-model") == json.loads(body)


def test_a_stream_is_read_as_in_the_golden_file() -> None:
    assert_golden_words("converse/tools.chunks.json", read_stream(stream_of("tools")), list[Chunk])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_stream_in_pieces_gives_the_same_chunks(size: int) -> None:
    stream = stream_of("tools")

    assert read_stream(*split(stream, size)) == read_stream(stream)


def split(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


def test_an_answer_is_read_as_in_the_golden_file() -> None:
    chunks = CONVERSE.read_answer(read("converse/tools.answer.json"))

    assert_golden_words("converse/tools.answer.chunks.json", chunks, list[Chunk])


@pytest.mark.parametrize("name", WRITTEN)
def test_chunks_are_written_as_in_the_golden_files(name: str) -> None:
    chunks = msgspec.json.decode(read(f"{name}.chunks.json"), type=list[Chunk])

    stream = CONVERSE.write_events("m", "id-1", 0).write(chunks)
    writer = CONVERSE.write_events("m", "id-1", 0)

    assert_golden(f"converse/{name}.written.events.json", in_events(stream))
    assert b"".join(writer.write([chunk]) for chunk in chunks) == stream
    assert_golden(f"converse/{name}.written.json", json.loads(CONVERSE.write_answer(chunks, "m", "id-1", 0)))


def in_events(stream: bytes) -> list[Any]:
    """The stream as AWS's own parser splits it."""
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    names = (":event-type", ":exception-type")
    return [
        [next(found.headers[name] for name in names if name in found.headers), json.loads(found.payload)]
        for found in buffer
    ]


# AWS's own model of the API


@cache
def service() -> ServiceModel:
    path = Path(botocore.__file__).parent / "data/bedrock-runtime/2023-09-30/service-2.json.gz"
    return ServiceModel(json.loads(gzip.decompress(path.read_bytes())))


def with_bytes(value: Any) -> Any:
    """JSON as the SDK's caller writes it: blobs are bytes there."""
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    if isinstance(value, dict):
        blobs = ("bytes", "redactedContent")
        return {
            name: base64.b64decode(item, validate=True) if name in blobs else with_bytes(item)
            for name, item in value.items()
        }
    return value


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["full", "thinking"])
def test_what_we_ask_is_what_the_vendors_model_of_the_api_takes(name: str, model: str) -> None:
    body = {"modelId": model, **with_bytes(written(words(name), model))}
    shape = service().operation_model("ConverseStream").input_shape

    report = ParamValidator().validate(body, shape)

    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_we_answer_is_what_the_vendors_sdk_reads(name: str) -> None:
    chunks = msgspec.json.decode(read(f"{name}.chunks.json"), type=list[Chunk])
    whole, stream = service().operation_model("Converse"), service().operation_model("ConverseStream")
    body = CONVERSE.write_answer(chunks, "m", "id-1", 0)
    buffer = EventStreamBuffer()
    buffer.add_data(CONVERSE.write_events("m", "id-1", 0).write(chunks))
    parser = EventStreamJSONParser()

    told = RestJSONParser().parse({"status_code": 200, "headers": {}, "body": body}, whole.output_shape)
    shape = stream.output_shape.members["stream"]
    events = [parser.parse(found.to_response_dict(), shape) for found in buffer]

    said = "".join(chunk.text for chunk in chunks if chunk.choice == 0)
    assert "".join(block.get("text", "") for block in told["output"]["message"]["content"]) == said
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta.get("text", "") for delta in deltas) == said
    assert told["usage"] == events[-1]["metadata"]["usage"]


# Streams that fail


@pytest.mark.parametrize("without", ["messageStart", "messageStop", "metadata"])
def test_a_stream_without_its_beginning_or_end_is_a_failure(without: str) -> None:
    events = [event for event in json.loads(read("converse/tools.events.json")) if event[0] != without]

    with pytest.raises(ProviderBroke):
        read_stream(b"".join(frame(payload, kind) for kind, payload in events))


def test_a_stream_cut_anywhere_is_a_failure() -> None:
    stream = stream_of("tools")

    for length in range(0, len(stream), 7):
        with pytest.raises(ProviderBroke):
            read_stream(stream[:length])


@pytest.mark.parametrize(
    ("name", "members", "status", "error"),
    [
        ("throttlingException", {}, 429, ProviderLimited),
        ("internalServerException", {}, 500, ProviderOverloaded),
        ("serviceUnavailableException", {}, 503, ProviderOverloaded),
        ("modelStreamErrorException", {}, 502, ProviderOverloaded),
        ("modelStreamErrorException", {"originalStatusCode": 529, "originalMessage": "m"}, 529, ProviderOverloaded),
        ("modelTimeoutException", {}, 504, ProviderOverloaded),
        ("validationException", {}, 400, ProviderRefused),
        ("someNewException", {}, 500, ProviderOverloaded),
    ],
)
def test_an_exception_within_a_stream_keeps_its_meaning_and_the_text_before_it(
    name: str, members: dict[str, Any], status: int, error: type[ProviderRefused]
) -> None:
    reader = CONVERSE.read_events()
    start = frame({"role": "assistant"}, "messageStart")
    delta = frame({"contentBlockIndex": 0, "delta": {"text": "Half"}}, "contentBlockDelta")

    chunks = reader.feed(start + delta + exception(name, **members))
    with pytest.raises(error) as caught:
        reader.close()

    assert [chunk.text for chunk in chunks] == ["", "Half"]
    assert (type(caught.value), caught.value.upstream_code, caught.value.kind) == (error, status, name)
    assert str(caught.value) == "scripted failure"


@pytest.mark.parametrize(
    ("status", "body", "meant", "error"),
    [
        (429, b'{"message":"Too many tokens"}', 429, ProviderLimited),
        (424, b'{"message":"m","originalStatusCode":500}', 502, ProviderOverloaded),
        (408, b'{"message":"m"}', 504, ProviderOverloaded),
        (403, b'{"Message":"Signature expired"}', 403, ProviderRefused),
        (503, b"<html>", 503, ProviderOverloaded),
        (400, b"[]", 400, ProviderRefused),
    ],
)
def test_an_error_status_keeps_its_meaning(status: int, body: bytes, meant: int, error: type[ProviderRefused]) -> None:
    refused = CONVERSE.read_error(status, body)

    assert isinstance(refused, error)
    assert refused.upstream_code == meant


@pytest.mark.parametrize("member", ["inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens"])
@pytest.mark.parametrize("count", [-1, 1.5, 10**30, "many"])
def test_a_usage_that_cannot_be_is_suspect(member: str, count: Any) -> None:
    metadata = {"usage": {"inputTokens": 1, "outputTokens": 1, member: count}}
    events = [frame({"role": "assistant"}, "messageStart"), frame({"stopReason": "end_turn"}, "messageStop")]

    chunks = read_stream(*events, frame(metadata, "metadata"))

    assert chunks[-1].usage == Usage(is_suspect=True)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "x"]),
    payload=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["delta", "start", "toolUse", "text", "usage", "input"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ),
)
def test_whatever_an_event_holds_only_provider_errors_come_out(name: str, payload: Any) -> None:
    reader = CONVERSE.read_events()
    try:
        reader.feed(frame(payload, name))
        reader.close()
    except ProviderError:
        pass


# What each family of models takes


@pytest.mark.parametrize("url", ["https://example.com/a.png", "s3://bucket/a.png"])
def test_nothing_is_asked_for_by_its_address(url: str) -> None:
    """S3 would be read with the rights of the operator's account, whoever asks."""
    with pytest.raises(Invalid):
        written(asked(Image("image/png", url=url), Text("?")))
    with pytest.raises(Invalid):
        written(asked(Document("application/pdf", url=url), Text("?")))


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_an_answer_that_came_to_nothing_is_none_unless_something_was_said(reason: str) -> None:
    stop = frame({"stopReason": reason}, "messageStop")
    text = frame({"contentBlockIndex": 0, "delta": {"text": "Hi"}}, "contentBlockDelta")
    begun = frame({"role": "assistant"}, "messageStart")
    end = frame({"usage": {"inputTokens": 1, "outputTokens": 1}}, "metadata")
    answer: dict[str, Any] = {"output": {"message": {"content": []}}, "stopReason": reason, "usage": {}}

    with pytest.raises(ProviderGaveUp):
        read_stream(begun, stop, end)
    with pytest.raises(ProviderGaveUp):
        CONVERSE.read_answer(json.dumps(answer).encode())
    assert [chunk.finish for chunk in read_stream(begun, text, stop, end) if chunk.finish] == ["other"]


@pytest.mark.parametrize("part", [Image("image/tiff", "AA=="), Document("application/zip", "AA==")])
def test_a_format_that_no_model_reads_is_refused(part: Image | Document) -> None:
    with pytest.raises(Invalid):
        written(asked(part))


def test_a_blank_stop_sequence_is_left_out_and_named() -> None:
    chat = asked(stop=("\n\n", "END"))

    assert written(chat)["inferenceConfig"]["stopSequences"] == ["END"]
    assert CONVERSE.losses(chat, CLAUDE) == ("stop.blank",)


def test_documents_get_names_that_are_allowed_and_unlike() -> None:
    titles = ["report.pdf", "report.pdf", "größe_{1}.pdf", ""]
    parts = [Document("application/pdf", "AA==", title=title) for title in titles]

    (turn,) = written(asked(*parts))["messages"]

    names = [block["document"]["name"] for block in turn["content"] if "document" in block]
    assert names == ["report pdf", "report pdf (2)", "gr e 1 pdf", "document"]
    assert turn["content"][-1] == {"text": "See the attached document."}


def test_thousands_of_documents_of_one_name_take_linear_time() -> None:
    chat = asked(*[Document("application/pdf", "AA==", title="a")] * 20_000)
    before = time.thread_time()

    (turn,) = written(chat)["messages"]

    assert time.thread_time() - before < 2
    assert len({block["document"]["name"] for block in turn["content"] if "document" in block}) == 20_000


def test_thousands_of_cache_points_are_dropped_in_linear_time() -> None:
    chat = ChatRequest(messages=(Message("user", (Text("a", cached=True),) * 20_000),))
    before = time.thread_time()

    (turn,) = written(chat)["messages"]

    assert time.thread_time() - before < 1
    assert turn["content"][-8:] == [{"text": "a"}, {"cachePoint": {"type": "default"}}] * 4
    assert len(turn["content"]) == 20_004


def test_cache_points_stand_behind_what_is_kept_and_are_at_most_four() -> None:
    chat = ChatRequest(
        messages=(
            Message("system", (Text("S", cached=True),)),
            Message("user", tuple(Text(letter, cached=True) for letter in "abc")),
        ),
        tools=(Tool("t", cached=True),),
    )
    point = {"cachePoint": {"type": "default"}}

    for_claude, for_llama = written(chat), written(chat, LLAMA)

    assert for_claude["toolConfig"]["tools"][1:] == []
    assert for_claude["system"] == [{"text": "S"}, point]
    assert for_claude["messages"][0]["content"] == [{"text": "a"}, point, {"text": "b"}, point, {"text": "c"}, point]
    assert point not in [*for_llama["system"], *for_llama["messages"][0]["content"]]


def test_a_conversation_with_calls_names_its_tools_even_where_none_are_offered() -> None:
    chat = ChatRequest(
        messages=(
            Message("user", (Text("?"),)),
            Message("assistant", (ToolCall("c", "look", "{}"),)),
            Message("user", (ToolResult("c", ()),)),
        )
    )

    body = written(chat)

    assert [row["toolSpec"]["name"] for row in body["toolConfig"]["tools"]] == ["look"]
    assert body["messages"][-1]["content"][0]["toolResult"]["content"] == [{"text": "(no output)"}]
    assert CONVERSE.losses(chat, CLAUDE) == ()


def test_no_tools_are_offered_where_none_may_be_called() -> None:
    chat = asked(tools=(Tool("look"),), tool_choice="none")

    assert "toolConfig" not in written(chat)
    assert CONVERSE.losses(chat, CLAUDE) == ()


def test_one_call_at_a_time_is_asked_of_claude_in_its_own_words_and_lost_elsewhere() -> None:
    chat = asked(tools=(Tool("look"),), tool_choice="any", parallel_tool_calls=False)

    body = written(chat)

    assert "toolChoice" not in body["toolConfig"]
    assert body["additionalModelRequestFields"]["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert CONVERSE.losses(chat, LLAMA) == ("parallel_tool_calls",)


@pytest.mark.parametrize(
    ("model", "more", "effort", "lost"),
    [
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 4096}}, None, ()),
        ("global.anthropic.claude-opus-4-7-v1", {"thinking": {"type": "adaptive"}}, "low", ()),
        (NOVA, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, None, ()),
        (GPT, {"reasoning_effort": "low"}, None, ()),
        (LLAMA, None, None, ("reasoning",)),
    ],
)
def test_each_family_is_asked_to_think_in_its_own_way(
    model: str, more: dict[str, Any] | None, effort: str | None, lost: tuple[str, ...]
) -> None:
    chat = asked(reasoning=Reasoning("low"), max_tokens=20_000)

    body = written(chat, model)

    assert body.get("additionalModelRequestFields") == more
    assert body.get("outputConfig", {}).get("effort") == effort
    assert CONVERSE.losses(chat, model) == lost


def test_nova_is_told_of_a_tools_properties_alone() -> None:
    properties = {"a": {"type": "string", "title": "A"}, "b": {"$ref": "#/$defs/B", "description": "Either."}}
    told = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
        "required": ["a"],
        "title": "T",
        "additionalProperties": False,
        "$defs": {"B": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/B"}]}},
    }
    chat = asked(tools=(Tool("f", parameters=told),))

    def sent(model: str) -> Any:
        return written(chat, model)["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]

    either = {"anyOf": [{"type": "string"}, {"type": "object"}], "description": "Either."}
    assert sent(NOVA) == {"type": "object", "properties": {**properties, "b": either}, "required": ["a"]}
    assert sent(CLAUDE) == told
    assert CONVERSE.losses(chat, NOVA) == ()


def test_a_schema_that_refers_to_itself_over_and_over_stays_small() -> None:
    names = [f"D{number}" for number in range(30)]
    defs = {
        name: {"type": "object", "properties": {key: {"$ref": f"#/$defs/{deeper}"} for key in "ab"}}
        for name, deeper in pairwise([*names, "D0"])
    }
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/D0"}}, "$defs": defs}

    body = CONVERSE.write_request(asked(tools=(Tool("f", parameters=schema),)), NOVA, stream=False)

    assert len(body) < 300_000


def test_nova_at_its_highest_effort_takes_neither_sampling_nor_a_limit() -> None:
    chat = asked(reasoning=Reasoning("high"), temperature=0.2, top_p=0.5, top_k=4, max_tokens=5)

    assert "inferenceConfig" not in written(chat, NOVA)
    assert CONVERSE.losses(chat, NOVA) == ("max_tokens", "temperature", "top_k", "top_p")


@pytest.mark.parametrize(
    ("model", "more", "lost"),
    [
        (CLAUDE, {"top_k": 5}, ()),
        (NOVA, {"inferenceConfig": {"topK": 5}}, ()),
        (LLAMA, None, ("top_k",)),
    ],
)
def test_each_family_takes_top_k_in_its_own_place(
    model: str, more: dict[str, Any] | None, lost: tuple[str, ...]
) -> None:
    chat = asked(top_k=5)

    assert written(chat, model).get("additionalModelRequestFields") == more
    assert CONVERSE.losses(chat, model) == lost


def test_thoughts_go_back_to_claude_alone() -> None:
    thoughts = (Thought("Hm.", "c2ln", dialect="messages"), Thought(redacted="c2Vh", dialect="messages"))
    chat = ChatRequest(messages=(Message("user", (Text("?"),)), Message("assistant", (*thoughts, Text("Yes.")))))

    kept = written(chat, OWN)["messages"][1]["content"][:2]

    assert kept == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2Vh"}},
    ]
    assert CONVERSE.losses(chat, GPT) == ("thought",)


def test_what_the_cache_keeps_for_an_hour_is_told() -> None:
    details = [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 3}, None, {"ttl": "1h"}]
    usage = {"inputTokens": 1, "outputTokens": 1, "cacheWriteInputTokens": 7, "cacheDetails": details}
    answer = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": usage}

    told = CONVERSE.read_answer(json.dumps(answer).encode())[-1].usage

    assert told == Usage(8, 1, 0, 7, cache_write_1h_tokens=4)


def test_an_assistant_who_speaks_first_is_asked_to() -> None:
    greeted = ChatRequest(
        messages=(
            Message("system", (Text("Be kind."),)),
            Message("assistant", (Text("How can I help?"),)),
            Message("user", (Text("Hi"),)),
        )
    )

    turns = written(greeted)["messages"]

    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1:] == [
        {"role": "assistant", "content": [{"text": "How can I help?"}]},
        {"role": "user", "content": [{"text": "Hi"}]},
    ]


def test_a_failed_tool_is_told_by_status_or_in_words() -> None:
    chat = ChatRequest(
        messages=(
            Message("assistant", (ToolCall("c" * 80 + "!", "look", "{}"),)),
            Message("user", (ToolResult("c" * 80 + "!", (Text("gone"),), is_error=True),)),
        )
    )

    told, in_words = (written(chat, model)["messages"] for model in (CLAUDE, LLAMA))

    assert told[-1]["content"][0]["toolResult"]["status"] == "error"
    assert in_words[-1]["content"][0]["toolResult"]["content"] == [{"text": "Error:"}, {"text": "gone"}]
    call_id = told[1]["content"][0]["toolUse"]["toolUseId"]
    assert len(call_id) == 64
    assert told[-1]["content"][0]["toolResult"]["toolUseId"] == call_id


def test_a_failed_tool_that_shows_something_is_told_in_words() -> None:
    shown = ToolResult("c", (Text("gone"), Image("image/png", "aGk=")), is_error=True)
    chat = ChatRequest(messages=(Message("assistant", (ToolCall("c", "look", "{}"),)), Message("user", (shown,))))

    result = written(chat, CLAUDE)["messages"][-1]["content"][0]["toolResult"]

    assert "status" not in result
    assert result["content"][:2] == [{"text": "Error:"}, {"text": "gone"}]
    assert "image" in result["content"][2]


def test_a_prompt_authors_members_go_to_the_model_and_the_formats_own_stay() -> None:
    chat = asked(extra={"anthropic_beta": ["x"], "serviceTier": {"type": "flex"}, "logit_bias": None}, top_k=3)

    body = written(chat)

    assert body["additionalModelRequestFields"] == {"top_k": 3, "anthropic_beta": ["x"]}
    assert body["serviceTier"] == {"type": "flex"}


@pytest.mark.parametrize(("tier", "tiers"), [({"type": "flex"}, ("flex",)), ({"type": "default"}, ()), ("odd", ())])
def test_the_tier_that_served_a_call_is_read(tier: Any, tiers: tuple[str, ...]) -> None:
    whole = json.loads(read("converse/tools.answer.json")) | {"serviceTier": tier}

    usage = CONVERSE.scan_answer(json.dumps(whole).encode())

    assert usage == Usage(120, 34, 100, 8, tiers=tiers)


def test_what_passes_by_is_watched_for_its_usage_and_its_end() -> None:
    scan = CONVERSE.scan_events()
    stream = stream_of("tools")

    scan.feed(stream[:-10])
    assert not scan.is_complete
    scan.feed(stream[-10:])

    assert scan.is_complete
    assert scan.usage == Usage(120, 34, 100, 8)
    assert CONVERSE.scan_answer(read("converse/tools.answer.json")) == Usage(120, 34, 100, 8)
    broken = CONVERSE.scan_events()
    broken.feed(b"no event stream at all")
    broken.feed(stream)
    assert (broken.usage, CONVERSE.scan_answer(b"<html>")) == (None, None)
