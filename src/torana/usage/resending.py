"""Parked records on their way again, because an operator says so.

They become a folder of the spool whose worker is dead: the next one that looks takes it over, and delivers it to the
one sink, as it delivers everything. To all others it seems delivered.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex

import msgspec

from torana.usage.cursor import Cursor, CursorFile
from torana.usage.disk import Disk
from torana.usage.folder import RESENT, Position, make_folder
from torana.usage.frames import write_frame
from torana.usage.parking import Parking
from torana.usage.segments import Segments

SEGMENT_BYTES = 8 << 20
BATCH = 1000


class _Line(msgspec.Struct):
    event: msgspec.Raw


def resend(spool: Path, sink: str, others: Iterable[str]) -> int:
    """Give a sink's parked records to whichever worker looks next; returns how many. They keep their ids.

    others  the sinks that are not to get them
    Raises OSError, and then they are still parked.
    """
    path = Parking(spool, sink).path
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # nobody parks meanwhile
        events, torn = _read(path)
        if events:
            _spool(spool, events, others)
            os.ftruncate(fd, 0)
            os.pwrite(fd, torn, 0)
            os.fsync(fd)
    finally:
        os.close(fd)
    return len(events)


def _read(path: Path) -> tuple[list[bytes], bytes]:
    """(the records, the lines that hold none because somebody was killed while he wrote them)"""
    events, torn = [], []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            events.append(bytes(msgspec.json.decode(line, type=_Line).event))
        except msgspec.DecodeError:
            torn.append(line)
    return events, b"".join(torn)


def _spool(spool: Path, events: list[bytes], others: Iterable[str]) -> None:
    disk = Disk()
    folder = make_folder(disk, spool, f"{RESENT}{token_hex(8)}")
    try:
        segments = Segments(disk, folder.path, SEGMENT_BYTES)
        for start in range(0, len(events), BATCH):
            segments.append(b"".join(write_frame(event) for event in events[start : start + BATCH]))
        segments.close()
        for name in others:
            CursorFile(disk, folder.path, name).write(Cursor(Position(segments.number, segments.end)))
    except OSError:
        folder.remove()
        raise
    folder.release()
