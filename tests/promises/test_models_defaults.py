"""Which model answers by default, and the catalogue shown to administrators (interface 5, contract 11)."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider

from torana.errors import BadSetting

HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"
FILE = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
NONE = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
SCOPES = ("complete_code", "generate_code", "duo_chat")


async def complete(gateway: RunningGateway) -> Answer:
    token = gateway.token(unit_primitives=SCOPES)
    return await gateway.post("/v2/code/completions", json={"current_file": FILE}, token=token)


async def generate(gateway: RunningGateway) -> Answer:
    token = gateway.token(unit_primitives=SCOPES)
    return await gateway.post("/v2/code/generations", json={"current_file": FILE}, token=token)


async def chat(gateway: RunningGateway) -> Answer:
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    return await gateway.post("/v2/chat/agent", json=asked, token=gateway.token(unit_primitives=SCOPES))


async def asked_models(gateway: RunningGateway) -> list[tuple[str, str]]:
    """Path and model of a completion, a generation and a chat."""
    for ask in (complete, generate, chat):
        assert (await ask(gateway)).status == 200
    return [(request.path, request.json()["model"]) for request in gateway.provider.requests]


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
async def test_an_anthropic_key_alone_is_enough(
    start_gateway: StartGateway, provider: ScriptedProvider, base: str
) -> None:
    env = {**NONE, "ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": f"{provider.url}{base}"}
    gateway = await start_gateway(env=env)

    assert await asked_models(gateway) == [("/v1/messages", model) for model in (HAIKU, SONNET, SONNET)]
    assert {request.header("x-api-key") for request in provider.requests} == {"k"}
    assert provider.model_lists == []


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
async def test_the_address_of_a_server_alone_is_enough(
    start_gateway: StartGateway, provider: ScriptedProvider, base: str
) -> None:
    provider.models = ["first-model", "second-model"]
    gateway = await start_gateway(env={**NONE, "OPENAI_BASE_URL": f"{provider.url}{base}"})

    assert await asked_models(gateway) == [("/v1/chat/completions", "first-model")] * 3
    keys = {asked.header("authorization") for asked in (*provider.requests, *provider.model_lists)}
    assert keys == {"Bearer no-key-needed"}
    assert provider.model_lists[0].path == "/v1/models"
    answer = await complete(gateway)
    assert (answer.json()["model"]["engine"], answer.json()["model"]["name"]) == ("openai", "first-model")


async def test_a_servers_list_may_stand_alone(start_gateway: StartGateway, provider: ScriptedProvider) -> None:
    provider.models, provider.lists_bare = ["first-model"], True
    gateway = await start_gateway(env={**NONE, "OPENAI_BASE_URL": provider.url})

    assert await asked_models(gateway) == [("/v1/chat/completions", "first-model")] * 3


async def test_the_operator_names_the_servers_model(start_gateway: StartGateway, provider: ScriptedProvider) -> None:
    gateway = await start_gateway(env={**NONE, "OPENAI_BASE_URL": provider.url, "AIGW_OPENAI_MODEL": "mine"})

    assert await asked_models(gateway) == [("/v1/chat/completions", "mine")] * 3
    assert provider.model_lists == []


@pytest.mark.parametrize("told", [b"[" * 100_000, b'"text"', b'{"data":{}}', b'[{"id":1' + b"0" * 5000 + b"}]"])
async def test_a_list_of_models_that_cannot_be_read_keeps_nobody_waiting(
    start_gateway: StartGateway, provider: ScriptedProvider, told: bytes
) -> None:
    provider.model_list = told
    gateway = await start_gateway(env={**NONE, "OPENAI_BASE_URL": provider.url})

    answer = await complete(gateway)

    assert (answer.status, answer.json()["detail"]) == (503, "Inference failed")


async def test_a_server_without_models_is_a_failing_model_and_not_a_failing_gateway(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    provider.models = []
    gateway = await start_gateway(env={**NONE, "OPENAI_BASE_URL": provider.url})

    answer = await complete(gateway)

    assert (answer.status, answer.json()["detail"]) == (503, "Inference failed")


async def test_anthropic_comes_first_where_both_are_there(gateway: RunningGateway) -> None:
    assert [model for _, model in await asked_models(gateway)] == [HAIKU, SONNET, SONNET]


async def test_without_any_provider_the_demo_answers(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=NONE)

    completion, conversation = await complete(gateway), await chat(gateway)

    assert completion.json()["model"]["engine"] == "demo"
    assert (completion.header("x-torana-demo"), conversation.header("x-torana-demo")) == ("true", "true")
    assert gateway.provider.requests == []


async def test_the_operator_changes_what_models_and_prompts_are_asked_with(start_gateway: StartGateway) -> None:
    of_models = {"claude_sonnet_4_6": {"temperature": 0.7, "max_tokens": 11, "top_k": 3}}
    of_prompts = {"generate_commit_message": {"max_tokens": 99}}
    gateway = await start_gateway(
        env={
            "AIGW_MODEL_SELECTION__MODEL_PARAMS": json.dumps(of_models),
            "AIGW_MODEL_SELECTION__PROMPT_PARAMS": json.dumps(of_prompts),
        }
    )
    token = gateway.token(unit_primitives=["generate_commit_message", "duo_chat"])

    await gateway.post("/v1/prompts/generate_commit_message", json={"inputs": {"diff": "+x"}}, token=token)
    inputs = {"question": "?", "previous_answer": ""}
    await gateway.post("/v1/prompts/categorize_question", json={"inputs": inputs}, token=token)

    ordered, usual = (request.json() for request in gateway.provider.requests)
    assert (ordered["max_tokens"], ordered["top_k"]) == (99, 3)
    assert usual["max_tokens"] > 11  # the prompt file's
    assert usual["top_k"] == 3


async def test_the_operator_changes_a_features_default(start_gateway: StartGateway) -> None:
    chosen = '{"duo_chat": "claude_opus_4_6", "code_completions": "claude_sonnet_4_6"}'
    gateway = await start_gateway(env={"AIGW_MODEL_SELECTION__DEFAULT_MODELS": chosen})

    models = [model for _, model in await asked_models(gateway)]

    assert models == [SONNET, SONNET, "claude-opus-4-6"]


@pytest.mark.parametrize("prompt", ["chat/explain_code", "chat/issue_reader", "generate_commit_message"])
async def test_a_prompt_whose_request_names_no_model_has_its_features_default(
    start_gateway: StartGateway, prompt: str
) -> None:
    chosen = dict.fromkeys(("duo_chat_explain_code", "duo_chat", "generate_commit_message"), "claude_opus_4_6")
    gateway = await start_gateway(env={"AIGW_MODEL_SELECTION__DEFAULT_MODELS": json.dumps(chosen)})
    token = gateway.token(unit_primitives=["explain_code", "ask_issue", "generate_commit_message", "fix_code"])
    inputs = dict.fromkeys(("input", "selected_text", "suggestions", "diff"), "x")

    answers = [
        await gateway.post(f"/v1/prompts/{each}", json={"inputs": inputs, **metadata}, token=token)
        for each in (prompt, "chat/fix_code")
        for metadata in ({}, {"model_metadata": {"provider": "gitlab", "identifier": ""}})
    ]

    models = [answer.header("x-aigw-model") for answer in answers]
    assert models == ["anthropic/claude-opus-4-6"] * 2 + [f"anthropic/{SONNET}"] * 2


@pytest.mark.parametrize(
    ("identifier", "model"),
    [
        ("claude_sonnet_4_20250514", SONNET),
        ("claude_haiku_4_5_20251001", HAIKU),
        ("claude_haiku_4_5_20251001_vertex", SONNET),  # no such provider here: the default answers
        ("gpt_5_codex", "gpt-5.2-2025-12-11"),
    ],
)
async def test_what_was_chosen_at_gitlabs_own_gateway_goes_on_answering(
    gateway: RunningGateway, identifier: str, model: str
) -> None:
    token = gateway.token(unit_primitives=["duo_chat", "explain_code"])
    metadata = {"provider": "gitlab", "identifier": identifier, "feature_setting": "duo_chat"}
    inputs = {"input": "why", "selected_text": "x = 1"}

    asked = [
        ("/v2/chat/agent", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/prompts/chat/explain_code", {"inputs": inputs}),
    ]
    answers = [await gateway.post(path, json={**body, "model_metadata": metadata}, token=token) for path, body in asked]

    told = [(answer.status, (answer.header("x-aigw-model") or "").partition("/")[2]) for answer in answers]
    assert told == [(200, model)] * 2


async def test_so_does_a_completion_model_that_was_chosen_there(gateway: RunningGateway) -> None:
    chosen = {"model_provider": "gitlab", "model_name": "codestral_2508_vertex"}

    answer = await gateway.post(
        "/v2/code/completions", json={"current_file": FILE} | chosen, token=gateway.token(unit_primitives=SCOPES)
    )

    assert (answer.status, answer.header("x-aigw-model")) == (200, f"anthropic/{HAIKU}")


async def test_an_overlay_moves_a_default_alias(start_gateway: StartGateway, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "models.yml").write_text("aliases:\n- {name: completions_default, models: [gpt_5_2]}\n")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    assert (await asked_models(gateway))[0] == ("/v1/chat/completions", "gpt-5.2-2025-12-11")


async def test_an_overlay_marks_a_deployment_as_capable_of_text_completions(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "models.yml").write_text(
        "models:\n- {name: coder, title: Coder, families: [codestral],"
        " deployments: [{provider: openai, model: coder-1, text_completions: true}]}\n"
        "aliases:\n- {name: completions_default, models: [coder]}\n"
    )
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    gateway.provider.answer_with(text="oo()")

    answer = await complete(gateway)

    (request,) = gateway.provider.requests
    assert (request.path, request.json()["prompt"]) == ("/v1/completions", "[SUFFIX][PREFIX]def f")
    assert (answer.json()["model"]["engine"], answer.json()["choices"][0]["text"]) == ("openai", "oo()")


# --- GET /v1/models/definitions ---


async def definitions(gateway: RunningGateway, path: str = "/v1/models/definitions") -> dict[str, Any]:
    answer = await gateway.get(path)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("path", ["/v1/models/definitions", "/v1/models%2Fdefinitions", "/ai/v1/models%2Fdefinitions"])
async def test_the_definitions_are_open_and_answer_under_each_spelling(gateway: RunningGateway, path: str) -> None:
    assert (await definitions(gateway, path)).keys() == {"models", "unit_primitives"}


@pytest.mark.parametrize("env", [{}, {**NONE, "ANTHROPIC_API_KEY": "k"}, {**NONE, "OPENAI_API_KEY": "k"}, NONE])
async def test_every_identifier_that_is_named_exists(start_gateway: StartGateway, env: dict[str, str]) -> None:
    found = await definitions(await start_gateway(env=env))

    known = {model["identifier"] for model in found["models"]}
    for row in found["unit_primitives"]:
        named = {row["default_model"], *row["default_models"], *row["selectable_models"], *row["beta_models"]}
        named |= {old["identifier"] for old in row["deprecated_models"]}
        assert named <= known, row["feature_setting"]
        assert row["default_model"] in row["selectable_models"]


async def test_each_feature_setting_has_the_members_of_the_contract(gateway: RunningGateway) -> None:
    found = await definitions(gateway)

    rows = {row["feature_setting"]: row for row in found["unit_primitives"]}
    assert {"duo_chat", "code_generations", "code_completions", "duo_agent_platform"} <= rows.keys()
    assert rows["code_completions"]["default_model"] == "claude_haiku_4_5"
    assert rows["code_completions"]["unit_primitives"] == ["complete_code"]
    members = {
        "feature_setting", "default_model", "default_models", "models_for_tags", "models_for_size_preference",
        "selectable_models", "beta_models", "deprecated_models", "dev", "unit_primitives",
    }  # fmt: skip
    assert {tuple(sorted(row)) for row in rows.values()} == {tuple(sorted(members))}


async def test_a_models_name_says_its_provider(gateway: RunningGateway) -> None:
    models = {model["identifier"]: model for model in (await definitions(gateway))["models"]}

    haiku = models["claude_haiku_4_5"]
    assert (haiku["name"], haiku["provider"]) == ("Claude Haiku 4.5 - Anthropic", "Anthropic")


async def test_only_models_that_would_answer_are_offered(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={**NONE, "ANTHROPIC_API_KEY": "k"})

    providers = {model.get("provider") for model in (await definitions(gateway))["models"]}

    assert providers == {"Anthropic"}


OFFERED = """\
models:
- {name: new, title: New, stage: staging, deployments: [{provider: anthropic, model: new-1}]}
- {name: plain, title: Plain, vendor: Acme, is_beta: true, deployments: [{provider: anthropic, model: plain-1}]}
aliases:
- {name: either, models: [claude_sonnet_4_6, demo, gpt_5_2]}
feature_settings:
- name: duo_chat
  default: either
  unit_primitives: [ask_build]
  dev: [new]
  tags: {quick: claude_haiku_4_5, both: [gpt_5_2, new]}
  size_preference: {small: new, large: claude_opus_4_6}
