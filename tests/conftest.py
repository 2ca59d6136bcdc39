"""Fixtures for tests through the front door; the parts are in tests/support."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider

from torana.clock import Clock
from torana.usage.disk import Disk

StartGateway = Callable[..., Awaitable[RunningGateway]]
"""`await start_gateway(env={…}, clock=…)`: one more gateway, closed when the test ends."""


@pytest.fixture
def clock() -> HandClock:
    """A clock that the test moves; pass it to `start_gateway`."""
    return HandClock()


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture
async def start_gateway(provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path) -> AsyncIterator[StartGateway]:
    async with AsyncExitStack() as stack:

        async def start(
            env: Mapping[str, str] | None = None, clock: Clock | None = None, disk: Disk | None = None
        ) -> RunningGateway:
            return await stack.enter_async_context(running_gateway(provider, issuer, tmp_path, env, clock, disk))

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()
