"""Where records wait: a folder of this worker's own, written by one thread, a group of records a sync.

The event loop appends to a list and goes on; it is told once for each group that has become durable. A disk that is
full or broken costs nothing but durability: what could not be written is kept, tried again, and counted.
"""

import asyncio
import errno
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from torana.chat import Usage
from torana.usage.adoption import Orphans
from torana.usage.disk import Disk
from torana.usage.folder import Folder, Position, make_folder
from torana.usage.frames import write_frame
from torana.usage.running import RunningTable
from torana.usage.segments import RESERVE_BYTES, Segments

logger = logging.getLogger("torana.usage")

SEGMENT_BYTES = 8 << 20
SEGMENT_AGE_S = 3600.0
"""A segment is left alone at this age, so that it can be deleted when everybody has it."""
TICK_S = 0.5
"""Between two checkpoints of what is running, looks for orphans, and tries to write what could not be."""
GATHER_S = 0.007
"""Longest time between two syncs while calls end; a sync more would cost more than all calls that end meanwhile."""
GATHER_RECORD_S = 0.0007
"""For each record of the last group: few calls, and nobody waits; many, and the time grows to the longest."""
PATIENCE_S = 2.0
"""A disk that is silent for so long is taken for a broken one: nobody waits for it any longer."""
STOP_S = 10.0
"""What the disk is given at the end of the process."""
MAX_STUCK = 20_000
"""Records kept in memory while the disk takes none; those above are lost, and counted."""
RUNNING_BYTES = 1536
"""Space kept free for the record of each call that is running."""


class Waiting(Protocol):
    """A record on its way to the disk."""

    slot: int
    """In the table of running calls; -1 where it has none."""
    event: bytes
    is_settled: bool
    """`durable` was called."""

    def durable(self, is_safe: bool) -> None:
        """Called on the event loop, once; False: the disk did not take it, its end goes out all the same."""
        ...


class Running(Protocol):
    """A call that is running, as checkpoints see it."""

    slot: int

    def so_far(self) -> Usage | None:
        """Tokens so far; None where nothing has changed. Called from another thread."""
        ...

    def seconds(self) -> float: ...


class Meter(Protocol):
    """Where the spool counts; called on the event loop."""

    def synced(self, records: int, seconds: float) -> None: ...
    def at_risk(self, records: int) -> None: ...
    def lost(self, records: int) -> None: ...
    def damaged(self, records: int) -> None: ...
    def spool(self, records: int, size_bytes: int, *, is_full: bool) -> None: ...


