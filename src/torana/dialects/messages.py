"""The messages dialect: requests, and the record of all its functions. Source: Anthropic API reference, "Messages"."""

import re
from typing import Any

import msgspec

from torana.chat import ChatRequest, Foreign, Message, Part, Role, Text, Tool, ToolCall, ToolResult
from torana.dialects import messages_answers as answers
from torana.dialects import messages_writing as writing
from torana.dialects.dialect import Dialect
from torana.dialects.members import (
    Loc,
    Members,
    decode_request,
    find_number,
    find_object,
    find_rows,
    find_text,
    find_texts,
    find_whole,
    keep_extra,
    need_rows,
    need_text,
    with_extra,
)
from torana.dialects.streams import LineScan, StreamReader
from torana.errors import Invalid

NAME = "messages"

DEFAULT_MAX_TOKENS = 4096
"""The API demands a number; this one every model on offer accepts."""

_CACHED = {"type": "ephemeral"}
_SPOKEN = frozenset(
    {"messages", "system", "max_tokens", "temperature", "top_p", "top_k"}
    | {"stop_sequences", "tools", "tool_choice", "metadata"}
)
_THOUGHTS = ("thinking", "redacted_thinking")
_forbidden_in_id = re.compile(r"[^a-zA-Z0-9_-]")


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/messages; raises Invalid."""
    members = decode_request(body)
    if "max_tokens" not in members:
        raise Invalid(("max_tokens",), "Field required", "missing")
    return _read_body(members)


def read_count_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/messages/count_tokens: the same without `max_tokens`; raises Invalid."""
    return _read_body(decode_request(body))


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`; raises Invalid for a part that only another dialect can write."""
    members = with_extra(chat, NAME, _write_words(chat), _read_words, _SPOKEN, stream=stream)
    return msgspec.json.encode({"model": model, **members})


def _read_body(members: Members) -> tuple[ChatRequest, str]:
    model = need_text(members, "model")
    chat = _read_words(members)
    return keep_extra(chat, NAME, members, _write_words(chat)), model


def _read_words(members: Members) -> ChatRequest:
    system = _read_parts(members, "system", ()) if members.get("system") is not None else ()
    messages = [Message("system", system)] if system else []
    for number, row in enumerate(need_rows(members, "messages")):
        loc: Loc = ("messages", number)
        messages.append(Message(_read_role(row, loc), _read_parts(row, "content", loc)))
    tools = find_rows(members, "tools")
    return ChatRequest(
        messages=tuple(messages),
        max_tokens=find_whole(members, "max_tokens"),
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        top_k=find_whole(members, "top_k"),
        stop=find_texts(members, "stop_sequences"),
        tools=tuple(_read_tool(row, number) for number, row in enumerate(tools) if _is_ours_to_call(row)),
        tool_choice=_read_tool_choice(find_object(members, "tool_choice")),
        user=find_text(find_object(members, "metadata"), "user_id", ("metadata",)),
        stream=members.get("stream") is True,
    )


def _read_role(row: Members, loc: Loc) -> Role:
    match need_text(row, "role", loc):
        case "user":
            return "user"
        case "assistant":
            return "assistant"
        case "system":
            return "system"
    raise Invalid((*loc, "role"), "Input should be 'user' or 'assistant'", "literal_error")


def _read_parts(members: Members, name: str, loc: Loc) -> tuple[Part, ...]:
    if isinstance(members.get(name), str):
        return (Text(members[name]),)
    return tuple(_read_part(row, (*loc, name, number)) for number, row in enumerate(need_rows(members, name, loc)))


def _read_part(block: Members, loc: Loc) -> Part:
    kind = need_text(block, "type", loc)
    if kind == "text":
        return Text(need_text(block, "text", loc), cached=block.get("cache_control") is not None)
    if kind == "tool_use":
        arguments = msgspec.json.encode(find_object(block, "input", loc)).decode()
        return ToolCall(need_text(block, "id", loc), need_text(block, "name", loc), arguments)
    if kind == "tool_result":
        content = block.get("content")
        parts = () if content is None else _read_parts(block, "content", loc)
        # A picture of the result has no word here, so the result stays in one piece.
        if all(isinstance(part, Text) for part in parts):
            text = (Text(Message("user", parts).text),)
            return ToolResult(need_text(block, "tool_use_id", loc), text, block.get("is_error") is True)
    return Foreign(NAME, kind, block, is_thought=kind in _THOUGHTS)


def _is_ours_to_call(row: Members) -> bool:
    """False for tools that Anthropic runs itself; they stay in `extra`."""
    return row.get("type") in (None, "custom")


def _read_tool(row: Members, number: int) -> Tool:
    loc: Loc = ("tools", number)
    return Tool(need_text(row, "name", loc), find_text(row, "description", loc), find_object(row, "input_schema", loc))


def _read_tool_choice(choice: Members) -> str:
    kind = find_text(choice, "type", ("tool_choice",)) or "auto"
    return need_text(choice, "name", ("tool_choice",)) if kind == "tool" else kind


def _write_words(chat: ChatRequest) -> Members:
    members: Members = {
        "max_tokens": DEFAULT_MAX_TOKENS if chat.max_tokens is None else chat.max_tokens,
        "messages": _write_messages(chat.messages),
    }
    if system := _write_system(chat.messages):
        members["system"] = system
    if chat.temperature is not None:
        members["temperature"] = min(chat.temperature, 1.0)  # the range ends there, others' at 2
    if chat.top_p is not None:
        members["top_p"] = chat.top_p
    if chat.top_k is not None:
        members["top_k"] = chat.top_k
    # The API refuses a stop sequence of white space alone.
    if stop := [text for text in chat.stop if text.strip()]:
        members["stop_sequences"] = stop
    if chat.user:
        members["metadata"] = {"user_id": chat.user}
    if chat.tools:
        members["tools"] = [_write_tool(tool) for tool in chat.tools]
        if chat.tool_choice in ("any", "none"):
            members["tool_choice"] = {"type": chat.tool_choice}
        elif chat.tool_choice != "auto":
            members["tool_choice"] = {"type": "tool", "name": chat.tool_choice}
    return members


def _write_system(messages: tuple[Message, ...]) -> str | list[Members]:
    """All system texts: joined, or as blocks where one of them is to be cached."""
    parts = [part for message in messages if message.role == "system" for part in _sayable(message)]
    if all(isinstance(part, Text) and not part.cached for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, Text))
    return [_write_part(part) for part in parts]


def _write_messages(messages: tuple[Message, ...]) -> list[Members]:
    """Turns must alternate, so neighbours of one role become one."""
    turns: list[tuple[Role, list[Part]]] = []
    for message in messages:
        parts = _sayable(message)
        if message.role == "system" or not parts:
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((message.role, parts))
    if turns and turns[-1][0] == "assistant" and isinstance(last := turns[-1][1][-1], Text):
        # The API refuses a begun answer that ends in white space.
        turns[-1][1][-1] = Text(last.text.rstrip(), last.cached)
    return [{"role": role, "content": _write_content(parts)} for role, parts in turns]


def _sayable(message: Message) -> list[Part]:
    """The parts that the API takes: it refuses blank texts, and others' thoughts mean nothing to it."""
    return [
        part
        for part in message.parts
        if not (isinstance(part, Text) and not part.text.strip())
        and not (isinstance(part, Foreign) and part.dialect != NAME and part.is_thought)
    ]


def _write_content(parts: list[Part]) -> str | list[Members]:
    if len(parts) == 1 and isinstance(only := parts[0], Text) and not only.cached:
        return only.text
    # Results must come first in their turn.
    results = [part for part in parts if isinstance(part, ToolResult)]
    return [_write_part(part) for part in results + [part for part in parts if not isinstance(part, ToolResult)]]


def _write_part(part: Part) -> Members:
    if isinstance(part, Text):
        block: Members = {"type": "text", "text": part.text}
        return {**block, "cache_control": _CACHED} if part.cached else block
    if isinstance(part, ToolCall):
        arguments = writing.read_arguments(part.arguments)
        return {"type": "tool_use", "id": _legal_id(part.id), "name": part.name, "input": arguments}
    if isinstance(part, ToolResult):
        result: Members = {"type": "tool_result", "tool_use_id": _legal_id(part.call_id), "content": part.text}
        return {**result, "is_error": True} if part.is_error else result
    if not isinstance(part, Foreign) or part.dialect != NAME:
        kind = part.kind if isinstance(part, Foreign) else part.__struct_config__.tag
        raise Invalid(("messages",), f"This model cannot be given content of type {str(kind)[:40]}")
    return part.value


def _legal_id(call_id: str) -> str:
    """Other vendors' ids hold letters that this API refuses."""
    return _forbidden_in_id.sub("_", call_id)


def _write_tool(tool: Tool) -> Members:
    schema: dict[str, Any] = tool.parameters or {"type": "object", "properties": {}}
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": schema}


MESSAGES = Dialect(
    name=NAME,
    path="/v1/messages",
    read_request=read_request,
    write_request=write_request,
    read_events=lambda: StreamReader(answers.StreamedAnswer().take),
    read_answer=answers.read_answer,
    write_events=writing.MessagesWriter,
    write_answer=writing.write_answer,
    read_error=answers.read_error,
    write_error=writing.write_error,
    write_error_event=writing.write_error_event,
    scan_events=lambda: LineScan((b'"message_stop"',), answers.look),
    scan_answer=answers.scan_answer,
)
