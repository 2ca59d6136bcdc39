"""Stages of models: who may use which one, and what happens to those that end."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider

DAY = "2027-03-05"
MIDNIGHT = datetime.fromisoformat(DAY).replace(tzinfo=UTC).timestamp()
MODELS = f"""\
models:
- {{name: seen, title: Seen, stage: registered, deployments: [{{provider: anthropic, model: seen-1}}]}}
- {{name: tried, title: Tried, stage: staging, deployments: [{{provider: anthropic, model: tried-1}}]}}
- name: old
  title: Old
  stage: deprecated
  deprecation: {{deprecation_date: {DAY}, removal_version: "20.1", announced: 2027-01-01}}
  successor: young
  deployments: [{{provider: anthropic, model: old-1}}]
- {{name: young, title: Young, deployments: [{{provider: anthropic, model: young-1}}]}}
- {{name: vectors, title: Vectors, dimensions: 8, deployments: [{{provider: anthropic, model: vectors-1}}]}}
client_names:
- {{name: anthropic/seen, model: seen}}
aliases:
- {{name: chat_default, models: [seen, tried, old]}}
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/models.yml").write_text(MODELS)
    return tmp_path / "own"


@pytest.fixture
def clock(issuer: FakeIssuer) -> HandClock:
    """Shortly before the old model's end; the issuer lives at the same time."""
    issuer.clock = HandClock(MIDNIGHT - 30)
    return issuer.clock


@pytest.fixture
async def staged(start_gateway: Callable, overlay: Path, clock: HandClock) -> RunningGateway:
    return await start_gateway(env={"AIGW_CATALOG": str(overlay), "ANTHROPIC_API_KEY": "k"}, clock=clock)


async def ask(gateway: RunningGateway, model: str = "", *, own: str = "", family: str = "") -> object:
    metadata = {"model_metadata": {"provider": "gitlab", "identifier": model}} if model else {}
    if own:
        metadata = {"model_metadata": {"provider": "openai", "name": family, "identifier": own}}
    return await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={"inputs": {"input": "why", "selected_text": "x = 1"}, **metadata},
        token=gateway.token(unit_primitives=["explain_code"]),
    )


async def test_a_registered_model_serves_nobody(staged: RunningGateway, provider: ScriptedProvider) -> None:
    answer = await ask(staged, "seen")

    assert answer.status == 422
    assert answer.json()["detail"][0]["msg"] == "This model is registered, but not in use"
    assert provider.requests == []


async def test_a_registered_model_serves_nobody_who_calls_it_as_its_provider_does(
    staged: RunningGateway, provider: ScriptedProvider
) -> None:
    answer = await ask(staged, own="anthropic/seen-1")

    assert (answer.status, answer.json()["detail"][0]["msg"]) == (422, "This model is registered, but not in use")
    assert provider.requests == []


async def test_a_model_that_is_called_as_its_provider_does_is_booked_as_the_catalogue_does(
    staged: RunningGateway,
) -> None:
    assert (await ask(staged, own="anthropic/tried-1", family="gpt")).status == 200

    assert [(each["model"], each["upstream_model"]) for each in staged.usage()] == [("tried", "tried-1")]


