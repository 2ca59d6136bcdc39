"""The vendors' own APIs behind our gate: bytes on as they came, credentials replaced (contract 9)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from torana.access.permissions import permit_proxy
from torana.answers import Relay
from torana.api.connection import DRAINING
from torana.api.exchange import Exchange, Reply, Route, StreamCut, StreamReply
from torana.api.proxy_demo import answer_as_demo
from torana.api.streaming import STREAM_HEADERS
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
from torana.headers import Headers
from torana.settings import Settings

logger = logging.getLogger("torana.api.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What the pass-through of one provider lets by."""

    provider: str
    posts: Mapping[str, ServedDialect | None]
    """Upstream path → its dialect, or None where nothing is known of the body but its model."""
    gets: tuple[str, ...] = ()
    """Upstream paths that are read, without a body and so without a model."""
    usual: ServedDialect
    """Says that a stream broke where the path has no dialect of its own."""
    request_headers: tuple[bytes, ...]
    answer_headers: tuple[str, ...]
    """Besides the content type."""
    answer_prefixes: tuple[str, ...]
    model_missing: str
    key_missing: tuple[int, str]
    """Status and text where the server has no key for this provider."""


ANTHROPIC = Upstream(
    provider="anthropic",
    posts={"/v1/messages": MESSAGES, "/v1/messages/count_tokens": None, "/v1/complete": None},
    usual=MESSAGES,
    request_headers=(b"accept", b"content-type", b"anthropic-version", b"anthropic-beta"),
    answer_headers=("anthropic-beta", "request-id", "retry-after", "x-should-retry"),
    answer_prefixes=("anthropic-ratelimit-",),
    model_missing="Failed to extract model name",
    key_missing=(400, "API key not found"),
)

OPENAI = Upstream(
    provider="openai",
    posts={"/v1/chat/completions": CHAT_COMPLETIONS, "/v1/responses": RESPONSES, "/v1/embeddings": None},
    gets=("/v1/models",),
    usual=CHAT_COMPLETIONS,
    request_headers=(b"accept", b"content-type", b"user-agent"),
    answer_headers=("retry-after", "x-should-retry"),
    answer_prefixes=("x-ratelimit-",),
    model_missing="Failed to extract model name",
    key_missing=(500, "API key not found"),
)

