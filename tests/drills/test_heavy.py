"""OV9: an instance that sends few requests, and huge ones. Real processes; run by `make drills`.

It asks as fast as answers come, on eight connections; nine quiet instances together ask for less than half of what the
gateway can do. What they do to each other is measured in the same turn, without the heavy one.
"""

import asyncio
import json
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest
from bench import processes, servers
from bench.load import Job, Result
from tests.drills.crowd import LAG_S, lag_in
from tests.drills.test_overload import CODE, EXPLAIN, lower, run
from tests.support.http_client import connect, write_request

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]

ROUNDS, SECONDS = 3, 5.0
HUGE_BYTES = 4 * 1024 * 1024
HUGE_CODE = CODE * (HUGE_BYTES // len(CODE))
PROMPT = json.dumps({"inputs": json.loads(EXPLAIN[1])["inputs"] | {"file_content": HUGE_CODE}})
RELAYED = json.dumps({"model": "bench_gpt", "max_tokens": 100, "messages": [{"role": "user", "content": HUGE_CODE}]})
LIMITS = {
    "800k tokens per minute per instance": 2,
    "20 MB per minute per instance": 5,
}
"""More than a quiet instance uses in a round → how many huge prompts pass: one may that is larger than its limit."""


@dataclass
class Round:
    """What quiet instances met, without the heavy one and beside it."""

    alone: list[Result]
    beside: list[Result]
    heavy: list[Result]
    lag: Counter[float]
    """How late the event loop was, beside it."""
    probes_ms: list[float]

    @property
    def p99_ms(self) -> tuple[float, float]:
        return median(each.p99_ms for each in self.alone), median(each.p99_ms for each in self.beside)


def start(stack: ExitStack, folder: Path, limits: str) -> servers.Gateway:
    mock = stack.enter_context(servers.provider(folder))
    overlay = servers.write_overlay(folder, "")
    (overlay / "limits.yml").write_text(limits)
    return stack.enter_context(servers.gateway(folder, mock.port, AIGW_CATALOG=str(overlay)))


def job(gateway: servers.Gateway, instance: str, path: str, body: str) -> Job:
    headers = lower(servers.token_headers(gateway.env, "--instance-id", instance))
    return Job(gateway.port, path, headers, body, duration_s=SECONDS)


async def lag_of(gateway: servers.Gateway) -> Counter[float]:
    async with await connect(gateway.metrics_port) as connection:
        await connection.send(write_request("GET", "/metrics", {}, b""))
        return lag_in((await connection.read_answer()).text)


async def probe(gateway: servers.Gateway, end: asyncio.Event) -> list[float]:
    """How long liveness takes, every 20 ms or so; milliseconds."""
    found = []
    while not end.is_set():
        begun = time.perf_counter()
        assert await asyncio.to_thread(processes.status_of, gateway.port, "/monitoring/healthz") == 200
        found.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.02)
    return found


def at(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


async def rounds(gateway: servers.Gateway) -> list[Round]:
    found = []
    full = await run(replace(job(gateway, "anyone", *EXPLAIN), duration_s=1.0))
    capacity = full.statuses["200"] / full.seconds
    heavy = [
        replace(job(gateway, "heavy", path, body), concurrency=4, reconnects=True)
        for path, body in ((EXPLAIN[0], PROMPT), ("/openai/v1/chat/completions", RELAYED))
    ]
    for number in range(ROUNDS):
        quiet = [
            replace(job(gateway, f"quiet-{number}-{one}", *EXPLAIN), rate=capacity * 0.05, concurrency=50, settle_s=0.5)
            for one in range(9)
        ]
        alone = await asyncio.gather(*map(run, quiet))
        before, end = await lag_of(gateway), asyncio.Event()
        probing = asyncio.create_task(probe(gateway, end))
        *heavies, beside = await asyncio.gather(*map(run, heavy), asyncio.gather(*map(run, quiet)))
        end.set()
        found.append(Round(alone, beside, heavies, await lag_of(gateway) - before, await probing))
        gateway.forget_log()
        tell(capacity, found[-1])
    return found


def tell(capacity: float, seen: Round) -> None:
    probes, lag = seen.probes_ms, {bound: count for bound, count in seen.lag.items() if count}
    statuses = answers(seen.alone), answers(seen.beside)
    refused_ms = max(each.refused_p50_ms for each in seen.heavy)
    print(
        f"of {capacity:.0f}/s: heavy {[each.statuses for each in seen.heavy]} refused p50 {refused_ms:.0f} ms, "
        f"quiet alone {dict(statuses[0])} and beside {dict(statuses[1])}, "
        f"p99 {seen.p99_ms[0]:.1f} and {seen.p99_ms[1]:.1f} ms, p50 {median(e.p50_ms for e in seen.alone):.1f} and "
        f"{median(e.p50_ms for e in seen.beside):.1f} ms, loop lag {lag}, "
        f"probes p50 {at(probes, 50):.1f} p99 {at(probes, 99):.1f} most {max(probes):.1f} ms"
    )


def is_lively(found: list[Round]) -> bool:
    """Of looks at the event loop one in a hundred may be late, and one."""
    lag = sum((each.lag for each in found), Counter[float]())
    late = sum(count for bound, count in lag.items() if bound > LAG_S)
    print(f"loop lag: {late} of {lag.total()} looks more than {LAG_S * 1000:.0f} ms late")
    return late <= 0.01 * lag.total() + 1


def answers(results: list[Result]) -> Counter[str]:
    return sum((Counter(each.statuses) for each in results), Counter[str]())


@pytest.mark.parametrize("limit", [*LIMITS, ""])
async def test_huge_prompts_of_one_instance_cost_others_no_answer(stack: ExitStack, tmp_path: Path, limit: str) -> None:
    limits = f"- {{name: huge, limit: {limit}}}\n" if limit else "[]\n"

    found = await rounds(start(stack, tmp_path, limits))

    heavy = answers([result for seen in found for result in seen.heavy])
    quiet = answers([result for seen in found for result in seen.beside])
    assert all(set(answers(seen.alone)) == {"200"} for seen in found)
    if limit:
        assert heavy["200"] <= LIMITS[limit]
        assert heavy["429"] > 0
    else:
        assert heavy["200"] > 0
    assert is_lively(found)
    assert set(quiet) == {"200"}
