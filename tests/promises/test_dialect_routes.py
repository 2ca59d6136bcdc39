"""Any client, any model: the dialect routes, same dialect and translated, whole and streamed (interface 6)."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY, RunningGateway
from tests.support.http_client import Answer
from tests.support.limits import write_limits
from tests.support.openai_answers import chat_events
from tests.support.provider import ScriptedProvider
from tests.support.saying import PIECES, Saying, ToolUse, event

PROXY = "ai_gateway_model_provider_proxy"
CHAT = "/openai/v1/chat/completions"
RESPONSES = "/openai/v1/responses"
MESSAGES = "/anthropic/v1/messages"
CLAUDE, GPT = "claude-sonnet-4-6", "gpt-5.4-mini-2026-03-17"
HI = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI},
    RESPONSES: {"input": "Hi"},
    MESSAGES: {"max_tokens": 9, "messages": HI},
}
TEXT = "".join(PIECES)
BEHIND = {CLAUDE: "/v1/messages", GPT: "/v1/chat/completions"}
"""Model → where its provider is asked."""


async def ask(
    gateway: RunningGateway,
    path: str,
    model: str = CLAUDE,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
    **more: Any,
) -> Answer:
    """As an SDK asks: a token, and none of the headers that GitLab sends."""
    return await gateway.post(
        path,
        body=body if body is not None else json.dumps({"model": model, **ASKED[path], **more}).encode(),
        headers={"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}", **(headers or {})},
    )


def text_of(path: str, said: Any) -> str:
    if path == CHAT:
        return str(said["choices"][0]["message"]["content"])
    return "".join(part["text"] for part in (said["output"][0] if path == RESPONSES else said)["content"])


def data_of(answer: Answer) -> list[Any]:
    """The events of a stream; `[DONE]` as the text that it is."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def streamed_text(path: str, answer: Answer) -> str:
    if path == CHAT:
        return "".join(
            row["choices"][0]["delta"].get("content") or "" for row in data_of(answer)[:-1] if row["choices"]
        )
    deltas = [row["delta"] for row in data_of(answer) if row["type"].endswith("delta")]
    return "".join(delta if path == RESPONSES else delta.get("text", "") for delta in deltas)


def failure_of(answer: Answer) -> str:
    """The code of a stream's only error event."""
    rows = [row for row in data_of(answer) if row != "[DONE]"]
    (told,) = [row.get("error", row) for row in rows if "error" in row or row.get("type") == "error"]
    return str(told["code"])


@pytest.mark.parametrize("model", BEHIND)
@pytest.mark.parametrize("path", ASKED)
async def test_every_client_gets_a_whole_answer_from_every_provider(
    gateway: RunningGateway, path: str, model: str
) -> None:
    answer = await ask(gateway, path, model)

    assert (answer.status, text_of(path, answer.json())) == (200, TEXT)
    (request,) = gateway.provider.requests
    assert (request.path, request.json()["model"]) == (BEHIND[model], model)
    assert answer.header("x-aigw-model") == ("anthropic/" if model == CLAUDE else "openai/") + model
    assert (answer.header("server-timing") or "").startswith("provider;dur=")


@pytest.mark.parametrize("model", BEHIND)
@pytest.mark.parametrize("path", ASKED)
async def test_every_client_gets_a_stream_from_every_provider(gateway: RunningGateway, path: str, model: str) -> None:
    answer = await ask(gateway, path, model, stream=True)

    assert (answer.status, streamed_text(path, answer), answer.is_whole) == (200, TEXT, True)
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert gateway.provider.requests[0].json()["stream"] is True
    line = await gateway.log.find(path=path)
    assert (line["output_tokens"], line["usage_source"], line["outcome"]) == (7, "provider", "completed")


@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE)])
async def test_in_the_same_dialect_every_byte_but_the_models_name_goes_on(
    gateway: RunningGateway, path: str, model: str
) -> None:
    alias = "gpt_5_4_mini" if path == CHAT else "chat_default"
    body = b'{"new_member": {"a" : [1.0, 1e3, "\\u00e9"]},"model":"%b",' % alias.encode()
    body += json.dumps(ASKED[path]).encode()[1:]

    answer = await ask(gateway, path, body=body)

    assert answer.status == 200
    (request,) = gateway.provider.requests
    assert b'{"a" : [1.0, 1e3, "\\u00e9"]}' in request.body
    assert request.json() == json.loads(body) | {"model": model}
    assert json.loads(answer.body)["id"].endswith("scripted")


@pytest.mark.parametrize("model", [GPT, CLAUDE])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_half_a_letter_in_an_escape_stops_no_request(gateway: RunningGateway, path: str, model: str) -> None:
    asked = ASKED[path] | {"model": model, "messages": [{"role": "user", "content": "cut \ud83d"}]}

    answer = await ask(gateway, path, body=json.dumps(asked).encode())

    assert (answer.status, text_of(path, answer.json())) == (200, TEXT)
    assert "cut \ufffd" in json.dumps(gateway.provider.requests[0].json(), ensure_ascii=False)


