"""READ FIRST: how one worker comes up.

`start` makes the parts that outlive every catalogue (parts.py), what serves the present one, and two listening ports.
`Serving` makes whatever hangs on a catalogue, in the order of the walk, and joins the route lists.
"""

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torana.access.permissions import enabled_flags
from torana.api.accepting import bind
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
from torana.api.models import ModelEndpoints
from torana.api.monitoring import MonitoringEndpoints, OperatorsApp, Readiness
from torana.api.prompts import PromptEndpoints
from torana.api.proxy import ProxyEndpoints
from torana.api.route_table import RouteTable
from torana.api.routes import all_routes
from torana.api.server import Listener
from torana.api.tokens import TokenEndpoints
from torana.api.x_ray import XRayEndpoints
from torana.catalog.load import load_catalogue, overlay_paths
from torana.clock import Clock
from torana.explaining import DryRun
from torana.gateway import Gateway
from torana.labels import known_labels
from torana.limits.here import Here
from torana.limits.limits import Limits
from torana.limits.shared_table import watch_the_dead
from torana.overrides import check_overrides
from torana.parts import Parts, make_parts
from torana.prompts.registry import Prompts
from torana.providers.google_tokens import MISSING, is_library_missing
from torana.ready_checks import issuer_detail, keys_check, models_check, spool_note
from torana.rehearsal import Rehearsal
from torana.reload import Reloader
from torana.routing.fences import Fences
from torana.routing.models import Models
from torana.routing.router import Router
from torana.settings import ServeSettings, Settings
from torana.start_checks import check_endpoints, check_store, check_trust
from torana.telemetry.log import LogSink, install
from torana.telemetry.loop_watch import watch_loop
from torana.telemetry.redaction import Redactor, secrets_of
from torana.usage.disk import Disk
from torana.walk import Walk

logger = logging.getLogger("torana")


class Serving:
    """The catalogue that serves now, and the entrance to it."""

    def __init__(self, parts: Parts, models: Models) -> None:
        self.parts = parts
        self.models = models
        self.redactor = Redactor(secrets_of(parts.settings))
        self.readiness = Readiness(
            {
                "keys": lambda: keys_check(parts.settings, parts.keys),
                "default_models": lambda: models_check(self.models),
                "docs_search": parts.search.check,
            },
            self._notes,
        )
        auth = parts.settings.auth
        self.entrance = Entrance(
            self._join_routes(models),
            parts.verifier,
            parts.quota,
            lambda headers, realm: enabled_flags(headers, realm, auth),
            parts.metrics,
            parts.log,
            parts.settings.serve,
            parts.heap,
            parts.loop_mark,
            auth.operator_token,
        )
        self.entrance.may_log = make_policy(parts.settings)
        self.entrance.events = parts.events
        self._fence_events(models)

    def build(self, overlays: Sequence[Path]) -> Callable[[], None]:
        """Read and check the catalogue anew, off the event loop; the callable swaps it in.

        Raises BadSetting, BadCatalogue.
        """
        settings = self.parts.settings
        catalogue = load_catalogue(overlays)
        models = Models(catalogue, settings.providers, self.parts.clock)
        check_overrides(settings, models)
        routes = self._join_routes(models)
        sinks = self.parts.sink_makers.of(catalogue.sinks.values())
        listing = models.listing()

        def swap() -> None:
            if catalogue.sinks != self.models.catalogue.sinks:
                self.parts.deliveries.replace(sinks)
            self._fence_events(models)
            self.parts.traffic.book.follow(listing)
            self.entrance.routes, self.models = routes, models
            self.entrance.over_limit.forget()
            self.share_limits()
            self.parts.verifier.set_unit_primitives(catalogue.unit_primitives)
            self.parts.verifier.set_deny_list(catalogue.deny.values())
            self.parts.metrics.know(known_labels(catalogue, settings.providers))

        return swap

    def share_limits(self) -> None:
        """Begin to, where there is something to share; go on by the limits that hold now."""
        leases = self.parts.leases
        if leases is None:
            return
        leases.give_back()
        if self.entrance.routes.is_limited:
            leases.start()

    def _join_routes(self, models: Models) -> RouteTable:
        """Everything that hangs on one catalogue: requests under way keep the one they came in with."""
        parts, catalogue = self.parts, models.catalogue
        settings, clock = parts.settings, parts.clock
        prompts = Prompts(catalogue, settings.catalogue, clock)
        router = Router(models, parts.sender, parts.traffic, parts.first_model)
        limits = Limits(catalogue, parts.leases or Here(parts.counts, clock), clock, parts.metrics)
        details = settings.serve.detail_headers
        walk = Walk(models, router, parts.sender, limits, parts.metrics, detail_headers=details, ledger=parts.ledger)
        gateway = Gateway(prompts, walk, settings.catalogue, parts.counting, parts.cleaner)
        own_keys, public_url = parts.local_keys, settings.serve.public_url

        def open_rehearsal() -> Rehearsal:
            return Rehearsal(
                settings,
                catalogue,
                clock=clock,
                limits=limits,
                traffic=parts.traffic,
                first_model=parts.first_model,
            )

        return RouteTable(
            all_routes(
                MonitoringEndpoints(self.readiness, own_keys.jwks, own_keys.discovery, public_url),
                TokenEndpoints(parts.minter),
                CodeEndpoints(gateway, settings, clock),
                ChatEndpoints(gateway, settings),
                ChatV1Endpoints(gateway, settings, clock),
                PromptEndpoints(gateway, settings),
                ProxyEndpoints(gateway, catalogue.unit_primitives, settings, parts.abuse),
                DialectEndpoints(gateway, catalogue.unit_primitives, settings, self.redactor),
                parts.search,
                EmbeddingEndpoints(gateway, settings),
                XRayEndpoints(gateway),
                AmazonQEndpoints(),
                ModelEndpoints(models, settings.auth),
                FeatureEndpoints(gateway, catalogue.features.values(), settings, clock),
                DocsEndpoints(settings),
            ),
            limits,
            DryRun(open_rehearsal),
        )

    def _fence_events(self, models: Models) -> None:
        fences = Fences(models.catalogue.residency.values())
        if self.parts.events is not None:
            self.parts.events.may_tell = lambda caller: fences.of(caller) is None

    def _notes(self) -> dict[str, tuple[bool, str]]:
        """What operators want to know beside readiness."""
        parts = self.parts
        notes = {"usage_spool": spool_note(parts.spool, parts.metrics.usage.full_elsewhere())}
        if parts.leases is not None and self.entrance.routes.is_limited:
            notes["shared_limits"] = parts.leases.state
        issuers = {f"issuer {state.issuer}": (state.ok, issuer_detail(state)) for state in parts.keys.states()}
        return notes | issuers


