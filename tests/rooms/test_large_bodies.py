"""Long bodies are worked on one in a turn, instance by instance, after whoever came meanwhile."""

import asyncio
from collections import Counter

import pytest

from torana.api.large_bodies import FEW, LargeBodies
from torana.errors import Refusal


class Stage:
    """Large bodies, a line before them in which as many wait as the test says, and a clock that they move."""

    def __init__(self, takes_s: float = 0.3) -> None:
        self.waiting = 0
        self.time_s = 0.0
        self.takes_s = takes_s
        self.larges = 0
        self.taken: list[str] = []
        self.reasons = Counter[str]()
        self.bodies = LargeBodies(self, self.shed, 1.0, {}, now=lambda: self.time_s)

    def note_large(self) -> None:
        self.larges += 1

    def shed(self, reason: str) -> None:
        self.reasons[reason] += 1

    async def take(self, name: str, instance: str = "one", size: int = 100_000) -> str:
        try:
            await self.bodies.take_turn(instance, size)
        except Refusal as refusal:
            return f"{refusal.status} {refusal.code}"
        self.taken.append(name)
        self.time_s += self.takes_s
        return "taken"

    def come(self, *names: str, instance: str = "one", size: int = 100_000) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.take(name, instance, size)) for name in names]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_two_large_bodies_share_a_turn() -> None:
    stage, turn = Stage(), 0
    at: list[int] = []
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    async def take(name: str) -> None:
        await stage.take(name)
        at.append(turn)

    loop.call_soon(count)
    gone = asyncio.create_task(take("gone"))
    others = [asyncio.create_task(take(name)) for name in "abc"]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*others)
    await asyncio.gather(*(asyncio.create_task(take(name)) for name in "de"))

    assert stage.taken == list("abcde")
    assert sorted(set(at)) == at
    assert stage.larges == 5


async def test_whoever_leaves_in_its_turn_holds_nobody_up() -> None:
    stage = Stage()
    first, second = stage.come("first", "second")
    while not stage.taken:
        first.cancel()  # in each turn, that of its own included
        await asyncio.sleep(0)

    assert stage.taken == ["second"]
    assert await second == "taken"


async def test_whoever_waits_in_line_goes_first_for_as_long_as_the_last_one_took() -> None:
    stage = Stage(takes_s=0.3)
    await stage.take("first")
    stage.waiting = 1
    stage.come("second")
    await turns()
    assert stage.taken == ["first"]

    stage.waiting = 0
    await turns()
    assert stage.taken == ["first", "second"]

    stage.waiting = 1
    stage.come("third")
    await turns()
    assert stage.taken == ["first", "second"]

    stage.time_s += 0.3
    await turns()
    assert stage.taken == ["first", "second", "third"]


async def test_instances_take_turns_and_pay_by_size() -> None:
    stage = Stage(takes_s=0.01)

    await asyncio.gather(
        *stage.come("a1", "a2", "a3", instance="a", size=400_000),
        *stage.come("b1", "b2", "b3", "b4", "b5", instance="b", size=100_000),
    )

    assert stage.taken == ["a1", "b1", "b2", "b3", "b4", "a2", "b5", "a3"]


async def test_where_they_take_long_the_instance_that_waits_for_most_is_turned_away() -> None:
    stage = Stage(takes_s=1.0)
    await asyncio.gather(*stage.come("1", "2", "3"))  # known to take about half a second by now

    crowd = stage.come(*map(str, range(FEW + 2)), instance="a")
    (other,) = stage.come("b", instance="b")

    assert [await each for each in crowd] == ["taken"] * (FEW - 1) + ["503 overloaded"] * 3
    assert await other == "taken"
    assert stage.reasons == {"full": 2, "overtaken": 1}


@pytest.mark.parametrize("takes_s", [0.0, 0.001])
async def test_where_they_take_little_nobody_is_turned_away(takes_s: float) -> None:
    stage = Stage(takes_s=takes_s)

    told = await asyncio.gather(*stage.come(*map(str, range(1000))))

    assert set(told) == {"taken"}
    assert not stage.reasons
