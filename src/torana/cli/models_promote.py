"""`torana models promote`: a model goes into another stage, in an operator's own directory."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torana.catalog.model_records import ModelRecord
    from torana.cli.workshop import Workshop

STAGES = ("registered", "staging", "production", "deprecated")


@click.command()
@click.argument("name")
@click.option("--stage", required=True, type=click.Choice(STAGES))
@click.option("--catalog", "folders", multiple=True, required=True, metavar="DIR", help="The directory to write into.")
@click.option("--report", "file", metavar="FILE", help="The test's report; default: the one that was kept.")
@click.option("--force", is_flag=True, help="Into production without a report that passed.")
@click.option("--date", "day", default="", metavar="YYYY-MM-DD", help="With deprecated: when the model ends.")
@click.option("--successor", default="", metavar="NAME", help="With deprecated: which model takes over.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def promote(
    name: str,
    stage: str,
    folders: tuple[str, ...],
    file: str | None,
    force: bool,
    day: str,
    successor: str,
    as_json: bool,
) -> None:
    """Put NAME into a stage: its record in DIR/models.yml is changed, or copied there first; comments stay.

    Of several --catalog the last is written into, the others are read. Into production a model goes with a report
    of `torana models test` that passed and is about the record as it stands. Running gateways take it over with
    their next reload.
    """
    from torana.cli.workshop import open_workshop

    if (stage == "deprecated") != bool(day) or (stage == "deprecated") != bool(successor):
        raise click.UsageError("--date and --successor belong to --stage deprecated, which needs both")
    folder = Path(folders[-1])
    if not folder.is_dir():
        raise click.UsageError(f"--catalog {folder}: is no directory")
    shop = open_workshop(folders)
    record = shop.catalogue.models.get(name)
    if record is None:
        click.echo(f"unknown model {name!r}; `torana models list` shows them", err=True)
        sys.exit(1)
    lacking = "" if force or stage != "production" else _missing_test(shop, record, file)
    if lacking:
        click.echo(f"not promoted: {lacking}; run `torana models test {name}`, or say --force", err=True)
        sys.exit(1)
    members = {"stage": stage, "deprecation": _ending(record, day) if day else None, "successor": successor or None}
    problems = _write(shop, record, folders, members)
    if problems:
        click.echo("not promoted, the file is as it was:", err=True)
        for problem in problems:
            click.echo(f"  {problem}", err=True)
        sys.exit(1)
    target = folder / "models.yml"
    if as_json:
        click.echo(json.dumps({"model": name, "from": record.stage, "to": stage, "file": str(target)}, indent=2))
    else:
        click.echo(f"{name}: {record.stage} -> {stage}, in {target}")


def _missing_test(shop: "Workshop", record: "ModelRecord", file: str | None) -> str:
    """What keeps the model out of production; empty where nothing does."""
    from torana.cli.model_reports import fingerprint, report_path

    path = Path(file) if file is not None else report_path(shop.settings.state_path, record.name)
    try:
        report: Any = json.loads(path.read_bytes())
        passed, about, when = report["passed"], report["record"], report["tested_at"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"there is no report of a test in {path}"
    if report.get("model") != record.name or about != fingerprint(record):
        return f"the report of {when} is about another record"
    return "" if passed is True else f"the test of {when} did not pass"


def _ending(record: "ModelRecord", day: str) -> str:
    """`deprecation` as a record has it: the day, when that was made known, and the version if there is one."""
    version = record.deprecation.removal_version if record.deprecation is not None else ""
    removal = f", removal_version: {json.dumps(version)}" if version else ""
    return f"{{deprecation_date: {day}, announced: {datetime.now(UTC).date()}{removal}}}"


def _write(
    shop: "Workshop", record: "ModelRecord", folders: Sequence[str], members: Mapping[str, str | None]
) -> list[str]:
    """Change the last folder's file; what `torana check` says against the result, and then the file is as it was."""
    from torana.catalog.load import read_catalogue
    from torana.cli.record_editing import CannotEdit, add_record, find_record, set_members
    from torana.errors import BadCatalogue
    from torana.prompts.registry import Prompts

    target = Path(folders[-1]) / "models.yml"
    before = target.read_bytes() if target.exists() else None
    line_end = "\r\n" if before and before.count(b"\r\n") == before.count(b"\n") > 0 else "\n"
    try:
        text = (before or b"").decode().replace("\r\n", "\n")
        if find_record(text, "models", record.name) is None:
            text = add_record(text, "models", _copy(shop, record))
        text = set_members(text, "models", record.name, members)
    except CannotEdit as error:
        return [f"{target}: {error}"]
    _replace(target, text.replace("\n", line_end).encode())
    catalogue, problems = read_catalogue([Path(each) for each in folders])
    if not problems:
        try:
            Prompts(catalogue, shop.settings.catalogue)
        except BadCatalogue as bad:
            problems = bad.problems
    if problems:
        if before is None:
            target.unlink()
        else:
            _replace(target, before)
    return problems


def _copy(shop: "Workshop", record: "ModelRecord") -> str:
    """The record as it stands in the directory that has it now."""
    from torana.cli.record_editing import CannotEdit, find_record

    place = shop.catalogue.places[f"models {record.name}"].rpartition(":")[0]
    found = find_record(Path(place).read_text("utf-8"), "models", record.name)
    if found is None:
        raise CannotEdit(f"no record `{record.name}` in {place}")
    return f"# From {Path(place).name} of {Path(place).parent.name}, {datetime.now(UTC).date()}\n{found}"


def _replace(target: Path, content: bytes) -> None:
    """In one step: a gateway that watches the directory never reads half a file. Who may read it stays as it is."""
    target = target.resolve()  # a link stays one
    draft = target.with_name(f".{target.name}.new")
    try:
        draft.write_bytes(content)
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