@dataclass(slots=True, kw_only=True)
class Running:
    """One worker, serving."""

    port: int
    metrics_port: int
    parts: Parts
    serving: Serving
    reloader: Reloader
    listeners: list[Listener]
    """The main one first, then that of the metrics port."""
    closers: list[Callable[[], object]] = field(default_factory=list)
    """What ends beside the parts, and before them; plain or awaitable."""

    async def drain(self) -> None:
        """Not ready from now on; returns when running requests have finished or the limit is over."""
        self.serving.readiness.is_draining = True
        await self.listeners[0].drain(self.parts.settings.serve.drain_s)

    async def aclose(self) -> None:
        """Stop at once; what still runs is cut off. A part that cannot end keeps no other one from its end."""
        self.serving.readiness.is_draining = self.parts.ledger.is_stopping = True
        for close in (*[each.aclose for each in self.listeners], *self.closers, *self.parts.closers):
            try:
                result = close()
                if hasattr(result, "__await__"):
                    await result
            except Exception:
                logger.exception("a part of a worker did not end")


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
    check_store(settings.limits.redis_url.reveal())
    models = Models(catalogue, settings.providers, clock)
    for line in check_overrides(settings, models):
        logger.warning(line)
    if settings.providers.google.project and is_library_missing():
        logger.warning("Vertex AI cannot be called: %s", MISSING)

    parts = make_parts(settings, catalogue, log, clock=clock, metrics_dir=metrics_dir, disk=disk or Disk())
    sink.on_drop = parts.metrics.lines_dropped
    serving = Serving(parts, models)
    reloader = Reloader(lambda: serving.build(overlays), parts.metrics, overlays)
    main_socket, metrics_socket = _bind(settings.serve, main_socket, metrics_socket)
    entrance = serving.entrance
    main = Listener(entrance, settings.serve, with_tls=True, door=entrance, upstream=parts.transport)
    operators = Listener(OperatorsApp(parts.metrics, serving.readiness), settings.serve, with_tls=False)
    running = Running(
        port=main_socket.getsockname()[1],
        metrics_port=metrics_socket.getsockname()[1],
        parts=parts,
        serving=serving,
        reloader=reloader,
        listeners=[main, operators],
    )
    parts.keys.start()
    if default_is_openai(models):
        parts.first_model.start()
    if settings.catalogue.watch and overlays:
        reloader.watch()
    await main.start(main_socket)
    await operators.start(metrics_socket)
    loop = asyncio.get_running_loop()
    watch = loop.create_task(watch_loop(parts.metrics, Clock()))
    serving.share_limits()
    dead = loop.create_task(watch_the_dead(parts.counts))
    running.closers = [watch.cancel, dead.cancel, reloader.aclose]
    # What start-up made stays; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    return running


def _bind(
    serve: ServeSettings, main: socket.socket | None, metrics: socket.socket | None
) -> tuple[socket.socket, socket.socket]:
    """Both ports, or none; raises OSError."""
    main = main or bind(serve.host, serve.port, shared=False)
    try:
        return main, metrics or bind(serve.metrics_host or serve.host, serve.metrics_port, shared=False)
    except OSError:
        main.close()
        raise


def default_is_openai(models: Models) -> bool:
    """True while a default alias resolves to a server whose own model is to be asked for."""
    return any(
        not deployment.model
        for name in models.catalogue.aliases
        for deployment in models.find_by_name(name).deployments
        if deployment.provider == "openai"
    )
