"""`torana jws verify`: the real verifier on one token and one key set, for public vector sets."""

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from torana.access.jose import Key

_FILE = click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True)


@click.group()
def jws() -> None:
    """Signed tokens, without looking at claims."""


@jws.command()
@click.option("--token", "token_file", required=True, type=_FILE, metavar="FILE|-")
@click.option("--jwks", "jwks_file", required=True, type=_FILE, metavar="FILE")
@click.option("--alg", "algorithms", multiple=True, metavar="NAME", help="Allowed; repeat for several; default: RS256.")
@click.option("--max-bytes", type=click.IntRange(1), default=8192, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Accepted for uniformity: the answer is always JSON.")
def verify(token_file: str, jwks_file: str, algorithms: tuple[str, ...], max_bytes: int, as_json: bool) -> None:
    """Print whether signature and header rules hold, as JSON; exit 0 valid, 1 invalid, 2 usage."""
    from torana.access import jose

    try:
        key_set = json.loads(_read(jwks_file))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter("is no JSON", param_hint="--jwks") from error
    entries = key_set.get("keys", [key_set]) if isinstance(key_set, dict) else None
    if not isinstance(entries, list):
        raise click.BadParameter("is neither a key set nor a key", param_hint="--jwks")
    keys = []
    for entry in entries:
        try:
            keys.append(jose.read_key(entry))
        except jose.BadKey as fault:
            click.echo(f"a key {fault} and is left out", err=True)
    # A file ends in a line end, a token never does.
    reason = _reason(_read(token_file, max_bytes + 3).rstrip(b"\r\n"), keys, algorithms or ("RS256",), max_bytes)
    click.echo(json.dumps({"valid": reason == "ok", "reason": reason}, separators=(",", ":")))
    sys.exit(0 if reason == "ok" else 1)


def _reason(token: bytes, keys: list["Key"], algorithms: tuple[str, ...], max_bytes: int) -> str:
    from torana.access import jose

    try:
        parsed = jose.parse(token, max_bytes)
    except jose.BadToken as fault:
        return fault.code
    if parsed.algorithm not in algorithms or not jose.is_known(parsed.algorithm):
        return "token_algorithm"
    # The id is a hint, as on the wire: the key it names goes first, the others follow.
    keys = sorted(keys, key=lambda key: key.kid != parsed.kid)
    return "ok" if any(jose.is_signed_by(parsed, key) for key in keys) else "token_signature"


def _read(path: str, limit_bytes: int = -1) -> bytes:
    with click.open_file(path, "rb") as file:
        return bytes(file.read(limit_bytes))
