"""One YAML file of the catalogue: text → checked records; every problem names its file and line.

Reading is strict on purpose: doubled keys, aliases and YAML's odd scalars (`on`, dates, `12:30`) are
where a file says something else than its author meant.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from torana.errors import BadCatalogue

_LINE_CHARS = 80
MAX_DEPTH = 1000
_TITLES = ("name", "title", "description")
"""Members that say what a record is called, and mention no other."""
_PASSWORD = re.compile(r"//[^/@\s]*@")
"""Of an address; faults are told in the log."""
_WRONG_TYPE = re.compile(r"Expected `(?P<expected>.+)`, got `(?P<got>.+)`")

_KINDS = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "a mapping",
    "array": "a list", "null": "empty",
}  # fmt: skip
"""The parser's words for kinds of values, in those of authors who know no Python."""

_BEHIND = "behind a value"

_REMEDIES = (
    (r"tab character|\t", "expected spaces: YAML takes no tabs before a line's first word"),
    (
        "mapping values are not allowed",
        "expected one `name: value` a line, indented as its neighbours; a text that holds `: ` stands in quotes",
    ),
    (
        "cannot start any token|undefined alias|unhashable key|alphabetic or numeric|mapping keys are not allowed",
        "expected the text in quotes: its first sign means more",
    ),
    ("block sequence entries", "expected the list on lines of its own, or the text in quotes"),
    ("comment or line break", "expected the text on lines of its own below, indented"),
    (
        "could not find expected ':'",
        "expected `name: value`, or further indentation where the line goes on with a text",
    ),
    ("node content", "expected a value, or the closing bracket"),
    (_BEHIND, "expected the text in quotes as a whole, or on lines of its own below `|`: it goes on behind its end"),
    ("constructor for the tag", "expected a plain value; a text that begins with `!` stands in quotes"),
    ("expected key|'-' indicator", "expected the line to begin where its neighbours begin"),
    ("expected ',' or", "expected a comma, or the closing bracket"),
    ("unknown escape|hexdecimal", "expected single quotes, in which a backslash is only itself"),
    ("end of stream", "expected the closing quote"),
    ("another document", "expected one document a file, without `---` between"),
    ("control characters", "expected text without them"),
)
"""What the parser says, and what its author is to do."""

T = TypeVar("T")


_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    f"{_TAG}null": (re.compile(r"^(?:~|null|)$"), ["~", "n", ""]),
    f"{_TAG}bool": (re.compile(r"^(?:true|false)$"), list("tf")),
    f"{_TAG}int": (re.compile(r"^[-+]?[0-9]{1,18}$"), list("-+0123456789")),
    f"{_TAG}float": (
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789")
    ),
}  # fmt: skip
"""What is no text: its form, and how it may begin."""


