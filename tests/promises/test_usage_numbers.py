"""Numbers that providers tell and that cannot be, and those that they leave out: what the record has instead."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_usage import PROXY, PROXY_HEADERS, chat_completions, messages
from tests.support.gateway import RunningGateway
from tests.support.limits import write_limits

ABSURD = [
    {"prompt_tokens": -5, "completion_tokens": 7, "total_tokens": 2},
    {"prompt_tokens": 10**30, "completion_tokens": 7, "total_tokens": 10**30},
    {"prompt_tokens": 5_000_000_000, "completion_tokens": 7, "total_tokens": 5_000_000_007},
]


COUNTS = {"input_tokens": 114, "output_tokens": 20}
WHOLE: dict[str, dict[str, Any]] = {
    "completions": {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 114, "completion_tokens": 20},
    },
    "responses": {
        "id": "x",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-5-mini-2025-08-07",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "fine"}]}],
        "usage": COUNTS,
    },
    "messages": {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "fine"}],
        "stop_reason": "end_turn",
        "usage": COUNTS,
    },
}


@pytest.mark.parametrize("usage", ABSURD)
@pytest.mark.parametrize("is_relayed", [True, False])
async def test_numbers_that_cannot_be_are_replaced_by_our_own_and_marked(
    gateway: RunningGateway, usage: dict[str, Any], is_relayed: bool
) -> None:
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine " * 40}, "finish_reason": "stop"}],
        "usage": usage,
    }
    gateway.provider.answer_with(body=body)
    path = "/v1/proxy/openai/v1/chat/completions" if is_relayed else "/openai/v1/chat/completions"
    asked = chat_completions(False) | ({} if is_relayed else {"model": "gpt_5_mini"})
    del asked["stream_options"]
    token = gateway.token(unit_primitives=[PROXY])

    answer = await gateway.post(path, json=asked, token=token, headers=dict(PROXY_HEADERS))

    assert answer.status == 200
    (record,) = gateway.usage()
    assert record["source"] == "suspect"
    assert 0 < record["input_tokens"] < 1000
    assert 0 < record["output_tokens"] < 1000


@pytest.mark.parametrize("tokens", [-5, 10**15, "12", 12.5])
@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/v1/proxy/anthropic/v1/messages"])
async def test_a_stream_that_begins_with_such_a_number_stays_marked_though_its_end_tells_a_good_one(
    gateway: RunningGateway, tokens: Any, path: str
) -> None:
    gateway.provider.answer_with(events=stream_of_messages({"input_tokens": tokens, "output_tokens": 1}, 7))
    token = gateway.token(unit_primitives=[PROXY])

    await gateway.post(path, json=messages(True), token=token, headers=dict(PROXY_HEADERS))

    (record,) = gateway.usage()
    assert (record["status"], record["source"]) == ("completed", "suspect")
    assert 0 < record["input_tokens"] < 1000
    assert 0 < record["output_tokens"] < 1000


async def test_a_stream_whose_end_tells_all_of_it_anew_is_believed(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(events=stream_of_messages({"input_tokens": -5, "output_tokens": 1}, 7, input_tokens=9))

    await gateway.post("/anthropic/v1/messages", json=messages(True), token=gateway.token(unit_primitives=[PROXY]))

    (record,) = gateway.usage()
    assert (record["source"], record["input_tokens"], record["output_tokens"]) == ("provider", 9, 7)


@pytest.mark.parametrize("tokens", [-5, 10**15, "12", None])
async def test_texts_whose_tokens_cannot_be_are_counted_and_never_free(gateway: RunningGateway, tokens: Any) -> None:
    gateway.provider.answer_with(
        body={
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )

    answer = await gateway.post(
        "/openai/v1/embeddings",
        json={"model": "text-embedding-3-small", "input": "a text of some words"},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    assert answer.status == 200
    (record,) = gateway.usage()
    assert record["source"] == "suspect"
    assert 0 < record["input_tokens"] < 100


async def test_a_stream_without_usage_is_counted_and_says_so(gateway: RunningGateway) -> None:
    asked = chat_completions(True)
    del asked["stream_options"]
    token = gateway.token(unit_primitives=[PROXY])

    await gateway.post("/v1/proxy/openai/v1/chat/completions", json=asked, token=token, headers=dict(PROXY_HEADERS))

    (record,) = gateway.usage()
    assert (record["status"], record["source"]) == ("completed", "counted")
    assert record["input_tokens"] > 0
    assert record["output_tokens"] > 0


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_a_stream_that_passes_without_usage_is_counted_however_its_lines_end(
    gateway: RunningGateway, end: bytes
) -> None:
    said = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"fine "},"finish_reason":null}]}'
    stop = b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    gateway.provider.answer_with(events=[each + end for each in [*[said] * 40, stop, b"data: [DONE]"]])

    answer = await gateway.post(
        "/openai/v1/chat/completions",
        json=messages(False) | {"model": "gpt_5_mini", "stream": True},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    assert answer.text.count("fine") == 40
    (record,) = gateway.usage()
    assert (record["source"], record["output_tokens"]) == ("counted", 42)


async def test_letters_of_which_each_is_about_a_token_are_counted_as_such(gateway: RunningGateway) -> None:
    told = {"prompt_tokens": 90, "completion_tokens": None}
    gateway.provider.answer_with(body=whole_chat_completion("お答えします" * 40) | {"usage": told})

    await gateway.post(
        "/openai/v1/chat/completions",
        json=messages(False) | {"model": "gpt_5_mini"},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    (record,) = gateway.usage()
    assert record["source"] == "counted"
    assert 150 <= record["output_tokens"] <= 300  # 240 letters


@pytest.mark.parametrize("usage", [{"prompt_tokens": 90}, {"prompt_tokens": 90, "completion_tokens": None}])
async def test_an_output_that_is_not_told_is_counted_beside_the_input_that_is(
    gateway: RunningGateway, usage: dict[str, Any]
) -> None:
    gateway.provider.answer_with(body=whole_chat_completion("fine " * 40) | {"usage": usage})

    await gateway.post(
        "/openai/v1/chat/completions",
        json=messages(False) | {"model": "gpt_5_mini"},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    (record,) = gateway.usage()
    assert (record["source"], record["input_tokens"]) == ("counted", 90)
    assert 40 <= record["output_tokens"] <= 60


async def test_an_output_that_is_not_told_is_what_the_total_has_beyond_the_input(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(
        body=whole_chat_completion("fine") | {"usage": {"prompt_tokens": 90, "total_tokens": 97}}
    )

    await gateway.post(
        "/openai/v1/chat/completions",
        json=messages(False) | {"model": "gpt_5_mini"},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    (record,) = gateway.usage()
    assert (record["source"], record["input_tokens"], record["output_tokens"]) == ("provider", 90, 7)


async def test_of_an_answer_that_passes_whole_without_usage_its_text_is_counted_and_not_its_json(
    gateway: RunningGateway,
) -> None:
    gateway.provider.answer_with(body=whole_chat_completion("fine") | {"system_fingerprint": "f" * 4000})

    await gateway.post(
        "/openai/v1/chat/completions",
        json=messages(False) | {"model": "gpt_5_mini"},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    (record,) = gateway.usage()
    assert (record["source"], record["output_tokens"]) == ("counted", 1)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            "openai/v1/chat/completions",
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}}]},
        ),
        (
            "openai/v1/responses",
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": "fine"}]}]},
        ),
        ("anthropic/v1/messages", {"type": "message", "content": [{"type": "text", "text": "fine"}]}),
        ("openai/v1/embeddings", {"object": "list", "data": [{"index": 0, "embedding": [0.125] * 1536}]}),
    ],
)
async def test_of_a_relayed_answer_without_usage_what_it_says_is_counted_and_not_its_json(
    gateway: RunningGateway, path: str, told: dict[str, Any]
) -> None:
    gateway.provider.answer_with(body={"id": "x", "model": "m", **told, "service_tier": "f" * 4000})
    model = "claude-sonnet-4-6" if "anthropic" in path else "gpt-5-mini-2025-08-07"
    asked = {"model": model, "messages": [], "input": "Hi"}
    token = gateway.token(unit_primitives=[PROXY])

    answer = await gateway.post(f"/v1/proxy/{path}", json=asked, token=token, headers=dict(PROXY_HEADERS))

    assert answer.status == 200
    (record,) = gateway.usage()
    assert record["source"] == "counted"
    assert 0 < record["input_tokens"] < 50
    assert record["output_tokens"] == (0 if "embeddings" in path else 2)


async def test_a_picture_in_a_relayed_request_is_counted_as_vendors_do_and_not_by_its_bytes(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(write_limits(tmp_path / "overlay", "20000 input tokens per minute"))
    gateway.provider.answer_with(body={"id": "x", "choices": []})
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,iVBORw0KGgo{'A' * 2_000_000}"}}
    asked = chat_completions(False) | {"messages": [{"role": "user", "content": [picture]}]}
    token, path = gateway.token(unit_primitives=[PROXY]), "/v1/proxy/openai/v1/chat/completions"

    answers = [await gateway.post(path, json=asked, token=token, headers=dict(PROXY_HEADERS)) for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert [1600 <= record["input_tokens"] < 1700 for record in gateway.usage()] == [True] * 3


async def test_a_relayed_answer_that_nobody_understands_is_counted_as_it_is(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body={"surprise": "fine " * 70})
    token = gateway.token(unit_primitives=[PROXY])

    await gateway.post(
        "/v1/proxy/openai/v1/chat/completions", json=chat_completions(False), token=token, headers=dict(PROXY_HEADERS)
    )

    (record,) = gateway.usage()
    assert (record["source"], record["output_tokens"] >= 100) == ("counted", True)


PRIORITY, ODD, US, FAST = (
    {"service_tier": "priority"},
    {"service_tier": {"odd": 1}},
    {"usage": {"inference_geo": "us", "service_tier": "standard"}},
    {"usage": {"speed": "fast"}},
)


@pytest.mark.parametrize(
    ("path", "model", "told", "tiers", "cost"),
    [
        ("/openai/v1/chat/completions", "gpt_5_mini", PRIORITY, ["priority"], "0.0001233"),
        ("/openai/v1/chat/completions", "gpt_5_mini", {"service_tier": "default"}, [], "0.0000685"),
        ("/openai/v1/chat/completions", "gpt_5_mini", {"service_tier": "unheard_of"}, ["unheard_of"], None),
        ("/openai/v1/chat/completions", "gpt_5_mini", ODD, [], "0.0000685"),
        ("/anthropic/v1/messages", "claude_sonnet_4_6", US, ["us"], "0.0007062"),
        ("/anthropic/v1/messages", "claude_sonnet_4_6", FAST, ["fast"], None),
        ("/v1/proxy/anthropic/v1/messages", "claude-sonnet-4-6", US, ["us"], "0.0007062"),
        ("/v1/proxy/anthropic/v1/messages", "claude-sonnet-4-6", {"usage": {"speed": "standard"}}, [], "0.000642"),
        # The tests' server of this kind is nobody's whose prices are known.
        ("/v1/proxy/openai/v1/chat/completions", "gpt-5-mini-2025-08-07", PRIORITY, ["priority"], None),
        ("/v1/proxy/openai/v1/responses", "gpt-5-mini-2025-08-07", {"service_tier": "flex"}, ["flex"], None),
    ],
)
async def test_what_a_provider_serves_in_a_tier_is_told_and_has_its_price(
    gateway: RunningGateway, path: str, model: str, told: dict[str, Any], tiers: list[str], cost: str | None
) -> None:
    whole = WHOLE[path.rpartition("/")[2]]
    gateway.provider.answer_with(body=whole | told | {"usage": whole["usage"] | told.get("usage", {})})
    asked = messages(False) | {"model": model, "input": "Hi"}
    token = gateway.token(unit_primitives=[PROXY])

    answer = await gateway.post(path, json=asked, token=token, headers=dict(PROXY_HEADERS))

    assert answer.status == 200
    (record,) = gateway.usage()
    assert (record["tiers"], record["cost_usd"]) == (tiers, cost)


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/v1/proxy/anthropic/v1/messages"])
async def test_a_tier_that_the_beginning_of_a_stream_tells_holds_for_its_end(
    gateway: RunningGateway, path: str
) -> None:
    gateway.provider.answer_with(events=stream_of_messages({"input_tokens": 114, "speed": "fast"}, 20))
    token = gateway.token(unit_primitives=[PROXY])

    await gateway.post(path, json=messages(True), token=token, headers=dict(PROXY_HEADERS))

    (record,) = gateway.usage()
    assert (record["tiers"], record["output_tokens"]) == (["fast"], 20)


async def test_a_model_costs_what_its_own_record_says_whoever_else_sells_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    prices = {"as_of": "2026-11-01", "input": "100", "output": "1000"}
    deployments = [{"provider": "anthropic", "model": "claude-sonnet-4-6"}]
    models = {"models": [{"name": "ours", "title": "Ours", "deployments": deployments, "prices": prices}]}
    (tmp_path / "models.yml").write_text(json.dumps(models))
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path)})
    gateway.provider.answer_with(text="fine", input_tokens=10, output_tokens=5)
    token = {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}"}

    for model in ("ours", "claude-sonnet-4-6"):
        await gateway.post("/anthropic/v1/messages", json=messages(False) | {"model": model}, headers=token)

    assert [record["cost_usd"] for record in gateway.usage()] == ["0.006", "0.000105"]


async def test_a_call_is_booked_whose_token_names_half_a_letter(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=[PROXY], instance_id="ac\ud800me")

    answer = await gateway.post(
        "/anthropic/v1/messages", json=messages(False), headers={"Authorization": f"Bearer {token}"}
    )

    (record,) = gateway.usage()
    assert (answer.status, record["instance"], record["status"]) == (200, "ac\ufffdme", "completed")


def whole_chat_completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    model = "gpt-5-mini-2025-08-07"
    return {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}


def stream_of_messages(at_first: dict[str, Any], output_tokens: int, **at_last: int) -> list[bytes]:
    """A stream of Anthropic's whose first event and whose last one tell usage."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": at_first}
    told = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": output_tokens, **at_last},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told]
