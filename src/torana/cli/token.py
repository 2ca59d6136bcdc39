"""`torana token`: make a token for a test, or see what is wrong with one."""

import asyncio
import json
import re
import sys
import time
import uuid

import click

from torana.cli.surroundings import note_strangers, open_keys, read_catalogue, read_settings, read_token

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _read_lifetime(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """`90`, `30m`, `1h`, `3d` → seconds."""
    found = re.fullmatch(r"(-?\d{1,9})([smhd]?)", value, re.ASCII)
    if not found:
        raise click.BadParameter(f"{value!r} is no duration; expected seconds, or a number with s, m, h or d")
    return int(found[1]) * _UNITS_S[found[2]]


class NewByDefault(click.Group):
    """`torana token …` without a subcommand means `torana token new …`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["new", *args]
        return super().parse_args(ctx, args)


@click.group(cls=NewByDefault, epilog="`torana token new --help` lists the options that `torana token` takes.")
def token() -> None:
    """Make a token for a test (`new`, also without naming it), or explain one (`inspect`)."""


@token.command()
@click.option(
    "--unit-primitive", "unit_primitives", multiple=True, metavar="NAME", help="Repeat for several; default: all."
)
@click.option("--realm", default="self-managed", show_default=True)
@click.option("--instance-id", default="torana-dev", show_default=True)
@click.option("--user-id", default="torana-dev-user", show_default=True)
@click.option("--issuer", default="torana-dev", show_default=True, help="The service name makes it a user token.")
@click.option("--audience", default=None, help="Default: the service name.")
@click.option("--lifetime", callback=_read_lifetime, default="1h", show_default=True)
@click.option("--headers", "with_headers", is_flag=True, help="Print the header lines that go with it instead.")
@click.option("--json", "as_json", is_flag=True, help="Print token, expiry and headers as JSON.")
def new(
    unit_primitives: tuple[str, ...],
    realm: str,
    instance_id: str,
    user_id: str,
    issuer: str,
    audience: str | None,
    lifetime: int,
    with_headers: bool,
    as_json: bool,
) -> None:
    """Print a token signed with the local signing key."""
    from torana.access.local_keys import load_token_keys

    settings = read_settings()
    catalogue = read_catalogue(settings)
    note_strangers(catalogue, unit_primitives)
    service_name = settings.auth.service_name
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": user_id if issuer == service_name else instance_id,
        "aud": audience or service_name,
        "exp": now + lifetime,
        "nbf": now,
        "iat": now,
        "jti": str(uuid.uuid4()),
        "gitlab_realm": realm,
        "gitlab_instance_id": instance_id,
        "scopes": list(unit_primitives or catalogue.unit_primitives),
    }
    try:
        text = load_token_keys(settings).sign(claims)
    except LookupError:
        click.echo(
            "no signing key: set AIGW_SELF_SIGNED_JWT__SIGNING_KEY (`torana keys new` makes one), or start the server "
            "once with AIGW_ENVIRONMENT=development, which keeps a key in the state directory",
            err=True,
        )
        sys.exit(1)
    headers = {
        "Authorization": f"Bearer {text}",
        "X-Gitlab-Authentication-Type": "oidc",
        "X-Gitlab-Realm": realm,
        "X-Gitlab-Instance-Id": instance_id,
        "X-Gitlab-Global-User-Id": user_id,
    }
    if as_json:
        click.echo(json.dumps({"token": text, "expires_at": claims["exp"], "headers": headers}))
    elif with_headers:
        for name, value in headers.items():
            click.echo(f"{name}: {value}")
    else:
        click.echo(text)


@token.command()
@click.argument("token_text", metavar="TOKEN|-")
@click.option("--offline", is_flag=True, help="Ask no issuer for its keys; local keys only.")
@click.option("--json", "as_json", is_flag=True)
def inspect(token_text: str, offline: bool, as_json: bool) -> None:
    """Decode a token and say what would be refused and why; exit 1 if it would be."""
    from torana.access.deny import DenyList
    from torana.access.inspection import Inspection
    from torana.access.inspection import inspect as inspect_token
    from torana.clock import Clock

    settings = read_settings()
    deny = DenyList.of(read_catalogue(settings).deny.values())

    async def run() -> Inspection:
        async with open_keys(settings, offline=offline) as keys:
            return await inspect_token(read_token(token_text), settings.auth, keys, Clock(), deny)

    found = asyncio.run(run())
    if as_json:
        checks = [{"check": row.name, "ok": row.ok, "code": row.code, "detail": row.detail} for row in found.checks]
        parts = {"accepted": found.accepted, "checks": checks, "header": found.header, "claims": found.claims}
        click.echo(json.dumps({**parts, "headers": found.headers}))
    else:
        for title, members in (("header", found.header), ("claims", found.claims)):
            click.echo(f"{title}: {json.dumps(members, indent=2)}")
        for row in found.checks:
            click.echo(
                f"{'ok     ' if row.ok else 'REFUSED'}  {row.name}: {row.detail}"
                + (f" ({row.code})" if row.code else "")
            )
        for name, value in found.headers.items():
            click.echo(f"needs    {name}: {value}")
    sys.exit(0 if found.accepted else 1)
