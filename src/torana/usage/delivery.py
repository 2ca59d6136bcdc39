"""Records on their way to one sink: at least once, in batches, the same ones again until the sink has them.

A bad record must not hold up the others: a refused batch is halved until it is found, and it is parked. A record
that may have arrived already, and that the receiver may have forgotten since, is parked as well.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from torana.clock import Clock
from torana.usage.cursor import Cursor, CursorFile
from torana.usage.event import may_be_in, time_of
from torana.usage.folder import Folder, Part, Position
from torana.usage.ledger import wall_text
from torana.usage.parking import Parking
from torana.usage.sinks.sink import Batch, Sink, SinkDown, SinkRefused
from torana.usage.spool import Spool

logger = logging.getLogger("torana.usage")

SHOW_S = 1.0
"""Between two looks at how long what is being sent has waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How records are sent to one sink."""

    batch: int = 500
    """Records in one go, at most."""
    linger_s: float = 1.0
    """How long records gather before they are sent."""
    retry_s: float = 0.5
    """The first pause after a failure; doubled with each further one, and jittered."""
    retry_max_s: float = 60.0
    tries: int = 3
    """Sendings of a record that is refused by itself, before it is parked."""
    dedupe_window_s: float = 0.0
    """How long the receiver remembers ids; 0: for ever."""
    regions: tuple[str, ...] | None = None
    """Where the receiver keeps what it gets; None: on this machine, where all of it may be."""


class SinkMeter(Protocol):
    """Where a delivery counts."""

    def delivered(self, records: int) -> None: ...
    def retried(self) -> None: ...
    def parked(self, records: int) -> None: ...
    def withheld(self, records: int) -> None: ...
    def behind(self, seconds: float) -> None: ...


class Delivery:
    """One sink's task."""

    def __init__(self, name: str, sink: Sink, pace: Pace, spool: Spool, clock: Clock, meter: SinkMeter) -> None:
        self.name = name
        self.sink = sink
        self.pace = pace
        self.moved: Callable[[], None] = lambda: None
        """Told when this sink has got further."""
        self._spool = spool
        self._clock = clock
        self._meter = meter
        self._parking = Parking(spool.path, name)
        self._cursors: dict[str, Cursor] = {}
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._failures = 0
        self._oldest: float | None = None
        """When the oldest record that is being sent, or could not be, came to be, in Unix seconds."""
        self._is_behind = False
        """More than one batch was there."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        self._timer = self._loop.call_later(SHOW_S, self._show_behind)

    def notify(self) -> None:
        """There is more to deliver."""
        self._wake.set()

    def position(self, folder: Folder) -> Position:
        """How far this sink has a folder; one that is not for it, to the end."""
        if not folder.is_for(self.name):
            return folder.end
        cursor = self._cursors.get(folder.name)
        return Position() if cursor is None else cursor.position

    def forget(self, folder: Folder) -> None:
        self._cursors.pop(folder.name, None)

    def owe_nothing(self) -> None:
        """The sink is taken away for good: an alarm for what waited for it must end."""
        self._meter.behind(0.0)

    async def aclose(self, grace_s: float) -> None:
        """Deliver what is left, until the sink fails or `grace_s` is over; the rest stays in the spool."""
        self._closing.set()
        self._wake.set()
        await asyncio.wait((self._task,), timeout=grace_s)
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._timer.cancel()
        await self.sink.aclose()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                has_moved = self._is_behind = False
                for folder in list(self._spool.folders):
                    has_moved = await self._deliver(folder) or has_moved
                self._failures = 0
            except SinkDown as failure:
                self._meter.retried()
                if self._closing.is_set():
                    return
                await self._back_off(failure)
                continue
            except Exception as error:  # the task must outlive its body: nobody else delivers these records
                logger.exception("delivery of usage records stumbled", extra={"sink": self.name})
                if self._closing.is_set():
                    return
                await self._back_off(SinkDown(str(error), is_ambiguous=True))
                continue
            if has_moved:
                self.moved()
                if not self._is_behind:
                    # Under load there is always one more: without a pause each would be a batch of its own.
                    await self._pause(self.pace.linger_s)
            elif self._closing.is_set():
                return
            else:
                self._meter.behind(0.0)
                await self._wake.wait()
                await self._pause(self.pace.linger_s)

    async def _deliver(self, folder: Folder) -> bool:
        """One batch of a folder; False where nothing is left. Raises SinkDown."""
        if not folder.is_for(self.name):
            return False
        known = self.position(folder)
        try:
            cursor, part = await self._next(folder)
        except OSError as error:
            if folder not in self._spool.folders:
                return False  # everybody has it, and meanwhile it was deleted
            raise SinkDown(f"the spool cannot be read: {error}", is_ambiguous=False) from error
        if part.damaged:
            self._spool.note_damage(folder, part.damaged)
        if part.next == cursor.position:
            if cursor.position > known:
                self.moved()  # it has more than was known: what an earlier worker delivered to it
            return False
        self._is_behind |= part.is_full
        if part.payloads:
            self._note_oldest(part)
            kept = self._within_borders(Batch(folder.name, part.payloads, part.positions))
            if kept.events:
                await self._hand_over(folder, kept, cursor)
            if withheld := len(part.payloads) - len(kept.events):
                self._meter.withheld(withheld)
        self._oldest = None
        await self._advance(folder, Cursor(part.next, max(cursor.tried, part.next), cursor.tried_at))
        return True

    async def _next(self, folder: Folder) -> tuple[Cursor, Part]:
        """What the sink does not have yet. Raises OSError, SinkDown."""
        try:
            told = await self.sink.position(folder.name)
        except SinkDown:
            _, waiting = await asyncio.to_thread(self._read, folder, None)
            if waiting.payloads:
                self._note_oldest(waiting)
            raise
        return await asyncio.to_thread(self._read, folder, told)

    def _note_oldest(self, part: Part) -> None:
        self._oldest = time_of(part.payloads[0])
        self._note_behind(self._oldest)

    def _note_behind(self, oldest: float) -> None:
        self._meter.behind(max(0.0, self._clock.now() - oldest))

    def _show_behind(self) -> None:
        """All the time: a receiver that neither takes nor fails must not look like one that has everything."""
        self._timer = self._loop.call_later(SHOW_S, self._show_behind)
        if self._oldest is not None:
            self._note_behind(self._oldest)

    def _read(self, folder: Folder, told: Position | None) -> tuple[Cursor, Part]:
        cursor = self._cursors.get(folder.name)
        if cursor is None:
            cursor = CursorFile(folder.disk, folder.path, self.name).read(self._clock.now())
        if told is not None and told > cursor.position:
            cursor = Cursor(told, max(told, cursor.tried), cursor.tried_at)
        self._cursors[folder.name] = cursor
        return cursor, folder.read(cursor.position, self.pace.batch)

    async def _hand_over(self, folder: Folder, batch: Batch, cursor: Cursor) -> None:
        """Sends what may be sent, parks what must be parked. Raises SinkDown."""
        is_doubtful = cursor.is_doubtful
        window_s = self.pace.dedupe_window_s
        if is_doubtful and window_s and self._clock.now() - cursor.tried_at > window_s:
            old = sum(position <= cursor.tried for position in batch.positions)
            if old:
                why = f"sent before without a clear answer, more than {window_s:g} s ago: it might be counted twice"
                await self._park([(event, why) for event in batch.events[:old]])
                # At once: whatever becomes of the others, these are not sent.
                cursor = replace(cursor, position=batch.positions[old - 1])
                await self._advance(folder, cursor)
            batch, is_doubtful = batch.part(old, len(batch.events)), False
        if not batch.events:
            return
        before = cursor if is_doubtful else replace(cursor, tried=Position(), tried_at=0.0)
        if not is_doubtful:
            cursor = replace(cursor, tried=batch.positions[-1], tried_at=self._clock.now())
        elif batch.positions[-1] > cursor.tried:
            cursor = replace(cursor, tried=batch.positions[-1])
        # Written before the sending: after a kill the next worker knows what may have arrived.
        await self._advance(folder, cursor)
        try:
            await self._send(batch)
        except SinkDown as failure:
            if not failure.is_ambiguous:
                await self._advance(folder, before)
            raise

    async def _send(self, batch: Batch) -> None:
        """All of a batch, its bad records apart. Raises SinkDown."""
        refused = await self._find_refused(batch)
        count = len(batch.events)
        if refused and len(refused) == count > 1:
            # Not one is good: it is the receiver that has changed its mind, not the records.
            raise SinkDown(f"all of {count} records are refused: {refused[0][1]}", is_ambiguous=False)
        try:
            if refused:
                # Together: were some put down and others not, those would be put down once more.
                await self._park([(event, f"refused: {reason}") for event, reason in refused])
        except SinkDown as failure:
            raise _in_part(failure) from None
        self._meter.delivered(count - len(refused))

    async def _find_refused(self, batch: Batch) -> list[tuple[bytes, str]]:
        """Sends a batch, in halves where it is refused; the records that are refused by themselves."""
        count = len(batch.events)
        for attempt in range(self.pace.tries):
            try:
                await self.sink.send(batch)
                return []
            except (SinkRefused, msgspec.DecodeError) as error:
                reason = str(error)
                if count > 1:
                    break
                if attempt + 1 < self.pace.tries:
                    await self._pause(self.pace.retry_s)
        if count == 1:
            return [(batch.events[0], reason)]
        middle = count // 2
        found = await self._find_refused(batch.part(0, middle))
        try:
            return [*found, *await self._find_refused(batch.part(middle, count))]
        except SinkDown as failure:
            raise (_in_part(failure) if len(found) < middle else failure) from None

    async def _park(self, parked: Sequence[tuple[bytes, str]]) -> None:
        try:
            await asyncio.to_thread(self._parking.park, parked, wall_text(self._clock.now()))
        except OSError as error:
            raise SinkDown(f"records cannot be parked: {error}", is_ambiguous=False) from error
        self._meter.parked(len(parked))
        for why, records in Counter(why for _, why in parked).items():
            logger.error(
                "usage records are parked",
                extra={"sink": self.name, "records": records, "reason": why, "file": str(self._parking.path)},
            )

    def _within_borders(self, batch: Batch) -> Batch:
        """Without the records that may not be where this sink is."""
        regions = self.pace.regions
        if regions is None:
            return batch
        kept = [index for index, event in enumerate(batch.events) if may_be_in(event, regions)]
        if len(kept) == len(batch.events):
            return batch
        return Batch(batch.folder, [batch.events[at] for at in kept], [batch.positions[at] for at in kept])

    async def _advance(self, folder: Folder, cursor: Cursor) -> None:
        self._cursors[folder.name] = cursor
        with suppress(OSError):  # the next one says it as well; until then a restart sends twice, by the same ids
            await asyncio.to_thread(CursorFile(folder.disk, folder.path, self.name).write, cursor)

    async def _back_off(self, failure: SinkDown) -> None:
        self._failures += 1
        pause_s = min(self.pace.retry_max_s, self.pace.retry_s * 2 ** min(self._failures - 1, 20))
        pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 jitter, no secret
        if failure.retry_after_s is not None:
            pause_s = max(pause_s, min(failure.retry_after_s, self.pace.retry_max_s))
        if self._failures in (1, 10) or self._failures % 100 == 0:
            logger.warning(
                "usage records wait for their sink",
                extra={"sink": self.name, "reason": str(failure), "failures": self._failures},
            )
        await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


def _in_part(failure: SinkDown) -> SinkDown:
    """Some of a batch has arrived before it, so that nobody can say that nothing was sent."""
    return SinkDown(str(failure), is_ambiguous=True, retry_after_s=failure.retry_after_s)
