"""Long forms: a storm of failures with fallbacks (OV7), waits that really take their time (UP9), and more calls than
an address has connections for (UP15)."""

import asyncio
from pathlib import Path

import pytest
from tests.conftest import Serve, StartGateway
from tests.drills.crowd import Crowd, Workers
from tests.support.families import BY_NAME, Family
from tests.support.fleet import CODE, running_fleet
from tests.support.invariants import unharmed
from tests.support.issuer import FakeIssuer
from tests.support.provider import Script, ScriptedProvider
from tests.support.usage_sink import UsageSink, write_sinks

pytestmark = [pytest.mark.drill, pytest.mark.timeout(180)]

STORM_S, RATE = 20.0, 60.0


async def test_a_storm_of_failures_costs_a_tenth_more_and_ends_with_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    three = [{"provider": name, "order": order} for order, name in enumerate("abc")]
    async with running_fleet(start_gateway, tmp_path / "fleet", three) as fleet:
        for name in "abc":
            fleet[name].fail_with(500)
        tasks = []
        async with unharmed(fleet.gateway, is_long=True) as watch:
            watch.providers = 3
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(int(STORM_S * RATE)):
                # Open loop: the next one comes whether or not the last one has been answered.
                await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
                tasks.append(asyncio.create_task(fleet.ask(CODE)))
            answers = await asyncio.gather(*tasks)
            took_s = loop.time() - began

            assert {answer.status for answer in answers} == {503}
            assert sum(fleet.asked.values()) <= 1.10 * len(answers) + 3 * took_s + 3

            for name in "abc":
                fleet[name].answer_with(text="Well again.")
            recovered = loop.time()
            good = 0
            while good < 50:
                good = good + 1 if (await fleet.ask(CODE)).status == 200 else 0
                await asyncio.sleep(0.01)
            assert loop.time() - recovered <= 10


async def test_two_seconds_are_waited_for_and_others_are_not_sent_meanwhile(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with running_fleet(start_gateway, tmp_path / "fleet", [{"provider": "a"}]) as fleet:
        fleet["a"].fail_with(429, headers={"Retry-After": "2"}, times=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(fleet.ask(CODE))
        await fleet["a"].request()
        await asyncio.sleep(0.2)

        refused = await fleet.ask(CODE)

        assert (refused.status, refused.header("retry-after")) == (429, "2")
        assert (await waiting).status == 200
        assert 2 <= loop.time() - began < 4
        assert fleet.asked == {"a": 2}


# UP15

CONNECTIONS, WORKERS, WAIT_S = 8, 2, 0.5
CALL_S = 0.2
"""How long the provider takes for one."""
CAPACITY = CONNECTIONS * WORKERS / CALL_S
"""Calls a second."""
QUIET, HOT = ("quiet-a", "quiet-b", "quiet-c"), "hot"
SLACK_S = 0.25
"""For a machine on which the load, the provider and the gateway share two cores."""


@pytest.mark.parametrize("name", ["v2 code", "anthropic proxy"])
async def test_a_tenant_that_asks_ten_times_as_much_as_others_waits_and_they_do_not(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path, name: str
) -> None:
    family: Family = BY_NAME[name]
    events = family.events()
    provider.follow(Script(events=tuple(events), pause_s=CALL_S / len(events)))
    env = {
        **wired,
        "AIGW_ROUTING__CONNECTIONS": str(CONNECTIONS),
        "AIGW_ROUTING__QUEUE_S": str(WAIT_S),
        "AIGW_ADMISSION__QUEUE_S": "5",
    }
    async with UsageSink() as sink:
        folder = write_sinks(tmp_path / "overlay", {"name": "books", "type": "http", "url": sink.url})
        gateway = await serve("--workers", str(WORKERS), env=env | {"AIGW_CATALOG": str(folder)})
        crowd = Crowd(gateway, issuer, family, sink)
        await crowd.ask_all(dict.fromkeys(QUIET, CAPACITY / 8), seconds=3)  # warm: pools, memory
        workers = await Workers.look(gateway)

        alone = await crowd.ask_all(dict.fromkeys(QUIET, CAPACITY / 8), seconds=10)
        beside = await crowd.ask_all({**dict.fromkeys(QUIET, CAPACITY / 8), HOT: 10 * CAPACITY / 8}, seconds=20)
        await workers.are_unharmed(gateway, crowd, secrets=[wired["ANTHROPIC_API_KEY"], wired["OPENAI_API_KEY"]])

    answered = sum(took.answered for took in beside.values())
    print(f"{name}: {answered / 20:.0f} of {CAPACITY:.0f} calls/s that there is room for")
    for tenant in (*QUIET, HOT):
        print(f"  {tenant}: alone {alone.get(tenant)}, beside {beside[tenant]}")
    for tenant in QUIET:
        assert alone[tenant].refused == beside[tenant].refused == 0
    hot = beside[HOT]
    assert hot.refused > 0
    assert {(code, 1 <= after_s <= 5) for code, after_s in hot.refusals} == {("overloaded", True)}
    assert max(took.slowest_s for took in beside.values()) < WAIT_S + 2 * CALL_S + SLACK_S
    assert answered / 20 > 0.8 * CAPACITY
    # Whoever has no place is next in turn, and all places are taken for a call at most.
    assert (
        max(beside[tenant].p99_s for tenant in QUIET) < max(alone[tenant].p99_s for tenant in QUIET) + CALL_S + SLACK_S
    )
