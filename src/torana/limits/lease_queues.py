"""Calls that wait for the store. Those that meet the same limits wait in one queue and are asked for together.

So a burst of calls costs a few questions, however many calls there are, and a queue has one question under way at most.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from torana.limits.hold import Hold, Met, Tally
from torana.limits.lease_books import SLICE, Books
from torana.limits.lease_notes import Told
from torana.limits.line import LineDown
from torana.limits.questions import Answer, Command, arguments, read_answers, wait_ns
from torana.limits.rules import SECOND, FlowRule
from torana.limits.spent import Spent
from torana.limits.table import Key
from torana.telemetry.metrics import Metrics

GROW_NS = SECOND
"""A lease used up within this time is followed by one of twice its size."""
MAX_STEPS = 4_096


class Waiter:
    """A call that waits for an answer of the store."""

    __slots__ = ("amounts", "expected", "future", "met")

    def __init__(self, met: Met, amounts: Sequence[int], expected: Spent, future: "asyncio.Future[Hold]") -> None:
        self.met = met
        self.amounts = amounts
        self.expected = expected
        self.future = future

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Queue:
    """The calls that wait for the same limits of the same caller."""

    __slots__ = ("is_asking", "met", "waiters")

    def __init__(self, met: Met) -> None:
        self.met = met
        self.waiters: list[Waiter] = []
        self.is_asking = False


class Steps:
    """How much to lease beyond the need: more and more for those who use it up."""

    def __init__(self) -> None:
        self._last: dict[Key, tuple[int, int]] = {}
        """How much was last asked for, and when."""

    def next(self, tally: Tally, amount: int, now: int) -> int:
        rule, key = tally.rule, tally.key
        if rule.is_exact or rule.unit == "streams":
            return 0
        most = (rule.burst if isinstance(rule, FlowRule) else rule.amount) // SLICE
        last, at = self._last.get(key, (0, 0))
        step = min(most, max(2 * last, amount) if now - at < GROW_NS else amount)
        if len(self._last) >= MAX_STEPS:
            self._last.clear()
        self._last[key] = step, now
        return step


class Queues:
    """Puts the questions, and hands the answers out."""

    def __init__(
        self,
        books: Books,
        put: Callable[[Sequence[tuple[Key, Command]]], "asyncio.Future[list[int]]"],
        now: Callable[[], int],
        metrics: Metrics,
        flush_soon: Callable[[], None],
    ) -> None:
        self.alive = 1
        """Workers of all servers, as last seen."""
        self.table = books.table
        self._books = books
        self._put = put
        self._now = now
        self._metrics = metrics
        self._flush_soon = flush_soon
        self._steps = Steps()
        self._queues: dict[tuple[Key, ...], Queue] = {}

    async def ask(self, met: Met, amounts: Sequence[int], expected: Spent) -> Hold:
        """Raises Refused, or LineDown where nobody answers."""
        keys = tuple(tally.key for tally in met.tallies)
        queue = self._queues.get(keys)
        if queue is None:
            queue = self._queues[keys] = Queue(met)
        waiter = Waiter(met, amounts, expected, asyncio.get_running_loop().create_future())
        queue.waiters.append(waiter)
        if not queue.is_asking:
            self._ask_for(keys, queue)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back(waiter.future.result())  # it was cancelled with its answer in its hand
            raise

    def _ask_for(self, keys: tuple[Key, ...], queue: Queue) -> None:
        """One question for all calls that wait for the same limits; who comes meanwhile waits for the next."""
        waiters = queue.waiters = [each for each in queue.waiters if not each.future.done()]
        if not waiters:
            self._close(keys, queue)
            return
        queue.met = waiters[-1].met  # after a reload: the limits as they are now
        first = waiters[0].amounts
        now, table, books = self._now(), self.table, self._books
        lacking: list[int] = []
        words: list[Command] = []
        debts: list[Told] = []
        table.lock()
        try:
            slots = table.find_all(queue.met.tallies, now)
            for index, (tally, slot) in enumerate(zip(queue.met.tallies, slots, strict=True)):
                total = sum(waiter.amounts[index] for waiter in waiters)
                room = books.room(tally, slot, now)
                if room >= total:
                    continue
                rule = tally.rule
                debt = books.assume_debt(rule, slot, now)
                if debt:
                    debts.append(Told(tally.key, rule, [], debt))
                need, sure = max(0, first[index] - max(0, room)), total - max(0, room)
                lacking.append(index)
                step = self._steps.next(tally, first[index], now)
                words.append(arguments(rule, need=need, sure=sure, want=sure + step, back=-debt))
        finally:
            table.unlock()
        queue.is_asking = True
        future = self._put([(keys[index], word) for index, word in zip(lacking, words, strict=True)])
        future.add_done_callback(partial(self._answered, keys, queue, lacking, debts))

    def _answered(
        self,
        keys: tuple[Key, ...],
        queue: Queue,
        lacking: Sequence[int],
        debts: Sequence[Told],
        future: "asyncio.Future[list[int]]",
    ) -> None:
        queue.is_asking = False
        failure = LineDown("closed") if future.cancelled() else future.exception()
        if failure is not None:
            self._metrics.limit_question(failure.reason if isinstance(failure, LineDown) else "error")
            self._lose(debts)
            waiters, queue.waiters = queue.waiters, []
            for waiter in waiters:
                waiter.fail(failure)
            self._queues.pop(keys, None)
            return
        self._metrics.limit_question("answered")
        answers = read_answers(future.result())
        self.alive = answers.alive
        now, table, books = self._now(), self.table, self._books
        table.lock()
        try:
            slots = table.find_all(queue.met.tallies, now)
            refusing: list[tuple[int, Answer]] = []
            for index, answer in zip(lacking, answers.limits, strict=True):
                tally = queue.met.tallies[index]
                books.credit(tally.rule, tally.key, slots[index], answer, now)
                if answer.granted < 0:
                    refusing.append((index, answer))
                    if tally.rule.is_known_unread and queue.waiters:  # nothing of it comes back when calls end
                        books.shut(tally.rule, slots[index], answer, now, queue.waiters[0].amounts[index])
            queue.waiters = [each for each in queue.waiters if not self._decide(each, slots, refusing, now)]
        finally:
            table.unlock()
        self._ask_for(keys, queue)

    def _decide(self, waiter: Waiter, slots: Sequence[int], refusing: Sequence[tuple[int, Answer]], now: int) -> bool:
        """Whether the answer is enough for a call to pass, or to be refused; under the lock."""
        if waiter.future.done():
            return True
        books, met, amounts = self._books, waiter.met, waiter.amounts
        if books.has_all(met, amounts, slots, now):
            waiter.future.set_result(books.hold(met, amounts, slots, now, waiter.expected))
            return True
        waits = [-1] * len(slots)
        for index, answer in refusing:
            tally, amount = met.tallies[index], amounts[index]
            if amount > answer.left + max(0, books.room(tally, slots[index], now)):
                waits[index] = wait_ns(tally.rule, amount, answer)
        if max(waits) < 0:
            return False
        waiter.fail(books.refused(met.tallies, slots, now, waits))
        return True

    def _close(self, keys: tuple[Key, ...], queue: Queue) -> None:
        """Nobody waits any more: what was granted to calls that have left goes back."""
        self._queues.pop(keys, None)
        now, table, books = self._now(), self.table, self._books
        table.lock()
        try:
            slots = table.find_all(queue.met.tallies, now)
            left = [books.leave(tally, slot, now) for tally, slot in zip(queue.met.tallies, slots, strict=True)]
        finally:
            table.unlock()
        if any(left):
            self._flush_soon()

    def _lose(self, debts: Sequence[Told]) -> None:
        now = self._now()
        self.table.lock()
        try:
            for debt in debts:
                self._books.lose(debt, now)
        finally:
            self.table.unlock()

    def _give_back(self, hold: Hold) -> None:
        now, table, books = self._now(), self.table, self._books
        table.lock()
        try:
            books.untake(hold, now)
            for tally, slot in zip(hold.met.tallies, hold.slots, strict=True):
                books.leave(tally, slot, now)
        finally:
            table.unlock()
        self._flush_soon()
