"""Clients that leave after each step of the event loop that their call takes, whatever its way (promise CL1)."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.fleet import CODE, PATH, running_fleet
from tests.support.invariants import unharmed
from tests.support.provider import Script

STEPS = range(40)
"""A call that nothing holds up takes some 25."""
TWO = ({"provider": "a"}, {"provider": "b", "order": 1})
NARROW = ({"provider": "a", "concurrency": 1},)


@dataclass(frozen=True)
class Way:
    """One that calls go; all that leave together take the same one."""

    deployments: tuple[dict[str, Any], ...] = TWO
    path: str = PATH
    stream: bool = False
    model: str = ""
    limits: str = "[]"
    env: dict[str, str] = field(default_factory=dict)
    first: Script = field(default_factory=Script)
    """What the first vendor does."""
    together: int = 1


WAYS = {
    "whole": Way(),
    "streamed": Way(stream=True),
    "code": Way(path=CODE),
    "asked elsewhere": Way(first=Script(status=500), env={"AIGW_ROUTING__FAILURES_TO_REST": "0"}),
    "hedged": Way(first=Script(hold_after=0), model=", hedge_after_s: 0.001"),
    "in a queue": Way(NARROW, together=3),
    "streamed, in a queue": Way(NARROW, stream=True, together=3),
    "limited": Way(
        limits="[{name: few, limit: 2 concurrent streams per instance}, {name: much, limit: 1000000 tokens per day}]"
    ),
}


@contextmanager
def faults() -> Iterator[list[str]]:
    """What the event loop is told of meanwhile, exceptions included that nobody has looked at."""
    loop, found = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _loop, context: found.append(str(context)))
    yield found
    gc.collect()
    loop.set_exception_handler(None)


@pytest.mark.parametrize("name", WAYS)
async def test_who_leaves_at_any_step_leaves_one_line_one_record_and_no_place_taken(
    start_gateway: StartGateway, tmp_path: Path, name: str
) -> None:
    way, folder = WAYS[name], tmp_path / "fleet"
    folder.mkdir()
    (folder / "limits.yml").write_text(way.limits)
    fleets = running_fleet(start_gateway, folder, way.deployments, env=way.env, model=way.model)
    async with fleets as fleet, unharmed(fleet.gateway) as watch:
        watch.providers = len(way.deployments)
        gateway, body = fleet.gateway, fleet.body(way.path, stream=way.stream)
        with faults() as found:
            for steps in STEPS:
                fleet["a"].follow(way.first)
                connections = [await gateway.connect() for _ in range(way.together)]
                for connection in connections:
                    gateway.asked += 1
                    connection.writer.write(gateway.request_bytes("POST", way.path, json=body, token=fleet.token()))
                for _ in range(steps):
                    await asyncio.sleep(0)
                for connection in connections:
                    connection.reset()
        fleet["a"].release()
        fleet["a"].follow(Script())

        assert (await fleet.ask(way.path)).status == 200

    healths = list(gateway.running.parts.traffic.book)
    places = [health.places.in_use + health.places.waiting for health in healths if health.places is not None]
    assert (found, [health.in_flight for health in healths], set(places) | {0}) == ([], [0] * len(healths), {0})
