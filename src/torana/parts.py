"""The parts of one worker that outlive every catalogue, made in the order of the walk; each is handed to the next."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from torana.access.keys import KeyRing
from torana.access.local_keys import LocalKeys, load_local_keys
from torana.access.minting import Minter
from torana.access.quota import QuotaGate
from torana.access.shelf import Shelf
from torana.access.tokens import Verifier
from torana.api.abuse import AbuseWatch
from torana.api.internal_events import InternalEvents
from torana.api.search import SearchEndpoints
from torana.background import within
from torana.catalog.snapshot import Catalogue
from torana.clock import Clock
from torana.code.cleaning import Cleaner
from torana.heap import Heap
from torana.labels import known_labels
from torana.limits.leases import Leases
from torana.limits.minutes import MinuteLimit
from torana.limits.shared_table import SharedTable
from torana.limits.table import Table
from torana.providers.demo.demo import DemoProvider
from torana.providers.send import Sender
from torana.providers.table import provider_table
from torana.routing.discovery import FirstModel
from torana.routing.traffic import Traffic
from torana.search.index import DocsIndex
from torana.settings import Settings
from torana.sinks import SinkMakers
from torana.telemetry.log import Log
from torana.telemetry.metrics import Metrics
from torana.transport import Transport, extra_certificates
from torana.usage.deliveries import Deliveries
from torana.usage.disk import Disk
from torana.usage.folder import new_name
from torana.usage.ledger import Ledger, WhenFull
from torana.usage.spool import PATIENCE_S, Spool
from torana.vocabulary import CountingThread

logger = logging.getLogger("torana")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a reload hands on. Some are told of the new catalogue then: see `Serving.build` in app.py."""

    settings: Settings
    clock: Clock
    log: Log
    metrics: Metrics
    heap: Heap
    transport: Transport
    loop_mark: str
    """What the headers of our own requests say, so that one that comes back is known."""

    local_keys: LocalKeys
    keys: KeyRing
    verifier: Verifier
    quota: QuotaGate
    minter: Minter

    counts: Table
    """What limits count; shared by the workers of this server."""
    leases: Leases | None
    """Their share of what all servers count together; None: this server counts by itself."""

    first_model: FirstModel
    traffic: Traffic
    sender: Sender
    counting: CountingThread
    cleaner: Cleaner

    spool: Spool
    sink_makers: SinkMakers
    deliveries: Deliveries
    ledger: Ledger

    search: SearchEndpoints
    abuse: AbuseWatch | None
    events: InternalEvents | None

    @property
    def closers(self) -> list[Callable[[], object]]:
        """Their ends, plain or awaitable, in the order in which they are to go."""
        return [
            self.counting.close, self.cleaner.aclose,
            *([self.abuse.aclose] if self.abuse is not None else []), self.traffic.aclose, self.first_model.aclose,
            self.keys.aclose, self.quota.aclose,
            *([self.events.aclose] if self.events is not None else []),
            self.spool.stop, self.deliveries.aclose, partial(within, PATIENCE_S, self.spool.release),
            self.transport.aclose,
            *([self.leases.aclose] if self.leases is not None else []),
            self.counts.close, self.metrics.close, self.log.close,
        ]  # fmt: skip


