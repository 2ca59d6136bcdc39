"""Limits of our own: who is let pass, what a refusal says, what comes back (docs/reference/limits.md)."""

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.limits import (
    PATH,
    SONNET,
    ask,
    ask_of,
    ask_unread,
    body,
    figure,
    is_figure,
    statuses,
    token_of,
    write_limits,
)  # fmt: skip
from tests.support.waiting import eventually

from torana.limits.table import SLOTS, UNTIL

PROXY = "/v1/proxy/anthropic/v1/messages"


class Start:
    """`await start("60 per minute")`: a gateway with these limits, whose clock the test moves."""

    def __init__(self, start_gateway: StartGateway, clock: HandClock, folder: Path) -> None:
        self.start_gateway, self.clock, self.folder = start_gateway, clock, folder

    async def __call__(self, *limits: str | dict[str, Any], env: dict[str, str] | None = None) -> RunningGateway:
        return await self.start_gateway(write_limits(self.folder, *limits) | (env or {}), clock=self.clock)


@pytest.fixture
def start(start_gateway: StartGateway, clock: HandClock, tmp_path: Path) -> Start:
    return Start(start_gateway, clock, tmp_path / "overlay")


def messages(**members: Any) -> dict[str, Any]:
    return {"model": SONNET, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}], **members}


async def relay(gateway: RunningGateway, **members: Any) -> Any:
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    headers = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
    return await gateway.post(PROXY, json=messages(**members), token=token, headers=headers)


# --- Requests ---


async def test_as_many_requests_pass_as_the_limit_says_and_not_one_more(start: Start) -> None:
    gateway = await start("3 per minute per user")

    assert await statuses(gateway, 4) == [200, 200, 200, 429]
    assert len(gateway.provider.requests) == 3  # the fourth never left


async def test_a_limit_is_free_again_when_its_period_is_over(start: Start) -> None:
    gateway = await start("2 per minute per user")
    await statuses(gateway, 3)

    start.clock.advance(59.9)
    before = await statuses(gateway, 1)
    start.clock.advance(0.2)

    assert (before, await statuses(gateway, 3)) == ([429], [200, 200, 429])


async def test_users_of_one_name_on_two_instances_are_two(start: Start) -> None:
    gateway = await start("1 per minute per user")

    assert await statuses(gateway, 2) == [200, 429]
    assert await statuses(gateway, 2, user="lea") == [200, 429]
    assert await statuses(gateway, 2, instance="other") == [200, 429]


