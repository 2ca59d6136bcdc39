"""JSON schemas for providers that take a part of the language and refuse the rest."""

from typing import Any
from urllib.parse import unquote

from msgspec.structs import replace

from torana.chat import ChatRequest, Tool

Schema = dict[str, Any]

_KEPT = frozenset(
    {"type", "description", "title", "enum", "const", "$ref", "required", "default", "additionalProperties"}
)
_NESTED = frozenset({"properties", "$defs", "definitions", "items", "anyOf", "oneOf", "allOf"})
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_KEPT_VALUES = (*(("format", form) for form in _FORMATS), ("minItems", 0), ("minItems", 1))

MAX_PLACED = 10_000
"""Members and elements that references add to the schemas of one request: those within others multiply."""
MEMBER_CHARS = 64
"""A text or a name counts once more for each so many."""
MAX_LEVELS = 64
"""Of a schema in which references are put into each other."""

_NAMED = ("$defs", "definitions")
_MAPS = ("properties", "patternProperties", *_NAMED)
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES = ("items", "additionalProperties", "not")
_INNER = frozenset((*_MAPS, *_LISTS, *_ONES))
_HOLDERS = _INNER | {"$ref"}


def complete_schema(schema: Schema) -> Schema:
    """The schema as OpenAI wants a tool's: objects name their properties and arrays their items, be it none and any.

    It says the same; MCP servers leave both out, and Claude does not mind. The schema itself where nothing is missing.
    Source: OpenAI's errors "object schema missing properties" and "array schema missing items".
    """
    kind = schema.get("type")
    if _INNER.isdisjoint(schema) and isinstance(kind, str) and kind not in ("object", "array"):
        return schema  # most of those in an agent's tools, of which each of its calls brings hundreds
    changed: Schema = {}
    for name, value in schema.items():
        whole = _complete(name, value)
        if whole is not value:
            changed[name] = whole
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
        changed: Schema = {}
        for key, each in value.items():
            if isinstance(each, dict) and (whole := complete_schema(each)) is not each:
                changed[key] = whole
        return {**value, **changed} if changed else value
    if name in _LISTS and isinstance(value, list):
        listed = [complete_schema(each) if isinstance(each, dict) else each for each in value]
        return value if all(ours is theirs for ours, theirs in zip(listed, value, strict=True)) else listed
    return value


class Room:
    """What references may still add to the schemas of one request."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_PLACED


def bare_schema(schema: Schema, room: Room) -> Schema:
    """A tool's schema as Nova takes it: with no member around its properties, and what they refer to in their place.

    Source: Amazon Nova user guide, "Troubleshooting tool calls"; its 400 "extraneous key [definitions] is not
    permitted".
    """
    placing = Placing(schema, room)
    return {name: placing.place(schema[name]) for name in ("type", "properties", "required") if name in schema}


def find_referred(schema: Schema, ref: str) -> Schema | None:
    """What a reference within `schema` means, `#/$defs/A` or `#/properties/a/items`; None for any other."""
    if ref[:1] != "#" or ref[1:2] not in ("", "/"):
        return None
    found: Any = schema
    for step in ref.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and len(name) < 10 and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found if isinstance(found, dict) else None


class Placing:
    """Puts schemas where they are referred to within `schema`. One that holds itself, or is too much, is any object."""

    def __init__(self, schema: Schema, room: Room) -> None:
        self._schema = schema
        self._room = room
        self.was_cut = False
        """Some of it is any object now."""

    def place(self, value: Any, within: frozenset[str] = frozenset(), level: int = 0) -> Any:
        if within:
            self._room.left -= _weight(value)
        if not isinstance(value, (dict, list)):
            return value
        level += 1
        if isinstance(value, list):
            return [self.place(each, within, level) for each in value]
        ref = value.get("$ref")
        found = find_referred(self._schema, ref) if isinstance(ref, str) else None
        if found is None or not isinstance(ref, str):
            return {name: self.place(each, within, level) for name, each in value.items()}
        rest = {name: each for name, each in value.items() if name != "$ref"}
        if ref in within or self._room.left <= 0 or level > MAX_LEVELS:
            self.was_cut = True
            return {"type": "object", **rest}
        bare = {name: each for name, each in found.items() if name not in _NAMED}
        return {**self.place(bare, within | {ref}, level), **rest}


def _weight(value: Any) -> int:
    """Of one level."""
    if isinstance(value, str):
        return len(value) // MEMBER_CHARS
    if isinstance(value, list):
        return len(value)
    return len(value) + sum(map(len, value)) // MEMBER_CHARS if isinstance(value, dict) else 0


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
        elif name in _KEPT or (name, value) in _KEPT_VALUES:
            closed[name] = value
        elif isinstance(value, (str, int, float)) and not name.startswith("$"):
            untold.append(f"{name}: {value}")
    if schema.get("type") == "object" or "properties" in schema:
        closed["additionalProperties"] = False
    if untold:
        closed["description"] = describe(closed.get("description"), untold)
    return closed


def is_closable(schema: Schema) -> bool:
    """Whether an answer can be held to it closed: not where a part of it has only members that it does not name, for
    that would be left with none, nor where one holds itself, which is refused.

    Source: as above.
    """
    ended: set[int] = set()
    begun: set[int] = set()
    waiting: list[tuple[Schema, bool]] = [(schema, False)]
    while waiting:
        part, is_over = waiting.pop()
        if is_over:
            ended.add(id(part))
        elif id(part) not in begun:
            if _is_map(part):
                return False
            begun.add(id(part))
            waiting += [(part, True), *[(each, False) for each in _inner_of(part, schema)]]
        elif id(part) not in ended:
            return False  # it holds itself
    return True


def _is_map(schema: Schema) -> bool:
    if schema.get("properties"):
        return False
    more = schema.get("additionalProperties")
    is_any = more is None and schema.get("type") == "object" and "properties" not in schema
    return is_any or more is True or isinstance(more, dict)


def _inner_of(part: Schema, root: Schema) -> list[Schema]:
    """The schemas in a part, and the one that it refers to."""
    inner: list[Any] = []
    for name in part.keys() & _HOLDERS:
        value = part[name]
        if name == "$ref":
            inner.append(find_referred(root, value) if isinstance(value, str) else None)
        elif name in _ONES:
            inner.append(value)
        elif name in _MAPS and isinstance(value, dict):
            inner += value.values()
        elif name in _LISTS and isinstance(value, list):
            inner += value
    return [each for each in inner if isinstance(each, dict)]


def describe(said: Any, untold: list[str]) -> str:
    """A schema's description, and behind it what no member tells."""
    head = f"{said}\n\n" if isinstance(said, str) and said else ""
    return f"{head}{{{', '.join(untold)}}}"


