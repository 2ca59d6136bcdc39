"""The counts: windows, flows and streams against a plain model of each; one table for several workers."""

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.clock import HandClock
from tests.support.limit_desk import Desk
from tests.support.waiting import eventually

from torana.catalog.records import LimitRecord
from torana.limits.calendar import end_of
from torana.limits.hold import Hold
from torana.limits.limits import REMEMBERED
from torana.limits.minutes import MinuteLimit
from torana.limits.questions import Command
from torana.limits.reached import LimitReached, Shown, Standing, anthropic_headers, openai_headers
from torana.limits.shared_table import LOCK_LIMIT_S, LOCK_PATIENCE_S, SharedTable, watch_the_dead
from torana.limits.table import PROBES, Key, Table

MIDNIGHT = 1_700_006_400.0
"""2023-11-15, a Wednesday."""
ROOT = str(Path(__file__).parents[2])


# --- Against a model ---


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 120)),
        st.tuples(st.just("settle"), st.integers(0, 150)),
        st.tuples(st.just("wait"), st.integers(0, 90)),
    ),
    max_size=60,
)


@settings(deadline=None)
@example([("ask", 1), ("wait", 60), ("settle", 2), ("ask", 1)], 1)
@given(steps, st.integers(1, 300))
def test_a_window_counts_as_its_model_does(doings: list[tuple[str, int]], amount: int) -> None:
    desk = Desk(f"{amount} tokens per minute")
    now, until, used = 0, 0, 0
    under_way: list[tuple[Hold, int, int]] = []

    for what, number in doings:
        if what == "wait":
            desk.clock.advance(number)
            now += number
        elif what == "ask":
            taken = used if until > now else 0
            fits = taken + number <= amount or (taken == 0 and number > amount)
            found = desk.ask(input_tokens=number)
            assert isinstance(found, Hold) == fits
            if isinstance(found, Hold):
                if until <= now:
                    until, used = now + 60, 0
                used += number
                under_way.append((found, until, number))
            else:
                assert found.retry_after_s == max(1, until - now)
        elif under_way:
            hold, of, reserved = under_way.pop(0)
            desk.settle(hold, input_tokens=number)
            if of == until > now:
                used = max(0, used + number - reserved)
            elif number > reserved:
                if until <= now:
                    until, used = now + 60, 0
                used += number - reserved


@settings(deadline=None)
@given(steps, st.integers(1, 200), st.integers(1, 200))
def test_a_flow_counts_as_its_model_does(doings: list[tuple[str, int]], amount: int, burst: int) -> None:
    burst = min(burst, amount)
    desk = Desk(LimitRecord(name="flow", limit=f"{amount} tokens per minute", burst=burst))
    now, level = 0, Fraction(0)  # tokens that have not yet flowed off
    under_way: list[tuple[Hold, int]] = []

    for what, number in doings:
        if what == "wait":
            desk.clock.advance(number)
            now += number
            level = max(Fraction(0), level - Fraction(number * amount, 60))
        elif what == "ask":
            found = desk.ask(input_tokens=number)
            # Nanoseconds are whole: at the very edge either answer is right.
            if level + number < burst or (level == 0 and number > burst):
                assert isinstance(found, Hold)
            elif level + number > burst + Fraction(1, 1000) and not (level < Fraction(1, 1000) and number > burst):
                assert isinstance(found, LimitReached)
            if isinstance(found, Hold):
                level += number
                under_way.append((found, number))
        elif under_way:
            hold, reserved = under_way.pop(0)
            desk.settle(hold, input_tokens=number)
            level = max(Fraction(0), level + number - reserved)


