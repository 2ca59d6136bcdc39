"""Marks for a prompt cache, where the client's vendor keeps prompts unasked, and the model only what is marked."""

from msgspec.structs import replace

from torana.chat import ChatRequest, Document, Image, Message, Part, Text, ToolResult


def mark_conversation(chat: ChatRequest) -> ChatRequest:
    """With marks behind the system text, and behind what was said to the model last and the time before.

    Without them each turn of an agent is billed for its whole conversation. To keep a prompt costs a quarter more, so
    what may not go on is left alone. The mark of the time before is where the cache was written then: Claude looks back
    for that over 20 blocks alone.
    """
    if not chat.wants_cache or not _goes_on(chat) or _is_marked(chat):
        return chat
    messages = list(chat.messages)
    for place in _places(messages):
        messages[place] = _mark(messages[place])
    return replace(chat, messages=tuple(messages))


def _goes_on(chat: ChatRequest) -> bool:
    """An agent's: it has tools to choose from, or is past its first call."""
    is_under_way = chat.tool_choice == "auto" or any(message.role == "assistant" for message in chat.messages)
    return bool(chat.tools) and is_under_way


def _is_marked(chat: ChatRequest) -> bool:
    parts = (part for message in chat.messages for part in message.parts)
    return any(getattr(part, "cached", False) for part in parts) or any(tool.cached for tool in chat.tools)


def _places(messages: list[Message]) -> list[int]:
    """Of the last system message, and of the last two turns of a user's."""
    system = [at for at, message in enumerate(messages) if message.role == "system"][-1:]
    turns: list[int] = []
    is_new = True  # what a user says in a row is one turn
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "user" and is_new:
            turns.append(at)
        if messages[at].role != "system":
            is_new = messages[at].role == "assistant"
        if len(turns) == 2:
            break
    return system + turns


def _mark(message: Message) -> Message:
    """Its last part that is written, marked: results of tools stand ahead of what else is said."""
    parts = list(message.parts)
    said = [at for at, part in enumerate(parts) if _is_said(part)]
    results = [at for at, part in enumerate(parts) if isinstance(part, ToolResult)]
    for at in (said or results)[-1:]:
        parts[at] = replace(parts[at], cached=True)
    return Message(message.role, tuple(parts))


def _is_said(part: Part) -> bool:
    return isinstance(part, (Image, Document)) or (isinstance(part, Text) and bool(part.text.strip()))
