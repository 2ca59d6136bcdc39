"""`torana usage`: who used how much, whether a provider's bill agrees, and what became of parked records."""

import csv
import io
import json
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from torana.cli.plain_text import plain
from torana.clock import Clock

if TYPE_CHECKING:
    from torana.catalog.records import SinkRecord
    from torana.settings import Settings
    from torana.usage.bills import Bill, Difference
    from torana.usage.report import Report, Row

T = TypeVar("T")

FIGURES = (
    "calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd",
    "unpriced", "uncertain", "seconds",
)  # fmt: skip
COLUMN, MODEL = "input_tokens=Prompt tokens", "Claude Haiku 4.5=claude-haiku-4-5"
"""What an option's value looks like."""
SHOWN = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cost_usd", "unpriced")
"""In a table; the other forms have all."""


def read_amount(text: str) -> Decimal:
    """A decimal number from 0 on."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{text!r} is no amount, expected a number from 0 on")
    return amount


rollup_option = click.option(
    "--rollup",
    "rollups",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="The roll-up; default: that of sinks.yml here. Repeatable: several hosts' are added up.",
)
catalog_option = click.option(
    "--catalog", "folders", multiple=True, metavar="DIR", help="An overlay whose sinks.yml counts; repeatable."
)


@click.group()
def usage() -> None:
    """Usage and cost, from the roll-up that this host's gateway keeps; and its parked records."""


