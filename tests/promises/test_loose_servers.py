"""Servers that follow OpenAI loosely: whatever they mean is read, and every client gets its own strict format."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.provider import ScriptedProvider
from tests.support.vendor_answers import (
    DONE,
    OPENROUTER_TOO_LONG,
    WATSONX_INVALID,
    XAI_UNSAFE,
    XAI_WRONG_KEY,
    ZAI_NOT_FOUND,
    Chunk,
    data,
    piece,
    usage,
)

PROXY = "ai_gateway_model_provider_proxy"
HELLO = [piece({"role": "assistant", "content": "Hel"}), piece({"content": "lo"}), piece({}, "stop")]
HELLO_WHOLE: Chunk = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
TOLD = data({"id": "chatcmpl-1", "model": "m", "choices": [], "usage": usage()})


@pytest.fixture
async def gateway(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path) -> RunningGateway:
    (tmp_path / "models.yml").write_text(
        "models:\n"
        "- {name: theirs, title: Theirs, deployments: [{provider: hosted_vllm, model: their-model}]}\n"
        "- {name: devstral, title: Devstral, deployments: [{provider: hosted_vllm, model: mistralai/Devstral-Small}]}\n"
        "- {name: by_responses, title: R, deployments: [{provider: of_responses, model: r}]}\n"
        "- {name: without_done, title: R, deployments: [{provider: without_done, model: r}]}\n"
    )
    (tmp_path / "providers.yml").write_text(
        f"- {{name: of_responses, dialect: responses, auth: none, base_url: '{provider.url}'}}\n"
        f"- {{name: without_done, dialect: chat_completions, auth: none, base_url: '{provider.url}',"
        " quirks: {done: false}}\n"
    )
    return await start_gateway(env={"AIGW_CATALOG": str(tmp_path), "HOSTED_VLLM_API_BASE": provider.url})


async def ask_as_claude(gateway: RunningGateway, *, stream: bool = True, model: str = "theirs", **more: Any) -> Any:
    """(text, calls, stop reason, usage)"""
    body = {"model": model, "max_tokens": 99, "stream": stream, "messages": [{"role": "user", "content": "?"}], **more}
    answer = await gateway.post("/anthropic/v1/messages", json=body, token=gateway.token(unit_primitives=[PROXY]))
    assert answer.status == 200, answer
    if not stream:
        said = answer.json()
        blocks, reason, spent = said["content"], said["stop_reason"], said["usage"]
        calls = [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
        text = "".join(block.get("text", "") for block in blocks)
        return text, calls, reason, (spent["input_tokens"], spent["output_tokens"])
    rows = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
    assert rows[-1]["type"] == "message_stop", answer.text
    deltas = [row for row in rows if row["type"] == "content_block_delta"]
    calls = []
    for row in rows:
        if row["type"] == "content_block_start" and row["content_block"]["type"] == "tool_use":
            told = "".join(each["delta"]["partial_json"] for each in deltas if each["index"] == row["index"])
            calls.append((row["content_block"]["id"], row["content_block"]["name"], json.loads(told or "{}")))
    end = next(row for row in rows if row["type"] == "message_delta")
    text = "".join(row["delta"].get("text", "") for row in deltas)
    return text, calls, end["delta"]["stop_reason"], (end["usage"]["input_tokens"], end["usage"]["output_tokens"])


async def ask_as_its_own(gateway: RunningGateway, model: str = "theirs") -> str:
    body = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "?"}],
    }
    answer = await gateway.post("/openai/v1/chat/completions", json=body, token=gateway.token(unit_primitives=[PROXY]))
    assert answer.status == 200, answer
    return answer.text


@pytest.mark.parametrize(
    "events",
    [
        [*HELLO, TOLD, b"data: [DONE] \n\n"],
        [*HELLO, TOLD, b"data:[DONE]\r\n\r\n"],
        [*HELLO, TOLD, b"data: [DONE]"],
        [piece({"content": "Hello"}, "stop", choice={"index": None}), TOLD, DONE],
        [each.replace(b'"chatcmpl-1"', b"17") for each in (*HELLO, TOLD)] + [DONE],
        [*HELLO, TOLD.replace(b"[]", b"null"), DONE],
        [piece({"content": None, "thinking": ""}), *HELLO, TOLD, DONE],
        [piece({"content": "", "reasoning": {"effort": "low"}}), *HELLO, TOLD, DONE],
    ],
    ids=["space", "no space", "no end", "no index", "number as id", "no choices", "no content", "odd reasoning"],
)
async def test_a_stream_in_odd_dress_is_read(
    gateway: RunningGateway, provider: ScriptedProvider, events: list[bytes]
) -> None:
    provider.answer_with(events=events)

    assert await ask_as_claude(gateway) == ("Hello", [], "end_turn", (25, 7))

    assert "[DONE]" in (await ask_as_its_own(gateway))
    line = await gateway.log.find(path="/openai/v1/chat/completions")
    assert (line["input_tokens"], line["output_tokens"]) == (25, 7)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_with_a_number_for_its_id_is_a_call(
    gateway: RunningGateway, provider: ScriptedProvider, stream: bool
) -> None:
    """As GLM behind NVIDIA's servers gives it."""
    call = {"index": 0, "id": 0, "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}}
    if stream:
        provider.answer_with(events=[piece({"tool_calls": [call]}), piece({}, "tool_calls"), TOLD, DONE])
    else:
        message = {"role": "assistant", "tool_calls": [call]}
        choice = {"index": None, "message": message, "finish_reason": "tool_calls"}
        provider.answer_with(body={"id": 17, "choices": [choice], "usage": usage()})

    answer = await ask_as_claude(gateway, stream=stream)

    assert answer == ("", [("0", "read", {"path": "a"})], "tool_use", (25, 7))


async def test_a_mark_before_an_answer_is_passed_over(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    """RFC 8259, 8.1, lets readers do so."""
    body = json.dumps({"id": "x", "choices": [HELLO_WHOLE], "usage": usage()}).encode()
    provider.answer_with(body=b"\xef\xbb\xbf" + body)

    crossed = await ask_as_claude(gateway, stream=False)
    passed = await gateway.post(
        "/openai/v1/chat/completions",
        json={"model": "theirs", "messages": [{"role": "user", "content": "?"}]},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    assert crossed == ("Hello", [], "end_turn", (25, 7))
    assert passed.body == body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("calls", [True, False])
async def test_an_answer_that_never_tells_why_it_ended_still_calls_its_tools(
    gateway: RunningGateway, provider: ScriptedProvider, stream: bool, calls: bool
) -> None:
    """As LightLLM and some gateways end theirs."""
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    said = {"role": "assistant", "content": "Hello", **({"tool_calls": [call]} if calls else {})}
    if stream:
        provider.answer_with(events=[piece(said), TOLD, DONE])
    else:
        provider.answer_with(body={"id": "x", "choices": [{"index": 0, "message": said}], "usage": usage()})

    text, made, reason, _ = await ask_as_claude(gateway, stream=stream)

    assert (text, made, reason) == (("Hello", [("c1", "read", {})], "tool_use") if calls else ("Hello", [], "end_turn"))


@pytest.mark.parametrize("told", [TOLD, b""], ids=["usage", "no usage"])
async def test_an_answer_that_told_why_it_ended_needs_no_done_where_the_server_never_says_it(
    gateway: RunningGateway, provider: ScriptedProvider, told: bytes
) -> None:
    """As Perplexity's streams end."""
    provider.answer_with(events=[*HELLO, *filter(None, [told])])

    assert (await ask_as_claude(gateway, model="without_done"))[:3] == ("Hello", [], "end_turn")

    own = await ask_as_its_own(gateway, model="without_done")
    assert own.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("model", ["theirs", "without_done"])
async def test_an_answer_that_was_cut_off_is_never_a_success(
    gateway: RunningGateway, provider: ScriptedProvider, model: str
) -> None:
    provider.answer_with(events=HELLO[:2] if model == "without_done" else HELLO)

    body = {"model": model, "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "?"}]}
    answer = await gateway.post("/anthropic/v1/messages", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert "event: error" in answer.text
    assert "message_stop" not in answer.text


@pytest.mark.parametrize(("events", "is_whole"), [(3, True), (2, False)])
async def test_a_text_completion_needs_no_done_either_where_the_server_never_says_it(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, events: int, is_whole: bool
) -> None:
    (tmp_path / "models.yml").write_text(
        "models:\n- {name: filler, title: F, families: [codestral],"
        " deployments: [{provider: rack, model: m, text_completions: true}]}\n"
        "aliases:\n- {name: completions_default, models: [filler]}\n"
    )
    row = (
        f"- {{name: rack, dialect: chat_completions, auth: none, base_url: '{provider.url}', quirks: {{done: false}}}}"
    )
    (tmp_path / "providers.yml").write_text(row)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path)})
    told = [("    return", None), (" 1", None), ("", "stop")]
    choices = [{"index": 0, "text": text, "finish_reason": reason} for text, reason in told]
    provider.answer_with(events=[data({"id": "c", "choices": [choice]}) for choice in choices[:events]])
    file = {"file_name": "a.py", "content_above_cursor": "def f():\n", "content_below_cursor": "\n\nx = 1\n"}

    answer = await gateway.post(
        "/v2/code/completions",
        json={"prompt_version": 1, "stream": True, "current_file": file},
        token=gateway.token(unit_primitives=["complete_code"]),
    )

    assert provider.requests[-1].path == "/v1/completions"
    assert (answer.status, answer.text, answer.is_whole) == (200, "    return 1", is_whole)


async def test_what_mistrals_templates_refuse_is_not_sent_to_its_models_wherever_they_run(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    """Claude Code says its reminders behind results of tools."""
    call = {"type": "tool_use", "id": "toolu_01", "name": "read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_01", "content": "x = 1"}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "Be brief."}]},
    ]
    provider.answer_with(events=[*HELLO, TOLD, DONE])

    await ask_as_claude(gateway, model="devstral", messages=messages)

    rows = json.loads(provider.requests[-1].body)["messages"]
    assert [row["role"] for row in rows] == ["user", "assistant", "tool", "assistant", "user"]
    id_ = rows[2]["tool_call_id"]
    assert (rows[1]["tool_calls"][0]["id"], len(id_), id_.isalnum()) == (id_, 9, True)


