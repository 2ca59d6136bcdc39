"""The chat completions dialect: reading requests, and the record of all its functions.

Source: OpenAI API reference, "Chat Completions".
"""

from collections import Counter
from collections.abc import Callable
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
    Thought,
    Tool,
    ToolCall,
    ToolResult,
)
from torana.dialects import chat_completions_answers as answers
from torana.dialects import chat_completions_asking as asking
from torana.dialects import chat_completions_writing as writing
from torana.dialects import drafts, openai_style
from torana.dialects.bodies import decode_request
from torana.dialects.chat_completions_answers import NAME
from torana.dialects.dialect import Dialect
from torana.dialects.freeform import lost_grammars, schema_of, spread_grammar, wrap
from torana.dialects.media import read_file, read_image
from torana.dialects.members import (
    Loc,
    Members,
    arguments_text,
    find_flag,
    find_number,
    find_object,
    find_rows,
    find_text,
    find_texts,
    find_whole,
    keep_extra,
    need_rows,
    need_text,
    said_in,
    tell,
    unspoken_elsewhere,
    with_extra,
)
from torana.dialects.openai_models import GENERAL, traits_of
from torana.dialects.streams import LineScan, StreamReader
from torana.dialects.thoughts import read_effort
from torana.errors import Invalid

_SPOKEN = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "stream"}
    | {"stop", "n", "user", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"}
    | {"functions", "function_call"}
)
HARMLESS = frozenset(
    {"stream_options", "store", "metadata", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)
"""Their loss changes no answer."""

_SCORES = ("logprobs", "top_logprobs")

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
_OURS = ("function", "custom")
"""Tools that whoever asks runs."""
_TEXT_KINDS = ("text", "refusal")


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/chat/completions; raises Invalid."""
    members = decode_request(body)
    model = need_text(members, "model")
    chat = _read_words(members)
    known = msgspec.structs.replace(chat, extra=members, extra_dialect=NAME)

    def write() -> Members:
        written = asking.write_words(known, GENERAL, set())
        # Always kept, for it tells which of the limit's two names came.
        written.pop("max_completion_tokens", None)
        return written

    return keep_extra(chat, NAME, members, write, _SPOKEN | HARMLESS), model


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`; raises Invalid for a part that only another dialect can write.

    Streams are asked to end with their usage; that is the one member added to what was read.
    """
    return msgspec.json.encode(write_members(chat, model, stream=stream))


def write_members(chat: ChatRequest, model: str, *, stream: bool) -> Members:
    written = drafts.finish(chat, NAME, model, partial(asking.write_words, chat, traits_of(model)))
    members = with_extra(chat, NAME, written, _read_words, _SPOKEN, stream=stream)
    return {"model": model, **openai_style.ask_for_usage(members, stream=stream)}


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    lost, traits = unspoken_elsewhere(chat, NAME), traits_of(model)
    # Asked for, but no word of ours tells them in an answer.
    lost |= {name for name in _SCORES if said_in(chat, NAME).get(name)}
    if not traits.takes_freeform:
        lost |= lost_grammars(chat)
    drafts.weigh(chat, NAME, model, partial(asking.write_words, chat, traits), lost)
    return tell(lost)


def _read_words(members: Members) -> ChatRequest:
    limit = find_whole(members, "max_completion_tokens")
    tools = find_rows(members, "tools")
    is_older = bool(members.get("functions"))
    older_ids = _OlderIds()
    rows = need_rows(members, "messages")
    choices = find_whole(members, "n")
    form = find_object(members, "response_format")
    effort = find_text(members, "reasoning_effort")
    return ChatRequest(
        messages=_mark_results(tuple(_read_message(row, ("messages", at), older_ids) for at, row in enumerate(rows))),
        max_tokens=find_whole(members, "max_tokens") if limit is None else limit,
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        top_k=find_whole(members, "top_k"),
        stop=find_texts(members, "stop"),
        tools=openai_style.allowed_of(_read_tools(members, tools), _find_allowed(members)),
        tool_choice=_read_tool_choice(members),
        # The older way has room for one call.
        parallel_tool_calls=False if is_older and not tools else find_flag(members, "parallel_tool_calls"),
        answer_schema=_read_schema(form),
        wants_json=form.get("type") == "json_object",
        reasoning=Reasoning(read_effort(effort)) if effort else None,
        choices=1 if choices is None else choices,
        user=find_text(members, "user"),
        stream=members.get("stream") is True,
        unspoken=_find_unspoken(members, tools),
    )


class _OlderIds:
    """Ids for the calls of the older way, which has none: there a result names its function."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def of_call(self, name: str) -> str:
        self._calls[name] += 1
        return self.of_result(name)

    def of_result(self, name: str) -> str:
        """That of the function's latest call."""
        count = self._calls[name]
        return f"{name}_{count}" if count > 1 else name


def _mark_results(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A result does not tell what kind of tool it is of."""
    freeform = {
        part.id for message in messages for part in message.parts if isinstance(part, ToolCall) and part.is_freeform
    }
    if not freeform:
        return messages
    return tuple(
        Message(message.role, tuple(_mark_result(part, freeform) for part in message.parts)) for message in messages
    )


def _mark_result(part: Part, freeform: set[str]) -> Part:
    is_of_it = isinstance(part, ToolResult) and part.call_id in freeform
    return msgspec.structs.replace(part, is_freeform=True) if is_of_it else part


def _read_message(row: Members, loc: Loc, older_ids: _OlderIds) -> Message:
    name = need_text(row, "role", loc)
    role = _ROLES.get(name)
    if role is None:
        raise Invalid((*loc, "role"), "Input should be 'system', 'user', 'assistant' or 'tool'", "literal_error")
    parts = _read_content(row, loc)
    if name in ("tool", "function"):
        is_older = name == "function"
        call_id = (
            older_ids.of_result(need_text(row, "name", loc))
            if is_older
            else _read_id(row, "tool_call_id", loc, need_text)
        )
        said = tuple(part for part in parts if isinstance(part, (Text, Image, Document)))
        return Message(role, (ToolResult(call_id, said),))
    # Servers name thoughts in two ways.
    thought = find_text(row, "reasoning_content", loc) or (row.get("reasoning") or "")
    thoughts = (Thought(thought, dialect=NAME),) if thought and isinstance(thought, str) else ()
    calls = find_rows(row, "tool_calls", loc)
    made = tuple(_read_call(call, (*loc, "tool_calls", at)) for at, call in enumerate(calls))
    if function := find_object(row, "function_call", loc):
        function_name = need_text(function, "name", (*loc, "function_call"))
        made += (ToolCall(older_ids.of_call(function_name), function_name, _read_arguments(function, loc)),)
    return Message(role, (*thoughts, *parts, *made))


def _read_content(row: Members, loc: Loc) -> tuple[Part, ...]:
    content = row.get("content")
    if content is None:
        refusal = find_text(row, "refusal", loc)
        return (Text(refusal),) if refusal else ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_read_part(part, (*loc, "content", at)) for at, part in enumerate(need_rows(row, "content", loc)))


def _read_part(part: Members, loc: Loc) -> Part:
    kind = need_text(part, "type", loc)
    # OpenAI's own mark, and Anthropic's, which servers of many models take.
    cached = part.get("prompt_cache_breakpoint") is not None or part.get("cache_control") is not None
    if kind in _TEXT_KINDS:
        return Text(need_text(part, kind, loc), cached)
    if kind == "image_url":
        image = part.get("image_url")
        if isinstance(image, str):
            return read_image(image, cached=cached)
        image = find_object(part, kind, loc)
        return read_image(need_text(image, "url", (*loc, kind)), image.get("detail"), cached=cached)
    if kind == "file":
        file = find_object(part, "file", loc)
        if file.get("file_data") and isinstance(file["file_data"], str):
            return read_file(file["file_data"], find_text(file, "filename", (*loc, "file")), cached=cached)
    return Foreign(NAME, kind, part)


def _read_call(call: Members, loc: Loc) -> Part:
    kind, id_ = find_text(call, "type", loc) or "function", _read_id(call, "id", loc)
    if kind == "custom":
        custom = find_object(call, "custom", loc)
        text = wrap(find_text(custom, "input", (*loc, "custom")))
        return ToolCall(id_, need_text(custom, "name", (*loc, "custom")), text, is_freeform=True)
    if kind != "function":
        return Foreign(NAME, kind, call)
    function = find_object(call, "function", loc)
    loc = (*loc, "function")
    return ToolCall(id_, need_text(function, "name", loc), _read_arguments(function, loc))


def _read_id(row: Members, name: str, loc: Loc, read: Callable[[Members, str, Loc], str] = find_text) -> str:
    """Some servers number what others name, and their clients say it back."""
    value = row.get(name)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else read(row, name, loc)


def _read_arguments(function: Members, loc: Loc) -> str:
    """As text, also where a client kept the object that it is."""
    value = function.get("arguments")
    return arguments_text(value) if isinstance(value, dict) else find_text(function, "arguments", loc)


def _read_tools(members: Members, tools: list[Members]) -> tuple[Tool, ...]:
    rows = [
        (row, find_object(row, kind, ("tools", at)), ("tools", at, kind))
        for at, row in enumerate(tools)
        if (kind := row.get("type")) in _OURS
    ]
    older = [(row, row, ("functions", at)) for at, row in enumerate(find_rows(members, "functions"))]
    return tuple(_read_tool(*row) for row in [*rows, *older])


def _read_tool(row: Members, told: Members, loc: Loc) -> Tool:
    name, description = need_text(told, "name", loc), find_text(told, "description", loc)
    if row.get("type") == "custom":
        form = spread_grammar(find_object(told, "format", loc))
        return Tool(name, description, schema_of(form), freeform=form)
    return Tool(
        name,
        description,
        find_object(told, "parameters", loc),
        cached=row.get("cache_control") is not None,
        strict=told["strict"] if isinstance(told.get("strict"), bool) else None,
    )


def _find_allowed(members: Members) -> set[str]:
    choice = members.get("tool_choice")
    if not isinstance(choice, dict):
        return set()
    loc: Loc = ("tool_choice", "allowed_tools", "tools")
    rows = find_rows(find_object(choice, "allowed_tools", loc[:1]), "tools", loc[:2])
    told = [find_object(row, kind, loc) for row in rows if (kind := row.get("type")) in _OURS]
    return {find_text(each, "name", loc) for each in told}


def _read_tool_choice(members: Members) -> str:
    choice = members.get("tool_choice")
    if choice is None and isinstance(members.get("function_call"), dict):
        return need_text(members["function_call"], "name", ("function_call",))
    if choice is None:
        choice = members.get("function_call")
    if isinstance(choice, str):
        return "any" if choice == "required" else choice
    choice = find_object(members, "tool_choice")
    if allowed := find_object(choice, "allowed_tools", ("tool_choice",)):
        return "any" if allowed.get("mode") == "required" else "auto"
    kind = "custom" if choice.get("type") == "custom" else "function"
    return find_text(find_object(choice, kind, ("tool_choice",)), "name", ("tool_choice", kind)) or "auto"


def _read_schema(form: Members) -> AnswerSchema | None:
    if form.get("type") != "json_schema":
        return None
    loc: Loc = ("response_format", "json_schema")
    row = find_object(form, "json_schema", loc[:1])
    return AnswerSchema(
        need_text(row, "name", loc),
        find_object(row, "schema", loc),
        row["strict"] if isinstance(row.get("strict"), bool) else None,
        find_text(row, "description", loc),
    )


def _find_unspoken(members: Members, tools: list[Members]) -> tuple[str, ...]:
    names = [f"tools.{row.get('type')}"[:60] for row in tools if row.get("type") not in _OURS]
    choice = members.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") not in _OURS:
        names.append("tool_choice")
    if members.get("web_search_options") == {}:
        names.append("web_search_options")  # even nothing in it asks for a search
    return tuple(names)


def read_open_events() -> StreamReader:
    """For servers whose streams just end."""
    answer = answers.StreamedAnswer()
    return StreamReader(answer.take, end=answer.end)


CHAT_COMPLETIONS = Dialect(
    name=NAME,
    path="/v1/chat/completions",
    read_request=read_request,
    write_request=write_request,
    losses=losses,
    read_events=lambda: StreamReader(answers.StreamedAnswer().take),
    read_answer=answers.read_answer,
    write_events=writing.ChatCompletionsWriter,
    write_answer=writing.write_answer,
    read_error=openai_style.read_error,
    write_error=openai_style.write_error,
    write_error_event=openai_style.write_error_event,
    scan_events=lambda: LineScan((openai_style.DONE,), answers.look, openai_style.REASONS),
    scan_answer=openai_style.scan_answer,
    tells_usage_when_asked=True,
)
