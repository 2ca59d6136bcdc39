"""Outbound HTTP for everything: providers, issuers' keys, quota, sinks. Pools, TLS, patience, checked addresses.

aiohttp does the work. What is ours: no redirects, no cookies, no decompression, no header that was not
named; one deadline for the head of an answer and one for each silence within it; connections on which
anything arrived while they lay idle are dropped, because aiohttp would take it for the next answer.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torana.errors import ProviderBroke, ProviderTimedOut, ProviderTlsFailed, ProviderUnreachable
from torana.settings import TransportSettings

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """One request as it goes out. `headers` is all that is sent besides Host and Content-Length."""

    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    method: str = "POST"
    is_client_given: bool = False
    """The host came from a client: its addresses are checked and no proxy is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A small answer, read whole."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes


class Fetcher(Protocol):
    """What rooms that ask for small things need of the transport."""

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        limit_bytes: int,
    ) -> Fetched:
        """One request, no redirects; raises FetchFailed when no whole answer of at most `limit_bytes` came in time."""
        ...


class FetchFailed(Exception):
    """No usable answer: unreachable, too slow, too large, cut."""


class WireAnswer:
    """An answer whose head is in. Read it to its end or close it; closing aborts the connection."""

    __slots__ = ("_answer", "_deadline", "_idle_s", "_left", "_loop", "_timer", "headers", "status")

    def __init__(self, answer: "aiohttp.ClientResponse", idle_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._answer = answer
        self._idle_s = idle_s
        self._loop = loop
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        length = self.headers.get("content-length", "")
        self._left = int(length) if length.isascii() and length.isdigit() and answer.method != "HEAD" else -1

    async def read(self) -> bytes:
        """The next bytes as they came, b"" at the end.

        Raises ProviderTimedOut after `idle_s` without a byte, ProviderBroke when the body is cut.
        """
        content = self._answer.content
        if not content._buffer and not content.at_eof():
            self._deadline = self._loop.time() + self._idle_s
            if self._timer is None:
                self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)
        try:
            data = await content.readany()
        except _SilenceError:
            self.close()
            raise ProviderTimedOut("silence within the answer") from None
        except Exception as error:
            self.close()
            raise ProviderBroke(f"the answer was cut: {type(error).__name__}") from error
        # Watched only while somebody waits: a slow reader of ours is not a silent provider.
        self._deadline = 0.0
        if self._left >= 0:
            self._left -= len(data)
            # A reset can come back from aiohttp as a clean end; the length tells.
            if not data and self._left > 0:
                self.close()
                raise ProviderBroke("the answer is shorter than its Content-Length")
        if not data:
            self._stop_clock()
        return data

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole body; raises ProviderBroke beyond `limit_bytes`."""
        parts: list[bytes] = []
        total = 0
        while data := await self.read():
            total += len(data)
            if total > limit_bytes:
                self.close()
                raise ProviderBroke(f"the answer is larger than {limit_bytes} bytes")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the connection back if the answer is read to its end, abort it otherwise. Idempotent."""
        self._stop_clock()
        self._answer.close()

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_the_clock(self) -> None:
        # Re-armed lazily: a read only moves the deadline, so a busy stream costs no timers.
        if self._deadline and self._loop.time() >= self._deadline:
            self._timer = None
            self._answer.content.set_exception(_SilenceError())
        else:
            due = self._deadline or self._loop.time() + self._idle_s
            self._timer = self._loop.call_at(due, self._look_at_the_clock)


class _SilenceError(Exception):
    """Wakes a reader whose provider kept silent."""


