"""Everything that can go wrong, in our words. Only the entrance turns these into HTTP.

ToranaError
├── Refusal                 an answer that is a no; carries the contract's status and text
│   ├── Invalid             422: one member of the request is not what it should be
│   └── LimitReached        429: a limit of ours is used up for now (limits/reached.py)
├── BadSetting              start-up stops: NAME: what is wrong, what is expected
├── BadCatalogue            a catalogue file is wrong: file, line, expected shape
└── ProviderError           a model call failed; `upstream_code` is what HTTP would call it
    ├── ProviderUnreachable     no connection: refused, DNS, time-out while connecting
    │   ├── ProviderTlsFailed   the certificate or the handshake; never retried
    │   └── ProviderResting     it failed too often lately: nothing is sent for a while
    ├── ProviderTimedOut        silence: before the first byte, or within the answer
    ├── ProviderBroke           an answer that is no answer: cut, garbled, without its end
    ├── AnswerTooLarge          more than an answer may be
    ├── ProviderGaveUp          an answer that came to nothing, in its provider's own words
    ├── NoCredentials           nothing configured to greet this provider with
    └── ProviderRefused         the provider answered with an error status
        ├── ProviderRefusedKey      401, 403: our own key is bad
        ├── ProviderBlocked         403 with a page: a firewall before the provider
        ├── ProviderFoundNothing    404: no such model, or no such address
        ├── PromptTooLong           400, 403, 413, 422: more than the model can read
        ├── ProviderLimited         429
        ├── ProviderSpent           402 and its like: our account's money or quota is used up
        └── ProviderOverloaded      408, 424, 425, 498, 500, 502, 503, 504, 529
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from torana.too_long import is_too_long

Layer = Literal[
    "client",
    "instance_token",
    "user_token",
    "unit_primitive",
    "header_match",
    "quota",
    "limit",
    "provider",
    "gateway",
]


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the refusal catalogue that `torana error` prints."""

    layer: Layer
    meaning: str
    remedy: str
    is_retryable: bool = False


NOTHING_SENT = "nothing was sent"
"""Note on a cancellation that came before the request was out."""


def was_sent(stopped: BaseException) -> bool:
    """False for a call that was stopped before its provider could see it, and want money for it."""
    return NOTHING_SENT not in getattr(stopped, "__notes__", ())


class ToranaError(Exception):
    """Root of all errors raised on purpose."""


