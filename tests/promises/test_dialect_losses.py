"""What the model's own format cannot say: left out and told, refused, or left out silently."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_dialect_routes import CHAT, CLAUDE, GPT, MESSAGES, RESPONSES, ask
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider

LOSSY: dict[str, Any] = {"logit_bias": {"50256": -100}, "n": 2, "seed": 7}


async def ask_lossy(gateway: RunningGateway, **more: Any) -> Answer:
    return await ask(gateway, CHAT, CLAUDE, **{**LOSSY, **more})


async def test_what_is_left_out_is_named_in_a_header_and_in_the_log(gateway: RunningGateway) -> None:
    answer = await ask_lossy(gateway)

    assert answer.status == 200
    assert answer.header("x-torana-dropped") == "choices, logit_bias, seed"
    assert not set(gateway.provider.requests[0].json()) & set(LOSSY)
    assert (await gateway.log.find(path=CHAT))["dropped"] == "choices, logit_bias, seed"


async def test_names_without_an_end_are_told_and_logged_as_far_as_a_header_goes(gateway: RunningGateway) -> None:
    kept = await ask_lossy(gateway, **{"x" * 100_000: 1})

    told = kept.header("x-torana-dropped")
    assert told is not None
    assert (kept.status, len(told)) == (200, 256)
    assert (await gateway.log.find(path=CHAT))["dropped"] == told


async def test_a_stream_names_what_is_left_out_too(gateway: RunningGateway) -> None:
    answer = await ask(gateway, MESSAGES, GPT, top_k=5, stream=True)

    assert (answer.status, answer.header("x-torana-dropped")) == (200, "top_k")


async def test_a_search_that_is_asked_for_by_nothing_is_named(gateway: RunningGateway) -> None:
    answer = await ask(gateway, CHAT, CLAUDE, web_search_options={})

    assert (answer.status, answer.header("x-torana-dropped")) == (200, "web_search_options")


async def test_a_tool_that_is_left_out_is_not_forced(gateway: RunningGateway) -> None:
    tools = [{"type": "bash_20250124", "name": "bash"}, {"name": "look", "input_schema": {"type": "object"}}]

    answer = await ask(gateway, MESSAGES, GPT, tools=tools, tool_choice={"type": "tool", "name": "bash"})
    own = await ask(gateway, MESSAGES, CLAUDE, tools=tools, tool_choice={"type": "tool", "name": "bash"})

    assert (answer.status, answer.header("x-torana-dropped")) == (200, "tool_choice, tools.bash_20250124")
    assert (own.status, own.header("x-torana-dropped")) == (200, None)
    sent, passed = (request.json() for request in gateway.provider.requests)
    assert "tool_choice" not in sent
    assert (passed["tools"], passed["tool_choice"]) == (tools, {"type": "tool", "name": "bash"})


GRAMMAR = {"syntax": "lark", "definition": 'start: "x"'}
CUSTOM: dict[str, Any] = {
    CHAT: {"type": "custom", "custom": {"name": "patch", "format": {"type": "grammar", "grammar": GRAMMAR}}},
    RESPONSES: {"type": "custom", "name": "patch", "format": {"type": "grammar", **GRAMMAR}},
}


@pytest.mark.parametrize(("path", "model", "dropped"), [
    (CHAT, CLAUDE, "tool.grammar"), (RESPONSES, CLAUDE, "tool.grammar"), (CHAT, GPT, None), (RESPONSES, GPT, None),
])  # fmt: skip
async def test_a_grammar_that_nobody_holds_the_model_to_is_named(
    gateway: RunningGateway, path: str, model: str, dropped: str | None
) -> None:
    answer = await ask(gateway, path, model, tools=[CUSTOM[path]])

    assert (answer.status, answer.header("x-torana-dropped")) == (200, dropped)


async def test_a_tool_that_takes_any_text_loses_nothing(gateway: RunningGateway) -> None:
    answer = await ask(
        gateway, RESPONSES, CLAUDE, tools=[{"type": "custom", "name": "patch", "format": {"type": "text"}}]
    )

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)


async def test_how_many_words_were_wanted_is_named_where_nobody_is_told(gateway: RunningGateway) -> None:
    lost = await ask(gateway, RESPONSES, CLAUDE, text={"verbosity": "low"})
    usual = await ask(gateway, RESPONSES, CLAUDE, text={"verbosity": "medium"})

    assert [each.header("x-torana-dropped") for each in (lost, usual)] == ["text.verbosity", None]


USUAL: dict[str, dict[str, Any]] = {
    CHAT: {"frequency_penalty": 0, "presence_penalty": 0.0, "modalities": ["text"], "verbosity": "medium"},
    RESPONSES: {"truncation": "disabled", "top_logprobs": 0},
}


@pytest.mark.parametrize("path", USUAL)
async def test_settings_that_stand_where_they_always_do_are_no_loss(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway(env={"AIGW_DIALECT__LOSSES": "refuse"})

    usual = await ask(gateway, path, CLAUDE, **USUAL[path])
    others = await ask(gateway, path, CLAUDE, **dict.fromkeys(USUAL[path], 1))

    assert usual.status == 200
    assert (others.status, all(name in others.text for name in USUAL[path])) == (400, True)


@pytest.mark.parametrize(("path", "model"), [(CHAT, GPT), (MESSAGES, CLAUDE)])
async def test_in_the_same_dialect_nothing_is_lost(gateway: RunningGateway, path: str, model: str) -> None:
    answer = await ask(gateway, path, model, top_k=5, logit_bias={})

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)


async def test_what_a_vendor_of_the_clients_own_dialect_does_not_take_is_named_too(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    deployment = "{provider: deepseek, model: deepseek-chat}"
    (tmp_path / "models.yml").write_text(f"models:\n- {{name: deep, title: D, deployments: [{deployment}]}}\n")
    env = {"DEEPSEEK_API_KEY": "key", "DEEPSEEK_BASE_URL": provider.url, "AIGW_CATALOG": str(tmp_path)}
    gateway = await start_gateway(env=env)
    schema = {"name": "answer", "schema": {"type": "object", "properties": {}}, "strict": True}
    form = {"type": "json_schema", "json_schema": schema}

    whole = await ask(gateway, CHAT, "deep", response_format=form)
    streamed = await ask(gateway, CHAT, "deep", response_format=form, stream=True)
    usual = await ask(gateway, CHAT, "deep")

    assert provider.requests[0].json()["response_format"] == {"type": "json_object"}
    assert [each.header("x-torana-dropped") for each in (whole, streamed, usual)] == [
        "answer_schema.strict",
        "answer_schema.strict",
        None,
    ]


async def test_by_policy_a_loss_is_refused_before_anything_is_sent(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_DIALECT__LOSSES": "refuse"})

    answer = await ask_lossy(gateway)
    lossless = await ask(gateway, CHAT, CLAUDE, metadata={"a": "b"}, store=False)

    assert (answer.status, answer.json()["error"]["code"]) == (400, "dialect_loss")
    assert answer.json()["refusal"]["missing"] == "choices, logit_bias, seed"
    assert lossless.status == 200
    assert len(gateway.provider.requests) == 1


async def test_by_policy_a_loss_is_silent(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_DIALECT__LOSSES": "drop"})

    answer = await ask_lossy(gateway)

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)


@pytest.mark.parametrize(
    ("path", "model", "body", "code"),
    [
        (MESSAGES, GPT, {"messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}]}]}, "request_invalid"),
        (CHAT, CLAUDE, {"messages": [{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]}, "request_invalid"),
        (RESPONSES, CLAUDE, {"input": "Hi", "previous_response_id": "resp_1"}, "request_invalid"),
    ],
)  # fmt: skip
async def test_what_cannot_be_left_out_is_refused(
    gateway: RunningGateway, path: str, model: str, body: dict[str, Any], code: str
) -> None:
    answer = await ask(gateway, path, model, **body)

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, code)
    assert gateway.provider.requests == []


async def test_images_documents_and_tools_reach_the_other_vendors_model(gateway: RunningGateway) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    paper = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    tool = {"name": "look", "input_schema": {"type": "object", "properties": {}}}

    answer = await ask(gateway, MESSAGES, GPT, tools=[tool], messages=[{"role": "user", "content": [image, paper]}])

    assert answer.status == 200
    sent = gateway.provider.requests[0].json()
    assert sent["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    assert sent["tools"][0]["function"]["name"] == "look"
