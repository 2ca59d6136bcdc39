"""What a request asks for in words, where a format or a model has no member for it."""

import msgspec

from torana.chat import ChatRequest, Message, Part

GO_ON = "Go on exactly where you stopped, and repeat nothing."
"""Follows a begun answer for models that carry on none."""


def tell_in_turn(chat: ChatRequest) -> ChatRequest:
    """With system messages behind the assistant's first words in a user's turn, where they stand. The request mostly.

    Told ahead of all else, as some formats and most chat templates want it, each new one would change the prompt from
    its beginning, and nothing of it would be found in a provider's cache again; and one behind the last words is what
    is to be answered.
    """
    first = next((at for at, message in enumerate(chat.messages) if message.role == "assistant"), len(chat.messages))
    if all(message.role != "system" for message in chat.messages[first:]):
        return chat
    turns: list[Message] = []
    held: list[Part] = []  # a turn in which the system speaks is told as one: many templates refuse two of one role
    for message in chat.messages[first:]:
        if message.role == "assistant":
            if held:
                turns.append(Message("user", tuple(held)))
                held = []
            turns.append(message)
        elif message.role == "system" or held:
            if not held and turns[-1].role == "user":
                held += turns.pop().parts
            held += message.parts
        else:
            turns.append(message)
    if held:
        turns.append(Message("user", tuple(held)))
    return msgspec.structs.replace(chat, messages=(*chat.messages[:first], *turns))


def ask_for_json(chat: ChatRequest, lost: set[str], *, takes_schema: bool) -> str:
    """The sentence that asks for an answer in JSON; empty where none is wanted, or a member says it.

    takes_schema  the format has a member for the schema
    lost          is told what a sentence cannot promise
    """
    schema = chat.answer_schema
    if schema is not None and not takes_schema:
        if schema.strict:
            lost.add("answer_schema.strict")
        shape = msgspec.json.encode(schema.schema).decode()
        return f"Answer with JSON of this schema, and with nothing else:\n{shape}"
    return "Answer with one JSON object, and with nothing else." if chat.wants_json and schema is None else ""
