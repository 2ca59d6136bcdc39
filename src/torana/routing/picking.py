"""Which deployments a call may go to, in which order, and why. Looks at the state of things; sends nothing, waits for
nothing.

canaries     those whose percentage the caller is in, before all others; nobody else ever gets there
order        lower ones first
region       within an order the gateway's own region first; a deployment without one is at home everywhere
weight       within that, as often as its weight says, unless another one is clearly faster or less busy
prompt cache long prompts that begin alike go to the same one, unless it has too much to do
state        whoever rests, cools down or is full comes after all others
"""

import random
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from torana.providers.provider import Deployment
from torana.routing.affinity import is_within, rank, spill
from torana.routing.fences import Fence
from torana.routing.health import Health, HealthBook
from torana.routing.tries import Candidate, Reason

CLEARLY = 1.5
"""So many times better a deployment must be than the one that was drawn; less is noise."""

ANYWAY = 0.1
"""Share of calls that go where they were drawn to, so that what is known of the slow ones is not of yesterday."""

QUICK_S = 0.1
"""Nobody minds how much quicker than this a first chunk is."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What of a call decides where it goes."""

    unit: str
    """Instance and user, for percentages."""
    key: Callable[[], bytes]
    """Whose prompt cache it wants; asked for only where there is a choice."""
    fence: Fence | None = None
    region: str = ""
    """The gateway's own."""


class Picked(msgspec.Struct):
    candidates: list[Candidate] = msgspec.field(default_factory=list)
    shadows: list[Candidate] = msgspec.field(default_factory=list)
    left_out: list[Reason] = msgspec.field(default_factory=list)
    is_fenced_out: bool = False
    """Nothing is left, and the fence alone kept something out."""


Part = Literal["ordinary", "canary", "shadow", "left out", "fenced out"]


def pick(deployments: Sequence[Deployment], wish: Wish, book: HealthBook, now: float) -> Picked:
    """Put the deployments of a model in order. `picked.candidates` is empty where none may be asked at all."""
    found = Picked()
    groups: dict[tuple[int, bool], list[Deployment]] = {}
    ranked: list[tuple[Deployment, str]] = []
    is_fenced = False
    for each in deployments:
        part, why = _part_of(each, wish)
        if part == "ordinary":
            is_far = bool(wish.region and each.region and each.region != wish.region)
            groups.setdefault((each.order, is_far), []).append(each)
        elif part == "canary":
            ranked.append((each, why))
        elif part == "shadow":
            found.shadows.append(Candidate(each, book.of(each), why))
        else:
            found.left_out.append(Reason(each, "left out", why))
            is_fenced = is_fenced or part == "fenced out"
    for (order, is_far), group in sorted(groups.items(), key=lambda item: item[0]):
        place = f"order {order}" + (f", another region than {wish.region}" if is_far else "")
        ranked += [(each, f"{place}, {why}" if why else place) for each, why in _rank(group, wish, book, now)]
    resting: list[Candidate] = []
    for each, why in ranked:
        health = book.of(each)
        if state := health.why_not(now):
            resting.append(Candidate(each, health, f"{why}; {state}"))
        else:
            found.candidates.append(Candidate(each, health, why))
    found.candidates += resting
    found.is_fenced_out = is_fenced and not found.candidates
    return found


def _part_of(each: Deployment, wish: Wish) -> tuple[Part, str]:
    """What a deployment is to this call, and why; for an ordinary one that is found out among its equals."""
    if not each.is_configured:
        return "left out", "no credentials"
    if wish.fence is not None and not wish.fence.allows(each):
        where = f"is in {each.region}" if each.region else "does not say where it is"
        return "fenced out", f"{where}, the caller stays in {wish.fence.regions}"
    if each.shadow_percent:
        share = f"shadow of {each.shadow_percent:g} % of callers"
        is_in = is_within(each.shadow_percent, each.name, wish.unit)
        return ("shadow", share) if is_in else ("left out", f"{share}, not of this one")
    if each.canary_percent:
        share = f"canary for {each.canary_percent:g} % of callers"
        is_in = is_within(each.canary_percent, each.name, wish.unit)
        return ("canary", share) if is_in else ("left out", f"{share}, not for this one")
    return "ordinary", ""


def _rank(group: Sequence[Deployment], wish: Wish, book: HealthBook, now: float) -> list[tuple[Deployment, str]]:
    """Deployments of equal rank, each with why: who is first is drawn, the others follow in case it fails."""
    ready = [each for each in group if book.of(each).is_ready(now)]
    drawn = [each for each in ready if each.weight]
    why = ""
    if len(drawn) > 1:
        drawn, why = _draw(drawn, wish, book, now)
    order = [*drawn, *(each for each in ready if not each.weight), *(each for each in group if each not in ready)]
    weights = [f"weight {each.weight}" if len(group) > 1 else "" for each in order]
    reasons = [", ".join(filter(None, (weight, why if place == 0 else ""))) for place, weight in enumerate(weights)]
    return list(zip(order, reasons, strict=True))


def _draw(group: Sequence[Deployment], wish: Wish, book: HealthBook, now: float) -> tuple[list[Deployment], str]:
    """Two or more in an order to try, and why the first one is first."""
    names, weights = [each.name for each in group], [float(each.weight) for each in group]
    healths = [book.of(each) for each in group]
    if key := wish.key():
        ranked = rank(key, names, weights)
        order = spill(ranked, [health.in_flight for health in healths], weights)
        why = "keeps this prompt's cache warm" if order[0] == ranked[0] else "the one with this prompt's cache is busy"
    else:
        order = rank(random.randbytes(8), names, weights)  # noqa: S311 a lot, no secret
        first, second = order[:2]
        costs = _costs([healths[first], healths[second]], [weights[first], weights[second]], now)
        why = "drawn by weight"
        if costs[1] * CLEARLY < costs[0] and random.random() > ANYWAY:  # noqa: S311 a lot, no secret
            order[:2] = second, first
            why = f"clearly faster or less busy than {names[first]}"
    return [group[place] for place in order], why


def _costs(healths: Sequence[Health], weights: Sequence[float], now: float) -> list[float]:
    """How long a call may have to wait at each, compared with the others alone."""
    speeds = [health.speed_s(now) for health in healths]
    known = [max(speed_s, QUICK_S) for speed_s in speeds if speed_s is not None]
    times = known if len(known) == len(speeds) else [1.0] * len(speeds)
    return [
        time * (1.0 + health.in_flight / weight) for time, health, weight in zip(times, healths, weights, strict=True)
    ]
