"""What methods do with the fields of their object: keep what they are given, hand out what is kept."""

import re
from collections.abc import Sequence

from torana.providers.demo.cursor import MAX_LINE_CHARS, Cursor, indent_of
from torana.providers.demo.functions import MAKERS, join_words, read_params, split_words, write_field
from torana.providers.demo.languages import Language, fill

_LOOKED_AT_LINES = 12
# Constructors that no word declares: of JavaScript, Java, C#.
_CONSTRUCTOR = re.compile(r"(?:public\s+)?(?P<name>constructor|[A-Z]\w*)(?P<rest>\s*\([^()]*\)\s*\{)")


def keep_next_param(cursor: Cursor) -> str | None:
    """The next assignment of a method that keeps its parameters in fields, as constructors do."""
    language = cursor.language
    if not language.field or not language.header or cursor.rest:
        return None
    above = cursor.before.rsplit("\n", _LOOKED_AT_LINES)[:-1]
    kept: list[str] = []
    for line in reversed(above):
        bare = line[-MAX_LINE_CHARS:].strip()
        found = re.fullmatch(language.header, bare) or _CONSTRUCTOR.fullmatch(bare)
        if found is not None:
            params = read_params(found["rest"].partition("(")[2].partition(")")[0])
            break
        kept.append(line.strip())
    else:
        return None
    waiting = [param for param in params if write_field(language, param) not in kept]
    is_begun = len(waiting) < len(params) or found["name"] in MAKERS or found.re is _CONSTRUCTOR
    if not waiting or not is_begun:
        return None
    code, typed = write_field(language, waiting[0]), cursor.line.strip()
    if not code.startswith(typed) or code == typed:
        return None
    lead = indent_of(cursor.above).removeprefix(cursor.line) if not typed else ""
    return lead + code[len(typed) :]


def answer_field(language: Language, name: str, params: Sequence[str], code: str) -> list[str]:
    """The body of a method that is named after a field of the `code` around it, and takes or sets it."""
    words = split_words(name)
    verb = words[0] if len(words) > 1 and words[0] in ("get", "set", "is") else ""
    field = join_words(words[1:] if verb else words, "snake" if language.naming == "snake" else "camel")
    if not language.field or not field or len(params) != (verb == "set"):
        return []
    target = fill(language.field.partition(" = ")[0], name=field)
    is_declared = re.search(rf"\b(?:private|protected|readonly|final|var|let)\b[^\n;(]*[\s$]{field}\b", code)
    if not is_declared and re.search(rf"{re.escape(target)}\b", code) is None:
        return []
    if verb == "set":
        return [f"{target} = {params[0]}{language.end_mark}"]
    return [fill(language.give, value=target)]
