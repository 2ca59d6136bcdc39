"""One count for all servers, in Redis or Valkey. Slices of a limit are leased, so that most calls ask nobody.

What this server may use of a window, and has used, stands in its own table, where all its workers find it. A call that
finds enough there takes it. Another asks the store, once for all its limits: for what it needs, and for a slice beyond
where the limit is not `exact`. What was leased and not used goes back when it lies idle, and at the end. So never more
than the limit passes, and with n servers up to n - 1 slices fewer.

Streams, and what calls hold of exact limits on tokens and money, are written down under a name of this worker. The name
lives as long as the worker says so; what a dead one holds is free again. After every break of the line the worker takes
a new name, where it has asked for something under the old one, and says anew what it holds: what the old one had in the
store is forgotten with it. What the old one asked without hearing an answer is undone, so that it counts once, as this
server has decided meanwhile.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import Any

from torana.clock import Clock
from torana.limits.hold import Hold, Met, Refused
from torana.limits.lease_books import IDLE_NS, Books
from torana.limits.lease_notes import Told, in_questions
from torana.limits.lease_queues import Queues
from torana.limits.line import Line, LineDown
from torana.limits.questions import Asker, Command, is_forgotten, is_sound, read_answers
from torana.limits.reached import LimitsUnavailable
from torana.limits.rules import SECOND, Rule
from torana.limits.spent import Spent
from torana.limits.table import UNTIL, USED, Key, Table
from torana.telemetry.metrics import Metrics

logger = logging.getLogger("torana.limits")

HEARTBEAT_S, ALIVE_S = 3, 10.0
FLUSH_S = 0.005
BATCH = 40
"""Limits in one question of housekeeping."""
LAST_WORD_S = 0.25


class Leases:
    """Counts that all servers share."""

    def __init__(
        self,
        table: Table,
        url: str,
        clock: Clock,
        metrics: Metrics,
        *,
        timeout_s: float,
        workers: int,
        replicas: int,
        trusted: str = "",
    ) -> None:
        """
        timeout_s  for one question; a call waits no longer than this
        workers    of this server
        replicas   servers in all, for its share while it is alone; 0: as many as were last seen
        trusted    authorities besides the system's, as PEM
        """
        self.table = table
        self._books = Books(table)
        self._clock = clock
        self._metrics = metrics
        self._workers = workers
        self._replicas = replicas
        self._asker = Asker()
        self._gone: list[Asker] = []
        """Those of connections that are broken, until the store knows."""
        self._flush: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._line = Line(url, timeout_s, self._probe, self._told, trusted)
        self._queues = Queues(self._books, self._put, self.now, metrics, self._flush_soon)

    def start(self) -> None:
        """Connect; nothing happens where it has been called before."""
        if self._keeper is None:
            self._line.start()
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def aclose(self) -> None:
        """Give back what is leased; nobody waits long for that."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._flush is not None:
            self._flush.cancel()
        if self._line.is_up:
            words = self._last_words()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await asyncio.gather(*words, return_exceptions=True)
        await self._line.aclose()

    @property
    def state(self) -> tuple[bool, str]:
        """For readiness: whether the counts are shared now."""
        if not self._line.is_up:
            return False, "counting alone"
        return True, f"{self._queues.alive} worker(s) share the counts"

    # --- Calls ---

    def take(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold | None:
        """From what this server has already, or None; raises Refused where nothing is left of a limit."""
        if not self._line.is_up:
            return None if self._line.is_starting else self._take_alone(met, amounts, expected)
        now, table, books = self.now(), self.table, self._books
        table.lock()
        try:
            slots = table.find_all(met.tallies, now)
            if books.has_all(met, amounts, slots, now):
                return books.hold(met, amounts, slots, now, expected)
            books.refuse_shut(met.tallies, amounts, slots, now)
            return None
        finally:
            table.unlock()

    async def ask(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold:
        """One question to the store, for what this server does not have."""
        if self._line.is_starting:
            await self._line.started()
        if not self._line.is_up:
            return self._take_alone(met, amounts, expected)
        try:
            return await self._queues.ask(met, amounts, expected)
        except LineDown:
            return self._take_alone(met, amounts, expected)

    def is_short(self) -> bool:
        """Whether a glance may find a limit used up."""
        return self._books.shut_until > self.now()

    def glance(self, met: Met, amounts: Sequence[int]) -> None:
        """Raises Refused where not so much was left a moment ago; asks nobody."""
        if not self._line.is_up:
            return
        now, table = self.now(), self.table
        table.lock()
        try:
            seen = [(tally, slot) for tally in met.tallies if (slot := table.look_for(tally)) >= 0]
            if seen:
                tallies, slots = zip(*seen, strict=True)
                self._books.refuse_shut(tallies, [amounts[each.index] for each in tallies], slots, now)
        finally:
            table.unlock()

    def places(self, met: Met) -> int:
        """How many calls pass by its one limit on requests; one where only the store can say."""
        try:
            self.glance(met, met.ones)
        except Refused:
            return 0
        return max(1, self.left(met)[0])

    def left(self, met: Met) -> list[int]:
        """What was left of each limit when the store last said so."""
        now, table = self.now(), self.table
        table.lock()
        try:
            slots = [table.look_for(tally) for tally in met.tallies]
            return [
                tally.rule.whole if slot < 0 else max(0, self._books.left(tally, slot, now))
                for tally, slot in zip(met.tallies, slots, strict=True)
            ]
        finally:
            table.unlock()

    def settle(self, hold: Hold, amounts: Sequence[int], *, was_sent: bool = True) -> None:
        """What was reserved and not used is free again, here or in the store; that is told later, all at once."""
        now, table, books = self.now(), self.table, self._books
        is_urgent = False
        table.lock()
        try:
            for tally in hold.met.returning if was_sent else hold.met.tallies:
                index = tally.index
                if tally.rule.unit == "streams":
                    is_urgent |= books.end_stream(tally, hold.slots[index], hold.ends[index], now, self._queues.alive)
                else:
                    is_urgent |= books.settle_amount(hold, tally, amounts[index], now)
            for line in hold.lines:
                table.forget(line)
        finally:
            table.unlock()
        if is_urgent:
            self._flush_soon()

    def give_back(self, idle_ns: int = 0) -> None:
        """What was leased and is not used; after a reload all of it, for the limits may be others now."""
        self.table.lock()
        try:
            lines = self._books.idle_lease_lines(self.now(), idle_ns)
        finally:
            self.table.unlock()
        self._tell_store(lines)

    def now(self) -> int:
        return int(self._clock.monotonic() * SECOND)

    def put(self, limits: Sequence[tuple[Key, Command]]) -> "asyncio.Future[list[int]]":
        """For counts that are no limits of the catalogue; connects where none of those is there."""
        self.start()
        return self._put(limits)

    def _put(self, limits: Sequence[tuple[Key, Command]]) -> "asyncio.Future[list[int]]":
        """A question; its answer comes to the future."""
        asker = self._asker
        question, number = asker.ask(ALIVE_S, limits)
        future = self._line.send(*question, is_sound=partial(is_sound, len(limits)))
        future.add_done_callback(partial(self._note_answer, asker, number))
        return future

    def _note_answer(self, asker: Asker, number: int, future: "asyncio.Future[list[int]]") -> None:
        if not future.cancelled() and future.exception() is None:
            asker.answered(number)
            if asker is self._asker and is_forgotten(future.result()):
                self._line.renew("forgotten")

    # --- Housekeeping ---

    async def _keep(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(1.0)
            if not self._line.is_up:
                continue
            beats += 1
            self.give_back(IDLE_NS)
            if beats % HEARTBEAT_S == 0:
                self._put([]).add_done_callback(self._note_alive)

    def _flush_soon(self) -> None:
        if self._flush is None and self._line.is_up:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._tell_store)

    def _tell_store(self, lines: Sequence[Told] = ()) -> None:
        """What has come together since the last time: differences, debts, streams that are not needed."""
        self._flush = None
        now, books = self.now(), self._books
        self.table.lock()
        try:
            streams = books.idle_stream_lines(now, self._queues.alive)
            # What was used first: what comes back of it could else find less than there is of it.
            found = [*lines, *books.debt_lines(now), *books.owed_lines(), *streams]
        finally:
            self.table.unlock()
        self._send(found)

    def _send(self, lines: Sequence[Told]) -> None:
        for batch in in_questions(lines, BATCH):
            future = self._put([(told.key, told.words) for told in batch])
            future.add_done_callback(partial(self._heard, batch))

    def _heard(self, batch: Sequence[Told], future: "asyncio.Future[list[int]]") -> None:
        now, table, books = self.now(), self.table, self._books
        table.lock()
        try:
            if future.cancelled() or future.exception() is not None:
                for told in batch:
                    books.lose(told, now)
                return
            for told, answer in zip(batch, read_answers(future.result()).limits, strict=True):
                slot = table.look(told.key)
                if told.debt and slot >= 0 and table.numbers[slot + UNTIL] > now:
                    books.credit(told.rule, told.key, slot, answer._replace(granted=0), now)
        finally:
            table.unlock()

    def _note_alive(self, future: "asyncio.Future[list[int]]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._queues.alive = read_answers(future.result()).alive

    def _last_words(self) -> "list[asyncio.Future[Any]]":
        now, books = self.now(), self._books
        self.table.lock()
        try:
            lines = [
                *books.debt_lines(now),
                *books.owed_lines(),
                *books.idle_lease_lines(now, 0),
                *books.idle_stream_lines(now, 1, 0),
            ]
        finally:
            self.table.unlock()
        words = [self._put([(told.key, told.words) for told in batch]) for batch in in_questions(lines, BATCH)]
        if not books.streams and not books.held:
            words += [self._line.send(*word) for word in self._asker.leave()]
        return words

    # --- The line ---

    def _probe(self) -> Command:
        """The first word on a new connection: under a new name, where the old one may have taken something."""
        if self._asker.has_asked:
            self._gone.append(self._asker)
            self._asker = Asker()
        return self._asker.ask(ALIVE_S, [])[0]

    def _told(self, is_up: bool, reason: str) -> None:
        self._metrics.limits_shared(is_up)
        if not is_up:
            logger.warning("limits are not shared: this server counts alone", extra={"reason": reason})
            return
        logger.info("limits are shared with all servers")
        self._put([]).add_done_callback(self._note_alive)
        self._books.forget_name()
        self._tell_store(self._books.held_lines(self.now()))
        # In this order: for a moment some of it counts twice, never not at all.
        for asker in self._gone:
            self._line.send(*asker.close()).add_done_callback(partial(self._note_closed, asker))

    def _note_closed(self, asker: Asker, future: "asyncio.Future[Any]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._gone.remove(asker)

    # --- Alone ---

    def _servers(self) -> Fraction:
        """How many servers share a limit, as far as this one knows."""
        return Fraction(self._replicas or Fraction(max(self._queues.alive, self._workers), self._workers))

    def _take_alone(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold:
        """By this server's share of each limit, what it has used before included."""
        self._metrics.limited_alone()
        for rule in met.rules:
            if rule.when_down == "closed":
                rule.figures.refused()
                raise LimitsUnavailable(rule.name, rule.text)
        now, table, books = self.now(), self.table, self._books
        table.lock()
        try:
            slots = table.find_all(met.tallies, now)
            servers = self._servers()
            shares = [books.share(rule, slot, now, servers) for rule, slot in zip(met.rules, slots, strict=True)]
            waits = [self._wait_alone(*row, now) for row in zip(met.rules, amounts, slots, shares, strict=True)]
            if max(waits) >= 0:
                raise books.refused(met.tallies, slots, now, waits, shares)
            for tally, slot in zip(met.tallies, slots, strict=True):
                books.open_alone(tally, slot, now)
            return books.hold(met, amounts, slots, now, expected, shares)
        finally:
            table.unlock()

    def _wait_alone(self, rule: Rule, amount: int, slot: int, share: int, now: int) -> int:
        """Nanoseconds; below 0: it may pass."""
        numbers = self.table.numbers
        taken = numbers[slot + USED] if numbers[slot + UNTIL] > now else 0
        if not amount or taken + amount <= share or self._books.is_untouched(rule, slot, now):
            return -1
        return SECOND if rule.unit == "streams" else numbers[slot + UNTIL] - now
