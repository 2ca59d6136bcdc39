"""Connections: patience, reuse, pipelines, odd segments, half-closes, smuggling, old HTTP, clients that leave."""

import asyncio
import socket
import time
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import USER_ID, RunningGateway
from tests.support.http_client import Answer, RawConnection
from tests.support.waiting import WAIT_S, eventually

FILE = {"file_name": "app.py", "content_above_cursor": "def grüße", "content_below_cursor": ""}
COMPLETION: dict[str, Any] = {"current_file": FILE}
STREAM = COMPLETION | {"stream": True}
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\nX-Request-ID: second\r\n\r\n"
ANONYMOUS = b"POST /v2/completions HTTP/1.1\r\nHost: x\r\n"
IMPATIENT = {"AIGW_SERVER__HEADER_TIMEOUT_S": "0.1", "AIGW_SERVER__BODY_TIMEOUT_S": "0.1"}


def completion(gateway: RunningGateway, request_id: str = "", **more: Any) -> bytes:
    token = more.pop("token", None) or gateway.token(unit_primitives=["complete_code"])
    headers = {"X-Request-ID": request_id} if request_id else {}
    return gateway.request_bytes(
        "POST", "/v2/completions", json=more.pop("json", COMPLETION), token=token, headers=headers | more
    )


def head_of(raw: bytes) -> bytes:
    """A good request's line and headers up to those that tell its body."""
    return raw.partition(b"Content-Length")[0]


async def ask_raw(gateway: RunningGateway, raw: bytes) -> tuple[Answer, bytes]:
    """The first answer to these bytes, and whatever comes after it until the gateway closes."""
    async with await gateway.connect() as connection:
        await connection.send(raw)
        answer = await connection.read_answer()
        return answer, await connection.read_to_end()


async def read_several(connection: RawConnection, count: int) -> list[Answer]:
    return [await connection.read_answer() for _ in range(count)]


# Patience


async def test_a_connection_that_says_nothing_is_closed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=IMPATIENT)

    async with await gateway.connect() as connection:
        assert await connection.is_closed_by_peer()


async def test_who_reads_no_answer_does_not_keep_a_closed_connection_for_ever(start_gateway: StartGateway) -> None:
    patience = {"AIGW_SERVER__KEEPALIVE_IDLE_S": "0.3", "AIGW_SERVER__WRITE_TIMEOUT_S": "0.3"}
    gateway = await start_gateway(env=patience)
    connections = gateway.running.listeners[0].server.server_state.connections

    async def some_is_unread() -> bool:
        client.sendall(20 * SECOND)
        return any(connection.transport.get_write_buffer_size() for connection in connections)

    async def all_are_gone() -> bool:
        return not connections

    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", gateway.port))
        await eventually(some_is_unread)

        await eventually(all_are_gone)


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: a"])
async def test_headers_that_stop_coming_are_408(start_gateway: StartGateway, sent: bytes) -> None:
    gateway = await start_gateway(env=IMPATIENT)

    answer, rest = await ask_raw(gateway, sent)

    assert (answer.status, answer.header("connection"), rest) == (408, "close", b"")
    await gateway.log.find(logger="api.access", status_code=408, correlation_id=answer.header("x-request-id"))


