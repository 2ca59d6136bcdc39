"""Addresses and networks that an operator names, asked about the addresses that come."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

REMEMBERED = 4096
"""Addresses whose verdict is kept: reading an address costs more than all the rest of the question."""

_SUBSCRIBER_BITS = 64


@lru_cache(REMEMBERED)
def plain(address: str) -> str:
    """An address as it is written everywhere: without the port that some proxies tell with it, an IPv4 address without
    the IPv6 one that carries it on sockets for both. What is no address stays as it is."""
    host = address
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    try:
        parsed = ip_address(host)
    except ValueError:
        return address
    return str((isinstance(parsed, IPv6Address) and parsed.ipv4_mapped) or parsed)


@lru_cache(REMEMBERED)
def holder(address: str) -> str:
    """Who has a plain address: an IPv4 one alone, of IPv6 the network of 64 bits that one subscriber is given."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(IPv6Network((int(parsed), _SUBSCRIBER_BITS), strict=False)) if parsed.version == 6 else address


class Networks:
    """Raises ValueError for a text that is no address or network."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = tuple(_network(text.strip()) for text in texts)
        self._ask = lru_cache(REMEMBERED)(self._look)

    def hold(self, address: str) -> bool:
        """False for what is no address; `address` is plain."""
        return bool(self._networks) and self._ask(address)

    def _look(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    """As addresses are written once they are plain."""
    found = ip_network(text, strict=False)
    if isinstance(found, IPv6Network) and found.prefixlen >= 96 and (first := found.network_address.ipv4_mapped):
        return IPv4Network((first, found.prefixlen - 96))
    return found