@settings(deadline=None)
@given(st.lists(st.one_of(st.just("begin"), st.integers(0, 20)), max_size=80), st.integers(1, 6))
def test_streams_are_those_under_way(doings: list[Any], amount: int) -> None:
    desk = Desk(f"{amount} concurrent streams")
    under_way: list[Hold] = []

    for doing in doings:
        if doing == "begin":
            found = desk.ask()
            assert isinstance(found, Hold) == (len(under_way) < amount)
            if isinstance(found, Hold):
                under_way.append(found)
        elif under_way:
            desk.settle(under_way.pop(doing % len(under_way)))
    for hold in under_way:
        desk.settle(hold)

    assert desk.passes(amount + 1) == amount  # nothing is held after the drain


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(0, 3)), max_size=30))
def test_nothing_is_held_when_every_call_has_ended(calls: list[tuple[int, int, int]]) -> None:
    desk = Desk("100000 tokens per minute", "100 USD per day", "50 concurrent streams per user")

    holds = [(desk.ask(input_tokens=expected, cost=expected), used, times) for expected, used, times in calls]
    for hold, used, times in holds:
        assert isinstance(hold, Hold)
        for _ in range(1 + times):  # only the first time counts
            desk.settle(hold, input_tokens=used, cost=used)

    text = desk.metrics.expose()[0].decode()
    held = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("torana_limit_held{")]
    assert held == pytest.approx([0.0] * 3, abs=1e-9)
    assert desk.passes(51) == 50


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 70)), min_size=1, max_size=200))
def test_no_caller_ever_gets_more_than_the_amount_in_a_window(calls: list[tuple[int, int]]) -> None:
    desk = Desk("3 per minute per user", table=Table(64))
    counted: dict[int, tuple[float, int]] = {}

    for user, wait in calls:
        desk.clock.advance(wait)
        now = desk.clock.monotonic()
        if isinstance(desk.ask(user=str(user)), Hold):
            begun, passed = counted.get(user, (-1e9, 0))
            counted[user] = (begun, passed + 1) if now < begun + 60 else (now, 1)
            assert counted[user][1] <= 3


def test_who_has_used_up_a_burst_is_told_when_the_next_one_has_flowed_off() -> None:
    desk = Desk(LimitRecord(name="flow", limit="2 per hour", burst=2))
    desk.passes(2)
    desk.clock.advance(1200)

    reached = desk.ask()

    assert isinstance(reached, LimitReached)
    assert reached.retry_after_s == 600
    desk.clock.advance(600)
    assert desk.passes(2) == 1


def test_a_period_begins_with_a_call_that_passes() -> None:
    desk = Desk("2 per minute", "1 per hour per user")
    assert desk.passes(1, user="mia") == 1
    desk.clock.advance(61)
    assert desk.passes(1, user="mia") == 0  # for the other limit
    desk.clock.advance(39)
    assert [desk.passes(1, user=name) for name in ("lea", "ann")] == [1, 1]

    desk.clock.advance(25)

    assert desk.passes(1, user="tom") == 0


def test_callers_are_remembered_up_to_a_bound() -> None:
    desk = Desk("1 per minute per user", table=Table(16_384))

    for number in range(REMEMBERED + 10):
        assert desk.passes(1, user=str(number)) == 1

    assert len(desk.limits._known) == 10


# --- The table ---


def test_a_full_table_gives_up_the_count_that_is_over_soonest() -> None:
    desk = Desk("1 per hour per user", table=Table(PROBES))
    for number in range(PROBES):
        desk.passes(1, user=str(number))
        desk.clock.advance(1)

    assert desk.passes(1, user="one more") == 1

    assert desk.table.lost == 1
    # Its neighbours keep their counts; the oldest begins anew.
    assert [desk.passes(1, user=str(number)) for number in range(1, PROBES)] == [0] * (PROBES - 1)
    assert desk.passes(1, user="0") == 1


def test_every_worker_finds_a_count_that_stands_beside_its_place() -> None:
    table = Table(256)
    first = Desk("1 per minute per user", table=table)
    users = [f"user {number}" for number in range(96)]
    for user in users:
        first.passes(1, user=user)

    second = Desk("1 per minute per user", table=table, clock=first.clock)

    assert [user for user in users if second.passes(1, user=user)] == []


