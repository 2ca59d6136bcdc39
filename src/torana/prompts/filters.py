"""The filters that templates may use; there are no others.

Each is a plain function of JSON values whose work and result stay linear in what it is given, or are
refused before the work is done. Jinja's own would do more: `indent` by a billion, HTML entities in
`tojson`, look-ups of attributes by `map` and `join`.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from inspect import Signature, signature
from io import StringIO
from typing import Any

from jinja2.runtime import Undefined

from torana.errors import Invalid

_MAX_INDENT = 64


class TooLarge(Invalid):
    """A template would make more text, or turn more often, than the settings allow."""

    def __init__(self) -> None:
        super().__init__(("inputs",), "Prompt is too large")


def default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    return other if isinstance(value, Undefined) or (boolean and not value) else value


def join(values: Iterable[Any], separator: str = "", /) -> str:
    return separator.join(str(value) for value in values)


def replace(value: Any, old: str, new: str, /) -> str:
    return str(value).replace(old, new)


def indent(value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    """Lines end with a line feed alone, which `largest_result` counts: other signs within them may be many."""
    if width > _MAX_INDENT:
        raise TooLarge
    lines = StringIO(str(value), newline="\n")
    margin = " " * width
    return "".join(
        margin + line if (index or first) and (blank or line.strip()) else line for index, line in enumerate(lines)
    )


def truncate(value: Any, length: int = 255, end: str = "…") -> str:
    """The first `length` characters, with `end` behind them where something was cut."""
    if not isinstance(end, str):
        raise TypeError("the end of `truncate` is no text")
    text = str(value)
    return text if len(text) <= length else text[:length] + end


def whole_number(value: Any) -> int:
    return int(value)


def trim(value: Any, chars: str | None = None) -> str:
    return str(value).strip(chars)


def tojson(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def items(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError("items needs a mapping")
    return list(value.items())


def first(values: Sequence[Any]) -> Any:
    return next(iter(values), "")


def last(values: Sequence[Any]) -> Any:
    return values[-1] if values else ""


FILTERS: dict[str, Callable[..., Any]] = {
    "capitalize": lambda value: str(value).capitalize(),
    "count": len,
    "d": default,
    "default": default,
    "first": first,
    "indent": indent,
    "int": whole_number,
    "items": items,
    "join": join,
    "last": last,
    "length": len,
    "lower": lambda value: str(value).lower(),
    "replace": replace,
    "string": lambda value: str(value),
    "title": lambda value: str(value).title(),
    "tojson": tojson,
    "trim": trim,
    "truncate": truncate,
    "upper": lambda value: str(value).upper(),
}


@cache
def _signature(name: str) -> Signature:
    return signature(FILTERS[name])


def takes(name: str, positional: int, keywords: Collection[str]) -> bool:
    """True where filter `name` takes that many arguments behind its value, and these by name."""
    try:
        _signature(name).bind(*[None] * (1 + positional), **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


def form_of(name: str) -> str:
    """`truncate(length=255, end='…')`, as an author writes it; `join('')` takes its argument by place alone."""
    arguments = []
    for each in list(_signature(name).parameters.values())[1:]:
        label = "" if each.kind is each.POSITIONAL_ONLY else f"{each.name}="
        arguments.append(each.name if each.default is each.empty else f"{label}{each.default!r}")
    return f"{name}({', '.join(arguments)})" if arguments else name


UNMETERED = frozenset(("count", "d", "default", "first", "last", "length"))
"""Filters that make nothing new: a part of what they are given, or a number."""

GROWING = frozenset(("indent", "join", "replace"))
"""Filters that can make much out of little."""

_COMPARING = ("in", "eq", "ne", "lt", "le", "gt", "ge", "==", "!=", "<", "<=", ">", ">=")
_KINDS = ("string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable")
TESTS = frozenset((*_COMPARING, *_KINDS, "defined", "undefined", "none", "true", "false", "odd", "even"))
"""Jinja's own tests that look at a value without calling it."""


def largest_result(name: str, value: Any, args: Sequence[Any]) -> int:
    """An upper bound of the characters that filter `name` will make, before it makes them.

    Only for those filters that can make much out of little.
    """
    if name == "replace" and len(args) == 2:
        text, (old, new) = str(value), map(str, args)
        return len(text) + text.count(old) * len(new)
    if name == "join":
        return sum(len(str(each)) for each in value) + len(value) * len(str(args[0]) if args else "")
    if name == "indent":
        return len(str(value)) + (str(value).count("\n") + 1) * _MAX_INDENT
    return 0
