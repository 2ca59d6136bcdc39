"""The vendors' own APIs behind our gate: bytes on as they came, credentials replaced (contract 9)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from torana.access.permissions import for_user, permit_proxy
from torana.answers import Relay
from torana.api.abuse import AbuseWatch
from torana.api.connection import DRAINING
from torana.api.exchange import Exchange, Reply, Route, StreamCut, StreamReply
from torana.api.judged import JudgedReader, Repeated
from torana.api.proxy_demo import DemoCall
from torana.api.proxy_targets import UPSTREAMS, Target, Upstream
from torana.api.streaming import STREAM_HEADERS
from torana.books import Outcome
from torana.caller import Permit
from torana.catalog.records import UnitPrimitive
from torana.dialects.dialect import RelayScan, ServedDialect
from torana.dialects.passing import WholeEvents
from torana.errors import ProviderBroke, ProviderError, ProviderRefusedKey, Refusal
from torana.gateway import Gateway
from torana.headers import Headers
from torana.limits.estimate import allowed_tokens
from torana.settings import Settings

logger = logging.getLogger("torana.api.proxy")


_PERMIT = "proxy permit"
"""Of the headers' keepings: what the policy said of them."""
FORWARDED_QUERY = ("beta", "alt")


class ProxyEndpoints:
    """`/v1/proxy/anthropic/*`, `/v1/proxy/openai/*` and `/v1/proxy/vertex-ai/*`."""

    def __init__(
        self,
        gateway: Gateway,
        unit_primitives: Mapping[str, UnitPrimitive],
        settings: Settings,
        watch: AbuseWatch | None,
    ) -> None:
        self.gateway = gateway
        self.unit_primitives = unit_primitives
        self.settings = settings
        self.watch = watch
        self.judged = JudgedReader()
        self._snapshot = object()
        """Stands for the catalogue, which nobody is to keep."""

    def routes(self) -> list[Route]:
        rows = []
        for upstream in UPSTREAMS:
            prefix = f"/v1/proxy/{upstream.name}"
            rows += [self._route(upstream, "GET", prefix + path) for path in upstream.gets]
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
            label=f"/v1/proxy/{upstream.name}",
        )

    def _policy(self, exchange: Exchange, _order: Any) -> Permit:
        # The same caller, headers and catalogue: the same permit.
        kept = exchange.headers.kept.get(_PERMIT)
        if kept is not None and kept[0] is self._snapshot and kept[1].caller is exchange.caller:
            found: Permit = kept[1]
            return found
        permit = permit_proxy(exchange.caller, exchange.headers, self.unit_primitives, self.settings.auth)
        permit = for_user(permit, exchange.headers)
        exchange.headers.kept[_PERMIT] = self._snapshot, permit
        return permit

    async def _relay(self, upstream: Upstream, exchange: Exchange, permit: Permit) -> Reply | StreamReply:
        target = upstream.find(exchange.method, exchange.path.removeprefix(f"/v1/proxy/{upstream.name}"))
        if target is None:
            raise Refusal(404, "not_found", "Not found")
        is_get = exchange.method == "GET"
        body = b"" if is_get else exchange.body
        model, is_streamed, allowed = ("", False, 0) if is_get else self._peek(upstream, target, body)
        query = _forwarded_query(exchange.query)
        if self.settings.providers.mock_responses:
            asked = replace(target, path=target.path + query, model=model)
            return await DemoCall(
                gateway=self.gateway, permit=permit, exchange=exchange, target=asked, is_streamed=is_streamed
            ).answer()
        if not self.gateway.models.is_configured(upstream.provider):
            status, text, setting = upstream.key_missing
            raise Refusal(status, "provider_key_missing", text, missing=setting)
        headers = _forwarded_headers(upstream, exchange.headers)
        try:
            relay = await self.gateway.walk.relay(
                permit, upstream.provider, target.path + query, body, headers, exchange.facts,
                model=model, stream=is_streamed, method=exchange.method,
                allowed_tokens=allowed, is_free=target.is_free,
            )  # fmt: skip
        except ProviderRefusedKey as error:
            # Passed on, a 401 makes coding agents mint anew in a loop; and it is the operator who must act.
            logger.error(
                "the provider refuses our key", extra={"provider": upstream.provider, "status": error.upstream_code}
            )
            raise Refusal(502, error.code, "Bad Gateway") from error
        except ProviderError as error:
            logger.warning(
                "relay failed", extra={"provider": upstream.provider, "code": error.code, "reason": error.reason}
            )
            raise Refusal(502, error.code, "Bad Gateway") from error
        if self.watch is not None and not target.is_free:
            self.watch.look_at(self.gateway, permit, self.unit_primitives, body)
        return await self._pass_back(upstream, relay, target, is_streamed=is_streamed)

    async def _pass_back(
        self, upstream: Upstream, relay: Relay, target: Target, *, is_streamed: bool
    ) -> Reply | StreamReply:
        answer = relay.answer
        try:
            encoding = answer.headers.get("content-encoding", "identity").lower()
            if encoding not in ("", "identity"):
                # The client is not told the encoding, so it could not read the body.
                error = ProviderBroke(f"the answer is {encoding[:20]}-encoded although identity was asked for")
                relay.settle("failed", None, error)
                raise error
            headers = _answer_headers(upstream, answer.headers)
            content_type = headers[0][1]
            is_stream = is_streamed and answer.status == 200
            # Servers of one's own call their streams by many a name; one that does not stream calls its answer JSON.
            has_events = content_type[:17].lower() == b"text/event-stream" or (
                is_stream and not target.streams and not _is_json(content_type)
            )
            # Google also streams JSON, an array whose elements come one by one.
            if has_events or (is_stream and target.streams):
                scan = target.dialect.scan_events() if target.dialect is not None and answer.status == 200 else None
                parts = _Passing(relay, scan, (target.dialect or upstream.usual) if has_events else None)
                return StreamReply(content_type, parts, answer.status, headers[1:] + STREAM_HEADERS + relay.headers)
            body = await relay.read_all(target.scan, target.said)
        except ProviderError as error:
            answer.close()
            logger.warning(
                "relay failed", extra={"provider": upstream.provider, "code": error.code, "reason": error.reason}
            )
            raise Refusal(502, error.code, "Bad Gateway") from error
        return Reply(answer.status, body, headers + relay.headers)

    def _peek(self, upstream: Upstream, target: Target, body: bytes) -> tuple[str, bool, int]:
        """The model that is asked, whether its answer streams (as the path says, else as the body does), and how many
        tokens it may have."""
        try:
            found = self.judged.read(body)
        except Repeated as repeated:
            raise Refusal(400, "member_repeated", "Invalid JSON", missing=repeated.name) from None
        except msgspec.ValidationError:
            # JSON, but no object.
            found = {}
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise Refusal(400, "json_invalid", "Invalid JSON") from None
        model = target.model or found.get("model")
        if not isinstance(model, str) or not model:
            raise Refusal(400, "model_missing", "Failed to extract model name")
        if not self.gateway.models.proxy_allows(upstream.name, model):
            raise Refusal(400, "model_unsupported", "Unsupported model")
        is_streamed = found.get("stream") is True if target.streams is None else target.streams
        return model, is_streamed, allowed_tokens(found)


