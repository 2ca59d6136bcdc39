"""ENTER: the ASGI app. Request id, limits, who is calling, the matched route's gate, errors → replies, access line.

The order of checks is contract 1.1: loop mark, CORS, authentication, routing, body, validation, permission,
quota, handler. Nothing here knows what an endpoint does.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from torana.access.permissions import for_user
from torana.api.access_log import refused_line, write_access_line
from torana.api.admission import HEADROOM, Admission, Standing
from torana.api.answer_writer import AnswerWriter
from torana.api.answering import Answering
from torana.api.body_memory import BodyMemory
from torana.api.connection import BODY_MALFORMED, BODY_TOO_SLOW, DRAINING, READER_TOO_SLOW, Connection
from torana.api.contents import MayLog
from torana.api.crowds import Crowds, kind_of
from torana.api.dialect_front import did_you_mean, front_of
from torana.api.discarding import MAX_DISCARDED_BYTES
from torana.api.dry_run import admit_operator
from torana.api.exchange import Exchange, Reply, Route, StreamReply, json_reply
from torana.api.heads import MAX_REQUEST_ID_BYTES, Head, pairs_of
from torana.api.internal_events import InternalEvents
from torana.api.large_bodies import LARGE_BYTES, LargeBodies
from torana.api.lookups import limited
from torana.api.over_limit import Asked, OverLimit
from torana.api.prefixes import Prefixes
from torana.api.preflight import PREFLIGHT, preflight
from torana.api.refusing import EXPLAINED, write_refusal
from torana.api.route_table import RouteTable
from torana.api.unread import TurnedAway, start_of
from torana.caller import Caller
from torana.errors import ProviderError, Refusal
from torana.headers import Headers
from torana.heap import LARGE_BYTES as HEAP_BYTES
from torana.heap import Heap
from torana.limits.limits import Limits
from torana.limits.reached import LimitReached
from torana.networks import Networks, plain
from torana.routing.traffic import NO_ROOM
from torana.settings import Secret, ServeSettings
from torana.telemetry.log import Log
from torana.telemetry.log import request_id as current_request_id
from torana.telemetry.metrics import Metrics
from torana.usage.ledger import NO_ORIGIN

logger = logging.getLogger("torana.api")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

UNREADABLE = {414: "uri_too_long", 431: "headers_too_large"}
"""Codes of requests that never became one."""

ENDED = {
    DRAINING: (503, "server_draining", "Service Unavailable"),
    BODY_TOO_SLOW: (408, "body_too_slow", "Request Timeout"),
    BODY_MALFORMED: (400, "body_malformed", "Invalid HTTP request received."),
}
"""What a request is answered whose task was cancelled while its client is still there."""


class Authenticator(Protocol):
    def recognize(self, headers: Headers, *, lenient: bool) -> Caller | None:
        """As `authenticate`, where it has let the same headers pass before; None: it has not, or must look anew."""
        ...

    async def authenticate(self, headers: Headers, client: str, *, lenient: bool = False) -> Caller:
        """Raises Refusal 401 or 503. `lenient` is for vendors' SDKs, which know no headers of ours."""
        ...

    def admits(self, headers: Headers, *, lenient: bool) -> bool:
        """Whether `authenticate` lets them pass, by a token that was verified before."""
        ...

    def known_instance(self, token: bytes) -> str:
        """Who vouched for this token, where it was verified before; empty: nobody knows."""
        ...


class QuotaGate(Protocol):
    async def check(self, caller: Caller, headers: Headers, event_type: str, model_id: str, request_id: str) -> None:
        """Raises Refusal 402 or 403."""
        ...


