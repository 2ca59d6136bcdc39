"""Vendors that follow OpenAI, through the front door: their real streams, their keys, their ways to fill in."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support import vendor_answers as vendors
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider
from tests.support.saying import event

VENDORS = {
    "mistral": ("MISTRAL_BASE_URL", "MISTRAL_API_KEY", "/v1/chat/completions"),
    "fireworks_ai": (
        "AIGW_FIREWORKS_API_BASE_URL",
        "AIGW_MODEL_KEYS__FIREWORKS_PROVIDER_API_KEY",
        "/v1/chat/completions",
    ),
    "groq": ("GROQ_BASE_URL", "GROQ_API_KEY", "/v1/chat/completions"),
    "together_ai": ("TOGETHER_BASE_URL", "TOGETHER_API_KEY", "/v1/chat/completions"),
    "deepseek": ("DEEPSEEK_BASE_URL", "DEEPSEEK_API_KEY", "/v1/chat/completions"),
    "openrouter": ("OPENROUTER_BASE_URL", "OPENROUTER_API_KEY", "/v1/chat/completions"),
    "ollama": ("OLLAMA_HOST", "OLLAMA_API_KEY", "/v1/chat/completions"),
    "hosted_vllm": ("HOSTED_VLLM_API_BASE", "HOSTED_VLLM_API_KEY", "/v1/chat/completions"),
    "llama_cpp": ("LLAMA_CPP_BASE_URL", "LLAMA_CPP_API_KEY", "/v1/chat/completions"),
    "litellm_proxy": ("LITELLM_PROXY_API_BASE", "LITELLM_PROXY_API_KEY", "/v1/chat/completions"),
}

Start = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
def start(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path) -> Start:
    """A gateway whose chat and fast completions are answered by one vendor."""

    async def start(vendor: str, *, text: bool = False, **env: str) -> RunningGateway:
        address, key, _ = VENDORS[vendor]
        options = ", text_completions: true" if text else ""
        (tmp_path / "models.yml").write_text(
            f"models:\n- name: theirs\n  title: Theirs\n  families: [codestral]\n"
            f"  deployments: [{{provider: {vendor}, model: their-model{options}}}]\n"
            "aliases:\n- {name: chat_default, models: [theirs]}\n- {name: completions_default, models: [theirs]}\n"
        )
        return await start_gateway(env={"AIGW_CATALOG": str(tmp_path), address: provider.url, key: "their-key", **env})

    return start


async def chat(gateway: RunningGateway, **members: Any) -> Answer:
    body = {"model": "theirs", "messages": [{"role": "user", "content": "?"}], "stream": True, **members}
    return await gateway.post(
        "/openai/v1/chat/completions",
        json=body,
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )


@pytest.mark.parametrize("vendor", VENDORS)
async def test_each_vendor_is_called_at_its_address_with_its_key(
    start: Start, provider: ScriptedProvider, vendor: str
) -> None:
    gateway = await start(vendor)

    answer = await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={"inputs": {"input": "why", "selected_text": "x = 1"}},
        token=gateway.token(unit_primitives=["explain_code"]),
    )

    assert answer.status == 200
    assert answer.header("x-aigw-model") == f"{vendor}/their-model"
    (sent,) = provider.requests
    assert sent.target.decode() == VENDORS[vendor][2]
    assert sent.header("authorization") == "Bearer their-key"


@pytest.mark.parametrize(
    ("vendor", "events"),
    [
        ("groq", vendors.groq_events()),
        ("deepseek", vendors.deepseek_events()),
        ("openrouter", vendors.openrouter_events()),
        ("mistral", vendors.mistral_thinking_events()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_vendors_stream_reaches_another_dialects_client(
    start: Start, provider: ScriptedProvider, vendor: str, events: list[bytes]
) -> None:
    gateway = await start(vendor)
    provider.answer_with(events=events)

    answer = await gateway.post(
        "/anthropic/v1/messages",
        json={"model": "theirs", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "?"}]},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    told = answer.body.decode()
    assert '"thinking":"Hm."' in told
    assert '"text":"Hello"' in told
    assert "message_stop" in told
    line = await gateway.log.find(provider=vendor)
    assert (line["input_tokens"], line["output_tokens"]) == (25, 7)


@pytest.mark.parametrize("number", [{"index": 0}, {}])
@pytest.mark.parametrize("id_", [{"id": ""}, {}])
@pytest.mark.parametrize("stream", [True, False])
async def test_calls_without_ids_of_their_own_stay_apart_and_get_some(
    start: Start, provider: ScriptedProvider, id_: dict[str, Any], number: dict[str, Any], stream: bool
) -> None:
    gateway = await start("hosted_vllm")
    calls = [
        {**id_, **number, "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in (("read", '{"path":"a"}'), ("read", '{"path":"b"}'), ("list", ""))
    ]
    if stream:
        rows = [*({"delta": {"tool_calls": [call]}} for call in calls), {"delta": {}, "finish_reason": "tool_calls"}]
        chunks = [event({"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, **row}]}) for row in rows]
        provider.answer_with(events=[*chunks, event("[DONE]")])
    else:
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        provider.answer_with(body={"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})

    answer = await gateway.post(
        "/anthropic/v1/messages",
        json={"model": "theirs", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "?"}]},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    if stream:
        told = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
        blocks = [row["content_block"] for row in told if row["type"] == "content_block_start"]
        inputs = ["", "", ""]
        for row in told:
            if row["type"] == "content_block_delta":
                inputs[row["index"]] += row["delta"]["partial_json"]
        said = [json.loads(text or "{}") for text in inputs]
    else:
        blocks = answer.json()["content"]
        said = [block["input"] for block in blocks]
    assert [block["name"] for block in blocks] == ["read", "read", "list"]
    assert said == [{"path": "a"}, {"path": "b"}, {}]
    assert len({block["id"] for block in blocks} - {""}) == 3


async def test_a_clients_own_bytes_are_fitted_to_a_vendor_that_would_refuse_them(
    start: Start, provider: ScriptedProvider
) -> None:
    gateway = await start("mistral")
    provider.answer_with(events=vendors.mistral_thinking_events())

    answer = await chat(gateway, user="user-1", stream_options={"include_usage": True}, store=False, safe_prompt=True)

    assert "Hello" in answer.body.decode()
    sent = provider.requests[0].json()
    assert {"user", "stream_options", "store"}.isdisjoint(sent)
    assert sent["safe_prompt"] is True


async def test_mistral_is_told_nothing_of_a_user_right_behind_a_tools_result(
    start: Start, provider: ScriptedProvider
) -> None:
    gateway = await start("mistral")
    call = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call, {**call, "id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
        {"role": "tool", "tool_call_id": "call_2", "content": "2"},
        {"role": "user", "content": "Stop that."},
    ]
    use = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}}
    said = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}, {"type": "text", "text": "Stop that."}]
    claudes = [turns[0], {"role": "assistant", "content": [use]}, {"role": "user", "content": said}]

    answer = await chat(gateway, messages=turns)
    other = await gateway.post(
        "/anthropic/v1/messages",
        json={"model": "theirs", "max_tokens": 9, "messages": claudes},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    assert (answer.status, other.status) == (200, 200)
    own, crossed = ([row["role"] for row in request.json()["messages"]] for request in provider.requests)
    assert own == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert crossed == ["user", "assistant", "tool", "assistant", "user"]


async def test_an_answer_given_up_midway_is_told_as_an_error(start: Start, provider: ScriptedProvider) -> None:
    gateway = await start("openrouter")
    provider.answer_with(events=vendors.openrouter_broken_events())

    answer = await gateway.post(
        "/anthropic/v1/messages",
        json={"model": "theirs", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "?"}]},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    told = answer.body.decode()
    assert "Half" in told
    assert "event: error" in told
    assert "message_stop" not in told


@pytest.mark.parametrize(
    ("vendor", "target"),
    [("mistral", "/v1/fim/completions"), ("deepseek", "/beta/completions"), ("fireworks_ai", "/v1/completions")],
)
async def test_code_is_completed_by_the_vendors_own_way_to_fill_in(
    start: Start, provider: ScriptedProvider, vendor: str, target: str
) -> None:
    gateway = await start(vendor, text=True)
    if vendor == "mistral":
        provider.answer_with(body={"choices": [{"index": 0, "message": {"content": "pass"}, "finish_reason": "stop"}]})
    else:
        provider.answer_with(text="pass")

    answer = await gateway.post(
        "/v2/code/completions",
        json={
            "current_file": {
                "file_name": "app.py",
                "content_above_cursor": "def f():\n    ",
                "content_below_cursor": "\n\nf()\n",
            }
        },
        token=gateway.token(unit_primitives=["complete_code"]),
    )

    assert [choice["text"].strip() for choice in answer.json()["choices"]] == ["pass"]
    (sent,) = provider.requests
    assert sent.target.decode() == target
    asked = sent.json()
    if vendor == "fireworks_ai":
        assert asked["prompt"].startswith("[SUFFIX]")
    else:
        assert (asked["prompt"], asked["suffix"]) == ("def f():\n    ", "\n\nf()\n")


@pytest.mark.parametrize(
    ("status", "body"), [(402, {"error": {"message": "Insufficient Balance"}}), (412, vendors.FIREWORKS_SUSPENDED)]
)
async def test_an_empty_account_is_asked_once_and_told_to_the_operator(
    start: Start, provider: ScriptedProvider, status: int, body: dict[str, Any]
) -> None:
    gateway = await start("fireworks_ai", AIGW_ROUTING__TRIES="3")
    provider.fail_with(status, body)

    answer = await chat(gateway, stream=False)

    assert answer.status >= 500 or answer.status == 429
    assert "acme" not in answer.body.decode()
    assert len(provider.requests) == 1
    line = await gateway.log.find(provider="fireworks_ai")
    assert line["provider_error"] == "provider_spent"
