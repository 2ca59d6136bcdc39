"""A vendor, a receiver and an issuer around a server whose workers are killed, and what its books are held against."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.charging import ChargingProvider
from tests.support.gateway import default_env
from tests.support.issuer import FakeIssuer
from tests.support.lasting import Lasting
from tests.support.served import WAIT_S, Served, served
from tests.support.usage_load import Load, check_books
from tests.support.usage_sink import UsageSink, write_sinks


class Town(Lasting):
    """A vendor, a receiver of usage records, an issuer, and the environment of a gateway between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provider = ChargingProvider(pause_s=0.004)
        self.sink = UsageSink()
        self.issuer = FakeIssuer()

    @property
    def env(self) -> dict[str, str]:
        overlay = write_sinks(
            self.folder / "overlay", {"name": "billing", "type": "http", "url": self.sink.url, "linger_s": 0.05}
        )
        env = default_env(self.provider, self.issuer, self.folder / "state")  # type: ignore[arg-type]
        env = {name: value for name, value in env.items() if not name.endswith("_PORT")}
        return env | {"AIGW_CATALOG": str(overlay), "AIGW_SERVER__DRAIN_S": "5"}

    async def start(self) -> None:
        for each in (self.provider, self.sink, self.issuer):
            await each.start()

    async def aclose(self) -> None:
        for each in (self.issuer, self.sink, self.provider):
            await each.aclose()


async def everything_is_delivered(
    folder: Path, served: Served, received: Callable[[], int], within_s: float = WAIT_S
) -> None:
    """Returns once all workers live, nothing of dead ones is left, and the receiver has what they have.

    folder    of the server
    received  how many records have come so far
    """
    seen = -1

    async def is_done() -> bool:
        nonlocal seen
        before, seen = seen, received()
        workers = await served.workers()
        folders = [path for path in (folder / "state" / "usage").iterdir() if (path / "lock").exists()]
        figures = (await served.monitoring("/metrics")).text.splitlines()
        behind = [line for line in figures if line.startswith('usage_oldest_undelivered_seconds{sink="billing"}')]
        await asyncio.sleep(0.25)
        return len(workers) == len(folders) == 2 and all(line.endswith(" 0") for line in behind) and before == seen

    await served.until(is_done, within_s)


async def has_answered(load: Load, requests: int) -> bool:
    """In full; of so many each worker has had some."""
    return load.whole >= requests


def stat_of(pid: int) -> list[str]:
    """What /proc knows of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def kill_one(served: Served) -> None:
    """The worker that has lived longest, as soon as two live."""

    async def oldest_of_two() -> int:
        # By the ticks at which they came up, for numbers of processes begin anew at some point.
        told = {pid: stat_of(pid) for pid in await served.workers()}
        alive = sorted((int(stat[19]), pid) for pid, stat in told.items() if stat[0] != "Z")
        return alive[0][1] if len(alive) == 2 else 0

    os.kill(await served.until(oldest_of_two), signal.SIGKILL)


async def kill_workers(
    served: Served, load: Load, times: int, chance: random.Random, between_s: tuple[float, float] = (0.05, 0.6)
) -> None:
    """The one that has lived longest, each time, and while it is answering.

    The supervisor lets workers that die young wait.
    """
    for _ in range(times):
        whole = load.whole
        await asyncio.sleep(chance.uniform(*between_s))

        async def is_busy(whole: int = whole) -> bool:
            return load.whole >= whole + 10 and load.under_way >= 3

        await served.until(is_busy)

        await kill_one(served)


async def run_with_deaths(
    folder: Path, deaths: int, seed: int, between_s: tuple[float, float] = (0.05, 0.6)
) -> Counter[str]:
    """Load, `deaths` kills at random moments, and the books afterwards."""
    chance = random.Random(seed)
    async with Town(folder) as town, served(folder, "--workers", "2", env=town.env) as gateway:
        await gateway.ready()
        load = Load(gateway.port, town.issuer, seed)
        running = asyncio.create_task(load.run(clients=12))
        await kill_workers(gateway, load, deaths, chance, between_s)
        await asyncio.sleep(0.3)
        load.stop()
        await running
        await everything_is_delivered(town.folder, gateway, lambda: len(town.sink.received))
        states = check_books(load, town.provider, town.sink.records)
        assert states["completed"] >= 10 * deaths
        assert states["interrupted"] > 0
        streams_cut = [name for name, asked in load.asked.items() if asked.has_begun and not asked.is_whole]
        assert streams_cut, "no stream was cut by a kill"
        return states
