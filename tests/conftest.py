"""Fixtures for tests through the front door; the parts are in tests/support."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway, default_env, running_gateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.served import Served, served

from torana.clock import Clock
from torana.usage.disk import Disk

FOREIGN = ("AIGW_", "ANTHROPIC_", "AWS_", "AZURE_", "GEMINI_", "GOOGLE_", "OPENAI_", "VERTEX")
"""Settings of whoever runs the tests: SDKs and commands would read them."""
PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY")


def pytest_configure() -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.upper() in PROXIES:
            del os.environ[name]
    # No example fails because the machine was busy; and a change lands or not by what it is, not by luck.
    is_ci = bool(os.environ.get("CI"))
    settings.register_profile("torana", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=is_ci)
    settings.load_profile("torana")


StartGateway = Callable[..., Awaitable[RunningGateway]]
"""`await start_gateway(env={…}, clock=…)`: one more gateway, closed when the test ends."""

Serve = Callable[..., Awaitable[Served]]


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
            env: Mapping[str, str] | None = None,
            clock: Clock | None = None,
            disk: Disk | None = None,
            metrics_dir: Path | None = None,
        ) -> RunningGateway:
            running = running_gateway(provider, issuer, tmp_path, env, clock, disk, metrics_dir)
            return await stack.enter_async_context(running)

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """`await serve("--workers", "2", env={…})`: a real process that is ready, killed when the test ends.

    folder  where it runs and writes to; one for each, where a test starts several
    """
    async with AsyncExitStack() as stack:

        async def start(
            *args: str, env: Mapping[str, str] | None = None, files: int | None = None, folder: Path = tmp_path
        ) -> Served:
            _make(folder)
            return await (await stack.enter_async_context(served(folder, *args, env=env, files=files))).ready()

        yield start


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


@pytest.fixture
def wired(provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path) -> dict[str, str]:
    """An environment that connects a process to the fakes."""
    env = default_env(provider, issuer, tmp_path / "state")
    return {name: value for name, value in env.items() if not name.endswith("_PORT")}
