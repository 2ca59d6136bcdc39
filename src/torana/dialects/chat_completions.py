"""The chat completions dialect: requests, and the record of all its functions.

Source: OpenAI API reference, "Chat Completions". Written for the servers that follow OpenAI too, so
nothing is sent that only OpenAI knows, unless the request brings it.
"""

import re

import msgspec

from torana.chat import ChatRequest, Foreign, Message, Part, Role, Text, Tool, ToolCall, ToolResult
from torana.dialects import chat_completions_answers as answers
from torana.dialects import openai_style
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

NAME = "chat_completions"

_SPOKEN = frozenset(
    {"messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"}
    | {"stop", "n", "user", "tools", "tool_choice"}
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
_TEXT_KINDS = ("text", "refusal")
_reasoning_models = re.compile(r"(o\d|gpt-5)(?![a-z])")


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/chat/completions; raises Invalid."""
    members = decode_request(body)
    model = need_text(members, "model")
    chat = _read_words(members)
    written = _write_words(msgspec.structs.replace(chat, extra=members, extra_dialect=NAME), model)
    # Always kept, for it tells which of the limit's two names came.
    written.pop("max_completion_tokens", None)
    return keep_extra(chat, NAME, members, written), model


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`; raises Invalid for a part that only another dialect can write.

    Streams are asked to end with their usage; that is the one member added to what was read.
    """
    members = with_extra(chat, NAME, _write_words(chat, model), _read_words, _SPOKEN, stream=stream)
    return msgspec.json.encode({"model": model, **ask_for_usage(members, stream=stream)})


def ask_for_usage(members: Members, *, stream: bool) -> Members:
    options = members.get("stream_options")
    if stream:
        members["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    elif options is not None:
        del members["stream_options"]  # refused without a stream
    return members


def _read_words(members: Members) -> ChatRequest:
    limit = find_whole(members, "max_completion_tokens")
    tools = find_rows(members, "tools")
    choices = find_whole(members, "n")
    return ChatRequest(
        messages=tuple(_read_message(row, ("messages", at)) for at, row in enumerate(need_rows(members, "messages"))),
        max_tokens=find_whole(members, "max_tokens") if limit is None else limit,
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        top_k=find_whole(members, "top_k"),
        stop=find_texts(members, "stop"),
        tools=tuple(_read_tool(row, at) for at, row in enumerate(tools) if row.get("type") == "function"),
        tool_choice=_read_tool_choice(members),
        choices=1 if choices is None else choices,
        user=find_text(members, "user"),
        stream=members.get("stream") is True,
    )


def _read_message(row: Members, loc: Loc) -> Message:
    name = need_text(row, "role", loc)
    role = _ROLES.get(name)
    if role is None:
        raise Invalid((*loc, "role"), "Input should be 'system', 'user', 'assistant' or 'tool'", "literal_error")
    parts = _read_content(row, loc)
    if name in ("tool", "function"):
        call_id = need_text(row, "tool_call_id" if name == "tool" else "name", loc)
        return Message(role, (ToolResult(call_id, (Text(Message(role, parts).text),)),))
    calls = find_rows(row, "tool_calls", loc)
    return Message(role, (*parts, *(_read_call(call, (*loc, "tool_calls", at)) for at, call in enumerate(calls))))


def _read_content(row: Members, loc: Loc) -> tuple[Part, ...]:
    content = row.get("content")
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Part] = []
    for at, part in enumerate(need_rows(row, "content", loc)):
        kind = need_text(part, "type", (*loc, "content", at))
        is_text = kind in _TEXT_KINDS
        parts.append(Text(need_text(part, kind, (*loc, "content", at))) if is_text else Foreign(NAME, kind, part))
    return tuple(parts)


def _read_call(call: Members, loc: Loc) -> Part:
    kind = find_text(call, "type", loc) or "function"
    if kind != "function":
        return Foreign(NAME, kind, call)
    function = find_object(call, "function", loc)
    loc = (*loc, "function")
    return ToolCall(find_text(call, "id", loc), need_text(function, "name", loc), find_text(function, "arguments", loc))


def _read_tool(row: Members, at: int) -> Tool:
    loc: Loc = ("tools", at, "function")
    function = find_object(row, "function", loc[:2])
    return Tool(
        need_text(function, "name", loc),
        find_text(function, "description", loc),
        find_object(function, "parameters", loc),
    )


def _read_tool_choice(members: Members) -> str:
    choice = members.get("tool_choice")
    if isinstance(choice, str):
        return "any" if choice == "required" else choice
    function = find_object(find_object(members, "tool_choice"), "function", ("tool_choice",))
    return find_text(function, "name", ("tool_choice", "function")) or "auto"


def _write_words(chat: ChatRequest, model: str) -> Members:
    members: Members = {"messages": [row for message in chat.messages for row in _write_message(message)]}
    # OpenAI's reasoning models refuse the old name of the limit, and sampling and stops altogether.
    # Other servers may not know the new name, so it goes out only to those, or when the request says so.
    # What a client wrote in this dialect is its own affair.
    is_reasoning = chat.extra_dialect != NAME and _reasoning_models.match(model) is not None
    if is_reasoning or "max_completion_tokens" in chat.extra:
        if chat.max_tokens is not None:
            members["max_completion_tokens"] = chat.max_tokens
    elif chat.max_tokens is not None:
        members["max_tokens"] = chat.max_tokens
    if not is_reasoning:
        members |= write_sampling(chat)
    if chat.choices != 1:
        members["n"] = chat.choices
    if chat.user:
        members["user"] = chat.user
    if chat.tools:
        members["tools"] = [_write_tool(tool) for tool in chat.tools]
        if chat.tool_choice != "auto":
            members["tool_choice"] = _write_tool_choice(chat.tool_choice)
    return members


def write_sampling(chat: ChatRequest) -> Members:
    """`top_k` is not among them: OpenAI refuses it, and servers that know it get it through `extra`."""
    members: Members = {}
    if chat.temperature is not None:
        members["temperature"] = chat.temperature
    if chat.top_p is not None:
        members["top_p"] = chat.top_p
    if chat.stop:
        members["stop"] = list(chat.stop)
    return members


def _write_message(message: Message) -> list[Members]:
    """Results of tools are messages of their own, ahead of what else was said."""
    rows: list[Members] = [_write_result(part) for part in message.parts if isinstance(part, ToolResult)]
    calls = [_write_call(part) for part in message.parts if _is_call(part)]
    said: list[Part] = [
        part
        for part in message.parts
        if not isinstance(part, ToolResult) and not _is_call(part) and not _is_foreign_thought(part)
    ]
    content = _write_content(said)
    if calls:
        rows.append({"role": message.role, "content": content or None, "tool_calls": calls})
    elif said or not message.parts:
        rows.append({"role": message.role, "content": content})
    return rows


def _is_call(part: Part) -> bool:
    return isinstance(part, ToolCall) or (isinstance(part, Foreign) and part.dialect == NAME and part.kind == "custom")


def _is_foreign_thought(part: Part) -> bool:
    return isinstance(part, Foreign) and part.dialect != NAME and part.is_thought


def _write_content(parts: list[Part]) -> str | list[Members]:
    # Many servers' chat templates take text alone, so a list is written only for what is no text.
    if all(isinstance(part, Text) for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, Text))
    return [_write_part(part) for part in parts]


