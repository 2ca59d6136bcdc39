"""Limits where several processes count: one count for all workers of a server."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Serve
from tests.support.disks import fill, small_file_system
from tests.support.gateway import gitlab_headers
from tests.support.http_client import connect, write_request
from tests.support.issuer import FakeIssuer
from tests.support.limits import PATH, body, write_limits
from tests.support.provider import ScriptedProvider
from tests.support.served import TORANA, Served, run


async def ask(server: Served, issuer: FakeIssuer, user: str = "mia") -> int:
    """The status of one call over a connection of its own, which ends at any of the workers."""
    headers = gitlab_headers(issuer.token(unit_primitives=["duo_chat"])) | {"X-Gitlab-Global-User-Id": user}
    async with await connect(server.port) as connection:
        await connection.send(write_request("POST", PATH, headers, json.dumps(body()).encode()))
        return (await connection.read_answer()).status


async def test_of_200_calls_at_four_workers_exactly_100_pass(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer, tmp_path: Path
) -> None:
    env = wired | write_limits(tmp_path / "overlay", "100 per minute per user")
    server = await serve("--workers", "4", env=env)

    seen = await asyncio.gather(*(ask(server, issuer) for _ in range(200)))

    assert (seen.count(200), seen.count(429)) == (100, 100)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "small", "size=12m") as place:
        yield place


def count_tables(place: Path) -> int:
    return len([each for each in place.glob("*/worker-*") if each.stat().st_size])


async def test_workers_whose_disk_runs_full_serve_on_and_count_on(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer, tmp_path: Path, small_disk: Path
) -> None:
    limits = write_limits(tmp_path / "overlay", "1 per hour per user")
    server = await serve("--workers", "2", env=wired | limits | {"PROMETHEUS_MULTIPROC_DIR": str(small_disk)})
    workers = await server.workers()

    async def have_tables() -> bool:
        return count_tables(small_disk) == len(workers)

    await server.until(have_tables)  # one is ready before the other
    fill(small_disk, "space")

    users = [f"user {number}" for number in range(200)]
    first = [await ask(server, issuer, user) for user in users]
    second = [await ask(server, issuer, user) for user in users]

    assert (set(first), set(second)) == ({200}, {429})
    assert (await server.monitoring("/metrics")).status == 200
    assert await server.workers() == workers


async def test_a_disk_that_has_no_room_for_the_workers_tables_is_told_at_the_start(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "full", "size=1m") as place:
        env = {"PROMETHEUS_MULTIPROC_DIR": str(place)}
        code, _, errors = await run(
            TORANA, "serve", "--workers", "2", "--port", "0", "--metrics-port", "0", env=env, folder=tmp_path
        )

    assert (code, errors.split(", ")[0]) == (
        2,
        f"PROMETHEUS_MULTIPROC_DIR: {str(place)!r} cannot be used (No space left on device)",
    )


async def test_a_killed_workers_streams_are_free_again(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer, provider: ScriptedProvider, tmp_path: Path
) -> None:
    limits = write_limits(tmp_path / "overlay", "2 concurrent streams per user")
    server = await serve("--workers", "2", env=wired | limits)
    provider.stall()
    under_way = [asyncio.create_task(ask(server, issuer)) for _ in range(2)]
    await provider.request(2)
    assert await ask(server, issuer) == 429

    for pid in await server.workers():
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*under_way, return_exceptions=True)
    provider.answer_with()

    async def is_free() -> bool:
        return await ask(server, issuer) == 200

    assert await server.until(is_free)