def _close(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if name == "items":
            return close_schema(value)
        return {key: close_schema(each) if isinstance(each, dict) else each for key, each in value.items()}
    if isinstance(value, list):
        return [close_schema(each) if isinstance(each, dict) else each for each in value]
    return value


_NEVER_STRICT = frozenset(
    {"allOf", "oneOf", "not", "if", "then", "else", "patternProperties", "prefixItems", "unevaluatedProperties"}
    | {"dependentRequired", "dependentSchemas", "propertyNames", "contains"}
)
_TYPES: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def fit_strict_words(chat: ChatRequest, lost: set[str]) -> ChatRequest:
    """The same request for OpenAI's formats: nobody is held to a schema that their strict mode refuses."""
    asked = chat.answer_schema
    if asked is not None and asked.strict:
        schema = fit_strict(asked.schema)
        if schema is None:
            lost.add("answer_schema.strict")
        chat = replace(chat, answer_schema=replace(asked, schema=schema or asked.schema, strict=schema is not None))
    if any(tool.strict for tool in chat.tools):
        chat = replace(chat, tools=tuple(_fit_tool(tool, lost) for tool in chat.tools))
    return chat


def _fit_tool(tool: Tool, lost: set[str]) -> Tool:
    if not tool.strict:
        return tool
    parameters = fit_strict(tool.parameters or {"type": "object", "additionalProperties": False})
    if parameters is None:
        lost.add("tool.strict")
        return replace(tool, strict=False)
    return replace(tool, parameters=parameters)


def fit_strict(schema: Schema) -> Schema | None:
    """The schema as OpenAI's strict mode takes it, where that says the same; None where it cannot say it.

    Every property is required there: one that may be left out or null must then be there, and null.
    Source: OpenAI docs, "Structured outputs", supported schemas.
    """
    return _fit(schema) if schema.get("type") == "object" and "anyOf" not in schema else None


def _fit(schema: Any) -> Schema | None:
    if not isinstance(schema, dict) or not _NEVER_STRICT.isdisjoint(schema):
        return None
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    fitted: Schema = {name: value for name, value in schema.items() if name != "default"}
    for name in _NESTED & fitted.keys():
        inner = _fit_inner(name, fitted[name])
        if inner is None:
            return None
        fitted[name] = inner
    if "type" not in fitted and "anyOf" not in fitted:
        listed = fitted.get("enum") or [fitted.get("const", {})]
        kinds = {_TYPES.get(type(value)) for value in listed} if isinstance(listed, list) else {None}
        if len(kinds) > 1 or None in kinds:
            return None
        fitted["type"] = kinds.pop()
    kind = fitted.get("type")
    if "items" not in fitted and "array" in (kind if isinstance(kind, list) else [kind]):
        return None  # an array of anything
    return _fit_object(fitted) if "properties" in fitted or fitted.get("type") == "object" else fitted


def _fit_object(schema: Schema) -> Schema | None:
    properties, listed = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        return None
    required = set(listed)
    is_closed = schema.get("additionalProperties") is False and required <= set(properties)
    if not is_closed or not all(name in required or _takes_null(each) for name, each in properties.items()):
        return None
    return {**schema, "properties": properties, "required": list(properties)}


def _fit_inner(name: str, inner: Any) -> Any:
    """What stands in one of `_NESTED`: a schema, schemas by name, or a list of them; None where one does not fit."""
    if name == "items":
        return _fit(inner)
    if name in _MAPS and isinstance(inner, dict):
        named = {key: _fit(each) for key, each in inner.items()}
        return None if None in named.values() else named
    if name not in _MAPS and isinstance(inner, list):
        listed = [_fit(each) for each in inner]
        return None if None in listed else listed
    return None


def _takes_null(schema: Schema) -> bool:
    kind = schema.get("type")
    return (
        kind == "null" or (isinstance(kind, list) and "null" in kind) or any(map(_takes_null, schema.get("anyOf", ())))
    )
