"""Send a call to its candidates, one after another, until one answers. Nothing of any answer has been passed on yet.

Another deployment is asked where it can help: at once, for the call has lost time enough. The same one is asked again
where nothing speaks against it, after a moment of jitter, or after the wait that it asked for if that is short. Each
further sending is paid from the retry budget.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from torana.errors import (
    ProviderBlocked,
    ProviderBroke,
    ProviderError,
    ProviderGaveUp,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
    ProviderRefusedKey,
    ProviderResting,
    ProviderSpent,
    ProviderTimedOut,
    ProviderUnreachable,
    Refusal,
    was_sent,
)
from torana.providers.provider import Deployment
from torana.routing.traffic import NO_ROOM, Traffic, UnderWay, enter
from torana.routing.tries import Candidate, Outcome, Route, Try, may_be_charged

BACKOFF_S = 0.05
"""Full jitter up to this before the same deployment is asked again, twice that before the next time."""

_HELPS_ELSEWHERE = (
    ProviderUnreachable,
    ProviderTimedOut,
    ProviderBroke,
    ProviderGaveUp,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefusedKey,
    ProviderBlocked,
    ProviderSpent,
)
"""What another deployment may do better. What is wrong with the request is wrong everywhere."""

T = TypeVar("T")
Open = Callable[[Deployment], Awaitable[T]]
"""One sending; raises ProviderError. Returns once the answer's first valid chunk is in."""
Close = Callable[[T], Coroutine[Any, Any, None]]


class Opened(msgspec.Struct, Generic[T], frozen=True):
    """An answer whose first chunk is in."""

    candidate: Candidate
    result: T
    under_way: UnderWay
    """To be ended by whoever reads the answer."""
    number: int
    """Its place among the route's tries."""