@usage.command()
@click.option(
    "--by",
    default="instance,feature,model",
    show_default=True,
    help="Some of instance, realm, user, feature, unit_primitive, model, provider, upstream_model, status, month, day, "
    "hour.",
)
@click.option(
    "--since", default="7d", show_default=True, help="7d, 12h, 30m, 2w, or a day or moment in ISO 8601 (UTC)."
)
@click.option("--until", default="", help="The same, and later; default: all there is.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@catalog_option
@rollup_option
def report(
    by: str, since: str, until: str, as_csv: bool, as_json: bool, folders: tuple[str, ...], rollups: tuple[Path, ...]
) -> None:
    """How much was used, and by whom. Exit 1 where there is no roll-up to ask."""
    from torana.usage.report import BadQuestion, ask, read_by, read_span

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    now = _now()
    try:
        names = read_by(by)
        start, end = read_span(since, until, now)
    except BadQuestion as bad:
        raise click.UsageError(str(bad)) from bad
    found = _ask(lambda paths: ask(paths, names, start, end, now), rollups, folders)
    if as_json:
        click.echo(json.dumps(_as_object(found), indent=2))
    elif as_csv:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow((*found.by, *FIGURES))
        writer.writerows(
            (*map(_no_formula, row.names), *(_figure(row, name) for name in FIGURES)) for row in found.rows
        )
        click.echo(table.getvalue(), nl=False)  # knows what to do where there is no stdout
    else:
        click.echo(_as_table(found))


@usage.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--provider", default="", help="Whose calls are compared; default: whose export it is.")
@click.option(
    "--columns",
    default="",
    help="For other files: day=…,model=…, and some of calls=…, input_tokens=…, output_tokens=…, "
    "cache_read_tokens=…, cache_write_tokens=…, cost_usd=…, joined by commas.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=OURS",
    help="What the bill calls a model, and what it is here; repeatable.",
)
@click.option(
    "--tolerance",
    type=read_amount,
    default="0",
    show_default=True,
    metavar="N",
    help="Tokens or calls of difference that are none.",
)
@click.option(
    "--usd",
    type=read_amount,
    default="0.01",
    show_default=True,
    metavar="N",
    help="Dollars of difference that are none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@catalog_option
@rollup_option
def reconcile(
    file: Path,
    provider: str,
    columns: str,
    models: tuple[str, ...],
    tolerance: Decimal,
    usd: Decimal,
    as_json: bool,
    folders: tuple[str, ...],
    rollups: tuple[Path, ...],
) -> None:
    """Hold a provider's own bill against the roll-up, day by day and model by model. Exit 1 where they differ.

    Known without --columns: OpenAI's CSV exports (Activity, Cost) and the JSON of its usage and costs API; the Claude
    Console's CSV exports (Usage, Cost) and the JSON of the usage and cost reports of its Admin API.
    """
    from torana.usage.bills import MEASURES, compare
    from torana.usage.exports import BadBill, read_bill

    try:
        export, bill = read_bill(file, _read_pairs(columns.split(","), COLUMN), _read_pairs(models, MODEL))
    except BadBill as bad:
        raise click.UsageError(str(bad)) from bad
    provider = provider or export.provider
    if not bill.lines:
        click.echo(f"{file}: {export.name} export, holds no line with a day and an amount", err=True)
        sys.exit(1)
    ours, providers = _ask(lambda paths: _our_lines(paths, provider, bill), rollups, folders)
    if bill.is_cut:
        click.echo(f"{file}: its last page says that there are more (has_more)", err=True)
    if not bill.names_models:
        click.echo(f"{file}: names no model, so that days are compared as a whole", err=True)
    if not ours.lines and providers:
        click.echo(f"no call of {provider} was counted in these days, but of {', '.join(sorted(providers))}", err=True)
    tolerances = dict.fromkeys(MEASURES, tolerance) | {"cost_usd": usd}
    differences = compare(bill, ours, tolerances)
    since, until = bill.span
    told = {
        "export": export.name,
        "provider": provider or "any",
        "since": str(since),
        "until": str(until),
        "lines": len(bill.lines),
        "differences": [_difference(each) for each in differences],
    }
    click.echo(json.dumps(told, indent=2) if as_json else _reconciled(told, differences))
    sys.exit(1 if differences else 0)


@usage.command()
@click.argument("sink")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@catalog_option
def resend(sink: str, as_json: bool, folders: tuple[str, ...]) -> None:
    """Send the parked records of SINK again, by the same ids. A gateway with this spool delivers them.

    Exit 1 where none is parked, or the spool cannot be written.
    """
    from torana.usage.resending import resend as send_again

    settings, sinks = _load(folders)
    names = [record.name for record in sinks if record.enabled]
    if sink not in names:
        raise click.UsageError(f"sinks.yml has no {sink!r} that is switched on; it has {', '.join(names) or 'none'}")
    try:
        count = send_again(settings.spool_path, sink)
    except OSError as error:
        click.echo(f"{settings.spool_path} cannot be written: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"sink": sink, "records": count}))
    else:
        nothing = f"nothing is parked for {sink} in {settings.spool_path}"
        click.echo(f"{count} records wait for {sink} again" if count else nothing)
    sys.exit(0 if count else 1)


def _ask(question: Callable[[Sequence[Path]], T], rollups: tuple[Path, ...], folders: tuple[str, ...]) -> T:
    """The answer of the roll-ups, each once; exits where there is none."""
    from torana.usage.report import BadRollup

    paths = list(dict.fromkeys(path.resolve() for path in rollups)) or [_find_rollup(folders)]
    try:
        return question(paths)
    except BadRollup as bad:
        click.echo(str(bad), err=True)
        sys.exit(1)


def _now() -> datetime:
    """By the clock that the command was called with, or else the system's."""
    clock: Clock | None = click.get_current_context().obj
    return datetime.fromtimestamp((clock or Clock()).now(), UTC)


def _find_rollup(folders: tuple[str, ...]) -> Path:
    """Where sinks.yml has it."""
    from torana.usage.rollup_schema import rollup_path

    settings, sinks = _load(folders)
    kept = [sink for sink in sinks if sink.type == "rollup" and sink.enabled]
    if not kept:
        click.echo("note: no roll-up is switched on in sinks.yml, so that newer calls are in none", err=True)
    named = [sink.path for sink in kept if sink.path]
    return Path(named[0]) if named else rollup_path(settings.spool_path)


def _load(folders: tuple[str, ...]) -> "tuple[Settings, Collection[SinkRecord]]":
    """What the environment and sinks.yml say. Raises BadSetting, BadCatalogue."""
    from torana.cli.surroundings import read_catalogue, read_settings

    settings = read_settings({"AIGW_CATALOG": ":".join(folders)} if folders else None)
    return settings, read_catalogue(settings).sinks.values()


def _our_lines(paths: Sequence[Path], provider: str, bill: "Bill") -> "tuple[Bill, set[str]]":
    """(what we have counted of the bill's days; the providers of all that was counted in them)"""
    from torana.usage.bills import ALL, Bill, model_name
    from torana.usage.report import ask

    first, last = bill.span
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    behind = last + timedelta(days=1) if last < date.max else None
    end = None if behind is None else datetime(behind.year, behind.month, behind.day, tzinfo=UTC)
    found, providers = Bill(), set()
    for row in ask(paths, ("day", "provider", "upstream_model", "status"), start, end, _now()).rows:
        day, its_provider, model, status = row.names
        providers.add(its_provider)
        if provider not in ("", its_provider):
            continue
        line = found.line(date.fromisoformat(day), model_name(model) if bill.names_models else ALL)
        amounts = {
            name: Decimal(getattr(row, name))
            for name in ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        }
        line.add(amounts if row.cost_usd is None else {**amounts, "cost_usd": row.cost_usd})
        line.failed += row.calls if status != "completed" else 0
        line.uncertain += row.uncertain
        line.unpriced += row.unpriced
    return found, providers


def _read_pairs(texts: Iterable[str], expected: str) -> dict[str, str]:
    found = {}
    for text in filter(None, texts):
        name, sign, value = text.rpartition("=") if expected == MODEL else text.partition("=")
        if not sign:
            raise click.UsageError(f"{text!r} declares nothing, expected {expected}")
        found[name.strip()] = value.strip()
    return found


def _no_formula(name: str) -> str:
    """A name as spreadsheets show it, whoever chose it: they would work out what begins like a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


def _figure(row: "Row", name: str) -> Any:
    value = getattr(row, name)
    if name == "cost_usd":
        return "" if value is None else f"{value.normalize():f}"
    return value


def _as_object(found: "Report") -> dict[str, Any]:
    rows = []
    for row in found.rows:
        figures = {name: getattr(row, name) for name in FIGURES}
        figures["cost_usd"] = _figure(row, "cost_usd") or None
        rows.append({**dict(zip(found.by, row.names, strict=True)), **figures})
    return {"since": found.since.isoformat(), "until": found.until.isoformat(), "by": list(found.by), "rows": rows}


def _as_table(found: "Report") -> str:
    span = f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC"
    if not found.rows:
        return f"nothing was used, {span}"
    lines = [[*found.by, *SHOWN]]
    for row in found.rows:
        lines.append([*(name or "-" for name in row.names), *(_cell(row, name) for name in SHOWN)])
    return f"{span}\n\n{_align(lines, len(found.by))}"


def _cell(row: "Row", name: str) -> str:
    if name == "cost_usd":
        # An unknown price is no price of nought: what is known is then the least that it was.
        if row.cost_usd is None:
            return "unknown"
        return f"{'>= ' if row.unpriced else ''}{row.cost_usd:,.4f}"
    return f"{getattr(row, name):,}"


def _align(lines: Sequence[Sequence[str]], left: int) -> str:
    lines = [[plain(cell).replace("\n", "\\n") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    told = []
    for line in lines:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        told.append("  ".join(cells).rstrip())
    return "\n".join(told)


def _difference(each: "Difference") -> dict[str, Any]:
    billed, counted = each.billed, each.counted
    return {
        "day": str(each.day),
        "model": each.model or None,
        "measure": each.measure,
        "billed": None if billed is None else f"{billed.normalize():f}",
        "counted": None if counted is None else f"{counted.normalize():f}",
        "difference": f"{((counted or Decimal(0)) - (billed or Decimal(0))).normalize():f}",
        "why": each.why,
        "uncertain": each.uncertain,
        "unpriced": each.unpriced,
    }


def _reconciled(told: dict[str, Any], differences: Sequence["Difference"]) -> str:
    head = f"{told['export']} export, {told['since']} to {told['until']}, {told['lines']} lines of days and models"
    if not differences:
        return f"{head}: no difference"
    lines = [["day", "model", "measure", "why", "billed", "counted", "difference"]]
    for each in told["differences"]:
        cells = (each["day"], each["model"] or "-", each["measure"], each["why"])
        lines.append([*cells, each["billed"] or "-", each["counted"] or "-", each["difference"]])
    return f"{head}: {len(differences)} differences\n\n{_align(lines, 4)}"
