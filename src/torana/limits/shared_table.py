"""One table for all workers of a server: a file in memory, a lock, and for each worker a list of what it holds.

The counts are exact whichever worker is asked. The lock is held for some microseconds; the kernel frees it when its
holder dies. Whoever dies with calls under way leaves its list behind, and the next worker gives back what stands in it.
Where that was in the middle of a taking, streams are counted anew from the lists: their places would be taken for ever.
"""

import asyncio
import fcntl
import mmap
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torana.limits.table import (
    FOREVER,
    GRANTED,
    IS_EXACT,
    KEY_A,
    KEY_B,
    SALT_BYTES,
    SLOT_NUMBERS,
    SLOTS,
    UNTIL,
    USED,
    Key,
    Table,
)
from torana.shared_files import make_room

MAX_HELD = 16_384
"""Takings that one worker lists; what is held beyond it is not given back should the worker die."""
LINE_NUMBERS = 4
"""Both halves of the key, when the slot is over, the amount."""
HELD_BYTES = MAX_HELD * LINE_NUMBERS * 8
WATCH_S = 5.0
LOCK_PATIENCE_S, LOCK_LIMIT_S = 0.02, 1.0
"""A worker that is frozen with the lock in its hand must not freeze the others: after the patience they count without
it. One that only waits for its turn on a busy machine is waited for, up to the limit."""

_COUNTS, _HELD = "limit-counts", "limit-held-"
COUNTS_BYTES = (SLOTS * SLOT_NUMBERS + 1) * 8 + SALT_BYTES
"""On the disk, beside HELD_BYTES for each worker."""


