"""Several tenants, each at a rate of its own, before a gateway of several workers; and what must hold afterwards."""

import asyncio
import json
import math
import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.families import PROXY, Family
from tests.support.gateway import gitlab_headers
from tests.support.http_client import connect, write_request
from tests.support.issuer import FakeIssuer
from tests.support.served import Served
from tests.support.usage_sink import UsageSink
from tests.support.waiting import eventually

from torana.wire.pool import KEPT_WARM, SURPLUS_S

WITHIN_S = 10.0
LAG_S = 0.05


@dataclass(slots=True)
class Took:
    """What became of one tenant's calls."""

    seconds: list[float] = field(default_factory=list)
    """Of each, answered or not."""
    answered: int = 0
    refusals: list[tuple[str, int]] = field(default_factory=list)
    """Code, and Retry-After."""

    @property
    def refused(self) -> int:
        return len(self.refusals)

    @property
    def slowest_s(self) -> float:
        return max(self.seconds)

    @property
    def p99_s(self) -> float:
        return sorted(self.seconds)[math.ceil(len(self.seconds) * 0.99) - 1]

    def __str__(self) -> str:
        p50_s = sorted(self.seconds)[len(self.seconds) // 2]
        return (
            f"{self.answered} answered, {self.refused} refused, "
            f"p50 {p50_s * 1000:.0f} p99 {self.p99_s * 1000:.0f} most {self.slowest_s * 1000:.0f} ms"
        )


class Crowd:
    """Open loops: a call begins when it is due, whether or not those before it have been answered."""

    def __init__(self, gateway: Served, issuer: FakeIssuer, family: Family, sink: UsageSink) -> None:
        self.gateway = gateway
        self.sink = sink
        self.issuer = issuer
        self.family = family
        self.names: list[str] = []
        """Ids of all requests that were made."""

    async def ask_all(self, rates: dict[str, float], seconds: float) -> dict[str, Took]:
        """rates  tenant → calls a second"""
        found = {tenant: Took() for tenant in rates}
        calls: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        began = loop.time()
        due = sorted((n / rate, tenant) for tenant, rate in rates.items() for n in range(int(rate * seconds)))
        tokens = {tenant: self._headers(tenant) for tenant in rates}
        for at, tenant in due:
            if (wait_s := began + at - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            calls.append(asyncio.create_task(self._ask(tokens[tenant], found[tenant])))
        await asyncio.gather(*calls)
        return found

    def _headers(self, tenant: str) -> dict[str, str]:
        token = self.issuer.token(unit_primitives=[self.family.unit_primitive], sub=tenant, gitlab_instance_id=tenant)
        more = {"X-Gitlab-Unit-Primitive": PROXY} if self.family.is_proxy else {}
        return gitlab_headers(token) | {"Content-Type": "application/json"} | more

    async def _ask(self, headers: dict[str, str], took: Took) -> None:
        name = f"crowd-{len(self.names)}"
        self.names.append(name)
        body = json.dumps(self.family.body).encode()
        began = time.perf_counter()
        async with await connect(self.gateway.port) as connection:
            await connection.send(write_request("POST", self.family.path, headers | {"X-Request-ID": name}, body))
            answer = await connection.read_answer()
        took.seconds.append(time.perf_counter() - began)
        assert answer.is_whole, answer
        if answer.status == 200:
            took.answered += 1
        else:
            assert answer.status == 503, answer
            took.refusals.append((answer.refusal.code, int(answer.header("retry-after") or 0)))


@dataclass(frozen=True, slots=True)
class Workers:
    """A gateway's workers at rest."""

    pids: frozenset[int]
    sockets: int
    rss_bytes: int
    lag: Counter[float]
    """Looks at the event loop by how late they came, in seconds."""

    @classmethod
    async def look(cls, gateway: Served) -> Self:
        """What a burst has left of connections goes first."""
        await asyncio.sleep(SURPLUS_S + 1)
        pids = frozenset(await gateway.workers())
        return cls(pids, _sockets(pids), _rss_bytes(pids), lag_in((await gateway.monitoring("/metrics")).text))

    async def are_unharmed(self, gateway: Served, crowd: Crowd, secrets: list[str]) -> None:
        """(a) to (h) of promises 2; raises AssertionError with what is wrong."""

        async def is_calm() -> bool:
            room = KEPT_WARM * len(self.pids)  # connections to the provider, and to the sink
            return _sockets(self.pids) <= self.sockets + room and len(_access_lines(gateway)) >= len(crowd.names)

        try:
            await eventually(is_calm, WITHIN_S)  # (b)
        except TimeoutError:
            told = f"{_sockets(self.pids)} sockets, {len(_access_lines(gateway))} lines"
            raise AssertionError(f"{told} where {self.sockets} and {len(crowd.names)} are to be") from None
        now = await self.look(gateway)
        assert now.pids == self.pids
        lines = gateway.lines
        strange = [line for line in lines if "exception_backtrace" in line or line["message"] == "unexpected error"]
        assert not strange, strange  # (a)
        print(f"RSS {self.rss_bytes / 2**20:.0f} MiB before, {now.rss_bytes / 2**20:.0f} MiB after")
        assert now.rss_bytes < 1.1 * self.rss_bytes  # (c)
        lag = now.lag - self.lag
        late = sum(count for bound, count in lag.items() if bound > LAG_S)
        print(f"event loops: {late:g} of {lag.total():g} looks more than {LAG_S * 1000:.0f} ms late")
        assert late <= 0.01 * lag.total() + 1  # (d)
        access = _access_lines(gateway)
        admitted = Counter(line["correlation_id"] for line in access if line.get("provider"))
        # Whoever was turned away without a wait was never admitted; whoever waited in vain has a record.
        answered = Counter(line["correlation_id"] for line in access if line["status_code"] == 200)
        await crowd.sink.has(answered.total())
        booked = Counter(record["request_id"] for record in crowd.sink.records)
        assert not answered - booked, dict(answered - booked)  # (e)
        assert not booked - admitted, dict(booked - admitted)
        shown = gateway.stdout + gateway.stderr + (await gateway.monitoring("/metrics")).text
        assert not [secret for secret in secrets if secret in shown]  # (f)
        assert (await gateway.monitoring("/readyz")).status == 200  # (g)
        assert Counter(line["correlation_id"] for line in access) == Counter(crowd.names)  # (h)
        refused = [line for line in access if line["status_code"] == 503]
        assert {line["refusal_code"] for line in refused} <= {"overloaded"}


def _access_lines(gateway: Served) -> list[dict[str, Any]]:
    return [
        line for line in gateway.lines if line["logger"] == "api.access" and line["correlation_id"].startswith("crowd-")
    ]


def _sockets(pids: frozenset[int]) -> int:
    found = 0
    for pid in pids:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed just now
                found += os.readlink(each).startswith("socket:")
    return found


def _rss_bytes(pids: frozenset[int]) -> int:
    found = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    return found


def lag_in(metrics: str) -> Counter[float]:
    """Looks at the event loop, by the upper end of the bucket of how late they came; seconds."""
    rows = re.findall(r'^event_loop_lag_seconds_bucket{le="(\S+)"} (\S+)$', metrics, re.MULTILINE)
    found: Counter[float] = Counter()
    before = 0.0
    for bound, count in sorted((float(bound), float(count)) for bound, count in rows):
        found[bound] = int(count - before)
        before = count
    return found
