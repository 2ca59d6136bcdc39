"""CHOOSE: tries deployments in order until one gives its first valid chunk. After that, no second thoughts."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace

import msgspec

from torana.caller import Permit
from torana.chat import ChatRequest
from torana.dialects.embeddings import EmbeddingsRequest
from torana.errors import NoCredentials, ProviderBroke, ProviderError, ProviderLimited, ProviderSpent, ProviderTimedOut
from torana.providers.provider import Deployment
from torana.providers.send import Batch, Sender, Vectors
from torana.routing.discovery import FirstModel
from torana.routing.folding import fold_system
from torana.routing.models import Model, Models
from torana.settings import ProviderSettings

OVERDUE = "no whole answer within AIGW_TIMEOUTS__REQUEST_S"

BACKOFF_S = 0.05
"""Full jitter up to this before the second try, twice that before the third."""


@dataclass(slots=True)
class Route:
    """Where a call may go, and how often."""

    model: Model
    deployments: tuple[Deployment, ...]
    tries: int


@dataclass(slots=True)
class Flow:
    """An answer under way: its first batch is in, so its deployment is settled."""

    deployment: Deployment
    first: Batch
    rest: AsyncGenerator[Batch, None]
    attempts: int
    deadline: float
    """In the event loop's time."""

    async def batches(self) -> AsyncIterator[Batch]:
        """All batches; raises ProviderError where the provider fails from here on."""
        now = asyncio.get_running_loop().time
        yield self.first
        async for batch in self.rest:
            # Looked at between batches: a silent provider has a deadline of its own.
            if now() > self.deadline:
                raise ProviderTimedOut(OVERDUE, self.deployment.name)
            yield batch

    async def aclose(self) -> None:
        await self.rest.aclose()


class Router:
    """One snapshot's models, and the way to them."""

    def __init__(
        self, models: Models, sender: Sender, settings: ProviderSettings, first_model: FirstModel | None
    ) -> None:
        self.models = models
        self.sender = sender
        self.settings = settings
        self.first_model = first_model

    async def pick(self, permit: Permit, model: Model, tries: int | None = None) -> Route:
        """The deployments to try, in order.

        permit  proof that this call may go out at all
        tries   sendings in all; None: AIGW_ROUTING__TRIES
        """
        del permit  # asked for, so that nobody gets here without one
        usable = []
        for deployment in model.deployments:
            if not deployment.is_configured:
                continue
            if not deployment.model and self.first_model is not None:
                deployment = replace(deployment, model=await self.first_model.current())
            usable.append(deployment)
        if not usable:
            raise NoCredentials(f"no credentials for {model.deployments[0].provider}", model.name)
        return Route(model, tuple(usable), max(1, self.settings.tries if tries is None else tries))

    async def stream(self, route: Route, chat: ChatRequest) -> Flow:
        """Open the answer: try, and try the next. Returns once the first batch is in.

        Raises the ProviderError of the last try.
        """
        if route.model.is_own and self.settings.disable_streaming:
            chat = msgspec.structs.replace(chat, stream=False)
        if route.model.folds_system:
            chat = fold_system(chat)
        deadline = asyncio.get_running_loop().time() + self.sender.settings.request_s
        try:
            async with asyncio.timeout_at(deadline):
                return await self._try(route, chat, deadline)
        except TimeoutError:
            raise ProviderTimedOut(OVERDUE, route.deployments[0].name) from None

    async def embed(self, route: Route, request: EmbeddingsRequest) -> tuple[Vectors, Deployment, int]:
        """Vectors, who made them, and at which try. Raises the ProviderError of the last try."""
        attempt = 0
        try:
            async with asyncio.timeout(self.sender.settings.request_s):
                while True:
                    deployment = route.deployments[attempt % len(route.deployments)]
                    attempt += 1
                    try:
                        return await self.sender.embed(deployment, request), deployment, attempt
                    except ProviderError as failure:
                        failure.where = failure.where or deployment.name
                        if attempt >= route.tries or not _may_try_again(failure, len(route.deployments)):
                            raise
                    await asyncio.sleep(random.uniform(0, BACKOFF_S * attempt))  # noqa: S311 jitter, no secret
        except TimeoutError:
            raise ProviderTimedOut(OVERDUE, route.deployments[0].name) from None

    async def _try(self, route: Route, chat: ChatRequest, deadline: float) -> Flow:
        attempt = 0
        while True:
            deployment = route.deployments[attempt % len(route.deployments)]
            attempt += 1
            batches = self.sender.stream(deployment, chat)
            try:
                first = await anext(batches)
                while not _says_something(first):
                    first = first + await anext(batches)
            except StopAsyncIteration:
                failure: ProviderError = ProviderBroke("an empty answer", deployment.name)
            except ProviderError as error:
                failure = error
            else:
                return Flow(deployment, first, batches, attempt, deadline)
            await batches.aclose()
            failure.where = failure.where or deployment.name
            if attempt >= route.tries or not _may_try_again(failure, len(route.deployments)):
                raise failure
            await asyncio.sleep(random.uniform(0, BACKOFF_S * attempt))  # noqa: S311 jitter, no secret


def _says_something(batch: Batch) -> bool:
    """Providers greet before they answer; until then nothing is said, and another try is free."""
    return any(chunk.says_something for chunk in batch)


def _may_try_again(failure: ProviderError, deployments: int) -> bool:
    if isinstance(failure, (ProviderLimited, ProviderSpent, ProviderTimedOut)):
        # The same account stays limited, and a silent provider may be working on it: only another one helps.
        return deployments > 1
    return failure.is_retryable
