"""Slow readers, silent providers and signs of life, on every kind of stream (promises CL3, ST9, ST13, ST14)."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.families import FAMILIES, PIECES, Family, gateway_for_all, line_of, records_of
from tests.support.gateway import RunningGateway
from tests.support.http_client import RawConnection
from tests.support.provider import Script
from tests.support.raw_server import Line, RawServer
from tests.support.waiting import eventually

PIECE = "x" * 16_384
MANY = 2000
"""Pieces of a stream of 32 MiB."""
BUFFERED_BYTES = 256 * 1024
"""What the gateway may hold of one stream in its own memory, and in the sockets' on the client's side."""

named = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def long_stream(family: Family) -> Script:
    """Good, and longer than all the sockets on its way can hold."""
    events = family.events(["Final Answer: ", PIECE, ""])
    middle = next(number for number, each in enumerate(events) if PIECE.encode() in each)
    return Script(events=(*events[:middle], *[events[middle]] * MANY, *events[middle + 1 :]))


@asynccontextmanager
async def slow_reader(gateway: RunningGateway, family: Family, request_id: str) -> AsyncIterator[RawConnection]:
    """A client with a small buffer that has asked, and reads when the test does."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    connection = RawConnection(reader, writer)
    writer.write(gateway.request_bytes("POST", **family.ask(gateway, request_id)))
    try:
        yield connection
    finally:
        await connection.aclose()


async def until_paused(gateway: RunningGateway) -> int:
    """Waits until the provider can write no more; how much it could."""
    server = gateway.provider.server
    seen, still = -1, 0

    async def is_paused() -> bool:
        nonlocal seen, still
        still = still + 1 if server.sent_bytes == seen and seen > 0 else 0
        seen = server.sent_bytes
        return still > 10

    await eventually(is_paused, within_s=20)
    return seen


def buffered_bytes(gateway: RunningGateway) -> int:
    """What waits for slow readers in the gateway's own memory."""
    connections = gateway.running.listeners[0].server.server_state.connections
    return sum(connection.transport.get_write_buffer_size() for connection in connections)


@named
async def test_a_reader_who_stops_stops_the_provider(tmp_path: Path, family: Family) -> None:
    async with gateway_for_all(tmp_path) as gateway:
        gateway.provider.follow(long_stream(family))

        async with slow_reader(gateway, family, "slow") as connection:
            sent = await until_paused(gateway)
            waiting = buffered_bytes(gateway)
            answer = await connection.read_answer()

        assert waiting <= BUFFERED_BYTES
        assert sent < 8 * 2**20  # most of it in the socket of the provider itself
        assert answer.is_whole
        assert family.ends in answer.body
        assert answer.body.count(PIECE.encode()) >= MANY  # some formats say it again at the end
        (record,) = await records_of(gateway, "slow")
        assert record["status"] == "completed"


@named
async def test_a_reader_without_progress_is_left_and_the_provider_with_him(tmp_path: Path, family: Family) -> None:
    async with gateway_for_all(tmp_path, {"AIGW_SERVER__WRITE_TIMEOUT_S": "0.2"}) as gateway:
        gateway.provider.follow(long_stream(family))

        async with slow_reader(gateway, family, "stuck") as connection, asyncio.timeout(20):
            await (await gateway.provider.request()).hung_up.wait()
            line = await line_of(gateway, "stuck")
            await connection.read_to_end()

        assert (line["outcome"], line["http_exception_details"]) == ("client_cancelled", "reader too slow")
        (record,) = await records_of(gateway, "stuck")
        assert record["status"] == "client_cancelled"
        assert record["output_tokens"] > 0


