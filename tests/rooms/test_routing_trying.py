"""Trying: whoever hangs up just as an answer begins leaves nothing behind."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress

import pytest
from tests.support.waiting import eventually

from torana.clock import Clock
from torana.errors import Refusal
from torana.providers.provider import Deployment
from torana.routing.models import Model
from torana.routing.traffic import Traffic
from torana.routing.tries import Candidate, Route
from torana.routing.trying import Opened, Trying
from torana.settings import RoutingSettings
from torana.telemetry.metrics import Known, Metrics


class Race:
    """A hedged call to two deployments with one place each, which answer when they are told to."""

    def __init__(self, queue_s: float = 60.0) -> None:
        self.traffic = Traffic(RoutingSettings(queue_s=queue_s), Clock(), Metrics(Known()))
        deployments = tuple(Deployment(provider=name, model="m", concurrency=1) for name in ("a", "b"))
        self.candidates = tuple(Candidate(each, self.traffic.book.of(each), "") for each in deployments)
        self.route = Route(Model(name="m", deployments=deployments), self.candidates, 2, "party")
        self.told = {each.provider: asyncio.Event() for each in deployments}
        self.asked: list[str] = []
        self.closed: list[str] = []

    def begin(self, hedge_after_s: float = 0.001) -> "asyncio.Task[Opened[str]]":
        deadline = asyncio.get_running_loop().time() + 60
        trying = Trying(
            self.traffic, self.route, self._open, deadline, hedge_after_s=hedge_after_s, close_one=self._close
        )
        return asyncio.create_task(trying.run())

    async def _open(self, deployment: Deployment) -> str:
        self.asked.append(deployment.provider)
        await self.told[deployment.provider].wait()
        return deployment.provider

    async def both_are_asked(self) -> None:
        async def are() -> bool:
            return len(self.asked) == 2

        await eventually(are)

    async def _close(self, name: str) -> None:
        self.closed.append(name)

    @property
    def places(self) -> list[int]:
        """How many are taken at each, and how many calls count as under way there."""
        turnstiles = [each.health.places for each in self.candidates]
        return [each.in_use for each in turnstiles if each] + [each.health.in_flight for each in self.candidates]


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("answering", ["a", "b", "ab"])
async def test_who_leaves_as_a_hedged_call_is_answered_leaves_no_place_taken(
    answering: Sequence[str], turns: int
) -> None:
    race = Race()
    call = race.begin()
    await race.both_are_asked()

    for name in answering:
        race.told[name].set()
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()
    read: list[str] = []
    with suppress(asyncio.CancelledError):
        opened = await call
        read.append(opened.result)
        opened.under_way.end()
    await race.traffic.aclose()

    assert race.places == [0, 0, 0, 0]
    assert sorted(race.closed + read) == sorted(answering)
    assert len(race.route.tries) == 2


@pytest.mark.parametrize("hedge_after_s", [0.0, 0.001])
async def test_where_no_place_comes_free_one_of_little_promise_is_asked_that_has_room(hedge_after_s: float) -> None:
    race = Race(queue_s=0.01)
    first, second = (each.health for each in race.candidates)
    assert first.places is not None
    first.places.take("others")
    second.shun_until = math.inf
    race.told["b"].set()

    opened = await race.begin(hedge_after_s)
    opened.under_way.end()

    assert (opened.result, race.asked, race.places) == ("b", ["b"], [1, 0, 0, 0])


async def test_where_no_place_comes_free_anywhere_the_call_is_refused() -> None:
    race = Race(queue_s=0.01)
    for each in race.candidates:
        assert each.health.places is not None
        each.health.places.take("others")

    with pytest.raises(Refusal) as refused:
        await race.begin()

    assert (refused.value.code, race.asked, race.places) == ("overloaded", [], [1, 1, 0, 0])