async def test_a_call_costs_what_holds_on_its_day(
    start_gateway: Callable, overlay: Path, clock: HandClock, provider: ScriptedProvider
) -> None:
    prices = f'{{as_of: 2027-01-01, input: "1", output: "1", later: [{{since: {DAY}, input: "2", output: "2"}}]}}'
    let_by = "proxy_models:\n- {name: anthropic, prefixes: [young]}\n"
    (overlay / "models.yml").write_text(MODELS.replace("title: Young,", f"title: Young, prices: {prices},") + let_by)
    env = {"AIGW_CATALOG": str(overlay), "ANTHROPIC_API_KEY": "k"}
    gateway = await start_gateway(env=env, clock=clock)
    provider.answer_with(text="fine", input_tokens=1_000_000, output_tokens=0)

    async def ask_both_ways() -> None:
        assert (await ask(gateway, "young")).status == 200
        asked = {"model": "young-1", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
        headers = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
        relayed = await gateway.post("/v1/proxy/anthropic/v1/messages", json=asked, token=token, headers=headers)
        assert relayed.status == 200, relayed

    await ask_both_ways()
    clock.advance(60)
    await ask_both_ways()

    assert [(float(each["cost_usd"]), each["price_as_of"]) for each in gateway.usage()] == [
        (1.0, "2027-01-01"), (1.0, "2027-01-01"), (2.0, DAY), (2.0, DAY),
    ]  # fmt: skip


async def test_a_staging_model_serves_whoever_asks_for_it_by_name_and_is_offered_to_nobody(
    staged: RunningGateway,
) -> None:
    answer = await ask(staged, "tried")
    offered = await staged.get("/v1/models/definitions")

    assert (answer.status, answer.header("x-aigw-model")) == (200, "anthropic/tried-1")
    assert not {"seen", "tried"} & {each["identifier"] for each in offered.json()["models"]}
    assert "tried" not in json.dumps(offered.json())


async def test_a_clients_own_name_of_a_registered_model_stays_good(staged: RunningGateway, overlay: Path) -> None:
    file = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
    body = {"prompt_version": 1, "current_file": file, "model_provider": "anthropic", "model_name": "seen"}

    answer = await staged.post("/v2/code/completions", json=body, token=staged.token(unit_primitives=["complete_code"]))

    assert (answer.status, answer.header("x-aigw-model")) == (200, "anthropic/old-1")


async def test_an_alias_passes_over_models_that_are_not_in_use(staged: RunningGateway) -> None:
    answer = await ask(staged)

    assert answer.header("x-aigw-model") == "anthropic/old-1"


async def test_a_deprecated_model_serves_until_its_day_and_says_when(staged: RunningGateway, clock: HandClock) -> None:
    clock.advance(29)

    answers = [await ask(staged, "old"), await ask(staged)]

    for answer in answers:
        assert (answer.status, answer.header("x-aigw-model")) == (200, "anthropic/old-1")
        assert answer.header("sunset") == "Fri, 05 Mar 2027 00:00:00 GMT"
        assert answer.header("deprecation") == "@1798761600"
    told = [line for line in staged.log.lines if line.get("message") == "a deprecated model is in use"]
    assert [(line["model"], line["ends"], line["successor"]) for line in told] == [("old", DAY, "young")]


async def test_from_its_day_on_the_successor_answers_under_the_old_name(
    staged: RunningGateway, clock: HandClock
) -> None:
    await ask(staged, "old")
    clock.advance(30)

    for answer in (await ask(staged, "old"), await ask(staged)):
        assert (answer.status, answer.header("x-aigw-model")) == (200, "anthropic/young-1")
        assert answer.header("sunset") is None


async def test_who_asks_for_a_model_that_has_ended_is_told_of_once_in_the_log(
    staged: RunningGateway, clock: HandClock
) -> None:
    clock.advance(30)

    await ask(staged, "old")
    await ask(staged, "old")

    told = [line for line in staged.log.lines if line.get("message") == "a model that has ended is asked for"]
    assert [(line["model"], line["ends"], line["successor"]) for line in told] == [("old", DAY, "young")]


async def test_a_clock_that_is_set_back_brings_the_old_model_back(staged: RunningGateway, clock: HandClock) -> None:
    clock.jump(3600)
    ahead = await ask(staged, "old")
    clock.jump(-3600)

    answer = await ask(staged, "old")

    assert (ahead.header("x-aigw-model"), answer.header("x-aigw-model")) == ("anthropic/young-1", "anthropic/old-1")


async def test_a_successor_without_credentials_leaves_the_old_model_in_place(
    start_gateway: Callable, overlay: Path, clock: HandClock
) -> None:
    text = MODELS.replace(
        "{provider: anthropic, model: young-1}", "{provider: anthropic, model: y, key_env: NO_API_KEY}"
    )
    (overlay / "models.yml").write_text(text)
    clock.advance(30)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay), "ANTHROPIC_API_KEY": "k"}, clock=clock)

    answer = await ask(gateway, "old")

    assert (answer.status, answer.header("x-aigw-model")) == (200, "anthropic/old-1")


async def test_a_deprecated_model_stands_in_the_definitions_with_its_date(staged: RunningGateway) -> None:
    told = (await staged.get("/v1/models/definitions")).json()

    end = {"deprecation_date": DAY, "removal_version": "20.1"}
    (old,) = [each for each in told["models"] if each["identifier"] == "old"]
    assert old["deprecation"] == end
    for row in told["unit_primitives"]:
        if "old" in row["selectable_models"]:
            assert {"identifier": "old", **end} in row["deprecated_models"]


async def test_a_model_that_makes_vectors_is_not_asked_for_an_answer(
    staged: RunningGateway, provider: ScriptedProvider
) -> None:
    answer = await ask(staged, "vectors")

    assert answer.status == 422
    assert answer.json()["detail"][0]["msg"] == "This model lacks chat"
    assert provider.requests == []


async def test_a_model_that_fills_in_alone_completes_code_and_does_nothing_else(
    start_gateway: Callable, overlay: Path, provider: ScriptedProvider
) -> None:
    text = (
        "models:\n- {name: filler, title: Filler, families: [codestral], capabilities: [stream, fill_in],"
        " deployments: [{provider: openai, model: filler-1, text_completions: true}]}\n"
        "aliases:\n- {name: completions_default, models: [filler]}\n"
    )
    (overlay / "models.yml").write_text(text)
    env = {"AIGW_CATALOG": str(overlay), "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": provider.url}
    gateway = await start_gateway(env=env)
    file = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
    metadata = {"model_metadata": {"provider": "gitlab", "identifier": "filler"}}
    token = gateway.token(unit_primitives=["complete_code", "generate_code"])

    completed = await gateway.post("/v2/code/completions", json={"current_file": file}, token=token)
    as_prompt = await gateway.post(
        "/v1/prompts/code_suggestions%2Fcompletions", json={"inputs": {"prefix": "x"}, **metadata}, token=token
    )
    generation = {"type": "code_editor_generation", "payload": {**file, "language_identifier": "python"}}
    generated = await gateway.post(
        "/v3/code/completions", json={"prompt_components": [generation], **metadata}, token=token
    )

    assert (completed.status, completed.header("x-aigw-model")) == (200, "openai/filler-1")
    assert as_prompt.status == 200
    assert generated.status == 422
    assert generated.json()["detail"][0]["msg"] == "This model lacks chat"
    assert [request.path for request in provider.requests] == ["/v1/completions"] * 2
