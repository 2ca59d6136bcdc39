"""An OpenAI-compatible vendor is a row in providers.yml and a record in models.yml; no Python."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import StartGateway
from tests.support.provider import ScriptedProvider

MODELS = """\
models:
- name: acme_large
  title: Acme Large
  vendor: Acme
  deployments: [{provider: acme, model: acme-large-1}]
aliases:
- {name: chat_default, models: [acme_large, demo]}
"""


def write_overlay(folder: Path, base_url: str, key_line: str) -> Path:
    folder.mkdir()
    (folder / "providers.yml").write_text(
        f"- name: acme\n  title: Acme\n  dialect: chat_completions\n  base_url: {base_url}\n{key_line}"
    )
    (folder / "models.yml").write_text(MODELS)
    return folder


async def ask(gateway) -> object:
    return await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={"inputs": {"input": "why", "selected_text": "x = 1"}},
        token=gateway.token(unit_primitives=["explain_code"]),
    )


async def test_a_vendor_is_called_with_the_key_that_its_row_names(
    start_gateway: Callable, provider: ScriptedProvider, tmp_path: Path
) -> None:
    folder = write_overlay(tmp_path / "overlay", f"{provider.url}/acme", "  key_env: ACME_API_KEY\n")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder), "ACME_API_KEY": "acme-secret-key"})

    answer = await ask(gateway)

    assert answer.status == 200
    assert answer.header("x-aigw-model") == "acme/acme-large-1"
    (sent,) = provider.requests
    assert sent.path == "/acme/v1/chat/completions"
    assert (b"Authorization", b"Bearer acme-secret-key") in sent.headers


async def test_a_server_of_the_operators_own_is_there_where_a_deployment_names_its_address(
    start_gateway: Callable, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """As two of them behind one model: no address in the environment could name both."""
    text = "aliases:\n- {name: chat_default, models: [own, demo]}\nmodels:\n- {name: own, title: Own, deployments: ["
    (tmp_path / "models.yml").write_text(
        f"{text}{{provider: ollama, model: qwen3, base_url: '{provider.url}/one'}}]}}\n"
    )
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path)})

    answer = await ask(gateway)

    assert (answer.status, answer.header("x-aigw-model")) == (200, "ollama/qwen3")
    assert [sent.path for sent in provider.requests] == ["/one/v1/chat/completions"]


async def test_a_vendor_without_its_key_is_passed_over(
    start_gateway: Callable, provider: ScriptedProvider, tmp_path: Path
) -> None:
    folder = write_overlay(tmp_path / "overlay", f"{provider.url}/acme", "  key_env: ACME_API_KEY\n")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})

    answer = await ask(gateway)

    assert answer.header("x-torana-demo") == "true"
    assert provider.requests == []


async def test_a_server_that_needs_no_key_names_none(
    start_gateway: Callable, provider: ScriptedProvider, tmp_path: Path
) -> None:
    gateway = await start_gateway(env={"AIGW_CATALOG": str(write_overlay(tmp_path / "overlay", provider.url, ""))})

    answer = await ask(gateway)

    assert (answer.status, answer.header("x-aigw-model")) == (200, "acme/acme-large-1")


async def test_a_path_of_its_own_serves_what_clients_ask_behind_it_too(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    row = "  paths: {chat: /chat/v2}\n"
    folder = write_overlay(tmp_path / "overlay", provider.url, row)
    rows = folder / "providers.yml"
    rows.write_text(rows.read_text().replace("chat_completions", "messages"))
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})
    body = {"model": "acme_large", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}

    await gateway.post(
        "/anthropic/v1/messages?beta=true",
        json=body,
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    assert [sent.target for sent in provider.requests] == [b"/chat/v2?beta=true"]


async def test_a_deployment_may_bring_its_own_address_and_key(
    start_gateway: Callable, provider: ScriptedProvider, tmp_path: Path
) -> None:
    folder = write_overlay(tmp_path / "overlay", "http://nobody.invalid", "  key_env: ACME_API_KEY\n")
    own = f"{{provider: acme, model: acme-large-1, region: eu, base_url: {provider.url}/eu, key_env: EU_API_KEY}}"
    (folder / "models.yml").write_text(MODELS.replace("{provider: acme, model: acme-large-1}", own))
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder), "EU_API_KEY": "eu-secret-key"})

    answer = await ask(gateway)

    assert (answer.status, answer.header("x-aigw-model")) == (200, "acme/acme-large-1")
    (sent,) = provider.requests
    assert sent.path == "/eu/v1/chat/completions"
    assert (b"Authorization", b"Bearer eu-secret-key") in sent.headers


@pytest.mark.parametrize(
    ("line", "env", "path", "greeting"),
    [
        ("dialect: messages", {}, "/acme/v1/messages", ("x-api-key", "no-key-needed")),
        ("dialect: messages, auth: none", {}, "/acme/v1/messages", None),
        ("dialect: messages, auth: none, paths: {chat: /v2/v1/messages}", {}, "/acme/v2/v1/messages", None),
        ("dialect: messages, auth: api-key, key_env: A_API_KEY", {}, "/acme/v1/messages", ("api-key", "acme-key")),
        ("dialect: generate_content, auth: none", {}, "/acme/v1beta/models/acme-large-1:generateContent", None),
        (
            "dialect: generate_content, auth: bearer, key_env: A_API_KEY",
            {},
            "/acme/v1beta/models/acme-large-1:generateContent",
            ("authorization", "Bearer acme-key"),
        ),
        ("dialect: converse, auth: none", {}, "/acme/model/acme-large-1/converse", None),
        (
            "dialect: converse, auth: bearer, key_env: A_API_KEY",
            {},
            "/acme/model/acme-large-1/converse",
            ("authorization", "Bearer acme-key"),
        ),
        (
            "dialect: converse",
            {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-token", "AWS_REGION_NAME": "eu-west-1"},
            "/acme/model/acme-large-1/converse",
            ("authorization", "Bearer bedrock-token"),
        ),
    ],
)
async def test_a_row_may_speak_any_dialect_and_tell_who_calls_in_any_way(
    start_gateway: Callable,
    provider: ScriptedProvider,
    tmp_path: Path,
    line: str,
    env: dict[str, str],
    path: str,
    greeting: tuple[str, str] | None,
) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "providers.yml").write_text(f"- {{name: acme, {line}, base_url: '{provider.url}/acme'}}\n")
    (folder / "models.yml").write_text(MODELS)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder), "A_API_KEY": "acme-key", **env})

    answer = await ask(gateway)

    assert (answer.status, answer.header("x-aigw-model")) == (200, "acme/acme-large-1")
    (sent,) = provider.requests
    assert sent.path == path
    told = {name: sent.header(name) for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key")}
    assert {name: value for name, value in told.items() if value is not None} == (dict([greeting]) if greeting else {})


@pytest.mark.parametrize("dialect", ["messages", "chat_completions", "responses", "generate_content", "converse"])
async def test_a_rows_own_headers_replace_ours_in_whatever_case(
    start_gateway: Callable, provider: ScriptedProvider, tmp_path: Path, dialect: str
) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    own = "headers: {authorization: Basic eDp5, CONTENT-TYPE: application/json, X-Own: a}"
    row = f"- {{name: acme, dialect: {dialect}, auth: bearer, base_url: '{provider.url}', {own}}}\n"
    (folder / "providers.yml").write_text(row)
    (folder / "models.yml").write_text(MODELS)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})

    answer = await ask(gateway)

    assert answer.status == 200
    (sent,) = provider.requests
    assert sent.header("authorization") == "Basic eDp5"
    assert sent.header("x-own") == "a"
    names = [name.lower() for name, _ in sent.headers]
    assert len(names) == len(set(names))
