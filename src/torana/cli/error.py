"""`torana error`: the page of a refusal code, offline."""

import difflib
import json
from typing import Any

import click

from torana.errors import Code
from torana.refusals import CODES


@click.command()
@click.argument("code", required=False)
@click.option("--json", "as_json", is_flag=True)
def error(code: str | None, as_json: bool) -> None:
    """Explain a refusal code; without a code, list them all."""
    if code is None:
        if as_json:
            click.echo(json.dumps([_page(name, row) for name, row in CODES.items()]))
            return
        for name, row in CODES.items():
            click.echo(f"{name:32} {row.layer:15} {row.meaning}")
        return
    if code not in CODES:
        near = difflib.get_close_matches(code.lower(), CODES, 1)
        raise click.BadParameter(
            f"{code!r} is no refusal code; " + (f"did you mean {near[0]}?" if near else "`torana error` lists them")
        )
    row = CODES[code]
    if as_json:
        click.echo(json.dumps(_page(code, row)))
        return
    click.echo(f"{code}\n\nlayer      {row.layer}\nmeaning    {row.meaning}\nremedy     {row.remedy}")
    click.echo(f"retryable  {'yes: the same request may pass later' if row.is_retryable else 'no'}")


def _page(name: str, row: Code) -> dict[str, Any]:
    return {
        "code": name,
        "layer": row.layer,
        "meaning": row.meaning,
        "remedy": row.remedy,
        "retryable": row.is_retryable,
    }
