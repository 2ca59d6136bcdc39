"""The walk of one request up to the moment where it would leave: the server's own endpoints and rooms, no model called.

Every decision is made by the code that makes it for real; here it is only written down. Nothing counts: no usage, no
limit, no metric.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torana.access.local_keys import LocalKeys
from torana.access.minting import Minter
from torana.access.permissions import for_user
from torana.api.amazon_q import AmazonQEndpoints
from torana.api.chat import ChatEndpoints
from torana.api.chat_v1 import ChatV1Endpoints
from torana.api.code import CodeEndpoints
from torana.api.dialect_routes import DialectEndpoints
from torana.api.docs import DocsEndpoints
from torana.api.embeddings import EmbeddingEndpoints
from torana.api.exchange import Exchange, Route, StreamReply
from torana.api.feature import FeatureEndpoints
from torana.api.lookups import lookup
from torana.api.models import ModelEndpoints
from torana.api.monitoring import MonitoringEndpoints, Readiness
from torana.api.prompts import PromptEndpoints
from torana.api.proxy import ProxyEndpoints
from torana.api.route_table import RouteTable
from torana.api.search import SearchEndpoints
from torana.api.tokens import TokenEndpoints
from torana.api.x_ray import XRayEndpoints
from torana.books import ModelCall
from torana.caller import DEBUG_CALLER, Caller, Permit
from torana.catalog.snapshot import Catalogue
from torana.chat import ChatRequest, ModelWish
from torana.clock import Clock
from torana.code.cleaning import Cleaner
from torana.code.orders import Cursor
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.errors import ProviderError, Refusal
from torana.gateway import Gateway
from torana.limits.here import Here
from torana.limits.hold import Hold
from torana.limits.limits import Limits
from torana.limits.reached import told_amount
from torana.limits.rules import Call
from torana.limits.spent import Spent
from torana.limits.table import Table
from torana.prompts.prompt import Prompt
from torana.prompts.registry import Prompts
from torana.providers.batches import Batch
from torana.providers.demo.demo import DemoProvider
from torana.providers.provider import Deployment
from torana.providers.send import Sender
from torana.providers.table import provider_table
from torana.providers.vectors import Vectors
from torana.routing.discovery import FirstModel
from torana.routing.fences import Fences
from torana.routing.models import CHAT, Model, Models
from torana.routing.router import Router
from torana.routing.traffic import Traffic
from torana.routing.tries import Route as Picked
from torana.search.index import DocsIndex
from torana.settings import Settings
from torana.telemetry.metrics import Known, Metrics
from torana.telemetry.redaction import Redactor
from torana.transport import Transport, WireAnswer
from torana.usage.ledger import NO_ORIGIN
from torana.walk import Walk

MAX_RIGHTS = 50
"""Rights that one request may need; a policy that never has enough is a fault of ours."""


@dataclass(slots=True)
class Notes:
    """What was decided on the way, in the order of the walk; None: the walk did not get there."""

    route: Route | None = None
    unit_primitives: list[str] = field(default_factory=list)
    """All are needed; `a or b` where one of them is enough."""
    is_instance_only: bool = False
    calls_no_model: bool = False
    quota_event: str = ""
    wish: ModelWish | None = None
    model: Model | None = None
    prompt: Prompt | None = None
    constraint: str | None = None
    families: tuple[str, ...] = ()
    picked: Picked | None = None
    """Where it may go, in order, and why."""
    is_stand_in: bool = False
    """Walked for a caller who may do everything, in place of none or of one who may not."""
    deployment: Deployment | None = None
    chat: ChatRequest | None = None
    upstream_path: str = ""
    """Of the pass-through."""
    limits: list[str] = field(default_factory=list)
    """Those that it meets. Without a caller of its own: where they are for that caller's instance and realm."""
    expected: Spent | None = None
    """What it would use at most; None: no model would be called."""
    refusal: Refusal | None = None
    """Of any caller, whatever its token."""


class WouldSend(Exception):
    """The walk has come to its end: this is what would go out."""


@dataclass(slots=True)
class _Desk:
    """Where the rooms lay down what they decided."""

    notes: Notes


class _NotedPrompts(Prompts):
    desk: _Desk

    def find(self, prompt_id: str, constraint: str | None = None, families: Sequence[str] = ()) -> Prompt:
        found = super().find(prompt_id, constraint, families)
        notes = self.desk.notes
        notes.prompt, notes.constraint, notes.families = found, constraint, tuple(families)
        return found


class _NotedModels(Models):
    desk: _Desk

    def find(self, wish: ModelWish, needs: frozenset[str] = CHAT) -> Model:
        self.desk.notes.wish = wish
        self.desk.notes.model = found = super().find(wish, needs)
        return found


