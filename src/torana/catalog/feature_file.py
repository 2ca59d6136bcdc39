"""One file of `features/`: YAML → a record that stands on its own. What it names elsewhere is checked in check.py."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from torana.catalog.document import Document
from torana.catalog.limit_text import EXPECTED, BadLimit, read_limit
from torana.catalog.records import FeatureInput, FeatureRecord
from torana.catalog.snapshot import read_text
from torana.errors import BadCatalogue

RESERVED = frozenset(
    {
        "amazon_q", "chat", "code", "completions", "embeddings", "models", "prompts", "proxy", "search", "x-ray",
    }
)  # fmt: skip
"""What the gateway's own paths begin with behind their version; a feature cannot take one from them."""

ENVELOPE_MEMBERS = frozenset({"stream"})
"""Members of a component's payload that are no inputs."""

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_PATH = re.compile(r"/v[1-9][0-9]?/(?P<first>[a-z][a-z0-9_-]*)(?:/[a-z][a-z0-9_-]*)*", re.ASCII)
_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "list": list}
EMPTY: dict[str, Any] = {"string": "", "integer": 0, "boolean": False, "list": []}
"""What an absent optional input without a default reads as."""


def read_feature(path: Path) -> FeatureRecord:
    """The feature of one file, its defaults filled in. Raises BadCatalogue with all its problems."""
    document = Document(str(path), read_text(path))
    record = document.convert(FeatureRecord)
    problems = list(_wrong_members(document, record, path.stem))
    if problems:
        raise BadCatalogue(problems)
    return replace(
        record, name=path.stem, path=record.path or f"/v1/{path.stem}", components=record.components or (path.stem,)
    )


def _wrong_members(document: Document, record: FeatureRecord, name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield document.problem(f"`{name}` is no name of a feature", "expected small letters, digits and _")
    if record.name not in ("", name):
        yield document.problem(f"`name` is {record.name!r}", f"expected the file's own, {name}", "name")
    found = _PATH.fullmatch(record.path or f"/v1/{name}")
    if found is None and record.path:
        yield document.problem(f"`path` is {record.path!r}", "expected a path such as /v1/summarize_text", "path")
    elif found is not None and found["first"] in RESERVED:
        yield document.problem(f"`{found[0]}` is the gateway's own", "expected another path", "path")
    if not record.inputs:
        yield document.problem("has no inputs", "expected at least one", "inputs")
    for key, each in record.inputs.items():
        yield from _wrong_input(document, key, each)
    if record.limit:
        try:
            read_limit(record.limit)
        except BadLimit as bad:
            yield document.problem(str(bad), EXPECTED, "limit")


def _wrong_input(document: Document, key: str, each: FeatureInput) -> Iterator[str]:
    if key in ENVELOPE_MEMBERS:
        yield document.problem(
            f"`{key}` is no name of an input",
            "expected another: requests ask by it for a stream",
            "inputs",
            key,
        )
    elif not _NAME.fullmatch(key):
        yield document.problem(f"`{key}` is no name of an input", "expected small letters, digits and _", "inputs", key)
    for limit in ("max_chars", "max_items"):
        if getattr(each, limit) < 1:
            yield document.problem(f"`{limit}` is below 1", "expected a whole number", "inputs", key, limit)
    # A boolean is an int to Python, and not to authors.
    if each.default is not None and type(each.default) is not _TYPES[each.type]:
        yield document.problem(f"`default` is no {each.type}", f"expected type {each.type}", "inputs", key, "default")
    elif _is_too_long(each):
        yield document.problem("`default` is over its own limit", "expected less", "inputs", key, "default")
    if each.required and each.default is not None:
        yield document.problem("is required and has a default", "expected one of both", "inputs", key)


def _is_too_long(each: FeatureInput) -> bool:
    match each.default:
        case str(text):
            return len(text) > each.max_chars
        case list(items):
            return len(items) > each.max_items or any(len(item) > each.max_chars for item in items)
    return False
