"""One gateway for the cases of a table: starting one costs more than asking it.

A test that asks for `shared` must run in the session's loop: `@pytest.mark.asyncio(loop_scope="session")`. It may
script the provider as it likes, but not release, stop or count what earlier cases left: those take `gateway`.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import Script, ScriptedProvider


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("shared")
    async with (
        ScriptedProvider() as provider,
        FakeIssuer() as issuer,
        running_gateway(provider, issuer, folder, {"AIGW_CUSTOM_MODELS__ENABLED": "true"}) as gateway,
    ):
        await gateway.begin_trees()
        yield gateway


@pytest.fixture
def shared(_standing: RunningGateway) -> RunningGateway:
    """The same gateway for every test, with clients' own models switched on; its provider begins anew."""
    _standing.provider.requests.clear()
    _standing.provider.follow(Script())
    _standing.running.parts.traffic.forget()
    return _standing