class _Passing(AsyncIterator[bytes]):
    """The upstream's bytes unchanged; a stream that breaks gets its dialect's own error event, then the cut.

    dialect  None for a stream of anything but events, which is cut without a word

    A class and no generator: one that is closed before its first step would leave the upstream open.
    """

    __slots__ = ("_dialect", "_events", "_failure", "_relay", "_scan")

    def __init__(self, relay: Relay, scan: RelayScan | None, dialect: ServedDialect | None) -> None:
        self._relay = relay
        self._scan = scan
        relay.watch(scan)
        self._dialect = dialect
        self._events = WholeEvents() if dialect is not None else None
        """Behind half an event nobody could read the one that tells of a failure."""
        self._failure: BaseException | None = None

    async def __anext__(self) -> bytes:
        if self._failure is not None:
            raise StreamCut from self._failure
        scan = self._scan
        try:
            data = await self._read()
            if not data and scan is not None and not scan.is_complete:
                raise ProviderBroke("the stream ended without its terminal event")
        except ProviderError as error:
            self._end_where_told()
            self._failure = error.with_traceback(None)  # its frames hold this: a ring for the collector
            self._settle("failed", error)
            await self._relay.call.settled()
            return self._last_words(502, error.code, "The provider's answer was cut.")
        except asyncio.CancelledError as stopped:
            if stopped.args != (DRAINING,):
                raise
            self._end_where_told()
            self._failure = stopped.with_traceback(None)
            self._settle("client_cancelled")  # the ledger knows better: it is stopping
            return self._last_words(503, "server_draining", "The gateway is stopping; ask again.")
        if not data:
            self._settle("completed" if self._relay.answer.status < 400 else "failed")
            await self._relay.call.settled()
            raise StopAsyncIteration
        if scan is not None and scan.is_complete:
            # To the client the answer ends here, whatever HTTP has to add.
            self._settle("completed" if scan.failure is None else "failed", scan.failure)
            await self._relay.call.settled()
        return data

    async def _read(self) -> bytes:
        """What may go to the client: whole events, or whatever comes; b"" at the end."""
        relay, events = self._relay, self._events
        while data := await relay.answer.read():
            whole = data if events is None else events.feed(data)
            if whole:
                relay.passed(whole)
                return whole
        rest = b"" if events is None else events.take_rest()
        if rest:
            # A stream may end without its last blank line, but not within an event.
            relay.passed(rest)
            if self._scan is not None and not self._scan.is_complete:
                return b""
        return rest

    def _end_where_told(self) -> None:
        """Behind the event that ends an answer nothing can spoil it any more; an error event there would."""
        if self._dialect is not None and self._scan is not None and self._scan.is_complete:
            raise StopAsyncIteration

    def _last_words(self, status: int, code: str, message: str) -> bytes:
        if self._dialect is None:
            raise StreamCut from self._failure
        return self._dialect.write_error_event(status, code, message)

    async def aclose(self) -> None:
        self._relay.answer.close()
        self._settle("client_cancelled")

    def _settle(self, outcome: Outcome, error: ProviderError | None = None) -> None:
        self._relay.settle(outcome, None, error)


def _forwarded_headers(upstream: Upstream, headers: Headers) -> Mapping[str, str]:
    """The client's allow-listed headers."""
    kept: Mapping[str, str] | None = headers.kept.get(upstream.request_headers)
    if kept is None:
        kept = headers.kept[upstream.request_headers] = headers.select(upstream.request_headers)
    return kept


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower().endswith((b"/json", b"+json"))


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
