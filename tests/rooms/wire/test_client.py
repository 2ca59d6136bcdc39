"""The client against a server that says what it wants: pool, faults, patience, cancellation. On both event loops."""

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from tests.support.raw_server import Line, RawServer
from tests.support.waiting import WAIT_S, eventually

from torana.errors import AnswerTooLarge, ProviderBroke, ProviderError, ProviderTimedOut, ProviderUnreachable
from torana.heap import LARGE_BYTES, Heap
from torana.wire.client import WireAnswer, WireClient
from torana.wire.large_answers import LargeAnswers

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SOON_S = 0.1
"""A patience that a test outlives."""

MakeClient = Callable[..., WireClient]


def answer(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


async def send(
    client: WireClient, url: str, body: bytes = b"{}", *, first_byte_s: float = 5, idle_s: float = 5
) -> WireAnswer:
    return await client.send("POST", url, {"X-A": "b"}, body, first_byte_s=first_byte_s, idle_s=idle_s)


async def ask(client: WireClient, url: str, body: bytes = b"{}") -> tuple[int, bytes]:
    reply = await send(client, url, body)
    return reply.status, await reply.read_all(1 << 24)


async def echo(line: Line) -> None:
    """Answers each request with its own path."""
    while True:
        request = await line.read_request()
        await line.send(answer(request.split(b" ", 2)[1]))


async def leave(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Plain answers


async def test_a_request_goes_out_exactly_as_it_was_given(client: WireClient) -> None:
    async with RawServer(echo) as server:
        await (
            await client.send(
                "POST",
                f"http://user:pass@127.0.0.1:{server.port}/a/b?c=%20d#e",
                {"X-A": "b", "x-c": "ü"},
                b"body",
                first_byte_s=5,
                idle_s=5,
            )
        ).read_all(100)

    assert server.requests == [
        b"POST /a/b?c=%%20d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-A: b\r\nx-c: \xfc\r\nContent-Length: 4\r\n\r\nbody"
        % server.port
    ]


async def test_a_connection_serves_one_request_after_another(client: WireClient) -> None:
    async with RawServer(echo) as server:
        for number in range(5):
            assert await ask(client, server.url(f"/{number}")) == (200, b"/%d" % number)

        assert len(server.lines) == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(client: WireClient) -> None:
    async with RawServer(echo) as server:
        replies = await asyncio.gather(*(ask(client, server.url(f"/{number}")) for number in range(20)))

    assert replies == [(200, b"/%d" % number) for number in range(20)]


async def test_a_redirect_is_an_answer_like_any_other(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n")
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())

        assert (reply.status, reply.headers["location"], await reply.read_all(0)) == (307, "/else", b"")
        assert len(server.requests) == 1


async def test_a_body_in_single_bytes_arrives_whole(client: WireClient) -> None:
    text = "größer 😀 ".encode() * 20

    async def script(line: Line) -> None:
        await line.read_request()
        data = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text)
        await line.send(*(data[at : at + 1] for at in range(len(data))))
        await line.gone()

    async with RawServer(script) as server:
        assert await ask(client, server.url()) == (200, text)


async def test_a_compressed_answer_stays_as_it_came(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())

        assert (reply.headers["content-encoding"], await reply.read_all(3)) == ("gzip", b"\x1f\x8b\x08")


@pytest.mark.parametrize("size", [256 * 1024 - 1, 256 * 1024, 20_000_000])
async def test_a_large_request_arrives_whole(client: WireClient, size: int) -> None:
    async with RawServer(echo) as server:
        assert await ask(client, server.url("/big"), b"x" * size) == (200, b"/big")

    assert server.requests[0].count(b"x") == size


@pytest.mark.parametrize("limit", [4, 5, 6])
@pytest.mark.parametrize("pieces", [(b"hello",), (b"hel", b"lo")], ids=["at once", "in two"])
async def test_read_all_takes_up_to_its_limit(client: WireClient, limit: int, pieces: tuple[bytes, ...]) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(OK + b"Content-Length: 5\r\n\r\n", *pieces)
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())
        if limit < 5:
            with pytest.raises(AnswerTooLarge, match="larger than 4 bytes"):
                await reply.read_all(limit)
        else:
            assert await reply.read_all(limit) == b"hello"


