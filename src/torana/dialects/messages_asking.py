"""The messages dialect: writing requests. Source: Anthropic API reference, "Messages".

What the format or the model does not take is left out, and named in `lost`.
"""

import re
from dataclasses import dataclass, field
from hashlib import sha256

from torana.chat import (
    ChatRequest,
    Document,
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
from torana.dialects.cache_marks import mark_conversation
from torana.dialects.claude import Traits
from torana.dialects.in_words import GO_ON, ask_for_json, tell_in_turn
from torana.dialects.media import note_detail, text_of
from torana.dialects.members import Members, read_arguments
from torana.dialects.messages_answers import NAME
from torana.dialects.schemas import close_schema, is_closable
from torana.dialects.thoughts import (
    BUDGETS,
    LEAST_BUDGET,
    find_budget,
    find_effort,
    leave_last_thoughts_out,
    nearest_effort,
)
from torana.errors import Invalid

MAX_MARKS = 4
"""Of `cache_control`; with more the API refuses the request. The last ones reach furthest."""

_CACHED = {"type": "ephemeral"}
_EMPTY_SCHEMA: Members = {"type": "object", "properties": {}}
_forbidden_in_id = re.compile(r"[^a-zA-Z0-9_-]")
MAX_ID_CHARS = 4_096
"""Some servers put what a model thought into them; longer ones are told by their hash."""


@dataclass(slots=True)
class _Page:
    """A request while it is written."""

    traits: Traits
    lost: set[str]
    is_clients_own: bool
    """It came in this dialect; whether it makes sense is its client's affair."""
    holds_answer: bool
    """The answer can be held to the schema that is asked for; else it is asked for in words."""
    marked: list[Members] = field(default_factory=list)
    """Blocks with `cache_control`, in their order."""

    def mark(self, block: Members, *, cached: bool) -> Members:
        if cached:
            block["cache_control"] = _CACHED
            self.marked.append(block)
        return block


def write_words(chat: ChatRequest, traits: Traits, lost: set[str]) -> Members:
    """All that our words say, for a model of these traits; raises Invalid for a part of another dialect's."""
    is_clients_own, asked = chat.extra_dialect == NAME, chat.answer_schema
    holds_answer = traits.takes_schema and (asked is None or is_clients_own or is_closable(asked.schema))
    page = _Page(traits, lost, is_clients_own, holds_answer)
    chat = mark_conversation(tell_in_turn(chat))
    thinking = choose_thinking(chat, traits, lost)
    members: Members = {"max_tokens": thinking.max_tokens}
    if chat.tools:
        members["tools"] = [_write_tool(tool, page) for tool in chat.tools]
        if choice := write_tool_choice(chat, traits, lost):
            members["tool_choice"] = choice
    system = _write_system(chat, page)
    carries_on = traits.takes_begun_answer and not thinking.is_on if chat.carries_on is None else chat.carries_on
    turns = _write_turns(leave_last_thoughts_out(chat, lost), page, carries_on=carries_on)
    if not turns and system:
        # The API demands a turn.
        system, turns = "", [{"role": "user", "content": system}]
    if system:
        members["system"] = system
    members["messages"] = turns
    members |= write_sampling(chat, traits, lost, is_thinking=thinking.is_on)
    if stop := find_stops(chat, lost):
        members["stop_sequences"] = stop
    if chat.user:
        members["metadata"] = {"user_id": chat.user}
    if chat.choices > 1:
        lost.add("choices")
    if thinking.config:
        members["thinking"] = thinking.config
        if thinking.is_on and traits.thinking == "adaptive" and not page.is_clients_own:
            # Newer models keep their thoughts to themselves unless they are asked; other dialects know no such thing.
            members["thinking"] = {**thinking.config, "display": "summarized"}
    output: Members = {"effort": thinking.effort} if thinking.effort else {}
    if asked is not None and holds_answer:
        output["format"] = {"type": "json_schema", "schema": close_schema(asked.schema)}
    if output:
        members["output_config"] = output
    for block in page.marked[:-MAX_MARKS]:
        del block["cache_control"]
    return members


@dataclass(slots=True)
class Thinking:
    max_tokens: int
    config: Members | None = None
    effort: str = ""
    is_on: bool = False


def choose_thinking(chat: ChatRequest, traits: Traits, lost: set[str]) -> Thinking:
    """How much the model thinks: never while a tool is forced on it, and only within its own limits."""
    has_limit = chat.max_tokens is not None or bool(chat.output_limit)
    max_tokens = chat.output_limit or traits.max_tokens if chat.max_tokens is None else chat.max_tokens
    reasoning = chat.reasoning
    is_wanted = reasoning is not None and find_effort(reasoning) != "none"
    if is_wanted and not _may_think(chat, traits):
        lost.add("reasoning")
        is_wanted = False
    elif reasoning is None and not _must_not_think(chat, traits):
        return Thinking(max_tokens)
    if not is_wanted or reasoning is None:
        return _think_not(traits, max_tokens, lost)
    budget = find_budget(reasoning)
    if not has_limit:
        # Thinking counts as output.
        max_tokens += budget or BUDGETS["medium"]
    effort = find_effort(reasoning)
    if traits.thinking == "adaptive":
        effort = nearest_effort(effort, traits.efforts) if effort else ""
        return Thinking(max_tokens, {"type": "adaptive"}, effort, is_on=True)
    budget = budget or BUDGETS["medium"]
    if has_limit:
        # An answer needs room too, but who named a budget knows what they do.
        room = max_tokens - 1 if reasoning.budget_tokens is not None else max_tokens // 2
        budget = min(budget, room)
    budget = max(LEAST_BUDGET, budget)
    return Thinking(max_tokens, {"type": "enabled", "budget_tokens": budget}, is_on=True)


def _must_not_think(chat: ChatRequest, traits: Traits) -> bool:
    """True for models that think unasked, where a tool is forced on them and they can be kept from it."""
    return _is_forced(chat) and traits.thinking == "adaptive" and traits.forced_tools == "yes" and traits.off != "never"


def _may_think(chat: ChatRequest, traits: Traits) -> bool:
    if traits.thinking == "none" or (_is_forced(chat) and traits.forced_tools == "yes"):
        return False
    if traits.thinking == "adaptive":
        return True
    # Within a budget, a turn that called tools must begin with its proven thought.
    is_too_short = chat.max_tokens is not None and chat.max_tokens <= LEAST_BUDGET
    return not is_too_short and not _lacks_thought(chat.messages)


def _lacks_thought(messages: tuple[Message, ...]) -> bool:
    """True where results of tools stand in the last turn, and the turn that asked for them lost the thought before.

    What is said behind the results, in messages of its own, becomes part of their turn.
    """
    has_results = False
    for message in reversed(messages):
        if message.role == "assistant":
            return has_results and not any(isinstance(part, Thought) and _is_proven(part) for part in message.parts)
        has_results = has_results or any(isinstance(part, ToolResult) for part in message.parts)
    return False


def _think_not(traits: Traits, max_tokens: int, lost: set[str]) -> Thinking:
    if traits.off == "never":
        lost.add("reasoning")
        return Thinking(max_tokens, effort="low")
    return Thinking(max_tokens, None if traits.off == "omit" else {"type": traits.off})


def _is_forced(chat: ChatRequest) -> bool:
    return bool(chat.tools) and chat.tool_choice not in ("auto", "none")


def find_stops(chat: ChatRequest, lost: set[str]) -> list[str]:
    """The API refuses a stop sequence of white space alone."""
    stop = [text for text in chat.stop if text.strip()]
    if len(stop) < len(chat.stop):
        lost.add("stop.blank")
    return stop


def write_sampling(chat: ChatRequest, traits: Traits, lost: set[str], *, is_thinking: bool) -> Members:
    members: Members = {}
    if chat.temperature is not None:
        # The range ends at 1, others' at 2.
        members["temperature"] = min(chat.temperature, 1.0)
    if chat.top_p is not None:
        members["top_p"] = chat.top_p
    if chat.top_k is not None:
        members["top_k"] = chat.top_k
    if not traits.takes_sampling:
        refused = {"temperature", "top_p", "top_k"}
    elif is_thinking:
        refused = {"temperature", "top_k"} if (chat.top_p or 0) >= 0.95 else {"temperature", "top_p", "top_k"}
    else:
        refused = {"top_p"} if "temperature" in members and not traits.takes_both else set()
    for name in refused & members.keys():
        # One is what both stand at when nobody says.
        if members.pop(name) != 1:
            lost.add(name)
    return members


def _write_tool(tool: Tool, page: _Page) -> Members:
    row: Members = {"name": tool.name}
    if tool.description:
        row["description"] = tool.description
    row["input_schema"] = tool.parameters or _EMPTY_SCHEMA
    if tool.strict and page.traits.takes_schema and (page.is_clients_own or is_closable(row["input_schema"])):
        row |= {"input_schema": close_schema(row["input_schema"]), "strict": True}
    elif tool.strict:
        page.lost.add("tool.strict")
    return page.mark(row, cached=tool.cached)


def write_tool_choice(chat: ChatRequest, traits: Traits, lost: set[str]) -> Members | None:
    kind = chat.tool_choice
    if _is_forced(chat) and traits.forced_tools == "never":
        lost.add("tool_choice")
        kind = "auto"
    choice: Members = {"type": kind} if kind in ("auto", "none", "any") else {"type": "tool", "name": kind}
    if chat.parallel_tool_calls is not None and kind != "none":
        choice["disable_parallel_tool_use"] = not chat.parallel_tool_calls
    return None if choice == {"type": "auto"} else choice


def _write_system(chat: ChatRequest, page: _Page) -> str | list[Members]:
    """All system texts: joined, or as blocks where one of them is to be cached."""
    told = [message for message in chat.messages if message.role == "system"]
    parts = [part for message in told for part in _sayable(message, page)]
    if asked := ask_for_json(chat, page.lost, takes_schema=page.holds_answer):
        parts.append(Text(asked))
    if all(isinstance(part, Text) and not part.cached for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, Text))
    return [_write_part(part, page) for part in parts]


