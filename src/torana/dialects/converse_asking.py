"""The converse dialect: writing requests. Source: Amazon Bedrock API reference, "Converse" and its data types.

What the format or the model does not take is left out, and named in `lost`.
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from torana.chat import (
    AnswerSchema,
    ChatRequest,
    Document,
    Effort,
    Foreign,
    Image,
    Message,
    Part,
    Role,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
)
from torana.dialects import claude, messages_asking
from torana.dialects.cache_marks import mark_conversation
from torana.dialects.converse_answers import NAME, PROOF
from torana.dialects.converse_models import Traits
from torana.dialects.in_words import GO_ON, ask_for_json, tell_in_turn
from torana.dialects.media import note_detail
from torana.dialects.members import Members, read_arguments
from torana.dialects.schemas import Room, bare_schema, close_schema, is_closable
from torana.dialects.thoughts import find_effort, leave_last_thoughts_out, nearest_effort
from torana.errors import Invalid

IMAGE_FORMATS = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
MAX_MARKS = 4
"""Of `cachePoint`; with more the request is refused. The last ones reach furthest."""

SEE_DOCUMENT = "See the attached document."
"""A turn with a document must hold a text. Source: API reference, "Message"."""

NO_OUTPUT = "(no output)"
"""A result without content, or with a blank text, is refused."""

OPENING = "Begin."
"""Said for the user where the assistant speaks first: "A conversation must start with a user message"."""

_MAX_NAME_CHARS = 200
_MAX_ID_CHARS = 64

_CACHE_POINT: Members = {"cachePoint": {"type": "default"}}
_EMPTY_SCHEMA: Members = {"type": "object", "properties": {}}
_EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")
_forbidden_in_id = re.compile(r"[^a-zA-Z0-9_.:-]")
_forbidden_in_name = re.compile(r"[^\w\-()\[\] ]|_", re.ASCII)
_forbidden_in_metadata = re.compile(r"[^a-zA-Z0-9\s:_@$#=/+,.-]")


@dataclass(slots=True)
class _Page:
    """A request while it is written."""

    traits: Traits
    lost: set[str]
    is_clients_own: bool
    names: dict[str, int] = field(default_factory=dict)
    """Of documents: no two may be alike. Each with the last number that was put behind it."""
    room: Room = field(default_factory=Room)


def write_words(chat: ChatRequest, traits: Traits, mind: claude.Traits, lost: set[str]) -> Members:
    """All that our words say; raises Invalid for a part that cannot be said.

    mind   what the model takes where it is Claude
    """
    page = _Page(traits, lost, chat.extra_dialect == NAME)
    is_claude = traits.family == "claude"
    chat = mark_conversation(tell_in_turn(chat)) if is_claude else tell_in_turn(chat)
    config, output, more = _ask_claude(chat, mind, lost) if is_claude else _ask_others(chat, traits, lost)
    if stop := messages_asking.find_stops(chat, lost):
        config["stopSequences"] = stop
    if chat.choices > 1:
        lost.add("choices")
    takes_schema = traits.takes_schema and (mind.takes_schema or not is_claude)
    asked = chat.answer_schema
    holds_answer = takes_schema and (page.is_clients_own or asked is None or is_closable(asked.schema))
    system = _write_system(chat, page, takes_schema=holds_answer)
    carries_on = chat.carries_on
    if carries_on is None:
        carries_on = not is_claude or (mind.takes_begun_answer and "thinking" not in more)
    turns = _write_turns(leave_last_thoughts_out(chat, lost), page, carries_on=carries_on)
    if not turns and system:
        # The API demands a turn.
        system, turns = [], [{"role": "user", "content": system}]
    members: Members = {"messages": turns}
    if system:
        members["system"] = system
    if config:
        members["inferenceConfig"] = config
    tools = _write_tools(chat, page, takes_schema=takes_schema)
    if tools:
        members["toolConfig"] = tools
    if tools and "tool_choice" in more:
        tools.pop("toolChoice", None)  # two of them contradict each other, and Claude's own says more
    else:
        more.pop("tool_choice", None)
    if asked is not None and holds_answer:
        output["textFormat"] = _write_answer_schema(asked)
    if output:
        members["outputConfig"] = output
    if more:
        members["additionalModelRequestFields"] = more
    if chat.user:
        # Shown in the invocation logs, and nowhere else.
        members["requestMetadata"] = {"user": _forbidden_in_metadata.sub("_", chat.user[:256])}
    _limit_marks(members)
    return members


_Parts = tuple[Members, Members, Members]
"""`inferenceConfig`, `outputConfig`, `additionalModelRequestFields`."""


def _ask_claude(chat: ChatRequest, traits: claude.Traits, lost: set[str]) -> _Parts:
    """What the messages dialect decides for this model, in this one's members."""
    thinking = messages_asking.choose_thinking(chat, traits, lost)
    sampling = messages_asking.write_sampling(chat, traits, lost, is_thinking=thinking.is_on)
    config: Members = {} if chat.max_tokens is None else {"maxTokens": thinking.max_tokens}
    for ours, theirs in (("temperature", "temperature"), ("top_p", "topP")):
        if ours in sampling:
            config[theirs] = sampling[ours]
    more: Members = {"top_k": sampling["top_k"]} if "top_k" in sampling else {}
    if thinking.config:
        more["thinking"] = thinking.config
    choice = messages_asking.write_tool_choice(chat, traits, lost)
    if choice is not None and choice.get("disable_parallel_tool_use"):
        more["tool_choice"] = choice
    return config, {"effort": thinking.effort} if thinking.effort else {}, more


