"""Answers that are none, before a byte has gone to the client (promises ST3, ST4, ST8, ST9, ST11, UP16).

Each way to ask a model meets each of them. The status is the contract's, nothing of what came is passed on, the books
hold one failure, and the provider's connection is closed.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.conftest import StartGateway
from tests.support.families import FAMILIES, Family, gateway_for_all, line_of, records_of
from tests.support.gateway import RunningGateway
from tests.support.provider import Script
from tests.support.raw_server import Line, RawServer
from tests.support.saying import Saying
from tests.support.waiting import WAIT_S

CANARY = "canary-1234"
"""Stands in everything that must not be passed on."""

EVENTS, JSON, HTML = b"text/event-stream", b"application/json", b"text/html; charset=utf-8"
DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
KEYS = b"{" + b",".join(b'"%s-%d":1' % (CANARY.encode(), number) for number in range(45_000)) + b"}"


def answer(content_type: bytes, body: bytes, *more: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: " + content_type, b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


SAID = json.dumps({"text": CANARY}).encode()
ENCODED = {
    "gzip": answer(EVENTS, gzip.compress(event(SAID)), b"Content-Encoding: gzip"),
    "br": answer(EVENTS, b"\x0b\x02\x80hello\x03", b"Content-Encoding: br"),
    "zstd": answer(JSON, b"\x28\xb5\x2f\xfd\x04\x00hello", b"Content-Encoding: zstd"),
    "gzip twice": answer(JSON, gzip.compress(gzip.compress(SAID)), b"Content-Encoding: gzip, gzip"),
    "a bomb": answer(EVENTS, gzip.compress(b"x" * 50_000_000), b"Content-Encoding: gzip"),
    "gzip with a broken end": answer(JSON, gzip.compress(SAID)[:-6] + b"\0" * 6, b"Content-Encoding: gzip"),
}
"""Identity was asked for."""
UNANSWERED = {
    "closed at once": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-More: %s\r\n" % (b"x" * 1000) * 80,
}
STREAMED = {
    "a web page": answer(HTML, b"<html>%s</html>" % CANARY.encode()),
    "a web page for events": answer(EVENTS, b"<html>%s</html>" % CANARY.encode()),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "nothing": answer(EVENTS, b""),
    "a shorter body": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\n: hi\n\n",
    "JSON that stops": answer(EVENTS, event(SAID[:-3])),
    "no JSON": answer(EVENTS, event(CANARY.encode())),
    "JSON of another kind": answer(EVENTS, event(b'["%s"]' % CANARY.encode())),
    "deep JSON": answer(EVENTS, event(DEEP)),
    "many keys": answer(EVENTS, event(KEYS)),
    "a long number": answer(EVENTS, event(b'{"choices":%s,"type":%s}' % (b"9" * 500_000, b"9" * 5000))),
    "a line without end": answer(EVENTS, b"data: " + b"x" * (9 * 2**20)),
    "a redirect": answer(JSON, SAID, b"Location: http://127.0.0.1:1/", status=b"307 Temporary Redirect"),
}
WHOLE = {
    "a web page": answer(HTML, b"<html>%s</html>" % CANARY.encode()),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "nothing": answer(JSON, b""),
    "a shorter body": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n" + SAID,
    "JSON that stops": answer(JSON, SAID[:-3]),
    "JSON of another kind": answer(JSON, b'["%s"]' % CANARY.encode()),
    "an object of another kind": answer(JSON, SAID),
    "deep JSON": answer(JSON, DEEP),
    "many keys": answer(JSON, KEYS),
    "not a number": answer(JSON, b'{"choices":NaN,"content":Infinity}'),
    "a long number": answer(JSON, b'{"choices":[{"index":%s}],"content":%s}' % (b"9" * 5_000, b"9" * 500_000)),
    "a body beyond the limit": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * (33 * 2**20),
    "a redirect": answer(JSON, SAID, b"Location: http://127.0.0.1:1/", status=b"302 Found"),
}
BOTH = {**UNANSWERED, **ENCODED}
READERS = [family for family in FAMILIES if not family.is_proxy]
PROXIES = [family for family in FAMILIES if family.is_proxy]
WITHOUT_STREAM = [family for family in READERS if family.name != "v2 chat"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with gateway_for_all(tmp_path_factory.mktemp("none")) as gateway:
        yield gateway


def every(families: list[Family], bad: dict[str, bytes]) -> pytest.MarkDecorator:
    rows = [(family, name, said) for family in families for name, said in bad.items()]
    return pytest.mark.parametrize(
        ("family", "name", "said"), [pytest.param(*row, id=f"{row[0].name}: {row[1]}") for row in rows]
    )


async def assert_refused(gateway: RunningGateway, family: Family, name: str, said: bytes, *, stream: bool) -> None:
    request_id = f"{family.name}/{name}/{stream}"
    gateway.provider.requests.clear()
    gateway.running.parts.traffic.forget()
    gateway.provider.follow(Script(raw=said))

    answer = await gateway.post(**family.ask(gateway, request_id, stream=stream))

    assert (answer.status, answer.is_whole) == (family.refused, True)
    assert CANARY not in answer.text
    line = await line_of(gateway, request_id)
    assert (line["outcome"], line["status_code"]) == ("failed", family.refused)
    assert line["provider_error"]
    (record,) = await records_of(gateway, request_id)
    assert (record["status"], record["error_code"]) == ("upstream_error", line["provider_error"])
    async with asyncio.timeout(WAIT_S):
        for request in gateway.provider.requests:
            await request.closed.wait()
    assert all(line["message"] != "unexpected error" for line in gateway.log.lines[-20:])


@every(READERS, BOTH | STREAMED)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_that_never_begins_is_refused_as_the_contract_has_it(
    gateway: RunningGateway, family: Family, name: str, said: bytes
) -> None:
    await assert_refused(gateway, family, name, said, stream=True)


@every(WITHOUT_STREAM, BOTH | WHOLE)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_whole_answer_that_is_none_is_refused_as_the_contract_has_it(
    gateway: RunningGateway, family: Family, name: str, said: bytes
) -> None:
    await assert_refused(gateway, family, name, said, stream=False)


@every(PROXIES, BOTH)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_pass_through_refuses_what_its_client_could_not_read(
    gateway: RunningGateway, family: Family, name: str, said: bytes
) -> None:
    await assert_refused(gateway, family, name, said, stream=True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("family", [each for each in FAMILIES if each.name != "v2 chat"], ids=lambda each: each.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_identity_is_asked_for(gateway: RunningGateway, family: Family, stream: bool) -> None:
    gateway.provider.requests.clear()
    gateway.provider.follow(Script())

    await gateway.post(**family.ask(gateway, "identity", stream=stream))

    assert gateway.provider.requests[0].header("accept-encoding") == "identity"


OWN_FORMATS = [family for family in READERS if not family.is_dialect and family.name != "v2 chat"]
"""Those that show no thoughts."""


@pytest.mark.parametrize("family", OWN_FORMATS, ids=lambda each: each.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_that_thinks_and_then_fails_is_refused_as_one_that_says_nothing(
    gateway: RunningGateway, family: Family
) -> None:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    thought = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": CANARY}}
    begun = [family.events()[0], *(event(json.dumps(each).encode()) for each in (block, thought))]
    gateway.running.parts.traffic.forget()
    gateway.provider.follow(Script(events=(*begun, b"x"), cut_after=len(begun), cut_by="close"))

    answer = await gateway.post(**family.ask(gateway, f"{family.name}/thought"))

    assert (answer.status, answer.is_whole, CANARY in answer.text) == (family.refused, True, False)
    (record,) = await records_of(gateway, f"{family.name}/thought")
    assert (record["status"], record["error_code"]) == ("upstream_error", "provider_broke")
    assert record["output_tokens"] > 0


NUMBER = b'{"choices":' + b"9" * 2**19
"""Its beginning; the rest never comes."""


async def test_a_number_without_an_end_is_refused_before_all_of_it_is_there(start_gateway: StartGateway) -> None:
    async def begin(line: Line) -> None:
        while True:
            await line.read_request()
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + NUMBER)

    async with RawServer(begin) as server:
        gateway = await start_gateway(env={"ANTHROPIC_BASE_URL": server.url(""), "OPENAI_BASE_URL": server.url("")})

        answer = await gateway.post(**READERS[0].ask(gateway, "number", stream=False))

        assert answer.status == READERS[0].refused
        assert (await line_of(gateway, "number"))["provider_error"] == "provider_broke"
        await server.all_gone()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_long_text_of_digits_is_an_answer(gateway: RunningGateway) -> None:
    digits = "9" * 500_000
    gateway.provider.follow(Script(says=Saying(pieces=(digits,))))

    answer = await gateway.post(**READERS[0].ask(gateway, "digits", stream=False))

    assert (answer.status, digits in answer.text) == (200, True)
