"""The long forms of the usage promises: a hundred deaths, ten outages of the receiver. Run by `make drills`.

TORANA_DRILL_CALLS: how many cheap calls the parts of the million make in all; by default, a million.
"""

import asyncio
import os
import random
import time
from pathlib import Path

import pytest
import uvloop
from tests.support.served import served
from tests.support.town import Town, everything_is_delivered, kill_one, kill_workers, run_with_deaths
from tests.support.usage_load import Load, check_books
from tests.support.usage_million import BigTown, Callers, check_ledgers, outages

BETWEEN_S = (2.6, 3.2)
"""With two workers in turn, each lives long enough to be restarted at once."""

PARTS = 8
"""Of the million, so that none takes a small machine for long."""
CALLS = int(os.environ.get("TORANA_DRILL_CALLS", "1000000"))

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


@pytest.mark.parametrize("quarter", range(4))
async def test_a_hundred_deaths_lose_and_double_nothing(tmp_path: Path, quarter: int) -> None:
    states = await run_with_deaths(tmp_path, deaths=25, seed=40 + quarter, between_s=BETWEEN_S)

    print(dict(states))


async def test_deaths_and_outages_together_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with Town(tmp_path) as town, served(tmp_path, "--workers", "2", env=town.env) as gateway:
        await gateway.ready()
        load = Load(gateway.port, town.issuer, seed=5)
        running = asyncio.create_task(load.run(clients=12))
        for _ in range(10):
            town.sink.server.stop_listening()
            await kill_workers(gateway, load, 2, chance, BETWEEN_S)
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            await town.sink.server.start()
            await asyncio.sleep(chance.uniform(0.2, 1.0))
        load.stop()
        await running
        await everything_is_delivered(town.folder, gateway, lambda: len(town.sink.received))

        states = check_books(load, town.provider, town.sink.records)

    print(dict(states), "doubled on the way, by id:", sum(times > 1 for times in town.sink.ids.values()))
    assert states["completed"] > 200


@pytest.mark.parametrize("part", range(PARTS))
def test_of_a_million_calls_with_a_hundred_deaths_and_ten_outages_none_is_lost_or_doubled(
    tmp_path: Path, part: int
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_one_part(tmp_path, part))


async def _one_part(folder: Path, part: int) -> None:
    chance = random.Random(part)
    calls, deaths, connections = CALLS // PARTS, 13, 32
    async with BigTown(folder, calls) as town, served(folder, "--workers", "2", env=town.env) as gateway:
        await gateway.ready()
        started = time.monotonic()
        callers = Callers(gateway.port, town.issuer, calls)
        down = asyncio.create_task(outages(town.receiver, callers, 2, chance))
        running = asyncio.create_task(callers.run(connections))
        for number in range(deaths):
            await callers.reached(int(calls * (number + chance.random()) / deaths))
            await kill_one(gateway)
        await running
        await down
        seconds = time.monotonic() - started
        await everything_is_delivered(folder, gateway, lambda: town.receiver.received, within_s=120)
        behind_s = time.monotonic() - started - seconds

        check_ledgers(callers, town.vendor, town.receiver)

    states = dict(town.receiver.states)
    again = town.receiver.received - sum(states.values())
    print(f"{calls} calls, {calls / seconds:.0f}/s, {deaths} deaths, {dict(callers.statuses)}, {states}")
    print(f"{again} came twice by one id; the last {behind_s:.0f} s after its call; {dict(town.receiver.sums)}")
    assert set(callers.statuses) <= {0, 200}
    assert states["completed"] >= calls - deaths * connections
    assert states["interrupted"] > 0