@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE)])
async def test_a_member_that_is_new_to_us_does_not_stop_its_own_vendors_model(
    gateway: RunningGateway, path: str, model: str
) -> None:
    odd = [{"role": "a new role", "content": "Hi"}]

    passed = await ask(gateway, path, model, messages=odd)
    other = await ask(gateway, path, GPT if model == CLAUDE else CLAUDE, messages=odd)

    assert (passed.status, gateway.provider.requests[0].json()["messages"]) == (200, odd)
    assert (other.status, other.json()["error"]["code"]) == (400, "request_invalid")
    assert len(gateway.provider.requests) == 1


@pytest.mark.parametrize("segment", [1, 7, None])
@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE)])
async def test_a_stream_that_passes_keeps_its_events_byte_for_byte(
    gateway: RunningGateway, path: str, model: str, segment: int | None
) -> None:
    gateway.provider.answer_with(text="Grüße, 世界", segment_bytes=segment)

    answer = await ask(gateway, path, model, stream=True, stream_options={"include_usage": True})

    assert streamed_text(path, answer) == "Grüße, 世界"
    if path == CHAT:
        asked = gateway.provider.requests[0].json()
        assert answer.body == b"".join(chat_events(Saying(pieces=("Grüße, 世界",)), asked))


async def test_a_letter_that_its_vendor_cut_in_two_escapes_passes_in_two_halves(gateway: RunningGateway) -> None:
    rows = [{"delta": {"content": half}} for half in ("\ud83d", "\ude00")] + [{"delta": {}, "finish_reason": "stop"}]
    events = [
        b"data: %b\n\n" % json.dumps({"id": "1", "model": GPT, "choices": [{"index": 0, **row}]}).encode()
        for row in rows
    ]
    events.append(b"data: [DONE]\n\n")
    gateway.provider.answer_with(events=events)

    answer = await ask(gateway, CHAT, GPT, stream=True)

    assert (answer.status, answer.body) == (200, b"".join(events))


async def test_usage_is_asked_for_and_not_told_to_a_client_that_did_not_ask(gateway: RunningGateway) -> None:
    silent = await ask(gateway, CHAT, GPT, stream=True)
    asking = await ask(gateway, CHAT, GPT, stream=True, stream_options={"include_usage": True})

    assert all(row == "[DONE]" or row["choices"] for row in data_of(silent))
    assert data_of(silent)[-1] == "[DONE]"
    assert data_of(asking)[-2]["usage"]["total_tokens"] == 32
    assert all(request.json()["stream_options"] == {"include_usage": True} for request in gateway.provider.requests)
    assert [line["output_tokens"] for line in gateway.log.lines if line.get("path") == CHAT] == [7, 7]


async def test_tools_and_their_results_cross(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(tool_call=ToolUse(name="weather", arguments={"town": "Tromsø"}, id="toolu_1"))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]

    answer = await ask(gateway, CHAT, CLAUDE, tools=tools)

    (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "toolu_1",
        "weather",
        {"town": "Tromsø"},
    )
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert gateway.provider.requests[0].json()["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]


PATCH_TOOL = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.*/s"},
}
PATCH = '*** Begin Patch\n+größe = "5"\n*** End Patch'


CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "touch", "arguments": "{}"}}],
}


@pytest.mark.parametrize("said", ["", [], [{"type": "text", "text": ""}]])
async def test_a_result_without_words_is_no_promise_of_a_next_message(gateway: RunningGateway, said: Any) -> None:
    turns = [
        *HI,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "touch", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": said}]},
    ]

    answer = await ask(gateway, MESSAGES, GPT, messages=turns)

    assert answer.status == 200
    assert gateway.provider.requests[0].json()["messages"][-1]["content"] == ""


async def test_a_tool_that_claude_code_searched_for_is_known_to_other_models(gateway: RunningGateway) -> None:
    found = [{"type": "tool_reference", "tool_name": "touch"}]
    turns = [
        *HI,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": found}]},
    ]
    tools = [{"name": "touch", "input_schema": {"type": "object"}, "defer_loading": True}]

    answer = await ask(gateway, MESSAGES, GPT, messages=turns, tools=tools)
    own = await ask(gateway, MESSAGES, CLAUDE, messages=turns, tools=tools)

    assert (answer.status, own.status) == (200, 200)
    other, claudes = (request.json() for request in gateway.provider.requests)
    assert [tool["function"]["name"] for tool in other["tools"]] == ["touch"]
    assert other["messages"][-1]["content"] == "The tool touch can be used."
    assert (claudes["messages"], claudes["tools"]) == (turns, tools)


@pytest.mark.parametrize(("behind", "thinks"), [
    ([], False),
    ([{"role": "user", "content": "Stop that."}], False),
    ([{"role": "system", "content": "It is late."}], False),
    ([{"role": "assistant", "content": "Done."}, {"role": "user", "content": "More."}], True),
])  # fmt: skip
async def test_claude_is_not_asked_to_think_where_its_api_would_miss_the_thought_before(
    gateway: RunningGateway, behind: list[Any], thinks: bool
) -> None:
    # Chat completions bring no thought back, and Claude refuses to think between its own call and the next answer.
    turns = [*HI, CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "ok"}, *behind]

    answer = await ask(gateway, CHAT, "claude-haiku-4-5-20251001", messages=turns, reasoning_effort="high")

    assert answer.status == 200
    assert (gateway.provider.requests[0].json().get("thinking", {}).get("type") == "enabled") is thinks
    assert answer.header("x-torana-dropped") == (None if thinks else "reasoning")


