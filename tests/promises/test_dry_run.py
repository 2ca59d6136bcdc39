"""Dry runs: an operator sees every decision about a request, and nothing is sent or counted."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway, gitlab_headers
from tests.support.http_client import Answer

from torana.cli import main

TOKEN = "0123456789abcdef-operator"
HEADERS = {"X-Torana-Dry-Run": "true", "X-Torana-Operator-Token": TOKEN}
EXPLAIN = "/v1/prompts/chat/explain_code"
BODY = {"inputs": {"input": "why", "selected_text": "x = 1"}}
LIMITS = "- {name: calm, limit: 2 requests per minute per user}\n"


@pytest.fixture
async def gateway(start_gateway: StartGateway, tmp_path: Path) -> RunningGateway:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/limits.yml").write_text(LIMITS)
    return await start_gateway(env={"AIGW_OPERATOR_TOKEN": TOKEN, "AIGW_CATALOG": str(tmp_path / "own")})


async def test_the_headers_of_the_how_to_are_enough(gateway: RunningGateway) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/see-why.md").read_text()
    (command,) = re.findall(r"^\$ curl .*?^```", page, re.MULTILINE | re.DOTALL)
    sent = gitlab_headers(gateway.token(unit_primitives=["explain_code"])) | HEADERS

    named = re.findall(r"""-H ['"]([\w-]+): """, command)
    answer = await gateway.post(EXPLAIN, json=BODY, headers={name: sent[name] for name in named})

    assert (answer.status, answer.json()["route"]) == (200, "/v1/prompts/{tail}")


async def run(
    gateway: RunningGateway,
    path: str = EXPLAIN,
    body: Any = BODY,
    scopes: tuple[str, ...] = ("explain_code",),
    **more: str,
) -> Answer:
    token = gateway.token(unit_primitives=scopes)
    return await gateway.post(path, json=body, token=token, headers={**HEADERS, **more})


async def test_every_decision_is_told_and_no_model_is_called(gateway: RunningGateway) -> None:
    answer = await run(gateway)

    told = answer.json()
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert told["access"]["unit_primitives"] == ["explain_code"]
    assert (told["prompt"]["id"], told["prompt"]["version"]) == ("chat/explain_code", "1.0.0")
    assert (told["model"]["name"], told["model"]["stage"]) == ("claude_sonnet_4_6", "production")
    assert told["sent_to"] == "anthropic/claude-sonnet-4-6"
    assert told["sent"]["roles"] == ["system", "user"]
    assert told["limits"] == ["calm: 2 requests per minute per user, 2 left"]
    assert told["token"] == {"allowed": True}
    assert gateway.provider.requests == []


async def test_the_cost_is_estimated_from_the_models_price(gateway: RunningGateway) -> None:
    cost = (await run(gateway)).json()["cost"]

    at_most = cost["estimated_input_tokens"] * 3 + cost["output_tokens_at_most"] * 15
    assert float(cost["usd_at_most"]) == pytest.approx(at_most / 1_000_000)
    assert cost["prices_as_of"] == "2026-11-29"


@pytest.mark.parametrize(
    ("metadata", "chosen", "why"),
    [
        (
            {"identifier": "claude_sonnet_4_20250514"},
            "claude_sonnet_4_6",
            "identifier claude_sonnet_4_20250514, client name gitlab/claude_sonnet_4_20250514 -> chat_default",
        ),
        (
            {"feature_setting": "duo_chat_explain_code"},
            "claude_haiku_4_5",
            "AIGW_MODEL_SELECTION__DEFAULT_MODELS for feature setting duo_chat_explain_code",
        ),
    ],
)
async def test_what_chose_the_model_is_told(
    start_gateway: StartGateway, metadata: dict[str, str], chosen: str, why: str
) -> None:
    defaults = '{"duo_chat_explain_code": "claude_haiku_4_5"}'
    env = {"AIGW_OPERATOR_TOKEN": TOKEN, "AIGW_MODEL_SELECTION__DEFAULT_MODELS": defaults}
    gateway = await start_gateway(env=env)
    asked = {**BODY, "model_metadata": {"provider": "gitlab", **metadata}}

    told = (await run(gateway, body=asked)).json()["model"]
    answer = await gateway.post(EXPLAIN, json=asked, token=gateway.token(unit_primitives=["explain_code"]))

    assert (told["name"], told["why"]) == (chosen, why)
    assert f"{answer.header('x-aigw-model')}".startswith("anthropic/" + chosen.replace("_", "-"))


async def test_a_dry_run_takes_nothing_of_a_limit_and_leaves_no_usage(gateway: RunningGateway) -> None:
    for _ in range(3):
        assert (await run(gateway)).json()["limits"] == ["calm: 2 requests per minute per user, 2 left"]
    before = (await gateway.monitoring("/metrics")).text
    await gateway.post(EXPLAIN, json=BODY, token=gateway.token(unit_primitives=["explain_code"]))
    after = await run(gateway)

    assert after.json()["limits"] == ["calm: 2 requests per minute per user, 1 left"]
    assert not [line for line in before.splitlines() if line.startswith("model_inferences_total")]


async def test_a_dry_run_is_in_no_metric_of_deployments(gateway: RunningGateway) -> None:
    await run(gateway)

    assert "torana_tries_total{" not in (await gateway.monitoring("/metrics")).text


async def test_what_is_left_is_told_as_the_operator_writes_it(start_gateway: StartGateway, tmp_path: Path) -> None:
    limits = "- {name: flow, limit: 60 requests per minute, burst: 10}\n- {name: spend, limit: 5 USD per day}\n"
    (tmp_path / "limits.yml").write_text(limits)
    gateway = await start_gateway(env={"AIGW_OPERATOR_TOKEN": TOKEN, "AIGW_CATALOG": str(tmp_path)})

    before = (await run(gateway)).json()["limits"]
    await gateway.post(EXPLAIN, json=BODY, token=gateway.token(unit_primitives=["explain_code"]))
    after = (await run(gateway)).json()["limits"]

    assert before == ["flow: 60 requests per minute, 10 left", "spend: 5 USD per day, 5 USD left"]
    assert after[0] == "flow: 60 requests per minute, 9 left"
    assert re.fullmatch(r"spend: 5 USD per day, 4\.99\d+ USD left", after[1])


async def test_what_is_left_of_a_limit_for_each_feature_is_that_of_the_endpoint_itself(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "limits.yml").write_text("- {name: even, limit: 9 requests per minute per feature}\n")
    gateway = await start_gateway(env={"AIGW_OPERATOR_TOKEN": TOKEN, "AIGW_CATALOG": str(tmp_path)})
    code = {"current_file": {"file_name": "a.py", "content_above_cursor": "x = ", "content_below_cursor": ""}}
    path = "/v2/code/completions"
    answered = await gateway.post(path, json=code, token=gateway.token(unit_primitives=["complete_code"]))

    told = (await run(gateway, path, code, ("complete_code",))).json()

    assert answered.status == 200
    assert told["limits"] == ["even: 9 requests per minute per feature, 8 left"]


async def test_a_caller_who_may_not_is_shown_what_is_missing_and_the_rest_as_well(gateway: RunningGateway) -> None:
    told = (await run(gateway, scopes=("duo_chat",))).json()

    assert told["token"]["allowed"] is False
    assert (told["token"]["code"], told["token"]["missing"]) == ("unit_primitive_missing", "explain_code")
    assert told["model"]["name"] == "claude_sonnet_4_6"


async def test_a_request_that_would_be_refused_says_so(gateway: RunningGateway) -> None:
    answer = await run(gateway, body={"inputs": {}})

    assert answer.status == 200
    assert (answer.json()["refused"]["status"], answer.json()["refused"]["code"]) == (422, "request_invalid")


HI = [{"role": "user", "content": "Hi"}]
FILE = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
SUMMARY = {"prompt_components": [{"type": "summarize_text", "payload": {"content": "x"}}]}
ANY_MODEL = "ai_gateway_model_provider_proxy"
VECTORS = {"model_metadata": {"provider": "gitlab", "identifier": "text_embedding_3_small"}, "contents": ["x"]}
OPUS = {"max_tokens": 9, "messages": HI}


@pytest.mark.parametrize(
    ("path", "body", "scope", "sent_to"),
    [
        ("/v2/code/completions", {"current_file": FILE}, "complete_code", "haiku"),
        ("/v2/chat/agent", {"messages": HI}, "duo_chat", "sonnet"),
        ("/v1/summarize_text", SUMMARY, "summarize_text", "sonnet"),
        ("/v1/embeddings/code_embeddings/search", VECTORS, "generate_embeddings_codebase", "embedding"),
        ("/openai/v1/chat/completions", {"model": "gpt_5_2", "messages": HI, "stream": True}, ANY_MODEL, "gpt-5.2"),
        ("/anthropic/v1/messages", {"model": "claude_opus_4_6", **OPUS, "stream": True}, ANY_MODEL, "opus"),
        ("/v1/proxy/anthropic/v1/messages", {"model": "claude-opus-4-6", **OPUS}, "explain_code", "opus"),
    ],
)
async def test_every_endpoint_that_calls_a_model_makes_dry_runs(
    gateway: RunningGateway, path: str, body: Any, scope: str, sent_to: str
) -> None:
    more = {"X-Gitlab-Unit-Primitive": scope} if "proxy" in path else {}

    answer = await run(gateway, path, body, (scope,), **more)

    assert answer.status == 200
    assert sent_to in answer.json()["sent_to"]
    assert answer.json()["token"] == {"allowed": True}
    assert answer.json()["cost"]["usd_at_most"] != "unknown"
    assert gateway.provider.requests == []


@pytest.mark.parametrize("given", [{}, {"X-Torana-Operator-Token": "wrong"}, {"X-Torana-Operator-Token": TOKEN + "x"}])
async def test_without_the_operators_token_a_dry_run_is_refused(gateway: RunningGateway, given: dict[str, str]) -> None:
    token = gateway.token(unit_primitives=["explain_code"])

    answer = await gateway.post(EXPLAIN, json=BODY, token=token, headers={"X-Torana-Dry-Run": "true", **given})

    assert (answer.status, answer.refusal.code) == (403, "operator_token_required")
    assert gateway.provider.requests == []


async def test_a_gateway_without_the_setting_makes_no_dry_runs(start_gateway: StartGateway) -> None:
    answer = await run(await start_gateway())

    assert (answer.status, answer.refusal.code) == (403, "operator_token_required")


async def test_the_operators_token_is_no_token_of_a_caller(gateway: RunningGateway) -> None:
    assert (await gateway.post(EXPLAIN, json=BODY, headers=HEADERS)).status == 401
    bearer = {"Authorization": f"Bearer {TOKEN}", "X-Gitlab-Authentication-Type": "oidc"}
    assert (await gateway.post(EXPLAIN, json=BODY, headers={**HEADERS, **bearer})).status == 401


async def test_an_endpoint_that_calls_no_model_does_nothing_in_a_dry_run(gateway: RunningGateway) -> None:
    answer = await run(gateway, "/v1/code/user_access_token", {}, ("complete_code",))

    assert (answer.status, answer.refusal.code) == (400, "dry_run_unavailable")
    assert "token" not in answer.json()


async def test_a_dry_run_that_is_switched_off_is_an_ordinary_request(gateway: RunningGateway) -> None:
    answer = await run(gateway, **{"X-Torana-Dry-Run": "false"})

    assert answer.json() == "Hello from the scripted provider."
    assert len(gateway.provider.requests) == 1


async def test_dry_runs_at_the_same_time_do_not_mix(gateway: RunningGateway) -> None:
    scopes = ("explain_code", "fix_code", "write_tests")
    answers = await asyncio.gather(
        *(run(gateway, f"/v1/prompts/chat/{name}", BODY, (name,)) for _ in range(5) for name in scopes)
    )

    assert [answer.json()["prompt"]["id"] for answer in answers] == [
        f"chat/{name}" for _ in range(5) for name in scopes
    ]


async def test_the_command_tells_the_same(
    gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    env = {
        "ANTHROPIC_API_KEY": "k",
        "OPENAI_API_KEY": None,
        "OPENAI_BASE_URL": None,
        "AIGW_CATALOG": str(tmp_path / "own"),
    }

    command = ["explain", "request", "-f", "body.json", "--path", EXPLAIN, "--json"]
    shown = await asyncio.to_thread(CliRunner(env=env).invoke, main, command)
    told = (await run(gateway)).json()

    assert told.pop("token") == {"allowed": True}
    assert told.pop("limits") == ["calm: 2 requests per minute per user, 2 left"]
    found = json.loads(shown.stdout)
    assert found.pop("limits") == ["calm: 2 requests per minute per user"]
    assert found == told


def test_a_short_operator_token_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner(env={"AIGW_OPERATOR_TOKEN": "short"}).invoke(main, ["models", "list"])

    assert result.exit_code == 2
    assert "AIGW_OPERATOR_TOKEN: is too short, expected 16 characters or more" in result.output
