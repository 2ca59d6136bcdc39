"""Long forms: a storm of failures with fallbacks (OV7), and waits that really take their time (UP9)."""

import asyncio
from pathlib import Path

import pytest
from tests.conftest import StartGateway
from tests.support.fleet import CODE, running_fleet
from tests.support.invariants import unharmed

pytestmark = [pytest.mark.drill, pytest.mark.timeout(180)]

STORM_S, RATE = 20.0, 60.0


async def test_a_storm_of_failures_costs_a_tenth_more_and_ends_with_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    three = [{"provider": name, "order": order} for order, name in enumerate("abc")]
    async with running_fleet(start_gateway, tmp_path / "fleet", three) as fleet:
        for name in "abc":
            fleet[name].fail_with(500)
        tasks = []
        async with unharmed(fleet.gateway, is_long=True):
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(int(STORM_S * RATE)):
                # Open loop: the next one comes whether or not the last one has been answered.
                await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
                tasks.append(asyncio.create_task(fleet.ask(CODE)))
            answers = await asyncio.gather(*tasks)
            took_s = loop.time() - began

            assert {answer.status for answer in answers} == {503}
            assert sum(fleet.asked.values()) <= 1.10 * len(answers) + 3 * took_s + 3

            for name in "abc":
                fleet[name].answer_with(text="Well again.")
            recovered = loop.time()
            good = 0
            while good < 50:
                good = good + 1 if (await fleet.ask(CODE)).status == 200 else 0
                await asyncio.sleep(0.01)
            assert loop.time() - recovered <= 10


async def test_two_seconds_are_waited_for_and_others_are_not_sent_meanwhile(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with running_fleet(start_gateway, tmp_path / "fleet", [{"provider": "a"}]) as fleet:
        fleet["a"].fail_with(429, headers={"Retry-After": "2"}, times=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(fleet.ask(CODE))
        await fleet["a"].request()
        await asyncio.sleep(0.2)

        refused = await fleet.ask(CODE)

        assert (refused.status, refused.header("retry-after")) == (429, "2")
        assert (await waiting).status == 200
        assert 2 <= loop.time() - began < 4
        assert fleet.asked == {"a": 2}