async def test_a_custom_tool_reaches_another_vendors_model_as_a_function_and_comes_back_as_what_it_was(
    gateway: RunningGateway,
) -> None:
    gateway.provider.answer_with(
        pieces=(), tool_call=ToolUse(name="apply_patch", arguments={"input": PATCH}, id="toolu_1")
    )
    before = [
        {"role": "user", "content": "Hi"},
        {"type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch", "input": PATCH},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Done."},
    ]

    whole = await ask(gateway, RESPONSES, CLAUDE, input=before, tools=[PATCH_TOOL])
    stream = await ask(gateway, RESPONSES, CLAUDE, input=before, tools=[PATCH_TOOL], stream=True)

    (item,) = whole.json()["output"]
    assert (item["type"], item["call_id"], item["name"]) == ("custom_tool_call", "toolu_1", "apply_patch")
    assert item["input"] == PATCH
    rows = data_of(stream)
    assert "".join(row["delta"] for row in rows if row["type"] == "response.custom_tool_call_input.delta") == PATCH
    assert rows[-1]["response"]["output"][0]["input"] == PATCH
    assert whole.header("x-torana-dropped") == stream.header("x-torana-dropped") == "tool.grammar"
    asked = gateway.provider.requests[0].json()
    assert asked["messages"][1]["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "apply_patch", "input": {"input": PATCH}}
    ]
    assert asked["tools"][0]["input_schema"]["required"] == ["input"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("tool", "kind"), [
    (None, "msg_"),
    (PATCH_TOOL, "ctc_"),
    ({"type": "function", "name": "apply_patch", "parameters": {"type": "object"}}, "fc_"),
])  # fmt: skip
async def test_items_have_ids_that_openai_takes_back(
    gateway: RunningGateway, tool: dict[str, Any] | None, kind: str, stream: bool
) -> None:
    # A conversation may go on with a model of OpenAI's, which gets the client's bytes, and refuses other ids.
    call = ToolUse(name="apply_patch", arguments={"input": PATCH}, id="toolu_1")
    gateway.provider.answer_with(tool_call=call if tool is not None else None)
    tools = {"tools": [tool]} if tool is not None else {}

    answer = await ask(gateway, RESPONSES, CLAUDE, stream=stream, headers={"X-Request-ID": "r" * 63 + "7"}, **tools)

    (item,) = (data_of(answer)[-1]["response"] if stream else answer.json())["output"]
    assert item["id"].startswith(kind)
    assert len(item["id"]) <= 64
    assert item["id"].endswith("7")


async def test_thoughts_of_another_vendors_model_do_not_reach_the_one_that_the_conversation_goes_on_with(
    gateway: RunningGateway,
) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "chat_completions*:Hm."}
    own = {"type": "thinking", "thinking": "Well.", "signature": "c2lnbmVk"}

    def turns(*thoughts: dict[str, str]) -> list[dict[str, Any]]:
        said = {"role": "assistant", "content": [*thoughts, {"type": "text", "text": "Yes."}]}
        return [{"role": "user", "content": "Hi"}, said, {"role": "user", "content": "Go on"}]

    mixed = await ask(gateway, MESSAGES, CLAUDE, messages=turns(own, thought), max_tokens=9)
    pure = await ask(gateway, MESSAGES, CLAUDE, messages=turns(own), max_tokens=9)

    assert [each.header("x-torana-dropped") for each in (mixed, pure)] == ["thought", None]
    for request in gateway.provider.requests:
        assert request.json()["messages"][1]["content"] == [own, {"type": "text", "text": "Yes."}]


