"""The turnstile: never more than its places, a short wait, and fair to parties."""

import asyncio
import random

import pytest
from tests.support.clock import HandClock

from torana.routing.turnstile import Full, Turnstile

LONG_S = 30.0


async def wait_at(turnstile: Turnstile, party: str, patience_s: float = LONG_S) -> asyncio.Task[None]:
    """A call that stands in the queue, or is in already."""
    task = asyncio.create_task(turnstile.enter(party, patience_s))
    await asyncio.sleep(0)
    return task


async def dismiss(queue: list[asyncio.Task[None]]) -> None:
    """All of them give up."""
    for task in queue:
        task.cancel()
    await asyncio.gather(*queue, return_exceptions=True)


async def test_so_many_get_in_and_one_more_waits_for_a_place() -> None:
    turnstile = Turnstile(2)
    await turnstile.enter("a", 0)
    await turnstile.enter("a", 0)
    assert turnstile.is_full

    waiting = await wait_at(turnstile, "a")
    assert (waiting.done(), turnstile.waiting) == (False, 1)

    turnstile.leave("a")
    await waiting
    assert (turnstile.in_use, turnstile.waiting) == (2, 0)


async def test_patience_ends() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter("a", 0)

    with pytest.raises(Full):
        await turnstile.enter("b", 0.001)
    turnstile.leave("a")
    assert (turnstile.in_use, turnstile.waiting) == (0, 0)


async def test_the_party_with_the_fewest_places_is_next_then_who_came_first() -> None:
    turnstile = Turnstile(3)
    for _ in range(3):
        await turnstile.enter("hot", 0)
    order: list[str] = []

    async def enter(party: str) -> None:
        await turnstile.enter(party, LONG_S)
        order.append(party)

    tasks = []
    for party in ("hot", "hot", "hot", "b", "c", "b"):
        tasks.append(asyncio.create_task(enter(party)))
        await asyncio.sleep(0)
    for _ in range(3):
        turnstile.leave("hot")
        await asyncio.sleep(0)
    assert order == ["b", "c", "hot"]
    turnstile.leave("hot")
    await asyncio.sleep(0)
    assert order[3:] == ["hot"]  # nobody of hot's is in any more, b and c have one each
    for party in ("hot", "b"):
        turnstile.leave(party)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert sorted(order[4:]) == ["b", "hot"]


async def test_who_is_leaving_by_itself_makes_room_too() -> None:
    turnstile = Turnstile(1, max_waiting=2)
    await turnstile.enter("hot", 0)
    queue = [await wait_at(turnstile, "hot") for _ in range(2)]

    other = asyncio.create_task(turnstile.enter("other", LONG_S))
    queue[-1].cancel()  # and before it has gone, the other one comes
    await asyncio.gather(queue[-1], return_exceptions=True)

    assert (other.done(), turnstile.waiting) == (False, 2)
    for party, task in (("hot", queue[0]), ("hot", other)):
        turnstile.leave(party)
        await task
    turnstile.leave("other")
    assert (turnstile.in_use, turnstile.waiting) == (0, 0)


async def test_a_full_queue_turns_the_hot_party_away_and_not_the_others() -> None:
    turnstile = Turnstile(2, max_waiting=4)
    for _ in range(2):
        await turnstile.enter("hot", 0)
    queue = [await wait_at(turnstile, "hot") for _ in range(4)]

    with pytest.raises(Full):
        await turnstile.enter("hot", LONG_S)
    other = await wait_at(turnstile, "other")
    with pytest.raises(Full):
        await queue[-1]  # who came last makes room
    assert turnstile.waiting == 4

    turnstile.leave("hot")
    await other
    for task in queue[:3]:
        task.cancel()


async def test_who_has_most_places_makes_room_though_few_of_its_calls_wait() -> None:
    turnstile = Turnstile(4, max_waiting=4)
    for _ in range(4):
        await turnstile.enter("hot", 0)
    hot, *others = [await wait_at(turnstile, party) for party in ("hot", "a", "b", "c")]

    others.append(await wait_at(turnstile, "a"))

    with pytest.raises(Full):
        await hot
    with pytest.raises(Full):
        await turnstile.enter("hot", LONG_S)
    with pytest.raises(Full):
        await turnstile.enter("a", LONG_S)  # nobody who waits has more than it
    for task in others:
        task.cancel()


