"""ST6, ST9, ST11, CL1, CL2 and CL3 at full length: a real process, its memory, its files and its patience.

Run by `make drills`.
"""

import asyncio
import math
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Serve
from tests.promises.test_streams_none import DEEP, KEYS
from tests.promises.test_streams_none import answer as raw_answer
from tests.promises.test_streams_patience import long_stream, slow_reader
from tests.support.families import BY_NAME
from tests.support.gateway import RunningGateway
from tests.support.http_client import RawConnection
from tests.support.issuer import FakeIssuer
from tests.support.provider import Script, ScriptedProvider
from tests.support.served import Served
from tests.support.waiting import eventually

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]

CODE, RELAYED = BY_NAME["v2 code"], BY_NAME["anthropic proxy"]
GONE_S = 0.1
LAG_S = 0.05
KIB = 1024


class Stage:
    """A gateway in a process of its own, asked as the one in the tests is."""

    def __init__(self, served: Served, provider: ScriptedProvider, issuer: FakeIssuer) -> None:
        self.served = served
        self.provider = provider
        running: Any = SimpleNamespace(port=served.port, metrics_port=served.metrics_port)
        self.rss_before = 0
        self.arenas_bytes = 0
        """What the interpreter keeps of a crowd's memory, for the next one."""
        self.gateway = RunningGateway(running, provider, issuer, None)  # type: ignore[arg-type]  # its log is a file

    @property
    def proc(self) -> Path:
        return Path(f"/proc/{self.served.process.pid}")

    @property
    def sockets(self) -> int:
        """Open connections and what else is no file: the usage spool and its sinks open files when they like."""
        found = 0
        for each in (self.proc / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed just now
                found += os.readlink(each).startswith("socket:")
        return found

    @property
    def rss_bytes(self) -> int:
        lines = (self.proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS"))

    @property
    def cpu_s(self) -> float:
        fields = (self.proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def sockets_are_back(self, before: int) -> None:
        async def are_back() -> bool:
            return self.sockets <= before

        await eventually(are_back, within_s=10)

    async def access_lines(self, prefix: str, count: int) -> list[dict[str, Any]]:
        """Those of the requests whose ids begin so, once there are `count` of them; more is a failure."""
        found: list[dict[str, Any]] = []

        async def are_there() -> bool:
            found[:] = [
                line
                for line in self.served.lines
                if line["logger"] == "api.access" and line["correlation_id"].startswith(prefix)
            ]
            return len(found) >= count

        await eventually(are_there, within_s=10)
        assert len(found) == count
        return found

    async def is_unharmed(self) -> None:
        """As `unharmed` in the tests' own process (a, g), and what cannot be told there (c): memory as before.

        It is given back some seconds after what took it.
        """
        strange = [line for line in self.served.lines if "exception_backtrace" in line]
        assert not strange, strange
        assert (await self.gateway.monitoring("/readyz")).status == 200

        async def is_slim() -> bool:
            return self.rss_bytes < 1.1 * self.rss_before + self.arenas_bytes

        try:
            await eventually(is_slim, within_s=10)
        finally:
            print(f"RSS {self.rss_before / 2**20:.0f} MiB before, {self.rss_bytes / 2**20:.0f} MiB after")

    async def warm_up(self) -> None:
        for _ in range(20):
            assert (await self.gateway.post(**CODE.ask(self.gateway, "warm"))).status == 200
        await self.gateway.post(**CODE.ask(self.gateway, "warm", stream=False))  # has the process for syntax trees up
        await eventually(self._has_trees)  # it stays, and its pipes are sockets

    async def _has_trees(self) -> bool:
        pid = self.served.process.pid
        return bool((self.proc / "task" / str(pid) / "children").read_text())


@pytest.fixture
async def stage(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> AsyncIterator[Stage]:
    stage = Stage(await serve(env=wired), provider, issuer)
    await stage.warm_up()
    stage.rss_before = stage.rss_bytes
    yield stage
    await stage.is_unharmed()


@asynccontextmanager
async def probing(port: int) -> AsyncIterator[list[float]]:
    """How long each probe took meanwhile, in seconds; filled in at the end."""
    asked = (str(Path(__file__).with_name("probe_process.py")), str(port))
    process = await asyncio.create_subprocess_exec(sys.executable, *asked, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    took: list[float] = []
    yield took
    told, _ = await process.communicate(b"")
    took += map(float, told.split())


def p99(values: list[float]) -> float:
    """What 99 of 100 do not exceed; of fewer than a hundred, the largest."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


@pytest.mark.parametrize("moment", ["first byte", "within the stream", "whole"])
@pytest.mark.parametrize("family", [CODE, RELAYED], ids=lambda family: family.name)
async def test_who_leaves_ends_the_call_within_100_ms(stage: Stage, family: Any, moment: str) -> None:
    held = Script(events=tuple(family.events()), hold_after=family.head_events + 4)
    stage.provider.follow(held if moment == "within the stream" else Script(first_byte_after=asyncio.Event()))
    took = []
    for number in range(300):
        stage.provider.requests.clear()
        async with await stage.gateway.connect() as connection:
            asked = family.ask(stage.gateway, f"gone-{number}", stream=moment != "whole")
            await connection.send(stage.gateway.request_bytes("POST", **asked))
            request = await stage.provider.request()
            if moment == "within the stream":
                await (await connection.read_head()).next_chunk()
            begun = time.perf_counter()
            connection.writer.transport.abort() if number % 2 else connection.writer.close()
            await request.hung_up.wait()
            took.append(time.perf_counter() - begun)

    print(f"{family.name}, {moment}: p99 {p99(took) * 1000:.1f} ms")
    assert p99(took) <= GONE_S


async def test_a_thousand_who_ask_and_leave_at_once_leave_nothing(stage: Stage) -> None:
    stage.provider.follow(Script(first_byte_after=asyncio.Event()))
    before = stage.sockets
    crowd: list[RawConnection] = [await stage.gateway.connect() for _ in range(1000)]
    requests = [stage.gateway.request_bytes("POST", **CODE.ask(stage.gateway, f"crowd-{at}")) for at in range(1000)]

    stage.arenas_bytes = 1000 * 32 * KIB
    async with probing(stage.served.port) as lags:
        for connection, request in zip(crowd, requests, strict=True):
            connection.writer.write(request)
        await asyncio.sleep(0.3)  # most are asked of the provider by now, some wait in line
        for connection in crowd:
            connection.reset()
        await stage.sockets_are_back(before)

    print(f"probes: p99 {p99(lags) * 1000:.1f} ms, slowest {max(lags) * 1000:.1f} ms of {len(lags)}")
    assert not stage.provider.server.open
    await stage.access_lines("crowd-", 1000)
    assert p99(lags) < LAG_S


async def test_two_hundred_slow_readers_cost_little_and_nobody_else(stage: Stage) -> None:
    stage.provider.follow(long_stream(CODE))
    before, rss = stage.sockets, stage.rss_bytes
    stage.arenas_bytes = 200 * 256 * KIB
    readers = [slow_reader(stage.gateway, CODE, f"slow-{at}") for at in range(200)]
    connections = [await reader.__aenter__() for reader in readers]
    sent = -1

    async def is_paused() -> bool:
        nonlocal sent
        last, sent = sent, stage.provider.server.sent_bytes
        await asyncio.sleep(0.2)
        return sent == last

    await eventually(is_paused, within_s=120)
    per_stream = (stage.rss_bytes - rss) / 200
    async with probing(stage.served.port) as lags:
        for _ in range(5):
            for connection in connections:  # a KiB a second each
                await connection.reader.read(1024)
            await asyncio.sleep(1)
    stage.provider.follow(Script())
    assert (await stage.gateway.post(**CODE.ask(stage.gateway, "other"))).is_whole
    for reader in readers:
        await reader.__aexit__(None, None, None)
    await stage.sockets_are_back(before)

    print(f"{per_stream / KIB:.0f} KiB a stream; probes p99 {p99(lags) * 1000:.1f} ms")
    assert per_stream <= (256 + 80) * KIB  # its buffers, and what a stream that is read costs anyway (OV1)
    assert p99(lags) < LAG_S


@pytest.mark.parametrize("family", [CODE, RELAYED], ids=lambda family: family.name)
async def test_a_hundred_thousand_tiny_events_cost_twice_what_half_of_them_do(stage: Stage, family: Any) -> None:
    events = family.events(["Final Answer: ", "x", ""])
    middle = next(number for number, each in enumerate(events) if b'"x"' in each)
    costs = []
    for count in (50_000, 100_000):
        burst = [events[middle] * 100] * (count // 100)
        stage.provider.follow(Script(events=(*events[:middle], *burst, *events[middle + 1 :])))
        async with probing(stage.served.port) as lags:
            begun = stage.cpu_s
            answer = await stage.gateway.post(**family.ask(stage.gateway, f"burst-{count}"))
            costs.append(stage.cpu_s - begun)
        assert answer.is_whole
        print(f"{family.name}: {count} events in {costs[-1]:.2f} s; probes p99 {p99(lags) * 1000:.1f} ms")
        assert p99(lags) < 2 * LAG_S

    assert costs[1] < 2.5 * costs[0] + 0.05


async def test_a_hundred_thousand_tiny_events_a_second_do_not_slow_other_streams(stage: Stage) -> None:
    events = RELAYED.events(["Final Answer: ", "x", ""])
    middle = next(number for number, each in enumerate(events) if b'"x"' in each)
    paced = (*events[:middle], *[events[middle] * 1000] * 600, *events[middle + 1 :])

    async def times(name: str) -> list[float]:
        took = []
        for number in range(100):
            begun = time.perf_counter()
            assert (await stage.gateway.post(**CODE.ask(stage.gateway, f"{name}-{number}"))).is_whole
            took.append(time.perf_counter() - begun)
        return took

    alone = await times("alone")
    stage.provider.requests.clear()
    stage.provider.follow(Script(events=paced, pause_s=0.01), times=1)
    begun = time.perf_counter()
    flood = asyncio.create_task(stage.gateway.post(**RELAYED.ask(stage.gateway, "flood")))
    await stage.provider.request()
    beside = await times("beside")
    is_still_running = not flood.done()
    assert (await flood).is_whole

    rate = 600_000 / (time.perf_counter() - begun)
    print(f"{rate:.0f} events/s; p99 {p99(alone) * 1000:.1f} ms alone, {p99(beside) * 1000:.1f} ms beside")
    assert is_still_running
    # The fakes of both share a process, and are slowed as well.
    assert p99(beside) < 2 * p99(alone) + 0.01


@pytest.mark.parametrize("segment", [1])
async def test_single_bytes_cost_in_proportion(stage: Stage, segment: int) -> None:
    costs = []
    for pieces in (100, 200):
        events = tuple(CODE.events(["word "] * pieces))
        stage.provider.follow(Script(events=events, segment_bytes=segment))
        begun = stage.cpu_s
        assert (await stage.gateway.post(**CODE.ask(stage.gateway, f"bytes-{pieces}"))).is_whole
        costs.append(stage.cpu_s - begun)

    assert costs[1] < 3 * costs[0] + 0.05


async def test_endless_whole_answers_are_cut_and_their_memory_given_back(stage: Stage) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    before = stage.sockets
    stage.provider.follow(Script(raw=head + piece * 200))

    for number in range(4):
        asked = CODE.ask(stage.gateway, f"endless-{number}", stream=False)
        assert (await stage.gateway.post(**asked)).status == 503
    # Pieces of several lie between one another.
    crowd = [CODE.ask(stage.gateway, f"endless-crowd-{number}", stream=False) for number in range(4)]
    answers = await asyncio.gather(*(stage.gateway.post(**asked) for asked in crowd))
    assert {answer.status for answer in answers} == {503}
    await stage.sockets_are_back(before)


@pytest.mark.parametrize(
    "body", [DEEP, KEYS, b'{"choices":' + b"9" * 10_000_000 + b"}"], ids=["deep", "keys", "number"]
)
async def test_hostile_json_is_refused_fast_and_blocks_nobody(stage: Stage, body: bytes) -> None:
    stage.provider.follow(Script(raw=raw_answer(b"application/json", body)))
    async with probing(stage.served.port) as lags:
        for number in range(10):
            asked = CODE.ask(stage.gateway, f"hostile-{number}", stream=False)
            assert (await stage.gateway.post(**asked)).status == 503

    lines = await stage.access_lines("hostile-", 10)
    print(f"probes p99 {p99(lags) * 1000:.1f} ms; cpu {max(line['cpu_s'] for line in lines) * 1000:.1f} ms at most")
    assert max(line["cpu_s"] for line in lines) < LAG_S  # both tries together
    assert p99(lags) < LAG_S
