"""The place where code is wanted: the line, what is open, how deep it stands, what follows."""

import re
from dataclasses import dataclass

from torana.providers.demo.languages import Language

CLOSERS = {"(": ")", "[": "]", "{": "}"}
MAX_LINE_CHARS = 400
"""Longer lines are data, not statements; only their end is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The bounded surroundings of a cursor."""

    language: Language
    before: str
    after: str
    line: str
    """The cursor's line, up to the cursor."""
    rest: str
    """The cursor's line, from the cursor on."""
    above: str
    """The nearest line above that is not blank."""
    below: str
    """The nearest line below that is not blank."""
    indent_unit: str

    @property
    def is_at_line_start(self) -> bool:
        return not self.line.strip()


def find_cursor(language: Language, before: str, after: str) -> Cursor:
    lines = before.rsplit("\n", 30)
    rest, _, beyond = after.partition("\n")
    return Cursor(
        language=language,
        before=before,
        after=after,
        line=lines[-1][-MAX_LINE_CHARS:],
        rest=rest.strip(),
        above=next((line for line in reversed(lines[1:-1] or lines[:-1]) if line.strip()), "")[:MAX_LINE_CHARS],
        below=next((line for line in beyond.split("\n", 30) if line.strip()), "")[:MAX_LINE_CHARS],
        indent_unit=_find_indent_unit(before, language.indent),
    )


def indent_of(line: str) -> str:
    """The white space at a line's begin."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def open_brackets(code: str) -> tuple[list[str], str]:
    """The closers that `code` still waits for, innermost last, and the quote that it stands in, if any."""
    waiting, quote, _ = _scan(code)
    return waiting, quote


def count_strays(code: str) -> int:
    """How many brackets of `code` close nothing."""
    return _scan(code)[2]


def _scan(code: str) -> tuple[list[str], str, int]:
    # Quotes end with their line, so that an apostrophe in prose spoils one line at most.
    waiting: list[str] = []
    quote = ""
    is_escaped = False
    strays = 0
    for letter in code:
        if letter == "\n":
            quote, is_escaped = "", False
        elif quote:
            if letter == quote and not is_escaped:
                quote = ""
            is_escaped = letter == "\\" and not is_escaped
        elif letter in "\"'`":
            quote = letter
        elif letter in CLOSERS:
            waiting.append(CLOSERS[letter])
        elif waiting and letter == waiting[-1]:
            waiting.pop()
        elif letter in ")]}":
            strays += 1
    return waiting, quote, strays


def block_end(language: Language, line: str) -> str | None:
    """What closes the block that `line` opens; empty in languages of indentation; None if it opens none."""
    code = line.strip()
    if not code or code.startswith(language.comment):
        return None
    for opens, closer in language.blocks:
        if re.fullmatch(opens, code[:MAX_LINE_CHARS]):
            return closer
    if language.style == "indent":
        return "" if code.endswith(":") else None
    if language.style == "braces" and code.endswith("{"):
        return "}"
    return None


def is_closed_below(cursor: Cursor, indent: str, closer: str) -> bool:
    """The block that begins at `indent` has its end in the code after the cursor."""
    return bool(closer) and indent_of(cursor.below) == indent and cursor.below.strip().startswith(closer)


def has_body_below(cursor: Cursor, indent: str) -> bool:
    return len(indent_of(cursor.below)) > len(indent)


def _find_indent_unit(code: str, default: str) -> str:
    """The first indentation of the code, which nearly always is one level."""
    found = re.search(r"^([ \t]+)(?=\S|\Z)", code[:8_000], re.MULTILINE)
    if found is None:
        return default
    first = found[1]
    return "\t" if first[0] == "\t" else first if len(first) <= 8 else default