class Spool:
    """This worker's records, and those of dead workers that it has taken over."""

    def __init__(self, path: Path, name: str, disk: Disk, meter: Meter, *, max_bytes: int = 2 << 30) -> None:
        self.path = path
        self.is_full = False
        """No record is sure to find space: the disk is full, broken, read-only or not ours."""
        self.why = ""
        """What the system said about it."""
        self._lacks_space = False
        """What could not be written last could not for want of space."""
        self.folders: list[Folder] = []
        """All that are ours, our own first. Changes on the event loop only."""
        self.on_change: Callable[[], None] = lambda: None
        """There is more to deliver. Called on the event loop."""
        self.is_done: Callable[[Folder], bool] = lambda _folder: False
        """Nobody needs this folder any more; asked at the end."""
        self.running: dict[str, Running] = {}
        """By id; kept by the ledger."""
        self.table: RunningTable | None = None
        self._name = name
        self._disk = disk
        self._meter = meter
        self._max_bytes = max_bytes
        self.own: Folder | None = None
        """The one that grows; None while the disk lets us have none."""
        self._segments: Segments | None = None
        self._waiting: list[Waiting] = []
        self._writing: list[Waiting] = []
        """What the disk has been given."""
        self._at_work_since = 0.0
        """When the thread turned to the disk; 0: it rests."""
        self._stuck: list[Waiting] = []
        self._gate = threading.Lock()
        self._gate.acquire()
        self._is_told = False
        """The thread will look at what waits, now or as soon as it may sync again."""
        self._may_sync_at = 0.0
        """On the monotonic clock."""
        self._is_closing = False
        self._damaged: set[tuple[str, Position]] = set()
        self._checkpoint = 0
        self._size = 0
        self._segment_since = time.monotonic()
        self._orphans = Orphans(disk)
        self.loop = asyncio.get_running_loop()
        self._begin()
        self._thread = threading.Thread(target=self._run, name="usage-spool", daemon=True)
        self._thread.start()
        self._timer = self.loop.call_later(1.0, self._watch)

    def put(self, record: Waiting) -> None:
        """Take a record; `record.durable` tells the rest. Never waits."""
        self._waiting.append(record)
        if not self._is_told:
            self._is_told = True
            # Whoever comes alone is written at once; in a crowd those who come meanwhile share one sync. It is the
            # loop that counts the time: each time the thread wakes, it takes the interpreter from somebody.
            early_s = self._may_sync_at - time.monotonic()
            if early_s > 0:
                self.loop.call_later(early_s, self._open_gate)
            else:
                self._gate.release()

    def _open_gate(self) -> None:
        if self._gate.locked():
            self._gate.release()

    def note_damage(self, folder: Folder, places: list[Position]) -> None:
        """A reader has found something torn or flipped; counted once, however many sinks come by."""
        for place in places:
            if (folder.name, place) not in self._damaged:
                self._damaged.add((folder.name, place))
                self._meter.damaged(1)
                logger.error(
                    "the usage spool is damaged: what cannot be read is skipped",
                    extra={"folder": str(folder.path), "segment": place.segment, "offset": place.offset},
                )

    async def stop(self) -> None:
        """Everything that was put is written, if the disk takes it, and nothing more is."""
        self._is_closing = True
        self._is_told = True
        self._open_gate()
        await asyncio.to_thread(self._thread.join, STOP_S)
        self._timer.cancel()

    def release(self) -> None:
        """Leave the folders to whoever comes next; one that nobody needs is deleted."""
        for folder in self.folders:
            with suppress(OSError):
                if self.is_done(folder):
                    folder.remove()
            folder.release()

    # The thread

    def _run(self) -> None:
        next_tick, gathered = time.monotonic(), 0
        while True:
            if self._gate.acquire(timeout=max(0.0, next_tick - time.monotonic())):
                self._may_sync_at = time.monotonic() + min(GATHER_S, gathered * GATHER_RECORD_S)
                self._is_told = False
            is_last = self._is_closing
            self._at_work_since = time.monotonic()
            batch = self._take()
            gathered = len(batch)
            self._write(batch, is_retry=is_last)
            if time.monotonic() >= next_tick or is_last:
                try:
                    self._tick(is_last=is_last)
                except Exception:  # the thread must outlive its body, or no call would ever end
                    logger.exception("the usage spool stumbled")
                next_tick = time.monotonic() + TICK_S
            self._at_work_since = 0.0
            if is_last and not self._waiting:
                break
        if self._segments is not None:
            self._segments.close()
        if self._stuck:
            logger.error("usage records are lost: the disk takes none", extra={"records": len(self._stuck)})
        if self.table is not None:
            self.table.close()

    def _take(self) -> list[Waiting]:
        count = len(self._waiting)
        taken = self._waiting[:count]
        del self._waiting[:count]
        return taken

    def _tick(self, *, is_last: bool) -> None:
        if self.own is None:
            self._begin()
        if self._stuck:
            if self._lacks_space:
                with suppress(OSError):
                    self._make_room()
            self._write([], is_retry=True)
        self._look_for_room()
        self._note_running()
        if not is_last:
            self._adopt()

    def _begin(self) -> None:
        """Our own folder; tried again and again where there cannot be one."""
        try:
            folder = make_folder(self._disk, self.path, self._name)
        except OSError as error:
            self._note_full(error)
            return
        try:
            self.table = RunningTable(self._disk, self._disk.open(folder.path / "running"))
        except OSError as error:
            with suppress(OSError):
                folder.remove()  # or the next one of this name could not be
            folder.release()
            self._note_full(error)
            return
        self.own = folder
        self._segments = Segments(self._disk, folder.path, SEGMENT_BYTES)
        self.folders.insert(0, folder)

    def _write(self, batch: list[Waiting], *, is_retry: bool = False) -> None:
        if self._stuck and not is_retry:
            self._keep(batch)
            return
        together = self._stuck + batch
        if not together:
            return
        started = time.monotonic()
        frames = b"".join([write_frame(record.event) for record in together])
        self._writing = together
        try:
            if self._segments is None:
                raise OSError(self.why)
            try:
                self._segments.append(frames)
            except OSError:
                self._segments.append(frames)  # in a new file: the old one may be broken, and the disk well
        except OSError as error:
            self._lacks_space = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._note_full(error)
            self._keep(batch)
            return
        finally:
            self._writing = []
        assert self.own is not None
        assert self.table is not None
        self._stuck = []
        for record in together:
            if record.slot >= 0:
                self.table.release(record.slot)
        self.own.end = Position(self._segments.number, self._segments.end)
        seconds = time.monotonic() - started
        self._tell(lambda: self._durable(together, seconds))
        if self._segments.room < self._wanted():
            self._look_for_room()  # not at the next tick: many calls end within one

    def _keep(self, batch: list[Waiting]) -> None:
        """Not written: those who wait go on, the records stay in memory."""
        if not batch:
            return
        room = MAX_STUCK - len(self._stuck)
        lost = len(batch[room:])
        self._stuck += batch[:room]
        self._tell(lambda: self._unsafe(batch, lost))

    def _look_for_room(self) -> None:
        segments = self._segments
        if segments is None:
            return
        try:
            self._size = sum(self._size_of(folder) for folder in list(self.folders))
            if time.monotonic() - self._segment_since > SEGMENT_AGE_S:
                self._segment_since = time.monotonic()
                if segments.has_records:
                    segments.begin_next()
            if not self._stuck:
                self._reserve(segments)
        except OSError as error:
            self._note_full(error)
            return
        if self._size >= self._max_bytes:
            self._note_full(OSError(f"{self._size} bytes wait, more are not wanted"))
        elif not self._stuck:
            if self.is_full:
                logger.warning("usage records have space again", extra={"folder": str(self.path)})
            self.is_full, self.why = False, ""
        self._tell(self._show)

    def _size_of(self, folder: Folder) -> int:
        """Raises OSError; not of a folder that everybody has, and that is deleted meanwhile."""
        try:
            return folder.size()
        except FileNotFoundError:
            if folder in self.folders:
                raise
            return 0

    def _reserve(self, segments: Segments) -> None:
        """Raises OSError."""
        wanted = self._wanted()
        try:
            segments.make_room(wanted)
        except OSError:
            if not self._make_room():
                raise
            segments.make_room(wanted)

    def _make_room(self) -> bool:
        """Delete what everybody has, which on a small disk may be all that is in the way. Raises OSError."""
        own, segments = self.own, self._segments
        return own is not None and segments is not None and own.delivered >= own.end and segments.start_over()

    def _wanted(self) -> int:
        """Space that the calls that run now, and those that begin before the next look, may need."""
        return RESERVE_BYTES // 2 + len(self.running) * RUNNING_BYTES

    def _note_running(self) -> None:
        if self.table is None:
            return
        self._checkpoint += 1
        for count, call in enumerate(list(self.running.values())):
            if call.slot >= 0 and (usage := call.so_far()) is not None:
                self.table.note(call.slot, self._checkpoint, usage, call.seconds())
            if count % 200 == 199:
                time.sleep(0)  # others want the interpreter too

    def _adopt(self) -> None:
        own = {folder.name for folder in self.folders}
        with suppress(OSError):
            for folder, found in self._orphans.take(self.path, own):
                self._tell(lambda folder=folder, found=found: self._adopted(folder, found.damaged))  # type: ignore[misc]

    def _note_full(self, error: OSError) -> None:
        if not self.is_full:
            logger.error("no usage record can be written", extra={"folder": str(self.path), "reason": str(error)})
        self.is_full, self.why = True, str(error)
        self._tell(self._show)

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self.loop.call_soon_threadsafe(what)

    # On the event loop

    def _watch(self) -> None:
        """Once a second: a disk that neither writes nor fails must not keep answers from their ends."""
        self._timer = self.loop.call_later(1.0, self._watch)
        since = self._at_work_since
        if not since or time.monotonic() - since < PATIENCE_S:
            return
        self._note_full(OSError("the disk does not answer"))
        late = [record for record in (*self._writing, *self._waiting) if not record.is_settled]
        if late:
            self._unsafe(late, 0)

    def _durable(self, batch: list[Waiting], seconds: float) -> None:
        for record in batch:
            record.durable(True)
        self._meter.synced(len(batch), seconds)
        self.on_change()

    def _unsafe(self, batch: list[Waiting], lost: int) -> None:
        for record in batch:
            record.durable(False)
        self._meter.at_risk(len(batch))
        self._show()
        if lost:
            self._meter.lost(lost)

    def _show(self) -> None:
        self._meter.spool(len(self._stuck), self._size, is_full=self.is_full)

    def _adopted(self, folder: Folder, damaged: int) -> None:
        self.folders.append(folder)
        if damaged:
            self._meter.damaged(damaged)
        self.on_change()
