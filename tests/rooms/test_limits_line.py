"""The line to the shared counts: replies to whoever asked, late ones to nobody, and the script's own arithmetic."""

import asyncio
import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tests.support.fault_proxy import FaultProxy
from tests.support.valkey import ScriptedStore, Store, running_store
from tests.support.waiting import eventually

from torana.limits.calendar import end_of
from torana.limits.line import Line, LineDown
from torana.limits.questions import Asker

PING = ["PING"]
NOW = 4_000_000_000.0
"""Far ahead of the store's own clock, by which keys expire."""
SCRIPT = files("torana.limits").joinpath("take.lua").read_text(encoding="utf-8")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with running_store(tmp_path) as store:
        yield store


class Told:
    """A line and what it tells."""

    def __init__(self, url: str, patience_s: float = 2.0) -> None:
        self.changes: list[tuple[bool, str]] = []
        self.line = Line(url, patience_s, lambda: PING, lambda is_up, reason: self.changes.append((is_up, reason)))

    async def __aenter__(self) -> "Told":
        self.line.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.line.aclose()

    async def up(self) -> Line:
        async def is_up() -> bool:
            return self.line.is_up

        await eventually(is_up)
        return self.line


async def asked(line: Line, *command: bytes | str | int) -> Any:
    """The reply."""
    return await asyncio.shield(line.send(*command))


async def cancel_at_random(line: Line, calls: int, chance: random.Random) -> int:
    """Tagged commands, of which many are cancelled wherever they are; returns how many replies came."""
    replies = 0

    async def call(number: int) -> None:
        nonlocal replies
        tag = f"tag-{number}-{chance.random()}".encode()
        assert await asked(line, "ECHO", tag) == tag
        replies += 1

    for start in range(0, calls, 50):
        tasks = [asyncio.create_task(call(number)) for number in range(start, start + 50)]
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 30):
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert found is None or isinstance(found, asyncio.CancelledError)
    return replies


async def test_no_reply_ever_reaches_another_caller_however_many_are_cancelled(store: Store) -> None:
    async with Told(store.url) as told:
        line = await told.up()

        replies = await cancel_at_random(line, 2_000, random.Random(7))

        assert replies >= 800
        assert told.changes == [(True, "")]  # nobody's cancellation has cost the connection


async def test_a_late_reply_closes_the_connection_and_is_given_to_nobody(store: Store) -> None:
    async with FaultProxy(store.port) as proxy, Told(f"redis://127.0.0.1:{proxy.port}", patience_s=1.0) as told:
        line = await told.up()
        proxy.is_silent = True

        late = await asyncio.gather(*(asked(line, "ECHO", f"late-{n}") for n in range(20)), return_exceptions=True)

        assert [type(each) for each in late] == [LineDown] * 20
        assert not line.is_up
        proxy.is_silent = False
        await told.up()
        assert await asked(line, "ECHO", "new") == b"new"
        assert told.changes == [(True, ""), (False, "timeout"), (True, "")]


async def test_while_the_line_is_down_nobody_waits(store: Store) -> None:
    async with Told(store.url) as told:
        line = await told.up()
        store.stop()

        async def is_down() -> bool:
            return not line.is_up

        await eventually(is_down)
        with pytest.raises(LineDown):
            line.send("PING").result()  # there is nothing to wait for


async def test_reconnecting_is_spread_and_slows_down(store: Store) -> None:
    async with FaultProxy(store.port) as proxy, Told(f"redis://127.0.0.1:{proxy.port}") as told:
        await told.up()
        proxy.refuses = True
        proxy.reset_all()
        before = proxy.connections

        async def has_tried_again() -> bool:
            return proxy.connections - before >= 4

        assert await eventually(has_tried_again) > 1.2  # 0.1 s, 0.2, 0.4 and 0.8 between them at least
        assert told.changes[1:] in ([(False, "closed")], [(False, "unreachable")])


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async with (
        ScriptedStore(lambda command: b"+PONG\r\n+and another\r\n") as babbling,
        Told(babbling.url, patience_s=0.5) as told,
    ):

        async def was_dropped() -> bool:
            return (False, "unasked") in told.changes

        await eventually(was_dropped)


@pytest.mark.parametrize("turns", range(8))
async def test_a_line_that_breaks_as_its_server_ends_leaves_no_connection_behind(turns: int) -> None:
    async with ScriptedStore(lambda command: b"+PONG\r\n") as store, Told(store.url) as told:
        line = await told.up()
        line.renew("forgotten")
        for _ in range(turns):
            await asyncio.sleep(0)
        await line.aclose()

        async def has_ended() -> bool:
            return store.open_connections == 0

        await eventually(has_ended, within_s=5)


