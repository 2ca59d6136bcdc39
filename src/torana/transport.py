"""Outbound HTTP for everything: providers, issuers' keys, quota, sinks. TLS, proxies, checked addresses.

What goes out is exactly what a caller named: no redirects, no cookies, no decompression, no further headers.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from torana.errors import ProviderError, ProviderTlsFailed, ProviderUnreachable
from torana.heap import Heap
from torana.settings import TransportSettings
from torana.wire.addresses import AddressBook, Resolve, look_up, resolve_checked
from torana.wire.client import WireAnswer, WireClient
from torana.wire.endpoint import Prefixes
from torana.wire.proxies import Proxies

__all__ = ["FetchFailed", "Fetched", "Fetcher", "Transport", "WireAnswer", "WireRequest", "tls_context"]

CLIENTS_NAMES = 32
"""Names of clients' hosts looked up at a time; a name server that is silent keeps each for some ten seconds."""


class WireRequest(msgspec.Struct, frozen=True, kw_only=True):
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


class Transport:
    """All outbound HTTP of one process; `aclose` when it stops."""

    def __init__(
        self,
        settings: TransportSettings,
        names: Resolve | None = None,
        *,
        allowed_endpoints: Sequence[str] = (),
        heap: Heap | None = None,
    ) -> None:
        """
        names              how they become addresses; None: as the system has it
        allowed_endpoints  what URLs of clients' hosts must begin with; empty: any
        heap               the memory of this process, where others look after it as well
        """
        self.settings = settings
        self._allowed = Prefixes(allowed_endpoints) if allowed_endpoints else None
        self._tls: ssl.SSLContext | None = None
        self._proxies = Proxies(settings.http_proxy, settings.https_proxy, settings.no_proxy)
        self._addresses = AddressBook(names or look_up)
        # Apart, so that a connection to an unchecked address can never serve a client's own host.
        book = self._addresses
        heap = heap or Heap()
        # Whoever names a host chooses how slow its name server is: that is waited for in threads apart.
        self._threads = ThreadPoolExecutor(CLIENTS_NAMES, thread_name_prefix="clients-names")
        checked = partial(resolve_checked, look_up=names or partial(look_up, threads=self._threads))
        self._ours = WireClient(settings.connect_s, self._tls_context, book.resolve, doubt=book.doubt, heap=heap)
        self._clients_own = WireClient(settings.connect_s, self._tls_context, checked, heap=heap)

    @property
    def open_connections(self) -> int:
        """Connections that are being opened, in use or at rest."""
        return self._ours.open_connections + self._clients_own.open_connections

    @property
    def resting(self) -> int:
        """Connections that are open and serve no request."""
        return self._ours.pool.resting + self._clients_own.pool.resting

    def close_resting(self) -> None:
        self._ours.pool.close_resting()
        self._clients_own.pool.close_resting()

    async def send(self, request: WireRequest, *, first_byte_s: float, idle_s: float | None = None) -> WireAnswer:
        """Send and wait for the answer's head.

        first_byte_s  patience for it
        idle_s        patience for each further piece; None: AIGW_TIMEOUTS__IDLE_S

        Raises ProviderUnreachable, ProviderTlsFailed, ProviderTimedOut, ProviderBroke; ProviderError itself for a
        request that cannot be written.
        """
        # Asked once more, for the URL that goes out is made of a client's endpoint and a provider's ways.
        if request.is_client_given and self._allowed is not None and not self._allowed.hold(request.url):
            raise ProviderUnreachable("outside AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS")
        client = self._clients_own if request.is_client_given else self._ours
        return await client.send(
            request.method,
            request.url,
            request.headers,
            request.body,
            first_byte_s=first_byte_s,
            idle_s=idle_s or self.settings.idle_s,
            proxy="" if request.is_client_given else self._proxies.find(request.url),
        )

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
                answer = await self.send(request, first_byte_s=timeout_s, idle_s=timeout_s)
                try:
                    body = await answer.read_all(limit_bytes)
                finally:
                    answer.close()
        except TimeoutError as error:
            raise FetchFailed(f"no answer within {timeout_s:g} s") from error
        except ProviderError as error:
            raise FetchFailed(str(error)) from error
        return Fetched(status=answer.status, headers=answer.headers, body=body)

    async def aclose(self) -> None:
        self._addresses.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._ours.aclose()
        await self._clients_own.aclose()

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            try:
                self._tls = tls_context(self.settings)
            except OSError as error:
                # Told apart from a provider that cannot be reached.
                raise ProviderTlsFailed("our own certificate files cannot be loaded") from error
        return self._tls


def tls_context(settings: TransportSettings) -> ssl.SSLContext:
    """The system's store or the file named instead of it, the operator's extra CA, a client certificate."""
    context = ssl.create_default_context(cafile=settings.mtls_ca_bundle or settings.ssl_cert_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in _extra_files(settings):
        context.load_verify_locations(cafile=str(file))
    if settings.mtls_enabled:
        if not settings.mtls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        # An empty password, too: without one the library would ask for it on the terminal.
        password = settings.mtls_key_password.reveal()
        context.load_cert_chain(settings.mtls_cert_file, settings.mtls_key_file or None, password)
    return context


def extra_certificates(settings: TransportSettings) -> str:
    """The operator's own authorities as PEM, for libraries that make their connections themselves. Raises OSError."""
    files = [*_extra_files(settings), *([Path(settings.ssl_cert_file)] if settings.ssl_cert_file else [])]
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def _extra_files(settings: TransportSettings) -> list[Path]:
    if not settings.extra_ca:
        return []
    extra = Path(settings.extra_ca)
    if not extra.is_dir():
        return [extra]
    return [file for file in sorted(extra.glob("*")) if file.suffix in (".pem", ".crt", ".cer")]
