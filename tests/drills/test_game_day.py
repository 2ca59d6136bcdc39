"""OV11, OV14: everything around the gateway breaks, and what must hold after every drill holds. Run by `make drills`.

TORANA_DAY_S: how long one day is, 30 s by default. TORANA_DAY_SEED: one day by its seed, to see it again.
"""

import asyncio
import os
import re
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bench.processes import rss_mb
from tests.support.game_day import STREAMS, Day, SpoiltTown
from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY
from tests.support.served import Served, served
from tests.support.town import everything_is_delivered
from tests.support.usage_load import Load, Orders, check_books, usual_orders
from tests.support.valkey import running_store
from tests.support.wide_load import wide_orders

SECONDS = float(os.environ.get("TORANA_DAY_S", "30"))
SEEDS = [int(os.environ["TORANA_DAY_SEED"])] if "TORANA_DAY_SEED" in os.environ else [1, 2, 3]

pytestmark = [pytest.mark.drill, pytest.mark.timeout(SECONDS + 240)]


@pytest.mark.parametrize("orders", [usual_orders, wide_orders])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_day_on_which_everything_breaks_harms_nothing(tmp_path: Path, seed: int, orders: Orders) -> None:
    (tmp_path / "store").mkdir()
    with running_store(tmp_path / "store") as store:
        async with SpoiltTown(tmp_path, store) as town, served(tmp_path, "--workers", "2", env=town.env) as gateway:
            await gateway.ready()
            load = Load(gateway.port, town.issuer, seed, orders)
            before = await a_quiet_moment(town, gateway, load, "before")

            running = asyncio.create_task(load.run(clients=12))
            day = Day(town, gateway, load, seed)
            await day.run(SECONDS)
            load.stop()
            await running
            print(f"seed {seed}:", dict(load.statuses), dict(Counter(day.done)), sep="\n")

            after = await a_quiet_moment(town, gateway, load, "after")
            await everything_is_delivered(town.folder, gateway, lambda: len(town.sink.received))
            states = check_books(load, town.provider, town.sink.records)
            print(dict(states), f"before {before}, after {after}", sep="\n")
            one_line_each(gateway, load, day.kills)
            nothing_strange_was_said(gateway)
            assert (await gateway.monitoring("/readyz")).status == 200
            assert after["sockets"] <= before["sockets"] + 10
            assert after["rss_mb"] <= 1.25 * before["rss_mb"]


async def a_quiet_moment(town: SpoiltTown, gateway: Served, load: Load, name: str) -> dict[str, float]:
    """The worker that has the most of it, after a little work and with nothing under way."""
    await every_place_is_free(town, gateway, load, name)
    for number in range(60):
        await load.ask(f"{name}-{number}")

    async def is_calm() -> bool:
        told = (await gateway.monitoring("/metrics")).text
        return not any(map(float, re.findall(r"^model_inferences_in_flight{.*} (\S+)$", told, re.MULTILINE)))

    await gateway.until(is_calm, within_s=10)
    workers = await gateway.workers()
    return {"sockets": max(map(_sockets, workers)), "rss_mb": max(map(rss_mb, workers))}


async def every_place_is_free(town: SpoiltTown, gateway: Served, load: Load, name: str) -> None:
    """As many streams as an instance may have, at once; the vendor is slow, so that they overlap."""
    town.provider.pause_s, usual_s = 0.2, town.provider.pause_s
    turns = count()

    async def all_pass() -> bool:
        # What dead workers held is free when its time is over.
        turn = next(turns)
        names = [f"{name}-{turn}-stream-{number}" for number in range(STREAMS)]
        return all(await asyncio.gather(*(load.chat(each, "instance-a") for each in names)))

    await gateway.until(all_pass, within_s=90)
    town.provider.pause_s = usual_s


def _sockets(pid: int) -> int:
    names = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return sum(name.startswith("socket:") for name in names)


def one_line_each(gateway: Served, load: Load, kills: int) -> None:
    """A killed worker may take the lines of its last moment with it."""
    lines = Counter(line["correlation_id"] for line in gateway.lines if line["logger"] == "api.access")
    assert not [name for name in load.asked if lines[name] > 1]
    silent = [name for name, asked in load.asked.items() if asked.is_whole and not lines[name]]
    assert len(silent) <= 3 * kills, silent


def nothing_strange_was_said(gateway: Served) -> None:
    told: list[dict[str, Any]] = gateway.lines
    strange = [line for line in told if "exception_backtrace" in line or line["message"] == "unexpected error"]
    assert not strange, strange[:3]
    assert "Traceback" not in gateway.stderr, gateway.stderr[-3000:]
    shown = gateway.stdout + gateway.stderr
    assert ANTHROPIC_KEY not in shown
    assert OPENAI_KEY not in shown
