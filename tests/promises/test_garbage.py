"""What a request leaves is freed with it: rings of objects wait for the collector, and that stops the event loop."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.fleet import CODE, running_fleet
from tests.support.gateway import RunningGateway
from tests.support.provider import Script, ScriptedProvider
from tests.support.waiting import eventually

CURSOR = {"file_name": "a.py", "content_above_cursor": "def a", "content_below_cursor": ""}
COMPLETION = {"prompt_version": 1, "current_file": CURSOR}
COMPONENTS, STREAMED_COMPONENTS = (
    {"prompt_components": [{"type": "code_editor_completion", "payload": CURSOR | {"stream": streamed}}]}
    for streamed in (False, True)
)
PATH = "/v2/code/completions"
PROXIED = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
TURNS = 12
BROKEN = b"HTTP/1.1 500 Broken\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
REMEMBERED = {"torana.access.tokens._Refused", "torana.access.tokens._Verified", "torana.caller.Caller"}
"""Verdicts about tokens, kept on purpose in a bounded number."""


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Off, so that what stays is what nobody but the collector would free."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def ours() -> Counter[str]:
    """Live objects of the gateway's own classes, by class."""
    return Counter(
        f"{type(each).__module__}.{type(each).__qualname__}"
        for each in gc.get_objects()
        if type(each).__module__.startswith("torana.")
    )


class Turns:
    """The same thing, done over and over. The first turn fills caches; what the others leave is theirs alone."""

    def __iter__(self) -> Iterator[int]:
        for turn in range(TURNS + 1):
            if turn == 1:
                self._before = ours()
            yield turn

    def left_over(self) -> dict[str, int]:
        """Classes of which nearly every turn has left something behind."""
        left = (ours() - self._before).items()
        return {name: count for name, count in left if count >= TURNS - 2 and name not in REMEMBERED}

    async def leave_nothing(self) -> bool:
        return self.left_over() == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, COMPLETION),
        (PATH, COMPLETION | {"stream": True}),
        ("/v4/code/suggestions", COMPONENTS),
        ("/v4/code/suggestions", STREAMED_COMPONENTS),
        ("/v2/chat/agent", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/prompts/model_configuration/check", {"inputs": {}}),
        ("/v1/prompts/model_configuration/check", {"inputs": {}, "stream": True}),
        ("/v1/proxy/anthropic/v1/messages", PROXIED),
        ("/v1/proxy/anthropic/v1/messages", PROXIED | {"stream": True}),
        ("/anthropic/v1/messages", PROXIED),
        ("/anthropic/v1/messages", PROXIED | {"stream": True}),
    ],
)
async def test_a_call_that_has_ended_leaves_nothing_to_the_collector(
    gateway: RunningGateway, path: str, body: dict[str, Any]
) -> None:
    turns = Turns()
    proxy = "ai_gateway_model_provider_proxy"
    token = gateway.token(unit_primitives=("complete_code", "duo_chat", proxy))

    asked = gateway.request_bytes("POST", path, token=token, json=body, headers={"X-Gitlab-Unit-Primitive": proxy})

    async with await gateway.connect() as connection:
        for _ in turns:
            await connection.send(asked)
            assert (await connection.read_answer()).status == 200
        assert turns.left_over() == {}


@pytest.mark.parametrize("leaves_early", [False, True], ids=["after its answer", "within it"])
async def test_a_connection_that_is_over_leaves_nothing_to_the_collector(
    gateway: RunningGateway, leaves_early: bool
) -> None:
    turns = Turns()
    token = gateway.token(unit_primitives=["complete_code"])
    asked = gateway.request_bytes("POST", PATH, token=token, json=COMPLETION | {"stream": True})
    if leaves_early:
        gateway.provider.stall(after_events=4)

    for _ in turns:
        async with await gateway.connect() as connection:
            await connection.send(asked)
            answer = await connection.read_head()
            if not leaves_early:
                await answer.rest()
    await eventually(turns.leave_nothing)


FAILURES = {
    "an error": (Script(raw=BROKEN), True),
    "no answer": (Script(raw=b""), True),
    "an error, whole": (Script(raw=BROKEN), False),
    "no answer, whole": (Script(raw=b""), False),
    "half an answer": (Script(malformed="short_body"), False),
    "no JSON": (Script(body=b'{"choices":['), False),
}
"""What the provider does, and whether a stream was asked for."""


