"""Counting in this server's own table: exact for all its workers, and nobody is waited for."""

from collections.abc import Sequence

from torana.clock import Clock
from torana.limits.hold import Hold, Met, Refused, note_all
from torana.limits.rules import SECOND, Rule
from torana.limits.spent import Spent
from torana.limits.table import KEY_B, UNTIL, Table


class Here:
    """The counts of one server."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self.table = table
        self._clock = clock
        self._short_until = 0
        """Until then a limit on requests or bytes may have no room, as far as this worker has seen."""

    def take(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold | None:
        """Take so much from every limit, or raise Refused and take from none; None: only `ask` can say."""
        now, table = int(self._clock.monotonic() * SECOND), self.table
        numbers = table.numbers
        slots: list[int] = []
        lefts: list[int] = []
        ends: list[int] = []
        table.lock()
        try:
            for tally in met.tallies:
                amount, slot = amounts[tally.index], tally.slot
                if numbers[slot] != tally.key[0] or numbers[slot + KEY_B] != tally.key[1]:
                    slot = tally.slot = table.find(tally.key, now, slots)
                left = tally.rule.take(numbers, slot, now, amount)
                if left is None:
                    for rule, at, taken in zip(met.rules, slots, amounts, strict=False):
                        rule.untake(numbers, at, taken)
                    raise self._refused(met.rules, table.find_all(met.tallies, now), amounts, now)
                slots.append(slot)
                lefts.append(left)
                ends.append(end := numbers[slot + UNTIL])
                if left <= 0 and end > self._short_until and tally.rule.is_known_unread:
                    self._short_until = end
            lines = () if table.note is None else note_all(table.note, met, amounts, ends)
        finally:
            table.unlock()
        return Hold(met, amounts, slots, ends, lefts, now, expected, lines)

    async def ask(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold:
        """As `take`, where it takes a question to somebody else."""
        raise NotImplementedError

    def is_short(self) -> bool:
        """Whether a glance may find a limit used up."""
        return self._short_until > int(self._clock.monotonic() * SECOND)

    def glance(self, met: Met, amounts: Sequence[int]) -> None:
        """Raises Refused where a limit is known to have no room for so much; takes nothing."""
        now, table = int(self._clock.monotonic() * SECOND), self.table
        numbers = table.numbers
        table.lock()
        try:
            for tally in met.tallies:
                slot = table.look_for(tally)
                if slot >= 0 and not tally.rule.fits(tally.rule.left(numbers, slot, now), amounts[tally.index]):
                    seen = [(each, at) for each in met.tallies if (at := table.look_for(each)) >= 0]
                    rules, slots = [each.rule for each, _ in seen], [at for _, at in seen]
                    raise self._refused(rules, slots, [amounts[each.index] for each, _ in seen], now)
        finally:
            table.unlock()

    def places(self, met: Met) -> int:
        """How many calls pass by its one limit on requests."""
        return self.left(met)[0]

    def left(self, met: Met) -> list[int]:
        """What is left of each limit."""
        now, table = int(self._clock.monotonic() * SECOND), self.table
        table.lock()
        try:
            slots = [table.look_for(tally) for tally in met.tallies]
            return [
                rule.whole if slot < 0 else max(0, rule.left(table.numbers, slot, now))
                for rule, slot in zip(met.rules, slots, strict=True)
            ]
        finally:
            table.unlock()

    def settle(self, hold: Hold, amounts: Sequence[int], *, was_sent: bool = True) -> None:
        """Give back what was reserved and not used, and count what was used beyond; where nothing was sent, all."""
        now, table, met, reserved = int(self._clock.monotonic() * SECOND), self.table, hold.met, hold.amounts
        table.lock()
        try:
            for tally in met.returning if was_sent else met.tallies:
                index, rule = tally.index, tally.rule
                more = amounts[index] - reserved[index] if rule.is_metered else -reserved[index]
                if more:
                    rule.give(table, tally.key, hold.slots[index], hold.ends[index], now, more)
            for line in hold.lines:
                table.forget(line)
        finally:
            table.unlock()

    def _refused(self, rules: Sequence[Rule], slots: Sequence[int], amounts: Sequence[int], now: int) -> Refused:
        numbers = self.table.numbers
        ends = [numbers[slot + UNTIL] for slot in slots]
        counted = [end for rule, end in zip(rules, ends, strict=True) if rule.is_known_unread]
        self._short_until = max([self._short_until, *counted])  # another worker may have used it up
        lefts = [rule.left(numbers, slot, now) for rule, slot in zip(rules, slots, strict=True)]
        waits = [
            -1 if rule.fits(left, amount) else rule.wait_ns(numbers, slot, now, amount)
            for rule, slot, left, amount in zip(rules, slots, lefts, amounts, strict=True)
        ]
        return Refused(rules, lefts, ends, now, waits)