def _ask_others(chat: ChatRequest, traits: Traits, lost: set[str]) -> _Parts:
    config: Members = {}
    more: Members = {}
    if chat.max_tokens is not None:
        config["maxTokens"] = chat.max_tokens
    if chat.temperature is not None:
        config["temperature"] = min(chat.temperature, 1.0)  # the range ends there, others' at 2
    if chat.top_p is not None:
        config["topP"] = chat.top_p
    if chat.top_k is not None and traits.family == "nova":
        more["inferenceConfig"] = {"topK": chat.top_k}
    elif chat.top_k is not None:
        lost.add("top_k")
    if chat.parallel_tool_calls is False and chat.tools:
        lost.add("parallel_tool_calls")
    effort = find_effort(chat.reasoning) if chat.reasoning is not None else ""
    if chat.reasoning is None or (effort == "none" and traits.family != "gpt"):
        return config, {}, more
    if not traits.thinks_by_effort:
        lost.add("reasoning")
        return config, {}, more
    effort = nearest_effort(effort or "medium", _EFFORTS)
    if traits.family == "gpt":
        return config, {}, {**more, "reasoning_effort": effort}
    if effort == "high":
        # Nova refuses them all beside its highest effort.
        lost.update({"maxTokens": "max_tokens", "topP": "top_p"}.get(name, name) for name in config)
        lost.update({"top_k"} if "inferenceConfig" in more else ())
        config, more = {}, {}
    return config, {}, {**more, "reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}}


def _write_tools(chat: ChatRequest, page: _Page, *, takes_schema: bool) -> Members:
    """`toolConfig`. There is no choice `none`, so then no tools are offered; but a conversation that holds calls or
    results is refused without any."""
    tools = chat.tools if chat.tool_choice != "none" else ()
    if not tools and (names := _named_tools(chat.messages)):
        tools = chat.tools or tuple(map(Tool, names))
        if chat.tools:
            page.lost.add("tool_choice")
    if not tools:
        return {}
    rows: list[Members] = []
    for tool in tools:
        rows.append({"toolSpec": _write_tool(tool, page, takes_schema=takes_schema)})
        if tool.cached and page.traits.family == "claude":
            rows.append(dict(_CACHE_POINT))
    config: Members = {"tools": rows}
    if chat.tools and chat.tool_choice not in ("auto", "none"):
        config["toolChoice"] = {"any": {}} if chat.tool_choice == "any" else {"tool": {"name": chat.tool_choice}}
    return config


def _named_tools(messages: tuple[Message, ...]) -> list[str]:
    """Names of the tools that the conversation called; one made up where it holds results alone."""
    parts = [part for message in messages for part in message.parts]
    names = list(dict.fromkeys(part.name for part in parts if isinstance(part, ToolCall)))
    return names or (["tool"] if any(isinstance(part, ToolResult) for part in parts) else [])


def _write_tool(tool: Tool, page: _Page, *, takes_schema: bool) -> Members:
    row: Members = {"name": tool.name}
    if tool.description:
        row["description"] = tool.description
    given = tool.parameters or _EMPTY_SCHEMA
    schema = bare_schema(given, page.room) if page.traits.family == "nova" else given
    if tool.strict and takes_schema and (page.is_clients_own or is_closable(schema)):
        return {**row, "inputSchema": {"json": close_schema(schema)}, "strict": True}
    if tool.strict:
        page.lost.add("tool.strict")
    return {**row, "inputSchema": {"json": schema}}


def _write_answer_schema(asked: AnswerSchema) -> Members:
    definition: Members = {"schema": msgspec.json.encode(close_schema(asked.schema)).decode(), "name": asked.name}
    if asked.description:
        definition["description"] = asked.description
    return {"type": "json_schema", "structure": {"jsonSchema": definition}}


def _write_system(chat: ChatRequest, page: _Page, *, takes_schema: bool) -> list[Members]:
    """All system texts; they may stand nowhere else."""
    rows: list[Members] = []
    for message in chat.messages:
        if message.role == "system":
            for part in _sayable(message, page):
                rows += _write_part(part, page)
    if asked := ask_for_json(chat, page.lost, takes_schema=takes_schema):
        rows.append({"text": asked})
    return rows


def _write_turns(messages: tuple[Message, ...], page: _Page, *, carries_on: bool) -> list[Members]:
    """Turns must alternate, so neighbours of one role become one."""
    turns: list[tuple[Role, list[Part]]] = []
    for message in messages:
        parts = _sayable(message, page) if message.role != "system" else []
        if not parts:
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((message.role, parts))
    if turns and turns[0][0] == "assistant":
        turns.insert(0, ("user", [Text(OPENING)]))
    if turns and turns[-1][0] == "assistant" and isinstance(last := turns[-1][1][-1], Text):
        # Claude refuses a begun answer that ends in white space.
        turns[-1][1][-1] = Text(last.text.rstrip(), last.cached)
        if not carries_on:
            page.lost.add("begun_answer")
            turns.append(("user", [Text(GO_ON)]))
    return [{"role": role, "content": _write_content(parts, page)} for role, parts in turns]


def _sayable(message: Message, page: _Page) -> list[Part]:
    """The parts that the API takes: it refuses blank texts, and thoughts without its own proof."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Text) and not part.text.strip():
            continue
        if isinstance(part, Thought) and not _is_taken(part, page.traits):
            page.lost.add("thought")
        elif isinstance(part, Foreign) and part.dialect != NAME and part.is_aside:
            page.lost.add(part.kind[:40])
        else:
            parts.append(part)
    return parts


def _is_taken(thought: Thought, traits: Traits) -> bool:
    """Only Claude wants its thoughts back; others refuse a conversation that holds any."""
    return traits.family == "claude" and thought.dialect == PROOF and bool(thought.signature or thought.redacted)


def _write_content(parts: list[Part], page: _Page) -> list[Members]:
    # Results must come first in their turn.
    results = [part for part in parts if isinstance(part, ToolResult)]
    rest = [part for part in parts if not isinstance(part, ToolResult)]
    content = [row for part in results + rest for row in _write_part(part, page)]
    if any("document" in row for row in content) and not any("text" in row for row in content):
        content.append({"text": SEE_DOCUMENT})
    return content


def _write_part(part: Part, page: _Page) -> list[Members]:
    """The part's block, with a cache point behind it where the prompt up to there is to be kept."""
    is_cached = not isinstance(part, (Thought, Foreign)) and part.cached and page.traits.takes_marks
    block = _write_block(part, page)
    return [block, dict(_CACHE_POINT)] if is_cached else [block]


def _write_block(part: Part, page: _Page) -> Members:
    match part:
        case Text():
            return {"text": part.text}
        case Image():
            note_detail(part, page.lost)
            return {"image": _write_image(part)}
        case Document():
            return {"document": _write_document(part, page)}
        case ToolCall():
            call = {"toolUseId": legal_id(part.id), "name": part.name, "input": read_arguments(part.arguments)}
            return {"toolUse": call}
        case ToolResult():
            return {"toolResult": _write_result(part, page)}
        case Thought(redacted=redacted) if redacted:
            return {"reasoningContent": {"redactedContent": redacted}}
        case Thought():
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
        case Foreign(dialect=dialect) if dialect == NAME:
            return {part.kind: part.value}
        case Foreign():
            raise Invalid(("messages",), f"This model cannot be given content of type {part.kind[:40]}")


def _write_image(image: Image) -> Members:
    form = IMAGE_FORMATS.get(image.media_type or "image/png")
    if form is None:
        raise Invalid(("messages",), f"This model cannot be given an image of type {image.media_type[:60]}")
    return {"format": form, "source": _write_source(image.data, "an image")}


def _write_document(document: Document, page: _Page) -> Members:
    media_type = document.media_type or ("text/plain" if document.text else "application/pdf")
    form = DOCUMENT_FORMATS.get(media_type, "txt" if media_type.startswith("text/") or document.text else "")
    if not form:
        raise Invalid(("messages",), f"This model cannot be given a document of type {media_type[:60]}")
    data = b64encode(document.text.encode(errors="replace")).decode() if document.text else document.data
    source = _write_source(data, "a document")
    return {"format": form, "name": _name_document(document.title, page), "source": source}


def _write_source(data: str, what: str) -> Members:
    if data:
        return {"bytes": data}
    # Addresses here are S3's, where the vendor reads with our rights what its caller may have none to.
    raise Invalid(("messages",), f"This model cannot be given {what} by its URL, but by its bytes")


def _name_document(title: str, page: _Page) -> str:
    """A name of the letters that are allowed, unlike the others of the request."""
    legal = " ".join(_forbidden_in_name.sub(" ", title[: 4 * _MAX_NAME_CHARS]).split())
    unique = name = legal[: _MAX_NAME_CHARS - 6] or "document"
    while unique in page.names:
        page.names[name] += 1
        unique = f"{name} ({page.names[name]})"
    page.names[unique] = 1
    return unique


def _write_result(part: ToolResult, page: _Page) -> Members:
    rows = [_write_block(each, page) for each in part.parts if not (isinstance(each, Text) and not each.text.strip())]
    # Claude refuses an error that shows something: "all content must be type "text" if "is_error" is true".
    has_flag = page.traits.takes_status and all("text" in row for row in rows)
    if part.is_error and not has_flag:
        # A model that does not know repeats the call.
        rows.insert(0, {"text": "Error:"})
    result: Members = {"toolUseId": legal_id(part.call_id), "content": rows or [{"text": NO_OUTPUT}]}
    return {**result, "status": "error"} if part.is_error and has_flag else result


def legal_id(call_id: str) -> str:
    """Other vendors' ids are longer, or hold letters that this API refuses."""
    legal = _forbidden_in_id.sub("_", call_id[: _MAX_ID_CHARS + 1])
    if len(legal) > _MAX_ID_CHARS:
        legal = f"{legal[:47]}-{sha256(call_id.encode()).hexdigest()[:16]}"
    return legal or "_"


def _limit_marks(members: Members) -> None:
    """Tools come before the system text, and that before the turns: the last marks reach furthest."""
    places = [members.get("toolConfig", {}).get("tools", []), members.get("system", [])]
    places += [turn["content"] for turn in members["messages"]]
    surplus = sum(row == _CACHE_POINT for rows in places for row in rows) - MAX_MARKS
    dropped = iter(range(surplus))
    for rows in places:
        rows[:] = [row for row in rows if row != _CACHE_POINT or next(dropped, None) is None]
