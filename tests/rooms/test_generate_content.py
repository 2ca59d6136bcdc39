"""The generate content dialect: what only Google does. The golden files that all dialects share are read elsewhere."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.compare import WRITTEN, assert_golden, assert_golden_bytes, assert_golden_words, read

from torana.chat import (
    AnswerSchema,
    ChatRequest,
    Chunk,
    Document,
    Effort,
    Foreign,
    Image,
    Message,
    Reasoning,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from torana.dialects.collecting import collect
from torana.dialects.generate_content import GENERATE_CONTENT, VERTEX_CONTENT, losses
from torana.dialects.google_schema import clean_schema
from torana.dialects.json_pieces import JsonPieces
from torana.dialects.schemas import Room
from torana.errors import (
    Invalid,
    ProviderBroke,
    ProviderFoundNothing,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
    ProviderRefusedKey,
    ProviderSpent,
)

HELLO = (Message("user", (Text("Hello"),)),)
FLASH_2, PRO_2, LITE_2 = "gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite"
FLASH_3, PRO_3 = "gemini-3-flash-preview", "gemini-3.1-pro-preview"


def write(chat: ChatRequest, model: str = FLASH_3) -> dict[str, Any]:
    members = json.loads(GENERATE_CONTENT.write_request(chat, model, stream=True))
    assert isinstance(members, dict)
    return members


def write_turns(*messages: Message, model: str = FLASH_3) -> list[Any]:
    contents = write(ChatRequest(messages=messages), model)["contents"]
    assert isinstance(contents, list)
    return contents


def read_stream(*parts: bytes) -> list[Chunk]:
    reader = GENERATE_CONTENT.read_events()
    return [chunk for part in parts for chunk in reader.feed(part)] + reader.close()


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\r\n\r\n"


def said(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts)}, "index": 0, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], "responseId": "r", **more}


@pytest.mark.parametrize("name", ["full", "thinking"])
def test_a_request_is_written_as_in_the_golden_file(name: str) -> None:
    chat = msgspec.json.decode(read(f"{name}.json"), type=ChatRequest)

    assert_golden(f"generate_content/{name}.request.json", write(chat))


def test_a_clients_request_is_read_as_in_the_golden_file() -> None:
    chat, model = GENERATE_CONTENT.read_request(read("generate_content/client.request.json"))

    assert model == FLASH_3
    assert_golden_words("generate_content/client.words.json", chat, ChatRequest)


def test_a_request_that_is_read_and_written_again_is_unchanged() -> None:
    told = json.loads(read("generate_content/client.request.json"))
    del told["model"]  # it stands in the path

    chat, model = GENERATE_CONTENT.read_request(json.dumps(told).encode())

    assert write(chat, FLASH_3) == told
    assert model == ""


def test_members_in_snake_case_are_read_as_the_others() -> None:
    body = {
        "system_instruction": {"parts": [{"text": "Short."}]},
        "contents": [{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "aaaa"}}]}],
        "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": {"type": "object"}}]}],
        "tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
        "generation_config": {"max_output_tokens": 5, "stop_sequences": ["x"], "thinking_config": {}},
    }

    chat, _ = GENERATE_CONTENT.read_request(json.dumps(body).encode())

    assert chat.messages == (
        Message("system", (Text("Short."),)),
        Message("user", (Image("image/png", "aaaa"),)),
    )
    assert (chat.tools, chat.tool_choice) == ((Tool("f", parameters={"type": "object"}),), "f")
    assert (chat.max_tokens, chat.stop, chat.reasoning) == (5, ("x",), None)


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["contents"]),
        ({"contents": "x"}, ["contents"]),
        ({"contents": [{}]}, ["contents", 0, "parts"]),
        ({"contents": [{"parts": [{"text": 5}]}]}, ["contents", 0, "parts", 0, "text"]),
        ({"contents": [{"parts": [{"functionCall": 5}]}]}, ["contents", 0, "parts", 0, "functionCall"]),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, ["contents", 0, "parts", 0, "functionCall", "name"]),
        ({"contents": [], "systemInstruction": 5}, ["systemInstruction"]),
        ({"contents": [], "tools": [{"functionDeclarations": 5}]}, ["tools", 0, "functionDeclarations"]),
        ({"contents": [], "generationConfig": {"topK": "x"}}, ["topK"]),
    ],
)
def test_a_wrong_member_is_named(body: dict[str, Any], loc: list[str | int]) -> None:
    with pytest.raises(Invalid) as refusal:
        GENERATE_CONTENT.read_request(json.dumps(body).encode())

    assert refusal.value.members["detail"][0]["loc"][1:] == loc


def test_an_array_in_pieces_of_any_size_gives_the_same_chunks() -> None:
    stream = read("generate_content/tools.array.json")

    expected = read_stream(stream)

    for size in range(1, len(stream)):
        assert read_stream(*(stream[at : at + size] for at in range(0, len(stream), size))) == expected


def test_a_stream_in_the_form_of_an_array_is_the_same_stream() -> None:
    expected = read_stream(read("generate_content/tools.sse"))

    assert read_stream(read("generate_content/tools.array.json")) == expected
    assert GENERATE_CONTENT.read_answer(read("generate_content/tools.array.json")) == expected


@pytest.mark.parametrize("name", ["tools.sse", "tools.array.json"])
def test_a_stream_cut_before_its_finish_reason_is_a_failure(name: str) -> None:
    stream = read(f"generate_content/{name}")

    for length in range(stream.rindex(b"finishReason")):
        with pytest.raises(ProviderBroke):
            read_stream(stream[:length])


@pytest.mark.parametrize("name", WRITTEN)
def test_chunks_are_written_as_in_the_golden_files(name: str) -> None:
    chunks = msgspec.json.decode(read(f"{name}.chunks.json"), type=list[Chunk])
    writer = GENERATE_CONTENT.write_events("the-model", "id-1", 1_700_000_000)

    stream = b"".join(writer.write([chunk]) for chunk in chunks)
    answer = GENERATE_CONTENT.write_answer(chunks, "the-model", "id-1", 1_700_000_000)

    assert_golden_bytes(f"generate_content/{name}.written.sse", stream)
    assert GENERATE_CONTENT.write_events("the-model", "id-1", 0).write(chunks) == stream
    assert_golden(f"generate_content/{name}.written.json", json.loads(answer))


@pytest.mark.parametrize("name", ["tools", "choices"])
def test_what_is_written_from_a_stream_says_the_same(name: str) -> None:
    chunks = read_stream(read(f"generate_content/{name}.sse"))
    written = GENERATE_CONTENT.write_events("m", "r", 0).write(chunks)

    for again in (
        read_stream(written),
        GENERATE_CONTENT.read_answer(GENERATE_CONTENT.write_answer(chunks, "m", "r", 0)),
    ):
        for part in ("text", "reasoning", "signature"):
            assert _gather(again, part) == _gather(chunks, part)
        assert [chunk.tool_call for chunk in again if chunk.tool_call] == [c.tool_call for c in chunks if c.tool_call]
        assert (again[-1].usage, again[-1].finish) == (chunks[-1].usage, chunks[-1].finish)


def _gather(chunks: list[Chunk], part: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks:
        found[chunk.choice] = found.get(chunk.choice, "") + getattr(chunk, part)
    return found


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "other"),
        ("UNEXPECTED_TOOL_CALL", "other"),
        ("OF_TOMORROW", "other"),
    ],
)
def test_every_finish_reason_is_passed_on(reason: str, finish: str) -> None:
    chunks = read_stream(event(said({"text": "a"}, finish=reason)))

    assert (chunks[-1].finish, chunks[-1].is_last) == (finish, True)


@pytest.mark.parametrize(
    "stream",
    [
        event({"usageMetadata": {"promptTokenCount": 1}}),
        event({"candidates": []}),
        event({"candidates": [{"index": 0}]}),
        event({"promptFeedback": {}}),
        b"[]",
        b"[",
        b"",
        b" \r\n",
    ],
)
def test_a_stream_that_says_nothing_is_a_failure(stream: bytes) -> None:
    with pytest.raises(ProviderBroke):
        read_stream(stream)


def test_calls_without_an_id_get_one_of_their_own() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}

    ids = [
        chunk.tool_call.id
        for answer in ("a", "b", "")
        for chunk in read_stream(event(said(call, call) | {"responseId": answer}))
        if chunk.tool_call
    ]

    assert len(set(ids)) == 6
    assert all(len(call_id) <= 40 and call_id.startswith("call_") for call_id in ids)


USAGES: list[tuple[dict[str, Any], Usage]] = [
    ({"promptTokenCount": 5, "candidatesTokenCount": 3}, Usage(5, 3)),
    ({"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 4}, Usage(5, 7, reasoning_tokens=4)),
    # Counted among the candidates: the total tells.
    (
        {"promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 4, "totalTokenCount": 12},
        Usage(5, 7, reasoning_tokens=4),
    ),
    ({"promptTokenCount": 5, "thoughtsTokenCount": 4, "totalTokenCount": 9}, Usage(5, 4, reasoning_tokens=4)),
    ({"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 1}, Usage(7, 1)),
    # The output is not told at all: it is counted.
    ({"promptTokenCount": 5, "cachedContentTokenCount": 4}, Usage(5, 0, cache_read_tokens=4, is_counted=True)),
    ({"promptTokenCount": 5, "candidatesTokenCount": 3, "trafficType": "ON_DEMAND_FLEX"}, Usage(5, 3, tiers=("flex",))),
    ({"promptTokenCount": 5, "candidatesTokenCount": 3, "serviceTier": "priority"}, Usage(5, 3, tiers=("priority",))),
    ({"promptTokenCount": 5, "candidatesTokenCount": 3, "trafficType": "ON_DEMAND"}, Usage(5, 3)),
    ({"promptTokenCount": -5, "candidatesTokenCount": 3}, Usage(is_suspect=True)),
    ({"promptTokenCount": 5, "candidatesTokenCount": 10**30}, Usage(is_suspect=True)),
    ({"promptTokenCount": "5"}, Usage(is_suspect=True)),
]


@pytest.mark.parametrize(("told", "usage"), USAGES)
def test_usage_is_read_with_every_part_in_its_place(told: dict[str, Any], usage: Usage) -> None:
    answer = said({"text": "a"}, usageMetadata=told)

    assert read_stream(event(answer))[-1].usage == usage
    assert GENERATE_CONTENT.scan_answer(json.dumps(answer).encode()) == usage


def test_the_last_usage_stands_and_what_it_leaves_out_is_as_it_was() -> None:
    first = said({"text": "a"}, finish=None, usageMetadata={"promptTokenCount": 5, "cachedContentTokenCount": 2})
    last = said({"text": "b"}, usageMetadata={"candidatesTokenCount": 3, "trafficType": "ON_DEMAND"})

    assert read_stream(event(first), event(last))[-1].usage == Usage(5, 3, cache_read_tokens=2)


def rpc(code: int, status: str, message: str = "no", **details: dict[str, Any]) -> dict[str, Any]:
    rows = [{"@type": f"type.googleapis.com/google.rpc.{name}", **row} for name, row in details.items()]
    return {"error": {"code": code, "message": message, "status": status, "details": rows}}


NO_FILE = "permission to access the File x or it may not exist."
DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
MINUTE = {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}
ERRORS: list[tuple[dict[str, Any], type[ProviderRefused], int, float | None]] = [
    (rpc(400, "INVALID_ARGUMENT"), ProviderRefused, 400, None),
    (rpc(400, "INVALID_ARGUMENT", ErrorInfo={"reason": "API_KEY_INVALID"}), ProviderRefusedKey, 401, None),
    (rpc(401, "UNAUTHENTICATED"), ProviderRefusedKey, 401, None),
    (rpc(403, "PERMISSION_DENIED"), ProviderRefusedKey, 403, None),
    (rpc(403, "PERMISSION_DENIED", f"You do not have {NO_FILE}"), ProviderRefused, 400, None),
    (rpc(403, "PERMISSION_DENIED", ErrorInfo={"reason": "BILLING_DISABLED"}), ProviderSpent, 403, None),
    (rpc(404, "NOT_FOUND"), ProviderFoundNothing, 404, None),
    (rpc(429, "RESOURCE_EXHAUSTED", RetryInfo={"retryDelay": "34.5s"}), ProviderLimited, 429, 34.5),
    (rpc(429, "RESOURCE_EXHAUSTED", QuotaFailure=MINUTE, RetryInfo={"retryDelay": "7s"}), ProviderLimited, 429, 7.0),
    (rpc(429, "RESOURCE_EXHAUSTED", RetryInfo={"retryDelay": "soon"}), ProviderLimited, 429, None),
    (rpc(429, "RESOURCE_EXHAUSTED", QuotaFailure=DAY), ProviderSpent, 429, None),
    (rpc(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), ProviderSpent, 429, None),
    (rpc(500, "INTERNAL"), ProviderOverloaded, 500, None),
    (rpc(503, "UNAVAILABLE", "The model is overloaded."), ProviderOverloaded, 503, None),
    (rpc(504, "DEADLINE_EXCEEDED"), ProviderOverloaded, 504, None),
]


@pytest.mark.parametrize(("body", "kind", "status", "wait_s"), ERRORS)
def test_an_error_is_told_apart_wherever_it_comes(
    body: dict[str, Any], kind: type[ProviderRefused], status: int, wait_s: float | None
) -> None:
    def check(error: ProviderRefused) -> None:
        assert (type(error), error.upstream_code, error.retry_after_s) == (kind, status, wait_s)

    plain = json.dumps(body, indent=2).encode()
    check(GENERATE_CONTENT.read_error(body["error"]["code"], plain))
    check(GENERATE_CONTENT.read_error(body["error"]["code"], b"[" + plain + b"]"))
    begun = event(said({"text": "a"}, finish=None))
    for stream in (event(body), b"[" + plain + b"]", plain, begun + event(body), begun + plain):
        with pytest.raises(ProviderRefused) as refused:
            read_stream(stream)
        check(refused.value)


@pytest.mark.parametrize(
    ("status", "code"),
    # Source: google/rpc/code.proto, "HTTP Mapping".
    [
        ("INVALID_ARGUMENT", 400),
        ("FAILED_PRECONDITION", 400),
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("NOT_FOUND", 404),
        ("RESOURCE_EXHAUSTED", 429),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
        ("OF_TOMORROW", 500),
    ],
)
@pytest.mark.parametrize("told", [{}, {"code": 8}, {"code": "429"}])
def test_an_error_in_a_stream_is_known_by_its_name_where_no_http_status_is_told(
    told: dict[str, Any], status: str, code: int
) -> None:
    with pytest.raises(ProviderRefused) as refused:
        read_stream(event({"error": {"message": "no", "status": status, **told}}))

    assert refused.value.upstream_code == code


def test_chunks_before_an_error_are_given_out_first() -> None:
    reader = GENERATE_CONTENT.read_events()

    chunks = reader.feed(event(said({"text": "a"}, finish=None)) + event(rpc(503, "UNAVAILABLE")))

    assert [chunk.text for chunk in chunks] == ["", "a"]
    with pytest.raises(ProviderOverloaded):
        reader.close()


LETTERS = st.text('ab\\"{}[],é😀\n ', max_size=9)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.dictionaries(LETTERS, LETTERS | st.lists(LETTERS), max_size=4), min_size=1, max_size=5),
    indent=st.none() | st.just(2),
    is_array=st.booleans(),
    data=st.data(),
)
def test_objects_are_cut_out_of_any_stream_however_it_is_split(
    values: list[dict[str, Any]], indent: int | None, is_array: bool, data: st.DataObject
) -> None:
    texts = [json.dumps(value, indent=indent) for value in values]
    stream = ("[" + ",\r\n".join(texts) + "]" if is_array else "\n".join(texts)).encode("utf-8", "surrogatepass")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = JsonPieces()

    events = [
        found
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for found in pieces.feed(stream[start:end])
    ]

    assert [json.loads(found) for _, found in events + pieces.close()] == values


@pytest.mark.parametrize("junk", [b"<html>", b'{"a":1} x', b'[1,{"a":1}]', b'"text"'])
def test_what_is_no_stream_of_objects_breaks_it(junk: bytes) -> None:
    pieces = JsonPieces()

    given = [pieces.feed(junk)] if junk.startswith(b'{"a"') else []

    with pytest.raises(ProviderBroke):
        pieces.feed(b" " if given else junk)


def test_an_object_is_held_up_to_a_limit() -> None:
    at_limit = b'{"a":"' + b"x" * 92 + b'"}'
    assert JsonPieces(limit_bytes=100).feed(at_limit[:-1]) == []
    with pytest.raises(ProviderBroke):
        JsonPieces(limit_bytes=99).feed(at_limit)  # whole at once is no smaller

    with pytest.raises(ProviderBroke):
        JsonPieces(limit_bytes=100).feed(at_limit[:-2] + b"xxx")


CALL, RESULT = ToolCall("fc1", "f", '{"a":1}'), ToolResult("fc1", (Text("done"),))


def test_a_signature_goes_back_unchanged_on_the_very_part_that_it_came_with() -> None:
    why, yes = {"text": "why", "thought": True}, {"text": "Yes."}
    call = {"functionCall": {"id": "1", "name": "f", "args": {}}}
    for parts in (
        [why, {**call, "thoughtSignature": "c2ln"}, call | {"functionCall": {"id": "2", "name": "f", "args": {}}}],
        [why, yes, {**call, "thoughtSignature": "c2ln"}],
        [why, yes, {"text": "", "thoughtSignature": "c2ln"}],
        [yes, {"text": "", "thoughtSignature": "c2ln"}],
    ):
        said_parts = collect(read_stream(event(said(*parts)))).choices[0].parts

        [turn] = write_turns(Message("assistant", tuple(said_parts)))

        assert turn["parts"][: len(parts)] == parts


def test_gemini_3_is_told_of_a_first_call_that_has_no_signature() -> None:
    calls = Message("assistant", (Thought("x", "proof", dialect="messages"), CALL, ToolCall("fc2", "g", "{}")))

    [turn] = write_turns(calls)
    [before] = write_turns(calls, model=PRO_2)

    assert [part.get("thoughtSignature") for part in turn["parts"]] == ["skip_thought_signature_validator", None]
    assert [part.get("thoughtSignature") for part in before["parts"]] == [None, None]


def test_results_stand_alone_behind_their_calls_and_bear_their_names() -> None:
    turns = write_turns(
        Message("assistant", (CALL, ToolCall("call_9", "g", ""))),
        Message("user", (Text("Go on."), RESULT)),
        Message("user", (ToolResult("call_9", (Text("no"),), is_error=True),)),
    )

    assert turns[1:] == [
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "fc1", "name": "f", "response": {"output": "done"}}},
                {"functionResponse": {"id": "call_9", "name": "g", "response": {"error": "no"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "Go on."}]},
    ]


def test_results_of_neighbouring_messages_come_together_in_the_order_of_their_calls() -> None:
    # Tools that run side by side are done in any order, and Vertex AI is told no ids.
    chat = ChatRequest(
        messages=(
            Message("assistant", (CALL, ToolCall("fc2", "f", ""), ToolCall("fc3", "f", ""))),
            Message("user", (ToolResult("fc3", (Text("third"),)), ToolResult("other", (Text("of no call"),)))),
            Message("system", (Text("It is late."),)),
            Message("user", (RESULT,)),
            Message("user", (ToolResult("fc2", (Text("second"),)),)),
        )
    )

    _, results, said = json.loads(VERTEX_CONTENT.write_request(chat, FLASH_2, stream=True))["contents"]

    assert said == {"role": "user", "parts": [{"text": "It is late."}]}
    told = [part["functionResponse"]["response"]["output"] for part in results["parts"]]
    assert told == ["done", "second", "third", "of no call"]


def test_vertex_is_told_what_a_client_wrote_in_place_of_a_call() -> None:
    turn = {"role": "model", "parts": [{"text": "x"}, {"functionCall": None}]}
    chat, _ = GENERATE_CONTENT.read_request(json.dumps({"contents": [turn]}).encode())

    (written,) = json.loads(VERTEX_CONTENT.write_request(chat, FLASH_2, stream=True))["contents"]
    assert written["parts"][1]["functionCall"] is None


def test_vertex_is_told_no_ids() -> None:
    chat = ChatRequest(messages=(Message("assistant", (CALL,)), Message("user", (RESULT,))))

    body = json.loads(VERTEX_CONTENT.write_request(chat, FLASH_2, stream=True))

    assert body["contents"] == [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "done"}}}]},
    ]


def test_pictures_of_a_result_stand_in_it_or_beside_it() -> None:
    result = Message("user", (ToolResult("fc1", (Text("see"), Image("image/png", "aaaa"))),))
    picture = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}

    [[newer], older] = write_turns(result)[0]["parts"], write_turns(result, model=FLASH_2)[0]["parts"]

    assert newer["functionResponse"]["parts"] == [picture]
    assert [list(part) for part in older] == [["functionResponse"], ["inlineData"]]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (Image("image/png", "aaaa"), {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}),
        (Image(url="https://x.example/a.JPG?b=c"), {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.example/a.JPG?b=c"}}),
        (Image(url="https://[x/a.gif"), {"fileData": {"mimeType": "image/gif", "fileUri": "https://[x/a.gif"}}),
        (Image(url="https://x.example/a"), {"fileData": {"fileUri": "https://x.example/a"}}),
        (Document("application/pdf", "JVBE"), {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}}),
        (Document("text/csv", url="https://x/c"), {"fileData": {"mimeType": "text/csv", "fileUri": "https://x/c"}}),
        (Document("text/plain", text="all", title="a.txt"), {"text": "a.txt\n\nall"}),
        (Document("text/plain", "YWxs"), {"text": "all"}),
    ],
)  # fmt: skip
def test_pictures_and_documents_are_written(part: Image | Document, written: dict[str, Any]) -> None:
    assert write_turns(Message("user", (part,)))[0]["parts"] == [written]


GEMINIS_FILES = "generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    "part",
    [
        Image(url="gs://bucket/a.png"),
        Document("application/pdf", url="GS://bucket/c.pdf"),
        Image(url=f"https://{GEMINIS_FILES}/v1beta/files/abc"),
        Document("application/pdf", url=f"HTTPS://u@{GEMINIS_FILES.upper()}.:443/v1beta/files/abc"),
    ],
)
def test_nothing_in_a_clouds_store_is_asked_for(part: Image | Document) -> None:
    """It would be read with the rights of the operator's account, whoever asks."""
    with pytest.raises(Invalid):
        write_turns(Message("user", (part,)))