async def test_a_user_is_the_same_through_the_instance_and_with_a_token_of_their_own(start: Start) -> None:
    gateway = await start("1 per minute per user")
    own = gateway.user_token(
        unit_primitives=["ai_gateway_model_provider_proxy"], user_id="mia", gitlab_instance_id="acme"
    )
    await statuses(gateway, 1)

    answer = await gateway.post(
        PROXY, json=messages(), token=own, headers={"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
    )

    assert answer.status == 429


async def test_a_limit_per_instance_holds_for_all_its_users_together(start: Start) -> None:
    gateway = await start("2 per hour per instance")

    assert [(await ask(gateway, user=name)).status for name in ("mia", "lea", "ann")] == [200, 200, 429]


async def test_instances_that_are_known_by_their_uid_alone_are_counted_apart(start: Start) -> None:
    gateway = await start("1 per minute per instance")

    async def ask_as(uid: str) -> int:
        claims = {"gitlab_instance_id": None, "gitlab_instance_uid": uid}
        token = gateway.user_token(unit_primitives=["ai_gateway_model_provider_proxy"], **claims)
        headers = {"Authorization": f"Bearer {token}"}
        return (await gateway.post("/anthropic/v1/messages", json=messages(), headers=headers)).status

    assert [await ask_as(uid) for uid in "aabb"] == [200, 429, 200, 429]


async def test_a_limit_without_whom_holds_for_all_callers_together(start: Start) -> None:
    gateway = await start("2 per hour")

    assert [(await ask(gateway, instance=name)).status for name in ("a", "b", "c")] == [200, 200, 429]


async def test_a_limit_per_feature_counts_prompts_and_endpoints_by_the_names_that_usage_records_give_them(
    start: Start,
) -> None:
    gateway = await start("1 per minute per user and feature")
    asked = {"inputs": {"content": "A text"}}
    token = gateway.token(unit_primitives=["summarize_text"])

    prompts = [await gateway.post("/v1/prompts/summarize_text", json=asked, token=token) for _ in range(2)]
    relayed = [await relay(gateway) for _ in range(2)]

    assert [answer.status for answer in (*prompts, *relayed)] == [200, 429, 200, 429]
    assert "feature summarize_text" in prompts[1].json()["refusal"]["remedy"]
    assert "feature proxy/anthropic" in relayed[1].json()["refusal"]["remedy"]


async def test_a_dialect_is_a_feature_by_the_name_of_its_endpoint(start: Start) -> None:
    gateway = await start("1 per minute per feature")
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    asked = [await gateway.post("/anthropic/v1/messages", json=messages(), token=token) for _ in range(2)]

    assert [answer.status for answer in asked] == [200, 429]
    assert "feature anthropic/v1/messages" in asked[1].json()["error"]["message"]
    assert [record["feature"] for record in gateway.usage()] == ["anthropic/v1/messages"]


async def test_a_limit_may_be_for_a_named_prompt_alone(start: Start) -> None:
    gateway = await start({"limit": "1 per minute", "match": {"features": ["chat/react"]}})

    asked = {"messages": [{"role": "user", "content": "Hi"}]}

    steps = [await gateway.post("/v2/chat/agent", json=asked, token=token_of(gateway)) for _ in range(2)]

    assert [step.status for step in steps] == [200, 429]
    assert await statuses(gateway, 2) == [200, 200]


async def test_a_limit_per_model_counts_each_model_by_itself(start: Start) -> None:
    gateway = await start("1 per minute per user and model")

    seen = [(await relay(gateway, model=name)).status for name in (SONNET, SONNET, "claude-haiku-4-5-20251001")]

    assert seen == [200, 429, 200]


@pytest.mark.parametrize(
    "match",
    [
        {"unit_primitives": ["duo_chat"]},
        {"models": [SONNET]},
        {"providers": ["anthropic"]},
        {"realms": ["self-managed"]},
        {"instances": ["other", "acme"]},
        {"instances": ["acme"], "realms": ["self-managed"]},
    ],
)
async def test_a_limit_holds_for_the_calls_that_it_matches(start: Start, match: dict[str, Any]) -> None:
    gateway = await start({"limit": "1 per minute", "match": match})

    assert await statuses(gateway, 2) == [200, 429]


@pytest.mark.parametrize(
    "match",
    [
        {"unit_primitives": ["explain_code"]},
        {"models": ["claude-haiku-4-5-20251001"]},
        {"providers": ["openai"]},
        {"realms": ["saas"]},
        {"instances": ["other"]},
        {"features": ["summarize_text"]},
        {"instances": ["acme"], "realms": ["saas"]},
    ],
)
async def test_a_limit_lets_calls_pass_that_it_does_not_match(start: Start, match: dict[str, Any]) -> None:
    gateway = await start({"limit": "1 per minute", "match": match})

    assert await statuses(gateway, 3) == [200, 200, 200]


async def test_a_features_own_limit_is_enforced_by_its_name(start: Start) -> None:
    gateway = await start()
    folder = start.folder / "features"
    folder.mkdir()
    feature = {
        "unit_primitive": "summarize_text",
        "inputs": {"content": {"type": "string"}},
        "prompt": "summarize_text",
        "limit": "1 per minute per user",
    }
    (folder / "shorten.yml").write_text(json.dumps(feature))
    await gateway.running.reloader.reload()
    asked = {"prompt_components": [{"type": "shorten", "payload": {"content": "A text"}}]}

    answers = [await gateway.post("/v1/shorten", json=asked, token=token_of(gateway)) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].json()["refusal"]["missing"] == "feature/shorten: 1 per minute per user"
    assert [record["feature"] for record in gateway.usage()] == ["shorten"]
    assert await statuses(gateway, 2) == [200, 200]  # others are not touched


async def test_counts_that_a_full_table_gives_up_are_told(start: Start) -> None:
    gateway = await start({"limit": "1 per day per user"})
    table, now = gateway.running.parts.counts, int(gateway.running.parts.clock.monotonic() * 1e9)
    for number in range(2 * SLOTS):
        slot = table.find((2 * number + 1, 0), now)
        table.numbers[slot + UNTIL] = now + 86_400 * 10**9

    answered = await statuses(gateway, 1)

    text = (await gateway.monitoring("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("torana_limit_counts_lost_total ")]
    assert answered == [200]
    assert float(line.rpartition(" ")[2]) > SLOTS / 2


async def test_a_burst_lets_a_few_pass_at_once_and_then_one_by_one(start: Start) -> None:
    gateway = await start({"limit": "60 per minute per user", "burst": 2})

    first = await statuses(gateway, 3)
    start.clock.advance(1.0)
    second = await statuses(gateway, 2)
    start.clock.advance(10.0)

    assert (first, second) == ([200, 200, 429], [200, 429])
    assert await statuses(gateway, 3) == [200, 200, 429]  # no more than the burst, however long one waits


@pytest.mark.parametrize("burst", [0, 3])
@pytest.mark.parametrize("is_first", [False, True])
async def test_a_call_takes_from_all_its_limits_or_from_none(start: Start, burst: int, is_first: bool) -> None:
    others = {"name": "others", "limit": "3 per minute per instance", "burst": burst}
    own = "1 per minute per user and model"  # not known before the body is read
    limits: list[Any] = [others, own] if is_first else [own, others]
    gateway = await start(*limits)

    first = await statuses(gateway, 3)  # refused twice by the first limit

    assert first == [200, 429, 429]
    assert [(await ask(gateway, user=name)).status for name in ("a", "b", "c")] == [200, 200, 429]


async def test_requests_that_are_refused_for_another_reason_are_not_counted(start: Start) -> None:
    gateway = await start("1 per minute per user")
    headers = {"X-Gitlab-Global-User-Id": "mia"}

    invalid = await gateway.post(PATH, json={}, token=token_of(gateway), headers=headers)
    denied = await gateway.post(PATH, json=body(), token=gateway.token(unit_primitives=["x"]), headers=headers)

    assert (invalid.status, denied.status) == (422, 403)
    assert await statuses(gateway, 2) == [200, 429]


@pytest.mark.parametrize("path", ["ask", "relay"])
async def test_what_a_resting_provider_never_got_counts_nowhere(start: Start, path: str) -> None:
    gateway = await start("100 per day", "90k tokens per day", env={"AIGW_ROUTING__FAILURES_TO_REST": "2"})
    once = partial(ask if path == "ask" else relay, gateway)
    gateway.provider.server.stop_listening()
    seen = [(await once()).status for _ in range(5)]  # two are sent, in vain, and then it rests
    await gateway.provider.start()
    start.clock.advance(10)

    served = await once()

    assert (200 in seen, served.status) == (False, 200)
    assert (served.header("ratelimit") or "").startswith('"limit-0";r=97;')
    assert await figure(gateway, "torana_limit_held") == 0


async def test_a_reload_goes_on_with_what_was_counted(start: Start) -> None:
    gateway = await start("2 per minute per user")
    await statuses(gateway, 2)

    write_limits(start.folder, "3 per minute per user")
    await gateway.running.reloader.reload()

    assert await statuses(gateway, 2) == [200, 429]


async def test_names_of_any_kind_are_counted_apart(start: Start) -> None:
    gateway = await start("1 per minute per instance and user")

    # Joined without care, some of these would be one key.
    callers = [("a", "b:c"), ("a:b", "c"), ("a", "b\tc"), ("ab", "c"), ("a", "bc"), ("*", "{x}"), ("a", "x" * 7000)]

    for instance, user in callers:
        assert await statuses(gateway, 2, instance=instance, user=user) == [200, 429]


# --- What a refusal says ---


async def test_a_refusal_says_which_limit_whose_and_when(start: Start) -> None:
    gateway = await start({"name": "chat", "limit": "1 per minute per user"})
    await ask(gateway)
    start.clock.advance(17.5)

    answer = await ask(gateway)

    free = datetime.fromtimestamp(int(start.clock.now()) + 43, UTC)
    assert answer.status == 429
    told = answer.json()
    refusal = told.pop("refusal")
    assert told == {"detail": "Too many requests. Please try again later."}
    assert (refusal["code"], refusal["layer"], refusal["retryable"]) == ("limit_reached", "limit", True)
    assert refusal["missing"] == "chat: 1 per minute per user"
    assert "user mia of instance acme" in refusal["remedy"]
    assert f"{free:%Y-%m-%dT%H:%M}" in refusal["remedy"]
    assert answer.header("retry-after") == "43"
    assert answer.header("x-should-retry") is None


async def test_of_several_limits_the_one_that_takes_longest_is_named(start: Start) -> None:
    gateway = await start("1 per minute", "1 per hour", "5 per day")
    await ask(gateway)

    answer = await ask(gateway)

    assert answer.json()["refusal"]["missing"] == "limit-1: 1 per hour"
    assert answer.header("retry-after") == "3600"


@pytest.mark.parametrize("limit", ["1 per day", "1 per week per user", "1 per month"])
async def test_a_spent_quota_tells_clients_not_to_try_again(start: Start, limit: str) -> None:
    gateway = await start(limit)
    await ask(gateway)

    answer = await ask(gateway)

    assert answer.header("x-should-retry") == "false"
    assert answer.json()["refusal"]["retryable"] is False


@pytest.mark.parametrize(
    ("limit", "wait_s", "is_spent"), [("1440 per 24 hours", "60", False), ("24 per 24 hours", "3600", True)]
)
async def test_a_quota_that_comes_back_evenly_is_spent_only_where_the_next_call_is_far_away(
    start: Start, limit: str, wait_s: str, is_spent: bool
) -> None:
    gateway = await start({"limit": limit, "burst": 1})
    await ask(gateway)

    answer = await ask(gateway)

    assert answer.header("retry-after") == wait_s
    assert answer.header("x-should-retry") == ("false" if is_spent else None)
    assert answer.json()["refusal"]["retryable"] is not is_spent


async def test_a_daily_limit_is_free_again_at_midnight(start: Start) -> None:
    gateway = await start("1 per day")
    left_s = 86_400 - start.clock.now() % 86_400
    start.clock.advance(left_s / 2)
    await ask(gateway)

    refused = await ask(gateway)
    start.clock.advance(left_s / 2 + 1)

    assert abs(int(refused.header("retry-after") or 0) - left_s / 2) <= 1
    assert await statuses(gateway, 1) == [200]


async def test_an_answer_says_how_the_caller_stands_with_its_limits(start: Start) -> None:
    gateway = await start({"name": "a", "limit": "5 per minute"}, {"name": "b", "limit": "2 concurrent streams"})

    answer = await ask(gateway)

    assert answer.header("ratelimit-policy") == '"a";q=5;qu="requests";w=60, "b";q=2;qu="concurrent-requests"'
    assert answer.header("ratelimit") == '"a";r=4;t=60, "b";r=1'


async def test_without_limits_no_answer_speaks_of_them(start: Start) -> None:
    answer = await ask(await start())

    assert (answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")) == (200, None, None)


async def test_a_refused_proxy_request_never_leaves(start: Start) -> None:
    gateway = await start("1 per minute")

    first, second = await relay(gateway), await relay(gateway)

    assert (first.status, second.status) == (200, 429)
    assert first.header("ratelimit") == '"limit-0";r=0;t=60'
    assert second.json()["refusal"]["code"] == "limit_reached"
    assert len(gateway.provider.requests) == 1


# --- Tokens and money ---


async def test_tokens_are_reserved_before_sending(start: Start) -> None:
    gateway = await start("1000 output tokens per minute")
    gateway.provider.stall()
    under_way = asyncio.create_task(ask(gateway, params={"max_tokens_to_sample": 900}))
    await gateway.provider.request(1)

    second = await ask(gateway, params={"max_tokens_to_sample": 101})

    assert second.status == 429
    assert await figure(gateway, "torana_limit_held") == 900
    under_way.cancel()


PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 40_000}}
FILE = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 40_000}}


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (PICTURE, 1_600),
        (FILE, 8_571),
        ({"type": "tool_result", "tool_use_id": "1", "content": [PICTURE, FILE]}, 10_171),
    ],
)
async def test_a_picture_counts_as_vendors_count_it_and_a_file_by_its_size(
    start: Start, part: dict[str, Any], tokens: int
) -> None:
    gateway = await start("50000 input tokens per minute")
    token = {"Authorization": f"Bearer {gateway.token(unit_primitives=['ai_gateway_model_provider_proxy'])}"}
    asked = messages(messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}])

    answer = await gateway.post("/anthropic/v1/messages", json=asked, headers=token)

    left = int((answer.header("ratelimit") or "").removeprefix('"limit-0";r=').partition(";")[0])
    assert answer.status == 200
    assert 0 <= 50_000 - left - tokens < 10