class _Loader(yaml.CSafeLoader):
    """The C loader with the scalars of YAML 1.2: only null, true, false and numbers are no text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 PyYAML's own hook
    yaml_constructors = {  # noqa: RUF012 PyYAML's own hook; dates and the like are texts, whatever tag they have
        tag: make
        for tag, make in yaml.CSafeLoader.yaml_constructors.items()
        if tag in (None, *_SCALARS, *(f"{_TAG}{kind}" for kind in ("str", "seq", "map")))
    }


for _tag, (_pattern, _firsts) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, _firsts)


def _read_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    # A leading zero means nothing in YAML 1.2; PyYAML takes it for an octal number.
    return int(loader.construct_scalar(node))


_Loader.add_constructor(f"{_TAG}int", _read_int)


class Document:
    """One parsed file. Raises BadCatalogue when the text is no plain YAML at all.

    name   how the file is called in messages, its path as a rule
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._lines = text.splitlines()
        try:
            if _is_too_deep(text, self._lines):
                raise RecursionError
            loader = _Loader(text)
            node = loader.get_single_node()
            if node is not None and (problems := list(self._misused(node, set()))):
                raise BadCatalogue(problems)
            self._value = None if node is None else loader.construct_document(node)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or getattr(error, "reason", None) or "is no YAML"
            if "expected ':'" in what:  # of a line that the parser only understood in the next one
                mark = getattr(error, "context_mark", None) or mark
            # A sign that YAML does not take at all has a position, in bytes, and no mark.
            line = mark.line if mark else text.encode()[: getattr(error, "position", 0)].count(b"\n")
            raise BadCatalogue([self._problem(line, what, _remedy(what, *self._around(mark)))]) from None
        except RecursionError:
            raise BadCatalogue([self._problem(0, "nested too deeply", "expected a few levels")]) from None
        self._root = node

    def convert(self, kind: type[T]) -> T:
        """The file as `kind`, a record or a tuple of records. Raises BadCatalogue with every problem."""
        try:
            return msgspec.convert(self._value, kind)
        except msgspec.ValidationError as error:
            found = list(self._mismatches(self._root, self._value, kind, ""))
            raise BadCatalogue(found or [self._problem(0, str(error), "expected another shape")]) from None

    def has(self, member: str) -> bool:
        """Whether the file, a mapping, holds `member`."""
        return isinstance(self._value, dict) and member in self._value

    def line(self, *path: str | int) -> int:
        """The line, from 1, where the member at `path` begins; the nearest known one if there is none."""
        node = self._node(path)
        return 1 if node is None else int(node.start_mark.line) + 1

    def _node(self, path: Sequence[str | int]) -> Any:
        node = self._root
        for step in path:
            inner = _child(node, step)
            if inner is None:
                break
            node = inner
        return node

    def line_naming(self, text: str, record: int) -> int:
        """The line where the record that begins in line `record` mentions `text`; the record's own if nowhere."""
        found = (node for node in _nodes(self._root) if node.start_mark.line + 1 == record)
        mentions = (node for node in _nodes(next((node for node in found if _child(node, "name")), None), _TITLES))
        return next((node.start_mark.line + 1 for node in mentions if node.value == text), record)

    def problem(self, what: str, expected: str, *path: str | int) -> str:
        """`file:line: what, expected`, for the member at `path`."""
        return self._problem(self.line(*path) - 1, what, expected)

    def text_problem(self, line: int, what: str, expected: str, *path: str | int) -> str:
        """As `problem`, for line `line`, from 1, within the text at `path`."""
        node = self._node(path)
        # A block text (`|`, `>`) begins one line below its sign.
        below = 1 if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else 0
        return self._problem(self.line(*path) + below + line - 2, what, expected)

    def _problem(self, index: int, what: str, expected: str) -> str:
        index = max(0, min(index, len(self._lines) - 1))  # the parser notices some faults only behind the end
        shown = _PASSWORD.sub("//***@", self._lines[index]).strip()[:_LINE_CHARS] if self._lines else ""
        return f"{self.name}:{index + 1}: {what}, {expected}" + (f" | {shown}" if shown else "")

    def _around(self, mark: Any) -> tuple[str, str]:
        """The marked line before and from the mark on."""
        line = self._lines[mark.line] if mark is not None and mark.line < len(self._lines) else ""
        return (line[: mark.column], line[mark.column :]) if line else ("", "")

    def _misused(self, node: yaml.Node, seen: set[int]) -> Iterator[str]:
        line = node.start_mark.line
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _SCALARS and not _SCALARS[node.tag][0].match(node.value):
                # Only where its author has written the tag.
                yield self._problem(line, f"`{node.value}` is not what its tag says", "expected it without the tag")
            elif node.tag == f"{_TAG}float" and math.isinf(float(node.value)):
                yield self._problem(line, f"`{node.value}` is larger than any number here", "expected a smaller one")
            return
        if id(node) in seen:  # also what keeps a few lines of aliases from standing for gigabytes
            yield self._problem(line, "used again by an alias", "expected the value written out")
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from self._misused(item, seen)
            return
        keys: set[str] = set()
        for key, value in node.value:
            if key.value in keys if isinstance(key, yaml.ScalarNode) else False:
                yield self._problem(key.start_mark.line, f"`{key.value}` stands twice", "expected each member once")
            if isinstance(key, yaml.ScalarNode):
                keys.add(key.value)
            yield from self._misused(key, seen)
            yield from self._misused(value, seen)

    def _mismatches(self, node: Any, value: Any, kind: Any, where: str) -> Iterator[str]:
        """Every place where `value` is not of `kind`; walks both, since msgspec stops at the first."""
        line = 0 if node is None else node.start_mark.line
        if get_origin(kind) in (UnionType, Union):
            parts = [part for part in get_args(kind) if part is not NoneType]
            if value is None and len(parts) < len(get_args(kind)):
                return
            if isinstance(value, list):  # what is wrong is within it
                parts = [part for part in parts if get_origin(part) in (list, tuple)] or parts
            kind = parts[0] if len(parts) == 1 else kind
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if isinstance(value, dict):
                yield from self._member_mismatches(node, value, kind, where)
            else:
                yield self._problem(
                    line, f"{_label(where)} is {_type_name(value)}", f"expected members: {_names(kind)}"
                )
        elif get_origin(kind) in (list, tuple):
            if isinstance(value, list):
                for index, (item_node, item) in enumerate(zip(node.value, value, strict=True)):
                    yield from self._mismatches(item_node, item, get_args(kind)[0], f"{where}[{index}]")
            else:
                expected = "expected a list" + (", `[]` where there is nothing" if value is None else "")
                yield self._problem(line, f"{_label(where)} is {_type_name(value)}", expected)
        elif get_origin(kind) is dict and isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(key, str):
                    yield from self._mismatches(_child(node, key), inner, get_args(kind)[1], f"{where}.{key}")
                else:
                    yield self._problem(
                        line, f"key {key!r} is {_type_name(key)}", "expected a text (write it in quotes)"
                    )
        else:
            yield from self._leaf_mismatch(line, value, kind, where)

    def _member_mismatches(
        self, node: Any, value: dict[Any, Any], kind: type[msgspec.Struct], where: str
    ) -> Iterator[str]:
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for key, inner in value.items():
            if key in fields:
                inside = f"{where}.{key}" if where else key
                yield from self._mismatches(_child(node, key), inner, fields[key].type, inside)
                continue
            hint = nearest(str(key), fields, f"expected one of {', '.join(fields)}")
            # A key that is no text (`00:`, `~:`) is not found by its value; its mapping's line is near enough.
            lines = [] if node is None else [k.start_mark.line for k, _ in node.value if k.value == str(key)]
            key_line = lines[0] if lines else 0 if node is None else node.start_mark.line
            yield self._problem(key_line, f"unknown member `{key}`", hint)
        for name, field in fields.items():
            if field.required and name not in value:
                yield self._problem(
                    node.start_mark.line, f"{_label(where)} has no `{name}`", f"expected members: {_names(kind)}"
                )

    def _leaf_mismatch(self, line: int, value: Any, kind: Any, where: str) -> Iterator[str]:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            if get_origin(kind) is Literal and isinstance(value, str):
                yield self._problem(
                    line, f"{_label(where)} is {value!r}", f"expected one of {', '.join(filter(None, get_args(kind)))}"
                )
            elif get_origin(kind) is Annotated and (meant := _meant(kind)):
                yield self._problem(
                    line, f"{_label(where)} is {_shown(value)}", f"expected {meant}{_quotes(kind, value)}"
                )
            elif match := _WRONG_TYPE.match(str(error)):
                expected = " or ".join(_KINDS.get(each, each) for each in match["expected"].split(" | "))
                expected = f"expected {expected}{_quotes(kind, value)}"
                yield self._problem(line, f"{_label(where)} is {_type_name(value)}", expected)
            else:
                yield self._problem(line, f"{_label(where)}: {error}", "expected another value")


