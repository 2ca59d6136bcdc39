"""What the pass-through lets by, byte for byte, and what it keeps back; and how it fails (contract 9 and 1.5)."""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY, RunningGateway
from tests.support.http_client import Answer, StreamedAnswer, fetch
from tests.support.provider import Malformation, Script
from tests.support.waiting import WAIT_S

PROXY = "ai_gateway_model_provider_proxy"
MESSAGES = "/v1/proxy/anthropic/v1/messages"
CHAT = "/v1/proxy/openai/v1/chat/completions"
RESPONSES = "/v1/proxy/openai/v1/responses"
EMBEDDINGS = "/v1/proxy/openai/v1/embeddings"
HI = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, dict[str, Any]] = {
    MESSAGES: {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": HI},
    CHAT: {"model": "gpt-5-mini-2025-08-07", "messages": HI},
    RESPONSES: {"model": "gpt-5-mini-2025-08-07", "input": "Hi"},
    EMBEDDINGS: {"model": "text-embedding-3-small", "input": ["Hi", "you"]},
}
STREAMED = {path: asked | {"stream": True} for path, asked in ASKED.items() if path != EMBEDDINGS}
STREAMED[CHAT] = STREAMED[CHAT] | {"stream_options": {"include_usage": True}}


async def ask(
    gateway: RunningGateway,
    path: str = MESSAGES,
    asked: Any = None,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> Answer:
    return await gateway.post(
        path,
        body=body or json.dumps(asked or ASKED[path]).encode(),
        token=gateway.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY, **(headers or {})},
    )


def stream(gateway: RunningGateway, path: str = MESSAGES) -> AbstractAsyncContextManager[StreamedAnswer]:
    return gateway.stream(
        path,
        json=STREAMED[path],
        token=gateway.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY},
    )


def is_bad_gateway(answer: Answer) -> bool:
    return (answer.status, answer.json()["detail"], answer.is_whole) == (502, "Bad Gateway", True)


def lower_pairs(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    names = [name.lower() for name, _ in pairs]
    assert len(names) == len(set(names)), "a header came twice"
    return {name.lower().decode(): value.decode("latin-1") for name, value in pairs}


CLIENT_HEADERS = {
    "Accept": "application/json",
    "Anthropic-Version": "2023-06-01",
    "Anthropic-Beta": "context-1m-2025-08-07",
    "User-Agent": "agent/1.0",
    "x-api-key": "canary-client-key",
    "api-key": "canary-client-key",
    "Cookie": "canary=1",
    "X-Forwarded-For": "10.0.0.1",
    "Via": "1.1 somebody",
    "X-Canary": "canary",
    "Accept-Encoding": "gzip, br",
    "OpenAI-Organization": "canary-org",
    "X-Stainless-Lang": "python",
    "Expect": "",
    "TE": "trailers",
}


async def test_anthropic_gets_the_listed_headers_our_key_and_nothing_else(gateway: RunningGateway) -> None:
    await ask(gateway, MESSAGES, headers=CLIENT_HEADERS)

    sent = lower_pairs(gateway.provider.requests[0].headers)
    assert sent.pop("via").startswith("1.1 torana-")
    assert sent.pop("host") == gateway.provider.url.removeprefix("http://")
    assert sent.pop("content-length") == str(len(json.dumps(ASKED[MESSAGES])))
    assert sent == {
        "accept": "application/json",
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "context-1m-2025-08-07",
        "x-api-key": ANTHROPIC_KEY,
        "accept-encoding": "identity",
    }


async def test_openai_gets_the_listed_headers_our_key_and_nothing_else(gateway: RunningGateway) -> None:
    await ask(gateway, CHAT, headers=CLIENT_HEADERS)

    sent = lower_pairs(gateway.provider.requests[0].headers)
    assert sent.pop("via").startswith("1.1 torana-")
    del sent["host"], sent["content-length"]
    assert sent == {
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "agent/1.0",
        "authorization": f"Bearer {OPENAI_KEY}",
        "accept-encoding": "identity",
    }


async def test_what_the_client_left_out_is_not_made_up(gateway: RunningGateway) -> None:
    nothing = {"Content-Type": None, "User-Agent": None}
    await ask(gateway, CHAT, headers=nothing)

    sent = lower_pairs(gateway.provider.requests[0].headers)
    assert sent.keys() == {"host", "authorization", "via", "accept-encoding", "content-length"}


async def test_a_vendor_that_is_back_is_asked_by_everybody_again(start_gateway: StartGateway, clock: HandClock) -> None:
    gateway = await start_gateway({"AIGW_ROUTING__FAILURES_TO_REST": "2"}, clock=clock)
    gateway.provider.server.stop_listening()
    for _ in range(2):
        await ask(gateway)
    await gateway.provider.start()
    clock.advance(10)

    answers = [await ask(gateway) for _ in range(3)]  # the first one looks, then three may, then all

    assert [answer.status for answer in answers] == [200, 200, 200]


async def test_repeated_beta_headers_all_go_on(gateway: RunningGateway) -> None:
    await ask(gateway, MESSAGES, headers={"anthropic-beta": "one\r\nAnthropic-Beta: two"})

    assert gateway.provider.requests[0].header("anthropic-beta") == "one, two"


async def test_a_header_beyond_ascii_goes_on_as_it_came(gateway: RunningGateway) -> None:
    agent = "agént/€".encode().decode("latin-1")

    await ask(gateway, CHAT, headers={"User-Agent": agent})

    assert dict(gateway.provider.requests[0].headers)[b"user-agent"] == "agént/€".encode()


UPSTREAM_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "request-id": "req_1",
    "anthropic-beta": "b",
    "anthropic-organization-id": "canary-org",
    "anthropic-ratelimit-requests-remaining": "5",
    "x-ratelimit-remaining-tokens": "6",
    "Retry-After": "7",
    "x-should-retry": "false",
    "openai-organization": "canary-org",
    "Set-Cookie": "canary=1",
    "Server": "canary",
    "Via": "1.1 canary",
    "x-request-id": "canary",
    "Location": "http://canary.example",
    "cf-ray": "canary",
    "Access-Control-Allow-Origin": "canary",
}


