"""READ FIRST: makes every part, in the order of the walk, and hands it to the next.

`start` brings one worker up: parts, two listening ports, background tasks. `Running` is what came of it.
"""

import asyncio
import gc
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from torana.access.keys import KeyRing
from torana.access.local_keys import LocalKeys, load_local_keys
from torana.access.minting import Minter
from torana.access.permissions import enabled_flags
from torana.access.quota import QuotaGate
from torana.access.shelf import Shelf
from torana.access.tokens import Verifier
from torana.api.abuse import AbuseWatch
from torana.api.amazon_q import AmazonQEndpoints
from torana.api.chat import ChatEndpoints
from torana.api.chat_v1 import ChatV1Endpoints
from torana.api.code import CodeEndpoints
from torana.api.contents import make_policy
from torana.api.dialect_routes import DialectEndpoints
from torana.api.docs import DocsEndpoints
from torana.api.embeddings import EmbeddingEndpoints
from torana.api.entrance import Entrance
from torana.api.feature import FeatureEndpoints
from torana.api.internal_events import InternalEvents
from torana.api.models import ModelEndpoints
from torana.api.monitoring import MonitoringEndpoints, OperatorsApp, Readiness
from torana.api.prompts import PromptEndpoints
from torana.api.proxy import ProxyEndpoints
from torana.api.route_table import RouteTable
from torana.api.routes import all_routes
from torana.api.search import SearchEndpoints
from torana.api.server import Listener, bind
from torana.api.tokens import TokenEndpoints
from torana.api.x_ray import XRayEndpoints
from torana.catalog.load import load_catalogue, overlay_paths
from torana.clock import Clock
from torana.code.cleaning import Cleaner
from torana.explaining import DryRun
from torana.gateway import Gateway
from torana.labels import known_labels
from torana.limits.here import Here
from torana.limits.leases import Leases
from torana.limits.limits import Limits
from torana.limits.minutes import MinuteLimit
from torana.limits.shared_table import SharedTable, watch_the_dead
from torana.limits.table import Table
from torana.overrides import check_overrides
from torana.prompts.registry import Prompts
from torana.providers.demo.demo import DemoProvider
from torana.providers.google_tokens import MISSING, is_library_missing
from torana.providers.send import Sender
from torana.providers.table import provider_table
from torana.ready_checks import issuer_detail, keys_check, models_check, spool_note
from torana.rehearsal import Rehearsal
from torana.reload import Reloader
from torana.routing.discovery import FirstModel
from torana.routing.fences import Fences
from torana.routing.models import Models
from torana.routing.router import Router
from torana.routing.traffic import Traffic
from torana.search.index import DocsIndex
from torana.settings import Settings
from torana.sinks import SinkMakers
from torana.start_checks import check_endpoints, check_trust
from torana.telemetry.log import LogSink, install
from torana.telemetry.loop_watch import watch_loop
from torana.telemetry.metrics import Metrics
from torana.telemetry.redaction import Redactor, secrets_of
from torana.transport import Transport
from torana.usage.deliveries import Deliveries
from torana.usage.disk import Disk
from torana.usage.ledger import Ledger, WhenFull
from torana.usage.spool import Spool
from torana.vocabulary import CountingThread
from torana.walk import Walk

logger = logging.getLogger("torana")


@dataclass(slots=True, kw_only=True)
class Running:
    """One worker, serving."""

    port: int
    metrics_port: int
    readiness: Readiness
    entrance: Entrance
    models: Models
    """Of the catalogue that serves now."""
    keys: KeyRing
    traffic: Traffic
    transport: Transport
    reloader: Reloader
    ledger: Ledger
    listeners: list[Listener]
    drain_s: float
    closers: list[Callable[[], object]] = field(default_factory=list)
    """Ends of the parts, in the order in which they are to go; plain or awaitable."""

    async def drain(self) -> None:
        """Not ready from now on; returns when running requests have finished or the limit is over."""
        self.readiness.is_draining = True
        await self.listeners[0].drain(self.drain_s)

    async def aclose(self) -> None:
        """Stop at once; what still runs is cut off."""
        self.readiness.is_draining = self.ledger.is_stopping = True
        for listener in self.listeners:
            await listener.aclose()
        for close in self.closers:
            result = close()
            if hasattr(result, "__await__"):
                await result


