"""The product's own events (contract 15): off by default, told where wanted, and never in anybody's way."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_usage import STREAMED, WHOLE
from tests.promises.test_usage_delivery import counts, figure
from tests.support.gateway import USER_ID, RunningGateway
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.issuer import INSTANCE_ID
from tests.support.waiting import WAIT_S

CODE = WHOLE[0]


class Collector:
    """Takes what Snowplow trackers send."""

    def __init__(self) -> None:
        self.server = LoopbackServer(self._handle)
        self.events: list[dict[str, Any]] = []
        self.is_mute = False
        self._arrived = asyncio.Condition()

    async def has(self, events: int) -> dict[str, dict[str, Any]]:
        """Name → the standard context, once so many events are here."""
        async with asyncio.timeout(WAIT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.events) >= events)
        return {event["se_ac"]: context_of(event) for event in self.events}

    async def _handle(self, request: Request, answer: Answering) -> None:
        assert request.path == "/com.snowplowanalytics.snowplow/tp2"
        if self.is_mute:
            await asyncio.Event().wait()
        async with self._arrived:
            self.events += request.json()["data"]
            self._arrived.notify_all()
        await answer.whole(200, b"ok", [])


def context_of(event: dict[str, Any]) -> dict[str, Any]:
    (context,) = json.loads(event["co"])["data"]
    assert context["schema"].startswith("iglu:com.gitlab/gitlab_standard/")
    found: dict[str, Any] = context["data"]
    return found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    async with collector.server:
        yield collector


def telling(collector: Collector) -> dict[str, str]:
    return {"AIGW_INTERNAL_EVENT__ENABLED": "true", "AIGW_INTERNAL_EVENT__ENDPOINT": collector.server.url}


async def ask(gateway: RunningGateway, **headers: str) -> Any:
    asked = CODE.ask(gateway)
    return await gateway.post(**asked | {"headers": headers})


async def test_a_request_and_its_tokens_are_told_with_what_its_headers_say(
    start_gateway: StartGateway, collector: Collector
) -> None:
    gateway = await start_gateway(env=telling(collector))

    answer = await ask(
        gateway,
        **{
            "X-Gitlab-Project-Id": "17",
            "X-Gitlab-Namespace-Id": "null",
            "X-Gitlab-Feature-Enabled-By-Namespace-Ids": "3,4",
            "X-Gitlab-Client-Name": "vscode",
        },
    )

    told = await collector.has(2)
    assert told.keys() == {"request_complete_code", "token_usage_complete_code"}
    context = told["request_complete_code"]
    assert context["correlation_id"] == answer.header("x-request-id")
    assert (context["instance_id"], context["realm"], context["global_user_id"]) == (
        INSTANCE_ID,
        "self-managed",
        USER_ID,
    )
    assert (context["project_id"], context["namespace_id"], context["client_name"]) == (17, None, "vscode")
    assert context["feature_enabled_by_namespace_ids"] == [3, 4]
    assert context["is_gitlab_team_member"] is False
    assert told["token_usage_complete_code"]["extra"]["total_tokens"] == 32
    assert {event["se_ca"] for event in collector.events} == {CODE.path}
    line = await gateway.log.find(path=CODE.path)
    assert line["tracked_internal_events"] == ["request_complete_code", "token_usage_complete_code"]


@pytest.mark.parametrize(
    ("listed", "legacy", "ids"),
    [
        (" 3 ,4", "5", [3, 4]),
        ("3,x", "5,6", [5, 6]),
        ("3,", "5", [5]),
        ("", "5", [5]),
        (None, "5", [5]),
        (None, "5,x", None),
        ("x", None, None),
    ],
)
async def test_the_older_list_of_namespaces_counts_where_the_newer_is_absent_or_unreadable(
    start_gateway: StartGateway, collector: Collector, listed: str | None, legacy: str | None, ids: list[int] | None
) -> None:
    gateway = await start_gateway(env=telling(collector))
    sent = {"X-Gitlab-Feature-Enabled-By-Namespace-Ids": listed, "X-Gitlab-Saas-Duo-Pro-Namespace-Ids": legacy}

    await ask(gateway, **{name: value for name, value in sent.items() if value is not None})

    assert (await collector.has(2))["request_complete_code"]["feature_enabled_by_namespace_ids"] == ids


async def test_each_right_that_a_chat_was_permitted_is_told(start_gateway: StartGateway, collector: Collector) -> None:
    gateway = await start_gateway(env=telling(collector))
    attached = [{"category": "file", "id": "1", "content": "x", "metadata": {}}]
    rights = ["duo_chat", "include_file_context"]

    await gateway.post(
        "/v2/chat/agent",
        json={"messages": [{"role": "user", "content": "Hi", "additional_context": attached}]},
        token=gateway.token(unit_primitives=rights),
    )

    told = await collector.has(3)
    assert told.keys() == {*(f"request_{name}" for name in rights), "token_usage_duo_chat"}
    line = await gateway.log.find(path="/v2/chat/agent")
    assert line["meta.unit_primitive"] == "duo_chat"


@pytest.mark.parametrize(
    ("sent", "context"),
    [
        ('{"step": 2}', {"step": 2}),
        ('{"step": "é"}'.encode().decode("latin-1"), {"step": "é"}),
        ("{", None),
        ("[1]", None),
        ("[" * 2000, None),
        ("", None),
    ],
)
async def test_what_instances_send_for_events_only_is_told(
    start_gateway: StartGateway, collector: Collector, sent: str, context: Any
) -> None:
    gateway = await start_gateway(env=telling(collector))

    await ask(gateway, **{"X-Gitlab-Subject-Type": "user", "X-Gitlab-Tracking-Context": sent})

    extra = (await collector.has(2))["request_complete_code"]["extra"]
    assert (extra["subject_type"], extra.get("tracking_context")) == ("user", context)


async def test_nothing_is_told_unless_it_is_wanted(start_gateway: StartGateway, collector: Collector) -> None:
    env = telling(collector)
    silent = await start_gateway(env=env | {"AIGW_INTERNAL_EVENT__ENABLED": ""})
    lost = await start_gateway(env=env | {"AIGW_INTERNAL_EVENT__ENDPOINT": ""})
    telling_one = await start_gateway(env=env)

    assert [(await ask(gateway)).status for gateway in (silent, lost, telling_one)] == [200] * 3

    assert len((await collector.has(2)).keys()) == len(collector.events) == 2


async def test_what_is_refused_is_not_told(start_gateway: StartGateway, collector: Collector) -> None:
    gateway = await start_gateway(env=telling(collector))
    token = gateway.token(unit_primitives=["duo_chat"])

    refused = await gateway.post(CODE.path, json=CODE.body, token=token)
    await ask(gateway)

    assert refused.status == 403
    assert len((await collector.has(2)).keys()) == len(collector.events) == 2


@pytest.mark.parametrize("fault", ["down", "mute"])
async def test_a_collector_in_trouble_is_in_nobodys_way(
    start_gateway: StartGateway, collector: Collector, fault: str
) -> None:
    if fault == "down":
        collector.server.stop_listening()
    collector.is_mute = fault == "mute"
    gateway = await start_gateway(env=telling(collector))

    answers = [await gateway.post(**way.ask(gateway)) for way in (CODE, STREAMED[0])]

    assert [answer.status for answer in answers] == [200, 200]
    if fault == "down":
        await counts(gateway, 'internal_events_total{outcome="dropped"}', 4)


async def test_of_long_headers_no_more_waits_than_there_is_room_for(
    start_gateway: StartGateway, collector: Collector
) -> None:
    collector.is_mute = True
    gateway = await start_gateway(env=telling(collector) | {"AIGW_MAX_HEADER_BYTES": "4000000"})

    asked = CODE.ask(gateway)
    asked["headers"]["X-Gitlab-Interface"] = "x" * 3_000_000

    answers = [await gateway.post(**asked) for _ in range(6)]

    assert [answer.status for answer in answers] == [200] * 6
    assert await figure(gateway, 'internal_events_total{outcome="dropped"}') >= 2


async def test_a_fenced_instance_is_not_told_of(
    start_gateway: StartGateway, collector: Collector, tmp_path: Path
) -> None:
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "models.yml").write_text(
        f"residency:\n- {{name: fenced, instance: {INSTANCE_ID}, regions: [eu]}}\n"
    )
    env = telling(collector) | {"AIGW_CATALOG": str(tmp_path / "overlay"), "AIGW_MOCK_MODEL_RESPONSES": "true"}
    gateway = await start_gateway(env=env)
    other = gateway.token(unit_primitives=["complete_code"], sub="other", gitlab_instance_id="other")

    fenced = await ask(gateway)
    await gateway.post(CODE.path, json=CODE.body, token=other)

    assert fenced.status == 200
    told = await collector.has(2)
    assert {context["instance_id"] for context in told.values()} == {"other"}
    assert len(collector.events) == 2
