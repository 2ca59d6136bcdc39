"""What all dialect routes have in common: who may, which model is meant, what goes on of the request's head."""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from torana.access.permissions import permit_proxy
from torana.api.dialect_front import Front, provider_failed
from torana.api.exchange import Exchange
from torana.api.judged import JudgedReader, Repeated
from torana.auth_settings import AuthSettings
from torana.caller import Permit
from torana.catalog.records import UnitPrimitive
from torana.errors import ProviderError, ProviderRefusedKey, Refusal
from torana.limits.estimate import allowed_tokens
from torana.routing.offered import OfferedModels
from torana.telemetry.redaction import Redactor

logger = logging.getLogger("torana.api.dialects")

UNIT_PRIMITIVE = "ai_gateway_model_provider_proxy"
"""Where the header names no other."""

QUOTA = "ai_gateway_proxy_use"

FORWARDED: dict[str, tuple[bytes, ...]] = {"messages": (b"anthropic-version", b"anthropic-beta")}
"""Headers of a client that a provider of its dialect may see."""


class DialectGate:
    """Shared by the handlers of one snapshot."""

    def __init__(
        self,
        offered: OfferedModels,
        unit_primitives: Mapping[str, UnitPrimitive],
        settings: AuthSettings,
        redactor: Redactor,
    ) -> None:
        self.offered = offered
        self.unit_primitives = unit_primitives
        self.settings = settings
        self.mask = redactor.text
        self.judged = JudgedReader()

    def policy(self, exchange: Exchange, _order: Any) -> Permit:
        return permit_proxy(
            exchange.caller,
            exchange.headers,
            self.unit_primitives,
            self.settings,
            default=UNIT_PRIMITIVE,
            lenient=True,
        )

    def peek(self, body: bytes) -> tuple[str, bool, int]:
        """The model's name, whether a stream is asked for, how long an answer may be (0: any); raises Refusal 400."""
        try:
            found = self.judged.read(body)
        except Repeated as repeated:
            text = f"The body has the member {repeated.name} twice"
            raise Refusal(400, "member_repeated", text, missing=repeated.name) from None
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise Refusal(400, "json_invalid", "The body is not a JSON object") from None
        model = found.get("model")
        if not isinstance(model, str) or not model:
            raise Refusal(400, "model_missing", "The body names no model", missing="model")
        return model, found.get("stream") is True, allowed_tokens(found)

    def failed(self, front: Front, error: ProviderError) -> Refusal:
        """A failed model call, told to the log in full and to the client in its own shape."""
        # Our own key is the operator's affair: an alarm.
        level = logging.ERROR if isinstance(error, ProviderRefusedKey) else logging.WARNING
        logger.log(level, "model call failed", extra={"code": error.code, "where": error.where, "reason": error.reason})
        return provider_failed(error, front, self.mask)


def forwarded(exchange: Exchange, dialect: str) -> dict[str, str]:
    """The client's allow-listed headers."""
    return exchange.headers.select(FORWARDED.get(dialect, ()))


def beta_of(query: bytes) -> str:
    """Of the query only this goes on; SDKs send it with requests for beta features."""
    return "?beta=true" if query and ("beta", "true") in parse_qsl(query.decode("latin-1")) else ""
