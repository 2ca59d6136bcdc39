"""Providers' own bills: CSV exports read into lines of one shape, and held against what we have counted.

Source: OpenAI help centre, "Understanding your API usage" (exports of the views Activity and Cost), with the members
of the usage and costs API; Claude Console help, "Cost and usage reporting" (CSV exports of the pages Usage and Cost).
"""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

MEASURES = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")
Amounts = dict[str, Decimal]
Bill = dict[tuple[date, str], Amounts]
"""(day in UTC, model) → what the bill says of it; measures that it does not mention are absent."""

_DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


class BadBill(ValueError):
    """A file that is no bill; reads as what is wrong with it, and where."""


@dataclass(frozen=True, slots=True)
class Export:
    """One kind of export."""

    name: str
    provider: str
    """Empty: any."""
    needs: frozenset[str]
    """Columns by which it is known."""
    day: str
    model: str
    sums: Mapping[str, tuple[str, ...]]
    """Measure → the columns that it is the sum of."""
    model_of: Callable[[str], str] = str


ANTHROPIC_USAGE = Export(
    "Anthropic, usage",
    "anthropic",
    frozenset(("usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens")),
    "usage_date_utc",
    "model_version",
    {
        "input_tokens": (
            "usage_input_tokens_no_cache",
            "usage_input_tokens_cache_write_5m",
            "usage_input_tokens_cache_write_1h",
            "usage_input_tokens_cache_read",
        ),
        "output_tokens": ("usage_output_tokens",),
        "cache_read_tokens": ("usage_input_tokens_cache_read",),
        "cache_write_tokens": ("usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h"),
    },
)
ANTHROPIC_COST = Export(
    "Anthropic, cost",
    "anthropic",
    frozenset(("usage_date_utc", "model", "token_type", "cost_usd")),
    "usage_date_utc",
    "model",
    {"cost_usd": ("cost_usd",)},
)
OPENAI_USAGE = Export(
    "OpenAI, activity",
    "openai",
    frozenset(("start_time", "input_tokens", "output_tokens", "num_model_requests", "model")),
    "start_time",
    "model",
    {
        "calls": ("num_model_requests",),
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        "cache_read_tokens": ("input_cached_tokens",),
    },
)
OPENAI_COST = Export(
    "OpenAI, cost",
    "openai",
    frozenset(("start_time", "amount_value", "line_item")),
    "start_time",
    "line_item",
    {"cost_usd": ("amount_value",)},
    # `gpt-5-mini-2025-08-07, cached input`
    lambda item: item.partition(",")[0],
)
EXPORTS = (ANTHROPIC_USAGE, ANTHROPIC_COST, OPENAI_USAGE, OPENAI_COST)


def generic(columns: Mapping[str, str]) -> Export:
    """A file whose columns the operator declares: `day`, `model`, and the measures that it has."""
    unknown = columns.keys() - {"day", "model", *MEASURES}
    if unknown:
        raise BadBill(f"{min(unknown)!r} is no column of a bill, expected day, model, {', '.join(MEASURES)}")
    if not {"day", "model"} <= columns.keys() or len(columns) < 3:
        raise BadBill("expected columns for `day`, `model` and at least one measure")
    sums = {name: (column,) for name, column in columns.items() if name in MEASURES}
    return Export("declared", "", frozenset(columns.values()), columns["day"], columns["model"], sums)


