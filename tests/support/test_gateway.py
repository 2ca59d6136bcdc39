"""The harness sends what it is told and says honestly how an answer ended."""

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.http_client import RawConnection, connect
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.issuer import FakeIssuer
from tests.support.logs import MemoryLog
from tests.support.provider import ScriptedProvider


@pytest.fixture
async def idle_gateway(provider: ScriptedProvider, issuer: FakeIssuer) -> RunningGateway:
    """The harness alone, for what it does before anything is sent."""
    return RunningGateway(None, provider, issuer, MemoryLog())


async def test_headers_replace_and_leave_out_whatever_their_case(idle_gateway: RunningGateway) -> None:
    token = idle_gateway.token(unit_primitives=[])

    sent = idle_gateway.request_bytes(
        "POST", "/x", json={}, token=token, headers={"x-gitlab-REALM": "saas", "AUTHORIZATION": None, "X-New": "1"}
    )

    lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line for line in lines if line.lower().startswith(b"x-gitlab-realm")] == [b"x-gitlab-REALM: saas"]
    assert not [line for line in lines if line.lower().startswith(b"authorization")]
    assert b"X-New: 1" in lines
    assert lines[-1] == b"Content-Length: 2"


async def test_without_a_token_only_the_given_headers_go_out(idle_gateway: RunningGateway) -> None:
    sent = idle_gateway.request_bytes("GET", "/monitoring/healthz", headers={"A": "b"})

    assert sent == b"GET /monitoring/healthz HTTP/1.1\r\nHost: gateway.test\r\nA: b\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "chunks", "is_whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [], True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", [b"abc"], True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", [b"abc"], False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", [b"a", b"bc"], True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", [b"a"], False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nb", [b"a"], False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", [b"a"], False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", [], True),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", [b"to the end"], True),
    ],
)
async def test_the_client_knows_a_whole_answer_from_a_cut_one(raw: bytes, chunks: list[bytes], is_whole: bool) -> None:
    async def handle(_request: Request, answering: Answering) -> None:
        await answering.write(raw)
        answering.close()

    async with LoopbackServer(handle) as server, await connect(server.port) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await connection.read_answer()

    assert (answer.chunks, answer.is_whole) == (chunks, is_whole)


async def test_a_closed_connection_is_told_from_one_that_answers(provider: ScriptedProvider) -> None:
    connection: RawConnection = await connect(provider.server.port)
    async with connection:
        await connection.send(b"this is no HTTP\r\n\r\n")
        assert await connection.is_closed_by_peer()


async def test_a_log_line_can_be_waited_for() -> None:
    log = MemoryLog()
    log.write(b'{"path":"/a","status_code":200}')
    log.write(b'{"path":"/b","status_code":200}')

    assert (await log.find(path="/b"))["status_code"] == 200
    assert len(log.lines) == 2


async def test_a_started_gateway_answers_on_both_ports_and_its_lines_can_be_read(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=[])

    main = await gateway.get("/v1/unknown", token=token)
    operators = await gateway.monitoring("/healthz")

    assert (main.status, main.is_whole, operators.status) == (404, True, 200)
    assert (await gateway.log.find(path="/v1/unknown"))["status_code"] == 404


async def test_a_refusal_is_read_from_its_member(gateway: RunningGateway) -> None:
    answer = await gateway.get("/v1/unknown")

    assert (answer.status, answer.refusal.layer) == (401, "client")
    assert answer.refusal.request_id == answer.header("x-request-id")


async def test_gateways_beside_each_other_have_their_own_settings(start_gateway: StartGateway) -> None:
    first = await start_gateway()
    second = await start_gateway(env={"AIGW_AUTH__BYPASS_EXTERNAL": "true"})

    assert (await first.get("/v1/unknown")).status == 401
    assert (await second.get("/v1/unknown")).status == 404


async def test_leaving_a_stream_early_hangs_up(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=4)
    token = gateway.user_token(unit_primitives=["ai_gateway_model_provider_proxy"])

    async with gateway.stream(
        "/v1/proxy/anthropic/v1/messages",
        json={"model": "claude-sonnet-4-6", "max_tokens": 9, "stream": True, "messages": []},
        token=token,
        headers={"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"},
    ) as answer:
        assert b"message_start" in await answer.next_chunk()

    request = await gateway.provider.request()
    await request.hung_up.wait()


async def test_a_hand_moved_clock_moves_the_gateways_time(start_gateway: StartGateway, clock: HandClock) -> None:
    gateway = await start_gateway(clock=clock)
    token = gateway.token(unit_primitives=[], lifetime_s=3600)

    before = await gateway.get("/v1/unknown", token=token)
    clock.advance(3600 + 61)  # the leeway is a minute
    after = await gateway.get("/v1/unknown", token=token)

    assert (before.status, after.status) == (404, 401)
