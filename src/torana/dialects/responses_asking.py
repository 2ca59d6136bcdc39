"""The responses dialect: writing requests. Source: OpenAI API reference, "Responses".

Nothing is left with the provider (`store`), so thoughts are asked for in sealed form and sent back so.
What the format or the model does not take is left out, and named in `lost`.
"""

from dataclasses import replace

from torana.chat import ChatRequest, Document, Foreign, Image, Message, Part, Text, Thought, Tool, ToolCall, ToolResult
from torana.dialects.chat_completions_asking import MARK, choose_effort
from torana.dialects.freeform import names_of, spread_grammar, unwrap
from torana.dialects.media import file_name, image_url, tell_document, text_of, write_data_url
from torana.dialects.members import Members
from torana.dialects.openai_models import Traits
from torana.dialects.responses_answers import NAME
from torana.dialects.schemas import complete_schema, fit_strict_words
from torana.dialects.thoughts import leave_last_thoughts_out
from torana.errors import Invalid

LEAST_TOKENS = 16
"""A lower limit is refused."""


def write_words(chat: ChatRequest, traits: Traits, lost: set[str]) -> Members:
    """All that our words say, for a model of these traits; raises Invalid for a part of another dialect's."""
    is_clients_own = chat.extra_dialect == NAME
    if is_clients_own:
        traits = replace(traits, takes_freeform=True)
    else:
        chat = fit_strict_words(chat, lost)
    messages = leave_last_thoughts_out(chat, lost)
    members: Members = {}
    # Something must stand in the input; and the word JSON, where that is wanted: whoever asks tells it as the system's.
    if messages[1:] and not chat.wants_json and (head := _as_instructions(messages[0])):
        members["instructions"], messages = head, messages[1:]
    members["input"] = [item for message in messages for item in _write_message(message, traits, lost)]
    if chat.max_tokens is not None:
        members["max_output_tokens"] = chat.max_tokens if is_clients_own else max(chat.max_tokens, LEAST_TOKENS)
    for name, value in (("temperature", chat.temperature), ("top_p", chat.top_p)):
        if value is None:
            continue
        if is_clients_own or not traits.reasons:
            members[name] = value
        elif value != 1:
            # One is what both stand at when nobody says.
            lost.add(name)
    lost |= {name for name in ("top_k", "stop") if getattr(chat, name)}
    if chat.choices > 1:
        lost.add("choices")
    if chat.user:
        members["user"] = chat.user
    if chat.tools:
        members["tools"] = [_write_tool(tool, traits, is_clients_own=is_clients_own) for tool in chat.tools]
        if chat.tool_choice != "auto":
            members["tool_choice"] = _write_tool_choice(chat, traits)
        if chat.parallel_tool_calls is not None:
            members["parallel_tool_calls"] = chat.parallel_tool_calls
    if form := _write_form(chat):
        members["text"] = {"format": form}
    if effort := choose_effort(chat, traits, lost, NAME):
        members["reasoning"] = {"effort": effort}
    members["store"] = False
    if traits.reasons:
        members["include"] = ["reasoning.encrypted_content"]
    return members


def _as_instructions(message: Message) -> str:
    """The text of a first system message; empty where it holds what instructions cannot."""
    if message.role != "system" or not all(isinstance(part, Text) and not part.cached for part in message.parts):
        return ""
    return "\n\n".join(part.text for part in message.parts if isinstance(part, Text))


def _write_message(message: Message, traits: Traits, lost: set[str]) -> list[Members]:
    """Calls, results and thoughts are items beside the messages, in the order in which they were said."""
    items: list[Members] = []
    said: list[Part] = []
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    for part in [*results, *(part for part in message.parts if not isinstance(part, ToolResult))]:
        if isinstance(part, Text) and not part.text and len(message.parts) > 1:
            # Beside a call, chat completions have an empty text for none; here it would be a message of its own.
            continue
        if isinstance(part, Foreign) and part.dialect != NAME and part.is_aside:
            lost.add(part.kind[:40])
        elif isinstance(part, Thought) and not (part.dialect == NAME and part.signature):
            lost.add("thought")
        elif isinstance(part, (Text, Image, Document)) or _is_content(part):
            said.append(part)
        else:
            items += _write_said(message, said, traits)
            said = []
            items.append(_write_item(part, traits))
    return items + _write_said(message, said, traits)


