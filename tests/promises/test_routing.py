"""Several deployments behind one model: which one is asked, what becomes of a call when it fails, and who is spared."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.fleet import CODE, PATH, Fleet, running_fleet
from tests.support.http_client import Answer
from tests.support.issuer import INSTANCE_ID
from tests.support.waiting import eventually

from torana.providers.batches import MAX_ANSWER_BYTES
from torana.routing.breaker import GOOD_TO_CLOSE

StartFleet = Callable[..., Awaitable[Fleet]]

EU = f"residency:\n- {{name: eu-only, instance: {INSTANCE_ID}, regions: [europe-*]}}\n"
ABROAD = ({"provider": "a", "region": "us-east1"}, {"provider": "b", "region": "europe-west1", "order": 1})
TWO = ({"provider": "a"}, {"provider": "b", "order": 1})


@pytest.fixture
async def start_fleet(start_gateway: StartGateway, tmp_path: Path) -> Any:
    async with AsyncExitStack() as stack:

        async def start(*deployments: dict[str, Any], **told: Any) -> Fleet:
            opened: AbstractAsyncContextManager[Fleet] = running_fleet(
                start_gateway, tmp_path / "fleet", deployments, **told
            )
            return await stack.enter_async_context(opened)

        yield start


def code_of(answer: Answer) -> str:
    return str(answer.refusal.code)


async def state(fleet: Fleet, deployment: str) -> str:
    """As metrics tell it."""
    text = (await fleet.gateway.monitoring("/metrics")).text
    return text.partition(f'torana_deployment_state{{deployment="{deployment}"}} ')[2].partition("\n")[0]


# Who is asked


async def test_the_lowest_order_is_asked_and_the_others_wait(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "order": 1}, {"provider": "b", "order": 0})

    answer = await fleet.ask()

    assert (answer.status, answer.json(), answer.header("x-aigw-model")) == (200, "This is b.", "b/b-1")
    assert fleet.asked == {"a": 0, "b": 1}


async def test_the_gateways_own_region_comes_first(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(
        {"provider": "a", "region": "us-east1"},
        {"provider": "b", "region": "europe-west1"},
        env={"RUNWAY_REGION": "europe-west1"},
    )

    assert {(await fleet.ask()).json() for _ in range(8)} == {"This is b."}


async def test_a_client_that_names_the_provider_as_well_is_answered_by_that_one(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO)
    asked = {"model": "b/b-1", "messages": [{"role": "user", "content": "Hello"}]}
    token = fleet.gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    answer = await fleet.gateway.post("/openai/v1/chat/completions", json=asked, token=token)

    assert answer.status == 200
    assert fleet.asked == {"a": 0, "b": 1}


async def test_equal_deployments_share_the_calls(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b"}, {"provider": "c", "weight": 0}, clock=clock)

    for _ in range(40):
        await fleet.ask()

    assert fleet.asked["a"] > 3
    assert fleet.asked["b"] > 3
    assert fleet.asked["c"] == 0


async def test_a_long_prompt_stays_where_its_beginning_is_cached(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*({"provider": name} for name in "abcd"))
    long = "y = 2\n" * 1000

    answers = {(await fleet.ask(text=long + str(number))).json() for number in range(12)}

    assert len(answers) == 1


async def test_a_canary_gets_its_share_of_callers_and_always_the_same_ones(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "canary_percent": 50})

    async def served(instance: str) -> str:
        return str((await fleet.ask(token=fleet.token(gitlab_instance_id=instance, sub=instance))).json())

    first = {f"instance-{number}": await served(f"instance-{number}") for number in range(20)}
    again = {instance: await served(instance) for instance in first}

    assert first == again
    assert set(first.values()) == {"This is a.", "This is b."}


async def test_nobody_else_falls_back_to_a_canary(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "canary_percent": 0.0001})
    fleet["a"].fail_with(500)

    assert (await fleet.ask()).status == 421
    assert fleet.asked["b"] == 0


# What becomes of a call that fails


async def test_a_refused_connection_is_made_good_by_the_next(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].server.stop_listening()

    answer = await fleet.ask()

    assert (answer.status, answer.json()) == (200, "This is b.")
    assert (await fleet.gateway.log.find(path=PATH))["attempts"] == 2


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_with_a_deployment_is_made_good_by_the_next(
    start_fleet: StartFleet, status: int, stream: bool
) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].fail_with(status)

    answer = await fleet.ask(CODE, stream=stream)

    assert answer.status == 200
    assert b"This is b." in answer.body
    assert fleet.asked == {"a": 1, "b": 1}


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_is_wrong_with_the_request_is_wrong_everywhere(start_fleet: StartFleet, status: int) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].fail_with(status)

    answer = await fleet.ask()

    assert (answer.status, answer.json()["detail"][:3]) == (421, str(status))
    assert fleet.asked == {"a": 1, "b": 0}


async def test_a_stream_that_begins_with_an_error_is_made_good_by_the_next(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].answer_malformed("error_event")

    answer = await fleet.ask(stream=True)

    assert (answer.status, answer.body, answer.is_whole) == (200, b"This is b.", True)


@pytest.mark.parametrize("by", ["reset", "close"])
async def test_after_the_first_chunk_nothing_is_begun_again(start_fleet: StartFleet, by: Any) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].answer_with(pieces=("one ", "two ", "three"))
    fleet["a"].cut_after(3, by=by)

    answer = await fleet.ask(stream=True)

    assert (answer.status, answer.is_whole) == (200, False)
    assert b"This is b." not in answer.body
    assert fleet.asked == {"a": 1, "b": 0}


async def test_a_silent_deployment_is_left_for_the_next_and_its_connection_closed(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "timeout_s": 0.05}, {"provider": "b", "order": 1})
    fleet["a"].stall()

    answer = await fleet.ask(CODE)

    assert (answer.status, b"This is b." in answer.body) == (200, True)
    await (await fleet["a"].request()).hung_up.wait()


@pytest.mark.parametrize("path", [PATH, CODE])
async def test_a_deployment_has_a_patience_of_its_own_for_silence_within_an_answer(
    start_fleet: StartFleet, path: str
) -> None:
    fleet = await start_fleet({"provider": "a", "idle_s": 0.05}, {"provider": "b", "order": 1})
    fleet["a"].answer_with(pieces=("one ", "two ", "three"), hold_after=3)

    answer = await fleet.ask(path, stream=True)

    assert (answer.status, answer.is_whole) == (200, False)
    assert b"one " in answer.body
    await (await fleet["a"].request()).hung_up.wait()
    line = await fleet.gateway.log.find(path=path)
    assert (line["provider_error"], line["provider_status"]) == ("provider_timeout", 504)
    assert fleet.asked == {"a": 1, "b": 0}


async def test_a_silent_deployment_without_a_next_is_a_timeout_and_not_asked_again(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "timeout_s": 0.05})
    fleet["a"].stall()

    answer = await fleet.ask(CODE)

    assert (answer.status, code_of(answer)) == (503, "provider_timeout")
    assert fleet.asked == {"a": 1}


async def test_the_last_failure_is_told_when_all_fail(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO, {"provider": "c", "order": 2}, env={"AIGW_ROUTING__TRIES": "3"})
    for name, status in (("a", 500), ("b", 502), ("c", 503)):
        fleet[name].fail_with(status)

    answer = await fleet.ask()

    assert answer.json()["detail"] == "503: Service Unavailable"
    assert fleet.asked == {"a": 1, "b": 1, "c": 1}


async def test_retries_stop_where_their_budget_ends(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet(*TWO, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "0"})
    fleet["a"].fail_with(500)

    answers = [(await fleet.ask()).status for _ in range(8)]

    assert answers == [200] * 3 + [421] * 5  # three are free in a second, a tenth of eight is none


# Who is spared


async def test_after_a_few_failures_in_a_row_others_are_asked_first_and_no_call_is_lost(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet(*TWO, clock=clock)
    fleet["a"].server.stop_listening()

    assert {(await fleet.ask()).json() for _ in range(25)} == {"This is b."}

    await fleet["a"].start()
    clock.advance(5.1)
    assert (await fleet.ask()).json() == "This is a."


async def test_the_only_one_is_asked_though_it_failed_a_few_times(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet({"provider": "a"}, clock=clock)
    fleet["a"].fail_with(500)
    for _ in range(5):
        await fleet.ask()

    fleet["a"].answer_with(text="Back.")

    assert (await fleet.ask()).json() == "Back."


async def test_a_deployment_that_keeps_failing_rests_and_comes_back(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet(*TWO, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "3"})
    fleet["a"].fail_with(500)
    for _ in range(3):
        await fleet.ask()
    assert fleet.asked == {"a": 3, "b": 3}

    assert (await fleet.ask()).json() == "This is b."
    assert fleet.asked["a"] == 3
    assert await state(fleet, "a/a-1") == "2"

    fleet["a"].answer_with(text="Back.")
    clock.advance(6.1)
    assert (await fleet.ask()).json() == "Back."


async def test_a_deployment_that_refuses_what_is_asked_is_well_again(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet({"provider": "a"}, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "2"})
    fleet["a"].fail_with(500)
    for _ in range(2):
        await fleet.ask(CODE)

    fleet["a"].fail_with(400)
    clock.advance(6.1)
    for _ in range(GOOD_TO_CLOSE):
        await fleet.ask(CODE)

    assert await state(fleet, "a/a-1") == "0"


async def test_a_deployment_that_a_reload_took_away_is_no_cause_for_alarm(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO, env={"AIGW_ROUTING__FAILURES_TO_REST": "2"})
    for vendor in "ab":
        fleet[vendor].fail_with(401)
    for _ in range(2):
        await fleet.ask()
    assert (await state(fleet, "a/a-1"), await state(fleet, "b/b-1")) == ("3", "3")

    fleet.write(TWO[1:])
    await fleet.gateway.running.reloader.reload()

    assert (await state(fleet, "a/a-1"), await state(fleet, "b/b-1")) == ("0", "3")


async def test_when_all_rest_nothing_is_sent_and_the_client_is_told_when(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet({"provider": "a"}, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "2"})
    fleet["a"].fail_with(500)
    for _ in range(2):
        await fleet.ask(CODE)
    before = fleet.asked["a"]

    answer = await fleet.ask(CODE)

    assert (answer.status, answer.json()["detail"], code_of(answer)) == (503, "Inference failed", "provider_resting")
    assert 1 <= int(answer.header("retry-after") or 0) <= 6
    assert fleet.asked["a"] == before


async def test_the_clients_own_faults_let_nobody_rest(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet({"provider": "a"}, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "2"})
    fleet["a"].fail_with(400)

    for _ in range(5):
        assert (await fleet.ask()).json()["detail"] == "400: Bad Request"
    assert fleet.asked["a"] == 5


async def test_answers_that_are_too_long_let_nobody_rest_and_are_asked_for_once(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet(*TWO, clock=clock, env={"AIGW_ROUTING__FAILURES_TO_REST": "2"})
    fleet["a"].answer_with(body=b" " * (MAX_ANSWER_BYTES + 1))

    for _ in range(4):
        assert (await fleet.ask()).status == 421
    assert fleet.asked == {"a": 4, "b": 0}


async def test_a_deployment_that_asks_to_be_left_alone_is_by_all_calls(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet(*TWO, clock=clock)
    fleet["a"].fail_with(429, headers={"Retry-After": "3600"}, times=1)

    assert [(await fleet.ask()).json() for _ in range(3)] == ["This is b."] * 3
    assert fleet.asked == {"a": 1, "b": 3}
    clock.advance(3601)
    assert (await fleet.ask()).json() == "This is a."


async def test_the_only_deployment_is_left_alone_too_and_the_client_told_how_long(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet({"provider": "a"}, clock=clock)
    fleet["a"].fail_with(429, headers={"Retry-After": "3600"}, times=1)

    told = await fleet.ask(CODE)
    clock.advance(600)
    later = await fleet.ask(CODE)

    assert [(each.status, each.header("retry-after")) for each in (told, later)] == [(429, "3600"), (429, "3000")]
    assert fleet.asked == {"a": 1}


@pytest.mark.parametrize("status", [500, 503, 529])
async def test_a_deployment_that_is_overloaded_once_comes_last_and_is_still_asked_where_it_is_the_only_one(
    start_fleet: StartFleet, clock: HandClock, status: int
) -> None:
    alone = await start_fleet({"provider": "a"}, clock=clock)
    alone["a"].fail_with(status, headers={"Retry-After": "3600"}, times=1)

    told, next_call = await alone.ask(CODE), await alone.ask(CODE)

    assert (told.status, code_of(told), told.header("retry-after")) == (503, "provider_overloaded", "3600")
    assert (next_call.status, alone.asked) == (200, {"a": 2})


async def test_others_are_asked_as_long_as_an_overloaded_deployment_wants_patience(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet(*TWO, clock=clock)
    fleet["a"].fail_with(503, headers={"Retry-After": "3600"}, times=1)

    assert [(await fleet.ask()).json() for _ in range(3)] == ["This is b."] * 3
    assert fleet.asked == {"a": 1, "b": 3}
    clock.advance(3601)
    assert (await fleet.ask()).json() == "This is a."


async def test_while_a_deployment_is_left_alone_the_reason_is_its_own_last_word(
    start_fleet: StartFleet, clock: HandClock
) -> None:
    fleet = await start_fleet({"provider": "a"}, clock=clock)
    fleet["a"].fail_with(401, times=1)
    fleet["a"].fail_with(429, headers={"Retry-After": "3600"}, times=1)

    answers = [await fleet.ask(CODE) for _ in range(3)]

    limited = (429, "provider_limited")
    assert [(each.status, code_of(each)) for each in answers] == [(503, "provider_key_refused"), limited, limited]
    assert answers[2].header("retry-after") == "3600"
    assert fleet.asked == {"a": 2}


async def test_a_refused_key_is_an_alarm_and_others_are_asked_first(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet(*TWO, clock=clock)
    fleet["a"].fail_with(401)

    answers = [(await fleet.ask()).json() for _ in range(3)]

    assert answers == ["This is b."] * 3
    assert fleet.asked == {"a": 1, "b": 3}
    alarms = [line for line in fleet.gateway.log.lines if line["message"] == "the provider refuses our key"]
    assert [(line["level"], line["deployment"]) for line in alarms] == [("error", "a/a-1")]


PAGE = b"<html><head><title>403 Forbidden</title></head><body>Request blocked.</body></html>"


async def test_a_firewall_that_blocks_one_request_is_no_refused_key(start_fleet: StartFleet, clock: HandClock) -> None:
    """Those before LiteLLM and others take code in a prompt for an attack; an agent asks again and again."""
    fleet = await start_fleet({"provider": "a"}, clock=clock)
    fleet["a"].fail_with(403, PAGE, times=12)

    blocked = [await fleet.ask(CODE) for _ in range(12)]
    other = await fleet.ask(CODE)

    assert {(each.status, code_of(each)) for each in blocked} == {(503, "provider_refused")}
    assert other.status == 200
    assert not [line for line in fleet.gateway.log.lines if line["message"] == "the provider refuses our key"]


async def test_who_blocks_everything_is_asked_last(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet(*TWO, clock=clock)
    fleet["a"].fail_with(403, PAGE)

    answers = []
    for _ in range(5):
        answers.append((await fleet.ask()).json())
        clock.advance(1)

    assert answers == ["This is b."] * 5
    assert fleet.asked == {"a": 3, "b": 5}


async def test_a_reload_keeps_what_is_known_of_a_deployment(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet(*TWO, clock=clock)
    fleet["a"].fail_with(429, headers={"Retry-After": "3600"})
    await fleet.ask()
    fleet.write([*TWO, {"provider": "b", "model": "b-2", "order": 2}])

    await fleet.gateway.running.reloader.reload()

    assert (await fleet.ask()).json() == "This is b."
    assert fleet.asked["a"] == 1


# Room


async def test_so_many_calls_at_once_go_to_a_deployment_and_the_rest_elsewhere(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 1}, {"provider": "b", "order": 1})
    fleet["a"].stall()
    held = asyncio.create_task(fleet.ask())
    await fleet["a"].request()

    assert (await fleet.ask()).json() == "This is b."
    fleet["a"].release()
    assert (await held).header("x-aigw-model") == "a/a-1"


async def test_a_call_for_vectors_gives_its_place_to_the_next_one(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(
        {"provider": "a", "concurrency": 1}, model=", capabilities: [chat, embeddings], dimensions: 4"
    )
    token = fleet.gateway.token(unit_primitives=["generate_embeddings_codebase"])
    asked = {"model_metadata": {"provider": "gitlab", "identifier": "fleet"}, "contents": ["x = 1"]}

    answers = [await fleet.gateway.post("/v1/embeddings/code_embeddings", json=asked, token=token) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]


async def test_a_call_waits_a_moment_for_a_place_and_is_then_refused(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 1}, env={"AIGW_ROUTING__QUEUE_S": "0.05"})
    fleet["a"].stall()
    held = asyncio.create_task(fleet.ask())
    await fleet["a"].request()

    refused = await fleet.ask()

    assert (refused.status, code_of(refused)) == (503, "overloaded")
    assert 1 <= int(refused.header("retry-after") or 0) <= 5
    fleet["a"].release()
    assert (await held).status == 200
    assert (await fleet.ask()).status == 200  # the place is free again


async def test_a_place_is_free_again_whatever_becomes_of_its_call(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 1}, env={"AIGW_ROUTING__QUEUE_S": "30"})
    a = fleet["a"]

    a.fail_with(400, times=1)
    await fleet.ask()
    a.cut_after(2, times=1)
    await fleet.ask(stream=True)
    a.stall(after_events=2, times=1)
    async with fleet.gateway.stream(PATH, json=fleet.body(stream=True), token=fleet.token()) as answer:
        await answer.next_chunk()

    assert (await fleet.ask()).status == 200


@pytest.mark.parametrize("path", [PATH, CODE])
async def test_so_many_connections_go_to_one_address_and_the_next_call_is_refused(
    start_fleet: StartFleet, path: str
) -> None:
    env = {"AIGW_ROUTING__CONNECTIONS": "2", "AIGW_ROUTING__QUEUE_S": "0.05"}
    fleet = await start_fleet({"provider": "a"}, {"provider": "a", "model": "a-2", "order": 1}, env=env)
    fleet["a"].stall()
    held = [asyncio.create_task(fleet.ask(path)) for _ in range(2)]
    await fleet["a"].request(2)

    refused = await fleet.ask(path)

    assert (refused.status, code_of(refused), refused.header("retry-after") is not None) == (503, "overloaded", True)
    line = await fleet.gateway.log.find(path=path, status_code=503)
    assert (line["provider"], line["outcome"], line["refusal_code"]) == ("a", "failed", "overloaded")
    fleet["a"].release()
    assert [(await each).status for each in held] == [200, 200]
    admitted = Counter(record["error_code"] for record in fleet.gateway.usage())
    assert admitted == {"": 2, "overloaded": 1}


async def test_a_crowd_that_finds_no_room_hears_so_unread_and_others_are_let_in(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 1}, env={"AIGW_ROUTING__QUEUE_S": "0.001"})
    fleet["a"].stall()
    held = asyncio.create_task(fleet.ask())
    await fleet["a"].request()
    token, other = fleet.token(), fleet.token(sub="other", gitlab_instance_id="other")
    assert (await fleet.ask(token=other)).status == 503

    refused = [await fleet.ask(token=token) for _ in range(60)]

    assert {(answer.status, code_of(answer), answer.refusal.layer) for answer in refused} == {
        (503, "overloaded", "gateway")
    }
    assert all(1 <= int(answer.header("retry-after") or 0) <= 5 for answer in refused)
    turned_away = await _turned_away(fleet)
    assert turned_away > 10
    assert (await fleet.ask(CODE, token=token)).status == 503  # as full; let in to hear so
    assert (await fleet.ask(token=other)).status == 503
    assert await _turned_away(fleet) == turned_away
    fleet["a"].release()
    assert (await held).status == 200

    async def is_answered() -> bool:
        return (await fleet.ask(token=token)).status == 200

    await eventually(is_answered)


async def _turned_away(fleet: Fleet) -> int:
    told = (await fleet.gateway.monitoring("/metrics")).text
    found = re.search(r'^torana_requests_shed_total\{reason="no_room"\} (\d+)', told, re.MULTILINE)
    return int(found[1]) if found is not None else 0


@pytest.mark.parametrize("path", [PATH, CODE])
async def test_where_no_more_may_wait_a_call_is_turned_away_before_it_costs_anything(
    start_fleet: StartFleet, path: str
) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 1}, env={"AIGW_ROUTING__QUEUE_S": "30"})
    fleet["a"].stall()
    tasks = [asyncio.create_task(fleet.ask(path))]
    await fleet["a"].request()
    (health,) = fleet.gateway.running.parts.traffic.book
    health.places.max_waiting = 1
    tasks.append(asyncio.create_task(fleet.ask(path)))

    async def is_waiting() -> bool:
        return bool(health.places.waiting)

    await eventually(is_waiting)

    refused = await fleet.ask(path)
    other = asyncio.create_task(fleet.ask(path, token=fleet.token(sub="other", gitlab_instance_id="other")))
    displaced = await tasks.pop()

    assert (refused.status, code_of(refused), refused.header("retry-after") is not None) == (503, "overloaded", True)
    lines: list[dict[str, Any]] = []

    async def are_told() -> bool:
        lines[:] = [line for line in fleet.gateway.log.lines if line.get("refusal_code") == "overloaded"]
        return len(lines) >= 2

    await eventually(are_told)
    told = ("provider", "model", "outcome", "meta.unit_primitive", "meta.feature_category", "http_exception_details")
    assert len(lines) == 2
    # The one was admitted and waited, the other never was; their lines say the same.
    assert [lines[0].get(name) for name in told] == [lines[1].get(name) for name in told]
    assert (lines[0]["provider"], lines[0]["outcome"]) == ("a", "failed")
    fleet["a"].release()
    assert [(await each).status for each in (*tasks, other)] == [200, 200]
    assert displaced.status == 503
    assert Counter(record["error_code"] for record in fleet.gateway.usage()) == {"": 2, "overloaded": 1}


async def test_a_call_that_may_have_room_elsewhere_is_not_turned_away(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(
        {"provider": "a", "concurrency": 1}, {"provider": "b", "concurrency": 1, "order": 1},
        env={"AIGW_ROUTING__QUEUE_S": "30"},
    )  # fmt: skip
    fleet["a"].stall()
    held = asyncio.create_task(fleet.ask())
    await fleet["a"].request()
    for health in fleet.gateway.running.parts.traffic.book:
        health.places.max_waiting = 0

    assert (await fleet.ask()).json() == "This is b."

    fleet["b"].stall()
    tasks = [held, asyncio.create_task(fleet.ask())]
    await fleet["b"].request(2)
    assert code_of(await fleet.ask()) == "overloaded"
    for name in "ab":
        fleet[name].release()
    assert [(await each).status for each in tasks] == [200, 200]
    assert all(not record["error_code"] for record in fleet.gateway.usage())


async def test_the_pass_through_shares_the_connections_and_its_refusals(start_gateway: StartGateway) -> None:
    env = {"AIGW_ROUTING__CONNECTIONS": "1", "AIGW_ROUTING__QUEUE_S": "0.05"}
    gateway = await start_gateway(env=env)
    gateway.provider.stall(times=1)

    async def relay() -> Answer:
        return await gateway.post(
            "/v1/proxy/openai/v1/chat/completions",
            json={"model": "gpt-5.2-2025-12-11", "messages": []},
            token=gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
            headers={"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"},
        )

    held = asyncio.create_task(relay())
    await gateway.provider.request()
    refused = await relay()
    gateway.provider.release()

    assert (refused.status, code_of(refused)) == (503, "overloaded")
    assert (await held).status == 200
    assert (await relay()).status == 200


async def test_places_go_to_the_party_that_has_fewest(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "concurrency": 2}, env={"AIGW_ROUTING__QUEUE_S": "30"})
    fleet["a"].stall()
    hot, other = (fleet.token(sub=name, gitlab_instance_id=name) for name in ("hot", "other"))
    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(fleet.ask(token=hot, text=f"hot {number}")))
        if number < 2:
            await fleet["a"].request(number + 1)

    (health,) = fleet.gateway.running.parts.traffic.book

    async def are_waiting() -> bool:
        return bool(health.places.waiting == len(tasks) - 2)

    await eventually(are_waiting)
    tasks.append(asyncio.create_task(fleet.ask(token=other, text="other")))
    await eventually(are_waiting)

    fleet["a"].release()
    await asyncio.gather(*tasks)

    order = [request.body for request in fleet["a"].requests]
    assert b"other" in order[2]  # before four that came earlier


# Hedges and shadows


async def test_a_second_deployment_is_asked_beside_one_that_dawdles(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO, model=", hedge_after_s: 0.02")
    fleet["a"].stall()

    answer = await fleet.ask(stream=True)

    assert (answer.body, answer.is_whole, answer.header("x-aigw-model")) == (b"This is b.", True, "b/b-1")
    await (await fleet["a"].request()).hung_up.wait()
    assert (await fleet.gateway.log.find(path=PATH))["attempts"] == 2
    shown = (await fleet.gateway.monitoring("/metrics")).text
    assert 'torana_hedges_total{deployment="a/a-1",outcome="won"} 1' in shown
    assert 'torana_tries_total{deployment="a/a-1",outcome="outrun"} 1' in shown


async def test_the_first_one_has_the_call_if_it_answers_first_after_all(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO, model=", hedge_after_s: 0.02")
    fleet["a"].stall()
    fleet["b"].stall()
    asked = asyncio.create_task(fleet.ask())
    await fleet["b"].request()

    fleet["a"].release()

    assert (await asked).header("x-aigw-model") == "a/a-1"
    await (await fleet["b"].request()).hung_up.wait()


@pytest.mark.parametrize("failing", [("a",), ("b",), ("a", "b")])
async def test_a_failing_one_leaves_the_call_to_the_other(start_fleet: StartFleet, failing: tuple[str, ...]) -> None:
    fleet = await start_fleet(*TWO, model=", hedge_after_s: 0.02")
    fleet["a"].stall(times=1)
    if "b" in failing:
        fleet["b"].fail_with(500)
    asked = asyncio.create_task(fleet.ask())
    await fleet["b"].request()
    if "a" in failing:
        fleet["a"].server.stop_listening()
    else:
        fleet["a"].release()

    assert (await asked).status == (421 if len(failing) == 2 else 200)


async def test_a_client_that_leaves_takes_both_with_it(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO, model=", hedge_after_s: 0.02")
    fleet["a"].stall()
    fleet["b"].stall()
    asked = asyncio.create_task(fleet.ask())
    requests = [await fleet["a"].request(), await fleet["b"].request()]

    asked.cancel()

    for request in requests:
        await request.hung_up.wait()


async def test_nobody_is_hedged_unless_it_is_declared(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].stall()
    asked = asyncio.create_task(fleet.ask())
    await fleet["a"].request()

    fleet["a"].release()
    await asked

    assert fleet.asked == {"a": 1, "b": 0}


async def test_a_hedge_needs_budget(start_fleet: StartFleet, clock: HandClock) -> None:
    fleet = await start_fleet(*TWO, model=", hedge_after_s: 0.001", clock=clock)
    fleet["a"].stall()
    asked = [asyncio.create_task(fleet.ask()) for _ in range(6)]
    await fleet["a"].request(6)
    await fleet["b"].request(3)
    await asyncio.wait(asked, timeout=0.1)
    assert fleet.asked == {"a": 6, "b": 3}

    clock.advance(1)  # and gets it later, while the first one still dawdles
    await fleet["b"].request(6)

    assert {(await each).json() for each in asked} == {"This is b."}


async def test_a_shadow_gets_a_copy_and_the_caller_never_its_answer(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "shadow_percent": 100})
    fleet["b"].stall()

    answer = await fleet.ask()

    assert answer.json() == "This is a."
    copy, sent = await fleet["b"].request(), fleet["a"].requests[0]
    assert copy.json() == {**sent.json(), "model": "b-1"}
    fleet["b"].release()
    ended = await fleet.gateway.log.find(message="shadow ended")
    assert (ended["deployment"], ended["outcome"]) == ("b/b-1", "answered")


async def test_what_a_shadow_costs_is_nobodys_but_the_operators(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "shadow_percent": 100})
    fleet["b"].answer_with(text="x", input_tokens=1111)
    await fleet.ask()

    async def is_booked() -> bool:
        return len(fleet.gateway.usage()) == 2

    await eventually(is_booked)
    booked = {
        event["deployment"]: (event["instance"], event["feature"], event["input_tokens"])
        for event in fleet.gateway.usage()
    }
    assert booked["b/b-1"] == ("", "shadow", 1111)
    assert booked["a/a-1"][0] == INSTANCE_ID


async def test_numbers_of_a_shadow_that_cannot_be_are_replaced_by_our_own(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "shadow_percent": 100})
    fleet["b"].answer_with(text="x" * 400, input_tokens=10**15)
    await fleet.ask()

    async def is_booked() -> bool:
        return len(fleet.gateway.usage()) == 2

    await eventually(is_booked)
    (copy,) = (event for event in fleet.gateway.usage() if event["deployment"] == "b/b-1")
    assert copy["source"] == "suspect"
    assert 0 < copy["input_tokens"] < 1000
    assert copy["output_tokens"] == 100


@pytest.mark.parametrize("how", ["fails", "refuses", "breaks"])
async def test_a_shadow_that_fails_is_no_concern_of_the_callers(start_fleet: StartFleet, how: str) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "shadow_percent": 100})
    if how == "fails":
        fleet["b"].fail_with(500)
    elif how == "refuses":
        fleet["b"].server.stop_listening()
    else:
        fleet["b"].cut_after(2)

    answers = [(await fleet.ask(stream=True)).body for _ in range(3)]

    assert answers == [b"This is a."] * 3
    ended = await fleet.gateway.log.find(message="shadow ended")
    assert ended["outcome"] == "failed"


@pytest.mark.parametrize(
    ("ends", "status", "code"),
    [("with the server", "interrupted", "server_draining"), ("by itself", "upstream_error", "provider_timeout")],
)
async def test_a_shadow_that_dawdles_is_booked_whatever_ends_it(
    start_fleet: StartFleet, ends: str, status: str, code: str
) -> None:
    patience = {"AIGW_TIMEOUTS__REQUEST_S": "60" if ends == "with the server" else "1"}
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "shadow_percent": 100}, env=patience)
    fleet["b"].stall(after_events=3)
    await fleet.ask(stream=True)
    await fleet["b"].request()

    if ends == "with the server":
        await fleet.gateway.running.parts.traffic.aclose()

    async def is_booked() -> bool:
        return len(fleet.gateway.usage()) == 2

    await eventually(is_booked)
    (copy,) = (event for event in fleet.gateway.usage() if event["deployment"] == "b/b-1")
    assert (copy["status"], copy["error_code"]) == (status, code)
    assert copy["input_tokens"] > 0


async def test_a_shadow_is_dropped_rather_than_waited_for(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b", "shadow_percent": 100})
    fleet["b"].stall()

    answers = [(await fleet.ask()).status for _ in range(12)]

    assert answers == [200] * 12
    assert fleet.asked["b"] <= 8
    assert (
        'torana_shadows_total{deployment="b/b-1",outcome="dropped"} 4'
        in (await fleet.gateway.monitoring("/metrics")).text
    )


async def test_a_shadow_stays_within_the_callers_regions(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(
        {"provider": "a", "region": "europe-west1"}, {"provider": "b", "region": "us-east1", "shadow_percent": 100},
        more=EU,
    )  # fmt: skip

    await fleet.ask()
    await fleet.gateway.running.parts.traffic.aclose()

    assert fleet.asked == {"a": 1, "b": 0}


# Residency


async def test_an_instance_is_answered_within_its_regions_whatever_the_order(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*ABROAD, more=EU)

    assert (await fleet.ask()).json() == "This is b."
    other = fleet.token(sub="another-instance", gitlab_instance_id="another-instance")
    assert (await fleet.ask(token=other)).json() == "This is a."


@pytest.mark.parametrize("failure", ["refused", 429, 500, "cut"])
async def test_no_failure_leads_out_of_the_regions(start_fleet: StartFleet, failure: Any) -> None:
    fleet = await start_fleet(*ABROAD, {"provider": "c", "order": 2}, more=EU, env={"AIGW_ROUTING__TRIES": "5"})
    if failure == "refused":
        fleet["b"].server.stop_listening()
    elif failure == "cut":
        fleet["b"].cut_after(1)
    else:
        fleet["b"].fail_with(failure)

    assert (await fleet.ask(stream=True)).status == 421
    assert (fleet.asked["a"], fleet.asked["c"]) == (0, 0)  # nor to one that does not say where it is


async def test_without_a_deployment_in_its_regions_an_instance_is_refused(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a", "region": "us-east1"}, {"provider": "c"}, more=EU)

    answer = await fleet.ask()
    users = await fleet.gateway.post(
        CODE, json=fleet.body(CODE), token=fleet.gateway.user_token(unit_primitives=["complete_code"])
    )

    assert [(each.status, code_of(each)) for each in (answer, users)] == [(403, "residency_refused")] * 2
    assert fleet.asked == {"a": 0, "c": 0}


TWO_MODELS = """\
models:
- {{name: far, title: Far, deployments: [{{provider: a, model: a-1, region: us-east1}}]}}
- {{name: near, title: Near, deployments: [{{provider: b, model: b-1, region: europe-west4}}]}}
aliases:
{aliases}{more}"""
ALIASES = """\
- {name: chat_default, models: [far, near, demo]}
- {name: completions_default, models: [far, demo]}
"""


async def test_an_alias_means_its_next_model_where_an_instances_regions_leave_the_first_one_out(
    start_fleet: StartFleet,
) -> None:
    fleet = await start_fleet({"provider": "a"}, {"provider": "b"})
    (fleet.folder / "models.yml").write_text(TWO_MODELS.format(aliases=ALIASES, more=EU))
    assert await fleet.gateway.running.reloader.reload()

    fenced, elsewhere = await fleet.ask(), await fleet.ask(token=fleet.token(sub="other", gitlab_instance_id="other"))
    without_a_next = await fleet.ask(CODE)
    dialect = await fleet.gateway.post(
        "/openai/v1/chat/completions",
        json={"model": "chat_default", "messages": [{"role": "user", "content": "Hi"}]},
        token=fleet.gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"]),
    )

    assert (fenced.json(), elsewhere.json()) == ("This is b.", "This is a.")
    assert (without_a_next.status, code_of(without_a_next)) == (403, "residency_refused")  # and not the demo
    assert dialect.json()["choices"][0]["message"]["content"] == "This is b."
    assert fleet.asked == {"a": 1, "b": 2}


async def test_a_realm_has_its_regions_and_an_instances_own_rule_comes_first(start_fleet: StartFleet) -> None:
    rules = f"{EU}- {{name: realm, realm: self-managed, regions: [us-east1]}}\n"
    fleet = await start_fleet(*ABROAD, more=rules)
    other = fleet.token(sub="other", gitlab_instance_id="other")
    hosted = fleet.token(sub="other", gitlab_instance_id="other", gitlab_realm="saas")
    fleet["a"].fail_with(500)

    assert (await fleet.ask()).json() == "This is b."
    assert (await fleet.ask(token=other)).status == 421
    assert (await fleet.ask(token=hosted)).json() == "This is b."  # free to go anywhere


async def test_a_realms_regions_hold_where_no_instance_has_any(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*ABROAD, more="residency:\n- {name: realm, realm: self-managed, regions: [europe-*]}\n")

    assert (await fleet.ask()).json() == "This is b."


async def test_a_bypass_does_not_lead_around_the_regions(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*ABROAD, more=EU, env={"AIGW_AUTH__BYPASS_EXTERNAL": "true"})

    assert (await fleet.ask()).json() == "This is b."
    assert fleet.asked["a"] == 0


async def test_the_pass_through_stays_within_the_regions_too(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*ABROAD, more=EU)
    token = fleet.gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    answer = await fleet.gateway.post(
        "/v1/proxy/openai/v1/chat/completions",
        json={"model": "gpt-5.2-2025-12-11", "messages": []},
        token=token,
        headers={"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"},
    )

    assert (answer.status, code_of(answer)) == (403, "residency_refused")
    assert fleet.gateway.provider.requests == []
