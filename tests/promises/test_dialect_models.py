"""The dialect routes beside the calls of a model: lists of models, embeddings, counting (interface 6)."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.fleet import running_fleet
from tests.support.gateway import OPENAI_KEY, RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider

PROXY = "ai_gateway_model_provider_proxy"
EMBEDDINGS = "/openai/v1/embeddings"
NOTHING = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "ANTHROPIC_BASE_URL": "", "OPENAI_BASE_URL": ""}


def bearer(gateway: RunningGateway) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.token(unit_primitives=[PROXY])}"}


async def embed(gateway: RunningGateway, **asked: Any) -> Answer:
    body = {"model": "text_embedding_3_small", "input": ["a", "b"], **asked}
    return await gateway.post(EMBEDDINGS, json=body, headers=bearer(gateway))


async def test_openai_lists_what_is_configured_and_then_the_aliases(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""})

    listed = (await gateway.get("/openai/v1/models", headers=bearer(gateway))).json()

    ids = [row["id"] for row in listed["data"]]
    assert (listed["object"], {row["object"] for row in listed["data"]}) == ("list", {"model"})
    assert ids[0].startswith("claude_")
    assert "chat_default" in ids
    assert not any(name.startswith("gpt") for name in ids)
    row = next(row for row in listed["data"] if row["id"] == "claude_sonnet_4_6")
    assert (row["owned_by"], row["registry"]["deployments"]) == ("Anthropic", ["anthropic/claude-sonnet-4-6"])
    assert row["registry"]["prices_usd_per_million_tokens"]["input"] == "3"


@pytest.mark.parametrize("name", ["claude_sonnet_4_6", "claude-sonnet-4-6", "anthropic/claude-sonnet-4-6"])
async def test_one_model_is_shown_by_any_of_its_names(gateway: RunningGateway, name: str) -> None:
    openai = (await gateway.get(f"/openai/v1/models/{name}", headers=bearer(gateway))).json()
    anthropic = (await gateway.get(f"/anthropic/v1/models/{name}", headers=bearer(gateway))).json()

    assert openai["id"] == anthropic["id"] == name
    assert anthropic["display_name"] == "Claude Sonnet 4.6"
    assert openai["registry"] == anthropic["registry"]


async def test_the_first_model_of_a_server_goes_by_its_own_name(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    provider.models = ["qwen3:8b", "other"]
    gateway = await start_gateway(env={**NOTHING, "OPENAI_BASE_URL": provider.url})

    async def say(model: str) -> int:
        asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        return (await gateway.post("/openai/v1/chat/completions", json=asked, headers=bearer(gateway))).status

    statuses = [await say(model) for model in ("chat_default", "qwen3:8b", "openai/qwen3:8b", "other")]

    assert statuses == [200, 200, 200, 404]
    assert [request.json()["model"] for request in provider.requests] == ["qwen3:8b"] * 3


@pytest.mark.parametrize("prefix", ["/openai", "/anthropic"])
async def test_a_model_that_nobody_knows_is_not_found(gateway: RunningGateway, prefix: str) -> None:
    answer = await gateway.get(f"{prefix}/v1/models/no-such-model", headers=bearer(gateway))

    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_anthropics_list_comes_in_pages_in_both_directions(gateway: RunningGateway) -> None:
    async def page(query: str) -> Any:
        return (await gateway.get(f"/anthropic/v1/models?{query}", headers=bearer(gateway))).json()

    every = await page("limit=1000")
    ids = [row["id"] for row in every["data"]]
    first = await page("limit=2")
    second = await page(f"limit=2&after_id={first['last_id']}")
    back = await page(f"limit=2&before_id={ids[3]}")

    assert (every["has_more"], every["first_id"], every["last_id"]) == (False, ids[0], ids[-1])
    assert ([row["id"] for row in first["data"]], first["has_more"]) == (ids[:2], True)
    assert [row["id"] for row in second["data"]] == ids[2:4]
    assert ([row["id"] for row in back["data"]], back["has_more"]) == (ids[1:3], True)
    assert (await page("after_id=nobody"))["data"] == []
    for limit in ("0", "1001", "9" * 5000):
        assert (await page(f"limit={limit}"))["error"]["type"] == "invalid_request_error"


async def test_with_nothing_configured_only_what_the_demo_answers_is_listed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=NOTHING)

    listed = (await gateway.get("/openai/v1/models", headers=bearer(gateway))).json()

    assert {row["registry"]["title"] for row in listed["data"]} == {"Built-in demo"}


async def test_embeddings_pass_as_they_came_but_for_the_models_name(gateway: RunningGateway) -> None:
    answer = await embed(gateway, encoding_format="base64", dimensions=3, of_the_vendor={"a": 1})

    (request,) = gateway.provider.requests
    assert request.json() == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "encoding_format": "base64",
        "dimensions": 3,
        "of_the_vendor": {"a": 1},
    }
    assert request.header("authorization") == f"Bearer {OPENAI_KEY}"
    rows = [struct.unpack("<3f", base64.b64decode(row["embedding"])) for row in answer.json()["data"]]
    assert [row[0] for row in rows] == [1.0, 2.0]
    assert answer.header("x-aigw-model") == "openai/text-embedding-3-small"
    assert (await gateway.log.find(path=EMBEDDINGS))["input_tokens"] == 10


async def test_vectors_that_pass_are_json_for_every_reader(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body=b'\xef\xbb\xbf{"data":[{"embedding":[1]},{"embedding":[2],"of":"Hel\xfflo"}]}')

    answer = await embed(gateway)

    assert answer.status == 200
    assert answer.body == '{"data":[{"embedding":[1]},{"embedding":[2],"of":"Hel\ufffdlo"}]}'.encode()


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": [1.5]}, "input.0"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": "chat_default"}, "model"),
    ],
)
async def test_embeddings_that_cannot_be_are_refused_with_the_parameters_name(
    gateway: RunningGateway, asked: dict[str, Any], param: str
) -> None:
    answer = await embed(gateway, **asked)

    assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    assert gateway.provider.requests == []


@pytest.mark.parametrize("body", [b"<html>", b'{"data":[]}', b'{"data":[{"embedding":[1]}]}', b'{"data":[{"embedd'])
async def test_vectors_that_are_none_are_a_failure_of_the_provider(start_gateway: StartGateway, body: bytes) -> None:
    gateway = await start_gateway(env={"AIGW_ROUTING__TRIES": "1"})
    gateway.provider.answer_with(body=body)

    answer = await embed(gateway)

    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_broke")


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_demo_embeds_where_nothing_is_configured(start_gateway: StartGateway, encoding: str) -> None:
    gateway = await start_gateway(env=NOTHING)

    answer = await embed(gateway, encoding_format=encoding)

    assert answer.header("x-torana-demo") == "true"
    vector = answer.json()["data"][1]["embedding"]
    length = len(vector) if encoding == "float" else len(base64.b64decode(vector)) // 4
    assert length == 1536


async def test_a_body_that_is_no_json_is_told_as_such(gateway: RunningGateway) -> None:
    for body in (b"", b"[]", b'{"model":', b'{"model":"embeddings_default","input":"\xff"}', json.dumps("x").encode()):
        answer = await gateway.post(EMBEDDINGS, body=body, headers=bearer(gateway))
        assert answer.status == 400, body


# --- Counting tokens ---

COUNT = "/anthropic/v1/messages/count_tokens"


async def count(gateway: RunningGateway, model: str, text: str = "Hi", **headers: str) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return await gateway.post(f"{COUNT}?beta=true", json=body, headers=bearer(gateway) | headers)


async def test_a_provider_that_counts_is_asked_with_the_clients_own_bytes(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(input_tokens=1234)

    answer = await count(gateway, "chat_default", **{"anthropic-beta": "token-counting-2026"})

    assert (answer.json(), answer.header("x-torana-estimated")) == ({"input_tokens": 1234}, None)
    assert answer.header("x-aigw-model") == "anthropic/claude-sonnet-4-6"
    (request,) = gateway.provider.requests
    assert (request.path, request.query, request.header("anthropic-beta")) == (
        "/v1/messages/count_tokens",
        "beta=true",
        "token-counting-2026",
    )
    assert request.json()["model"] == "claude-sonnet-4-6"
    # Nothing was answered, so nothing is booked.
    assert "output_tokens" not in await gateway.log.find(path=COUNT)


async def test_where_nobody_counts_the_estimate_says_that_it_is_one(gateway: RunningGateway) -> None:
    short, long = await count(gateway, "gpt_5_4_mini"), await count(gateway, "gpt_5_4_mini", "word " * 700)

    assert [answer.header("x-torana-estimated") for answer in (short, long)] == ["true", "true"]
    assert (short.json(), long.json()) == ({"input_tokens": 1}, {"input_tokens": 1000})
    assert gateway.provider.requests == []


@pytest.mark.parametrize("proof", ["responses:c2ln", ""])
async def test_a_conversation_that_another_model_began_is_estimated(gateway: RunningGateway, proof: str) -> None:
    """The provider would refuse to count it: 400 "Invalid `signature` in `thinking` block"."""
    thought = {"type": "thinking", "thinking": "Hm.", "signature": proof}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [thought]}]

    answer = await gateway.post(COUNT, json={"model": "chat_default", "messages": turns}, headers=bearer(gateway))

    assert (answer.status, answer.header("x-torana-estimated")) == (200, "true")
    assert gateway.provider.requests == []


@pytest.mark.parametrize("status", [401, 429, 500, 529])
async def test_a_provider_that_fails_to_count_is_no_failure_to_the_client(gateway: RunningGateway, status: int) -> None:
    gateway.provider.fail_with(status)

    answer = await count(gateway, "chat_default")

    assert (answer.status, answer.header("x-torana-estimated")) == (200, "true")


async def test_a_provider_that_rests_is_not_asked_to_count(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_ROUTING__FAILURES_TO_REST": "1", "AIGW_ROUTING__TRIES": "1"})
    gateway.provider.fail_with(500)
    body = {"model": "chat_default", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    assert (await gateway.post("/anthropic/v1/messages", json=body, token=token)).status == 502

    answer = await count(gateway, "chat_default")

    assert (answer.status, answer.header("x-torana-estimated")) == (200, "true")
    assert [request.path for request in gateway.provider.requests] == ["/v1/messages"]


async def test_a_server_that_follows_anthropic_and_has_no_such_path_is_none_either(gateway: RunningGateway) -> None:
    """As vLLM's and others answered it before they counted."""
    gateway.provider.fail_with(404, b'{"detail":"Not Found"}')

    answer = await count(gateway, "chat_default")

    assert (answer.status, answer.header("x-torana-estimated")) == (200, "true")


