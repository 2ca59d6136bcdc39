"""A URL taken apart once, and the bytes of a request's head."""

import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from torana.errors import ProviderError, ProviderUnreachable

Key = tuple[str, str, int, str]
"""Connections with one key lead to the same place: scheme, host, port, proxy."""

_URL_CHARS = re.compile(r"[!-\[\]-~]+")
"""Printable ASCII without the backslash, which others read as a slash."""

_OUR_HEADERS = frozenset(("host", "content-length", "transfer-encoding"))
"""Who else writes one of these decides where a request ends, or whom it is for."""

MAX_HEADS, MAX_HEAD_BYTES = 16, 2_048
"""Heads to one URL that are remembered, and their length: clients have a say in some headers, and some are signed."""


class Peer:
    """Scheme, host and port of a URL, and the user it names."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ProviderUnreachable("an outbound address is no URL") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or _URL_CHARS.fullmatch(url) is None:
            raise ProviderUnreachable("an outbound address is no http or https URL")
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname
        default = 443 if self.is_tls else 80
        self.port = default if port is None else port
        self._shown = f"[{self.host}]" if ":" in self.host else self.host
        self.host_line = self._shown if self.port == default else f"{self._shown}:{self.port}"
        self.key: Key = (parts.scheme, self.host, self.port, "")
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.credentials = ""
        """For Basic; sent to proxies alone."""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.credentials = b64encode(pair.encode()).decode()


class Target(Peer):
    """Where a request goes, and how it begins."""

    def __init__(self, url: str, proxy: str) -> None:
        super().__init__(url)
        self.proxy = Peer(proxy) if proxy else None
        self.key = (*self.key[:3], proxy)
        start, greeting = self.path, ""
        if self.proxy is not None and not self.is_tls:
            # A proxy is told the whole address, unless it only passes a tunnel.
            start = f"http://{self.host_line}{self.path}"
            greeting = self._proxy_line()
        self._start = f" {start} HTTP/1.1\r\nHost: {self.host_line}\r\n{greeting}"
        self._start_lines = self._start.count("\n")
        self._heads: dict[tuple[object, ...], bytes] = {}

    def write_head(self, method: str, headers: Mapping[str, str], body_bytes: int | None) -> bytes:
        """The head of a request; raises ProviderError where it would not be one."""
        # Mostly the same as the last time, but for the length.
        kind = (method, *headers.items())
        start = self._heads.get(kind)
        if start is None:
            start = self._write_start(method, headers)
            if len(start) <= MAX_HEAD_BYTES:
                if len(self._heads) >= MAX_HEADS:
                    self._heads.clear()
                self._heads[kind] = start
        return b"%b\r\n" % start if body_bytes is None else b"%bContent-Length: %d\r\n\r\n" % (start, body_bytes)

    def _write_start(self, method: str, headers: Mapping[str, str]) -> bytes:
        """The head without its last lines."""
        lines = [method, self._start]
        for name, value in headers.items():
            if name.lower() in _OUR_HEADERS:
                raise ProviderError(f"a request may not bring its own {name.lower()}")
            lines.append(f"{name}: {value}\r\n")
        head = "".join(lines)
        # A line break inside a name or a value would begin a header, or a request, of somebody else's.
        breaks = len(lines) - 2 + self._start_lines
        if head.count("\n") != breaks or head.count("\r") != breaks or "\0" in head:
            raise ProviderError("a header that cannot be sent")
        return head.encode("latin-1", "replace")

    def write_connect_head(self) -> bytes:
        """Asks a proxy for a tunnel."""
        where = f"{self._shown}:{self.port}"
        return f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self._proxy_line()}\r\n".encode("latin-1")

    def _proxy_line(self) -> str:
        if self.proxy is None or not self.proxy.credentials:
            return ""
        return f"Proxy-Authorization: Basic {self.proxy.credentials}\r\n"
