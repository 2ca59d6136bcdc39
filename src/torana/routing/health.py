"""How each deployment is doing: may it be asked now, how busy is it, how fast. Outlives a reload of the catalogue.

One worker's view, of its own calls alone. Keyed by the deployment's name; of clients' own servers by a hash, for two
clients may call different servers the same.
"""

import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol
from urllib.parse import urlsplit

from torana.errors import (
    ProviderBlocked,
    ProviderBroke,
    ProviderError,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
    ProviderRefusedKey,
    ProviderSpent,
    ProviderTimedOut,
    ProviderUnreachable,
)
from torana.providers.provider import Deployment
from torana.routing.breaker import Breaker
from torana.routing.turnstile import Turnstile
from torana.settings import RoutingSettings

logger = logging.getLogger("torana.routing")

MAX_KNOWN = 1_000
"""Deployments remembered at once; clients bring ever new ones of their own."""
SMOOTHING = 0.2
"""Weight of the newest time to the first chunk."""
ENOUGH = 4
"""Measurements that say something: the first call of all also opens connections and fills caches."""
STALE_S = 10.0
"""Older measurements say nothing: who was slow and is passed over since is to have another chance."""
DOUBTED_AFTER = 3
"""Failures in a row after which others are asked first: they need no retry, and the budget is for chances."""
UNSAID_S = 1.0
"""How long a deployment is shunned that limits us without saying for how long."""
KEY_REFUSED_S = 30.0
"""How long one is shunned that refuses our key: somebody has to act, and a call in a while sees whether they did."""
SPENT_S = 60.0
"""How long one is shunned whose account has no money left."""

_TO_BLAME = (ProviderUnreachable, ProviderTimedOut, ProviderBroke, ProviderOverloaded, ProviderRefusedKey)
"""What counts against a deployment. Its other 4xx are the request's fault, and a limit is no illness."""


