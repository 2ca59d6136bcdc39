"""The embedded roll-up: sums a minute, an hour and a day, in one SQLite file that all workers of a host share.

The console and `torana usage` read it. How far each folder is counted stands in the same transaction as the counts,
so that a record is counted once however often it is delivered.
"""

import asyncio
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from torana.clock import Clock
from torana.usage.folder import Position
from torana.usage.rollup_schema import MEASURES, MONEY_SCALE, NAMES, PERIODS, open_rollup
from torana.usage.sinks.sink import CLOSE_S, Batch, SinkDown
from torana.usage.sinks.spare import Spare

if TYPE_CHECKING:
    import sqlite3

PRUNE_S = 600.0
LEAP_S, BELIEVED_S = 60.0, 86_400.0
"""A wall clock that leaps ahead by more, while this process runs or since the last one counted, is believed once it has
stood so for a day: what was deleted for it is gone."""

MAX_AMOUNT = 2**53

_Done = TypeVar("_Done")


class RollupSink:
    """Adds records up, in a thread of its own.

    keep_s  period → how long its rows stay
    clock   None: the system's
    """

    def __init__(self, path: Path, keep_s: dict[str, float], clock: Clock | None = None) -> None:
        self._path = path
        self._spare = Spare(path)
        self._keep_s = keep_s
        self._clock = clock or Clock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage-rollup")
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        """Which one the connection has open."""
        self._pruned_at = -math.inf
        self._ahead_s = self._clock.now() - self._clock.monotonic()
        """Of the monotonic clock."""
        self._leapt_at: float | None = None
        self._is_closed = False

    async def send(self, batch: Batch) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._add, batch)

    async def position(self, folder: str) -> Position | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._position, folder)

    async def aclose(self) -> None:
        """Idempotent. A disk that is silent is not waited for."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await asyncio.wait((closing,), timeout=CLOSE_S)

    def _open(self) -> "sqlite3.Connection":
        # Deleted, or put in another's place, it would take sums that nobody ever finds.
        if self._connection is not None and _file_at(self._path) != self._file:
            self._close()
        if self._connection is None:
            self._connection = open_rollup(self._path)
            self._file = _file_at(self._path)
            self._look_back(self._connection)
        return self._connection

    def _look_back(self, connection: "sqlite3.Connection") -> None:
        """A clock that is wrong from the start on has not leapt for this process, but for the one before."""
        (last,) = connection.execute("SELECT max(at) FROM counted").fetchone()
        if last is not None:
            self._ahead_s = min(self._ahead_s, last - self._clock.monotonic())

    def _position(self, folder: str) -> Position:
        return self._do(lambda: _position(self._open(), folder))

    def _add(self, batch: Batch) -> None:
        self._spare.keep()
        self._do(lambda: self._count(batch))

    def _do(self, work: Callable[[], _Done]) -> _Done:
        """Once more where a full disk was why it failed, and there is room kept back. Raises SinkDown."""
        import sqlite3

        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            self._close()
            if not self._spare.give():
                raise SinkDown(str(error), is_ambiguous=False) from error
        return self._do(work)

    def _count(self, batch: Batch) -> None:
        connection = self._open()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            counted = _position(connection, batch.folder)
            fresh = batch.events[bisect_right(batch.positions, counted) :]
            connection.executemany(_ADD, _rows(fresh, self._kept_since()))
            end = max(counted, batch.positions[-1])
            connection.execute(
                "INSERT OR REPLACE INTO counted VALUES (?, ?, ?, ?)",
                (batch.folder, end.segment, end.offset, math.ceil(self._now())),
            )
        self._prune(connection)

    def _prune(self, connection: "sqlite3.Connection") -> None:
        if self._clock.monotonic() - self._pruned_at < PRUNE_S:
            return
        self._pruned_at = self._clock.monotonic()
        with connection:
            for kept in self._kept_since().items():
                connection.execute("DELETE FROM usage WHERE period = ? AND start < ?", kept)
            connection.execute("DELETE FROM counted WHERE at < ?", (self._now() - 90 * 86_400,))

    def _kept_since(self) -> dict[str, float]:
        """Period → Unix seconds before which none of its rows begins."""
        now = self._now()
        return {period: now - seconds for period, seconds in self._keep_s.items()}

    def _now(self) -> float:
        """By the wall clock, as far as it is believed."""
        monotonic = self._clock.monotonic()
        ahead_s = self._clock.now() - monotonic
        if ahead_s - self._ahead_s <= LEAP_S:
            self._ahead_s, self._leapt_at = ahead_s, None
        elif self._leapt_at is None:
            self._leapt_at = monotonic
        elif monotonic - self._leapt_at > BELIEVED_S:
            self._ahead_s, self._leapt_at = ahead_s, None
        return self._ahead_s + monotonic

    def _close(self) -> None:
        """Also after a failure: what is open may be broken, and a sound file in its place by now."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _position(connection: "sqlite3.Connection", folder: str) -> Position:
    row = connection.execute("SELECT segment, offset FROM counted WHERE folder = ?", (folder,)).fetchone()
    return Position(*row) if row is not None else Position()


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