def test_nobody_can_name_users_that_push_a_count_out() -> None:
    desk = Desk("1000 per minute per user", "20 per minute per instance", table=Table(1024))
    of_user, of_instance = desk.limits.rules
    (place, _) = of_instance.key(("acme",))
    users = (str(number) for number in range(10**9))
    beside = (user for user in users if (of_user.key((user, "acme"))[0] - place) % 1024 == 0)

    passed = 0
    for _ in range(60):
        desk.clock.advance(0.1)  # what ends soonest gives way
        passed += desk.passes(1, user=next(beside))

    assert (passed, desk.table.lost) == (20, 0)


def test_counts_that_are_over_make_room_for_others() -> None:
    desk = Desk("1 per minute per user", table=Table(PROBES))

    for minute in range(20):
        assert desk.passes(PROBES, user=f"{minute}-0") == 1
        for number in range(1, PROBES):
            assert desk.passes(1, user=f"{minute}-{number}") == 1
        desk.clock.advance(61)

    assert desk.table.lost == 0


# --- The calendar ---


@pytest.mark.parametrize(
    ("period", "now", "end"),
    [
        ("day", MIDNIGHT, MIDNIGHT + 86_400),
        ("day", MIDNIGHT + 86_399, MIDNIGHT + 86_400),
        ("week", MIDNIGHT, MIDNIGHT + 5 * 86_400),  # Wednesday to Monday
        ("week", MIDNIGHT + 5 * 86_400, MIDNIGHT + 12 * 86_400),
        ("month", MIDNIGHT, 1_701_388_800),  # 1 December
        ("month", 1_703_980_800, 1_704_067_200),  # 31 December to New Year
        ("month", 1_706_745_600, 1_709_251_200),  # a February of 29 days
    ],
)
def test_days_weeks_and_months_end_with_the_calendar(period: str, now: float, end: float) -> None:
    assert end_of(period, now) == end


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_period_is_over_when_a_wall_clock_that_was_wrong_says_so(period: str) -> None:
    desk = Desk(f"100 tokens per {period}")
    desk.clock.jump(3600)
    under_way = desk.ask(input_tokens=60)
    assert isinstance(under_way, Hold)

    desk.clock.jump(-1800)
    before = desk.passes(2, input_tokens=40)
    desk.clock.jump(32 * 86_400)
    after = desk.passes(2, input_tokens=40)
    desk.settle(under_way, input_tokens=0)  # of the period before

    assert (before, after) == (1, 2)
    assert desk.passes(1, input_tokens=40) == 0
    desk.clock.advance(32 * 86_400)
    assert desk.passes(3, input_tokens=40) == 2


@pytest.mark.parametrize(
    ("period", "now", "ahead_s", "left_s"),
    [
        ("day", MIDNIGHT + 68_400, 21_600, 18_000),  # 19 o'clock, and the clock says one in the morning
        ("day", MIDNIGHT + 3_600, 366 * 86_400, 82_800),
        ("week", MIDNIGHT + 4 * 86_400, 2 * 86_400, 86_400),  # a Sunday
        ("month", 1_706_572_800, 3 * 86_400, 2 * 86_400),  # 30 January, and 2 February
    ],
)
def test_a_period_that_a_clock_ahead_began_ends_when_the_one_set_right_says(
    period: str, now: float, ahead_s: float, left_s: float
) -> None:
    desk = Desk(f"1 per {period}", clock=HandClock(now + ahead_s))
    first = desk.passes(1)
    desk.clock.jump(-ahead_s)

    at_once, refused = desk.passes(1), desk.ask()
    desk.clock.advance(left_s + 1)

    assert (first, at_once, desk.passes(2)) == (1, 0, 1)
    assert isinstance(refused, LimitReached)
    assert refused.retry_after_s == left_s


def test_what_an_answer_takes_beyond_midnight_is_the_new_days_and_ends_with_it() -> None:
    desk = Desk("100 tokens per day")
    desk.clock.advance(86_399)
    under_way = desk.ask(input_tokens=20)
    assert isinstance(under_way, Hold)

    desk.clock.advance(2)
    desk.settle(under_way, input_tokens=20, output_tokens=70)
    beyond = desk.passes(4, input_tokens=10)
    desk.clock.advance(86_397)  # a second before the next midnight
    late = desk.passes(1, input_tokens=10)
    desk.clock.advance(2)

    assert (beyond, late, desk.passes(11, input_tokens=10)) == (3, 0, 10)


