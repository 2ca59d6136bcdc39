"""Access tokens of Google Cloud, by google-auth: from a service account's key, a credentials file, or the machine.

google-auth blocks, so it runs in a thread; what it asks the network goes through our own transport, with our trust,
proxies and patience. Source: google-auth user guide; Google Cloud, "Application Default Credentials".
"""

import asyncio
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torana.clock import Clock
from torana.cloud_settings import GoogleSettings
from torana.errors import NoCredentials, ProviderError
from torana.providers.refreshing import Refreshing
from torana.transport import Transport, WireRequest

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

MISSING = "google-auth is not installed: `make extras` installs it, or the extra [vertex]"

PATIENCE_S = 10.0
"""For one question to a token server or to the machine's metadata server."""

MAX_ANSWER_BYTES = 256 * 1024


def is_library_missing() -> bool:
    """Told at the start, rather than with the first call."""
    try:
        return find_spec("google.auth") is None
    except ImportError:
        return True


class GoogleTokens:
    """One identity's tokens, kept fresh."""

    def __init__(self, settings: GoogleSettings, transport: Transport, clock: Clock) -> None:
        self.settings = settings
        self.transport = transport
        self.clock = clock
        self._refreshing = Refreshing("Google Cloud access token", self._fetch, clock)
        self._credentials: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def bearer(self) -> str:
        """A token for the header Authorization; raises NoCredentials."""
        self._loop = asyncio.get_running_loop()
        return await self._refreshing.current()

    def _fetch(self) -> tuple[str, float]:
        """In a thread: a new token, and when it ends, in Unix seconds of our clock."""
        try:
            auth_errors = import_module("google.auth.exceptions")
            helpers = import_module("google.auth._helpers")
        except ImportError:
            raise NoCredentials(MISSING) from None
        try:
            if self._credentials is None:
                self._credentials = self._find()
            self._credentials.refresh(self._ask)
        except (auth_errors.GoogleAuthError, ValueError, OSError) as error:
            if self.settings.credentials_file:
                self._credentials = None  # its key may have been replaced
            said = error.args[0] if error.args else type(error).__name__
            # In brackets: the log masks what stands behind `token:`.
            raise NoCredentials(f"Google Cloud gives no token ({str(said)[:270]})") from error
        expiry = self._credentials.expiry
        lasts_s = math.inf if expiry is None else (expiry - helpers.utcnow()).total_seconds()
        return str(self._credentials.token), self.clock.now() + lasts_s

    def _find(self) -> Any:
        """google-auth's credentials: the key that is set, the file that is named, else whatever the machine has."""
        if key := self.settings.service_account_key.reveal():
            return _of_service_account(json.loads(key))
        auth = import_module("google.auth")
        if not self.settings.credentials_file:
            return auth.default(scopes=SCOPES, request=self._ask)[0]
        held = json.loads(Path(self.settings.credentials_file).expanduser().read_text(encoding="utf-8"))
        if held.get("type") == "service_account":
            return _of_service_account(held)
        if held.get("type") == "external_account":
            return _of_federation(held)
        with warnings.catch_warnings():
            # It warns of files that somebody else wrote; this one the operator named.
            warnings.simplefilter("ignore", DeprecationWarning)
            return auth.load_credentials_from_dict(held, scopes=SCOPES, request=self._ask)[0]

    def _ask(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> "_Answer":
        """What google-auth calls a transport's request: sends, and waits in this thread."""
        sent = body.encode() if isinstance(body, str) else body or b""
        request = WireRequest(url=url, headers=dict(headers or {}), body=sent, method=method)
        assert self._loop is not None
        try:
            asking = asyncio.run_coroutine_threadsafe(self._send(request, timeout or PATIENCE_S), self._loop)
            return asking.result(2 * PATIENCE_S)
        except (ProviderError, TimeoutError, RuntimeError) as error:
            # RuntimeError: the loop has gone.
            raise import_module("google.auth.exceptions").TransportError(f"{url}: {error}") from error

    async def _send(self, request: WireRequest, patience_s: float) -> "_Answer":
        patience_s = min(patience_s, PATIENCE_S)
        answer = await self.transport.send(request, first_byte_s=patience_s, idle_s=patience_s)
        try:
            return _Answer(answer.status, answer.headers, await answer.read_all(MAX_ANSWER_BYTES))
        finally:
            answer.close()


@dataclass(frozen=True, slots=True)
class _Answer:
    """As google-auth's transports answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def _of_service_account(held: Mapping[str, Any]) -> Any:
    service_account = import_module("google.oauth2.service_account")
    return service_account.Credentials.from_service_account_info(held, scopes=SCOPES)


def _of_federation(held: Mapping[str, Any]) -> Any:
    """Workload identity. google-auth's general way would ask for the project's name first, which nobody needs."""
    source = held.get("credential_source")
    if held.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
        kind = "aws"
    else:
        kind = "pluggable" if isinstance(source, dict) and "executable" in source else "identity_pool"
    return import_module(f"google.auth.{kind}").Credentials.from_info(held, scopes=SCOPES)
