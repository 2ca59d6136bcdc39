"""Questions to the embedded roll-up: who used how much, of what, when."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torana.usage.rollup_schema import MEASURES, MONEY_SCALE, NAMES, PERIODS, open_rollup

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

TIMES = {"month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H:00Z"}
"""What a report may be split by besides the names, and how it is written."""

ALIASES = {"outcome": "status", "unit-primitive": "unit_primitive"}

HOURS_KEPT = timedelta(days=45)
MINUTES_SEEN = timedelta(hours=3)
"""Nobody asks for them over a longer time."""

LAST_MOMENT = int(datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp())
"""Unix seconds: what lies behind it has no date."""

_AGO = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class BadQuestion(ValueError):
    """What was asked for does not exist; reads as what is expected."""


class BadRollup(Exception):
    """A roll-up that is not there, or cannot be read; says which."""


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


def ask(paths: Sequence[Path], by: Sequence[str], since: datetime, until: datetime | None, now: datetime) -> Report:
    """Raises BadRollup.

    paths  roll-ups of several hosts, which are added up
    until  None: all there is. What a clock that ran ahead has put after `now` is no less used.
    """
    columns = [f"strftime('{TIMES[name]}', start, 'unixepoch')" if name in TIMES else name for name in by]
    # Whole dollars and the rest apart: together, ten millions are more than SQLite's whole numbers hold.
    asked = {name: name for name in MEASURES} | {"cost": f"cost % {MONEY_SCALE}", "dollars": f"cost / {MONEY_SCALE}"}
    sums = [f"sum({amount})" for amount in asked.values()]
    groups = f" GROUP BY {', '.join(str(number + 1) for number in range(len(by)))}" if by else ""

    found = [_look(path, _oldest) for path in paths]
    period = max((_period(oldest, by, since, now) for oldest in found), key=PERIODS.__getitem__)
    start = int(since.timestamp()) // PERIODS[period] * PERIODS[period]
    for oldest in found:
        if oldest["day"] < oldest[period] // PERIODS["day"] * PERIODS["day"] < math.inf:
            start = max(start, int(oldest[period]))  # what was there before is there by longer periods only
    where, values = "period = ? AND start >= ?", [period, start]
    if until is not None:
        # At least one of the sums: they cannot be taken apart.
        end = max(int(until.timestamp()) // PERIODS[period], start // PERIODS[period] + 1) * PERIODS[period]
        until = datetime.fromtimestamp(min(end, LAST_MOMENT), UTC)
        where, values = f"{where} AND start < ?", [*values, end]
    question = f"SELECT {', '.join([*columns, *sums])} FROM usage WHERE {where}{groups}"  # noqa: S608 our own names only

    added: dict[tuple[Any, ...], list[int]] = {}
    for path in paths:
        for line in _look(path, lambda connection: connection.execute(question, values).fetchall()):
            names, amounts = tuple(line[: len(by)]), list(line[len(by) :])
            if amounts[0]:
                added[names] = list(map(add, added[names], amounts)) if names in added else amounts
    rows = [_row(names, dict(zip(asked, amounts, strict=True))) for names, amounts in added.items()]
    if set(by) & TIMES.keys():
        rows.sort(key=lambda row: row.names)
    else:
        rows.sort(key=lambda row: (-(row.cost_usd or 0), -row.input_tokens - row.output_tokens, row.names))
    return Report(tuple(by), datetime.fromtimestamp(start, UTC), until or now, tuple(rows))


def _look(path: Path, question: "Callable[[sqlite3.Connection], T]") -> T:
    """Raises BadRollup."""
    import sqlite3

    if not path.exists():
        raise BadRollup(
            f"there is no roll-up at {path}: has a gateway with this state directory answered a call? "
            "--rollup names another file"
        )
    try:
        connection = open_rollup(path, is_reader=True)
        try:
            return question(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise BadRollup(f"{path} cannot be read: {error}") from error


def _period(oldest: Mapping[str, float], by: Sequence[str], since: datetime, now: datetime) -> str:
    """The finest sums that reach back so far and are not finer than anybody can see.

    oldest  period → when its first sum begins
    """
    if "hour" not in by and now - since > HOURS_KEPT:
        return "day"
    if now - since <= MINUTES_SEEN and _is_whole(oldest, "minute", "hour", since):
        return "minute"
    return "hour" if "hour" in by or _is_whole(oldest, "hour", "day", since) else "day"


def _oldest(connection: "sqlite3.Connection") -> dict[str, float]:
    """Period → from when on all of its sums are still there."""
    found = {}
    for period in PERIODS:
        (start,) = connection.execute("SELECT min(start) FROM usage WHERE period = ?", (period,)).fetchone()
        found[period] = math.inf if start is None else float(start)
    for fine, coarse in reversed(list(pairwise(PERIODS))):
        if found[fine] < math.inf:
            begin = int(found[fine]) // PERIODS[coarse] * PERIODS[coarse]
            end = begin + PERIODS[coarse]
            if _calls(connection, fine, begin, end) < _calls(connection, coarse, begin, end):
                found[fine] = float(end)  # of the hour, or day, that it begins in some are gone already
        else:  # all are gone: those from the end of the last coarse one on are none
            (start,) = connection.execute("SELECT max(start) FROM usage WHERE period = ?", (coarse,)).fetchone()
            found[fine] = found[coarse] if start is None else float(start + PERIODS[coarse])
    return found


def _calls(connection: "sqlite3.Connection", period: str, begin: int, end: int) -> int:
    question = "SELECT coalesce(sum(calls), 0) FROM usage WHERE period = ? AND start >= ? AND start < ?"
    (found,) = connection.execute(question, (period, begin, end)).fetchone()
    return int(found)


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