def _write_turns(messages: tuple[Message, ...], page: _Page, *, carries_on: bool) -> list[Members]:
    """Turns must alternate, so neighbours of one role become one."""
    turns: list[tuple[Role, list[Part]]] = []
    for message in messages:
        if message.role == "system":
            continue
        parts = _sayable(message, page)
        if not parts:
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((message.role, parts))
    if turns and turns[-1][0] == "assistant" and isinstance(last := turns[-1][1][-1], Text):
        # The API refuses a begun answer that ends in white space.
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
        if isinstance(part, Thought) and not _is_proven(part):
            page.lost.add("thought")
        elif isinstance(part, Foreign) and part.dialect != NAME and part.is_aside:
            page.lost.add(part.kind[:40])
        else:
            parts.append(part)
    return parts


def _is_proven(thought: Thought) -> bool:
    return thought.dialect == NAME and bool(thought.signature or thought.redacted)


def _write_content(parts: list[Part], page: _Page) -> str | list[Members]:
    if len(parts) == 1 and isinstance(only := parts[0], Text) and not only.cached:
        return only.text
    # Results must come first in their turn.
    results = [part for part in parts if isinstance(part, ToolResult)]
    rest = [part for part in parts if not isinstance(part, ToolResult)]
    return [_write_part(part, page) for part in results + rest]


