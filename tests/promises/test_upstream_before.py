"""UP1 to UP16: what the provider does before its first byte, and what each family of endpoints makes of it.

With a second deployment behind a model: test_routing.py. Byte for byte: tests/rooms/wire.
"""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.conftest import StartGateway
from tests.support.certificates import Authority
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.harm import Fault, FullListener, HarmfulProxy
from tests.support.invariants import unharmed
from tests.support.model_calls import FAMILIES, Family
from tests.support.provider import ScriptedProvider
from tests.support.raw_server import Line, RawServer

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
either_way = pytest.mark.parametrize("stream", [False, True])
one_gateway = pytest.mark.asyncio(loop_scope="session")
ONE_TRY = {"AIGW_ROUTING__TRIES": "1"}


@pytest.fixture
async def faults(provider: ScriptedProvider) -> AsyncIterator[HarmfulProxy]:
    """Stands between the gateway and its provider."""
    async with HarmfulProxy(provider.server.port) as proxy:
        yield proxy


def behind(url: str, **more: str) -> dict[str, str]:
    """The environment of a gateway whose providers are all behind `url`."""
    return {"ANTHROPIC_BASE_URL": url, "OPENAI_BASE_URL": f"{url}/v1", **more}


# UP1


@every_family
@either_way
async def test_a_refused_connection_is_told_and_nothing_was_spent(
    start_gateway: StartGateway, faults: HarmfulProxy, family: Family, stream: bool
) -> None:
    gateway = await start_gateway(env=behind(faults.url))
    faults.stop_listening()

    async with unharmed(gateway) as watch:
        answer = await family.ask(gateway, stream=stream)
        watch.outputs.append(answer.body)

    assert family.is_failed(answer, 503)
    if answer.status == 503:
        assert 1 <= int(answer.header("retry-after") or 0) <= 5
    assert {record["input_tokens"] for record in gateway.usage()} == {0}


async def test_a_provider_that_refuses_again_and_again_is_left_alone(
    start_gateway: StartGateway, faults: HarmfulProxy, clock: HandClock
) -> None:
    gateway = await start_gateway(env=behind(faults.url), clock=clock)
    faults.stop_listening()
    family = FAMILIES["completions v2"]

    codes = [(await family.ask(gateway)).refusal.code for _ in range(21)]

    assert codes == ["provider_unreachable"] * 20 + ["provider_resting"]


async def test_a_vendor_that_no_relayed_call_reaches_is_left_alone_and_found_again(
    start_gateway: StartGateway, faults: HarmfulProxy, clock: HandClock
) -> None:
    gateway = await start_gateway(env=behind(faults.url), clock=clock)
    faults.stop_listening()
    family, other = FAMILIES["proxy"], FAMILIES["messages"]

    refused = [await family.ask(gateway) for _ in range(21)]
    await faults.start()
    before = faults.connections
    resting = await family.ask(gateway)
    reached = faults.connections - before
    others = await other.ask(gateway)
    clock.advance(40)
    again = await family.ask(gateway)

    assert [each.refusal.code for each in refused] == ["provider_unreachable"] * 20 + ["provider_resting"]
    assert {each.status for each in (*refused, resting)} == {502}
    assert (resting.refusal.code, reached) == ("provider_resting", 0)
    assert (others.status, again.status) == (200, 200)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, 529])
async def test_no_status_of_a_vendors_keeps_relayed_calls_from_it(
    start_gateway: StartGateway, provider: ScriptedProvider, status: int
) -> None:
    gateway = await start_gateway()
    provider.fail_with(status, headers={"Retry-After": "30"})

    answers = [await FAMILIES["proxy"].ask(gateway) for _ in range(25)]

    assert {answer.status for answer in answers} == {502 if status in (401, 403) else status}
    assert len(provider.requests) == 25


# UP2


