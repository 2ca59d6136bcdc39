"""The responses dialect: reading requests, and the record of all its functions.

Nothing is stored here, so what refers to something stored is refused. Source: OpenAI API reference, "Responses".
"""

from functools import partial

import msgspec

from torana.chat import (
    AnswerSchema,
    ChatRequest,
    Document,
    Foreign,
    Image,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from torana.dialects import drafts, namespaces, openai_style
from torana.dialects import responses_answers as answers
from torana.dialects import responses_asking as asking
from torana.dialects import responses_writing as writing
from torana.dialects.bodies import decode_request
from torana.dialects.dialect import Dialect
from torana.dialects.freeform import lost_grammars, schema_of, wrap
from torana.dialects.media import read_file, read_image
from torana.dialects.members import (
    Loc,
    Members,
    find_flag,
    find_number,
    find_object,
    find_rows,
    find_text,
    find_whole,
    keep_extra,
    need_rows,
    need_text,
    tell,
    unspoken_elsewhere,
    with_extra,
)
from torana.dialects.openai_models import GENERAL, traits_of
from torana.dialects.responses_answers import NAME
from torana.dialects.sse import SseParser
from torana.dialects.streams import LineScan, StreamReader
from torana.dialects.thoughts import read_effort, unseal
from torana.errors import Invalid

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""The last event repeats the whole answer, the instructions and the tools."""

_SPOKEN = frozenset(
    {"model", "input", "instructions", "max_output_tokens", "temperature", "top_p", "stream"}
    | {"tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "user", "store", "include"}
)
_HARMLESS = frozenset(
    {"metadata", "service_tier", "safety_identifier", "stream_options", "client_metadata", "max_tool_calls"}
    | {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)
"""Their loss changes no answer: `max_tool_calls` counts tools that OpenAI runs itself."""

_STORED = ("previous_response_id", "conversation", "prompt")
_Turn = tuple[Role, list[Part]]
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_OURS = ("function", "custom")
"""Tools that whoever asks runs; the others run at the vendor's."""
_TEXT_KINDS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_ASIDES = (
    *("web_search_call", "file_search_call", "code_interpreter_call", "mcp_list_tools", "mcp_call"),
    *("tool_search_call", "tool_search_output"),
)
"""What OpenAI's own tools did is told again in the text that follows, and what a search for tools found in `tools`."""
_MORE_TOOLS = "additional_tools"
UNATTENDED = "unattended"
"""The type of what is refused whoever answers: work that goes on, and is billed, when nobody is there to count it."""


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/responses; raises Invalid."""
    members = decode_request(body)
    model = need_text(members, "model")
    for name in _STORED:
        if members.get(name) is not None:
            raise Invalid((name,), "Nothing is stored here: send the whole conversation as input")
    if members.get("background"):
        raise Invalid(("background",), "Nothing is stored here: answers are given while the request lasts", UNATTENDED)
    chat = _read_words(members)
    known = msgspec.structs.replace(chat, extra_dialect=NAME)
    return keep_extra(
        chat, NAME, members, lambda: asking.write_words(known, GENERAL, set()), _SPOKEN | _HARMLESS
    ), model


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`; raises Invalid for a part that only another dialect can write."""
    written = drafts.finish(chat, NAME, model, partial(asking.write_words, chat, traits_of(model)))
    return msgspec.json.encode({"model": model, **with_extra(chat, NAME, written, _read_words, _SPOKEN, stream=stream)})


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    lost, traits = unspoken_elsewhere(chat, NAME), traits_of(model)
    if not traits.takes_freeform:
        lost |= lost_grammars(chat)
    drafts.weigh(chat, NAME, model, partial(asking.write_words, chat, traits), lost)
    return tell(lost)


def _read_words(members: Members) -> ChatRequest:
    tools = _find_tools(members)
    instructions = find_text(members, "instructions")
    told = [Message("system", (Text(instructions),))] if instructions else []
    form = find_object(find_object(members, "text"), "format", ("text",))
    effort = find_text(find_object(members, "reasoning"), "effort", ("reasoning",))
    return ChatRequest(
        messages=(*told, *_read_input(members)),
        max_tokens=find_whole(members, "max_output_tokens"),
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        tools=openai_style.allowed_of(
            tuple(_read_tool(*tool) for tool in tools if tool[0].get("type") in _OURS), _find_allowed(members)
        ),
        tool_choice=_read_tool_choice(members),
        parallel_tool_calls=find_flag(members, "parallel_tool_calls"),
        answer_schema=_read_schema(form),
        wants_json=form.get("type") == "json_object",
        reasoning=Reasoning(read_effort(effort)) if effort else None,
        user=find_text(members, "user"),
        stream=members.get("stream") is True,
        unspoken=_find_unspoken(members, [row for row, _, _ in tools]),
    )


def _find_tools(members: Members) -> list[tuple[Members, Loc, str]]:
    """Each once. Codex tells some models' tools in an item of the input; other formats tell all at the beginning."""
    tools = namespaces.spread(find_rows(members, "tools"), ("tools",))
    for at, item in enumerate(members["input"] if isinstance(members.get("input"), list) else ()):
        if isinstance(item, dict) and item.get("type") in (_MORE_TOOLS, "tool_search_output"):
            loc: Loc = ("input", at)
            tools += namespaces.spread(find_rows(item, "tools", loc), (*loc, "tools"))
    once: dict[tuple[str, str], tuple[Members, Loc, str]] = {}
    for row, loc, namespace in tools:
        once.setdefault((namespace, str(row.get("name") or row)), (row, loc, namespace))
    return list(once.values())


def _read_input(members: Members) -> list[Message]:
    """Items become messages; neighbouring items of one side become one, as parallel calls must stand together."""
    if isinstance(members.get("input"), str):
        return [Message("user", (Text(members["input"]),))]
    joined: list[_Turn] = []
    for at, item in enumerate(need_rows(members, "input")):
        if item.get("type") == _MORE_TOOLS:
            continue
        message = _read_item(item, ("input", at))
        if joined and joined[-1][0] == message.role and message.role != "system":
            joined[-1][1].extend(message.parts)
        else:
            joined.append((message.role, [*message.parts]))
    return [Message(role, tuple(parts)) for role, parts in _put_behind_calls(joined)]


def _put_behind_calls(turns: list[_Turn]) -> list[_Turn]:
    """With each result right behind the turn that asked for it.

    Here it may stand anywhere later, behind what a developer or the model said meanwhile; elsewhere nowhere else.
    """
    homes = {part.id: at for at, (_, parts) in enumerate(turns) for part in parts if isinstance(part, ToolCall)}
    late: dict[int, list[Part]] = {}
    for at, (_, parts) in enumerate(turns):
        for part in parts:
            if isinstance(part, ToolResult) and (home := homes.get(part.call_id, at)) < at - 1:
                late.setdefault(home, []).append(part)
    if not late:
        return turns
    moved = {id(part) for results in late.values() for part in results}
    put: list[_Turn] = []
    for at, (role, parts) in enumerate(turns):
        kept = [part for part in parts if id(part) not in moved]
        if kept or not parts:
            put.append((role, kept))
        if at in late:
            put.append(("user", late[at]))
    return put


def _read_item(item: Members, loc: Loc) -> Message:
    kind = find_text(item, "type", loc) or "message"
    if kind == "message":
        role = _ROLES.get(need_text(item, "role", loc))
        if role is None:
            raise Invalid((*loc, "role"), "Input should be 'system', 'user' or 'assistant'", "literal_error")
        return Message(role, _read_content(item, "content", loc))
    if kind == "function_call":
        call = ToolCall(need_text(item, "call_id", loc), _read_name(item, loc), find_text(item, "arguments", loc))
        return Message("assistant", (call,))
    if kind == "custom_tool_call":
        text = wrap(find_text(item, "input", loc))
        call = ToolCall(need_text(item, "call_id", loc), _read_name(item, loc), text, is_freeform=True)
        return Message("assistant", (call,))
    if kind in ("function_call_output", "custom_tool_call_output"):
        said = _read_content(item, "output", loc)
        parts = tuple(part for part in said if isinstance(part, (Text, Image, Document)))
        is_freeform = kind == "custom_tool_call_output"
        return Message("user", (ToolResult(need_text(item, "call_id", loc), parts, is_freeform=is_freeform),))
    if kind == "reasoning":
        return Message("assistant", (_read_thought(item, loc),))
    role = "user" if kind.endswith("_output") else "assistant"
    return Message(role, (Foreign(NAME, kind, item, is_aside=kind in _ASIDES),))


def _read_name(item: Members, loc: Loc) -> str:
    return namespaces.join(find_text(item, "namespace", loc), need_text(item, "name", loc))


def _read_thought(item: Members, loc: Loc) -> Part:
    rows = find_rows(item, "summary", loc) or find_rows(item, "content", loc)
    text = "\n\n".join(find_text(row, "text", loc) for row in rows)
    return unseal(text, find_text(item, "encrypted_content", loc), NAME)


def _read_content(item: Members, name: str, loc: Loc) -> tuple[Part, ...]:
    if isinstance(item.get(name), str):
        return (Text(item[name]),)
    return tuple(_read_part(part, (*loc, name, at)) for at, part in enumerate(need_rows(item, name, loc)))


def _read_part(part: Members, loc: Loc) -> Part:
    kind = need_text(part, "type", loc)
    cached = part.get("prompt_cache_breakpoint") is not None
    if member := _TEXT_KINDS.get(kind):
        return Text(need_text(part, member, loc), cached)
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return read_image(part["image_url"], part.get("detail"), cached=cached)
    if kind == "input_file":
        name = find_text(part, "filename", loc)
        if part.get("file_data") and isinstance(part["file_data"], str):
            return read_file(part["file_data"], name, cached=cached)
        if part.get("file_url") and isinstance(part["file_url"], str):
            return Document(url=part["file_url"], title=name, cached=cached)
    return Foreign(NAME, kind, part)


def _read_tool(row: Members, loc: Loc, namespace: str) -> Tool:
    name = namespaces.join(namespace, need_text(row, "name", loc))
    description = find_text(row, "description", loc)
    if row["type"] == "custom":
        form = find_object(row, "format", loc)
        return Tool(name, description, schema_of(form), freeform=form, namespace=namespace)
    return Tool(
        name,
        description,
        find_object(row, "parameters", loc),
        strict=row["strict"] if isinstance(row.get("strict"), bool) else None,
        namespace=namespace,
    )


def _find_allowed(members: Members) -> set[str]:
    choice = members.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return set()
    loc: Loc = ("tool_choice", "tools")
    rows = find_rows(choice, "tools", loc[:1])
    return {namespaces.join(find_text(row, "namespace", loc), find_text(row, "name", loc)) for row in rows}


def _read_tool_choice(members: Members) -> str:
    choice = members.get("tool_choice")
    if isinstance(choice, str):
        return "any" if choice == "required" else choice
    choice = find_object(members, "tool_choice")
    if choice.get("type") == "allowed_tools":
        return "any" if choice.get("mode") == "required" else "auto"
    return _read_name(choice, ("tool_choice",)) if choice.get("name") else "auto"


def _read_schema(form: Members) -> AnswerSchema | None:
    if form.get("type") != "json_schema":
        return None
    loc: Loc = ("text", "format")
    return AnswerSchema(
        need_text(form, "name", loc),
        find_object(form, "schema", loc),
        form["strict"] if isinstance(form.get("strict"), bool) else None,
        find_text(form, "description", loc),
    )


def _find_unspoken(members: Members, tools: list[Members]) -> tuple[str, ...]:
    names = [f"tools.{row.get('type')}"[:60] for row in tools if row.get("type") not in _OURS]
    choice = members.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") not in _OURS:
        names.append("tool_choice")
    if find_object(members, "text").get("verbosity") not in (None, "medium"):
        names.append("text.verbosity")
    return tuple(names)


RESPONSES = Dialect(
    name=NAME,
    path="/v1/responses",
    read_request=read_request,
    write_request=write_request,
    losses=losses,
    read_events=lambda: StreamReader(answers.StreamedAnswer().take, SseParser(MAX_EVENT_BYTES)),
    read_answer=answers.read_answer,
    write_events=writing.ResponsesWriter,
    write_answer=writing.write_answer,
    read_error=openai_style.read_error,
    write_error=openai_style.write_error,
    write_error_event=writing.write_error_event,
    scan_events=lambda: LineScan(answers.ENDINGS, answers.look),
    scan_answer=answers.scan_answer,
)
