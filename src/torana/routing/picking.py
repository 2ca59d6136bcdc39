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


def pick(deployments: Sequence[Deployment], wish: Wish, book: HealthBook, now: float) -> Picked:
    """Put the deployments of a model in order. `picked.candidates` is empty where none may be asked at all."""
    found = Picked()
    groups: dict[tuple[int, bool], list[Deployment]] = {}
    canaries: list[Deployment] = []
    is_fenced = False
    for each in deployments:
        if not each.is_configured:
            found.left_out.append(Reason(each, "left out", "no credentials"))
        elif wish.fence is not None and not wish.fence.allows(each):
            is_fenced = True
            where = f"is in {each.region}" if each.region else "does not say where it is"
            found.left_out.append(Reason(each, "left out", f"{where}, the caller stays in {wish.fence.regions}"))
        elif each.shadow_percent:
            if is_within(each.shadow_percent, each.name, wish.unit):
                found.shadows.append(Candidate(each, book.of(each), f"shadow of {each.shadow_percent:g} % of callers"))
            else:
                found.left_out.append(
                    Reason(each, "left out", f"shadow of {each.shadow_percent:g} % of callers, not of this one")
                )
        elif each.canary_percent:
            if is_within(each.canary_percent, each.name, wish.unit):
                canaries.append(each)
            else:
                found.left_out.append(
                    Reason(each, "left out", f"canary for {each.canary_percent:g} % of callers, not for this one")
                )
        else:
            is_far = bool(wish.region and each.region and each.region != wish.region)
            groups.setdefault((each.order, is_far), []).append(each)
    resting: list[Candidate] = []
    for each in canaries:
        _add(found, resting, each, book, now, f"canary for {each.canary_percent:g} % of callers")
    for (order, is_far), group in sorted(groups.items(), key=lambda item: item[0]):
        _add_group(found, resting, group, wish, book, now, _place_of(order, wish.region, is_far=is_far))
    found.candidates += resting
    found.is_fenced_out = is_fenced and not found.candidates
    return found


def _add_group(
    found: Picked,
    resting: list[Candidate],
    group: list[Deployment],
    wish: Wish,
    book: HealthBook,
    now: float,
    place: str,
) -> None:
    """Deployments of equal rank: who is first is drawn, the others follow in case it fails."""
    healths = [book.of(each) for each in group]
    ready = [number for number, health in enumerate(healths) if health.is_ready(now)]
    order, why = (ready, "") if len(ready) < 2 else _draw(group, healths, ready, wish, now)
    for number in [*order, *(number for number in range(len(group)) if number not in order)]:
        weight = f"weight {group[number].weight}" if len(group) > 1 else ""
        _add(found, resting, group[number], book, now, ", ".join(filter(None, (place, weight, why))))
        why = ""


def _draw(
    group: Sequence[Deployment], healths: Sequence[Health], ready: Sequence[int], wish: Wish, now: float
) -> tuple[list[int], str]:
    """`ready` in an order to try, and why the first one is first."""
    drawn = [number for number in ready if group[number].weight]
    weightless = [number for number in ready if not group[number].weight]
    if len(drawn) < 2:
        return [*drawn, *weightless], ""
    weights = [float(group[number].weight) for number in drawn]
    key = wish.key()
    if key:
        ranked = rank(key, [group[number].name for number in drawn], weights)
        spilt = spill(ranked, [healths[number].in_flight for number in drawn], weights)
        why = "keeps this prompt's cache warm" if spilt[0] == ranked[0] else "the one with this prompt's cache is busy"
    else:
        lot = random.randbytes(8)  # noqa: S311 a lot, no secret
        spilt = rank(lot, [group[number].name for number in drawn], weights)
        two = spilt[:2]
        costs = _costs([healths[drawn[place]] for place in two], [weights[place] for place in two], now)
        why = "drawn by weight"
        if costs[1] * CLEARLY < costs[0] and random.random() > ANYWAY:  # noqa: S311 a lot, no secret
            spilt[0], spilt[1] = spilt[1], spilt[0]
            why = f"clearly faster or less busy than {group[drawn[spilt[1]]].name}"
    return [*(drawn[place] for place in spilt), *weightless], why


def _costs(healths: Sequence[Health], weights: Sequence[float], now: float) -> list[float]:
    """How long a call may have to wait at each, compared with the others alone."""
    speeds = [health.speed_s(now) for health in healths]
    known = [max(speed_s, QUICK_S) for speed_s in speeds if speed_s is not None]
    times = known if len(known) == len(speeds) else [1.0] * len(speeds)
    return [
        time * (1.0 + health.in_flight / weight) for time, health, weight in zip(times, healths, weights, strict=True)
    ]


def _add(
    found: Picked, resting: list[Candidate], deployment: Deployment, book: HealthBook, now: float, why: str
) -> None:
    health = book.of(deployment)
    if state := health.why_not(now):
        resting.append(Candidate(deployment, health, f"{why}; {state}"))
    else:
        found.candidates.append(Candidate(deployment, health, why))


def _place_of(order: int, region: str, *, is_far: bool) -> str:
    if is_far:
        return f"order {order}, another region than {region}"
    return f"order {order}"