async def test_what_was_reserved_and_not_used_is_free_again(start: Start) -> None:
    gateway = await start("1000 output tokens per minute")
    gateway.provider.answer_with(output_tokens=7)

    seen = [(await ask(gateway, params={"max_tokens_to_sample": 900})).status for _ in range(10)]

    assert seen == [200] * 10  # ten times seven tokens
    assert await figure(gateway, "torana_limit_held") == 0
    assert await figure(gateway, "torana_limit_used_total") == 70


async def test_what_an_answer_took_beyond_its_reserve_is_counted(start: Start) -> None:
    gateway = await start("1000 tokens per minute")
    gateway.provider.answer_with(input_tokens=600, output_tokens=500)

    first = await ask(gateway, params={"max_tokens_to_sample": 100})

    assert first.status == 200
    assert await statuses(gateway, 1, params={"max_tokens_to_sample": 1}) == [429]


async def test_a_failed_call_gives_its_tokens_back(start: Start) -> None:
    gateway = await start("1000 tokens per minute")
    gateway.provider.answer_with(status=500)
    failed = await ask(gateway, params={"max_tokens_to_sample": 900})
    gateway.provider.answer_with()

    assert failed.status == 502
    assert await statuses(gateway, 1, params={"max_tokens_to_sample": 900}) == [200]