class SharedTable(Table):
    """The table of a directory that the workers of one server share; made afresh at its start."""

    def __init__(self, directory: Path, slots: int = SLOTS) -> None:
        super().__init__(slots)
        self._holder = slots * SLOT_NUMBERS
        """Behind the slots: the process that has the lock; 0: none."""
        size = (self._holder + 1) * 8
        self._file = _open(directory / _COUNTS, size + SALT_BYTES)
        self.salt = self._share_salt(size)
        self.numbers = memoryview(mmap.mmap(self._file, size)).cast("q")
        self._directory, self._pid = directory, os.getpid()
        self._has_lock = False
        self._held_file, number = self._take_list()
        self._own = directory / f"{_HELD}{number}"
        self.lock, self.unlock = self._lock, self._unlock
        held = HeldList(self._held_file)
        self._give_back(held)
        self.note, self.forget = held.add, held.clear
        self.give_back_for_the_dead()

    def give_back_for_the_dead(self) -> int:
        """What workers held that are no more; returns how many takings."""
        count = 0
        for path in sorted(self._directory.glob(f"{_HELD}*")):
            if path == self._own:
                continue
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_size == HELD_BYTES:  # else its worker is just about to begin
                    count += self._give_back(HeldList(file))
                fcntl.flock(file, fcntl.LOCK_UN)
            except BlockingIOError:
                continue  # its worker lives
            finally:
                os.close(file)
        return count

    def close(self) -> None:
        """Leave the list to the next worker."""
        fcntl.flock(
            self._held_file, fcntl.LOCK_UN
        )  # the map holds a copy of the descriptor; closing ours frees nothing
        os.close(self._held_file)
        os.close(self._file)
        self.lock = self.unlock = _closed

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self._wait_for_lock():
                return
        self._has_lock = True
        died_within = self.numbers[self._holder] != 0
        self.numbers[self._holder] = self._pid
        if died_within:
            with suppress(OSError):  # no descriptor is free, say; and the lock must not stay with us
                self._count_streams()

    def _wait_for_lock(self) -> bool:
        started = time.monotonic()
        while True:
            waited_s = time.monotonic() - started
            os.sched_yield()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waited_s < LOCK_PATIENCE_S:
                    continue
                if waited_s > LOCK_LIMIT_S or _is_frozen(self.numbers[self._holder]):
                    return False
                time.sleep(0.001)
            else:
                return True

    def _unlock(self) -> None:
        if self._has_lock:  # else a frozen worker has it
            self._has_lock = False
            self.numbers[self._holder] = 0
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _count_streams(self) -> None:
        """Anew, from what workers list, the dead ones too until somebody gives it back."""
        held: Counter[Key] = Counter()
        for path in self._directory.glob(f"{_HELD}*"):
            lines = _read_list(path)
            if len(lines) == MAX_HELD:
                return  # it may hold more than it lists
            for _, key, until, amount in lines:
                if until == FOREVER:
                    held[key] += amount
        numbers = self.numbers
        for place, until in enumerate(numbers[UNTIL : self._holder : SLOT_NUMBERS].tolist()):
            if until == FOREVER:
                slot = place * SLOT_NUMBERS
                used = numbers[slot + USED] = held[numbers[slot + KEY_A], numbers[slot + KEY_B]]
                numbers[slot + UNTIL] = FOREVER if used else 0

    def _share_salt(self, at: int) -> bytes:
        """That of whoever came first; it stands behind the counts."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if not any(salt := os.pread(self._file, SALT_BYTES, at)):
                os.pwrite(self._file, salt := self.salt, at)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return salt

    def _take_list(self) -> tuple[int, int]:
        """A locked file: that of a dead worker, else a new one."""
        number = 0
        while True:
            file = _open(self._directory / f"{_HELD}{number}", HELD_BYTES)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                number += 1
                continue
            return file, number

    def _give_back(self, held: "HeldList") -> int:
        count = 0
        self.lock()
        try:
            for line, key, until, amount in held.lines():
                slot = self.look(key)
                if slot >= 0:
                    self._undo(slot, until, amount)
                held.wipe(line)
                count += 1
        finally:
            self.unlock()
        return count

    def _undo(self, slot: int, until: int, amount: int) -> None:
        numbers = self.numbers
        if until == 0:  # a flow: the amount is time
            numbers[slot + UNTIL] = max(0, numbers[slot + UNTIL] - amount)
        elif numbers[slot + UNTIL] == until:
            numbers[slot + USED] = max(0, numbers[slot + USED] - amount)
            if numbers[slot + IS_EXACT]:  # the shared count frees it by itself
                numbers[slot + GRANTED] = max(0, numbers[slot + GRANTED] - amount)
            if until == FOREVER and not numbers[slot + USED]:
                numbers[slot + UNTIL] = 0


class HeldList:
    """What one worker has taken and not yet settled; lines of numbers that outlive it."""

    def __init__(self, file: int) -> None:
        self._numbers = memoryview(mmap.mmap(file, HELD_BYTES)).cast("q")
        self._free = list(range(MAX_HELD - 1, -1, -1))

    def add(self, key: Key, until: int, amount: int) -> int:
        """Returns the line, for `clear`; -1 where there is no room."""
        if not self._free:
            return -1
        line = self._free.pop()
        start = line * LINE_NUMBERS
        numbers = self._numbers
        numbers[start + 1], numbers[start + 2], numbers[start + 3] = key[1], until, amount
        numbers[start] = key[0]  # last: a line counts once this is there
        return line

    def clear(self, line: int) -> None:
        if line >= 0:
            self.wipe(line)
            self._free.append(line)

    def wipe(self, line: int) -> None:
        """As `clear`, for the line of somebody else."""
        self._numbers[line * LINE_NUMBERS] = 0

    def lines(self) -> Iterator[tuple[int, Key, int, int]]:
        numbers = self._numbers
        for line in range(MAX_HELD):
            start = line * LINE_NUMBERS
            if numbers[start]:
                yield line, (numbers[start], numbers[start + 1]), numbers[start + 2], numbers[start + 3]


def _read_list(path: Path) -> list[tuple[int, Key, int, int]]:
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return list(HeldList(file).lines()) if os.fstat(file).st_size == HELD_BYTES else []
    finally:
        os.close(file)


async def watch_the_dead(table: Table, every_s: float = WATCH_S) -> None:
    """Gives back, every few seconds, what dead workers held, should none come after them. Runs until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        with suppress(OSError):  # no descriptor is free, say: the next look is as good
            table.give_back_for_the_dead()


def _open(path: Path, size: int) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        make_room(file, size)
    except OSError:
        os.close(file)
        raise
    return file


def _is_frozen(pid: int) -> bool:
    """Whether somebody has stopped the process; what nobody can tell is none."""
    try:
        # `pid (name) state …`, and a name may hold anything.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False


def _closed() -> None:
    """Nothing is counted after the end."""
