"""The chat completions dialect: writing requests. Source: OpenAI API reference, "Chat Completions".

Written for the servers that follow OpenAI too, so nothing is sent that only OpenAI knows, unless the
model is OpenAI's or the request brings it. What the format or the model does not take is left out,
and named in `lost`.
"""

from dataclasses import replace

from torana.chat import ChatRequest, Document, Foreign, Image, Message, Part, Text, Thought, Tool, ToolCall, ToolResult
from torana.dialects.chat_completions_answers import NAME
from torana.dialects.freeform import fold_grammar, names_of, unwrap
from torana.dialects.in_words import tell_in_turn
from torana.dialects.media import file_name, image_url, tell_document, text_of, write_data_url
from torana.dialects.members import Members, said_in, sound_arguments
from torana.dialects.openai_models import Traits
from torana.dialects.schemas import complete_schema, fit_strict_words
from torana.dialects.thought_details import read_details
from torana.dialects.thoughts import find_effort, nearest_effort
from torana.errors import Invalid

MARK = {"mode": "explicit"}
"""Value of `prompt_cache_breakpoint`."""

OPENAIS_STOPS = 4
"""Most texts that end an answer; more are refused."""

SEE_BELOW = "The result is shown in the next message."
"""Stands in for a result without words: messages of tools hold text alone."""


def write_words(chat: ChatRequest, traits: Traits, lost: set[str]) -> Members:
    """All that our words say, for a model of these traits; raises Invalid for a part of another dialect's."""
    # What a client wrote in this dialect is its own affair.
    is_reasoning = chat.extra_dialect != NAME and traits.reasons
    if chat.extra_dialect == NAME:
        traits = replace(traits, takes_freeform=True)
    is_clients_own = chat.extra_dialect == NAME
    if not is_clients_own:
        chat = fit_strict_words(chat, lost)
    messages = chat.messages if is_clients_own or traits.is_openais else _gather_system(tell_in_turn(chat).messages)
    if not is_clients_own:
        messages = _gather_results(messages)
    rows = [_write_message(each, traits, lost, is_clients_own=is_clients_own) for each in messages]
    members: Members = {"messages": [row for each in rows for row in each]}
    # Other servers may not know the new name, so it goes out only to those, or when the request says so.
    if is_reasoning or "max_completion_tokens" in said_in(chat, NAME):
        if chat.max_tokens is not None:
            members["max_completion_tokens"] = chat.max_tokens
    elif chat.max_tokens is not None:
        members["max_tokens"] = chat.max_tokens
    members |= write_sampling(chat, lost, takes_it=not is_reasoning)
    if traits.is_openais and not is_clients_own and len(chat.stop) > OPENAIS_STOPS and "stop" in members:
        members["stop"] = list(chat.stop[:OPENAIS_STOPS])
        lost.add("stop")
    if chat.choices != 1:
        members["n"] = chat.choices
    if chat.user:
        members["user"] = chat.user
    if chat.tools:
        members["tools"] = [_write_tool(tool, traits, is_clients_own=is_clients_own) for tool in chat.tools]
        if chat.tool_choice != "auto":
            members["tool_choice"] = _write_tool_choice(chat, traits)
        if chat.parallel_tool_calls is not None:
            members["parallel_tool_calls"] = chat.parallel_tool_calls
    if form := _write_form(chat):
        members["response_format"] = form
    if effort := choose_effort(chat, traits, lost, NAME):
        members["reasoning_effort"] = effort
    return members


def write_sampling(chat: ChatRequest, lost: set[str], *, takes_it: bool = True) -> Members:
    """`top_k` is never among them: OpenAI refuses it, and servers that know it get it through `extra`."""
    members: Members = {}
    if chat.temperature is not None:
        members["temperature"] = chat.temperature
    if chat.top_p is not None:
        members["top_p"] = chat.top_p
    if chat.stop:
        members["stop"] = list(chat.stop)
    if chat.top_k is not None and "top_k" not in said_in(chat, NAME):
        lost.add("top_k")
    if takes_it:
        return members
    # One is what both stand at when nobody says.
    lost.update(name for name, value in members.items() if value != 1)
    return {}


def choose_effort(chat: ChatRequest, traits: Traits, lost: set[str], dialect: str) -> str:
    """The effort by the name that the model knows; empty where nobody asked, or it takes none."""
    effort = "" if chat.reasoning is None else find_effort(chat.reasoning)
    if not effort:
        return ""
    if chat.extra_dialect == dialect:
        return effort
    if not traits.efforts:
        if effort != "none":
            lost.add("reasoning")
        return ""
    known = traits.efforts
    if effort != "none" and chat.reasoning is not None and not chat.reasoning.effort:
        # The least budget that there is asks to think all the same.
        known = tuple(each for each in known if each != "none")
    return nearest_effort(effort, known)


def _gather_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """One system message ahead of all others: chat templates of open models refuse or drop every further one."""
    told = [message for message in messages if message.role == "system"]
    if not told or (len(told) == 1 and messages[0].role == "system"):
        return messages
    rest = (message for message in messages if message.role != "system")
    return (Message("system", tuple(part for message in told for part in message.parts)), *rest)


