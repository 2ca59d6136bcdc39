"""The long forms of RE1 to RE12: real servers, a real store, faults between them (`make drills`)."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Serve, StartGateway
from tests.rooms.test_limits_line import Told, cancel_at_random
from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import RunningGateway, gitlab_headers
from tests.support.http_client import connect, write_request
from tests.support.issuer import FakeIssuer
from tests.support.limits import PATH, ask, body, write_limits
from tests.support.provider import ScriptedProvider
from tests.support.served import Served
from tests.support.valkey import REDIS, VALKEY, Store
from tests.support.waiting import eventually

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]

UNHURRIED = {"AIGW_ADMISSION__QUEUE_S": "30", "AIGW_AUTH__FAILURES_PER_MINUTE": "0"}
PATIENT = {"AIGW_LIMITS__PATIENCE_S": "2"}
"""Where counts are tested: a machine with more workers than cores takes its time."""


@pytest.fixture(params=["valkey", "redis-server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The embedded Valkey, and Debian's Redis where it is installed."""
    executable = VALKEY if request.param == "valkey" else REDIS
    if executable is None:
        pytest.skip("redis-server is not installed")
    found = Store(tmp_path, executable=executable)
    yield found
    found.stop()


def exact(limit: str, **members: Any) -> dict[str, Any]:
    return {"limit": limit, "exact": True, **members}


async def status_of(server: Served, issuer: FakeIssuer, user: str = "mia", **asked: Any) -> int:
    headers = gitlab_headers(issuer.token(unit_primitives=["duo_chat"])) | {"X-Gitlab-Global-User-Id": user}
    try:
        async with await connect(server.port) as connection:
            await connection.send(write_request("POST", PATH, headers, json.dumps(body(**asked)).encode()))
            return (await connection.read_answer()).status
    except (OSError, EOFError, ValueError):
        return 0


async def is_shared(gateway: RunningGateway, count: float) -> bool:
    text = (await gateway.monitoring("/metrics")).body.decode()
    return f"\ntorana_limits_shared {count:g}\n" in text


async def test_re7_no_reply_reaches_another_caller_in_ten_thousand_cancellations(store: Store) -> None:
    async with Told(store.url) as told:
        replies = await cancel_at_random(await told.up(), 17_000, random.Random(1))

        assert replies >= 6_800  # of 17,000 calls 60 in 100 are cancelled, wherever they are
        assert told.changes == [(True, "")]


@pytest.mark.parametrize("is_exact", [True, False])
async def test_re10_three_servers_of_four_workers_and_one_killed(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer, store: Store, tmp_path: Path, is_exact: bool
) -> None:
    limit = {"limit": "100 per hour", "exact": is_exact}
    env = wired | write_limits(tmp_path / "overlay", limit) | UNHURRIED | PATIENT | {"AIGW_REDIS_URL": store.url}
    servers = [
        await serve("--workers", "4", env=env | {"AIGW_STATE_DIR": str(tmp_path / f"s{n}")}, folder=tmp_path / f"f{n}")
        for n in range(3)
    ]

    first = await asyncio.gather(*(status_of(servers[n % 3], issuer, str(n)) for n in range(60)))
    for pid in (*await servers[0].workers(), servers[0].process.pid):
        os.kill(pid, signal.SIGKILL)
    second = await asyncio.gather(*(status_of(servers[1 + n % 2], issuer, str(n)) for n in range(140)))

    passed = first.count(200) + second.count(200)
    assert first.count(200) == 60
    assert (100 if is_exact else 100 - 2 * 5) <= passed <= 100


async def test_re12_a_quota_that_is_almost_used_up_is_not_overdrawn(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer, provider: ScriptedProvider, store: Store, tmp_path: Path
) -> None:
    env = wired | write_limits(tmp_path / "overlay", exact("10000 output tokens per 24 hours")) | UNHURRIED | PATIENT
    server = await serve("--workers", "4", env=env | {"AIGW_REDIS_URL": store.url})
    provider.answer_with(output_tokens=100)

    seen = Counter(
        await asyncio.gather(*(status_of(server, issuer, params={"max_tokens_to_sample": 100}) for _ in range(200)))
    )

    assert (seen[200], seen[429]) == (100, 100)


async def test_re2_a_frozen_store_adds_no_more_than_fifty_milliseconds(
    start_gateway: StartGateway, store: Store, tmp_path: Path
) -> None:
    env = write_limits(tmp_path / "overlay", exact("100000 per hour")) | {"AIGW_REDIS_URL": store.url} | UNHURRIED
    gateway = await start_gateway(env)
    await eventually(lambda: is_shared(gateway, 1))
    usual = await durations(gateway, 100)

    store.freeze()
    frozen = await durations(gateway, 300)

    assert quantile(frozen, 0.99) <= quantile(usual, 0.99) + 0.050 + 0.020  # the tests' own noise
    store.thaw()
    await eventually(lambda: is_shared(gateway, 1), within_s=15)


async def test_re3_a_slow_store_is_left_alone(start_gateway: StartGateway, store: Store, tmp_path: Path) -> None:
    chance = random.Random(5)
    async with FaultProxy(store.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        env = write_limits(tmp_path / "overlay", exact("100000 per hour")) | {"AIGW_REDIS_URL": url} | UNHURRIED
        gateway = await start_gateway(env)
        await eventually(lambda: is_shared(gateway, 1))
        usual = await durations(gateway, 100)

        proxy.latency_s = 0.2
        slow = await durations(gateway, 200)
        proxy.delay = lambda: 1.0 if chance.random() < 0.1 else 0.0
        uneven = await durations(gateway, 400)

        for found in (slow, uneven):
            assert quantile(found, 0.99) <= quantile(usual, 0.99) + 0.050 + 0.020


async def test_re4_flapping_makes_no_storm_no_flood_of_lines_and_no_way_round_the_limit(
    start_gateway: StartGateway, store: Store, tmp_path: Path
) -> None:
    async with FaultProxy(store.port) as proxy:
        told = {"AIGW_REDIS_URL": f"redis://127.0.0.1:{proxy.port}", "AIGW_LIMITS__REPLICAS": "2"} | UNHURRIED
        gateway = await start_gateway(write_limits(tmp_path / "overlay", "60 per hour") | told)
        await eventually(lambda: is_shared(gateway, 1))
        passed, began = 0, time.monotonic()

        while time.monotonic() - began < 120:
            proxy.refuses = not proxy.refuses
            if proxy.refuses:
                proxy.reset_all()
            until = time.monotonic() + 2
            while time.monotonic() < until:
                passed += (await ask(gateway)).status == 200
                await asyncio.sleep(0.05)

        changes = [line for line in gateway.log.lines if str(line.get("message", "")).startswith("limits are")]
        assert passed <= 60 + 30  # the limit, and once this server's share
        assert proxy.connections <= 150
        assert len(changes) <= 65


async def durations(gateway: RunningGateway, count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        assert (await ask(gateway)).status == 200
        found.append(time.perf_counter() - began)
    return sorted(found)


def quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