async def test_a_client_that_asks_with_functions_is_answered_with_a_function_call(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(tool_call=ToolUse(name="weather", arguments={"town": "Tromsø"}, id="toolu_1"))
    functions = [{"name": "weather", "parameters": {"type": "object"}}]

    answer = await ask(gateway, CHAT, CLAUDE, functions=functions)

    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "function_call"
    assert json.loads(choice["message"]["function_call"]["arguments"]) == {"town": "Tromsø"}
    assert "tool_calls" not in choice["message"]
    assert gateway.provider.requests[0].json()["tool_choice"]["disable_parallel_tool_use"] is True


@pytest.mark.parametrize("where", ["authorization", "x-api-key", "api-key"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_the_token_may_stand_where_vendors_keys_stand(gateway: RunningGateway, path: str, where: str) -> None:
    token = gateway.user_token(unit_primitives=[PROXY])
    value = f"Bearer {token}" if where == "authorization" else token

    answer = await ask(gateway, path, headers={"Authorization": None, where: value})

    assert answer.status == 200
    sent = [value for _, value in gateway.provider.requests[0].headers]
    assert not any(token.encode() in value for value in sent)


async def test_a_bearer_token_comes_before_what_stands_for_a_key(gateway: RunningGateway) -> None:
    answer = await ask(gateway, MESSAGES, headers={"x-api-key": "a-placeholder"})

    assert answer.status == 200


async def test_only_our_own_key_goes_to_the_provider(gateway: RunningGateway) -> None:
    await ask(gateway, MESSAGES, headers={"anthropic-beta": "a-beta", "cookie": "c=1", "x-other": "1"})
    await ask(gateway, CHAT, GPT)

    claude, gpt = gateway.provider.requests
    assert (claude.header("x-api-key"), claude.header("authorization")) == (ANTHROPIC_KEY, None)
    assert (claude.header("anthropic-beta"), claude.header("cookie"), claude.header("x-other")) == (
        "a-beta",
        None,
        None,
    )
    assert gpt.header("authorization") == f"Bearer {OPENAI_KEY}"


async def test_beta_query_and_version_reach_a_messages_provider_and_no_other_query(gateway: RunningGateway) -> None:
    body = json.dumps({"model": CLAUDE, **ASKED[MESSAGES]}).encode()
    token = f"Bearer {gateway.token(unit_primitives=[PROXY])}"

    await gateway.post(
        f"{MESSAGES}?beta=true&key=1", body=body, headers={"Authorization": token, "anthropic-version": "2023-01-01"}
    )

    (request,) = gateway.provider.requests
    assert (request.query, request.header("anthropic-version")) == ("beta=true", "2023-01-01")


@pytest.mark.parametrize("prefix", ["", "/ai", "/gateway"])
async def test_the_routes_answer_under_every_prefix(start_gateway: StartGateway, prefix: str) -> None:
    gateway = await start_gateway(env={"AIGW_ROOT_PATH": "/gateway"})

    for path in (CHAT, MESSAGES):
        body = json.dumps({"model": CLAUDE, **ASKED[path]}).encode()
        token = f"Bearer {gateway.token(unit_primitives=[PROXY])}"
        assert (await gateway.post(prefix + path, body=body, headers={"Authorization": token})).status == 200
        assert (await gateway.post(prefix + path, body=body)).json()["error"]["code"] == "token_missing"


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("chat_default", CLAUDE),
        ("claude_haiku_4_5", "claude-haiku-4-5-20251001"),
        ("gpt-5.2-2025-12-11", "gpt-5.2-2025-12-11"),
        ("anthropic/claude-opus-4-6", "claude-opus-4-6"),
    ],
)
async def test_a_model_goes_by_alias_catalogue_name_or_its_providers_name(
    gateway: RunningGateway, name: str, used: str
) -> None:
    assert (await ask(gateway, CHAT, name)).status == 200

    assert gateway.provider.requests[0].json()["model"] == used


@pytest.mark.parametrize("filler", [b"[]," * 300_000 + b"1", b"[" * 200 + b"]" * 200], ids=["crowded", "deep"])
@pytest.mark.parametrize("path", ASKED)
async def test_json_that_is_refused_is_not_passed_on_to_its_own_vendor(
    gateway: RunningGateway, path: str, filler: bytes
) -> None:
    model = (CLAUDE if path == MESSAGES else GPT).encode()

    answer = await ask(gateway, path, "", body=b'{"model":"%b","x":[%b]}' % (model, filler))

    assert answer.status == 400
    assert gateway.provider.requests == []


@pytest.mark.parametrize("path", ASKED)
async def test_an_unknown_model_is_the_dialects_not_found(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway, path, "no-such-model")

    assert (answer.status, answer.json()["error"]["code"], answer.header("x-torana-code")) == (
        404,
        "model_not_found",
        "model_not_found",
    )
    assert answer.json()["error"]["type"] == "not_found_error"
    assert gateway.provider.requests == []


async def test_a_model_whose_provider_has_no_key_is_not_found_either(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""})

    answer = await ask(gateway, CHAT, "gpt_5_2")

    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "no credentials for openai" in answer.json()["error"]["message"]


async def test_a_model_that_is_only_registered_or_makes_vectors_answers_nobody(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    seen = {"name": "seen", "title": "Seen", "stage": "registered"}
    models = [{**seen, "deployments": [{"provider": "anthropic", "model": "seen-1"}]}]
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "models.yml").write_text(json.dumps({"models": models}))
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})

    registered = [await ask(gateway, CHAT, name) for name in ("seen", "seen-1", "anthropic/seen-1")]
    vectors = await ask(gateway, CHAT, "text_embedding_3_small")

    assert [(answer.status, answer.json()["error"]["code"]) for answer in registered] == [(404, "model_not_found")] * 3
    assert (vectors.status, vectors.json()["error"]["param"]) == (400, "model")
    assert gateway.provider.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ASKED)
