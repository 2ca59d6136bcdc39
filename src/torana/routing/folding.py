"""Conversations as chat templates take them that refuse a system turn, or two turns of one role in a row."""

from itertools import pairwise

from msgspec.structs import replace

from torana.chat import ChatRequest, Message, Text
from torana.dialects.in_words import tell_in_turn

_BETWEEN = "\n\n"


def fold_system(chat: ChatRequest) -> ChatRequest:
    """The same request without system messages: their text stands at the head of the first user turn.

    Where nobody asks anything, it becomes a user turn of its own, in front. What the system says in later turns stays
    where it is, as a user's.
    """
    in_turn = tell_in_turn(chat)
    messages = [message for message in in_turn.messages if message.role != "system"]
    if len(messages) == len(in_turn.messages):
        return chat if in_turn is chat else replace(in_turn, source=None)
    told = _BETWEEN.join(message.text for message in in_turn.messages if message.role == "system" and message.text)
    if not told:  # such templates refuse a turn in which nothing is said as well
        return replace(chat, messages=tuple(messages), source=None) if messages else chat
    place = next((index for index, message in enumerate(messages) if message.role == "user"), None)
    if place is None:
        return replace(chat, messages=(Message("user", (Text(told),)), *messages), source=None)
    parts = messages[place].parts
    if parts and isinstance(parts[0], Text):
        # One part, not two: such templates take a turn's content as one text.
        parts = (Text(told + _BETWEEN + parts[0].text, cached=parts[0].cached), *parts[1:])
    else:
        parts = (Text(told), *parts)
    messages[place] = Message("user", parts)
    return replace(chat, messages=tuple(messages), source=None)


def has_double_turns(chat: ChatRequest) -> bool:
    return any(one.role == other.role for one, other in pairwise(chat.messages))


def join_turns(chat: ChatRequest) -> ChatRequest:
    """The same request, what one role says in a row as one turn."""
    messages: list[Message] = []
    for message in chat.messages:
        if messages and messages[-1].role == message.role:
            messages[-1] = Message(message.role, messages[-1].parts + message.parts)
        else:
            messages.append(message)
    return replace(chat, messages=tuple(messages), source=None)
