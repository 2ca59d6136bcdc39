"""Tags: closes those that are open, and begins the child that usually follows."""

import re
from collections.abc import Iterator

from torana.providers.demo.cursor import Cursor, indent_of

# Possessive: what is no tag is left at once.
_TAG = re.compile(r"<(/?)([A-Za-z][\w:-]*+)((?:\"[^\"]*+\"|'[^']*+'|[^<>\"'/]|/(?!>))*+)(/?)>")
_VOID = frozenset(re.findall(r"\w+", "area base br col embed hr img input link meta source track wbr"))
_CHILDREN = {
    "ul": "li", "ol": "li", "table": "tr", "tbody": "tr", "thead": "tr", "tr": "td", "select": "option", "nav": "a",
    "dl": "dt", "head": "title", "form": "input", "html": "body",
}  # fmt: skip
_LOOKED_AT_CHARS = 8_000


def open_tags(code: str) -> list[str]:
    """The tags that `code` leaves open, outermost first."""
    waiting: list[str] = []
    for slash, name, _, is_empty in _TAG.findall(code):
        if slash and name in waiting:
            del waiting[len(waiting) - 1 - waiting[::-1].index(name) :]
        elif not slash and not is_empty and name.lower() not in _VOID:
            waiting.append(name)
    return waiting


def follow_tags(cursor: Cursor) -> Iterator[str]:
    """What may stand at the cursor of a file of tags."""
    waiting = open_tags(cursor.before[-_LOOKED_AT_CHARS:])
    begun = re.search(r"</([\w:-]*)\Z", cursor.line)
    if begun is not None:
        if waiting and waiting[-1].startswith(begun[1]):
            yield f"{waiting[-1][len(begun[1]) :]}>"
        return
    if cursor.rest or not waiting:
        return
    if not cursor.is_at_line_start:
        inner = open_tags(cursor.line)
        if inner and cursor.line.rfind("<") < cursor.line.rfind(">"):
            yield f"</{inner[-1]}>"
        return
    beside = _TAG.match(cursor.above.strip())
    is_beside = beside is not None and not beside[1] and len(indent_of(cursor.above)) == len(cursor.line)
    name = beside[2] if beside is not None and is_beside else _CHILDREN.get(waiting[-1].lower(), "p")
    yield f"<{name}>" if name.lower() in _VOID else f"<{name}></{name}>"
