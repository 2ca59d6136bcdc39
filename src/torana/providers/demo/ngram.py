"""Completes code at a cursor without a model: declarations, then n-grams, then what is still open.

Pure and deterministic. Only the surroundings of the cursor are looked at, so that the largest
files cost no more than a page.
"""

import re
from collections.abc import Iterator

from torana.chat import FillIn
from torana.providers.demo.cursor import Cursor, count_strays, find_cursor, indent_of, open_brackets
from torana.providers.demo.declare import finish_function
from torana.providers.demo.fields import keep_next_param
from torana.providers.demo.generate import write_known_function
from torana.providers.demo.grams import Grams
from torana.providers.demo.languages import find_language, read_language
from torana.providers.demo.markup import follow_tags
from torana.providers.demo.names import settle_names
from torana.providers.demo.siblings import follow_siblings
from torana.providers.demo.tidy import tidy
from torana.providers.demo.writer import Writer

BEFORE_CHARS = 16_000
AFTER_CHARS = 4_000
CONTEXT_CHARS = 16_000
OPENED_CHARS = 2_000
"""How far back brackets are looked for that a line may close."""

_COMPOUND = re.compile(r"(?:async|case|class|def|elif|else|except|finally|for|if|match|try|while|with)\b|[\w\"'-]+:\Z")
_ASSIGNMENT = re.compile(r"[\w\s<>*&,:$@.]+(?<![=!<>+*/-])=(?!=)")


def complete(fill_in: FillIn, choices: int = 1) -> list[str]:
    """Up to `choices` different completions, best first; none where nothing sensible is known."""
    before, after = fill_in.prefix[-BEFORE_CHARS:], fill_in.suffix[:AFTER_CHARS]
    if not before.strip():
        return []
    name = find_language(fill_in.language, fill_in.file_name, before)
    language = read_language(name)
    if language.style == "flat" and before.rstrip().rsplit("\n", 1)[-1].lstrip().startswith("def "):
        language = read_language("python")
    cursor = find_cursor(language, before, after)
    found: list[str] = []
    for candidate in _candidates(cursor, fill_in.context[:CONTEXT_CHARS]):
        text = tidy(candidate, before, after)
        if text.strip() and text not in found:
            found.append(text)
            if len(found) == choices:
                break
    return found


def _candidates(cursor: Cursor, context: str) -> Iterator[str]:
    """From the most to the least fitting."""
    opened = cursor.before[-OPENED_CHARS:] if cursor.is_at_line_start else cursor.line
    strays = count_strays(opened)
    function = finish_function(cursor) or keep_next_param(cursor) or _follow_comment(cursor)
    # The declaration alone, where the body does not suit.
    declaration = function.split("\n", 1)[0] if function is not None else ""
    if function is not None and count_strays(opened + declaration) <= strays:
        yield function
        yield declaration
    if cursor.language.is_data:
        yield from follow_tags(cursor)
        yield from follow_siblings(cursor)
    sources = [cursor.language.sample, context, cursor.after, cursor.before]
    grams = Grams([source for source in sources if source.strip()], cursor.language.words)
    writer = Writer(cursor, grams)
    known = "\n".join(sources[1:])
    foreign: list[str] = []
    for start in writer.starts():
        text = writer.write(start)
        if _is_declared(cursor, text) or count_strays(opened + text) > strays:
            continue
        settled = settle_names(cursor, text, known)
        if settled is None:
            if start.matched > 1 and (call := re.match(r"[^()\n]*\w\(", text)):
                yield f"{call[0]})"
            foreign += [text, text.split("\n", 1)[0]]
            continue
        is_odd = _is_odd(cursor, settled)
        if not is_odd:
            yield settled
            yield settled.split("\n", 1)[0]
        is_bare_keyword = cursor.is_at_line_start and start.word in cursor.language.words
        if not start.word.startswith("\n") and not is_bare_keyword and (writer.partial or not is_odd):
            yield settle_names(cursor, writer.lead + start.word, known) or ""
    waiting, quote = open_brackets(cursor.line)
    if quote or waiting:
        yield quote + "".join(reversed(waiting))
    if not cursor.is_at_line_start:
        yield from foreign
    yield from writer.last_resorts()
    yield from foreign


def _is_odd(cursor: Cursor, text: str) -> bool:
    """The first line would open a block without a word for it, or assign what was assigned above."""
    line = (cursor.line + text.split("\n", 1)[0]).strip()
    if cursor.language.style == "indent" and line.endswith(":") and not _COMPOUND.match(line):
        return True
    return not cursor.language.is_data and _ASSIGNMENT.match(line) is not None and line in _lines_above(cursor)


def _lines_above(cursor: Cursor) -> set[str]:
    return {line.strip() for line in cursor.before.rsplit("\n", 30)[1:]}


def _follow_comment(cursor: Cursor) -> str | None:
    """The function that the comment above the cursor asks for, where we have one."""
    comment = (cursor.above if cursor.is_at_line_start else cursor.line).strip()
    is_near = not cursor.is_at_line_start or cursor.before.rstrip(" \t").endswith(f"{comment}\n")
    if cursor.rest or not is_near or not comment.startswith(cursor.language.comment):
        return None
    indent = indent_of(cursor.above if cursor.is_at_line_start else cursor.line)
    lines = write_known_function(cursor.language, comment, cursor.indent_unit)
    if not lines:
        return None
    code = "\n".join(indent + line for line in lines) + "\n"
    return code.removeprefix(cursor.line) if cursor.is_at_line_start else f"\n{code}"


def _is_declared(cursor: Cursor, text: str) -> bool:
    """The first line declares what the file declares already."""
    first = text.strip().split("\n", 1)[0]
    header = cursor.language.header
    return bool(header) and re.fullmatch(header, first[:200]) is not None and first in cursor.before
