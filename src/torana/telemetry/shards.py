"""The numbers behind the metrics: one array per worker, summed over all workers when somebody asks.

A series is a place in the array. With a directory, the array is a file in memory that every worker
can read, and the list of series is one file that they share: the same place means the same series in
each of them, so the sum over all workers is the sum of the arrays, exact at the moment of asking.
A worker holds a lock on its file for as long as it lives. The next worker to start takes over the
file of a dead one, counters included: they never run backwards, and files do not pile up.
"""

import errno
import fcntl
import json
import logging
import mmap
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from torana.shared_files import make_room
from torana.telemetry.families import FAMILIES, Family

logger = logging.getLogger("torana.telemetry")

MAX_SERIES = 200
"""Per family, the one that collects what is too much included (contract 15)."""

OTHER = "other"

_FAMILY = {family.name: family for family in FAMILIES}
_NOWHERE = MAX_SERIES * sum(family.slots for family in FAMILIES)
"""Behind all places: for series that cannot be told to the siblings."""
ARRAY_BYTES = 8 * (_NOWHERE + max(family.slots for family in FAMILIES))

Labels = tuple[str, ...]


class Shards:
    """This worker's numbers, `values[place]`, and the way to those of its siblings.

    directory  shared by the workers of one server and made afresh at its start; None: one worker alone
    """

    def __init__(self, directory: Path | None = None) -> None:
        # A reload adds series from its own thread; and while one is written down, the log may count a line.
        self._lock = threading.RLock()
        self._places: dict[tuple[str, Labels], int] = {}
        self._count: dict[str, int] = dict.fromkeys(_FAMILY, 0)
        self._next_place = 0
        self._read_bytes = 0
        self._directory = directory
        self._series: int | None = None
        self._own = -1
        if directory is None:
            self.values = memoryview(bytearray(ARRAY_BYTES)).cast("d")
            return
        self._series = os.open(directory / "series", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._own = _take_array(directory)
        self.values = memoryview(mmap.mmap(self._own, ARRAY_BYTES)).cast("d")
        self._read_series()
        self._clear_gauges()

    def place(self, family: Family, labels: Labels) -> int:
        """Where the series keeps its (first) number. Slow; remember the answer.

        A family that is full gives the place of its series `other`, to everyone who asks.
        """
        key = (family.name, labels)
        with self._lock:
            found = self._places.get(key)
            if found is not None:
                return found
            if self._series is None:
                return self._add(family, labels)
            fcntl.flock(self._series, fcntl.LOCK_EX)  # held for two short calls; siblings wait that long
            try:
                self._read_series()
                found = self._places.get(key)
                return found if found is not None else self._add(family, labels)
            finally:
                fcntl.flock(self._series, fcntl.LOCK_UN)

    def sum(self) -> Mapping[Family, list[tuple[Labels, list[float]]]]:
        """Every family's series with their numbers, over all workers, dead ones included."""
        arrays = [(self.values, True)]
        if self._series is not None and self._directory is not None:
            own = os.fstat(self._own).st_ino
            arrays += [_read_array(path) for path in _array_paths(self._directory) if path.stat().st_ino != own]
            with self._lock:
                self._read_series()
        found: dict[Family, list[tuple[Labels, list[float]]]] = {family: [] for family in FAMILIES}
        for (name, labels), start in list(self._places.items()):
            family = _FAMILY[name]
            counted = [values for values, is_alive in arrays if is_alive or family.kind != "gauge"]
            join: Callable[[list[float]], float] = max if family.is_per_node else sum
            numbers = [join([values[place] for values in counted]) for place in range(start, start + family.slots)]
            found[family].append((labels, numbers))
        return found

    def of_siblings(self, place: int) -> list[float]:
        """The number of every other worker that is alive."""
        if self._series is None or self._directory is None:
            return []
        own = os.fstat(self._own).st_ino
        siblings = [_read_array(path) for path in _array_paths(self._directory) if path.stat().st_ino != own]
        return [values[place] for values, is_alive in siblings if is_alive]

    def close(self) -> None:
        """Let the next worker take this one's numbers over."""
        if self._series is not None:
            fcntl.flock(self._own, fcntl.LOCK_UN)  # the map holds a copy of the descriptor; closing ours frees nothing
            os.close(self._series)
            os.close(self._own)
            self._series = None

    def _add(self, family: Family, labels: Labels) -> int:
        key = (family.name, labels)
        if self._count[family.name] >= MAX_SERIES - 1:
            key = (family.name, (OTHER,) * len(family.labels))
            if key in self._places:
                return self._places[key]
        if self._series is not None and not self._tell(json.dumps(key).encode() + b"\n"):
            return _NOWHERE
        return self._remember(*key)

    def _tell(self, line: bytes) -> bool:
        """Write a series down for the siblings; False where the disk does not take it."""
        assert self._series is not None
        length = os.fstat(self._series).st_size
        try:
            if os.write(self._series, line) != len(line):
                os.ftruncate(self._series, length)  # half of it would spoil the next one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            logger.error("figures are not counted: their names cannot be written", extra={"reason": str(error)})
            return False
        self._read_bytes += len(line)
        return True

    def _remember(self, name: str, labels: Labels) -> int:
        place = self._places[(name, labels)] = self._next_place
        self._next_place += _FAMILY[name].slots
        self._count[name] += 1
        return place

    def _read_series(self) -> None:
        """Learn the series that siblings have added since the last look."""
        assert self._series is not None
        fresh = os.pread(self._series, os.fstat(self._series).st_size - self._read_bytes, self._read_bytes)
        whole = fresh[: fresh.rfind(b"\n") + 1]  # a sibling may be in the middle of a line
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            name, labels = json.loads(line)
            self._remember(name, tuple(labels))

    def _clear_gauges(self) -> None:
        """What a dead predecessor was doing at its end is no longer being done."""
        for (name, _), place in self._places.items():
            if _FAMILY[name].kind == "gauge":
                self.values[place] = 0.0


def _array_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("worker-*"))


def _take_array(directory: Path) -> int:
    """A locked file: that of a dead worker, else a new one."""
    number = 0
    while True:
        path = directory / f"worker-{number}"
        array = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(array, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(array)
            number += 1
            continue
        make_room(array, ARRAY_BYTES)
        return array


def _read_array(path: Path) -> "tuple[memoryview[float], bool]":
    """A sibling's numbers, and whether it is alive."""
    with path.open("rb") as file:
        numbers = file.read().ljust(ARRAY_BYTES, b"\0")  # one that is just being made is still short
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return memoryview(numbers).cast("d"), True
    return memoryview(numbers).cast("d"), False