def make_parts(
    settings: Settings, catalogue: Catalogue, log: Log, *, clock: Clock, metrics_dir: Path | None, disk: Disk
) -> Parts:
    """
    catalogue    the first one that serves
    metrics_dir  where all workers' counts are summed; None: this worker is alone
    """
    auth = settings.auth
    metrics = Metrics(known_labels(catalogue, settings.providers), settings.providers.model_engine_limits, metrics_dir)
    heap = Heap()
    allowed = settings.providers.allowed_endpoints
    transport = Transport(settings.transport, allowed_endpoints=allowed, heap=heap)

    counts = Table() if metrics_dir is None else SharedTable(metrics_dir)
    counts.gave_way = metrics.limit_count_lost
    leases = _make_leases(settings, counts, clock, metrics)

    local_keys = load_local_keys(settings)
    shelf = None if metrics_dir is None else Shelf(metrics_dir)
    keys = KeyRing(auth, local_keys, transport, clock, meter=metrics, shelf=shelf)
    verifier = Verifier(
        auth,
        keys,
        clock,
        unit_primitives=catalogue.unit_primitives,
        trusted_proxies=settings.serve.trusted_proxies,
        failures=MinuteLimit("auth failures", auth.failures_per_minute, counts, clock, leases),
    )
    verifier.set_deny_list(catalogue.deny.values())
    quota = QuotaGate(settings, transport, clock, meter=QuotaMeter(metrics))
    minted = MinuteLimit("minted", auth.mint_per_minute, counts, clock, leases)
    minter = Minter(auth, local_keys, clock, minted=minted)

    own_id = settings.serve.gateway_id or local_keys.gateway_id()
    loop_mark = f"torana-{own_id}"
    providers = provider_table(settings.providers, transport, clock)
    demo = DemoProvider(settings.providers.demo_engine)
    sender = Sender(transport, providers, demo, f"1.1 {loop_mark}", settings.transport)
    spool = Spool(
        settings.spool_path, new_name(own_id), disk, metrics.usage,
        max_bytes=settings.usage.max_spool_bytes,
    )  # fmt: skip
    sink_makers = SinkMakers(settings, transport, spool, clock, metrics, own_id)
    return Parts(
        settings=settings,
        clock=clock,
        log=log,
        metrics=metrics,
        heap=heap,
        transport=transport,
        loop_mark=loop_mark,
        local_keys=local_keys,
        keys=keys,
        verifier=verifier,
        quota=quota,
        minter=minter,
        counts=counts,
        leases=leases,
        first_model=FirstModel(settings.providers, transport),
        traffic=Traffic(settings.routing, clock, metrics, workers=settings.serve.workers),
        sender=sender,
        counting=CountingThread(),
        cleaner=Cleaner(),
        spool=spool,
        sink_makers=sink_makers,
        deliveries=Deliveries(spool, sink_makers.of(catalogue.sinks.values())),
        ledger=Ledger(spool, clock, own_id, cast("WhenFull", settings.usage.when_full)),
        search=SearchEndpoints(DocsIndex(settings.search.index), settings, clock),
        abuse=AbuseWatch(settings.abuse, metrics) if settings.abuse.enabled else None,
        events=_make_events(settings, transport, metrics),
    )


def _make_leases(settings: Settings, counts: Table, clock: Clock, metrics: Metrics) -> Leases | None:
    limits = settings.limits
    if not limits.redis_url:
        return None
    return Leases(
        counts,
        limits.redis_url.reveal(),
        clock,
        metrics,
        timeout_s=limits.patience_s,
        workers=settings.serve.workers,
        replicas=limits.replicas,
        trusted=extra_certificates(settings.transport),
    )


def _make_events(settings: Settings, transport: Transport, metrics: Metrics) -> InternalEvents | None:
    """Only where they are switched on and somebody takes them."""
    wanted = settings.internal_events
    if not wanted.enabled:
        return None
    if not wanted.endpoint:
        logger.warning("AIGW_INTERNAL_EVENT__ENABLED without AIGW_INTERNAL_EVENT__ENDPOINT: no events are sent")
        return None
    return InternalEvents(wanted, transport, metrics, settings.environment)


@dataclass(frozen=True, slots=True)
class QuotaMeter:
    """Counts the quota gate's questions."""

    metrics: Metrics

    def checked(self, result: str, realm: str) -> None:
        self.metrics.quota_check(result, realm)

    def asked(self, outcome: str, status: int, realm: str, seconds: float) -> None:
        self.metrics.portal_request(outcome, status, realm, seconds)
