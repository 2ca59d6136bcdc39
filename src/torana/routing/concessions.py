"""What deployments were seen to refuse, and can be asked without.

A request that ends in the first letters of the answer, as older clients' do with `<new_code>`, is refused by models
that want a user to speak last; one with a system turn by chat templates that know none; one that asks for thinking, as
coding agents do, or tells of earlier thoughts, by models that never think; one that names a temperature by models that
know none, where a deployment's name hides which model it is; one that asks for a longer answer than the model writes,
as Claude Code does of models that it does not know; and one with a member that a server knows by another name, or not
at all. Such a refusal is answered with a request that gives way, and what helped is remembered. A client whose own
bytes pass reads it.
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from torana.chat import ChatRequest
from torana.dialects.thoughts import find_effort, has_thoughts, leave_thoughts_out
from torana.errors import ProviderRefused
from torana.providers.provider import Deployment
from torana.routing.folding import fold_system, has_double_turns, join_turns
from torana.too_long import read_counted

MAX_REMEMBERED = 256
"""Clients name models of their own; who is forgotten is asked anew."""

MAX_CONCESSIONS = 8
"""For one request: a server may find fault with ever less."""

NEARLY_GREEDY = 0.01

LEAST_ROOM = 64
"""Tokens that are worth asking for."""

STATUSES = (400, 422, 500)
"""The last one is older vLLM's for what a chat template refuses."""

_SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True, slots=True)
class Concession:
    name: str
    is_asked: Callable[[ChatRequest], bool]
    refusal: re.Pattern[str]
    without: Callable[[ChatRequest], ChatRequest]
    lost: Callable[[ChatRequest], tuple[str, ...]] | None = None
    """What the client is told that it loses; None: the name."""
    fit: "Callable[[Concession, re.Match[str]], Concession] | None" = None
    """What this refusal alone tells: the same for its deployment. None: it tells no more."""
    lasts: bool = True
    """False: it is of this request alone."""


def _is_to_carry_on(chat: ChatRequest) -> bool:
    return chat.carries_on is not False and chat.is_begun


def _lose_reasoning(chat: ChatRequest) -> tuple[str, ...]:
    """Who asked for none gets it all the same."""
    return ("reasoning",) if chat.reasoning is not None and find_effort(chat.reasoning) != "none" else ()


def _lose_sampling(chat: ChatRequest) -> tuple[str, ...]:
    return tuple(name for name in _SAMPLING if getattr(chat, name) is not None)


def _fit_limit(each: Concession, refusal: re.Match[str]) -> Concession:
    """As many tokens as the refusal allows, for whoever asks for more."""
    told = next(digits for digits in refusal.groups() if digits)
    limit = int(told) - (told == refusal["beyond"])
    return dataclasses.replace(
        each,
        is_asked=lambda chat: (chat.max_tokens or 0) > limit > 0,
        without=lambda chat: replace(chat, max_tokens=limit),
    )


def _fit_room(each: Concession, refusal: re.Match[str]) -> Concession:
    """As many tokens as the prompt leaves of the window."""
    counted = read_counted(refusal.string)
    room = 0 if counted is None else counted.limit - counted.input
    return dataclasses.replace(
        each,
        is_asked=lambda chat: (chat.max_tokens or 0) > room >= LEAST_ROOM,
        without=lambda chat: replace(chat, max_tokens=room),
    )


def _of_member(
    name: str,
    is_asked: Callable[[ChatRequest], bool],
    without: Callable[[ChatRequest], ChatRequest] | None = None,
    *,
    is_lost: Callable[[ChatRequest], bool] = lambda _chat: False,
    also: str = "(?!)",
) -> Concession:
    """A member of OpenAI's formats that a server refuses by its name.

    without  None: the format has another name for it, or nobody misses it
    also     in what other words
    """
    # OpenAI, Azure: "Unsupported parameter: 'max_tokens' is not supported with this model", "Unrecognized request
    # argument supplied: max_completion_tokens". xAI: "Argument not supported on this model: stop", "Model grok-4 does
    # not support parameter stop". LiteLLM: "does not support parameters: ['n']". Groq: "property 'user' is
    # unsupported". Fireworks: "Extra inputs are not permitted, field: 'stream_options'". Pydantic, in many servers:
    # "'extra_forbidden', 'loc': ('body', 'max_completion_tokens')", "stream_options: Extra inputs are not permitted".
    refusal = _read_as(
        rf"\b(unsupported|unrecognized|unknown) (request )?(parameter|argument|field)( supplied)?\W{{1,4}}{name}\b"
        rf"|\bnot supported on this model\W{{1,4}}{name}\b|\bnot support parameters?\b[^.]{{0,60}}\b{name}\b"
        rf"|'{name}' is unsupported|\bnot permitted\W+field\W+{name}\b|\b{name}\W+extra inputs are not permitted"
        rf"|extra_forbidden\W+loc\W+body\W+{name}\b|{also}"
    )
    return Concession(
        f"member {name}",
        lambda chat: is_asked(chat) and name not in chat.untaken,
        refusal,
        without or (lambda chat: replace(chat, untaken=chat.untaken | {name})),
        lambda chat: (name,) if is_lost(chat) else (),
    )


