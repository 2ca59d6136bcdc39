"""CHOOSE: puts a model's deployments in order and tries them until one gives its first valid chunk.

After that chunk there are no second thoughts: what is sent is never sent again, and never spliced.

picking.py        the order, and why
trying.py         try, wait, try the next; tries.py: its words
traffic.py        what all calls share
health.py         how each deployment is doing: breaker.py, turnstile.py
shadows.py        copies for deployments on trial
budget.py         how many further tries may be made
concessions.py    who refuses what can be left out
affinity.py       whose prompt cache is warm, who is in a percentage
fences.py         which regions a caller's calls never leave
deadline.py       one deadline over everything that a call waits for
folding.py        system text for models whose templates take no system turn
models.py         which model a wish means: own_servers.py, stages.py, offered.py
vendors.py        where a model's deployments are, with which key; price_list.py; discovery.py
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import msgspec

from torana.caller import Caller, Permit
from torana.chat import ChatRequest
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.errors import (
    NoCredentials,
    ProviderBroke,
    ProviderError,
    ProviderRefused,
    ProviderTimedOut,
    ProviderUnreachable,
    Refusal,
)
from torana.providers.batches import Batch, Batches
from torana.providers.provider import Deployment
from torana.providers.send import Sender
from torana.providers.vectors import Vectors
from torana.routing.affinity import affinity_key
from torana.routing.concessions import MAX_CONCESSIONS, Concession
from torana.routing.discovery import FirstModel
from torana.routing.fences import Fences
from torana.routing.folding import fold_system
from torana.routing.models import Model, Models, name_of_relays
from torana.routing.picking import Wish, pick
from torana.routing.traffic import Passage, Traffic, UnderWay, enter
from torana.routing.tries import Candidate, Route, Try
from torana.routing.trying import Opened, T, Trying
from torana.usage.ledger import Record

logger = logging.getLogger("torana.routing")

OVERDUE = "no whole answer within AIGW_TIMEOUTS__REQUEST_S"

ONLY = "the only one"

NOWHERE = ("(nowhere)",)


class Flow(msgspec.Struct):
    """An answer under way: its first batch is in, so its deployment is settled."""

    deployment: Deployment
    first: Batch
    rest: Batches
    route: Route
    under_way: UnderWay
    loop: asyncio.AbstractEventLoop
    deadline: float
    """In the event loop's time."""
    conceded: tuple[str, ...] = ()
    """What of a client's own words the deployment was not told, for it refuses that."""
    _is_begun: bool = False

    @property
    def attempts(self) -> int:
        return len(self.route.tries)

    @property
    def tries(self) -> tuple[Try, ...]:
        """Every sending, in order of their ends; the answering one's usage is told with the answer."""
        return tuple(self.route.tries)

    def __aiter__(self) -> "Flow":
        return self

    async def __anext__(self) -> Batch:
        """All batches; raises ProviderError where the provider fails from here on."""
        if not self._is_begun:
            self._is_begun = True
            return self.first
        try:
            batch = await self.rest.__anext__()
            # Looked at between batches: a silent provider has a deadline of its own.
            if self.loop.time() > self.deadline:
                raise ProviderTimedOut(OVERDUE, self.deployment.name)
        except ProviderError as failure:
            self.under_way.broke(failure)
            self.under_way.end()
            raise
        except BaseException:  # the end is one, too
            self.under_way.end()
            raise
        return batch

    async def aclose(self) -> None:
        try:
            await self.rest.aclose()
        finally:
            self.under_way.end()