async def start(
    settings: Settings,
    *,
    clock: Clock | None = None,
    sink: LogSink | None = None,
    main_socket: socket.socket | None = None,
    metrics_socket: socket.socket | None = None,
    metrics_dir: Path | None = None,
    disk: Disk | None = None,
) -> Running:
    """Bring one worker up. Raises BadSetting, BadCatalogue, or OSError for a port that is taken.

    sink          where log lines go, closed with the worker; None: stdout and the file of the settings
    disk          the file operations of the usage spool; None: the system's
    metrics_dir   where all workers' counts are summed; None: this worker is alone
    """
    clock = clock or Clock()
    sink = sink or LogSink(path=settings.log.to_file)
    log = install(settings.log, sink, secrets_of(settings))
    for line in settings.warnings:
        logger.warning(line)
    overlays = overlay_paths(settings.catalogue.overlays)
    catalogue = load_catalogue(overlays)

    check_trust(settings)
    check_endpoints(settings.providers.allowed_endpoints)
    models = Models(catalogue, settings.providers, clock)
    for line in check_overrides(settings, models):
        logger.warning(line)
    if settings.providers.google.project and is_library_missing():
        logger.warning("Vertex AI cannot be called: %s", MISSING)
    transport = Transport(settings.transport, allowed_endpoints=settings.providers.allowed_endpoints)
    metrics = Metrics(known_labels(catalogue, settings.providers), settings.providers.model_engine_limits, metrics_dir)
    sink.on_drop = metrics.lines_dropped

    counts = Table() if metrics_dir is None else SharedTable(metrics_dir)
    leases = leases_of(settings, counts, clock, metrics)

    local_keys = load_local_keys(settings)
    shelf = None if metrics_dir is None else Shelf(metrics_dir)
    keys = KeyRing(settings.auth, local_keys, transport, clock, meter=metrics, shelf=shelf)
    verifier = Verifier(
        settings.auth,
        keys,
        clock,
        unit_primitives=catalogue.unit_primitives,
        trusted_proxies=settings.serve.trusted_proxies,
        failures=MinuteLimit("auth failures", settings.auth.failures_per_minute, counts, clock, leases),
    )
    verifier.set_deny_list(catalogue.deny.values())
    quota = QuotaGate(settings, transport, clock, meter=QuotaMeter(metrics))
    minted = MinuteLimit("minted", settings.auth.mint_per_minute, counts, clock, leases)
    minter = Minter(settings.auth, local_keys, clock, minted=minted)

    own_id = gateway_id(settings, local_keys)
    via = f"1.1 torana-{own_id}"
    spool = Spool(
        settings.spool_path, own_id + secrets.token_hex(8), disk or Disk(), metrics.usage,
        max_bytes=settings.usage.max_spool_bytes,
    )  # fmt: skip
    makers = SinkMakers(settings, transport, spool, clock, metrics, own_id)
    deliveries = Deliveries(spool, makers.of(catalogue.sinks.values()))
    ledger = Ledger(spool, clock, own_id, cast("WhenFull", settings.usage.when_full))
    sender = Sender(
        transport,
        provider_table(settings.providers, transport, clock),
        DemoProvider(settings.providers.demo_engine),
        via,
        settings.transport,
    )
    first_model = FirstModel(settings.providers, transport)
    search = SearchEndpoints(DocsIndex(settings.search.index), settings, clock)
    readiness = Readiness(
        {
            "keys": lambda: keys_check(settings, keys),
            "default_models": lambda: models_check(running.models),
            "docs_search": search.check,
        },
        lambda: {
            "usage_spool": spool_note(spool, metrics.usage.full_elsewhere()),
            **({"shared_limits": leases.state} if leases is not None and entrance.routes.is_limited else {}),
            **{f"issuer {state.issuer}": (state.ok, issuer_detail(state)) for state in keys.states()},
        },
    )

    redactor = Redactor(secrets_of(settings))
    traffic = Traffic(settings.routing, clock, metrics, workers=settings.serve.workers)
    counting, cleaner = CountingThread(), Cleaner()
    abuse = AbuseWatch(settings.abuse, metrics) if settings.abuse.enabled else None

    def join_routes(models: Models) -> RouteTable:
        """Everything that hangs on one catalogue: requests under way keep the one they came in with."""
        prompts = Prompts(models.catalogue, settings.catalogue, clock)
        router = Router(models, sender, traffic, first_model)
        limits = Limits(models.catalogue, leases or Here(counts, clock), clock, metrics)
        walk = Walk(
            models, router, sender, limits, metrics, detail_headers=settings.serve.detail_headers, ledger=ledger
        )
        gateway = Gateway(prompts, walk, settings.catalogue, counting, cleaner)
        return RouteTable(
            all_routes(
                MonitoringEndpoints(readiness, local_keys.jwks, local_keys.discovery, settings.serve.public_url),
                TokenEndpoints(minter),
                CodeEndpoints(gateway, settings, clock),
                ChatEndpoints(gateway, settings),
                ChatV1Endpoints(gateway, settings, clock),
                PromptEndpoints(gateway, settings),
                ProxyEndpoints(gateway, models.catalogue.unit_primitives, settings, abuse),
                DialectEndpoints(gateway, models.catalogue.unit_primitives, settings, redactor),
                search,
                EmbeddingEndpoints(gateway, settings),
                XRayEndpoints(gateway),
                AmazonQEndpoints(),
                ModelEndpoints(models, settings.auth),
                FeatureEndpoints(gateway, models.catalogue.features.values(), settings, clock),
                DocsEndpoints(settings),
            ),
            limits,
            DryRun(
                lambda: Rehearsal(
                    settings, models.catalogue, clock=clock, limits=limits, traffic=traffic, first_model=first_model
                )
            ),
        )

    entrance = Entrance(
        join_routes(models),
        verifier,
        quota,
        lambda headers, realm: enabled_flags(headers, realm, settings.auth),
        metrics,
        log,
        settings.serve,
        via.split()[1],
        settings.auth.operator_token,
    )
    entrance.may_log = make_policy(settings)
    events = entrance.events = make_events(settings, transport, metrics)

    def fence_events(models: Models) -> None:
        fences = Fences(models.catalogue.residency.values())
        if events is not None:
            events.may_tell = lambda caller: fences.of(caller) is None

    fence_events(models)

    def build() -> Callable[[], None]:
        """Read and check the catalogue anew, off the event loop; the callable swaps it in."""
        catalogue = load_catalogue(overlays)
        models = Models(catalogue, settings.providers, clock)
        check_overrides(settings, models)
        routes = join_routes(models)
        sinks = makers.of(catalogue.sinks.values())

        def swap() -> None:
            if catalogue.sinks != running.models.catalogue.sinks:
                deliveries.replace(sinks)
            fence_events(models)
            entrance.routes, running.models = routes, models
            entrance.over_limit.forget()
            if leases is not None and routes.is_limited:
                leases.start()
            verifier.set_unit_primitives(catalogue.unit_primitives)
            verifier.set_deny_list(catalogue.deny.values())
            metrics.know(known_labels(catalogue, settings.providers))

        return swap

    reloader = Reloader(build, metrics, overlays)
    main = Listener(entrance, settings.serve, with_tls=True, door=entrance)
    operators = Listener(OperatorsApp(metrics, readiness), settings.serve, with_tls=False)
    serve = settings.serve
    main_socket = main_socket or bind(serve.host, serve.port, shared=False)
    try:
        metrics_socket = metrics_socket or bind(serve.metrics_host or serve.host, serve.metrics_port, shared=False)
    except OSError:
        main_socket.close()
        raise
    running = Running(
        port=main_socket.getsockname()[1],
        metrics_port=metrics_socket.getsockname()[1],
        readiness=readiness,
        entrance=entrance,
        models=models,
        keys=keys,
        traffic=traffic,
        transport=transport,
        reloader=reloader,
        ledger=ledger,
        listeners=[main, operators],
        drain_s=serve.drain_s,
    )
    keys.start()
    if default_is_openai(models):
        first_model.start()
    if settings.catalogue.watch and overlays:
        reloader.watch()
    await main.start(main_socket)
    await operators.start(metrics_socket)
    watch = asyncio.get_running_loop().create_task(watch_loop(metrics, Clock()))
    if leases is not None and entrance.routes.is_limited:
        leases.start()
    dead = asyncio.get_running_loop().create_task(watch_the_dead(counts))
    running.closers = [
        watch.cancel, dead.cancel, counting.close, cleaner.aclose,
        reloader.aclose, *([abuse.aclose] if abuse is not None else []), traffic.aclose, first_model.aclose,
        keys.aclose, quota.aclose,
        *([events.aclose] if events is not None else []),
        spool.stop, deliveries.aclose, spool.release, transport.aclose,
        *([leases.aclose] if leases is not None else []), counts.close, metrics.close, log.close,
    ]  # fmt: skip
    # What start-up made stays; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    return running