async def test_the_demo_answers_in_every_dialect_where_nothing_is_configured(
    start_gateway: StartGateway, path: str, stream: bool
) -> None:
    gateway = await start_gateway(
        env={"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "ANTHROPIC_BASE_URL": "", "OPENAI_BASE_URL": ""}
    )

    answer = await ask(gateway, path, CLAUDE, stream=stream)

    assert (answer.status, answer.header("x-torana-demo")) == (200, "true")
    said = streamed_text(path, answer) if stream else text_of(path, answer.json())
    assert "demo" in said


@pytest.mark.parametrize(
    ("path", "wrong", "meant"),
    [
        (CHAT, "/openai/v1/v1/chat/completions", CHAT),
        (CHAT, "/openai/chat/completions", CHAT),
        (MESSAGES, "/anthropic/messages", MESSAGES),
        (MESSAGES, "/anthropic/v1/v1/messages", MESSAGES),
        (CHAT, "/anthropic/v1/chat/completions", CHAT),
    ],
)
async def test_a_mistaken_path_is_told_which_one_is_meant(
    gateway: RunningGateway, path: str, wrong: str, meant: str
) -> None:
    token = f"Bearer {gateway.token(unit_primitives=[PROXY])}"

    answer = await gateway.post(wrong, json={"model": CLAUDE, **ASKED[path]}, headers={"Authorization": token})
    lost = await gateway.post("/openai/v1/nothing", json={}, headers={"Authorization": token})

    assert (answer.status, answer.header("x-torana-code")) == (404, "not_found")
    assert f"did you mean {meant}?" in answer.json()["error"]["message"]
    assert "did you mean" not in lost.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/ai/", "/openai", "/openai/v1/", "/anthropic", "/ai/anthropic/v1"])
async def test_a_head_request_finds_somebody_there_without_a_token(gateway: RunningGateway, path: str) -> None:
    assert (await gateway.request("HEAD", path)).status == 200
    assert (await gateway.get(path)).status == 401


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no token": ({"headers": {"Authorization": None}}, 401, "token_missing"),
    "a wrong type header": ({"headers": {"X-Gitlab-Authentication-Type": "basic"}}, 401, "authentication_type"),
    "a wrong realm": ({"headers": {"X-Gitlab-Realm": "saas"}}, 401, "header_mismatch"),
    "an unknown unit primitive": ({"headers": {"X-Gitlab-Unit-Primitive": "x"}}, 400, "unit_primitive_unknown"),
    "another unit primitive": ({"headers": {"X-Gitlab-Unit-Primitive": "duo_chat"}}, 403, "unit_primitive_missing"),
    "no JSON": ({"body": b"{"}, 400, "json_invalid"),
    "no model": ({"body": b"{}"}, 400, "model_missing"),
    "a model that is no name": ({"body": b'{"model": 5}'}, 400, "model_missing"),
    "a wrong member": ({"messages": 1, "input": 1}, 400, "request_invalid"),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("path", ASKED)
async def test_a_refusal_has_the_dialects_shape(gateway: RunningGateway, path: str, why: str) -> None:
    how, status, code = REFUSED[why]

    answer = await ask(gateway, path, GPT if path == MESSAGES else CLAUDE, **how)

    error = answer.json()["error"]
    assert (answer.status, error["code"], answer.header("x-torana-code")) == (status, code, code)
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
    assert error["type"] == kinds[status]
    assert error["message"]
    assert answer.refusal.code == code
    if path == MESSAGES:
        assert (answer.json()["type"], answer.json()["request_id"]) == ("error", answer.header("x-request-id"))
        assert answer.header("request-id") == answer.header("x-request-id")
    assert gateway.provider.requests == []


async def test_a_wrong_method_and_a_large_body_are_told_in_the_dialects_shape(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MAX_PROXY_BODY_BYTES": "2000"})
    token = f"Bearer {gateway.token(unit_primitives=[PROXY])}"

    wrong = await gateway.get(MESSAGES, headers={"Authorization": token})
    large = await ask(gateway, MESSAGES, system="x" * 3000)

    assert (wrong.status, wrong.json()["error"]["code"], wrong.header("allow")) == (405, "method_not_allowed", "POST")
    assert (large.status, large.json()["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", BEHIND)
@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        (400, 400, "provider_refused"),
        (401, 502, "provider_key_refused"),
        (403, 502, "provider_key_refused"),
        (404, 404, "provider_not_found"),
        (422, 400, "provider_refused"),
        (429, 429, "provider_limited"),
        (500, 502, "provider_overloaded"),
        (503, 503, "provider_overloaded"),
        (529, 529, "provider_overloaded"),
    ],
)
async def test_a_providers_error_reaches_every_client_in_its_own_shape(
    start_gateway: StartGateway, path: str, model: str, stream: bool, told: int, status: int, code: str
) -> None:
    gateway = await start_gateway(env={"AIGW_ROUTING__TRIES": "1"})
    gateway.provider.fail_with(told, headers={"Retry-After": "7"})

    answer = await ask(gateway, path, model, stream=stream)

    if status == 529 and path != MESSAGES:
        status = 503
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (status, code)
    is_about_the_request = told in (400, 404, 422)
    assert ("scripted failure" in error["message"]) == is_about_the_request
    assert answer.header("retry-after") == ("7" if status in (429, 503, 529) or told == 500 else None)
    assert (answer.header("x-should-retry") == "false") == (told in (401, 403))
    assert error["type"] != "overloaded_error" or status in (503, 529)


async def test_our_own_refused_key_is_an_alarm(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(401)

    await ask(gateway, CHAT)

    line = await gateway.log.find(message="model call failed")
    assert (line["level"], line["code"]) == ("error", "provider_key_refused")


@pytest.mark.parametrize("path", ASKED)
async def test_calls_are_counted_and_written_down_by_their_route(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway, path)

    series = (await gateway.monitoring("/metrics")).text
    line = await gateway.log.find(path=path)
    assert f'handler="{path}"' in series
    assert (line["correlation_id"], line["provider"], line["model"]) == (
        answer.header("x-request-id"),
        "anthropic",
        CLAUDE,
    )
    assert line["meta.unit_primitive"] == PROXY


async def test_credentials_in_a_providers_words_are_masked(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, {"error": {"message": f"bad use of {OPENAI_KEY} and sk-1234567890abcdef"}})

    answer = await ask(gateway, CHAT, GPT)

    assert answer.json()["error"]["message"] == "bad use of *** and ***"


@pytest.mark.parametrize("model", ["gpt-5-mini-2025-08-07", "claude-sonnet-4-6"])
async def test_a_providers_words_about_a_prompt_reach_its_client_and_no_log(
    gateway: RunningGateway, model: str
) -> None:
    gateway.provider.fail_with(
        400, {"type": "error", "error": {"type": "bad", "message": "no: the quoted secret plan"}}
    )

    answer = await gateway.post(
        "/openai/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "the quoted secret plan"}]},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    assert "secret plan" in answer.json()["error"]["message"]
    await gateway.log.find(path="/openai/v1/chat/completions")
    assert b"secret plan" not in b"".join(gateway.log.raw)


@pytest.mark.parametrize("model", BEHIND)
@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_stream_that_breaks_ends_with_the_clients_error_event_and_is_cut(
    gateway: RunningGateway, path: str, model: str, how: Any
) -> None:
    gateway.provider.cut_after(5 if model == CLAUDE else 3, by=how)

    answer = await ask(gateway, path, model, stream=True)

    assert (answer.status, answer.is_whole) == (200, False)
    *_, before, last = data_of(answer)
    # Of responses, the failed one itself comes behind the error.
    told = before if last.get("type") == "response.failed" else last
    assert told.get("error", told)["code"] == "provider_broke"
    assert b"[DONE]" not in answer.body
    assert b"message_stop" not in answer.body
    assert b"response.completed" not in answer.body
    assert (await gateway.log.find(path=path))["outcome"] == "failed"


@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE), (CHAT, CLAUDE), (MESSAGES, GPT)])
async def test_an_error_within_a_stream_is_never_the_providers_own_text(
    gateway: RunningGateway, path: str, model: str
) -> None:
    if model == CLAUDE:
        start = {"type": "message_start", "message": {"id": "m", "model": CLAUDE, "usage": {"input_tokens": 1}}}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hello"}}
        failure = {"type": "error", "error": {"type": "overloaded_error", "message": "secret reasons"}}
        events = [event(part, str(part["type"])) for part in (start, block, failure)]
    else:
        events = chat_events(Saying(), {})[:3]
        events.append(event({"error": {"message": "secret reasons", "type": "server_error", "code": None}}))
    gateway.provider.answer_with(events=events)

    answer = await ask(gateway, path, model, stream=True)

    assert b"Hello" in answer.body
    assert b"secret reasons" not in answer.body
    assert failure_of(answer) == "provider_overloaded"
    assert not answer.is_whole