async def test_a_caller_who_hangs_up_has_spent_what_was_read_and_written(start: Start) -> None:
    gateway = await start("10000 tokens per minute")
    gateway.provider.stall()
    under_way = asyncio.create_task(ask(gateway, text="x" * 3500, params={"max_tokens_to_sample": 900}))
    await gateway.provider.request(1)

    under_way.cancel()

    await eventually(lambda: is_figure(gateway, "torana_limit_held", 0))
    assert 1000 <= await figure(gateway, "torana_limit_used_total") < 1100  # the prompt, and no answer
    assert await figure(gateway, "torana_limit_held") == 0


@pytest.mark.parametrize("way", [ask, relay])
async def test_a_caller_who_hangs_up_before_anything_was_sent_has_spent_no_tokens(start: Start, way: Any) -> None:
    env = {"AIGW_ROUTING__CONNECTIONS": "1", "AIGW_ROUTING__QUEUE_S": "30"}
    gateway = await start("10000 tokens per minute", env=env)
    gateway.provider.stall(times=1)
    sent = asyncio.create_task(way(gateway))
    await gateway.provider.request(1)
    held = await figure(gateway, "torana_limit_held")
    waiting = asyncio.create_task(way(gateway))
    await eventually(lambda: is_figure(gateway, "torana_limit_held", 2 * held))

    waiting.cancel()

    await eventually(lambda: is_figure(gateway, "torana_limit_held", held))
    assert await figure(gateway, "torana_limit_used_total") == 0
    gateway.provider.release()
    assert (await sent).status == 200
    assert len(gateway.provider.requests) == 1