def _gather_results(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """With the results of one turn in one message, ahead of all that is said and shown in that turn.

    OpenAI: "An assistant message with 'tool_calls' must be followed by tool messages responding to each".
    """
    turns: list[tuple[Message, list[Part]]] = []
    for message in messages:
        is_same = message.role == "user" and bool(turns) and turns[-1][0].role == "user"
        if is_same and any(isinstance(part, ToolResult) for part in message.parts):
            turns[-1][1].extend(message.parts)
        else:
            turns.append((message, []))
    return tuple(Message("user", (*message.parts, *more)) if more else message for message, more in turns)


def _write_message(message: Message, traits: Traits, lost: set[str], *, is_clients_own: bool) -> list[Members]:
    """Results of tools are messages of their own, ahead of what else was said."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    rows: list[Members] = [_write_result(part) for part in results]
    made = [part for part in message.parts if isinstance(part, ToolCall)]
    calls = [_write_call(part, traits, is_clients_own=is_clients_own) for part in made]
    shown: list[Part] = [part for result in results for part in result.parts if not _is_text(part)]
    said = shown + [part for part in message.parts if _is_said(part, lost)]
    thought = _write_thoughts(message, traits, lost)
    content = _write_content(said, traits)
    if calls:
        rows.append({"role": message.role, "content": content or None, **thought, "tool_calls": calls})
    elif said or thought or not message.parts:
        rows.append({"role": message.role, "content": content, **thought})
    return rows


def _is_said(part: Part, lost: set[str]) -> bool:
    if isinstance(part, Foreign) and part.dialect != NAME and part.is_aside:
        lost.add(part.kind[:40])
        return False
    return not isinstance(part, (ToolResult, Thought, ToolCall))


def _is_text(part: Part) -> bool:
    return isinstance(part, Text) or (isinstance(part, Document) and text_of(part) is not None)


def _write_thoughts(message: Message, traits: Traits, lost: set[str]) -> Members:
    """Servers that show thoughts want them back, DeepSeek's under this name; OpenAI refuses the member."""
    thoughts = [part for part in message.parts if isinstance(part, Thought)]
    ours = [part for part in thoughts if part.dialect == NAME and not traits.is_openais]
    if len(ours) < len(thoughts):
        lost.add("thought")
    if details := [row for part in ours for row in read_details(part.signature)]:
        return {"reasoning_details": details}
    ours = [part for part in ours if part.text]
    return {"reasoning_content": "".join(part.text for part in ours)} if ours else {}


def _write_content(parts: list[Part], traits: Traits) -> str | list[Members]:
    # Many servers' chat templates take text alone, so a list is written only for what is no text.
    rows = [_write_part(part, traits) for part in parts]
    if all(_is_text(part) for part in parts) and not any("prompt_cache_breakpoint" in row for row in rows):
        return "\n\n".join(row["text"] for row in rows)
    return rows


def _write_part(part: Part, traits: Traits) -> Members:
    match part:
        case Text():
            row: Members = {"type": "text", "text": part.text}
        case Image():
            detail = {"detail": part.detail} if part.detail else {}
            row = {"type": "image_url", "image_url": {"url": image_url(part), **detail}}
        case Document():
            row = _write_document(part)
        case Foreign(dialect=dialect) if dialect == NAME:
            return part.value
        case _:
            kind = part.kind if isinstance(part, Foreign) else "tool"
            raise Invalid(("messages",), f"This model cannot be given content of type {kind[:40]}")
    return {**row, "prompt_cache_breakpoint": MARK} if part.cached and traits.takes_marks else row


def _write_document(document: Document) -> Members:
    if (text := text_of(document)) is not None:
        return {"type": "text", "text": tell_document(document.title, text)}
    if not document.data:
        raise Invalid(("messages",), "This model cannot be given a document by its address")
    data = write_data_url(document.media_type, document.data)
    return {"type": "file", "file": {"filename": file_name(document), "file_data": data}}


def _write_result(part: ToolResult) -> Members:
    told = [
        each.text if isinstance(each, Text) else tell_document(each.title, text_of(each) or "")
        for each in part.parts
        if isinstance(each, Text) or (isinstance(each, Document) and _is_text(each))
    ]
    is_shown_below = len(told) < len(part.parts)
    text = "\n\n".join(filter(None, told)) or (SEE_BELOW if is_shown_below else "")
    # There is no flag for it, and a model that does not know repeats the call.
    return {"role": "tool", "tool_call_id": part.call_id, "content": f"Error: {text}" if part.is_error else text}


def _write_call(call: ToolCall, traits: Traits, *, is_clients_own: bool) -> Members:
    if call.is_freeform and traits.takes_freeform:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": unwrap(call.arguments)}}
    # Servers of open models read all calls anew with each request: one that was cut would end the conversation.
    arguments = call.arguments or "{}" if is_clients_own else sound_arguments(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _write_tool(tool: Tool, traits: Traits, *, is_clients_own: bool) -> Members:
    function: Members = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.freeform is not None and traits.takes_freeform:
        form = {"format": fold_grammar(tool.freeform)} if tool.freeform else {}
        return {"type": "custom", "custom": {**function, **form}}
    if tool.parameters:
        function["parameters"] = tool.parameters if is_clients_own else complete_schema(tool.parameters)
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _write_tool_choice(chat: ChatRequest, traits: Traits) -> str | Members:
    choice = chat.tool_choice
    if choice in ("any", "none"):
        return "required" if choice == "any" else "none"
    kind = "custom" if traits.takes_freeform and choice in names_of(chat) else "function"
    return {"type": kind, kind: {"name": choice}}


def _write_form(chat: ChatRequest) -> Members:
    schema = chat.answer_schema
    if schema is None:
        return {"type": "json_object"} if chat.wants_json else {}
    row: Members = {"name": schema.name, "schema": schema.schema}
    if schema.description:
        row["description"] = schema.description
    if schema.strict is not None:
        row["strict"] = schema.strict
    return {"type": "json_schema", "json_schema": row}
