"""JSON schema as Gemini takes it: what its subset has no keyword for is said in another way.

A bound that no keyword can say is told in the description, where the model reads it.

Source: Gemini API reference, "GenerationConfig", member responseJsonSchema, and "FunctionDeclaration", member
parametersJsonSchema; "Structured output", JSON schema support.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from torana.dialects.schemas import Placing, Room, Schema, describe, find_referred

_KEPT = frozenset(
    {"$id", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems"}
    | {"minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties"}
    | {"required", "propertyOrdering"}
)
_SAID_OTHERWISE = frozenset({"const", "allOf", "$ref", "$defs", "definitions", "exclusiveMinimum", "exclusiveMaximum"})
_REMARKS = frozenset(
    {"$schema", "$comment", "$vocabulary", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"}
)
"""Say nothing about what is valid."""
_MAY_BE_ASIDE = _REMARKS | {"$ref", "allOf", "$id", "$anchor", "$defs", "definitions", "title", "description"}
"""Of a schema that is what it refers to."""
_definition = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")


@dataclass(slots=True)
class _Page:
    """A schema while it is written."""

    root: Schema
    room: Room
    lost: set[str] = field(default_factory=set)
    """Keywords that were left out although they mean something."""

    def place(self, part: Schema) -> Schema:
        """The part with what it refers to in its place; a reference that leads nowhere is lost."""
        if not isinstance(part.get("$ref"), str):
            return part
        placing = Placing(self.root, self.room)
        placed: Schema = placing.place(part)
        if "$ref" in placed or placing.was_cut:
            self.lost.add("$ref")
        return {name: value for name, value in placed.items() if name != "$ref"}

    def place_whole(self, part: Schema) -> Schema | None:
        """The same; None where that would say less."""
        placing = Placing(self.root, self.room)
        placed: Schema = placing.place(part)
        return None if placing.was_cut else placed


def clean_schema(schema: Schema, room: Room) -> tuple[Schema, bool]:
    """The schema in Gemini's subset, and whether it is looser now than it was."""
    page = _Page(schema, room)
    return _clean(schema, page), bool(page.lost)


def _clean(schema: Schema, page: _Page) -> Schema:
    parts = _parts_of(schema) if "$ref" in schema or "allOf" in schema else []
    if len(parts) == 1 and (name := _name_in(parts[0], page)) and schema.keys() | parts[0].keys() <= _MAY_BE_ASIDE:
        placed = page.place_whole(parts[0]) if "description" in schema else None
        if placed is None:
            # Beside a reference nothing may stand but what begins with a dollar sign.
            ids = _cleaned_members(schema, ("$id", "$anchor"), page)
            return {**ids, **_defs_of(schema, page), "$ref": f"#/$defs/{name}"}
        parts = [placed]
    others = [(name, value) for name, value in schema.items() if name not in _KEPT | _SAID_OTHERWISE | _REMARKS]
    untold = [
        f"{name}: {msgspec.json.encode(value).decode()}"
        for name, value in others
        if isinstance(value, (str, int, float))
    ]
    page.lost.update(name for name, value in others if not isinstance(value, (str, int, float)))
    kept = {**_cleaned_members(schema, _KEPT, page), **_defs_of(schema, page)}
    _narrow(kept, schema, page)
    _merge(kept, [_clean(page.place(part), page) for part in parts], page)
    if untold:
        kept["description"] = describe(kept.get("description"), untold)
    return kept


def _parts_of(schema: Schema) -> list[Schema]:
    """What holds besides the members themselves: what is referred to, and all of `allOf`."""
    listed = schema.get("allOf")
    parts = [part for part in listed if isinstance(part, dict)] if isinstance(listed, list) else []
    return [{"$ref": schema["$ref"]}, *parts] if isinstance(schema.get("$ref"), str) else parts


def _name_in(part: Schema, page: _Page) -> str:
    """Of what a part refers to, where that stands among the definitions; they alone may be referred to."""
    ref = part.get("$ref")
    found = _definition.fullmatch(ref) if isinstance(ref, str) else None
    return found[1] if found is not None and find_referred(page.root, found[0]) is not None else ""


def _cleaned_members(schema: Schema, names: Collection[str], page: _Page) -> Schema:
    return {name: _value(name, value, page) for name, value in schema.items() if name in names}


def _defs_of(schema: Schema, page: _Page) -> Schema:
    if isinstance(older := schema.get("definitions"), dict):
        return {"$defs": _each({**older, **_as_map(schema.get("$defs"))}, page)}
    return {"$defs": _each(schema["$defs"], page)} if "$defs" in schema else {}


def _as_map(value: Any) -> Schema:
    return value if isinstance(value, dict) else {}


def _value(name: str, value: Any, page: _Page) -> Any:
    clean: Callable[[Any, _Page], Any] | None = _CLEANERS.get(name)
    return value if clean is None else clean(value, page)


def _sub(value: Any, page: _Page) -> Any:
    """A schema, or the `true` and `false` that may stand in its place."""
    return _clean(value, page) if isinstance(value, dict) else value


def _each(value: Any, page: _Page) -> Schema:
    if not isinstance(value, dict):
        return {}
    return {name: _clean(sub, page) if isinstance(sub, dict) else {} for name, sub in value.items() if sub is not False}


def _all(value: Any, page: _Page) -> list[Any]:
    return [_clean(sub, page) if isinstance(sub, dict) else {} for sub in value] if isinstance(value, list) else []


def _choices(value: Any, page: _Page) -> list[Any]:
    """Only texts and numbers may be listed."""
    listed = value if isinstance(value, list) else []
    kept = [item for item in listed if isinstance(item, (str, int, float)) and not isinstance(item, bool)]
    if len(kept) < len(listed):
        page.lost.add("enum")
    return kept


_CLEANERS: dict[str, Callable[[Any, _Page], Any]] = {
    "properties": _each,
    "items": _sub,
    "additionalProperties": _sub,
    "prefixItems": _all,
    "anyOf": _all,
    "oneOf": _all,
    "enum": _choices,
}


def _narrow(kept: Schema, schema: Schema, page: _Page) -> None:
    """What is said in another way."""
    if "const" in schema and (same := _choices([schema["const"]], page)):
        kept["enum"] = same
    if not kept.get("enum", True):
        del kept["enum"]
    if isinstance(kept.get("items"), list):
        # The way of older drafts to say what stands at which place.
        kept["prefixItems"] = _all(kept.pop("items"), page)
    is_whole = schema.get("type") == "integer"
    for name, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        value = schema.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            kept.setdefault(bound, value + step if is_whole else value)


def _merge(kept: Schema, parts: list[Schema], page: _Page) -> None:
    """All of `allOf` hold: their members come together, and of two that differ the first one stands."""
    required = dict.fromkeys(_names(kept.get("required")))
    for name, value in chain.from_iterable(part.items() for part in parts):
        if name in ("properties", "$defs"):
            held = kept.setdefault(name, {})
            for each, sub in value.items():
                if held.setdefault(each, sub) != sub:
                    page.lost.add("allOf")
        elif name == "required":
            required.update(dict.fromkeys(_names(value)))
        elif kept.setdefault(name, value) != value and name not in _MAY_BE_ASIDE:
            page.lost.add("allOf")
    if required:
        kept["required"] = list(required)


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def lower_types(value: Any) -> Any:
    """Google's own schemas write types in capitals, `STRING`; everything else is as in JSON schema."""
    if isinstance(value, list):
        return [lower_types(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: each.lower() if name == "type" and isinstance(each, str) else lower_types(each)
        for name, each in value.items()
    }
