"""What all formats of OpenAI's style share: errors, usage, reasons to finish. Source: OpenAI API reference."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from torana.chat import Chunk, FinishReason, Tool, Usage
from torana.dialects.bodies import decode_answer, plain_text
from torana.dialects.members import Members, finite, read_tiers, read_tokens, suspect
from torana.errors import (
    FLAGGED,
    MISCALLED,
    SPENT_KINDS,
    ProviderBroke,
    ProviderGaveUp,
    ProviderRefused,
    provider_refused,
)

MAX_MESSAGE_CHARS = 300
"""Of a provider's error, for the log."""

MAX_PARTS = 10_000
"""Choices of a streamed answer, and calls of all its choices."""

DONE = b"[DONE]"
"""Data of the terminal event of both completions formats."""

REASONS = (b'"finish_reason":"', b'"finish_reason": "')
"""What marks the event of a completions format that tells why the answer ended; all others have a null there."""

FINISHES: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "model_length": "length",  # Mistral's for a full context window
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    # TGI's, and those of Bedrock where a gateway leaves them as they are
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
}
FINISH_NAMES: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "stop_sequence": "stop",
    "content_filter": "content_filter",
    "other": "stop",
}
_BAD_KEY_TEXTS = ("API key not valid", "Incorrect API key provided")
"""Of Google's server of this format and of xAI's, which tell it with 400, unlike every other vendor's."""
_SAID_BEHIND = "Provider returned error"
_FLAGGED_TEXT = "Content violates usage guidelines"
"""Of xAI, which tells it with 403: "Failed check: SAFETY_CHECK_TYPE_…"."""
_ERROR_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ERROR_STATUS = {
    "invalid_request_error": 400,
    "BadRequestError": 400,  # vLLM
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "credit_balance_exhausted": 429,
    "organization_spend_limit_exceeded": 429,
    "project_spend_limit_exceeded": 429,
    "organization_usage_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
    "overloaded_error": 529,
    # Of failed responses
    "invalid_prompt": 400,
    "server_is_overloaded": 529,
    "slow_down": 529,
}
_status = re.compile(r"[45]\d\d(?= [A-Z])")
_OF_AN_IMAGE = "image"
"""In a code of a failed response: `invalid_image_url`, `image_too_large` …, all the request's own fault."""


class Error(msgspec.Struct):
    """Servers write each member in several shapes; one that is odd spoils no other."""

    message: Any = None
    type: Any = None
    code: Any = None
    """The kind in detail, or the status: as a number, of LiteLLM as its digits."""
    metadata: Any = None
    """Of OpenRouter, where the provider behind it, or a moderation, said no."""

    @property
    def is_flagged(self) -> bool:
        is_moderated = isinstance(self.metadata, dict) and bool(self.metadata.get("reasons"))
        return is_moderated or str(self.message).startswith(_FLAGGED_TEXT)

    @property
    def kind(self) -> str:
        """The code where there is one: `context_length_exceeded` says more than `invalid_request_error`."""
        general = self.type if isinstance(self.type, str) else ""
        if general in SPENT_KINDS or not isinstance(self.code, str) or self.status:
            return general
        return self.code

    @property
    def status(self) -> int | None:
        digits = str(self.code) if isinstance(self.code, (int, str)) else ""
        status = int(digits) if len(digits) == 3 and digits.isdecimal() else 0
        return status if 400 <= status <= 599 else None


class Failure(msgspec.Struct):
    """An error body, as OpenAI and the servers that follow it write theirs: some without an `error` around it."""

    error: Any = None
    message: Any = None
    """A text; of Mistral also an object that names the members it refuses."""
    detail: Any = None
    type: Any = None
    code: Any = None
    object: Any = None
    """`error` where there is no `error` around it."""
    success: Any = None
    """False of Z.ai, whose status is 200 then, and of Cloudflare."""
    msg: Any = None
    """Z.ai's text, which may begin with the status: "404 NOT_FOUND"."""
    errors: Any = None
    """Of watsonx and of Cloudflare: a list of them."""


class _Relayed(msgspec.Struct):
    usage: Any = None
    service_tier: Any = None


