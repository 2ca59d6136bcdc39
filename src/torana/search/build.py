"""Writes the index: one SQLite file, in it one FTS5 table per release and a list of the releases.

A table of its own keeps a release's word statistics its own, and dropping one is one statement.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from torana.search.pages import Page
from torana.search.release import Release

APPLICATION_ID = 0x746F7261
"""`tora`: says that the file is ours. Source: SQLite documentation, "PRAGMA application_id"."""

SCHEMA = 1

_RELEASES = "CREATE TABLE IF NOT EXISTS releases (major INTEGER, minor INTEGER, PRIMARY KEY (major, minor))"
_SECTIONS = """
CREATE VIRTUAL TABLE {table} USING fts5 (
    title, heading, content, source UNINDEXED, source_url UNINDEXED, md5sum UNINDEXED,
    tokenize = 'porter unicode61 remove_diacritics 2'
)"""


class NotAnIndex(Exception):
    """The file holds something else."""


@dataclass(frozen=True, slots=True)
class Built:
    pages: int
    sections: int
    releases: tuple[Release, ...]
    """All that the file holds now, in order."""


def build_index(pages: Iterable[Page], release: Release, out: Path, base_url: str) -> Built:
    """Put `release` into the file `out`, in place of what it held of that release; others stay.

    The file is replaced as a whole, so that a running gateway never reads half of one.

    Raises NotAnIndex, OSError, sqlite3.Error; `out` is then as it was.
    """
    out = out.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    os.close(handle)
    draft = Path(name)
    try:
        if out.exists():
            shutil.copyfile(out, draft)
        with closing(sqlite3.connect(draft, isolation_level=None)) as database:
            _check(database, is_new=not out.exists())
            database.execute("BEGIN")
            built = _fill(database, pages, release, base_url)
            database.execute("COMMIT")
            database.execute("VACUUM")
        # The draft is private to its maker; the gateway often runs as somebody else.
        draft.chmod(0o644)
        draft.replace(out)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    return built


def table_of(release: Release) -> str:
    """Two whole numbers, so the name is safe to put into a statement."""
    return f"sections_{release.major:d}_{release.minor:d}"


def _check(database: sqlite3.Connection, *, is_new: bool) -> None:
    if is_new:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SCHEMA}")
        database.execute(_RELEASES)
        return
    check_ours(database)


def check_ours(database: sqlite3.Connection) -> None:
    """Raises NotAnIndex for a file that is none, or of another version of this program."""
    try:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (schema,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise NotAnIndex(str(error)) from error
    if application != APPLICATION_ID:
        raise NotAnIndex("not made by `torana docs index`")
    if schema != SCHEMA:
        raise NotAnIndex(f"made by another version (schema {schema}, expected {SCHEMA})")


def _fill(database: sqlite3.Connection, pages: Iterable[Page], release: Release, base_url: str) -> Built:
    table = table_of(release)
    database.execute(f"DROP TABLE IF EXISTS {table}")
    database.execute(_SECTIONS.format(table=table))
    insert = f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 two numbers make the name
    page_count = section_count = 0
    for page in pages:
        page_count += 1
        url = page_url(page.path, base_url)
        for section in page.sections:
            section_count += 1
            row = (page.title, section.heading, section.text, page.path, url, page.md5sum)
            database.execute(insert, [_writable(text) for text in row])
    database.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")  # noqa: S608
    database.execute("INSERT OR IGNORE INTO releases VALUES (?, ?)", release)
    return Built(page_count, section_count, read_releases(database))


def read_releases(database: sqlite3.Connection) -> tuple[Release, ...]:
    """In order."""
    rows = database.execute("SELECT major, minor FROM releases ORDER BY major, minor")
    return tuple(Release(*row) for row in rows)


def page_url(path: str, base_url: str) -> str:
    """Where the page is published: `a/b.md` at `<base>/a/b/`, `a/index.md` and `a/_index.md` at `<base>/a/`."""
    bare = path.removesuffix(".md")
    folder, _, name = bare.rpartition("/")
    shown = folder if name in ("index", "_index") else bare
    return f"{base_url.rstrip('/')}/{shown}/" if shown else f"{base_url.rstrip('/')}/"


def _writable(text: str) -> str:
    """File names may hold what is no text; SQLite refuses it."""
    return text.encode("utf-8", "replace").decode()
