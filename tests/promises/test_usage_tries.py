"""What several sendings of one call leave in its one record, and where records may be."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_usage import STREAMED, WHOLE, messages
from tests.promises.test_usage_delivery import counts, figure
from tests.support.fleet import CODE, Fleet, running_fleet
from tests.support.gateway import RunningGateway
from tests.support.issuer import INSTANCE_ID
from tests.support.limits import write_limits
from tests.support.usage_sink import UsageSink
from tests.support.waiting import eventually

from torana.usage.adoption import adopt
from torana.usage.disk import Disk
from torana.usage.folder import Position, make_folder
from torana.usage.running import read_table

StartFleet = Callable[..., Awaitable[Fleet]]

PRICES = {"as_of": "2026-05-01", "source": "test", "input": "3.00", "output": "15.00"}
TWO = ({"provider": "a", "prices": PRICES}, {"provider": "b", "order": 1, "region": "eu-west", "prices": PRICES})
EMBEDDINGS = "/v1/embeddings/code_embeddings"
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


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_try_that_its_provider_may_charge_is_listed_and_the_customer_pays_once(
    start_fleet: StartFleet, is_silent: bool
) -> None:
    fleet = await start_fleet(*TWO, env={"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.1"} if is_silent else None)
    if is_silent:
        fleet["a"].stall()
    else:
        fleet["a"].cut_after(0)

    assert (await fleet.ask(CODE)).status == 200

    (record,) = fleet.gateway.usage()
    first, second = record["tries"]
    assert (first["outcome"], first["is_charged"]) == ("failed", True)
    assert "input_tokens" not in first  # nobody but the provider knows
    assert Decimal(record["cost_usd"]) == Decimal(second["cost_usd"]) == Decimal("0.00018")
    assert record["price_as_of"] == "2026-05-01"


async def test_the_tries_of_a_call_whose_worker_dies_are_listed(start_fleet: StartFleet, tmp_path: Path) -> None:
    fleet = await start_fleet(*TWO)
    fleet["a"].cut_after(0)
    fleet["b"].answer_with(hold_after=4)
    asking = asyncio.create_task(fleet.ask(CODE, stream=True))
    await fleet["b"].request()
    own = fleet.gateway.running.parts.ledger.spool.own
    assert own is not None

    async def has_moved() -> bool:
        left, _ = await asyncio.to_thread(lambda: read_table(os.open(own.path / "running", os.O_RDONLY)))
        return b'"provider":"b"' in left[0].admitted

    await eventually(has_moved)
    dead = make_folder(Disk(), tmp_path / "dead", "dead")
    shutil.copy(own.path / "running", dead.path)  # as it lies there when it is killed now
    fleet["b"].release()
    await asking

    adopt(Disk(), dead)

    record = json.loads(dead.read(Position(), 9).payloads[0])
    assert (record["status"], record["provider"]) == ("interrupted", "b")
    assert [(each["outcome"], each["deployment"][0], each["is_charged"]) for each in record["tries"]] == [
        ("failed", "a", True),
        ("answered", "b", True),
    ]
    assert record["tries"][1]["cost_usd"] == record["cost_usd"]


@pytest.mark.parametrize("path", [CODE, EMBEDDINGS])
async def test_limits_and_records_have_the_price_of_the_deployment_that_answered(
    start_fleet: StartFleet, tmp_path: Path, path: str
) -> None:
    dear = {**TWO[1], "prices": PRICES | {"input": "300.00", "output": "1500.00"}}
    write_limits(tmp_path / "fleet", "5 USD per day")
    fleet = await start_fleet(TWO[0], dear, model=", capabilities: [chat, embeddings], dimensions: 4")
    fleet["a"].fail_with(500)
    vectors = {"model_metadata": {"provider": "gitlab", "identifier": "fleet"}, "contents": ["x = 1"]}
    token = fleet.gateway.token(unit_primitives=["complete_code", "generate_embeddings_codebase"])

    answer = await fleet.gateway.post(path, json=fleet.body(path) if path == CODE else vectors, token=token)

    assert answer.status == 200
    (record,) = fleet.gateway.usage()
    assert float(record["cost_usd"]) > 0.001  # at the first one's it would be far less
    assert await figure(fleet.gateway, "torana_limit_used_total") == pytest.approx(float(record["cost_usd"]))


async def test_a_price_that_nobody_knows_is_unknown_and_not_nought(start_fleet: StartFleet) -> None:
    fleet = await start_fleet({"provider": "a"})

    await fleet.ask()

    (record,) = fleet.gateway.usage()
    assert (record["cost_usd"], record["price_as_of"]) == (None, "")


async def test_the_figure_that_a_price_list_lacks_is_named_once(start_fleet: StartFleet) -> None:
    fleet = await start_fleet(TWO[0])
    usage = {"prompt_tokens": 20, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 15}}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    fleet["a"].answer_with(
        body={"id": "x", "object": "chat.completion", "model": "a-1", "choices": [choice], "usage": usage}
    )

    for _ in range(2):
        await fleet.ask()

    assert {record["cost_usd"] for record in fleet.gateway.usage()} == {None}
    (line,) = (each for each in fleet.gateway.log.lines if each["message"] == "what a call costs is unknown")
    assert line["deployment"] == "a/a-1"
    assert line["reason"] == "the price list of 2026-05-01 has no `cache_read` price"


async def test_records_of_a_fenced_instance_stay_in_its_regions(start_fleet: StartFleet) -> None:
    quick = {"linger_s": 0.0, "retry_s": 0.01, "retry_max_s": 0.05}
    async with UsageSink() as here, UsageSink() as abroad, UsageSink() as nowhere:
        sinks = [
            {"name": name, "type": "http", "url": sink.url, **quick, **regions}
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
        nowhere.server.stop_listening()

        await fleet.ask(token=other)
        await fleet.ask()
        tried = await figure(fleet.gateway, 'usage_retries_total{sink="nowhere"}')
        await counts(fleet.gateway, 'usage_retries_total{sink="nowhere"}', tried + 3)
        await nowhere.server.start()

        assert {record["instance"] for record in await here.has(2)} == {INSTANCE_ID, "another-instance"}
        for sink in (abroad, nowhere):
            assert {record["instance"] for record in await sink.has(1)} == {"another-instance"}
        assert await figure(fleet.gateway, "usage_withheld_total") == 2


@pytest.mark.parametrize("way", [WHOLE[4], STREAMED[5]])
async def test_the_books_of_the_access_line_and_of_the_record_agree(gateway: RunningGateway, way: Any) -> None:
    gateway.provider.answer_with(text="fine", input_tokens=77, output_tokens=5)

    answer = await gateway.post(**way.ask(gateway))

    (record,) = gateway.usage()
    line = await gateway.log.find(path=way.path)
    assert line["correlation_id"] == record["request_id"] == answer.header("x-request-id")
    assert (line["input_tokens"], line["output_tokens"]) == (record["input_tokens"], record["output_tokens"])
    assert messages(False)["model"] == record["upstream_model"]