@every_family
async def test_a_dropped_connection_ends_with_the_patience_for_connecting(
    start_gateway: StartGateway, family: Family
) -> None:
    with FullListener() as nobody:
        gateway = await start_gateway(env=behind(f"http://127.0.0.1:{nobody.port}", AIGW_TIMEOUTS__CONNECT_S="0.1"))

        answer = await family.ask(gateway)

    assert family.is_failed(answer, 503)


# UP3


@every_family
@either_way
async def test_an_answer_that_never_comes_is_a_timeout_and_the_call_is_not_repeated(
    start_gateway: StartGateway, faults: HarmfulProxy, family: Family, stream: bool
) -> None:
    waits = {"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.1", "AIGW_TIMEOUTS__REQUEST_S": "0.2", "AIGW_ROUTING__TRIES": "3"}
    gateway = await start_gateway(env=behind(faults.url, **waits))
    faults.fault = Fault(swallow=True)

    async with unharmed(gateway):
        answer = await family.ask(gateway, stream=stream)

    assert family.is_failed(answer, 504)
    assert faults.connections == 1
    assert faults.open_connections == 0


# UP4


@every_family
async def test_silence_behind_the_headers_ends_with_the_patience_for_it(
    start_gateway: StartGateway, provider: ScriptedProvider, family: Family
) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__IDLE_S": "0.1", **ONE_TRY})
    provider.stall(after_events=0)

    async with unharmed(gateway):
        answer = await family.ask(gateway, stream=True)

    if "/proxy/" in family.path:  # its head has gone on as it came
        assert (answer.status, answer.is_whole) == (200, False)
    else:
        assert family.is_failed(answer, 504)
    await (await provider.request()).hung_up.wait()


async def test_a_stream_may_take_longer_than_any_silence_within_it(
    start_gateway: StartGateway, provider: ScriptedProvider, faults: HarmfulProxy
) -> None:
    gateway = await start_gateway(env=behind(faults.url, AIGW_TIMEOUTS__IDLE_S="0.5"))
    provider.answer_with(text="x")
    faults.fault = Fault(drip_s=0.001)

    answer = await FAMILIES["prompts v1"].ask(gateway, stream=True)

    assert (answer.status, answer.body, answer.is_whole) == (200, b"x", True)


# UP5


@every_family
@either_way
async def test_headers_that_trickle_have_one_patience(
    start_gateway: StartGateway, faults: HarmfulProxy, family: Family, stream: bool
) -> None:
    waits = {"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.2", "AIGW_TIMEOUTS__REQUEST_S": "0.3"}
    gateway = await start_gateway(env=behind(faults.url, **waits))
    faults.fault = Fault(drip_s=0.02)

    async with unharmed(gateway):
        answer = await family.ask(gateway, stream=stream)

    assert family.is_failed(answer, 504)
    assert faults.connections == 1


# UP6


@every_family
async def test_a_name_that_leads_nowhere_is_no_connection(start_gateway: StartGateway, family: Family) -> None:
    gateway = await start_gateway(env=behind("http://nowhere.invalid", AIGW_TIMEOUTS__CONNECT_S="1"))

    assert family.is_failed(await family.ask(gateway), 503)


# UP7


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


