"""What commands read before they begin: settings, catalogue, keys. Bad ones end the command with exit code 2."""

import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torana.environment import load_settings
from torana.settings import Settings

if TYPE_CHECKING:
    from torana.access.keys import KeyRing
    from torana.catalog.load import Catalogue

ISSUER_WAIT_S = 5.0
"""How long a command waits for issuers' keys."""


def read_settings(flags: Mapping[str, str] | None = None) -> Settings:
    """Environment and `.env`, as the server reads them; `flags` win over both. Raises BadSetting."""
    return load_settings(os.environ, Path(".env"), flags)


def read_catalogue(settings: Settings) -> "Catalogue":
    """The shipped catalogue with the operator's overlays. Raises BadCatalogue."""
    from torana.catalog.load import load_catalogue, overlay_paths

    return load_catalogue(overlay_paths(settings.catalogue.overlays))


def note_strangers(catalogue: "Catalogue", unit_primitives: Iterable[str]) -> None:
    """Tell on stderr of names that may be misspelt; tokens may hold old ones, which are read as others."""
    from torana.catalog.document import nearest

    known = catalogue.unit_primitives
    old = {name for each in known.values() for name in each.aliases}
    for name in unit_primitives:
        if name not in known and name not in old:
            hint = nearest(name, known, "expected the name of a known one")
            click.echo(f"note: the catalogue has no unit primitive {name!r}, {hint}", err=True)


def read_token(token: str) -> str:
    """The argument TOKEN, or standard input for `-`; the scheme in front is taken off."""
    text = sys.stdin.read() if token == "-" else token  # noqa: S105
    return text.strip().removeprefix("Bearer ").strip()


@asynccontextmanager
async def open_keys(settings: Settings, *, offline: bool = False) -> AsyncIterator["KeyRing"]:
    """The keys a server with these settings would use; issuers are asked when somebody needs them."""
    import dataclasses

    from torana.access.keys import KeyRing
    from torana.access.local_keys import load_token_keys
    from torana.clock import Clock
    from torana.transport import Transport

    auth = dataclasses.replace(settings.auth, gitlab_url="", customer_portal_url="") if offline else settings.auth
    transport = Transport(settings.transport)
    keys = KeyRing(auth, load_token_keys(settings), transport, Clock(), unknown_key_wait_s=ISSUER_WAIT_S)
    try:
        yield keys
    finally:
        await keys.aclose()
        await transport.aclose()
