"""JSON schemas for providers that take a part of the language and refuse the rest."""

from typing import Any

Schema = dict[str, Any]

_KEPT = frozenset(
    {"type", "description", "title", "enum", "const", "$ref", "required", "default", "additionalProperties"}
)
_NESTED = frozenset({"properties", "$defs", "definitions", "items", "anyOf", "oneOf", "allOf"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


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
