"""Bill files as providers export them, as CSV from their pages and as JSON from their APIs, read into one shape.

Source: OpenAI help centre, "Understanding your API usage" (exports of the views Activity and Cost); OpenAI API
reference, usage and costs, whose members the columns of those exports are; Claude Console help, "Cost and usage
reporting" (CSV exports of the pages Usage and Cost); Claude Admin API, usage report and cost report.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from torana.usage.bills import ALL, MEASURES, NOTHING, Bill, model_name

Row = Mapping[str, str]

_WORD = re.compile(r"\S")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d*)?")
_MOST_DIGITS = 30
"""Before or behind the point: of no bill, and sums of them could be told no more."""


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
    unit: Decimal = Decimal(1)
    """Of an amount of money, in dollars."""


EXPORTS = (
    Export(
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
    ),
    Export(
        "Anthropic, cost",
        "anthropic",
        frozenset(("usage_date_utc", "model", "token_type", "cost_usd")),
        "usage_date_utc",
        "model",
        {"cost_usd": ("cost_usd",)},
    ),
    Export(
        "Anthropic, usage report",
        "anthropic",
        frozenset(("starting_at", "uncached_input_tokens", "output_tokens", "model")),
        "starting_at",
        "model",
        {
            "input_tokens": (
                "uncached_input_tokens",
                "cache_creation_ephemeral_5m_input_tokens",
                "cache_creation_ephemeral_1h_input_tokens",
                "cache_read_input_tokens",
            ),
            "output_tokens": ("output_tokens",),
            "cache_read_tokens": ("cache_read_input_tokens",),
            "cache_write_tokens": (
                "cache_creation_ephemeral_5m_input_tokens",
                "cache_creation_ephemeral_1h_input_tokens",
            ),
        },
    ),
    Export(
        "Anthropic, cost report",
        "anthropic",
        frozenset(("starting_at", "amount", "currency", "model")),
        "starting_at",
        "model",
        {"cost_usd": ("amount",)},
        unit=Decimal("0.01"),
    ),
    Export(
        "OpenAI, activity",
        "openai",
        frozenset(("start_time", "input_tokens", "num_model_requests", "model")),
        "start_time",
        "model",
        {
            "calls": ("num_model_requests",),
            "input_tokens": ("input_tokens",),
            "output_tokens": ("output_tokens",),
            "cache_read_tokens": ("input_cached_tokens",),
            "cache_write_tokens": ("input_cache_write_tokens",),
        },
    ),
    Export(
        "OpenAI, cost",
        "openai",
        frozenset(("start_time", "amount_value", "line_item")),
        "start_time",
        "line_item",
        {"cost_usd": ("amount_value",)},
        # `gpt-5-mini-2025-08-07, cached input`
        lambda item: item.partition(",")[0],
    ),
)
WITHOUT_USE = frozenset((
    "start_time", "end_time", "start_time_iso", "end_time_iso", "starting_at", "ending_at", "object", "has_more",
    "next_page",
))  # fmt: skip
"""All that exports tell of days on which nothing was used."""


def generic(columns: Mapping[str, str]) -> Export:
    """A file whose columns the operator declares: `day`, `model`, and the measures that it has."""
    unknown = columns.keys() - {"day", "model", *MEASURES}
    if unknown:
        raise BadBill(f"{min(unknown)!r} is no column of a bill, expected day, model, {', '.join(MEASURES)}")
    if not {"day", "model"} <= columns.keys() or len(columns) < 3:
        raise BadBill("expected columns for `day`, `model` and at least one measure")
    sums = {name: (column,) for name, column in columns.items() if name in MEASURES}
    return Export("declared", "", frozenset(columns.values()), columns["day"], columns["model"], sums)


def read_bill(path: Path, columns: Mapping[str, str], renamed: Mapping[str, str]) -> tuple[Export, Bill]:
    """
    columns  as `generic` has them; empty: the file tells what it is
    renamed  what the bill calls a model → what it is called here

    Raises BadBill, OSError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadBill(f"{path}: is no text in UTF-8") from error
    bill = Bill()
    try:
        is_json = text.lstrip()[:1] in ("{", "[")
        rows = list(_read_json(text, bill) if is_json else _read_csv(text))
    except csv.Error as error:
        raise BadBill(f"{path}: is no CSV ({error})") from error
    except (ValueError, RecursionError) as error:
        raise BadBill(f"{path}: is no JSON ({error})") from error
    export = _export_of(rows, columns, path)
    names = {model_name(name): model_name(ours) for name, ours in renamed.items()}
    for place, row in rows:
        _add(bill, export, row, names, f"{path}:{place}")
    return export, bill


