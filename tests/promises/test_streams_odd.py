"""Odd answers that are good all the same: they reach every client whole (promises ST5, ST7, ST10, ST12, UP16)."""

import json
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tests.support.families import FAMILIES, PIECES, Family, gateway_for_all, line_of, records_of
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import Script

LETTERS = "grüße 日本語 👩‍👩‍👧 \u2028\u2029\x7f\ufffd e\u0301 \u202e ok"
"""Of every length in UTF-8; line ends to some readers; joined and reversing ones."""


def text_said(pieces: tuple[str, ...]) -> str:
    return "".join(pieces)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with gateway_for_all(tmp_path_factory.mktemp("odd")) as gateway:
        yield gateway


async def ask(gateway: RunningGateway, family: Family, script: Script, what: str) -> Answer:
    gateway.provider.requests.clear()
    gateway.running.parts.traffic.forget()
    gateway.provider.follow(script)
    return await gateway.post(**family.ask(gateway, f"{family.name}/{what}"))


def assert_whole(family: Family, answer: Answer, text: str) -> None:
    """The text, the format's own end, and nothing of a failure."""
    assert (answer.status, answer.is_whole) == (200, True)
    assert family.ends in answer.body
    assert family.failure_of(answer.body) is None
    said = family.text_of(answer.body)
    # A step of an agent tells its final answer alone.
    assert (said.strip() if family.tells == "line" else said) == (
        text.removeprefix("Final Answer: ").strip() if family.tells == "line" else text
    )


def close_delimited(family: Family, version: bytes = b"1.1") -> bytes:
    head = b"HTTP/%b 200 OK\r\nContent-Type: %b\r\n\r\n" % (version, family.content_type.encode())
    return head + b"".join(family.events())


def after(events: list[bytes], *more: bytes) -> Script:
    return Script(events=(*events, *more))


Make = Callable[[Family], Script]
ODD: dict[str, Make] = {
    "in segments of one byte": lambda family: Script(events=tuple(family.events()), segment_bytes=1),
    "in segments of seven bytes": lambda family: Script(events=tuple(family.events()), segment_bytes=7),
    "behind 100 Continue": lambda family: Script(raw=b"HTTP/1.1 100 Continue\r\n\r\n" + close_delimited(family)),
    "behind early hints": lambda family: Script(
        raw=b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + close_delimited(family)
    ),
    "ended by the connection": lambda family: Script(raw=close_delimited(family)),
    "in HTTP/1.0": lambda family: Script(raw=close_delimited(family, b"1.0")),
    "with trailers": lambda family: Script(
        raw=b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nX-Sum: 1\r\n\r\n"
        % (family.content_type.encode(), b"".join(b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in family.events()))
    ),
    "all at once": lambda family: Script(events=(b"".join(family.events()),)),
}
FOR_EVENTS: dict[str, Make] = {
    "with comments and fields": lambda family: Script(
        events=tuple(b": ping\n\nid: 7\nretry: 5\n" + each for each in family.events())
    ),
    "with lines that end in CRLF": lambda family: Script(
        events=tuple(each.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for each in family.events())
    ),
    "with data after its end": lambda family: after(
        family.events(), b'data: {"more":1}\n\n', b"data: no json\n\n", b"data: {"
    ),
    "ended twice": lambda family: after(family.events(), *family.events()[-2:]),
    "cut after its end": lambda family: Script(
        events=(*family.events(), b": x\n\n"), cut_after=len(family.events()), cut_by="reset"
    ),
}


def rows(families: list[Family], odd: dict[str, Make]) -> list[object]:
    return [
        pytest.param(family, name, make, id=f"{family.name}: {name}")
        for family in families
        for name, make in odd.items()
    ]


@pytest.mark.parametrize(
    ("family", "name", "make"),
    rows(FAMILIES, ODD) + rows([each for each in FAMILIES if each.behind != "array"], FOR_EVENTS),
)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_odd_stream_is_answered_like_a_plain_one(
    gateway: RunningGateway, family: Family, name: str, make: Make
) -> None:
    answer = await ask(gateway, family, make(family), name)

    if family.is_proxy and name in ("ended twice", "cut after its end", "with data after its end"):
        # These bytes are the vendor's own, and so is what they mean.
        assert b"".join(family.events()) in answer.body
    else:
        assert_whole(family, answer, text_said(PIECES))
    (record,) = await records_of(gateway, f"{family.name}/{name}")
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == ("completed", 25, 7)
    line = await line_of(gateway, f"{family.name}/{name}")
    assert (line["outcome"], line["usage_source"]) == ("completed", "provider")