- {name: picky, default: either, selectable: [gpt_5_2], unit_primitives: [summarize_text]}
"""


@pytest.fixture
async def offering(start_gateway: StartGateway, tmp_path: Path) -> RunningGateway:
    (tmp_path / "overlay/features").mkdir(parents=True)
    (tmp_path / "overlay/models.yml").write_text(OFFERED)
    feature = "unit_primitive: summarize_text\ninputs: {content: {type: string}}\nprompt: summarize_text\n"
    (tmp_path / "overlay/features/picky.yml").write_text(
        feature + "model: either\nfeature_setting: picky\nrequires: [tools]\n"
    )
    return await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})


async def rows_of(gateway: RunningGateway, flags: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Feature settings by name, models by identifier."""
    headers = {"X-Gitlab-Enabled-Feature-Flags": flags} if flags else {}
    found = (await gateway.get("/v1/models/definitions", headers=headers)).json()
    return (
        {row["feature_setting"]: row for row in found["unit_primitives"]},
        {model["identifier"]: model for model in found["models"]},
    )


async def test_the_first_of_several_defaults_is_the_default(offering: RunningGateway) -> None:
    settings, models = await rows_of(offering)

    row = settings["duo_chat"]
    assert (row["default_model"], row["default_models"]) == ("claude_sonnet_4_6", ["claude_sonnet_4_6", "gpt_5_2"])
    assert not [name for name in models if name.startswith("__default__")]