class Router:
    """One snapshot's models, and the way to them.

    traffic  what outlives the snapshot
    fences   None: those of the snapshot
    """

    def __init__(
        self,
        models: Models,
        sender: Sender,
        traffic: Traffic,
        first_model: FirstModel | None,
        fences: Fences | None = None,
    ) -> None:
        self.models = models
        self.sender = sender
        self.traffic = traffic
        self.first_model = first_model
        self.fences = Fences(models.catalogue.residency.values()) if fences is None else fences
        self._told_of_lack: set[str] = set()
        self._relayed: dict[str, Deployment] = {}
        """By vendor: what stands for all of its models where calls are relayed."""

    async def pick(self, permit: Permit, model: Model, chat: ChatRequest | None = None) -> Route:
        """The deployments to try, in order, and why.

        permit  proof that this call may go out at all, and for whom
        chat    what is to be sent: long prompts go where their beginning is cached

        Raises Refusal 403 where every deployment lies outside the caller's regions, NoCredentials where none can be
        greeted.
        """
        caller, traffic, deployments = permit.caller, self.traffic, model.deployments
        tries = chat.tries if chat is not None else None
        limit = max(1, traffic.settings.tries if tries is None else tries)
        party = caller.party
        if self.first_model is not None and not all(each.model for each in deployments):
            deployments = await self._name_models(deployments)
        fence = self.fences.of(caller) if self.fences.are_any else None
        if len(deployments) == 1 and fence is None and deployments[0].is_configured:
            only = Candidate(deployments[0], traffic.book.of(deployments[0]), ONLY)
            return Route(model, (only,), limit, party)
        user = caller.subject if caller.is_user else chat.user if chat is not None else ""
        wish = Wish(
            unit=f"{party}/{user}",
            key=lambda: affinity_key(party, chat) if chat is not None else b"",
            fence=fence,
            region=traffic.settings.region,
        )
        picked = pick(deployments, wish, traffic.book, traffic.clock.monotonic())
        if picked.is_fenced_out:
            raise outside()
        if not picked.candidates:
            raise NoCredentials(self._tell_of_lack(deployments[0].provider), model.name)
        return Route(model, tuple(picked.candidates), limit, party, tuple(picked.left_out), tuple(picked.shadows))

    def _tell_of_lack(self, provider: str) -> str:
        """Why the provider cannot be greeted; once for each in the log, for somebody has asked."""
        lack = self.models.vendors.lack_of(provider)
        if provider not in self._told_of_lack:
            self._told_of_lack.add(provider)
            logger.warning("a model is asked whose provider has no credentials", extra={"reason": lack})
        return lack

    def inside(self, caller: Caller, model: Model) -> Model:
        """The model, or where the caller's regions leave it out altogether, the next one of the alias that they do not.

        Where there is none it is the model itself, which `pick` refuses.
        """
        fence = self.fences.of(caller) if model.further and self.fences.are_any else None
        if fence is None:
            return model
        allowed = (
            each
            for each in (model, *model.further)
            if any(fence.allows(deployment) for deployment in each.deployments if deployment.is_configured)
        )
        return next(allowed, model)

    def crowded(self, permit: Permit, model: Model) -> Deployment | None:
        """One that would turn the call away now, where all that may be asked would; None: some may have room.

        Looked at before a call costs anything; `stream` decides.
        """
        traffic, deployments = self.traffic, model.deployments
        if not traffic.settings.connections and not all(each.concurrency for each in deployments):
            return None
        caller, now = permit.caller, traffic.clock.monotonic()
        party, patience_s = caller.party, traffic.settings.queue_s
        fence = self.fences.of(caller) if self.fences.are_any else None
        found: Deployment | None = None
        for each in deployments:
            if not each.is_configured or each.shadow_percent or (fence is not None and not fence.allows(each)):
                continue
            health = traffic.book.of(each)
            if not health.may_be_asked(now):
                continue
            if not each.model or not health.turns_away(party, patience_s):
                return None
            found = found or each
        return found

    def keep_inside(self, permit: Permit, deployment: Deployment) -> None:
        """For calls whose deployment is given: raises Refusal 403 where the caller's regions leave it out."""
        fence = self.fences.of(permit.caller) if self.fences.are_any else None
        if fence is not None and not fence.allows(deployment):
            raise outside()

    async def enter(self, permit: Permit, deployment: Deployment) -> Callable[[], None]:
        """A connection to the address of a given deployment; to be left when the call is over.

        Raises Refusal 503 where none comes free in time.
        """
        gate, party = self.traffic.book.gate_of(deployment), permit.caller.party
        if gate is None:
            return _nothing
        await enter(self.traffic, (gate,), party)
        return partial(gate.leave, party)

    def pass_through(self, deployment: Deployment) -> Passage:
        """For a call that is relayed to a given deployment; to be ended with what became of it.

        All of a vendor's models have one breaker here, for clients choose their names.

        Raises ProviderResting where the vendor has not answered lately.
        """
        vendor = self._relayed.get(deployment.provider)
        if vendor is None:
            named = replace(deployment, model="", label=name_of_relays(deployment.provider))
            vendor = self._relayed[deployment.provider] = named
        return Passage(self.traffic, self.traffic.book.of(vendor))

    def regions_of(self, permit: Permit) -> tuple[str, ...]:
        """The regions that the caller's data may be in, as `residency` names them; empty: any."""
        fence = self.fences.of(permit.caller) if self.fences.are_any else None
        # Rules that allow nothing together must not read as no rule at all.
        return (fence.allowed or NOWHERE) if fence is not None else ()

    async def _name_models(self, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """A server of the operator's own is asked which model it has; while it tells none, the others have the calls.

        Raises ProviderUnreachable where there are none.
        """
        named = []
        is_silent = False
        for each in deployments:
            if self.first_model is not None and not each.model and each.is_configured:
                if not (model := await self.first_model.current()):
                    is_silent = True
                    continue
                each = replace(each, model=model)
            named.append(each)
        if is_silent and not any(each.is_configured for each in named):
            raise ProviderUnreachable("the server behind OPENAI_BASE_URL lists no model; set AIGW_OPENAI_MODEL")
        return tuple(named)

    async def stream(
        self, route: Route, chat: ChatRequest, admit_shadow: Callable[[Deployment], Record] | None = None
    ) -> Flow:
        """Open the answer: try, and try the next. Returns once the first batch is in.

        admit_shadow  opens the usage record of a copy; None: no copies are sent

        Raises the ProviderError of the last try, Refusal 503 where there is no room anywhere.
        """
        if route.model.is_own and self.models.settings.disable_streaming:
            chat = msgspec.structs.replace(chat, stream=False)
        if route.model.folds_system:
            chat = fold_system(chat)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.sender.settings.request_s
        concessions = self.traffic.concessions

        async def open_one(deployment: Deployment) -> tuple[Batch, Batches]:
            may_concede = self._may_concede(deployment, chat)
            asked = concessions.ask(deployment, chat) if may_concede else chat
            made: list[Concession] = []
            sendings = 0
            while True:
                sendings += 1
                batches = self.sender.stream(deployment, asked)
                started = self.traffic.clock.monotonic()
                try:
                    first = await _first_words(batches, deployment)
                except ProviderRefused as refused:
                    may_go_on = may_concede and sendings <= MAX_CONCESSIONS
                    concession = concessions.make(asked, refused) if may_go_on else None
                    if concession is None:
                        raise
                    seconds = self.traffic.clock.monotonic() - started
                    route.tries.append(Try(deployment, "failed", refused.upstream_code, refused.code, seconds, False))
                    asked = concession.without(asked)
                    # What is refused in the same words as before did not help: those may be the client's, quoted.
                    made = [each for each in made if not each.refusal.search(str(refused))]
                    made.append(concession)
                else:
                    for each in made:
                        concessions.remember(deployment, each)
                    return first, batches

        async def close_one(opened: tuple[Batch, Batches]) -> None:
            await opened[1].aclose()

        hedge_after_s = route.model.hedge_after_s if chat.hedge_after_s is None else chat.hedge_after_s
        trying = Trying(self.traffic, route, open_one, deadline, hedge_after_s=hedge_after_s, close_one=close_one)
        opened = await _within(loop, trying)
        if admit_shadow is not None:
            for shadow in route.shadows:
                self._cast_shadow(shadow, chat, admit_shadow)
        first, rest = opened.result
        deployment = opened.candidate.deployment
        is_told = chat.source is not None and self._may_concede(deployment, chat)
        conceded = concessions.names(deployment, chat) if is_told else ()
        return Flow(deployment, first, rest, route, opened.under_way, loop, deadline, conceded)

    def _may_concede(self, deployment: Deployment, chat: ChatRequest) -> bool:
        """What goes out is written by us, and may leave out what is refused."""
        if chat.source is None:
            return True
        return self.models.settings.losses != "refuse" and not self.sender.speaks(deployment, chat.source.dialect)

    async def embed(self, route: Route, request: EmbeddingsRequest) -> tuple[Vectors, Deployment, int]:
        """Vectors, who made them, and at which try. Raises as `stream` does."""

        async def open_one(deployment: Deployment) -> Vectors:
            return await self.sender.embed(deployment, request)

        loop = asyncio.get_running_loop()
        opened = await _within(
            loop, Trying(self.traffic, route, open_one, loop.time() + self.sender.settings.request_s)
        )
        opened.under_way.end()
        return opened.result, opened.candidate.deployment, len(route.tries)

    def _cast_shadow(self, shadow: Candidate, chat: ChatRequest, admit: Callable[[Deployment], Record]) -> None:
        shadows = self.traffic.shadows
        # A copy without a usage record would be money that nobody has spent.
        with suppress(Refusal):
            if shadows.has_room(shadow.health):
                shadows.begin(self.sender, shadow, chat, admit(shadow.deployment))


async def _within(loop: asyncio.AbstractEventLoop, trying: Trying[T]) -> Opened[T]:
    try:
        with trying.traffic.deadlines.at(loop, trying.deadline):
            return await trying.run()
    except TimeoutError:
        raise ProviderTimedOut(OVERDUE, trying.route.candidates[0].deployment.name) from None


async def _first_words(batches: Batches, deployment: Deployment) -> Batch:
    """The batches up to the first that says something, as one. On a failure the rest is closed."""
    first: Batch = []
    try:
        while not _says_something(first):
            first += await batches.__anext__()
    except BaseException as error:
        await batches.aclose()
        if isinstance(error, StopAsyncIteration):
            raise ProviderBroke("an empty answer", deployment.name) from None
        raise
    return first


def _says_something(batch: Batch) -> bool:
    """Providers greet before they answer; until then nothing is said, and another try is free."""
    return any(chunk.says_something for chunk in batch)


def _nothing() -> None:
    """There was nothing to enter."""


def outside() -> Refusal:
    return Refusal(403, "residency_refused", "No deployment of this model lies within the regions allowed to you")
