"""Workers die at any moment, and no usage record is lost or doubled (US4, US5, US12). Real processes, real kills."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.promises.test_process import STREAMED, relay_bytes
from tests.support.charging import ChargingProvider
from tests.support.gateway import default_env
from tests.support.http_client import connect
from tests.support.issuer import FakeIssuer
from tests.support.lasting import Lasting
from tests.support.provider import ScriptedProvider
from tests.support.served import TORANA, WAIT_S, Served, run, served
from tests.support.usage import read_spool
from tests.support.usage_load import Load, check_books
from tests.support.usage_sink import UsageSink, write_sinks

from torana.usage.frames import read_frames, write_frame
from torana.usage.running import read_table


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


async def test_killed_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    await run_with_deaths(tmp_path, deaths=5, seed=1)


async def test_without_deaths_the_records_are_the_vendors_ledger_to_the_token(tmp_path: Path) -> None:
    async with Town(tmp_path) as town, served(tmp_path, "--workers", "2", env=town.env) as gateway:
        await gateway.ready()
        load = Load(gateway.port, town.issuer, seed=2)
        running = asyncio.create_task(load.run(clients=12))
        await gateway.until(partial(has_answered, load, 200))
        load.stop()
        await running
        await everything_is_delivered(town.folder, gateway, lambda: len(town.sink.received))

        states = check_books(load, town.provider, town.sink.records)

    assert set(load.statuses) == {200}
    assert states == {"completed": len(load.asked)}
    assert len(load.asked) == len(town.provider.ledger)
    assert set(town.sink.ids.values()) == {1}


async def test_a_server_killed_whole_with_a_torn_and_flipped_spool_delivers_every_whole_record(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        town.sink.server.stop_listening()  # so that all of it is still in the spool
        spool = tmp_path / "state" / "usage"
        async with served(tmp_path, "--workers", "2", env=town.env) as gateway:
            await gateway.ready()
            load = Load(gateway.port, town.issuer, seed=3)
            running = asyncio.create_task(load.run(clients=8))
            await gateway.until(partial(has_answered, load, 100))
            for worker in await gateway.workers():
                os.kill(worker, signal.SIGSTOP)  # none may take over another's folder
            for worker in [gateway.process.pid, *await gateway.workers()]:
                os.kill(worker, signal.SIGKILL)
            await gateway.end()
            load.stop()
            await running
        flipped = damage(spool)

        await town.sink.server.start()
        async with served(tmp_path, "--workers", "2", env=town.env) as gateway:
            await gateway.ready()
            await everything_is_delivered(town.folder, gateway, lambda: len(town.sink.received))
            damaged = (await gateway.monitoring("/metrics")).text

        assert len(flipped) == 2
        delivered = {record["request_id"] for record in town.sink.records}
        whole = {name for name, asked in load.asked.items() if asked.is_whole}
        assert whole - delivered == whole & flipped
        assert set(town.sink.ids.values()) == {1}
        assert "usage_damaged_total 4" in damaged


def damage(spool: Path) -> set[str]:
    """In each worker's file a bit of one record is flipped, and half a record stands at the end; the flipped ones."""
    flipped = set()
    for file in spool.glob("*/*.log"):
        records = read_frames(file.read_bytes(), is_all=True)
        data = bytearray(file.read_bytes()[: records.end].rstrip(b"\0"))
        victim = records.payloads[len(records.payloads) // 2]
        flipped.add(json.loads(victim)["request_id"])
        data[data.index(victim) + 60] ^= 1
        file.write_bytes(data + write_frame(victim)[:100])
    return flipped


async def test_a_killed_stream_is_booked_with_the_tokens_of_its_last_checkpoint(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    provider.answer_with(pieces=["four letters and more "] * 20, input_tokens=31, hold_after=18)
    env = {k: v for k, v in default_env(provider, issuer, tmp_path / "state").items() if not k.endswith("_PORT")}
    spool = tmp_path / "state" / "usage"
    async with served(tmp_path, env=env) as gateway:
        await gateway.ready()
        async with await connect(gateway.port) as connection:
            await connection.send(relay_bytes(issuer, STREAMED))
            await (await connection.read_head()).next_chunk()

            async def is_noted() -> bool:
                with next(spool.glob("*/running")).open("rb") as table:
                    left, _ = read_table(table.fileno())
                return any(each.usage.output_tokens > 10 for each in left)

            await gateway.until(is_noted)
            gateway.process.kill()
            await gateway.end()
    assert read_spool(spool) == []

    async with served(tmp_path, env=env) as gateway:
        await gateway.ready()

        async def is_there() -> bool:
            figures = (await gateway.monitoring("/metrics")).text
            return 'usage_delivered_total{sink="rollup"} 1' in figures

        await gateway.until(is_there)
    report = await run(TORANA, "usage", "report", "--by", "outcome,model", "--json", env=env, folder=tmp_path)

    (row,) = json.loads(report[1])["rows"]
    assert (row["status"], row["calls"], row["input_tokens"]) == ("interrupted", 1, 31)
    assert row["output_tokens"] > 10