async def test_a_store_that_speaks_no_redis_is_one_that_is_away() -> None:
    async with ScriptedStore(lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n") as web, Told(web.url) as told:

        async def was_refused() -> bool:
            return bool(told.changes) and not told.changes[0][0]

        await eventually(was_refused)


# --- The script ---


class Asking:
    """take.lua at a time that the test chooses."""

    def __init__(self, line: Line) -> None:
        self.line = line

    async def __call__(
        self,
        kind: str,
        amount: int,
        period: Any = 60_000,
        *,
        at: float = 4_000_000_000.0,
        who: str = "me",
        **words: int,
    ) -> list[int]:
        """(granted, left, milliseconds until the reset, the window's end)."""
        seconds, rest = int(at), int(at % 1 * 1e6)
        script = SCRIPT.replace("redis.call('TIME')", f"{{'{seconds}', '{rest}'}}")
        given = [words.get(name, 0) for name in ("need", "sure", "want", "back", "back_end", "is_held", "freed")]
        reply = await asked(
            self.line,
            "EVAL",
            script,
            3,
            "{t}:living",
            "{t}:done",
            "{t}:key",
            who,
            10_000,
            0,
            1,
            0,
            kind,
            amount,
            period,
            *given,
        )
        found: list[int] = reply[1:5]
        return found


@pytest.fixture
async def asking(store: Store) -> Any:
    async with Told(store.url) as told:
        yield Asking(await told.up())


async def test_the_scripts_calendar_is_that_of_python(store: Store) -> None:
    chance = random.Random(3)
    async with Told(store.url) as told:
        ask = Asking(await told.up())
        times = [chance.uniform(2.0e9, 9.0e9) for _ in range(150)]
        # The edges of days, weeks, months and leap years.
        times += [3_981_225_599.5, 3_981_225_600.0, 4_107_542_400.0, 4_107_455_999.9, 4_074_105_600.0, 4_074_192_000.0]

        for at in times:
            for period in ("day", "week", "month"):
                await asked(told.line, "FLUSHALL")
                assert (await ask(period, 5, 0, at=at, need=1))[3] == end_of(period, at) * 1000


async def test_a_windows_end_is_not_moved_by_those_who_come_later(asking: Asking) -> None:
    assert await asking("window", 3, need=1) == [1, 2, 60_000, 4_000_000_060_000]
    assert await asking("window", 3, at=4_000_000_020.0, need=2) == [2, 0, 40_000, 4_000_000_060_000]
    assert await asking("window", 3, at=4_000_000_059.0, need=1) == [-1, 0, 1_000, 4_000_000_060_000]
    assert await asking("window", 3, at=4_000_000_061.0, need=1) == [1, 2, 60_000, 4_000_000_121_000]


async def test_what_comes_back_late_does_not_swell_the_next_window(asking: Asking) -> None:
    _, _, _, end = await asking("window", 10, need=8)
    await asking("window", 10, at=4_000_000_061.0, need=5)

    assert (await asking("window", 10, at=4_000_000_062.0, back=8, back_end=end))[1] == 5
    assert (await asking("window", 10, at=4_000_000_062.0, back=-2))[1] == 3  # debts are always owed


async def test_a_lease_never_takes_all_that_is_left(asking: Asking) -> None:
    assert (await asking("window", 100, need=1, want=200))[0] == 1 + 99 // 2
    assert (await asking("window", 100, who="another", need=1, want=200))[0] == 1 + 49 // 4


async def test_all_who_wait_are_served_as_long_as_something_is_left(asking: Asking) -> None:
    assert (await asking("window", 10, need=1, sure=7, want=7))[:2] == [7, 3]
    assert (await asking("window", 10, need=1, sure=7, want=7))[:2] == [3, 0]
    assert (await asking("window", 10, need=1, sure=7, want=7))[:2] == [-1, 0]


async def test_what_a_dead_one_held_is_free_again_and_only_then(asking: Asking) -> None:
    await asking("window", 10, 3_600_000, who="dead", need=8, is_held=1)

    assert (await asking("window", 10, 3_600_000, at=4_000_000_009.0, need=5, is_held=1))[0] == -1
    assert (await asking("window", 10, 3_600_000, at=4_000_000_011.0, need=5, is_held=1))[:2] == [5, 5]


async def test_streams_of_the_dead_are_over(asking: Asking) -> None:
    await asking("streams", 3, 0, who="dead", need=1)
    await asking("streams", 3, 0, who="dead", need=1)

    assert (await asking("streams", 3, 0, need=1))[:2] == [1, 0]
    assert (await asking("streams", 3, 0, at=NOW + 9, need=1))[0] == -1
    assert (await asking("streams", 3, 0, at=NOW + 11, need=1))[:2] == [1, 1]


async def test_a_flow_lets_its_burst_pass_and_then_one_by_one(asking: Asking) -> None:
    seen = [
        (await asking("flow", 2, 1000, at=4_000_000_000.0 + second, need=1))[0] for second in (0, 0, 0, 0.9, 1.1, 1.2)
    ]

    assert seen == [1, 1, -1, -1, 1, -1]


async def test_money_of_any_amount_is_counted_to_the_billionth(asking: Asking) -> None:
    most, period = 2**53 - 1, 30 * 86_400_000

    assert (await asking("month", most, period, need=most - 1))[:2] == [most - 1, 1]
    assert (await asking("month", most, period, need=1))[:2] == [1, 0]
    assert (await asking("month", most, period, need=1))[0] == -1


def test_a_question_carries_the_script_itself_so_that_no_store_needs_to_know_it() -> None:
    asker = Asker()
    words, number = asker.ask(10, [((1, -1), ["window"])])

    assert (words[0], number) == ("EVAL", 1)
    keys = ["{torana}:living", f"{{torana}}:done:{asker.name}", "{torana}:0000000000000001ffffffffffffffff"]
    assert words[3:] == [*keys, asker.name, 10_000, number, 1, 0, "window"]