async def test_a_model_that_the_provider_does_not_have_is_told(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(404)

    answer = await count(gateway, "chat_default")

    assert (answer.status, answer.json()["error"]["type"]) == (404, "not_found_error")


async def test_what_the_provider_has_against_the_prompt_is_told(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400)

    answer = await count(gateway, "chat_default")

    assert (answer.status, answer.json()["error"]["message"]) == (400, "scripted failure")


@pytest.mark.parametrize("is_folding", [False, True])
async def test_a_model_that_takes_no_system_turn_gets_none_whoever_writes_it(
    start_gateway: StartGateway, tmp_path: Path, is_folding: bool
) -> None:
    family = ", families: [mistral]" if is_folding else ""
    deployments = [{"provider": "vendor", "model": "small"}]
    body = {"model": "fleet", "messages": [{"role": "system", "content": "Be"}, {"role": "user", "content": "Hi"}]}

    async with running_fleet(start_gateway, tmp_path / "fleet", deployments, model=family) as fleet:
        answer = await fleet.gateway.post("/openai/v1/chat/completions", json=body, headers=bearer(fleet.gateway))
        (sent,) = fleet["vendor"].requests

    folded = [{"role": "user", "content": "Be\n\nHi"}]
    assert (answer.status, sent.json()["messages"]) == (200, folded if is_folding else body["messages"])
