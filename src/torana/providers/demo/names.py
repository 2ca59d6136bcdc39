"""Variables of a suggestion: those that the caller's file has, never those of the demo's own samples."""

import re
from collections.abc import Iterator
from functools import cache

from torana.providers.demo.cursor import Cursor
from torana.providers.demo.functions import read_params
from torana.providers.demo.languages import Language

_LOOKED_AT_LINES = 60
_STRINGS = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\\n])*`")
_VARIABLE = re.compile(r"(?<![\w.@$:>])(?<!->)[a-z_]\w*(?![\w(!])")
_BARE = re.compile(r"(?<![\w.@$:>])(?<!->)[a-z_]\w*(?![\w(!.:])")
_SIGILED = re.compile(r"\$[a-z_]\w*")
_ASSIGNED = re.compile(r"(?<![\w.@])(\$?[a-z_]\w*+)(?:\s*:\s*[\w\[\]<>]+)?\s*:?=(?![=>~])")
_LOOPED = re.compile(
    r"\bfor(?:each)?\b[\s(]*(?:(?:const|let|var|auto|final|mut|\w+(?:<\w+>)?(?=\s+[&*]?\w+\s*:))\b)?[\s&*(]*"
    r"(\$?\w+)(?:\s*,\s*(\$?\w+))?\)?\s*(?:\bin\b|\bof\b|:=?)"
)
_TAKEN = re.compile(
    r"\|(\w+)(?:, *(\w+))?\|$|\bread(?: -\w+)* (\w+)|\bas (\w+):?$|(?<!\w)(\w++)\)? => |\{ (\w+) -> ", re.MULTILINE
)
"""By the block, command or function that a line begins."""


def settle_names(cursor: Cursor, text: str, known: str) -> str | None:
    """`text` with its foreign variables replaced by the nearest ones of the file; None where there are too few.

    known   all the code that the caller sent
    """
    language = cursor.language
    foreign = _foreign(language, text, known)
    if not foreign:
        return text
    taken = {found[1] for found in _ASSIGNED.finditer(cursor.line)} | set(re.findall(r"\$?\w+", text))
    bound = list(dict.fromkeys(_bindings(cursor)))
    if not bound and not _is_in_function(cursor):
        return text  # a snippet, whose surroundings nobody knows
    scope = [name for name in bound if name not in taken]
    if len(foreign) > len(scope):
        return None
    names = dict(zip(foreign, scope, strict=False))
    return re.sub(r"(?<![\w.@])\$?[a-z_]\w*", lambda found: names.get(found[0], found[0]), text)


def _foreign(language: Language, text: str, known: str) -> list[str]:
    """Variables of `text` that come from the sample alone, in order."""
    found = _SIGILED.findall(text) if language.mark else _VARIABLE.findall(_blank_strings(text))
    made = _made_in(text)
    variables = _variables_of_sample(language)
    return [
        name
        for name in dict.fromkeys(found)
        if name in variables and name not in made and not re.search(rf"(?<!\w){re.escape(name)}\b", known)
    ]


@cache
def _variables_of_sample(language: Language) -> frozenset[str]:
    """Names that the sample uses as they are, without what it imports or takes as given."""
    imports = " ".join(re.findall(r"^.*\b(?:import|require|use|include)\b.*$", language.sample, re.MULTILINE))
    used = set() if language.mark or language.binds else set(_BARE.findall(_blank_strings(language.sample)))
    given = {*language.words, *re.findall(r"\w+", imports), "self", "this", "cls"}
    return frozenset((used | set(_bound_in(language, language.sample))) - given)


def _bindings(cursor: Cursor) -> Iterator[str]:
    """Names that are bound above the cursor within its function, the nearest first."""
    lines = cursor.before.rsplit("\n", _LOOKED_AT_LINES)[-_LOOKED_AT_LINES:]
    for line in reversed(lines[:-1]):
        yield from _bound_in(cursor.language, line[:400])
        if cursor.language.header and re.fullmatch(cursor.language.header, line.strip()[:400]):
            return


def _is_in_function(cursor: Cursor) -> bool:
    header = cursor.language.header
    lines = cursor.before.rsplit("\n", _LOOKED_AT_LINES)[-_LOOKED_AT_LINES:]
    return bool(header) and any(re.fullmatch(header, line.strip()[:400]) for line in lines)


def _bound_in(language: Language, code: str) -> list[str]:
    names: list[str] = []
    for line in code.split("\n"):
        header = re.fullmatch(language.header, line.strip()[:400]) if language.header else None
        if header is not None:
            names += read_params(header["rest"].partition("(")[2].partition(")")[0])
            continue
        bare = line if language.mark else _blank_strings(line)
        names += re.findall(language.binds, bare) if language.binds else []
        names += _made_in(bare)
    if language.mark:
        return [name if name.startswith(language.mark) else language.mark + name for name in names]
    return [name for name in names if name not in language.words]


def _made_in(code: str) -> list[str]:
    """What it assigns, loops over or takes."""
    looped = [*_LOOPED.finditer(code), *_TAKEN.finditer(code)]
    return [name for match in looped for name in match.groups() if name] + [
        match[1] for match in _ASSIGNED.finditer(code)
    ]


def _blank_strings(code: str) -> str:
    return _STRINGS.sub(lambda found: '"' + " " * (len(found[0]) - 2) + '"', code)