@pytest.mark.parametrize(("script", "streamed"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("path", [PATH, "/openai/v1/chat/completions", "/anthropic/v1/messages"])
async def test_a_call_that_fails_leaves_nothing_to_the_collector(
    start_gateway: StartGateway, provider: ScriptedProvider, script: Script, streamed: bool, path: str
) -> None:
    turns = Turns()
    gateway = await start_gateway(env={"AIGW_ROUTING__FAILURES_TO_REST": "0"})
    provider.follow(script)
    token = gateway.token(unit_primitives=("complete_code", "ai_gateway_model_provider_proxy"))
    body = COMPLETION if path == PATH else PROXIED
    asked = gateway.request_bytes("POST", path, token=token, json=body | {"stream": streamed})

    async with await gateway.connect() as connection:
        for _ in turns:
            await connection.send(asked)
            assert (await connection.read_answer()).status in (502, 503)
        assert turns.left_over() == {}


BREAKS = {
    "cut": Script(cut_after=3),
    "without its end": Script(malformed="no_end"),
    "no JSON": Script(malformed="cut_json"),
    "an event without end": Script(malformed="endless_line"),
}
STEP = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("script", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, COMPLETION | {"stream": True}),
        ("/v4/code/suggestions", STREAMED_COMPONENTS),
        ("/v2/chat/agent", STEP),
        ("/v1/prompts/model_configuration/check", {"inputs": {}, "stream": True}),
        ("/v1/proxy/anthropic/v1/messages", PROXIED | {"stream": True}),
        ("/anthropic/v1/messages", PROXIED | {"stream": True}),
        ("/openai/v1/chat/completions", PROXIED | {"stream": True}),
    ],
)
async def test_a_stream_that_breaks_leaves_nothing_to_the_collector(
    start_gateway: StartGateway, provider: ScriptedProvider, script: Script, path: str, body: dict[str, Any]
) -> None:
    turns = Turns()
    gateway = await start_gateway(env={"AIGW_ROUTING__FAILURES_TO_REST": "0"})
    provider.follow(script)
    proxy = "ai_gateway_model_provider_proxy"
    token = gateway.token(unit_primitives=("complete_code", "duo_chat", proxy))
    asked = gateway.request_bytes("POST", path, token=token, json=body, headers={"X-Gitlab-Unit-Primitive": proxy})

    for _ in turns:
        async with await gateway.connect() as connection:
            await connection.send(asked)
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await connection.read_answer()
    await eventually(turns.leave_nothing)


@pytest.mark.parametrize("script", [Script(raw=b""), Script(malformed="short_body")], ids=["no answer", "half of one"])
async def test_a_relayed_call_that_fails_leaves_nothing_to_the_collector(
    start_gateway: StartGateway, provider: ScriptedProvider, script: Script
) -> None:
    turns = Turns()
    gateway = await start_gateway(env={"AIGW_ROUTING__FAILURES_TO_REST": "0"})
    provider.follow(script)
    proxy = "ai_gateway_model_provider_proxy"
    token = gateway.token(unit_primitives=[proxy])
    asked = gateway.request_bytes(
        "POST", "/v1/proxy/anthropic/v1/messages", token=token, json=PROXIED, headers={"X-Gitlab-Unit-Primitive": proxy}
    )

    async with await gateway.connect() as connection:
        for _ in turns:
            await connection.send(asked)
            assert (await connection.read_answer()).status == 502
        assert turns.left_over() == {}


@pytest.mark.parametrize("last", ["a", "b"])
async def test_hedges_that_fail_leave_nothing_to_the_collector(
    start_gateway: StartGateway, tmp_path: Path, clock: HandClock, last: str
) -> None:
    turns = Turns()
    two = ({"provider": "a"}, {"provider": "b", "order": 1})
    never_rests = {"AIGW_ROUTING__FAILURES_TO_REST": "0"}
    hedged = ", hedge_after_s: 0.001"
    async with running_fleet(start_gateway, tmp_path, two, model=hedged, env=never_rests, clock=clock) as fleet:
        asked = fleet.gateway.request_bytes("POST", CODE, token=fleet.token(), json=fleet.body(CODE))
        async with await fleet.gateway.connect() as connection:
            for turn in turns:
                clock.advance(60)  # who failed three times would be asked last, and hedges need budget
                ends = {name: asyncio.Event() for name in "ab"}
                for name, end in ends.items():
                    fleet[name].follow(Script(raw=BROKEN, first_byte_after=end))
                await connection.send(asked)
                both = {name: await fleet[name].request(turn + 1) for name in "ab"}
                first = "b" if last == "a" else "a"
                ends[first].set()
                await both[first].closed.wait()
                ends[last].set()
                assert (await connection.read_answer()).status == 503
            assert turns.left_over() == {}


REFUSED: dict[str, Callable[[RunningGateway, int], dict[str, Any]]] = {
    "token_missing": lambda gateway, n: {},
    "token_malformed": lambda gateway, n: {"headers": bearer(f"garbage-{n}")},
    "token_expired": lambda gateway, n: {"token": told(gateway, exp=1_000 + n)},
    "token_not_yet_valid": lambda gateway, n: {"token": told(gateway, nbf=2_000_000_000 + n)},
    "token_audience": lambda gateway, n: {"token": told(gateway, aud=f"somebody-{n}")},
    "token_signature": lambda gateway, n: {"headers": bearer(f"{told(gateway, jti=f'{n}')[:-8]}AAAAAAAA")},
    "header_mismatch": lambda gateway, n: {"token": told(gateway), "headers": {"X-Gitlab-Realm": "saas"}},
    "unit_primitive_missing": lambda gateway, n: {"token": gateway.token(unit_primitives=[]), "json": COMPLETION},
    "request_invalid": lambda gateway, n: {"token": told(gateway), "json": {}},
}


def told(gateway: RunningGateway, **claims: Any) -> str:
    return gateway.token(unit_primitives=["complete_code"], **claims)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "X-Gitlab-Authentication-Type": "oidc"}


@pytest.mark.parametrize("code", REFUSED)
async def test_a_refusal_leaves_nothing_to_the_collector(start_gateway: StartGateway, code: str) -> None:
    turns = Turns()
    gateway = await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "0"})
    asks = [gateway.request_bytes("POST", PATH, **REFUSED[code](gateway, number)) for number in range(TURNS + 1)]

    async with await gateway.connect() as connection:
        for turn in turns:
            await connection.send(asks[turn])
            assert (await connection.read_answer()).refusal.code == code
        assert turns.left_over() == {}
