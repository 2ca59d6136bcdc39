"""Usage records reach their receivers at least once and by the same id, whatever those do (US1-US3, US9, US10)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.conftest import StartGateway
from tests.promises.test_usage import PROXY, PROXY_HEADERS, messages
from tests.support.clock import HandClock
from tests.support.disks import grow, small_file_system
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.served import environment
from tests.support.usage import HeldDisk, is_killed
from tests.support.usage_sink import UsageSink, write_sinks
from tests.support.waiting import WAIT_S, eventually

from torana.cli import main
from torana.usage.disk import Disk
from torana.usage.folder import RESENT
from torana.usage.parking import Parking
from torana.usage.resending import resend


@pytest.fixture
async def sink() -> AsyncIterator[UsageSink]:
    async with UsageSink() as sink:
        yield sink


def sending_to(folder: Path, sink: UsageSink, **members: Any) -> dict[str, str]:
    """The environment of a gateway that sends to this receiver."""
    overlay = write_sinks(folder / "overlay", {"name": "billing", "type": "http", "url": sink.url, **members})
    return {"AIGW_CATALOG": str(overlay)}


async def call(gateway: RunningGateway, times: int = 1, **claims: Any) -> list[str]:
    """So many calls; the request ids, in order."""
    token = gateway.token(unit_primitives=[PROXY], **claims)
    found = []
    for _ in range(times):
        answer = await gateway.post(
            "/v1/proxy/anthropic/v1/messages", json=messages(False), token=token, headers=dict(PROXY_HEADERS)
        )
        assert answer.status == 200
        found.append(str(answer.header("x-request-id")))
    return found


async def test_a_receiver_is_shown_the_token_that_sinks_yml_names(start_gateway: StartGateway, tmp_path: Path) -> None:
    async with UsageSink() as sink:
        env = sending_to(tmp_path, sink, token_env="AIGW_SINK__TOKEN")
        gateway = await start_gateway(env=env | {"AIGW_SINK__TOKEN": "the-receivers-own"})

        await call(gateway)
        await sink.has(1)

    assert [request.header("authorization") for request in sink.requests] == ["Bearer the-receivers-own"]
    assert "the-receivers-own" not in str(gateway.log.lines)


async def figure(gateway: RunningGateway, name: str) -> float:
    text = (await gateway.monitoring("/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def fails_again(gateway: RunningGateway) -> None:
    """Returns once all that waits has been sent in vain."""
    name = 'usage_retries_total{sink="billing"}'
    await counts(gateway, name, await figure(gateway, name) + 2)


async def counts(gateway: RunningGateway, name: str, least: float) -> None:
    """Returns once a figure is as high."""

    async def is_there() -> bool:
        return await figure(gateway, name) >= least

    await eventually(is_there)


def parked(gateway: RunningGateway) -> list[dict[str, Any]]:
    file = gateway.running.parts.ledger.spool.path / "_parked" / "billing.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_a_record_is_delivered_once_and_told_as_a_cloud_event(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    gateway = await start_gateway(env=sending_to(tmp_path, sink))

    asked = await call(gateway, times=3)

    records = await sink.has(3)
    assert [record["request_id"] for record in records] == asked
    assert set(sink.ids.values()) == {1}
    (event, *_) = json.loads(sink.requests[0].body)
    assert (event["specversion"], event["type"]) == ("1.0", "torana.usage.call.v1")
    assert sink.requests[0].header("content-type") == "application/cloudevents-batch+json"


async def test_calls_go_on_while_a_receiver_is_down_and_it_gets_all_of_them_later(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    sink.server.stop_listening()
    gateway = await start_gateway(env=sending_to(tmp_path, sink, batch=7))
    asked = await call(gateway, times=20)
    await counts(gateway, 'usage_retries_total{sink="billing"}', 12)  # pauses grow no longer than is said

    await sink.server.start()

    assert sorted(record["request_id"] for record in await sink.has(20)) == sorted(asked)
    assert max(len(json.loads(request.body)) for request in sink.requests) <= 7
    assert set(sink.ids.values()) == {1}  # nothing was ever sent that might have arrived


async def test_how_long_records_wait_is_told_also_where_the_sink_cannot_even_be_asked(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "rollup").mkdir()  # no file can be opened there
    overlay = write_sinks(tmp_path / "overlay", {"name": "rollup", "type": "rollup", "path": str(tmp_path / "rollup")})
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    await call(gateway)
    await counts(gateway, 'usage_oldest_undelivered_seconds{sink="rollup"}', 0.1)
    (tmp_path / "rollup").rmdir()

    await counts(gateway, "usage_delivered_total", 1)

    async def nothing_waits() -> bool:
        return await figure(gateway, "usage_oldest_undelivered_seconds") == 0

    await eventually(nothing_waits)


async def test_nothing_waits_for_a_sink_that_a_reload_took_away(
    start_gateway: StartGateway, sink: UsageSink, clock: HandClock, tmp_path: Path
) -> None:
    gateway = await start_gateway(env=sending_to(tmp_path, sink), clock=clock)
    sink.server.stop_listening()
    await call(gateway)
    clock.advance(100)
    await counts(gateway, 'usage_oldest_undelivered_seconds{sink="billing"}', 100)
    assert await figure(gateway, 'usage_oldest_undelivered_seconds{sink="billing"}') < 200

    write_sinks(tmp_path / "overlay", {"name": "file", "type": "file", "path": str(tmp_path / "usage.jsonl")})
    await gateway.running.reloader.reload()
    await counts(gateway, 'usage_delivered_total{sink="file"}', 1)

    assert await figure(gateway, 'usage_oldest_undelivered_seconds{sink="billing"}') == 0


@pytest.mark.parametrize("status", [500, 503, 429, 401, 404])
async def test_a_receiver_that_fails_gets_the_same_records_again(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path, status: int
) -> None:
    sink.verdict = lambda records: status if len(sink.requests) < 3 else 204
    gateway = await start_gateway(env=sending_to(tmp_path, sink))

    asked = await call(gateway, times=2)

    assert [record["request_id"] for record in await sink.has(2)] == asked
    assert parked(gateway) == []


def refuse_poison(records: list[dict[str, Any]]) -> int:
    return 400 if any(record["instance"] == "poison" for record in records) else 204


async def test_a_bad_record_is_parked_with_an_alarm_and_the_rest_flows(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    sink.verdict = refuse_poison
    sink.server.stop_listening()  # so that all of them come in one batch
    gateway = await start_gateway(env=sending_to(tmp_path, sink))
    before = await call(gateway, times=5)
    (bad,) = await call(gateway, sub="poison", gitlab_instance_id="poison")
    after = await call(gateway, times=5)

    await sink.server.start()

    assert sorted(record["request_id"] for record in await sink.has(10)) == sorted(before + after)
    await counts(gateway, 'usage_parked_total{sink="billing"}', 1)
    (line,) = parked(gateway)
    assert (line["event"]["request_id"], line["why"]) == (bad, "refused: status 400: ")
    assert (await gateway.log.find(message="usage records are parked"))["level"] == "error"
    assert sum(json.loads(request.body)[0]["data"]["instance"] == "poison" for request in sink.requests) >= 3
    await call(gateway, sub="poison", gitlab_instance_id="poison")
    await counts(gateway, 'usage_parked_total{sink="billing"}', 2)
    assert len(parked(gateway)) == 2


async def test_bad_records_that_find_no_room_together_are_parked_once_when_they_do(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    sink.verdict = refuse_poison
    sink.server.stop_listening()  # so that all of them come in one batch
    gateway = await start_gateway(env=sending_to(tmp_path, sink))
    await call(gateway)
    bad = await call(gateway, times=2, sub="poison", gitlab_instance_id="poison")
    with small_file_system(gateway.running.parts.ledger.spool.path / "_parked", "size=4k") as place:
        (place / "billing.jsonl").write_text(f'{{"event":{{"request_id":"{"x" * 2_700}"}}}}\n')  # one more has room

        await sink.server.start()
        await fails_again(gateway)
        await fails_again(gateway)
        assert sink.requests
        grow(place, "64k")
        await counts(gateway, 'usage_parked_total{sink="billing"}', 2)

        assert [line["event"]["request_id"] for line in parked(gateway)[1:]] == bad


async def test_parked_records_are_sent_again_to_their_sink_alone_when_an_operator_says_so(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    sink.verdict = refuse_poison
    env = sending_to(tmp_path, sink, retry_s=0.01)
    gateway = await start_gateway(env=env)
    await call(gateway)
    (bad,) = await call(gateway, sub="poison", gitlab_instance_id="poison")
    await counts(gateway, 'usage_parked_total{sink="billing"}', 1)
    await counts(gateway, 'usage_delivered_total{sink="rollup"}', 2)
    (line,) = parked(gateway)
    sink.verdict = lambda records: 204
    told = {**env, "AIGW_USAGE__SPOOL_DIR": str(gateway.running.parts.ledger.spool.path)}

    first = await asyncio.to_thread(CliRunner().invoke, main, ["usage", "resend", "billing"], env=told)
    await sink.has(2)
    again = await asyncio.to_thread(CliRunner().invoke, main, ["usage", "resend", "billing"], env=told)

    assert (first.exit_code, first.output) == (0, "1 records wait for billing again\n")
    assert (again.exit_code, again.output) == (1, f"nothing is parked for billing in {told['AIGW_USAGE__SPOOL_DIR']}\n")
    assert [each["id"] for each in sink.records if each["request_id"] == bad] == [line["event"]["id"]]
    await gateway.log.find(message="a dead worker's usage records are all delivered")
    assert await figure(gateway, 'usage_delivered_total{sink="rollup"}') == 2
    assert (await gateway.log.find(message="parked usage records are sent again"))["level"] == "info"


async def test_whoever_is_killed_while_he_sends_parked_records_again_sends_none_to_another_sink(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    env = sending_to(tmp_path, sink)
    gateway = await start_gateway(env=env)
    await call(gateway)
    (record,) = await sink.has(1)
    await counts(gateway, 'usage_delivered_total{sink="rollup"}', 1)
    spool = gateway.running.parts.ledger.spool.path
    (spool / "_parked").mkdir()
    events = [json.dumps({**record, "id": f"{number:036d}"}, separators=(",", ":")) for number in range(2500)]
    (spool / "_parked" / "billing.jsonl").write_text("".join(f'{{"event":{event}}}\n' for event in events))
    told = environment(tmp_path, {**env, "AIGW_USAGE__SPOOL_DIR": str(spool)})

    killed_at = 0
    while not list(spool.glob(f".{RESENT}*/*.log")):
        assert is_killed(killed_at, lambda disk: resend(spool, "billing", disk))
        killed_at += 1
    assert is_killed(killed_at + 3, lambda disk: resend(spool, "billing", disk))  # with some of them written
    again = await asyncio.to_thread(CliRunner().invoke, main, ["usage", "resend", "billing"], env=told)

    assert (again.exit_code, again.output) == (0, "2500 records wait for billing again\n")
    await sink.has(2501)
    await gateway.log.find(message="a dead worker's usage records are all delivered")
    assert await figure(gateway, 'usage_delivered_total{sink="rollup"}') == 1
    assert await figure(gateway, "usage_damaged_total") == 0
    assert not list(spool.glob(".*resent*"))


async def test_records_that_are_sent_again_wait_for_a_sink_that_the_gateway_does_not_have_yet(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    gateway = await start_gateway(env={"AIGW_CATALOG": str(write_sinks(tmp_path / "overlay"))})
    await call(gateway)
    await counts(gateway, 'usage_delivered_total{sink="rollup"}', 1)
    spool = gateway.running.parts.ledger.spool.path
    told = {**sending_to(tmp_path, sink), "AIGW_USAGE__SPOOL_DIR": str(spool)}
    old = b'{"id":"%036d","ended_at":"2026-01-01T00:00:00.000Z","residency":[]}' % 7
    Parking(spool, "billing").park([(old, "")], "")

    sent = await asyncio.to_thread(CliRunner().invoke, main, ["usage", "resend", "billing"], env=told)
    await gateway.log.find(message="parked usage records are sent again")
    await call(gateway)  # whoever has it all, tidies up
    await counts(gateway, 'usage_delivered_total{sink="rollup"}', 2)
    await gateway.running.reloader.reload()

    assert sent.exit_code == 0
    assert f"{7:036d}" in [each["id"] for each in await sink.has(3)]


async def test_a_receiver_that_refuses_everything_loses_nothing(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    sink.verdict = lambda records: 400
    sink.server.stop_listening()
    gateway = await start_gateway(env=sending_to(tmp_path, sink))
    await call(gateway, times=4)
    await sink.server.start()
    await counts(gateway, 'usage_retries_total{sink="billing"}', 3)

    sink.verdict = lambda records: 204

    await sink.has(4)
    assert parked(gateway) == []


async def test_an_answer_that_never_comes_means_the_same_ids_again(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path
) -> None:
    sink.is_mute = True
    gateway = await start_gateway(env=sending_to(tmp_path, sink, timeout_s=0.05))
    await call(gateway)
    await sink.asked(2)

    sink.is_mute = False

    (id_, times), *others = (await sink.has(1) and sink.ids).items()
    assert others == []
    assert times >= 2
    assert id_ == gateway.usage()[0]["id"]


async def test_what_may_have_arrived_before_the_receiver_forgot_is_parked_and_not_sent_again(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path, clock: HandClock
) -> None:
    sink.is_mute = True
    gateway = await start_gateway(env=sending_to(tmp_path, sink, timeout_s=0.05, dedupe_window_s=3600), clock=clock)
    (doubtful,) = await call(gateway)
    await sink.asked(1)
    sink.server.stop_listening()
    (certain,) = await call(gateway)
    await fails_again(gateway)

    clock.advance(4000)
    await counts(gateway, 'usage_parked_total{sink="billing"}', 1)
    await fails_again(gateway)
    sink.is_mute = False
    sink.received.clear()
    await sink.server.start()

    assert [record["request_id"] for record in await sink.has(1)] == [certain]
    (line,) = parked(gateway)
    assert line["event"]["request_id"] == doubtful
    assert "counted twice" in line["why"]


async def test_what_was_sent_beside_a_doubtful_record_is_doubted_as_well(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path, clock: HandClock
) -> None:
    async def both_were_sent() -> bool:
        return any(len(json.loads(request.body)) == 2 for request in sink.requests)

    sink.is_mute = True
    gateway = await start_gateway(env=sending_to(tmp_path, sink, timeout_s=0.05, dedupe_window_s=3600), clock=clock)
    asked = await call(gateway)
    await sink.asked(1)
    asked += await call(gateway)
    await eventually(both_were_sent)
    sink.server.stop_listening()

    clock.advance(4000)
    await counts(gateway, 'usage_parked_total{sink="billing"}', 2)

    assert [line["event"]["request_id"] for line in parked(gateway)] == asked


async def test_what_arrived_of_a_batch_is_not_sent_again_once_the_receiver_forgot(
    start_gateway: StartGateway, sink: UsageSink, tmp_path: Path, clock: HandClock
) -> None:
    received: list[str] = []

    def verdict(records: list[dict[str, Any]]) -> int:
        if not any(record["instance"] == "poison" for record in records):
            return 204
        if len(records) > 1:
            return 400
        # At the end of a try, when nothing is on its way.
        received.extend(record["request_id"] for record in sink.received)
        sink.received.clear()
        clock.advance(4000)
        return 429

    gateway = await start_gateway(env=sending_to(tmp_path, sink, dedupe_window_s=3600), clock=clock)
    sink.server.stop_listening()
    (good,) = await call(gateway)
    await call(gateway, sub="poison", gitlab_instance_id="poison")
    await fails_again(gateway)  # with both of them in one batch
    sink.verdict = verdict
    await sink.server.start()
    await counts(gateway, 'usage_parked_total{sink="billing"}', 1)

    assert received == [good]
    assert sink.received == []
    assert good in {line["event"]["request_id"] for line in parked(gateway)}


@asynccontextmanager
async def server(
    provider: ScriptedProvider, issuer: FakeIssuer, folder: Path, env: dict[str, str]
) -> AsyncIterator[RunningGateway]:
    async with running_gateway(provider, issuer, folder, env) as gateway:
        yield gateway


async def test_of_two_reloads_in_a_row_the_last_one_says_who_gets_records(
    provider: ScriptedProvider, issuer: FakeIssuer, sink: UsageSink, tmp_path: Path
) -> None:
    sink.is_mute = True
    env = sending_to(tmp_path, sink, timeout_s=1.0)
    told = {"name": "file", "type": "file", "path": str(tmp_path / "usage.jsonl")}
    async with server(provider, issuer, tmp_path, env) as gateway:
        await call(gateway)
        await sink.asked(1)  # and for a second it cannot be taken away

        for sinks in ([told, {"name": "billing", "type": "http", "url": sink.url}], [told]):
            write_sinks(tmp_path / "overlay", *sinks)
            await gateway.running.reloader.reload()
        sink.is_mute = False
        await counts(gateway, 'usage_delivered_total{sink="file"}', 1)

    assert len(sink.requests) == 1


async def test_a_reload_while_delivered_records_are_deleted_deletes_no_others(
    provider: ScriptedProvider, issuer: FakeIssuer, sink: UsageSink, tmp_path: Path
) -> None:
    sink.server.stop_listening()
    env = sending_to(tmp_path, sink, timeout_s=2.0)
    left: list[str] = []
    for _ in range(2):
        async with server(provider, issuer, tmp_path, env) as dead:
            left += await call(dead)
            spool = dead.running.parts.ledger.spool.path
            await fails_again(dead)
        (own,) = [path for path in spool.glob("*/*.log") if left[-1].encode() in path.read_bytes()]
        own.parent.rename(spool / f"{len(left)}{own.parent.name[-16:]}")  # so that they are taken over in this order
    disk = HeldRemoval("1")
    sink.verdict = lambda records: 503 if records[0]["request_id"] == left[1] else 204
    await sink.server.start()
    async with running_gateway(provider, issuer, tmp_path, env, disk=disk) as gateway:
        await sink.has(1)
        await call(gateway)  # the roll-up has it, and then everybody has what the first one left
        await disk.held()

        sink.is_mute = True
        await sink.asked(len(sink.requests) + 1)
        sending_to(tmp_path, sink, timeout_s=3.0)
        await gateway.running.reloader.reload()  # the sink is not told to go before it has had its time
        disk.release()
        await gateway.log.find(message="a dead worker's usage records are all delivered")
        sink.is_mute, sink.verdict = False, lambda records: 204
        records = await sink.has(3)

    assert {record["request_id"] for record in records} >= set(left)


class HeldRemoval(HeldDisk):
    """Records of a folder whose name begins so are deleted when the test lets them go."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder
        self.hold()

    def remove(self, path: Path) -> None:
        if path.parent.name.startswith(self._folder):
            self._wait()
        super().remove(path)

    def sync(self, fd: int) -> None:
        Disk.sync(self, fd)

    def append(self, fd: int, data: bytes, offset: int) -> None:
        Disk.append(self, fd, data, offset)


