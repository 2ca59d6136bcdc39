"""What deployments were seen to refuse, and can be asked without.

A request that ends in the first letters of the answer, as older clients' do with `<new_code>`, is refused by models
that want a user to speak last; one that asks for thinking, as coding agents do, or tells of earlier thoughts, by models
that never think. Such a refusal is answered with a request that gives way, and what helped is remembered. A client
whose own bytes pass reads it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from torana.chat import ChatRequest, Message, Thought
from torana.dialects.thoughts import find_effort
from torana.errors import ProviderRefused
from torana.providers.provider import Deployment

MAX_REMEMBERED = 256
"""Clients name models of their own; who is forgotten is asked anew."""

STATUSES = (400, 422)


@dataclass(frozen=True, slots=True)
class Concession:
    name: str
    """As it is told to the client that loses it."""
    is_asked: Callable[[ChatRequest], bool]
    refusal: re.Pattern[str]
    without: Callable[[ChatRequest], ChatRequest]


def _is_to_carry_on(chat: ChatRequest) -> bool:
    return chat.carries_on is not False and chat.is_begun


def _is_to_think(chat: ChatRequest) -> bool:
    return chat.reasoning is not None and find_effort(chat.reasoning) != "none"


def _has_thoughts(chat: ChatRequest) -> bool:
    return any(isinstance(part, Thought) for message in chat.messages for part in message.parts)


def _forget_thoughts(chat: ChatRequest) -> ChatRequest:
    kept: list[Message] = []
    for message in chat.messages:
        parts = tuple(part for part in message.parts if not isinstance(part, Thought))
        if parts or not message.parts:
            kept.append(Message(message.role, parts))
    return replace(chat, messages=tuple(kept))


CONCESSIONS = (
    # Claude, in every cloud; servers that follow its format, or take users and assistants in turns only; Mistral's.
    Concession(
        "begun_answer",
        _is_to_carry_on,
        re.compile(
            r"prefill|must end with a user|last (message|turn)[^.]{0,40} (must|should|cannot) |expected last role",
            re.IGNORECASE,
        ),
        lambda chat: replace(chat, carries_on=False),
    ),
    # Ollama: `"llama3.1:8b" does not support thinking`, `think value "low" is not supported for this model`. Groq:
    # "`reasoning_effort` is not supported with this model", "must be one of `none` or `default`". OpenAI, and those who
    # follow: "Unsupported parameter: 'reasoning_effort'", "Unrecognized request argument supplied: reasoning_effort".
    # LiteLLM: "ollama does not support parameters: ['reasoning_effort']".
    Concession(
        "reasoning",
        _is_to_think,
        re.compile(
            r"\bnot support\b[^.]{0,40}\b(thinking|reasoning)"
            r"|\b(think value|reasoning_effort|reasoning\.effort)\b[^.]{0,20} (is not supported|must be one of)"
            r"|\b(unsupported|unrecognized|unknown)\b[^.]{0,40}\breasoning",
            re.IGNORECASE,
        ),
        lambda chat: replace(chat, reasoning=None),
    ),
    # Groq: "property 'reasoning' is unsupported", "messages[2].reasoning: reasoning is not supported with this model".
    Concession(
        "thought",
        _has_thoughts,
        re.compile(r"'reasoning(_content)?' is unsupported|\breasoning is not supported", re.IGNORECASE),
        _forget_thoughts,
    ),
)


class Concessions:
    """Which deployments refuse what, as far as they were seen to."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, str], None] = {}
        """Name and address of the deployment, and of the concession; the oldest first."""

    def ask(self, deployment: Deployment, chat: ChatRequest) -> ChatRequest:
        """The request, as this deployment takes it as far as is known."""
        for each in self._find(deployment, chat):
            chat = each.without(chat)
        return chat

    def names(self, deployment: Deployment, chat: ChatRequest) -> tuple[str, ...]:
        """What `ask` leaves out."""
        return tuple(each.name for each in self._find(deployment, chat))

    def make(self, asked: ChatRequest, refused: ProviderRefused) -> Concession | None:
        """What may be left out after this refusal; None: it is about something else."""
        if refused.upstream_code not in STATUSES:
            return None
        return next((each for each in CONCESSIONS if each.is_asked(asked) and each.refusal.search(str(refused))), None)

    def remember(self, deployment: Deployment, made: Concession) -> None:
        """It helped: a refusal may quote what it refuses, and then its words prove nothing."""
        self._made[_key(deployment, made)] = None
        if len(self._made) > MAX_REMEMBERED:
            del self._made[next(iter(self._made))]

    def _find(self, deployment: Deployment, chat: ChatRequest) -> tuple[Concession, ...]:
        if not self._made:
            return ()
        return tuple(each for each in CONCESSIONS if _key(deployment, each) in self._made and each.is_asked(chat))


def _key(deployment: Deployment, concession: Concession) -> tuple[str, str, str]:
    return deployment.name, deployment.base_url, concession.name
