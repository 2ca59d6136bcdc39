"""Chat completions and text completions as one vendor takes them: what its row says of its quirks, made good.

Words that it does not take are left out and named as lost; members that it calls otherwise get its own names.
"""

import dataclasses
import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from torana.catalog.model_records import Quirks
from torana.chat import ChatRequest, Message, Part, Reasoning, Text, Thought, Tool, ToolCall, ToolResult
from torana.dialects import chat_completions, text_completions
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect, WriteRequest
from torana.dialects.in_words import GO_ON, ask_for_json
from torana.dialects.members import Members, said_in, tell
from torana.dialects.openai_models import traits_of
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.dialects.thoughts import find_effort

_mistrals = re.compile("stral|[mp]ixtral")
"""Mistral, Codestral, Devstral, Ministral, Magistral, Mixtral, Pixtral, whoever made of them what this server runs."""

_thinking_mistrals = re.compile(r"mistral-(?:small-(?:latest|4|2603)|medium-(?:3[.-]5|2604))(?![0-9])")

BETWEEN = "I have the results."
"""Said for the assistant where a user may not speak right behind results of tools."""

MISTRALS_ID_CHARS = 9
"""mistral-common, "Tool call id … must be a-z, A-Z, 0-9, with a length of 9"; and the templates of its models."""

_SAME = frozenset({"", "auto", "none"})

_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


@lru_cache(maxsize=64)
def chat_completions_of(quirks: Quirks) -> Dialect:
    """The dialect as a vendor with these quirks takes it."""

    def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
        every = _quirks_with(quirks, model)
        fitted = fit_words(_fit_thinking(chat, quirks, model, set()), every, set())
        members = chat_completions.write_members(fitted, model, stream=stream)
        return msgspec.json.encode(fit_members(members, fitted, every))

    def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
        lost: set[str] = set()
        fitted = fit_words(_fit_thinking(chat, quirks, model, lost), _quirks_with(quirks, model), lost)
        lost.update(CHAT_COMPLETIONS.losses(fitted, model))
        return tell(lost - {"top_k"} if quirks.top_k else lost)

    return _mannered(CHAT_COMPLETIONS, quirks, write_request, losses)


def _quirks_with(quirks: Quirks, model: str) -> Quirks:
    """Mistral's models bring two of its quirks to every server, in the checks that come with their chat templates, and
    gpt-oss knows no way not to think."""
    if quirks.reasoning == "high" and not _thinking_mistrals.search(model):
        quirks = replace(quirks, reasoning="none")
    if quirks.no_effort and "gpt-oss" in model:
        return replace(quirks, no_effort=False)
    if not _mistrals.search(model.lower()):
        return quirks
    return replace(quirks, call_id_chars=MISTRALS_ID_CHARS, user_behind_results=False)


def wants_responses(chat: ChatRequest, quirks: Quirks, model: str) -> bool:
    """True where chat completions takes the request's tools only from a model that does not think."""
    if quirks.thinks_with_tools or not chat.tools:
        return False
    effort = "" if chat.reasoning is None else find_effort(chat.reasoning)
    traits = traits_of(model)
    if traits.tools_bar_thought == "unless_kept":
        return effort != "none" or "none" not in traits.efforts
    return traits.tools_bar_thought == "asked" and effort not in ("", "none")


def _fit_thinking(chat: ChatRequest, quirks: Quirks, model: str, lost: set[str]) -> ChatRequest:
    if not wants_responses(chat, quirks, model):
        return chat
    if chat.reasoning is not None:
        lost.add("reasoning")
    return replace(chat, reasoning=Reasoning("none"))


@lru_cache(maxsize=64)
def text_completions_of(quirks: Quirks) -> Dialect:
    """The dialect as a vendor with these quirks takes it."""

    def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
        cursor = _fit_cursor(chat) if quirks.suffix else chat
        fitted = replace(cursor, user=chat.user if quirks.user else "", reasoning=None)
        members = text_completions.write_members(fitted, model, stream=stream)
        return msgspec.json.encode(fit_members(members, fitted, quirks))

    def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
        lost = set(TEXT_COMPLETIONS.losses(_fit_cursor(chat) if quirks.suffix else chat, model))
        return tell(lost - {"top_k"} if quirks.top_k else lost)

    return _mannered(TEXT_COMPLETIONS, quirks, write_request, losses)