@pytest.mark.parametrize("is_cursor_lost", [False, True])
async def test_a_server_stops_with_its_receiver_down_and_the_next_one_delivers(
    provider: ScriptedProvider, issuer: FakeIssuer, sink: UsageSink, tmp_path: Path, is_cursor_lost: bool
) -> None:
    sink.server.stop_listening()
    env = sending_to(tmp_path, sink)
    async with asyncio.timeout(3 * WAIT_S), server(provider, issuer, tmp_path, env) as first:
        asked = await call(first, times=30)
        spool = first.running.parts.ledger.spool.path
    if is_cursor_lost:  # as by a death right after the roll-up has what it notes itself
        for file in spool.glob("*/cursor-rollup"):
            file.unlink()

    await sink.server.start()
    async with server(provider, issuer, tmp_path, env) as second:
        records = await sink.has(30)
        # All of what the first one left is delivered, and is deleted.
        await second.log.find(message="a dead worker's usage records are all delivered")
        assert len(list(spool.glob("*/lock"))) == 1

    assert sorted(record["request_id"] for record in records) == sorted(asked)
    assert set(sink.ids.values()) == {1}


async def test_a_server_that_stops_hands_over_what_is_left_and_leaves_no_folder(
    provider: ScriptedProvider, issuer: FakeIssuer, sink: UsageSink, tmp_path: Path
) -> None:
    env = sending_to(tmp_path, sink, linger_s=60.0)
    async with server(provider, issuer, tmp_path, env) as gateway:
        await call(gateway, times=3)
        spool = gateway.running.parts.ledger.spool.path

    assert len(sink.records) == 3
    assert list(spool.glob("*/lock")) == []


async def test_a_disk_that_deletes_nothing_keeps_no_server_from_its_end(start_gateway: StartGateway) -> None:
    disk = HeldRemoval("")
    gateway = await start_gateway(disk=disk)
    await call(gateway)
    await counts(gateway, 'usage_delivered_total{sink="rollup"}', 1)
    ending = asyncio.ensure_future(gateway.running.aclose())
    await disk.held()

    await ending

    disk.release()
    assert "did not end" not in str(gateway.log.lines)


async def test_two_servers_share_a_spool_and_nothing_comes_twice(
    provider: ScriptedProvider, issuer: FakeIssuer, sink: UsageSink, tmp_path: Path
) -> None:
    env = sending_to(tmp_path, sink)
    async with server(provider, issuer, tmp_path, env) as one, server(provider, issuer, tmp_path, env) as other:
        asked = await call(one, times=5) + await call(other, times=5)
        await sink.has(10)

    assert sorted(record["request_id"] for record in sink.records) == sorted(asked)
    assert set(sink.ids.values()) == {1}
