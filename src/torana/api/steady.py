"""What requests of one client have in common, read once of their headers, for all that send the same ones."""

import msgspec

from torana.headers import Headers

_KEPT = "steady"


class Steady(msgspec.Struct, frozen=True):
    has_origin: bool
    """A browser sends it from another page."""
    has_via: bool
    names_flags: bool
    """It lists feature flags."""
    is_dry_run: bool
    """See dry_run.py."""
    host: str
    client_name: str
    client_version: str


def steady_of(headers: Headers) -> Steady:
    found: Steady | None = headers.kept.get(_KEPT)
    if found is None:
        found = headers.kept[_KEPT] = Steady(
            has_origin=headers.get(b"origin") is not None,
            has_via=headers.get(b"via") is not None,
            names_flags=bool(headers.get(b"x-gitlab-enabled-feature-flags")),
            is_dry_run=headers.text(b"x-torana-dry-run").lower() in ("true", "1", "yes", "on"),
            host=headers.text(b"host"),
            client_name=headers.text(b"x-gitlab-client-name"),
            client_version=headers.text(b"x-gitlab-client-version"),
        )
    return found