@pytest.mark.parametrize("more", [0, 1])
async def test_the_memory_of_large_answers_is_looked_after(make_client: MakeClient, more: int) -> None:
    heap = Heap(over_s=1)
    client = make_client(heap=heap)

    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(answer(b"x" * (LARGE_BYTES + more)))
        await line.gone()

    async with RawServer(script) as server:
        assert await ask(client, server.url()) == (200, b"x" * (LARGE_BYTES + more))

    assert heap.is_keeping == bool(more)
    await eventually(lambda: _is_over(heap))


async def test_of_large_answers_that_take_too_much_together_the_oldest_is_given_up(make_client: MakeClient) -> None:
    client = make_client(large=LargeAnswers(3 * LARGE_BYTES))
    lines: list[Line] = []

    async def script(line: Line) -> None:
        while True:
            await line.read_request()
            lines.append(line)
            await line.send(OK + b"Content-Length: %d\r\n\r\n%s" % (3 * LARGE_BYTES, b"x" * 2 * LARGE_BYTES))

    async with RawServer(script) as server:
        first = asyncio.create_task(ask(client, server.url()))
        await eventually(lambda: _is_held(client))
        second = asyncio.create_task(ask(client, server.url()))
        with pytest.raises(AnswerTooLarge):
            await first
        await lines[1].send(b"y" * LARGE_BYTES)
        assert await second == (200, b"x" * 2 * LARGE_BYTES + b"y" * LARGE_BYTES)

        third = asyncio.create_task(ask(client, server.url()))
        await eventually(lambda: _is_held(client))
        await lines[2].send(b"y" * LARGE_BYTES)
        assert len((await third)[1]) == 3 * LARGE_BYTES
    assert client.large.size_bytes == 0


async def _is_held(client: WireClient) -> bool:
    return client.large.size_bytes == 2 * LARGE_BYTES


async def _is_over(heap: Heap) -> bool:
    return not heap.is_keeping


async def test_an_endless_answer_is_cut_at_the_limit(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED)
        while True:
            await line.send(b"10000\r\n%s\r\n" % (b"x" * 65536))

    async with RawServer(script) as server:
        reply = await send(client, server.url())
        with pytest.raises(AnswerTooLarge):
            await reply.read_all(1_000_000)
        await server.all_gone()


# What may not be sent


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-Evil: 1"},
        {"X-A": "b\nX-Evil: 1"},
        {"X-A": "b\rX-Evil: 1"},
        {"X-A: b\r\nX-Evil": "1"},
        {"X-A": "b\0"},
        {"Content-Length": "0"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"HOST": "evil"},
    ],
)
async def test_a_header_that_would_become_another_is_refused(client: WireClient, headers: dict[str, str]) -> None:
    async with RawServer(echo) as server:
        with pytest.raises(ProviderError) as told:
            await client.send("POST", server.url(), headers, b"", first_byte_s=5, idle_s=5)

    assert not told.value.is_retryable
    assert "evil" not in str(told.value).lower()
    assert server.lines == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nothing",
        "ftp://127.0.0.1/",
        "http://",
        "http://:80/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX-Evil: 1",
        "http://127.0.0.1/ü",
        "http://good\\@evil/",
        "http://127.0.0.1\0/",
    ],
)
async def test_what_is_no_url_is_refused(client: WireClient, url: str) -> None:
    with pytest.raises(ProviderUnreachable, match="an outbound address is no"):
        await send(client, url)


async def test_an_ipv6_address_is_called_and_named_in_brackets(client: WireClient) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(b"six"))
        writer.close()

    try:
        server = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await ask(client, f"http://[::1]:{port}/") == (200, b"six")

    assert b"\r\nHost: [::1]:%d\r\n" % port in heard[0]


# Faults


async def test_a_refused_connection_is_told_at_once(client: WireClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        with pytest.raises(ProviderUnreachable, match="refused"):
            async with asyncio.timeout(WAIT_S):
                await send(client, f"http://127.0.0.1:{taken.getsockname()[1]}/")

    assert client.open_connections == 0


async def test_the_next_address_is_tried_when_one_refuses(make_client: MakeClient) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.9.9.9", "127.0.0.1"]

    async with RawServer(echo) as server:
        assert await ask(make_client(resolve=resolve), server.url("/a", host="some.host")) == (200, b"/a")


@pytest.mark.parametrize("way", ["finish", "reset"])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTT",
        OK,
        OK + b"Content-Length: 5\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED + b"2\r\nok\r\n",
    ],
    ids=["nothing", "within the status", "within the head", "after the head", "within the body", "between chunks"],
)
async def test_an_answer_that_breaks_off_is_broken(client: WireClient, said: bytes, way: str) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        if said:
            await line.send(said)
        getattr(line, way)()
        await line.gone()

    async with RawServer(script) as server:
        with pytest.raises(ProviderBroke):
            await ask(client, server.url())

        assert len(server.requests) == 1  # a fresh connection is never asked twice
        await server.all_gone()
    assert client.open_connections == 0


