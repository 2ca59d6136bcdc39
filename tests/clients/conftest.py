"""What coding agents are given by GitLab: a token, the headers to send with it, and base URLs."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.clients.behind import BEHIND, stand_behind
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway, gitlab_headers
from tests.support.provider import ScriptedProvider

PRIMITIVE = "ai_gateway_model_provider_proxy"


@dataclass(frozen=True, slots=True)
class Access:
    """An agent's way to the gateway, as `direct_access` of a GitLab instance hands it out."""

    token: str
    headers: dict[str, str]
    anthropic_url: str
    openai_url: str


def access_for(gateway: RunningGateway, token: str) -> Access:
    headers = gitlab_headers(token) | {"X-Gitlab-Unit-Primitive": PRIMITIVE}
    # The SDK writes these two itself.
    del headers["Authorization"], headers["User-Agent"]
    return Access(token, headers, f"{gateway.url}/v1/proxy/anthropic", f"{gateway.url}/v1/proxy/openai/v1")


@pytest.fixture(params=["instance", "user"])
def access(request: pytest.FixtureRequest, gateway: RunningGateway) -> Access:
    """Once with an instance's token, once with a user's, which is what agents usually hold."""
    make = gateway.token if request.param == "instance" else gateway.user_token
    return access_for(gateway, make(unit_primitives=[PRIMITIVE]))


@pytest.fixture
def user_access(gateway: RunningGateway) -> Access:
    return access_for(gateway, gateway.user_token(unit_primitives=[PRIMITIVE]))


@pytest.fixture
def rejected_access(gateway: RunningGateway) -> Access:
    """A token that has expired."""
    return access_for(gateway, gateway.user_token(unit_primitives=[PRIMITIVE], exp=1_000_000_000))


@pytest.fixture
def powerless_access(gateway: RunningGateway) -> Access:
    """A good token without the unit primitive."""
    return access_for(gateway, gateway.user_token(unit_primitives=["complete_code"]))


@pytest.fixture
async def anything(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path) -> RunningGateway:
    """A gateway with a model for each dialect that a provider may speak."""
    return await start_gateway(env=stand_behind(provider.url, tmp_path / "overlay"))


@pytest.fixture(params=BEHIND)
def model(request: pytest.FixtureRequest) -> str:
    """A model of `anything`; each test is run with all of them."""
    return str(request.param)


def sdk_token(gateway: RunningGateway, **claims: object) -> str:
    """What a user of an SDK has in place of a vendor's key: nothing else need be sent."""
    return gateway.user_token(unit_primitives=[PRIMITIVE], **claims)
