"""Markdown → sections: pieces of a page that are small enough to be read as an answer. Pure; reads no files."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_WORDS = 350
"""Of a section; longer ones are cut between paragraphs where that is possible."""

MIN_WORDS = 60
"""Shorter sections are joined with the next one: a heading alone answers nothing."""

MAX_PARAGRAPH_CHARS = 8_000
"""Longer paragraphs are cut wherever the limit falls; prose never gets there."""

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_MEMBER = re.compile(r"^(\w+):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SHORTCODE = re.compile(r"\{\{[<%].*?[%>]\}\}", re.DOTALL)
_HEADING = re.compile(r"(#{1,6})[ \t]+([^ \t].*)")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    """Its path within the page, `Create a project > From a template`; empty before the first heading."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One Markdown file."""

    path: str
    """Relative, with `/`: `user/project/index.md`."""
    title: str
    md5sum: str
    """Of the file as it stands."""
    sections: tuple[Section, ...]


def read_page(path: str, source: bytes) -> Page | None:
    """None for a page without text of its own: an empty one, or one that only points elsewhere."""
    # A page that was not written in UTF-8 still has words to find.
    text = source.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\0", "")
    members: dict[str, str] = {}
    front = _FRONT_MATTER.match(text)
    if front is not None:
        members = {name: _unquoted(value) for name, value in _MEMBER.findall(front[1])}
        text = text[front.end() :]
    if "redirect_to" in members:
        return None
    text = _without(_SHORTCODE, _without(_COMMENT, text, "-->"), "%}}", ">}}")
    title, sections = _split(text)
    if not sections:
        return None
    return Page(
        path=path,
        title=members.get("title") or title or path.rpartition("/")[2].removesuffix(".md"),
        md5sum=hashlib.md5(source, usedforsecurity=False).hexdigest(),
        sections=tuple(sections),
    )


def _without(pattern: re.Pattern[str], text: str, *ends: str) -> str:
    """Looks for none behind the last of the ends: each that only begins would have all the rest read for its own."""
    behind = max(text.rfind(end) + len(end) for end in ends)
    return pattern.sub("", text[:behind]) + text[behind:]


def _unquoted(value: str) -> str:
    """A YAML scalar of one line as its text; quotes that belong to the text stay."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    return value


def _split(text: str) -> tuple[str, list[Section]]:
    """(first heading of the first level, sections)."""
    title = ""
    sections: list[Section] = []
    heading = ""
    pending: list[str] = []
    for path, paragraphs in _headed(text):
        if len(path) == 1 and not title and path[0][0] == 1:
            title = path[0][1]
        if not paragraphs:
            continue
        if _count_words(pending) >= MIN_WORDS:
            sections += _cut(heading, pending)
            pending = []
        name = " > ".join(text for level, text in path if level > 1)
        if not pending:
            heading = name
        elif name:
            # Joined with a short one before it: its name stands in the text, or nobody finds it.
            level, last = path[-1]
            pending.append(f"{'#' * level} {last}")
        pending += paragraphs
    sections += _cut(heading, pending)
    return title, sections


def _headed(text: str) -> Iterator[tuple[list[tuple[int, str]], list[str]]]:
    """(path of headings as (level, text), paragraphs below the last of them), in order."""
    path: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    lines: list[str] = []
    fence = ""

    def end_paragraph() -> None:
        joined = "\n".join(lines).strip("\n")
        if joined.strip():
            paragraphs.extend(
                joined[start : start + MAX_PARAGRAPH_CHARS] for start in range(0, len(joined), MAX_PARAGRAPH_CHARS)
            )
        lines.clear()

    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            # A fence ends with at least as many of its own marks; until then nothing is a heading.
            if mark is not None and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark is not None:
            fence = mark[1]
        elif (found := _HEADING.fullmatch(line)) is not None:
            end_paragraph()
            yield path, paragraphs
            level = len(found[1])
            path = [*((above, name) for above, name in path if above < level), (level, _heading_text(found[2]))]
            paragraphs = []
            continue
        elif not line.strip():
            end_paragraph()
            continue
        lines.append(line)
    end_paragraph()
    yield path, paragraphs


def _heading_text(said: str) -> str:
    """A heading without its anchor, `{#name}`, and the signs that close it; never empty."""
    if said.endswith("}") and (anchor := said.find("{#", said.rfind("}", 0, -1) + 1)) > 0:
        said = said[:anchor]
    return said.rstrip(" \t").rstrip("#").rstrip(" \t") or said[:1]


def _cut(heading: str, paragraphs: list[str]) -> Iterator[Section]:
    """Sections of at most MAX_WORDS, unless a single paragraph is longer."""
    kept: list[str] = []
    for paragraph in paragraphs:
        if kept and _count_words(kept) + _count_words([paragraph]) > MAX_WORDS:
            yield Section(heading, "\n\n".join(kept))
            kept = []
        kept.append(paragraph)
    if kept:
        yield Section(heading, "\n\n".join(kept))


def _count_words(paragraphs: list[str]) -> int:
    return sum(len(paragraph.split()) for paragraph in paragraphs)
