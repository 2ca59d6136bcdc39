"""Counting in this server's own table: exact for all its workers, and nobody is waited for."""

from collections.abc import Sequence

from torana.clock import Clock
from torana.limits.hold import Asked, Hold, Refused, Spent, Taken
from torana.limits.rules import SECOND
from torana.limits.table import Table


class Here:
    """The counts of one server."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self.table = table
        self._clock = clock

    def take(self, asked: Sequence[Asked], expected: Spent) -> Hold | None:
        """Take from every limit, or raise Refused and take from none; None: only `ask` can say."""
        now, table = self.now(), self.table
        taken, standings = [], []
        table.lock()
        try:
            slots = table.find_all([each.key for each in asked], now)
            for each, slot in zip(asked, slots, strict=True):
                if not each.rule.fits(table, slot, now, each.amount):
                    raise self._refused(asked, slots, now)
            for (rule, key, amount), slot in zip(asked, slots, strict=True):
                until = rule.take(table, slot, now, amount)
                line = table.note(key, until, rule.weight(amount)) if rule.gives_back else -1
                taken.append(Taken(rule, key, slot, until, amount, line))
                standings.append(rule.standing(table, slot, now))
        finally:
            table.unlock()
        return Hold(taken, standings, expected)

    async def ask(self, asked: Sequence[Asked], expected: Spent) -> Hold:
        """As `take`, where it takes a question to somebody else."""
        raise NotImplementedError

    def glance(self, asked: Sequence[Asked]) -> None:
        """Raises Refused where a limit is known to be used up; takes nothing."""
        now, table = self.now(), self.table
        table.lock()
        try:
            for rule, key, amount in asked:
                slot = table.look(key)
                if slot >= 0 and not rule.fits(table, slot, now, amount):
                    met = [(each, slot) for each in asked if (slot := table.look(each.key)) >= 0]
                    raise self._refused([each for each, _ in met], [slot for _, slot in met], now)
        finally:
            table.unlock()

    def left(self, asked: Sequence[Asked]) -> list[int]:
        """What is left of each limit."""
        now, table = self.now(), self.table
        table.lock()
        try:
            slots = [table.look(each.key) for each in asked]
            return [
                each.rule.amount if slot < 0 else max(0, each.rule.left(table, slot, now))
                for each, slot in zip(asked, slots, strict=True)
            ]
        finally:
            table.unlock()

    def settle(self, hold: Hold, amounts: Sequence[int]) -> None:
        """Give back what was reserved and not used, and count what was used beyond."""
        now, table = self.now(), self.table
        table.lock()
        try:
            for (rule, key, slot, until, reserved, line), amount in zip(hold.taken, amounts, strict=True):
                if not rule.gives_back:
                    continue
                more = amount - reserved if rule.is_metered else -reserved
                if more:
                    rule.give(table, key, slot, until, now, more)
                table.forget(line)
        finally:
            table.unlock()

    def now(self) -> int:
        return int(self._clock.monotonic() * SECOND)

    def _refused(self, asked: Sequence[Asked], slots: Sequence[int], now: int) -> Refused:
        table = self.table
        waits = [
            -1 if rule.fits(table, slot, now, amount) else rule.wait_ns(table, slot, now, amount)
            for (rule, _, amount), slot in zip(asked, slots, strict=True)
        ]
        standings = [each.rule.standing(table, slot, now) for each, slot in zip(asked, slots, strict=True)]
        return Refused(asked, standings, waits)