class _NotedLimits(Limits):
    """Names the limits and takes nothing."""

    desk: _Desk
    serving: Limits | None = None
    """Of the server that serves meanwhile, which knows what is left."""

    async def hold(self, call: Call, expected: Callable[[], Spent], body_bytes: int) -> Hold | None:
        if self.serving is not None:
            told = [
                f"{rule.name}: {rule.text}, {told_amount(rule.unit, left)} left"
                for rule, left in self.serving.left(call)
            ]
        else:
            told = [f"{rule.name}: {rule.text}" for rule in self.rules if rule.match.is_for_what(call)]
        self.desk.notes.limits = told
        return None


class _NotedWalk(Walk):
    desk: _Desk

    async def _hold(
        self, permit: Permit, call: ModelCall, model_name: str, deployment: Deployment, expected: Callable[[], Spent]
    ) -> list[tuple[bytes, bytes]]:
        self.desk.notes.expected = expected()
        return await super()._hold(permit, call, model_name, deployment, expected)


class _NotedRouter(Router):
    desk: _Desk

    async def pick(self, permit: Permit, model: Model, chat: ChatRequest | None = None) -> Picked:
        notes = self.desk.notes
        # Nobody's data is sent anywhere for nobody in particular, so nobody's regions are left.
        router = self if not notes.is_stand_in else self._without_fences()
        notes.picked = found = await Router.pick(router, permit, model, chat)
        return found

    def inside(self, caller: Caller, model: Model) -> Model:
        notes = self.desk.notes
        notes.model = found = model if notes.is_stand_in else super().inside(caller, model)
        return found

    def keep_inside(self, permit: Permit, deployment: Deployment) -> None:
        if not self.desk.notes.is_stand_in:
            super().keep_inside(permit, deployment)

    def _without_fences(self) -> Router:
        return Router(self.models, self.sender, self.traffic, self.first_model, Fences(()))


class _NoSender(Sender):
    """Stops each call at the door."""

    def __init__(self, desk: _Desk, settings: Settings, clock: Clock) -> None:
        # Never used: a part of the vendors' greetings, which nobody gets to hear.
        transport = Transport(settings.transport)
        providers = provider_table(settings.providers, transport, clock)
        super().__init__(transport, providers, DemoProvider(), "", settings.transport)
        self.desk = desk

    async def stream(self, deployment: Deployment, chat: ChatRequest) -> AsyncGenerator[Batch, None]:
        self.desk.notes.deployment, self.desk.notes.chat = deployment, chat
        yield self._stop()

    def _stop(self) -> Batch:
        raise WouldSend

    async def embed(self, deployment: Deployment, request: EmbeddingsRequest) -> Vectors:
        self.desk.notes.deployment = deployment
        raise WouldSend

    async def relay(
        self,
        deployment: Deployment,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        stream: bool,
        method: str = "POST",
    ) -> WireAnswer:
        self.desk.notes.deployment, self.desk.notes.upstream_path = deployment, path
        raise WouldSend


class _NoCleaner(Cleaner):
    """There will be no answer to clean, so no process is needed for it."""

    def prepare(self, cursor: Cursor) -> None:
        pass


