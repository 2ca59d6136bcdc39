"""Space kept back for the roll-up: on a disk that records have filled, what is counted nowhere could never leave it."""

import os
from contextlib import suppress
from pathlib import Path

SPARE_BYTES = 1 << 20
PLENTY_BYTES = 8 * SPARE_BYTES
"""Free space from which on it is taken: on a smaller disk records need it more."""


class Spare:
    """A file beside `path` that only takes room. All workers of a host have it together."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.spare")

    def keep(self) -> None:
        """Have it, where there is plenty."""
        with suppress(OSError):
            if self._path.exists() or self._free_bytes() < PLENTY_BYTES:
                return
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(file, bytes(SPARE_BYTES))
            finally:
                os.close(file)

    def give(self) -> bool:
        """Free its room, where the disk has no more than that; True where that has changed anything."""
        try:
            if self._free_bytes() >= SPARE_BYTES:
                return False
            self._path.unlink()
        except OSError:
            return False
        return True

    def _free_bytes(self) -> int:
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize
