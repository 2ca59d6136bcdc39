"""Load from a process of its own: closed loop (so many at once) or open loop (so many a second).

An open loop keeps its rate however slow the answers are, and measures from the moment a request was
due: what waits in the queue is waiting time. Run: python -m bench.load JSON → one JSON result.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import cast

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Job:
    """What to send where.

    rate     requests a second, evenly spaced (open loop); 0: `concurrency` at once (closed loop)
    event    bytes that each event of a streamed answer holds once; empty: events are not counted
    """

    port: int
    path: str
    headers: dict[str, str]
    body: str
    concurrency: int = 32
    rate: float = 0.0
    duration_s: float = 2.0
    event: str = ""

    def wire(self) -> bytes:
        body = self.body.encode()
        lines = [f"POST {self.path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class Result:
    """`requests` are those answered, errors included; latencies of good ones, until the last byte."""

    requests: int = 0
    errors: int = 0
    events: int = 0
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    refused_p99_ms: float = 0.0
    """Of answers 429 and 503."""
    statuses: dict[str, int] = field(default_factory=dict)
    first_error: str = ""


class Connection(asyncio.Protocol):
    """Sends one request at a time, tells `done(connection, status, events, body)` at its end; status 0: cut."""

    def __init__(self, event: bytes, done: Callable[["Connection", int, int, bytes], None]) -> None:
        self._event = event
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._events = 0
        self._start = b""
        self._is_busy = False
        self.due = 0.0
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it

    def send(self, wire: bytes, due: float) -> None:
        self.due, self._is_busy, self._events, self._start = due, True, 0, b""
        self.sent = time.perf_counter()
        if self._transport is None:
            self._finish(0)
        else:
            self._transport.write(wire)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._is_busy:
            self._finish(0)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._start = self._start or data[:300]
        if self._event:
            self._events += data.count(self._event)

    def on_message_complete(self) -> None:
        self._finish(self._parser.get_status_code())

    def _finish(self, status: int) -> None:
        self._is_busy = False
        self._done(self, status, self._events, self._start)

    @property
    def is_open(self) -> bool:
        return self._transport is not None


class Load:
    """One run of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._wire = job.wire()
        self._result = Result()
        self._latencies: list[float] = []
        self._refused: list[float] = []
        self._idle: deque[Connection] = deque()
        self._under_way = 0
        self._end = 0.0
        self._over = asyncio.Event()

    async def run(self) -> Result:
        await asyncio.gather(*(self._connect() for _ in range(self._job.concurrency)))
        started = time.perf_counter()
        self._end = started + self._job.duration_s
        if self._job.rate:
            await self._send_at_rate(started)
        else:
            while self._idle:
                self._send(self._idle.popleft(), time.perf_counter())
        if self._under_way:
            # A stream may be long; one that never ends is an error, not a reason to hang.
            try:
                await asyncio.wait_for(self._over.wait(), self._job.duration_s + 30)
            except TimeoutError:
                self._result.errors += self._under_way
                self._result.first_error = self._result.first_error or "no end"
        result = self._result
        result.seconds = time.perf_counter() - started
        result.p50_ms, result.p99_ms = _share_ms(self._latencies, 50), _share_ms(self._latencies, 99)
        result.refused_p99_ms = _share_ms(self._refused, 99)
        return result

    async def _connect(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._job.event.encode(), self._done), "127.0.0.1", self._job.port
        )
        self._idle.append(connection)

    async def _send_at_rate(self, started: float) -> None:
        sent = 0
        while (now := time.perf_counter()) < self._end:
            while (due := started + sent / self._job.rate) <= now:
                if not self._idle:
                    await self._connect()
                self._send(self._idle.popleft(), due)
                sent += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    def _send(self, connection: Connection, due: float) -> None:
        self._under_way += 1
        connection.send(self._wire, due)

    def _done(self, connection: Connection, status: int, events: int, start: bytes) -> None:
        now, result = time.perf_counter(), self._result
        self._under_way -= 1
        result.requests += 1
        result.events += events
        name = str(status)
        result.statuses[name] = result.statuses.get(name, 0) + 1
        if status == 200:
            self._latencies.append(now - connection.due)
        else:
            if status in (429, 503):
                self._refused.append(now - connection.sent)
            result.errors += 1
            result.first_error = result.first_error or f"{status} {start.decode(errors='replace')}"
        if not self._job.rate and now < self._end and connection.is_open:
            self._send(connection, now)
        elif connection.is_open:
            self._idle.append(connection)
        if self._under_way == 0 and (now >= self._end or not self._job.rate):
            self._over.set()


def _share_ms(seconds: list[float], percent: int) -> float:
    """So many percent are not above it; 0 for none."""
    seconds.sort()
    return seconds[len(seconds) * percent // 100] * 1000 if seconds else 0.0


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(Load(Job(**json.loads(sys.argv[1]))).run()))))
