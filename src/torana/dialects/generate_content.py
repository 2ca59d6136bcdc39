"""The generate content dialect: requests, and the record of all its functions.

Source: Gemini API reference, "generateContent", "GenerationConfig" and "FunctionCallingConfig"; Vertex AI reference,
"Generate content with the Gemini API"; "Thinking"; "OpenAI compatibility" for efforts as budgets.

The model's name and whether the answer streams stand in the path, not in the body.
"""

import re

import msgspec

from torana.chat import AnswerSchema, ChatRequest, Effort, Foreign, Reasoning, Thought, Tool
from torana.dialects import generate_content_answers as answers
from torana.dialects import generate_content_writing as writing
from torana.dialects.dialect import Dialect
from torana.dialects.generate_content_errors import read_error
from torana.dialects.generate_content_parts import (
    NAME,
    find_member,
    is_second,
    read_contents,
    read_system,
    write_contents,
    write_system,
)
from torana.dialects.google_schema import clean_schema, lower_types
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
    tell,
    unspoken_elsewhere,
    with_extra,
)

MAX_STOPS = 5

_TOP = frozenset(
    {"contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "cachedContent", "labels"}
    | {"serviceTier", "store"}
)
"""Members of the body itself; all others are generationConfig's."""

_SPOKEN = frozenset(
    {"contents", "systemInstruction", "tools", "toolConfig", "maxOutputTokens", "temperature", "topP", "topK"}
    | {"stopSequences", "candidateCount", "thinkingConfig", "responseMimeType", "responseJsonSchema", "responseSchema"}
)

_HARMLESS = frozenset({"labels", "serviceTier", "store"})
"""Their loss changes no answer."""

_UNKNOWN = "/"
"""Before the name of a member of the body that is not in _TOP."""

_BUDGETS: dict[Effort, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
_LEVELS: dict[Effort, str] = {"none": "LOW", "minimal": "LOW", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_takes_minimal = re.compile(r"gemini-3(\.[156])?-flash")
_knows_no_medium = re.compile(r"gemini-3-pro")

_MODES = {"auto": "AUTO", "none": "NONE", "any": "ANY"}


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of models.generateContent; raises Invalid. The model is empty unless the body names it after all."""
    told = decode_request(body)
    members = _flatten(told)
    chat = _read_words(members)
    model = find_text(told, "model").removeprefix("models/")
    return keep_extra(chat, NAME, members, _write_words(chat, model), _SPOKEN | _HARMLESS), model


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`, the same whether or not it is to stream.

    Raises Invalid for a part that only another dialect can write.
    """
    members = with_extra(chat, NAME, _write_words(chat, model), _read_words, _SPOKEN, stream=False)
    return msgspec.json.encode(_nest(members))


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    """What `write_request` leaves out, by name."""
    lost = unspoken_elsewhere(chat, NAME)
    parts = [part for message in chat.messages for part in message.parts]
    found = {
        "thought": any(
            part.dialect != NAME
            for part in parts
            if isinstance(part, Thought) or (isinstance(part, Foreign) and part.is_aside)
        ),
        "tool.strict": any(tool.strict for tool in chat.tools),
        "tool.schema": any(clean_schema(tool.parameters)[1] for tool in chat.tools),
        "answer_schema": chat.answer_schema is not None and not _may_ask_for_json(chat, model),
        "answer_schema.schema": chat.answer_schema is not None and clean_schema(chat.answer_schema.schema)[1],
        "wants_json": chat.wants_json and not _may_ask_for_json(chat, model),
        "parallel_tool_calls": chat.parallel_tool_calls is False,
        "reasoning": chat.reasoning is not None and not _thinks(model) and chat.reasoning.effort != "none",
        "choices": chat.choices > 1 and not is_second(model),
        "stop": len(chat.stop) > MAX_STOPS,
        "user": bool(chat.user),
    }
    return tell(lost | {name for name, is_lost in found.items() if is_lost})


def _flatten(told: Members) -> Members:
    """The body's members, and generationConfig's beside them; `snake_case` names as the others."""
    flat: Members = {}
    for name, value in told.items():
        camel = _camel(name)
        if camel == "generationConfig" and isinstance(value, dict):
            flat.update({_camel(inner): each for inner, each in value.items()})
        elif camel in _TOP:
            flat[camel] = value
        elif camel != "model":
            flat[_UNKNOWN + name] = value
    return flat


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _nest(flat: Members) -> Members:
    config = {name: value for name, value in flat.items() if name not in _TOP and not name.startswith(_UNKNOWN)}
    body = {name.removeprefix(_UNKNOWN): value for name, value in flat.items() if name not in config}
    return {**body, "generationConfig": config} if config else body


def _read_words(members: Members) -> ChatRequest:
    system = read_system(members["systemInstruction"]) if members.get("systemInstruction") is not None else []
    schema, wants_json = _read_schema(members)
    return ChatRequest(
        messages=(*system, *read_contents(need_rows(members, "contents"), ("contents",))),
        max_tokens=find_whole(members, "maxOutputTokens"),
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "topP"),
        top_k=find_whole(members, "topK"),
        stop=find_texts(members, "stopSequences"),
        tools=tuple(_read_tools(members)),
        tool_choice=_read_tool_choice(members),
        answer_schema=schema,
        wants_json=wants_json,
        reasoning=_read_reasoning(find_object(members, "thinkingConfig")),
        choices=find_whole(members, "candidateCount") or 1,
    )


def _read_tools(members: Members) -> list[Tool]:
    name = "functionDeclarations"
    rows = [
        (declared, ("tools", number, name, at))
        for number, row in enumerate(find_rows(members, "tools"))
        for at, declared in enumerate(find_rows({name: find_member(row, name)}, name, ("tools", number)))
    ]
    return [_read_tool(declared, loc) for declared, loc in rows]


def _read_tool(declared: Members, loc: Loc) -> Tool:
    schema = find_member(declared, "parametersJsonSchema")
    if not isinstance(schema, dict):
        schema = lower_types(find_object(declared, "parameters", loc))
    return Tool(need_text(declared, "name", loc), find_text(declared, "description", loc), schema)


def _read_tool_choice(members: Members) -> str:
    config = find_member(find_object(members, "toolConfig"), "functionCallingConfig")
    if not isinstance(config, dict):
        return "auto"
    names = find_member(config, "allowedFunctionNames")
    mode = str(config.get("mode", "AUTO")).upper()
    if mode == "ANY" and isinstance(names, list) and len(names) == 1:
        return str(names[0])
    return {"ANY": "any", "NONE": "none"}.get(mode, "auto")


def _read_schema(members: Members) -> tuple[AnswerSchema | None, bool]:
    if find_text(members, "responseMimeType") != "application/json":
        return None, False
    schema = members.get("responseJsonSchema")
    if schema is None and members.get("responseSchema") is not None:
        schema = lower_types(find_object(members, "responseSchema"))
    if not isinstance(schema, dict):
        return None, True
    return AnswerSchema(str(schema.get("title") or "answer"), schema), False


def _read_reasoning(config: Members) -> Reasoning | None:
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    if isinstance(level, str) and (effort := level.lower()) in ("minimal", "low", "medium", "high"):
        return Reasoning(effort)  # type: ignore[arg-type]  # narrowed by the line above
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        return Reasoning("", budget) if budget else Reasoning("none")
    return None


def _write_words(chat: ChatRequest, model: str) -> Members:
    contents, system = write_contents(chat.messages, model), write_system(chat.messages)
    if not contents:
        # A conversation in which nobody asks anything: the API demands a turn.
        contents, system = [{"role": "user", "parts": system or [{"text": " "}]}], []
    members: Members = {"contents": contents}
    if system:
        members["systemInstruction"] = {"parts": system}
    if chat.tools:
        members["tools"] = [{"functionDeclarations": [_write_tool(tool) for tool in chat.tools]}]
        if chat.tool_choice != "auto":
            members["toolConfig"] = {"functionCallingConfig": _write_tool_choice(chat.tool_choice)}
    for name, value in (
        ("maxOutputTokens", chat.max_tokens),
        ("temperature", chat.temperature),
        ("topP", chat.top_p),
        ("topK", chat.top_k),
    ):
        if value is not None:
            members[name] = value
    if chat.stop:
        members["stopSequences"] = list(chat.stop[:MAX_STOPS])
    if chat.choices > 1 and is_second(model):
        # Newer models refuse to be asked for several answers.
        members["candidateCount"] = chat.choices
    if (chat.answer_schema is not None or chat.wants_json) and _may_ask_for_json(chat, model):
        members["responseMimeType"] = "application/json"
        if chat.answer_schema is not None:
            members["responseJsonSchema"] = _write_schema(chat.answer_schema)
    if chat.reasoning is not None and _thinks(model):
        members["thinkingConfig"] = _write_thinking(chat.reasoning, model)
    return members


def _may_ask_for_json(chat: ChatRequest, model: str) -> bool:
    """Before Gemini 3 a request with functions is refused where it asks for JSON as well."""
    return not (chat.tools and is_second(model))


def _write_tool(tool: Tool) -> Members:
    written: Members = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    if tool.parameters:
        written["parametersJsonSchema"] = clean_schema(tool.parameters)[0]
    return written


def _write_tool_choice(choice: str) -> Members:
    if choice in _MODES:
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}


def _write_schema(asked: AnswerSchema) -> Members:
    schema = clean_schema(asked.schema)[0]
    if asked.description:
        schema.setdefault("description", asked.description)
    return schema


def _thinks(model: str) -> bool:
    return not is_second(model) or model.startswith("gemini-2.5")


def _write_thinking(reasoning: Reasoning, model: str) -> Members:
    """Gemini 2.5 is told a budget, within its model's bounds; from Gemini 3 on one of a few levels."""
    budget = reasoning.budget_tokens
    if budget is None:
        budget = _BUDGETS.get(reasoning.effort, 8192)
    if is_second(model):
        low, high = (128, 32_768) if "-pro" in model else (512, 24_576) if "-lite" in model else (1, 24_576)
        may_be_off = "-pro" not in model
        budget = 0 if may_be_off and budget <= 0 else min(max(budget, low), high)
        return {"thinkingBudget": budget, "includeThoughts": True} if budget else {"thinkingBudget": 0}
    effort: Effort = reasoning.effort or _effort_of(budget)
    level = _LEVELS.get(effort, "HIGH")
    if effort in ("none", "minimal") and _takes_minimal.match(model):
        level = "MINIMAL"
    elif level == "MEDIUM" and _knows_no_medium.match(model):
        level = "HIGH"
    return {"thinkingLevel": level} if effort == "none" else {"thinkingLevel": level, "includeThoughts": True}


def _effort_of(budget: int) -> Effort:
    if budget <= 0:
        return "none"
    return "low" if budget <= 1024 else "medium" if budget <= 8192 else "high"


GENERATE_CONTENT = Dialect(
    name=NAME,
    path="/v1beta/models/{model}:generateContent",
    read_request=read_request,
    write_request=write_request,
    losses=losses,
    read_events=answers.read_events,
    read_answer=answers.read_answer,
    write_events=writing.ContentWriter,
    write_answer=writing.write_answer,
    read_error=read_error,
    write_error=writing.write_error,
    write_error_event=writing.write_error_event,
    scan_events=answers.ContentScan,
    scan_answer=answers.scan_answer,
)