@pytest.mark.parametrize(
    ("path", "passed"),
    [
        (MESSAGES, {"request-id": "req_1", "anthropic-beta": "b", "anthropic-ratelimit-requests-remaining": "5"}),
        (CHAT, {"x-ratelimit-remaining-tokens": "6"}),
    ],
)
async def test_the_client_gets_the_listed_headers_and_nothing_else(
    gateway: RunningGateway, path: str, passed: dict[str, str]
) -> None:
    for status in (200, 429, 529):
        gateway.provider.answer_with(status=status, body=b'{"a": 1}', headers=UPSTREAM_HEADERS)

        answer = await ask(gateway, path)

        got = lower_pairs(answer.header_pairs)
        assert answer.status == status
        for ours in ("date", "x-request-id", "x-process-time", "content-length"):
            assert "canary" not in got.pop(ours)
        assert got == passed | {
            "content-type": "application/json; charset=utf-8",
            "retry-after": "7",
            "x-should-retry": "false",
        }


async def test_a_streamed_answer_has_the_listed_headers_and_nothing_else(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(headers={**UPSTREAM_HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})

    answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

    got = lower_pairs(answer.header_pairs)
    for ours in ("date", "x-request-id", "x-process-time"):
        assert "canary" not in got.pop(ours)
    assert got == {
        "content-type": "text/event-stream; charset=utf-8",
        "transfer-encoding": "chunked",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "request-id": "req_1",
        "anthropic-beta": "b",
        "anthropic-ratelimit-requests-remaining": "5",
        "retry-after": "7",
        "x-should-retry": "false",
    }


async def test_bodies_go_both_ways_byte_for_byte(gateway: RunningGateway) -> None:
    back = b' {"usage": 1, "x":"\xc3\xa9\\u0000", "not JSON at all \xff\n\r\n'
    gateway.provider.answer_with(body=back, headers={"Content-Type": "application/json"})

    for path, asked in ASKED.items():
        model = asked["model"]
        sent = f'\n{{ "model":"{model}",  "z":1.10,"unknown":{{"é":"\\u00e9"}},"far":1e400,"a":[ ]\t}}\r\n'.encode()
        answer = await ask(gateway, path, body=sent)
        assert gateway.provider.requests[-1].body == sent
        assert (answer.status, answer.body) == (200, back)


@pytest.mark.parametrize("path", list(STREAMED))
async def test_streams_pass_byte_for_byte_however_they_are_cut(gateway: RunningGateway, path: str) -> None:
    for segment_bytes in (None, 1, 7):
        gateway.provider.answer_with(pieces=["grün ", "\u2028 €", "😀"], segment_bytes=segment_bytes)
        direct = await _ask_directly(gateway, path)

        answer = await ask(gateway, path, STREAMED[path])

        assert answer.is_whole
        assert answer.body == direct


async def _ask_directly(gateway: RunningGateway, path: str) -> bytes:
    tail = "/v1/" + path.split("/v1/", 2)[2]
    answer = await fetch(gateway.provider.server.port, "POST", tail, {}, json.dumps(STREAMED[path]).encode())
    gateway.provider.requests.clear()
    return answer.body


async def test_line_ends_and_comments_of_a_stream_are_kept(gateway: RunningGateway) -> None:
    for end in (b"\n", b"\r\n"):
        events = [
            b": comment" + end + end,
            b"event: message_start" + end + b'data: {"type":"message_start"}' + end + end,
            b"id: 5" + end + b"retry: 9" + end + b'data:{"type":"message_stop"}' + end + end,
        ]
        gateway.provider.answer_with(events=events)

        answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

        assert (answer.body, answer.is_whole) == (b"".join(events), True)


async def test_each_event_arrives_before_the_next_is_sent(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=1)

    async with stream(gateway) as answer:
        assert b"message_start" in await answer.next_chunk()
        gateway.provider.release()
        assert b"message_stop" in (await answer.rest()).body


@pytest.mark.parametrize("path", list(STREAMED))
@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "text/html", ""])
async def test_a_stream_that_its_server_calls_something_else_is_one(
    gateway: RunningGateway, path: str, content_type: str
) -> None:
    gateway.provider.answer_with()
    direct = await _ask_directly(gateway, path)
    gateway.provider.answer_with(headers={"Content-Type": content_type}, hold_after=1)

    async with stream(gateway, path) as answer:
        first = await answer.next_chunk()
        gateway.provider.release()
        rest = await answer.rest()

    assert (first + rest.body, rest.is_whole) == (direct, True)
    line = await gateway.log.find(path=path)
    assert (line["usage_source"], line["outcome"]) == ("provider", "completed")


