"""Which part of a prompt stays the same from call to call, so that a provider may keep it in its cache."""

from msgspec.structs import replace

from torana.chat import ChatRequest, Message, Text


def mark(messages: list[Message], place: int) -> list[Message]:
    """The messages with a mark at the end of the one at `place`; all before it must be as constant as it is."""
    parts = messages[place].parts
    if not parts or not isinstance(last := parts[-1], Text):
        return messages
    marked = Message(messages[place].role, (*parts[:-1], replace(last, cached=True)))
    return [*messages[:place], marked, *messages[place + 1 :]]


def mark_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A client's own messages, with a mark behind the system texts that they begin with."""
    ends = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    return tuple(mark(list(messages), ends - 1)) if ends else messages


def unmark(chat: ChatRequest) -> ChatRequest:
    """The request without any mark of ours: those that want none keep their prompts to themselves."""
    return replace(chat, messages=tuple(map(_unmark, chat.messages)))


def _unmark(message: Message) -> Message:
    parts = tuple(replace(part, cached=False) if isinstance(part, Text) else part for part in message.parts)
    return Message(message.role, parts)