@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE), (CHAT, CLAUDE), (MESSAGES, GPT)])
async def test_an_error_as_the_first_event_is_tried_again_and_nobody_sees_it(
    gateway: RunningGateway, path: str, model: str
) -> None:
    gateway.provider.answer_malformed("error_event", times=1)

    answer = await ask(gateway, path, model, stream=True)

    assert (answer.status, streamed_text(path, answer)) == (200, TEXT)
    assert len(gateway.provider.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE), (CHAT, CLAUDE), (MESSAGES, GPT)])
async def test_a_client_that_leaves_ends_the_call_upstream(
    gateway: RunningGateway, path: str, model: str, stream: bool
) -> None:
    gateway.provider.stall(after_events=5 if stream else None)
    body = json.dumps({"model": model, **ASKED[path], "stream": stream}).encode()
    headers = {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}"}

    async with await gateway.connect() as connection:
        await connection.send(gateway.request_bytes("POST", path, body=body, headers=headers))
        request = await gateway.provider.request(1)
        if stream:
            answer = await connection.read_head("POST")
            await answer.next_chunk()

    await request.hung_up.wait()
    assert (await gateway.log.find(path=path))["outcome"] == "client_cancelled"


@pytest.mark.parametrize(("stream", "limit"), [(True, 128_000), (False, 16_384)])
async def test_a_format_that_demands_a_limit_gets_the_models_own(
    gateway: RunningGateway, stream: bool, limit: int
) -> None:
    await ask(gateway, CHAT, CLAUDE, stream=stream)
    await ask(gateway, CHAT, CLAUDE, stream=stream, max_tokens=7)

    assert [request.json()["max_tokens"] for request in gateway.provider.requests] == [limit, 7]


# --- Keep-alive (contract 1.5) ---

COMMENT = b": keep-alive\n\n"
PAIRS = [(path, model) for path in ASKED for model in BEHIND]


@pytest.mark.parametrize(("path", "model"), PAIRS)
async def test_a_silent_stream_carries_comments_before_the_answer_and_within(
    start_gateway: StartGateway, path: str, model: str
) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02"})
    gateway.provider.stall()
    body = {"model": model, **ASKED[path], "stream": True}
    token = {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}"}

    async with gateway.stream(path, json=body, headers=token) as answer:
        assert answer.status == 200
        assert [await answer.next_chunk(), await answer.next_chunk()] == [COMMENT] * 2
        gateway.provider.release()
        rest = await answer.rest()

    assert (streamed_text(path, rest), rest.is_whole) == (TEXT, True)


