"""The clouds' own credentials: found by the vendors' libraries, off the event loop, and explained where they lack."""

import json
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.provider import ScriptedProvider

from torana.environment import load_settings
from torana.providers.aws_signing import LASTS_S, fetch_signer
from torana.providers.bedrock import LARGE_BODY_BYTES, Bedrock
from torana.providers.provider import Deployment

AZURE = """\
models:
- {name: gpt_on_azure, title: GPT, deployments: [{provider: azure, model: my-gpt}]}
aliases:
- {name: chat_default, models: [gpt_on_azure]}
"""


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")


class Identity:
    """Azure's identity endpoint for a managed identity, as App Service offers it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 200
        self.server = LoopbackServer(self._handle)

    async def _handle(self, request: Request, answering: Answering) -> None:
        self.requests.append(request)
        token = {"access_token": "entra-token", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        told = token if self.status == 200 else {"statusCode": self.status, "message": "no such identity"}
        await answering.whole(self.status, json.dumps(told).encode(), [("Content-Type", "application/json")])


@pytest.fixture
async def identity(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Identity]:
    identity = Identity()
    await identity.server.start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity.server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret-of-the-machine")
    yield identity
    await identity.server.aclose()


async def ask(gateway: RunningGateway) -> Answer:
    return await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={"inputs": {"input": "why", "selected_text": "x = 1"}},
        token=gateway.token(unit_primitives=["explain_code"]),
    )


async def test_azure_without_a_key_is_greeted_with_a_token_of_entra_id(
    start_gateway: StartGateway, provider: ScriptedProvider, identity: Identity, tmp_path: Path
) -> None:
    (tmp_path / "models.yml").write_text(AZURE)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path), "AZURE_API_BASE": provider.url})

    answers = [await ask(gateway) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert {sent.header("authorization") for sent in provider.requests} == {"Bearer entra-token"}
    assert {sent.header("api-key") for sent in provider.requests} == {None}
    (asked,) = identity.requests
    assert "cognitiveservices.azure.com" in asked.query


async def test_a_token_that_cannot_be_had_is_explained_to_the_operator(
    start_gateway: StartGateway, provider: ScriptedProvider, identity: Identity, tmp_path: Path
) -> None:
    (tmp_path / "models.yml").write_text(AZURE)
    identity.status = 400
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path), "AZURE_API_BASE": provider.url})

    answer = await ask(gateway)

    assert answer.refusal.code == "provider_no_credentials"
    assert provider.requests == []
    line = await gateway.log.find(message="credentials cannot be fetched")
    assert "AZURE_API_KEY" in line["reason"]


async def test_a_process_that_prints_no_keys_is_the_operators_affair_and_no_breakdown_of_ours(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models.yml").write_text(
        AZURE.replace("{provider: azure, model: my-gpt}", "{provider: bedrock, model: m, region: us-east-1}")
    )
    asked = tmp_path / "asked"
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = /bin/sh -c 'echo once >> {asked}; echo please log in first'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    env = {"AIGW_CATALOG": str(tmp_path), "AWS_CONFIG_FILE": str(config), "BEDROCK_BASE_URL": provider.url}
    gateway = await start_gateway(env=env)

    answers = [await ask(gateway) for _ in range(3)]

    assert [(answer.status, answer.refusal.code) for answer in answers] == [(421, "provider_no_credentials")] * 3
    assert asked.read_text().split() == ["once"]
    line = await gateway.log.find(message="credentials cannot be fetched")
    assert line["reason"] == "the AWS credentials cannot be fetched: JSONDecodeError"


@pytest.mark.parametrize(
    ("library", "call"),
    [
        (
            "botocore",
            "from torana.providers.aws_signing import fetch_signer as fetch; fetch(ProviderSettings(), Clock())",
        ),
        ("azure", "from torana.providers.azure import fetch_token as fetch; fetch('scope')"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_remedy(library: str, call: str) -> None:
    script = f"""
import sys
sys.modules[{library!r}] = None
from torana.clock import Clock
from torana.errors import NoCredentials
from torana.settings import ProviderSettings
try:
    {call}
except NoCredentials as error:
    print(error)
"""

    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout

    assert "make extras" in told


def test_keys_of_the_environment_need_nobody_else_and_never_end() -> None:
    env = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s"}

    signer, ends_at = fetch_signer(load_settings(env).providers, HandClock())

    assert (signer.keys.access_key, ends_at) == ("AKID", math.inf)


def test_keys_that_run_out_are_asked_for_again_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "Version": 1,
        "AccessKeyId": "TEMP",
        "SecretAccessKey": "s",
        "SessionToken": "t",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    (tmp_path / "config").write_text(f"[default]\ncredential_process = /bin/cat {tmp_path}/told.json\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    clock = HandClock()

    # Half a pair of keys is none.
    signer, ends_at = fetch_signer(load_settings({"AWS_ACCESS_KEY_ID": "half"}).providers, clock)

    assert (signer.keys.access_key, signer.keys.token) == ("TEMP", "t")
    assert ends_at == clock.now() + LASTS_S


async def test_a_large_body_is_signed_like_a_small_one() -> None:
    env = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    bedrock = Bedrock(load_settings(env).providers, HandClock())
    deployment = Deployment(provider="bedrock", model="anthropic.claude-x-v1:0")
    headers = {"Content-Type": "application/json"}

    large = await bedrock.prepare(deployment, "/converse", b"x" * LARGE_BODY_BYTES, headers, stream=True)

    assert (
        large.url == "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-x-v1%3A0/converse-stream"
    )
    assert large.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "bedrock-runtime.eu-west-1.amazonaws.com"),
        ("us-gov-west-1", "bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "bedrock-runtime.eusc-de-east-1.amazonaws.eu"),
    ],
)
async def test_a_deployments_own_region_decides_where_it_is_called(region: str, host: str) -> None:
    bedrock = Bedrock(
        load_settings({"AWS_BEARER_TOKEN_BEDROCK": "t", "AWS_REGION": "us-east-1"}).providers, HandClock()
    )

    request = await bedrock.prepare(
        Deployment(provider="bedrock", model="m", region=region), "/converse", b"{}", {}, stream=False
    )

    assert request.url == f"https://{host}/model/m/converse"
