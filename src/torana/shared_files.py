"""Files that workers map into memory: their space is there before they are written to."""

import errno
import os

_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def make_room(file: int, size: int) -> None:
    """The file has `size` bytes from now on, and room for all of them. Raises OSError where the disk has none.

    Without that, a write to the map of a file on a disk that has run full ends the process (SIGBUS).
    """
    os.ftruncate(file, size)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