def _read_as(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


CONCESSIONS = (
    # Claude, in every cloud; servers that follow it, or take users and assistants in turns only; Mistral; Gemini.
    Concession(
        "begun_answer",
        _is_to_carry_on,
        _read_as(
            r"prefill|must end with a user|ending with a model turn|expected last role"
            r"|last (message|turn)[^.]{0,40} (must|should|cannot) "
        ),
        lambda chat: replace(chat, carries_on=False),
    ),
    # Templates of Gemma's and Mistral's models; DeepSeek; Perplexity. Anthropic's clients may say two things in a row.
    Concession(
        "double_turns",
        has_double_turns,
        _read_as(r"roles must alternate|\bsuccessive (user|assistant)\b|message\(s\) should alternate"),
        lambda chat: replace(join_turns(chat), source=chat.source),
        lambda _chat: (),
    ),
    # Templates of Gemma's, and of Mistral's older and newer models; the Gemini API of Gemma; OpenAI of o1-mini.
    Concession(
        "system",
        lambda chat: any(message.role == "system" for message in chat.messages),
        _read_as(
            r"system role (is )?not supported|developer instruction is not enabled|conversation roles must alternate"
            r"|only user(, assistant and tool| and assistant) roles are supported|role' does not support 'system'"
        ),
        lambda chat: replace(fold_system(chat), source=chat.source),
        lambda _chat: (),
    ),
    # Ollama: `"llama3.1:8b" does not support thinking`, `think value "low" is not supported for this model`. Groq:
    # "`reasoning_effort` is not supported with this model", "must be one of `none` or `default`". OpenAI, and those who
    # follow: "Unsupported parameter: 'reasoning_effort'", "Unrecognized request argument supplied: reasoning_effort".
    # LiteLLM: "ollama does not support parameters: ['reasoning_effort']". Qwen's template: "Unexpected reasoning effort
    # high". SGLang, Cerebras: "reasoning_effort: Input should be 'low', …". Claude: "thinking.type.enabled".
    Concession(
        "reasoning",
        lambda chat: chat.reasoning is not None,
        _read_as(
            r"\bnot support\b[^.]{0,40}\b(thinking|reasoning)"
            r"|\b(think value|reasoning_effort|reasoning\.effort)\b[^.]{0,20} (is not supported|must be one of)"
            r"|\breasoning_effort\b[^.]{0,40}\binput should be\b|\bthinking(\.type\.\w+)?\W{0,2} is not supported"
            r"|\b(unsupported|unrecognized|unknown|unexpected)\b[^.]{0,40}\breasoning"
            r"|\bnot supported on this model\W{1,4}reasoning|\breasoning_effort\W+extra inputs are not permitted"
            r"|\b(not permitted\W+field|extra_forbidden\W+loc\W+body)\W+reasoning_effort\b"
        ),
        lambda chat: replace(chat, reasoning=None),
        _lose_reasoning,
    ),
    # Groq: "property 'reasoning' is unsupported", "messages[2].reasoning: reasoning is not supported with this model".
    Concession(
        "thought",
        has_thoughts,
        _read_as(r"'reasoning(_content|_details)?' is unsupported|\breasoning is not supported"),
        leave_thoughts_out,
    ),
    # DashScope, of models that think: "This model only support stream mode, please enable the stream parameter",
    # "parameter.enable_thinking must be set to false for non-streaming calls". Who asked for one answer gets one.
    Concession(
        "whole",
        lambda chat: not chat.stream,
        _read_as(r"only supports? stream (mode|call)|must be set to false for non-streaming calls"),
        lambda chat: replace(chat, stream=True),
        lambda _chat: (),
    ),
    # Servers on Hugging Face's transformers, and TGI: "`temperature` (=0.0) has to be a strictly positive float".
    Concession(
        "greedy",
        lambda chat: chat.temperature == 0,
        _read_as(r"\btemperature\b.{0,12} (must be|has to be a) strictly positive"),
        lambda chat: replace(chat, temperature=NEARLY_GREEDY),
        lambda _chat: (),
    ),
    # Claude behind a profile of AWS's: "`temperature` is deprecated for this model". GPT-5 behind a name of Azure's:
    # "Unsupported value: 'temperature' does not support 0.2 with this model".
    Concession(
        "sampling",
        lambda chat: bool(_lose_sampling(chat)),
        _read_as(
            r"\b(temperature|top_p|top_k|topP|topK)\b\W{0,2} (is|are) (deprecated|not supported)"
            r"|\bunsupported (value|parameter)\W{1,4}(temperature|top_p|top_k)\b"
            r"|\bnot supported on this model\W{1,4}(temperature|top_?p|top_?k)\b"
        ),
        lambda chat: replace(chat, temperature=None, top_p=None, top_k=None),
        _lose_sampling,
    ),
    # OpenAI: "max_tokens is too large: 32000. This model supports at most 16384 completion tokens", and in `responses`
    # "Expected a value <= 16384". Claude: "max_tokens: 100000 > 64000, which is the maximum". Bedrock: "exceeds the
    # model limit of 10000". Google: "supported range is from 1 (inclusive) to 8193 (exclusive)". Groq: "must be less
    # than or equal to `8192`". DeepSeek, DashScope: "range of max_tokens is [1, 8192]".
    Concession(
        "max_tokens",
        lambda chat: chat.max_tokens is not None,
        _read_as(
            r"supports at most (\d+) (?:completion|output) tokens|max_output_tokens\b.{0,60} value <= (\d+)"
            r"|max_tokens: \d+ > (\d+), which is the maximum|tokens you requested exceeds the model limit of (\d+)"
            r"|maxOutputTokens\b.{0,80} to (?P<beyond>\d+) \(exclusive\)"
            r"|max_(?:completion_)?tokens\W{0,2} must be less than or equal to \W?(\d+)"
            r"|range of max_tokens (?:is|should be) \[1, ?(\d+)\]"
        ),
        lambda chat: chat,
        fit=_fit_limit,
    ),
    # vLLM, TGI, SGLang and others count the answer that is asked for into the window, which is smaller on a server of
    # one's own than its model's. Clients who know their model are told the numbers instead.
    Concession(
        "room",
        lambda chat: chat.max_tokens is not None and chat.source is None,
        _read_as("tokens"),
        lambda chat: chat,
        fit=_fit_room,
        lasts=False,
    ),
    _of_member("max_tokens", lambda chat: chat.max_tokens is not None and "max_completion_tokens" not in chat.untaken),
    _of_member("max_completion_tokens", lambda chat: chat.max_tokens is not None and "max_tokens" not in chat.untaken),
    _of_member("stream_options", lambda chat: chat.stream),
    _of_member("user", lambda chat: bool(chat.user)),
    _of_member("stop", lambda chat: bool(chat.stop), lambda chat: replace(chat, stop=()), is_lost=lambda _chat: True),
    _of_member(
        "parallel_tool_calls",
        lambda chat: chat.parallel_tool_calls is not None,
        lambda chat: replace(chat, parallel_tool_calls=None),
        is_lost=lambda chat: chat.parallel_tool_calls is False,
    ),
    _of_member(
        "n",
        lambda chat: chat.choices > 1,
        lambda chat: replace(chat, choices=1),
        is_lost=lambda _chat: True,
        also="only one completion choice is allowed",  # llama.cpp
    ),
)


class Concessions:
    """Which deployments refuse what, as far as they were seen to."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, str], Concession] = {}
        """By name and address of the deployment, and name of the concession; the oldest first."""

    def ask(self, deployment: Deployment, chat: ChatRequest) -> ChatRequest:
        """The request, as this deployment takes it as far as is known."""
        for each in self._find(deployment, chat):
            chat = each.without(chat)
        return chat

    def names(self, deployment: Deployment, chat: ChatRequest) -> tuple[str, ...]:
        """What `ask` leaves out."""
        found = self._find(deployment, chat)
        return tuple(name for each in found for name in ((each.name,) if each.lost is None else each.lost(chat)))

    def make(self, asked: ChatRequest, refused: ProviderRefused) -> Concession | None:
        """What may be left out after this refusal; None: it is about something else."""
        if refused.upstream_code not in STATUSES:
            return None
        for each in CONCESSIONS:
            if each.is_asked(asked) and (found := each.refusal.search(str(refused))):
                made = each if each.fit is None else each.fit(each, found)
                if made.is_asked(asked):
                    return made
        return None

    def remember(self, deployment: Deployment, made: Concession) -> None:
        """It helped: a refusal may quote what it refuses, and then its words prove nothing."""
        if not made.lasts:
            return
        self._made[_key(deployment, made)] = made
        if len(self._made) > MAX_REMEMBERED:
            del self._made[next(iter(self._made))]

    def _find(self, deployment: Deployment, chat: ChatRequest) -> tuple[Concession, ...]:
        if not self._made:
            return ()
        made = (self._made.get(_key(deployment, each)) for each in CONCESSIONS)
        return tuple(each for each in made if each is not None and each.is_asked(chat))


def _key(deployment: Deployment, concession: Concession) -> tuple[str, str, str]:
    return deployment.name, deployment.base_url, concession.name