class Rehearsal:
    """A gateway without a way out."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        traffic: Traffic | None = None,
        first_model: FirstModel | None = None,
    ) -> None:
        """
        limits, traffic   of the server that serves meanwhile; None: there is none
        first_model   None: a server that would have to be asked is not asked, and the model's name stays empty
        """
        clock = clock or Clock()
        self.settings = settings
        self.catalogue = catalogue
        self._desk = _Desk(Notes())
        prompts = _NotedPrompts(catalogue, settings.catalogue)
        models = _NotedModels(catalogue, settings.providers, clock)
        prompts.desk = models.desk = self._desk
        sender = _NoSender(self._desk, settings, clock)
        metrics = Metrics(Known())
        known = Traffic(settings.routing, clock, metrics) if traffic is None else traffic.aside(metrics)
        router = _NotedRouter(models, sender, known, first_model)
        router.desk = self._desk
        noted_limits = _NotedLimits(catalogue, Here(Table(), clock), clock, metrics)
        noted_limits.desk, noted_limits.serving = self._desk, limits
        noted_limits.count_money = True  # told whether or not it is limited
        walk = _NotedWalk(models, router, sender, noted_limits, metrics, detail_headers=False)
        walk.desk = self._desk
        gateway = Gateway(prompts, walk, settings.catalogue, cleaner=_NoCleaner())
        self.models, self.sender = models, sender
        self._one_at_a_time = asyncio.Lock()
        endpoints = (
            CodeEndpoints(gateway, settings, clock),
            ChatEndpoints(gateway, settings),
            ChatV1Endpoints(gateway, settings, clock),
            PromptEndpoints(gateway, settings),
            ProxyEndpoints(gateway, catalogue.unit_primitives, settings, None),
            DialectEndpoints(gateway, catalogue.unit_primitives, settings, Redactor(())),
            EmbeddingEndpoints(gateway, settings),
            XRayEndpoints(gateway),
            AmazonQEndpoints(),
            FeatureEndpoints(gateway, catalogue.features.values(), settings, clock),
        )
        self.routes = RouteTable([route for each in endpoints for route in each.routes()])
        self._quiet = _quiet_routes(models, settings, clock)
        self._limits = noted_limits

    async def walk(self, exchange: Exchange, caller: Caller | None = None) -> tuple[Notes, Any]:
        """What is decided, and what the body was read as.

        caller  who asks; None, or one who may not: a caller who may do everything, so that the walk goes on
        """
        async with self._one_at_a_time:
            return await self._walk(exchange, caller)

    async def _walk(self, exchange: Exchange, caller: Caller | None) -> tuple[Notes, Any]:
        notes = self._desk.notes = Notes()
        order: Any = None
        try:
            route, tail, others = self.routes.find(exchange.method, exchange.path)
            is_quiet = route is None and not others
            if is_quiet:
                route, tail, others = self._quiet.find(exchange.method, exchange.path)
            if route is None:
                if others:
                    raise Refusal(405, "method_not_allowed", "Method Not Allowed")
                raise Refusal(404, "not_found", "Not Found")
            notes.route = exchange.route = route
            notes.calls_no_model = is_quiet or route.asks_no_model
            exchange.tail = tail
            exchange.facts.origin = exchange
            exchange.caller = caller or DEBUG_CALLER
            order = route.read(exchange) if route.read is not None else None
            notes.quota_event = exchange.quota_event or route.quota
            notes.unit_primitives = self.needed(route, exchange, order)
            notes.is_instance_only = self._refuses_users(route, exchange, order, notes.unit_primitives)
            may = caller is not None and self.refusal_of(route, exchange, order, caller) is None
            notes.is_stand_in = not may
            exchange.caller = caller if may and caller is not None else DEBUG_CALLER
            if route.policy is not None:
                permitted = for_user(route.policy(exchange, order), exchange.headers)
                if route.asks_no_model:
                    await self._limits.hold(lookup(permitted, exchange), Spent, exchange.body_bytes)
                reply = None if is_quiet else await route.handle(exchange, permitted, order)
                if isinstance(reply, StreamReply):
                    # What keeps a client waiting with signs of life opens its answer behind them.
                    async for _ in reply.parts:
                        pass
        except WouldSend:
            pass
        except Refusal as refusal:
            notes.refusal = refusal
        except ProviderError as error:
            notes.refusal = Refusal(502, error.code, str(error), layer="provider")
        finally:
            exchange.facts.origin = NO_ORIGIN  # it would be a ring for the collector
        return notes, order

    def needed(self, route: Route, exchange: Exchange, order: Any) -> list[str]:
        """Found by asking again and again with one more right, so that it is the policy's own word."""
        named: list[str] = []
        held: frozenset[str] = frozenset()
        for _ in range(MAX_RIGHTS):
            refusal = self.refusal_of(route, exchange, order, Caller(scopes=held))
            if refusal is None or refusal.code != "unit_primitive_missing" or not refusal.missing:
                break
            named.append(refusal.missing)
            held |= {refusal.missing.partition(" or ")[0]}
        return named

    def verdict(self, exchange: Exchange, notes: Notes, order: Any, caller: Caller) -> Refusal | None:
        """What a caller is told whose request was walked; None: it may."""
        if notes.route is None or (order is None and notes.refusal is not None):
            return None
        return self.refusal_of(notes.route, exchange, order, caller)

    def refusal_of(self, route: Route, exchange: Exchange, order: Any, caller: Caller) -> Refusal | None:
        """What the route's policy says to this caller."""
        if route.policy is None:
            return None
        exchange.caller = caller
        try:
            route.policy(exchange, order)
        except Refusal as refusal:
            return refusal
        return None

    def _refuses_users(self, route: Route, exchange: Exchange, order: Any, needed: list[str]) -> bool:
        scopes = frozenset(name for each in needed for name in each.split(" or "))
        refusal = self.refusal_of(route, exchange, order, Caller(scopes=scopes, is_user=True))
        return refusal is not None and refusal.code == "user_token_not_accepted"


def _quiet_routes(models: Models, settings: Settings, clock: Clock) -> RouteTable:
    """What is served without the gateway's walk, so that there is no more to tell of it than who may ask."""
    minter = Minter(settings.auth, LocalKeys(settings.auth.service_name), clock)
    endpoints = (
        MonitoringEndpoints(Readiness({}), dict, lambda _: None, settings.serve.public_url),
        ModelEndpoints(models, settings.auth),
        TokenEndpoints(minter),
        SearchEndpoints(DocsIndex(settings.search.index), settings, clock),
    )
    return RouteTable([*(route for each in endpoints for route in each.routes()), *DocsEndpoints(settings).routes(())])
