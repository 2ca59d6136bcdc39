"""The long forms of the usage promises: a hundred deaths, ten outages of the receiver. Run by `make drills`."""

import asyncio
import random
from pathlib import Path

import pytest
from tests.promises.test_usage_deaths import Town, everything_is_delivered, kill_workers, run_with_deaths
from tests.support.served import served
from tests.support.usage_load import Load, check_books

BETWEEN_S = (2.6, 3.2)
"""With two workers in turn, each lives long enough to be restarted at once."""

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


async def test_a_hundred_deaths_lose_and_double_nothing(tmp_path: Path) -> None:
    states = await run_with_deaths(tmp_path, deaths=100, seed=4, between_s=BETWEEN_S)

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
        await everything_is_delivered(town, gateway)

        states = check_books(load, town.provider, town.sink.records)

    print(dict(states), "doubled on the way, by id:", sum(times > 1 for times in town.sink.ids.values()))
    assert states["completed"] > 200
