"""Leases whose line breaks, whose limits are reloaded, whose neighbours ask too: the counts return to the truth."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.support.clock import HandClock
from tests.support.fault_proxy import FaultProxy
from tests.support.lease_desk import Server, left_of, servers
from tests.support.valkey import ScriptedStore, Store, running_store
from tests.support.waiting import eventually

from torana.catalog.records import LimitRecord
from torana.limits.hold import Hold
from torana.limits.table import SLOT_NUMBERS, UNTIL, USED

HELD = LimitRecord(name="limit-0", limit="1000 input tokens per 24 hours", exact=True)
FLOW = LimitRecord(name="limit-0", limit="1000 input tokens per 24 hours", exact=True, burst=1000)


async def knows_of(server: Server, count: int) -> bool:
    return server.leases.state == (True, f"{count} worker(s) share the counts")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running_store(tmp_path_factory.mktemp("store")) as store:
        yield store


EACH_KIND = pytest.mark.parametrize(
    ("text", "burst"),
    [("3 concurrent streams", 0), ("3 per hour", 0), ("3 per hour", 3), ("300 tokens per hour", 0)],
)


@EACH_KIND
@pytest.mark.parametrize("is_exact", [True, False])
async def test_a_call_that_was_never_sent_counts_for_no_server(
    store: Store, text: str, burst: int, is_exact: bool
) -> None:
    limit = LimitRecord(name="limit-0", limit=text, burst=burst, exact=is_exact)
    async with servers(store, 1, limit) as (server,):
        server.limits.release(await server.get(input_tokens=100))
    other = await Server(store, limit).start()

    assert [await other.ask(input_tokens=100) is not None for _ in range(4)] == [True, True, True, False]
    await other.kill()


@EACH_KIND
@pytest.mark.parametrize("is_exact", [True, False])
async def test_a_call_that_is_cancelled_with_its_answer_in_hand_takes_nothing(
    store: Store, text: str, burst: int, is_exact: bool
) -> None:
    limit = LimitRecord(name="limit-0", limit=text, burst=burst, exact=is_exact)
    async with servers(store, 1, limit) as (server,):
        asking = asyncio.create_task(server.get(input_tokens=100))

        # Between the turn of the event loop in which the answer comes and that in which the call goes on.
        while not any(server.table.numbers[USED::SLOT_NUMBERS]):  # noqa: ASYNC110  no turn may be missed
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))

        assert asking.cancelled()
    other = await Server(store, limit).start()
    assert [await other.ask(input_tokens=100) is not None for _ in range(4)] == [True, True, True, False]
    await other.kill()


async def test_a_server_that_comes_back_tells_all_there_is_to_tell_of_one_limit(store: Store) -> None:
    """What runs, what has ended and what it let pass alone are three words about one count."""
    store.command("FLUSHALL")
    async with FaultProxy(store.port) as proxy:
        server = await Server(store, HELD, port=proxy.port).start()
        running, ended = await server.get(input_tokens=100), await server.get(input_tokens=100)
        proxy.close_all()
        await server.is_up(False)
        alone = await server.get(input_tokens=30)
        server.settle(ended, input_tokens=60)
        await server.is_up()
        server.settle(running, input_tokens=50)
        server.settle(alone, input_tokens=30)
        await server.leases.aclose()

    assert await left_of(store, HELD) == 1000 - 60 - 50 - 30


async def test_what_one_worker_was_granted_no_other_one_of_its_server_spends(store: Store) -> None:
    """It is written down under the worker's name, and would be free again with its death although it was spent."""
    store.command("FLUSHALL")
    leased = LimitRecord(name="limit-1", limit="1000 per hour")
    async with FaultProxy(store.port) as proxy:
        slow = await Server(store, HELD, leased, port=proxy.port).start()
        quick = await Server(store, HELD, leased, table=slow.table).start()
        first = await quick.get(input_tokens=10)  # leases two of the second limit
        proxy.latency_s = 0.3
        waiting = asyncio.create_task(slow.get(input_tokens=100))
        await asyncio.sleep(0)  # it asks for tokens alone, for there is a place
        second = await quick.get(input_tokens=100)  # takes that place

        async def has_both() -> bool:
            """Its tokens are there, and it asks for a place."""
            return store.command("HGET", "{torana}:done:" + slow.leases._asker.name, "2") != b"$-1\r\n"

        await eventually(has_both)
        third = await quick.get(input_tokens=100)
        fourth = await waiting
        for hold, server in ((first, quick), (second, quick), (third, quick), (fourth, slow)):
            server.settle(hold, input_tokens=10)
        proxy.latency_s = 0.0
        for server in (slow, quick):
            await server.leases.aclose()

    assert await left_of(store, HELD) == 1000 - 40


