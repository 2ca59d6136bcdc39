"""The file operations of the spool, passed in as a part: tests hand over disks that are full, broken or gone."""

import fcntl
import os
from pathlib import Path


class Disk:
    """Each method raises OSError, as the system does."""

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, path: Path) -> int:
        """A new file, open for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lock(self, fd: int) -> bool:
        """Ours until `fd` is closed, also by death; False where somebody else has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def reserve(self, fd: int, offset: int, length: int) -> None:
        """Space that later writes will find, whoever fills the disk meanwhile."""
        os.posix_fallocate(fd, offset, length)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data`."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(fd, rest, offset)
            rest, offset = rest[count:], offset + count

    def append(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data`, durable when it returns: one system call, where `write` and `sync` are two."""
        rest = memoryview(data)
        while rest:
            count = os.pwritev(fd, [rest], offset, os.RWF_DSYNC)
            rest, offset = rest[count:], offset + count

    def read(self, fd: int, length: int, offset: int) -> bytes:
        return os.pread(fd, length, offset)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Makes the names in a folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        path.rmdir()

    def close(self, fd: int) -> None:
        os.close(fd)
