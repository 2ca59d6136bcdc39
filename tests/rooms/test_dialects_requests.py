"""Requests: what clients get wrong, what vendors refuse, and the way from one dialect into another."""

import json
import time
from typing import Any

import msgspec
import pytest
from tests.golden.compare import read

from torana.chat import ChatRequest, FillIn, Image, Message, Text, Tool, ToolCall, ToolResult
from torana.dialects import embeddings
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect, ServedDialect
from torana.dialects.embedding_dialect import numbers_of
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.lengths import fit_lengths
from torana.dialects.messages import MESSAGES, read_count_request
from torana.dialects.responses import RESPONSES
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.errors import Invalid

HELLO = (Message("user", (Text("Hello"),)),)
SERVED = [MESSAGES, CHAT_COMPLETIONS, TEXT_COMPLETIONS, RESPONSES]


def write(dialect: Dialect, chat: ChatRequest, model: str = "m", *, stream: bool = False) -> dict[str, Any]:
    members = json.loads(dialect.write_request(chat, model, stream=stream))
    assert isinstance(members, dict)
    return members


def refuse(dialect: ServedDialect, body: bytes) -> tuple[list[str | int], str]:
    with pytest.raises(Invalid) as refusal:
        dialect.read_request(body)
    row = refusal.value.members["detail"][0]
    return row["loc"][1:], row["type"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 200_000, b'{"a":' * 129 + b"1" + b"}" * 129, b'{"x":NaN}']
)
@pytest.mark.parametrize("dialect", SERVED, ids=lambda dialect: dialect.name)
def test_what_is_no_json_object_is_refused(dialect: ServedDialect, body: bytes) -> None:
    assert refuse(dialect, body) == ([], "json_invalid")


def test_json_as_deep_as_allowed_passes() -> None:
    deep = b'{"model":"m","messages":[],"x":' + b"[" * 127 + b"]" * 127 + b"}"

    assert CHAT_COMPLETIONS.read_request(deep)[1] == "m"


VALID: dict[str, dict[str, Any]] = {
    "messages": {"model": "m", "max_tokens": 1, "messages": []},
    "chat_completions": {"model": "m", "messages": []},
    "text_completions": {"model": "m", "prompt": "a"},
    "responses": {"model": "m", "input": "a"},
}
BLANK = [{"role": "user", "content": [{"type": "text"}]}]


@pytest.mark.parametrize(
    ("dialect", "changed", "loc", "kind"),
    [
        (MESSAGES, {"max_tokens": ...}, ["max_tokens"], "missing"),
        (MESSAGES, {"model": ...}, ["model"], "missing"),
        (MESSAGES, {"messages": ...}, ["messages"], "missing"),
        (MESSAGES, {"max_tokens": "1"}, ["max_tokens"], "int_type"),
        (MESSAGES, {"max_tokens": True}, ["max_tokens"], "int_type"),
        (MESSAGES, {"messages": {}}, ["messages"], "list_type"),
        (MESSAGES, {"messages": ["x"]}, ["messages", 0], "dict_type"),
        (MESSAGES, {"messages": [{"role": "tool"}]}, ["messages", 0, "role"], "literal_error"),
        (MESSAGES, {"messages": [{"role": "user"}]}, ["messages", 0, "content"], "missing"),
        (MESSAGES, {"messages": BLANK}, ["messages", 0, "content", 0, "text"], "missing"),
        (MESSAGES, {"metadata": 1}, ["metadata"], "dict_type"),
        (CHAT_COMPLETIONS, {"model": 5}, ["model"], "string_type"),
        (CHAT_COMPLETIONS, {"messages": [{"role": "robot"}]}, ["messages", 0, "role"], "literal_error"),
        (CHAT_COMPLETIONS, {"messages": [{"role": "tool"}]}, ["messages", 0, "tool_call_id"], "missing"),
        (CHAT_COMPLETIONS, {"messages": BLANK}, ["messages", 0, "content", 0, "text"], "missing"),
        (CHAT_COMPLETIONS, {"temperature": "hot"}, ["temperature"], "value_error"),
        (CHAT_COMPLETIONS, {"temperature": 10**400}, ["temperature"], "value_error"),
        (CHAT_COMPLETIONS, {"stop": [1]}, ["stop"], "list_type"),
        (CHAT_COMPLETIONS, {"tools": [{"type": "function"}]}, ["tools", 0, "function", "name"], "missing"),
        (TEXT_COMPLETIONS, {"prompt": ["a", "b"]}, ["prompt"], "string_type"),
        (RESPONSES, {"input": ...}, ["input"], "missing"),
        (RESPONSES, {"input": [{"role": "robot"}]}, ["input", 0, "role"], "literal_error"),
        (RESPONSES, {"input": [{"type": "function_call", "name": "f"}]}, ["input", 0, "call_id"], "missing"),
    ],
)
def test_a_wrong_member_is_named(dialect: ServedDialect, changed: Any, loc: list[str | int], kind: str) -> None:
    members = {**VALID[dialect.name], **changed}
    body = json.dumps({name: value for name, value in members.items() if value is not ...})

    dialect.read_request(json.dumps(VALID[dialect.name]).encode())

    assert refuse(dialect, body.encode()) == (loc, kind)