def _mannered(
    dialect: Dialect,
    quirks: Quirks,
    write_request: WriteRequest,
    losses: Callable[[ChatRequest, str], tuple[str, ...]],
) -> Dialect:
    is_chat = dialect is CHAT_COMPLETIONS
    read_open = chat_completions.read_open_events if is_chat else text_completions.read_open_events
    takes_all = quirks.extras and quirks.usage_option and quirks.user and quirks.answer_schema
    return dataclasses.replace(
        dialect,
        write_request=write_request,
        losses=losses,
        read_events=dialect.read_events if quirks.done else read_open,
        tells_usage_when_asked=quirks.usage_option,
        passes_on=takes_all
        and quirks.done
        and not quirks.call_id_chars
        and quirks.user_behind_results
        and quirks.forced_tool == "required",
    )


def fit_words(chat: ChatRequest, quirks: Quirks, lost: set[str]) -> ChatRequest:
    """The request without what the vendor refuses."""
    changed: dict[str, Any] = {}
    if chat.user and not quirks.user:
        changed["user"] = ""
    if chat.tools:
        changed |= _fit_tools(chat, quirks, lost)
    if chat.answer_schema is not None and not quirks.answer_schema:
        asked = Message("system", (Text(ask_for_json(chat, lost, takes_schema=False)),))
        head = next((at for at, each in enumerate(chat.messages) if each.role != "system"), len(chat.messages))
        messages = (*chat.messages[:head], asked, *chat.messages[head:])
        changed |= {"answer_schema": None, "wants_json": True, "messages": messages}
    is_to_think = chat.reasoning is not None and find_effort(chat.reasoning) != "none"
    if chat.reasoning is not None and quirks.reasoning == "none":
        changed["reasoning"] = None
    elif quirks.reasoning == "thinking" and not _has_own_switch(chat) and _is_forced(chat, changed):
        # DeepSeek thinks unasked, and refuses to be forced while it does.
        changed["reasoning"] = Reasoning("none")
    if is_to_think and "reasoning" in changed:
        lost.add("reasoning")
    if chat.carries_on is False and chat.is_begun:
        changed["messages"] = (*changed.get("messages", chat.messages), Message("user", (Text(GO_ON),)))
    if quirks.thoughts == "none" or quirks.call_id_chars:
        messages = changed.get("messages", chat.messages)
        fitted = ((message, _fit_message(message, quirks, lost)) for message in messages)
        # A turn of nothing but a thought would be one without content.
        changed["messages"] = tuple(each for message, each in fitted if each.parts or not message.parts)
    return replace(chat, **changed) if changed else chat


def _has_own_switch(chat: ChatRequest) -> bool:
    """Whether the request says itself, in this format, if the model is to think."""
    return said_in(chat, CHAT_COMPLETIONS.name).get("thinking", UNSET) is not UNSET


def _is_forced(chat: ChatRequest, changed: dict[str, Any]) -> bool:
    return bool(chat.tools) and changed.get("tool_choice", chat.tool_choice) not in _SAME


def _fit_tools(chat: ChatRequest, quirks: Quirks, lost: set[str]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if chat.parallel_tool_calls is not None and not quirks.parallel_tools:
        changed["parallel_tool_calls"] = None
        if not chat.parallel_tool_calls:
            lost.add("parallel_tool_calls")
    if not quirks.strict_tools and any(tool.strict is not None for tool in chat.tools):
        changed["tools"] = tuple(replace(tool, strict=None) for tool in chat.tools)
        if any(tool.strict for tool in chat.tools):
            lost.add("tool.strict")
    if chat.tool_choice in _SAME:
        return changed
    if quirks.forced_tool == "never":
        lost.add("tool_choice")
        return {**changed, "tool_choice": "auto"}
    if chat.tool_choice != "any" and not quirks.named_tool:
        # One tool alone, and it must be called: that says the same.
        tools: tuple[Tool, ...] = changed.get("tools", chat.tools)
        only = tuple(tool for tool in tools if tool.name == chat.tool_choice)
        return {**changed, "tools": only or tools, "tool_choice": "any"}
    return changed


def _fit_message(message: Message, quirks: Quirks, lost: set[str]) -> Message:
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Thought) and quirks.thoughts == "none":
            lost.add("thought")
        elif isinstance(part, ToolCall) and quirks.call_id_chars:
            parts.append(replace(part, id=_legal_id(part.id, quirks.call_id_chars)))
        elif isinstance(part, ToolResult) and quirks.call_id_chars:
            parts.append(replace(part, call_id=_legal_id(part.call_id, quirks.call_id_chars)))
        else:
            parts.append(part)
    return Message(message.role, tuple(parts))


