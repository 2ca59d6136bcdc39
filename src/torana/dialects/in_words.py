"""What a request asks for in words, where a format or a model has no member for it."""

import msgspec

from torana.chat import ChatRequest, Message

GO_ON = "Go on exactly where you stopped, and repeat nothing."
"""Follows a begun answer for models that carry on none."""


def ask_in_turn(chat: ChatRequest) -> ChatRequest:
    """With system messages behind the assistant's last words as a user's: they are what is to be answered, and told
    ahead of all else they would leave the model to carry its own last answer on. The request itself mostly."""
    at = len(chat.messages)
    while at and chat.messages[at - 1].role == "system":
        at -= 1
    if not 0 < at < len(chat.messages) or chat.messages[at - 1].role != "assistant":
        return chat
    asked = (Message("user", message.parts) for message in chat.messages[at:])
    return msgspec.structs.replace(chat, messages=(*chat.messages[:at], *asked))


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
