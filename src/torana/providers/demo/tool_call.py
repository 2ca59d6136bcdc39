"""Values made from a JSON schema: the arguments of a demo tool call."""

from typing import Any

MAX_DEPTH = 6
"""Schemas may refer to themselves."""


def make_value(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """The smallest plausible value that `schema` allows; its required members only, if it names any."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {} if depth == 0 else "demo"
    root = schema if root is None else root
    if isinstance(schema.get("$ref"), str):
        return make_value(_follow(root, schema["$ref"]), root, depth + 1)
    for member in ("const", "default"):
        if member in schema:
            return schema[member]
    for member in ("enum", "examples"):
        if isinstance(schema.get(member), list) and schema[member]:
            return schema[member][0]
    for member in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(member), list) and schema[member]:
            return make_value(schema[member][0], root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or isinstance(schema.get("properties"), dict) or (depth == 0 and kind is None):
        members = schema.get("properties")
        members = members if isinstance(members, dict) else {}
        required = schema.get("required")
        names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else list(members)
        return {name: make_value(members.get(name, {"type": "string"}), root, depth + 1) for name in names}
    if kind == "array":
        wanted = schema.get("minItems")
        count = min(wanted, 10) if isinstance(wanted, int) else 0
        return [make_value(schema.get("items"), root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        least = schema.get("minimum")
        return least if isinstance(least, int | float) else 1
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    return "demo"


def _follow(root: Any, reference: str) -> Any:
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found