def tls_fault(kind: str, authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    if kind == "expired":
        return authority.issue("localhost", is_expired=True).server_context()
    if kind == "wrong host":
        return authority.issue("elsewhere.example").server_context()
    if kind == "unknown authority":
        folder = tmp_path / "strangers"
        folder.mkdir()
        return Authority(folder, "Stranger").issue("localhost").server_context()
    context = authority.issue("localhost").server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("kind", ["expired", "wrong host", "unknown authority", "old version"])
async def test_what_tls_cannot_trust_is_told_apart_and_never_called_without_it(
    start_gateway: StartGateway, provider: ScriptedProvider, authority: Authority, tmp_path: Path, kind: str
) -> None:
    async with HarmfulProxy(provider.server.port, tls_fault(kind, authority, tmp_path)) as faults:
        gateway = await start_gateway(env=behind(faults.url, AIGW_EXTRA_CA=str(authority.cert)))

        async with unharmed(gateway):
            for family in FAMILIES.values():
                answer = await family.ask(gateway)
                assert family.is_failed(answer, 503)
                assert answer.status == 200 or answer.refusal.code == "upstream_tls"

        assert provider.requests == []
        assert faults.connections == 0  # none got as far as that


async def test_a_handshake_that_stalls_ends_with_the_patience_for_connecting(
    start_gateway: StartGateway, faults: HarmfulProxy
) -> None:
    url = faults.url.replace("http:", "https:")
    gateway = await start_gateway(env=behind(url, AIGW_TIMEOUTS__CONNECT_S="0.1", **ONE_TRY))
    faults.fault = Fault(swallow=True)

    async with unharmed(gateway):
        answer = await FAMILIES["completions v2"].ask(gateway)

    assert (answer.status, answer.refusal.code) == (503, "upstream_tls")


async def test_a_certificate_that_is_trusted_serves(
    start_gateway: StartGateway, provider: ScriptedProvider, authority: Authority
) -> None:
    async with HarmfulProxy(provider.server.port, authority.issue("localhost").server_context()) as faults:
        gateway = await start_gateway(env=behind(faults.url, AIGW_EXTRA_CA=str(authority.cert)))

        assert [(await family.ask(gateway)).status for family in FAMILIES.values()] == [200] * len(FAMILIES)


# UP8, UP10


@every_family
@either_way
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
@one_gateway
async def test_a_broken_provider_is_asked_again_and_its_words_stay_here(
    shared: RunningGateway, family: Family, stream: bool, status: int
) -> None:
    gateway, provider = shared, shared.provider
    words = {"error": {"type": "api_error", "message": "db-7.internal refused user root"}}
    provider.fail_with(status, body=words)

    async with unharmed(gateway):
        answer = await family.ask(gateway, stream=stream)

    if "/proxy/" in family.path:
        assert (answer.status, answer.json(), len(provider.requests)) == (status, words, 1)
    else:
        assert family.is_failed(answer, status)
        assert b"db-7" not in answer.body
        assert len(provider.requests) == 2


async def test_an_overloaded_provider_is_counted_apart(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(529, times=2)
    gateway.provider.answer_with(times=1)  # a third failure in a row would get no second try
    gateway.provider.fail_with(503)
    for _ in range(3):
        await FAMILIES["prompts v1"].ask(gateway)

    shown = (await gateway.monitoring("/metrics")).text

    assert 'outcome="overloaded"} 2' in shown
    assert 'outcome="provider_overloaded"} 2' in shown


# UP9


@every_family
@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("3600", 3600), ("date", 90), ("soon", None), ("-5", None), ("1e3", None), ("", None)],
)
@one_gateway
async def test_the_client_is_told_how_long_the_provider_wants_to_be_left_alone(
    shared: RunningGateway, family: Family, value: str, seconds: int | None
) -> None:
    gateway, provider = shared, shared.provider
    now = datetime.now(UTC)
    date = {"Date": format_datetime(now, usegmt=True)} if value == "date" else {}
    value = format_datetime(now + timedelta(seconds=90), usegmt=True) if value == "date" else value
    provider.fail_with(429, headers={"Retry-After": value, **date} if value else {})

    answer = await family.ask(gateway)

    if "/proxy/" in family.path:
        assert (answer.status, answer.header("retry-after")) == (429, value or None)
        return
    assert family.is_failed(answer, 429)
    assert len(provider.requests) == 1
    if answer.status != 200 and seconds is None and family.path.startswith(("/openai/", "/anthropic/")):
        # Codex gives its task up at a 429 that names no time.
        assert 1 <= int(answer.header("retry-after") or 0) <= 5
    elif answer.status != 200:
        assert answer.header("retry-after") == (None if seconds is None else str(seconds))


