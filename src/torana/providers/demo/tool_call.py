"""Values made from a JSON schema: the arguments of a demo tool call."""

import json
from typing import Any

MAX_DEPTH = 6
"""Schemas may refer to themselves."""

MAX_CHARS = 20_000
"""Of all that is made; a schema of a few lines may stand for any number of values."""

VALUE_CHARS = 8
"""What a value counts at least."""


def make_value(schema: Any) -> Any:
    """The smallest plausible value that `schema` allows; its required members only, if it names any."""
    return _Making(schema).make(schema, 0)


class _Making:
    """One value under way."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left_chars = MAX_CHARS

    def make(self, schema: Any, depth: int) -> Any:
        self._left_chars -= VALUE_CHARS
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self._left_chars <= 0:
            return {} if depth == 0 else "demo"
        if isinstance(schema.get("$ref"), str):
            return self.make(self._follow(schema["$ref"]), depth + 1)
        for member in ("const", "default"):
            if member in schema:
                return self._give(schema[member])
        for member in ("enum", "examples"):
            if isinstance(schema.get(member), list) and schema[member]:
                return self._give(schema[member][0])
        for member in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(member), list) and schema[member]:
                return self.make(schema[member][0], depth + 1)
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "object" or isinstance(schema.get("properties"), dict) or (depth == 0 and kind is None):
            return self._make_object(schema, depth)
        if kind == "array":
            wanted = schema.get("minItems")
            count = min(wanted, 10) if isinstance(wanted, int) else 0
            return [self.make(schema.get("items"), depth + 1) for _ in range(count)]
        if kind in ("integer", "number"):
            least = schema.get("minimum")
            return least if isinstance(least, int | float) else 1
        if kind == "boolean":
            return False
        if kind == "null":
            return None
        return "demo"

    def _make_object(self, schema: Any, depth: int) -> dict[str, Any]:
        members = schema.get("properties")
        members = members if isinstance(members, dict) else {}
        required = schema.get("required")
        names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else list(members)
        self._left_chars -= sum(map(len, names))
        return {name: self.make(members.get(name, {"type": "string"}), depth + 1) for name in names}

    def _give(self, value: Any) -> Any:
        """What the schema itself holds."""
        self._left_chars -= len(json.dumps(value))
        return value

    def _follow(self, reference: str) -> Any:
        found = self._root
        for part in reference.removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        return found
