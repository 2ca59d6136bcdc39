"""Parked records on their way again, because an operator says so.

They become a folder of the spool whose worker is dead: the next one that looks takes it over, and delivers it, as it
delivers everything, to the one sink that its name says. Until it is whole nobody sees it, whoever is killed meanwhile.
"""

import fcntl
import os
import shutil
from errno import EEXIST
from hashlib import blake2b
from pathlib import Path

import msgspec

from torana.usage.disk import Disk
from torana.usage.folder import RESENT, make_folder
from torana.usage.frames import write_frame
from torana.usage.parking import Parking
from torana.usage.segments import Segments

SEGMENT_BYTES = 8 << 20
BATCH = 1000


class _Line(msgspec.Struct):
    event: msgspec.Raw


def resend(spool: Path, sink: str, disk: Disk | None = None) -> int:
    """Give a sink's parked records to whichever worker looks next; returns how many. They keep their ids.

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
            _spool(disk or Disk(), spool, sink, events)
            os.ftruncate(fd, 0)
            os.pwrite(fd, torn, 0)
            os.fsync(fd)
    finally:
        os.close(fd)
    return len(events)


def _read(path: Path) -> tuple[list[bytes], bytes]:
    """(the records, the lines that hold none because somebody was killed while he wrote them)

    The records as the spool has them, without a blank, whatever an operator's tools have made of the file: their ids
    are known by their place.
    """
    events, torn = [], []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            events.append(msgspec.json.format(bytes(msgspec.json.decode(line, type=_Line).event), indent=-1))
        except msgspec.DecodeError:
            torn.append(line)
    return events, b"".join(torn)


def _spool(disk: Disk, spool: Path, sink: str, events: list[bytes]) -> None:
    # Known by what it holds: where somebody was killed before the file was empty, there is no second one beside it,
    # and a sink that has counted it knows it again.
    path = spool / f"{RESENT}{sink}.{blake2b(b''.join(events), digest_size=8).hexdigest()}"
    if path.exists():
        raise FileExistsError(EEXIST, "these records are on their way already", str(path))
    hidden = spool / f".{RESENT}{sink}"
    shutil.rmtree(hidden, ignore_errors=True)  # of one who was killed: the lock on the parked is ours now
    folder = make_folder(disk, spool, hidden.name)
    try:
        segments = Segments(disk, hidden, SEGMENT_BYTES)
        for start in range(0, len(events), BATCH):
            segments.append(b"".join(write_frame(event) for event in events[start : start + BATCH]))
        segments.close()
        _hand_over(hidden, spool)
        disk.rename(hidden, path)
    except OSError:
        folder.remove()
        raise
    folder.release()
    disk.sync_folder(spool)


def _hand_over(folder: Path, spool: Path) -> None:
    """To the user as whom the gateway runs, where root sends: it must be able to lock and delete it."""
    if os.geteuid() == 0:
        owner = spool.stat()
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
