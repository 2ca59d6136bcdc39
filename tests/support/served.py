"""`torana serve` as real processes, on free ports: how a test starts one, waits for it and sees its workers."""

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.processes import children, free_port
from tests.support.http_client import Answer, fetch
from tests.support.waiting import PATIENT, WAIT_S

TORANA = str(Path(sys.executable).parent / "torana")
NOBODY = {"AIGW_GITLAB_URL": "http://127.0.0.1:9", "AIGW_CUSTOMER_PORTAL_URL": "http://127.0.0.1:9"}
"""Issuers that refuse connections: nothing leaves the machine."""


@dataclass
class Served:
    """One `torana serve` and where it listens."""

    process: asyncio.subprocess.Process
    port: int
    metrics_port: int
    folder: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        # The last one may be half written.
        return [json.loads(line) for line in self.stdout.rpartition("\n")[0].splitlines()]

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    async def until(self, holds: Callable[[], Awaitable[Any]], within_s: float = WAIT_S) -> Any:
        """What `holds` returns as soon as it is true; connections refused or ended on the way count as not yet."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if found := await holds():
                        return found
                except (OSError, asyncio.IncompleteReadError):
                    pass
                await asyncio.sleep(0.03)

    async def ready(self) -> "Served":
        async def is_ready() -> bool:
            assert self.process.returncode is None, self.stderr
            return (await self.ask("/monitoring/ready")).status == 200

        await self.until(is_ready)
        return self

    async def banner(self) -> str:
        async def shown() -> str:
            return self.stderr if "Try it" in self.stderr else ""

        return str(await self.until(shown))

    async def ask(self, path: str) -> Answer:
        return await fetch(self.port, "GET", path)

    async def monitoring(self, path: str) -> Answer:
        return await fetch(self.metrics_port, "GET", path)

    async def workers(self) -> list[int]:
        return sorted(children().get(self.process.pid, []))

    async def end(self) -> int:
        """Waits for the process; its exit code."""
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()


def environment(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the tests' own environment but the way to programs."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AIGW_STATE_DIR": str(folder / "state"),
        **NOBODY,
        **PATIENT,
        **env,
    }


async def spawn(
    folder: Path,
    *args: str,
    env: Mapping[str, str],
    files: int | None = None,
    program: Sequence[str] = (TORANA,),
) -> asyncio.subprocess.Process:
    """`torana serve` with these arguments.

    files    the limit of open files, hard and soft
    program  what stands for `torana`
    """
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files)) if files else None
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        return await asyncio.create_subprocess_exec(
            *program,
            "serve",
            *args,
            cwd=folder,
            env=environment(folder, env),
            stdout=stdout,
            stderr=stderr,
            preexec_fn=limit,
        )


@asynccontextmanager
async def served(
    folder: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    files: int | None = None,
    program: Sequence[str] = (TORANA,),
) -> AsyncIterator[Served]:
    """As `spawn`; killed at the end, if it still runs."""
    port, metrics_port = free_port(), free_port()
    ports = ["--port", str(port), "--metrics-port", str(metrics_port)]
    usual = {"AIGW_ENVIRONMENT": "development", **(env or {})}
    process = await spawn(folder, *ports, *args, env=usual, files=files, program=program)
    try:
        yield Served(process, port, metrics_port, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*command: str, env: Mapping[str, str], folder: Path, cwd: Path | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd or folder,
        env=environment(folder, env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WAIT_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, stdout.decode(), stderr.decode()
