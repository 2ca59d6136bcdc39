"""What two requests or answers in our words have in common, whatever the formats they crossed.

Formats differ in what they keep apart: neighbouring turns of one side, where system text stands, letters
of an id. `plain` brings words into one shape, and `without` takes away what a dialect says it lost.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from torana.chat import ChatRequest, Document, Foreign, Image, Message, Part, Role, Text, Thought, ToolCall, ToolResult
from torana.dialects.collecting import Collected, collect
from torana.dialects.in_words import tell_in_turn
from torana.dialects.media import text_of
from torana.dialects.thoughts import find_effort

_ending = re.compile(r"([ .]pdf)+$")


def plain(chat: ChatRequest) -> dict[str, Any]:
    """All that matters of a request, comparable."""
    chat = tell_in_turn(chat)
    system = [part for message in chat.messages if message.role == "system" for part in message.parts]
    turns: list[tuple[Role, list[Any]]] = []
    for message in chat.messages:
        parts = [row for part in message.parts for row in _plain_part(part)]
        if message.role == "system" or not parts:
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((message.role, parts))
    schema = chat.answer_schema
    return {
        "system": " ".join(_words(part.text for part in system if isinstance(part, Text))),
        "turns": [(role, _sorted_turn(parts)) for role, parts in turns],
        "max_tokens": chat.max_tokens,
        "temperature": chat.temperature,
        "top_p": chat.top_p,
        "top_k": chat.top_k,
        "stop": [text for text in chat.stop if text.strip()],
        "tools": [
            (tool.name, tool.description, _plain_schema(tool.parameters), bool(tool.strict)) for tool in chat.tools
        ],
        "tool_choice": chat.tool_choice,
        "one_call_at_a_time": chat.parallel_tool_calls is False,
        "answer_schema": None if schema is None else _plain_answer_schema(schema.schema),
        "wants_json": chat.wants_json,
        "effort": "" if chat.reasoning is None else find_effort(chat.reasoning).removeprefix("none"),
        "user": chat.user,
    }


def _words(texts: Iterable[str]) -> list[str]:
    return " ".join(texts).split()


def _plain_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return schema or {"type": "object", "properties": {}}


def _plain_answer_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what it is for: some formats say that in the schema itself."""
    return {name: value for name, value in _plain_schema(schema).items() if name != "description"}


def _sorted_turn(parts: list[Any]) -> list[Any]:
    """Results come first, then what was thought and said; pictures of results stand where the format puts them."""
    order = {"result": 0, "thought": 1, "image": 2, "document": 3, "text": 4, "call": 5}
    texts = " ".join(_words(row[1] for row in parts if row[0] == "text"))
    rest = sorted((row for row in parts if row[0] != "text"), key=lambda row: (order[row[0]], row[1:]))
    return [*rest, ("text", texts)] if texts else rest


def _plain_part(part: Part) -> list[tuple[Any, ...]]:
    match part:
        case Text():
            return [("text", part.text)] if part.text.strip() else []
        case Image():
            return [("image", part.media_type if part.data else "", part.data, part.url)]
        case Document() if (text := text_of(part)) is not None:
            return [("text", f"{part.title} {text}")]
        case Document():
            # Some formats want a name, or an ending to it, and make it up; some take no dots.
            title = "" if part.title.partition(".")[0] == "document" else _ending.sub("", part.title)
            return [("document", part.media_type if part.data else "", part.data, part.url, title)]
        case Thought():
            return [("thought", part.text, part.signature, part.redacted, part.dialect)]
        case ToolCall():
            return [("call", _plain_id(part.id), part.name, json.dumps(json.loads(part.arguments or "{}")))]
        case ToolResult():
            text = part.text.removeprefix("Error: ")
            text = "" if text.startswith("The result is shown") else text
            shown = [row for each in part.parts if not isinstance(each, Text) for row in _plain_part(each)]
            return [("result", _plain_id(part.call_id), " ".join(text.split())), *shown]
        case Foreign():
            raise AssertionError(f"{part.kind} has a word, or does not belong here")


def _plain_id(call_id: str) -> str:
    return call_id.replace(":", "_")


def without(chat: ChatRequest, lost: tuple[str, ...]) -> ChatRequest:
    """The request less what a dialect says it leaves out. A name that is not here is no loss of our words."""
    for name in lost:
        if name in _LESS:
            chat = _LESS[name](chat)
    return chat


def _set(**members: Any) -> Callable[[ChatRequest], ChatRequest]:
    return lambda chat: msgspec.structs.replace(chat, **members)


def _less_thoughts(chat: ChatRequest) -> ChatRequest:
    messages = tuple(
        Message(message.role, tuple(part for part in message.parts if not isinstance(part, Thought)))
        for message in chat.messages
    )
    return msgspec.structs.replace(chat, messages=messages)


def _less_strict(chat: ChatRequest) -> ChatRequest:
    return msgspec.structs.replace(chat, tools=tuple(msgspec.structs.replace(tool, strict=None) for tool in chat.tools))


def _less_titles(chat: ChatRequest) -> ChatRequest:
    """Of documents that are no text: a text's title stands before it."""
    messages = tuple(
        Message(message.role, tuple(_less_title(part) for part in message.parts)) for message in chat.messages
    )
    return msgspec.structs.replace(chat, messages=messages)


def _less_title(part: Part) -> Part:
    if isinstance(part, Document) and text_of(part) is None:
        return msgspec.structs.replace(part, title="")
    return part


_LESS: dict[str, Callable[[ChatRequest], ChatRequest]] = {
    "temperature": _set(temperature=None),
    "top_p": _set(top_p=None),
    "top_k": _set(top_k=None),
    "stop": _set(stop=()),
    "user": _set(user=""),
    "reasoning": _set(reasoning=None),
    "answer_schema": _set(answer_schema=None),
    "wants_json": _set(wants_json=False),
    "parallel_tool_calls": _set(parallel_tool_calls=None),
    "tool_choice": _set(tool_choice="auto"),
    "tool.strict": _less_strict,
    "thought": _less_thoughts,
    "document.title": _less_titles,
}


def plain_answer(collected: Collected) -> list[Any]:
    """All that matters of an answer; a dialect that shows no thoughts is compared without them."""
    return [
        {
            "text": choice.text,
            "reasoning": choice.reasoning,
            "calls": [(call.id, call.name, json.loads(call.arguments)) for call in choice.tool_calls],
            "finish": choice.finish,
        }
        for choice in collected.choices
    ]


__all__ = ["collect", "plain", "plain_answer", "without"]
