"""One worker's folder in the spool: made and locked by its worker, found and taken over when that one is dead."""

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from torana.usage.disk import Disk
from torana.usage.frames import HEAD_BYTES, MAX_PAYLOAD_BYTES, read_frames
from torana.usage.segments import HEADER_START, SegmentHeader, segment_path

READ_BYTES = 4 * (HEAD_BYTES + MAX_PAYLOAD_BYTES)
"""One read; always more than a frame."""

_NEW = ".new-"
"""Begins the name of a folder that its worker has not locked yet."""

_TAIL = 16
"""Hex digits at the end of each name of ours."""

_ours = re.compile(rf"(?!{re.escape(_NEW)}).*[0-9a-f]{{{_TAIL}}}")
"""Other programs' folders may stand beside ours, with a file `lock` in them: what is taken over is deleted."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two records of one folder."""

    segment: int = 0
    offset: int = 0


START = Position()
"""Before everything."""


@dataclass(slots=True)
class Part:
    """Some records of a folder, in order."""

    payloads: list[bytes] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    """The place behind each."""
    next: Position = field(default_factory=Position)
    """Where to go on reading."""
    damaged: list[Position] = field(default_factory=list)
    """Where something torn or flipped was skipped."""
    is_full: bool = False
    """It ends for its own size, or with its segment: more was there already when it was read."""


class Folder:
    """A folder that is ours. Read by several threads, written by one."""

    def __init__(self, disk: Disk, path: Path, lock_fd: int) -> None:
        self.disk = disk
        self.path = path
        self.end = Position()
        """Up to here the records are durable and may be delivered."""
        self.delivered = Position()
        """Up to here every sink has them."""
        self._lock_fd = lock_fd
        self._ends: dict[int, int] = {}

    @property
    def name(self) -> str:
        return self.path.name

    def is_for(self, sink: str) -> bool:
        """Whether this sink gets its records."""
        receiver = receiver_of(self.name)
        return not receiver or receiver == sink

    def segments(self) -> list[int]:
        """The numbers of the segments that are there. Raises OSError."""
        return sorted(int(name[:-4]) for name in os.listdir(self.path) if name.endswith(".log") and name[:-4].isdigit())

    def read(self, start: Position, max_records: int) -> Part:
        """Records from `start` on, of one segment; none where nothing is left. Raises OSError."""
        numbers = [number for number in self.segments() if number >= start.segment]
        for number in numbers:
            offset = start.offset if number == start.segment else 0
            part = self._read_segment(number, offset, max_records)
            if part.payloads or part.damaged or part.next.offset > offset:
                return part
        return Part(next=start)

    def forget(self, before: int) -> None:
        """Delete the segments below this number: every sink has them. Raises OSError."""
        for number in self.segments():
            if number < before:
                self.disk.remove(segment_path(self.path, number))

    def size(self) -> int:
        """Bytes on the disk. Raises OSError."""
        total = 0
        for number in self.segments():
            with suppress(FileNotFoundError):
                total += segment_path(self.path, number).stat().st_size
        return total

    def remove(self) -> None:
        """All of it; nothing in it is needed any more. Raises OSError.

        The records first: while one is left, so is what is known of its deliveries, and the lock outlives both.
        """
        for path in sorted(self.path.iterdir(), key=lambda path: (path.suffix != ".log", path.name == "lock")):
            self.disk.remove(path)
        self.disk.remove_folder(self.path)
        self.release()

    def release(self) -> None:
        """Leave it to whoever comes next."""
        if self._lock_fd >= 0:
            self.disk.close(self._lock_fd)
            self._lock_fd = -1

    def _read_segment(self, number: int, offset: int, max_records: int) -> Part:
        end = self._end_of(number)
        if offset >= end:
            return Part(next=Position(number, offset))
        fd = self.disk.open(segment_path(self.path, number))
        try:
            length = min(end - offset, READ_BYTES)
            data = self.disk.read(fd, length, offset)
        finally:
            self.disk.close(fd)
        is_all = offset + len(data) >= end or len(data) < length
        scan = read_frames(data, is_all=is_all, max_payloads=max_records)
        part = Part(
            next=Position(number, offset + scan.end),
            damaged=[Position(number, offset + place) for place in scan.damaged],
            is_full=not is_all or len(scan.payloads) >= max_records or number < self.end.segment,
        )
        for payload, frame_end in zip(scan.payloads, scan.ends, strict=True):
            if not payload.startswith(HEADER_START):
                part.payloads.append(payload)
                part.positions.append(Position(number, offset + frame_end))
        return part

    def _end_of(self, number: int) -> int:
        """Where the records of a segment end. Raises OSError."""
        if number == self.end.segment:
            return self.end.offset
        if number > self.end.segment:
            return 0
        found = self._ends.get(number)
        if found is None:
            found = segment_path(self.path, number).stat().st_size
            with suppress(OSError, msgspec.DecodeError), segment_path(self.path, number + 1).open("rb") as following:
                for payload in read_frames(following.read(4096), is_all=False, max_payloads=1).payloads:
                    found = min(found, msgspec.json.decode(payload, type=SegmentHeader).previous_end)
            self._ends[number] = found
        return found


RESENT = "resent-"
"""How names of folders begin that no worker left behind: an operator has parked records sent again. The name of the
sink stands behind it, and then what the records are known by: `resent-billing.0123456789abcdef`."""


def receiver_of(name: str) -> str:
    """The one sink that a folder's records are for, by its name; empty: all."""
    return name.removeprefix(RESENT).partition(".")[0] if name.startswith(RESENT) and "." in name else ""


def new_name(gateway_id: str) -> str:
    """Of one process's folder."""
    return gateway_id + secrets.token_hex(_TAIL // 2)


def make_folder(disk: Disk, spool: Path, name: str) -> Folder:
    """A new folder of our own. Raises OSError."""
    disk.make_folder(spool)
    # Locked before it has a name that others look at.
    fresh, path = spool / f"{_NEW}{name}", spool / name
    disk.make_folder(fresh)
    fd = disk.open(fresh / "lock")
    try:
        disk.lock(fd)
        disk.rename(fresh, path)
    except OSError:
        disk.close(fd)
        raise
    return Folder(disk, path, fd)


def orphans(spool: Path, own: set[str]) -> list[str]:
    """Names of folders whose worker may be dead. Raises OSError."""
    return sorted(name for name in os.listdir(spool) if name not in own and _ours.fullmatch(name))


def take_orphan(disk: Disk, path: Path) -> Folder | None:
    """A folder whose worker is dead, locked: it is handed to one taker only. None: it is in use. Raises OSError."""
    lock = path / "lock"
    if not lock.exists():
        return None
    fd = disk.open(lock)
    folder = Folder(disk, path, fd)
    try:
        # Between the two looks it may have been emptied by another taker, and its lock with it.
        is_ours = disk.lock(fd) and lock.exists() and os.fstat(fd).st_nlink > 0
        if is_ours and (numbers := folder.segments()):
            folder.end = Position(numbers[-1], segment_path(path, numbers[-1]).stat().st_size)
    except OSError:
        folder.release()
        raise
    if not is_ours:
        folder.release()
    return folder if is_ours else None