@pytest.mark.parametrize("framing", ["Content-Length: 50\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_stops_coming_is_408_and_never_reaches_a_provider(
    start_gateway: StartGateway, framing: str
) -> None:
    gateway = await start_gateway(env=IMPATIENT)
    head = head_of(completion(gateway, "slow"))

    answer, rest = await ask_raw(gateway, head + framing.encode())

    assert (answer.status, answer.header("connection"), rest) == (408, "close", b"")
    assert (answer.refusal.code, answer.header("x-request-id")) == ("body_too_slow", "slow")
    assert gateway.provider.requests == []
    assert (await gateway.log.find(logger="api.access", correlation_id="slow"))["status_code"] == 408


async def test_an_idle_connection_is_closed_after_its_time(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_SERVER__KEEPALIVE_IDLE_S": "0.1"})

    answer, rest = await ask_raw(gateway, b"GET /monitoring/healthz HTTP/1.1\r\nHost: x\r\n\r\n")

    assert (answer.status, answer.header("connection"), rest) == (200, None, b"")


async def test_an_answer_under_way_is_not_hurried_by_the_next_requests_beginning(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(env=IMPATIENT)
    patience = await start_gateway(env=IMPATIENT)
    gateway.provider.stall()

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway) + b"GET /seco")
        await gateway.provider.request()
        # By then a beginning alone would have been too slow on the other gateway, and on this one.
        assert (await ask_raw(patience, b"GET /seco"))[0].status == 408
        gateway.provider.release()
        first = await connection.read_answer()
        second = await connection.read_answer()

    assert (first.status, second.status) == (200, 408)


# Reuse


async def test_a_connection_is_used_again_after_refusals_with_unread_bodies(gateway: RunningGateway) -> None:
    body = b"x" * 500_000
    unread = gateway.request_bytes("POST", "/v2/completions", body=body)
    lost = gateway.request_bytes("POST", "/nowhere", body=body, token=gateway.token(unit_primitives=[]))

    async with await gateway.connect() as connection:
        statuses = []
        for raw in (unread, lost, unread, completion(gateway)):
            await connection.send(raw)
            statuses.append((await connection.read_answer()).status)

    assert statuses == [401, 404, 401, 200]


async def test_an_unread_body_in_chunks_is_read_past_too(gateway: RunningGateway) -> None:
    head = b"POST /v2/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    async with await gateway.connect() as connection:
        await connection.send(head)
        first = await connection.read_answer()
        await connection.send(b"5\r\nGET /\r\n0\r\nTrailer: x\r\n\r\n" + completion(gateway))
        second = await connection.read_answer()

    assert (first.status, second.status) == (401, 200)


async def test_an_unread_body_without_end_ends_the_connection(gateway: RunningGateway) -> None:
    head = b"POST /v2/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"

    async with await gateway.connect() as connection:
        await connection.send(head)
        answer = await connection.read_answer()
        for _ in range(8):
            await connection.send(b"x" * 500_000)
        assert await connection.is_closed_by_peer()

    assert answer.status == 401


async def test_who_sends_a_long_body_whatever_comes_hears_that_it_was_refused_unread(gateway: RunningGateway) -> None:
    head = b"POST /v2/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\n"

    async with await gateway.connect() as connection:
        await connection.send(head + b"x" * 16_000_000)
        answer = await connection.read_answer()
        closed = await connection.is_closed_by_peer()

    assert (answer.status, answer.header("connection"), closed) == (401, "close", True)


# Pipelines


async def test_pipelined_requests_are_answered_in_order_each_as_its_own_caller(gateway: RunningGateway) -> None:
    may = gateway.token(unit_primitives=["complete_code"])
    may_not = gateway.token(unit_primitives=["duo_chat"])
    user = gateway.user_token(unit_primitives=["complete_code"])
    sent = [
        completion(gateway, "1", token=may),
        completion(gateway, "2", token=may_not),
        gateway.request_bytes("POST", "/v2/completions", json=COMPLETION, headers={"X-Request-ID": "3"}),
        gateway.request_bytes("GET", "/monitoring/healthz", headers={"X-Request-ID": "4"}),
        completion(gateway, "5", token=user),
    ]

    async with await gateway.connect() as connection:
        await connection.send(b"".join(sent))
        answers = await read_several(connection, 5)

    assert [answer.status for answer in answers] == [200, 403, 401, 200, 200]
    assert [answer.header("x-request-id") for answer in answers] == ["1", "2", "3", "4", "5"]
    assert len(gateway.provider.requests) == 2
    line = await gateway.log.find(logger="api.access", correlation_id="5")
    assert (line["gitlab_global_user_id"], line["token_issuer"]) == (USER_ID, "gitlab-ai-gateway")


async def test_a_pipelined_request_whose_client_leaves_before_its_turn_has_a_line(gateway: RunningGateway) -> None:
    gateway.provider.stall()

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway, "first") + SECOND)
        await gateway.provider.request()

    line = await gateway.log.find(logger="api.access", correlation_id="second")
    assert (line["path"], line["status_code"]) == ("/second", 499)