def _write_part(part: Part, page: _Page) -> Members:
    match part:
        case Text():
            return page.mark({"type": "text", "text": part.text}, cached=part.cached)
        case Image():
            note_detail(part, page.lost)
            return page.mark({"type": "image", "source": _write_image(part)}, cached=part.cached)
        case Document():
            titled = {"title": part.title} if part.title else {}
            return page.mark({"type": "document", "source": _write_document(part, page), **titled}, cached=part.cached)
        case ToolCall():
            call = {"id": _legal_id(part.id), "name": part.name, "input": read_arguments(part.arguments)}
            return page.mark({"type": "tool_use", **call}, cached=part.cached)
        case ToolResult():
            return _write_result(part, page)
        case Thought(redacted=redacted) if redacted:
            return {"type": "redacted_thinking", "data": redacted}
        case Thought():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case Foreign(dialect=dialect) if dialect == NAME:
            return part.value
        case Foreign():
            raise Invalid(("messages",), f"This model cannot be given content of type {part.kind[:40]}")


def _write_image(image: Image) -> Members:
    if image.data:
        return {"type": "base64", "media_type": image.media_type or "image/png", "data": image.data}
    return {"type": "url", "url": image.url}


def _write_document(document: Document, page: _Page) -> Members:
    if (text := text_of(document)) is not None:
        return {"type": "text", "media_type": "text/plain", "data": text}
    if document.url:
        return {"type": "url", "url": document.url}
    if document.media_type != "application/pdf" and not page.is_clients_own:
        raise Invalid(("messages",), f"This model cannot be given a document of type {document.media_type[:60]}")
    return {"type": "base64", "media_type": document.media_type, "data": document.data}


def _write_result(part: ToolResult, page: _Page) -> Members:
    row: Members = {"type": "tool_result", "tool_use_id": _legal_id(part.call_id)}
    told = [each for each in part.parts if not (isinstance(each, Text) and not each.text.strip())]
    if all(isinstance(each, Text) and not each.cached for each in told):
        row["content"] = part.text if told else ""
    else:
        row["content"] = [_write_part(each, page) for each in told]
    if part.is_error:
        row["is_error"] = True
    return page.mark(row, cached=part.cached)


def _legal_id(call_id: str) -> str:
    """Other vendors' ids hold letters that this API refuses."""
    if len(call_id) > MAX_ID_CHARS:
        return sha256(call_id.encode("utf-8", "replace")).hexdigest()
    return _forbidden_in_id.sub("_", call_id)