@pytest.mark.parametrize("way", ["finish", "reset"])
async def test_a_body_without_length_is_whole_after_a_fin_and_broken_after_a_reset(
    client: WireClient, way: str
) -> None:
    is_read = asyncio.Event()

    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await is_read.wait()
        getattr(line, way)()
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())
        first = await reply.read()
        is_read.set()

        assert first == b"hello"
        if way == "finish":
            assert await reply.read() == b""
        else:
            for _ in range(2):  # reading on never looks like the end
                with pytest.raises(ProviderBroke):
                    await reply.read()


@pytest.mark.parametrize("way", ["finish", "reset", "close"])
async def test_a_whole_answer_is_whole_whatever_comes_after(client: WireClient, way: str) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(answer(b"whole"))
        getattr(line, way)()
        await line.gone()

    async with RawServer(script) as server:
        for _ in range(3):
            assert await ask(client, server.url()) == (200, b"whole")

        assert len(server.lines) == 3


@pytest.mark.parametrize("greeting", [b"", b"220 mail\r\n"], ids=["close", "banner"])
async def test_a_server_that_speaks_or_leaves_unasked_is_no_provider(client: WireClient, greeting: bytes) -> None:
    async def script(line: Line) -> None:
        if greeting:
            await line.send(greeting)
        line.reset()

    async with RawServer(script) as server:
        for _ in range(20):
            with pytest.raises((ProviderUnreachable, ProviderBroke)):
                await ask(client, server.url())
        await server.all_gone()
    assert client.open_connections == 0


