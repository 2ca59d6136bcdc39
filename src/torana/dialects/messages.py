"""The messages dialect: reading requests, and the record of all its functions.

Source: Anthropic API reference, "Messages".
"""

from dataclasses import replace
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
from torana.dialects import drafts
from torana.dialects import messages_answers as answers
from torana.dialects import messages_asking as asking
from torana.dialects import messages_writing as writing
from torana.dialects.bodies import decode_answer, decode_request
from torana.dialects.claude import GENERAL, Traits, traits_of
from torana.dialects.dialect import Dialect
from torana.dialects.freeform import lost_grammars
from torana.dialects.members import (
    Loc,
    Members,
    find_number,
    find_object,
    find_rows,
    find_text,
    find_texts,
    find_whole,
    finite,
    keep_extra,
    need_rows,
    need_text,
    tell,
    unspoken_elsewhere,
    with_extra,
)
from torana.dialects.messages_answers import NAME
from torana.dialects.streams import LineScan, StreamReader
from torana.dialects.thoughts import read_effort, unseal
from torana.errors import Invalid

_SPOKEN = frozenset(
    {"model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stream"}
    | {"stop_sequences", "tools", "tool_choice", "metadata", "thinking", "output_config", "output_format"}
)
_HARMLESS = frozenset({"cache_control", "service_tier", "inference_geo", "diagnostics", "speed"})
"""Their loss changes no answer."""

_ADAPTIVE = replace(GENERAL, thinking="adaptive")


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/messages; raises Invalid."""
    members = decode_request(body)
    if "max_tokens" not in members:
        raise Invalid(("max_tokens",), "Field required", "missing")
    if members.get("thread") is not None:
        # By this code Anthropic's SDKs, whose tool runners ask for it unasked, send the whole conversation.
        told = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        raise Invalid(("thread",), "Nothing is stored here: send the whole conversation as messages", details=told)
    if members.get("compaction") is not None:
        raise Invalid(("compaction",), "This model cannot be asked for a compaction: ask it for a summary in words")
    return _read_body(members)


def read_count_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/messages/count_tokens: the same without `max_tokens`; raises Invalid."""
    return _read_body(decode_request(body))


class _Count(msgspec.Struct):
    input_tokens: int


_counts = msgspec.json.Decoder(_Count, float_hook=finite)


def read_count(body: bytes) -> int:
    """The answer of count_tokens; raises ProviderBroke."""
    return decode_answer(_counts, body).input_tokens