LOOK_UPS = frozenset({"/v1/messages/count_tokens"})
"""Posts that no model answers."""

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
        rows = []
        for upstream in (ANTHROPIC, OPENAI):
            prefix = f"/v1/proxy/{upstream.provider}"
            for path in upstream.gets:
                rows += [self._route(upstream, "GET", prefix + path), self._route(upstream, "GET", prefix + path[3:])]
            rows.append(self._route(upstream, "POST", f"{prefix}/{{tail}}"))
        return rows

    def _route(self, upstream: Upstream, method: str, path: str) -> Route:
        async def handle(exchange: Exchange, permit: Permit, order: Any) -> Reply | StreamReply:
            return await self._relay(upstream, exchange, permit)

        return Route(
            path=path,
            methods=(method,),
            policy=self._policy,
            handle=handle,
            body="proxy",
            quota="ai_gateway_proxy_use",
            label=f"/v1/proxy/{upstream.provider}",
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
        headers = _forwarded_headers(upstream, exchange.headers)
        query = _forwarded_query(exchange.query)
        try:
            relay = await self.gateway.relay(
                permit, upstream.provider, path + query, body, headers, exchange.facts,
                model=model, stream=is_streamed, method=exchange.method, is_free=is_get or path in LOOK_UPS,
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
        try:
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding not in ("", "identity"):
                # The client is not told the encoding, so it could not read the body.
                error = ProviderBroke(f"the answer is {encoding[:20]}-encoded although identity was asked for")
                relay.settle("failed", None, error)
                raise error
            headers = _answer_headers(upstream, answer.headers)
            content_type = headers[0][1]
            if content_type[:17].lower() == b"text/event-stream":
                scan = dialect.scan_events() if dialect is not None and answer.status == 200 else None
                parts = _Passing(relay, scan, dialect or upstream.usual)
                return StreamReply(content_type, parts, answer.status, headers[1:] + STREAM_HEADERS + relay.headers)
            body = await relay.read_all(_scan_of(dialect, path))
        except ProviderError as error:
            answer.close()
            logger.warning(
                "relay failed", extra={"provider": upstream.provider, "code": error.code, "reason": str(error)}
            )
            raise Refusal(502, error.code, "Bad Gateway") from error
        return Reply(answer.status, body, headers + relay.headers)

    def _upstream_path(self, upstream: Upstream, exchange: Exchange) -> str:
        """The allow-listed path, `/v1/…`; 404 for every other."""
        path = exchange.path.removeprefix(f"/v1/proxy/{upstream.provider}")
        if upstream.provider == "openai" and not path.startswith("/v1/"):
            path = f"/v1{path}"
        if path not in (upstream.gets if exchange.method == "GET" else upstream.posts):
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


class _Passing(AsyncIterator[bytes]):
    """The upstream's bytes unchanged; a stream that breaks gets its dialect's own error event, then the cut.

    A class and no generator: one that is closed before its first step would leave the upstream open.
    """

    __slots__ = ("_dialect", "_failure", "_relay", "_scan")

    def __init__(self, relay: Relay, scan: RelayScan | None, dialect: ServedDialect) -> None:
        self._relay = relay
        self._scan = scan
        relay.watch(scan)
        self._dialect = dialect
        self._failure: BaseException | None = None

    async def __anext__(self) -> bytes:
        if self._failure is not None:
            raise StreamCut from self._failure
        scan = self._scan
        try:
            data = await self._relay.answer.read()
            if not data and scan is not None and not scan.is_complete:
                raise ProviderBroke("the stream ended without its terminal event")
        except ProviderError as error:
            self._failure = error
            self._settle("failed", error)
            await self._relay.call.settled()
            return self._dialect.write_error_event(502, error.code, "The provider's answer was cut.")
        except asyncio.CancelledError as stopped:
            if stopped.args != (DRAINING,):
                raise
            self._failure = stopped
            self._settle("failed")
            return self._dialect.write_error_event(503, "server_draining", "The gateway is stopping; ask again.")
        if not data:
            self._settle("completed" if self._relay.answer.status < 400 else "failed")
            await self._relay.call.settled()
            raise StopAsyncIteration
        self._relay.passed(data)
        if scan is not None and scan.is_complete:
            # To the client the answer ends here, whatever HTTP has to add.
            self._settle("completed")
            await self._relay.call.settled()
        return data

    async def aclose(self) -> None:
        self._relay.answer.close()
        self._settle("client_cancelled")

    def _settle(self, outcome: str, error: ProviderError | None = None) -> None:
        self._relay.settle(outcome, None, error)


def _scan_of(dialect: ServedDialect | None, path: str) -> Callable[[bytes], Usage | None] | None:
    """Reads the usage out of a relayed JSON answer."""
    if path == "/v1/embeddings":
        return scan_embeddings
    return dialect.scan_answer if dialect is not None else None


def _forwarded_headers(upstream: Upstream, headers: Headers) -> dict[str, str]:
    """The client's allow-listed headers; repeated ones are joined, as HTTP has it."""
    found: dict[str, str] = {}
    for name, value in headers.pairs:
        if name in upstream.request_headers:
            key, text = name.decode(), value.decode("latin-1").strip()
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _answer_headers(upstream: Upstream, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The content type, then what else of the provider's headers the client may see."""
    content_type = headers.get("content-type", "application/octet-stream")
    found = [(b"content-type", content_type.encode("latin-1", "replace"))]
    for name, value in headers.items():
        lower = name.lower()
        if lower in upstream.answer_headers or lower.startswith(upstream.answer_prefixes):
            found.append((lower.encode("latin-1", "replace"), value.encode("latin-1", "replace")))
    return found


def _forwarded_query(query: bytes) -> str:
    if not query:
        return ""
    kept = [
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if name in FORWARDED_QUERY
    ]
    return f"?{'&'.join(kept)}" if kept else ""
