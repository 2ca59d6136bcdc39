"""Clients that leave: at every moment, in every way, on every kind of stream (promise CL1).

The provider's connection is closed, the books hold one record and one line that say whose doing it was, and no call
counts as under way any more.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import pytest_asyncio
from tests.conftest import StartGateway
from tests.support.families import BY_NAME, FAMILIES, Family, gateway_for_all, line_of, records_of
from tests.support.gateway import RunningGateway
from tests.support.http_client import RawConnection
from tests.support.provider import Script
from tests.support.waiting import WAIT_S, eventually

WAYS = ["close", "reset", "half-close"]
WHOLE = [family for family in FAMILIES if family.name not in ("v2 chat", "vertex proxy, array")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with gateway_for_all(tmp_path_factory.mktemp("leaving")) as gateway:
        yield gateway


async def leave(connection: RawConnection, way: str) -> None:
    if way == "reset":
        connection.reset()
    elif way == "half-close":
        connection.writer.write_eof()
    else:
        await connection.aclose()


async def ask_and_leave(
    gateway: RunningGateway,
    request: bytes,
    way: str,
    when: Callable[[RawConnection], Awaitable[object]],
) -> None:
    """Leaves as soon as `when` returns, and waits until the provider's connection is closed."""
    gateway.provider.requests.clear()
    async with await gateway.connect() as connection, asyncio.timeout(WAIT_S):
        await connection.send(request)
        asked = await gateway.provider.request()
        await when(connection)
        await leave(connection, way)
        await asked.hung_up.wait()


async def assert_booked(gateway: RunningGateway, request_id: str, *, status: int = 200) -> None:
    (record,) = await records_of(gateway, request_id)
    assert record["status"] == "client_cancelled"
    line = await line_of(gateway, request_id)
    assert (line["outcome"], line["status_code"]) == ("client_cancelled", status)
    assert not await has_calls_under_way(gateway)


async def has_calls_under_way(gateway: RunningGateway) -> bool:
    shown = (await gateway.monitoring("/metrics")).text
    counts = [line.split()[-1] for line in shown.splitlines() if line.startswith("model_inferences_in_flight{")]
    return any(float(count) for count in counts)


def request_of(gateway: RunningGateway, family: Family, request_id: str, *, stream: bool = True) -> bytes:
    return gateway.request_bytes("POST", **family.ask(gateway, request_id, stream=stream))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_before_the_first_byte(gateway: RunningGateway, family: Family, way: str) -> None:
    gateway.provider.follow(Script(hold_after=0, events=tuple(family.events())))
    request_id = f"{family.name}/first/{way}"

    async def at_once(_connection: RawConnection) -> None:
        pass

    await ask_and_leave(gateway, request_of(gateway, family, request_id), way, at_once)

    # The head of a relayed stream goes on with the provider's.
    (record,) = await records_of(gateway, request_id)
    assert record["status"] == "client_cancelled"
    assert (await line_of(gateway, request_id))["outcome"] == "client_cancelled"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_within_the_stream(gateway: RunningGateway, family: Family, way: str) -> None:
    gateway.provider.follow(Script(hold_after=family.head_events + 4, events=tuple(family.events())))
    request_id = f"{family.name}/within/{way}"

    async def some_text(connection: RawConnection) -> None:
        await (await connection.read_head()).next_chunk()

    await ask_and_leave(gateway, request_of(gateway, family, request_id), way, some_text)

    await assert_booked(gateway, request_id)
    (record,) = await records_of(gateway, request_id)
    assert record["input_tokens"] > 0
    assert record["output_tokens"] > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", ["first", "within"])
