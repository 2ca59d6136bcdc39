"""The pure parts of choosing: breaker, retry budget, rendezvous hashing, percentages."""

import asyncio
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.clock import HandClock

from torana.chat import ChatRequest, FillIn, Message, Text
from torana.routing.affinity import MIN_CACHED_CHARS, affinity_key, is_within, rank, spill
from torana.routing.breaker import GOOD_TO_CLOSE, JITTER, Breaker
from torana.routing.budget import MOST_SAVED, PER_S, SHARE, RetryBudget
from torana.routing.deadline import GRAIN_S, Deadline, Deadlines

REST_S = 5.0
LONGEST_S = REST_S * (1 + JITTER)
SHORTEST_S = REST_S * (1 - JITTER)


def breaker(failures: int = 4) -> Breaker:
    return Breaker(failures, REST_S)


def fail(one: Breaker, times: int, now: float = 100.0) -> list[bool]:
    return [one.bad(now, one.begin(now)) for _ in range(times)]


calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# The breaker


def test_enough_failures_open_it_and_one_fewer_does_not() -> None:
    one = breaker(4)

    assert fail(one, 4) == [False, False, False, True]
    assert one.is_open
    assert not one.may_begin(100.0)
    assert one.begin(100.0 + SHORTEST_S - 0.01) == 0


def test_failures_open_it_only_where_they_are_half_of_all() -> None:
    one = breaker(4)
    for _ in range(6):
        one.good(100.0, one.begin(100.0))

    assert fail(one, 6) == [False] * 5 + [True]


def test_failures_older_than_the_window_are_forgotten() -> None:
    one = breaker(4)
    fail(one, 3, now=100.0)

    assert fail(one, 3, now=110.0) == [False] * 3
    assert fail(one, 1, now=119.9) == [True]


def test_a_limit_of_zero_turns_it_off() -> None:
    assert not any(fail(breaker(0), 1000))


def test_after_the_rest_one_call_looks_then_three_then_all() -> None:
    one = breaker(1)
    fail(one, 1)
    now = 100.0 + LONGEST_S

    first = one.begin(now)
    assert (bool(first), one.is_open, one.begin(now)) == (True, True, 0)

    one.good(now, first)
    three = [one.begin(now) for _ in range(4)]
    assert [bool(turn) for turn in three] == [True, True, True, False]

    for turn in three[:3]:
        one.good(now, turn)
    for _ in range(GOOD_TO_CLOSE - 5):
        assert not one.good(now, one.begin(now))
    assert one.good(now, one.begin(now))
    assert not one.is_open


def test_a_look_that_fails_begins_another_rest() -> None:
    one = breaker(1)
    fail(one, 1)
    now = 100.0 + LONGEST_S

    assert one.bad(now, one.begin(now))
    assert one.begin(now) == 0
    assert one.begin(now + LONGEST_S) > 0


def test_a_look_whose_caller_left_lets_another_one_look() -> None:
    one = breaker(1)
    fail(one, 1)
    now = 100.0 + LONGEST_S
    one.left(one.begin(now))

    assert one.begin(now) > 0


def test_a_look_that_never_ends_does_not_keep_others_out_for_ever() -> None:
    one = breaker(1)
    fail(one, 1)
    now = 100.0 + LONGEST_S
    one.begin(now)

    assert one.begin(now + REST_S) == 0
    assert one.begin(now + REST_S + 0.1) > 0


def test_what_a_call_of_before_the_rest_tells_is_no_news() -> None:
    one = breaker(2)
    before = [one.begin(100.0) for _ in range(3)]
    fail(one, 2)
    now = 100.0 + LONGEST_S
    look = one.begin(now)

    assert not one.good(now, before[0])
    assert not one.bad(now, before[1])
    one.left(before[2])
    assert one.begin(now) == 0  # still the one look
    one.good(now, look)
    assert one.begin(now) > 0


@calm
@given(st.lists(st.tuples(st.sampled_from(["good", "bad", "left"]), st.floats(0, 3)), max_size=200))
def test_it_never_lets_more_out_than_it_says_and_never_stays_shut(steps: list[tuple[str, float]]) -> None:
    one, now = breaker(3), 50.0
    for what, later_s in steps:
        now += later_s
        may = one.may_begin(now)
        turn = one.begin(now)
        assert bool(turn) == may
        if not turn:
            assert one.is_open
        elif what == "left":
            one.left(turn)
        else:
            getattr(one, what)(now, turn)
    assert one.begin(now + LONGEST_S) > 0