# --- Headers of the dialects ---


STANDINGS = [
    Standing(Shown("a", "requests", 60, 60), 12, 42.2),
    Standing(Shown("b", "requests", 1000, 3600), 3, 3599.5),
    Standing(Shown("c", "tokens", 2_000_000, 86_400), 1_900_000, 3_723),
    Standing(Shown("d", "input_tokens", 100, 60), 7, 0.12),
    Standing(Shown("e", "streams", 5, 0), 4, 0),
]


def test_openais_headers_tell_of_the_limit_that_stops_the_caller_first() -> None:
    assert dict(openai_headers(STANDINGS)) == {
        b"x-ratelimit-limit-requests": b"1000",
        b"x-ratelimit-remaining-requests": b"3",
        b"x-ratelimit-reset-requests": b"1h0m0s",
        b"x-ratelimit-limit-tokens": b"2000000",
        b"x-ratelimit-remaining-tokens": b"1900000",
        b"x-ratelimit-reset-tokens": b"1h2m3s",
    }
    assert dict(openai_headers(STANDINGS[3:]))[b"x-ratelimit-reset-tokens"] == b"120ms"
    assert dict(openai_headers(STANDINGS[:1]))[b"x-ratelimit-reset-requests"] == b"43s"
    overdrawn = [Standing(Shown("f", "tokens", 100, 60), -7, 60)]  # an answer came out longer than reserved
    assert dict(openai_headers(overdrawn))[b"x-ratelimit-remaining-tokens"] == b"0"
    assert dict(anthropic_headers(overdrawn, MIDNIGHT))[b"anthropic-ratelimit-tokens-remaining"] == b"0"


def test_anthropics_headers_tell_times_as_dates() -> None:
    found = dict(anthropic_headers(STANDINGS, MIDNIGHT))

    assert found[b"anthropic-ratelimit-requests-remaining"] == b"3"
    assert found[b"anthropic-ratelimit-tokens-reset"] == b"2023-11-15T01:02:03Z"
    assert found[b"anthropic-ratelimit-input-tokens-limit"] == b"100"
    assert b"anthropic-ratelimit-output-tokens-limit" not in found
    assert anthropic_headers([], 0.0) == openai_headers([]) == []


# --- Several workers ---


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[list[SharedTable]]:
    """Two workers' views of one table."""
    found = [SharedTable(tmp_path, 1024), SharedTable(tmp_path, 1024)]
    yield found
    for table in found:
        table.close()


async def test_one_look_for_the_dead_that_fails_is_not_the_last() -> None:
    looks = 0

    class Short(Table):
        def give_back_for_the_dead(self) -> int:
            nonlocal looks
            looks += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def has_looked_again() -> bool:
        return looks >= 2

    watching = asyncio.create_task(watch_the_dead(Short(), every_s=0.01))
    await eventually(has_looked_again)

    watching.cancel()