def read_bill(path: Path, columns: Mapping[str, str] | None = None) -> tuple[Export, Bill]:
    """Raises BadBill, OSError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            header = frozenset(name.strip() for name in rows.fieldnames or ())
            export = _export_of(header, columns, path)
            bill: Bill = {}
            for row in rows:
                clean = {(name or "").strip(): value for name, value in row.items() if isinstance(value, str)}
                _add(bill, export, clean, f"{path}:{rows.line_num}")
    except UnicodeDecodeError as error:
        raise BadBill(f"{path}: is no text in UTF-8") from error
    except csv.Error as error:
        raise BadBill(f"{path}: is no CSV ({error})") from error
    return export, bill


def _export_of(header: frozenset[str], columns: Mapping[str, str] | None, path: Path) -> Export:
    if columns:
        export = generic(columns)
        missing = export.needs - header
        if missing:
            raise BadBill(f"{path}:1: there is no column {min(missing)!r}, the file has {', '.join(sorted(header))}")
        return export
    for export in EXPORTS:
        if export.needs <= header:
            return export
    if {"day", "model"} <= header:
        return generic({name: name for name in ("day", "model", *MEASURES) if name in header})
    raise BadBill(f"{path}:1: no known export; name its columns with --columns day=…,model=…,input_tokens=…")


def _add(bill: Bill, export: Export, row: Mapping[str, str], place: str) -> None:
    day_text, model_text = row.get(export.day, "").strip(), export.model_of(row.get(export.model, "")).strip()
    if not day_text or not model_text:
        return  # lines for what is no model, and empty days
    amounts = bill.setdefault((_day(day_text, place), model_name(model_text)), {})
    for measure, names in export.sums.items():
        present = [row[name] for name in names if row.get(name, "").strip()]
        if present:
            amounts[measure] = amounts.get(measure, Decimal(0)) + sum(_amount(text, place) for text in present)


def _day(text: str, place: str) -> date:
    try:
        if text.isdecimal() and len(text) >= 9:
            return datetime.fromtimestamp(int(text), UTC).date()
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
    except (ValueError, OverflowError) as error:
        raise BadBill(f"{place}: {text[:40]!r} is no day, expected 2026-11-01 or Unix seconds") from error


def _amount(text: str, place: str) -> Decimal:
    try:
        amount = Decimal(text.strip().lstrip("$").replace(",", ""))
    except InvalidOperation as error:
        raise BadBill(f"{place}: {text[:40]!r} is no number") from error
    if not amount.is_finite():
        raise BadBill(f"{place}: {text[:40]!r} is no number")
    return amount


def model_name(text: str) -> str:
    """One spelling for what bills call a model and what calls name: `Claude Haiku 4.5`, `claude-haiku-4-5-20251001`."""
    name = re.sub(r"[^a-z0-9]+", "-", text.rpartition("/")[2].lower()).strip("-")
    return _DATED.sub("", name)


@dataclass(frozen=True, slots=True)
class Difference:
    """One day and model on which the bill and we do not agree in one measure."""

    day: date
    model: str
    measure: str
    billed: Decimal | None
    """None: the bill has nothing of this model on this day."""
    counted: Decimal | None

    @property
    def why(self) -> str:
        if self.billed is None:
            return "only here"
        return "only on the bill" if self.counted is None else "differs"


def compare(bill: Bill, ours: Bill, tolerances: Mapping[str, Decimal]) -> list[Difference]:
    """What differs by more than is tolerated, in order of days.

    ours        may have more days than the bill: those are left out
    tolerances  measure → the largest difference that is none
    """
    days = {day for day, _ in bill}
    ours = {key: amounts for key, amounts in ours.items() if key[0] in days}
    measures = {measure for amounts in bill.values() for measure in amounts}
    found = []
    for key in sorted(bill.keys() | ours.keys()):
        billed, counted = bill.get(key), ours.get(key)
        for measure in MEASURES:
            if measure not in measures:
                continue
            theirs = Decimal(0) if billed is None else billed.get(measure)
            mine = Decimal(0) if counted is None else counted.get(measure)
            if theirs is None:
                continue
            if mine is None or abs(theirs - mine) > tolerances.get(measure, Decimal(0)):
                found.append(
                    Difference(*key, measure, None if billed is None else theirs, None if counted is None else mine)
                )
    return found


def sum_up(lines: Iterable[tuple[date, str, Amounts]]) -> Bill:
    """Our own lines in the shape of a bill."""
    found: dict[tuple[date, str], Amounts] = defaultdict(dict)
    for day, model, amounts in lines:
        into = found[(day, model_name(model))]
        for measure, amount in amounts.items():
            into[measure] = into.get(measure, Decimal(0)) + amount
    return dict(found)