async def test_a_call_of_an_ended_window_is_not_told_again_to_the_next_one(store: Store) -> None:
    limit = LimitRecord(name="limit-0", limit="1000 input tokens per 2 seconds", exact=True)
    async with servers(store, 1, limit) as (server,):
        long = await server.get(input_tokens=800)

        async def is_next() -> bool:
            return await server.ask(input_tokens=300) is not None

        await eventually(is_next)
        before = server.leases._asker.name
        store.command("CLIENT", "KILL", "TYPE", "normal")

        async def is_back() -> bool:
            return server.leases.state[0] and server.leases._asker.name != before

        await eventually(is_back)
        assert await server.ask(input_tokens=600) is not None
        server.settle(long, input_tokens=1)


async def test_what_is_left_of_a_lease_does_not_outlive_its_window(store: Store) -> None:
    async with servers(store, 1, "100 per second") as (server,):
        is_decided = False
        while not is_decided:  # a window may end before all is asked
            first = await server.get()
            while server.leases.now() < first.ends[0]:  # noqa: ASYNC110  it is over by itself
                await asyncio.sleep(0.01)
            second, passed = await server.get(), 1
            while await server.ask() is not None:
                passed += 1
            is_decided = server.leases.now() < second.ends[0]
            await asyncio.sleep(max(0, second.ends[0] - server.leases.now()) / 1e9)

        assert passed <= 100


@pytest.mark.parametrize("is_exact", [True, False])
async def test_what_a_call_of_an_ended_window_has_not_used_is_not_free_in_the_next_one(
    store: Store, is_exact: bool
) -> None:
    limit = LimitRecord(name="limit-0", limit="1000 input tokens per second", exact=is_exact)
    async with servers(store, 1, limit) as (server,):

        async def wait_for(tokens: int) -> Hold:
            while (hold := await server.ask(input_tokens=tokens)) is None:  # noqa: ASYNC110  another one is over by itself
                await asyncio.sleep(0.01)
            return hold

        is_decided = False
        while not is_decided:  # a window may end before all is asked
            first = await wait_for(900)
            second = await wait_for(901)
            server.settle(first, input_tokens=10)
            third = await server.ask(input_tokens=500)
            is_decided = server.leases.now() < second.ends[0]

        assert third is None


@pytest.mark.parametrize("burst", [0, 10])
async def test_what_was_answered_before_a_break_is_not_undone(store: Store, burst: int) -> None:
    limit = LimitRecord(name="limit-0", limit="10 per hour", exact=True, burst=burst)
    async with servers(store, 1, limit) as (server,):
        for _ in range(3):
            await server.get()
        before = server.leases._asker
        store.command("CLIENT", "KILL", "TYPE", "normal")

        async def has_told_of_the_break() -> bool:
            return server.leases._asker is not before and not server.leases._gone

        await eventually(has_told_of_the_break)

    assert await left_of(store, limit) == 7


async def test_a_store_that_was_started_anew_goes_on_with_the_window_of_the_calls_under_way(store: Store) -> None:
    """So that they may give back what they leave, and that it is free should their worker die."""
    store.command("FLUSHALL")
    ended, dead = await Server(store, HELD).start(), await Server(store, HELD).start()
    long = await ended.get(input_tokens=500)
    await dead.get(input_tokens=400)
    store.stop()
    for server in (ended, dead):
        await server.is_up(False)
    store.start()
    for server in (ended, dead):
        await server.is_up()
    ended.settle(long, input_tokens=10)
    await ended.leases.aclose()
    await dead.kill()
    store.command("DEL", "{torana}:living")

    assert await left_of(store, HELD) == 1000 - 10


async def test_a_server_that_the_store_has_forgotten_says_anew_what_it_holds(store: Store) -> None:
    """Its data were flushed or evicted, or the server said nothing for too long; no connection broke."""
    async with servers(store, 2, "2 concurrent streams") as (first, second):
        held = [await first.get(), await first.get()]
        store.command("FLUSHALL")

        async def is_refused() -> bool:
            hold = await second.ask()
            if hold is not None:
                second.settle(hold)
            return hold is None

        await eventually(is_refused)
        for hold in held:
            first.settle(hold)

    assert await left_of(store, "2 concurrent streams") == 2


