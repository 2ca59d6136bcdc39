"""Schemas that are to be kept to: what OpenAI's strict mode takes, and what nobody is held to there."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest

from torana.chat import AnswerSchema, ChatRequest, Message, Text, Tool
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect
from torana.dialects.google_schema import clean_schema
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.schemas import (
    MAX_PLACED,
    Room,
    bare_schema,
    close_schema,
    complete_schema,
    fit_strict,
    is_closable,
)

MAYBE_TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def closed(properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        **more,
    }


OPTIONAL = closed({"a": {"type": "string"}, "b": MAYBE_TEXT, "c": {"type": ["integer", "null"]}}, ["a"])
LOOSE = closed({"a": {"type": "string"}, "b": {"type": "integer", "default": 0}}, ["a"])


@pytest.mark.parametrize(
    ("schema", "fitted"),
    [
        (closed({"a": {"type": "string"}}, ["a"]), closed({"a": {"type": "string"}}, ["a"])),
        (OPTIONAL, {**OPTIONAL, "required": ["a", "b", "c"]}),
        (
            closed(
                {"a": {"const": "x"}, "b": {"enum": [1, 2]}, "c": {"type": "string", "default": "d"}}, ["a", "b", "c"]
            ),
            closed(
                {
                    "a": {"const": "x", "type": "string"},
                    "b": {"enum": [1, 2], "type": "integer"},
                    "c": {"type": "string"},
                },
                ["a", "b", "c"],
            ),
        ),
        (
            closed({"a": {"$ref": "#/$defs/A", "description": "d"}}, ["a"], **{"$defs": {"A": OPTIONAL}}),
            closed({"a": {"$ref": "#/$defs/A"}}, ["a"], **{"$defs": {"A": {**OPTIONAL, "required": ["a", "b", "c"]}}}),
        ),
        (
            closed({"a": {"type": "array", "items": OPTIONAL}}, ["a"]),
            closed({"a": {"type": "array", "items": {**OPTIONAL, "required": ["a", "b", "c"]}}}, ["a"]),
        ),
        # What may be left out and may not be null, further members, and words that are not known there
        (LOOSE, None),
        (closed({"a": LOOSE}, ["a"]), None),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, None),
        (closed({"a": {"allOf": [{"type": "string"}]}}, ["a"]), None),
        (closed({"a": {}}, ["a"]), None),
        (closed({"a": {"type": "array"}}, ["a"]), None),
        (closed({"a": {"type": ["array", "null"]}}, ["a"]), None),
        (closed({"a": {"enum": ["x", 1]}}, ["a"]), None),
        (closed({"a": True}, ["a"]), None),
        ({"type": "array", "items": {"type": "string"}}, None),
        ({"anyOf": [OPTIONAL, LOOSE]}, None),
        # What is no schema
        *((closed({"a": {"type": "string"}}, required), None) for required in (None, 1.5, "a", [["a"]], [{}], ["b"])),
        *((closed(properties, []), None) for properties in (None, 1.5, "a", [], {"a": None})),
        *((closed({"a": {"anyOf": several}}, ["a"]), None) for several in (None, 1.5, {"b": {}}, [1])),
        (closed({"a": {"enum": 5}}, ["a"]), None),
    ],
)
def test_a_schema_is_made_strict_where_that_says_the_same(
    schema: dict[str, Any], fitted: dict[str, Any] | None
) -> None:
    assert fit_strict(schema) == fitted


def test_what_is_put_where_it_is_referred_to_has_room_in_a_request_not_in_a_schema() -> None:
    """Each of so many references to so much would make gigabytes of a hundred kilobytes."""
    many = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(3_000)}}
    refs = {f"r{number}": {"$ref": "#/$defs/many"} for number in range(500)}
    schema = {"type": "object", "properties": refs, "$defs": {"many": many}}
    room = Room()

    first, second = bare_schema(schema, room), bare_schema(schema, room)

    assert first["properties"]["r0"] == many
    assert [first["properties"]["r499"], *second["properties"].values()] == [{"type": "object"}] * 501
    assert len(json.dumps(first)) < MAX_PLACED * 20


def test_what_is_referred_to_may_stand_anywhere() -> None:
    inner = {"type": "object", "properties": {"a/b": {"type": "string"}}}
    refs = {
        "one": {"$ref": "#/properties/inner"},
        "two": {"$ref": "#/properties/inner/properties/a~1b"},
        "three": {"$ref": "#/properties/listed/anyOf/1"},
        "none": {"$ref": "#/properties/listed/anyOf/2"},
    }
    listed = {"anyOf": [{}, {"type": "integer"}]}
    schema = {"type": "object", "properties": {"inner": inner, "listed": listed, **refs}}

    placed = bare_schema(schema, Room())["properties"]

    assert [placed[name] for name in refs] == [inner, {"type": "string"}, {"type": "integer"}, refs["none"]]


@pytest.mark.parametrize("ref", ["#/" + "a/" * 2_000, "#/properties/many/anyOf/1"])
def test_references_that_are_long_or_lead_into_long_lists_take_linear_time(ref: str) -> None:
    many = {"anyOf": [{"type": "string"}] * 20_000}
    refs = {f"r{number}": {"$ref": ref} for number in range(2_000)}
    before = time.thread_time()

    assert is_closable({"properties": {"many": many, **refs}})
    assert time.thread_time() - before < 0.5


NAMED = {"type": "object", "properties": {"a": {"type": "string"}}}
MAP = {"type": "object", "additionalProperties": {"type": "string"}}
LISTED = {"type": "object", "properties": {"n": {"anyOf": [{"$ref": "#/$defs/L"}, {"type": "null"}]}}}


@pytest.mark.parametrize(
    ("schema", "closes"),
    [
        (NAMED, True),
        ({"type": "object", "properties": {}}, True),
        ({"type": "object", "additionalProperties": False}, True),
        ({**NAMED, "additionalProperties": True}, True),
        ({"$ref": "#/$defs/A", "$defs": {"A": NAMED, "B": {"properties": {"a": {"$ref": "#/$defs/A"}}}}}, True),
        ({"properties": {"additionalProperties": True, "a": {"$ref": "#/nowhere"}}}, True),
        ({"type": "object"}, False),
        (MAP, False),
        ({"type": "object", "properties": {}, "additionalProperties": True}, False),
        ({"type": "object", "properties": {"a": {"type": "array", "items": MAP}}}, False),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, False),
        ({"$ref": "#/$defs/L", "$defs": {"L": LISTED}}, False),
    ],
)
@pytest.mark.parametrize(
    ("dialect", "model"), [(MESSAGES, "claude-sonnet-4-6"), (CONVERSE, "us.anthropic.claude-sonnet-4-6")]
)
def test_claude_is_held_to_a_schema_only_where_that_leaves_an_answer(
    dialect: Dialect, model: str, schema: dict[str, Any], closes: bool
) -> None:
    """Objects are closed for it: of a map nothing would be left but `{}`."""
    chat = ChatRequest(
        messages=(Message("user", (Text("Hi"),)),),
        answer_schema=AnswerSchema("answer", schema),
        tools=(Tool("f", parameters=schema, strict=True),),
    )

    written = dialect.write_request(chat, model, stream=False).decode()

    assert ("json_schema" in written) == ('"strict":true' in written) == closes
    assert ("Answer with JSON of this schema" in written) != closes
    assert dialect.losses(chat, model) == (() if closes else ("tool.strict",))


@pytest.mark.parametrize("long", [{"description": "x" * 1_000_000}, {"x" * 1_000_000: 1}])
def test_long_texts_take_room_where_they_are_referred_to(long: dict[str, Any]) -> None:
    refs = {f"r{number}": {"$ref": "#/$defs/long"} for number in range(20)}
    schema = {"type": "object", "properties": refs, "$defs": {"long": long}}

    assert len(json.dumps(bare_schema(schema, Room()))) < 2_000_000


def test_references_that_lead_on_and_on_end() -> None:
    names = [f"D{number}" for number in range(1_000)]
    defs = {name: {"properties": {"x": {"$ref": f"#/$defs/{after}"}}} for name, after in pairwise(names)}
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/D0"}}, "$defs": defs}

    assert bare_schema(schema, Room())["properties"]["x"]["properties"]["x"]["properties"]


def asked_in(dialect: Dialect, schema: dict[str, Any]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """What is written of a schema for the answer and for a tool, and what is lost."""
    chat = ChatRequest(
        messages=(Message("user", (Text("Hi"),)),),
        answer_schema=AnswerSchema("answer", schema, strict=True),
        tools=(Tool("f", parameters=schema, strict=True),),
    )
    written = json.loads(dialect.write_request(chat, "gpt-5-mini", stream=False))
    if dialect is RESPONSES:
        return [written["text"]["format"], written["tools"][0]], dialect.losses(chat, "gpt-5-mini")
    rows = [written["response_format"]["json_schema"], written["tools"][0]["function"]]
    return rows, dialect.losses(chat, "gpt-5-mini")


@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_nobody_is_held_to_a_schema_that_openai_refuses(dialect: Dialect) -> None:
    (answer, tool), lost = asked_in(dialect, OPTIONAL)
    (loose_answer, loose_tool), lost_of_loose = asked_in(dialect, LOOSE)

    assert (answer["strict"], tool["strict"], lost) == (True, True, ())
    assert answer["schema"]["required"] == tool["parameters"]["required"] == ["a", "b", "c"]
    assert (loose_answer["strict"], loose_tool["strict"]) == (False, False)
    assert loose_answer["schema"] == loose_tool["parameters"] == LOOSE
    assert lost_of_loose == ("answer_schema.strict", "tool.strict")


@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_a_clients_own_schema_goes_to_its_own_vendor_as_it_came(dialect: Dialect) -> None:
    form = {"name": "answer", "schema": LOOSE, "strict": True}
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    if dialect is RESPONSES:
        body = {"model": "m", "input": "Hi", "text": {"format": {"type": "json_schema", **form}}}
    else:
        body["response_format"] = {"type": "json_schema", "json_schema": form}

    chat, _ = dialect.read_request(json.dumps(body).encode())
    written = json.loads(dialect.write_request(chat, "gpt-5-mini", stream=False))

    assert (written.get("response_format") or written["text"]["format"]) == (
        body.get("response_format") or body["text"]["format"]
    )


def test_what_an_object_and_an_array_may_leave_unsaid_is_said_for_them() -> None:
    said = {"type": "object", "properties": {"a": {"type": ["array", "null"]}, "b": {"type": "string"}}}

    assert complete_schema({"anyOf": [{"type": "object"}, said]}) == {
        "anyOf": [
            {"type": "object", "properties": {}},
            {**said, "properties": {"a": {"type": ["array", "null"], "items": {}}, "b": {"type": "string"}}},
        ]
    }
    assert complete_schema(whole := {"type": "object", "properties": {}}) is whole


WORDS = (
    *("type", "properties", "items", "additionalProperties", "prefixItems", "anyOf", "oneOf", "allOf", "enum", "const"),
    *("required", "$ref", "$defs", "definitions", "not", "description", "format", "default", "nullable"),
)
ODD: tuple[Any, ...] = (
    *(None, 1.5, True, "a", [], [1], [None], ["a"], [["a"]], [{}], [True], [{"$ref": "#/x"}], {"b": 1}, {"b": None}),
    *({"b": []}, {"$ref": "#"}, {"$ref": 5}),
)


@pytest.mark.parametrize("word", WORDS)
def test_whatever_stands_in_a_tools_schema_its_reading_goes_on(word: str) -> None:
    for odd in ODD:
        schema = {"type": "object", word: odd}
        for each in (
            schema,
            {"anyOf": [schema]},
            {"allOf": [schema, {"type": "object"}]},
            {"properties": {"p": schema}},
        ):
            assert isinstance(clean_schema(each, Room())[0], dict)
            assert isinstance(bare_schema(each, Room()), dict)
            assert isinstance(complete_schema(each), dict)
            assert isinstance(close_schema(each), dict)
            assert isinstance(fit_strict(each), dict | None)