def make_events(settings: Settings, transport: Transport, metrics: Metrics) -> InternalEvents | None:
    """Only where they are switched on and somebody takes them."""
    wanted = settings.internal_events
    if not wanted.enabled:
        return None
    if not wanted.endpoint:
        logger.warning("AIGW_INTERNAL_EVENT__ENABLED without AIGW_INTERNAL_EVENT__ENDPOINT: no events are sent")
        return None
    return InternalEvents(wanted, transport, metrics, settings.environment)


def gateway_id(settings: Settings, local_keys: LocalKeys) -> str:
    """The loop mark: the same on all replicas that share a signing key."""
    return settings.serve.gateway_id or local_keys.gateway_id() or secrets.token_hex(4)


def leases_of(settings: Settings, table: Table, clock: Clock, metrics: Metrics) -> Leases | None:
    """The counts that all servers share; None: this one counts by itself."""
    limits = settings.limits
    if not limits.redis_url:
        return None
    return Leases(
        table,
        limits.redis_url.reveal(),
        clock,
        metrics,
        timeout_s=limits.patience_s,
        workers=settings.serve.workers,
        replicas=limits.replicas,
    )


@dataclass(frozen=True, slots=True)
class QuotaMeter:
    """Counts the quota gate's questions."""

    metrics: Metrics

    def checked(self, result: str, realm: str) -> None:
        self.metrics.quota_check(result, realm)

    def asked(self, outcome: str, status: int, realm: str, seconds: float) -> None:
        self.metrics.portal_request(outcome, status, realm, seconds)


def default_is_openai(models: Models) -> bool:
    """True while a default alias resolves to a server whose own model is to be asked for."""
    return any(
        not deployment.model
        for name in models.catalogue.aliases
        for deployment in models.find_by_name(name).deployments
        if deployment.provider == "openai"
    )