@pytest.mark.parametrize("segment", [None, 1, 3])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_letters_of_every_kind_arrive_however_they_are_split(
    gateway: RunningGateway, family: Family, segment: int | None
) -> None:
    pieces = ("Final Answer: ", LETTERS, "\x00 end")
    script = Script(events=tuple(family.events(pieces)), segment_bytes=segment)

    answer = await ask(gateway, family, script, f"letters {segment}")

    assert_whole(family, answer, text_said(pieces))


@pytest.mark.parametrize("family", [each for each in FAMILIES if not each.is_proxy], ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_utf_8_never_goes_out(gateway: RunningGateway, family: Family) -> None:
    events = [each.replace(b"two ", b"\xff\xc3 \xed\xa0\x80 ") for each in family.events()]

    answer = await ask(gateway, family, Script(events=tuple(events)), "not UTF-8")

    text = answer.body.decode()  # or fails
    if family.passes:
        assert answer.is_whole
        assert "\ufffd" in family.text_of(answer.body)
    else:
        # Who reads a stream takes it for broken: nobody knows which letter is lost.
        assert family.tells != "cut" or not answer.is_whole
        assert family.ends.decode() not in text or not family.ends
        (record,) = await records_of(gateway, f"{family.name}/not UTF-8")
        assert record["error_code"] == "provider_broke"


@pytest.mark.parametrize("size", [2**16 + 1, 2**20 - 4096])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_long_line_works(gateway: RunningGateway, family: Family, size: int) -> None:
    pieces = ("Final Answer: ", "x" * size)

    answer = await ask(gateway, family, Script(events=tuple(family.events(pieces))), f"line of {size}")

    assert_whole(family, answer, text_said(pieces))


@pytest.mark.parametrize("family", [each for each in FAMILIES if each.has_comments], ids=lambda each: each.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_that_its_limit_cut_is_whole_and_says_so(gateway: RunningGateway, family: Family) -> None:
    answer = await ask(gateway, family, Script(events=tuple(family.events(is_cut_by_limit=True))), "cut by a limit")

    assert (answer.status, answer.is_whole) == (200, True)
    if family.is_dialect:
        told = {"messages": b'"max_tokens"', "responses": b'"max_output_tokens"', "chat": b'"length"'}
        assert told[family.name.split()[0]] in answer.body
    (record,) = await records_of(gateway, f"{family.name}/cut by a limit")
    assert record["status"] == "completed"


STRANGE_USAGE = {
    "twice": [{"prompt_tokens": 25, "completion_tokens": 3}, {"prompt_tokens": 25, "completion_tokens": 7}],
    "negative": [{"prompt_tokens": -25, "completion_tokens": 7}],
    "impossible": [{"prompt_tokens": 10**30, "completion_tokens": 7}],
    "missing": [],
    "of another kind": [{"prompt_tokens": "many", "completion_tokens": None}],
}


@pytest.mark.parametrize("name", STRANGE_USAGE)
@pytest.mark.parametrize("family", [each for each in FAMILIES if each.behind == "chat"], ids=lambda each: each.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_strange_usage_leaves_one_record_with_numbers_that_can_be(
    gateway: RunningGateway, family: Family, name: str
) -> None:
    good = [each for each in family.events() if b'"choices": []' not in each]
    told = [
        b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage}).encode()
        for usage in STRANGE_USAGE[name]
    ]

    answer = await ask(gateway, family, Script(events=(*good[:-1], *told, good[-1])), f"usage {name}")

    assert (answer.status, answer.is_whole, family.ends in answer.body) == (200, True, True)
    (record,) = await records_of(gateway, f"{family.name}/usage {name}")
    assert record["status"] == "completed"
    if name == "twice":
        assert (record["input_tokens"], record["output_tokens"], record["source"]) == (25, 7, "provider")
    else:
        assert 0 < record["input_tokens"] < 1000
        assert 0 < record["output_tokens"] < 1000
        assert record["source"] == ("counted" if name == "missing" else record["source"]) != "provider"
