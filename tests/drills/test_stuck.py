"""LC4: a worker that does not move. Real processes; run by `make drills`."""

import os
import signal

import pytest
from tests.conftest import Serve

pytestmark = [pytest.mark.drill, pytest.mark.timeout(60)]


async def test_a_worker_that_does_not_move_is_replaced(serve: Serve, wired: dict[str, str]) -> None:
    server = await serve("--workers", "2", env=wired)
    stuck, well = await server.workers()
    os.kill(stuck, signal.SIGSTOP)

    async def replaced() -> bool:
        return len(found := await server.workers()) == 2 and stuck not in found

    await server.until(replaced)

    assert well in await server.workers()
    assert f"worker 0 (pid {stuck}) has been stuck for 10 s" in server.stderr
    assert (await server.ask("/monitoring/healthz")).status == 200


async def test_a_worker_that_does_not_move_keeps_no_server_from_its_end(serve: Serve) -> None:
    server = await serve("--workers", "2")
    stuck, _ = await server.workers()
    os.kill(stuck, signal.SIGSTOP)

    server.process.send_signal(signal.SIGTERM)

    assert await server.end() == 0
