"""python -m bench: what a request and a streamed event cost, side by side with nginx in one run.

The figure is CPU microseconds of the whole process tree, not time: it does not move with the load
generator. Rows take turns within a round, so that a slow minute of the machine hits all of them.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench import processes, servers
from bench.load import Result
from bench.rows import EVENTS, PACE_MS, Row, rows_of

IDLE_RSS_BUDGET_MB, READY_BUDGET_S = 90, 1.0


@dataclass(slots=True)
class Figures:
    """Medians over the rounds. At a fixed low rate CPU says little (too few clock ticks): latency alone."""

    name: str
    unit: str
    cpu_us: float | None
    times_floor: float | None
    budget: float | None
    p50_ms: float
    p99_ms: float
    per_second: float
    errors: int
    first_error: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    cpu_us: float
    result: Result


def main() -> None:
    options = _options()
    servers.need("nginx")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        mock = stack.enter_context(servers.provider(directory))
        running = {"nginx": stack.enter_context(servers.nginx(directory, mock.port))}
        report: dict[str, object] = {"machine": _machine()}
        headers: dict[str, str] = {}
        if not options.nginx_only:
            ready_s = []
            for _ in range(options.rounds - 1):
                with servers.gateway(directory, mock.port) as once:
                    ready_s.append(once.ready_s)
            gateway = stack.enter_context(servers.gateway(directory, mock.port))
            time.sleep(1)  # whatever start-up put off until after it is part of being idle
            running["gateway"], headers = gateway, gateway.headers
            overlay = servers.write_overlay(directory, f"-e{EVENTS}-p{PACE_MS}")
            servers.need("redis-server")
            store = stack.enter_context(servers.redis(directory))
            limits = {"AIGW_CATALOG": str(overlay)}
            running["limited"] = stack.enter_context(servers.gateway(directory, mock.port, **limits))
            limits |= {"AIGW_REDIS_URL": f"redis://127.0.0.1:{store.port}", "AIGW_STATE_DIR": str(directory / "leased")}
            running["leased"] = stack.enter_context(servers.gateway(directory, mock.port, **limits))
            report["ready_s"] = median([*ready_s, gateway.ready_s])
            report["idle_rss_mb"] = processes.rss_mb(gateway.pid)
        rows = [row for row in rows_of(running, headers) if row.server in running]
        report["rows"] = [asdict(figures) for figures in _measure(rows, running, options.rounds, options.seconds)]
        if "gateway" in running:
            report["rss_after_load_mb"] = processes.rss_mb(running["gateway"].pid)
    print(json.dumps(report, indent=2) if options.json else _table(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 21), metavar="N", help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one row in one round (2)")
    parser.add_argument("--nginx-only", action="store_true", help="leave the gateway out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def _measure(rows: list[Row], running: dict[str, servers.Server], rounds: int, seconds: float) -> list[Figures]:
    samples: dict[str, list[Sample]] = {row.name: [] for row in rows}
    for row in rows:
        _run(row, running[row.server], 0.5)  # first uses, caches, connections
    for number in range(rounds):
        for row in rows:
            _tell(f"round {number + 1}/{rounds}: {row.name}")
            samples[row.name].append(_run(row, running[row.server], seconds))
    _tell("")
    cost = {name: median(sample.cpu_us for sample in found) for name, found in samples.items()}
    return [_figures(row, samples[row.name], cost) for row in rows]


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"{text:<60}", end="\r", file=sys.stderr, flush=True)


def _run(row: Row, server: servers.Server, seconds: float) -> Sample:
    job = asdict(row.job) | {"duration_s": seconds}
    before_s = processes.cpu_s(server.pid)
    command = ["taskset", "-c", str(processes.LOAD_CORE), sys.executable, "-m", "bench.load"]
    done = subprocess.run(
        command, input=json.dumps(job), capture_output=True, check=True, text=True, timeout=seconds * 2 + 60
    )
    spent_s = processes.cpu_s(server.pid) - before_s
    server.forget_log()
    result = Result(**json.loads(done.stdout))
    count = result.events if row.job.event else result.requests - result.errors
    return Sample(spent_s * 1e6 / max(count, 1), result)


def _figures(row: Row, samples: list[Sample], cost: dict[str, float]) -> Figures:
    results = [sample.result for sample in samples]
    count = [result.events if row.job.event else result.requests for result in results]
    return Figures(
        name=row.name,
        unit=row.unit,
        cpu_us=None if row.job.rate else cost[row.name],
        times_floor=cost[row.name] / cost[row.floor] if row.floor else None,
        budget=row.budget or None,
        p50_ms=median(result.p50_ms for result in results),
        p99_ms=median(result.p99_ms for result in results),
        per_second=median(number / result.seconds for number, result in zip(count, results, strict=True)),
        errors=sum(result.errors for result in results),
        first_error=next((result.first_error for result in results if result.first_error), ""),
    )


def _machine() -> str:
    described = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in described if "model name" in line), platform.machine())
    return f"{len(processes.CORES)} cores of {model}, CPython {platform.python_version()}"


def _table(report: dict[str, object]) -> str:
    rows = report["rows"]
    assert isinstance(rows, list)
    lines = [
        str(report["machine"]),
        "",
        f"| {'what':<26} | CPU us per      | floor x | budget | p50 ms | p99 ms | per second | errors |",
        f"|{'-' * 28}|-----------------|---------|--------|--------|--------|------------|--------|",
    ]
    for row in rows:
        times = f"{row['times_floor']:.1f}" if row["times_floor"] else ""
        budget = f"{row['budget']:g}" if row["budget"] else ""
        cpu = f"{row['cpu_us']:.1f} {row['unit']}" if row["cpu_us"] else ""
        lines.append(
            f"| {row['name']:<26} | {cpu:<15} | {times:>7} | {budget:>6} "
            f"| {row['p50_ms']:>6.1f} | {row['p99_ms']:>6.1f} | {row['per_second']:>10.0f} | {row['errors']:>6} |"
        )
    lines += [f"first error of {row['name']}: {row['first_error']}" for row in rows if row["first_error"]]
    if "ready_s" in report:
        idle_mb, loaded_mb = report["idle_rss_mb"], report["rss_after_load_mb"]
        lines += [
            "",
            f"ready after {report['ready_s']:.2f} s (budget {READY_BUDGET_S:g} s)",
            f"resident: {idle_mb:.0f} MB idle (budget {IDLE_RSS_BUDGET_MB} MB), {loaded_mb:.0f} MB after the load",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