async def test_an_early_refusal_is_delivered_though_the_request_is_not_sent(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_head()
        await line.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")

    async with RawServer(script) as server:
        for _ in range(5):
            assert await ask(client, server.url(), b"x" * 30_000_000) == (413, b"large")
        await server.all_gone()
    assert client.open_connections == 0


async def test_a_provider_that_stops_taking_the_request_after_its_answer_keeps_no_connection(
    client: WireClient,
) -> None:
    async def script(line: Line) -> None:
        await line.read_head()
        await line.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.Event().wait()

    async with RawServer(script) as server:
        assert await ask(client, server.url(), b"x" * 30_000_000) == (400, b"no")

        assert client.open_connections == 0


# The pool


async def test_bytes_on_a_resting_connection_are_not_the_next_answer(client: WireClient) -> None:
    lines: list[Line] = []

    async def script(line: Line) -> None:
        lines.append(line)
        await echo(line)

    async with RawServer(script) as server:
        for number in range(10):
            assert await ask(client, server.url(f"/{number}")) == (200, b"/%d" % number)
            # In the socket before the next request, and the loop has had no turn to read it.
            lines[-1]._writer.write(answer(b"evil"))

        assert len(server.lines) == 10


async def test_a_connection_closed_while_resting_is_not_used(client: WireClient) -> None:
    async def script(line: Line) -> None:
        request = await line.read_request()
        await line.send(answer(request.split(b" ", 2)[1]))

    async with RawServer(script) as server:
        assert await ask(client, server.url("/1")) == (200, b"/1")
        await server.all_gone()
        assert await ask(client, server.url("/2")) == (200, b"/2")

        assert len(server.requests) == 2


@pytest.mark.parametrize("way", ["finish", "reset"])
async def test_a_connection_closed_just_as_it_is_used_is_replaced_once(client: WireClient, way: str) -> None:
    """The keep-alive race: the provider's close and our request cross."""

    async def script(line: Line) -> None:
        request = await line.read_request()
        await line.send(answer(request.split(b" ", 2)[1]))
        if line.number == 1:
            await line.read_head()
            getattr(line, way)()
            await line.gone()
        else:
            await echo(line)

    async with RawServer(script) as server:
        await ask(client, server.url("/1"))

        assert await ask(client, server.url("/2")) == (200, b"/2")
        assert await ask(client, server.url("/3")) == (200, b"/3")
        assert len(server.lines) == 2


async def test_a_pool_full_of_dead_connections_costs_one_more_sending(client: WireClient) -> None:
    is_dying = False

    async def script(line: Line) -> None:
        while True:
            request = await line.read_request()
            if is_dying:
                return
            await line.send(answer(request.split(b" ", 2)[1]))

    async with RawServer(script) as server:
        await asyncio.gather(*(ask(client, server.url("/")) for _ in range(5)))
        is_dying, before = True, len(server.requests)

        with pytest.raises(ProviderBroke):
            await ask(client, server.url("/last"))

        assert len(server.requests) == before + 2


async def test_a_request_of_which_a_byte_was_answered_is_not_sent_again(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(answer(b"fine"))
        await line.read_request()
        await line.send(b"H")
        line.reset()

    async with RawServer(script) as server:
        await ask(client, server.url("/1"))
        with pytest.raises(ProviderBroke):
            await ask(client, server.url("/2"))

        assert len(server.requests) == 2


async def test_a_connection_that_rests_too_long_is_closed(make_client: MakeClient) -> None:
    client = make_client(idle_connection_s=0.05)
    async with RawServer(echo) as server:
        await asyncio.gather(*(ask(client, server.url("/")) for _ in range(3)))
        assert client.open_connections == 3

        await server.all_gone()
    assert client.open_connections == 0


async def test_nothing_is_left_of_callers_who_go_just_as_their_connection_is_made(client: WireClient) -> None:
    async with RawServer(echo) as server:
        for turns in range(40):
            tasks = [asyncio.ensure_future(ask(client, server.url("/"))) for _ in range(5)]
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            client.pool.close_resting()

        await server.all_gone()
    assert client.open_connections == 0


@pytest.mark.parametrize(("life_s", "connections"), [(300, 1), (0, 3)])
async def test_a_connection_in_steady_use_has_an_end_for_its_name_may_lead_elsewhere(
    make_client: MakeClient, life_s: float, connections: int
) -> None:
    client = make_client(connection_life_s=life_s)
    async with RawServer(echo) as server:
        for _ in range(3):
            await ask(client, server.url("/"))

        assert len(server.lines) == connections
    assert client.open_connections <= 1


async def test_a_connection_that_says_close_is_not_kept(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
        await line.gone()

    async with RawServer(script) as server:
        assert await ask(client, server.url()) == (200, b"ok")
        await server.all_gone()
    assert client.open_connections == 0


# Patience


@contextmanager
def deaf_listener(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port whose queue is full and served by nobody: packets that ask for a connection are dropped."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind((host, port))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


async def test_no_connection_in_time_is_unreachable(make_client: MakeClient) -> None:
    client = make_client(connect_s=SOON_S)
    with deaf_listener() as port, pytest.raises(ProviderUnreachable, match=r"no connection within 0\.1 s"):
        await send(client, f"http://127.0.0.1:{port}/")

    assert client.open_connections == 0


async def test_an_address_that_never_answers_leaves_the_next_one_time(make_client: MakeClient) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    client = make_client(connect_s=20 * SOON_S, resolve=resolve)
    async with RawServer(echo) as server:
        with deaf_listener("127.0.0.2", server.port):
            assert await ask(client, server.url("/a", host="some.host")) == (200, b"/a")


async def test_leaving_while_no_connection_comes_leaves_nothing(client: WireClient) -> None:
    with deaf_listener() as port:
        for turns in range(6):
            task = asyncio.ensure_future(ask(client, f"http://127.0.0.1:{port}/"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await leave(task)

    assert client.open_connections == 0


async def test_a_resolver_that_never_answers_is_no_connection_in_time(make_client: MakeClient) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ProviderUnreachable, match="no connection within"):
        await send(make_client(connect_s=SOON_S, resolve=resolve), "http://some.host/")


@pytest.mark.parametrize("trickle", [b"", OK + b"A: " + b"a" * 10_000, b"HTTP/1.1 100 Continue\r\n\r\n" * 400])
async def test_the_head_has_one_patience_however_it_trickles(client: WireClient, trickle: bytes) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        for at in range(len(trickle)):
            await line.send(trickle[at : at + 1])
            await asyncio.sleep(SOON_S / 20)
        await line.gone()

    async with RawServer(script) as server:
        with pytest.raises(ProviderTimedOut):
            async with asyncio.timeout(200 * SOON_S):
                await send(client, server.url(), first_byte_s=SOON_S)
        await server.all_gone()
    assert client.open_connections == 0


@pytest.mark.parametrize("trickle", [b"", b";" + b"x" * 10_000], ids=["silence", "framing that trickles"])
async def test_silence_within_the_body_ends_it(client: WireClient, trickle: bytes) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED + b"2\r\nok\r\n2")
        for at in range(len(trickle)):
            await line.send(trickle[at : at + 1])
            await asyncio.sleep(SOON_S / 20)
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url(), idle_s=SOON_S)
        assert await reply.read() == b"ok"
        for _ in range(2):
            with pytest.raises((ProviderTimedOut, ProviderBroke)):
                async with asyncio.timeout(200 * SOON_S):
                    await reply.read()
        await server.all_gone()


async def test_patience_counts_from_the_last_piece(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED)
        for _ in range(60):
            await asyncio.sleep(SOON_S / 4)
            await line.send(b"1\r\nx\r\n")
        await line.send(b"0\r\n\r\n")
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url(), idle_s=SOON_S * 10)
        assert await reply.read_all(100) == b"x" * 60


async def test_a_slow_reader_of_ours_is_no_silent_provider(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(answer(b"x" * 5_000_000))
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url(), idle_s=SOON_S * 10)
        size = len(await reply.read())
        await asyncio.sleep(SOON_S * 15)
        while data := await reply.read():
            size += len(data)

        assert size == 5_000_000


async def test_what_nobody_reads_stays_with_the_provider(client: WireClient) -> None:
    sent = 0

    async def script(line: Line) -> None:
        nonlocal sent
        await line.read_request()
        line._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await line.send(OK + b"Content-Length: 50000000\r\n\r\n")
        for _ in range(500):
            await line.send(b"x" * 100_000)
            sent += 100_000
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())
        connection = reply._connection
        assert connection is not None
        before = -1
        while before != sent:  # until the provider's writes stand still
            before = sent
            await asyncio.sleep(SOON_S / 2)

        assert sent < 50_000_000
        assert sum(map(len, connection.chunks)) <= 64 * 1024 + 256 * 1024
        assert len(await reply.read_all(50_000_000)) == 50_000_000


# Leaving


async def test_leaving_while_waiting_for_the_head_closes_the_connection(client: WireClient) -> None:
    is_asked = asyncio.Event()

    async def script(line: Line) -> None:
        await line.read_request()
        is_asked.set()
        await line.gone()

    async with RawServer(script) as server:
        task = asyncio.ensure_future(send(client, server.url()))
        await is_asked.wait()
        await leave(task)

        assert client.open_connections == 0
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_leaving_within_the_body_closes_the_connection(client: WireClient, how: str) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED + b"2\r\nok\r\n")
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())
        await reply.read()
        if how == "cancelled":
            task = asyncio.ensure_future(reply.read())
            await asyncio.sleep(0)
            await leave(task)
        else:
            reply.close()
            reply.close()

        assert client.open_connections == 0
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()


