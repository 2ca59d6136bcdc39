"""Credentials that run out: one fetch at a time, ahead of the end, and never on the event loop."""

import asyncio
import math
import threading

import pytest
from tests.support.clock import HandClock

from torana.errors import NoCredentials
from torana.providers.refreshing import AHEAD_S, RETRY_S, Refreshing


class Fetches:
    """What the cloud hands out: a new value each time, for an hour; held back while `gate` is shut."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.count = 0
        self.failure: str | None = None
        self.lasts_s = 3600.0
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def __call__(self) -> tuple[str, float]:
        self.count += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        if self.failure is not None:
            raise NoCredentials(self.failure)
        return f"value {self.count}", self.clock.now() + self.lasts_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def fetches(clock: HandClock) -> Fetches:
    return Fetches(clock)


async def test_a_value_is_fetched_once_and_off_the_event_loop(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)

    values = await asyncio.gather(*(refreshing.current() for _ in range(20)))

    assert set(values) == {"value 1"}
    assert (fetches.count, threading.get_ident() in fetches.threads) == (1, False)


async def test_near_its_end_the_old_value_serves_while_a_new_one_is_fetched(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)
    await refreshing.current()
    clock.advance(3600 - AHEAD_S + 1)
    fetches.gate.clear()

    meanwhile = [await refreshing.current() for _ in range(3)]
    fetches.gate.set()
    assert refreshing._flight is not None
    await refreshing._flight

    assert meanwhile == ["value 1"] * 3
    assert await refreshing.current() == "value 2"
    assert fetches.count == 2


async def test_after_its_end_nobody_gets_the_old_value(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)
    await refreshing.current()
    clock.advance(3600)

    assert await refreshing.current() == "value 2"


async def test_a_value_that_never_ends_is_fetched_once(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)
    fetches.lasts_s = math.inf
    await refreshing.current()
    clock.advance(10**8)

    assert await refreshing.current() == "value 1"


async def test_a_caller_who_leaves_does_not_end_the_others_fetch(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)
    fetches.gate.clear()
    first, second = (asyncio.create_task(refreshing.current()) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    fetches.gate.set()

    assert await second == "value 1"
    assert fetches.count == 1


async def test_a_failure_is_told_to_all_and_tried_again_after_a_while(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)
    fetches.failure = "no key anywhere"

    told = [await asyncio.gather(refreshing.current(), return_exceptions=True) for _ in range(3)]
    fetches.failure = None

    assert [str(failure) for (failure,) in told] == ["no key anywhere"] * 3
    assert fetches.count == 1
    clock.advance(RETRY_S)
    assert await refreshing.current() == "value 2"


async def test_a_failed_renewal_leaves_the_value_that_still_holds(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock)
    await refreshing.current()
    clock.advance(3600 - AHEAD_S + 1)
    fetches.failure = "the cloud is away"
    await refreshing.current()
    assert refreshing._flight is not None
    await refreshing._flight

    assert await refreshing.current() == "value 1"
    clock.advance(AHEAD_S)
    with pytest.raises(NoCredentials, match="the cloud is away"):
        await refreshing.current()


@pytest.mark.parametrize("jump_s", [-3600, 3600])
async def test_a_wall_clock_that_is_set_changes_neither_the_end_nor_the_next_try(
    clock: HandClock, fetches: Fetches, jump_s: float
) -> None:
    refreshing = Refreshing("token", fetches, clock)
    fetches.failure = "down"
    with pytest.raises(NoCredentials):
        await refreshing.current()
    clock.jump(jump_s)
    fetches.failure = None
    with pytest.raises(NoCredentials):
        await refreshing.current()
    clock.advance(RETRY_S)
    assert await refreshing.current() == "value 2"

    clock.jump(-3600)
    assert await refreshing.current() == "value 2"
    clock.advance(3600)
    assert await refreshing.current() == "value 3"


async def test_a_value_that_has_ended_while_the_machine_slept_is_renewed_at_once(
    clock: HandClock, fetches: Fetches
) -> None:
    refreshing = Refreshing("token", fetches, clock)
    await refreshing.current()
    clock.jump(2 * 3600)  # the other clock has stood still

    at_once = await refreshing.current()  # nobody knows whether somebody has only set the clock
    assert refreshing._flight is not None
    await refreshing._flight

    assert [at_once, await refreshing.current()] == ["value 1", "value 2"]
    assert fetches.count == 2


async def test_a_fetch_without_an_end_holds_nobody_for_ever_and_goes_on(clock: HandClock, fetches: Fetches) -> None:
    refreshing = Refreshing("token", fetches, clock, patience_s=0.01)
    fetches.gate.clear()

    for _ in range(2):
        with pytest.raises(NoCredentials, match=r"^the token cannot be fetched within 0\.01 s$"):
            await refreshing.current()
    flight = refreshing._flight
    fetches.gate.set()
    assert flight is not None
    await flight

    assert await refreshing.current() == "value 1"
    assert fetches.count == 1


async def test_a_fetch_that_fails_in_whatever_way_is_told_by_its_kind_and_waited_for(clock: HandClock) -> None:
    fetched: list[None] = []

    def fetch() -> tuple[str, float]:
        fetched.append(None)
        raise AttributeError("/home/somebody/key.json: 'list' object has no attribute 'get'")

    refreshing = Refreshing("token", fetch, clock)

    for _ in range(3):
        with pytest.raises(NoCredentials, match=r"^the token cannot be fetched: AttributeError$"):
            await refreshing.current()

    assert len(fetched) == 1