async def test_a_spent_quota_is_spent_for_a_server_that_is_cut_off_and_has_used_nothing(store: Store) -> None:
    async with servers(store, 2, HELD, timeout_s=0.5) as (first, second):
        first.settle(await first.get(input_tokens=990), input_tokens=990)
        assert await second.ask(input_tokens=20) is None
        store.freeze()
        try:
            assert await second.ask(input_tokens=20) is None
            assert await second.ask(input_tokens=5) is not None
            assert await second.ask(input_tokens=2000) is None
        finally:
            store.thaw()


async def test_a_call_larger_than_the_share_passes_where_nobody_has_used_anything(store: Store) -> None:
    async with servers(store, 2, HELD, timeout_s=0.5) as (_, server):
        await eventually(lambda: knows_of(server, 2))
        store.freeze()
        try:
            assert await server.ask(input_tokens=900) is not None
            assert await server.ask(input_tokens=1) is None
        finally:
            store.thaw()


async def test_a_server_that_tries_in_vain_for_hours_has_no_more_to_undo_in_the_end() -> None:
    """A name that has asked for nothing is good for the next attempt."""
    names: set[bytes] = set()

    def load(command: list[bytes]) -> bytes:
        names.add(command[3 + int(command[2])])
        return b"-LOADING Valkey is loading the dataset in memory\r\n"

    async with ScriptedStore(load) as loading:
        server = Server(loading, HELD)
        server.leases.start()

        async def has_tried() -> bool:
            return loading.connections >= 4

        await eventually(has_tried)
        await server.leases.aclose()

    assert len(names) == 1


# --- A reload ---


async def test_a_limit_on_streams_that_a_reload_lowers_holds_at_once(store: Store) -> None:
    async with servers(store, 1, "4 concurrent streams") as (server,):
        held = [await server.ask() for _ in range(4)]
        for hold in held[:3]:
            assert hold is not None
            server.settle(hold)

        server.reload("2 concurrent streams")

        assert [await server.ask() is not None for _ in range(3)] == [True, False, False]


async def test_a_leased_limit_that_a_reload_lowers_holds_at_once(store: Store) -> None:
    async with servers(store, 1, "100 per hour") as (server,):
        for _ in range(4):
            await server.ask()

        server.reload("3 per hour")

        assert await server.ask() is None


async def test_calls_that_ask_all_the_time_learn_of_a_reload(store: Store) -> None:
    def limit(amount: int) -> LimitRecord:
        return LimitRecord(name="limit-0", limit=f"{amount} input tokens per hour", exact=True)

    store.command("FLUSHALL")
    async with FaultProxy(store.port) as proxy:
        server = await Server(store, limit(1000), port=proxy.port).start()
        proxy.latency_s = 0.05
        asking = [asyncio.create_task(server.ask(input_tokens=10))]
        await asyncio.sleep(0)
        server.reload(limit(20))
        asking += [asyncio.create_task(server.ask(input_tokens=10)) for _ in range(5)]

        assert [hold is not None for hold in await asyncio.gather(*asking)] == [True, True, *[False] * 4]
        await server.leases.aclose()


# --- A burst ---


async def test_tokens_of_a_burst_that_were_not_used_are_free_for_all_servers(store: Store) -> None:
    async with servers(store, 2, FLOW) as (first, second):
        hold = await first.get(input_tokens=900)
        first.settle(hold, input_tokens=10)

        async def passes() -> bool:
            return await second.ask(input_tokens=900) is not None

        await eventually(passes)


@pytest.mark.parametrize("is_exact", [True, False])
async def test_a_long_calls_tokens_of_a_burst_are_free_when_it_ends(store: Store, is_exact: bool) -> None:
    limit = LimitRecord(name="limit-0", limit=FLOW.limit, exact=is_exact, burst=1000)
    async with servers(store, 2, limit) as (first, second):
        hold = await first.get(input_tokens=900)

        async def is_forgotten() -> bool:
            return first.table.numbers[hold.slots[0] + UNTIL] <= first.leases.now()

        await eventually(is_forgotten)
        first.settle(hold, input_tokens=10)

        async def passes() -> bool:
            return await second.ask(input_tokens=900) is not None

        await eventually(passes)


async def test_a_burst_that_is_used_up_lets_the_next_call_pass_when_one_has_flowed_off(store: Store) -> None:
    limit = LimitRecord(name="limit-0", limit="600 per minute", exact=True, burst=20)
    clock = HandClock()
    store.command("FLUSHALL")
    server = await Server(store, limit, clock=clock).start()
    while await server.ask() is not None:
        pass

    await asyncio.sleep(0.2)  # of the store's time, in which two flow off
    assert await server.ask() is None  # what a moment ago was said holds for a moment
    clock.advance(0.11)

    assert await server.ask() is not None
    await server.leases.aclose()