class Meter(Protocol):
    """Counts what happens to deployments; `deployment` is a name, clients' own servers included."""

    def deployment_state(self, deployment: str, state: int) -> None:
        """0: closed, 1: half open, 2: open, 3: out, for our key is refused or our account spent."""
        ...

    def cooled_down(self, deployment: str) -> None: ...

    def tried(self, deployment: str, outcome: str) -> None: ...

    def fell_back(self, deployment: str, to: str) -> None: ...

    def hedged(self, deployment: str, outcome: str) -> None: ...

    def shadowed(self, deployment: str, outcome: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """The deployments of a catalogue, by name."""

    names: frozenset[str]
    bounded: frozenset[str]
    """Those with a bound of calls at the same time."""

    def has(self, name: str) -> bool:
        return _is_among(self.names, name)

    def is_bounded(self, name: str) -> bool:
        return _is_among(self.bounded, name)


def _is_among(names: frozenset[str], name: str) -> bool:
    # Where the server itself is still to be asked for its model, only the provider is known.
    return name in names or f"{name.partition('/')[0]}/" in names


@dataclass(slots=True)
class Health:
    """One deployment's."""

    name: str
    breaker: Breaker
    meter: Meter
    is_ours: bool = True
    """Our key greets it: the client's own are the client's business."""
    places: Turnstile | None = None
    """None: as many calls at once as come."""
    address: str = ""
    """Where it is; elsewhere nothing of this is known."""
    gate: Turnstile | None = None
    """Of the address that it shares with others; None: as many connections as come."""
    cool_until: float = 0.0
    """It asked to be left alone until then, and is."""
    cooled_by: ProviderRefused | None = None
    """How it asked."""
    shun_until: float = 0.0
    """Until then only those come who find no other one."""
    shunned_for: str = ""
    failures_in_a_row: int = 0
    in_flight: int = 0
    first_chunk_s: float = 0.0
    """Smoothed; 0: not known yet."""
    measured: int = 0
    """How many times in a row."""
    measured_at: float = 0.0
    refused: ProviderRefused | None = None
    """Why it is of no use: our key is refused, or our account is spent."""
    used_at: float = 0.0
    is_listed: bool = True
    """It is in the catalogue that serves: what is told of another one would stand for good."""

    def may_be_asked(self, now: float) -> bool:
        return now >= self.cool_until and self.breaker.may_begin(now)

    def is_ready(self, now: float) -> bool:
        """It may be asked, at once, and an answer is likely."""
        return now >= self.shun_until and self.full is None and self.may_be_asked(now)

    @property
    def full(self) -> Turnstile | None:
        """Where a call would have to wait."""
        if self.places is not None and self.places.is_full:
            return self.places
        return self.gate if self.gate is not None and self.gate.is_full else None

    def turns_away(self, party: str, patience_s: float) -> bool:
        """Whether a call would find no room, and none to wait in either."""
        for way in (self.places, self.gate):
            if way is not None and (way.is_full or way.waiting):
                return way.turns_away(party, patience_s)
        return False

    def ready_in_s(self, now: float) -> float:
        """How long until it may be asked again; 0: it may."""
        return max(0.0, self.cool_until - now, self.breaker.until - now if self.breaker.is_open else 0.0)

    def why_not(self, now: float) -> str:
        """Why it is not ready; empty: it is."""
        left_s = math.ceil(self.ready_in_s(now))
        if now < self.cool_until:
            return f"limits us, left alone for {left_s} s"
        if self.refused is not None and now < max(self.shun_until, self.breaker.until):
            return "our account is spent" if isinstance(self.refused, ProviderSpent) else "our key is refused"
        if not self.breaker.may_begin(now):
            return f"rests after failures for {left_s} s" if left_s else "a call is looking whether it is well again"
        if now < self.shun_until:
            return self.shunned_for
        full = self.full
        return f"has its {full.places} calls under way" if full is not None else ""

    def speed_s(self, now: float) -> float | None:
        """Seconds to the first chunk as lately measured; None: nobody knows."""
        is_known = self.measured >= ENOUGH and now - self.measured_at < STALE_S
        return self.first_chunk_s if is_known else None

    @property
    def worth(self) -> tuple[bool, bool, float]:
        """The more it is, the later it is forgotten."""
        return self.is_ours, self.in_flight > 0, self.used_at

    def begin(self, now: float) -> int:
        """A call goes out; the turn to end it with, 0 where it may not."""
        turn = self.breaker.begin(now) if now >= self.cool_until else 0
        if turn:
            self.in_flight += 1
            self.used_at = now
            if self.breaker.is_open:
                self._tell(1)
        return turn

    def end(self) -> None:
        """The call that went out is over, however it went."""
        self.in_flight -= 1

    def good(self, now: float, turn: int, first_chunk_s: float) -> None:
        if now - self.measured_at >= STALE_S:
            self.measured = 0
        known_s = self.first_chunk_s if self.measured else first_chunk_s
        self.first_chunk_s = known_s + SMOOTHING * (first_chunk_s - known_s)
        self.measured += 1
        self.measured_at = now
        is_news = self.refused is not None
        if is_news or self.failures_in_a_row >= DOUBTED_AFTER:
            self.shun_until = 0.0
        self.refused, self.failures_in_a_row = None, 0
        if self.breaker.good(now, turn) or is_news:
            self._tell_well()

    def reached(self, now: float, turn: int) -> None:
        """A call was answered, in whatever way; nothing is learned but that somebody is there."""
        self.failures_in_a_row = 0
        if self.breaker.good(now, turn):
            self._tell_well()

    def bad(self, now: float, turn: int, failure: ProviderError, *, is_repeated: bool = False) -> None:
        """A call failed; whether that says anything about the deployment is decided here.

        is_repeated  the same call has failed here before: that counts once
        """
        if isinstance(failure, (ProviderRefusedKey, ProviderSpent)) and self.is_ours:
            self._shun(now, failure)
        elif isinstance(failure, ProviderLimited):
            self._cool(now, failure)
        elif isinstance(failure, ProviderOverloaded):
            self._spare(now, failure)
        elif isinstance(failure, ProviderBlocked):
            self._doubt(now)  # for whoever has another one to ask
        if isinstance(failure, _TO_BLAME) and (self.is_ours or not isinstance(failure, ProviderRefusedKey)):
            self._doubt(now)
            if is_repeated:
                self.breaker.left(turn)
            elif self.breaker.bad(now, turn):
                self._tell(2 if self.refused is None else 3)
                logger.warning(
                    "a deployment rests after failures",
                    extra={"deployment": self.name, "code": failure.code, "rest_s": round(self.ready_in_s(now), 1)},
                )
        elif isinstance(failure, ProviderRefused) and self.breaker.is_open:
            # It answers again, whatever it thinks of the request.
            if self.breaker.good(now, turn):
                self._tell_well()
        else:
            self.breaker.left(turn)

    def lift(self) -> None:
        """From now on as many calls at once as come, those that wait included."""
        if self.places is not None:
            self.places.resize(sys.maxsize)
            self.places = None

    def list(self, *, is_listed: bool) -> None:
        """Whether the catalogue that serves from now on has it."""
        if self.is_listed and not is_listed:
            self._tell(0)
        self.is_listed = is_listed

    def _tell_well(self) -> None:
        self._tell(0)
        logger.info("a deployment is well again", extra={"deployment": self.name})

    def _tell(self, state: int) -> None:
        # All that clients bring have one name: what is told of one is no news of the others, and nobody's alarm.
        if self.is_listed and self.is_ours:
            self.meter.deployment_state(self.name, state)

    def _cool(self, now: float, failure: ProviderLimited) -> None:
        said_s = failure.retry_after_s
        if said_s is None:
            self._pass_over(now + UNSAID_S, "limits us")
        elif said_s and now + said_s > self.cool_until:
            self.cool_until, self.cooled_by = now + said_s, failure.again("", self.name)
            self.meter.cooled_down(self.name)

    def _spare(self, now: float, failure: ProviderOverloaded) -> None:
        """One call of many may have met the one server that is ill: whoever has no other place is still let through.

        Where all of them meet it, the breaker says so.
        """
        if failure.retry_after_s and self._pass_over(now + failure.retry_after_s, "is overloaded"):
            self.meter.cooled_down(self.name)

    def _doubt(self, now: float) -> None:
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= DOUBTED_AFTER and self.breaker.failures_to_rest:
            self._pass_over(now + self.breaker.rest_s, "fails call after call")

    def _pass_over(self, until: float, why: str) -> bool:
        """Others are asked first until then; False where that was so already."""
        is_later = until > self.shun_until
        if is_later:
            self.shun_until, self.shunned_for = until, why
        return is_later

    def _shun(self, now: float, failure: ProviderRefused) -> None:
        is_news = self.refused is None
        self.refused = failure.again("", self.name)
        self.shun_until = now + (SPENT_S if isinstance(failure, ProviderSpent) else KEY_REFUSED_S)
        self._tell(3)
        if is_news:
            # An alarm: it does not get better before the operator acts.
            logger.error(
                "the provider refuses our key" if isinstance(failure, ProviderRefusedKey) else "our account is spent",
                extra={"deployment": self.name, "status": failure.upstream_code},
            )


class HealthBook:
    """Every deployment's health in this worker."""

    def __init__(self, settings: RoutingSettings, meter: Meter) -> None:
        self.settings = settings
        self.meter = meter
        self._known: dict[str, Health] = {}
        self._gates: dict[str, Turnstile] = {}

    def of(self, deployment: Deployment) -> Health:
        key = _key_of(deployment) if deployment.is_client_given else deployment.name
        found = self._known.get(key)
        if found is None or found.address != deployment.base_url:
            found = self._add(key, deployment)
        if deployment.concurrency:
            if found.places is None:
                found.places = Turnstile(deployment.concurrency)
            elif found.places.places != deployment.concurrency:
                found.places.resize(deployment.concurrency)
        elif found.places is not None and not found.places.in_use and not found.places.waiting:
            found.places = None
        return found

    def follow(self, listing: Listing) -> None:
        """After a reload. `listing`: of the catalogue that serves from now on."""
        for health in self._known.values():
            if not health.is_ours:
                continue
            is_listed = listing.has(health.name)
            health.list(is_listed=is_listed)
            if is_listed and not listing.is_bounded(health.name):
                health.lift()

    def gate_of(self, deployment: Deployment) -> Turnstile | None:
        """What bounds the connections to the deployment's address; None where nothing does."""
        if not self.settings.connections:
            return None
        parts = urlsplit(deployment.base_url)
        key = f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{deployment.provider}/{deployment.region}"
        gate = self._gates.get(key)
        if gate is None:
            if len(self._gates) >= MAX_KNOWN:
                # Clients bring ever new addresses; one with calls under way is not forgotten.
                self._gates = {name: each for name, each in self._gates.items() if each.in_use or each.waiting}
            gate = self._gates[key] = Turnstile(self.settings.connections)
        return gate

    def __iter__(self) -> Iterator[Health]:
        return iter(self._known.values())

    def _add(self, key: str, deployment: Deployment) -> Health:
        before = self._known.get(key)
        if before is not None:
            before.list(is_listed=False)
        elif len(self._known) >= MAX_KNOWN:
            self._forget_some()
        breaker = Breaker(self.settings.failures_to_rest, self.settings.rest_s)
        is_ours = not deployment.is_client_given
        name = deployment.name if is_ours else "own"
        found = Health(name, breaker, self.meter, is_ours, address=deployment.base_url, gate=self.gate_of(deployment))
        self._known[key] = found
        return found

    def _forget_some(self) -> None:
        """The tenth that was used least lately, clients' own first; what is under way keeps its own.

        Of the operator's there are as many as catalogues had, and alarms that somebody has to take back.
        """
        oldest = sorted(self._known.items(), key=lambda known: known[1].worth)
        for key, _ in oldest[: MAX_KNOWN // 10]:
            del self._known[key]


def _key_of(deployment: Deployment) -> str:
    """Of a client's own server; its key is part of it, for a wrong one is one client's fault alone."""
    parts = (deployment.provider, deployment.model, deployment.base_url, deployment.secret.reveal())
    return "own " + blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