def _read_csv(text: str) -> Iterator[tuple[str, Row]]:
    """(line, its cells by column); also the head, so that a file without lines is known."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    yield "1", dict.fromkeys((name.strip() for name in rows.fieldnames or ()), "")
    for row in rows:
        yield (
            str(rows.line_num),
            {(name or "").strip(): value.strip() for name, value in row.items() if isinstance(value, str)},
        )


def _read_json(text: str, bill: Bill) -> Iterator[tuple[str, Row]]:
    """Pages of an API one behind the other, or any list of flat objects."""
    # Amounts of money stay what they are written as.
    decoder = json.JSONDecoder(parse_float=str, parse_int=str)
    at, number = 0, 0
    while word := _WORD.search(text, at):  # not by cutting the text: a file may have a hundred thousand lines
        found, at = decoder.raw_decode(text, word.start())
        page = found[-1] if isinstance(found, list) and found else found
        if isinstance(page, dict):
            bill.is_cut = page.get("has_more") is True  # the last page decides
        for row in _flatten(found):
            number += 1
            yield f" result {number}", row


def _flatten(value: Any, around: Row | None = None) -> Iterator[Row]:
    """The results of pages and buckets, with the bucket's own members; `amount: {value}` is `amount_value`."""
    if isinstance(value, list):
        for each in value:
            yield from _flatten(each, around)
    elif isinstance(value, dict):
        own = dict(around or {})
        for name, member in value.items():
            if isinstance(member, str | bool):
                own[name] = str(member)
            elif member is None:
                own[name] = ""
            elif isinstance(member, dict):
                own |= {f"{name}_{inner}": part for inner, part in member.items() if isinstance(part, str)}
        inner = next((value[name] for name in ("data", "results", "result") if isinstance(value.get(name), list)), None)
        if inner is None:
            yield own
        elif inner:
            yield from _flatten(inner, own)
        elif around is not None:
            yield own  # a day without use


def _export_of(rows: Iterable[tuple[str, Row]], columns: Mapping[str, str], path: Path) -> Export:
    header = frozenset(name for _, row in rows for name in row)
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
    if header and header <= WITHOUT_USE:
        return Export("empty", "", header, "", "", {})
    raise BadBill(f"{path}:1: no known export; name its columns with --columns day=…,model=…,input_tokens=…")


def _add(bill: Bill, export: Export, row: Row, names: Mapping[str, str], place: str) -> None:
    day_text = row.get(export.day, "")
    if not day_text:
        return
    day = _day(day_text, place)
    bill.days.add(day)
    amounts, rounded = {}, 0
    for measure, columns in export.sums.items():
        present = [_amount(row[name], place) for name in columns if row.get(name)]
        if measure == "cost_usd":
            present = [amount * export.unit for amount in present]
            rounded += sum(amount.as_tuple().exponent >= -2 for amount in present)  # type: ignore[operator]  # no NaN
        if present:
            amounts[measure] = sum(present, NOTHING)
    name = model_name(export.model_of(row.get(export.model, "")))
    if not name and not any(amounts.values()):
        return  # an empty day
    line = bill.line(day, names.get(name, name) or ALL)
    line.add(amounts)
    line.rounded += rounded


def _day(text: str, place: str) -> date:
    try:
        if text.isdecimal() and len(text) >= 9:
            return datetime.fromtimestamp(int(text), UTC).date()
        if text[2:3] == text[5:6] == "/":  # 11/30/2026, as Azure's exports have it
            return datetime.strptime(text[:10], "%m/%d/%Y").date()
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))  # BigQuery's
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
    except (ValueError, OverflowError, OSError) as error:  # the last of nanoseconds
        raise BadBill(f"{place}: {text[:40]!r} is no day, expected 2026-11-01 or Unix seconds") from error


def _amount(text: str, place: str) -> Decimal:
    try:
        bare = text.lstrip("$")
        # `0,45` is no 45: a comma may stand before three digits only.
        amount = Decimal(bare.replace(",", "") if _THOUSANDS.fullmatch(bare) else bare)
    except InvalidOperation as error:
        raise BadBill(f"{place}: {text[:40]!r} is no number") from error
    if not amount.is_finite() or abs(amount.adjusted()) > _MOST_DIGITS:
        raise BadBill(f"{place}: {text[:40]!r} is no number")
    return amount
