"""What a model family thinks aloud never stands in an answer, wherever it is asked and however it is cut."""

import json
import re
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.saying import event

SCOPES = ("complete_code", "generate_code", "duo_chat", "explain_code")
FILE = {"file_name": "app.py", "content_above_cursor": "def add(a, b):\n    ", "content_below_cursor": ""}
EXPLAIN = {"input": "Why?", "selected_text": "x = 1", "file_content": "", "language_info": ""}
EXPLAINED = "/v1/prompts/chat%2Fexplain_code"
SAID = "<think>It may be < 3.\n</think>\n\nreturn a + b"


def own(gateway: RunningGateway, name: str) -> dict[str, Any]:
    return {"provider": "openai", "name": name, "endpoint": f"{gateway.provider.url}/v1", "api_key": ""}


def orders(gateway: RunningGateway, name: str, *, stream: bool) -> dict[str, Any]:
    asked = own(gateway, name)
    flat = {"model_provider": "litellm", "model_name": name, "model_endpoint": asked["endpoint"], "stream": stream}
    code = {"type": "code_editor_generation", "payload": {**FILE, "stream": stream}}
    chat = {"content": "Hi", "provider": "litellm", "model": name, "model_endpoint": asked["endpoint"]}
    return {
        EXPLAINED: {"inputs": EXPLAIN, "stream": stream, "model_metadata": asked},
        "/v2/code/generations": {"prompt_version": 2, "prompt": "Add them", "current_file": FILE, **flat},
        "/v4/code/suggestions": {"prompt_components": [code], "model_metadata": asked},
        "/v1/chat/agent": {
            "prompt_components": [{"type": "prompt", "metadata": {"source": "x", "version": "1"}, "payload": chat}],
            "stream": stream,
        },
        "/v2/chat/agent": {"messages": [{"role": "user", "content": "Hi"}], "model_metadata": asked},
    }


PATHS = (
    "/v1/prompts/chat%2Fexplain_code",
    "/v2/code/generations",
    "/v4/code/suggestions",
    "/v1/chat/agent",
    "/v2/chat/agent",
)


def in_letters() -> list[bytes]:
    rows: list[Any] = [{"id": "a", "model": "m", "choices": [{"index": 0, "delta": {"content": one}}]} for one in SAID]
    rows.append({"id": "a", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return [*(event(row) for row in rows), b"data: [DONE]\n\n"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_thoughts_of_a_flagged_family_are_left_out(start_gateway: StartGateway, path: str, stream: bool) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    if stream or path == "/v2/chat/agent":
        gateway.provider.answer_with(events=in_letters())
    else:
        gateway.provider.answer_with(text=SAID)

    answer = await gateway.post(
        path, json=orders(gateway, "qwen", stream=stream)[path], token=gateway.token(unit_primitives=SCOPES)
    )

    assert answer.status == 200, answer.text
    assert "think" not in answer.text
    assert "It may be" not in answer.text
    # Lines and events hold the text in the pieces that it came in.
    told = "".join(re.findall(r'"(?:content|text)": ?"((?:[^"\\]|\\.)*)"', answer.text)) or answer.text
    assert "+ b" in told


@pytest.mark.parametrize("name", ["qwen", "general", "nobody-knows"])
@pytest.mark.parametrize("path", PATHS[:-1])
async def test_a_block_whose_beginning_the_template_wrote_is_left_out_of_a_whole_answer(
    start_gateway: StartGateway, path: str, name: str
) -> None:
    """DeepSeek R1, QwQ and Qwen's Thinking models on vLLM without `--reasoning-parser`."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    gateway.provider.answer_with(text=SAID.removeprefix("<think>"))

    answer = await gateway.post(
        path, json=orders(gateway, name, stream=False)[path], token=gateway.token(unit_primitives=SCOPES)
    )

    assert answer.status == 200, answer.text
    assert "think" not in answer.text
    assert "It may be" not in answer.text
    assert "+ b" in answer.text


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_of_a_model_whose_template_begins_the_block_has_no_thoughts_either(
    start_gateway: StartGateway, path: str
) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    rows = in_letters()
    gateway.provider.answer_with(events=rows[len("<think>") :])
    asked = orders(gateway, "general", stream=True)[path]
    if "model_metadata" in asked:
        asked["model_metadata"]["identifier"] = "custom_openai/Qwen/QwQ-32B"
    elif "model_endpoint" in asked:
        asked["model_identifier"] = "custom_openai/Qwen/QwQ-32B"
    else:
        asked["prompt_components"][0]["payload"]["model_identifier"] = "custom_openai/Qwen/QwQ-32B"

    answer = await gateway.post(path, json=asked, token=gateway.token(unit_primitives=SCOPES))

    assert answer.status == 200, answer.text
    assert "think" not in answer.text
    told = "".join(re.findall(r'"(?:content|text)": ?"((?:[^"\\]|\\.)*)"', answer.text)) or answer.text
    assert "It may be" not in told
    assert "+ b" in told


async def test_other_families_keep_their_text(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    gateway.provider.answer_with(events=in_letters())
    asked = orders(gateway, "mistral", stream=True)[EXPLAINED]

    answer = await gateway.post(EXPLAINED, json=asked, token=gateway.token(unit_primitives=SCOPES))

    assert answer.text == SAID
    assert json.loads(gateway.provider.requests[0].body)["stream"] is True
