"""Comparing with golden files; GOLDEN_UPDATE=1 writes them anew, for a human to read before committing."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent

WRITTEN = ["answer", "choices", "refused", "sealed"]
"""`*.chunks.json`: the answers in our words beside which every dialect has its writing of them."""


def read(name: str) -> bytes:
    return (HERE / name).read_bytes()


def assert_golden(name: str, value: Any) -> None:
    """`value`, JSON, equals the file."""
    if _is_update():
        _write(name, value)
    assert value == json.loads(read(name))


def assert_golden_words(name: str, value: Any, type: Any) -> None:
    """`value`, our words, equals the file, in which members that have their default are left out."""
    if _is_update():
        _write(name, _slim(value))
    assert value == msgspec.json.decode(read(name), type=type)


def assert_golden_bytes(name: str, value: bytes) -> None:
    if _is_update():
        (HERE / name).write_bytes(value)
    assert value == read(name)


def _is_update() -> bool:
    return os.environ.get("GOLDEN_UPDATE") == "1"


def _write(name: str, value: Any) -> None:
    (HERE / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _slim(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_slim(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    tag = value.__struct_config__.tag
    told = {
        field.name: _slim(getattr(value, field.name))
        for field in msgspec.structs.fields(value)
        if getattr(value, field.name) != _default(field)
    }
    return {"type": tag, **told} if tag else told


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