class Trying(Generic[T]):
    """The tries of one call.

    deadline       of all of them together, in the event loop's time
    hedge_after_s  silence of the first try after which a second one is made beside it; 0: never
    close_one      ends an answer that came too late
    """

    def __init__(
        self,
        traffic: Traffic,
        route: Route,
        open_one: Open[T],
        deadline: float,
        *,
        hedge_after_s: float = 0.0,
        close_one: Close[T] | None = None,
    ) -> None:
        self.traffic = traffic
        self.route = route
        self.open_one = open_one
        self.deadline = deadline
        self.hedge_after_s = hedge_after_s
        self.close_one = close_one
        self.failures: dict[int, ProviderError] = {}
        """The last one of each candidate, by its place."""

    async def run(self) -> Opened[T]:
        """Raises the ProviderError of the last try; Refusal 503 where all who may be asked are full and stay so."""
        self.traffic.budget.first_try()
        is_first = True
        following: int | None = self._first()
        is_hedged = self.hedge_after_s and self.route.limit > 1 and len(self.route.candidates) > 1
        try:
            while following is not None:
                place, following = following, None
                try:
                    return await (self._hedged(place) if is_first and is_hedged else self._once(place))
                except ProviderError as failure:
                    self.failures[place] = failure
                except Refusal as refusal:
                    if not is_first or (following := self._instead(refusal)) is None:
                        raise
                is_first = False
                if following is None:
                    following = await self._next(place)
            raise self.failures.pop(place)
        finally:
            # Each holds the frames that it came through, what they had read, and this: a ring for the collector.
            self.failures.clear()

    def _first(self) -> int:
        candidates, now = self.route.candidates, self.traffic.clock.monotonic()
        for place, each in enumerate(candidates):
            if each.health.is_ready(now):
                return place
        for place, each in enumerate(candidates):
            if each.health.may_be_asked(now):
                return place  # no good prospects, but no other ones; where it is full, the call waits
        raise resting(self.route, now)

    def _instead(self, refusal: Refusal) -> int | None:
        """Where no place came free, and nothing was sent: one that has room, with whatever prospects."""
        now = self.traffic.clock.monotonic()
        if refusal.code == NO_ROOM and not self.route.tries:
            for place, each in enumerate(self.route.candidates):
                if each.health.full is None and each.health.may_be_asked(now):
                    return place
        return None

    async def _next(self, last: int) -> int | None:
        """The place to try now, after a wait if there has to be one; None where there is none."""
        failure, now = self.failures[last], self.traffic.clock.monotonic()
        if len(self.route.tries) >= self.route.limit:
            return None
        wait_s = 0.0
        place = self._elsewhere(now) if isinstance(failure, _HELPS_ELSEWHERE) else None
        if place is None:
            place, wait_s = self._again(now) or self._later(now) or (None, 0.0)
        if place is None or not self.traffic.budget.take():
            return None
        if place != last:
            names = (self.route.candidates[each].health.name for each in (last, place))
            self.traffic.meter.fell_back(*names)
        if wait_s:
            await asyncio.sleep(wait_s)
        return place

    async def _hedged(self, place: int) -> Opened[T]:
        """The first try, and one beside it where it takes long; who answers first has the call.

        Raises the first one's ProviderError where both fail.
        """
        racing = {asyncio.ensure_future(self._once(place)): place}
        second: int | None = None
        won: Opened[T] | None = None
        try:
            while second is None and (await asyncio.wait(racing, timeout=self.hedge_after_s))[1]:
                # Without budget or room now, there may be some later.
                second = self._beside(place)
            if second is not None:
                racing[asyncio.ensure_future(self._once(second))] = second
            while racing and won is None:
                at, won = await self._next_end(racing)
        except BaseException:
            await self._stop(racing, "left")
            raise
        if won is None:
            raise self.failures.get(place) or next(iter(self.failures.values()))
        try:
            await self._stop(racing, "outrun")
        except BaseException:
            self._drop(won, "left")
            raise
        if second is not None:
            outcome = "won" if at == second else "lost"
            self.traffic.meter.hedged(self.route.candidates[place].health.name, outcome)
        return won

    async def _next_end(self, racing: dict["asyncio.Task[Opened[T]]", int]) -> tuple[int, Opened[T] | None]:
        """Takes one that has ended out of the race: its place, and its answer if there is one.

        Raises what is no ProviderError; where a place was missing, only if nobody else has run or still does.
        """
        done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        at = racing.pop(task)
        failure = task.exception()
        if failure is None:
            return at, task.result()
        try:
            if isinstance(failure, ProviderError):
                self.failures[at] = failure
            elif not isinstance(failure, Refusal) or not (racing or self.failures):
                raise failure
        finally:
            # Where it is raised it holds this frame, which would hold it: a ring for the collector, too.
            del done, task, failure
        return at, None

    def _beside(self, place: int) -> int | None:
        """Who is asked beside the one that dawdles, if anybody may be."""
        now = self.traffic.clock.monotonic()
        for other, each in enumerate(self.route.candidates):
            if other != place and each.health.is_ready(now):
                return other if self.traffic.budget.take() else None
        return None

    async def _stop(self, racing: dict["asyncio.Task[Opened[T]]", int], why: Outcome) -> None:
        """End those who are still at it, and return when they are booked. Also one whose answer comes just now, and
        where nobody waits for that any longer."""
        for task in racing:
            task.add_done_callback(partial(self._drop_late, why))
            task.cancel(why)
        if racing:
            await asyncio.wait(racing)

    def _drop_late(self, why: Outcome, task: "asyncio.Task[Opened[T]]") -> None:
        if not task.cancelled() and task.exception() is None:
            self._drop(task.result(), why)

    def _drop(self, opened: Opened[T], why: Outcome) -> None:
        """An answer that nobody is to read."""
        opened.under_way.end()
        self.route.tries[opened.number] = msgspec.structs.replace(self.route.tries[opened.number], outcome=why)
        if self.close_one is not None:
            self.traffic.closing.begin(self.close_one(opened.result))

    def _elsewhere(self, now: float) -> int | None:
        """A candidate that was not asked yet and may be, at once."""
        for place, each in enumerate(self.route.candidates):
            if place not in self.failures and each.health.is_ready(now):
                return place
        return None

    def _again(self, now: float) -> tuple[int, float] | None:
        """A candidate whose failure may have been a chance, and the jitter before it is asked again.

        The same account stays limited, and a silent provider may still be working on the call: asked again, it might
        do and charge the work twice.
        """
        for place, failure in self.failures.items():
            is_chance = failure.is_retryable and not isinstance(failure, (ProviderLimited, ProviderTimedOut))
            if is_chance and self.route.candidates[place].health.is_ready(now):
                return place, random.uniform(0, BACKOFF_S * len(self.route.tries))  # noqa: S311 jitter, no secret
        return None

    def _later(self, now: float) -> tuple[int, float] | None:
        """The candidate that asked for the shortest wait, if that is short enough; others find it cooling down."""
        waits = [
            (failure.retry_after_s, place)
            for place, failure in self.failures.items()
            if failure.retry_after_s is not None and failure.is_retryable
        ]
        if not waits:
            return None
        wait_s, place = min(waits)
        wait_s += random.uniform(0, BACKOFF_S)  # noqa: S311 jitter, no secret
        is_in_time = asyncio.get_running_loop().time() + wait_s < self.deadline
        if wait_s > self.traffic.settings.longest_wait_s + BACKOFF_S or not is_in_time:
            return None
        return place, wait_s

    async def _once(self, place: int) -> Opened[T]:
        """One sending, booked whatever becomes of it."""
        traffic, candidate = self.traffic, self.route.candidates[place]
        health, clock = candidate.health, traffic.clock
        entered = await enter(traffic, (health.places, health.gate), self.route.party)
        turn = health.begin(clock.monotonic())
        if not turn:
            for each in entered:
                each.leave(self.route.party)
            raise self.failures.get(place) or resting(self.route, clock.monotonic())
        under_way = UnderWay(traffic, health, turn, entered, self.route.party)
        started = clock.monotonic()
        try:
            result = await self.open_one(candidate.deployment)
        except ProviderError as failure:
            under_way.end()
            failure.where = failure.where or candidate.deployment.name
            self._book(candidate, "failed", started, failure)
            health.bad(clock.monotonic(), turn, failure, is_repeated=place in self.failures)
            # Its words tell all. The frames that it came through hold it, and what was read: rings for the collector.
            raise failure.with_traceback(None) from None
        except BaseException as stopped:
            under_way.end()
            if asyncio.get_running_loop().time() >= self.deadline:
                overdue = ProviderTimedOut("no answer within the deadline over all tries", candidate.deployment.name)
                self._book(candidate, "failed", started, overdue)
                health.bad(clock.monotonic(), turn, overdue)
            else:
                self._book(
                    candidate, "outrun" if "outrun" in stopped.args else "left", started, is_sent=was_sent(stopped)
                )
                health.breaker.left(turn)
            raise
        self._book(candidate, "answered", started)
        health.good(clock.monotonic(), turn, clock.monotonic() - started)
        return Opened(candidate, result, under_way, len(self.route.tries) - 1)

    def _book(
        self,
        candidate: Candidate,
        outcome: Outcome,
        started: float,
        failure: ProviderError | None = None,
        *,
        is_sent: bool = True,
    ) -> None:
        seconds = self.traffic.clock.monotonic() - started
        status, code = (
            (0 if outcome != "answered" else 200, "") if failure is None else (failure.upstream_code, failure.code)
        )
        charged = is_sent and (outcome != "failed" or (failure is not None and may_be_charged(failure)))
        self.route.tries.append(Try(candidate.deployment, outcome, status, code, seconds, charged))
        # Overload is the provider's own word for a state that passes; other 5xx are faults.
        is_overload = isinstance(failure, ProviderRefused) and (status == 529 or failure.kind == "overloaded_error")
        self.traffic.meter.tried(candidate.health.name, "overloaded" if is_overload else code or outcome)


def resting(route: Route, now: float) -> ProviderError:
    """What a call fails with when none of its candidates may be asked: nothing is sent."""
    soonest = min(route.candidates, key=lambda each: each.health.ready_in_s(now))
    health, where = soonest.health, soonest.deployment.name
    told = health.cooled_by if now < health.cool_until else health.refused
    failure: ProviderError
    if told is not None:
        failure = told.again(f"still so: {health.why_not(now)}", where)
    else:
        failure = ProviderResting(health.why_not(now), where)
    failure.retry_after_s = max(1.0, health.ready_in_s(now))
    return failure