async def test_a_call_larger_than_the_whole_limit_passes_alone(start: Start) -> None:
    gateway = await start("100 output tokens per minute")

    asked = {"params": {"max_tokens_to_sample": 900}}

    assert await statuses(gateway, 2, **asked) == [200, 429]
    start.clock.advance(61)
    assert await statuses(gateway, 1, **asked) == [200]


async def test_money_is_counted_by_the_list_price(start: Start) -> None:
    gateway = await start("0.01 USD per day per instance")
    gateway.provider.answer_with(input_tokens=1000, output_tokens=400)  # 3 and 15 USD per million: 0.009 USD

    first = await ask(gateway, params={"max_tokens_to_sample": 400})
    second = await ask(gateway, params={"max_tokens_to_sample": 400})

    assert (first.status, second.status) == (200, 429)
    assert second.header("x-should-retry") == "false"
    told = "has 0.001 USD left for instance acme, and this call with its prompt and `max_tokens` may take more; free"
    assert told in second.refusal.remedy
    assert first.header("ratelimit-policy") == '"limit-0";q=10000;qu="micro-usd";w=86400'
    assert await figure(gateway, "torana_limit_used_total") == 0.009


async def test_a_model_without_a_price_passes_limits_on_money_and_is_counted(start: Start) -> None:
    gateway = await start("0.0001 USD per day", env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    server = {"provider": "litellm", "model": "mistral", "model_endpoint": f"{gateway.provider.url}/v1"}

    assert await statuses(gateway, 2, **server) == [200, 200]
    assert await figure(gateway, "torana_limit_unpriced_total") == 2


async def test_a_budget_that_is_overdrawn_stops_no_model_that_it_cannot_count(start: Start) -> None:
    gateway = await start("0.001 USD per day", env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    gateway.provider.answer_with(input_tokens=1000, output_tokens=400)
    server = {"provider": "litellm", "model": "mistral", "model_endpoint": f"{gateway.provider.url}/v1"}

    assert await statuses(gateway, 2, params={"max_tokens_to_sample": 1}) == [200, 429]
    assert await statuses(gateway, 1, **server) == [200]


async def test_tokens_that_are_overdrawn_stop_nobody_from_counting_them(start: Start) -> None:
    gateway = await start("500 tokens per minute")
    gateway.provider.answer_with(input_tokens=900, output_tokens=90)
    asked = {"token": gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])}
    asked["headers"] = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}

    used = [(await relay(gateway)).status for _ in range(2)]
    counted = await gateway.post(f"{PROXY}/count_tokens", json=messages(), **asked)
    listed = await gateway.get("/v1/proxy/openai/v1/models", **asked)

    assert used == [200, 429]
    assert (counted.status, listed.status) == (200, 200)


