"""`torana access check`: the decision about a token and a unit primitive, without calling a model."""

import asyncio
import json
import sys

import click

from torana.cli.surroundings import note_strangers, open_keys, read_catalogue, read_settings, read_token


@click.group()
def access() -> None:
    """Who may do what."""


@access.command()
@click.option("--token", "token_text", required=True, metavar="T", help="The token, or - for standard input.")
@click.option("--unit-primitive", required=True, metavar="NAME")
@click.option("--instance-only", is_flag=True, help="As on endpoints that refuse user tokens.")
@click.option("--offline", is_flag=True, help="Ask no issuer for its keys; local keys only.")
@click.option("--json", "as_json", is_flag=True)
def check(token_text: str, unit_primitive: str, instance_only: bool, offline: bool, as_json: bool) -> None:
    """Say whether the token's bearer may use the unit primitive; exit 1 if not."""
    from torana.access.permissions import permit
    from torana.access.tokens import Verifier
    from torana.caller import Caller
    from torana.clock import Clock
    from torana.errors import Refusal
    from torana.refusals import CODES

    settings = read_settings()
    catalogue = read_catalogue(settings)
    note_strangers(catalogue, [unit_primitive])

    async def decide() -> Caller:
        async with open_keys(settings, offline=offline) as keys:
            verifier = Verifier(settings.auth, keys, Clock(), unit_primitives=catalogue.unit_primitives)
            verifier.set_deny_list(catalogue.deny.values())
            return await verifier.verify(read_token(token_text), "")

    try:
        caller = asyncio.run(decide())
        permit(caller, unit_primitive, denied=f"Unauthorized to access {unit_primitive}", instance_only=instance_only)
    except Refusal as refusal:
        code = CODES[refusal.code]
        answer = {
            "allowed": False,
            "status": refusal.status,
            "code": refusal.code,
            "layer": refusal.layer or code.layer,
            "missing": refusal.missing,
            "meaning": code.meaning,
            "remedy": refusal.remedy or code.remedy,
        }
        lines = [f"refused: {refusal.status} {refusal.code} ({answer['layer']})", code.meaning]
        lines += [f"missing: {refusal.missing}"] if refusal.missing else []
        lines.append(f"remedy: {answer['remedy']}")
    else:
        kind = "user" if caller.is_user else "instance"
        answer = {"allowed": True, "unit_primitive": unit_primitive, "token": kind, "issuer": caller.issuer}
        article = "a" if caller.is_user else "an"
        lines = [f"allowed: {article} {kind} token of {caller.issuer or 'no named issuer'} may use {unit_primitive}"]
    click.echo(json.dumps(answer) if as_json else "\n".join(lines))
    sys.exit(0 if answer["allowed"] else 1)