async def test_a_whole_answer_to_one_who_asked_for_a_stream_passes(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body=b'{"a": \n\n1}')

    answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

    assert (answer.status, answer.body, answer.is_whole) == (200, b'{"a": \n\n1}', True)


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
async def test_the_vendors_status_and_body_pass(gateway: RunningGateway, path: str) -> None:
    statuses = (201, 302, 400, 404, 413, 422, 429, 500, 502, 503, 504, 529)
    for status in statuses:
        gateway.provider.fail_with(status, body=b'{"error": {"message":"their own words"}}')
        for asked in (ASKED[path], STREAMED[path]):
            answer = await ask(gateway, path, asked)
            assert (answer.status, answer.body) == (status, b'{"error": {"message":"their own words"}}')

    assert len(gateway.provider.requests) == 2 * len(statuses)  # no second try for any of them


async def test_an_error_that_is_no_json_passes_too(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(503, body=b"<html>busy</html>", headers={"Content-Type": "text/html"})

    answer = await ask(gateway)

    assert (answer.status, answer.header("content-type"), answer.body) == (503, "text/html", b"<html>busy</html>")


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
async def test_our_own_key_refused_is_502_and_an_alarm(gateway: RunningGateway, path: str) -> None:
    for status in (401, 403):
        gateway.provider.fail_with(status, body=b'{"error":{"message":"invalid x-api-key canary"}}')
        for asked in (ASKED[path], STREAMED[path]):
            answer = await ask(gateway, path, asked)
            assert is_bad_gateway(answer)
            assert b"canary" not in answer.body

        alarm = await gateway.log.find(level="error", status=status)
        assert alarm["provider"] in path
        assert alarm["correlation_id"]
    assert "canary" not in str(gateway.log.lines)


async def test_the_list_of_models_refused_is_502_too(gateway: RunningGateway) -> None:
    gateway.provider.server.stop_listening()

    answer = await gateway.get(
        "/v1/proxy/openai/models",
        token=gateway.token(unit_primitives=[PROXY]),
        headers={"X-Gitlab-Unit-Primitive": PROXY},
    )

    assert is_bad_gateway(answer)


async def test_an_upstream_that_refuses_connections_is_502(gateway: RunningGateway) -> None:
    gateway.provider.server.stop_listening()

    for asked in (ASKED[MESSAGES], STREAMED[MESSAGES]):
        answer = await ask(gateway, MESSAGES, asked)
        assert is_bad_gateway(answer)
        assert answer.refusal.code == "provider_unreachable"
        assert answer.refusal.layer == "provider"


async def test_a_stream_without_a_first_byte_in_time_is_502_and_the_upstream_is_closed(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.1"})
    gateway.provider.stall()

    answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

    assert is_bad_gateway(answer)
    assert answer.refusal.code == "provider_timeout"
    await (await gateway.provider.request()).hung_up.wait()
    assert len(gateway.provider.requests) == 1


async def test_an_answer_that_does_not_stream_may_be_slow(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.05", "AIGW_TIMEOUTS__IDLE_S": "0.05"})
    go = asyncio.Event()
    gateway.provider.answer_with(first_byte_after=go)

    asking = asyncio.create_task(ask(gateway))
    await gateway.provider.request()
    asyncio.get_running_loop().call_later(0.3, go.set)

    assert (await asking).status == 200


async def test_the_deadline_of_a_request_ends_the_wait_for_a_whole_answer(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__REQUEST_S": "0.1"})
    gateway.provider.stall()

    assert is_bad_gateway(await ask(gateway))


@pytest.mark.parametrize("path", list(STREAMED))
async def test_a_stream_that_is_cut_ends_with_the_dialects_own_error_and_no_final_chunk(
    gateway: RunningGateway, path: str
) -> None:
    gateway.provider.cut_after(3, by="reset", times=1)
    gateway.provider.cut_after(3, by="close", times=1)

    for count in (1, 2):
        answer = await ask(gateway, path, STREAMED[path])

        assert (answer.status, answer.is_whole) == (200, False)
        assert_ends_with_error(path, answer.body)
        assert len(gateway.provider.requests) == count  # never a second try once anything was sent


@pytest.mark.parametrize("path", list(STREAMED))
async def test_a_stream_without_its_terminal_event_is_a_failure(gateway: RunningGateway, path: str) -> None:
    gateway.provider.answer_malformed("no_end")

    answer = await ask(gateway, path, STREAMED[path])

    assert (answer.status, answer.is_whole) == (200, False)
    assert_ends_with_error(path, answer.body)
    line = await gateway.log.find(path=path)
    assert (line["outcome"], line["provider_error"]) == ("failed", "provider_broke")


@pytest.mark.parametrize("path", list(STREAMED))
@pytest.mark.parametrize("by", ["reset", "close"])
async def test_what_breaks_behind_the_terminal_event_breaks_no_answer(
    gateway: RunningGateway, path: str, by: Literal["reset", "close"]
) -> None:
    whole = await ask(gateway, path, STREAMED[path])
    gateway.provider.cut_after(whole.body.count(b"\n\n"), by=by)

    answer = await ask(gateway, path, STREAMED[path])

    assert (answer.status, answer.is_whole, answer.body) == (200, True, whole.body)


async def test_silence_within_a_stream_ends_it_in_the_same_way(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__IDLE_S": "0.1"})
    gateway.provider.stall(after_events=2)

    answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

    assert not answer.is_whole
    assert_ends_with_error(MESSAGES, answer.body)
    await (await gateway.provider.request()).hung_up.wait()


async def test_a_broken_stream_of_a_path_without_a_dialect_gets_the_vendors_error(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(
        raw=b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\nx\n\n"
    )

    answer = await ask(gateway, "/v1/proxy/anthropic/v1/complete", STREAMED[MESSAGES])

    assert not answer.is_whole
    assert_ends_with_error(MESSAGES, answer.body)


async def test_a_response_that_failed_passes_as_it_came_and_is_booked_as_failed(gateway: RunningGateway) -> None:
    told = {"status": "failed", "error": {"code": "server_error", "message": "Sorry."}, "output": [], "usage": None}
    events = [
        b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, "response": response}).encode())
        for kind, response in (("response.created", {"id": "r"}), ("response.failed", told))
    ]
    gateway.provider.answer_with(events=events)

    answer = await ask(gateway, RESPONSES, STREAMED[RESPONSES])

    assert (answer.status, answer.is_whole, answer.body) == (200, True, b"".join(events))
    line = await gateway.log.find(logger="api.access", path=RESPONSES)
    assert (line["outcome"], line["provider_error"]) == ("failed", "provider_overloaded")


def assert_ends_with_error(path: str, body: bytes) -> None:
    """The last event is what the vendor's own SDK takes for an error."""
    *_, last = body.strip().split(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in last.split(b"\n"))
    said = json.loads(fields[b"data"])
    if path == MESSAGES:
        assert fields[b"event"] == b"error"
        assert said["type"] == "error"
        assert said["error"]["type"] in ("api_error", "overloaded_error")
    elif path == CHAT:
        assert said["error"]["type"] == "server_error"
        assert b"[DONE]" not in body
    else:
        assert said["type"] in ("error", "response.failed")


async def test_a_whole_answer_that_is_cut_is_502(gateway: RunningGateway) -> None:
    gateway.provider.cut_after(0, by="reset", times=1)
    gateway.provider.cut_after(0, by="close", times=1)

    for _ in range(2):
        answer = await ask(gateway)
        assert is_bad_gateway(answer)
        assert b"scripted" not in answer.body


NO_ANSWERS = [
    b"",
    b"this is no HTTP\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
]


async def test_an_answer_that_is_no_answer_is_502(gateway: RunningGateway) -> None:
    for raw in NO_ANSWERS:
        gateway.provider.answer_with(raw=raw)
        assert is_bad_gateway(await ask(gateway)), raw[:60]


ODD_ANSWERS = [
    (b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}", b"{}"),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", b"{}"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
]


async def test_odd_but_legal_answers_pass(gateway: RunningGateway) -> None:
    for raw, body in ODD_ANSWERS:
        gateway.provider.answer_with(raw=raw)
        answer = await ask(gateway)
        assert (answer.status, answer.body, answer.is_whole) == (200, body, True), raw


async def test_an_encoded_answer_is_502_because_the_client_could_not_read_it(gateway: RunningGateway) -> None:
    for encoding in ("gzip", "br", "zstd", "gzip, gzip"):
        for status in (200, 400):
            gateway.provider.answer_with(status=status, body=b"\x1f canary", headers={"Content-Encoding": encoding})
            answer = await ask(gateway)
            assert is_bad_gateway(answer), (encoding, status)
            assert b"canary" not in answer.body


async def test_an_answer_beyond_the_limit_is_502_and_the_upstream_is_closed(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(body=b"x" * (32 * 2**20 + 1))

    assert is_bad_gateway(await ask(gateway))


async def test_a_long_line_within_a_stream_passes(gateway: RunningGateway) -> None:
    gateway.provider.answer_malformed("endless_line")
    direct = await _ask_directly(gateway, MESSAGES)

    answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

    assert answer.is_whole
    assert answer.body == direct


@pytest.mark.parametrize("how", ["not_utf8", "error_event"])
async def test_what_the_vendor_says_is_not_judged(gateway: RunningGateway, how: Malformation) -> None:
    gateway.provider.answer_malformed(how)
    direct = await _ask_directly(gateway, MESSAGES)

    answer = await ask(gateway, MESSAGES, STREAMED[MESSAGES])

    assert answer.body.startswith(direct)


async def test_a_client_that_leaves_before_the_first_byte_ends_the_call_upstream(gateway: RunningGateway) -> None:
    gateway.provider.stall()

    for asked in (ASKED[MESSAGES], STREAMED[MESSAGES]):
        count = len(gateway.provider.requests) + 1
        async with await gateway.connect() as connection:
            await connection.send(
                gateway.request_bytes(
                    "POST",
                    MESSAGES,
                    json=asked,
                    token=gateway.token(unit_primitives=[PROXY]),
                    headers={"X-Gitlab-Unit-Primitive": PROXY},
                )
            )
            request = await gateway.provider.request(count)
        async with asyncio.timeout(WAIT_S):
            await request.hung_up.wait()

    line = await gateway.log.find(path=MESSAGES)
    assert (line["status_code"], line["outcome"]) == (499, "client_cancelled")


async def test_a_client_that_leaves_within_a_stream_ends_the_call_upstream(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=3)

    async with stream(gateway) as answer:
        await answer.next_chunk()
    async with asyncio.timeout(WAIT_S):
        await (await gateway.provider.request()).hung_up.wait()

    line = await gateway.log.find(path=MESSAGES)
    assert (line["status_code"], line["outcome"]) == (200, "client_cancelled")


async def test_a_stop_within_a_stream_is_told_in_the_dialect(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_SERVER__DRAIN_S": "0.1"})
    gateway.provider.stall(after_events=3)

    async with stream(gateway) as answer:
        await answer.next_chunk()
        await gateway.running.drain()
        stopping = asyncio.create_task(gateway.running.aclose())
        rest = await answer.rest()
        await stopping

    assert not rest.is_whole
    assert_ends_with_error(MESSAGES, rest.body)
    await (await gateway.provider.request()).hung_up.wait()


async def test_bytes_sent_unasked_on_an_idle_connection_never_become_the_next_answer(gateway: RunningGateway) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary"
    gateway.provider.answer_with(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" + extra, times=1)

    first = await ask(gateway)
    second = await ask(gateway)

    assert first.body == b"{}"
    assert b"canary" not in second.body
    assert second.status == 200


@pytest.mark.parametrize(
    ("path", "is_streamed"), [*((path, False) for path in ASKED), *((path, True) for path in STREAMED)]
)
async def test_the_access_line_tells_what_a_relayed_call_used(
    gateway: RunningGateway, path: str, is_streamed: bool
) -> None:
    answer = await ask(gateway, path, STREAMED[path] if is_streamed else ASKED[path])

    assert answer.status == 200
    line = await gateway.log.find(path=path)
    told = {name: line.get(name) for name in ("provider", "model", "outcome", "usage_source", "provider_error")}
    assert told == {
        "provider": "anthropic" if path == MESSAGES else "openai",
        "model": ASKED[path]["model"],
        "outcome": "completed",
        "usage_source": "provider",
        "provider_error": None,
    }
    used = (10, 0) if path == EMBEDDINGS else (25, 7)
    assert (line["input_tokens"], line["output_tokens"]) == used
    assert line["meta.unit_primitive"] == PROXY
    assert line["content_type"] == answer.header("content-type")
    assert (line["first_chunk_duration_s"] is not None) == is_streamed


async def test_the_access_line_of_a_refused_call_tells_the_vendors_status(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(429)

    await ask(gateway)

    line = await gateway.log.find(path=MESSAGES)
    assert (line["status_code"], line["outcome"], line["provider_status"]) == (429, "failed", 429)


async def test_a_gateway_that_is_its_own_upstream_notices_the_loop(start_gateway: StartGateway) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gateway = await start_gateway(
        env={
            "AIGW_FASTAPI__API_PORT": str(port),
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}/v1/proxy/anthropic",
        }
    )

    answer = await ask(gateway)

    assert (answer.status, answer.json()["detail"]) == (508, "Loop detected")


async def test_concurrent_streams_do_not_wait_for_each_other(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    gateway.provider.follow(Script(hold_after=1), times=150)

    tasks = [asyncio.create_task(ask(gateway, MESSAGES, STREAMED[MESSAGES])) for _ in range(150)]
    await gateway.provider.request(150)  # all are under way at once: no pool holds them up
    gateway.provider.release()

    assert {(answer.status, answer.is_whole) for answer in await asyncio.gather(*tasks)} == {(200, True)}


@pytest.mark.parametrize("half", [rb"\ud83d", rb"x\udc00\ud83d"])
async def test_half_a_letter_in_an_escape_goes_on_as_it_came(gateway: RunningGateway, half: bytes) -> None:
    body = b'{"model":"claude-sonnet-4-6","max_tokens":9,"messages":[{"role":"user","content":"%b"}]}' % half

    answer = await ask(gateway, body=body)

    assert answer.status == 200
    assert gateway.provider.requests[0].body == body