@pytest.mark.parametrize("segment", [None, 5])
@pytest.mark.parametrize(("path", "model"), PAIRS)
async def test_comments_stand_between_whole_events(
    start_gateway: StartGateway, path: str, model: str, segment: int | None
) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02"})
    gateway.provider.answer_with(hold_after=5 if model == CLAUDE else 3, segment_bytes=segment)
    body = {"model": model, **ASKED[path], "stream": True}
    token = {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}"}

    async with gateway.stream(path, json=body, headers=token) as answer:
        chunks = [await answer.next_chunk()]
        # The machine may be slow, and a comment come ahead of the first piece.
        while chunks[-1] != COMMENT or set(chunks) == {COMMENT}:
            chunks.append(await answer.next_chunk())
        gateway.provider.release()
        rest = await answer.rest()

    whole = Answer(b"HTTP/1.1 200 OK", [*chunks, *rest.chunks], True)
    assert streamed_text(path, whole) == TEXT
    assert all(part == b": keep-alive" for part in whole.body.split(b"\n\n") if b"keep-alive" in part)


@pytest.mark.parametrize(("path", "model"), PAIRS)
async def test_a_failure_behind_a_comment_is_the_dialects_error_event(
    start_gateway: StartGateway, path: str, model: str
) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02", "AIGW_TIMEOUTS__FIRST_BYTE_S": "0.1"})
    gateway.provider.stall()

    answer = await ask(gateway, path, model, stream=True)

    assert (answer.status, answer.is_whole) == (200, False)
    assert answer.body.startswith(COMMENT)
    assert failure_of(answer) == "provider_timeout"


async def test_a_body_that_is_announced_first_gets_its_signs_of_life_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02"})
    gateway.provider.stall()
    body = {"model": CLAUDE, **ASKED[CHAT], "stream": True}
    headers = {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}", "Expect": "100-continue"}
    head, _, sent = gateway.request_bytes("POST", CHAT, json=body, headers=headers).partition(b"\r\n\r\n")

    async with await gateway.connect() as connection:
        await connection.send(head + b"\r\n\r\n")
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await connection.send(sent)
        answer = await connection.read_head("POST")
        assert [await answer.next_chunk(), await answer.next_chunk()] == [COMMENT] * 2
        gateway.provider.release()
        rest = await answer.rest()

    assert (streamed_text(CHAT, rest), rest.is_whole) == (TEXT, True)


@pytest.mark.parametrize(("path", "model"), PAIRS)
async def test_a_stream_that_outlives_the_drain_ends_with_an_error_event(
    start_gateway: StartGateway, path: str, model: str
) -> None:
    gateway = await start_gateway(env={"AIGW_SERVER__DRAIN_S": "0.05"})
    gateway.provider.stall(after_events=5 if model == CLAUDE else 3)
    body = {"model": model, **ASKED[path], "stream": True}
    token = {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}"}

    async with gateway.stream(path, json=body, headers=token) as answer:
        first = await answer.next_chunk()
        await gateway.running.drain()
        await gateway.running.listeners[0].aclose()
        rest = await answer.rest()

    assert not rest.is_whole
    assert failure_of(Answer(b"HTTP/1.1 200 OK", [first, *rest.chunks], False)) == "server_draining"


async def test_a_conversation_with_a_models_own_thoughts_goes_back_to_it_as_it_came(gateway: RunningGateway) -> None:
    thought = b'{"type":"thinking","thinking":"Hm","signature":"c2VhbA==","of_tomorrow":1}'
    turns = b'{"role":"user","content":"Hi"},{"role":"assistant","content":[%b,{"type":"text","text":"Ho"}]}' % thought
    body = (
        b'{"model":"claude-sonnet-4-6","of_tomorrow":[1],"max_tokens":9,"messages":[%b,{"role":"user","content":"?"}]}'
        % turns
    )

    answer = await ask(gateway, MESSAGES, body=body)

    (sent,) = gateway.provider.requests
    assert (answer.status, sent.body) == (200, body)


@pytest.mark.parametrize(
    ("user", "told"), [("mia-1", "mia-1"), ("a\r\nX-Evil: 1", None), ("\u00fc", None), ("x" * 5000, None)]
)
async def test_a_users_id_keeps_calls_on_one_machine_where_a_header_can_carry_it(
    gateway: RunningGateway, user: str, told: str | None
) -> None:
    answer = await ask(gateway, CHAT, user=user)

    (sent,) = gateway.provider.requests
    assert (answer.status, sent.header("x-session-affinity"), sent.header("x-evil")) == (200, told, None)


# --- Limits ---