OUTPUT: list[Chunk] = [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
    {"type": "function_call", "call_id": "c1", "name": "read", "arguments": {"path": "a"}},
]
COMPLETED: Chunk = {
    "type": "response.completed",
    "response": {"id": "r", "status": "completed", "output": OUTPUT, "usage": {"input_tokens": 25, "output_tokens": 7}},
}
CREATED: Chunk = {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}}


def done(number: int) -> Chunk:
    return {"type": "response.output_item.done", "output_index": number, "item": OUTPUT[number]}


@pytest.mark.parametrize(
    "rows",
    [
        [CREATED, COMPLETED],
        [COMPLETED],
        [CREATED, done(0), done(1), done(2), COMPLETED],
        [CREATED, {"type": "response.output_item.added", "output_index": 2, "item": OUTPUT[2]}, COMPLETED],
        [CREATED, {"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"}, COMPLETED],
    ],
    ids=["the end alone", "not even a beginning", "whole items", "a call begun", "the text alone"],
)
async def test_a_response_is_read_where_it_was_told(
    gateway: RunningGateway, provider: ScriptedProvider, rows: list[Chunk]
) -> None:
    provider.answer_with(events=[data(row) for row in rows])

    answer = await ask_as_claude(gateway, model="by_responses")

    assert answer == ("Hello", [("c1", "read", {"path": "a"})], "tool_use", (25, 7))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_reads_our_count_where_the_server_tells_no_usage(
    gateway: RunningGateway, provider: ScriptedProvider, stream: bool
) -> None:
    """Agents shorten a conversation by it; what a tool said and the tools themselves fill the window too."""
    if stream:
        provider.answer_with(events=[*HELLO, DONE])
    else:
        provider.answer_with(body={"id": "x", "choices": [HELLO_WHOLE]})
    call = {"type": "tool_use", "id": "toolu_01", "name": "read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_01", "content": "x = 1\n" * 3500}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    tools = [{"name": "read", "description": "Reads. " * 500, "input_schema": {"type": "object"}}]

    _, _, _, (taken, given) = await ask_as_claude(gateway, stream=stream, messages=messages, tools=tools)

    assert 7_000 <= taken <= 7_100
    assert given == 2
    line = await gateway.log.find(path="/anthropic/v1/messages")
    assert (line["input_tokens"], line["output_tokens"]) == (taken, given)