# The budget


def test_a_quiet_gateway_has_a_few_retries_a_second(clock: HandClock) -> None:
    budget = RetryBudget(clock)

    assert [budget.take() for _ in range(5)] == [True] * 3 + [False] * 2
    clock.advance(1.0)
    assert [budget.take() for _ in range(5)] == [True] * 3 + [False] * 2


def test_a_busy_gateway_may_retry_a_tenth(clock: HandClock) -> None:
    budget = RetryBudget(clock, per_s=0)
    for _ in range(50):
        budget.first_try()

    assert [budget.take() for _ in range(6)] == [True] * 5 + [False]


def test_workers_share_the_free_ones(clock: HandClock) -> None:
    budget = RetryBudget(clock, workers=3)

    assert [budget.take() for _ in range(2)] == [True, False]
    clock.advance(0.9)
    assert not budget.take()
    clock.advance(0.2)
    assert budget.take()


@calm
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.floats(0, 2)), max_size=60))
def test_retries_never_exceed_a_tenth_of_the_traffic_and_three_a_second(steps: list[tuple[int, int, float]]) -> None:
    clock = HandClock(now=0.0)
    budget, firsts, retries, seconds = RetryBudget(clock), 0, 0, 0.0
    for calls, wanted, later_s in steps:
        clock.advance(later_s)
        seconds += later_s
        firsts += calls
        for _ in range(calls):
            budget.first_try()
        retries += sum(budget.take() for _ in range(wanted))
        # What it begins with is one second's worth.
        assert retries <= SHARE * firsts + PER_S * (seconds + 1) + 1e-6


def test_a_good_day_saves_up_only_so_much(clock: HandClock) -> None:
    budget = RetryBudget(clock, per_s=0)
    for _ in range(10_000):
        budget.first_try()

    assert sum(budget.take() for _ in range(1000)) == MOST_SAVED


# Rendezvous hashing

names_and_weights = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 9), min_size=1, max_size=8)


@calm
@given(st.binary(max_size=40), names_and_weights)
def test_every_deployment_has_its_place_and_always_the_same(key: bytes, weights: dict[str, int]) -> None:
    found = rank(key, list(weights), list(weights.values()))

    assert sorted(found) == list(range(len(weights)))
    assert found == rank(key, list(weights), list(weights.values()))


@calm
@given(st.binary(max_size=40), names_and_weights.filter(lambda found: len(found) > 1), st.data())
def test_a_deployment_that_goes_takes_only_its_own_keys(
    key: bytes, weights: dict[str, int], data: st.DataObject
) -> None:
    names = list(weights)
    gone = data.draw(st.sampled_from(names))
    rest = [name for name in names if name != gone]

    before = [names[place] for place in rank(key, names, list(weights.values()))]
    after = [rest[place] for place in rank(key, rest, [weights[name] for name in rest])]

    assert after == [name for name in before if name != gone]


def test_keys_spread_as_the_weights_say() -> None:
    firsts = [rank(str(number).encode(), ["a", "b", "c"], [6, 3, 1])[0] for number in range(4000)]

    shares = [firsts.count(place) / 4000 for place in range(3)]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


@calm
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_who_has_too_much_to_do_comes_last_and_somebody_has_room(in_flight: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(in_flight), max_size=len(in_flight)))
    ranked = list(range(len(in_flight)))

    found = spill(ranked, in_flight, weights)

    assert sorted(found) == ranked
    most = [math.ceil(1.25 * (sum(in_flight) + 1) * weight / sum(weights)) for weight in weights]
    is_over = [in_flight[place] + 1 > most[place] for place in found]
    assert not is_over[0]
    assert all(later or not earlier for earlier, later in pairwise(is_over))


def chat_of(*texts: str, system: str = "", cached: bool = False) -> ChatRequest:
    """Turns of user and assistant in alternation, behind a system text."""
    turns = [
        Message("assistant" if number % 2 else "user", (Text(text, cached=cached),))
        for number, text in enumerate(texts)
    ]
    return ChatRequest(messages=(Message("system", (Text(system),)), *turns))