@pytest.mark.parametrize(
    ("path", "name", "reset"),
    [
        (CHAT, "x-ratelimit-{}-requests", "1m0s"),
        (MESSAGES, "anthropic-ratelimit-requests-{}", "{:%Y-%m-%dT%H:%M:%SZ}"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_limits_are_told_in_the_vendors_own_headers(
    start_gateway: StartGateway, tmp_path: Path, clock: HandClock, path: str, name: str, reset: str, stream: bool
) -> None:
    limits = write_limits(tmp_path / "overlay", "2 per minute per instance")
    gateway = await start_gateway(env=limits, clock=clock)
    over = [datetime.fromtimestamp(math.ceil(clock.now() + 60) + late_s, UTC) for late_s in (0, 1, 2)]

    answers = [await ask(gateway, path, stream=stream) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.header(name.format("remaining")) for answer in answers] == ["1", "0", "0"]
    assert all(answer.header(name.format("limit")) == "2" for answer in answers)
    assert {answer.header(name.format("reset")) for answer in answers} <= {reset.format(at) for at in over}
    assert answers[-1].json()["error"]["code"] == answers[-1].header("x-torana-code") == "limit_reached"
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    # All that OpenAI's SDK shows of an error.
    assert "Limit `limit-0` (2 per minute per instance) is used up for" in answers[-1].json()["error"]["message"]
    assert int(answers[-1].header("retry-after") or 0) > 0


@pytest.mark.parametrize(
    ("passed_s", "kind"), [(0, "usage_limit_reached"), (3299, "usage_limit_reached"), (3301, "rate_limit_error")]
)
async def test_codex_is_not_left_to_sleep_through_a_used_up_hour(
    start_gateway: StartGateway, tmp_path: Path, clock: HandClock, passed_s: int, kind: str
) -> None:
    gateway = await start_gateway(env=write_limits(tmp_path / "overlay", "1 per hour per instance"), clock=clock)

    await ask(gateway, RESPONSES)
    clock.advance(passed_s)
    answer = await ask(gateway, RESPONSES)

    assert (answer.status, answer.json()["error"]["type"]) == (429, kind)


@pytest.mark.parametrize(("wait_s", "kind"), [("300", "rate_limit_error"), ("301", "usage_limit_reached")])
async def test_nor_through_what_is_used_up_at_the_provider(gateway: RunningGateway, wait_s: str, kind: str) -> None:
    gateway.provider.fail_with(429, headers={"Retry-After": wait_s})

    answer = await ask(gateway, RESPONSES)

    assert (answer.status, answer.header("retry-after"), answer.json()["error"]["type"]) == (429, wait_s, kind)


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
async def test_a_used_up_day_tells_clients_not_to_ask_again(
    start_gateway: StartGateway, tmp_path: Path, path: str
) -> None:
    gateway = await start_gateway(env=write_limits(tmp_path / "overlay", "1 per day per instance"))

    first, second = await ask(gateway, path), await ask(gateway, path)

    assert (first.status, second.status, second.header("x-should-retry")) == (200, 429, "false")
    error = second.json()["error"]
    if path == MESSAGES:
        assert error["type"] == "rate_limit_error"
    else:
        # Codex sleeps for as long as Retry-After says, unless it reads that its plan is used up.
        assert error["type"] == "usage_limit_reached"
        over = datetime.fromtimestamp(error["resets_at"], UTC)
        assert f"free again at {over:%Y-%m-%dT%H:%M:%SZ}" in error["message"]


# --- The vendor's own other dialect ---


def own_openai(gateway_url: str, folder: Path, **more: Any) -> dict[str, str]:
    """A gateway to whom this address is OpenAI's own."""
    folder.mkdir(exist_ok=True)
    row = {"name": "openai", "dialect": "chat_completions", "base_url": gateway_url, **more}
    (folder / "providers.yml").write_text(json.dumps([row]))
    return {"AIGW_CATALOG": str(folder), "OPENAI_BASE_URL": ""}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_vendor_that_speaks_responses_too_gets_them_as_they_came(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, stream: bool
) -> None:
    gateway = await start_gateway(env=own_openai(provider.url, tmp_path / "overlay", also=["responses"]))

    answer = await ask(gateway, RESPONSES, GPT, stream=stream, store=False, include=["reasoning.encrypted_content"])
    other = await ask(gateway, CHAT, GPT)

    assert (streamed_text(RESPONSES, answer) if stream else text_of(RESPONSES, answer.json())) == TEXT
    assert [request.path for request in provider.requests] == ["/v1/responses", "/v1/chat/completions"]
    assert provider.requests[0].json()["include"] == ["reasoning.encrypted_content"]
    assert answer.header("x-torana-dropped") is None
    assert other.status == 200


async def test_another_server_in_a_vendors_place_is_not_believed_to_speak_all_of_it(gateway: RunningGateway) -> None:
    answer = await ask(gateway, RESPONSES, GPT)

    assert answer.status == 200
    assert gateway.provider.requests[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("path", ASKED)
async def test_a_provider_may_speak_responses_alone(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, path: str
) -> None:
    gateway = await start_gateway(env=own_openai(provider.url, tmp_path / "overlay", dialect="responses"))

    whole, streamed = await ask(gateway, path, GPT), await ask(gateway, path, GPT, stream=True)

    assert (text_of(path, whole.json()), streamed_text(path, streamed)) == (TEXT, TEXT)
    assert {request.path for request in provider.requests} == {"/v1/responses"}


# --- Prompts that are too long ---


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (CLAUDE, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 2 > 1"}}),
        (GPT, {"error": {"message": "Reduce it.", "type": "invalid_request_error", "code": "context_length_exceeded"}}),
        (GPT, {"error": {"message": "This model's maximum context length is 2048 tokens.", "code": 400}}),
    ],
)
@pytest.mark.parametrize("path", ASKED)
async def test_a_prompt_that_is_too_long_is_told_so_that_agents_shorten_it(
    gateway: RunningGateway, path: str, model: str, told: Any
) -> None:
    gateway.provider.fail_with(400, told)

    answer = await ask(gateway, path, model)

    error = answer.json()["error"]
    assert (answer.status, error["code"], error["type"]) == (400, "context_length_exceeded", "invalid_request_error")
    assert told["error"]["message"] in error["message"]
    assert error["message"].startswith("prompt is too long") == (path == MESSAGES or model == CLAUDE)