async def test_a_short_wait_is_waited_for_and_the_call_made_good(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(429, headers={"Retry-After": "0.05"}, times=1)

    answer = await FAMILIES["completions v2"].ask(gateway)

    assert answer.status == 200
    assert len(gateway.provider.requests) == 2


async def test_a_wait_that_would_outlive_the_deadline_is_not_begun(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__REQUEST_S": "2"})
    gateway.provider.fail_with(429, headers={"Retry-After": "3"})

    answer = await FAMILIES["completions v2"].ask(gateway)

    assert (answer.status, answer.header("retry-after")) == (429, "3")


@pytest.mark.parametrize("kind", ["enforced_spend_limit_reached", "billing_error"])
async def test_an_account_without_money_is_not_asked_again(gateway: RunningGateway, kind: str) -> None:
    words = {"type": "error", "error": {"type": kind, "message": "You have no money."}}
    gateway.provider.fail_with(429, body=words)

    answer = await FAMILIES["prompts v1"].ask(gateway)

    assert (answer.json()["detail"], answer.refusal.code) == ("429: Too Many Requests", "provider_spent")
    assert len(gateway.provider.requests) == 1


# UP11


@every_family
@one_gateway
async def test_an_error_in_place_of_the_first_event_is_a_failed_try(shared: RunningGateway, family: Family) -> None:
    gateway, provider = shared, shared.provider
    provider.answer_malformed("error_event", times=1)

    async with unharmed(gateway):
        answer = await family.ask(gateway, stream=True)

    if "/proxy/" in family.path:
        assert b"overloaded_error" in answer.body  # passed on as it came
    else:
        assert answer.status == 200
        assert len(provider.requests) == 2


# UP12


@every_family
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
@one_gateway
async def test_what_the_provider_refuses_is_asked_once_and_never_becomes_a_401(
    shared: RunningGateway, family: Family, status: int
) -> None:
    gateway, provider = shared, shared.provider
    provider.fail_with(status)
    lines = len(gateway.log.raw)

    async with unharmed(gateway):
        answer = await family.ask(gateway)

    if "/proxy/" in family.path and status not in (401, 403):
        assert answer.status == status
    else:
        assert family.is_failed(answer, status)
    assert len(provider.requests) == 1
    alarms = [line for line in gateway.log.raw[lines:] if b'"level":"error"' in line and b"our key" in line]
    assert bool(alarms) is (status in (401, 403))


def refusing(status: int, body: bytes, length: int, *more: bytes) -> bytes:
    """An error of which `body` comes, and no more, though `length` bytes were promised."""
    lines = (b"HTTP/1.1 %d No" % status, b"Content-Type: application/json", b"Content-Length: %d" % length, *more)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


QUOTING = b'{"error":{"message":"not so: ' + b"x" * 100_000 + b'"}}'


@every_family
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (refusing(400, QUOTING, len(QUOTING)), 400),
        (refusing(404, b'{"error":', 500), 404),
        (refusing(429, b"", 500, b"Retry-After: 7"), 429),
        (refusing(503, b"<html>", 500, b"Retry-After: 7"), 503),
    ],
    ids=["too long", "cut", "cut before its first word", "cut page"],
)
async def test_an_error_is_what_its_status_says_though_its_words_are_not_whole(
    start_gateway: StartGateway, provider: ScriptedProvider, family: Family, raw: bytes, status: int
) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    provider.answer_with(raw=raw)

    async with unharmed(gateway):
        answer = await family.ask(gateway)

    if "/proxy/" in family.path:
        # Bytes that pass unchanged cannot pass in part.
        assert answer.status == (status if raw.endswith(QUOTING) else 502)
    else:
        assert family.is_failed(answer, status)
        if answer.status in (429, 503) and status >= 429:
            assert answer.header("retry-after") == "7"


