"""JSON schema as Gemini takes it: what its subset has no keyword for is said in another way.

A bound that no keyword can say is told in the description, where the model reads it.

Source: Gemini API reference, "GenerationConfig", member responseJsonSchema, and "FunctionDeclaration", member
parametersJsonSchema; "Structured output", JSON schema support.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any

import msgspec

from torana.dialects.schemas import Schema, describe

_KEPT = frozenset(
    {"$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems"}
    | {"minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties"}
    | {"required", "propertyOrdering"}
)
_SAID_OTHERWISE = frozenset({"const", "allOf", "definitions", "exclusiveMinimum", "exclusiveMaximum"})
_REMARKS = frozenset(
    {"$schema", "$comment", "$vocabulary", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"}
)
"""Say nothing about what is valid."""


def clean_schema(schema: Schema) -> tuple[Schema, bool]:
    """The schema in Gemini's subset, and whether it is looser now than it was."""
    lost: set[str] = set()
    return _clean(schema, lost), bool(lost)


def _clean(schema: Schema, lost: set[str]) -> Schema:
    """`lost` gets the keywords that were left out although they mean something."""
    others = [(name, value) for name, value in schema.items() if name not in _KEPT | _SAID_OTHERWISE | _REMARKS]
    untold = [
        f"{name}: {msgspec.json.encode(value).decode()}"
        for name, value in others
        if isinstance(value, (str, int, float))
    ]
    lost.update(name for name, value in others if not isinstance(value, (str, int, float)))
    if isinstance(schema.get("$ref"), str):
        # Beside a reference nothing may stand but what begins with a dollar sign.
        return {name: _value(name, value, lost) for name, value in _referring(schema).items()}
    kept = {name: _value(name, value, lost) for name, value in schema.items() if name in _KEPT}
    if "definitions" in schema:
        kept["$defs"] = {**_each(schema["definitions"], lost), **kept.get("$defs", {})}
    _narrow(kept, schema, lost)
    if isinstance(schema.get("allOf"), list):
        _merge(kept, [_clean(part, lost) for part in schema["allOf"] if isinstance(part, dict)], lost)
    if untold:
        kept["description"] = describe(kept.get("description"), untold)
    return kept


def _referring(schema: Schema) -> Schema:
    ref = schema["$ref"].replace("#/definitions/", "#/$defs/", 1)
    found = {name: value for name, value in schema.items() if name in ("$id", "$anchor", "$defs")}
    if isinstance(schema.get("definitions"), dict):
        found["$defs"] = {**schema["definitions"], **(own if isinstance(own := found.get("$defs"), dict) else {})}
    return {**found, "$ref": ref}


def _value(name: str, value: Any, lost: set[str]) -> Any:
    clean: Callable[[Any, set[str]], Any] | None = _CLEANERS.get(name)
    return value if clean is None else clean(value, lost)


def _sub(value: Any, lost: set[str]) -> Any:
    """A schema, or the `true` and `false` that may stand in its place."""
    return _clean(value, lost) if isinstance(value, dict) else value


def _each(value: Any, lost: set[str]) -> Schema:
    if not isinstance(value, dict):
        return {}
    return {name: _clean(sub, lost) if isinstance(sub, dict) else {} for name, sub in value.items() if sub is not False}


def _all(value: Any, lost: set[str]) -> list[Any]:
    return [_clean(sub, lost) if isinstance(sub, dict) else {} for sub in value] if isinstance(value, list) else []


def _choices(value: Any, lost: set[str]) -> list[Any]:
    """Only texts and numbers may be listed."""
    listed = value if isinstance(value, list) else []
    kept = [item for item in listed if isinstance(item, (str, int, float)) and not isinstance(item, bool)]
    if len(kept) < len(listed):
        lost.add("enum")
    return kept


_CLEANERS: dict[str, Callable[[Any, set[str]], Any]] = {
    "$defs": _each,
    "properties": _each,
    "items": _sub,
    "additionalProperties": _sub,
    "prefixItems": _all,
    "anyOf": _all,
    "oneOf": _all,
    "enum": _choices,
}


def _narrow(kept: Schema, schema: Schema, lost: set[str]) -> None:
    """What is said in another way."""
    if "const" in schema and (same := _choices([schema["const"]], lost)):
        kept["enum"] = same
    if not kept.get("enum", True):
        del kept["enum"]
    if isinstance(kept.get("items"), list):
        # The way of older drafts to say what stands at which place.
        kept["prefixItems"] = _all(kept.pop("items"), lost)
    is_whole = schema.get("type") == "integer"
    for name, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        value = schema.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            kept.setdefault(bound, value + step if is_whole else value)


def _merge(kept: Schema, parts: list[Schema], lost: set[str]) -> None:
    """All of `allOf` hold: their members come together, and of two that differ the first one stands."""
    required = dict.fromkeys(_names(kept.get("required")))
    for name, value in chain.from_iterable(part.items() for part in parts):
        if name in ("properties", "$defs"):
            held = kept.setdefault(name, {})
            for each, sub in value.items():
                held.setdefault(each, sub)
        elif name == "required":
            required.update(dict.fromkeys(_names(value)))
        elif kept.setdefault(name, value) != value:
            lost.add("allOf")
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
