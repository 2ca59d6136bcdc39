"""The vendors' own APIs behind our gate: bytes on as they came, credentials replaced (contract 9)."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from torana.access.permissions import permit_proxy
from torana.answers import Relay
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route, StreamCut, StreamReply
from torana.api.proxy_demo import answer_as_demo
from torana.caller import Permit
from torana.catalog.records import UnitPrimitive
from torana.chat import Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import RelayScan, ServedDialect
from torana.dialects.embeddings import scan_answer as scan_embeddings
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.errors import ProviderBroke, ProviderError, ProviderRefusedKey, Refusal
from torana.gateway import Gateway
from torana.settings import Settings

logger = logging.getLogger("torana.api.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What the pass-through of one provider lets by."""

    provider: str
    posts: Mapping[str, ServedDialect | None]
    """Upstream path → its dialect, or None where nothing is known of the body but its model."""
    gets: frozenset[str] = frozenset()
    request_headers: tuple[bytes, ...]
    answer_headers: tuple[str, ...]
    answer_prefixes: tuple[str, ...]
    model_missing: str
    key_missing: tuple[int, str]
    """Status and text where the server has no key for this provider."""


ANTHROPIC = Upstream(
    provider="anthropic",
    posts={"/v1/messages": MESSAGES, "/v1/messages/count_tokens": None, "/v1/complete": None},
    request_headers=(b"accept", b"content-type", b"anthropic-version", b"anthropic-beta"),
    answer_headers=("content-type", "anthropic-beta", "request-id", "retry-after", "x-should-retry"),
    answer_prefixes=("anthropic-ratelimit-",),
    model_missing="Failed to extract model name",
    key_missing=(400, "API key not found"),
)

OPENAI = Upstream(
    provider="openai",
    posts={"/v1/chat/completions": CHAT_COMPLETIONS, "/v1/responses": RESPONSES, "/v1/embeddings": None},
    gets=frozenset({"/v1/models"}),
    request_headers=(b"accept", b"content-type", b"user-agent"),
    answer_headers=("content-type", "retry-after", "x-should-retry"),
    answer_prefixes=("x-ratelimit-",),
    model_missing="Failed to extract model name",
    key_missing=(500, "API key not found"),
)

FORWARDED_QUERY = ("beta", "alt")


class _Peek(msgspec.Struct):
    """The members of a relayed body that the gate looks at; everything else stays bytes."""

    model: Any = None
    stream: Any = None


_peek = msgspec.json.Decoder(_Peek)


