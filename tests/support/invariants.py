"""What must hold after every drill, whatever was done to the gateway (promises 2, (a) to (h)).

`async with unharmed(gateway) as watch:` around the drill. The loop's lag (d) is looked at by long forms alone:
`unharmed(gateway, is_long=True)`. Memory (c) is not: the fakes, their log and the answers live in the same process and
grow with every call, so it can be told only of a gateway in a process of its own.
"""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY, RunningGateway
from tests.support.waiting import eventually

from torana.wire.pool import KEPT_WARM

WITHIN_S = 10.0


@dataclass(slots=True)
class Watch:
    """Handed to the drill."""

    secrets: list[str] = field(default_factory=lambda: [ANTHROPIC_KEY, OPENAI_KEY])
    """Must show nowhere; a drill adds its own."""
    outputs: list[bytes] = field(default_factory=list)
    """What clients got, if the drill wants it looked at."""
    is_ready: bool = True
    """What readiness is to say afterwards."""
    providers: int = 1
    """To each of which some connections stay."""


@dataclass(frozen=True, slots=True)
class _State:
    sockets: int
    tasks: int
    upstream: int
    lines: int
    asked: int


@asynccontextmanager
async def unharmed(gateway: RunningGateway, *, is_long: bool = False) -> AsyncIterator[Watch]:
    """Raises AssertionError, with what is wrong, where a drill has left traces."""
    watch = Watch()
    await eventually(lambda: _is_up(gateway))
    await gateway.begin_trees()  # it stays, as pools do
    before, booked = _look(gateway), len(gateway.usage())
    yield watch
    await _calm_again(gateway, before, watch.providers)  # (b), (h)
    lines = _lines(gateway, before)
    strange = [line for line in lines if "exception_backtrace" in line or line["message"] == "unexpected error"]
    assert not strange, strange  # (a)
    _one_record_each(gateway.usage()[booked:], lines)  # (e)
    await _no_secrets(gateway, watch, before)  # (f)
    ready = await gateway.monitoring("/readyz")
    assert (ready.status == 200) is watch.is_ready, ready  # (g)
    if is_long:
        await _little_lag(gateway)  # (d)


async def _is_up(gateway: RunningGateway) -> bool:
    """Issuers are asked in the background from the start on."""
    told = (await gateway.monitoring("/readyz")).json()
    return all(check["ok"] for check in told["checks"].values())


async def _calm_again(gateway: RunningGateway, before: _State, providers: int) -> None:
    async def is_calm() -> bool:
        now = _look(gateway)
        in_flight = re.findall(r"^model_inferences_in_flight{.*} (\S+)$", await _metrics(gateway), re.MULTILINE)
        return (
            now.tasks <= before.tasks
            and now.upstream <= before.upstream + KEPT_WARM * providers
            # A connection that rests has two ends in this process, and two more where a proxy stands between.
            and now.sockets <= before.sockets + 4 * max(0, now.upstream - before.upstream)
            and _access_lines(gateway, before) == now.asked - before.asked
            and not any(map(float, in_flight))
        )

    try:
        await eventually(is_calm, WITHIN_S)
    except TimeoutError:
        now, lines = _look(gateway), _access_lines(gateway, before)
        raise AssertionError(f"not calm again: {before} became {now}, with {lines} access lines") from None


def _look(gateway: RunningGateway) -> _State:
    return _State(
        sockets=sum(_is_socket(each) for each in os.listdir("/proc/self/fd")),
        tasks=sum(map(_is_the_gateways, asyncio.all_tasks())),
        upstream=gateway.running.parts.transport.open_connections,
        lines=len(gateway.log.raw),
        asked=gateway.asked,
    )


def _is_the_gateways(task: "asyncio.Task[Any]") -> bool:
    """Those of the fakes come and go with the connections that rest; that for syntax trees stays once it is up."""
    file = str(getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", ""))
    return "/tests/" not in file and not file.endswith("/torana/code/cleaning.py")


def _is_socket(descriptor: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except OSError:
        return False


def _access_lines(gateway: RunningGateway, before: _State) -> int:
    """Probes and scrapes are logged at debug level, so not here."""
    return sum(line["logger"] == "api.access" for line in _lines(gateway, before))


def _lines(gateway: RunningGateway, before: _State) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log.raw[before.lines :]]


def _one_record_each(records: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    """Admitted is what was to be sent: the access line names its outcome."""
    admitted = Counter(
        line["correlation_id"] for line in lines if line["logger"] == "api.access" and line.get("provider")
    )
    booked = Counter(record["request_id"] for record in records if record["request_id"])
    assert admitted == booked, f"admitted {admitted}, booked {booked}"


async def _no_secrets(gateway: RunningGateway, watch: Watch, before: _State) -> None:
    shown = b"\n".join([*gateway.log.raw[before.lines :], *watch.outputs, (await _metrics(gateway)).encode()])
    found = [secret for secret in watch.secrets if secret.encode() in shown]
    assert not found, f"{len(found)} secrets were shown"


async def _little_lag(gateway: RunningGateway) -> None:
    """99 of 100 looks at the loop were less than 50 ms late."""
    buckets = re.findall(r'^event_loop_lag_seconds_bucket{le="(\S+)"} (\S+)$', await _metrics(gateway), re.MULTILINE)
    counts = {float(bound): float(count) for bound, count in buckets}
    assert counts[0.05] >= 0.99 * counts[float("inf")] - 1, counts


async def _metrics(gateway: RunningGateway) -> str:
    return (await gateway.monitoring("/metrics")).text
