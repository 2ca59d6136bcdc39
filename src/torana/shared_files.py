"""Files that workers map into memory: their space is there before they are written to, and they go with the server."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What file systems answer that cannot keep space for a file; they are written to without."""


def make_room(file: int, size: int) -> None:
    """The file has `size` bytes from now on, and room for all of them. Raises OSError where the disk has none.

    Without that, a write to the map of a file on a disk that has run full ends the process (SIGBUS).
    """
    os.ftruncate(file, size)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise


@contextmanager
def own_folder(prefix: str, parent: Path) -> Iterator[Path]:
    """A folder of this process and its forks; raises OSError. What killed processes have left goes first."""
    for left in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            _remove_unless_owned(left)
    # It is owned before it has the name by which others look for what is left.
    folder = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    owned = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(owned, fcntl.LOCK_SH)
        folder = folder.rename(parent / folder.name.removeprefix("."))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owned)


def _remove_unless_owned(folder: Path) -> None:
    """Raises OSError for one that is owned, or is no folder of this user's."""
    found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(found).st_uid == os.geteuid():
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    finally:
        os.close(found)
