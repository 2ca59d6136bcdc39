"""URLs that clients give: which are none, which are never called, and which the operator's list lets through.

A URL is read the way that leads furthest: whatever some server or library might take for a slash, a dot or a host,
is taken for it here.
"""

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from torana.wire.addresses import is_forbidden

Fault = Literal["", "no_url", "never_called"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"[!-~]+")
"""Printable ASCII: a host in other letters has to come in its own (xn--) form."""
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_METADATA_HOSTS = frozenset(("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"))
_MAX_DECODINGS = 5


def fault_of(url: str) -> Fault:
    """What keeps a client's endpoint from being called, as far as can be told without looking its name up.

    no_url        not http or https; without a host; with a user, a query or a fragment; or read by different servers
                  in different ways
    never_called  link-local, metadata and their like, in whatever form
    """
    parts = _split(url)
    if parts is None or _segments(parts.path) is None:
        return "no_url"
    assert parts.hostname is not None
    return "never_called" if _is_never_called(parts.hostname) else ""


class Prefixes:
    """AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS: scheme, host and port are compared whole, paths by whole segments."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        self._prefixes = [found for found in map(_place, prefixes) if found is not None]

    def hold(self, url: str) -> bool:
        """Whether the URL lies under one of them; a query behind it does not matter."""
        found = _place(url.partition("?")[0])
        if found is None:
            return False
        place, path = found
        return any(place == prefix and path[: len(under)] == under for prefix, under in self._prefixes)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    is_strange = (
        parts.scheme not in _DEFAULT_PORTS
        or not host
        or port == 0
        or _PLAIN.fullmatch(url) is None
        or any(letter in url for letter in "?#\\")
        or "@" in parts.netloc
        or _HOST.fullmatch(host) is None
    )
    return None if is_strange else parts


def _place(url: str) -> tuple[tuple[str, str, int], tuple[str, ...]] | None:
    """((scheme, host, port), path in segments)."""
    parts = _split(url)
    segments = _segments(parts.path) if parts is not None else None
    if parts is None or segments is None or parts.hostname is None:
        return None
    host = parts.hostname
    with suppress(ValueError):
        host = str(ip_address(host))
    return (parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme]), segments


def _segments(path: str) -> tuple[str, ...] | None:
    """The path in segments, without an empty one at its end; None where it may lead elsewhere than it says."""
    found = path.split("/")[1:]
    if found and not found[-1]:
        found.pop()
    for segment in found:
        plain = segment
        for _ in range(_MAX_DECODINGS):
            decoded = unquote(plain, errors="replace")
            if decoded == plain:
                break
            plain = decoded
        else:
            return None
        if plain != segment and (any(letter in plain for letter in "/\\?#") or not plain.isprintable()):
            return None
        if plain.partition(";")[0].strip(" ") in (".", ".."):
            return None
    return tuple(found)


def _is_never_called(host: str) -> bool:
    bare = host.rstrip(".")
    if bare in _METADATA_HOSTS:
        return True
    with suppress(ValueError):
        return is_forbidden(bare)
    try:
        # One number, octal, hexadecimal, fewer than four parts: what the system's resolver takes for an address.
        return is_forbidden(str(IPv4Address(socket.inet_aton(bare))))
    except (OSError, ValueError):
        return False
