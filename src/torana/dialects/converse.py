"""The converse dialect: reading requests, and the record of all its functions.

The model's id and whether the answer is to stream stand in the path, so neither is in a body.
Source: Amazon Bedrock API reference, "Converse" and its data types.
"""

from base64 import b64decode
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace as replace_members

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
from torana.dialects import claude, drafts
from torana.dialects import converse_answers as answers
from torana.dialects import converse_asking as asking
from torana.dialects import converse_writing as writing
from torana.dialects.bodies import decode_request
from torana.dialects.converse_answers import NAME, PROOF
from torana.dialects.converse_models import Traits, traits_of
from torana.dialects.dialect import Dialect
from torana.dialects.event_stream import EventStreamParser
from torana.dialects.freeform import lost_grammars
from torana.dialects.members import (
    Loc,
    Members,
    find_flag,
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
from torana.dialects.streams import StreamReader
from torana.dialects.thoughts import read_effort, unseal
from torana.errors import Invalid

_SPOKEN = frozenset(
    {"messages", "system", "inferenceConfig", "toolConfig", "outputConfig", "additionalModelRequestFields"}
    | {"requestMetadata"}
)
_HARMLESS = frozenset({"performanceConfig", "serviceTier", "additionalModelResponseFieldPaths", "projectIdentifier"})
"""Their loss changes no answer."""

_OWN = _SPOKEN | _HARMLESS | {"guardrailConfig", "promptVariables"}
"""All members of a request; what else an author of prompts writes is the model's own."""

_MORE = "additionalModelRequestFields"
_IMAGES = {form: media_type for media_type, form in reversed(asking.IMAGE_FORMATS.items())}
_schemas: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=finite)
_DOCUMENTS = {form: media_type for media_type, form in asking.DOCUMENT_FORMATS.items()}
_ADAPTIVE = replace(claude.GENERAL, thinking="adaptive")


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /model/{modelId}/converse; raises Invalid. The model is not told: it stands in the path."""
    members = decode_request(body)
    chat = _read_words(members)
    # Written as the client writes, so that only what differs is kept.
    thinking = find_object(find_object(members, _MORE), "thinking", (_MORE,))
    mind = _ADAPTIVE if thinking.get("type") == "adaptive" else claude.GENERAL
    known = replace_members(chat, extra_dialect=NAME)
    return keep_extra(
        chat, NAME, members, lambda: asking.write_words(known, Traits(), mind, set()), _SPOKEN | _HARMLESS
    ), ""


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`; raises Invalid for a part that cannot be said."""
    traits = traits_of(model)
    written = drafts.finish(chat, NAME, model, partial(asking.write_words, chat, traits, claude.traits_of(model)))
    is_clients_own = chat.extra_dialect == NAME
    if traits.family == "claude" and not is_clients_own and "stopSequences" in written.get("inferenceConfig", {}):
        written["additionalModelResponseFieldPaths"] = ["/stop_sequence"]
    return msgspec.json.encode(with_extra(_nest(chat, written), NAME, written, _read_words, _SPOKEN, stream=False))


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    lost = unspoken_elsewhere(chat, NAME) | lost_grammars(chat)
    write = partial(asking.write_words, chat, traits_of(model), claude.traits_of(model))
    drafts.weigh(chat, NAME, model, write, lost)
    return tell(lost)


def _nest(chat: ChatRequest, written: Members) -> ChatRequest:
    """A prompt's author names members of the model's; the API wants them apart from its own."""
    if chat.extra_dialect or not chat.extra:
        return chat
    own = {name: value for name, value in chat.extra.items() if name in _OWN}
    models = {name: value for name, value in chat.extra.items() if name not in _OWN and value is not None}
    if models:
        own[_MORE] = {**written.get(_MORE, {}), **models}
    return replace_members(chat, extra=own)


