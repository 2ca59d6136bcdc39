"""As much of JSON Schema as the gateway's own OpenAPI document uses."""

from collections.abc import Iterator, Mapping
from typing import Any

KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip

Schema = Mapping[str, Any]


class Schemas:
    """The schemas of one document; `$ref` is looked up in it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.named: Mapping[str, Schema] = document["components"]["schemas"]

    def faults(self, value: Any, schema: Schema, where: str = "$") -> Iterator[str]:
        """`where: what is wrong`, for every place where `value` is not as `schema` says."""
        if "$ref" in schema:
            schema = self.named[schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            if all(list(self.faults(value, each, where)) for each in schema["anyOf"]):
                yield f"{where}: is none of what it may be"
            return
        kinds = schema.get("type", list(KINDS))
        if not any(_is_of(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
            yield f"{where}: {value!r:.60} is no {kinds}"
        elif "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r:.60} is none of {schema['enum']}"
        elif isinstance(value, dict):
            yield from (f"{where}: has no {name}" for name in schema.get("required", ()) if name not in value)
            for name, inner in schema.get("properties", {}).items():
                if name in value:
                    yield from self.faults(value[name], inner, f"{where}.{name}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.faults(item, schema.get("items", {}), f"{where}[{index}]")


def with_nulls(value: Any, schema: Schema) -> Any:
    """`value` with null for every member that `schema` lets be null and that `value` does not have."""
    if isinstance(value, list) and "items" in schema:
        return [with_nulls(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    if "anyOf" in schema:
        return with_nulls(value, schema["anyOf"][0])
    members = schema.get("properties", {})
    nulls = {name: None for name, inner in members.items() if "null" in inner.get("type", ()) and name not in value}
    return {**{name: with_nulls(item, members.get(name, {})) for name, item in value.items()}, **nulls}


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, KINDS[kind])
