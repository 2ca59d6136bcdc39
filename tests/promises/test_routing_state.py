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


async def test_a_bound_that_a_reload_takes_away_is_gone_though_all_places_are_taken(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 1})
    fleet["a"].stall()
    calls = [asyncio.create_task(fleet.ask()) for _ in range(2)]
    await fleet["a"].request()

    fleet.write([{"provider": "a"}])
    await fleet.gateway.running.reloader.reload()
    calls.append(asyncio.create_task(fleet.ask()))

    await fleet["a"].request(3)
    fleet["a"].release()
    assert [(await call).status for call in calls] == [200] * 3


async def test_a_deployment_that_a_reload_moves_leaves_the_connections_of_its_old_address(
    start_fleet: StartFleet,
) -> None:
    env = {"AIGW_ROUTING__CONNECTIONS": "1", "AIGW_ROUTING__QUEUE_S": "0.05"}
    fleet = await start_fleet({"provider": "a", "name": "ours"}, {"provider": "b", "order": 1}, env=env)
    fleet["a"].stall()
    held = asyncio.create_task(fleet.ask())
    await fleet["a"].request()

    fleet.write([{"provider": "b", "name": "ours"}])
    await fleet.gateway.running.reloader.reload()

    assert (await fleet.ask()).json() == "This is b."
    fleet["a"].release()
    await held


async def test_a_deployment_that_a_reload_moves_is_not_spared_for_what_its_old_address_asked(
    start_fleet: StartFleet,
) -> None:
    fleet = await start_fleet({"provider": "a", "name": "ours"}, {"provider": "b", "name": "theirs", "order": 1})
    for vendor in "ab":
        fleet[vendor].fail_with(429, headers={"retry-after": "3600"}, times=1)
    assert (await fleet.ask()).status == 421

    fleet.write([{"provider": "b", "name": "ours"}])
    await fleet.gateway.running.reloader.reload()

    assert (await fleet.ask()).json() == "This is b."


async def test_no_more_copies_are_under_way_than_their_deployment_has_places(start_fleet: StartFleet) -> None:
    trial = {"provider": "b", "shadow_percent": 100, "concurrency": 1}
    fleet = await start_fleet({"provider": "a"}, trial)
    fleet["b"].stall()

    for _ in range(3):
        await fleet.ask()
    await fleet["b"].request()

    assert fleet.asked == {"a": 3, "b": 1}
    dropped = 'torana_shadows_total{deployment="b/b-1",outcome="dropped"} 2'
    assert dropped in (await fleet.gateway.monitoring("/metrics")).text
    fleet["b"].release()
    await fleet.gateway.log.find(message="shadow ended", outcome="answered")
    await fleet.ask()
    await fleet["b"].request(2)


async def test_a_server_that_does_not_tell_its_model_leaves_the_calls_to_the_others(start_fleet: StartFleet) -> None:
    ours = {"provider": "openai", "model": ""}
    fleet = await start_fleet(ours, {"provider": "b", "order": 1}, env={"OPENAI_BASE_URL": "http://127.0.0.1:9"})

    assert (await fleet.ask()).json() == "This is b."

    fleet.write([ours])
    await fleet.gateway.running.reloader.reload()
    assert (await fleet.ask()).json()["detail"] == "503: Service Unavailable"
