"""What a client's request was written as to see what gets lost on the way.

Mostly that is what is sent a moment later, and writing it takes longer than all else that is done with it. A draft
knows its request, which knows the draft: whoever weighs a request clears `chat.source.drafts` when it was sent.
"""

from collections.abc import Callable

from torana.chat import ChatRequest, Draft
from torana.dialects.members import Members

Write = Callable[[set[str]], Members]
"""(the names of what is left out, to be added to) → the members; raises Invalid."""


def weigh(chat: ChatRequest, dialect: str, model: str, write: Write, lost: set[str]) -> None:
    """Adds to `lost` what writing leaves out, and keeps what was written; of several, the first: it is tried first."""
    members = write(lost)
    if chat.source is not None and not chat.source.drafts:
        chat.source.drafts.append(Draft(chat, dialect, model, members))


def finish(chat: ChatRequest, dialect: str, model: str, write: Write) -> Members:
    """The members, which the caller may change: they are nobody else's any more."""
    drafts = [] if chat.source is None else chat.source.drafts
    if drafts and drafts[0].chat is chat and (drafts[0].dialect, drafts[0].model) == (dialect, model):
        return drafts.pop().members
    return write(set())