def test_two_workers_count_as_one(tables: list[SharedTable]) -> None:
    clock = HandClock(MIDNIGHT)
    desks = [Desk("7 per minute per user", "5 concurrent streams", table=table, clock=clock) for table in tables]

    seen = [isinstance(desks[number % 2].ask(user=str(number // 12)), Hold) for number in range(24)]

    assert seen == [True] * 5 + [False] * 19


def test_workers_of_one_server_know_where_counts_stand_and_nobody_else(
    tables: list[SharedTable], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = SharedTable(tmp_path / "other", 1024)

    assert tables[0].salt == tables[1].salt != other.salt

    other.close()


def test_what_one_worker_took_another_gives_back(tables: list[SharedTable]) -> None:
    clock = HandClock(MIDNIGHT)
    first, second = (Desk("100 tokens per minute", table=table, clock=clock) for table in tables)
    hold = first.ask(input_tokens=90)
    assert isinstance(hold, Hold)
    assert second.passes(1, input_tokens=20) == 0

    first.settle(hold, input_tokens=10)

    assert second.passes(1, input_tokens=90) == 1
    assert first.passes(1, input_tokens=1) == 0


KILLED: tuple[str | LimitRecord, ...] = (
    "100 tokens per minute",
    "3 concurrent streams",
    LimitRecord(name="flow", limit="100 tokens per hour", burst=80),
    "1000 requests per minute",
)


def die_holding(folder: str) -> None:
    """In a process of its own."""
    desk = Desk(*KILLED, table=SharedTable(Path(folder), 1024))
    settled = desk.ask(input_tokens=10)
    assert isinstance(settled, Hold)
    desk.settle(settled, input_tokens=10)
    assert desk.passes(3, input_tokens=20) == 3
    os.kill(os.getpid(), signal.SIGKILL)


def hold_and_die(folder: str) -> None:
    """In a process of its own."""
    assert Desk(*KILLED, table=SharedTable(Path(folder), 1024)).passes(1, input_tokens=9) == 1
    os.kill(os.getpid(), signal.SIGKILL)


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_in_a_taking(folder: str) -> None:
    """In a process of its own: one stream runs, another is taken and not noted yet."""
    table = SharedTable(Path(folder), 1024)
    desk = Desk("3 concurrent streams", table=table)
    assert desk.passes(1) == 1
    table.note = die
    desk.ask()


def die_in_a_settling(folder: str) -> None:
    """In a process of its own: of two streams one has ended, and its note is still there."""
    table = SharedTable(Path(folder), 1024)
    desk = Desk("3 concurrent streams", table=table)
    hold = desk.ask()
    assert isinstance(hold, Hold)
    assert desk.passes(1) == 1
    table.forget = die
    desk.settle(hold)


def take_many(folder: str) -> None:
    """In a process of its own: as many as pass, printed."""
    desk = Desk("1000 per hour", table=SharedTable(Path(folder), 1024))
    sys.stdin.read(1)
    print(desk.passes(500))


def start_process(function: str, folder: Path) -> "subprocess.Popen[bytes]":
    script = (
        f"import sys; sys.path.insert(0, {ROOT!r}); from tests.rooms import test_limits_counting as module\n"
        f"module.{function}({str(folder)!r})"
    )
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_what_a_killed_worker_held_is_free_again(tables: list[SharedTable], tmp_path: Path) -> None:
    died = start_process("die_holding", tmp_path)
    died.communicate()
    assert died.returncode == -signal.SIGKILL
    desk = Desk(*KILLED, table=tables[0])
    assert desk.passes(1, input_tokens=20) == 0

    given_back = tables[0].give_back_for_the_dead()

    assert given_back == 9  # three calls, three limits that give back
    assert desk.passes(1, input_tokens=71) == 0  # ten tokens were used, of 80 that flow
    assert desk.passes(1, input_tokens=70) == 1
    assert tables[0].give_back_for_the_dead() == 0


@pytest.mark.parametrize("death", ["die_in_a_taking", "die_in_a_settling"])
def test_a_worker_that_is_killed_between_a_count_and_its_note_leaves_no_place_taken_and_none_too_many(
    tables: list[SharedTable], tmp_path: Path, death: str
) -> None:
    desk = Desk("3 concurrent streams", table=tables[0])
    assert desk.passes(1) == 1

    died = start_process(death, tmp_path)
    died.communicate()

    assert died.returncode == -signal.SIGKILL
    tables[1].give_back_for_the_dead()
    assert desk.passes(3) == 2


def test_what_the_living_hold_stays_taken_when_another_worker_is_killed(
    tables: list[SharedTable], tmp_path: Path
) -> None:
    desk = Desk(*KILLED, table=tables[0])
    assert desk.passes(1, input_tokens=9) == 1
    start_process("hold_and_die", tmp_path).communicate()

    assert tables[0].give_back_for_the_dead() == 3
    assert desk.passes(1, input_tokens=72) == 0
    assert desk.passes(3, input_tokens=1) == 2  # streams


def test_the_next_worker_takes_a_dead_ones_place(tmp_path: Path) -> None:
    first = SharedTable(tmp_path, 1024)
    assert Desk("1 concurrent stream", table=first).passes(1) == 1
    first.close()  # as its death would: the lock is free, the list is there

    second = SharedTable(tmp_path, 1024)

    assert Desk("1 concurrent stream", table=second).passes(2) == 1
    assert len(list(tmp_path.glob("limit-held-*"))) == 1
    second.close()


def test_a_worker_that_begins_in_the_same_moment_is_no_dead_one(tmp_path: Path) -> None:
    (tmp_path / "limit-held-7").touch()  # what it holds has no length yet

    table = SharedTable(tmp_path, 1024)

    assert Desk("1 concurrent stream", table=table).passes(2) == 1
    table.close()


def freeze_with_lock(folder: str) -> None:
    """In a process of its own."""
    SharedTable(Path(folder), 1024).lock()
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def dawdle_with_lock(folder: str) -> None:
    """In a process of its own: as one that the machine is too busy for."""
    table = SharedTable(Path(folder), 1024)
    table.lock()
    print("locked", flush=True)
    time.sleep(5 * LOCK_PATIENCE_S)
    print("unlocked", flush=True)
    table.unlock()


def test_a_frozen_worker_with_the_lock_does_not_freeze_the_others(tables: list[SharedTable], tmp_path: Path) -> None:
    frozen = start_process("freeze_with_lock", tmp_path)
    try:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == b"locked\n"

        started = time.monotonic()
        assert Desk("1 per minute", table=tables[1]).passes(2) == 1

        assert time.monotonic() - started < LOCK_LIMIT_S
    finally:
        frozen.kill()
        frozen.communicate()


def test_a_worker_that_is_only_slow_with_the_lock_is_waited_for(tables: list[SharedTable], tmp_path: Path) -> None:
    slow = start_process("dawdle_with_lock", tmp_path)
    assert slow.stdout is not None
    assert slow.stdout.readline() == b"locked\n"

    tables[0].lock()

    assert slow.stdout.readline() == b"unlocked\n"
    with (tmp_path / "limit-counts").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    tables[0].unlock()
    slow.communicate()


def test_exactly_as_many_pass_as_the_limit_says_whichever_process_is_asked(tmp_path: Path) -> None:
    workers = [start_process("take_many", tmp_path) for _ in range(4)]

    assert sum(int(worker.communicate(b"g")[0]) for worker in workers) == 1000


def test_minutes_are_counted_for_all_workers(tables: list[SharedTable]) -> None:
    clock = HandClock(MIDNIGHT)
    first, second = (MinuteLimit("minted", 3, table, clock) for table in tables)

    assert [first.count("a"), second.count("a"), first.count("b"), first.count("a")] == [1, 2, 1, 3]
    clock.advance(18.5)

    assert (second.wait_s("a"), first.wait_s("b"), first.wait_s("stranger")) == (42, 0, 0)
    assert MinuteLimit("other", 3, tables[0], clock).wait_s("a") == 0
    clock.advance(41.6)
    assert (first.wait_s("a"), second.count("a")) == (0, 1)


async def test_minutes_that_nobody_heard_of_are_not_told_as_one() -> None:
    clock, told = HandClock(MIDNIGHT), list[int]()

    class Deaf:
        """A store that is away, and what it would have heard: one more count for each number."""

        def put(self, limits: Sequence[tuple[Key, Command]]) -> asyncio.Future[list[int]]:
            told.extend(-int(words[6]) for _, words in limits)
            future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
            future.set_exception(ConnectionError())
            return future

    async def has_told(times: int) -> bool:
        return len(told) == times

    minted = MinuteLimit("minted", 9, Table(64), clock, Deaf())
    assert [minted.count("a") for _ in range(3)] == [1, 2, 3]
    await eventually(lambda: has_told(1))
    clock.advance(60)
    assert [minted.count("a") for _ in range(2)] == [1, 2]

    await eventually(lambda: has_told(2))
    assert told == [3, 2]


def test_a_minute_limit_of_nothing_bounds_nothing() -> None:
    unbound = MinuteLimit("minted", 0, Table(64), HandClock())

    assert (unbound.count("a"), unbound.wait_s("a")) == (0, 0)
