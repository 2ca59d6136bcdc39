"""How far one sink has read one folder, kept in the folder itself."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from torana.usage.disk import Disk
from torana.usage.folder import START, Position

_FORM = struct.Struct("<QQQQd")
_BYTES = _FORM.size + 4


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is delivered, and what may be."""

    position: Position = START
    """Everything before it is delivered."""
    tried: Position = START
    """Everything from `position` up to here was sent at least once, and nobody knows whether it arrived."""
    tried_at: float = 0.0
    """When that began, in Unix seconds."""

    @property
    def is_doubtful(self) -> bool:
        return self.tried > self.position


class CursorFile:
    """One sink's cursor in one folder. A lost or torn one begins anew: records then come twice, by the same ids."""

    def __init__(self, disk: Disk, folder: Path, sink: str) -> None:
        self._disk = disk
        self._path = folder / f"cursor-{sink}"

    def read(self, now: float) -> Cursor:
        """Raises OSError."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Cursor()
        if len(data) == _BYTES and crc32(data[: _FORM.size]).to_bytes(4, "little") == data[_FORM.size :]:
            segment, offset, tried_segment, tried_offset, tried_at = _FORM.unpack(data[: _FORM.size])
            return Cursor(Position(segment, offset), Position(tried_segment, tried_offset), tried_at)
        # Anything may have been delivered, as long ago as the folder was made: nobody writes into its lock.
        return Cursor(tried=Position(2**62, 0), tried_at=min(now, self._path.with_name("lock").stat().st_mtime))

    def write(self, cursor: Cursor) -> None:
        """In place, so that a full disk does not matter. Raises OSError."""
        position, tried = cursor.position, cursor.tried
        data = _FORM.pack(position.segment, position.offset, tried.segment, tried.offset, cursor.tried_at)
        fd = self._disk.open(self._path)
        try:
            os.pwrite(fd, data + crc32(data).to_bytes(4, "little"), 0)
        finally:
            self._disk.close(fd)