class Entrance:
    """The ASGI application of the main port."""

    def __init__(
        self,
        routes: RouteTable,
        authenticator: Authenticator,
        quota: QuotaGate,
        read_flags: Callable[[Headers, str], frozenset[str]],
        metrics: Metrics,
        log: Log,
        serve: ServeSettings,
        heap: Heap,
        loop_mark: str,
        operator_token: Secret = Secret(),  # noqa: B008 immutable
    ) -> None:
        self.routes = routes
        self.authenticator = authenticator
        self.quota = quota
        self.read_flags = read_flags
        self.metrics = metrics
        self.log = log
        self.serve = serve
        self.loop_mark = loop_mark
        self.operator_token = operator_token
        self.may_log: MayLog = lambda _headers, _flags: False
        """Whose prompts and answers may be written to the log."""
        self.events: InternalEvents | None = None
        """Told about requests where the operator wants the product's own events."""
        self.admission = Admission(
            metrics, max_waiting=serve.queue_requests, max_age_s=serve.queue_s, weights=serve.queue_weights
        )
        self.crowds = Crowds(metrics.shed)
        self.over_limit = OverLimit()
        self.heap = heap
        # Who waits there has waited in the line before.
        patience_s = HEADROOM * serve.queue_s / 2
        self.large_bodies = LargeBodies(self.admission, metrics.shed, patience_s, serve.queue_weights)
        self.body_memory = BodyMemory(serve.body_memory_bytes, metrics)
        self.prefixes = Prefixes(serve.root_path)
        self.turned_away = TurnedAway(log, self.prefixes.strip, write_refusal, metrics)
        self.trusted = Networks(serve.trusted_proxies)
        self.body_limits = {
            "typed": serve.max_body_bytes,
            "proxy": serve.max_proxy_body_bytes,
            "mint": serve.max_mint_body_bytes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        cpu_started = time.thread_time()
        writer: AnswerWriter | None = scope.get("torana.writer")
        headers: Headers = scope["torana.headers"]
        exchange = Exchange(
            scope["method"],
            self.prefixes.strip(scope["path"]),
            scope["query_string"],
            headers,
            self._client_of(scope, headers),
            _request_id(headers),
        )
        current_request_id.set(exchange.request_id)
        answer = Answering(exchange, send, writer, started, exchange.steady.has_origin)
        try:
            try:
                await self._walk(exchange, receive, answer)
            except Refusal as refusal:
                if isinstance(refusal, LimitReached):
                    self.over_limit.note(Asked(exchange.endpoint, exchange.caller.party), refusal)
                # Of a long body that was not read more would come than is read past.
                is_long = not exchange.body and headers.body_bytes() > MAX_DISCARDED_BYTES
                await answer.refuse(write_refusal(refusal, exchange), closes=refusal.closes or is_long)
            except ProviderError as error:
                logger.warning("provider failed", extra={"code": error.code, "where": error.where})
                await answer.refuse(write_refusal(Refusal(502, error.code, "Bad Gateway"), exchange))
        except asyncio.CancelledError as gone:
            if gone.args and gone.args[0] in ENDED and not answer.status:
                ended = Refusal(*ENDED[gone.args[0]])
                await answer.refuse(write_refusal(ended, exchange), closes=True)
            else:
                exchange.facts.setdefault("outcome", "client_cancelled")
                if gone.args == (READER_TOO_SLOW,):
                    exchange.facts["http_exception_details"] = READER_TOO_SLOW
        except Exception as error:
            # The loop must outlive every fault of a handler; the caller learns nothing but that it failed.
            logger.exception("unexpected error")
            exchange.facts["exception_class"] = type(error).__name__
            if not answer.status:
                failed = Refusal(500, "internal", "Internal Server Error")
                await answer.refuse(write_refusal(failed, exchange))
        finally:
            self._close_books(exchange, answer, scope, started, cpu_started)

    async def _walk(self, exchange: Exchange, receive: Receive, answer: Answering) -> None:
        headers = exchange.headers
        routes = self.routes  # a reload may swap them meanwhile
        steady = exchange.steady
        if steady.has_via and self.loop_mark in re.split(r"[,\s]+", _joined(headers, b"via")):
            raise Refusal(508, "loop_detected", "Loop detected")
        if exchange.method == "OPTIONS" and headers.get(b"access-control-request-method") is not None:
            await answer.whole(preflight(headers))
            exchange.route = PREFLIGHT
            return
        route, exchange.tail, other_methods = routes.find(exchange.method, exchange.path)
        exchange.route = route
        is_open = routes.is_open(exchange.path) if route is None else route.is_open
        if not is_open:
            if exchange.path == "/metrics":
                raise Refusal(404, "not_found", "Not Found")
            await self._authenticate(exchange)
        if route is None:
            raise _nothing_there(exchange, other_methods, routes)
        exchange.facts.origin = exchange
        if self.may_log(headers, exchange.flags):
            exchange.facts.logs_contents = True
        if steady.is_dry_run and not is_open and routes.rehearse is not None:
            admit_operator(headers, self.operator_token)
            exchange.facts["dry_run"] = True
            exchange.body = await self._read_body(exchange, receive, answer.writer, self.body_limits.get(route.body, 0))
            await answer.whole(json_reply(await routes.rehearse(exchange)))
            return
        limits = routes.limits
        if route.body != "none" and exchange.method != "GET":
            if limits is not None and limits.rules and route.body != "mint" and not is_open:
                # Whoever has nothing left is told so before a body is read, and decoded, for nothing.
                limits.glance(exchange.caller, exchange.user, exchange.feature, headers.body_bytes() or 1)
            exchange.body = await self._read_body(exchange, receive, answer.writer, self.body_limits[route.body])
        reply = await self._ask(exchange, route, limits)
        if isinstance(reply, Reply):
            await answer.whole(reply)
        else:
            await answer.parts(reply)

    async def _authenticate(self, exchange: Exchange) -> None:
        """Who is calling, and the feature flags that count of those it names; raises Refusal 401 or 503."""
        headers, lenient = exchange.headers, exchange.front is not None
        started = time.perf_counter()
        known = self.authenticator.recognize(headers, lenient=lenient)
        exchange.caller = known or await self.authenticator.authenticate(headers, exchange.client, lenient=lenient)
        exchange.facts["auth_duration_s"] = time.perf_counter() - started
        if exchange.steady.names_flags:
            exchange.flags = self.read_flags(headers, exchange.caller.realm or headers.text(b"x-gitlab-realm"))

    async def _ask(self, exchange: Exchange, route: Route, limits: Limits | None) -> Reply | StreamReply:
        """The route's own part, in its order: what is asked, who may, the quota, the answer."""
        order = route.read(exchange) if route.read is not None else None
        if route.policy is None:
            return await route.handle(exchange, _NO_PERMIT, order)
        permit = for_user(route.policy(exchange, order), exchange.headers)
        exchange.facts["meta.unit_primitive"] = permit.unit_primitives[0] if permit.unit_primitives else ""
        if self.events is not None:
            self.events.requested(exchange, permit)
        if event := exchange.quota_event or route.quota:
            await self.quota.check(permit.caller, exchange.headers, event, exchange.quota_model_id, exchange.request_id)
        if limits is not None and limits.rules and route.asks_no_model:
            return await limited(limits, permit, exchange, lambda: route.handle(exchange, permit, order))
        return await route.handle(exchange, permit, order)

    async def _read_body(
        self, exchange: Exchange, receive: Receive, writer: AnswerWriter | None, limit_bytes: int
    ) -> bytes:
        if exchange.headers.body_bytes() > limit_bytes:
            raise _too_large()
        body = writer.take_body() if writer is not None else None
        if body is None:
            parts: list[bytes] = []
            total, has_more = 0, True
            while has_more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise asyncio.CancelledError("client gone")
                has_more = message.get("more_body", False)
                parts.append(message.get("body", b""))
                total += len(parts[-1])
                if total > limit_bytes:  # Content-Length may lie or be absent
                    raise _too_large()
                self.body_memory.hold(exchange, total)
            body = b"".join(parts)
        if len(body) > limit_bytes:
            raise _too_large()
        self.body_memory.hold(exchange, len(body))
        if len(body) > LARGE_BYTES:
            if len(body) > HEAP_BYTES:
                self.heap.keep()
            await self.large_bodies.take_turn(exchange.caller.party, len(body))
        return body

    def _client_of(self, scope: Scope, headers: Headers) -> str:
        client = plain(scope["client"][0]) if scope["client"] else ""
        if not self.trusted.hold(client):
            return client
        # A proxy may add a line of its own below the one that the client sent.
        for hop in reversed(_joined(headers, b"x-forwarded-for").split(",")):
            if not hop.strip():
                break
            client = plain(hop.strip())
            if not self.trusted.hold(client):
                break
        return client

    def _close_books(
        self,
        exchange: Exchange,
        answer: Answering,
        scope: Scope,
        started: float,
        cpu_started: float,
    ) -> None:
        """Exactly one access line and one sample for each request."""
        now = time.perf_counter()
        if self.events is not None:
            self.events.used(exchange)
        exchange.facts.origin = NO_ORIGIN  # it would be a ring for the collector
        self.body_memory.leave(exchange)
        has_no_room = exchange.facts.get("refusal_code") == NO_ROOM
        if has_no_room or self.crowds.are_any:
            kind = kind_of(exchange.path, exchange.caller.party, exchange.body)
            self.crowds.note(kind, was_refused=has_no_room)
        # Nor has a 405 a label of its own: without a token, routes times methods would use the series up (contract 15).
        label = "unknown" if exchange.route is None else exchange.route.name
        status = answer.status or 499
        began = answer.began or now
        self.metrics.request(label, exchange.method, status, began - started)
        if status in EXPLAINED and "refusal_code" in exchange.facts:
            self.metrics.refusal(exchange.facts["refusal_code"])
        write_access_line(
            self.log, exchange, scope, status=status, duration_s=now - started, response_start_s=began - started,
            first_chunk_s=answer.first_part - started if answer.first_part else None,
            cpu_s=time.thread_time() - cpu_started, content_type=answer.content_type,
        )  # fmt: skip

    def turn_away(
        self, connection: Connection, head: Head, code: str, *, stays: bool, limit: LimitReached | None
    ) -> bytes:
        """The answer to a request that the admission has no room for; its books are kept here."""
        return self.turned_away.answer(connection, head, code, stays=stays, limit=limit)

    def look(self, data: bytes) -> Head:
        """What is known of a request before anything of it was checked."""
        head = Head(data)
        method, target = start_of(head.start)
        head.path = self.prefixes.strip(target)
        route, _, _ = self.routes.find(method, head.path)
        head.route = route.name if route is not None else ""
        head.standing = Standing(
            is_background=route is not None and route.is_background,
            instance=self.authenticator.known_instance(head.token) if head.token else "",
            patience_s=head.patience_s,
        )
        return head

    def admits(self, head: Head, data: bytes) -> bool:
        """Whether a request that was only looked at would be let in."""
        return self.authenticator.admits(Headers(pairs_of(data)), lenient=front_of(head.path) is not None)

    def note_refusal(self, connection: Connection, status: int, request_id: str, path: str) -> None:
        """The books of a request that the server refused before it was one, or whose client left before it began."""
        self.metrics.request("unknown", "other", status, time.monotonic() - connection.since)
        client, named = connection.client or ("", 0), request_id or f"{random.getrandbits(128):032x}"
        line = refused_line(client, datetime.now(UTC), status, named, path=self.prefixes.strip(path))
        code = UNREADABLE.get(status)
        self.log.write_access(line, {"refusal_code": code, "refusal_layer": "client"} if code else {})


def _nothing_there(exchange: Exchange, other_methods: Sequence[str], routes: RouteTable) -> Refusal:
    """404, or 405 where the path answers other methods."""
    if other_methods:
        allow = (b"allow", ", ".join(other_methods).encode())
        return Refusal(405, "method_not_allowed", "Method Not Allowed", headers=(allow,))
    if exchange.front is None:
        return Refusal(404, "not_found", "Not Found")
    meant = did_you_mean(exchange.path, routes.paths)
    hint = f"; did you mean {meant}?" if meant else ""
    return Refusal(404, "not_found", f"Nothing is served under {exchange.path[:200]}{hint}")


def _too_large() -> Refusal:
    return Refusal(413, "body_too_large", "Request body too large", closes=True)


def _joined(headers: Headers, name: bytes) -> str:
    """All lines of one name as the one list that they are."""
    return ", ".join([value.decode("latin-1") for key, value in headers.pairs if key == name])


def _request_id(headers: Headers) -> str:
    given = headers.get(b"x-request-id")  # the parser lets no illegal value through
    if given and len(given) <= MAX_REQUEST_ID_BYTES:
        return given
    # Unlike uuid4, without a system call: an id of a request is no secret.
    return f"{random.getrandbits(128):032x}"


_NO_PERMIT: Any = None