_failures = msgspec.json.Decoder(Failure | list[Failure], float_hook=finite)
_relayed = msgspec.json.Decoder(_Relayed, float_hook=finite)


_UsageNames = tuple[str, str, str, str]
"""Of the input's tokens, the output's, and what is told of each."""
_COMPLETIONS = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_RESPONSES = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")


def read_usage(said: Any, before: Usage | None = None, tier: Any = None) -> Usage | None:
    """Usage of the completions and embeddings formats, after the provider said `said`, and `service_tier` beside it.

    Counts are cumulative and the last report wins. One with an impossible number is suspect: what
    was known before it stands, and is marked. Of one that does not tell the output, or tells it without the thoughts,
    the total does.
    """
    return _read_usage(said, _COMPLETIONS, before, tier)


def read_responses_usage(said: Any, before: Usage | None = None, tier: Any = None) -> Usage | None:
    """Usage of the responses format: the same numbers under other names."""
    return _read_usage(said, _RESPONSES, before, tier)


def _read_usage(said: Any, names: _UsageNames, before: Usage | None, tier: Any) -> Usage | None:
    if not isinstance(said, dict) or not said:
        return before
    inwards, outwards, inward_details, outward_details = names
    taken = read_tokens(said.get(inwards))
    told, total = said.get(outwards), read_tokens(said.get("total_tokens"))
    if told is None and taken is not None and total is not None:
        told = max(0, total - taken)
    given = read_tokens(told or 0)
    if taken is None or given is None:
        return suspect(before)
    taken_details, given_details = said.get(inward_details), said.get(outward_details)
    # DeepSeek has a name of its own for what the cache gave.
    cached = _read_detail(taken_details, "cached_tokens") or _read_detail(said, "prompt_cache_hit_tokens")
    # xAI's and Gemini's servers of this format tell thoughts in the total alone, and who counts as Anthropic does what
    # the cache gave; there is no call without a prompt.
    unseen = max(0, (total or 0) - taken - given)
    if unseen == cached or not taken:
        taken += unseen
    else:
        given += unseen
    read = min(cached, taken)
    return Usage(
        input_tokens=taken,
        output_tokens=given,
        cache_read_tokens=read,
        cache_write_tokens=min(_read_detail(taken_details, "cache_write_tokens"), taken - read),
        reasoning_tokens=min(_read_detail(given_details, "reasoning_tokens"), given),
        is_counted=told is None,
        tiers=read_tiers(tier),
    )


def _read_detail(details: Any, name: str) -> int:
    return (read_tokens(details.get(name)) or 0) if isinstance(details, dict) else 0


def allowed_of(tools: tuple[Tool, ...], names: Collection[str]) -> tuple[Tool, ...]:
    """The tools that a request lets its model call this time (`allowed_tools`), for formats without a word for that;
    all where it names none of them."""
    return tuple(tool for tool in tools if tool.name in names) or tools