def _legal_id(call_id: str, chars: int) -> str:
    """So many letters and digits, the same for a call and its result."""
    if len(call_id) == chars and call_id.isascii() and call_id.isalnum():
        return call_id
    return sha256(call_id.encode()).hexdigest()[:chars]


def _fit_cursor(chat: ChatRequest) -> ChatRequest:
    """The code around the cursor in two members of the request, instead of between markers."""
    if chat.fill_in is None:
        return chat
    above = f"{chat.fill_in.context}\n{chat.fill_in.prefix}" if chat.fill_in.context else chat.fill_in.prefix
    return replace(chat, fill_in=replace(chat.fill_in, prefix=above, context="", marked_prompt=""))


def fit_members(members: Members, chat: ChatRequest, quirks: Quirks) -> Members:
    """The body with the vendor's own names; its messages, which may be the client's own, are left as they are."""
    if quirks.limit is not None:
        for name in {"max_tokens", "max_completion_tokens"} - {quirks.limit}:
            if name in members:
                members.setdefault(quirks.limit, members.pop(name))
    if not quirks.usage_option:
        members.pop("stream_options", None)
    if not quirks.extras:
        for name in chat_completions.HARMLESS:
            members.pop(name, None)
    if quirks.top_k and chat.top_k is not None:
        members["top_k"] = chat.top_k
    if members.get("tool_choice") == "required":
        members["tool_choice"] = quirks.forced_tool
    if chat.reasoning is not None:
        _name_effort(members, find_effort(chat.reasoning), quirks)
    if quirks.seed != "seed" and "seed" in members:
        members[quirks.seed] = members.pop("seed")
    if quirks.begun_answer == "prefix" and members.get("messages"):
        *rows, last = members["messages"]
        if last.get("role") == "assistant" and not last.get("tool_calls"):
            members["messages"] = [*rows, {**last, "prefix": last.get("prefix", True)}]
    if not quirks.user_behind_results and "messages" in members:
        members["messages"] = _part_results(members["messages"])
    if quirks.thoughts == "reasoning" and "messages" in members:
        members["messages"] = [_name_thought(row) for row in members["messages"]]
    for name in chat.untaken & members.keys():
        value = members.pop(name)
        if other := _OTHER_NAMES.get(name):
            members[other] = value
    return members


def _name_thought(row: Members) -> Members:
    if "reasoning_content" not in row:
        return row
    return {"reasoning" if name == "reasoning_content" else name: value for name, value in row.items()}


def _name_effort(members: Members, effort: str, quirks: Quirks) -> None:
    """How much the model is to think, in the vendor's members for it."""
    if quirks.reasoning == "thinking":
        members.pop("reasoning_effort", None)
        members["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
        if effort not in ("", "none"):
            members["reasoning_effort"] = effort
    if quirks.reasoning == "high":
        members["reasoning_effort"] = "none" if effort == "none" else "high"
    if quirks.no_effort and effort == "none" and "reasoning_effort" in members:
        members["reasoning_effort"] = "none"


def _part_results(rows: list[Members]) -> list[Members]:
    """With a word of the assistant's between results of tools and what a user says then."""
    parted: list[Members] = []
    for row in rows:
        if row.get("role") == "user" and parted and parted[-1].get("role") == "tool":
            parted.append({"role": "assistant", "content": BETWEEN})
        parted.append(row)
    return parted
