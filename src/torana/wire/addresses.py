"""Host names → addresses: remembered where the operator named the host, checked where a client did."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

ADDRESS_TTL_S = 30.0
"""How long an address is used before its name is looked up again."""
LOOK_UP_PATIENCE_S = 0.5
"""How long the last good addresses wait for a slow name server; the look-up goes on without us."""
RETRY_S = 1.0
"""After a look-up that failed, the last good addresses serve this long before the next one."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → addresses to try, in order, at least one; raises OSError."""


async def look_up(host: str, port: int) -> list[str]:
    """Ask the system; an address is its own answer."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError as error:  # a name that no label rule allows; UnicodeError is one
        raise OSError(0, "no host name") from error
    return [str(address[0]) for *_, address in found]


class AddressBook:
    """Addresses of operator-given hosts.

    Look-ups of one name are shared. While its name server fails or dawdles, the last good addresses serve on.
    """

    def __init__(
        self, look_up: Resolve = look_up, *, ttl_s: float = ADDRESS_TTL_S, patience_s: float = LOOK_UP_PATIENCE_S
    ) -> None:
        self._look_up = look_up
        self._ttl_s = ttl_s
        self._patience_s = patience_s
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._under_way: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        place = (host, port)
        loop = asyncio.get_running_loop()
        known = self._known.get(place)
        if known is not None and loop.time() < known[0]:
            return known[1]
        task = self._under_way.get(place)
        if task is None:
            task = self._under_way[place] = loop.create_task(_ask(self._look_up, host, port))
            task.add_done_callback(partial(self._keep, place))
        if known is None:
            # Others may wait for the same look-up: who leaves does not end it.
            return await asyncio.shield(task)
        await asyncio.wait([task], timeout=self._patience_s)
        return self._known[place][1]

    def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()

    def _keep(self, place: tuple[str, int], task: "asyncio.Task[list[str]]") -> None:
        del self._under_way[place]
        if task.cancelled():
            return
        now = task.get_loop().time()
        if task.exception() is None:
            self._known[place] = (now + self._ttl_s, task.result())
        elif place in self._known:
            self._known[place] = (now + RETRY_S, self._known[place][1])


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
            "fd00:ec2::254",  # AWS
            "fd00:c1::a9fe:a9fe",  # Oracle Cloud
            "fd00:42::42",  # Scaleway
            "fd20:ce::254",  # Google Cloud
        ),
    )
)
"""Where clouds tell a machine its secrets, besides the link-local addresses. Source: the vendors' documentation."""

_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = IPv6Network("::/96")


def is_forbidden(text: str) -> bool:
    """Link-local, metadata, multicast or no address at all, also inside an IPv6 address that leads to it."""
    address = _unwrap(ip_address(text.partition("%")[0]))
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA


def _unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address carries, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