async def test_leaving_while_connecting_leaves_nothing(client: WireClient) -> None:
    async with RawServer(echo) as server:
        for turns in range(12):
            task = asyncio.ensure_future(ask(client, server.url("/")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)

        assert await ask(client, server.url("/after")) == (200, b"/after")
        await client.aclose()
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()


async def test_two_hundred_leave_at_random_and_nobody_gets_a_wrong_answer(client: WireClient) -> None:
    chance = random.Random(7)

    async def script(line: Line) -> None:
        while True:
            path = (await line.read_request()).split(b" ", 2)[1]
            pieces = (CHUNKED, b"%x\r\n%s" % (len(path), path[:2]), path[2:] + b"\r\n", b"0\r\n\r\n")
            for piece in pieces:
                await line.send(piece)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)

    async def call(number: int, turns: int) -> bool:
        task = asyncio.ensure_future(ask(client, server.url(f"/{number:04}")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            assert await task == (200, b"/%04d" % number)
        except asyncio.CancelledError:
            return False
        return True

    async with RawServer(script) as server:
        finished = await asyncio.gather(*(call(number, chance.randrange(60)) for number in range(200)))
        for number in range(200, 240):
            assert await ask(client, server.url(f"/{number:04}")) == (200, b"/%04d" % number)
        await client.aclose()
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()

    assert not all(finished)
    assert client.open_connections == 0


async def test_closing_the_client_tells_who_still_reads(client: WireClient) -> None:
    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(b"HTTP/1.0 200 OK\r\n\r\npart")
        await line.gone()

    async with RawServer(script) as server:
        reply = await send(client, server.url())
        assert await reply.read() == b"part"
        reading = asyncio.ensure_future(reply.read())
        await asyncio.sleep(0)

        await client.aclose()

        with pytest.raises(ProviderBroke):
            await reading
        with pytest.raises(ProviderUnreachable):
            await send(client, server.url())
        await server.all_gone()
    assert client.open_connections == 0
