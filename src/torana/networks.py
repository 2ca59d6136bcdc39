"""Addresses and networks that an operator names, asked about the addresses that come."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

REMEMBERED = 4096
"""Addresses whose verdict is kept: reading an address costs more than all the rest of the question."""


class Networks:
    """Raises ValueError for a text that is no address or network."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = tuple(ip_network(text.strip(), strict=False) for text in texts)
        self._ask = lru_cache(REMEMBERED)(self._look)

    def hold(self, address: str) -> bool:
        """False for what is no address."""
        return bool(self._networks) and self._ask(address)

    def _look(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)