async def test_a_pipelined_request_waits_for_the_answer_before_it(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=4)

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway, "first", json=STREAM) + SECOND)
        head = await connection.read_head()
        first = await head.next_chunk()
        gateway.provider.release()
        rest = await head.rest()
        second = await connection.read_answer("GET")

    assert first
    assert rest.is_whole
    assert (second.status, second.header("x-request-id")) == (401, "second")


async def test_garbage_behind_a_request_is_refused_after_its_answer(gateway: RunningGateway) -> None:
    gateway.provider.stall()

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway) + b"garbage and more of it\r\n\r\n" + SECOND)
        await gateway.provider.request()
        gateway.provider.release()
        first, second = await read_several(connection, 2)
        assert await connection.is_closed_by_peer()

    assert (first.status, second.status) == (200, 400)


async def test_a_broken_second_body_spoils_only_the_second_answer(gateway: RunningGateway) -> None:
    gateway.provider.stall()
    broken = head_of(completion(gateway, "second")) + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway, "first") + broken)
        await gateway.provider.request()
        gateway.provider.release()
        first, second = await read_several(connection, 2)
        assert await connection.is_closed_by_peer()

    assert (first.status, second.status) == (200, 400)
    assert len(gateway.provider.requests) == 1


# Segments


async def test_a_request_in_segments_of_one_byte_is_answered_like_one_in_one_piece(gateway: RunningGateway) -> None:
    raw = completion(gateway)

    async with await gateway.connect() as connection:
        for place in range(len(raw)):
            await connection.send(raw[place : place + 1])
            await asyncio.sleep(0)  # the loop's other side reads
        answer = await connection.read_answer()

    assert answer.status == 200
    assert "def grüße" in str((await gateway.provider.request()).json())


async def test_a_request_may_be_split_anywhere(gateway: RunningGateway) -> None:
    raw = completion(gateway)

    for mark in (b"HTTP", b"\r\n\r\n", b"Bearer ", b"Content-L", b"\\u00fc", b"}}"):
        place = raw.index(mark) + len(mark) // 2
        async with await gateway.connect() as connection:
            await connection.send(raw[:place])
            await gateway.get("/monitoring/healthz")  # by then the first part has been read
            await connection.send(raw[place:])
            assert (mark, (await connection.read_answer()).status) == (mark, 200)


async def test_a_body_split_inside_a_letter_is_put_together(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])
    body = '{"current_file":{"file_name":"ü.py","content_above_cursor":"ü","content_below_cursor":""}}'.encode()
    head = gateway.request_bytes("POST", "/v2/completions", token=token, headers={"Transfer-Encoding": "chunked"})
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in body)

    async with await gateway.connect() as connection:
        await connection.send(head + chunks + b"0\r\n\r\n")
        answer = await connection.read_answer()

    assert answer.status == 200


# Expect


async def test_a_bad_token_is_refused_without_asking_for_the_body(gateway: RunningGateway) -> None:
    raw = completion(gateway, token=gateway.token(unit_primitives=["complete_code"], aud="x"), Expect="100-continue")
    head, _, _ = raw.partition(b"\r\n\r\n")

    async with await gateway.connect() as connection:
        await connection.send(head + b"\r\n\r\n")
        received = await connection.read_to_end()

    assert received.startswith(b"HTTP/1.1 401 ")
    # The client need not send what nobody asked for, so nobody can tell what would come next.
    assert b"connection: close\r\n" in received


async def test_a_wanted_body_is_asked_for_once(gateway: RunningGateway) -> None:
    head, _, body = completion(gateway, Expect="100-continue").partition(b"\r\n\r\n")

    async with await gateway.connect() as connection:
        await connection.send(head + b"\r\n\r\n")
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(body)
        status = await connection.reader.readline()
        await connection.reader.readuntil(b"\r\n\r\n")

    assert status == b"HTTP/1.1 200 OK\r\n"


async def test_who_asks_on_and_on_and_reads_nothing_waits_for_itself(gateway: RunningGateway) -> None:
    path, count = "/v1/models/definitions", 300  # 5 MB of answers

    async with await gateway.connect() as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(gateway.request_bytes("GET", path) * count)
        for _ in range(count):
            await gateway.get("/monitoring/healthz")
        answered = [line for line in gateway.log.lines if line.get("path") == path]
        assert 0 < len(answered) < count
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answers = await read_several(connection, count)

    assert {answer.status for answer in answers} == {200}


