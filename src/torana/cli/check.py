"""`torana check`: is the catalogue right, and what do the overlays change?"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from torana.catalog.load import Catalogue, overlay_paths, read_catalogue
from torana.environment import load_settings
from torana.errors import BadCatalogue
from torana.prompts.registry import Prompts
from torana.settings import CatalogueSettings


@click.command()
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(folders: tuple[str, ...], as_json: bool) -> None:
    """Validate the whole catalogue, shipped and overlaid; exit 1 on errors.

    Without --catalog, the directories of AIGW_CATALOG are laid over the shipped ones.
    """
    flags = {"AIGW_CATALOG": ":".join(folders)} if folders else None
    settings = load_settings(os.environ, Path(".env"), flags).catalogue
    catalogue, problems = read_catalogue(overlay_paths(settings.overlays))
    notes: list[str] = []
    if not problems:
        problems, notes = _judge_prompts(catalogue, settings)
    report = {
        "ok": not problems,
        "problems": problems,
        "overrides": list(catalogue.overrides),
        "notes": notes,
        "counts": _counts(catalogue),
    }
    click.echo(json.dumps(report) if as_json else _text(report))
    sys.exit(1 if problems else 0)


def _judge_prompts(catalogue: Catalogue, settings: CatalogueSettings) -> tuple[list[str], list[str]]:
    """What is wrong with them, and what may be a slip."""
    try:
        prompts = Prompts(catalogue, settings)
    except BadCatalogue as bad:
        return bad.problems, []
    return prompts.check(), prompts.notes()


def _counts(catalogue: Catalogue) -> dict[str, int]:
    prompts = [versions for variants in catalogue.prompts.values() for versions in variants.values()]
    return {
        "unit_primitives": len(catalogue.unit_primitives),
        "providers": len(catalogue.providers),
        "models": len(catalogue.models),
        "features": len(catalogue.features),
        "prompts": len(catalogue.prompts),
        "prompt_files": sum(map(len, prompts)),
    }


def _text(report: dict[str, Any]) -> str:
    lines = [f"error: {problem}" for problem in report["problems"]]
    lines += [f"overrides: {line}" for line in report["overrides"]]
    lines += [f"note: {line}" for line in report["notes"]]
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report["counts"].items())
    lines.append(f"{len(report['problems'])} error(s); {counts}" if report["problems"] else f"ok: {counts}")
    return "\n".join(lines)
