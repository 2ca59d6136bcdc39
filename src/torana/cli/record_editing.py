"""Records in a YAML file of an operator's, changed where they stand: comments and everything else stay as they are."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Span = tuple[int, int]
"""First character, and the one behind the last."""

_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line in YAML, within comments too."""


class CannotEdit(Exception):
    """The file has a form in which nothing can be changed safely; the text says which."""


class _File:
    """A text and what it parses to. Marks count lines and columns; edits need offsets."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.root = yaml.compose(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:  # it was sound before a record was added to it
            raise CannotEdit("nothing can be added to it as it is; give each member a line of its own") from None
        ends = list(_LINE_END.finditer(text))
        self._starts = [0, *(end.end() for end in ends)]
        self._ends = [*(end.start() for end in ends), len(text)]

    def offset(self, mark: Any) -> int:
        return int(self._starts[mark.line] + mark.column)

    def end(self, node: yaml.Node) -> int:
        """Behind the last letter of a value; a block's own end mark lies behind the comments below it."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self.end(last[1] if isinstance(last, tuple) else last)
        end = self.offset(node.end_mark)
        return len(self.text[:end].rstrip()) if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else end

    def line_end(self, at: int) -> int:
        """Behind the line that holds `at`, its line end not included."""
        return self._ends[self._line(at)]

    def end_before(self, at: int) -> int:
        """Behind the line before the one that holds `at`, which is not the first."""
        return self._ends[self._line(at) - 1]

    def _line(self, at: int) -> int:
        return bisect_right(self._starts, at) - 1


def find_record(text: str, kind: str, name: str) -> str | None:
    """The lines of a record, as an item of a list at column 0; None where there is no such record."""
    file = _File(text)
    item = _item(file, kind, name)
    if item is None:
        return None
    column = int(item.start_mark.column)
    first, *rest = file.text[file.offset(item.start_mark) : file.line_end(file.end(item))].split("\n")
    return "\n".join([f"- {first}", *(f"  {_dedent(line, column)}" if line.strip() else "" for line in rest)])


def set_members(text: str, kind: str, name: str, members: Mapping[str, str | None]) -> str:
    """The text with members of one record set to these YAML values; None takes one out.

    Raises CannotEdit where there is no such record.
    """
    file = _File(text)
    item = _item(file, kind, name)
    if item is None:
        raise CannotEdit(f"no record `{name}`")
    edits = sorted(_edits(file, item, members), reverse=True)
    for (start, end), new in edits:
        text = text[:start] + new + text[end:]
    return text


def add_record(text: str, kind: str, record: str) -> str:
    """The text with one more record, given as an item of a list at column 0, at the end of `kind`."""
    file = _File(text)
    if file.root is None:
        return f"{text.rstrip()}\n{kind}:\n{record}\n".lstrip("\n")
    listed = _member(file.root, kind)
    if listed is None:
        return f"{text.rstrip()}\n\n{kind}:\n{record}\n"
    if not isinstance(listed, yaml.SequenceNode) or (listed.flow_style and listed.value):
        raise CannotEdit(f"`{kind}` is written in one line; give each record a line of its own")
    if not listed.value:
        start, end = file.offset(listed.start_mark), file.offset(listed.end_mark)
        return f"{text[:start].rstrip()}\n{record}{text[end:]}"
    indent = " " * int(listed.start_mark.column)
    at = file.line_end(file.end(listed))
    lines = "\n".join(indent + line if line else line for line in record.split("\n"))
    return f"{text[:at]}\n{lines}{text[at:] or chr(10)}"


def _edits(file: _File, item: yaml.MappingNode, members: Mapping[str, str | None]) -> Iterator[tuple[Span, str]]:
    pairs = [(key, value) for key, value in item.value if isinstance(key, yaml.ScalarNode)]
    anchor = next(value for key, value in pairs if key.value == "name")
    for member, new in members.items():
        at = next((index for index, (key, _) in enumerate(pairs) if key.value == member), None)
        if at is None:
            if new is None:
                continue
            end = file.end(anchor)
            if item.flow_style:
                yield (end, end), f", {member}: {new}"
            else:
                end = file.line_end(end)
                yield (end, end), f"\n{' ' * int(item.start_mark.column)}{member}: {new}"
            continue
        key, value = pairs[at]
        start, end = file.offset(key.start_mark), file.end(value)
        if new is not None:
            yield (start, end), f"{member}: {new}"
        elif item.flow_style:
            # `name` stands in front as a rule; the comma that goes is the one before, else the one behind.
            before = file.end(pairs[at - 1][1]) if at else start
            behind = file.offset(pairs[1][0].start_mark) if not at and len(pairs) > 1 else end
            yield (before, behind if not at else end), ""
        elif at:
            yield (file.end_before(start), file.line_end(end)), ""
        else:
            raise CannotEdit(f"`{member}` stands first in its record")


def _item(file: _File, kind: str, name: str) -> Any:
    listed = _member(file.root, kind)
    for item in listed.value if isinstance(listed, yaml.SequenceNode) else ():
        named = _member(item, "name")
        if isinstance(named, yaml.ScalarNode) and named.value == name:
            return item
    return None


def _member(node: Any, name: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if getattr(key, "value", None) == name), None)


def _dedent(line: str, column: int) -> str:
    return line[column:] if not line[:column].strip() else line.lstrip()