def test_counting_needs_no_limit_of_tokens() -> None:
    chat, model = read_count_request(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}')

    assert (chat.max_tokens, model) == (None, "m")


def test_a_lone_surrogate_reads_as_the_replacement_letter() -> None:
    chat, _ = RESPONSES.read_request(rb'{"model":"m","input":"a\ud83d"}')

    assert chat.messages[0].text == "a\ufffd"


def test_anthropic_gets_a_limit_of_tokens_and_no_blank_texts() -> None:
    chat = ChatRequest(
        messages=(
            Message("user", (Text(" "), Text("Hello"))),
            Message("user", (Text(""),)),
            Message("assistant", (Text("Once \n"),)),
        ),
        temperature=1.7,
    )

    assert write(MESSAGES, chat) == {
        "model": "m",
        "max_tokens": 4096,
        "temperature": 1.0,
        "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Once"}],
    }


PICTURE = Image("image/png", "aQ==")
SHOWN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aQ=="}}


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ((Text(""), PICTURE), [SHOWN]),
        ((Text(" \n"), PICTURE, Text("a")), [SHOWN, {"type": "text", "text": "a"}]),
        ((Text("", cached=True), Text("a")), "a"),
        ((Text(" "),), ""),
        ((), ""),
    ],
)
def test_anthropic_gets_no_blank_texts_of_tools(parts: tuple[Text | Image, ...], content: Any) -> None:
    """It refuses the request, and each one of the conversation from then on."""
    call = Message("assistant", (ToolCall("c", "f", "{}"),))
    chat = ChatRequest(messages=(*HELLO, call, Message("user", (ToolResult("c", parts),))))

    assert write(MESSAGES, chat)["messages"][-1]["content"][0]["content"] == content


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("null", {}),
        ('{"a":1}', {"a": 1}),
        ('{"a":', {"INVALID_JSON": '{"a":'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
    ],
)
def test_anthropic_gets_arguments_as_an_object(arguments: str, expected: dict[str, Any]) -> None:
    chat = ChatRequest(messages=(*HELLO, Message("assistant", (ToolCall("functions.f:0", "f", arguments),))))

    block = write(MESSAGES, chat)["messages"][1]["content"][0]

    assert (block["id"], block["input"]) == ("functions_f_0", expected)


def test_arguments_that_are_none_are_an_empty_object_for_servers_of_open_models() -> None:
    chat = ChatRequest(messages=(*HELLO, Message("assistant", (ToolCall("c", "f", "null"),))))

    assert write(CHAT_COMPLETIONS, chat)["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_an_end_users_id_is_as_long_as_anthropic_takes_it() -> None:
    chats = [fit_lengths(ChatRequest(messages=HELLO, user="u" * chars), "messages") for chars in (256, 257)]

    assert [len(write(MESSAGES, chat)["metadata"]["user_id"]) for chat in chats] == [256, 64]


def test_scores_that_are_asked_for_and_not_told_are_named() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 0}
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(body).encode())

    assert CHAT_COMPLETIONS.losses(chat, "deepseek-chat") == MESSAGES.losses(chat, "claude-sonnet-4-6") == ("logprobs",)