LONG = "x" * MIN_CACHED_CHARS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chat_of(LONG + " why?"), chat_of(LONG + " how?")),
        (chat_of("first", "said", "second", system=LONG), chat_of("first", "said", "second", "said", system=LONG)),
        (chat_of("first", LONG), chat_of("first", LONG, "third")),
        (chat_of("short", cached=True), chat_of("short", "said", cached=True)),
        (ChatRequest(messages=(), fill_in=FillIn(prefix="", marked_prompt=LONG + "a")),
         ChatRequest(messages=(), fill_in=FillIn(prefix="", marked_prompt=LONG + "b"))),
    ],
)  # fmt: skip
def test_calls_with_one_beginning_belong_together_within_their_party(one: ChatRequest, other: ChatRequest) -> None:
    assert affinity_key("t", one) == affinity_key("t", other) != b""
    assert affinity_key("t", one) != affinity_key("another", one)


def test_another_beginning_belongs_elsewhere() -> None:
    keys = [
        affinity_key("t", chat)
        for chat in (
            chat_of(LONG),
            chat_of("y" + LONG),
            chat_of(LONG, system="s"),
            chat_of("a", LONG),
            chat_of("b", LONG),
        )
    ]

    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "chat",
    [
        chat_of(),
        chat_of(LONG[1:]),
        chat_of("short", system=LONG),
        chat_of("first", "said", "second"),
        ChatRequest(messages=(), fill_in=FillIn(prefix="", marked_prompt=LONG[1:])),
    ],
)
def test_what_no_provider_would_cache_or_all_do_belongs_nowhere(chat: ChatRequest) -> None:
    assert affinity_key("t", chat) == b""


# Percentages


def test_a_percentage_takes_its_share_always_the_same_ones_and_with_more_more() -> None:
    units = [f"instance-{number}" for number in range(5000)]
    fives = {unit for unit in units if is_within(5, "canary", unit)}

    assert len(fives) / 5000 == pytest.approx(0.05, abs=0.01)
    assert fives == {unit for unit in units if is_within(5, "canary", unit)}
    assert fives < {unit for unit in units if is_within(20, "canary", unit)}
    assert fives != {unit for unit in units if is_within(5, "another", unit)}


@pytest.mark.parametrize(("percent", "expected"), [(0, False), (100, True)])
def test_none_and_all_are_exact(percent: float, expected: bool) -> None:
    assert {is_within(percent, "canary", str(number)) for number in range(1000)} == {expected}


# The deadlines


async def test_each_deadline_ends_its_own_call_whichever_came_first() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    ended: list[str] = []

    now = loop.time()

    async def wait(name: str, seconds: float) -> None:
        try:
            with deadlines.at(loop, now + seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(name)

    with deadlines.at(loop, loop.time() + 0.02):
        pass  # it ends in time: nobody is told
    waiting = [asyncio.ensure_future(wait(*each)) for each in (("last", 0.06), ("first", 0.01), ("second", 0.04))]
    left = asyncio.ensure_future(wait("never", 600))
    await asyncio.gather(*waiting)
    left.cancel()

    assert ended == ["first", "second", "last"]
    with pytest.raises(asyncio.CancelledError):
        await left


def test_a_deadline_of_another_event_loop_is_kept_too() -> None:
    deadlines = Deadlines()

    async def wait(seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        try:
            with deadlines.at(loop, loop.time() + seconds):
                await asyncio.Event().wait() if seconds < 1 else None
        except TimeoutError:
            return True
        return False

    assert [asyncio.run(wait(seconds)) for seconds in (600, 0.01)] == [False, True]


class HandLoop(asyncio.AbstractEventLoop):
    """An event loop with timers only, and a time that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self.timers.append(asyncio.TimerHandle(when, callback, args, self, context))
        return self.timers[-1]

    def run(self) -> int:
        """Until no timer is left; how many went off."""
        count = 0
        while self.timers:
            timer = self.timers.pop(0)
            self.now = max(self.now, timer.when())
            timer._run()
            count += 1
        return count


class Noted(Deadline):
    """One whose end is noted, and nothing else."""

    def __init__(self, all_: Deadlines, loop: asyncio.AbstractEventLoop, when: float) -> None:
        super().__init__(all_, loop, when)
        self.ended_at = 0.0

    def end(self) -> None:
        self.ended_at = self.loop.time()


def test_many_deadlines_close_to_one_another_are_met_together() -> None:
    loop, deadlines = HandLoop(), Deadlines()
    each_apart = [Noted(deadlines, loop, 1 + number / 10_000) for number in range(1000)]
    for each in each_apart:
        deadlines.add(each)

    assert loop.run() <= 0.1 / GRAIN_S + 2
    assert all(0 <= each.ended_at - each.when <= GRAIN_S for each in each_apart)
