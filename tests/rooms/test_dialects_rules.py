"""Whatever conversation a client has, what a vendor receives keeps to the vendor's public rules for one.

Sources: the vendors' API references, "Tool use" and "Function calling", and the errors they are known to answer with.
"""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.lengths import fit_lengths
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES

Body = dict[str, Any]
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
SCHEMAS: list[Body] = [
    {"type": "object", "properties": {"p": {"type": "string"}}, "required": ["p"]},
    {"type": "object"},
    {"type": "object", "properties": {"p": {"type": ["string", "null"]}, "q": {"enum": ["a", None]}}},
]
TOOLS = ("read", "mcp__server__do-it", "t" * 70, "21st_magic", "files.read")

texts = st.sampled_from(["hi", "größe 😀", "a\n\nb", " x ", "</s>"])
said = st.one_of(texts, st.sampled_from(["", " ", "\n"]))
results = st.sampled_from(["ok", "", "x = 1\n"])
IDS = st.sampled_from(["call.{turn}|{at}", "{at}", "0", ""])
"""As most servers give them, as some count, and as clients of the loosest have them."""
calls = st.lists(st.tuples(st.sampled_from(TOOLS), st.sampled_from(["{}", "", '{"p":"ü"}'])), min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> Body:
    """A valid request for a chat completion."""
    messages: list[Body] = [{"role": "system", "content": draw(said)}] if draw(st.booleans()) else []
    messages.append({"role": "user", "content": draw(texts)})
    form = draw(IDS)
    for turn in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            made = [(form.format(turn=turn, at=at), *call) for at, call in enumerate(draw(calls))]
            rows = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id_, name, arguments in made
            ]
            messages.append({"role": "assistant", "content": draw(said), "tool_calls": rows})
            messages += [{"role": "tool", "tool_call_id": id_, "content": draw(results)} for id_, _, _ in made]
            if draw(st.booleans()):
                continue
        else:
            messages.append({"role": "assistant", "content": draw(said)})
        messages.append({"role": "user", "content": draw(texts)})
    tools = [
        {"type": "function", "function": {"name": name, "parameters": draw(st.sampled_from(SCHEMAS))}} for name in TOOLS
    ]
    body: Body = {"model": "m", "messages": messages, "tools": tools}
    if draw(st.booleans()):
        body["tool_choice"] = draw(st.sampled_from(["auto", "none", "required"]))
    if draw(st.booleans()):
        body["stop"] = draw(st.lists(texts, min_size=1, max_size=4))
    return body


def check_pairs(turns: list[tuple[str, list[str], list[str]]]) -> None:
    """(role, calls, results) of each turn: results stand right behind their calls, all of them."""
    waiting: list[str] = []
    for _, made, answered in turns:
        assert sorted(answered) == sorted(waiting)
        waiting = made
    assert waiting == []
    every = [id_ for _, made, _ in turns for id_ in made]
    assert len(set(every)) == len(every)


def check_messages(body: Body) -> None:
    turns = []
    for row in body["messages"]:
        content = row["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert blocks
        assert all(block["text"].strip() for block in blocks if block["type"] == "text")
        kinds = [block["type"] == "tool_result" for block in blocks]
        assert kinds == sorted(kinds, reverse=True)
        used = [block for block in blocks if block["type"] == "tool_use"]
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]) for block in used)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", block["name"]) for block in used)
        assert blocks[-1]["type"] not in ("thinking", "redacted_thinking")
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        turns.append((row["role"], [block["id"] for block in used], answered))
    assert turns[0][0] == "user"
    check_pairs(turns)


def check_chat_completions(body: Body) -> None:
    waiting: list[str] = []
    for row in body["messages"]:
        if row["role"] == "tool":
            assert isinstance(row["content"], str)
            waiting.remove(row["tool_call_id"])
            continue
        assert waiting == []
        for call in row.get("tool_calls", ()):
            assert NAME.fullmatch(call["function"]["name"])
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            waiting.append(call["id"])
    assert waiting == []


def check_responses(body: Body) -> None:
    made = [item for item in body["input"] if item.get("type") == "function_call"]
    answered = [item["call_id"] for item in body["input"] if item.get("type") == "function_call_output"]
    assert sorted(item["call_id"] for item in made) == sorted(answered)
    assert all(NAME.fullmatch(item["name"]) for item in made)
    assert body["input"]
    for item, behind in pairwise([*body["input"], {"role": "user"}]):
        assert item.get("type") != "reasoning" or behind.get("role", "assistant") == "assistant"


def check_generate_content(body: Body) -> None:
    waiting: list[tuple[str, str]] = []
    for turn in body["contents"]:
        assert turn["parts"]
        assert all(part["text"] for part in turn["parts"] if "text" in part)
        results = [part["functionResponse"] for part in turn["parts"] if "functionResponse" in part]
        # In their order, for where ids are not told.
        assert [(each["id"], each["name"]) for each in results] == waiting
        calls = [part["functionCall"] for part in turn["parts"] if "functionCall" in part]
        assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}", call["name"]) for call in calls)
        waiting = [(call["id"], call["name"]) for call in calls]
    assert waiting == []
    assert body["contents"][0]["role"] == "user"


def check_converse(body: Body) -> None:
    turns = []
    for row in body["messages"]:
        assert row["content"]
        assert all(block["text"].strip() for block in row["content"] if "text" in block)
        assert "reasoningContent" not in row["content"][-1]
        used = [block["toolUse"] for block in row["content"] if "toolUse" in block]
        answered = [block["toolResult"] for block in row["content"] if "toolResult" in block]
        assert all(NAME.fullmatch(each["name"]) for each in used)
        assert all(re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", each["toolUseId"]) for each in used)
        assert all(each["content"] for each in answered)
        turns.append((row["role"], [each["toolUseId"] for each in used], [each["toolUseId"] for each in answered]))
    assert all(one[0] != other[0] for one, other in pairwise(turns))
    assert turns[0][0] == "user"
    check_pairs(turns)


@pytest.mark.parametrize(
    ("dialect", "check"),
    [
        (MESSAGES, check_messages),
        (CHAT_COMPLETIONS, check_chat_completions),
        (RESPONSES, check_responses),
        (GENERATE_CONTENT, check_generate_content),
        (CONVERSE, check_converse),
    ],
    ids=lambda value: value.name if isinstance(value, Dialect) else "",
)
@given(body=conversations())
@settings(max_examples=60, deadline=None)
def test_what_a_vendor_receives_keeps_to_its_rules(dialect: Dialect, check: Callable[[Body], None], body: Body) -> None:
    chat, model = CHAT_COMPLETIONS.read_request(json.dumps(body).encode())
    if dialect is CHAT_COMPLETIONS:
        # As it would come from another dialect's client.
        chat, _ = RESPONSES.read_request(RESPONSES.write_request(chat, model, stream=False))

    check(json.loads(dialect.write_request(fit_lengths(chat, dialect.name), model, stream=False)))