@pytest.mark.parametrize(
    ("choice", "anthropic", "openai"),
    [
        ("auto", None, None),
        ("none", {"type": "none"}, "none"),
        ("any", {"type": "any"}, "required"),
        ("f", {"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_the_choice_of_tools_has_its_words(choice: str, anthropic: Any, openai: Any) -> None:
    chat = ChatRequest(messages=HELLO, tools=(Tool("f"),), tool_choice=choice)

    messages, completions = write(MESSAGES, chat), write(CHAT_COMPLETIONS, chat)

    assert (messages.get("tool_choice"), completions.get("tool_choice")) == (anthropic, openai)
    body = json.dumps({**messages, "tool_choice": anthropic}).encode()
    assert MESSAGES.read_request(body)[0].tool_choice == choice
    body = json.dumps({**completions, "tool_choice": openai}).encode()
    assert CHAT_COMPLETIONS.read_request(body)[0].tool_choice == choice


@pytest.mark.parametrize(
    ("model", "extra", "expected"),
    [
        ("gpt-4.1", {}, {"max_tokens": 9, "temperature": 0.5}),
        ("gpt-5-mini-2025-08-07", {}, {"max_completion_tokens": 9}),
        ("o3-mini", {}, {"max_completion_tokens": 9}),
        ("openchat", {}, {"max_tokens": 9, "temperature": 0.5}),
        ("m", {"max_completion_tokens": None}, {"max_completion_tokens": 9, "temperature": 0.5}),
        ("m", {"max_completion_tokens": 5}, {"max_completion_tokens": 5, "temperature": 0.5}),
    ],
)
def test_the_limit_of_tokens_goes_by_the_name_that_the_model_takes(model: str, extra: Any, expected: Any) -> None:
    chat = ChatRequest(messages=HELLO, max_tokens=9, temperature=0.5, extra=extra)

    members = write(CHAT_COMPLETIONS, chat, model)

    assert {name: value for name, value in members.items() if name not in ("model", "messages")} == expected


def test_usage_is_asked_for_in_streams_only() -> None:
    body = {"model": "m", "messages": [], "stream": True, "stream_options": {"x": 1}}
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(body).encode())

    assert write(CHAT_COMPLETIONS, chat, stream=True)["stream_options"] == {"x": 1, "include_usage": True}
    assert write(CHAT_COMPLETIONS, chat, stream=False) == {"model": "m", "messages": []}


@pytest.mark.parametrize(
    ("fill_in", "expected"),
    [
        (None, {"prompt": "Hello"}),
        (FillIn(prefix="a"), {"prompt": "a"}),
        (FillIn(prefix="a", suffix="b"), {"prompt": "a", "suffix": "b"}),
        (FillIn(prefix="a", suffix="b", marked_prompt="<P>a<S>b<M>"), {"prompt": "<P>a<S>b<M>"}),
    ],
)
def test_a_marked_prompt_goes_out_without_suffix(fill_in: FillIn | None, expected: dict[str, str]) -> None:
    assert write(TEXT_COMPLETIONS, ChatRequest(messages=HELLO, fill_in=fill_in)) == {"model": "m", **expected}


def test_words_changed_since_they_were_read_win() -> None:
    chat, model = MESSAGES.read_request(read("messages/client.request.json"))

    changed = write(MESSAGES, msgspec.structs.replace(chat, max_tokens=2048, tools=()), model)

    assert changed["max_tokens"] == 2048
    assert "tools" not in changed
    assert changed["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert changed["messages"][0]["content"][1]["type"] == "image"


def test_extra_of_one_dialect_stays_out_of_another() -> None:
    chat, _ = CHAT_COMPLETIONS.read_request(
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"logit_bias":{}}'
    )

    assert set(write(MESSAGES, chat)) == {"model", "max_tokens", "messages"}


def test_tool_use_crosses_from_responses_and_messages_into_chat_completions() -> None:
    call = ToolCall("c1", "f", "{}")
    body = {"model": "m", "input": [
        {"role": "user", "content": "Hello"},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
    ]}  # fmt: skip
    results = Message("user", (ToolResult("c1", (Text("1"),)), ToolResult("c2", (Text("2"),))))
    ours = ChatRequest(messages=(*HELLO, Message("assistant", (call, ToolCall("c2", "f", "{}"))), results))

    chat, _ = RESPONSES.read_request(json.dumps(body).encode())
    via_messages, _ = MESSAGES.read_request(MESSAGES.write_request(ours, "m", stream=False))

    expected = write(CHAT_COMPLETIONS, ours)["messages"]
    assert [row["role"] for row in expected] == ["user", "assistant", "tool", "tool"]
    assert write(CHAT_COMPLETIONS, chat)["messages"] == expected
    assert write(CHAT_COMPLETIONS, via_messages)["messages"] == expected


AUDIO = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
UPLOADED = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}


@pytest.mark.parametrize(
    ("source", "target", "part"), [(MESSAGES, CHAT_COMPLETIONS, UPLOADED), (CHAT_COMPLETIONS, MESSAGES, AUDIO)]
)
def test_content_that_the_other_dialect_cannot_take_is_refused_not_dropped(
    source: Dialect, target: Dialect, part: dict[str, Any]
) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}
    chat, model = source.read_request(json.dumps(body).encode())

    for refuse_it in (lambda: target.write_request(chat, model, stream=True), lambda: target.losses(chat, model)):
        with pytest.raises(Invalid) as refusal:
            refuse_it()
        assert f"cannot be given content of type {part['type']}" in refusal.value.members["detail"][0]["msg"]


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_embeddings_take_texts_and_tokens(value: Any, inputs: tuple[embeddings.Input, ...]) -> None:
    body = {"model": "m", "input": value, "dimensions": 8, "encoding_format": "base64"}

    request, model = embeddings.read_request(json.dumps(body).encode())

    assert model == "m"
    assert request == embeddings.EmbeddingsRequest(inputs=inputs, dimensions=8, encoding="base64")
    assert json.loads(embeddings.write_request(request, "n"))["dimensions"] == 8


@pytest.mark.parametrize("value", [None, [], [[]], [None], ["a", 1], [[1], "a"], [True], [-1], 5])
def test_embeddings_refuse_other_inputs(value: Any) -> None:
    with pytest.raises(Invalid):
        embeddings.read_request(json.dumps({"model": "m", "input": value}).encode())


def test_vectors_come_in_the_order_of_their_inputs() -> None:
    body = b'{"data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[1.5]}]}'

    assert [numbers_of(vector) for vector in embeddings.read_answer(body, 2)] == [[1.5], [2.0]]


@pytest.mark.parametrize(("asked", "told"), [("high", "high"), ("auto", None), (None, None), (7, None)])
def test_how_closely_to_look_at_a_picture_crosses_where_it_can(asked: object, told: str | None) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": asked}
    body = {"model": "m", "input": [{"role": "user", "content": [picture]}]}
    chat, _ = RESPONSES.read_request(json.dumps(body).encode())

    (row,) = write(CHAT_COMPLETIONS, chat)["messages"][0]["content"]
    back, _ = CHAT_COMPLETIONS.read_request(
        json.dumps({"model": "m", "messages": [{"role": "user", "content": [row]}]}).encode()
    )
    (again,) = write(RESPONSES, back)["input"][0]["content"]

    assert (row["image_url"].get("detail"), again["detail"]) == (told, told or "auto")
    for dialect in (MESSAGES, CONVERSE, GENERATE_CONTENT):
        assert dialect.losses(chat, "m") == (("image.detail",) if told else ())


def test_a_picture_has_the_one_name_of_its_type_that_all_vendors_take() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(body).encode())

    assert write(MESSAGES, chat)["messages"][0]["content"][0]["source"]["media_type"] == "image/jpeg"
    assert write(CHAT_COMPLETIONS, chat)["messages"][0]["content"] == [picture]


def test_a_data_url_of_parameters_without_an_end_is_an_address_at_once() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:" + ";a" * 4_000_000}}
    before = time.thread_time()

    asked = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(asked).encode())

    assert time.thread_time() - before < 0.5
    assert isinstance(image := chat.messages[0].parts[0], Image)
    assert (image.data, image.url[:5]) == ("", "data:")


def test_an_endless_id_of_a_call_is_told_by_its_hash_and_stays_the_calls_own() -> None:
    ids = [letter + "^" * 4_000_000 for letter in "ab"]
    calls = Message("assistant", tuple(ToolCall(each, "t", "{}") for each in ids))
    results = Message("user", tuple(ToolResult(each, (Text("x"),)) for each in ids))
    before = time.thread_time()

    asked, told = write(MESSAGES, ChatRequest(messages=(*HELLO, calls, results), max_tokens=5))["messages"][1:]

    assert time.thread_time() - before < 0.5
    assert [row["id"] for row in asked["content"]] == [row["tool_use_id"] for row in told["content"]]
    assert len({row["id"] for row in asked["content"]}) == 2
    assert all(len(row["id"]) == 64 for row in asked["content"])
