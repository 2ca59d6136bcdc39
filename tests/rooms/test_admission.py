"""The line in front of a busy worker: who begins, who waits, who is turned away."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from torana.api.admission import (
    COMERS_PER_START,
    LEAST_STARTS_PER_TURN,
    STARTS_PER_TURN,
    TURN_S,
    Admission,
    Standing,
)


@dataclass
class Asking:
    """A request that tells what became of it, in one list for all."""

    name: str
    told: list[tuple[str, str]]
    is_gone: bool = False

    def begin(self) -> None:
        self.told.append((self.name, "begun"))

    def turn_away(self, code: str) -> None:
        self.told.append((self.name, code))


class Failing:
    """A request that our own fault keeps from beginning."""

    is_gone = False

    def begin(self) -> None:
        raise RuntimeError("a fault of ours")

    def turn_away(self, code: str) -> None: ...


@dataclass
class Crowd:
    """An admission with a clock that the test moves."""

    max_waiting: int = 1000
    max_age_s: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.time_s = 0.0
        self.told: list[tuple[str, str]] = []
        self.reasons = Counter[str]()
        self.admission = Admission(
            self,
            max_waiting=self.max_waiting,
            max_age_s=self.max_age_s,
            weights=self.weights,
            now=lambda: self.time_s,
        )

    def shed(self, reason: str) -> None:
        self.reasons[reason] += 1

    def waiting(self, requests: int) -> None:
        assert requests >= 0

    def come(self, name: str, standing: Standing = Standing(), body_bytes: int = 0) -> Asking:  # noqa: B008 immutable
        request = Asking(name, self.told)
        if self.admission.begins():
            request.begin()
        else:
            self.admission.wait(request, standing, body_bytes)
        return request

    def fill_turn(self) -> None:
        for _ in range(STARTS_PER_TURN):
            self.come("first")
        self.told.clear()

    async def turns(self, count: int) -> list[str]:
        """Who has begun after so many turns of the loop."""
        for _ in range(count):
            await asyncio.sleep(0)
        return [name for name, fate in self.told if fate == "begun"]


async def test_whoever_finds_room_in_the_turn_begins_at_once() -> None:
    crowd = Crowd()

    for number in range(STARTS_PER_TURN):
        crowd.come(str(number))

    assert len(crowd.told) == STARTS_PER_TURN


async def test_the_next_turn_takes_as_many_again_in_order_of_arrival() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    names = [str(number) for number in range(STARTS_PER_TURN + 5)]
    for name in names:
        crowd.come(name)

    assert await crowd.turns(1) == names[:STARTS_PER_TURN]
    assert await crowd.turns(1) == names


async def test_a_request_that_fails_to_begin_holds_nobody_up() -> None:
    crowd, faults = Crowd(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
    crowd.fill_turn()
    crowd.admission.wait(Failing(), Standing())
    crowd.come("late")

    assert await crowd.turns(2) == ["late"]
    assert [str(fault) for fault in faults] == ["a fault of ours"]
    assert crowd.admission.begins()


async def slow_turns(crowd: Crowd, turn_s: float) -> None:
    """Until so long is what a full turn is believed to take."""
    for _ in range(100):
        crowd.fill_turn()
        crowd.time_s += turn_s
        await asyncio.sleep(0)
    crowd.fill_turn()


async def test_while_requests_wait_a_turn_begins_what_it_has_time_for() -> None:
    crowd = Crowd()
    await slow_turns(crowd, 4 * TURN_S)
    for _ in range(STARTS_PER_TURN):
        crowd.come("one")

    assert len(await crowd.turns(1)) == STARTS_PER_TURN // 4


async def test_however_long_turns_take_some_requests_begin() -> None:
    crowd = Crowd()
    await slow_turns(crowd, 1.0)
    for _ in range(STARTS_PER_TURN):
        crowd.come("one")

    assert len(await crowd.turns(1)) == LEAST_STARTS_PER_TURN


async def test_the_more_come_in_a_turn_the_more_are_begun_in_the_next() -> None:
    crowd = Crowd(max_waiting=20)
    await slow_turns(crowd, 1.0)
    for number in range(10 * COMERS_PER_START):
        crowd.come(str(number))

    assert len(await crowd.turns(1)) == 10


async def test_where_no_instance_waits_for_more_the_newcomer_is_turned_away() -> None:
    crowd = Crowd(max_waiting=2)
    crowd.fill_turn()
    for name in ("busy", "busy"):
        crowd.come(name, Standing(instance="busy"))
    crowd.come("quiet", Standing(instance="quiet"))  # makes the busy one wait for less

    crowd.come("other", Standing(instance="quiet"))

    assert crowd.told == [("busy", "overloaded"), ("other", "overloaded")]


async def test_interactive_requests_go_before_background_ones() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    for _ in range(STARTS_PER_TURN):
        crowd.come("background", Standing(is_background=True))
    crowd.come("interactive")

    assert (await crowd.turns(1))[0] == "interactive"


async def test_instances_take_turns_however_much_one_of_them_asks() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    for _ in range(200):
        crowd.come("busy", Standing(instance="busy"))
    for _ in range(10):
        crowd.come("quiet", Standing(instance="quiet"))

    begun = await crowd.turns(1)

    assert begun.count("quiet") == 10


async def test_an_instance_with_a_larger_share_begins_more_often() -> None:
    crowd = Crowd(weights={"large": 3.0})
    crowd.fill_turn()
    for name in ("large", "small"):
        for _ in range(60):
            crowd.come(name, Standing(instance=name))

    begun = Counter(await crowd.turns(1))

    assert begun == {"large": STARTS_PER_TURN * 3 // 4, "small": STARTS_PER_TURN // 4}


async def test_a_full_line_turns_the_newcomer_away() -> None:
    crowd = Crowd(max_waiting=2)
    crowd.fill_turn()
    for name in "abc":
        crowd.come(name)

    assert crowd.told == [("c", "overloaded")]
    assert crowd.reasons == {"full": 1}


async def test_in_a_full_line_the_instance_that_waits_for_most_makes_room_for_another() -> None:
    crowd = Crowd(max_waiting=3)
    crowd.fill_turn()
    for name in ("busy 1", "busy 2", "busy 3"):
        crowd.come(name, Standing(instance="busy"))

    crowd.come("quiet", Standing(instance="quiet"))

    assert crowd.told == [("busy 3", "overloaded")]
    assert sorted(await crowd.turns(1)) == ["busy 1", "busy 2", "quiet"]


async def test_an_instance_of_a_small_share_may_lose_its_only_place() -> None:
    crowd = Crowd(max_waiting=1, weights={"small": 0.5})
    crowd.fill_turn()
    crowd.come("small", Standing(instance="small"))

    crowd.come("usual", Standing(instance="usual"))

    assert crowd.told == [("small", "overloaded")]
    assert await crowd.turns(2) == ["usual"]


async def test_in_a_full_line_background_work_makes_room_for_interactive() -> None:
    crowd = Crowd(max_waiting=1)
    crowd.fill_turn()
    crowd.come("background", Standing(is_background=True))

    crowd.come("interactive")
    crowd.come("more background", Standing(is_background=True))

    assert crowd.told == [("background", "overloaded"), ("more background", "overloaded")]


async def test_nobody_begins_who_has_waited_longer_than_the_limit() -> None:
    crowd = Crowd(max_age_s=0.5)
    crowd.fill_turn()
    crowd.come("old")
    crowd.time_s = 0.6
    crowd.come("new")

    begun = await crowd.turns(1)

    assert (begun, crowd.told[0]) == (["new"], ("old", "overloaded"))
    assert crowd.reasons == {"aged": 1}


async def test_a_client_that_waits_less_than_the_limit_is_not_begun_after_it_gave_up() -> None:
    crowd = Crowd(max_age_s=10)
    crowd.fill_turn()
    crowd.come("hasty", Standing(patience_s=0.1))
    crowd.time_s = 0.2

    assert await crowd.turns(1) == []


async def test_whoever_gives_up_before_its_turn_pushes_nobody_out_of_the_line() -> None:
    crowd = Crowd(max_age_s=10.0)
    await slow_turns(crowd, 0.1)
    for _ in range(STARTS_PER_TURN):
        crowd.come("busy", Standing(instance="busy"))

    for _ in range(STARTS_PER_TURN):
        crowd.come("hasty", Standing(instance="hasty", patience_s=0.01))

    assert crowd.told == [("hasty", "overloaded")] * STARTS_PER_TURN


async def test_of_a_long_line_only_what_goes_before_counts_for_a_client_that_waits_less() -> None:
    crowd = Crowd(max_age_s=10.0)
    await slow_turns(crowd, 0.1)
    for _ in range(10 * STARTS_PER_TURN):
        crowd.come("busy", Standing(instance="busy"))

    crowd.come("quiet", Standing(instance="quiet", patience_s=0.5))

    assert crowd.told == []
    assert "quiet" in await crowd.turns(2)


async def test_a_line_that_would_take_longer_than_the_limit_takes_nobody_in() -> None:
    crowd = Crowd(max_age_s=1.0)
    await slow_turns(crowd, 1.0)
    for _ in range(3 * STARTS_PER_TURN):
        crowd.come("one")

    # Two thirds would wait a second or longer, and some of the others nearly so.
    assert 2 * STARTS_PER_TURN < len(crowd.told) < 3 * STARTS_PER_TURN
    assert set(crowd.told) == {("one", "overloaded")}


async def test_one_turn_in_which_the_process_stood_still_does_not_close_the_line() -> None:
    crowd = Crowd(max_age_s=1.0)
    for _ in range(100):
        crowd.fill_turn()
        crowd.time_s += 0.016
        await asyncio.sleep(0)
    crowd.come("first")
    crowd.time_s += 1.0
    await asyncio.sleep(0)
    crowd.fill_turn()

    for _ in range(50):
        crowd.come("one")

    assert crowd.told == []


async def test_turns_with_large_bodies_do_not_close_the_line() -> None:
    crowd = Crowd(max_age_s=0.25)
    await slow_turns(crowd, 0.001)
    for _ in range(20):
        crowd.admission.note_large()
        crowd.time_s += 0.3
        await asyncio.sleep(0)
        crowd.fill_turn()

    crowd.come("late")

    assert await crowd.turns(1) == ["late"]


async def test_whoever_left_the_line_costs_nobody_a_place() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    gone = [crowd.come("gone") for _ in range(STARTS_PER_TURN)]
    crowd.come("here")
    for request in gone:
        request.is_gone = True

    assert await crowd.turns(1) == ["here"]
    assert not crowd.reasons


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.floats(0, 0.3), st.integers(0, 10**9)), max_size=300),
    st.integers(1, 60),
    st.floats(0.01, 2),
)
def test_every_request_is_begun_or_turned_away_exactly_once(
    comers: list[tuple[bool, str, float, int]], max_waiting: int, max_age_s: float
) -> None:
    async def run() -> None:
        crowd = Crowd(max_waiting=max_waiting, max_age_s=max_age_s, weights={"a": 0.3, "b": 5})
        for number, (is_background, instance, pause_s, body_bytes) in enumerate(comers):
            crowd.come(str(number), Standing(is_background, instance), body_bytes)
            if pause_s > 0.28:
                crowd.time_s += pause_s
                await asyncio.sleep(0)
        await crowd.turns(len(comers) // STARTS_PER_TURN + 3)

        assert sorted(int(name) for name, _ in crowd.told) == list(range(len(comers)))
        assert crowd.admission.waiting == 0

    asyncio.run(run())
