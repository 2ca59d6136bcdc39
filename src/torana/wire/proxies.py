"""Which proxy leads to a URL: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as the usual tools read them."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit


class Proxies:
    """A proxy for each scheme, and the places reached without one.

    no_proxy  `*`; a host, with or without port, its subdomains included; an address or a network
    """

    def __init__(self, http: str, https: str, no_proxy: Sequence[str]) -> None:
        self._proxies = {"http": _with_scheme(http), "https": _with_scheme(https)}
        self._is_off = not http and not https
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: list[str] = []
        for name in (entry.strip().lower() for entry in no_proxy):
            try:
                self._networks.append(ip_network(name.strip("[]"), strict=False))
            except ValueError:
                if bare := name.lstrip("*").lstrip("."):
                    self._names.append(bare)
                elif name == "*":
                    self._is_off = True

    def find(self, url: str) -> str:
        """The proxy's URL; empty for none."""
        if self._is_off:
            return ""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return ""  # no URL; the client says so
        proxy = self._proxies.get(parts.scheme, "")
        if not proxy or self._is_direct(host, port or (443 if parts.scheme == "https" else 80)):
            return ""
        return proxy

    def _is_direct(self, host: str, port: int) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            pass
        else:
            if any(address in network for network in self._networks):
                return True
        with_port = f"{host}:{port}"
        return any(
            host == name or with_port == name or host.endswith(f".{name}") or with_port.endswith(f".{name}")
            for name in self._names
        )


def _with_scheme(proxy: str) -> str:
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
