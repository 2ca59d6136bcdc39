"""`torana keys`: make a signing key, list the keys that tokens are verified with."""

import asyncio
import json
from typing import Any

import click

from torana.cli.surroundings import open_keys, read_settings


@click.group()
def keys() -> None:
    """Local keys, and those of each issuer."""


@keys.command()
@click.option("--json", "as_json", is_flag=True)
def new(as_json: bool) -> None:
    """Print a fresh RSA key as PEM, for AIGW_SELF_SIGNED_JWT__SIGNING_KEY."""
    from torana.access.local_keys import new_key_pem

    pem = new_key_pem().decode("ascii")
    click.echo(json.dumps({"pem": pem}) if as_json else pem, nl=as_json)


@keys.command(name="list")
@click.option("--offline", is_flag=True, help="Ask no issuer; local keys only.")
@click.option("--json", "as_json", is_flag=True)
def list_keys(offline: bool, as_json: bool) -> None:
    """Print local keys and each issuer's keys, with their age."""
    settings = read_settings()

    async def ask() -> dict[str, Any]:
        async with open_keys(settings, offline=offline) as ring:
            await ring.refetch("")
            states = [
                {
                    "issuer": state.issuer,
                    "ok": state.ok,
                    "detail": state.detail,
                    "age_s": state.age_s and round(state.age_s, 1),
                    "skew_s": state.skew_s,
                }
                for state in ring.states()
            ]
            rows = [
                {"issuer": issuer, "kid": key.kid, "caveat": ring.local.caveat(key.kid)}
                for issuer, key in ring.all_keys()
            ]
            return {"keys": rows, "issuers": states}

    found = asyncio.run(ask())
    if as_json:
        click.echo(json.dumps(found))
        return
    for row in found["keys"]:
        click.echo(f"{row['issuer']}  {row['kid'] or '(no id)'}" + (f"  ({row['caveat']})" if row["caveat"] else ""))
    for state in found["issuers"]:
        age = "" if state["age_s"] is None else f", {state['age_s']} s old"
        click.echo(f"{'ok    ' if state['ok'] else 'FAILED'}  {state['issuer']}: {state['detail']}{age}")
    if not found["keys"]:
        click.echo("no keys at all: every token would be answered with 503", err=True)