async def test_what_a_loose_server_made_a_client_say_is_understood(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    """A number for an id, arguments as an object: said back to another model."""
    call = {"id": 7, "type": "function", "function": {"name": "read", "arguments": {"path": "a"}}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": 7, "content": "x = 1"},
    ]
    body = {"model": "claude-sonnet-4-6", "messages": messages}

    answer = await gateway.post("/openai/v1/chat/completions", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == 200, answer
    used, result = (row["content"][0] for row in json.loads(provider.requests[-1].body)["messages"][1:])
    assert (used["id"], used["input"], result["tool_use_id"]) == ("7", {"path": "a"}, "7")


@pytest.mark.parametrize(
    ("code", "status"), [("429", 429), (429, 429), ("400", 400), ("503", 503), (None, 502), ("nothing", 502)]
)
async def test_an_error_in_place_of_a_stream_has_its_own_status(
    gateway: RunningGateway, provider: ScriptedProvider, code: Any, status: int
) -> None:
    """LiteLLM writes the status as a text."""
    provider.answer_with(
        events=[data({"error": {"message": "Not now", "type": "None", "param": "None", "code": code}})]
    )
    body = {"model": "theirs", "stream": True, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/openai/v1/chat/completions", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == status, answer


@pytest.mark.parametrize(
    ("status", "body", "seen", "told"),
    [
        (400, b'[{"error":{"code":400,"message":"Bad tool","status":"INVALID_ARGUMENT"}}]', 400, "Bad tool"),
        (400, b'[{"error":{"code":400,"message":"API key not valid."}}]', 502, "refuses the gateway's own key"),
        (422, b"Failed to deserialize the JSON body: `x`", 400, "Failed to deserialize the JSON body: `x`"),
        (422, b'{"error":"`inputs` tokens + `max_new_tokens` must be <= 4096"}', 400, "must be <= 4096"),
        (400, json.dumps(XAI_WRONG_KEY).encode(), 502, "refuses the gateway's own key"),
        (403, json.dumps(XAI_UNSAFE).encode(), 400, "own filter"),
        (403, b"<html>Request blocked</html>", 502, "A firewall"),
        (400, json.dumps(OPENROUTER_TOO_LONG).encode(), 400, "210000 tokens > 200000 maximum"),
        (400, b'{"error":{"message":"Provider returned error","metadata":{"raw":"Bad tool"}}}', 400, "Bad tool"),
        (400, b'{"error":{"message":"Provider returned error"}}', 400, "Provider returned error"),
        (400, json.dumps(WATSONX_INVALID).encode(), 400, "The Json field 'x' is required"),
        (400, b"<html>nginx</html>", 400, "no reason given"),
        (500, b"secret", 502, "The provider failed"),
    ],
)
async def test_an_error_body_in_odd_shape_is_told(
    gateway: RunningGateway, provider: ScriptedProvider, status: int, body: bytes, seen: int, told: str
) -> None:
    provider.fail_with(status, body)
    asked = {"model": "theirs", "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/openai/v1/chat/completions", json=asked, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == seen, answer
    assert told in answer.json()["error"]["message"]


@pytest.mark.parametrize(("choices", "is_greedy"), [(1, True), (3, False)])
async def test_several_completions_are_not_asked_of_a_greedy_model(
    start_gateway: StartGateway, provider: ScriptedProvider, choices: int, is_greedy: bool
) -> None:
    """vLLM: "n must be 1 when using greedy sampling"."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    body = {
        "prompt_version": 2,
        "model_provider": "litellm",
        "model_name": "codestral",
        "model_endpoint": f"{provider.url}/v1",
        "current_file": {"file_name": "a.py", "content_above_cursor": "def f", "content_below_cursor": ""},
        "choices_count": choices,
    }

    answer = await gateway.post(
        "/v2/code/completions", json=body, token=gateway.token(unit_primitives=["complete_code"])
    )

    assert answer.status == 200, answer
    sent = json.loads(provider.requests[-1].body)
    assert (sent.get("n", 1), sent["temperature"] == 0) == (choices, is_greedy)


def messages_events(reason: str | None) -> list[bytes]:
    """Of a server that follows Anthropic loosely: a call, and how it ends."""
    block = {"type": "tool_use", "id": "c1", "name": "read", "input": {}}
    message = {"id": None, "model": None, "content": None, "usage": {"input_tokens": 25, "output_tokens": 1}}
    rows: list[Chunk] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return [data(row) for row in rows]


@pytest.mark.parametrize("reason", ["end_turn", "tool_use", None])
async def test_calls_of_a_loose_messages_server_are_run(
    gateway: RunningGateway, provider: ScriptedProvider, reason: str | None
) -> None:
    provider.answer_with(events=messages_events(reason))
    body = {"model": "claude-sonnet-4-6", "stream": True, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/openai/v1/chat/completions", json=body, token=gateway.token(unit_primitives=[PROXY]))

    rows = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
    assert rows[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (rows[-1]["usage"]["prompt_tokens"], rows[-1]["usage"]["completion_tokens"]) == (25, 7)


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/openai/v1/chat/completions"])
async def test_an_error_without_a_type_ends_a_messages_stream(
    gateway: RunningGateway, provider: ScriptedProvider, path: str
) -> None:
    failed = data({"error": {"type": "overloaded_error", "message": "Not now"}})
    provider.answer_with(events=[*messages_events(None)[:3], failed])
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": "?"}],
    }

    answer = await gateway.post(path, json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert "overloaded" in answer.text
    assert "message_stop" not in answer.text
    assert "[DONE]" not in answer.text


def begun(number: int, arguments: str) -> Chunk:
    function = {"name": f"tool{number}", "arguments": arguments}
    return {"index": number, "id": f"c{number}", "type": "function", "function": function}


def more(number: int, arguments: str) -> Chunk:
    return {"index": number, "function": {"arguments": arguments}}


@pytest.mark.parametrize(
    "deltas",
    [
        [[begun(0, ""), begun(1, "")], [more(0, '{"a"'), more(1, '{"b"')], [more(0, ":1}"), more(1, ":2}")]],
        [[begun(0, '{"a":1}')], [begun(1, "")], [more(1, '{"b"')], [more(1, ":2}")]],
        [[begun(0, '{"a"')], [begun(1, '{"b":2}')], [more(0, ":1}")]],
        [[begun(1, '{"b":2}')], [begun(0, '{"a":1}')]],
    ],
    ids=["in turns", "one by one", "one within the other", "last first"],
)
async def test_calls_that_come_in_turns_are_blocks_one_by_one(
    gateway: RunningGateway, provider: ScriptedProvider, deltas: list[list[Chunk]]
) -> None:
    """Claude Code reads a call's arguments where its block ends."""
    provider.answer_with(
        events=[*(piece({"tool_calls": calls}) for calls in deltas), piece({}, "tool_calls"), TOLD, DONE]
    )
    body = {"model": "theirs", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/anthropic/v1/messages", json=body, token=gateway.token(unit_primitives=[PROXY]))

    calls: dict[str, str] = {}
    name = ""
    for row in [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]:
        if row["type"] == "content_block_start":
            assert (name, row["index"]) == ("", len(calls))
            name = row["content_block"]["name"]
            calls[name] = ""
        elif row["type"] == "content_block_delta":
            assert row["index"] == len(calls) - 1
            calls[name] += row["delta"]["partial_json"]
        elif row["type"] == "content_block_stop":
            name = ""
    assert {name: json.loads(told) for name, told in calls.items()} == {"tool0": {"a": 1}, "tool1": {"b": 2}}


async def test_calls_that_a_server_counts_from_one_have_no_gap(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    """OpenAI's SDK takes the number for a place in its list."""
    provider.answer_with(events=[piece({"tool_calls": [begun(1, '{"a":1}')]}), piece({}, "tool_calls")])
    body = {"model": "without_done", "stream": True, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/openai/v1/chat/completions", json=body, token=gateway.token(unit_primitives=[PROXY]))

    rows = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
    numbers = [call["index"] for row in rows for call in row["choices"][0]["delta"].get("tool_calls", ())]
    assert numbers == [0]


async def test_an_error_without_a_type_ends_a_response(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    provider.answer_with(events=[data({"error": {"message": "Not now", "code": "429"}})])
    body = {"model": "by_responses", "stream": True, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/openai/v1/chat/completions", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == 429


async def test_a_response_without_names_is_read(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    created = {"type": "response.created", "response": {"id": None, "model": None}}
    provider.answer_with(events=[data(created), data(COMPLETED)])

    assert (await ask_as_claude(gateway, model="by_responses"))[0] == "Hello"


def named_late(*pieces: tuple[str | None, str | None, str]) -> list[bytes]:
    """One call in pieces: id, name, arguments."""
    return [
        piece({"tool_calls": [{"index": 0, "id": id_, "function": {"name": name, "arguments": arguments}}]})
        for id_, name, arguments in pieces
    ]


@pytest.mark.parametrize(
    "deltas",
    [
        named_late(("c1", "", ""), (None, "read", '{"path":'), (None, "", '"a"}')),
        named_late((None, None, ""), ("c1", "read", '{"path":'), (None, None, '"a"}')),
        named_late(("c1", None, '{"path":'), (None, "read", '"a"}')),
        [
            piece({"tool_calls": {"index": 0, "id": "c1", "function": {"name": "read", "arguments": ""}}}),
            piece({"tool_calls": {"index": 0, "id": "", "function": {"name": None, "arguments": '{"path":"a"}'}}}),
        ],
    ],
    ids=["empty name", "no id either", "arguments first", "no list"],
)
async def test_a_call_whose_name_comes_late_is_one_call(
    gateway: RunningGateway, provider: ScriptedProvider, deltas: list[bytes]
) -> None:
    """vLLM with Cohere's parser and others name it behind its first piece; TGI's streams hold the call in no list."""
    provider.answer_with(events=[*deltas, piece({}, "eos_token"), TOLD, DONE])

    assert (await ask_as_claude(gateway))[1:3] == ([("c1", "read", {"path": "a"})], "tool_use")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "nothing",
    [{"function_call": {}}, {"function_call": {"name": "", "arguments": ""}}, {"tool_calls": [{"function": None}]}],
)
async def test_a_call_without_a_name_is_none(
    gateway: RunningGateway, provider: ScriptedProvider, nothing: Chunk, stream: bool
) -> None:
    if stream:
        provider.answer_with(events=[piece({"content": "", **nothing}), *HELLO, TOLD, DONE])
    else:
        message = {"role": "assistant", "content": "Hello", **nothing}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        provider.answer_with(body={"id": "x", "choices": [choice], "usage": usage()})

    assert (await ask_as_claude(gateway, stream=stream))[:3] == ("Hello", [], "end_turn")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("reason", "told"), [("eos_token", "end_turn"), ("max_tokens", "max_tokens")])
async def test_why_an_answer_ended_is_understood_in_other_words(
    gateway: RunningGateway, provider: ScriptedProvider, reason: str, told: str, stream: bool
) -> None:
    if stream:
        provider.answer_with(events=[*HELLO[:2], piece({}, reason), TOLD, DONE])
    else:
        choice = {**HELLO_WHOLE, "finish_reason": reason}
        provider.answer_with(body={"id": "x", "choices": [choice], "usage": usage()})

    assert (await ask_as_claude(gateway, stream=stream))[2] == told


XAIS = {
    "prompt_tokens": 12,
    "completion_tokens": 1,
    "total_tokens": 399,
    "completion_tokens_details": {"reasoning_tokens": 386},
}
GEMINIS = {"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016}
CACHES = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 32,
    "prompt_tokens_details": {"cached_tokens": 20},
}


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (XAIS, (12, 387)),
        (GEMINIS, (20, 996)),
        (CACHES, (25, 7)),
        ({"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 32}, (25, 7)),
    ],
    ids=["xai", "gemini", "cache", "no prompt"],
)
@pytest.mark.parametrize("place", ["whole", "stream", "own stream", "choice", "own stream's choice"])
async def test_thoughts_that_the_total_alone_tells_are_paid_for(
    gateway: RunningGateway, provider: ScriptedProvider, spent: Chunk, expected: tuple[int, int], place: str
) -> None:
    """Of xAI and of Gemini's server of OpenAI's format; Moonshot tells its usage within the choice."""
    if place == "whole":
        provider.answer_with(body={"id": "x", "choices": [HELLO_WHOLE], "usage": spent})
    elif "choice" in place:
        provider.answer_with(events=[*HELLO[:2], piece({}, "stop", choice={"usage": spent}), DONE])
    else:
        provider.answer_with(
            events=[*HELLO, TOLD.replace(json.dumps(usage()).encode(), json.dumps(spent).encode()), DONE]
        )

    if place.startswith("own"):
        await ask_as_its_own(gateway)
        path = "/openai/v1/chat/completions"
    else:
        await ask_as_claude(gateway, stream=place != "whole")
        path = "/anthropic/v1/messages"

    line = await gateway.log.find(path=path)
    assert (line["input_tokens"], line["output_tokens"]) == expected


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_openrouter_gave_up_tells_why(
    gateway: RunningGateway, provider: ScriptedProvider, stream: bool
) -> None:
    failed = {"finish_reason": "error", "error": {"code": 429, "message": "Not now"}}
    if stream:
        provider.answer_with(events=[piece({"content": ""}, "error", choice=failed), DONE])
    else:
        provider.answer_with(body={"id": "x", "choices": [{"index": 0, "message": {"content": ""}, **failed}]})
    body = {"model": "theirs", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/anthropic/v1/messages", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == 429, answer


WHOLE = {"id": "x", "model": "m", "choices": [HELLO_WHOLE], "usage": usage()}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_read_as_what_came_not_as_what_was_asked_for(
    gateway: RunningGateway, provider: ScriptedProvider, stream: bool
) -> None:
    """mini-sglang, KAITO and some gateways stream to everybody; others fake a stream with one JSON answer."""
    body = json.dumps(WHOLE).encode() if stream else b"".join([*HELLO, TOLD, DONE])
    provider.answer_with(body=b"\n  \n" + body)

    assert await ask_as_claude(gateway, stream=stream) == ("Hello", [], "end_turn", (25, 7))

    asked = {"model": "theirs", "stream": stream, "messages": [{"role": "user", "content": "?"}]}
    own = await gateway.post("/openai/v1/chat/completions", json=asked, token=gateway.token(unit_primitives=[PROXY]))
    if stream:
        assert own.text.endswith("data: [DONE]\n\n")
        said = [json.loads(line[6:]) for line in own.text.split("\n") if line.startswith("data: {")]
        assert "".join(row["choices"][0]["delta"].get("content") or "" for row in said if row["choices"]) == "Hello"
    else:
        assert own.json()["choices"][0]["message"]["content"] == "Hello"
    line = await gateway.log.find(path="/openai/v1/chat/completions")
    assert (line["input_tokens"], line["output_tokens"]) == (25, 7)


RUNPODS = {"code": 404, "message": "The model `a` does not exist.", "object": "error", "type": "NotFoundError"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("said", "told"), [(RUNPODS, "does not exist"), (ZAI_NOT_FOUND, "404 NOT_FOUND")])
async def test_an_error_with_status_200_is_one_however_the_answer_was_to_come(
    gateway: RunningGateway, provider: ScriptedProvider, said: Chunk, told: str, stream: bool
) -> None:
    """As RunPod's workers send vLLM's, and as Z.ai says that it has no such path."""
    provider.answer_with(body=said)
    body = {"model": "theirs", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/anthropic/v1/messages", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == 404, answer
    assert told in answer.text


async def test_a_long_answer_may_stream_to_whoever_asked_for_it_whole(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    provider.answer_with(body=b"".join([piece({"content": "x"})] * 20_000 + [piece({}, "stop"), TOLD, DONE]))

    assert (await ask_as_claude(gateway, stream=False))[0] == "x" * 20_000


async def test_no_answer_has_so_many_parts_even_if_it_streams_unasked(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    provider.answer_with(body=piece({"content": "x"}) * 100_001 + DONE)
    body = {"model": "theirs", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post("/anthropic/v1/messages", json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert answer.status == 502


async def test_a_feature_takes_what_came_too(start_gateway: StartGateway, provider: ScriptedProvider) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.answer_with(body=b"".join([*HELLO, TOLD, DONE]))
    asked = {
        "inputs": {"input": "?", "selected_text": "x"},
        "model_metadata": {"provider": "openai", "name": "general", "endpoint": f"{provider.url}/v1"},
    }

    answer = await gateway.post(
        "/v1/prompts/chat/explain_code", json=asked, token=gateway.token(unit_primitives=["explain_code"])
    )

    assert (answer.status, answer.json()) == (200, "Hello")


def of_thoughts(*blocks: Chunk, **more: Any) -> bytes:
    return piece(
        {"reasoning": "".join(block.get("text", "") for block in blocks), "reasoning_details": [*blocks], **more}
    )


HM: Chunk = {"type": "reasoning.text", "text": "Hm, ", "format": "google-gemini-v1", "index": 0}
SEALED: Chunk = {"type": "reasoning.encrypted", "data": "c2ln", "id": "c1", "format": "google-gemini-v1", "index": 1}
READ: Chunk = {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
WANTED = [{**HM, "text": "Hm, read it."}, SEALED]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("by", ["/anthropic/v1/messages", "/openai/v1/responses"])
async def test_openrouter_gets_the_proofs_of_thoughts_back_beside_their_calls(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, by: str, stream: bool
) -> None:
    """400 "Gemini models require OpenRouter reasoning details to be preserved in each request"."""
    (tmp_path / "models.yml").write_text(
        "models:\n- {name: there, title: T, deployments: [{provider: openrouter, model: google/gemini-3.8-pro}]}\n"
    )
    env = {"AIGW_CATALOG": str(tmp_path), "OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": provider.url}
    gateway = await start_gateway(env=env)
    if stream:
        parts = [of_thoughts(HM), of_thoughts({**HM, "text": "read it."}), of_thoughts(SEALED, tool_calls=[READ])]
        provider.answer_with(events=[*parts, piece({}, "tool_calls"), TOLD, DONE])
    else:
        message = {"reasoning": "Hm, read it.", "reasoning_details": WANTED, "tool_calls": [READ]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        provider.answer_with(body={"id": "x", "choices": [choice], "usage": usage()})
    token = gateway.token(unit_primitives=[PROXY])
    tool: Chunk = {"name": "read", "description": "Reads."}
    asked: Chunk
    if "messages" in by:
        asked = {
            "messages": [{"role": "user", "content": "?"}],
            "max_tokens": 9,
            "tools": [tool | {"input_schema": {}}],
        }
    else:
        asked = {"input": [{"role": "user", "content": "?"}], "tools": [tool | {"type": "function", "parameters": {}}]}

    answer = await gateway.post(by, json={"model": "there", "stream": stream, **asked}, token=token)
    assert answer.status == 200, answer
    if "messages" in by:
        said = blocks_of(answer.text) if stream else answer.json()["content"]
        result = {"type": "tool_result", "tool_use_id": said[-1]["id"], "content": "x"}
        asked["messages"] += [{"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    else:
        events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
        said = events[-1]["response"]["output"] if stream else answer.json()["output"]
        asked["input"] += [*said, {"type": "function_call_output", "call_id": said[-1]["call_id"], "output": "x"}]
    await gateway.post(by, json={"model": "there", "stream": stream, **asked}, token=token)

    row = json.loads(provider.requests[-1].body)["messages"][1]
    assert row["reasoning_details"] == WANTED
    assert "reasoning" not in row


async def test_a_proof_that_comes_behind_its_thought_goes_back_within_it(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """As OpenRouter streams Claude's; alone it is "Invalid `signature` in `thinking` block"."""
    (tmp_path / "models.yml").write_text(
        "models:\n- {name: there, title: T, deployments: [{provider: openrouter, model: anthropic/claude-sonnet-5}]}\n"
    )
    env = {"AIGW_CATALOG": str(tmp_path), "OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": provider.url}
    gateway = await start_gateway(env=env)
    thought: Chunk = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    sealed: Chunk = {**thought, "signature": "c2ln"}
    parts = [of_thoughts({**thought, "text": "Hm."}), of_thoughts(sealed), piece({"tool_calls": [READ]})]
    provider.answer_with(events=[*parts, piece({}, "tool_calls"), TOLD, DONE])
    token = gateway.token(unit_primitives=[PROXY])
    asked: Chunk = {
        "model": "there",
        "stream": True,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "?"}],
        "tools": [{"name": "read", "input_schema": {}}],
    }

    said = blocks_of((await gateway.post("/anthropic/v1/messages", json=asked, token=token)).text)
    result = {"type": "tool_result", "tool_use_id": said[-1]["id"], "content": "x"}
    asked["messages"] += [{"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    await gateway.post("/anthropic/v1/messages", json=asked, token=token)

    row = json.loads(provider.requests[-1].body)["messages"][1]
    assert row["reasoning_details"] == [{**sealed, "text": "Hm."}]


def blocks_of(text: str) -> list[Chunk]:
    """The content of a streamed message, as a client keeps it."""
    blocks: list[Chunk] = []
    for row in [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]:
        if row["type"] == "content_block_start":
            blocks.append(row["content_block"])
        elif row["type"] == "content_block_delta":
            for name, value in row["delta"].items():
                if name not in ("type", "partial_json"):
                    blocks[row["index"]][name] = blocks[row["index"]].get(name, "") + value
    return blocks


async def test_an_id_that_holds_the_proof_of_a_thought_stays_whole(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    """LiteLLM's for Gemini."""
    id_ = f"call_1__thought__{'c2ln' * 40}"
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": id_, "name": "read", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id_, "content": "x = 1"}]},
    ]
    provider.answer_with(events=[*HELLO, TOLD, DONE])

    await ask_as_claude(gateway, messages=messages)

    rows = json.loads(provider.requests[-1].body)["messages"]
    assert (rows[1]["tool_calls"][0]["id"], rows[2]["tool_call_id"]) == (id_, id_)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_completion_of_nothing_is_no_failure(
    start_gateway: StartGateway, provider: ScriptedProvider, stream: bool
) -> None:
    """Contract 6.1, also where a server writes null for it."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    choice = {"index": 0, "text": None, "finish_reason": "stop"}
    if stream:
        provider.answer_with(events=[data({"id": "x", "choices": [choice]}), DONE])
    else:
        provider.answer_with(body={"id": "x", "choices": [choice], "usage": usage()})
    cursor = {"file_name": "a.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    own = {"model_provider": "litellm", "model_name": "codestral", "model_endpoint": f"{provider.url}/v1"}
    body = {"prompt_version": 2, "current_file": cursor, "stream": stream, **own}

    answer = await gateway.post(
        "/v2/code/completions", json=body, token=gateway.token(unit_primitives=["complete_code"])
    )

    assert answer.status == 200, answer
    assert answer.text == "" if stream else answer.json()["choices"] == []


MISCALLED = {
    "error": {
        "message": "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.",
        "type": "invalid_request_error",
        "code": "tool_use_failed",
        "failed_generation": "<function=read{...}>",
    }
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/openai/v1/chat/completions"])
async def test_a_call_that_a_model_wrote_wrongly_is_asked_for_once_more(
    gateway: RunningGateway, provider: ScriptedProvider, path: str, stream: bool
) -> None:
    """Groq's 400: nothing is wrong with the request, and the next try mostly does better."""
    provider.fail_with(400, MISCALLED, times=1)
    body = {"model": "theirs", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "?"}]}

    answer = await gateway.post(path, json=body, token=gateway.token(unit_primitives=[PROXY]))

    assert (answer.status, len(provider.requests)) == (200, 2)


async def test_such_a_call_within_a_stream_is_told_as_a_failure(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    provider.answer_with(events=[HELLO[0], b"event: error\n" + data(MISCALLED)])

    own = await ask_as_its_own(gateway)

    assert '"content": "Hel"' in own
    assert "provider_broke" in own
    assert "[DONE]" not in own


@pytest.mark.parametrize("number", [{}, {"index": 0}])
@pytest.mark.parametrize("family", ["codestral", "general"])
async def test_completions_that_a_server_does_not_number_stay_apart(
    start_gateway: StartGateway, provider: ScriptedProvider, family: str, number: dict[str, int]
) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    said = [{"text": text, "message": {"content": text}, "finish_reason": "stop", **number} for text in ("one", "two")]
    if family == "codestral":
        said = [{name: value for name, value in choice.items() if name != "message"} for choice in said]
    provider.answer_with(body={"id": "x", "choices": said, "usage": usage()})
    cursor = {"file_name": "a.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    own = {"model_provider": "litellm", "model_name": family, "model_endpoint": f"{provider.url}/v1"}
    own |= {"model_identifier": "custom_openai/m"}
    body = {"prompt_version": 2, "current_file": cursor, "choices_count": 2, **own}

    answer = await gateway.post(
        "/v2/code/completions", json=body, token=gateway.token(unit_primitives=["complete_code"])
    )

    assert [choice["text"] for choice in answer.json()["choices"]] == ["one", "two"]
