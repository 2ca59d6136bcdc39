"""The usage spool from outside: what lies in it, and disks that do what a test wants."""

import asyncio
import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torana.usage.disk import Disk
from torana.usage.frames import read_frames


def read_spool(spool: Path) -> list[dict[str, Any]]:
    """Every record below `spool`, read as it lies there; the way the gateway reads it is not asked."""
    found: list[dict[str, Any]] = []
    for file in sorted(spool.glob("*/*.log")):
        found += [json.loads(payload) for payload in read_frames(file.read_bytes(), is_all=True).payloads]
    return [record for record in found if "id" in record]


class HeldDisk(Disk):
    """Syncs of usage records wait until the test lets them go."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._released = threading.Event()
        self._released.set()

    def hold(self) -> None:
        self._released.clear()
        self._entered.clear()

    async def held(self) -> None:
        """Returns once a sync is waiting."""
        assert await asyncio.to_thread(self._entered.wait, 10)

    def release(self) -> None:
        self._released.set()

    def sync(self, fd: int) -> None:
        self._wait()
        super().sync(fd)

    def append(self, fd: int, data: bytes, offset: int) -> None:
        self._wait()
        super().append(fd, data, offset)

    def _wait(self) -> None:
        if not self._released.is_set():
            self._entered.set()
            assert self._released.wait(20)


class BrokenDisk(Disk):
    """Works until `breaks` is set; then every change fails with that error."""

    def __init__(self) -> None:
        self.breaks = 0
        """An `errno`, such as ENOSPC; 0: all is well."""
        self.operations = frozenset(("make_folder", "create", "reserve", "write", "sync"))
        """What fails."""

    def _check(self, operation: str) -> None:
        if self.breaks and operation in self.operations:
            raise OSError(self.breaks, errno.errorcode[self.breaks])

    def make_folder(self, path: Path) -> None:
        self._check("make_folder")
        super().make_folder(path)

    def create(self, path: Path) -> int:
        self._check("create")
        return super().create(path)

    def reserve(self, fd: int, offset: int, length: int) -> None:
        self._check("reserve")
        super().reserve(fd, offset, length)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._check("write")
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._check("sync")
        super().sync(fd)

    def remove(self, path: Path) -> None:
        self._check("remove")
        super().remove(path)

    def append(self, fd: int, data: bytes, offset: int) -> None:
        self._check("write")
        self._check("sync")
        super().append(fd, data, offset)


class DeadlyDisk(Disk):
    """Kills its process instead of doing the operation of this number, counted from 0."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
        return super().__getattribute__(name)


def is_killed(number: int, use: Callable[[Disk], object]) -> bool:
    """Whether a process that uses a disk so is killed at that operation; False where it needs fewer."""
    child = os.fork()
    if not child:
        status = 1
        try:
            use(DeadlyDisk(number))
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0