async def test_who_would_be_turned_away_is_told_without_coming_in() -> None:
    turnstile = Turnstile(2, max_waiting=2)
    assert not turnstile.turns_away("hot", LONG_S)
    for _ in range(2):
        await turnstile.enter("hot", 0)
    queue = [await wait_at(turnstile, "hot")]
    assert not turnstile.turns_away("hot", LONG_S)  # one more may wait
    queue.append(await wait_at(turnstile, "hot"))

    assert turnstile.turns_away("hot", LONG_S)
    assert not turnstile.turns_away("other", LONG_S)  # for it, one of hot's makes room
    assert (turnstile.in_use, turnstile.waiting) == (2, 2)

    turnstile.leave("hot")
    await queue[0]
    assert not turnstile.turns_away("hot", LONG_S)
    queue[1].cancel()


async def test_who_leaves_the_queue_leaves_nothing_behind() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter("a", 0)
    waiting = await wait_at(turnstile, "b")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    turnstile.leave("a")
    assert (turnstile.in_use, turnstile.waiting) == (0, 0)


async def test_a_place_that_comes_as_its_waiter_leaves_goes_to_the_next() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter("a", 0)
    first, second = await wait_at(turnstile, "b"), await wait_at(turnstile, "c")

    turnstile.leave("a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    await second
    assert turnstile.in_use == 1


async def test_more_places_let_those_in_who_wait() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter("a", 0)
    waiting = [await wait_at(turnstile, "b") for _ in range(3)]

    turnstile.resize(3)
    await asyncio.gather(*waiting[:2])

    assert not waiting[2].done()
    turnstile.leave("a")
    await waiting[2]


async def test_a_thousand_come_wait_leave_and_die_at_random_and_the_count_is_right() -> None:
    chance = random.Random(7)
    turnstile = Turnstile(5, max_waiting=50)
    inside = most = 0

    async def call(party: str) -> None:
        nonlocal inside, most
        try:
            await turnstile.enter(party, chance.choice((0.0, 0.001, LONG_S)))
        except Full:
            return
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            turnstile.leave(party)

    tasks = []
    for _ in range(1000):
        tasks.append(asyncio.create_task(call(chance.choice("abcdefg"))))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert most <= 5
    assert (turnstile.in_use, turnstile.waiting, turnstile._held) == (0, 0, {})


async def crowd(turnstile: Turnstile, clock: HandClock, apart_s: float) -> list[asyncio.Task[None]]:
    """A turnstile whose places come free so far apart, and who still waits there."""
    for _ in range(turnstile.places):
        await turnstile.enter("a", 0)
    tasks = [await wait_at(turnstile, "a") for _ in range(60)]
    for _ in range(50):
        clock.advance(apart_s)
        turnstile.leave("a")
    return tasks[50:]


async def test_whoever_would_wait_in_vain_is_told_at_once() -> None:
    clock = HandClock()
    turnstile = Turnstile(20, now=clock.monotonic)
    waiting = await crowd(turnstile, clock, apart_s=0.1)

    with pytest.raises(Full):
        await turnstile.enter("a", 1.0)  # ten wait already, for a second
    waiting.append(await wait_at(turnstile, "a"))

    assert turnstile.waiting == 11
    for task in waiting:
        task.cancel()


async def test_the_time_between_two_crowds_says_nothing_of_how_fast_places_come_free() -> None:
    clock = HandClock()
    turnstile = Turnstile(8, now=clock.monotonic)
    for leavings in (4, 12):
        for _ in range(8):
            await turnstile.enter("a", 0)
        waiting = [await wait_at(turnstile, "a") for _ in range(leavings)]
        for _ in range(leavings):
            clock.advance(0.01)
            turnstile.leave("a")
        await asyncio.gather(*waiting)
        for _ in range(8):
            turnstile.leave("a")
        clock.advance(3600)

    for _ in range(8):
        await turnstile.enter("a", 0)
    waiting = [await wait_at(turnstile, "a", 1.0) for _ in range(20)]

    assert not any(task.done() for task in waiting)
    await dismiss(waiting)


async def standing_crowd(turnstile: Turnstile, clock: HandClock) -> list[asyncio.Task[None]]:
    """At twenty places that come free 10 ms apart: nobody waits, all are taken, and it has long been so."""
    for task in await crowd(turnstile, clock, apart_s=0.01):
        task.cancel()
    await asyncio.sleep(0)
    clock.advance(1.2)
    return [await wait_at(turnstile, "a", 1.0) for _ in range(11)]


async def test_where_no_place_is_ever_free_few_wait() -> None:
    clock = HandClock()
    turnstile = Turnstile(20, now=clock.monotonic)
    waiting = await standing_crowd(turnstile, clock)

    assert turnstile.turns_away("a", 1.0)
    assert turnstile.waiting == 11
    for task in waiting:
        task.cancel()


async def test_a_gust_may_wait_as_long_as_its_patience() -> None:
    clock = HandClock()
    turnstile = Turnstile(20, now=clock.monotonic)
    waiting = await crowd(turnstile, clock, apart_s=0.01)
    clock.advance(1.0)  # 1.5 s in all: shorter than eight calls, one after another

    waiting += [await wait_at(turnstile, "a", 1.0) for _ in range(40)]

    assert turnstile.waiting == 50
    for task in waiting:
        task.cancel()


@pytest.mark.parametrize(("came_at_once", "waiting"), [(19, 11), (20, 30)])
async def test_a_crowd_ends_when_as_many_come_in_at_once_as_there_are_places(came_at_once: int, waiting: int) -> None:
    clock = HandClock()
    turnstile = Turnstile(20, now=clock.monotonic)
    for task in await standing_crowd(turnstile, clock):
        task.cancel()
    await asyncio.sleep(0)
    for _ in range(came_at_once):
        turnstile.leave("a")
    for _ in range(came_at_once):
        await turnstile.enter("a", 0)

    queue = [await wait_at(turnstile, "a", 1.0) for _ in range(30)]

    assert turnstile.waiting == waiting
    await dismiss(queue)


async def test_a_crowd_at_one_place_ends_when_it_is_free() -> None:
    clock = HandClock()
    turnstile = Turnstile(1, now=clock.monotonic)
    for task in await crowd(turnstile, clock, apart_s=0.01):
        task.cancel()
    await asyncio.sleep(0)
    clock.advance(1.2)
    assert not turnstile.turns_away("a", 1.0)
    turnstile.leave("a")
    await turnstile.enter("a", 0)

    queue = [await wait_at(turnstile, "a", 1.0) for _ in range(30)]

    assert turnstile.waiting == 30
    await dismiss(queue)


@pytest.mark.parametrize(("places", "room"), [(1, 1), (2, 2), (8, 8), (12, 9), (20, 11)])
async def test_in_a_standing_crowd_as_many_wait_as_keep_the_places_taken(places: int, room: int) -> None:
    clock = HandClock()
    turnstile = Turnstile(places, now=clock.monotonic)
    gone = await crowd(turnstile, clock, apart_s=0.01)
    for task in gone:
        task.cancel()
    await asyncio.sleep(0)
    clock.advance(20)

    queue = [await wait_at(turnstile, "a", 10.0) for _ in range(60)]

    assert turnstile.waiting == room
    await dismiss(queue)


async def test_a_crowd_that_one_party_makes_costs_the_others_no_patience() -> None:
    clock = HandClock()
    turnstile = Turnstile(20, now=clock.monotonic)
    for task in await crowd(turnstile, clock, apart_s=0.01):
        task.cancel()
    waiting = [await wait_at(turnstile, f"other-{number}", 1.0) for number in range(20)]
    clock.advance(1.2)

    with pytest.raises(Full):
        await turnstile.enter("a", 1.0)
    second = await wait_at(turnstile, "other-0", 1.0)
    assert not second.done()
    for task in (*waiting, second):
        task.cancel()
