"""How long a provider asks to be left alone.

Source: RFC 9110, "Retry-After" and "Date/Time Formats"; OpenAI's and Azure's `retry-after-ms`.
"""

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 86_400.0
"""Longer waits are cut to a day: by then somebody has looked, or the provider has been asked anew."""

_MAX_CHARS = 64


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, 0 to MAX_RETRY_AFTER_S; None where nothing is said, or nothing that can be understood.

    headers  names in lower case
    now      Unix seconds; a date is measured against the answer's own `Date` where it has one, for
             the two clocks need not agree
    """
    millis = _read_number(headers.get("retry-after-ms", ""))
    if millis is not None:
        return min(millis / 1000, MAX_RETRY_AFTER_S)
    told = headers.get("retry-after", "")
    seconds = _read_number(told)
    if seconds is None:
        at = read_date(told)
        if at is None:
            return None
        sent = read_date(headers.get("date", ""))
        seconds = max(at - (now if sent is None else sent), 0.0)
    return min(seconds, MAX_RETRY_AFTER_S)


def _read_number(text: str) -> float | None:
    """Some servers say `1.5`; none may say `nan`, `-1` or `1e3`."""
    text = text.strip()
    if not text or len(text) > _MAX_CHARS or not text.isascii() or not text.replace(".", "", 1).isdigit():
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def read_date(text: str) -> float | None:
    """Unix seconds of any of the three forms of an HTTP date."""
    if not text or len(text) > _MAX_CHARS:
        return None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # The form of C's asctime names no zone; all HTTP dates are in UTC.
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
