"""The generate content dialect: reading requests, and the record of all its functions.

Source: Gemini API reference, "generateContent"; Vertex AI reference, "Generate content with the Gemini API".

The model's name and whether the answer streams stand in the path, not in the body.
"""

from dataclasses import replace
from functools import partial

import msgspec

from torana.chat import AnswerSchema, ChatRequest, Reasoning, Tool
from torana.dialects import drafts
from torana.dialects import generate_content_answers as answers
from torana.dialects import generate_content_writing as writing
from torana.dialects.bodies import decode_request
from torana.dialects.dialect import Dialect
from torana.dialects.freeform import lost_grammars
from torana.dialects.generate_content_answers import NAME
from torana.dialects.generate_content_asking import write_words
from torana.dialects.generate_content_errors import read_error
from torana.dialects.generate_content_parts import find_member, read_contents, read_system
from torana.dialects.google_schema import lower_types
from torana.dialects.members import (
    Loc,
    Members,
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
from torana.dialects.thoughts import read_effort

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


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of models.generateContent; raises Invalid. The model is empty unless the body names it after all."""
    told = decode_request(body)
    members = _flatten(told)
    chat = _read_words(members)
    model = find_text(told, "model").removeprefix("models/")
    return keep_extra(chat, NAME, members, lambda: write_words(chat, model, set()), _SPOKEN | _HARMLESS), model


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`, the same whether or not it is to stream.

    Raises Invalid for a part that only another dialect can write.
    """
    return msgspec.json.encode(_write_body(chat, model))


def write_vertex_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """As `write_request`, for Vertex AI: its v1 has no ids of calls, and refuses members that it does not know."""
    body = _write_body(chat, model)
    return msgspec.json.encode({**body, "contents": [_without_ids(content) for content in body["contents"]]})


def _write_body(chat: ChatRequest, model: str) -> Members:
    written = drafts.finish(chat, NAME, model, partial(write_words, chat, model))
    return _nest(with_extra(chat, NAME, written, _read_words, _SPOKEN, stream=False))


def _without_ids(content: Members) -> Members:
    parts = [
        {
            name: {key: each for key, each in value.items() if key != "id"}
            if name in ("functionCall", "functionResponse") and isinstance(value, dict)
            else value
            for name, value in part.items()
        }
        for part in content["parts"]
    ]
    return {**content, "parts": parts}


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    lost = unspoken_elsewhere(chat, NAME) | lost_grammars(chat)
    drafts.weigh(chat, NAME, model, partial(write_words, chat, model), lost)
    return tell(lost)


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
    if isinstance(level, str) and (effort := read_effort(level.lower())):
        is_least = effort in ("minimal", "low") and config.get("includeThoughts") is False
        # No level says "not at all"; this is how we write it.
        return Reasoning("none" if is_least else effort)
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        return Reasoning("", budget) if budget else Reasoning("none")
    return Reasoning() if config.get("includeThoughts") is True else None


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

VERTEX_CONTENT = replace(GENERATE_CONTENT, write_request=write_vertex_request)
