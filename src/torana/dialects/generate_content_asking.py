"""The generate content dialect: writing requests. What the format or the model does not take is named in `lost`.

Source: Gemini API reference, "GenerationConfig", "FunctionCallingConfig"; "Thinking"; Vertex AI reference, "Generate
content with the Gemini API".
"""

import re

from torana.chat import AnswerSchema, ChatRequest, Effort, Reasoning, Tool
from torana.dialects.generate_content_parts import is_second
from torana.dialects.generate_content_turns import write_contents, write_system
from torana.dialects.google_schema import clean_schema
from torana.dialects.in_words import GO_ON, tell_in_turn
from torana.dialects.members import Members
from torana.dialects.schemas import Room
from torana.dialects.thoughts import find_budget, find_effort, nearest_effort

MAX_STOPS = 5

LITTLE_TOKENS = 1024
"""An answer that short would be eaten up by thoughts, which count as output and which these models think unasked."""

ANY_BUDGET = -1
"""The model decides how much it thinks."""

_MODES = {"auto": "AUTO", "none": "NONE", "any": "ANY"}

_takes_minimal = re.compile(r"gemini-3(\.[156])?-flash")
_knows_no_medium = re.compile(r"gemini-3-pro")
_carries_nothing_on = re.compile(r"gemini-(3\.5-flash-lite|3\.[6-9]|[4-9])")
"""400 "Requests ending with a model turn are not supported". Source: "Gemini 3.6 Flash developer guide"."""


def write_words(chat: ChatRequest, model: str, lost: set[str]) -> Members:
    """All that our words say, for this model: members of the body, and generationConfig's beside them.

    Raises Invalid for a part that only another dialect can write.
    """
    chat = tell_in_turn(chat)
    contents, system = write_contents(chat.messages, model, lost), write_system(chat.messages, lost)
    if not contents:
        # A conversation in which nobody asks anything: the API demands a turn.
        contents, system = [{"role": "user", "parts": system or [{"text": " "}]}], []
    carries_on = not _carries_nothing_on.match(model) if chat.carries_on is None else chat.carries_on
    last = contents[-1]
    if last["role"] == "model" and not carries_on and not any("functionCall" in part for part in last["parts"]):
        lost.add("begun_answer")
        contents.append({"role": "user", "parts": [{"text": GO_ON}]})
    members: Members = {"contents": contents}
    if system:
        members["systemInstruction"] = {"parts": system}
    room = Room()
    if chat.tools:
        members["tools"] = [{"functionDeclarations": [_write_tool(tool, room, lost) for tool in chat.tools]}]
        if chat.tool_choice != "auto":
            members["toolConfig"] = {"functionCallingConfig": _write_tool_choice(chat.tool_choice)}
        if chat.parallel_tool_calls is False:
            lost.add("parallel_tool_calls")
    for name, value in (
        ("maxOutputTokens", chat.max_tokens),
        ("temperature", chat.temperature),
        ("topP", chat.top_p),
        ("topK", chat.top_k),
    ):
        if value is not None:
            members[name] = value
    if stop := [text for text in chat.stop if text]:  # an empty one is refused, and would end nothing
        members["stopSequences"] = stop[:MAX_STOPS]
        if len(stop) > MAX_STOPS:
            lost.add("stop")
    if chat.choices > 1:
        # Newer models refuse to be asked for several answers.
        if is_second(model):
            members["candidateCount"] = chat.choices
        else:
            lost.add("choices")
    members |= _write_form(chat, model, room, lost)
    reasoning = chat.reasoning
    if reasoning is None and chat.max_tokens is not None and chat.max_tokens <= LITTLE_TOKENS:
        reasoning = Reasoning("none")
    if reasoning is not None and (thinking := _write_thinking(reasoning, chat.max_tokens, model, lost)):
        members["thinkingConfig"] = thinking
    return members


def _write_tool(tool: Tool, room: Room, lost: set[str]) -> Members:
    written: Members = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    if tool.parameters:
        written["parametersJsonSchema"], is_looser = clean_schema(tool.parameters, room)
        if is_looser:
            lost.add("tool.schema")
    if tool.strict:
        lost.add("tool.strict")
    return written


def _write_tool_choice(choice: str) -> Members:
    if choice in _MODES:
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}


def _write_form(chat: ChatRequest, model: str, room: Room, lost: set[str]) -> Members:
    """That the answer is to be JSON."""
    asked = chat.answer_schema
    if asked is None and not chat.wants_json:
        return {}
    if chat.tools and is_second(model):
        # Before Gemini 3 a request with functions is refused where it asks for JSON as well.
        lost.add("wants_json" if asked is None else "answer_schema")
        return {}
    json_form: Members = {"responseMimeType": "application/json"}
    return json_form if asked is None else {**json_form, "responseJsonSchema": _write_schema(asked, room, lost)}


def _write_schema(asked: AnswerSchema, room: Room, lost: set[str]) -> Members:
    schema, is_looser = clean_schema(asked.schema, room)
    if is_looser:
        lost.add("answer_schema.schema")
    if asked.description:
        schema.setdefault("description", asked.description)
    return schema


def _write_thinking(reasoning: Reasoning, max_tokens: int | None, model: str, lost: set[str]) -> Members:
    """Gemini 2.5 is told a budget, within its model's bounds; from Gemini 3 on one of a few levels."""
    effort = find_effort(reasoning)
    if not is_second(model):
        return _write_level(effort, model)
    if not model.startswith("gemini-2.5"):
        if effort != "none":
            lost.add("reasoning")
        return {}
    low, high = (128, 32_768) if "-pro" in model else (512, 24_576) if "-lite" in model else (1, 24_576)
    budget = find_budget(reasoning)
    if budget is None:
        return {"thinkingBudget": ANY_BUDGET, "includeThoughts": True}
    if budget <= 0 and "-pro" not in model:
        return {"thinkingBudget": 0}
    if max_tokens is not None:
        # Thoughts count as output. An answer needs room too, but who named a budget knows what they do.
        budget = min(budget, max_tokens - 1 if reasoning.budget_tokens is not None else max_tokens // 2)
    return {"thinkingBudget": min(max(budget, low), high), "includeThoughts": effort != "none"}


def _write_level(effort: Effort, model: str) -> Members:
    if not effort:
        return {"includeThoughts": True}
    known: tuple[Effort, ...] = ("low", "high") if _knows_no_medium.match(model) else ("low", "medium", "high")
    if _takes_minimal.match(model):
        known = ("minimal", *known)
    return {"thinkingLevel": nearest_effort(effort, known).upper(), "includeThoughts": effort != "none"}
