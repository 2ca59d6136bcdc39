"""A disk that takes no usage record: never silent, by the operator's choice, and mended without a restart (US6)."""

import asyncio
import errno
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_usage import STREAMED, WHOLE, Way
from tests.promises.test_usage_delivery import counts, figure
from tests.support.disks import fill, small_file_system
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.limits import write_limits
from tests.support.usage import BrokenDisk, HeldDisk, read_spool
from tests.support.usage_sink import UsageSink, write_sinks
from tests.support.waiting import eventually

WAY = WHOLE[0]
USER = "X-Gitlab-Global-User-Id"
SHIPPED_OFF = {"name": "rollup", "type": "rollup", "enabled": False}
FAULTS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT]
OF_THE_DISK = pytest.mark.parametrize("fault", FAULTS, ids=[errno.errorcode[fault] for fault in FAULTS])


async def ask(gateway: RunningGateway, way: Way = WAY) -> Answer:
    return await gateway.post(**way.ask(gateway))


def delivering_nothing(folder: Path) -> dict[str, str]:
    """What was written stays in the spool: its one receiver is not there."""
    nobody = {"name": "billing", "type": "http", "url": "http://127.0.0.1:9/usage"}
    return {"AIGW_CATALOG": str(write_sinks(folder / "nobody", nobody, SHIPPED_OFF))}


async def until_spool_is(gateway: RunningGateway, *, full: bool) -> None:
    async def is_so() -> bool:
        return await figure(gateway, "usage_spool_full") == full

    await eventually(is_so)


@OF_THE_DISK
async def test_by_default_billable_requests_are_refused_until_the_disk_is_well_again(
    start_gateway: StartGateway, tmp_path: Path, fault: int
) -> None:
    disk = BrokenDisk()
    gateway = await start_gateway(env=delivering_nothing(tmp_path), disk=disk)
    assert (await ask(gateway)).status == 200
    disk.breaks = fault
    last = await ask(gateway)  # found out by this one, which is answered all the same
    await until_spool_is(gateway, full=True)

    refused = await ask(gateway)
    alive = await gateway.get("/monitoring/healthz")
    ready = (await gateway.monitoring("/readyz")).json()
    disk.breaks = 0
    await until_spool_is(gateway, full=False)
    served = await ask(gateway)

    assert (last.status, refused.status, served.status) == (200, 503, 200)
    assert refused.refusal.code == "usage_spool_full"
    assert refused.header("retry-after") is not None
    assert alive.status == 200
    assert ready["checks"]["usage_spool"]["ok"] is False
    assert await figure(gateway, "usage_at_risk_total") == 1
    records = gateway.usage()
    assert (
        len(records) == len({record["id"] for record in records}) == 3
    )  # those of all three answers, the last one too


async def test_what_a_full_disk_refuses_takes_from_no_limit(start_gateway: StartGateway, tmp_path: Path) -> None:
    disk = BrokenDisk()
    limits = write_limits(tmp_path / "nobody", "100 per day")
    gateway = await start_gateway(env=limits | delivering_nothing(tmp_path), disk=disk)
    disk.breaks = errno.ENOSPC
    seen = [(await ask(gateway)).status]  # this one may be answered all the same
    await until_spool_is(gateway, full=True)
    seen += [(await ask(gateway)).status for _ in range(3)]
    assert seen[1:] == [503] * 3
    disk.breaks = 0
    await until_spool_is(gateway, full=False)

    served = await ask(gateway)

    left = 100 - [*seen, served.status].count(200)
    assert (served.header("ratelimit") or "").startswith(f'"limit-0";r={left};')


@OF_THE_DISK
async def test_where_told_so_requests_go_on_and_are_counted_and_no_record_is_missing_later(
    start_gateway: StartGateway, tmp_path: Path, fault: int
) -> None:
    disk = BrokenDisk()
    gateway = await start_gateway(env={"AIGW_USAGE__WHEN_FULL": "continue"} | delivering_nothing(tmp_path), disk=disk)
    disk.breaks = fault

    answers = [await ask(gateway) for _ in range(3)]
    streamed = await ask(gateway, STREAMED[0])

    assert [answer.status for answer in (*answers, streamed)] == [200] * 4
    assert streamed.is_whole
    assert await figure(gateway, "usage_at_risk_total") == 4
    disk.breaks = 0
    await until_spool_is(gateway, full=False)
    records = gateway.usage()
    assert len(records) == len({record["id"] for record in records}) == 4


