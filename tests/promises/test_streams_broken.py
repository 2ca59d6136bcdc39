"""Streams that break after their beginning, each in its own format (promises ST1 to ST5, contract 1.5).

Every kind of stream meets every fault. To its client the answer is never whole; the books know why; the
provider's connection is closed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.support.families import FAMILIES, Family, gateway_for_all, line_of, records_of
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import Script
from tests.support.waiting import WAIT_S

SAID = 4
"""Pieces of text that come before the fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to break off after some text.

    script    the family, its events before the fault → what the provider does
    is_seen   whether a stream of this family can notice; what passes unread is its client's to judge
    is_whole  HTTP itself ended well: the connection may serve another request
    """

    name: str
    script: Callable[[Family, list[bytes]], Script]
    is_seen: Callable[[Family], bool] = lambda _family: True
    is_whole: bool = False


def raw(family: Family, body: bytes, *more: bytes, framing: bytes = b"Transfer-Encoding: chunked") -> Script:
    """A head, a body in one chunk, then bytes as they are, and the end of the connection."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n" % (family.content_type.encode(), framing)
    if b"chunked" in framing:
        body = b"%x\r\n%b\r\n" % (len(body), body)
    return Script(raw=head + body + b"".join(more))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def half_event(family: Family) -> bytes:
    """The next event, up to its middle."""
    event = family.events()[family.head_events + SAID]
    return event[: len(event) // 2]


def has_events(family: Family) -> bool:
    return family.behind != "array"


FAULTS = [
    Fault("reset", lambda family, said: Script(events=(*said, b"x"), cut_after=len(said), cut_by="reset")),
    Fault("closed", lambda family, said: Script(events=(*said, b"x"), cut_after=len(said), cut_by="close")),
    Fault("ended without its end", lambda family, said: Script(events=tuple(said)), is_whole=True),
    Fault("closed without a length", lambda family, said: raw(family, b"".join(said), framing=b"X-None: 1")),
    Fault("cut in an event", lambda family, said: raw(family, b"".join(said), chunk(half_event(family)))),
    Fault(
        "a shorter body than announced",
        lambda family, said: raw(family, b"".join(said), framing=b"Content-Length: 999999"),
    ),
    Fault("a chunk size that is none", lambda family, said: raw(family, b"".join(said), b"zz\r\n")),
    Fault(
        "ended within an event",
        lambda family, said: raw(family, b"".join(said), chunk(half_event(family)), b"0\r\n\r\n"),
    ),
    Fault(
        "JSON that stops, then a blank line",
        lambda family, said: raw(family, b"".join(said), chunk(half_event(family) + b"\n\n"), b"0\r\n\r\n"),
        lambda family: not family.is_proxy,
    ),
    Fault(
        "an event of 9 MiB",
        lambda family, said: raw(family, b"".join(said), chunk(b"data: " + b"x" * (9 * 2**20)), b"0\r\n\r\n"),
        has_events,
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with gateway_for_all(tmp_path_factory.mktemp("broken")) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("family", "fault"),
    [
        pytest.param(family, fault, id=f"{family.name}: {fault.name}")
        for family in FAMILIES
        for fault in FAULTS
        if fault.is_seen(family)
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_that_breaks_is_told_so_and_booked_once(
    gateway: RunningGateway, family: Family, fault: Fault
) -> None:
    request_id = f"{family.name}/{fault.name}"
    said = family.events()[: family.head_events + SAID]
    gateway.provider.requests.clear()
    gateway.running.parts.traffic.forget()
    gateway.provider.follow(fault.script(family, said))

    answer = await gateway.post(**family.ask(gateway, request_id))

    assert answer.status == 200
    assert_told(family, answer)
    (record,) = await records_of(gateway, request_id)
    assert (record["status"], record["error_code"]) == ("upstream_error", "provider_broke")
    assert record["input_tokens"] > 0
    assert record["output_tokens"] > 0
    line = await line_of(gateway, request_id)
    assert (line["status_code"], line["outcome"], line["provider_error"]) == (200, "failed", "provider_broke")
    (asked,) = gateway.provider.requests  # never a second try once anything was sent
    if not fault.is_whole:
        async with asyncio.timeout(WAIT_S):
            await asked.closed.wait()


def assert_told(family: Family, answer: Answer) -> None:
    """The text as far as it came, the failure in the format's own words, and no end."""
    failure = family.failure_of(answer.body)
    if family.tells == "line":
        assert answer.is_whole
        assert failure is not None
        assert failure["retryable"] is False
    else:
        assert not answer.is_whole
    if family.tells == "event":
        assert failure is not None
    if family.name == "v4 code":
        assert failure is not None
        assert failure["retryable"] is False
    if family.ends:
        assert family.ends not in answer.body
    assert family.text_of(answer.body).strip().endswith("one two")
