"""Load from a process of its own: closed loop (so many at once) or open loop (so many a second).

An open loop keeps its rate however slow the answers are, and measures from the moment a request was
due: what waits in the queue is waiting time. Where the load itself comes too late to send, that is not the
server's doing: requests of such a moment are counted and not timed. Run: python -m bench.load, a job in JSON as its
standard input → one JSON result.
"""

import asyncio
import gc
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import cast

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Job:
    """What to send where.

    rate     requests a second, evenly spaced (open loop); 0: `concurrency` at once (closed loop)
    tries    how often a request that is turned away (429, 503) is sent in all, each after a second or so
    settle_s of the beginning is not timed
    reconnects  a closed loop opens another connection for one that was closed; else it has one fewer
    event    bytes that each event of a streamed answer holds once; empty: events are not counted
    """

    port: int
    path: str
    headers: dict[str, str]
    body: str
    concurrency: int = 32
    rate: float = 0.0
    tries: int = 1
    duration_s: float = 2.0
    settle_s: float = 0.0
    event: str = ""
    reconnects: bool = False

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
    refused_p50_ms: float = 0.0
    refused_p99_ms: float = 0.0
    """Of answers 429 and 503, from the moment they were asked."""
    sent: int = 0
    unsent: int = 0
    """There was no connection to send them on: `concurrency` is the most of them, and none more could be opened."""
    late: int = 0
    """Sent so late that they are not timed."""
    lag_p99_ms: float = 0.0
    """How late requests were sent."""
    statuses: dict[str, int] = field(default_factory=dict)
    first_error: str = ""


LATE_S = 0.002
AGAIN_S = 1.0
UNUSED_S = 4.0
"""A connection that has asked for nothing so long is not used any more: servers close it (this gateway after 5 s), and
what is sent in that moment is lost."""

_LENGTH = b"\r\ncontent-length: "


