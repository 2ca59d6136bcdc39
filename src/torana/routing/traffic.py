"""What all calls of one worker share: what is known of deployments, and the room there is."""

import copy
from collections.abc import Iterable

from torana.background import Background
from torana.clock import Clock
from torana.errors import ProviderError, ProviderRefused, ProviderResting, Refusal
from torana.headers import retry_after, soon
from torana.routing.budget import RetryBudget
from torana.routing.concessions import Concessions
from torana.routing.deadline import Deadlines
from torana.routing.health import Health, HealthBook, Meter
from torana.routing.shadows import Shadows
from torana.routing.turnstile import Full, Turnstile
from torana.settings import RoutingSettings


class Traffic:
    """What all calls of one worker share, whatever catalogue they came in with.

    workers  how many share the node's free retries
    """

    def __init__(self, settings: RoutingSettings, clock: Clock, meter: Meter, *, workers: int = 1) -> None:
        self.settings = settings
        self.clock = clock
        self.meter = meter
        self.workers = workers
        self.shadows = Shadows(clock, meter)
        self.deadlines = Deadlines()
        self.closing = Background()
        """Answers that nobody is to read."""
        self.forget()

    def forget(self) -> None:
        """Begin anew, as after a restart."""
        self.book = HealthBook(self.settings, self.meter)
        self.budget = RetryBudget(self.clock, workers=self.workers)
        self.concessions = Concessions()

    def aside(self, meter: Meter) -> "Traffic":
        """The same deployments, for calls that are counted elsewhere and take no one's retries."""
        other = copy.copy(self)
        other.meter, other.budget = meter, RetryBudget(self.clock)
        return other

    async def aclose(self) -> None:
        await self.shadows.aclose()
        await self.closing.aclose()


class UnderWay:
    """A call at a deployment: it counts there, and has its place, until `end`."""

    __slots__ = ("_entered", "_health", "_is_over", "_party", "_traffic", "_turn")

    def __init__(self, traffic: Traffic, health: Health, turn: int, entered: tuple[Turnstile, ...], party: str) -> None:
        self._traffic = traffic
        self._health = health
        self._turn = turn
        self._entered = entered
        self._party = party
        self._is_over = False

    def broke(self, failure: ProviderError) -> None:
        """The answer failed after its first chunk."""
        self._health.bad(self._traffic.clock.monotonic(), self._turn, failure)

    def end(self) -> None:
        """Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._health.end()
        for each in self._entered:
            each.leave(self._party)


class Passage:
    """One relayed call at its vendor. Only what never answered counts against it: statuses are the client's affair."""

    __slots__ = ("_health", "_traffic", "_turn")

    def __init__(self, traffic: Traffic, health: Health) -> None:
        """Raises ProviderResting where the vendor is left alone."""
        now = traffic.clock.monotonic()
        self._traffic, self._health = traffic, health
        self._turn = health.breaker.begin(now)
        if not self._turn:
            raise ProviderResting(health.why_not(now), health.name)

    def end(self, failure: BaseException | None) -> None:
        """failure  None: the head of an answer came"""
        now, health = self._traffic.clock.monotonic(), self._health
        if failure is None or isinstance(failure, ProviderRefused):
            health.reached(now, self._turn)
        elif isinstance(failure, ProviderError):
            health.bad(now, self._turn, failure)
        else:
            health.breaker.left(self._turn)


async def enter(traffic: Traffic, ways: Iterable[Turnstile | None], party: str) -> tuple[Turnstile, ...]:
    """Those that had to be passed; raises Refusal 503 where one of them stays full."""
    entered: tuple[Turnstile, ...] = ()
    try:
        for way in ways:
            if way is not None:
                await way.enter(party, traffic.settings.queue_s)
                entered += (way,)
    except BaseException as error:
        for way in entered:
            way.leave(party)
        if isinstance(error, Full):
            raise no_room() from error
        raise
    return entered


NO_ROOM = "overloaded"


def no_room() -> Refusal:
    """The gateway itself has no place left; when to come back is spread, so that not all do at once."""
    return Refusal(503, NO_ROOM, "Too many calls are under way", headers=retry_after(soon()))
