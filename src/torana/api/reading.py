"""JSON bodies read leniently, with the contract's errors: the first wrong member is named, its value never.

Numeric text and integral floats pass for integers, a lone surrogate reads as U+FFFD, unknown members
are never looked at. Limits count characters.
"""

import re
from collections.abc import Collection
from typing import Any

from torana.dialects.bodies import decode_request
from torana.errors import Invalid

Loc = tuple[str | int, ...]


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; Invalid `json_invalid` for anything else: not UTF-8, too deep, too crowded."""
    return decode_request(body)


def text(
    members: dict[str, Any],
    name: str,
    loc: Loc = (),
    *,
    limit: int | None = None,
    at_least: int = 0,
    trim: bool = False,
    required: bool = False,
    default: str = "",
) -> str:
    """A text member; absent and null read as `default` unless it is required."""
    value = members.get(name)
    if value is None:
        if required:
            raise _wanting(members, name, loc, "Input should be a valid string", "string_type")
        return default
    if not isinstance(value, str):
        raise Invalid((*loc, name), "Input should be a valid string", "string_type")
    if trim:
        value = value.strip()
    if limit is not None and len(value) > limit:
        raise Invalid((*loc, name), f"String should have at most {limit} characters", "string_too_long")
    if len(value) < at_least:
        raise Invalid((*loc, name), f"String should have at least {at_least} character(s)", "too_short")
    return value


def integer(members: dict[str, Any], name: str, loc: Loc = (), *, required: bool = False, default: int = 0) -> int:
    """A whole number; numeric text and integral floats pass."""
    value = members.get(name)
    if value is None:
        if required:
            raise _wanting(members, name, loc, "Input should be a valid integer", "int_type")
        return default
    if isinstance(value, str):
        # Bounded: converting a text of a megabyte of digits costs quadratic time.
        if len(value) <= 40 and re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", value, re.ASCII):
            return int(value.strip().split(".")[0])
    elif isinstance(value, float):
        if value.is_integer():
            return int(value)
    elif isinstance(value, int):
        return int(value)
    raise Invalid((*loc, name), "Input should be a valid integer", "int_type")


def number(members: dict[str, Any], name: str, loc: Loc = (), *, default: float, low: float, high: float) -> float:
    """A number from `low` to `high`, both included."""
    value = members.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid((*loc, name), "Input should be a valid number", "value_error")
    if not low <= value <= high:
        raise Invalid((*loc, name), f"Input should be from {low:g} to {high:g}", "value_error")
    return float(value)


def boolean(
    members: dict[str, Any], name: str, loc: Loc = (), *, required: bool = False, default: bool = False
) -> bool:
    value = members.get(name)
    if value is None:
        if required:
            raise _wanting(members, name, loc, "Input should be a valid boolean", "bool_type")
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        return value.lower() in ("true", "1", "yes", "on")
    raise Invalid((*loc, name), "Input should be a valid boolean", "bool_type")


def choice(
    members: dict[str, Any],
    name: str,
    allowed: Collection[str],
    loc: Loc = (),
    *,
    required: bool = False,
    default: str = "",
) -> str:
    """One of a few texts."""
    value = members.get(name)
    if value is None and not required:
        return default
    if value is None:
        raise _wanting(members, name, loc, "Input should be a valid string", "string_type")
    if not isinstance(value, str) or value not in allowed:
        wanted = ", ".join(f"'{word}'" for word in allowed)
        raise Invalid((*loc, name), f"Input should be {wanted}", "literal_error")
    return value


def mapping(members: dict[str, Any], name: str, loc: Loc = (), *, required: bool = False) -> dict[str, Any]:
    """An object member; absent and null read as {} unless it is required."""
    value = members.get(name)
    if value is None:
        if required:
            raise _wanting(members, name, loc, "Input should be a valid dictionary", "dict_type")
        return {}
    if not isinstance(value, dict):
        raise Invalid((*loc, name), "Input should be a valid dictionary", "dict_type")
    return value


def items(
    members: dict[str, Any],
    name: str,
    loc: Loc = (),
    *,
    at_least: int = 0,
    at_most: int | None = None,
    required: bool = False,
) -> list[Any]:
    """A list member; absent and null read as [] unless it is required."""
    value = members.get(name)
    if value is None:
        if required:
            raise _wanting(members, name, loc, "Input should be a valid list", "list_type")
        return []
    if not isinstance(value, list):
        raise Invalid((*loc, name), "Input should be a valid list", "list_type")
    if at_most is not None and len(value) > at_most:
        raise Invalid((*loc, name), f"List should have at most {at_most} items", "too_long")
    if len(value) < at_least:
        raise Invalid((*loc, name), f"List should have at least {at_least} item(s)", "too_short")
    return value


def as_object(value: Any, loc: Loc) -> dict[str, Any]:
    """An item that must be an object."""
    if not isinstance(value, dict):
        raise Invalid(loc, "Input should be a valid dictionary", "dict_type")
    return value


def _wanting(members: dict[str, Any], name: str, loc: Loc, msg: str, type: str) -> Invalid:
    if name in members:
        return Invalid((*loc, name), msg, type)
    return Invalid((*loc, name), "Field required", "missing")
