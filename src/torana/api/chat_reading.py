"""The body of `POST /v2/chat/agent`, read into a StepOrder (contract 7.1).

Lenient where a wrong guess does no harm: kinds of pages and categories of attachments may be new ones
(a category needs its unit primitive all the same). Strict about roles: they decide who said what.
"""

from dataclasses import replace
from typing import Any, cast

import msgspec

from torana.agents.step import Attachment, OpenFile, Page, PastStep, StepOrder, Turn
from torana.api import reading
from torana.api.metadata import read_model_metadata
from torana.chat import ModelWish, Role
from torana.errors import Invalid, Refusal
from torana.settings import ProviderSettings

Members = dict[str, Any]

CHAT_ROLE = "chat_default"
CATEGORY_CHARS = 100
"""Bound of ours: the category is echoed in the text of a 403."""


def read_order(body: bytes, settings: ProviderSettings) -> StepOrder:
    """The order without what only headers tell: its tools and its user are empty.

    Raises Invalid for a member that is not what it should be, Refusal 400 for a scratchpad on a turn
    that is not the assistant's.
    """
    members = reading.read_object(body)
    is_first_form = members.get("messages") is None and _is_told(members.get("prompt"))
    rows = [] if is_first_form else reading.items(members, "messages", at_least=1, required=True)
    scratchpad = reading.mapping(reading.mapping(members, "options"), "agent_scratchpad", ("options",))
    wish = read_model_metadata(members.get("model_metadata"), settings) or ModelWish(feature_setting="duo_chat")
    return StepOrder(
        turns=_read_first_form(members) if is_first_form else _read_turns(rows, ("messages",)),
        steps=_read_flat_steps(scratchpad, ("options", "agent_scratchpad")),
        unavailable_resources=_read_texts(members, "unavailable_resources"),
        wish=wish if wish.is_own else msgspec.structs.replace(wish, role=CHAT_ROLE),
        is_first_form=is_first_form,
    )


def _is_told(text: Any) -> bool:
    return isinstance(text, str) and bool(text)


def _read_first_form(members: Members) -> tuple[Turn, ...]:
    """`{prompt, options: {chat_history, context, …}}`, as GitLab 17.3 to 17.5 sends what became `messages`.

    The history is a list of turns, or text.
    """
    options = reading.mapping(members, "options")
    told = options.get("chat_history")
    texts = told if isinstance(told, list) else [told]
    question = {**options, "role": "user", "content": members["prompt"], "agent_scratchpad": None}
    if any(isinstance(row, dict) for row in texts):
        earlier = _read_turns(texts, ("options", "chat_history"))
    else:
        earlier = tuple(Turn(role="user", text=str(text)) for text in texts if _is_told(text))
    return (*earlier, _read_turn(question, ("options",)))


def _read_turns(rows: list[Any], loc: reading.Loc) -> tuple[Turn, ...]:
    return tuple(_read_turn(reading.as_object(row, (*loc, i)), (*loc, i)) for i, row in enumerate(rows))


def _read_turn(members: Members, loc: reading.Loc) -> Turn:
    role = cast(Role, reading.choice(members, "role", ("system", "user", "assistant"), loc, required=True))
    steps = _read_nested_steps(members, loc)
    if steps and role != "assistant":
        text = "agent_scratchpad is only allowed on assistant messages"
        raise Refusal(400, "scratchpad_misplaced", text, layer="client")
    return Turn(
        role=role,
        text=reading.text(members, "content", loc),
        page=_read_page(members, loc),
        file=_read_file(reading.mapping(members, "current_file", loc), (*loc, "current_file")),
        attachments=_read_attachments(members, loc),
        steps=steps,
    )


def _read_page(members: Members, loc: reading.Loc) -> Page | None:
    """From `context`; `resource_content` is the older place of the page's content."""
    content = reading.text(members, "resource_content", loc)
    context = reading.mapping(members, "context", loc)
    if not context:
        return Page(kind="page", content=content) if content else None
    inner = (*loc, "context")
    page = Page(
        kind=reading.text(context, "type", inner, required=True),
        title=reading.text(context, "title", inner),
        content=reading.text(context, "content", inner),
    )
    return page if page.content else replace(page, content=content)


def _read_file(members: Members, loc: reading.Loc) -> OpenFile | None:
    if not members:
        return None
    return OpenFile(
        path=reading.text(members, "file_path", loc),
        text=reading.text(members, "data", loc),
        is_selection=reading.boolean(members, "selected_code", loc),
    )


def _read_attachments(members: Members, loc: reading.Loc) -> tuple[Attachment, ...]:
    rows = reading.items(members, "additional_context", loc)
    inner = (*loc, "additional_context")
    return tuple(_read_attachment(reading.as_object(row, (*inner, i)), (*inner, i)) for i, row in enumerate(rows))


def _read_attachment(members: Members, loc: reading.Loc) -> Attachment:
    # Callers of the instance's API may put anything there, such as the JSON text of an object.
    metadata = members.get("metadata")
    title = metadata.get("title") if isinstance(metadata, dict) else None
    return Attachment(
        category=reading.text(members, "category", loc, limit=CATEGORY_CHARS, required=True),
        id=reading.text(members, "id", loc),
        title=title if isinstance(title, str) else "",
        text=reading.text(members, "content", loc),
    )


def _read_nested_steps(members: Members, loc: reading.Loc) -> tuple[PastStep, ...]:
    """`[{action: {thought, tool, tool_input} | null, observation}]`, as newer clients send it."""
    steps = []
    for i, row in enumerate(reading.items(members, "agent_scratchpad", loc)):
        inner = (*loc, "agent_scratchpad", i)
        step = reading.as_object(row, inner)
        action = reading.mapping(step, "action", inner)
        steps.append(_read_step(action, (*inner, "action"), reading.text(step, "observation", inner)))
    return tuple(steps)


def _read_flat_steps(scratchpad: Members, loc: reading.Loc) -> tuple[PastStep, ...]:
    """`{agent_type, steps: [{thought, tool, tool_input, observation}]}`, as older clients send it."""
    steps = []
    for i, row in enumerate(reading.items(scratchpad, "steps", loc)):
        inner = (*loc, "steps", i)
        step = reading.as_object(row, inner)
        steps.append(_read_step(step, inner, reading.text(step, "observation", inner)))
    return tuple(steps)


def _read_step(members: Members, loc: reading.Loc, observation: str) -> PastStep:
    return PastStep(
        thought=reading.text(members, "thought", loc),
        tool=reading.text(members, "tool", loc),
        tool_input=reading.text(members, "tool_input", loc),
        observation=observation,
    )


def _read_texts(members: Members, name: str) -> tuple[str, ...]:
    texts = reading.items(members, name)
    for i, value in enumerate(texts):
        if not isinstance(value, str):
            raise Invalid((name, i), "Input should be a valid string", "string_type")
    return tuple(texts)