# Clients that leave


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_while_it_waits_closes_the_call_to_the_provider(
    gateway: RunningGateway, how: str
) -> None:
    gateway.provider.stall()
    token = gateway.token(unit_primitives=["complete_code", "duo_chat"])
    editor = {"type": "code_editor_completion", "payload": FILE | {"stream": True}}
    asked: list[tuple[str, Any]] = [
        ("/v2/completions", COMPLETION),
        ("/v4/code/suggestions", {"prompt_components": [editor]}),
        ("/v2/chat/agent", {"messages": [{"role": "user", "content": "Hello"}]}),
    ]

    for number, (path, body) in enumerate(asked, 1):
        headers = {"X-Request-ID": f"gone-{number}"}
        async with await gateway.connect() as connection:
            await connection.send(gateway.request_bytes("POST", path, json=body, token=token, headers=headers))
            request = await gateway.provider.request(number)
            if how == "reset":
                connection.reset()
            elif how == "half-close":
                connection.writer.write_eof()
            else:
                await connection.aclose()
            async with asyncio.timeout(WAIT_S):
                await request.hung_up.wait()
        line = await gateway.log.find(logger="api.access", correlation_id=f"gone-{number}")
        assert (line["path"], line["status_code"], line["outcome"]) == (path, 499, "client_cancelled")


@pytest.mark.parametrize("chars", [70_000, 300_000])
async def test_it_does_so_however_long_its_request_was(gateway: RunningGateway, chars: int) -> None:
    gateway.provider.stall()
    token = gateway.token(unit_primitives=["complete_code"])
    asked = gateway.request_bytes("POST", "/v2/completions", json=COMPLETION | {"padding": "x" * chars}, token=token)

    async with await gateway.connect() as connection, asyncio.timeout(WAIT_S):
        await connection.send(asked)
        request = await gateway.provider.request()
        await connection.aclose()
        await request.hung_up.wait()


async def test_a_client_that_leaves_within_a_stream_closes_the_call_to_the_provider(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=4)
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream("/v2/completions", json=STREAM, token=token) as answer:
        assert await answer.next_chunk()

    request = await gateway.provider.request()
    async with asyncio.timeout(WAIT_S):
        await request.hung_up.wait()


async def test_a_client_that_leaves_within_its_body_reaches_no_provider(gateway: RunningGateway) -> None:
    raw = completion(gateway, "gone")

    async with await gateway.connect() as connection:
        await connection.send(raw[:-5])
        await gateway.get("/monitoring/healthz")
    line = await gateway.log.find(logger="api.access", correlation_id="gone")

    assert line["outcome"] == "client_cancelled"
    assert gateway.provider.requests == []


# Smuggling


SMUGGLING = {
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 59\r\n\r\n",
    "two equal lengths": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, 0\r\n\r\n",
    "a signed length": b"Content-Length: +0\r\n\r\n",
    "a hexadecimal length": b"Content-Length: 0x0\r\n\r\n",
    "an endless length": b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a blank before the colon": b"Content-Length : 59\r\n\r\n",
    "a folded header": b"X: a\r\n Content-Length: 59\r\n\r\n",
    "a line end alone": b"X: a\nContent-Length: 59\r\n\r\n",
    "line ends alone": b"GET /first HTTP/1.1\nHost: x\n\n",
    "a return alone": b"X: a\rContent-Length: 59\r\n\r\n",
    "a null byte": b"X: a\x00b\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding behind a tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "no colon": b"Content-Length\r\n\r\n",
    "a second method": b"GET /first HTTP/1.1 GET /second HTTP/1.1\r\n\r\n",
    "no host": b"GET /first HTTP/1.1\r\nX: a\r\n\r\n",
    "a second host": b"Host: elsewhere.example\r\n\r\n",
    "the same host twice": b"host: gateway.test\r\n\r\n",
    "two hosts, and of old": b"GET /first HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a tunnel": b"CONNECT gateway:80 HTTP/1.1\r\nHost: x\r\n\r\n",
}
"""Headers of a request that is otherwise good, or a request of its own."""