async def test_an_error_whose_words_never_come_is_told_by_its_status(start_gateway: StartGateway) -> None:
    async def stall(line: Line) -> None:
        await line.read_request()
        await line.send(refusing(429, b"", 500, b"Retry-After: 7"))
        await line.gone()

    async with RawServer(stall) as server:
        gateway = await start_gateway(env=behind(server.url("")))

        answer = await FAMILIES["completions v2"].ask(gateway)
        await server.all_gone()

    assert (answer.status, answer.header("retry-after")) == (429, "7")


@every_family
async def test_identity_is_identity_however_it_is_written(
    start_gateway: StartGateway, provider: ScriptedProvider, family: Family
) -> None:
    gateway = await start_gateway()
    provider.answer_with(headers={"Content-Encoding": "Identity"})

    answer = await family.ask(gateway)

    assert answer.status == 200
    assert b'"error"' not in answer.body


# UP13


@every_family
@either_way
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@one_gateway
async def test_a_redirect_is_not_followed(shared: RunningGateway, family: Family, stream: bool, status: int) -> None:
    async with ScriptedProvider() as elsewhere:
        shared.provider.answer_with(status=status, headers={"Location": f"{elsewhere.url}/v1/messages"})

        answer = await family.ask(shared, stream=stream)

        assert answer.status == status if "/proxy/" in family.path else family.is_failed(answer, status)
        assert elsewhere.connections == 0


# UP14


@every_family
async def test_a_connection_that_closes_as_it_is_used_costs_nothing(
    start_gateway: StartGateway, provider: ScriptedProvider, faults: HarmfulProxy, family: Family
) -> None:
    gateway = await start_gateway(env=behind(faults.url, **ONE_TRY))
    faults.fault = Fault(requests=1)
    await family.ask(gateway)

    async with unharmed(gateway):
        answers = [await family.ask(gateway) for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert (len(provider.requests), faults.connections) == (4, 4)  # each was seen, and charged, once


# UP15 stands in test_routing.py


# UP16


GOOD = (
    b'{"id":"m","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"Hello."}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}'
)
LENGTH = b"Content-Length: %d\r\n\r\n" % len(GOOD)
JSON = b"Content-Type: application/json\r\n"


@every_family
@pytest.mark.parametrize(
    ("raw", "is_good"),
    [
        (b"HTTP/1.0 200 OK\r\n" + JSON + b"\r\n" + GOOD, True),
        (b"HTTP/1.0 200 OK\r\n" + JSON + LENGTH + GOOD, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + JSON + b"\r\n" + GOOD, True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + JSON + LENGTH + GOOD, True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n" + JSON + LENGTH + GOOD, True),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + b"HTTP/1.1 200 OK\r\n" + JSON + LENGTH + GOOD, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 9999\r\n\r\n" + GOOD, False),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", False),
        (b"HTTP/0.9 200 OK\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"", False),
    ],
    ids=[
        "1.0 to the end", "1.0 with a length", "1.1 to the end", "continue", "early hints", "many interim ones", "204",
        "empty", "cut", "switch", "0.9", "not http", "nothing",
    ],
)  # fmt: skip
@one_gateway
async def test_old_and_odd_forms_of_http_are_read_right_or_are_a_failure(
    shared: RunningGateway, family: Family, raw: bytes, is_good: bool
) -> None:
    gateway, provider = shared, shared.provider
    provider.answer_with(raw=raw)

    async with unharmed(gateway):
        answer = await family.ask(gateway)

    if is_good:  # though the chat agent asked for a stream
        assert answer.status == 200
        assert b"Hello." in answer.body
    elif not is_good and raw.startswith((b"HTTP/1.1 204", b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 0")):
        # The pass-through passes on what it got.
        assert answer.status in (200, 204) if "/proxy/" in family.path else family.is_failed(answer, 502)
    else:
        assert family.is_failed(answer, 502)
