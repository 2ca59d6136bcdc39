"""How clients of a vendor's dialect are met below their prefix: tokens where SDKs put them, refusals as SDKs read them.

The entrance asks `front_of` for each path; everything else about these routes is in `api/dialect_*.py`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import ServedDialect
from torana.dialects.messages import MESSAGES
from torana.dialects.messages_writing import tell_too_long
from torana.errors import (
    FLAGGED,
    NoCredentials,
    PromptTooLong,
    ProviderBlocked,
    ProviderError,
    ProviderLimited,
    ProviderRefused,
    ProviderRefusedKey,
    ProviderSpent,
    Refusal,
)
from torana.headers import retry_after, soon
from torana.limits.reached import LONGEST_SLEEP_S, LimitReached, Standing, anthropic_headers, openai_headers

Headers = list[tuple[bytes, bytes]]

SHOULD_NOT_RETRY = (b"x-should-retry", b"false")
"""Both vendors' SDKs obey it."""

PASSED_STATUSES = (400, 404, 409, 413, 415, 422)
"""A provider's statuses that are about the client's own request: it is told why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """One prefix, and the vendor whose clients come there."""

    prefix: str
    dialect: ServedDialect
    """Its errors are those of every route below the prefix."""
    request_id_header: bytes = b""
    """Where the vendor's SDK looks for the request's id; empty: in x-request-id, which every answer has."""
    overloaded_status: int = 503
    """What the vendor says when it is overloaded."""
    names_param: bool = False
    """Errors have a member for the parameter that is wrong."""
    spent_kind: str = ""
    """What the vendor's clients call a limit that is used up for long; empty: they go by x-should-retry."""
    tell_too_long: Callable[[str], str] = str
    """A provider's words for a prompt that is too long → the vendor's own, where its clients go by those."""
    write_limits: Callable[[Sequence[Standing]], Headers]
    """How the caller stands with its limits, as the vendor's headers say it."""

    def refuse(self, refusal: Refusal, explained: Mapping[str, Any], request_id: str) -> tuple[int, bytes, Headers]:
        """Status, body and headers of a refusal, as the vendor's SDK reads them.

        explained  what the gateway adds to every refusal (contract 1.2, Additions)
        """
        status = 400 if refusal.status == 422 else refusal.status
        message = _message(refusal)
        if status in (401, 402, 403) and explained["remedy"]:
            message = f"{message.removesuffix('.')}. {explained['remedy']}"
        elif isinstance(refusal, LimitReached):
            message = f"{message} {refusal.remedy}"
        body = msgspec.json.decode(self.dialect.write_error(status, refusal.code, message, request_id))
        if self.names_param:
            body["error"]["param"] = refusal.missing if status in (400, 404) else None
        elif refusal.details is not None:
            body["error"]["details"] = refusal.details
        if self.spent_kind and status == 429 and (over_at := _over_at(refusal)):
            body["error"] |= {"type": self.spent_kind, "resets_at": over_at}
        headers = [(b"content-type", b"application/json"), (b"x-torana-code", refusal.code.encode()), *refusal.headers]
        if isinstance(refusal, LimitReached):
            headers += self.write_limits(refusal.standings)
        if _looks_retryable(status) and not explained["retryable"] and SHOULD_NOT_RETRY not in headers:
            headers.append(SHOULD_NOT_RETRY)
        return status, msgspec.json.encode({**body, "refusal": explained}), headers


OPENAI = Front(
    prefix="/openai",
    dialect=CHAT_COMPLETIONS,
    names_param=True,
    # Codex, which would sleep for as long as Retry-After says.
    spent_kind="usage_limit_reached",
    write_limits=openai_headers,
)
ANTHROPIC = Front(
    prefix="/anthropic",
    dialect=MESSAGES,
    request_id_header=b"request-id",
    overloaded_status=529,
    tell_too_long=tell_too_long,
    write_limits=lambda standings: anthropic_headers(standings, time.time()),
)
FRONTS = (OPENAI, ANTHROPIC)


