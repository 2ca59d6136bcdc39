"""Workers die at any moment, and no usage record is lost or doubled (US4, US5, US12). Real processes, real kills."""

import asyncio
import json
import os
import signal
from functools import partial
from pathlib import Path

from tests.promises.test_process import STREAMED, relay_bytes
from tests.support.gateway import default_env
from tests.support.http_client import connect
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.served import TORANA, run, served
from tests.support.town import Town, everything_is_delivered, has_answered, run_with_deaths
from tests.support.usage import read_spool
from tests.support.usage_load import Load, check_books

from torana.usage.frames import read_frames, write_frame
from torana.usage.running import read_table


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