@pytest.mark.parametrize("family", WHOLE, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_before_a_whole_answer(gateway: RunningGateway, family: Family, moment: str, way: str) -> None:
    never = asyncio.Event()
    gateway.provider.follow(Script(first_byte_after=never) if moment == "first" else Script(hold_after=1))
    request_id = f"{family.name}/whole/{moment}/{way}"

    async def at_once(_connection: RawConnection) -> None:
        pass

    await ask_and_leave(gateway, request_of(gateway, family, request_id, stream=False), way, at_once)

    await assert_booked(gateway, request_id, status=499)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_within_the_body_nothing_is_asked(gateway: RunningGateway, family: Family, way: str) -> None:
    gateway.provider.requests.clear()
    request_id = f"{family.name}/body/{way}"

    async with await gateway.connect() as connection:
        await connection.send(request_of(gateway, family, request_id)[:-3])
        await gateway.get("/monitoring/healthz")
        await leave(connection, way)
        line = await line_of(gateway, request_id)

    assert (line["outcome"], line["status_code"]) == ("client_cancelled", 499)
    assert gateway.provider.requests == []
    assert [record for record in gateway.usage() if record["request_id"] == request_id] == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_right_after_the_last_byte_the_call_is_complete(
    gateway: RunningGateway, family: Family, way: str
) -> None:
    gateway.provider.follow(Script(events=tuple(family.events())))
    request_id = f"{family.name}/after/{way}"

    async with await gateway.connect() as connection:
        await connection.send(request_of(gateway, family, request_id))
        answer = await connection.read_answer()
        await leave(connection, way)

    assert answer.is_whole
    (record,) = await records_of(gateway, request_id)
    assert record["status"] == "completed"
    assert (await line_of(gateway, request_id))["outcome"] == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.asyncio(loop_scope="module")
async def test_behind_a_pipelined_request(gateway: RunningGateway, way: str) -> None:
    family = BY_NAME["v2 code"]
    gateway.provider.follow(Script(first_byte_after=asyncio.Event()))
    first = request_of(gateway, family, f"pipelined/{way}")

    async def at_once(_connection: RawConnection) -> None:
        pass

    await ask_and_leave(gateway, first + request_of(gateway, family, f"second/{way}"), way, at_once)

    await assert_booked(gateway, f"pipelined/{way}", status=499)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full and served by nobody: no connection to it ever comes about."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["v2 code", "v4 code", "v2 chat", "anthropic proxy", "messages"])
async def test_while_no_connection_comes_about(start_gateway: StartGateway, name: str, way: str) -> None:
    with deaf_port() as port:
        gateway = await start_gateway(
            env={"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "AIGW_TIMEOUTS__CONNECT_S": "60"}
        )
        async with await gateway.connect() as connection:
            await connection.send(request_of(gateway, BY_NAME[name], "connecting"))
            await eventually(lambda: has_calls_under_way(gateway))
            await leave(connection, way)
            line = await line_of(gateway, "connecting")
            (record,) = await records_of(gateway, "connecting")

    assert (line["outcome"], line["status_code"]) == ("client_cancelled", 499)
    assert (record["status"], record["input_tokens"], record["tries"]) == ("client_cancelled", 0, [])


@pytest.mark.parametrize("way", WAYS)
async def test_while_another_try_is_waited_for(start_gateway: StartGateway, way: str) -> None:
    gateway = await start_gateway(env={"AIGW_ROUTING__LONGEST_WAIT_S": "60"})
    gateway.provider.fail_with(429, headers={"Retry-After": "30"})

    async with await gateway.connect() as connection:
        await connection.send(request_of(gateway, BY_NAME["v2 code"], "waiting"))
        await gateway.provider.request()
        await gateway.get("/monitoring/healthz")
        await leave(connection, way)
        line = await line_of(gateway, "waiting")

    assert line["outcome"] == "client_cancelled"
    assert len(gateway.provider.requests) == 1


async def test_a_crowd_that_leaves_in_the_line_leaves_nothing(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    gateway.provider.stall()
    connections = [await gateway.connect() for _ in range(100)]

    for number, connection in enumerate(connections):
        connection.writer.write(request_of(gateway, BY_NAME["v2 code"], f"crowd-{number}"))
    for number, connection in enumerate(connections):
        await leave(connection, ("close", "reset")[number % 2])

    for number in range(100):
        line = await line_of(gateway, f"crowd-{number}")
        assert (line["outcome"], line["status_code"]) == ("client_cancelled", 499)

    async def all_closed() -> bool:
        return not gateway.provider.server.open

    await eventually(all_closed)
    assert len(gateway.usage()) == len({record["request_id"] for record in gateway.usage()})
    assert {record["status"] for record in gateway.usage()} <= {"client_cancelled"}
