"""The tables of the embedded roll-up, for its one writer and its readers."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

PERIODS = {"minute": 60, "hour": 3_600, "day": 86_400}
"""Period → its seconds. Days begin at midnight UTC."""

NAMES = (
    "instance", "realm", "user", "feature", "unit_primitive", "model", "provider", "upstream_model", "status",
)  # fmt: skip
"""What can be told apart, by the names of the record's members."""

MEASURES = (
    "calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost",
    "unpriced", "uncertain", "milliseconds",
)  # fmt: skip
"""What is added up. `cost` of the priced calls, in 10^-12 dollars; `unpriced` and `uncertain` count calls: without a
known price, and with tokens that we counted."""

MONEY_SCALE = 10**12

VERSION = 1

_TABLES = f"""
CREATE TABLE usage (
    period TEXT NOT NULL, start INTEGER NOT NULL,
    {", ".join(f"{name} TEXT NOT NULL" for name in NAMES)},
    {", ".join(f"{name} INTEGER NOT NULL" for name in MEASURES)},
    PRIMARY KEY (period, start, {", ".join(NAMES)})) WITHOUT ROWID;
CREATE TABLE counted (folder TEXT PRIMARY KEY, segment INTEGER, offset INTEGER, at INTEGER) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


def rollup_path(spool: Path) -> Path:
    """Where a host keeps it."""
    return spool / "rollup.sqlite3"


def open_rollup(path: Path, *, is_reader: bool = False) -> "sqlite3.Connection":
    """Raises sqlite3.Error, OSError."""
    import sqlite3

    if is_reader:
        # As a writer would, without making one: a reader of a live file needs its shared memory beside it. A copy that
        # lies where nothing can be written is nobody's to change.
        is_still = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
        how = "immutable=1" if is_still else "mode=rw"
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=5)
        try:
            connection.execute("PRAGMA query_only = ON")
            _version_of(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection
    with _alone(path):
        if not path.exists():
            for leftover in ("-wal", "-shm"):  # of one that was deleted; with a new one they make no sense
                path.with_name(path.name + leftover).unlink(missing_ok=True)
        connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            _make(connection)
        except (sqlite3.Error, OSError):
            connection.close()
            raise
    return connection


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other worker opens it meanwhile. Raises OSError."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _version_of(connection: "sqlite3.Connection") -> int:
    """0 of an empty file. Raises sqlite3.Error, also where only a newer program knows what stands in it."""
    import sqlite3

    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise sqlite3.DatabaseError("the roll-up was made by a newer version of torana")
    return version


def _make(connection: "sqlite3.Connection") -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -2000")
    connection.execute("PRAGMA wal_autocheckpoint = 100")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _version_of(connection) == 0:
            for statement in _TABLES.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
