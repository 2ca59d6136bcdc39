"""Looks things up in an index file. Blocking: a question takes milliseconds, so callers ask from a thread.

The file is opened for each question: a connection costs some hundred microseconds, nothing is shared
between threads, and a file that was built anew serves from the next question on.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torana.search.build import NotAnIndex, check_ours, read_releases, table_of
from torana.search.release import Release

MAX_TOKENS = 8_000
"""Of all results' texts together (contract 12.1)."""

TOKENS_PER_WORD = 1.4

MAX_WORDS_ASKED = 32
"""Of a question; further different words would cost time and not change what is found."""

MAX_WORD_CHARS = 64

_WORD = re.compile(r"\w[\w\u0300-\u036f]*")
"""With the accents that some editors write as letters of their own; the tokenizer drops either kind."""
_WEIGHTS = "8.0, 4.0, 1.0"
"""What a word in title, heading and text counts."""

_COMMON = frozenset(
    _WORD.findall(
        "a about an and any are as at be by can do does for from get has have how i if in into is it its me my of on "
        "or our should so that the their there this to use was we what when where which who why will with you your"
    )
)
"""Stand in nearly every section: they find nothing, but make each of those be weighed."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One section that was found."""

    id: str
    """Small letters and digits alone: Rails reads no more of an id that an answer cites."""
    title: str
    heading: str
    content: str
    source: str
    """Path of the page within the documentation."""
    source_url: str
    md5sum: str


class DocsIndex:
    """The file at `path`; it need not be there yet."""

    def __init__(self, path: str) -> None:
        self.path = Path(path) if path else None

    @property
    def is_there(self) -> bool:
        return self.path is not None and self.path.is_file()

    def releases(self) -> tuple[Release, ...]:
        """What it holds, in order; empty without a file. Raises NotAnIndex, sqlite3.Error, OSError."""
        if not self.is_there:
            return ()
        with self._open() as database:
            return read_releases(database)

    def search(self, question: str, limit: int, wanted: Sequence[Release] | None) -> list[Hit] | None:
        """At most `limit` sections, best first, their texts together within MAX_TOKENS.

        wanted   releases, of which the first one that is held is searched; None: the highest one held
        returns  None where there is no file, or none of the releases in it

        Raises NotAnIndex, sqlite3.Error, OSError.
        """
        if not self.is_there:
            return None
        with self._open() as database:
            held = read_releases(database)
            release = next((each for each in (held[::-1] if wanted is None else wanted) if each in held), None)
            if release is None:
                return None
            expression = write_match(question)
            if not expression:
                return []
            table = table_of(release)
            # Two numbers make the table's name; what the caller wrote is bound.
            statement = f"""
                SELECT rowid, title, heading, content, source, source_url, md5sum FROM {table}
                WHERE {table} MATCH ? ORDER BY bm25({table}, {_WEIGHTS}), rowid LIMIT ?"""  # noqa: S608
            rows = database.execute(statement, (expression, limit)).fetchall()
        return fit_hits([Hit(f"doc{rowid}", *texts) for rowid, *texts in rows], MAX_TOKENS)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if self.path is None:
            raise NotAnIndex("no index is configured")
        # Immutable: nobody writes this very file, a new one takes its place; so no locks, not even on read-only disks.
        uri = f"{self.path.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            check_ours(database)
            yield database


def write_match(question: str) -> str:
    """A question of any kind as an FTS5 expression: its words, any of which may match; empty where it has none.

    Each word is quoted, so that none is an operator; punctuation is gone (contract 12.1).
    Source: SQLite documentation, "FTS5", full-text query syntax.
    """
    words: dict[str, None] = {}
    common: dict[str, None] = {}
    for found in _WORD.finditer(question):
        word = found[0].lower()
        # An underscore is no letter to the tokenizer; of such a word nothing would be left to look for.
        if len(word) <= MAX_WORD_CHARS and word.strip("_"):
            (common if word in _COMMON else words).setdefault(word)
        if len(words) == MAX_WORDS_ASKED:
            break
    return " OR ".join(f'"{word}"' for word in words or common)


def fit_hits(hits: list[Hit], max_tokens: int) -> list[Hit]:
    """The first ones that fit; the text of the last of them may be cut."""
    kept: list[Hit] = []
    words_left = int(max_tokens / TOKENS_PER_WORD)
    for hit in hits:
        if words_left <= 0:
            break
        words = len(hit.content.split())
        kept.append(hit if words <= words_left else replace(hit, content=_first_words(hit.content, words_left)))
        words_left -= words
    return kept


def _first_words(text: str, count: int) -> str:
    for number, found in enumerate(re.finditer(r"\S+", text), 1):
        if number == count:
            return text[: found.end()]
    return text
