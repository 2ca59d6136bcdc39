"""The few words of JSON Schema that the OpenAPI document is written in."""

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]


def a_text(limit: int | None = None, **more: Any) -> Schema:
    return {"type": "string", **({"maxLength": limit} if limit else {}), **more}


def an_object(required: Iterable[str] = (), **members: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": members}


def a_list(items: Schema, low: int | None = None, high: int | None = None) -> Schema:
    bounds = {name: value for name, value in (("minItems", low), ("maxItems", high)) if value is not None}
    return {"type": "array", "items": items, **bounds}


ANYTHING: Schema = {}
FREE: Schema = {"type": "object", "additionalProperties": True}
FLAG: Schema = {"type": "boolean", "default": False}
INTEGER: Schema = {"type": "integer"}


def lenient(schema: Schema) -> Schema:
    """`schema` as requests are read: null stands for any member that need not be there."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [lenient(each) for each in schema["anyOf"]]}
    if "items" in schema:
        return {**schema, "items": lenient(schema["items"])}
    if "properties" not in schema:
        return schema
    members = {
        name: lenient(inner) if name in schema["required"] else _or_null(lenient(inner))
        for name, inner in schema["properties"].items()
    }
    return {**schema, "properties": members}


def _or_null(schema: Schema) -> Schema:
    if not isinstance(schema.get("type"), str):
        return schema
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **more}