def ask_for_usage(members: Members, *, stream: bool) -> Members:
    """Of the completions formats, whose streams tell it to those who ask."""
    options = members.get("stream_options")
    if stream:
        members["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    elif options is not None:
        del members["stream_options"]  # refused without a stream
    return members


def write_usage(usage: Usage) -> Members:
    return _write_usage(usage, _COMPLETIONS)


def write_responses_usage(usage: Usage) -> Members:
    return _write_usage(usage, _RESPONSES)


def _write_usage(usage: Usage, names: _UsageNames) -> Members:
    inwards, outwards, inward_details, outward_details = names
    return {
        inwards: usage.input_tokens,
        outwards: usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        inward_details: {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        outward_details: {"reasoning_tokens": usage.reasoning_tokens},
    }


def text_of_id(id: str | int | None) -> str:
    """Some servers number what others name."""
    return "" if id is None else str(id)


class Numbered(Protocol):
    """A choice of a whole answer."""

    index: int | None


def number_choices(choices: Sequence[Numbered]) -> None:
    """Those that a server numbers alike, or not at all, count as they came: each is an answer of its own."""
    if len({each.index or 0 for each in choices}) < len(choices):
        for at, each in enumerate(choices):
            each.index = at


def check_many(parts: int) -> None:
    """Of an answer under way, each of which is remembered to its end; raises ProviderBroke for too many."""
    if parts > MAX_PARTS:
        raise ProviderBroke("an answer of more parts than any has")


def end_open(finished: Mapping[int, bool], usage: Usage | None, chunks: list[Chunk]) -> bool:
    """End a stream that just stops; True where it is whole: every choice there was has told why it ended."""
    is_whole = bool(finished) and all(finished.values())
    if is_whole:
        chunks.append(Chunk(usage=usage, is_last=True))
    return is_whole


def scan_answer(body: bytes) -> Usage | None:
    """What a relayed JSON answer says it used; never raises."""
    try:
        relayed = decode_answer(_relayed, body)
        return read_usage(relayed.usage, tier=relayed.service_tier)
    except ProviderBroke:
        return None


def read_error(status: int, body: bytes) -> ProviderRefused:
    """The error behind an error status, whatever the body is."""
    try:
        failures = decode_answer(_failures, body)
    except ProviderBroke:
        failures = []
    # Google's server of this format puts the one it has into an array.
    found = failures if isinstance(failures, Failure) else next(iter(failures), Failure())
    error = _find_error(found)
    error.message = error.message or plain_text(body)
    if status == 400 and str(error.message).startswith(_BAD_KEY_TEXTS):
        status = 401
    if status == 403 and error.is_flagged:
        # What was asked is at fault, not our key.
        return ProviderRefused(status, _shorten(error), kind=FLAGGED)
    return provider_refused(status, _shorten(error), kind=error.kind)


def refused(failure: Error | str | None) -> ProviderRefused | ProviderGaveUp:
    """The error told in place of an answer or within one: its status is known by its code or kind alone."""
    error = failure if isinstance(failure, Error) else Error(failure)
    if error.kind == MISCALLED:
        return ProviderGaveUp("the model wrote a call that is none")
    status = error.status or _ERROR_STATUS.get(error.kind) or _ERROR_STATUS.get(str(error.type))
    if status is None:
        status = 400 if _OF_AN_IMAGE in error.kind else 500
    return provider_refused(status, _shorten(error), kind=error.kind)


def check_event(data: bytes) -> None:
    """An event or an answer without choices: a server's own, or an error as vLLM writes it; raises ProviderRefused."""
    failure = decode_answer(_failures, data)
    if isinstance(failure, Failure) and (failure.object == "error" or failure.success is False):
        raise refused(_find_error(failure))


def _find_error(failure: Failure) -> Error:
    told = next(iter(failure.errors), None) if isinstance(failure.errors, list) else failure.error
    if isinstance(told, dict):
        return msgspec.convert(told, Error)
    message = told or failure.message or failure.detail or failure.msg
    status = _status.match(message) if isinstance(message, str) else None
    return Error(message, failure.type, status[0] if status else failure.code)


def _said_behind(error: Error) -> Any:
    """What the provider behind OpenRouter said, where its own words are no more than that it said something."""
    raw = error.metadata.get("raw") if isinstance(error.metadata, dict) else None
    if error.message != _SAID_BEHIND or not isinstance(raw, str) or not raw:
        return error.message
    try:
        failures = decode_answer(_failures, raw.encode(errors="replace"))
    except ProviderBroke:
        return raw
    found = failures if isinstance(failures, Failure) else next(iter(failures), Failure())
    return _find_error(found).message or raw


def _shorten(error: Error) -> str:
    said = _said_behind(error) or "no reason given"
    return (said if isinstance(said, str) else msgspec.json.encode(said).decode())[:MAX_MESSAGE_CHARS]


def write_error(status: int, code: str, message: str, request_id: str) -> bytes:
    """One JSON error; this style names the request in a header, not here."""
    return msgspec.json.encode(describe_error(status, code, message))


def write_error_event(status: int, code: str, message: str) -> bytes:
    """The error event of the completions formats, after which no `[DONE]` comes."""
    return b"data: %b\n\n" % msgspec.json.encode(describe_error(status, code, message))


def describe_error(status: int, code: str, message: str) -> Members:
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
