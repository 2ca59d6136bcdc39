"""File descriptors that run short (LC4, OV2, CL9): who asks has them, as far as they go, and the others hear so."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

from tests.conftest import Serve
from tests.promises.test_process import ask_once, relay, relay_bytes
from tests.support.certificates import Authority
from tests.support.http_client import RawConnection, connect, write_request
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.served import served

from torana.api.room import SPARE_FILES


async def test_streams_beyond_the_file_limit_are_turned_away_and_the_others_go_on(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2)
    server = await serve(env=wired, files=SPARE_FILES + 40)
    request = relay_bytes(issuer)
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(40):
            connection = await stack.enter_async_context(await connect(server.port))
            await connection.send(request)
            streams.append(await connection.read_head())
        admitted = [stream for stream in streams if stream.status == 200]
        refused = [await stream.rest() for stream in streams if stream.status == 503]
        probe = await server.ask("/monitoring/healthz")
        provider.release()
        rests = [await stream.rest() for stream in admitted]

    assert len(admitted) == 20  # each takes a connection and an answer of the provider
    assert {(answer.refusal.code, answer.header("connection")) for answer in refused} == {("overloaded", "close")}
    assert probe.status == 200
    assert all(rest.is_whole for rest in rests)


async def test_of_a_crowd_that_connects_in_one_moment_and_asks_those_with_room_are_served(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2)
    server = await serve(env=wired, files=SPARE_FILES + 40)
    request = relay_bytes(issuer)
    async with AsyncExitStack() as stack:
        crowd = crowd_of(300, server.port)
        for client in crowd:
            client.sendall(request)
        probe = await server.monitoring("/healthz")
        connections = [await stack.enter_async_context(await read_from(client)) for client in crowd]
        streams = [await connection.read_head() for connection in connections]
        admitted = [stream for stream in streams if stream.status == 200]
        refused = [await stream.rest() for stream in streams if stream.status == 503]
        provider.release()
        rests = [await stream.rest() for stream in admitted]

    assert probe.status == 200
    assert (len(admitted), len(refused)) == (20, 280)
    assert all(rest.is_whole for rest in rests)
    assert {answer.refusal.code for answer in refused} == {"overloaded"}
    assert all(1 <= int(answer.header("retry-after") or 0) <= 5 for answer in refused)
    assert [line["message"] for line in server.lines if line["level"] != "info"] == []


def crowd_of(count: int, port: int) -> Sequence[socket.socket]:
    """So many that have connected before the server can have looked."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


async def read_from(client: socket.socket) -> RawConnection:
    return RawConnection(*await asyncio.open_connection(sock=client))


async def test_clients_that_say_nothing_take_no_file_from_those_who_ask(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer
) -> None:
    server = await serve(env=wired, files=SPARE_FILES + 60)
    async with AsyncExitStack() as stack:
        silent = [stack.enter_context(client) for client in crowd_of(300, server.port)]
        for client in silent[::2]:
            with suppress(ConnectionError):  # it has been silent for too long already
                client.sendall(b"GET /monitoring/ready HT")

        probes = [await server.monitoring("/healthz"), await server.ask("/monitoring/healthz")]
        first = await relay(server.port, issuer)

        async def answered() -> bool:
            return (await relay(server.port, issuer)).status == 200

        await server.until(answered)

    assert [probe.status for probe in probes] == [200, 200]
    # The others may have come a moment ago, to ask as well: those who have been silent for longer are closed.
    assert first.status == 200 or first.refusal.code == "overloaded"
    assert [line["message"] for line in server.lines if line["level"] != "info"] == [
        "file descriptors run short: idle connections are closed"
    ]


async def test_clients_that_were_refused_before_their_bodies_came_hold_no_place(
    serve: Serve, wired: dict[str, str], issuer: FakeIssuer
) -> None:
    server = await serve(env=wired, files=SPARE_FILES + 2)
    request = write_request("POST", "/v2/code/completions", {"Content-Length": "2"}, b"{")
    async with AsyncExitStack() as stack:
        refused = []
        for rest in (b"}", b"}", b"", b""):
            client = await stack.enter_async_context(await connect(server.port))
            await client.send(request)
            refused.append((await client.read_answer()).status)
            await client.send(rest)

        assert (await relay(server.port, issuer)).status == 200

    assert refused == [401] * 4


async def test_clients_that_shake_no_hands_take_no_file_from_those_who_ask(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    env = authority.issue("localhost").gateway_env()
    async with served(tmp_path, env=env, files=SPARE_FILES + 40) as server:
        await server.banner()
        with ExitStack() as stack:
            for client in crowd_of(300, server.port):
                stack.enter_context(client)

            probe = await server.monitoring("/healthz")
            stack.enter_context(await asyncio.to_thread(ask_once, server.port, authority.client_context()))

    assert probe.status == 200
