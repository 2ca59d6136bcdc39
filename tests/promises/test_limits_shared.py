"""Limits that all servers share, in a real Valkey; what happens while it is away (promises RE1 to RE11)."""

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_access import MINT
from tests.support.certificates import Authority
from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.harm import HarmfulProxy
from tests.support.issuer import FakeIssuer
from tests.support.keys import rsa_key
from tests.support.limits import PATH, ask, ask_of, ask_unread, body, is_figure, statuses, token_of, write_limits
from tests.support.provider import ScriptedProvider
from tests.support.valkey import ScriptedStore, Store, running_store
from tests.support.waiting import eventually

from torana.errors import BadSetting

PATIENT = {"AIGW_LIMITS__PATIENCE_S": "2"}
"""The machine that tests run on is slower than one that serves; what is tested is not how quick it is."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with running_store(tmp_path) as store:
        yield store


class Start:
    """`await start("60 per minute")`: one more gateway with these limits, counting with all others in the store."""

    def __init__(self, start_gateway: StartGateway, store: Store, folder: Path) -> None:
        self.start_gateway, self.url, self.folder = start_gateway, store.url, folder

    async def __call__(self, *limits: str | dict[str, Any], url: str = "", **env: str) -> RunningGateway:
        told = write_limits(self.folder, *limits) | {"AIGW_REDIS_URL": url or self.url} | PATIENT | env
        gateway = await self.start_gateway(told)
        if not url:
            await eventually(lambda: is_shared(gateway))
        return gateway


@pytest.fixture
def start(start_gateway: StartGateway, store: Store, tmp_path: Path) -> Start:
    return Start(start_gateway, store, tmp_path / "overlay")


async def plain_figure(gateway: RunningGateway, name: str) -> float:
    """The sum of a family's series."""
    text = (await gateway.monitoring("/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def is_shared(gateway: RunningGateway, count: float = 1) -> bool:
    return await plain_figure(gateway, "torana_limits_shared") == count


def exact(limit: str, **members: Any) -> dict[str, Any]:
    return {"limit": limit, "exact": True, **members}


# --- One count ---


async def test_a_dry_run_tells_what_is_left_of_a_shared_count_and_takes_nothing(start: Start) -> None:
    token = "operators-secret-of-32-characters"
    one, other = [await start("100 per minute", AIGW_OPERATOR_TOKEN=token) for _ in range(2)]

    async def left(gateway: RunningGateway) -> str:
        dry = {"X-Torana-Dry-Run": "true", "X-Torana-Operator-Token": token}
        told = await gateway.post(PATH, json=body(), token=token_of(gateway), headers=dry)
        (limit,) = told.json()["limits"]
        return str(limit).rpartition(", ")[2]

    assert [await left(one), await left(other)] == ["100 left", "100 left"]
    await statuses(one, 30)
    assert await left(one) == "70 left"
    assert await left(one) == "70 left"


async def test_an_instance_beyond_a_shared_limit_is_refused_at_every_door_until_it_may_ask_for_more(
    start: Start,
) -> None:
    one, other = [await start("6 per hour per instance") for _ in range(2)]
    token = token_of(one)

    async def again(gateway: RunningGateway, count: int) -> list[int]:
        """With the same head each time, so that it need not be read."""
        return [(await gateway.post(PATH, json=body(), token=token)).status for _ in range(count)]

    async def is_let_in(gateway: RunningGateway) -> bool:
        return await again(gateway, 1) == [200]

    found = [*await again(one, 12), *await again(other, 6)]
    write_limits(start.folder, "600 per hour per instance")
    for gateway in (one, other):
        assert await gateway.running.reloader.reload()

    assert (found.count(200), found.count(429)) == (6, 12)
    await eventually(lambda: is_let_in(one))
    await eventually(lambda: is_let_in(other))


async def test_three_gateways_let_exactly_as_many_pass_as_the_limit_says(start: Start) -> None:
    gateways = [await start(exact("100 per minute")) for _ in range(3)]

    answers = await asyncio.gather(*(ask(gateways[number % 3], user=str(number)) for number in range(200)))

    seen = [answer.status for answer in answers]
    assert (seen.count(200), seen.count(429)) == (100, 100)
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.json()["refusal"]["missing"] == "limit-0: 100 per minute"
    assert 1 <= int(refused.header("retry-after") or 0) <= 60
    assert refused.header("x-torana-limits") is None


@pytest.mark.parametrize("is_exact", [False, True])
async def test_bytes_are_counted_over_all_servers_and_what_is_too_long_is_refused_unread(
    start: Start, is_exact: bool
) -> None:
    limit = {"limit": "10 KB per hour per instance", "exact": is_exact}
    one, other = [await start(limit) for _ in range(2)]

    passed = [(await ask_of(gateway, size)).status for gateway, size in ((one, 6_000), (other, 4_500))]

    assert (passed, await ask_unread(other, 5_000)) == ([200, 429], 429)
    assert [(await ask_of(gateway, size)).status for gateway, size in ((other, 3_000), (one, 3_000))] == [200, 429]


async def test_with_leases_never_more_pass_and_at_most_a_slice_less_for_each_other_server(start: Start) -> None:
    gateways = [await start("100 per minute") for _ in range(3)]

    answers = await asyncio.gather(*(ask(gateways[number % 3], user=str(number)) for number in range(200)))

    passed = [answer.status for answer in answers].count(200)
    assert 100 - 2 * 5 <= passed <= 100


async def test_a_lease_spares_most_questions(start: Start) -> None:
    gateway = await start("10000 per minute")

    await statuses(gateway, 40)

    questions = await plain_figure(gateway, "torana_limit_questions_total")
    assert questions < 20  # 2, 3, 5, 9, 17, … at a time, where they come within a second


async def test_what_was_leased_comes_back_when_a_server_stops(
    start: Start, provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    env = write_limits(tmp_path / "overlay", "40 per minute") | {"AIGW_REDIS_URL": start.url} | PATIENT
    async with running_gateway(provider, issuer, tmp_path / "first", env) as first:
        await eventually(lambda: is_shared(first))
        assert await statuses(first, 2) == [200, 200]

    second = await start("40 per minute")

    assert await statuses(second, 39) == [200] * 38 + [429]


async def test_tokens_that_were_not_used_are_free_for_all_servers(start: Start) -> None:
    gateways = [await start(exact("1000 output tokens per minute")) for _ in range(2)]
    asked = {"params": {"max_tokens_to_sample": 900}}
    assert await statuses(gateways[0], 1, **asked) == [200]  # seven were used

    async def passes() -> bool:
        return await statuses(gateways[1], 1, **asked) == [200]

    await eventually(passes)


async def test_tokens_under_way_on_one_server_are_taken_for_the_others(start: Start) -> None:
    gateways = [await start(exact("1000 output tokens per minute")) for _ in range(2)]
    provider = gateways[0].provider
    provider.stall(times=1)
    under_way = asyncio.create_task(ask(gateways[0], params={"max_tokens_to_sample": 900}))
    await provider.request(1)

    refused = await ask(gateways[1], params={"max_tokens_to_sample": 200})
    passed = await ask(gateways[1], params={"max_tokens_to_sample": 100})

    assert (refused.status, passed.status) == (429, 200)
    under_way.cancel()


async def test_streams_are_counted_over_all_servers(start: Start) -> None:
    gateways = [await start("2 concurrent streams per user") for _ in range(2)]
    provider = gateways[0].provider
    provider.stall(after_events=1)
    under_way = [asyncio.create_task(ask(gateway)) for gateway in gateways]
    await provider.request(2)

    third = [(await ask(gateway)).status for gateway in gateways]
    provider.release()
    await asyncio.gather(*under_way)
    provider.answer_with()

    async def passes() -> bool:
        return await statuses(gateways[0], 1) == [200]

    assert third == [429, 429]
    await eventually(passes)


async def test_an_answer_says_what_is_left_for_all_servers(start: Start) -> None:
    gateways = [await start(exact("10 per hour"), "1000 per day") for _ in range(2)]

    answers = [await ask(gateways[0]), await ask(gateways[0]), await ask(gateways[1])]

    told = [
        [re.sub(";t=.*", "", part) for part in (answer.header("ratelimit") or "").split(", ")] for answer in answers
    ]
    assert told[:2] == [['"limit-0";r=9', '"limit-1";r=999'], ['"limit-0";r=8', '"limit-1";r=998']]
    assert told[2][0] == '"limit-0";r=7'
    assert re.match(r'"limit-0";r=7;t=3(600|59\d),', answers[2].header("ratelimit") or "")


async def test_a_burst_is_one_for_all_servers(start: Start) -> None:
    gateways = [await start(exact("60 per hour", burst=3)) for _ in range(2)]

    answers = [await ask(gateways[number % 2]) for number in range(5)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert 50 <= int(answers[-1].header("retry-after") or 0) <= 60


async def test_a_burst_that_is_used_up_says_when_one_has_flowed_off(start: Start) -> None:
    gateway = await start(exact("60 per hour", burst=2))
    assert await statuses(gateway, 1) == [200]

    passed, refused, at_once = [await ask(gateway) for _ in range(3)]

    assert (passed.header("ratelimit") or "").startswith('"limit-0";r=0;t=1')  # two minutes, or nearly
    for answer in (refused, at_once):  # the second one without asking the store
        assert answer.status == 429
        assert 50 <= int(answer.header("retry-after") or 0) <= 60


@pytest.mark.parametrize("is_exact", [True, False])
async def test_who_waits_for_a_burst_is_told_what_is_left_to_wait(start: Start, is_exact: bool) -> None:
    gateway = await start({"limit": "6 per minute per user", "burst": 1, "exact": is_exact})
    assert await statuses(gateway, 1) == [200]

    async def has_waited() -> bool:
        return int((await ask(gateway)).header("retry-after") or 99) < 9

    await eventually(has_waited)


@pytest.mark.parametrize("limit", ["1 per minute", "1 per day", "1 per month"])
async def test_a_window_that_began_while_the_stores_clock_was_wrong_does_not_last(
    start: Start, store: Store, limit: str
) -> None:
    gateway = await start({"limit": limit, "exact": True})
    assert await statuses(gateway, 2) == [200, 429]

    a_year = 365 * 86_400_000
    moved = f"if redis.call('HEXISTS', key, 'e') == 1 then redis.call('HINCRBY', key, 'e', {a_year}) end"
    hashes = f"if redis.call('TYPE', key).ok == 'hash' then {moved} end"
    assert b"ERR" not in store.command(
        "EVAL", f"for _, key in ipairs(redis.call('KEYS', '{{torana}}:*')) do {hashes} end", 0
    )

    async def passes() -> bool:
        return await statuses(gateway, 1) == [200]

    await eventually(passes)
    assert await statuses(gateway, 1) == [429]


@pytest.mark.parametrize("period", ["day", "week", "month"])
async def test_quotas_of_the_calendar_are_shared_and_end_with_it(start: Start, period: str) -> None:
    gateways = [await start(exact(f"1 per {period}")) for _ in range(2)]

    first, second = await ask(gateways[0]), await ask(gateways[1])

    assert (first.status, second.status) == (200, 429)
    longest_s = {"day": 86_400, "week": 7 * 86_400, "month": 31 * 86_400}[period]
    assert 0 < int(second.header("retry-after") or 0) <= longest_s
    assert second.header("x-should-retry") == "false"


async def test_a_call_takes_from_all_its_limits_or_from_none(start: Start) -> None:
    gateway = await start(exact("1 per minute per user"), exact("3 per minute per instance"), "1000 per hour")

    first = await statuses(gateway, 3)

    assert first == [200, 429, 429]
    assert [(await ask(gateway, user=name)).status for name in ("a", "b", "c")] == [200, 200, 429]


async def test_a_reload_that_lowers_a_limit_is_obeyed_at_once(start: Start) -> None:
    """Whatever was leased by the old one."""
    gateway = await start("100 per minute")
    assert await statuses(gateway, 4) == [200] * 4  # a fifth one is leased

    write_limits(start.folder, "3 per minute")
    await gateway.running.reloader.reload()

    assert await statuses(gateway, 1) == [429]


async def test_names_of_any_kind_become_keys_of_one_shape_in_one_slot(start: Start, store: Store) -> None:
    gateway = await start(exact("1 per minute per instance and user"))

    for instance, user in [("a", "b:c"), ("a:b", "c"), ("a}b{c", "\\r\\n"), ("a", "x" * 7000)]:
        assert await statuses(gateway, 2, instance=instance, user=user) == [200, 429]

    keys = store.command("KEYS", "*").split(b"\r\n")[2::2]
    assert len(keys) == 6  # one for each, who is alive, and what was asked last
    assert all(key.startswith(b"{torana}:") and len(key) <= 41 for key in keys)


async def test_without_limits_nothing_is_asked_and_nothing_is_connected(start_gateway: StartGateway) -> None:
    async with ScriptedStore(lambda command: b"+OK\r\n") as store:
        gateway = await start_gateway({"AIGW_REDIS_URL": store.url})
        assert (await ask(gateway)).status == 200

        assert store.connections == 0


async def test_counts_that_are_flushed_begin_anew_and_never_fall_below_nothing(start: Start, store: Store) -> None:
    gateway = await start(exact("1000 output tokens per minute"), exact("2 concurrent streams"))
    provider = gateway.provider
    first, second = asyncio.Event(), asyncio.Event()
    provider.answer_with(first_byte_after=first, times=1)
    provider.answer_with(first_byte_after=second, times=1)
    under_way = asyncio.create_task(ask(gateway, params={"max_tokens_to_sample": 900}))
    await provider.request(1)

    store.command("FLUSHALL")
    first.set()
    assert (await under_way).status == 200
    await gateway.log.find(message="limits are not shared: this server counts alone")  # it has noticed
    await eventually(lambda: is_shared(gateway))

    # Of the seven that were used the store may know, or not; of what came back besides nobody may take anything.
    under_way = asyncio.create_task(ask(gateway, params={"max_tokens_to_sample": 993}))
    await provider.request(2)
    assert await statuses(gateway, 1, params={"max_tokens_to_sample": 8}) == [429]
    second.set()
    assert (await under_way).status == 200
    await eventually(lambda: is_figure(gateway, "torana_limit_held", 0))


async def test_minted_tokens_and_refused_ones_are_counted_over_all_servers(
    start_gateway: StartGateway, store: Store
) -> None:
    env = {"AIGW_REDIS_URL": store.url, "AIGW_AUTH__MINT_PER_MINUTE": "5", "AIGW_AUTH__FAILURES_PER_MINUTE": "3"}
    first, second = [await start_gateway(env) for _ in range(2)]

    async def mint(gateway: RunningGateway) -> int:
        return (await gateway.post(MINT, token=gateway.token(unit_primitives=["complete_code"]))).status

    async def show_bad_token(gateway: RunningGateway, number: int) -> str:
        strange = gateway.token(unit_primitives=["duo_chat"], key=rsa_key(555), jti=str(number))
        answer = await gateway.post("/v1/chat/agent", json=body(), token=strange)
        return str(answer.refusal.code)

    assert [await mint(first) for _ in range(4)] == [200] * 4
    assert await mint(second) == 200

    async def are_refused() -> bool:
        return await mint(first) == await mint(second) == 429

    await eventually(are_refused)
    for number in range(3):
        await show_bad_token(first, number)
    numbers = itertools.count(3)

    async def is_left_alone() -> bool:
        return await show_bad_token(second, next(numbers)) == "auth_failures_exceeded"

    await eventually(is_left_alone)


# --- Without the store ---


async def test_while_the_store_is_away_a_server_lets_its_share_pass_and_says_so(start: Start, store: Store) -> None:
    gateways = [await start(exact("10 per minute")) for _ in range(2)]
    assert await statuses(gateways[0], 2) == [200, 200]
    assert await statuses(gateways[1], 1) == [200]
    store.stop()
    for gateway in gateways:
        await eventually(lambda gateway=gateway: is_shared(gateway, 0))

    answers = [await ask(gateways[0]) for _ in range(6)]

    # Half of the eight that were left when it last asked; the other one's view is newer by one.
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 429, 429]
    assert {answer.header("x-torana-limits") for answer in answers} == {"degraded"}
    assert [str(answer.header("ratelimit"))[:14] for answer in answers] == [
        f'"limit-0";r={left};' for left in [3, 2, 1, 0, 0, 0]
    ]
    assert await statuses(gateways[1], 5) == [200, 200, 200, 429, 429]  # so that ten have passed in all
    assert await plain_figure(gateways[0], "torana_limited_alone_total") == 6


async def test_how_many_servers_there_are_may_be_told(start: Start) -> None:
    async with ScriptedStore(lambda command: None) as silent:
        gateway = await start(
            "10 per minute", url=silent.url, AIGW_LIMITS__REPLICAS="5", AIGW_LIMITS__PATIENCE_S="0.05"
        )

        assert await statuses(gateway, 3) == [200, 200, 429]


async def test_streams_that_ended_before_take_no_place_while_the_store_is_away(start: Start, store: Store) -> None:
    gateway = await start("2 concurrent streams")
    assert await statuses(gateway, 3) == [200] * 3
    store.stop()
    await eventually(lambda: is_shared(gateway, 0))

    answers = [await ask(gateway) for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.header("ratelimit") for answer in answers] == ['"limit-0";r=1'] * 3


async def test_a_closed_limit_lets_nothing_pass_while_the_store_is_away(start: Start, store: Store) -> None:
    gateway = await start({"limit": "5 USD per day", "when_down": "closed"})
    assert await statuses(gateway, 1) == [200]
    store.stop()
    await eventually(lambda: is_shared(gateway, 0))

    answer = await ask(gateway)

    refusal = answer.json()["refusal"]
    assert (answer.status, refusal["code"], refusal["layer"]) == (503, "limits_unavailable", "limit")
    assert (refusal["retryable"], refusal["missing"]) == (True, "limit-0: 5 USD per day")
    assert 1 <= int(answer.header("retry-after") or 0) <= 5
    assert answer.header("x-torana-limits") == "degraded"


async def test_what_passed_meanwhile_is_counted_when_the_store_is_back(start: Start, store: Store) -> None:
    gateway = await start("10 per minute")
    store.stop()
    await eventually(lambda: is_shared(gateway, 0))
    assert await statuses(gateway, 7) == [200] * 7

    store.start()
    await eventually(lambda: is_shared(gateway))

    seen = await statuses(gateway, 5)
    assert seen == [200, 200, 200, 429, 429]


async def test_what_one_server_let_pass_meanwhile_the_others_learn(start: Start, store: Store) -> None:
    gateways = [await start(exact("10 per minute"), AIGW_LIMITS__REPLICAS="2") for _ in range(2)]
    store.stop()
    for gateway in gateways:
        await eventually(lambda gateway=gateway: is_shared(gateway, 0))
    assert await statuses(gateways[0], 6) == [200] * 5 + [429]

    store.start()
    for gateway in gateways:
        await eventually(lambda gateway=gateway: is_shared(gateway))

    assert await statuses(gateways[1], 6) == [200] * 5 + [429]


async def test_streams_that_run_while_the_store_comes_back_are_counted(start: Start, store: Store) -> None:
    gateway, other = [await start("3 concurrent streams per user") for _ in range(2)]
    provider = gateway.provider
    provider.stall(after_events=1)
    under_way = [asyncio.create_task(ask(gateway)) for _ in range(2)]
    await provider.request(2)

    store.stop()
    for each in (gateway, other):
        await eventually(lambda each=each: is_shared(each, 0))
    store.start()  # it has forgotten everything
    for each in (gateway, other):
        await eventually(lambda each=each: is_shared(each))
    third = asyncio.create_task(ask(other))
    await provider.request(3)

    assert [(await ask(each)).status for each in (other, gateway)] == [429, 429]
    provider.release()
    await asyncio.gather(*under_way, third)


async def test_a_frozen_store_holds_up_a_call_once_and_no_longer_than_the_patience(start: Start, store: Store) -> None:
    gateway = await start(exact("100 per minute"), AIGW_LIMITS__PATIENCE_S="0.3")
    assert await statuses(gateway, 1) == [200]
    store.freeze()

    first = await asyncio.gather(*(ask(gateway) for _ in range(20)))
    questions = await plain_figure(gateway, "torana_limit_questions_total")
    later = await statuses(gateway, 5)

    assert [answer.status for answer in first] == [200] * 20
    assert later == [200] * 5
    # Nobody asks any more, until it answers again.
    assert await plain_figure(gateway, "torana_limit_questions_total") == questions
    store.thaw()
    await eventually(lambda: is_shared(gateway))


async def test_each_change_of_the_stores_state_is_one_log_line(start: Start, store: Store) -> None:
    async with FaultProxy(store.port) as proxy:
        gateway = await start("100 per minute", url=f"redis://127.0.0.1:{proxy.port}")
        await eventually(lambda: is_shared(gateway))

        for _ in range(3):
            proxy.refuses = True
            proxy.reset_all()
            await eventually(lambda: is_shared(gateway, 0))
            await statuses(gateway, 3)
            proxy.refuses = False
            await eventually(lambda: is_shared(gateway))

        lines = [line for line in gateway.log.lines if "limits are" in str(line.get("message", line))]
        assert len(lines) == 7
        assert proxy.connections < 40


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("READONLY You can't write against a read only replica.", "readonly"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "oom"),
        ("NOAUTH Authentication required.", "auth"),
        ("ERR ACL failure in script: User torana has no permissions to run the 'time' command", "auth"),
        ("NOPERM this user has no permissions to run the 'eval' command", "auth"),
        ("MISCONF Errors writing to the AOF file", "misconf"),
        ("CLUSTERDOWN The cluster is down", "cluster"),
        ("BUSY Redis is busy running a script.", "script"),
        ("NOSCRIPT No matching script.", "script"),
        ("ERR max number of clients reached", "maxclients"),
        ("ERR something else", "error"),
    ],
)
async def test_a_store_that_refuses_is_as_one_that_is_away(start: Start, error: str, reason: str) -> None:
    async with ScriptedStore(lambda command: f"-{error}\r\n".encode()) as refusing:
        gateway = await start("2 per minute", url=refusing.url)
        assert await statuses(gateway, 3) == [200, 200, 429]

    (line,) = [line for line in gateway.log.lines if "limits are not shared" in json.dumps(line)]
    assert line["reason"] == reason


@pytest.mark.parametrize("kind", ["5 per minute", "5 concurrent streams"])
@pytest.mark.parametrize(
    "reply",
    [
        *("+OK", ":1", "$-1", "*0", "*1|:1", "*4|:1|:1|:1|:1", "*5|:1|$-1|$-1|$-1|$-1", "*5|:1|-ERR no|:1|:1|:1"),
        *(f"*5|:1|:1|:1|:{number}|:1" for number in (2**43, 2**62, 10**30)),
    ],
)
async def test_an_answer_that_is_none_keeps_nobody_waiting(start: Start, reply: str, kind: str) -> None:
    """Something that stands between may speak the protocol and know no scripts."""

    def answer(command: list[bytes]) -> bytes:
        is_question = command[0] == b"EVAL" and int(command[2]) > 2
        return (reply if is_question else "*1|:1").replace("|", "\r\n").encode() + b"\r\n"

    async with ScriptedStore(answer) as odd:
        gateway = await start(exact(kind), url=odd.url)
        await eventually(lambda: is_shared(gateway))

        assert (await ask(gateway)).status == 200

    line = await gateway.log.find(message="limits are not shared: this server counts alone")
    assert line["reason"] == "error"


@pytest.mark.parametrize("host", ["127.0.0.1", "", "?"])  # the last two: where it was asked, at another port
async def test_a_node_of_a_cluster_that_sends_us_elsewhere_is_obeyed(start: Start, store: Store, host: str) -> None:
    moved = f"-MOVED 1234 {host}:{store.port}\r\n".encode()

    async with ScriptedStore(lambda command: moved if command[0] == b"EVAL" else b"+OK\r\n") as other_node:
        gateway = await start(exact("1 per minute"), url=other_node.url)
        await eventually(lambda: is_shared(gateway))

        assert await statuses(gateway, 2) == [200, 429]
    assert b"{torana}" in store.command("KEYS", "*")


async def test_a_node_that_a_cluster_has_lost_is_forgotten(start: Start, store: Store) -> None:
    """It fails over to another one; whoever is asked by the configured address knows which."""
    async with ScriptedStore(lambda command: b"+OK\r\n") as lost:
        sent_to = lost.url.removeprefix("redis://").removesuffix("/0")

    def answer(command: list[bytes]) -> bytes:
        return f"-MOVED 1234 {sent_to}\r\n".encode() if command[0] == b"EVAL" else b"+OK\r\n"

    async with ScriptedStore(answer) as other_node:
        gateway = await start(exact("1 per minute"), url=other_node.url)
        await gateway.log.find(message="limits are not shared: this server counts alone")
        sent_to = f"127.0.0.1:{store.port}"

        await eventually(lambda: is_shared(gateway))
        assert await statuses(gateway, 2) == [200, 429]


async def test_options_of_a_pool_in_the_address_are_no_fault(start: Start, store: Store) -> None:
    gateway = await start("1 per minute", url=f"{store.url}?max_connections=50&socket_timeout=1")

    await eventually(lambda: is_shared(gateway))


async def test_an_option_that_there_is_not_is_told_at_the_start(start: Start, store: Store) -> None:
    with pytest.raises(BadSetting) as told:
        await start("1 per minute", url="redis://:much-secret@store/0?ssl_ca_cert=ca.pem")

    assert str(told.value).startswith("AIGW_REDIS_URL: has the option `ssl_ca_cert`, which there is not")


async def test_a_key_of_a_wrong_type_is_decided_alone_and_disturbs_nobody(start: Start, store: Store) -> None:
    gateway = await start(exact("2 per minute per user"))
    await ask(gateway, user="mia")
    found = store.command("KEYS", "*").split(b"\r\n")[2::2]
    (key,) = [key for key in found if b"living" not in key and b"done" not in key]
    store.command("SET", key.decode(), "x")

    answers = [await ask(gateway, user="mia") for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 429]
    assert answers[0].header("x-torana-limits") == "degraded"
    assert (await ask(gateway, user="lea")).header("x-torana-limits") is None


async def test_a_password_is_used_and_never_shown(start: Start, start_gateway: StartGateway, tmp_path: Path) -> None:
    with running_store(tmp_path, "--requirepass", "canary-password-1") as locked:
        right = f"redis://:canary-password-1@127.0.0.1:{locked.port}/0"
        gateway = await start(exact("1 per minute"), url=right)
        await eventually(lambda: is_shared(gateway))
        assert await statuses(gateway, 2) == [200, 429]

        wrong = await start(exact("1 per minute"), url=right.replace("-1@", "-2@"))
        assert await statuses(wrong, 1) == [200]

    shown = json.dumps([gateway.log.lines, wrong.log.lines])
    assert "canary-password" not in shown
    assert '"auth"' in shown


async def test_a_store_behind_tls_is_believed_by_the_operators_own_authority(
    start: Start, store: Store, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with HarmfulProxy(store.port, authority.issue("127.0.0.1").server_context()) as tls:
        url = f"rediss://127.0.0.1:{tls.port}/0"
        doubting = await start("2 per minute", url=url)
        trusting = await start("2 per minute", url=url, AIGW_EXTRA_CA=str(authority.cert))

        await eventually(lambda: is_shared(trusting))
        line = await doubting.log.find(message="limits are not shared: this server counts alone")

    assert line["reason"] == "tls"


async def test_readiness_tells_whether_counts_are_shared_and_does_not_fail(start: Start, store: Store) -> None:
    gateway = await start("1 per minute")
    before = (await gateway.monitoring("/readyz")).json()
    store.stop()
    await eventually(lambda: is_shared(gateway, 0))
    after = (await gateway.monitoring("/readyz")).json()

    assert before["checks"]["shared_limits"]["ok"] is True
    assert after["checks"]["shared_limits"]["ok"] is False
    assert (before["ready"], after["ready"]) == (True, True)


async def test_a_call_that_is_cancelled_while_it_asks_takes_nothing(start: Start, store: Store) -> None:
    async with FaultProxy(store.port) as proxy:
        gateway = await start(
            exact("2 concurrent streams"), exact("3 per minute"), url=f"redis://127.0.0.1:{proxy.port}"
        )
        await eventually(lambda: is_shared(gateway))
        proxy.latency_s = 0.2
        waiting = gateway.request_bytes("POST", "/v1/chat/agent", json=body(), token=token_of(gateway))
        async with await gateway.connect() as connection:
            await connection.send(waiting)
            await asyncio.sleep(0.05)
        proxy.latency_s = 0.0

        async def all_pass() -> bool:
            return await statuses(gateway, 1) == [200]

        await eventually(all_pass)
        assert len(gateway.provider.requests) == 1
        assert await statuses(gateway, 3) == [200, 200, 429]
