"""The generate content dialect: what went wrong. Source: google.rpc.Status; Gemini API, "Troubleshooting guide"."""

import re
from typing import Any

import msgspec

from torana.dialects.bodies import decode_answer
from torana.dialects.members import finite
from torana.errors import ProviderBroke, ProviderRefused, ProviderSpent, provider_refused

MAX_MESSAGE_CHARS = 300
"""Of a provider's error, for the log."""

MAX_RETRY_DELAY_S = 86_400.0

STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

_BAD_KEY = "API_KEY_INVALID"
"""Told with 400, unlike every other vendor's."""

_SPENT_REASON = "BILLING_DISABLED"
_spent_text = re.compile(r"your prepayment credits are depleted|exceeded its (monthly )?spending cap", re.IGNORECASE)
_no_file = re.compile(r"permission to access the file\b", re.IGNORECASE)
"""Told with the status of a bad key, of a file that the request names."""
_delay = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


class Error(msgspec.Struct):
    code: Any = None
    message: str | None = None
    status: str | None = None
    details: Any = None


class _Failure(msgspec.Struct):
    error: Error | None = None


_failures = msgspec.json.Decoder(_Failure, float_hook=finite)
_failure_lists = msgspec.json.Decoder(list[_Failure], float_hook=finite)


def read_error(status: int, body: bytes) -> ProviderRefused:
    """The error behind an error status, whatever the body is; the streaming method wraps it in an array."""
    try:
        if body.lstrip()[:1] == b"[":
            listed: list[_Failure] = decode_answer(_failure_lists, body)
            found = listed[0] if listed else _Failure()
        else:
            found = decode_answer(_failures, body)
    except ProviderBroke:
        found = _Failure()
    return _refuse(status, found.error or Error())


def refuse(error: Error) -> ProviderRefused:
    """The error told in place of an answer, or within one."""
    is_status = isinstance(error.code, int) and 400 <= error.code <= 599
    return _refuse(error.code if is_status else STATUSES.get(error.status or "", 500), error)


def _refuse(status: int, error: Error) -> ProviderRefused:
    message = (error.message or "no reason given")[:MAX_MESSAGE_CHARS]
    details = (
        [detail for detail in error.details if isinstance(detail, dict)] if isinstance(error.details, list) else []
    )
    reasons = [detail["reason"] for detail in details if isinstance(detail.get("reason"), str)]
    kind = reasons[0] if reasons else error.status or ""
    if _SPENT_REASON in reasons or _spent_text.search(message) or _is_days_quota(details):
        refused: ProviderRefused = ProviderSpent(status, message, kind=kind)
    else:
        if status == 403 and _no_file.search(message):
            status = 400  # what was asked is at fault, not our key
        refused = provider_refused(401 if _BAD_KEY in reasons else status, message, kind=kind)
    for detail in details:
        if found := _delay.fullmatch(str(detail.get("retryDelay", ""))):
            refused.retry_after_s = min(float(found[1]), MAX_RETRY_DELAY_S)
    return refused


def _is_days_quota(details: list[dict[str, Any]]) -> bool:
    """A day's quota is used up: the delay that is told beside it does not help, another account does."""
    violations = [row for detail in details if isinstance(rows := detail.get("violations"), list) for row in rows]
    return any("PerDay" in str(row.get("quotaId", "")) for row in violations if isinstance(row, dict))
