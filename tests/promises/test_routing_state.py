"""What is known of deployments: what breaks counts once, and a reload changes what it says."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.fleet import PATH, Fleet, running_fleet

StartFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture
async def start_fleet(start_gateway: StartGateway, tmp_path: Path) -> Any:
    async with AsyncExitStack() as stack:

        async def start(*deployments: dict[str, Any], **told: Any) -> Fleet:
            return await stack.enter_async_context(
                running_fleet(start_gateway, tmp_path / "fleet", deployments, **told)
            )

        yield start


async def test_many_answers_that_break_together_let_their_deployment_rest_once(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet(
        {"provider": "a", "idle_s": 0.5}, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "2"}
    )
    fleet["a"].stall(after_events=3)
    asked = {"json": fleet.body(stream=True), "token": fleet.token()}
    async with AsyncExitStack() as stack:
        answers = [await stack.enter_async_context(fleet.gateway.stream(PATH, **asked)) for _ in range(8)]
        for answer in answers:
            await answer.next_chunk()
        clock.advance(60)  # that they began well was long ago

        assert [(await answer.rest()).is_whole for answer in answers] == [False] * 8

    rests = [line for line in fleet.gateway.log.lines if line["message"] == "a deployment rests after failures"]
    assert len(rests) == 1