async def test_with_the_flag_several_defaults_become_one_that_stands_for_all(offering: RunningGateway) -> None:
    settings, models = await rows_of(offering, "other, ai_gateway_multi_default_models")

    row = settings["duo_chat"]
    assert (row["default_model"], row["selectable_models"][0]) == ("__default__duo_chat",) * 2
    assert models["__default__duo_chat"]["name"] == "Default (Claude Sonnet 4.6, GPT-5.2)"
    assert settings["code_completions"]["default_model"] == "claude_haiku_4_5"


async def test_a_name_that_stands_for_a_settings_defaults_is_answered_by_them(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MODEL_SELECTION__DEFAULT_MODELS": '{"duo_chat": "claude_opus_4_6"}'})
    used = []
    for setting in ("duo_chat", "code_completions"):
        metadata = {
            "provider": "gitlab",
            "identifier": f"__default__{setting}",
            "feature_setting": "categorize_question",
        }
        asked = {"messages": [{"role": "user", "content": "Hi"}], "model_metadata": metadata}
        answer = await gateway.post("/v2/chat/agent", json=asked, token=gateway.token(unit_primitives=SCOPES))
        used.append(answer.header("x-aigw-model"))

    assert used == ["anthropic/claude-opus-4-6", f"anthropic/{HAIKU}"]


async def test_models_for_developers_tags_and_sizes_are_handed_on_where_they_exist(offering: RunningGateway) -> None:
    settings, models = await rows_of(offering)

    row = settings["duo_chat"]
    assert row["dev"] == {"selectable_models": ["new"]}
    assert "new" in models
    assert "new" not in row["selectable_models"]
    assert row["models_for_tags"] == {"quick": "claude_haiku_4_5", "both": ["gpt_5_2"]}
    assert row["models_for_size_preference"] == {"large": "claude_opus_4_6"}
    assert row["beta_models"] == ["plain"]


async def test_a_model_that_fills_in_alone_is_offered_for_completions_alone(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "models.yml").write_text(
        "models:\n- {name: filler, title: Filler, capabilities: [stream, fill_in],"
        " deployments: [{provider: anthropic, model: filler-1}]}\n"
    )
    settings, _ = await rows_of(await start_gateway(env={"AIGW_CATALOG": str(tmp_path)}))

    offering = {name for name, row in settings.items() if "filler" in row["selectable_models"]}
    assert offering == {"code_completions"}


async def test_only_models_that_can_do_what_a_settings_features_ask_for_are_offered(offering: RunningGateway) -> None:
    settings, _ = await rows_of(offering)

    assert settings["picky"]["selectable_models"] == ["claude_sonnet_4_6", "gpt_5_2"]
    assert "plain" in settings["duo_chat"]["selectable_models"]


@pytest.mark.parametrize("flags", ["", "ai_gateway_multi_default_models"])
async def test_every_identifier_that_an_overlay_names_exists(offering: RunningGateway, flags: str) -> None:
    settings, models = await rows_of(offering, flags)

    for row in settings.values():
        chosen = [*row["models_for_tags"].values(), *row["models_for_size_preference"].values()]
        named = {name for value in chosen for name in ([value] if isinstance(value, str) else value)}
        named |= {row["default_model"], *row["default_models"], *row["selectable_models"], *row["beta_models"]}
        named |= {old["identifier"] for old in row["deprecated_models"]}
        named |= set((row["dev"] or {}).get("selectable_models", ()))
        assert named <= models.keys(), row["feature_setting"]


@pytest.mark.parametrize(
    ("name", "hint"), [("claude_opus_4_7x", "did you mean claude_opus_4_"), ("zzz", "expected the name of a known one")]
)
async def test_a_default_that_leads_nowhere_stops_the_start(start_gateway: StartGateway, name: str, hint: str) -> None:
    with pytest.raises(BadSetting) as raised:
        await start_gateway(env={"AIGW_MODEL_SELECTION__DEFAULT_MODELS": json.dumps({"duo_chat": name})})

    told = f"AIGW_MODEL_SELECTION__DEFAULT_MODELS: duo_chat leads to {name!r}, which is no model in use, {hint}"
    assert str(raised.value).startswith(told)


async def test_a_reload_that_takes_the_default_away_is_refused(start_gateway: StartGateway, tmp_path: Path) -> None:
    overlay = tmp_path / "catalogue"
    overlay.mkdir()
    record = "models:\n- {name: ours, title: Ours, stage: %s, deployments: [{provider: anthropic, model: m}]}\n"
    (overlay / "models.yml").write_text(record % "production")
    chosen = {"AIGW_MODEL_SELECTION__DEFAULT_MODELS": '{"duo_chat": "ours"}'}
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay), **chosen})
    (overlay / "models.yml").write_text(record % "registered")

    assert not await gateway.running.reloader.reload()

    line = await gateway.log.find(message="reload refused, the old catalogue stays")
    assert line["problem"].startswith("AIGW_MODEL_SELECTION__DEFAULT_MODELS: duo_chat leads to 'ours'")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("AIGW_MODEL_SELECTION__DEFAULT_MODELS", {"duo_chatt": "claude_sonnet_4_6"}, "feature setting 'duo_chatt'"),
        ("AIGW_MODEL_SELECTION__MODEL_PARAMS", {"nobody": {}}, "model 'nobody'"),
        ("AIGW_MODEL_SELECTION__PROMPT_PARAMS", {"nothing": {}}, "prompt 'nothing'"),
        ("AIGW_DEFAULT_PROMPTS", {"chat/old": "base"}, "prompt 'chat/old'"),
        ("AIGW_DEFAULT_PROMPTS", {"chat/issue_reader": "mistrall"}, "variant of chat/issue_reader 'mistrall'"),
    ],
)
async def test_what_settings_name_in_vain_is_warned_of(
    start_gateway: StartGateway, setting: str, value: Any, told: str
) -> None:
    gateway = await start_gateway(env={setting: json.dumps(value)})

    (line,) = [line for line in gateway.log.lines if line["message"].startswith(f"{setting}: ")]
    assert (line["level"], f"{setting}: there is no {told}, ignored; " in line["message"]) == ("warning", True)
