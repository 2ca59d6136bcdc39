"""Very many cheap calls with deaths and outages among them, and three ledgers that must agree, call by call.

Each call has a number, and everything about it follows from that number: who asks, whether it streams, what the
vendor charges. So the ledgers are arrays, and a million calls fit beside the load that makes them.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any, cast

import httptools
import msgspec
from tests.support.gateway import default_env, gitlab_headers
from tests.support.http_client import write_request
from tests.support.http_server import Answering, LoopbackFake, LoopbackServer, Request
from tests.support.issuer import FakeIssuer
from tests.support.lasting import Lasting
from tests.support.usage_load import PROXY
from tests.support.usage_sink import write_sinks

MODEL = "gpt-5-mini-2025-08-07"
INSTANCES = ("instance-a", "instance-b", "instance-c")
STREAMS = 100
"""One call in so many is a stream."""
EVENTS = 4
PAUSE_S = 0.03
"""Between two events of a stream, so that deaths find some under way."""
CALLS_A_CONNECTION = 400
"""Then another one is made, which may lead to another worker."""


def instance_of(number: int) -> str:
    return INSTANCES[number % len(INSTANCES)]


def is_streamed(number: int) -> bool:
    return number % STREAMS == 0


def charge_of(number: int) -> tuple[int, int]:
    """Tokens in, tokens out."""
    return 10 + number % 991, 1 + number % 97


class Vendor(Lasting):
    """Answers at once, and notes every call that it is asked."""

    def __init__(self, calls: int) -> None:
        self.asked = bytearray(calls)
        """How often, by number of the call."""
        self.url = ""
        self.open: set[_Asked] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Asked(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for each in list(self.open):
            each.close()


class _Connection(asyncio.Protocol):
    """Bytes of HTTP, one message at a time."""

    transport: asyncio.Transport | None = None
    parser: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


class _Asked(_Connection):
    """The vendor's side."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._body = b""
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._vendor.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._vendor.open.discard(self)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        number = int(msgspec.json.decode(self._body)["user"])
        self._vendor.asked[number] += 1
        asked, answered = charge_of(number)
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        usual = {"id": "c", "created": 1, "model": MODEL}
        if is_streamed(number):
            self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            usual["object"] = "chat.completion.chunk"
            said = [{"index": 0, "delta": {"content": "some words "}, "finish_reason": None}]
            ended = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
            events = [*({**usual, "choices": said} for _ in range(EVENTS)), {**usual, "choices": ended, "usage": usage}]
            self._stream([b"data: %b\n\n" % msgspec.json.encode(each) for each in events] + [b"data: [DONE]\n\n", b""])
        else:
            usual["object"] = "chat.completion"
            message = {"role": "assistant", "content": "some words"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            body = msgspec.json.encode({**usual, "choices": choices, "usage": usage})
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self.write(head % len(body) + body)

    def _stream(self, events: list[bytes]) -> None:
        self.write(b"%x\r\n%b\r\n" % (len(events[0]), events[0]))
        if len(events) > 1:
            asyncio.get_running_loop().call_later(PAUSE_S, self._stream, events[1:])


class Receiver(LoopbackFake):
    """Takes usage records over HTTP, and drops ids that it has. One batch in `unsure` is kept and not acknowledged."""

    def __init__(self, calls: int, unsure: int = 40) -> None:
        self.server = LoopbackServer(self._handle)
        self.booked = bytearray(calls)
        """Records with an id of their own, by number of the call."""
        self.completed = bytearray(calls)
        self.states: Counter[str] = Counter()
        self.sums: Counter[tuple[str, str]] = Counter()
        """(instance, kind of token) → tokens of completed calls."""
        self.wrong: list[dict[str, Any]] = []
        """Records of completed calls that do not say what the vendor has charged."""
        self.received = 0
        """Records, as often as they came."""
        self._ids: set[bytes] = set()
        self._batches = 0
        self._unsure = unsure

    async def _handle(self, request: Request, answer: Answering) -> None:
        for event in msgspec.json.decode(request.body):
            self._note(event["data"])
        self._batches += 1
        if self._batches % self._unsure == 0:
            answer.reset()
        else:
            await answer.whole(204, b"", [])

    def _note(self, record: dict[str, Any]) -> None:
        self.received += 1
        name = bytes.fromhex(record["id"].replace("-", ""))
        if name in self._ids:
            return
        self._ids.add(name)
        number = int(record["request_id"])
        self.booked[number] += 1
        self.states[record["status"]] += 1
        if record["instance"] != instance_of(number):
            self.wrong.append(record)
        if record["status"] == "completed":
            told = record["input_tokens"], record["output_tokens"]
            self.completed[number] = 1
            self.sums[record["instance"], "input"] += told[0]
            self.sums[record["instance"], "output"] += told[1]
            if told != charge_of(number) or record["source"] != "provider":
                self.wrong.append(record)


class Callers:
    """So many connections, each one call after the other, until all numbers are used."""

    def __init__(self, port: int, issuer: FakeIssuer, calls: int) -> None:
        self.calls = calls
        self.next = 0
        self.whole = bytearray(calls)
        """A good answer came, all of it."""
        self.statuses: Counter[int] = Counter()
        self._port = port
        self._marks: dict[int, asyncio.Event] = {}
        self._headers = {
            instance: gitlab_headers(issuer.token(unit_primitives=[PROXY], sub=instance, gitlab_instance_id=instance))
            for instance in INSTANCES
        }

    async def run(self, connections: int) -> None:
        await asyncio.gather(*(self._caller() for _ in range(connections)))

    async def reached(self, number: int) -> None:
        """Returns once the call of this number has begun."""
        if number >= self.next:
            await self._marks.setdefault(number, asyncio.Event()).wait()

    async def _caller(self) -> None:
        loop = asyncio.get_running_loop()
        while self.next < self.calls:
            try:
                _, caller = await loop.create_connection(_Answered, "127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            for _ in range(CALLS_A_CONNECTION):
                if self.next >= self.calls or caller.transport is None:
                    break
                number = self.next
                self.next += 1
                if number in self._marks:
                    self._marks[number].set()
                caller.write(self._wire(number))
                status, is_whole = await caller.answered()
                self.statuses[status] += 1
                self.whole[number] = status == 200 and is_whole
            caller.close()

    def _wire(self, number: int) -> bytes:
        body: dict[str, Any] = {"model": MODEL, "user": str(number), "messages": [{"role": "user", "content": "Hi"}]}
        if is_streamed(number):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = self._headers[instance_of(number)] | {
            "Content-Type": "application/json", "X-Request-ID": str(number), "X-Gitlab-Unit-Primitive": PROXY,
        }  # fmt: skip
        return write_request("POST", "/v1/proxy/openai/v1/chat/completions", headers, msgspec.json.encode(body))


class _Answered(_Connection):
    """The caller's side."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._waiter: asyncio.Future[tuple[int, bool]] | None = None

    async def answered(self) -> tuple[int, bool]:
        """Status, and whether all of the answer came; 0 where nothing did."""
        if self.transport is None:
            return 0, False
        self._status = 0
        self._waiter = asyncio.get_running_loop().create_future()
        return await self._waiter

    def on_headers_complete(self) -> None:
        self._status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        self._tell(is_whole=True)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._tell(is_whole=False)

    def _tell(self, *, is_whole: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result((self._status, is_whole))


class BigTown(Lasting):
    """All of them but the callers, and the environment of a gateway between them."""

    def __init__(self, folder: Path, calls: int) -> None:
        self.folder = folder
        self.vendor = Vendor(calls)
        self.receiver = Receiver(calls)
        self.issuer = FakeIssuer()

    @property
    def env(self) -> dict[str, str]:
        sink = {"name": "billing", "type": "http", "url": f"{self.receiver.url}/usage", "linger_s": 0.1}
        env = default_env(self.vendor, self.issuer, self.folder / "state")  # type: ignore[arg-type]
        return {
            **{name: value for name, value in env.items() if not name.endswith("_PORT")},
            "AIGW_CATALOG": str(write_sinks(self.folder / "overlay", sink)),
            "AIGW_LOGGING__LEVEL": "WARNING",  # a million lines are another drill's
        }

    async def start(self) -> None:
        for each in (self.vendor, self.receiver, self.issuer):
            await each.start()

    async def aclose(self) -> None:
        # Batches that a dead worker was sending have made handlers fail, as they may.
        self.receiver.server.failures.clear()
        for each in (self.issuer, self.receiver, self.vendor):
            await each.aclose()
        await asyncio.sleep(0.05)  # until the loop has closed what was aborted


def check_ledgers(callers: Callers, vendor: Vendor, receiver: Receiver) -> None:
    """Every call that was answered or charged has its one record, and the sums are the vendor's, to the token."""
    bill: Counter[tuple[str, str]] = Counter()
    lost, doubled, unbooked = [], [], []
    for number in range(callers.calls):
        booked = receiver.booked[number]
        if booked > 1:
            doubled.append(number)
        if callers.whole[number] and not receiver.completed[number]:
            lost.append(number)
        if vendor.asked[number] and not booked:
            unbooked.append(number)
        if receiver.completed[number]:
            assert vendor.asked[number] == 1, (
                f"{number} was completed, and the vendor asked {vendor.asked[number]} times"
            )
            asked, answered = charge_of(number)
            bill[instance_of(number), "input"] += asked
            bill[instance_of(number), "output"] += answered
    assert not doubled, f"more than one record: {doubled[:5]} of {len(doubled)}"
    assert not lost, f"answered in full, and not booked so: {lost[:5]} of {len(lost)}"
    assert not unbooked, f"the vendor was asked, and there is no record: {unbooked[:5]} of {len(unbooked)}"
    assert not receiver.wrong, f"not what the vendor has charged: {receiver.wrong[:2]} of {len(receiver.wrong)}"
    assert receiver.sums == bill


async def outages(receiver: Receiver, callers: Callers, times: int, chance: random.Random) -> None:
    """The receiver is down for a while, evenly spread over the calls."""
    for number in range(times):
        await callers.reached(int(callers.calls * (number + chance.random()) / times))
        receiver.server.stop_listening()
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        await receiver.server.start()
