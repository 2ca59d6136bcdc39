"""JSON schemas for providers that take a part of the language and refuse the rest."""

from typing import Any

Schema = dict[str, Any]

_KEPT = frozenset(
    {"type", "description", "title", "enum", "const", "$ref", "required", "default", "additionalProperties"}
)
_NESTED = frozenset({"properties", "$defs", "definitions", "items", "anyOf", "oneOf", "allOf"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES = ("items", "additionalProperties", "not")


def complete_schema(schema: Schema) -> Schema:
    """The schema as OpenAI wants a tool's: objects name their properties and arrays their items, be it none and any.

    It says the same; MCP servers leave both out, and Claude does not mind. The schema itself where nothing is missing.
    Source: OpenAI's errors "object schema missing properties" and "array schema missing items".
    """
    changed: Schema = {}
    for name, value in schema.items():
        whole = _complete(name, value)
        if whole is not value:
            changed[name] = whole
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if "object" in kinds and not isinstance(schema.get("properties"), dict):
        changed["properties"] = {}
    if "array" in kinds and "items" not in schema:
        changed["items"] = {}
    return {**schema, **changed} if changed else schema


def _complete(name: str, value: Any) -> Any:
    """The member itself where nothing is missing in it."""
    if name in _ONES and isinstance(value, dict):
        return complete_schema(value)
    if name in _MAPS and isinstance(value, dict):
        rows = {key: complete_schema(each) if isinstance(each, dict) else each for key, each in value.items()}
        return value if all(rows[key] is each for key, each in value.items()) else rows
    if name in _LISTS and isinstance(value, list):
        whole = [complete_schema(each) if isinstance(each, dict) else each for each in value]
        return value if all(ours is theirs for ours, theirs in zip(whole, value, strict=True)) else whole
    return value


def close_schema(schema: Schema) -> Schema:
    """The schema as strict providers want it: objects without further members, and no bounds.

    What is left out is told in the description instead, where the model reads it.
    Source: Claude docs, "Structured outputs", JSON Schema limitations.
    """
    closed: Schema = {}
    untold: list[str] = []
    for name, value in schema.items():
        if name in _NESTED:
            closed["anyOf" if name == "oneOf" else name] = _close(name, value)
        elif name in _KEPT or (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1)):
            closed[name] = value
        elif isinstance(value, (str, int, float)) and not name.startswith("$"):
            untold.append(f"{name}: {value}")
    if schema.get("type") == "object" or "properties" in schema:
        closed["additionalProperties"] = False
    if untold:
        said = closed.get("description")
        closed["description"] = "\n\n".join(filter(None, [said, f"{{{', '.join(untold)}}}"]))
    return closed


def _close(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if name == "items":
            return close_schema(value)
        return {key: close_schema(each) if isinstance(each, dict) else each for key, each in value.items()}
    if isinstance(value, list):
        return [close_schema(each) if isinstance(each, dict) else each for each in value]
    return value
