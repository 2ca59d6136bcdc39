"""python -m bench.steps: how many steps of the interpreter a request takes, and in which functions.

Steps (bytecode instructions of the event loop's thread) do not move with the machine or with what else it does: the
same code gives the same count within half a percent. What C code and the kernel do is not in them: they tell two
versions of one path apart, not two paths. Requests come one after another, so nothing is done in groups.

    python -m bench.steps ["relay, request" …] [--top N] [--json]
"""

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from bench import servers
from bench.rows import EVENTS, PACE_MS, Row, rows_of

FIRST_USES, COUNTED = 60, 40
COUNT_TO = "BENCH_STEPS"
"""The environment's name for the folder that a worker writes its counts to."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="steps-") as name, ExitStack() as stack:
        directory = Path(name)
        mock = stack.enter_context(servers.provider(directory))
        program = (sys.executable, "-m", "bench.steps", "--serve")
        counting = {COUNT_TO: name}
        plain = stack.enter_context(servers.gateway(directory, mock.port, program=program, **counting))
        counting["AIGW_CATALOG"] = str(servers.write_overlay(directory, f"-e{EVENTS}-p{PACE_MS}"))
        limited = stack.enter_context(servers.gateway(directory, mock.port, program=program, **counting))
        running: dict[str, servers.Server] = {"gateway": plain, "limited": limited}
        rows = [row for row in rows_of(running, plain.headers) if row.server in running and not row.job.rate]
        if unknown := sorted(set(options.rows) - {row.name for row in rows}):
            raise SystemExit(f"bench: no such row: {unknown[0]}. Rows: {'; '.join(row.name for row in rows)}")
        asked = [row for row in rows if row.name in (options.rows or [row.name])]
        counts = [(row, _count(row, running[row.server], directory)) for row in asked]
    if options.json:
        print(json.dumps({row.name: found for row, found in counts}, indent=2))
        return
    for row, found in counts:
        print(f"{row.name}: {sum(found.values()):.0f} steps a{'n event' if row.job.event else ' request'}")
        for function, steps in list(found.items())[: options.top]:
            print(f"  {steps:8.1f}  {function}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", help="names of rows; all")
    parser.add_argument("--top", type=int, default=25, help="how many functions are named (25)")
    parser.add_argument("--json", action="store_true", help="all functions, as JSON")
    return parser.parse_args()


def _count(row: Row, server: servers.Server, directory: Path) -> dict[str, float]:
    """Steps a request, or an event, by function, most first."""
    connection = http.client.HTTPConnection("127.0.0.1", row.job.port, timeout=30)
    _ask(connection, row, 2 if row.job.event else FIRST_USES)
    _tell(server.pid)
    counted = _ask(connection, row, 2 if row.job.event else COUNTED)
    _tell(server.pid)
    connection.close()
    counts = directory / "counts.json"
    while not counts.exists():
        time.sleep(0.01)
    found = json.loads(counts.read_bytes())
    counts.unlink()
    return {name: steps / counted for name, steps in sorted(found.items(), key=lambda item: -item[1])}


def _ask(connection: http.client.HTTPConnection, row: Row, times: int) -> int:
    """How many requests, or events of streams, were answered."""
    events = 0
    for _ in range(times):
        connection.request("POST", row.job.path, row.job.body, row.job.headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"bench: {row.name}: {answer.status} {body[:300]!r}")
        events += body.count(row.job.event.encode()) if row.job.event else 0
    return events if row.job.event else times


def _tell(pid: int) -> None:
    """One worker is the whole gateway: the signal begins, or ends and writes what was counted."""
    os.kill(pid, signal.SIGUSR2)
    time.sleep(0.2)


class Steps:
    """Counts in the thread that gets the signal, which is the event loop's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: Counter[CodeType] = Counter()
        self._is_on = False

    def toggle(self, number: int, frame: FrameType | None) -> None:
        self._is_on = not self._is_on
        if self._is_on:
            self._found.clear()
            sys.settrace(self._enter)
            return
        sys.settrace(None)
        named = {_name(code): steps for code, steps in self._found.items()}
        whole = self._path.with_suffix(".part")
        whole.write_text(json.dumps(named))
        whole.rename(self._path)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            self._found[frame.f_code] += 1
        return self._step


def _name(code: CodeType) -> str:
    place = Path(code.co_filename)
    return f"{place.parent.name}/{place.name}:{code.co_firstlineno} {code.co_qualname}"


def _serve() -> None:
    signal.signal(signal.SIGUSR2, Steps(Path(os.environ[COUNT_TO]) / "counts.json").toggle)
    from torana.cli import main as torana  # not before: the measured process alone has it

    sys.argv = ["torana", *sys.argv[2:]]
    torana()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve()
    else:
        main()
