"""How far proxied requests stray (contract 9, last point): measured where wanted, afterwards, at nobody's cost."""

import asyncio
import time

import pytest
from tests.conftest import StartGateway
from tests.promises.test_proxies import GOOD, PROXY, ask
from tests.support.gateway import RunningGateway
from tests.support.waiting import eventually

MEASURED = {"AIGW_ABUSE_DETECTION__ENABLED": "true", "AIGW_ABUSE_DETECTION__SAMPLING_RATE": "1"}


async def scores(gateway: RunningGateway) -> tuple[float, float]:
    """How many, and their sum."""
    lines = (await gateway.monitoring("/metrics")).body.decode().splitlines()
    count, total = (
        next(line.split()[1] for line in lines if line.startswith(f"abuse_request_scores_{member} "))
        for member in ("count", "sum")
    )
    return float(count), float(total)


async def test_a_request_is_measured_against_its_purpose(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=MEASURED)
    gateway.provider.answer_with(text="0.8")

    answer = await ask(gateway)

    told = await gateway.log.find(message="request measured")
    assert (told["score"], told["unit_primitive"], told["correlation_id"]) == (
        0.8,
        PROXY,
        answer.header("x-request-id"),
    )
    assert await scores(gateway) == (1, 0.8)
    asked = (await gateway.provider.request(2)).json()
    shown = asked["messages"][-1]["content"]
    assert '"content": "Hi"' in str(shown)
    assert "<purpose>" in str(shown)


async def test_the_operator_pays_and_no_callers_record_tells_of_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=MEASURED)
    gateway.provider.answer_with(text="0")
    await ask(gateway)
    await gateway.log.find(message="request measured")

    async def is_booked() -> bool:
        return len(gateway.usage()) == 2

    await eventually(is_booked)
    assert sorted((event["instance"] != "", event["feature"]) for event in gateway.usage()) == [
        (False, "abuse_detection"),
        (True, "proxy/anthropic"),
    ]


async def test_the_answer_does_not_wait(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=MEASURED)
    never = asyncio.Event()
    gateway.provider.answer_with(times=1)
    gateway.provider.answer_with(first_byte_after=never)

    assert (await ask(gateway)).status == 200
    await gateway.provider.request(2)


@pytest.mark.parametrize(
    "env", [{}, {"AIGW_ABUSE_DETECTION__ENABLED": "true", "AIGW_ABUSE_DETECTION__SAMPLING_RATE": "0"}]
)
async def test_nothing_is_measured_unless_it_is_wanted(start_gateway: StartGateway, env: dict[str, str]) -> None:
    gateway = await start_gateway(env=env)

    answers = [await ask(gateway) for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert len(gateway.provider.requests) == 3


@pytest.mark.parametrize("said", ["very far", "2", "1.5", "-0.5", "nan", "", "0.5 because it is about cooking"])
async def test_what_is_no_number_counts_for_nothing(start_gateway: StartGateway, said: str) -> None:
    gateway = await start_gateway(env=MEASURED)
    gateway.provider.answer_with(times=1)
    gateway.provider.answer_with(text=said)

    assert (await ask(gateway)).status == 200

    await gateway.log.find(message="a request was not measured")
    assert await scores(gateway) == (0, 0)


async def test_an_answer_of_blanks_is_looked_at_in_linear_time(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=MEASURED)
    gateway.provider.answer_with(times=1)
    gateway.provider.answer_with(text=f"0.5{' ' * 20_000}x")
    before = time.thread_time()

    await ask(gateway)

    await gateway.log.find(message="a request was not measured")
    assert time.thread_time() - before < 0.5


async def test_a_provider_that_fails_is_no_concern_of_the_callers(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=MEASURED)
    gateway.provider.answer_with(times=1)
    gateway.provider.fail_with(400)

    assert (await ask(gateway)).status == 200

    told = await gateway.log.find(message="a request was not measured")
    assert GOOD["messages"][0]["content"] not in told["reason"].split()


async def test_a_huge_request_is_shown_in_part(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=MEASURED)
    gateway.provider.answer_with(text="1")

    await ask(gateway, asked=GOOD | {"messages": [{"role": "user", "content": "begin" + "x" * 500_000 + "finish"}]})

    shown = str((await gateway.provider.request(2)).json()["messages"][-1]["content"])
    assert "begin" in shown
    assert "finish" in shown
    assert len(shown) < 20_000
    assert await eventually_scored(gateway) == (1, 1)


async def eventually_scored(gateway: RunningGateway) -> tuple[float, float]:
    await gateway.log.find(message="request measured")
    return await scores(gateway)