def _is_content(part: Part) -> bool:
    return isinstance(part, Foreign) and part.dialect == NAME and part.kind.startswith("input_")


def _write_item(part: Part, traits: Traits) -> Members:
    match part:
        case ToolCall() if part.is_freeform and traits.takes_freeform:
            told = {"call_id": part.id, "name": part.name, "input": unwrap(part.arguments)}
            return {"type": "custom_tool_call", **told}
        case ToolCall():
            call = {"call_id": part.id, "name": part.name, "arguments": part.arguments or "{}"}
            return {"type": "function_call", **call}
        case ToolResult():
            kind = "custom_tool_call" if part.is_freeform and traits.takes_freeform else "function_call"
            return {"type": f"{kind}_output", "call_id": part.call_id, "output": _write_output(part, traits)}
        case Thought():
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            return {"type": "reasoning", "summary": summary, "encrypted_content": part.signature}
        case Foreign(dialect=dialect) if dialect == NAME:
            return part.value
        case _:
            kind = part.kind if isinstance(part, Foreign) else "part"
            raise Invalid(("messages",), f"This model cannot be given content of type {kind[:40]}")


def _write_said(message: Message, parts: list[Part], traits: Traits) -> list[Members]:
    if not parts:
        return []
    if all(isinstance(part, Text) and not (part.cached and traits.takes_marks) for part in parts):
        text = "\n\n".join(part.text for part in parts if isinstance(part, Text))
        return [{"role": message.role, "content": text}]
    is_answer = message.role == "assistant"
    return [{"role": message.role, "content": [_write_part(part, traits, is_answer=is_answer) for part in parts]}]


def _write_part(part: Part, traits: Traits, *, is_answer: bool = False) -> Members:
    match part:
        case Text():
            row: Members = {"type": "output_text" if is_answer else "input_text", "text": part.text}
        case Image():
            row = {"type": "input_image", "image_url": image_url(part), "detail": part.detail or "auto"}
        case Document():
            row = _write_document(part)
        case _:
            return _write_item(part, traits)
    return {**row, "prompt_cache_breakpoint": MARK} if part.cached and traits.takes_marks else row


def _write_document(document: Document) -> Members:
    if (text := text_of(document)) is not None:
        return {"type": "input_text", "text": tell_document(document.title, text)}
    if not document.data:
        return {"type": "input_file", "file_url": document.url}
    data = write_data_url(document.media_type, document.data)
    return {"type": "input_file", "filename": file_name(document), "file_data": data}


def _write_output(part: ToolResult, traits: Traits) -> str | list[Members]:
    # There is no flag for it, and a model that does not know repeats the call.
    head = "Error: " if part.is_error else ""
    if all(isinstance(each, Text) for each in part.parts):
        return head + part.text
    rows = [_write_part(each, traits) for each in part.parts]
    return [{"type": "input_text", "text": head.rstrip()}, *rows] if head else rows


def _write_tool(tool: Tool, traits: Traits, *, is_clients_own: bool) -> Members:
    is_custom = tool.freeform is not None and traits.takes_freeform
    row: Members = {"type": "custom" if is_custom else "function", "name": tool.name}
    if tool.description:
        row["description"] = tool.description
    if is_custom:
        return {**row, "format": spread_grammar(tool.freeform)} if tool.freeform else row
    parameters = tool.parameters or {"type": "object", "properties": {}}
    row["parameters"] = parameters if is_clients_own else complete_schema(parameters)
    # Who says nothing gets strict arguments here, which makes every one of them required.
    if tool.strict is not None or not is_clients_own:
        row["strict"] = bool(tool.strict)
    return row


def _write_tool_choice(chat: ChatRequest, traits: Traits) -> str | Members:
    choice = chat.tool_choice
    if choice in ("any", "none"):
        return "required" if choice == "any" else "none"
    is_custom = traits.takes_freeform and choice in names_of(chat)
    return {"type": "custom" if is_custom else "function", "name": choice}


def _write_form(chat: ChatRequest) -> Members:
    schema = chat.answer_schema
    if schema is None:
        return {"type": "json_object"} if chat.wants_json else {}
    row: Members = {"type": "json_schema", "name": schema.name, "schema": schema.schema}
    if schema.description:
        row["description"] = schema.description
    if schema.strict is not None:
        row["strict"] = schema.strict
    return row