_ADD = (
    f"INSERT INTO usage ({', '.join(('period', 'start', *NAMES, *MEASURES))}) "  # noqa: S608 our own names only
    f"VALUES ({', '.join('?' * (2 + len(NAMES) + len(MEASURES)))}) "
    f"ON CONFLICT ({', '.join(('period', 'start', *NAMES))}) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)
)


class _Counted(msgspec.Struct, frozen=True, gc=False):
    """What is looked at of a record. The names come first, in the order of NAMES."""

    instance: str
    realm: str
    user: str
    feature: str
    unit_primitive: str
    model: str
    provider: str
    upstream_model: str
    status: str
    ended_at: str
    duration_s: float
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    source: str
    cost_usd: str | None


_decode = msgspec.json.Decoder(_Counted).decode


def _rows(events: Iterable[bytes], kept_since: Mapping[str, float]) -> list[tuple[object, ...]]:
    """One row for each period and combination of names.

    kept_since  as `_kept_since` has it: among what is gone already, a late record would pass for a whole hour or day
    """
    # By the minute first: of many records few rows are left for the longer periods.
    minutes: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    starts: dict[str, int] = {}
    for event in map(_decode, events):
        minute = event.ended_at[:16]  # of 2026-11-29T19:31:04.123Z
        start = starts.get(minute)
        if start is None:
            start = starts[minute] = int(datetime.fromisoformat(f"{minute}:00Z").timestamp())
        names = (
            event.instance, event.realm, event.user, event.feature, event.unit_primitive, event.model, event.provider,
            event.upstream_model, event.status,
        )  # fmt: skip
        amounts = _amounts(event)
        row = minutes.get((start, names))
        minutes[start, names] = amounts if row is None else list(map(add, row, amounts))
    sums: dict[tuple[object, ...], list[int]] = {}
    for (start, called), amounts in minutes.items():
        for period, seconds in PERIODS.items():
            begin = start - start % seconds
            if begin < kept_since[period]:
                continue
            key = (period, begin, *called)
            row = sums.get(key)
            sums[key] = amounts if row is None else list(map(add, row, amounts))
    return [(*key, *amounts) for key, amounts in sums.items()]


def _amounts(event: _Counted) -> list[int]:
    cost = event.cost_usd
    amounts = [
        1,
        event.input_tokens,
        event.output_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.reasoning_tokens,
        0 if cost is None else int((Decimal(cost) * MONEY_SCALE).to_integral_value()),
        cost is None,
        event.source != "provider",
        round(event.duration_s * 1000),
    ]
    # SQLite's integers end at 2^63: an absurd record must not keep the others from being counted.
    return amounts if max(amounts) <= MAX_AMOUNT else [min(amount, MAX_AMOUNT) for amount in amounts]
