"""Lines in a file that several processes add to: all of them or none, durable, and never joined to a torn one."""

import errno
import fcntl
import os
from contextlib import suppress


def lock(fd: int) -> None:
    """Nobody else changes the file until `fd` is closed."""
    with suppress(OSError):  # some file systems know no locks; lines of several workers still do not mix
        fcntl.flock(fd, fcntl.LOCK_EX)


def append_lines(fd: int, lines: bytes) -> None:
    """Adds `lines`, which end with a line's end. Raises OSError, and then none of it is there.

    fd  open for reading and appending; others wait for its lock until it is closed
    """
    lock(fd)
    length = os.fstat(fd).st_size
    if length and os.pread(fd, 1, length - 1) != b"\n":  # of a process that was killed while it wrote
        lines = b"\n" + lines
    try:
        if os.write(fd, lines) != len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, length)
        raise
