"""A dry run: a request is answered with every decision about it. For holders of the operator's token alone.

    X-Torana-Dry-Run: true
    X-Torana-Operator-Token: <AIGW_OPERATOR_TOKEN>

The request is authenticated as always; nothing is sent to a model, and nothing is counted.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from torana.api.exchange import Exchange
from torana.errors import Refusal
from torana.headers import Headers
from torana.settings import Secret

Rehearse = Callable[[Exchange], Awaitable[dict[str, Any]]]
"""Every decision about a request; raises Refusal 400 for an endpoint that calls no model."""


def admit_operator(headers: Headers, token: Secret) -> None:
    """Raises Refusal 403 for whoever does not hold the operator's token; everyone, where there is none."""
    given = headers.get(b"x-torana-operator-token") or ""
    if not token or not hmac.compare_digest(
        given.encode("utf-8", "replace"), token.reveal().encode("utf-8", "replace")
    ):
        raise Refusal(403, "operator_token_required", "A dry run wants the operator's token")