def front_of(path: str) -> Front | None:
    """The front whose prefix a path is, or lies below; None for every other path."""
    for front in FRONTS:
        if path.startswith(front.prefix) and path[len(front.prefix) : len(front.prefix) + 1] in ("", "/"):
            return front
    return None


def did_you_mean(path: str, known: Iterable[str]) -> str:
    """The dialect route that a mistaken path means, where its `/v1` is doubled or missing, or its prefix another's."""
    wanted = _without_version(path)
    routes = [route for route in known if front_of(route) is not None and not route.endswith("{tail}")]
    front = front_of(path)
    # `models` is served below both prefixes: the nearer one is meant.
    routes.sort(key=lambda route: front_of(route) is not front)
    return next((route for route in routes if wanted and _without_version(route) == wanted), "")


def _without_version(path: str) -> list[str]:
    return [part for part in path.split("/")[2:] if part not in ("", "v1")]


def _message(refusal: Refusal) -> str:
    detail = refusal.members.get("detail")
    if isinstance(detail, list):
        row = detail[0]
        where = ".".join(str(part) for part in row["loc"][1:])
        return f"{where}: {row['msg']}" if where else str(row["msg"])
    return str(refusal.members.get("message") or refusal)


def _over_at(refusal: Refusal) -> int:
    """When what is used up for long, of a limit here or at the provider, is there again, in Unix seconds; else 0."""
    if isinstance(refusal, LimitReached):
        is_long = not refusal.is_retryable or refusal.retry_after_s > LONGEST_SLEEP_S
        return refusal.free_at if is_long else 0
    wait_s = next((int(value) for name, value in refusal.headers if name == b"retry-after"), 0)
    return int(time.time()) + wait_s if wait_s > LONGEST_SLEEP_S else 0


def _looks_retryable(status: int) -> bool:
    """SDKs ask again after these unless they are told not to."""
    return status in (408, 409, 429) or status >= 500


def provider_failed(error: ProviderError, front: Front, mask: Callable[[str], str]) -> Refusal:
    """What a failed model call is to a client; of the provider's own text only what concerns its request.

    mask  takes credentials out of a text
    """
    headers: Headers = []
    if error.is_retryable:
        # With these there is always a time to come back: Codex gives its task up at a 429 that names none.
        is_busy = isinstance(error, ProviderLimited) or error.upstream_code in (503, 529)
        headers += retry_after(soon() if error.retry_after_s is None and is_busy else error.retry_after_s)
    if not error.is_retryable:
        headers.append(SHOULD_NOT_RETRY)
    code, details = error.upstream_code, None
    if isinstance(error, ProviderLimited):
        status, text = 429, "The provider limits the gateway's account; try again later"
    elif isinstance(error, ProviderRefusedKey):
        status, text = 502, "The provider refuses the gateway's own key"
    elif isinstance(error, ProviderBlocked):
        status, text = 502, "A firewall before the provider refuses this request"
    elif isinstance(error, ProviderRefused) and error.kind == FLAGGED:
        # Its words name the account.
        status, text = 400, "The provider's own filter refuses what this request says"
    elif isinstance(error, NoCredentials):
        status, text = 503, "The gateway has no credentials for this model's provider"
    elif isinstance(error, ProviderSpent):
        status, text = 502, "The gateway's account with the provider is used up"
    elif isinstance(error, PromptTooLong):
        # Agents shorten their conversation when they read Anthropic's words, or OpenAI's code.
        status, text, headers = 400, front.tell_too_long(mask(str(error))), []
    elif isinstance(error, ProviderRefused) and code in PASSED_STATUSES:
        status, text, headers, details = code, mask(str(error)), [], error.details
    elif code == 529:
        status, text = front.overloaded_status, "The provider is overloaded; try again later"
    elif code == 504:
        status, text = 504, "The provider did not answer in time"
    elif code == 503:
        status, text = 503, "The provider cannot be reached; try again later"
    else:
        status, text = 502, "The provider failed"
    return Refusal(status, error.code, text, layer="provider", headers=tuple(headers), details=details)
