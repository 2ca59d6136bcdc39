"""Leases of several servers over one real store: never more than the limit, and nothing is left behind."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from tests.support.clock import HandClock
from tests.support.fault_proxy import FaultProxy
from tests.support.lease_desk import Server, left_of, servers
from tests.support.valkey import Store, running_store
from tests.support.waiting import eventually

from torana.catalog.records import LimitRecord
from torana.clock import Clock
from torana.limits.minutes import MinuteLimit
from torana.telemetry.metrics import Known, Metrics


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running_store(tmp_path_factory.mktemp("store")) as store:
        yield store


NEVER_S = 600.0
"""Later than any patience, also where the event loop was busy and gives more of it."""
ONCE = [
    LimitRecord(name="limit-0", limit="100 per hour", exact=True),
    LimitRecord(name="limit-0", limit="100 per hour", exact=True, burst=100),
    LimitRecord(name="limit-0", limit="100 input tokens per 24 hours", exact=True),
    LimitRecord(name="limit-0", limit="100 tokens per day", exact=True, burst=100),
]


@pytest.mark.parametrize("limit", ONCE, ids=lambda each: f"{each.limit}, {each.burst}")
@pytest.mark.parametrize("is_frozen", [False, True])
async def test_what_nobody_knows_the_store_has_counted_counts_once(
    store: Store, limit: LimitRecord, is_frozen: bool
) -> None:
    """Its reply comes too late, or it reads the question after its asker has gone."""
    store.command("FLUSHALL")
    async with FaultProxy(store.port) as proxy:
        server = await Server(store, limit, port=store.port if is_frozen else proxy.port, timeout_s=0.3).start()
        for _ in range(3):
            if is_frozen:
                store.freeze()
            else:
                proxy.latency_s = NEVER_S
            held = await server.ask(input_tokens=1)
            await server.is_up(False)
            if is_frozen:
                store.thaw()
            proxy.latency_s = 0.0
            await server.is_up()
            assert held is not None
            server.settle(held, input_tokens=1)
        await server.leases.aclose()

    assert await left_of(store, limit) == 97


async def test_an_ended_call_whose_word_was_lost_counts_what_it_used(store: Store) -> None:
    limit = LimitRecord(name="limit-0", limit="100 input tokens per 24 hours", exact=True)
    store.command("FLUSHALL")
    async with FaultProxy(store.port) as proxy:
        server = await Server(store, limit, port=proxy.port, timeout_s=0.3).start()
        for lost in (True, False, True):
            held = await server.ask(input_tokens=80)
            assert held is not None
            if lost:
                proxy.latency_s = NEVER_S
                server.settle(held, input_tokens=10)
                await server.is_up(False)
            else:
                proxy.close_all()
                await server.is_up(False)
                server.settle(held, input_tokens=10)
            proxy.latency_s = 0.0
            await server.is_up()
        await server.leases.aclose()

    assert await left_of(store, limit) == 70


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_exact", [True, False])
async def test_tokens_add_up_whatever_the_servers_do(store: Store, seed: int, is_exact: bool) -> None:
    limit = LimitRecord(name="limit-0", limit="10000 input tokens per hour", exact=is_exact)
    chance = random.Random(seed)
    spent = 0

    async def call(server: Server) -> None:
        nonlocal spent
        expected = chance.randint(1, 300)
        hold = await server.ask(input_tokens=expected)
        if hold is None:
            return
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            used = chance.choice((0, expected, chance.randint(0, expected)))
            spent += used
            server.settle(hold, input_tokens=used)

    async with servers(store, 3, limit) as found:
        for _ in range(12):
            tasks = [asyncio.create_task(call(chance.choice(found))) for _ in range(20)]
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 4):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert spent <= 10_000

    assert await left_of(store, limit) == 10_000 - spent


@pytest.mark.parametrize("seed", range(2))
async def test_streams_add_up_whatever_the_servers_do(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    under_way = most = 0

    async def call(server: Server) -> None:
        nonlocal under_way, most
        hold = await server.ask()
        if hold is None:
            return
        under_way += 1
        most = max(most, under_way)
        try:
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
        finally:
            under_way -= 1
            server.settle(hold)

    async with servers(store, 3, "7 concurrent streams") as found:
        for _ in range(10):
            tasks = [asyncio.create_task(call(chance.choice(found))) for _ in range(25)]
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 5):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    assert 1 <= most <= 7
    assert await left_of(store, "7 concurrent streams") == 7


async def test_places_that_one_worker_has_left_are_free_for_the_next_one(store: Store) -> None:
    store.command("FLUSHALL")
    clock = HandClock()  # it stands still: nothing ever lies idle
    first, second = [await Server(store, "2 concurrent streams", workers=2, clock=clock).start() for _ in range(2)]
    for worker in (first, second, first):
        hold = await worker.ask()
        assert hold is not None
        worker.settle(hold)

    async def two_fit() -> bool:
        holds = [await second.ask() for _ in range(2)]
        for hold in holds:
            if hold is not None:
                second.settle(hold)
        return None not in holds

    await eventually(two_fit)
    for worker in (first, second):
        await worker.leases.aclose()


async def test_what_a_server_has_already_counts_toward_a_call(store: Store) -> None:
    limit = "100 input tokens per hour"
    async with servers(store, 1, limit) as (first,):
        assert await first.ask(input_tokens=10) is not None  # and 5 beyond
        other = await Server(store, LimitRecord(name="limit-0", limit=limit, exact=True)).start()
        assert await other.ask(input_tokens=83) is not None

        assert await first.ask(input_tokens=7) is not None
        assert await first.ask(input_tokens=1) is None
        await other.leases.aclose()


async def test_a_server_that_nobody_asks_says_that_it_lives(store: Store) -> None:
    async with servers(store, 1, "2 concurrent streams") as (server,):

        def lives_until() -> float:
            return float(store.command("ZSCORE", "{torana}:living", server.leases._asker.name).split(b"\r\n")[1])

        async def has_said_so() -> bool:
            return lives_until() > first

        first = lives_until()

        await eventually(has_said_so)


async def test_a_server_that_is_alone_counts_as_one_that_shares(store: Store) -> None:
    clock = HandClock()
    server = Server(store, "2 per minute", "100 input tokens per minute", port=1, clock=clock)
    server.leases.start()

    for _ in range(2):  # the second time in a minute of its own
        assert [await server.ask(input_tokens=30) is not None for _ in range(3)] == [True, True, False]
        clock.advance(60)
    # More than there is passes where nothing is taken.
    assert [await server.ask(input_tokens=101) is not None for _ in range(2)] == [True, False]
    await server.leases.aclose()


async def test_a_server_that_is_alone_keeps_to_the_burst_of_a_limit(store: Store) -> None:
    clock = HandClock()
    limit = LimitRecord(name="limit-0", limit="60 per minute", burst=5)
    server = Server(store, limit, port=1, clock=clock)
    server.leases.start()

    passed = []
    for _ in range(3):
        passed.append([await server.ask() is not None for _ in range(10)].count(True))
        clock.advance(5)  # in this time it has flowed off
    await server.leases.aclose()

    assert passed == [5, 5, 5]


async def test_a_killed_servers_lease_is_lost_for_the_window_and_no_more_than_it(store: Store) -> None:
    limit = "1000 per hour"
    async with servers(store, 3, limit) as found:
        for number in range(300):
            assert await found[number % 3].ask() is not None
        await found[0].kill()
        passed = 300
        while True:
            seen = [await server.ask() is not None for server in found[1:]]
            passed += sum(seen)
            if not any(seen):
                break

    assert 1000 - 2 * 50 <= passed <= 1000


async def test_exact_tokens_that_a_killed_server_held_are_free_again(store: Store) -> None:
    limit = LimitRecord(name="limit-0", limit="1000 input tokens per 24 hours", exact=True)
    async with servers(store, 2, limit) as (dead, living):
        assert await dead.ask(input_tokens=800) is not None
        await dead.kill()
        assert await living.ask(input_tokens=300) is None
        # Ten seconds without a word, told by the store's own record of who is alive.
        store.command("ZREM", "{torana}:living", dead.leases._asker.name)

        assert await living.ask(input_tokens=300) is not None


async def test_a_server_that_was_taken_for_dead_says_anew_what_it_holds(store: Store) -> None:
    limit = LimitRecord(name="limit-0", limit="1000 input tokens per 24 hours", exact=True)
    async with servers(store, 2, limit, "2 concurrent streams") as (first, second):
        hold = await first.get(input_tokens=800)
        second.settle(await second.get(input_tokens=1), input_tokens=0)
        before = [server.leases._asker.name for server in (first, second)]
        store.command("CLIENT", "KILL", "TYPE", "normal")

        async def are_back() -> bool:
            """Under other names, and the store has forgotten the old ones."""
            both = first.leases, second.leases
            return all(each.state[0] and each._asker.name not in before and not each._gone for each in both)

        await eventually(are_back)
        assert await second.ask(input_tokens=300) is None
        first.settle(hold, input_tokens=100)

        async def passes() -> bool:
            return await second.ask(input_tokens=100) is not None

        await eventually(passes)


async def test_a_quiet_lease_goes_back(store: Store) -> None:
    async with servers(store, 2, "40 per hour") as (first, second):
        for _ in range(3):
            await first.ask()
        leased = first.leases._books.leased

        async def has_returned() -> bool:
            return not leased

        await eventually(has_returned)

        assert [await second.ask() is not None for _ in range(38)] == [True] * 37 + [False]


async def test_what_comes_back_of_a_lease_that_was_used_up_for_long_is_for_all_servers(store: Store) -> None:
    async with servers(store, 2, "1000 input tokens per hour") as (first, second):
        leased = first.leases._books.leased
        hold = await first.get(input_tokens=900)
        while await second.ask(input_tokens=1) is not None:
            pass  # until nothing is left to be leased

        async def is_gone_through_no_more() -> bool:
            return not leased

        await eventually(is_gone_through_no_more)
        first.settle(hold, input_tokens=100)

        async def passes() -> bool:
            return await second.ask(input_tokens=700) is not None

        await eventually(passes)


async def test_minutes_are_counted_over_all_servers(store: Store) -> None:
    async with servers(store, 2) as found:
        first, second = [MinuteLimit("minted", 3, each.leases.table, Clock(), each.leases) for each in found]

        async def is_known() -> bool:
            return second.wait_s("mia") > 0

        for _ in range(3):
            first.count("mia")
        assert second.count("mia") == 1
        second.count("lea")
        await eventually(is_known)

        assert 0 < second.wait_s("mia") <= 60
        assert second.wait_s("lea") == 0


def test_metrics_of_a_server_without_limits_show_none() -> None:
    text = Metrics(Known()).expose()[0].decode()

    assert "torana_limit_passed_total{" not in text
