"""Host names → addresses: remembered where the operator named the host, checked where a client did."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

ADDRESS_TTL_S = 30.0
"""How long an address is used before its name is looked up again."""
LOOK_UP_PATIENCE_S = 0.5
"""How long the last good addresses wait for a slow name server; the look-up goes on without us."""
RETRY_S = 1.0
"""After a look-up that failed, the last good addresses serve this long before the next one; so they do at least
where nobody answers at them."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → addresses to try, in order, at least one; raises OSError."""


async def look_up(host: str, port: int, threads: Executor | None = None) -> list[str]:
    """Ask the system; an address is its own answer.

    threads  to wait in; None: the event loop's own, of which two slow names may take all
    """
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        loop, kind = asyncio.get_running_loop(), socket.SOCK_STREAM
        if threads is None:
            found = await loop.getaddrinfo(host, port, type=kind)
        else:
            found = await loop.run_in_executor(threads, partial(socket.getaddrinfo, host, port, type=kind))
    except ValueError as error:  # a name that no label rule allows; UnicodeError is one
        raise OSError(0, "no host name") from error
    return [str(address[0]) for *_, address in found]


class Known(NamedTuple):
    addresses: list[str]
    until: float
    looked_up: float


class AddressBook:
    """Addresses of operator-given hosts.

    Look-ups of one name are shared. While its name server fails or dawdles, the last good addresses serve on.
    """

    def __init__(
        self,
        look_up: Resolve = look_up,
        *,
        ttl_s: float = ADDRESS_TTL_S,
        patience_s: float = LOOK_UP_PATIENCE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._look_up = look_up
        self._ttl_s = ttl_s
        self._patience_s = patience_s
        self._retry_s = retry_s
        self._known: dict[tuple[str, int], Known] = {}
        self._under_way: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        place = (host, port)
        known = self._known.get(place)
        if known is not None and asyncio.get_running_loop().time() < known.until:
            return known.addresses
        if known is None:
            # Others may wait for the same look-up: who leaves does not end it. Not named here: where it fails its
            # error holds this frame, and that would hold it.
            return await asyncio.shield(self._begin(place))
        await asyncio.wait([self._begin(place)], timeout=self._patience_s)
        return self._known[place].addresses

    def doubt(self, host: str, port: int) -> None:
        """Nobody answers there. Ask whether it has moved, in the background: whoever comes next may find it."""
        place = (host, port)
        known = self._known.get(place)
        if known is not None and asyncio.get_running_loop().time() >= known.looked_up + self._retry_s:
            self._begin(place)

    def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()

    def _begin(self, place: tuple[str, int]) -> "asyncio.Task[list[str]]":
        task = self._under_way.get(place)
        if task is None:
            task = self._under_way[place] = asyncio.get_running_loop().create_task(_ask(self._look_up, *place))
            task.add_done_callback(partial(self._keep, place))
        return task

    def _keep(self, place: tuple[str, int], task: "asyncio.Task[list[str]]") -> None:
        del self._under_way[place]
        if task.cancelled():
            return
        now = task.get_loop().time()
        if task.exception() is None:
            self._known[place] = Known(task.result(), now + self._ttl_s, now)
        elif place in self._known:
            self._known[place] = Known(self._known[place].addresses, now + self._retry_s, now)


async def resolve_checked(host: str, port: int, look_up: Resolve = look_up) -> list[str]:
    """Addresses of a client-given host: looked up once, checked, and connected to as they are.

    Raises OSError where one of them is never to be called.
    """
    addresses = await _ask(look_up, host, port)
    if any(is_forbidden(address) for address in addresses):
        raise OSError(0, "an address that is never called")
    return addresses


async def _ask(look_up: Resolve, host: str, port: int) -> list[str]:
    addresses = await look_up(host, port)
    if not addresses:
        raise OSError(0, "a name without addresses")
    return addresses


_METADATA = frozenset(
    map(
        ip_address,
        (
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure's platform
            "192.0.0.192",  # Oracle Cloud, classic
            "fd00:c1::a9fe:a9fe",  # Oracle Cloud
            "fd00:42::42",  # Scaleway
            "fd20:ce::254",  # Google Cloud
        ),
    )
)
"""Where clouds tell a machine its secrets, besides the link-local addresses. Source: the vendors' documentation."""

_AWS_SERVICES = IPv6Network("fd00:ec2::/32")
"""Metadata, credentials of pods, name servers and time (AWS, "Use IPv6 with the instance metadata service")."""

_NOWHERE = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"))
"""This network, and what was never given out; broadcast is part of it."""


def is_forbidden(text: str) -> bool:
    """Link-local, metadata, multicast or no address at all, also inside an IPv6 address that leads to it.

    Raises ValueError for a text that is no address.
    """
    address = ip_address(text.partition("%")[0])
    return _is_bad(address) or (isinstance(address, IPv6Address) and any(map(_is_bad, _carried(address))))


def _is_bad(address: IPv4Address | IPv6Address) -> bool:
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
        return True
    if isinstance(address, IPv6Address):
        return address in _AWS_SERVICES
    return any(address in network for network in _NOWHERE)


_LOW_32 = (
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped, RFC 4291
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated, RFC 2765
)
_COMPATIBLE = IPv6Network("::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_ISATAP = (0x00005EFE, 0x02005EFE)
"""First half of an interface identifier that ends in an IPv4 address (RFC 5214)."""


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address may lead to, by whichever way out there is."""
    bits = int(address)
    low = IPv4Address(bits & 0xFFFFFFFF)
    if any(address in network for network in _LOW_32) or (address in _COMPATIBLE and bits > 1):
        yield low
    if (bits >> 32) & 0xFFFFFFFF in _ISATAP:
        yield low
    if address in _SIX_TO_FOUR:
        yield IPv4Address((bits >> 80) & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address((bits >> 64) & 0xFFFFFFFF)
        yield IPv4Address(~bits & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:
        # RFC 8215 leaves it to the network how long its prefix is; RFC 6052 where the address then stands.
        yield low
        yield IPv4Address(((bits >> 64) & 0xFFFF) << 16 | (bits >> 40) & 0xFFFF)  # /48
        yield IPv4Address(((bits >> 64) & 0xFF) << 24 | (bits >> 32) & 0xFFFFFF)  # /56
        yield IPv4Address((bits >> 24) & 0xFFFFFFFF)  # /64