def _read_words(members: Members) -> ChatRequest:
    config = find_object(members, "inferenceConfig")
    tools = find_object(members, "toolConfig")
    more = find_object(members, _MORE)
    choice = find_object(more, "tool_choice", (_MORE,))
    is_single = find_flag(choice, "disable_parallel_tool_use")
    system = _read_parts(members, "system", ()) if members.get("system") is not None else ()
    messages = [Message("system", system)] if system else []
    for number, row in enumerate(need_rows(members, "messages")):
        loc: Loc = ("messages", number)
        messages.append(Message(_read_role(row, loc), _read_parts(row, "content", loc)))
    return ChatRequest(
        messages=tuple(messages),
        max_tokens=find_whole(config, "maxTokens"),
        temperature=find_number(config, "temperature"),
        top_p=find_number(config, "topP"),
        top_k=find_whole(more, "top_k") or find_whole(find_object(more, "inferenceConfig"), "topK"),
        stop=find_texts(config, "stopSequences"),
        tools=_read_tools(find_rows(tools, "tools", ("toolConfig",))),
        tool_choice=_read_tool_choice(find_object(tools, "toolChoice", ("toolConfig",)), choice),
        parallel_tool_calls=None if is_single is None else not is_single,
        answer_schema=_read_answer_schema(members),
        reasoning=_read_reasoning(members),
        user=find_text(find_object(members, "requestMetadata"), "user", ("requestMetadata",)),
        unspoken=tuple(f"tools.{name}" for row in find_rows(tools, "tools") for name in row if name == "systemTool"),
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
    """Cache points mark the part before them."""
    parts: list[Part] = []
    for number, row in enumerate(need_rows(members, name, loc)):
        if "cachePoint" in row:
            if parts and not isinstance(parts[-1], (Thought, Foreign)):
                parts[-1] = replace_members(parts[-1], cached=True)
            continue
        parts.append(_read_part(row, (*loc, name, number)))
    return tuple(parts)


def _read_part(row: Members, loc: Loc) -> Part:
    if len(row) != 1:
        raise Invalid(loc, "Input should have one member", "value_error")
    (kind,) = row
    if kind == "text":
        return Text(need_text(row, "text", loc))
    value = find_object(row, kind, loc)
    loc = (*loc, kind)
    part: Part | None = None
    if kind == "toolUse" and "type" not in value:
        arguments = msgspec.json.encode(find_object(value, "input", loc)).decode()
        part = ToolCall(need_text(value, "toolUseId", loc), need_text(value, "name", loc), arguments)
    elif kind == "toolResult" and "type" not in value:
        part = _read_result(value, loc)
    elif kind == "reasoningContent":
        part = _read_thought(value, loc)
    elif kind in ("image", "document"):
        part = _read_medium(kind, value, loc)
    return part or Foreign(NAME, kind, value, is_aside="type" in value)


def _read_thought(value: Members, loc: Loc) -> Thought:
    if "redactedContent" in value:
        return unseal("", need_text(value, "redactedContent", loc), PROOF, is_whole=True)
    told = find_object(value, "reasoningText", loc)
    return unseal(find_text(told, "text", loc), find_text(told, "signature", loc), PROOF)


def _read_medium(kind: str, value: Members, loc: Loc) -> Image | Document | None:
    """None for a source that has no word here."""
    source = find_object(value, "source", loc)
    form = find_text(value, "format", loc)
    data = find_text(source, "bytes", loc)
    place = find_object(source, "s3Location", loc)
    url = find_text(place, "uri", loc) if place.keys() <= {"uri"} else ""
    if kind == "image":
        return Image(_IMAGES.get(form, ""), data, url) if data or url else None
    title = find_text(value, "name", loc)
    if text := find_text(source, "text", loc):
        return Document("text/plain", text=text, title=title)
    if not (data or url) or value.keys() - {"format", "name", "source"}:
        return None
    if form == "txt" and data:
        return _read_text_document(data, title)
    return Document(_DOCUMENTS.get(form, ""), data, url, title=title)


def _read_text_document(data: str, title: str) -> Document:
    try:
        return Document("text/plain", text=b64decode(data, validate=True).decode(), title=title)
    except ValueError:
        return Document("text/plain", data, title=title)


def _read_result(value: Members, loc: Loc) -> ToolResult | None:
    parts: list[Text | Image | Document] = []
    for part in _read_parts(value, "content", loc):
        if isinstance(part, Foreign) and part.kind == "json":
            parts.append(Text(msgspec.json.encode(part.value).decode()))
        elif isinstance(part, (Text, Image, Document)):
            parts.append(part)
        else:
            return None
    return ToolResult(need_text(value, "toolUseId", loc), tuple(parts), value.get("status") == "error")


def _read_tools(rows: list[Members]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for number, row in enumerate(rows):
        loc: Loc = ("toolConfig", "tools", number)
        if "cachePoint" in row and tools:
            tools[-1] = replace_members(tools[-1], cached=True)
        elif "toolSpec" in row:
            spec = find_object(row, "toolSpec", loc)
            schema = find_object(find_object(spec, "inputSchema", loc), "json", loc)
            name, description = need_text(spec, "name", loc), find_text(spec, "description", loc)
            tools.append(Tool(name, description, schema, strict=find_flag(spec, "strict")))
    return tuple(tools)


def _read_tool_choice(choice: Members, claudes: Members) -> str:
    """Claude's own, where the request brings it, says the same and more."""
    kind = find_text(claudes, "type", (_MORE, "tool_choice"))
    if kind:
        return need_text(claudes, "name", (_MORE, "tool_choice")) if kind == "tool" else kind
    if "tool" in choice:
        return need_text(find_object(choice, "tool"), "name", ("toolConfig", "toolChoice", "tool"))
    return "any" if "any" in choice else "auto"


def _read_answer_schema(members: Members) -> AnswerSchema | None:
    loc: Loc = ("outputConfig", "textFormat")
    form = find_object(find_object(members, "outputConfig"), "textFormat", loc[:1])
    if form.get("type") != "json_schema":
        return None
    asked = find_object(find_object(form, "structure", loc), "jsonSchema", loc)
    schema: Any = None
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        schema = _schemas.decode(need_text(asked, "schema", loc))
    if not isinstance(schema, dict):
        raise Invalid((*loc, "schema"), "Input should be JSON as text", "json_invalid")
    name, description = find_text(asked, "name", loc) or "answer", find_text(asked, "description", loc)
    return AnswerSchema(name, schema, strict=True, description=description)


def _read_reasoning(members: Members) -> Reasoning | None:
    more = find_object(members, _MORE)
    said = find_text(find_object(members, "outputConfig"), "effort", ("outputConfig",))
    novas = find_object(more, "reasoningConfig", (_MORE,))
    said = said or find_text(more, "reasoning_effort", (_MORE,)) or find_text(novas, "maxReasoningEffort", (_MORE,))
    effort = read_effort(said)
    thinking = find_object(more, "thinking", (_MORE,))
    kind = find_text(thinking, "type", (_MORE, "thinking")) or find_text(novas, "type", (_MORE,))
    if kind in ("disabled", "between_tools"):
        return Reasoning("none")
    if kind == "enabled" and thinking:
        return Reasoning(effort, find_whole(thinking, "budget_tokens"))
    return Reasoning(effort) if kind or effort else None


CONVERSE = Dialect(
    name=NAME,
    path="/converse",
    read_request=read_request,
    write_request=write_request,
    losses=losses,
    read_events=lambda: StreamReader(answers.StreamedAnswer().take, EventStreamParser()),
    read_answer=answers.read_answer,
    write_events=writing.ConverseWriter,
    write_answer=writing.write_answer,
    read_error=answers.read_error,
    write_error=writing.write_error,
    write_error_event=writing.write_error_event,
    scan_events=answers.Scan,
    scan_answer=answers.scan_answer,
)
