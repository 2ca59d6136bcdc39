"""Azure OpenAI: deployments by name, its greeting, its filters; also at a client's own resource."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.golden.compare import read
from tests.promises.test_dialect_routes import MESSAGES
from tests.promises.test_dialect_routes import ask as ask_dialect
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider
from tests.support.vendor_answers import AZURE_FILTERED, AZURE_UNAUTHORIZED, azure_events, azure_filtered_events

CATALOGUE = """\
models:
- name: gpt_on_azure
  title: GPT on Azure
  deployments: [{provider: azure, model: my-gpt}]
aliases:
- {name: chat_default, models: [gpt_on_azure]}
"""


def write_models(folder: Path, name: str) -> None:
    (folder / "models.yml").write_text(CATALOGUE.replace("my-gpt", name))


Start = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
def start(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path) -> Start:
    """A gateway whose chat is answered by Azure."""
    (tmp_path / "models.yml").write_text(CATALOGUE)

    async def start(**env: str) -> RunningGateway:
        azure = {"AIGW_CATALOG": str(tmp_path), "AZURE_API_BASE": provider.url, "AZURE_API_KEY": "azure-key"}
        return await start_gateway(env={**azure, **env})

    return start


async def ask(gateway: RunningGateway, *, stream: bool = False, metadata: Any = None) -> Answer:
    body = {"inputs": {"input": "why", "selected_text": "x = 1"}, "stream": stream}
    return await gateway.post(
        "/v1/prompts/chat/explain_code",
        json=body if metadata is None else {**body, "model_metadata": metadata},
        token=gateway.token(unit_primitives=["explain_code"]),
    )


@pytest.mark.parametrize(
    ("version", "target"),
    [
        ("2024-10-21", "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
        ("", "/openai/v1/chat/completions"),
    ],
)
async def test_a_deployment_is_called_with_its_key(
    start: Start, provider: ScriptedProvider, version: str, target: str
) -> None:
    gateway = await start(AZURE_API_VERSION=version)
    provider.answer_with(events=azure_events("Hello from Azure"))

    answer = await ask(gateway, stream=True)

    assert "Hello from Azure" in answer.body.decode()
    assert answer.header("x-aigw-model") == "azure/my-gpt"
    (sent,) = provider.requests
    assert sent.target.decode() == target
    assert (sent.header("api-key"), sent.header("authorization")) == ("azure-key", None)
    assert sent.json()["model"] == "my-gpt"
    assert {"max_tokens", "max_completion_tokens"} & sent.json().keys() == {"max_completion_tokens"}


@pytest.mark.parametrize(
    ("name", "version", "path"),
    [
        ("gpt-5.4-mini", "", "/openai/v1/responses"),
        ("gpt-5.4-mini", "2024-10-21", "/openai/deployments/gpt-5.4-mini/chat/completions"),
        ("my-gpt", "", "/openai/v1/chat/completions"),
        ("deepseek-v4-pro", "", "/openai/v1/chat/completions"),
    ],
)
async def test_a_deployment_that_has_responses_thinks_beside_tools(
    start: Start, provider: ScriptedProvider, tmp_path: Path, name: str, version: str, path: str
) -> None:
    write_models(tmp_path, name)
    gateway = await start(AZURE_API_VERSION=version)
    if path.endswith("responses"):
        provider.answer_with(body=json.loads(read("responses/tools.answer.json")))
    tools = [{"name": "read_file", "input_schema": {"type": "object", "properties": {}}}]
    thinking = {"type": "enabled", "budget_tokens": 4096}

    answer = await ask_dialect(gateway, MESSAGES, "gpt_on_azure", tools=tools, thinking=thinking, max_tokens=9000)

    (sent,) = provider.requests
    assert (answer.status, sent.path, sent.json()["model"]) == (200, path, name)
    assert sent.header("api-key") == "azure-key"


async def test_an_answer_that_the_filter_stops_is_told_as_such(start: Start, provider: ScriptedProvider) -> None:
    gateway = await start()
    provider.answer_with(events=azure_filtered_events("Half"))

    answer = await gateway.post(
        "/anthropic/v1/messages",
        json={"model": "gpt_on_azure", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "?"}]},
        token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    assert "Half" in answer.body.decode()
    assert '"stop_reason":"refusal"' in answer.body.decode()


@pytest.mark.parametrize(("status", "body"), [(400, AZURE_FILTERED), (401, AZURE_UNAUTHORIZED)])
async def test_a_refusal_is_asked_for_once(
    start: Start, provider: ScriptedProvider, status: int, body: dict[str, Any]
) -> None:
    gateway = await start()
    provider.fail_with(status, body)

    answer = await ask(gateway)

    assert answer.status not in (200, 401)
    assert len(provider.requests) == 1
    assert "Responsible" not in answer.body.decode()


async def test_a_client_names_a_deployment_at_its_own_resource(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    gateway = await start_gateway(
        env={"AIGW_CUSTOM_MODELS__ENABLED": "true", "AZURE_API_VERSION": "2024-10-21", "AZURE_API_KEY": "ours"}
    )
    metadata = {
        "provider": "openai",
        "name": "gpt",
        "endpoint": provider.url,
        "api_key": "theirs",
        "identifier": "azure/their-gpt",
    }

    answer = await ask(gateway, metadata=metadata)

    assert answer.status == 200
    (sent,) = provider.requests
    assert sent.target.decode() == "/openai/deployments/their-gpt/chat/completions?api-version=2024-10-21"
    assert sent.header("api-key") == "theirs"
    assert b"ours" not in sent.body + b"".join(value for _, value in sent.headers)


async def test_a_client_without_a_key_gets_no_token_of_ours(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    metadata = {"provider": "openai", "name": "gpt", "endpoint": provider.url, "identifier": "azure/their-gpt"}

    await ask(gateway, metadata=metadata)

    (sent,) = provider.requests
    assert (sent.header("api-key"), sent.header("authorization")) == ("no-key-needed", None)
