"""Entries of data files: what stands in blocks like the one around the cursor comes next."""

import re
from collections.abc import Iterator

from torana.providers.demo.cursor import Cursor, indent_of

_LOOKED_AT_LINES = 200
_KEY = re.compile(r"[\"'\w.$@-]+|\S")


def follow_siblings(cursor: Cursor) -> Iterator[str]:
    """Lines that other blocks have and this one lacks, most fitting first; at the start of a line only."""
    if not cursor.is_at_line_start or cursor.rest:
        return
    lines = [line for line in cursor.before.rsplit("\n", _LOOKED_AT_LINES)[:-1] if line.strip()]
    depth = len(cursor.line)
    own: list[str] = []
    while lines and len(indent_of(lines[-1])) >= depth > 0:
        line = lines.pop()
        if len(indent_of(line)) == depth:
            own.insert(0, line)
    if not lines:
        return
    *lines, head = lines
    own_keys = [_key_of(line) for line in own]
    for entries in _blocks_like(head, lines, depth):
        keys = [_key_of(entry) for entry in entries]
        # Behind the entry that stands last here, else the first that is missing.
        start = keys.index(own_keys[-1]) + 1 if own_keys and own_keys[-1] in keys else 0
        for entry in [*entries[start:], *entries[:start]]:
            if _key_of(entry) not in own_keys:
                yield entry.strip()


def _blocks_like(head: str, lines: list[str], depth: int) -> Iterator[list[str]]:
    """The direct entries of blocks whose first lines resemble `head`, the nearest one first."""
    entries: list[str] = []
    for line in reversed(lines):
        here = len(indent_of(line))
        if here == depth:
            entries.insert(0, line)
        elif here < depth:
            if entries and here == len(indent_of(head)) and _ends_alike(line, head):
                yield entries
            entries = []


def _ends_alike(line: str, head: str) -> bool:
    """Both open a block; where the kind is named first, of the same kind."""
    if line.rstrip()[-1] != head.rstrip()[-1]:
        return False
    kind, other = _key_of(line), _key_of(head)
    return kind == other or not (kind.isalpha() and head.rstrip().endswith("{"))


def _key_of(line: str) -> str:
    found = _KEY.match(line.strip())
    return found[0] if found else ""
