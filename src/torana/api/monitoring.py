"""Liveness, readiness, metrics, and our own issuer's documents. Public, so nothing here spends money or time."""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from torana import __version__
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route, json_reply
from torana.caller import Permit
from torana.errors import Refusal
from torana.telemetry.metrics import Metrics

logger = logging.getLogger("torana.api.monitoring")

Check = Callable[[], tuple[bool, str]]
"""Says whether a part is ready, and why or why not. Cheap: it looks at what is known, it asks nobody."""


class Readiness:
    """The verdict of /monitoring/ready and /readyz."""

    def __init__(self, checks: Mapping[str, Check], notes: Callable[[], Mapping[str, tuple[bool, str]]] = dict) -> None:
        self.checks = checks
        self.notes = notes
        """Shown to operators with the checks; they never make the verdict false."""
        self.is_draining = False

    def verdict(self) -> tuple[bool, dict[str, dict[str, Any]]]:
        rows: dict[str, dict[str, Any]] = {}
        is_ready = not self.is_draining
        if self.is_draining:
            rows["draining"] = {"ok": False, "detail": "the process is stopping"}
        for name, check in self.checks.items():
            ok, detail = check()
            rows[name] = {"ok": ok, "detail": detail}
            is_ready = is_ready and ok
        return is_ready, rows

    def report(self) -> tuple[bool, dict[str, dict[str, Any]]]:
        """The verdict with all that operators want to know."""
        is_ready, rows = self.verdict()
        return is_ready, rows | {name: {"ok": ok, "detail": detail} for name, (ok, detail) in self.notes().items()}


class MonitoringEndpoints:
    def __init__(
        self,
        readiness: Readiness,
        jwks: Callable[[], dict[str, Any]],
        discovery: Callable[[str], dict[str, Any] | None],
        public_url: str,
    ) -> None:
        self.readiness = readiness
        self.jwks = jwks
        self.discovery = discovery
        self.public_url = public_url

    def routes(self) -> list[Route]:
        def get(path: str, handle: Callable[[Exchange, Permit, Any], Awaitable[Reply]]) -> Route:
            return Route(path=path, methods=("GET", "HEAD"), handle=handle, body="none", is_open=True)

        return [
            get("/monitoring/healthz", self.healthz),
            get("/monitoring/ready", self.ready),
            get("/.well-known/jwks.json", self.show_jwks),
            get("/.well-known/openid-configuration", self.show_discovery),
        ]

    async def healthz(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        return Reply(200, b"{}")

    async def ready(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        is_ready, _ = self.readiness.verdict()
        return Reply(200 if is_ready else 503, b"{}")

    async def show_jwks(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        return json_reply(self.jwks())

    async def show_discovery(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        document = self.discovery(self.public_url) if self.public_url else None
        if document is None:
            raise Refusal(404, "not_found", "Not Found", remedy="Set AIGW_PUBLIC_URL to this gateway's absolute URL.")
        return json_reply(document)


class OperatorsApp:
    """The ASGI app of the metrics port: no authentication, reachable by operators only."""

    def __init__(self, metrics: Metrics, readiness: Readiness) -> None:
        self.metrics = metrics
        self.readiness = readiness

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        status, content_type, body = self._answer(scope["method"], scope["path"])
        logger.debug("operators' request", extra={"path": scope["path"], "status_code": status})
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, JSON_HEADER[1], b'{"detail":"Method Not Allowed"}'
        if path == "/metrics":
            body, content_type = self.metrics.expose()
            return 200, content_type.encode(), body
        if path == "/healthz":
            return 200, JSON_HEADER[1], b"{}"
        if path == "/readyz":
            is_ready, rows = self.readiness.report()
            return 200 if is_ready else 503, JSON_HEADER[1], msgspec.json.encode({"ready": is_ready, "checks": rows})
        if path == "/version":
            return 200, JSON_HEADER[1], msgspec.json.encode({"version": __version__})
        return 404, JSON_HEADER[1], b'{"detail":"Not Found"}'
