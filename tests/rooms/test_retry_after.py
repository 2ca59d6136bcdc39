"""How long a provider asks to be left alone, in every form that providers use, and in none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torana.errors import (
    PromptTooLong,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
    ProviderSpent,
    provider_refused,
)
from torana.providers.retry_after import MAX_RETRY_AFTER_S, read_retry_after

NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110."""


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "99999999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:47 GMT"}, 10.0),
        ({"retry-after": "Sun Nov  6 08:49:47 1994"}, 10.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:27 GMT"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 2094 08:49:27 GMT"}, MAX_RETRY_AFTER_S),
        # Its clock is an hour ahead of ours: what counts is the difference it means.
        ({"retry-after": "Sun, 06 Nov 1994 09:49:57 GMT", "date": "Sun, 06 Nov 1994 09:49:37 GMT"}, 20.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": "whenever"}, 10.0),
    ],
)
def test_every_form_of_retry_after_is_read_as_seconds(headers: dict[str, str], seconds: float) -> None:
    assert read_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-1",
        "nan",
        "inf",
        "1e3",
        "1.2.3",
        ".",
        "٣",
        "9" * 400,
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "\x00",
        "1 2",
    ],
)
def test_garbage_says_nothing(text: str) -> None:
    assert read_retry_after({"retry-after": text}, NOW) is None
    assert read_retry_after({}, NOW) is None


@given(told=st.text(max_size=80), millis=st.text(max_size=80), date=st.text(max_size=80))
def test_whatever_is_told_the_wait_is_finite_and_bounded(told: str, millis: str, date: str) -> None:
    wait_s = read_retry_after({"retry-after": told, "retry-after-ms": millis, "date": date}, NOW)

    assert wait_s is None or (math.isfinite(wait_s) and 0 <= wait_s <= MAX_RETRY_AFTER_S)


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (429, "rate_limit_error", "slow down", ProviderLimited),
        (429, "rate_limit_exceeded", "slow down", ProviderLimited),
        (429, "enforced_spend_limit_reached", "", ProviderSpent),
        (429, "insufficient_quota", "", ProviderSpent),
        (429, "credit_balance_exhausted", "", ProviderSpent),
        (400, "invalid_request_error", "You have reached your specified API usage limits. Access…", ProviderSpent),
        (400, "invalid_request_error", "prompt is too long", PromptTooLong),
        (402, "", "Insufficient Balance", ProviderSpent),
        (408, "", "", ProviderOverloaded),
        (503, "insufficient_quota", "", ProviderOverloaded),
        (400, "overloaded_error", "", ProviderOverloaded),
    ],
)
def test_an_empty_purse_is_told_from_too_much_haste(
    status: int, kind: str, message: str, expected: type[ProviderRefused]
) -> None:
    error = provider_refused(status, message, kind=kind)

    assert type(error) is expected
    assert error.is_retryable == (expected in (ProviderLimited, ProviderOverloaded))