@named
async def test_silence_within_a_stream_ends_it(tmp_path: Path, family: Family) -> None:
    async with gateway_for_all(tmp_path, {"AIGW_TIMEOUTS__IDLE_S": "0.1"}) as gateway:
        gateway.provider.follow(Script(events=tuple(family.events()), hold_after=family.head_events + 4))

        answer = await gateway.post(**family.ask(gateway, "silent"))

        assert family.ends == b"" or family.ends not in answer.body
        assert answer.is_whole is (family.tells == "line")
        assert (family.failure_of(answer.body) is None) is (family.tells == "cut")
        assert family.text_of(answer.body).strip().endswith("one two")
        (record,) = await records_of(gateway, "silent")
        assert (record["status"], record["error_code"]) == ("upstream_error", "provider_timeout")
        line = await line_of(gateway, "silent")
        assert (line["outcome"], line["provider_error"]) == ("failed", "provider_timeout")
        await (await gateway.provider.request()).hung_up.wait()


@named
async def test_only_streams_of_true_events_carry_signs_of_life(tmp_path: Path, family: Family) -> None:
    async with gateway_for_all(tmp_path, {"AIGW_STREAM__KEEPALIVE_S": "0.02"}) as gateway:
        clock = next(each for each in FAMILIES if each.name == "v4 code")
        gateway.provider.follow(Script(events=tuple(family.events()), hold_after=family.head_events + 4), times=1)
        gateway.provider.follow(Script(hold_after=0))

        async with gateway.stream(**family.ask(gateway, "silent")) as answer:
            first = await answer.next_chunk()
            async with gateway.stream(**clock.ask(gateway, "clock")) as other:
                for _ in range(3):  # so many intervals go by
                    assert await other.next_chunk() == b": keep-alive\r\n\r\n"
            gateway.provider.release()
            rest = await answer.rest()

    assert (b": keep-alive" in rest.body) is family.has_comments
    assert rest.is_whole
    assert family.text_of(first + rest.body).strip().endswith("".join(PIECES[3:]).strip())


@named
async def test_a_stream_that_outlives_the_drain_is_told_so(tmp_path: Path, family: Family) -> None:
    async with gateway_for_all(tmp_path, {"AIGW_SERVER__DRAIN_S": "0.05"}) as gateway:
        gateway.provider.follow(Script(events=tuple(family.events()), hold_after=family.head_events + 4))

        async with gateway.stream(**family.ask(gateway, "drained")) as answer:
            first = await answer.next_chunk()
            await gateway.running.drain()
            await gateway.running.listeners[0].aclose()
            rest = await answer.rest()
        await (await gateway.provider.request()).hung_up.wait()
        line = await line_of(gateway, "drained")
        records = await records_of(gateway, "drained")

    body = first + rest.body
    failure = family.failure_of(body)
    assert rest.is_whole is (family.tells == "line")
    assert (failure is None) is (family.tells == "cut")
    if family.name in ("v4 code", "v2 chat"):
        assert failure is not None
        assert failure["retryable"] is True
    assert not family.ends or family.ends not in body
    assert line["status_code"] == 200
    assert len(records) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [413, 400, 503])
@pytest.mark.parametrize("size", [100, 8 * 2**20])
@pytest.mark.parametrize("name", ["anthropic proxy", "messages", "chat from messages"])
async def test_an_answer_before_the_request_is_sent_is_delivered(
    tmp_path: Path, name: str, size: int, status: int, stream: bool
) -> None:
    family = next(each for each in FAMILIES if each.name == name)
    error = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}).encode()

    async def script(line: Line) -> None:
        await line.read_head()
        await line.send(
            b"HTTP/1.1 %d Early\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(error), error)
        )
        line.finish()
        await line.gone()

    async with RawServer(script) as early, gateway_for_all(tmp_path, {"ANTHROPIC_BASE_URL": early.url("")}) as gateway:
        asked = family.ask(gateway, "early", stream=stream)
        asked["json"] = {**asked["json"], "messages": [{"role": "user", "content": "x" * size}]}

        answer = await gateway.post(**asked)

        assert answer.status == (status if family.is_proxy or status != 503 else 503)
        line = await line_of(gateway, "early")
        assert line["provider_status"] == status