class Connection(asyncio.Protocol):
    """Sends one request at a time, tells `done(connection, status, events, body)` at its end; status 0: cut.

    It tells `lost()` when it is closed. An answer that comes whole in one piece, as short ones do, is read without the
    parser.
    """

    def __init__(
        self, event: bytes, done: Callable[["Connection", int, int, bytes], None], lost: Callable[[], None]
    ) -> None:
        self._event = event
        self._done = done
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._events = 0
        self._start = b""
        self._is_busy = self._is_begun = False
        self.due = 0.0
        self.sent = 0.0
        """0: nothing was sent yet."""
        self._made = time.perf_counter()
        self.left = 0
        """Tries that the request has left."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it

    def send(self, wire: bytes, due: float) -> None:
        self.due, self._is_busy, self._is_begun, self._events, self._start = due, True, False, 0, b""
        self.sent = time.perf_counter()
        if self._transport is None:
            self._finish(0)
        else:
            self._transport.write(wire)

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        if self._is_busy:
            self._finish(0)

    def data_received(self, data: bytes) -> None:
        if not self._is_begun:
            end = data.find(b"\r\n\r\n") + 4
            at = data.find(_LENGTH, 0, end) + len(_LENGTH)
            if at > len(_LENGTH) and len(data) - end == int(data[at : data.find(b"\r", at)]):
                self._start = data[end : end + 300]
                self._finish(int(data[9:12]))
                return
            self._is_begun = True
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

    def is_stale(self, now: float) -> bool:
        """Closed, or about to be for want of a request."""
        return self._transport is None or (not self.sent and now - self._made > UNUSED_S)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._forget()

    def _forget(self) -> None:
        if self._transport is not None:
            self._transport = None
            self._lost()


class Load:
    """One run of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._wire = job.wire()
        self._result = Result()
        self._latencies: list[float] = []
        self._refused: list[float] = []
        self._lags: list[float] = []
        self._idle: deque[Connection] = deque()
        """Some may be stale by now."""
        self._open = 0
        """Connections, those that are being opened included."""
        self._under_way = 0
        self._end = self._settled = 0.0
        self._over = asyncio.Event()
        self._connecting: set[asyncio.Future[None]] = set()

    async def run(self) -> Result:
        await asyncio.gather(*(self._connect() for _ in range(self._job.concurrency)))
        gc.disable()  # a collection among thousands of connections takes milliseconds
        started = time.perf_counter()
        self._end, self._settled = started + self._job.duration_s, started + self._job.settle_s
        if self._job.rate:
            await self._send_at_rate(started)
        else:
            while self._idle:
                self._send(self._idle.popleft(), time.perf_counter())
        if self._under_way:
            self._over.clear()  # set too early where a connection was still being opened
            # A stream may be long; one that never ends is an error, not a reason to hang.
            try:
                await asyncio.wait_for(self._over.wait(), self._job.duration_s + 30)
            except TimeoutError:
                self._result.errors += self._under_way
                self._result.first_error = self._result.first_error or "no end"
        result = self._result
        result.seconds = time.perf_counter() - started
        result.p50_ms, result.p99_ms = _share_ms(self._latencies, 50), _share_ms(self._latencies, 99)
        result.refused_p50_ms, result.refused_p99_ms = _share_ms(self._refused, 50), _share_ms(self._refused, 99)
        result.sent, result.lag_p99_ms = len(self._lags), _share_ms(self._lags, 99)
        result.late = sum(lag > LATE_S for lag in self._lags)
        return result

    async def _connect(self) -> None:
        self._idle.append(await self._opened())

    async def _opened(self) -> Connection:
        self._open += 1
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._job.event.encode(), self._done, self._lost), "127.0.0.1", self._job.port
            )
        except OSError:
            self._lost()
            raise
        return connection

    def _lost(self) -> None:
        self._open -= 1

    async def _connect_again(self) -> None:
        connection = await self._opened()
        self._under_way -= 1
        self._send(connection, time.perf_counter())

    async def _connect_for(self, due: float) -> None:
        """A request whose connection is opened for it; that takes time, which counts as late."""
        try:
            connection = await self._opened()
        except OSError:
            self._result.unsent += 1
            return
        self._send_due(connection, due)

    async def _send_at_rate(self, started: float) -> None:
        sent = 0
        while (now := time.perf_counter()) < self._end:
            while (due := started + sent / self._job.rate) <= now:
                sent += 1
                connection = self._warmest()
                if connection is not None:
                    self._send_due(connection, due)
                elif self._open < self._job.concurrency:
                    self._begin(self._connect_for(due))
                else:
                    self._result.unsent += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _warmest(self) -> Connection | None:
        """The one that was used last; stale ones are dropped."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale(time.perf_counter()):
                return connection
            connection.close()
        return None

    def _send_due(self, connection: Connection, due: float) -> None:
        connection.left = self._job.tries
        self._send(connection, due)
        self._lags.append(connection.sent - due)

    def _begin(self, connecting: Coroutine[None, None, None]) -> None:
        self._connecting.add(task := asyncio.ensure_future(connecting))
        task.add_done_callback(self._connecting.discard)

    def _send(self, connection: Connection, due: float) -> None:
        self._under_way += 1
        connection.left -= 1
        connection.send(self._wire, due)

    def _again(self, connection: Connection) -> None:
        """What was turned away comes again; it counts from its new moment."""
        if time.perf_counter() < self._end and connection.is_open:
            self._send(connection, time.perf_counter())
        elif connection.is_open:
            self._idle.append(connection)

    def _done(self, connection: Connection, status: int, events: int, start: bytes) -> None:
        now, result = time.perf_counter(), self._result
        self._under_way -= 1
        result.requests += 1
        result.events += events
        name = str(status)
        result.statuses[name] = result.statuses.get(name, 0) + 1
        is_timed = connection.due >= self._settled and (
            not self._job.rate or connection.sent - connection.due <= LATE_S
        )
        if status == 200:
            if is_timed:
                self._latencies.append(now - connection.due)
        else:
            if status in (429, 503) and is_timed:
                self._refused.append(now - connection.sent)
            result.errors += 1
            result.first_error = result.first_error or f"{status} {start.decode(errors='replace')}"
        if not self._job.rate and now < self._end and connection.is_open:
            self._send(connection, now)
        elif self._job.reconnects and now < self._end:
            self._under_way += 1
            self._begin(self._connect_again())
        elif status in (429, 503) and connection.left > 0:
            pause_s = AGAIN_S * random.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(pause_s, self._again, connection)
        elif connection.is_open:
            self._idle.append(connection)
        if self._under_way == 0 and (now >= self._end or not self._job.rate):
            self._over.set()


def _share_ms(seconds: list[float], percent: int) -> float:
    """So many percent are not above it; 0 for none."""
    seconds.sort()
    return seconds[len(seconds) * percent // 100] * 1000 if seconds else 0.0


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(Load(Job(**json.load(sys.stdin))).run()))))
