"""Questions to the embedded roll-up: who used how much, of what, when."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torana.usage.rollup_schema import MEASURES, MONEY_SCALE, NAMES, PERIODS, open_rollup

if TYPE_CHECKING:
    import sqlite3

TIMES = {"month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H:00Z"}
"""What a report may be split by besides the names, and how it is written."""

ALIASES = {"outcome": "status", "unit-primitive": "unit_primitive"}

HOURS_KEPT = timedelta(days=45)
MINUTES_SEEN = timedelta(hours=3)
"""Nobody asks for them over a longer time."""

_AGO = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class BadQuestion(ValueError):
    """What was asked for does not exist; reads as what is expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report."""

    names: tuple[str, ...]
    """In the order of what it is split by."""
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_usd: Decimal | None
    """Of the calls with a known price; None where there is none."""
    unpriced: int
    """Calls without a known price."""
    uncertain: int
    """Calls whose tokens we counted ourselves."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    by: tuple[str, ...]
    since: datetime
    until: datetime
    """Both rounded down to what the roll-up can tell apart, so that two spans that meet count nothing twice."""
    rows: tuple[Row, ...]
    """The dearest first, then those with the most tokens."""


def read_moment(text: str, now: datetime) -> datetime:
    """`7d`, `12h`, `30m`, `2w` ago, a day, or a moment in ISO 8601 (UTC unless told). Raises BadQuestion."""
    ago = _AGO.fullmatch(text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the latter of a year that in UTC is none
        raise BadQuestion(f"{text!r} is no time, expected 7d, 12h, 2026-11-01 or 2026-11-01T08:00Z") from None


def read_span(since: str, until: str, now: datetime) -> tuple[datetime, datetime | None]:
    """From when, and to when; an empty `until` is None. Raises BadQuestion, also where no time lies between them."""
    start, end = read_moment(since, now), read_moment(until, now) if until else None
    if end is not None and end <= start:
        raise BadQuestion(f"--until {until} is not after --since {since}, expected a later time")
    return start, end


def read_by(text: str) -> tuple[str, ...]:
    """`instance,feature,model`; raises BadQuestion."""
    names = tuple(ALIASES.get(name.strip(), name.strip()) for name in text.split(",") if name.strip())
    for name in names:
        if name not in NAMES and name not in TIMES:
            raise BadQuestion(f"{name!r} is nothing to report by, expected some of {', '.join((*NAMES, *TIMES))}")
    return tuple(dict.fromkeys(names))


def ask(path: Path, by: Sequence[str], since: datetime, until: datetime | None, now: datetime) -> Report:
    """Raises sqlite3.Error, and FileNotFoundError where there is no roll-up.

    until  None: all there is. What a clock that ran ahead has put after `now` is no less used.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    columns = [f"strftime('{TIMES[name]}', start, 'unixepoch')" if name in TIMES else name for name in by]
    # Whole dollars and the rest apart: together, ten millions are more than SQLite's whole numbers hold.
    asked = {name: name for name in MEASURES} | {"cost": f"cost % {MONEY_SCALE}", "dollars": f"cost / {MONEY_SCALE}"}
    sums = [f"sum({amount})" for amount in asked.values()]
    groups = f" GROUP BY {', '.join(str(number + 1) for number in range(len(by)))}" if by else ""
    connection = open_rollup(path, is_reader=True)
    try:
        oldest = {period: _oldest(connection, period) for period in PERIODS}
        period = _period(oldest, by, since, now)
        start = int(since.timestamp()) // PERIODS[period] * PERIODS[period]
        if oldest["day"] < oldest[period] // PERIODS["day"] * PERIODS["day"] < math.inf:
            start = max(start, int(oldest[period]))  # what was there before is there by longer periods only
        where, values = "period = ? AND start >= ?", [period, start]
        if until is not None:
            # At least one of the sums: they cannot be taken apart.
            end = max(int(until.timestamp()) // PERIODS[period], start // PERIODS[period] + 1) * PERIODS[period]
            until = datetime.fromtimestamp(end, UTC)
            where, values = f"{where} AND start < ?", [*values, end]
        found = connection.execute(
            f"SELECT {', '.join([*columns, *sums])} FROM usage WHERE {where}{groups}",  # noqa: S608 our own names only
            values,
        ).fetchall()
    finally:
        connection.close()
    rows = [_row(line[: len(by)], dict(zip(asked, line[len(by) :], strict=True))) for line in found if line[len(by)]]
    if set(by) & TIMES.keys():
        rows.sort(key=lambda row: row.names)
    else:
        rows.sort(key=lambda row: (-(row.cost_usd or 0), -row.input_tokens - row.output_tokens, row.names))
    return Report(tuple(by), datetime.fromtimestamp(start, UTC), until or now, tuple(rows))


def _period(oldest: Mapping[str, float], by: Sequence[str], since: datetime, now: datetime) -> str:
    """The finest sums that reach back so far and are not finer than anybody can see.

    oldest  period → when its first sum begins
    """
    if "hour" not in by and now - since > HOURS_KEPT:
        return "day"
    if now - since <= MINUTES_SEEN and _is_whole(oldest, "minute", "hour", since):
        return "minute"
    return "hour" if "hour" in by or _is_whole(oldest, "hour", "day", since) else "day"


def _oldest(connection: "sqlite3.Connection", period: str) -> float:
    """When the first of the sums begins that are still there."""
    found: int | None = connection.execute("SELECT min(start) FROM usage WHERE period = ?", (period,)).fetchone()[0]
    return math.inf if found is None else found


def _is_whole(oldest: Mapping[str, float], fine: str, coarse: str, since: datetime) -> bool:
    """Whether the fine sums go back to `since`, or as far as the coarse ones; `keep` may have ended them before."""
    seconds = PERIODS[coarse]
    return oldest[fine] // seconds <= max(oldest[coarse], since.timestamp()) // seconds


def _row(names: Sequence[Any], sums: dict[str, int]) -> Row:
    is_priced = sums["unpriced"] < sums["calls"]
    return Row(
        names=tuple(map(str, names)),
        calls=sums["calls"],
        input_tokens=sums["input_tokens"],
        output_tokens=sums["output_tokens"],
        cache_read_tokens=sums["cache_read_tokens"],
        cache_write_tokens=sums["cache_write_tokens"],
        reasoning_tokens=sums["reasoning_tokens"],
        cost_usd=sums["dollars"] + Decimal(sums["cost"]) / MONEY_SCALE if is_priced else None,
        unpriced=sums["unpriced"],
        uncertain=sums["uncertain"],
        seconds=sums["milliseconds"] / 1000,
    )