async def test_a_relayed_call_counts_what_the_provider_reports(start: Start) -> None:
    gateway = await start("500 tokens per minute")
    gateway.provider.answer_with(input_tokens=390, output_tokens=90)

    assert [(await relay(gateway)).status for _ in range(2)] == [200, 429]
    assert await figure(gateway, "torana_limit_used_total") == 480


@pytest.mark.parametrize(
    ("members", "reserved"),
    [
        ({"n": 8, "max_completion_tokens": 100}, 800),
        ({"n": 1, "max_tokens": 100}, 100),
        ({"n": 2}, 8192),
        ({"n": -3, "max_tokens": 100}, 100),
        ({"n": "many", "max_tokens": 100}, 100),
        ({}, 4096),
    ],
)
async def test_a_relayed_call_reserves_for_all_the_answers_that_it_asks_for(
    start: Start, members: dict[str, Any], reserved: int
) -> None:
    gateway = await start("10000 output tokens per minute")
    gateway.provider.stall()
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    headers = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
    asked = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}], **members}

    path = "/v1/proxy/openai/v1/chat/completions"
    under_way = asyncio.create_task(gateway.post(path, json=asked, token=token, headers=headers))
    await gateway.provider.request()

    assert await figure(gateway, "torana_limit_held") == reserved
    under_way.cancel()


async def test_vectors_reserve_no_tokens_of_an_answer(start: Start) -> None:
    gateway = await start("1000 tokens per minute")
    gateway.provider.stall(times=1)
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    headers = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
    asked = {"model": "text-embedding-3-small", "input": "Hello"}

    async def ask_for_vectors() -> Answer:
        return await gateway.post("/v1/proxy/openai/v1/embeddings", json=asked, token=token, headers=headers)

    under_way = asyncio.create_task(ask_for_vectors())
    await gateway.provider.request()

    assert (await ask_for_vectors()).status == 200
    gateway.provider.release()
    assert (await under_way).status == 200


@pytest.mark.parametrize("wanted", [10**30, 2**63, 10**9, -(10**6), "many", True, 1.5])
async def test_no_length_that_a_client_asks_for_upsets_the_counts(start: Start, wanted: Any) -> None:
    gateway = await start("1M tokens per hour")
    gateway.provider.answer_with(input_tokens=10, output_tokens=5)

    # What is larger than the whole limit passes alone, while nothing is taken.
    second = 429 if isinstance(wanted, int) and wanted > 10**6 else 200
    assert [(await relay(gateway, max_tokens=wanted)).status for _ in range(2)] == [200, second]
    assert await figure(gateway, "torana_limit_held") == 0


# --- Concurrent streams ---


async def test_so_many_answers_are_under_way_at_once_and_the_next_may_come_when_one_ends(start: Start) -> None:
    gateway = await start("2 concurrent streams per user")
    gateway.provider.stall(after_events=1)
    tasks = [asyncio.create_task(ask(gateway)) for _ in range(2)]
    await gateway.provider.request(2)

    third = await ask(gateway)
    other = asyncio.create_task(ask(gateway, user="lea"))
    await gateway.provider.request(3)
    gateway.provider.release()

    assert third.status == 429
    assert third.header("retry-after") == "1"
    assert [(await task).status for task in (*tasks, other)] == [200, 200, 200]
    assert await figure(gateway, "torana_limit_held") == 0
    gateway.provider.answer_with()
    assert await statuses(gateway, 3) == [200, 200, 200]


async def test_a_stream_whose_caller_is_gone_is_no_longer_one(start: Start) -> None:
    gateway = await start("1 concurrent stream per user")
    gateway.provider.stall(after_events=4)
    asked = body()
    asked["stream"] = True
    headers = {"X-Gitlab-Global-User-Id": "mia"}

    async with gateway.stream(PATH, json=asked, token=token_of(gateway), headers=headers) as answer:
        await answer.next_chunk()
        during = await statuses(gateway, 1)

    gateway.provider.answer_with()
    await eventually(lambda: is_figure(gateway, "torana_limit_held", 0))
    assert (during, await statuses(gateway, 1)) == ([429], [200])


# --- Early, and everywhere ---


async def test_who_has_used_up_a_limit_is_refused_before_the_body_is_read(start: Start) -> None:
    gateway = await start("1 per minute per user")
    await ask(gateway)

    assert await ask_unread(gateway, 1_000_000, **{"X-Gitlab-Global-User-Id": "mia"}) == 429
    assert await figure(gateway, "torana_limit_passed_total") == 1


