"""What several sendings of one call leave in its one record, where records may be, and numbers nobody believes."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_usage import PROXY, PROXY_HEADERS, STREAMED, WHOLE, chat_completions, messages
from tests.promises.test_usage_delivery import figure
from tests.support.fleet import CODE, Fleet, running_fleet
from tests.support.gateway import RunningGateway
from tests.support.issuer import INSTANCE_ID
from tests.support.usage_sink import UsageSink

StartFleet = Callable[..., Awaitable[Fleet]]

PRICES = {"as_of": "2026-05-01", "source": "test", "input": "3.00", "output": "15.00"}
TWO = ({"provider": "a", "prices": PRICES}, {"provider": "b", "order": 1, "region": "eu-west", "prices": PRICES})
EU = f"residency:\n- {{name: eu-only, instance: {INSTANCE_ID}, regions: [eu-*]}}\n"


@pytest.fixture
async def start_fleet(start_gateway: StartGateway, tmp_path: Path) -> AsyncIterator[StartFleet]:
    async with AsyncExitStack() as stack:

        async def start(*deployments: dict[str, Any], **told: Any) -> Fleet:
            opened: AbstractAsyncContextManager[Fleet] = running_fleet(
                start_gateway, tmp_path / "fleet", deployments, **told
            )
            return await stack.enter_async_context(opened)

        yield start


async def test_a_fallback_is_told_in_the_one_record_of_the_deployment_that_answered(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].fail_with(500)

    assert (await fleet.ask()).json() == "This is b."

    (record,) = fleet.gateway.usage()
    assert (record["status"], record["provider"], record["region"]) == ("completed", "b", "eu-west")
    assert [(each["outcome"], each["status"], each.get("is_charged", False)) for each in record["tries"]] == [
        ("failed", 500, False),
        ("answered", 200, True),
    ]
    assert record["tries"][1]["input_tokens"] == record["input_tokens"]


async def test_a_try_that_its_provider_may_charge_is_listed_and_the_customer_pays_once(
    start_fleet: StartFleet,
) -> None:
    fleet = await start_fleet(*TWO, env={"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.1"})
    fleet["a"].stall()

    assert (await fleet.ask(CODE)).status == 200

    (record,) = fleet.gateway.usage()
    first, second = record["tries"]
    assert (first["outcome"], first["is_charged"]) == ("failed", True)
    assert "input_tokens" not in first  # nobody but the provider knows
    assert Decimal(record["cost_usd"]) == Decimal(second["cost_usd"]) == Decimal("0.00018")
    assert record["price_as_of"] == "2026-05-01"


async def test_a_price_that_nobody_knows_is_unknown_and_not_nought(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"})

    await fleet.ask()

    (record,) = fleet.gateway.usage()
    assert (record["cost_usd"], record["price_as_of"]) == (None, "")


async def test_records_of_a_fenced_instance_stay_in_its_regions(start_fleet: StartFleet) -> None:
    async with UsageSink() as here, UsageSink() as abroad, UsageSink() as nowhere:
        sinks = [
            {"name": name, "type": "http", "url": sink.url, "linger_s": 0.0, **regions}
            for name, sink, regions in (
                ("here", here, {"regions": ["eu-central"]}),
                ("abroad", abroad, {"regions": ["eu-central", "us-east1"]}),
                ("nowhere", nowhere, {}),
            )
        ]
        fleet = await start_fleet(*TWO, more=EU)
        (fleet.folder / "sinks.yml").write_text(json.dumps(sinks))
        await fleet.gateway.running.reloader.reload()
        other = fleet.token(sub="another-instance", gitlab_instance_id="another-instance")

        await fleet.ask()
        await fleet.ask(token=other)

        assert {record["instance"] for record in await here.has(2)} == {INSTANCE_ID, "another-instance"}
        for sink in (abroad, nowhere):
            assert {record["instance"] for record in await sink.has(1)} == {"another-instance"}
        assert await figure(fleet.gateway, "usage_withheld_total") == 2


ABSURD = [
    {"prompt_tokens": -5, "completion_tokens": 7, "total_tokens": 2},
    {"prompt_tokens": 10**30, "completion_tokens": 7, "total_tokens": 10**30},
    {"prompt_tokens": 5_000_000_000, "completion_tokens": 7, "total_tokens": 5_000_000_007},
]


@pytest.mark.parametrize("usage", ABSURD)
@pytest.mark.parametrize("is_relayed", [True, False])
async def test_numbers_that_cannot_be_are_replaced_by_our_own_and_marked(
    gateway: RunningGateway, usage: dict[str, Any], is_relayed: bool
) -> None:
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine " * 40}, "finish_reason": "stop"}],
        "usage": usage,
    }
    gateway.provider.answer_with(body=body)
    path = "/v1/proxy/openai/v1/chat/completions" if is_relayed else "/openai/v1/chat/completions"
    asked = chat_completions(False) | ({} if is_relayed else {"model": "gpt_5_mini"})
    del asked["stream_options"]
    token = gateway.token(unit_primitives=[PROXY])

    answer = await gateway.post(path, json=asked, token=token, headers=dict(PROXY_HEADERS))

    assert answer.status == 200
    (record,) = gateway.usage()
    assert record["source"] == "suspect"
    assert 0 < record["input_tokens"] < 1000
    assert 0 < record["output_tokens"] < 1000


async def test_a_stream_without_usage_is_counted_and_says_so(gateway: RunningGateway) -> None:
    asked = chat_completions(True)
    del asked["stream_options"]
    token = gateway.token(unit_primitives=[PROXY])

    await gateway.post("/v1/proxy/openai/v1/chat/completions", json=asked, token=token, headers=dict(PROXY_HEADERS))

    (record,) = gateway.usage()
    assert (record["status"], record["source"]) == ("completed", "counted")
    assert record["input_tokens"] > 0
    assert record["output_tokens"] > 0


@pytest.mark.parametrize("way", [WHOLE[4], STREAMED[5]])
async def test_the_books_of_the_access_line_and_of_the_record_agree(gateway: RunningGateway, way: Any) -> None:
    gateway.provider.answer_with(text="fine", input_tokens=77, output_tokens=5)

    answer = await gateway.post(**way.ask(gateway))

    (record,) = gateway.usage()
    line = await gateway.log.find(path=way.path)
    assert line["correlation_id"] == record["request_id"] == answer.header("x-request-id")
    assert (line["input_tokens"], line["output_tokens"]) == (record["input_tokens"], record["output_tokens"])
    assert messages(False)["model"] == record["upstream_model"]
