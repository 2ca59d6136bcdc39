"""UP2 and UP6 for real: dropped packets, and a name server that is slow, fails, or changes its mind, once to do harm.

In a network of its own; skipped where that cannot be made. Run by `make drills`.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Serve
from tests.drills.test_streams import LAG_S, Stage, p99, probing
from tests.support.http_client import Answer
from tests.support.issuer import FakeIssuer
from tests.support.network import NameServer, answer_at, dropped, own_network, why_not
from tests.support.provider import ScriptedProvider
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.drill,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

CONNECT_S = 1.0
TTL_S = 30.0
"""As AddressBook has it."""
MESSAGES = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(autouse=True)
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_network(tmp_path_factory.mktemp("network")):
        yield


@pytest.fixture
async def provider(network: None) -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def issuer(network: None) -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture
async def names(network: None) -> AsyncIterator[NameServer]:
    server = NameServer()
    await server.start()
    yield server
    server.transport.close()


async def start(serve: Serve, wired: dict[str, str], provider: Any, issuer: FakeIssuer, host: str) -> Stage:
    """Anthropic is behind a name, OpenAI behind an address."""
    env = {
        **wired,
        "ANTHROPIC_BASE_URL": f"http://{host}:{provider.server.port}",
        "AIGW_TIMEOUTS__CONNECT_S": str(CONNECT_S),
        "AIGW_TIMEOUTS__REQUEST_S": "5",
    }
    return Stage(await serve(env=env), provider, issuer)


async def ask(stage: Stage, path: str = "/anthropic/v1/messages", model: str = "") -> tuple[Answer, float]:
    begun = time.perf_counter()
    body = {**MESSAGES, "model": model or MESSAGES["model"]}
    token = stage.gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    answer = await stage.gateway.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    return answer, time.perf_counter() - begun


async def test_a_first_packet_that_is_dropped_ends_with_the_patience_for_connecting(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    stage = await start(serve, wired, provider, issuer, "127.0.0.1")

    with dropped(provider.server.port):
        async with probing(stage.served.port) as lags:
            answers = await asyncio.gather(*(ask(stage) for _ in range(9)))
    well, _ = await ask(stage)

    waits = [seconds for _, seconds in answers]
    print(f"{min(waits):.2f} to {max(waits):.2f} s; probes p99 {p99(lags) * 1000:.1f} ms")
    assert {answer.status for answer, _ in answers} == {503}
    # Tried twice, each time with all of its patience, and some jitter between.
    assert max(waits) < 2 * CONNECT_S + 0.5
    assert min(waits) > CONNECT_S - 0.1
    assert p99(lags) < LAG_S
    assert well.status == 200


async def test_a_fallback_answers_where_the_first_ones_packets_are_dropped(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    async with ScriptedProvider() as second:
        (tmp_path / "overlay").mkdir()
        (tmp_path / "overlay" / "providers.yml").write_text(
            f"- {{name: second, dialect: messages, base_url: {second.url}}}\n"
        )
        (tmp_path / "overlay" / "models.yml").write_text(
            "models:\n- name: both\n  title: Both\n  deployments:\n"
            "  - {provider: anthropic, model: claude-sonnet-4-6}\n  - {provider: second, model: b, order: 1}\n"
        )
        wired["AIGW_CATALOG"] = str(tmp_path / "overlay")
        stage = await start(serve, wired, provider, issuer, "127.0.0.1")
        with dropped(provider.server.port):
            answer, seconds = await ask(stage, model="both")

    print(f"{seconds:.2f} s")
    assert (answer.status, answer.header("x-aigw-model")) == (200, "second/b")
    assert seconds < CONNECT_S + 0.3


async def test_a_slow_name_server_holds_nobody_up_who_has_an_address(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer, names: NameServer
) -> None:
    names.after_s = 5
    stage = await start(serve, wired, provider, issuer, "model.test")

    async with probing(stage.served.port) as lags:
        waiting = [asyncio.create_task(ask(stage)) for _ in range(50)]
        await asyncio.sleep(0.2)
        others = [await ask(stage, "/openai/v1/chat/completions", "gpt-5.4-mini-2026-03-17") for _ in range(20)]
        answers = await asyncio.gather(*waiting)

    print(
        f"others {max(seconds for _, seconds in others) * 1000:.0f} ms at most; probes p99 {p99(lags) * 1000:.1f} ms;"
        f" {names.asked} questions"
    )
    assert {answer.status for answer, _ in others} == {200}
    assert max(seconds for _, seconds in others) < 0.5
    assert {answer.status for answer, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < 2 * CONNECT_S + 0.5
    assert p99(lags) < LAG_S
    assert names.asked < 20  # the fifty share their questions


async def test_known_addresses_serve_on_and_new_ones_are_found(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer, names: NameServer
) -> None:
    stage = await start(serve, wired, provider, issuer, "model.test")
    assert (await ask(stage))[0].status == 200
    asked = names.asked

    for failing, after_s in ((True, 0.0), (False, 5.0)):
        names.is_failing, names.after_s = failing, after_s
        await asyncio.sleep(TTL_S + 1)
        answer, seconds = await ask(stage)
        print(f"{'failing' if failing else 'slow'}: {answer.status} after {seconds:.2f} s")
        assert answer.status == 200
        assert seconds < 1
    assert names.asked > asked

    names.after_s, names.addresses = 0.0, ["127.0.0.2"]
    came = asyncio.Event()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        writer.close()

    elsewhere = await asyncio.start_server(hang_up, "127.0.0.2", provider.server.port)
    await asyncio.sleep(TTL_S + 6)  # what rests has been closed by then
    answer, _ = await ask(stage)
    elsewhere.close()
    assert came.is_set()
    assert answer.status in (502, 503)  # whoever is there now, hangs up


METADATA = "169.254.169.254"


async def test_a_clients_host_that_becomes_the_metadata_address_is_never_reached(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer, names: NameServer
) -> None:
    answer_at(METADATA)
    stage = await start(serve, wired | {"AIGW_CUSTOM_MODELS__ENABLED": "true"}, provider, issuer, "127.0.0.1")
    provider.answer_with(text="hello", headers={"Connection": "close"})
    reached: list[str] = []

    async def canary(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(str(writer.get_extra_info("peername")))
        writer.close()

    async with await asyncio.start_server(canary, METADATA, provider.server.port):
        # The canary does hear whoever calls.
        (await asyncio.open_connection(METADATA, provider.server.port))[1].close()
        await eventually(lambda: _is(reached))
        reached.clear()
        first = await ask_own(stage, provider)
        asked, names.addresses = names.asked, [METADATA]
        for addresses in ([METADATA], ["127.0.0.1", METADATA], [METADATA, "127.0.0.1"]):
            names.addresses = addresses
            answers = [await ask_own(stage, provider) for _ in range(5)]
            assert {answer.status for answer in answers} <= {421, 422, 502, 503}, answers

    assert (first.status, b"hello" in first.body) == (200, True)
    assert names.asked > asked
    assert len(provider.requests) == 1
    assert not reached


async def ask_own(stage: Stage, provider: ScriptedProvider) -> Answer:
    """A client's own model server, by a name of its own."""
    own = {"provider": "openai", "name": "mistral", "endpoint": f"http://rebind.test:{provider.server.port}/v1"}
    inputs = {"input": "Why?", "selected_text": "x", "file_content": "", "language_info": ""}
    return await stage.gateway.post(
        "/v1/prompts/chat/explain_code",
        json={"inputs": inputs, "model_metadata": own | {"api_key": ""}},
        token=stage.gateway.token(unit_primitives=["explain_code"]),
    )


async def _is(found: list[str]) -> bool:
    return bool(found)


def test_a_thread_that_ends_late_does_not_keep_its_test_in_the_network(tmp_path: Path) -> None:
    home = Path("/proc/self/ns/mnt").readlink()
    with own_network(tmp_path):
        assert Path("/proc/self/ns/mnt").readlink() != home
        # As asyncio has one for each process that it waits for.
        threading.Timer(0.3, lambda: None).start()

    assert Path("/proc/self/ns/mnt").readlink() == home
