"""What coding agents are given by GitLab: a token, the headers to send with it, and base URLs."""

from dataclasses import dataclass

import pytest
from tests.support.gateway import RunningGateway, gitlab_headers

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