class ProxyEndpoints:
    """`/v1/proxy/anthropic/*` and `/v1/proxy/openai/*`."""

    def __init__(self, gateway: Gateway, unit_primitives: Mapping[str, UnitPrimitive], settings: Settings) -> None:
        self.gateway = gateway
        self.unit_primitives = unit_primitives
        self.settings = settings

    def routes(self) -> list[Route]:
        return [self._route(ANTHROPIC, ("POST",)), self._route(OPENAI, ("POST", "GET"))]

    def _route(self, upstream: Upstream, methods: tuple[str, ...]) -> Route:
        async def handle(exchange: Exchange, permit: Permit, order: Any) -> Reply | StreamReply:
            return await self._relay(upstream, exchange, permit)

        return Route(
            path=f"/v1/proxy/{upstream.provider}/{{tail}}",
            methods=methods,
            policy=self._policy,
            handle=handle,
            body="proxy",
            quota="ai_gateway_proxy_use",
        )

    def _policy(self, exchange: Exchange, _order: Any) -> Permit:
        return permit_proxy(exchange.caller, exchange.headers, self.unit_primitives, self.settings.auth)

    async def _relay(self, upstream: Upstream, exchange: Exchange, permit: Permit) -> Reply | StreamReply:
        path = self._upstream_path(upstream, exchange)
        is_get = exchange.method == "GET"
        body = b"" if is_get else exchange.body
        model, is_streamed = ("", False) if is_get else self._peek(upstream, body)
        dialect: ServedDialect | None = upstream.posts.get(path)
        if self.settings.providers.mock_responses:
            return await answer_as_demo(self.gateway, permit, path, body, model, is_streamed, exchange)
        if not self.gateway.models.is_configured(upstream.provider):
            status, text = upstream.key_missing
            raise Refusal(status, "provider_key_missing", text)
        headers = {
            name.decode(): value
            for name in upstream.request_headers
            if (value := exchange.headers.get(name)) is not None
        }
        query = _forwarded_query(exchange.query)
        try:
            relay = await self.gateway.relay(
                permit, upstream.provider, path + query, body, headers, exchange.facts,
                model=model, stream=is_streamed, method=exchange.method,
            )  # fmt: skip
        except ProviderRefusedKey as error:
            # Passed on, a 401 makes coding agents mint anew in a loop; and it is the operator who must act.
            logger.error(
                "the provider refuses our key", extra={"provider": upstream.provider, "status": error.upstream_code}
            )
            raise Refusal(502, error.code, "Bad Gateway") from error
        except ProviderError as error:
            logger.warning(
                "relay failed", extra={"provider": upstream.provider, "code": error.code, "reason": str(error)}
            )
            raise Refusal(502, error.code, "Bad Gateway") from error
        return await self._pass_back(upstream, relay, dialect, path)

    async def _pass_back(
        self, upstream: Upstream, relay: Relay, dialect: ServedDialect | None, path: str
    ) -> Reply | StreamReply:
        answer = relay.answer
        content_type = answer.headers.get("content-type", "application/octet-stream")
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in answer.headers.items()
            if (lower := name.lower()) in upstream.answer_headers or lower.startswith(upstream.answer_prefixes)
        ]
        if content_type.startswith("text/event-stream"):
            scan = dialect.scan_events() if dialect is not None and answer.status == 200 else None
            headers = [pair for pair in headers if pair[0] != b"content-type"]
            headers += [(b"x-accel-buffering", b"no"), (b"cache-control", b"no-store")]
            return StreamReply(
                content_type.encode("latin-1", "replace"), _relayed(relay, dialect, scan), answer.status, headers
            )
        try:
            body = await relay.read_all(_scan_of(dialect, path))
        except ProviderError as error:
            raise Refusal(502, error.code, "Bad Gateway") from error
        return Reply(answer.status, body, headers or [JSON_HEADER])

    def _upstream_path(self, upstream: Upstream, exchange: Exchange) -> str:
        """The allow-listed path, `/v1/…`; 404 for every other."""
        path = f"/{exchange.tail}"
        if upstream.provider == "openai" and not path.startswith("/v1/"):
            path = f"/v1{path}"
        allowed = upstream.gets if exchange.method == "GET" else upstream.posts
        if path not in allowed:
            if exchange.method == "GET" and path in upstream.posts:
                raise Refusal(405, "method_not_allowed", "Method Not Allowed")
            raise Refusal(404, "not_found", "Not found")
        return path

    def _peek(self, upstream: Upstream, body: bytes) -> tuple[str, bool]:
        try:
            found = _peek.decode(body)
        except msgspec.ValidationError:
            raise Refusal(400, "model_missing", upstream.model_missing) from None
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise Refusal(400, "json_invalid", "Invalid JSON") from None
        if not isinstance(found.model, str) or not found.model:
            raise Refusal(400, "model_missing", upstream.model_missing)
        if not self.gateway.models.proxy_allows(upstream.provider, found.model):
            raise Refusal(400, "model_unsupported", "Unsupported model")
        return found.model, found.stream is True


async def _relayed(relay: Relay, dialect: ServedDialect | None, scan: RelayScan | None) -> AsyncIterator[bytes]:
    """The upstream's bytes unchanged; a stream that breaks gets its dialect's own error event, then the cut."""
    try:
        while data := await relay.answer.read():
            if scan is not None:
                scan.feed(data)
            yield data
        if scan is not None and not scan.is_complete:
            raise ProviderBroke("the stream ended without its terminal event")
        relay.settle("completed", scan.usage if scan is not None else None)
    except ProviderError as error:
        relay.settle("failed", scan.usage if scan is not None else None, error)
        if dialect is not None:
            yield dialect.write_error_event(502, error.code, "The provider's answer was cut.")
        raise StreamCut from error
    finally:
        relay.answer.close()
        relay.settle("client_cancelled", scan.usage if scan is not None else None)


def _scan_of(dialect: ServedDialect | None, path: str) -> Callable[[bytes], Usage | None] | None:
    """Reads the usage out of a relayed JSON answer."""
    if path == "/v1/embeddings":
        return scan_embeddings
    return dialect.scan_answer if dialect is not None else None


def _forwarded_query(query: bytes) -> str:
    if not query:
        return ""
    kept = [
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if name in FORWARDED_QUERY
    ]
    return f"?{'&'.join(kept)}" if kept else ""