BAD_CHUNKS = {
    "hexadecimal prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "too many digits": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "no digits": b"\r\n{}\r\n0\r\n\r\n",
    "longer than told": b"2\r\n{}}\r\n0\r\n\r\n",
    "a line end alone": b"2\n{}\r\n0\r\n\r\n",
    "a blank": b"2 \x00\r\n{}\r\n0\r\n\r\n",
}


async def assert_that_nothing_was_smuggled(gateway: RunningGateway, answer: Answer, rest: bytes) -> None:
    assert (answer.status, rest) == (400, b""), answer
    assert answer.header("connection") == "close"
    await gateway.log.find(logger="api.access", correlation_id=answer.header("x-request-id"), status_code=400)
    assert "second" not in [line.get("correlation_id") for line in gateway.log.lines]


async def test_a_request_with_two_readings_is_400_and_nothing_after_it_is_served(gateway: RunningGateway) -> None:
    head = head_of(completion(gateway, "first"))

    for name, raw in SMUGGLING.items():
        answer, rest = await ask_raw(gateway, (raw if b" HTTP/1." in raw else head + raw) + SECOND)
        assert answer.status == 400, (name, answer)
        await assert_that_nothing_was_smuggled(gateway, answer, rest)


async def test_chunks_that_are_not_what_they_say_are_400_and_nothing_after_them_is_served(
    gateway: RunningGateway,
) -> None:
    head = head_of(completion(gateway, "first")) + b"Transfer-Encoding: chunked\r\n\r\n"

    for name, chunks in BAD_CHUNKS.items():
        answer, rest = await ask_raw(gateway, head + chunks + SECOND)
        assert answer.status == 400, (name, answer)
        assert answer.refusal.code == "body_malformed"
        await assert_that_nothing_was_smuggled(gateway, answer, rest)
    assert gateway.provider.requests == []