def _write_part(part: Part) -> Members:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Foreign) and part.dialect == NAME:
        return part.value
    kind = part.kind if isinstance(part, Foreign) else "tool"
    raise Invalid(("messages",), f"This model cannot be given content of type {kind[:40]}")


def _write_result(part: ToolResult) -> Members:
    # There is no flag for it, and a model that does not know repeats the call.
    text = f"Error: {part.text}" if part.is_error else part.text
    return {"role": "tool", "tool_call_id": part.call_id, "content": text}


def _write_call(part: Part) -> Members:
    if isinstance(part, ToolCall):
        function = {"name": part.name, "arguments": part.arguments or "{}"}
        return {"id": part.id, "type": "function", "function": function}
    return _write_part(part)


def _write_tool(tool: Tool) -> Members:
    function: Members = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def _write_tool_choice(choice: str) -> str | Members:
    if choice in ("any", "none"):
        return "required" if choice == "any" else "none"
    return {"type": "function", "function": {"name": choice}}


CHAT_COMPLETIONS = Dialect(
    name=NAME,
    path="/v1/chat/completions",
    read_request=read_request,
    write_request=write_request,
    read_events=lambda: StreamReader(answers.StreamedAnswer().take),
    read_answer=answers.read_answer,
    write_events=answers.ChatCompletionsWriter,
    write_answer=answers.write_answer,
    read_error=openai_style.read_error,
    write_error=openai_style.write_error,
    write_error_event=openai_style.write_error_event,
    scan_events=lambda: LineScan((openai_style.DONE,), answers.look),
    scan_answer=openai_style.scan_answer,
    tells_usage_when_asked=True,
)
