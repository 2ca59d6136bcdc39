"""Messages that end in an answer that has begun, for models that refuse to carry one on.

A client's own messages go out as they are. Those that older clients send end in the first letters of the answer, as
`<new_code>`, and newer models want a user to speak last: such a refusal is answered once, with the request to go on,
and remembered.
"""

import re

from msgspec.structs import replace

from torana.chat import ChatRequest
from torana.errors import ProviderRefused
from torana.providers.provider import Deployment

MAX_MODELS = 256
"""Clients name models of their own; who is forgotten is asked anew."""

_refusal = re.compile(
    r"prefill|must end with a user|last (message|turn)[^.]{0,40} (must|should|cannot) ", re.IGNORECASE
)
"""Claude, in every cloud; servers that follow its format, or take users and assistants in turns only."""


class BegunAnswers:
    """Which deployments carry no begun answer on, as far as they were seen to refuse one."""

    def __init__(self) -> None:
        self._refused: dict[str, None] = {}
        """By name, the oldest first."""

    def ask(self, deployment: Deployment, chat: ChatRequest) -> ChatRequest:
        """The request, as this deployment takes it as far as is known."""
        is_known = chat.carries_on and _key(deployment) in self._refused
        return replace(chat, carries_on=False) if is_known else chat

    def ask_again(self, deployment: Deployment, asked: ChatRequest, refused: ProviderRefused) -> ChatRequest | None:
        """What to send in place of a request that was refused for its begun answer; None: that is not why."""
        is_begun = bool(asked.messages) and asked.messages[-1].role == "assistant"
        if not (asked.carries_on and is_begun and refused.upstream_code == 400 and _refusal.search(str(refused))):
            return None
        self._refused[_key(deployment)] = None
        if len(self._refused) > MAX_MODELS:
            del self._refused[next(iter(self._refused))]
        return replace(asked, carries_on=False)


def _key(deployment: Deployment) -> str:
    return f"{deployment.name} {deployment.base_url}"