def test_a_part_of_another_dialect_is_refused() -> None:
    with pytest.raises(Invalid):
        write_turns(Message("user", (Foreign("messages", "server_tool_use", {}),)))


def test_a_conversation_in_which_nobody_asks_becomes_a_question() -> None:
    body = write(ChatRequest(messages=(Message("system", (Text("Say hi."),)),)))

    assert body == {"contents": [{"role": "user", "parts": [{"text": "Say hi."}]}]}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("none", {"mode": "NONE"}),
        ("any", {"mode": "ANY"}),
        ("f", {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_the_choice_of_a_tool_is_a_mode(choice: str, config: dict[str, Any]) -> None:
    body = write(ChatRequest(messages=HELLO, tools=(Tool("f"),), tool_choice=choice))

    assert body["toolConfig"] == {"functionCallingConfig": config}
    assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}]


EFFORTS: list[tuple[str, Effort, int | None, dict[str, Any]]] = [
    (FLASH_2, "", None, {"thinkingBudget": -1, "includeThoughts": True}),
    (FLASH_3, "", None, {"includeThoughts": True}),
    (FLASH_2, "none", None, {"thinkingBudget": 0}),
    (PRO_2, "none", None, {"thinkingBudget": 128, "includeThoughts": False}),
    (FLASH_2, "low", None, {"thinkingBudget": 4096, "includeThoughts": True}),
    (FLASH_2, "high", None, {"thinkingBudget": 16384, "includeThoughts": True}),
    (LITE_2, "", 100, {"thinkingBudget": 512, "includeThoughts": True}),
    (FLASH_2, "", 100_000, {"thinkingBudget": 24576, "includeThoughts": True}),
    (PRO_2, "", 100_000, {"thinkingBudget": 32768, "includeThoughts": True}),
    (FLASH_3, "none", None, {"thinkingLevel": "MINIMAL", "includeThoughts": False}),
    (FLASH_3, "max", None, {"thinkingLevel": "HIGH", "includeThoughts": True}),
    (FLASH_3, "medium", None, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
    (PRO_3, "none", None, {"thinkingLevel": "LOW", "includeThoughts": False}),
    (PRO_3, "minimal", None, {"thinkingLevel": "LOW", "includeThoughts": True}),
    ("gemini-3-pro-preview", "medium", None, {"thinkingLevel": "LOW", "includeThoughts": True}),
    ("gemini-3.8-flash", "minimal", None, {"thinkingLevel": "LOW", "includeThoughts": True}),
    (PRO_3, "", 512, {"thinkingLevel": "LOW", "includeThoughts": True}),
    (PRO_3, "", 8000, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
    (PRO_3, "", 20_000, {"thinkingLevel": "HIGH", "includeThoughts": True}),
]


@pytest.mark.parametrize(("model", "effort", "budget", "config"), EFFORTS)
def test_efforts_and_budgets_are_told_as_each_model_knows_them(
    model: str, effort: Effort, budget: int | None, config: dict[str, Any]
) -> None:
    chat = ChatRequest(messages=HELLO, reasoning=Reasoning(effort, budget))

    assert write(chat, model)["generationConfig"] == {"thinkingConfig": config}


def test_a_budget_leaves_room_for_the_answer() -> None:
    named = ChatRequest(messages=HELLO, reasoning=Reasoning("", 9000), max_tokens=4000)
    meant = ChatRequest(messages=HELLO, reasoning=Reasoning("medium"), max_tokens=4000)

    assert write(named, FLASH_2)["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 3999
    assert write(meant, FLASH_2)["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 2000


def test_a_short_answer_is_not_eaten_up_by_thoughts() -> None:
    short = ChatRequest(messages=HELLO, max_tokens=1024)
    long = ChatRequest(messages=HELLO, max_tokens=1025)

    assert write(short, FLASH_2)["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}
    assert write(short, FLASH_3)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "MINIMAL"
    assert "thinkingConfig" not in write(short, "gemini-2.0-flash")["generationConfig"]
    assert "thinkingConfig" not in write(long)["generationConfig"]
    assert losses(short, "gemini-2.0-flash") == losses(short, PRO_3) == ()


def test_a_model_that_cannot_think_is_not_asked_to() -> None:
    chat = ChatRequest(messages=HELLO, reasoning=Reasoning("high"))

    assert "generationConfig" not in write(chat, "gemini-2.0-flash")
    assert losses(chat, "gemini-2.0-flash") == ("reasoning",)
    assert losses(chat, FLASH_2) == ()


def test_a_schema_is_asked_for_where_the_model_takes_it_beside_tools() -> None:
    chat = ChatRequest(messages=HELLO, answer_schema=AnswerSchema("v", {"type": "object"}, description="A verdict."))
    with_tools = msgspec.structs.replace(chat, tools=(Tool("f"),))
    asked = {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "description": "A verdict."},
    }

    assert write(chat, FLASH_2)["generationConfig"] == asked
    assert write(with_tools, FLASH_3)["generationConfig"] == asked
    assert "generationConfig" not in write(with_tools, FLASH_2)
    assert losses(with_tools, FLASH_2) == ("answer_schema",)
    assert write(ChatRequest(messages=HELLO, wants_json=True))["generationConfig"] == {
        "responseMimeType": "application/json"
    }


def test_what_is_left_out_is_named() -> None:
    parts = (Text("a", cached=True),)
    chat = ChatRequest(
        messages=(Message("user", parts), Message("assistant", (Thought("b", dialect="messages"),))),
        tools=(Tool("f", parameters={"type": "object", "properties": {"a": {"not": {}}}}, strict=True),),
        answer_schema=AnswerSchema("v", {"not": {}}),
        parallel_tool_calls=False,
        choices=2,
        stop=tuple("abcdef"),
        user="u",
    )

    assert losses(chat, FLASH_3) == (
        "answer_schema.schema", "choices", "parallel_tool_calls", "stop", "thought", "tool.schema", "tool.strict",
    )  # fmt: skip
    assert write(chat)["generationConfig"]["stopSequences"] == list("abcde")
    assert write(ChatRequest(messages=HELLO, stop=("", "a")))["generationConfig"] == {"stopSequences": ["a"]}
    assert "generationConfig" not in write(ChatRequest(messages=HELLO, stop=("",)))
    assert losses(ChatRequest(messages=HELLO, tools=(Tool("f"),)), FLASH_3) == ()


SCHEMAS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"type": "string", "$schema": "x", "default": "a", "examples": ["b"]}, {"type": "string"}, False),
    ({"const": "a"}, {"enum": ["a"]}, False),
    ({"enum": ["a", 1, None, True]}, {"enum": ["a", 1]}, True),
    ({"type": "boolean", "const": True}, {"type": "boolean"}, True),
    ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}, False),
    ({"type": "number", "exclusiveMaximum": 1.5}, {"type": "number", "maximum": 1.5}, False),
    ({"type": "string", "pattern": "^a"}, {"type": "string", "description": '{pattern: "^a"}'}, False),
    (
        {"type": "array", "uniqueItems": True, "multipleOf": 2, "description": "Two."},
        {"type": "array", "description": "Two.\n\n{uniqueItems: true, multipleOf: 2}"},
        False,
    ),
    ({"type": "string", "not": {"const": "a"}}, {"type": "string"}, True),
    ({"type": ["string", "null"]}, {"type": ["string", "null"]}, False),
    ({"items": [{"type": "string"}, {"not": {}}]}, {"prefixItems": [{"type": "string"}, {}]}, True),
    ({"items": {"$schema": "x", "type": "string"}}, {"items": {"type": "string"}}, False),
    ({"additionalProperties": False}, {"additionalProperties": False}, False),
    (
        {"definitions": {"A": {"type": "string"}}, "properties": {"a": {"$ref": "#/definitions/A", "title": "x"}}},
        {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}},
        False,
    ),
    (
        {"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
        False,
    ),
    (
        {"definitions": {"A": {"type": "string"}}, "$defs": "x", "$ref": "#/definitions/A"},
        {"$defs": {"A": {"type": "string"}}, "$ref": "#/$defs/A"},
        False,
    ),
    ({"required": "a", "allOf": [{"required": [{}, "b"]}, {"required": 5}]}, {"required": ["b"]}, False),
    # Two that cannot both hold
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "string"}, True),
    (
        {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": "integer"}}}]},
        {"properties": {"a": {"type": "string"}}},
        True,
    ),
    ({"description": "x", "allOf": [{"description": "y"}]}, {"description": "x"}, False),
    # Beside a reference nothing may stand, and it leads to a definition
    (
        {
            "definitions": {"A": {"type": "string"}},
            "properties": {"a": {"title": "T", "default": "x", "allOf": [{"$ref": "#/definitions/A"}]}},
        },
        {"$defs": {"A": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/A"}}},
        False,
    ),
    (
        {
            "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/B"}}, "required": ["a"]}, "B": {"type": "string"}},
            "allOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": {}}, "required": ["b"]}],
        },
        {
            "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/B"}}, "required": ["a"]}, "B": {"type": "string"}},
            "properties": {"a": {"type": "string"}, "b": {}},
            "required": ["a", "b"],
        },
        False,
    ),
    (
        {"$defs": {"A": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/A", "enum": ["x"]}}},
        {"$defs": {"A": {"type": "string"}}, "properties": {"a": {"enum": ["x"], "type": "string"}}},
        False,
    ),
    (
        {"properties": {"a": {"type": "object"}, "b": {"items": {"$ref": "#/properties/a", "description": "d"}}}},
        {"properties": {"a": {"type": "object"}, "b": {"items": {"description": "d", "type": "object"}}}},
        False,
    ),
    (
        {"properties": {"a": {"$ref": "#/nowhere"}, "b": {"$ref": "https://example.com/b"}}},
        {"properties": {"a": {}, "b": {}}},
        True,
    ),
    ({"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"properties": {"a": {"type": "object"}}}}}, True),
    # What a parameter is for is told, unless it is of a kind that holds itself
    (
        {
            "$defs": {"A": {"enum": ["x"], "description": "A kind."}},
            "properties": {"a": {"$ref": "#/$defs/A", "default": "x", "description": "Which one."}},
        },
        {
            "$defs": {"A": {"enum": ["x"], "description": "A kind."}},
            "properties": {"a": {"enum": ["x"], "description": "Which one."}},
        },
        False,
    ),
    (
        {
            "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}}},
            "properties": {"a": {"$ref": "#/$defs/A", "description": "Which one."}},
        },
        {
            "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}}},
            "properties": {"a": {"$ref": "#/$defs/A"}},
        },
        False,
    ),
    (
        {"properties": {"pattern": {"type": "string"}, "never": False, "any": True}},
        {"properties": {"pattern": {"type": "string"}, "any": {}}},
        False,
    ),
]


def test_a_schema_of_thousands_of_parts_takes_linear_time() -> None:
    parts = [{"properties": {str(number): {}}, "required": [str(number)]} for number in range(10_000)]
    before = time.thread_time()

    cleaned, _ = clean_schema({"allOf": parts}, Room())

    assert time.thread_time() - before < 0.5
    assert len(cleaned["properties"]) == len(cleaned["required"]) == 10_000


@pytest.mark.parametrize(("schema", "cleaned", "is_looser"), SCHEMAS)
def test_a_schema_is_said_with_the_keywords_that_gemini_knows(
    schema: dict[str, Any], cleaned: dict[str, Any], is_looser: bool
) -> None:
    before = json.dumps(schema)

    assert clean_schema(schema, Room()) == (cleaned, is_looser)
    assert json.dumps(schema) == before


@pytest.mark.parametrize("name", ["tools.sse", "tools.array.json"])
def test_a_relayed_stream_of_either_form_is_watched(name: str) -> None:
    stream = read(f"generate_content/{name}")
    for size in (1, 7, 64, len(stream)):
        scan = GENERATE_CONTENT.scan_events()
        for at in range(0, len(stream), size):
            scan.feed(stream[at : at + size])

        assert scan.is_complete
        assert (scan.model, scan.usage) == ("gemini-3-flash-preview", Usage(120, 75, 100, 0, 40))


def test_a_relayed_stream_that_was_cut_is_not_complete() -> None:
    stream = read("generate_content/tools.sse")
    scan = GENERATE_CONTENT.scan_events()

    scan.feed(stream[: stream.rindex(b"data:")])

    assert not scan.is_complete


def test_pictures_in_a_result_are_written_in_linear_time() -> None:
    shown = tuple(Image("image/png", f"{number:08}") for number in range(10_000))
    call, result = ToolCall("c", "look", "{}"), ToolResult("c", shown)
    before = time.thread_time()

    turns = write_turns(Message("assistant", (call,)), Message("user", (result,)))

    assert time.thread_time() - before < 1
    assert len(turns[-1]["parts"][0]["functionResponse"]["parts"]) == 10_000
