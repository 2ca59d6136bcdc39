"""OV4, OV6, OV8 and OV12: more work than one core can do. Real processes; run by `make drills`.

The gateway has the first core, the load the last one. The load is an open loop: it keeps its rate whatever the answers
do. The demo answers, so that the gateway alone is what is short of time.
"""

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bench import processes, servers
from bench.load import Job, Result

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]

PATH = "/v1/prompts/model_configuration/check"
SECONDS = 5.0
LIVENESS_S = 0.1


@dataclass
class Stage:
    """The gateway, and what it can do a second when it is asked by 32 at once."""

    gateway: servers.Gateway
    job: Job
    capacity: float = 0.0


@pytest.fixture
async def stage(tmp_path: Path) -> Any:
    with ExitStack() as stack:
        mock = stack.enter_context(servers.provider(tmp_path))
        gateway = stack.enter_context(servers.gateway(tmp_path, mock.port, AIGW_MOCK_MODEL_RESPONSES="true"))
        stage = Stage(gateway, Job(gateway.port, PATH, lower(gateway.headers), '{"inputs":{}}', duration_s=SECONDS))
        await run(replace(stage.job, duration_s=1.0))
        full = await run(replace(stage.job, duration_s=3.0))
        stage.capacity = full.requests / full.seconds
        yield stage


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()} | {"content-type": "application/json"}


async def run(job: Job) -> Result:
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(processes.LOAD_CORE), sys.executable, "-m", "bench.load", json.dumps(asdict(job)),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    told, _ = await process.communicate()
    return Result(**json.loads(told))


async def slowest_probe(port: int, end: asyncio.Event) -> float:
    slowest_s = 0.0
    while not end.is_set():
        begun = time.perf_counter()
        status = await asyncio.to_thread(processes.status_of, port, "/monitoring/healthz")
        slowest_s = max(slowest_s, time.perf_counter() - begun)
        assert status == 200
        await asyncio.sleep(0.05)
    return slowest_s


async def at(stage: Stage, times: float) -> tuple[float, Result, float]:
    """(answers per second as a share of capacity, the result, the slowest probe in seconds) at `times` capacity."""
    end = asyncio.Event()
    probing = asyncio.create_task(slowest_probe(stage.gateway.port, end))
    result = await run(replace(stage.job, rate=stage.capacity * times, concurrency=64))
    end.set()
    share = result.statuses.get("200", 0) / SECONDS / stage.capacity
    print(f"{times:g}x: {share:.0%} answered, {result.statuses}, p99 {result.p99_ms:.1f} ms, "
          f"refused p99 {result.refused_p99_ms:.1f} ms")  # fmt: skip
    return share, result, await probing


@pytest.mark.parametrize(("times", "share"), [(2.0, 0.9), (5.0, 0.7)])
async def test_most_of_the_capacity_goes_into_answers_however_many_ask(
    stage: Stage, times: float, share: float
) -> None:
    answered, result, slowest_s = await at(stage, times)

    assert answered >= share
    assert set(result.statuses) <= {"200", "503"}
    assert slowest_s < LIVENESS_S


async def test_after_a_flood_everything_is_as_before(stage: Stage) -> None:
    _, before, _ = await at(stage, 0.5)

    await at(stage, 5.0)
    await asyncio.sleep(1)
    answered, after, _ = await at(stage, 0.5)

    assert answered > 0.49
    assert set(after.statuses) == {"200"}
    assert after.p99_ms < 2 * before.p99_ms + 5


async def test_a_busy_instance_is_turned_away_before_a_quiet_one(stage: Stage) -> None:
    quiet = replace(
        stage.job,
        headers=lower(servers.token_headers(stage.gateway.env, "--instance-id", "quiet")),
        rate=stage.capacity * 0.2,
        concurrency=8,
    )
    alone = await run(quiet)

    busy, beside = await asyncio.gather(run(replace(stage.job, rate=stage.capacity * 2, concurrency=64)), run(quiet))

    print(f"busy {busy.statuses}, quiet {beside.statuses}, p99 {alone.p99_ms:.1f} → {beside.p99_ms:.1f} ms")
    assert busy.statuses["503"] > 0
    assert set(beside.statuses) == {"200"}


def test_the_stage_has_two_cores() -> None:
    assert processes.MEASURED_CORE != processes.LOAD_CORE, "with one core, load and gateway disturb each other"
