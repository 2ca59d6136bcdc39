"""What browsers ask before they send a request of another origin (contract 1.1)."""

from typing import Any

from torana.api.answering import CORS_HEADERS
from torana.api.exchange import Exchange, Reply, Route
from torana.errors import Refusal
from torana.headers import Headers

REMEMBERED = (b"access-control-max-age", b"600")
"""Unless told, browsers forget within seconds, and an editor in one would ask before every completion."""


def preflight(headers: Headers) -> Reply:
    """POST may be asked for; raises Refusal 400 for anything else."""
    asked = headers.text(b"access-control-request-method").upper()
    answer = [(b"access-control-allow-methods", b"POST")]
    if headers.get(b"origin") is None:
        answer += CORS_HEADERS
    wanted = headers.get(b"access-control-request-headers")
    if wanted:
        answer.append((b"access-control-allow-headers", wanted.encode("latin-1")))
    if asked != "POST":
        raise Refusal(400, "cors_method", "Disallowed CORS method", headers=tuple(answer))
    return Reply(200, b"OK", [(b"content-type", b"text/plain; charset=utf-8"), *answer, REMEMBERED])


async def _no_handler(exchange: Exchange, permit: Any, order: Any) -> Reply:
    raise NotImplementedError


PREFLIGHT = Route(path="(pre-flight)", methods=("OPTIONS",), handle=_no_handler, is_open=True)
"""What the books say that was asked for."""