def _is_too_deep(text: str, lines: list[str]) -> bool:
    """Whether its levels could end the process: the parser goes down into them on the system's own stack."""
    # A level takes a bracket, or within its line a sign or a blank of its own.
    if text.count("[") + text.count("{") + max(map(len, lines), default=0) <= MAX_DEPTH:
        return False
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return True
    return False


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean …?`, or what else to say where nothing that is known comes near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else otherwise


def _remedy(what: str, before: str, rest: str) -> str:
    """What to do about the parser's complaint, which is about the line between both."""
    told = "\t" if rest.startswith("\t") else what
    if before.strip() and re.search("expected key|'-' indicator", what):
        told = _BEHIND
    return next((remedy for said, remedy in _REMEDIES if re.search(said, told)), "expected YAML")


def _child(node: Any, step: str | int) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _nodes(node: Any, but: Collection[str] = ()) -> Iterator[Any]:
    """The node and all below it, outer ones first; `but`: members that are left out."""
    if node is None:
        return
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value not in but:
                yield from _nodes(value, but)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _nodes(item, but)


def _meant(kind: Any) -> str:
    """What the records' own words say of a constrained type."""
    return next((note.description for note in kind.__metadata__ if isinstance(note, msgspec.Meta)), None) or ""


def _quotes(kind: Any, value: Any) -> str:
    of_text = kind is str or (get_origin(kind) is Annotated and kind.__origin__ is str)
    return " (write it in quotes)" if of_text and type(value) in (int, float, bool) else ""


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float)) else _type_name(value)


def _label(where: str) -> str:
    return f"`{where}`" if where else "the file"


def _type_name(value: Any) -> str:
    name = {dict: "object", list: "array", NoneType: "null"}.get(type(value), type(value).__name__)
    return _KINDS.get(name, name)


def _names(kind: type[msgspec.Struct]) -> str:
    """Those that there must be first."""
    return ", ".join(field.name for field in sorted(msgspec.structs.fields(kind), key=lambda each: not each.required))
