"""Finishes a function whose declaration stands before the cursor: parameters, opener, body, end."""

import re

from torana.providers.demo.cursor import MAX_LINE_CHARS, Cursor, has_body_below, indent_of, is_closed_below
from torana.providers.demo.fields import answer_field
from torana.providers.demo.functions import find_recipe, read_params, split_words, write_body
from torana.providers.demo.languages import fill

_CLASS = re.compile(
    r"\s*(?:(?:export|default|public|final|abstract|static|sealed) )*class (\w+)(?: *[(<{:].*| extends .*)?"
)


def finish_function(cursor: Cursor) -> str | None:
    """Code for the cursor, or None where it does not stand in or below a declaration."""
    if cursor.is_at_line_start:
        return _finish_below(cursor)
    if cursor.language.maker and not cursor.rest and _CLASS.fullmatch(cursor.line):
        return _finish_class(cursor)
    found = _match(cursor, cursor.line)
    if found is None:
        return None
    name, rest = found
    if cursor.rest:
        # The editor has closed the bracket: only what belongs into it.
        is_inside = rest.count("(") > rest.count(")") and rest.rstrip().endswith("(")
        return ", ".join(_expect_params(cursor, name)) if is_inside and cursor.rest.startswith(")") else None
    head = _finish_head(cursor, name, rest)
    if head is None:
        return None
    indent = indent_of(cursor.line)
    if has_body_below(cursor, indent):
        return head
    return head + "".join(f"\n{line}" for line in _write_rest(cursor, indent, name, rest + head)) + "\n"


def _finish_below(cursor: Cursor) -> str | None:
    """The cursor stands on the empty line under a finished declaration."""
    language = cursor.language
    if cursor.rest or not cursor.before.rstrip(" \t").endswith(f"{cursor.above}\n"):
        return None
    if cursor.language.maker and _CLASS.fullmatch(cursor.above):
        return None if has_body_below(cursor, indent_of(cursor.above)) else _write_class_body(cursor, cursor.above)
    found = _match(cursor, cursor.above)
    is_open = (
        found is not None and found[1].endswith(language.opener.strip()) and found[1].count("(") == found[1].count(")")
    )
    indent = indent_of(cursor.above)
    if found is None or not is_open or has_body_below(cursor, indent) or not cursor.above.strip():
        return None
    lines = _write_rest(cursor, indent, *found)
    # What is there already of the first line's indentation is not written again.
    first = (
        lines[0][len(cursor.line) :]
        if lines and lines[0].startswith(cursor.line)
        else lines[0].lstrip()
        if lines
        else ""
    )
    return "\n".join([first, *lines[1:]]) + "\n"


def _finish_class(cursor: Cursor) -> str | None:
    line, opener = cursor.line.rstrip(), cursor.language.opener
    is_open = line.endswith(opener.strip())
    if line.count("(") != line.count(")") or has_body_below(cursor, indent_of(line)):
        return None
    head = "" if is_open else opener.lstrip() if cursor.line[-1:].isspace() else opener
    return f"{head}\n{_write_class_body(cursor, '')}"


def _write_class_body(cursor: Cursor, above: str) -> str:
    """What makes an instance, and the class's end unless it is there."""
    language, unit = cursor.language, cursor.indent_unit
    indent = indent_of(above or cursor.line)
    declared = _CLASS.fullmatch(above or cursor.line)
    lines = [indent + unit + fill(language.maker, name=declared[1] if declared else "")]
    if language.empty_body:
        lines.append(f"{indent}{unit}{unit}{language.empty_body}")
    if language.closer:
        lines.append(f"{indent}{unit}{language.closer}")
        if not is_closed_below(cursor, indent, language.closer):
            lines.append(indent + language.closer)
    code = "\n".join(lines) + "\n"
    return code.removeprefix(cursor.line) if above else code


def _match(cursor: Cursor, line: str) -> tuple[str, str] | None:
    language = cursor.language
    if not language.header or len(line) == MAX_LINE_CHARS:
        return None
    # `def name` is understood whatever the file is: editors and checks send it with any file name.
    found = re.fullmatch(language.header, line.strip()) or re.fullmatch(
        r"def\s+(?P<name>\w+)(?P<rest>.*)", line.strip()
    )
    return None if found is None else (found["name"], found["rest"].rstrip())


def _finish_head(cursor: Cursor, name: str, rest: str) -> str | None:
    """From the cursor to the end of the declaration's line; None where it is beyond us."""
    language = cursor.language
    opener = language.opener
    bare = rest.strip()
    space = "" if cursor.line[-1:].isspace() else " "
    if not bare:
        params = ", ".join(_expect_params(cursor, name))
        if language.bare_declare and not params:
            return ""
        return f"({params}){opener}"
    if bare.count("(") > bare.count(")"):
        inside = bare.rsplit("(", 1)[1]
        given = read_params(inside)
        expected = [param for param in _expect_params(cursor, name) if param not in given]
        missing = "" if inside and not inside.endswith(",") else ", ".join(expected)
        lead = space if missing and inside.endswith(",") else ""
        return f"{lead}{missing}){opener}"
    if opener and bare.endswith(opener.strip()):
        return ""
    # What stands behind the bracket is a result type, unless the line says something else.
    if bare[-1] not in ";,={" and "(" in bare:
        return opener.removeprefix(" ") if cursor.line[-1:].isspace() else opener
    return None


def _expect_params(cursor: Cursor, name: str) -> list[str]:
    language = cursor.language
    if not language.takes_params:
        return []
    params = [language.own] if language.own and _is_method(cursor) else []
    recipe = find_recipe(split_words(name))
    if recipe is not None and recipe.takes == "numbers" and language.param in ("{name}", ""):
        params += [language.sigil + param for param in recipe.params]
    return params


def _is_method(cursor: Cursor) -> bool:
    """An indented declaration under the last line that stands further left and begins with `class`."""
    indent = indent_of(cursor.line)
    for line in reversed(cursor.before.rsplit("\n", 200)[:-1]):
        if line.strip() and len(indent_of(line)) < len(indent):
            return line.strip().startswith("class ")
    return False


def _write_rest(cursor: Cursor, indent: str, name: str, rest: str) -> list[str]:
    """The body and, unless it is there, the end."""
    language = cursor.language
    inside = rest.partition("(")[2].partition(")")[0]
    result = rest.partition(")")[2].strip().removesuffix(language.opener.strip()).strip()
    declared = cursor.line if not cursor.is_at_line_start else cursor.above
    promises = bool(result) and not re.search(r"\b(?:None|void|Unit|Void)\b", result)
    if language.returns_value and not language.returns_value.startswith((" ", ":")) and not result:
        promises = re.search(rf"\b(?:void|constructor)\b.*\b{re.escape(name)}\b", declared) is None
        promises = promises and language.style == "braces" and "function" not in declared
    params = read_params(inside)
    lines = answer_field(language, name, params, cursor.before + cursor.after)
    lines = lines or write_body(language, name, params, cursor.indent_unit, must_give=promises)
    body = [f"{indent}{cursor.indent_unit}{line}" for line in lines or [language.empty_body]]
    if language.closer and not is_closed_below(cursor, indent, language.closer):
        body.append(indent + language.closer)
    return body