async def ask_again(gateway: RunningGateway, count: int, token: str, path: str = PATH) -> list[Answer]:
    """Every time with the same head, as an instance that keeps asking."""
    return [await gateway.post(path, json=body(), token=token) for _ in range(count)]


async def test_an_instance_that_keeps_asking_is_told_so_at_the_door_in_the_same_words(start: Start) -> None:
    gateway = await start("2 per hour per instance")
    token = token_of(gateway)

    *passed, first, read, unread = await ask_again(gateway, 5, token)

    assert [answer.status for answer in (*passed, first, read, unread)] == [200, 200, 429, 429, 429]
    id_of = {answer: answer.header("x-request-id") or "" for answer in (read, unread)}
    assert unread.text.replace(id_of[unread], id_of[read]) == read.text
    names = [sorted(name.lower() for name, _ in answer.header_pairs) for answer in (read, unread)]
    assert names[0] == names[1]
    for name in ("content-type", "retry-after", "ratelimit", "ratelimit-policy", "content-length"):
        assert unread.header(name) == read.header(name)
    lines = [await gateway.log.find(correlation_id=id_of[answer]) for answer in (read, unread)]
    for member in ("status_code", "path", "method", "gitlab_instance_id", "refusal_code", "refusal_layer"):
        assert lines[1][member] == lines[0][member]
    assert await figure(gateway, "torana_limit_refused_total") == 3
    metrics = (await gateway.monitoring("/metrics")).text
    assert 'http_requests_total{handler="/v1/chat",method="POST",status="4xx"} 3' in metrics


@pytest.mark.parametrize(
    ("limit", "other"), [("1 per hour per instance", {"instance": "other"}), ("1 per hour per user", {"user": "lea"})]
)
async def test_nobody_else_is_turned_away_at_the_door(start: Start, limit: str, other: dict[str, str]) -> None:
    gateway = await start(limit)
    tokens = {name: token_of(gateway, name) for name in ("acme", "other")}

    async def ask_as(instance: str = "acme", user: str = "mia") -> int:
        headers = {"X-Gitlab-Global-User-Id": user}
        return (await gateway.post(PATH, json=body(), token=tokens[instance], headers=headers)).status

    assert [await ask_as() for _ in range(4)] == [200, 429, 429, 429]
    assert [await ask_as(**other) for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "wrong", [{"X-Gitlab-Authentication-Type": None}, {"X-Gitlab-Instance-Id": "another"}, {"X-Gitlab-Realm": "saas"}]
)
async def test_who_is_not_let_in_hears_so_at_the_door_of_a_used_up_limit_too(
    start: Start, wrong: dict[str, str | None]
) -> None:
    gateway = await start("1 per hour per instance")
    token = token_of(gateway)
    await ask_again(gateway, 4, token)

    refused = await gateway.post(PATH, json=body(), token=token, headers=wrong)

    assert refused.status == 401
    assert [answer.status for answer in await ask_again(gateway, 2, token)] == [429, 429]


async def test_a_place_that_comes_free_is_found_through_the_door(start: Start) -> None:
    gateway = await start({"limit": "60 per minute per instance", "burst": 2})
    token = token_of(gateway)
    await ask_again(gateway, 5, token)

    start.clock.advance(2.01)
    again = await ask_again(gateway, 4, token)

    assert [answer.status for answer in again] == [200, 200, 429, 429]


async def test_a_reload_that_raises_a_limit_opens_the_door(start: Start) -> None:
    gateway = await start("2 per hour per instance")
    token = token_of(gateway)
    await ask_again(gateway, 5, token)

    write_limits(start.folder, "3 per hour per instance")
    await gateway.running.reloader.reload()

    assert [answer.status for answer in await ask_again(gateway, 2, token)] == [200, 429]


async def test_of_many_that_come_at_once_as_many_pass_the_door_as_there_are_places(start: Start) -> None:
    gateway = await start({"limit": "60 per minute per instance", "burst": 3})
    token = token_of(gateway)
    await ask_again(gateway, 6, token)
    start.clock.advance(3.01)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await gateway.connect()) for _ in range(100)]
        request = gateway.request_bytes("POST", PATH, json=body(), token=token)
        for connection in connections:
            connection.writer.write(request)
        answers = [await connection.read_answer() for connection in connections]

    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 97