def write_count(tokens: int) -> bytes:
    return msgspec.json.encode({"input_tokens": tokens})


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`; raises Invalid for a part that only another dialect can write."""
    written = drafts.finish(chat, NAME, model, partial(asking.write_words, chat, _traits(chat, model)))
    members = with_extra(chat, NAME, written, _read_words, _SPOKEN, stream=stream)
    return msgspec.json.encode({"model": model, **members})


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    lost = unspoken_elsewhere(chat, NAME) | lost_grammars(chat)
    drafts.weigh(chat, NAME, model, partial(asking.write_words, chat, _traits(chat, model)), lost)
    return tell(lost)


def _traits(chat: ChatRequest, model: str) -> Traits:
    """What a client wrote in this dialect is its own affair; it goes out the way it came."""
    if chat.extra_dialect != NAME:
        return traits_of(model)
    return GENERAL if chat.reasoning is None or chat.reasoning.budget_tokens is not None else _ADAPTIVE


def _read_body(members: Members) -> tuple[ChatRequest, str]:
    model = need_text(members, "model")
    chat = _read_words(members)
    known = msgspec.structs.replace(chat, extra_dialect=NAME)
    return keep_extra(
        chat, NAME, members, lambda: asking.write_words(known, _traits(known, model), set()), _SPOKEN | _HARMLESS
    ), model


def _read_words(members: Members) -> ChatRequest:
    system = _read_parts(members, "system", ()) if members.get("system") is not None else ()
    messages = [Message("system", system)] if system else []
    for number, row in enumerate(need_rows(members, "messages")):
        loc: Loc = ("messages", number)
        messages.append(Message(_read_role(row, loc), _read_parts(row, "content", loc)))
    tools = find_rows(members, "tools")
    choice = find_object(members, "tool_choice")
    is_single = choice.get("disable_parallel_tool_use")
    theirs = [row for row in tools if not _is_ours_to_call(row)]
    wanted = _read_tool_choice(choice)
    unspoken = tuple(f"tools.{row['type']}"[:60] for row in theirs)
    if choice.get("type") == "tool" and any(row.get("name") == wanted for row in theirs):
        wanted, unspoken = "auto", (*unspoken, "tool_choice")
    return ChatRequest(
        messages=tuple(messages),
        max_tokens=find_whole(members, "max_tokens"),
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        top_k=find_whole(members, "top_k"),
        stop=find_texts(members, "stop_sequences"),
        tools=tuple(_read_tool(row, number) for number, row in enumerate(tools) if _is_ours_to_call(row)),
        tool_choice=wanted,
        parallel_tool_calls=not is_single if isinstance(is_single, bool) else None,
        answer_schema=_read_schema(members),
        reasoning=_read_reasoning(members),
        user=find_text(find_object(members, "metadata"), "user_id", ("metadata",)),
        stream=members.get("stream") is True,
        unspoken=unspoken,
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
    cached = block.get("cache_control") is not None
    if kind == "text":
        return Text(need_text(block, "text", loc), cached)
    if kind == "tool_use":
        arguments = msgspec.json.encode(find_object(block, "input", loc)).decode()
        return ToolCall(need_text(block, "id", loc), need_text(block, "name", loc), arguments, cached)
    if kind == "tool_result":
        return _read_result(block, loc, cached=cached)
    if kind == "thinking":
        return unseal(find_text(block, "thinking", loc), find_text(block, "signature", loc), NAME)
    if kind == "redacted_thinking":
        return unseal("", find_text(block, "data", loc), NAME, is_whole=True)
    part = _read_medium(block, kind, loc, cached=cached)
    # What Anthropic's own tools did is told again in the text that follows.
    is_aside = kind.endswith(("server_tool_use", "mcp_tool_use", "_tool_result"))
    return part or Foreign(NAME, kind, block, is_aside=is_aside)


def _read_medium(block: Members, kind: str, loc: Loc, *, cached: bool) -> Text | Image | Document | None:
    """A picture, a document, or what reads as a text; None for a kind, or a source, that has no word here."""
    if kind == "search_result":
        texts = [find_text(row, "text", (*loc, "content")) for row in find_rows(block, "content", loc)]
        head = (find_text(block, "title", loc), find_text(block, "source", loc))
        return Text("\n".join([*head, *texts]), cached)
    if kind == "tool_reference":
        # A client's own search for tools found it. The others are told of all tools from the start.
        return Text(f"The tool {need_text(block, 'tool_name', loc)} can be used.", cached)
    if kind == "compaction":
        # What stands for the messages before it; sealed for its vendor, and told in words beside that.
        return Text(find_text(block, "content", loc), cached)
    if kind not in ("image", "document"):
        return None
    source = find_object(block, "source", loc)
    loc = (*loc, "source")
    how = need_text(source, "type", loc)
    title = find_text(block, "title", loc) if kind == "document" else ""
    media_type = find_text(source, "media_type", loc)
    if how == "base64":
        data = need_text(source, "data", loc)
        if kind == "image":
            return Image(media_type, data, cached=cached)
        return Document(media_type, data, title=title, cached=cached)
    if how == "url":
        url = need_text(source, "url", loc)
        return Image(url=url, cached=cached) if kind == "image" else Document(url=url, title=title, cached=cached)
    if how == "text":
        text = need_text(source, "data", loc)
        return Document(media_type or "text/plain", text=text, title=title, cached=cached)
    if how == "content" and isinstance(source.get("content"), str):
        return Document("text/plain", text=source["content"], title=title, cached=cached)
    if how == "content":
        said = _read_parts(source, "content", loc)
        texts = [part.text for part in said if isinstance(part, Text)]
        if len(texts) == len(said):
            return Document("text/plain", text="\n\n".join(texts), title=title, cached=cached)
    return None


def _read_result(block: Members, loc: Loc, *, cached: bool) -> Part:
    content = _read_parts(block, "content", loc) if block.get("content") is not None else ()
    parts = tuple(part for part in content if isinstance(part, (Text, Image, Document)))
    if len(parts) < len(content):
        return Foreign(NAME, "tool_result", block)
    call_id = need_text(block, "tool_use_id", loc)
    return ToolResult(call_id, parts, block.get("is_error") is True, cached)


def _is_ours_to_call(row: Members) -> bool:
    """False for tools that Anthropic runs itself; they stay in `extra`."""
    return row.get("type") in (None, "custom")


def _read_tool(row: Members, number: int) -> Tool:
    loc: Loc = ("tools", number)
    return Tool(
        need_text(row, "name", loc),
        find_text(row, "description", loc),
        find_object(row, "input_schema", loc),
        cached=row.get("cache_control") is not None,
        strict=row["strict"] if isinstance(row.get("strict"), bool) else None,
    )


def _read_tool_choice(choice: Members) -> str:
    kind = find_text(choice, "type", ("tool_choice",)) or "auto"
    return need_text(choice, "name", ("tool_choice",)) if kind == "tool" else kind


def _read_schema(members: Members) -> AnswerSchema | None:
    """Of `output_config.format`, or of `output_format`, its name while it was a beta."""
    loc: Loc = ("output_config",)
    form = find_object(find_object(members, "output_config"), "format", loc) or find_object(members, "output_format")
    if form.get("type") != "json_schema":
        return None
    return AnswerSchema("answer", find_object(form, "schema", (*loc, "format")), strict=True)


def _read_reasoning(members: Members) -> Reasoning | None:
    thinking = find_object(members, "thinking")
    effort = read_effort(find_text(find_object(members, "output_config"), "effort", ("output_config",)))
    kind = find_text(thinking, "type", ("thinking",))
    if kind in ("disabled", "between_tools"):
        return Reasoning("none")
    if kind == "enabled":
        return Reasoning(effort, find_whole(thinking, "budget_tokens"))
    return Reasoning(effort) if kind or effort else None


MESSAGES = Dialect(
    name=NAME,
    path="/v1/messages",
    read_request=read_request,
    write_request=write_request,
    losses=losses,
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
