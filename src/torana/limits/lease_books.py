"""The books of leases: what this server has of each shared limit, what it has used of it, and what it owes.

Windows and flows stand in the table, for all workers of the server. Streams, and what calls hold of exact limits, are
this worker's own: they are written down in the store under its name. No waiting here; whoever calls holds the lock.
"""

from collections.abc import Sequence
from fractions import Fraction

from torana.limits.hold import Hold, Met, Refused, Tally
from torana.limits.lease_held import Held
from torana.limits.lease_notes import Leased, Owed, Streams, Told
from torana.limits.questions import Answer, arguments, is_held, wait_ns
from torana.limits.rules import SECOND, FlowRule, Rule
from torana.limits.spent import Spent
from torana.limits.table import ALONE_TO, END, FOREVER, GRANTED, IS_EXACT, LEFT, SHUT, TOUCHED, UNTIL, USED, Key, Table

SLICE = 20
"""A lease is at most the 20th part of its limit."""
IDLE_NS = 2 * SECOND
"""A lease that nobody uses for so long goes back."""
SHUT_NS = SECOND
"""For so long a limit that is used up is refused without asking again."""
ALONE = -1
"""END of a window that this server opened by itself."""


class Books:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.shut_until = 0
        """Until then a limit may be one of which too little was left a moment ago."""
        self.leased: dict[Key, Leased] = {}
        """Where this worker has leased something, or may have debts; what is all used and told is in it for a while."""
        self.streams: dict[Key, Streams] = {}
        self.held = Held()
        """What is granted of exact limits stands here first, and in the table's GRANTED when a call takes it."""
        self.owed: dict[tuple[Key, int], Owed] = {}

    # --- Taking ---

    def room(self, tally: Tally, slot: int, now: int) -> int:
        """What calls may take without asking; below 0 where more was used than granted."""
        rule, key = tally.rule, tally.key
        if rule.unit == "streams":
            held = self.streams.get(key)
            return 0 if held is None else min(held.granted, rule.amount) - held.used  # a reload may have lowered it
        numbers = self.table.numbers
        if numbers[slot + UNTIL] <= now:
            return 0
        if is_held(rule):
            return self.held.room((key, numbers[slot + UNTIL]))
        return numbers[slot + GRANTED] - numbers[slot + USED]

    def has(self, tally: Tally, amount: int, slot: int, now: int) -> bool:
        """Whether a call finds enough here."""
        # Of a limit that it asks nothing of (a model without a price), it needs nothing.
        return not amount or self.room(tally, slot, now) >= amount

    def has_all(self, met: Met, amounts: Sequence[int], slots: Sequence[int], now: int) -> bool:
        return all(self.has(tally, amounts[tally.index], slots[tally.index], now) for tally in met.tallies)

    def hold(
        self,
        met: Met,
        amounts: Sequence[int],
        slots: Sequence[int],
        now: int,
        expected: Spent,
        shares: Sequence[int] | None = None,
    ) -> Hold:
        """Take; `shares`: what this server lets pass, which is alone."""
        table, is_alone = self.table, shares is not None
        numbers, ends, lefts = table.numbers, [], []
        for tally in met.tallies:
            index, slot, amount = tally.index, slots[tally.index], amounts[tally.index]
            numbers[slot + TOUCHED] = now
            if tally.rule.unit == "streams":
                held = self.streams[tally.key]
                held.rule = tally.rule  # of the catalogue that serves now
                held.used += 1
                held.touched = now
                numbers[slot + UNTIL] = FOREVER
            numbers[slot + USED] += amount
            if not is_alone and isinstance(tally.rule, FlowRule):  # what is leased of it, while it is used
                numbers[slot + UNTIL] = max(numbers[slot + UNTIL], now + 2 * IDLE_NS)
            elif not is_alone and is_held(tally.rule):
                self.held.take((tally.key, numbers[slot + UNTIL]), tally.rule, numbers[slot + END], amount)
                numbers[slot + GRANTED] += amount
            lefts.append(self.left(tally, slot, now, None if shares is None else shares[index]))
            ends.append(self._end(tally.rule, slot, now, None if is_alone else lefts[-1]))
        note = table.note
        lines = [note(each.key, ends[each.index], amounts[each.index]) for each in met.returning if note is not None]
        return Hold(met, amounts, slots, ends, lefts, now, expected, lines, is_degraded=is_alone)

    def untake(self, hold: Hold, now: int) -> None:
        """Nobody wants what was taken."""
        numbers = self.table.numbers
        for tally, slot, until, amount in zip(hold.met.tallies, hold.slots, hold.ends, hold.amounts, strict=True):
            if tally.rule.unit == "streams":
                self.end_stream(tally, slot, until, now, 1)
            elif self._is_same(tally, slot, until, now):
                numbers[slot + USED] = max(0, numbers[slot + USED] - amount)
                if is_held(tally.rule):
                    numbers[slot + GRANTED] = max(0, numbers[slot + GRANTED] - amount)
                    self.held.grant((tally.key, until), amount)
                else:
                    self.leased[tally.key] = Leased(tally.key, tally.rule, slot)
            self.held.release((tally.key, until), amount)
        for line in hold.lines:
            self.table.forget(line)

    def _is_same(self, tally: Tally, slot: int, until: int, now: int) -> bool:
        """Whether a slot still counts what a call took of it; a flow has no windows that could be over."""
        ends = self.table.numbers[slot + UNTIL]
        return self.table.holds(slot, tally.key) and ends > now and (isinstance(tally.rule, FlowRule) or ends == until)

    def open_alone(self, tally: Tally, slot: int, now: int) -> None:
        """Make ready to take what was not granted; the store is told later."""
        numbers, rule = self.table.numbers, tally.rule
        if rule.unit == "streams":
            held = self.streams.setdefault(tally.key, Streams(rule))
            held.granted = max(held.granted, held.used + 1)
            return
        if numbers[slot + UNTIL] <= now:
            numbers[slot + UNTIL], numbers[slot + END] = now + rule.length_ns(), ALONE
            numbers[slot + USED] = numbers[slot + GRANTED] = numbers[slot + ALONE_TO] = 0
        elif isinstance(rule, FlowRule):  # the store is still to be told, whenever it comes back
            numbers[slot + UNTIL] = max(numbers[slot + UNTIL], now + rule.length_ns())
        self.leased[tally.key] = Leased(tally.key, rule, slot)

    def share(self, rule: Rule, slot: int, now: int, servers: Fraction) -> int:
        """What this server lets pass while it is alone, what has passed already included.

        Of a window that the store knew of, what was left of it is shared out, and not the whole again: servers that are
        cut off at the same time let no more pass together than the limit.
        servers  how many share it
        """
        numbers, whole = self.table.numbers, max(1, int(rule.whole / servers))
        if rule.unit == "streams" or numbers[slot + UNTIL] <= now or numbers[slot + END] == ALONE:
            return whole
        if not numbers[slot + ALONE_TO]:
            had = max(numbers[slot + GRANTED], numbers[slot + USED])
            numbers[slot + ALONE_TO] = had + min(whole, int(max(0, numbers[slot + LEFT]) / servers))
        return numbers[slot + ALONE_TO]

    def is_untouched(self, rule: Rule, slot: int, now: int) -> bool:
        """Whether nobody has used anything, as far as this server knows: then a call that is larger than all passes."""
        numbers = self.table.numbers
        if numbers[slot + UNTIL] <= now:
            return True
        left = rule.whole if numbers[slot + END] == ALONE else numbers[slot + LEFT] + numbers[slot + GRANTED]
        return not numbers[slot + USED] and left >= rule.whole

    def leave(self, tally: Tally, slot: int, now: int) -> bool:
        """What of an exact limit nobody here has taken goes back; True where there was something."""
        rule, key = tally.rule, tally.key
        room = self.room(tally, slot, now)
        if not rule.is_exact or room <= 0:
            return False
        numbers = self.table.numbers
        if is_held(rule):
            room = self.held.leave((key, numbers[slot + UNTIL]))
            self.owe(rule, key, numbers[slot + END], back=room, freed=room)
        elif rule.unit != "streams":  # those have a way of their own
            numbers[slot + GRANTED] -= room
            self.owe(rule, key, numbers[slot + END], back=room, freed=0)
        return True

    def credit(self, rule: Rule, key: Key, slot: int, answer: Answer, now: int) -> None:
        """Write down what the store has granted."""
        numbers = self.table.numbers
        granted = max(0, answer.granted)
        numbers[slot + LEFT] = answer.left
        if rule.unit == "streams":
            held = self.streams.setdefault(key, Streams(rule))
            held.granted += granted
            held.touched = now
            return
        is_flow = isinstance(rule, FlowRule)
        until = now + (2 * IDLE_NS if is_flow else answer.reset_ms * 1_000_000)
        if numbers[slot + UNTIL] > now and numbers[slot + END] in (answer.end, ALONE):
            if is_flow:
                numbers[slot + UNTIL] = until
        else:
            numbers[slot + UNTIL] = until
            numbers[slot + USED] = numbers[slot + GRANTED] = numbers[slot + SHUT] = 0
        numbers[slot + END], numbers[slot + ALONE_TO] = answer.end, 0
        if is_held(rule):
            self.held.grant((key, numbers[slot + UNTIL]), granted)
        else:
            numbers[slot + GRANTED] += granted
        numbers[slot + IS_EXACT] = int(is_held(rule))
        numbers[slot + TOUCHED] = now
        if not rule.is_exact:
            self.leased[key] = Leased(key, rule, slot)

    def shut(self, rule: Rule, slot: int, answer: Answer, now: int, wanted: int) -> None:
        """Less than `wanted` is left; for a moment nobody needs to ask for more than that."""
        self.shut_until = self.table.numbers[slot + SHUT] = now + min(wait_ns(rule, wanted, answer), SHUT_NS)

    def refuse_shut(self, tallies: Sequence[Tally], amounts: Sequence[int], slots: Sequence[int], now: int) -> None:
        """Raises Refused where not so much was left a moment ago."""
        numbers = self.table.numbers
        waits = [
            self._wait_shut(tally.rule, slot, amount, now)
            if numbers[slot + SHUT] > now
            and not self.has(tally, amount, slot, now)
            and amount > self.left(tally, slot, now)
            else -1
            for tally, amount, slot in zip(tallies, amounts, slots, strict=True)
        ]
        if any(wait >= 0 for wait in waits):
            raise self.refused(tallies, slots, now, waits)

    def _wait_shut(self, rule: Rule, slot: int, amount: int, now: int) -> int:
        numbers = self.table.numbers
        if not isinstance(rule, FlowRule):
            return numbers[slot + UNTIL] - now
        if numbers[slot + SHUT] - numbers[slot + TOUCHED] < SHUT_NS:
            return numbers[slot + SHUT] - now
        # Of what the store has said only whole units are known here.
        return numbers[slot + TOUCHED] + rule.flow_ns(rule.weight(rule.burst - numbers[slot + LEFT]), amount) - now

    def refused(
        self,
        tallies: Sequence[Tally],
        slots: Sequence[int],
        now: int,
        waits_ns: Sequence[int],
        shares: Sequence[int] | None = None,
    ) -> Refused:
        lefts = [
            self.left(tally, slot, now, None if shares is None else shares[index])
            for index, (tally, slot) in enumerate(zip(tallies, slots, strict=True))
        ]
        rules = [tally.rule for tally in tallies]
        rows = zip(rules, slots, lefts, strict=True)
        ends = [self._end(rule, slot, now, left if shares is None else None) for rule, slot, left in rows]
        return Refused(rules, lefts, ends, now, waits_ns, is_degraded=shares is not None)

    def left(self, tally: Tally, slot: int, now: int, share: int | None = None) -> int:
        """What is left, as far as this server knows; `share`: what it lets pass alone."""
        numbers, rule = self.table.numbers, tally.rule
        if share is None and rule.unit == "streams":
            return numbers[slot + LEFT]
        used = numbers[slot + USED] if numbers[slot + UNTIL] > now else 0
        if share is not None:
            return share - used
        if numbers[slot + UNTIL] <= now or numbers[slot + END] == ALONE:  # the store has not said anything yet
            return rule.whole - used
        return numbers[slot + LEFT] + numbers[slot + GRANTED] - used

    def _end(self, rule: Rule, slot: int, now: int, left: int | None) -> int:
        """When the whole amount is there again; `left`: None while this server is alone."""
        if left is None or not isinstance(rule, FlowRule):
            return self.table.numbers[slot + UNTIL]
        return now + max(0, rule.weight(rule.burst - left))

    # --- Settling ---

    def end_stream(self, tally: Tally, slot: int, until: int, now: int, alive: int) -> bool:
        """True where somebody may be waiting for the place. `alive`: workers that share it."""
        tally.rule.give(self.table, tally.key, slot, until, now, -1)
        held = self.streams.get(tally.key)
        if held is None:
            return False
        held.used = max(0, held.used - 1)
        held.touched = now
        return held.granted - held.used > self._kept(held, slot, alive)

    def settle_amount(self, hold: Hold, tally: Tally, amount: int, now: int) -> bool:
        """Count `amount` in place of what was reserved; True where the store is to be told soon."""
        numbers, index = self.table.numbers, tally.index
        rule, key, slot = tally.rule, tally.key, hold.slots[index]
        until, reserved = hold.ends[index], hold.amounts[index]
        more = amount - reserved
        is_flow = isinstance(rule, FlowRule)
        is_same = self._is_same(tally, slot, until, now)
        if is_same:
            numbers[slot + USED] = max(0, numbers[slot + USED] + more)
        if rule.is_exact and not hold.is_degraded:
            self.held.release((key, until), reserved)
            if is_same:
                numbers[slot + GRANTED] = max(0, numbers[slot + GRANTED] + more)
                self.owe(rule, key, numbers[slot + END], back=-more, freed=reserved if is_held(rule) else 0)
            elif more > 0 or is_flow:
                self.owe(rule, key, 0, back=-more, freed=0)
            return True
        if is_held(rule) and is_same and numbers[slot + END] != ALONE:
            # It has been told already, at least some of it, and nobody else may take what comes back of that.
            back = numbers[slot + GRANTED] - numbers[slot + USED]
            if back > 0:
                numbers[slot + GRANTED] -= back
                self.owe(rule, key, numbers[slot + END], back=back, freed=0)
        if is_same:
            is_overdrawn: bool = numbers[slot + USED] > numbers[slot + GRANTED]
            if is_overdrawn or more < 0:
                self.leased[key] = Leased(key, rule, slot)
            return is_overdrawn
        is_told = more > 0 or (is_flow and not hold.is_degraded)  # a flow has no windows that could be over
        if is_told:
            self.owe(rule, key, 0, back=-more, freed=0)
        return is_told

    def owe(self, rule: Rule, key: Key, end: int, *, back: int, freed: int) -> None:
        owed = self.owed.setdefault((key, end), Owed(rule))
        owed.back += back
        owed.freed += freed

    # --- What the store is to be told ---

    def assume_debt(self, rule: Rule, slot: int, now: int) -> int:
        """What was used beyond what was granted. From now on it counts as granted; see `lose`."""
        numbers = self.table.numbers
        if rule.unit == "streams" or numbers[slot + UNTIL] <= now:
            return 0
        debt = max(0, numbers[slot + USED] - numbers[slot + GRANTED])
        numbers[slot + GRANTED] += debt
        return debt

    def owed_lines(self) -> list[Told]:
        owed, self.owed = self.owed, {}
        found = []
        for (key, end), each in owed.items():
            words = arguments(each.rule, back=each.back, back_end=end, freed=each.freed)
            found.append(Told(key, each.rule, words, end=end, back=each.back, freed=each.freed))
        return found

    def debt_lines(self, now: int) -> list[Told]:
        found = []
        for each in self.leased.values():
            slot = self.table.look_for(each)
            if slot >= 0 and (debt := self.assume_debt(each.rule, slot, now)):
                found.append(Told(each.key, each.rule, arguments(each.rule, back=-debt), debt))
        return found

    def idle_lease_lines(self, now: int, idle_ns: int = IDLE_NS) -> list[Told]:
        """What nobody has used for so long; of a limit that is exact by now, nobody takes what was leased before."""
        found, numbers = [], self.table.numbers
        self.held.forget_ended(now)
        for key, each in list(self.leased.items()):
            rule, slot = each.rule, self.table.look_for(each)
            if slot < 0 or numbers[slot + UNTIL] <= now:
                del self.leased[key]
                continue
            free = numbers[slot + GRANTED] - numbers[slot + USED]
            is_idle = numbers[slot + IS_EXACT] or now - numbers[slot + TOUCHED] >= idle_ns
            if free < 0 or not is_idle or (end := numbers[slot + END]) == ALONE:
                continue
            if free:
                numbers[slot + GRANTED] -= free
                found.append(Told(key, rule, arguments(rule, back=free, back_end=end), end=end, back=free))
            del self.leased[key]
        return found

    def _kept(self, held: Streams, slot: int, alive: int) -> int:
        """How many free places a worker keeps for its next streams: none that another one may need meanwhile."""
        if held.rule.is_exact:
            return 0
        if alive <= 1:
            return held.rule.amount
        return held.rule.amount // SLICE if slot >= 0 and self.table.numbers[slot + LEFT] > 0 else 0

    def idle_stream_lines(self, now: int, alive: int, idle_ns: int = IDLE_NS) -> list[Told]:
        """A lost word is made good by the worker's next name. `alive`: workers that share the places."""
        found = []
        for key, held in list(self.streams.items()):
            free = held.granted - held.used
            if free > 0 and now - held.touched < idle_ns:  # mostly none is: a look at each would take long
                free -= self._kept(held, self.table.look(key), alive)
            if free > 0:
                held.granted -= free
                found.append(Told(key, held.rule, arguments(held.rule, back=free)))
            if not held.granted:
                del self.streams[key]
        return found

    def forget_name(self) -> None:
        """The worker's name is another now, and what calls held under the old one is free with it.

        So what an ended call has not used is free already, and what it has used is still to be counted.
        """
        self.held.forget_untaken()
        for each in self.owed.values():
            each.back -= each.freed
            each.freed = 0

    def held_lines(self, now: int) -> list[Told]:
        """Everything that is this worker's own, for a store that knows it by another name."""
        streams = [Told(key, held.rule, arguments(held.rule, back=-held.granted)) for key, held in self.streams.items()]
        return streams + self.held.lines(now)

    def lose(self, told: Told, now: int) -> None:
        """The line was not told, or nobody knows."""
        if told.back or told.freed:
            self.owe(told.rule, told.key, told.end, back=told.back, freed=told.freed)
        if told.debt:
            slot = self.table.look(told.key)
            if slot >= 0 and self.table.numbers[slot + UNTIL] > now:
                self.table.numbers[slot + GRANTED] -= told.debt
                self.leased[told.key] = Leased(told.key, told.rule, slot)