async def test_a_sync_that_failed_is_never_trusted_and_its_records_are_there_once(start_gateway: StartGateway) -> None:
    disk = BrokenDisk()
    disk.operations = frozenset(("sync",))
    gateway = await start_gateway(env={"AIGW_USAGE__WHEN_FULL": "continue"}, disk=disk)
    before = await ask(gateway)
    disk.breaks = errno.EIO

    during = await ask(gateway)
    disk.breaks = 0
    await until_spool_is(gateway, full=False)
    after = await ask(gateway)

    expected = [answer.header("x-request-id") for answer in (before, during, after)]
    assert [record["request_id"] for record in gateway.usage()] == expected


async def test_a_spool_that_cannot_be_made_does_not_stop_the_start(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    gateway = await start_gateway(env={"AIGW_USAGE__SPOOL_DIR": str(tmp_path / "file" / "usage")})

    refused = await ask(gateway)

    assert (refused.status, refused.refusal.code) == (503, "usage_spool_full")
    assert (await gateway.get("/monitoring/healthz")).status == 200
    assert (await gateway.log.find(message="no usage record can be written"))["level"] == "error"
    await until_spool_is(gateway, full=True)
    (tmp_path / "file").unlink()
    await until_spool_is(gateway, full=False)
    assert (await ask(gateway)).status == 200


async def test_a_spool_that_is_taken_away_is_told_and_goes_on_where_it_comes_back(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(env={"AIGW_USAGE__SPOOL_DIR": str(tmp_path / "usage")} | delivering_nothing(tmp_path))
    assert (await ask(gateway)).status == 200

    (tmp_path / "usage").rename(tmp_path / "elsewhere")
    await until_spool_is(gateway, full=True)
    refused = await ask(gateway)
    (tmp_path / "elsewhere").rename(tmp_path / "usage")
    await until_spool_is(gateway, full=False)

    assert (refused.status, refused.refusal.code) == (503, "usage_spool_full")
    assert (await ask(gateway)).status == 200
    assert len(read_spool(tmp_path / "usage")) == 2


async def test_the_log_names_what_the_system_says_and_takes_no_broken_disk_for_a_full_one(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    disk = BrokenDisk()
    disk.operations = frozenset(("reserve",))
    disk.breaks = errno.EIO
    gateway = await start_gateway(env=delivering_nothing(tmp_path), disk=disk)

    await until_spool_is(gateway, full=True)

    assert "EIO" in (await gateway.log.find(message="no usage record can be written"))["reason"]


async def test_readiness_tells_of_a_worker_without_space_whichever_worker_is_asked(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    disk, shared = BrokenDisk(), tmp_path / "shared"
    shared.mkdir()
    broken = await start_gateway(env=delivering_nothing(tmp_path), disk=disk, metrics_dir=shared)
    sound = await start_gateway(env=delivering_nothing(tmp_path), metrics_dir=shared)
    before = (await sound.monitoring("/readyz")).json()["checks"]["usage_spool"]

    disk.breaks = errno.ENOSPC
    await ask(broken)
    await until_spool_is(broken, full=True)
    ready = (await sound.monitoring("/readyz")).json()

    assert before["ok"] is True
    assert ready["checks"]["usage_spool"]["ok"] is False
    assert "1 other worker" in ready["checks"]["usage_spool"]["detail"]
    assert ready["ready"] is True


async def test_too_many_records_that_nobody_takes_count_as_a_full_disk(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "sinks.yml").write_text("- {name: rollup, type: http, url: 'http://127.0.0.1:9/'}")
    env = {"AIGW_CATALOG": str(tmp_path / "sinks"), "AIGW_USAGE__MAX_SPOOL_BYTES": "1000"}
    gateway = await start_gateway(env=env)
    await until_spool_is(gateway, full=True)

    assert (await ask(gateway)).refusal.code == "usage_spool_full"


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 1 MiB and few inodes."""
    with small_file_system(tmp_path / "small", "size=1m,nr_inodes=64") as place:
        yield place


@pytest.mark.parametrize("how", ["space", "inodes"])
async def test_a_file_system_that_runs_full_loses_no_record(
    start_gateway: StartGateway, small_disk: Path, how: str
) -> None:
    gateway = await start_gateway(env={"AIGW_USAGE__SPOOL_DIR": str(small_disk / "usage")})
    answered = [await ask(gateway) for _ in range(3)]
    rest = fill(small_disk, how)

    count = len(answered)
    while (answer := await ask(gateway)).status == 200 and count < (1000 if how == "space" else 30):
        count += 1
    if how == "space":
        assert answer.refusal.code == "usage_spool_full"
    shutil.rmtree(rest)
    await until_spool_is(gateway, full=False)
    last = await ask(gateway)

    assert last.status == 200
    records = read_spool(small_disk / "usage")
    assert len({record["id"] for record in records}) == count + (answer.status == 200) + 1
    assert await figure(gateway, "usage_at_risk_total") == 0


async def test_records_that_everybody_has_make_room_on_a_small_disk(
    start_gateway: StartGateway, small_disk: Path, tmp_path: Path
) -> None:
    sinks = write_sinks(tmp_path / "sinks", {"name": "rollup", "type": "file", "path": str(tmp_path / "usage.jsonl")})
    env = {"AIGW_USAGE__SPOOL_DIR": str(small_disk / "usage"), "AIGW_CATALOG": str(sinks)}
    gateway = await start_gateway(env=env)

    statuses = Counter([(await ask(gateway)).status for _ in range(900)])
    await until_spool_is(gateway, full=False)

    assert (await ask(gateway)).status == 200
    assert statuses.keys() <= {200, 503}
    assert await figure(gateway, "usage_records_total") == statuses[200] + 1
    assert await figure(gateway, "usage_at_risk_total") == 0


async def test_a_full_disk_does_not_keep_the_rollup_from_records_that_would_make_room(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    with small_file_system(tmp_path / "disk", "size=12m") as disk:
        gateway = await start_gateway(env={"AIGW_USAGE__SPOOL_DIR": str(disk / "usage")})
        assert (await ask(gateway)).status == 200
        await counts(gateway, 'usage_delivered_total{sink="rollup"}', 1)
        fill(disk, "space")

        async def ask_as(user: str) -> Answer:
            asking = WAY.ask(gateway)
            return await gateway.post(**asking | {"headers": {**asking.get("headers", {}), USER: user}})

        statuses = Counter([(await ask_as(f"{number}-{'x' * 100}")).status for number in range(300)])
        await until_spool_is(gateway, full=False)

        assert (await ask(gateway)).status == 200
        assert statuses[200]  # how many depends on how fast each is
        assert statuses.keys() <= {200, 503}
        assert await figure(gateway, "usage_at_risk_total") == 0


async def test_records_that_everybody_has_make_room_for_those_that_wait_in_memory(
    start_gateway: StartGateway, small_disk: Path, tmp_path: Path
) -> None:
    async with UsageSink() as receiver:
        receiver.verdict = lambda _records: 503
        alone = ({"name": "billing", "type": "http", "url": receiver.url}, SHIPPED_OFF)
        env = {
            "AIGW_USAGE__SPOOL_DIR": str(small_disk / "usage"),
            "AIGW_USAGE__WHEN_FULL": "continue",
            "AIGW_CATALOG": str(write_sinks(tmp_path / "sinks", *alone)),
        }
        gateway = await start_gateway(env=env)
        assert (await ask(gateway)).status == 200
        fill(small_disk, "space")
        count = 1
        while not await figure(gateway, "usage_stuck_records") and count < 1000:
            count += len(await asyncio.gather(*[ask(gateway) for _ in range(20)]))

        receiver.verdict = lambda _records: 204

        assert len(await receiver.has(count)) == count
        assert await figure(gateway, "usage_lost_total") == 0


async def test_a_disk_that_does_not_answer_holds_nobody_up_for_long(start_gateway: StartGateway) -> None:
    disk = HeldDisk()
    gateway = await start_gateway(disk=disk)
    disk.hold()

    waited, streamed = await asyncio.gather(ask(gateway), ask(gateway, STREAMED[0]))
    refused = await ask(gateway)
    at_risk = await figure(gateway, "usage_at_risk_total")
    disk.release()
    await until_spool_is(gateway, full=False)

    assert (waited.status, streamed.status, streamed.is_whole) == (200, 200, True)
    assert refused.refusal.code == "usage_spool_full"
    assert at_risk == len(gateway.usage()) == 2
