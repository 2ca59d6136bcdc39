"""Calls that meet several limits at once, against a plain model: whatever is taken, settled, released, reloaded, and
whatever the two clocks do."""

import random
from typing import Any, NamedTuple

import pytest
from tests.support.clock import HandClock
from tests.support.limit_desk import Desk, catalogue

from torana.catalog.limit_text import read_limit
from torana.catalog.records import LimitRecord
from torana.limits.calendar import end_of
from torana.limits.here import Here
from torana.limits.hold import Hold
from torana.limits.limits import Limits

SECOND = 10**9
PERIODS = ("second", "minute", "10 minutes", "hour", "day", "week", "month")
Spending = tuple[int, int, int]
"""Input tokens, output tokens, billionths of a dollar."""


class Moment(NamedTuple):
    mono: int
    wall: float


class Window:
    """What was taken of one count; `mono` and `wall`: when it is over by either clock, `wall` of a calendar's only."""

    def __init__(self, mono: int, wall: float) -> None:
        self.mono, self.wall, self.used = mono, wall, 0


class Model:
    """One limit, in the plainest words. `counts` outlive a reload."""

    def __init__(self, record: LimitRecord, counts: dict[Any, Any]) -> None:
        self.terms, self.burst, self.counts = read_limit(record.limit), record.burst, counts
        self.whole = self.burst or self.terms.amount

    def whose(self, user: str, instance: str) -> Any:
        named = {"user": f"{user} of {instance}", "instance": instance}
        return tuple(named.get(name, "") for name in self.terms.per)

    def amount(self, spent: Spending) -> int:
        asked, answered, cost = spent
        of_unit = {"tokens": asked + answered, "input_tokens": asked, "output_tokens": answered, "usd": cost}
        return of_unit.get(self.terms.unit, 1)

    def weight(self, amount: int) -> int:
        return amount * int(self.terms.period_s * SECOND) // self.terms.amount

    def window(self, whose: Any, now: Moment) -> Window | None:
        found: Window | None = self.counts.get(whose)
        if found is None or found.mono <= now.mono or found.wall <= now.wall:
            return self.counts.pop(whose, None) and None
        if self.terms.is_calendar and (end := end_of(self.terms.period, now.wall)) < found.wall:
            found.wall, found.mono = end, min(found.mono, now.mono + int((end - now.wall) * SECOND))
        return found

    def left(self, whose: Any, now: Moment) -> int:
        if self.terms.unit == "streams":
            return int(self.terms.amount - self.counts.get(whose, 0))
        if self.burst:
            drained = max(0, self.counts.get(whose, 0) - now.mono)
            return self.burst - -(-drained * self.terms.amount // int(self.terms.period_s * SECOND))
        found = self.window(whose, now)
        return self.terms.amount - (found.used if found is not None else 0)

    def fits(self, left: int, amount: int) -> bool:
        return amount <= left or not amount or amount > self.whole == left

    def take(self, whose: Any, amount: int, now: Moment) -> tuple[Window | None, int]:
        """What tells later whether it is the same period still."""
        if self.terms.unit == "streams":
            self.counts[whose] = self.counts.get(whose, 0) + amount
        elif self.burst:
            self.counts[whose] = max(now.mono, self.counts.get(whose, 0)) + self.weight(amount)
        else:
            found = self.window(whose, now)
            if found is None:
                end = end_of(self.terms.period, now.wall) if self.terms.is_calendar else float("inf")
                lasts = int((end - now.wall if self.terms.is_calendar else self.terms.period_s) * SECOND)
                found = self.counts[whose] = Window(now.mono + lasts, end)
            found.used += amount
            return found, found.mono
        return None, 0

    def refuse(self, whose: Any, now: Moment) -> None:
        """Another limit did: a period begins with a call that passes."""
        if self.terms.unit != "streams" and not self.burst:
            found = self.window(whose, now)
            if found is not None and not found.used:
                del self.counts[whose]

    def correct(self, whose: Any, taken: tuple[Window | None, int], more: int, now: Moment) -> None:
        if self.terms.unit == "streams":
            self.counts[whose] -= 1
        elif self.burst and more:
            self.counts[whose] = max(now.mono, self.counts.get(whose, 0)) + self.weight(more)
        elif more:
            found = self.window(whose, now)
            if found is not None and (found, found.mono) == taken:
                found.used = max(0, found.used + more)
            elif more > 0:
                self.take(whose, more, now)


def some_limit(chance: random.Random, name: str) -> LimitRecord:
    unit = chance.choice(("requests", "tokens", "input tokens", "output tokens", "USD", "concurrent streams"))
    amount = chance.choice((1, 3, 20, 100))
    whom = chance.choice(("", " per user", " per instance", " per user and model"))
    if unit == "concurrent streams":
        return LimitRecord(name=name, limit=f"{amount} {unit}{whom}")
    many = {"requests": f"{amount}", "USD": f"{amount / 10**8:.9f}"}.get(unit, f"{amount * 10}")
    period = chance.choice(PERIODS)
    burst = 0 if period in ("day", "week", "month") else chance.choice((0, 0, 1, 5))
    return LimitRecord(name=name, limit=f"{many} {unit} per {period}{whom}", burst=burst)


def another_amount(chance: random.Random, record: LimitRecord) -> LimitRecord:
    head, _, rest = record.limit.partition(" ")
    many = chance.choice(("1", "3", "50", "200")) if "USD" not in rest else f"{float(head) * 2:.9f}"
    return LimitRecord(name=record.name, limit=f"{many} {rest}", burst=record.burst and chance.choice((1, 2, 9)))


@pytest.mark.parametrize("seed", range(60))
def test_calls_take_from_all_their_limits_or_from_none_whatever_happens_meanwhile(seed: int) -> None:
    chance = random.Random(seed)
    clock = HandClock(1_700_006_400.0 + chance.randrange(40 * 86_400))
    records = [some_limit(chance, f"limit-{number}") for number in range(chance.randrange(1, 5))]
    desk, models = Desk(*records, clock=clock), [Model(record, {}) for record in records]
    under_way: list[tuple[Hold, list[tuple[Model, Any, int, Any]]]] = []

    for _ in range(150):
        now = Moment(int(clock.monotonic() * SECOND), clock.now())
        doing = chance.choices(("ask", "end", "reload", "wait", "jump"), (50, 25, 3, 17, 5))[0]
        spent = chance.randrange(60), chance.randrange(60), chance.randrange(60)
        if doing == "ask":
            user, instance = chance.choice("ab"), chance.choice("xy")
            found = desk.ask(user, instance, input_tokens=spent[0], output_tokens=spent[1], cost=spent[2])
            rows = [(model, model.whose(user, instance), model.amount(spent)) for model in models]
            fits = [model.fits(model.left(whose, now), amount) for model, whose, amount in rows]
            assert isinstance(found, Hold) == all(fits)
            if isinstance(found, Hold):
                taken = [(*row, row[0].take(row[1], row[2], now)) for row in rows]
                assert list(found.lefts) == [model.left(whose, now) for model, whose, _ in rows]
                under_way.append((found, taken))
            else:
                for model, whose, _ in rows[: fits.index(False)]:
                    model.refuse(whose, now)
        elif doing == "end" and under_way:
            hold, taken = under_way.pop(chance.randrange(len(under_way)))
            was_sent = chance.random() < 0.8
            if was_sent:
                desk.settle(hold, input_tokens=spent[0], output_tokens=spent[1], cost=spent[2])
            else:
                desk.limits.release(hold)
            for model, whose, amount, what in taken:
                model.correct(whose, what, model.amount(spent) - amount if was_sent else -amount, now)
        elif doing == "reload":
            at = chance.randrange(len(records))
            records[at] = another_amount(chance, records[at])
            models[at] = Model(records[at], models[at].counts)
            desk.limits = Limits(catalogue(*records), Here(desk.table, clock), clock, desk.metrics)
        elif doing == "wait":
            clock.advance(chance.choice((0, 1, 59, 60, 61, 600, 3600, chance.randrange(3 * 86_400))))
        elif doing == "jump":
            clock.jump(chance.choice((1, 300, 3600, 86_400, 20 * 86_400)) * chance.choice((-1, 1)) + chance.random())