async def test_bad_chunks_behind_a_refusal_end_the_connection(gateway: RunningGateway) -> None:
    async with await gateway.connect() as connection:
        await connection.send(ANONYMOUS + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = await connection.read_answer()
        await connection.send(b"zz\r\n" + SECOND)
        assert await connection.is_closed_by_peer()

    assert answer.status == 401


async def test_a_body_of_single_bytes_behind_a_refusal_ends_the_connection(gateway: RunningGateway) -> None:
    async with await gateway.connect() as connection:
        await connection.send(ANONYMOUS + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = await connection.read_answer()
        before = time.thread_time()
        await connection.send(b"1\r\nx\r\n" * 500_000)
        assert await connection.is_closed_by_peer()

    assert answer.status == 401
    assert time.thread_time() - before < 0.25


async def test_trailers_never_become_headers(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])
    trailers = f"Authorization: Bearer {token}\r\nX-Gitlab-Authentication-Type: oidc\r\n"

    async with await gateway.connect() as connection:
        await connection.send(ANONYMOUS + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + trailers.encode() + b"\r\n")
        answer = await connection.read_answer()

    assert (answer.status, answer.json()["error"]) == (401, "No authorization header presented")


async def test_a_trailer_without_end_is_not_kept(gateway: RunningGateway) -> None:
    head = head_of(completion(gateway, "first"))

    async with await gateway.connect() as connection:
        await connection.send(head + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        for _ in range(40):
            await connection.send(b"x" * 50_000)
            await asyncio.sleep(0)
        answer = await connection.read_answer()
        assert await connection.is_closed_by_peer()

    assert answer.status == 400


# Other kinds of HTTP


async def test_a_wish_to_upgrade_is_ignored_and_its_body_is_no_second_request(gateway: RunningGateway) -> None:
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    smuggled = gateway.request_bytes(
        "POST", "/v2/completions", body=SECOND, token=gateway.token(unit_primitives=["complete_code"]), headers=upgrade
    )

    async with await gateway.connect() as connection:
        for raw in (completion(gateway, **upgrade), smuggled, completion(gateway, json=STREAM, **upgrade), SECOND):
            await connection.send(raw)
        answers = await read_several(connection, 4)

    assert [answer.status for answer in answers] == [200, 422, 200, 401]


async def test_an_upgrade_split_into_bytes_is_ignored_as_well(gateway: RunningGateway) -> None:
    raw = completion(gateway, Connection="upgrade", Upgrade="websocket")

    async with await gateway.connect() as connection:
        for place in range(len(raw)):
            await connection.send(raw[place : place + 1])
            await asyncio.sleep(0)
        answer = await connection.read_answer()

    assert answer.status == 200


async def test_head_gets_the_headers_and_no_body(gateway: RunningGateway) -> None:
    async with await gateway.connect() as connection:
        await connection.send(b"HEAD /monitoring/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.send(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.send(b"GET /monitoring/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        first, second = await connection.read_answer("HEAD"), await connection.read_answer("HEAD")
        third = await connection.read_answer("GET")

    assert (first.status, first.header("content-length"), first.body) == (200, "2", b"")
    assert (second.status, second.body) == (401, b"")
    assert (third.status, third.body) == (200, b"{}")


async def test_http_1_0_gets_a_whole_answer_and_the_end_of_the_connection(gateway: RunningGateway) -> None:
    raw = completion(gateway).replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    answer, rest = await ask_raw(gateway, raw + SECOND)

    assert (answer.status, answer.header("connection"), rest) == (200, "close", b"")


async def test_http_1_0_gets_a_stream_without_chunks(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="return 1")
    raw = completion(gateway, json=STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    answer, _ = await ask_raw(gateway, raw)

    assert (answer.status, answer.header("transfer-encoding"), answer.header("connection")) == (200, None, "close")
    assert answer.text == "return 1"


async def test_a_stream_that_breaks_is_no_whole_answer_for_http_1_0(gateway: RunningGateway) -> None:
    gateway.provider.cut_after(4, by="close")
    raw = completion(gateway, json=STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    async with await gateway.connect() as connection:
        await connection.send(raw)
        head = await connection.read_head()
        with pytest.raises(ConnectionResetError):
            await connection.reader.read()

    assert head.status == 200


async def test_empty_lines_before_a_request_are_skipped(gateway: RunningGateway) -> None:
    async with await gateway.connect() as connection:
        await connection.send(b"\r\n\r\n" + completion(gateway) + b"\r\n" + SECOND)
        answers = await read_several(connection, 2)

    assert [answer.status for answer in answers] == [200, 401]


async def test_an_absolute_target_is_its_path(gateway: RunningGateway) -> None:
    raw = completion(gateway).replace(b"/v2/completions", b"http://elsewhere.example/v2/completions", 1)

    async with await gateway.connect() as connection:
        await connection.send(raw)
        assert (await connection.read_answer()).status == 200


NO_PATH = b"GET http://elsewhere.example HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"


async def test_a_target_without_a_path_is_400(gateway: RunningGateway) -> None:
    alone, rest = await ask_raw(gateway, NO_PATH)
    assert (alone.status, alone.header("connection"), rest) == (400, "close", b"")
    await gateway.log.find(logger="api.access", correlation_id=alone.header("x-request-id"), status_code=400)

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway))
        assert (await connection.read_answer()).status == 200
        await connection.send(NO_PATH)
        assert (await connection.read_answer("GET")).status == 400


async def test_a_target_without_a_path_spoils_only_its_own_answer(gateway: RunningGateway) -> None:
    gateway.provider.stall()

    async with await gateway.connect() as connection:
        await connection.send(completion(gateway) + NO_PATH)
        await gateway.provider.request()
        gateway.provider.release()
        first, second = await read_several(connection, 2)
        assert await connection.is_closed_by_peer()

    assert (first.status, second.status) == (200, 400)


async def test_what_is_no_http_is_400(gateway: RunningGateway) -> None:
    for raw in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"hello\r\n\r\n"):
        answer, rest = await ask_raw(gateway, raw)
        assert (answer.status, answer.header("connection"), rest) == (400, "close", b"")


async def test_a_request_on_a_connection_that_was_idle_when_the_drain_began_is_answered(
    gateway: RunningGateway,
) -> None:
    # A balancer's pool learns of the drain with the next probe, and may have sent it already.
    async with await gateway.connect() as connection, await gateway.connect() as silent:
        await connection.send(completion(gateway))
        assert (await connection.read_answer()).status == 200
        draining = asyncio.create_task(gateway.running.drain())
        await asyncio.sleep(0)  # it has begun

        await connection.send(completion(gateway))
        answer = await connection.read_answer()

        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await connection.read_to_end() == b""
        await draining
        assert await silent.is_closed_by_peer()
