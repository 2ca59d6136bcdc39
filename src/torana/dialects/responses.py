"""The responses dialect, as clients speak it to us: requests, and the record of its functions.

Text and function tools are understood; what else a request holds is kept in `extra` or as foreign parts.
Nothing is stored, so an earlier answer cannot be referred to. Source: OpenAI API reference, "Responses".
"""

from torana.chat import ChatRequest, Foreign, Message, Part, Role, Text, Tool, ToolCall, ToolResult
from torana.dialects import openai_style
from torana.dialects import responses_answers as answers
from torana.dialects.dialect import ServedDialect
from torana.dialects.members import (
    Loc,
    Members,
    decode_request,
    find_number,
    find_object,
    find_rows,
    find_text,
    find_whole,
    need_rows,
    need_text,
)
from torana.dialects.streams import LineScan
from torana.errors import Invalid

NAME = "responses"

_SPOKEN = frozenset(
    {"model", "input", "instructions", "max_output_tokens", "temperature", "top_p"}
    | {"tools", "tool_choice", "user", "stream"}
)
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXT_KINDS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/responses; raises Invalid."""
    members = decode_request(body)
    tools = find_rows(members, "tools")
    instructions = find_text(members, "instructions")
    messages = [Message("system", (Text(instructions),))] if instructions else []
    chat = ChatRequest(
        messages=(*messages, *_read_input(members)),
        max_tokens=find_whole(members, "max_output_tokens"),
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        tools=tuple(_read_tool(row, at) for at, row in enumerate(tools) if row.get("type") == "function"),
        tool_choice=_read_tool_choice(members),
        user=find_text(members, "user"),
        stream=members.get("stream") is True,
        extra={name: value for name, value in members.items() if name not in _SPOKEN},
        extra_dialect=NAME,
    )
    return chat, need_text(members, "model")


def _read_input(members: Members) -> list[Message]:
    """Items become messages; neighbouring items of one side become one, as parallel calls must stand together."""
    if isinstance(members.get("input"), str):
        return [Message("user", (Text(members["input"]),))]
    messages: list[Message] = []
    for at, item in enumerate(need_rows(members, "input")):
        message = _read_item(item, ("input", at))
        if messages and messages[-1].role == message.role and message.role != "system":
            message = Message(message.role, messages.pop().parts + message.parts)
        messages.append(message)
    return messages


def _read_item(item: Members, loc: Loc) -> Message:
    kind = find_text(item, "type", loc) or "message"
    if kind == "message":
        role = _ROLES.get(need_text(item, "role", loc))
        if role is None:
            raise Invalid((*loc, "role"), "Input should be 'system', 'user' or 'assistant'", "literal_error")
        return Message(role, _read_content(item, "content", loc))
    if kind == "function_call":
        call = ToolCall(
            need_text(item, "call_id", loc), need_text(item, "name", loc), find_text(item, "arguments", loc)
        )
        return Message("assistant", (call,))
    if kind == "function_call_output":
        parts = _read_content(item, "output", loc)
        call_id = need_text(item, "call_id", loc)
        return Message("user", (ToolResult(call_id, (Text(Message("user", parts).text),)),))
    role = "user" if kind.endswith("_output") else "assistant"
    return Message(role, (Foreign(NAME, kind, item, is_aside=kind == "reasoning"),))


def _read_content(item: Members, name: str, loc: Loc) -> tuple[Part, ...]:
    if isinstance(item.get(name), str):
        return (Text(item[name]),)
    parts: list[Part] = []
    for at, part in enumerate(need_rows(item, name, loc)):
        kind = need_text(part, "type", (*loc, name, at))
        member = _TEXT_KINDS.get(kind)
        if member is None:
            parts.append(Foreign(NAME, kind, part))
        else:
            parts.append(Text(need_text(part, member, (*loc, name, at))))
    return tuple(parts)


def _read_tool(row: Members, at: int) -> Tool:
    loc: Loc = ("tools", at)
    return Tool(need_text(row, "name", loc), find_text(row, "description", loc), find_object(row, "parameters", loc))


def _read_tool_choice(members: Members) -> str:
    choice = members.get("tool_choice")
    if isinstance(choice, str):
        return "any" if choice == "required" else choice
    return find_text(find_object(members, "tool_choice"), "name", ("tool_choice",)) or "auto"


RESPONSES = ServedDialect(
    name=NAME,
    path="/v1/responses",
    read_request=read_request,
    write_events=answers.ResponsesWriter,
    write_answer=answers.write_answer,
    write_error=openai_style.write_error,
    write_error_event=answers.write_error_event,
    scan_events=lambda: LineScan(answers.ENDINGS, answers.look),
    scan_answer=answers.scan_answer,
)