class Refusal(ToranaError):
    """An answer that is a no.

    status   HTTP status, fixed by the contract for the endpoint
    code     stable snake_case name, a key of `refusals.CODES`
    text     the contract's text; goes out as the member `member` (`detail` or `error`)
    members  replaces `{member: text}` where the contract asks for more than one member
    missing  what the caller lacks: a header, a unit primitive, a limit's name
    """

    def __init__(
        self,
        status: int,
        code: str,
        text: str = "",
        *,
        member: Literal["detail", "error"] = "detail",
        members: Mapping[str, Any] | None = None,
        missing: str | None = None,
        remedy: str | None = None,
        layer: Layer | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        closes: bool = False,
        is_retryable: bool | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(text or code)
        self.status = status
        self.code = code
        self.members: Mapping[str, Any] = members if members is not None else {member: text}
        self.missing = missing
        self.remedy = remedy
        self.layer = layer
        self.headers = headers
        self.closes = closes
        """The connection is closed after the answer: the rest of the request is not wanted."""
        self.is_retryable = is_retryable
        """Whether the same request may pass later; None: as the code says."""
        self.details = details
        """What an error of Anthropic's dialect says in its member of this name, by which its SDKs go."""


class Invalid(Refusal):
    """422 in the list form of contract 1.2; never echoes the offending value.

    loc   path of the member, without "body": ("current_file", "file_name")
    type  one of the contract's names: missing, string_type, string_too_long, …
    code  where there is more to say than that it is invalid
    """

    def __init__(
        self,
        loc: tuple[str | int, ...],
        msg: str,
        type: str = "value_error",
        *,
        code: str = "request_invalid",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        row = {"loc": ["body", *loc], "msg": msg, "type": type}
        missing = ".".join(str(part) for part in loc) or "body"
        super().__init__(422, code, members={"detail": [row]}, missing=missing, details=details)

    @property
    def type(self) -> str:
        return str(self.members["detail"][0]["type"])

    def at(self, *loc: str | int) -> "Invalid":
        """The same fault, of a member that this request has elsewhere."""
        row = self.members["detail"][0]
        return Invalid(loc, row["msg"], row["type"], code=self.code)


class BadSetting(ToranaError):
    """A setting that stops the start; reads `NAME: what is wrong, what is expected`."""

    def __init__(self, name: str, wrong: str, expected: str) -> None:
        super().__init__(f"{name}: {wrong}, {expected}")
        self.name = name


class BadSettings(BadSetting):
    """Several of them; reads as one a line."""

    def __init__(self, faults: list[BadSetting]) -> None:
        ToranaError.__init__(self, "\n".join(map(str, faults)))
        self.name = faults[0].name


class BadCatalogue(ToranaError):
    """One or more catalogue files are wrong; `problems` are lines `file:line: what, expected`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ProviderError(ToranaError):
    """A model call failed. `where` names the deployment for the log, never for the caller."""

    upstream_code = 502
    code = "provider_failed"
    is_retryable = False

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.retry_after_s: float | None = None
        """How long the provider asks to be left alone; None where it does not say."""

    @property
    def phrase(self) -> str:
        """`<upstream code>: <reason phrase>`, the text of a 421 (contract 1.2)."""
        if self.upstream_code == 529:
            return "529: Overloaded"
        try:
            return f"{self.upstream_code}: {HTTPStatus(self.upstream_code).phrase}"
        except ValueError:
            return f"{self.upstream_code}: Error"

    @property
    def reason(self) -> str:
        """What the log may say of it."""
        return str(self)


class ProviderUnreachable(ProviderError):
    """No connection could be made; nothing was sent, so another try is safe."""

    upstream_code = 503
    code = "provider_unreachable"
    is_retryable = True


class ProviderTlsFailed(ProviderUnreachable):
    """TLS to the provider failed; a certificate does not get better by asking again."""

    code = "upstream_tls"
    is_retryable = False


class ProviderResting(ProviderUnreachable):
    """The provider failed too often lately and is left alone for a while; nothing was sent."""

    code = "provider_resting"


class ProviderTimedOut(ProviderError):
    """The provider kept silent for too long."""

    upstream_code = 504
    code = "provider_timeout"


class ProviderBroke(ProviderError):
    """The answer was cut, garbled, or lacked its terminal event."""

    code = "provider_broke"
    is_retryable = True


class AnswerTooLarge(ProviderError):
    """The answer is longer than we read. Whoever asks for much gets much, everywhere and each time: no illness."""

    code = "provider_broke"


class ProviderGaveUp(ProviderError):
    """The provider says that its model's answer came to nothing. It is well, and may do better next time."""

    code = "provider_broke"
    is_retryable = True


class NoCredentials(ProviderError):
    """The chosen model's provider has no credentials here."""

    upstream_code = 401
    code = "provider_no_credentials"


class ProviderRefused(ProviderError):
    """The provider answered with an error status. `message` is the provider's own: it may quote the prompt."""

    code = "provider_refused"

    def __init__(self, status: int, message: str, where: str = "", kind: str = "") -> None:
        super().__init__(message, where)
        self.upstream_code = status
        self.kind = kind
        """The dialect's own error type, such as `overloaded_error`; may be empty."""
        self.details: Mapping[str, Any] | None = None
        """As of a Refusal; told to a client of the same dialect."""

    def again(self, message: str, where: str) -> "ProviderRefused":
        """The same for another call, without the frames that this one came through."""
        refused = type(self)(self.upstream_code, message, where, self.kind)
        refused.details = self.details
        return refused

    @property
    def reason(self) -> str:
        # The provider's own text may quote the prompt.
        return f"{self.upstream_code} {self.kind}".rstrip()


class ProviderRefusedKey(ProviderRefused):
    """401 or 403: our own key is bad. An alarm for the operator, never a 401 for the caller."""

    code = "provider_key_refused"


class ProviderBlocked(ProviderRefused):
    """403 with a page in place of an error: a firewall before the provider. Code in a prompt looks like an attack to
    some, so it says nothing of our key, nor of other requests."""


class ProviderFoundNothing(ProviderRefused):
    """404: it has no such model, or is no such server at that address."""

    code = "provider_not_found"


class PromptTooLong(ProviderRefused):
    """400 or its like, for a prompt that is longer than the model's context window."""

    code = "context_length_exceeded"


class ProviderLimited(ProviderRefused):
    """429: the provider limits our account."""

    code = "provider_limited"
    is_retryable = True


class ProviderSpent(ProviderRefused):
    """402, or another status with words to that effect: our account's money or quota is used up. Waiting does not help,
    only another account does."""

    code = "provider_spent"


class ProviderOverloaded(ProviderRefused):
    """408, 424, 425, 498, 5xx and 529: busy or broken; another try or another deployment may answer."""

    code = "provider_overloaded"
    is_retryable = True


MISCALLED = "tool_use_failed"
"""Kind of Groq's for a call that its model wrote wrongly: 400, or within a stream."""

FLAGGED = "content_flagged"
"""Kind of what a provider refuses for what it says, with the status of a bad key."""

SPENT_KINDS = frozenset(
    {
        # OpenAI, "Error codes": the code where there is one, else the type.
        *("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "billing_not_active"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
        # Anthropic, "Errors" and "Rate limits"
        *("billing_error", "enforced_spend_limit_reached"),
        # LiteLLM docs, "Budgets"
        "budget_exceeded",
        # MiniMax and Moonshot, with 429; DashScope, with 400
        *("insufficient_balance_error", "exceeded_current_quota_error", "Arrearage"),
    }
)
"""The vendors' own words for an account without money."""

_SPENT_TEXT = re.compile(
    r"you have reached your specified (workspace )?api usage limits|account \S{1,100} is suspended"
    r"|(\[1113\]\[)?insufficient balance\b|your (newly created )?teams? .{0,60}(available credits|any credits)",
    re.IGNORECASE,
)
"""Anthropic's own spend limits are told with 400 and a general kind ("Rate limits", spend limits); Fireworks
suspends with 412; MiniMax tells it with 500, too, Z.ai with 429, and xAI with the status of a bad key or of a limit."""


def provider_refused(status: int, message: str, where: str = "", kind: str = "") -> ProviderRefused:
    """The error for a provider's status; by status first, by the dialect's `kind` and the text last."""
    if status == 402 or (status < 500 and kind in SPENT_KINDS) or _SPENT_TEXT.match(message):
        return ProviderSpent(status, message, where, kind)
    if status in (400, 403, 413, 422) and (kind == PromptTooLong.code or is_too_long(message)):
        # 403 is Together's ("Error codes"), and no word about our key.
        return PromptTooLong(400 if status == 403 else status, message, where, kind)
    if status in (401, 403):
        return ProviderRefusedKey(status, message, where, kind)
    if status == 429:
        return ProviderLimited(status, message, where, kind)
    # 424 is TGI's for a model that failed, 498 Groq's for a flexible tier that is full.
    if status in (408, 424, 425, 498) or status >= 500:
        return ProviderOverloaded(status, message, where, kind)
    if kind == "overloaded_error":
        return ProviderOverloaded(529, message, where, kind)
    if status == 404:
        return ProviderFoundNothing(status, message, where, kind)
    return ProviderRefused(status, message, where, kind)
