"""A refusal becomes an answer, in the words of whichever front was asked."""

from typing import Any

import msgspec

from torana.api.exchange import JSON_HEADER, Exchange, Reply
from torana.errors import Refusal
from torana.refusals import CODES, may_be_retried

EXPLAINED = frozenset({401, 402, 403, 429})
"""Statuses that somebody may be right to complain of: counted by code, with the remedy in the line of the log."""


def write_refusal(refusal: Refusal, exchange: Exchange) -> Reply:
    """The answer, in the words of whichever front was asked; the access line is told why."""
    facts = exchange.facts
    known = CODES.get(refusal.code)
    layer = refusal.layer or (known.layer if known is not None else "gateway")
    explained: dict[str, Any] = {"code": refusal.code, "layer": layer}
    if refusal.missing:
        explained["missing"] = refusal.missing
    explained["remedy"] = refusal.remedy or (known.remedy if known is not None else "")
    explained["request_id"] = exchange.request_id
    explained["retryable"] = may_be_retried(refusal)
    facts["refusal_code"], facts["refusal_layer"] = refusal.code, layer
    if refusal.missing:
        facts["refusal_missing"] = refusal.missing
    if refusal.status in EXPLAINED:
        facts["refusal_remedy"] = explained["remedy"]
    # On the dialect routes clients get the provider's own text, which may quote the prompt; the log does not.
    is_quoted = refusal.layer == "provider" and exchange.front is not None
    told = f"{refusal.status} {refusal.code}" if is_quoted else str(refusal)
    facts["auth_error_details" if refusal.status == 401 else "http_exception_details"] = told
    if exchange.front is not None:
        status, body, headers = exchange.front.refuse(refusal, explained, exchange.request_id)
        return Reply(status, body, headers)
    body = msgspec.json.encode({**refusal.members, "refusal": explained})
    return Reply(refusal.status, body, [JSON_HEADER, *refusal.headers])