@dataclass(slots=True)
class Transport:
    """All outbound HTTP of one process; `aclose` when it stops."""

    settings: TransportSettings
    _sessions: dict[bool, "aiohttp.ClientSession"] = field(default_factory=dict)
    _tls: ssl.SSLContext | None = None
    _urls: dict[str, Any] = field(default_factory=dict)

    async def send(
        self, request: WireRequest, *, first_byte_s: float | None, idle_s: float | None = None
    ) -> WireAnswer:
        """Send and wait for the answer's head.

        first_byte_s  patience for it; None: only the caller's own deadline counts

        Raises ProviderUnreachable, ProviderTlsFailed, ProviderTimedOut, ProviderBroke.
        """
        session = self._session(request.is_client_given)
        loop = asyncio.get_running_loop()
        try:
            if first_byte_s is None:
                answer = await self._ask(session, request)
            else:
                async with asyncio.timeout(first_byte_s):
                    answer = await self._ask(session, request)
        except Exception as error:
            raise _as_provider_error(error) from error
        return WireAnswer(answer, idle_s or self.settings.idle_s, loop)

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        limit_bytes: int,
    ) -> Fetched:
        request = WireRequest(url=url, headers={"Accept": "application/json", **(headers or {})}, method=method)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask(self._session(False), request)
                try:
                    parts: list[bytes] = []
                    total = 0
                    while data := await answer.content.readany():
                        total += len(data)
                        if total > limit_bytes:
                            raise FetchFailed(f"larger than {limit_bytes} bytes")
                        parts.append(data)
                finally:
                    answer.close()
        except FetchFailed:
            raise
        except TimeoutError as error:
            raise FetchFailed(f"no answer within {timeout_s:g} s") from error
        except Exception as error:
            raise FetchFailed(_reason(error)) from error
        return Fetched(
            status=answer.status,
            headers={name.lower(): value for name, value in answer.headers.items()},
            body=b"".join(parts),
        )

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def _ask(self, session: "aiohttp.ClientSession", request: WireRequest) -> "aiohttp.ClientResponse":
        url = self._urls.get(request.url)
        if url is None:
            from yarl import URL

            url = URL(request.url, encoded=True)
            if not request.is_client_given and len(self._urls) < 1024:
                self._urls[request.url] = url
        is_tls = url.scheme == "https"
        # A body that is None sends no Content-Length on GET.
        return await session.request(
            request.method,
            url,
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            ssl=self._tls_context() if is_tls else True,
            proxy=None if request.is_client_given else self._proxy_for(url.scheme, url.host or ""),
        )

    def _session(self, is_client_given: bool) -> "aiohttp.ClientSession":
        session = self._sessions.get(is_client_given)
        if session is None:
            session = self._sessions[is_client_given] = self._open_session(is_client_given)
        return session

    def _open_session(self, is_client_given: bool) -> "aiohttp.ClientSession":
        import aiohttp

        class Connector(aiohttp.TCPConnector):
            """Never hands out a connection on which something arrived while nobody asked."""

            async def _get(self, key: Any, traces: Any) -> Any:
                while (connection := await super()._get(key, traces)) is not None:
                    protocol = connection.protocol
                    if protocol is None or not protocol.should_close:
                        return connection
                    connection.close()
                return None

        # Shaped like aiohttp's AbstractResolver, without importing aiohttp at start-up for its sake.
        resolver: Any = _CheckedResolver() if is_client_given else None
        return aiohttp.ClientSession(
            connector=Connector(limit=0, limit_per_host=0, ttl_dns_cache=30, keepalive_timeout=30, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_s, ceil_threshold=3600),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    def _proxy_for(self, scheme: str, host: str) -> str | None:
        proxy = self.settings.https_proxy if scheme == "https" else self.settings.http_proxy
        if not proxy:
            return None
        for name in self.settings.no_proxy:
            bare = name.lstrip("*").lstrip(".")
            if name == "*" or host == bare or host.endswith(f".{bare}"):
                return None
        return proxy

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context(self.settings)
        return self._tls


def tls_context(settings: TransportSettings) -> ssl.SSLContext:
    """The system's store or the file named instead of it, the operator's extra CA, a client certificate."""
    context = ssl.create_default_context(cafile=settings.mtls_ca_bundle or settings.ssl_cert_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.extra_ca:
        extra = Path(settings.extra_ca)
        for file in sorted(extra.glob("*")) if extra.is_dir() else [extra]:
            if file.suffix in (".pem", ".crt", ".cer") or not extra.is_dir():
                context.load_verify_locations(cafile=str(file))
    if settings.mtls_enabled:
        if not settings.mtls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        password = settings.mtls_key_password.reveal() or None
        context.load_cert_chain(settings.mtls_cert_file, settings.mtls_key_file or None, password)
    return context


class _CheckedResolver:
    """Resolves a client-given host once; the connection goes to the very addresses that were checked."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        hosts: list[dict[str, Any]] = []
        for kind, _, proto, _, address in found:
            text = str(address[0])
            if _is_forbidden(text):
                raise OSError(f"{host} resolves to an address that is never called")
            hosts.append(
                {
                    "hostname": host,
                    "host": text,
                    "port": port,
                    "family": kind,
                    "proto": proto,
                    "flags": socket.AI_NUMERICHOST,
                }
            )
        return hosts

    async def close(self) -> None:
        """Nothing is kept."""


def _is_forbidden(text: str) -> bool:
    address = ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_link_local or address.is_multicast or address.is_unspecified


def _as_provider_error(error: Exception) -> Exception:
    import aiohttp

    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return ProviderTlsFailed(_reason(error))
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return ProviderUnreachable(_reason(error))
    if isinstance(error, TimeoutError):
        return ProviderTimedOut("no first byte")
    if isinstance(error, (aiohttp.ClientError, OSError, ValueError)):
        return ProviderBroke(_reason(error))
    return error


def _reason(error: Exception) -> str:
    """A short cause without URLs or bodies."""
    cause = getattr(error, "os_error", None) or error
    text = getattr(cause, "strerror", None) or type(cause).__name__
    return str(text)