async def test_bodies_pass_by_their_bytes_up_to_the_limit_and_not_one_byte_more(start: Start) -> None:
    gateway = await start("10 KB per minute per instance")

    answers = [await ask_of(gateway, size) for size in (6_000, 4_001, 4_000, 500)]

    assert [answer.status for answer in answers] == [200, 429, 200, 429]
    assert len(gateway.provider.requests) == 2
    assert answers[0].header("ratelimit-policy") == '"limit-0";q=10000;qu="content-bytes";w=60'
    assert (answers[0].header("ratelimit") or "").startswith('"limit-0";r=4000;')
    told = [answer.json()["refusal"]["remedy"] for answer in (answers[1], answers[3])]
    assert "has 4000 left for instance acme, and the body of this call is longer" in told[0]
    assert "is used up for instance acme" in told[1]
    start.clock.advance(60.1)
    assert (await ask_of(gateway, 10_000)).status == 200


async def test_a_body_that_is_longer_than_what_is_left_is_refused_unread(start: Start) -> None:
    gateway = await start("10 KB per minute per instance")
    passed = [(await ask_of(gateway, size)).status for size in (6_000, 6_000)]

    assert (passed, await ask_unread(gateway, 5_000)) == ([200, 429], 429)
    assert (await ask_of(gateway, 4_000)).status == 200  # a shorter one finds room


async def test_bytes_of_a_body_without_a_length_are_counted_when_they_have_come(start: Start) -> None:
    gateway = await start("10 KB per minute per instance")
    text = json.dumps(body("a" * 6_000)).encode()
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}

    async def ask_in_chunks() -> int:
        async with await gateway.connect() as connection:
            await connection.send(gateway.request_bytes("POST", PATH, token=token_of(gateway), headers=headers))
            await connection.send(chunked)
            return (await connection.read_answer()).status

    assert [await ask_in_chunks() for _ in range(2)] == [200, 429]


async def test_a_body_that_was_not_sent_on_counts_no_bytes(start: Start) -> None:
    gateway = await start("10 KB per minute per instance", "1 per minute per user")

    users = ("mia", "mia", "lea", "ann")
    answers = [await ask_of(gateway, 4_000, **{"X-Gitlab-Global-User-Id": user}) for user in users]

    assert [answer.status for answer in answers] == [200, 429, 200, 429]
    assert ["limit-1" in answers[1].text, "limit-0" in answers[3].text] == [True, True]


async def test_minting_is_not_a_request_that_limits_count(start: Start) -> None:
    gateway = await start("1 per minute")
    await ask(gateway)

    token = gateway.token(unit_primitives=["complete_code"])
    answer = await gateway.post("/v1/code/user_access_token", token=token)

    assert answer.status == 200


async def test_documentation_search_is_limited_though_no_model_is_asked(start: Start) -> None:
    gateway = await start("1 per minute per user", env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    asked = {
        "type": "search",
        "metadata": {"source": "GitLab EE", "version": "18.6.1"},
        "payload": {"query": "runner", "page_size": 4},
    }
    token = gateway.token(unit_primitives=["documentation_search"])

    first, second = [await gateway.post("/v1/search/gitlab-docs", json=asked, token=token) for _ in range(2)]

    assert (first.status, second.status) == (200, 429)
    assert first.header("ratelimit") == '"limit-0";r=0;t=60'


@pytest.mark.parametrize(
    ("path", "asked", "scope"),
    [
        ("/v2/code/completions", {"current_file": {"file_name": "a.py", "content_above_cursor": "x"}}, "complete_code"),
        ("/v1/prompts/chat/explain_code", {"inputs": {}}, "explain_code"),
        ("/v1/embeddings/code_embeddings", {}, "generate_embeddings_codebase"),
        ("/v1/summarize_text", {}, "summarize_text"),
        ("/openai/v1/chat/completions", {}, "ai_gateway_model_provider_proxy"),
    ],
)
async def test_every_route_of_a_model_turns_away_who_has_used_up_a_limit(
    start: Start, path: str, asked: dict[str, Any], scope: str
) -> None:
    gateway = await start("1 per minute per instance")
    headers = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
    await relay(gateway)

    answer = await gateway.post(path, json=asked, token=gateway.token(unit_primitives=[scope]), headers=headers)

    assert answer.status == 429
    assert answer.json()["refusal"]["code"] == "limit_reached"


async def test_a_relayed_model_is_matched_by_its_name_in_the_catalogue_and_costs_what_it_says(start: Start) -> None:
    gateway = await start({"limit": "0.01 USD per day", "match": {"models": ["claude_sonnet_4_6"]}})
    gateway.provider.answer_with(input_tokens=1000, output_tokens=400)

    assert [(await relay(gateway, max_tokens=400)).status for _ in range(2)] == [200, 429]
    assert await figure(gateway, "torana_limit_used_total") == pytest.approx(0.009)
