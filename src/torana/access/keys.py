"""All keys that tokens may verify under: our own, and those of each configured issuer.

`epoch` grows whenever the set changes; whoever remembers a verdict remembers the epoch with it.
"""

import asyncio
from typing import Protocol

from torana.access.issuer_keys import IssuerKeys, IssuerState
from torana.access.jose import Key
from torana.access.local_keys import LocalKeys
from torana.access.shelf import Shelf
from torana.auth_settings import AuthSettings
from torana.clock import Clock
from torana.transport import Fetcher

UNKNOWN_KEY_WAIT_S = 1.5
"""How long a request waits for a refetch that its unknown key caused."""
MAX_TRIES = 16
"""Keys tried for one token, by contract 2.2; each try is a verification (`python -m bench.access`)."""
REPORT_S = 1.0


class KeyMeter(Protocol):
    """Who shows the metrics `torana_issuer_*`."""

    def issuer(self, base_url: str, *, keys: int, is_up: bool, age_s: float | None) -> None: ...


class KeyRing:
    """The merged key set. Issuers are isolated: each has its own fetches, failures and clock."""

    def __init__(
        self,
        settings: AuthSettings,
        local: LocalKeys,
        fetcher: Fetcher,
        clock: Clock,
        *,
        unknown_key_wait_s: float = UNKNOWN_KEY_WAIT_S,
        meter: KeyMeter | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """shelf: what the workers of this server share; None: this process is alone."""
        self.epoch = 0
        self._meter = meter
        self.local = local
        self._own = local.public()
        self._service_name = settings.service_name
        self._wait_s = unknown_key_wait_s
        bases = dict.fromkeys(url.rstrip("/") for url in (settings.gitlab_url, settings.customer_portal_url) if url)
        self._issuers = [
            IssuerKeys(base, settings, fetcher, clock, changed=self._count_change, other_bases=bases, shelf=shelf)
            for base in bases
        ]
        self._has_shelf = shelf is not None
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin fetching in the background; nothing waits for it."""
        self._loops = [asyncio.create_task(issuer.keep_fresh()) for issuer in self._issuers]
        if self._meter is not None:
            self._loops.append(asyncio.create_task(self._report(self._meter)))
        if self._has_shelf:
            self._loops.append(asyncio.create_task(self._adopt()))

    async def aclose(self) -> None:
        """End the background work."""
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops)
        self._loops = []
        for issuer in self._issuers:
            await issuer.aclose()

    @property
    def has_keys(self) -> bool:
        return bool(self._own) or any(issuer.keys for issuer in self._issuers)

    def states(self) -> list[IssuerState]:
        """One row an issuer, for readiness and metrics."""
        return [issuer.state() for issuer in self._issuers]

    def all_keys(self) -> list[tuple[str, Key]]:
        """(issuer, key) of every key, our own first."""
        rows = [(self._service_name, key) for key in self._own]
        return rows + [(issuer.issuer, key) for issuer in self._issuers for key in issuer.keys]

    def candidates(self, issuer: str, kid: str) -> list[Key]:
        """Keys to be tried for a token of `issuer`, the one named `kid` first (a hint, never a filter)."""
        for source in self._issuers:
            source.drop_stale()
        if issuer == self._service_name:
            found = list(self._own)
        else:
            bound = self._bound(issuer)
            found = [key for source in bound or self._issuers for key in source.keys]
            if not bound:  # self-issuing instances sign with the local key under a name of their own
                found = [*self._own, *found]
        if kid:
            found.sort(key=lambda key: key.kid != kid)
        return found[:MAX_TRIES]

    async def refetch(self, issuer: str) -> bool:
        """Ask anew the issuers that may know a key we do not; True where the set changed.

        Concurrent callers share one fetch; none waits longer than `unknown_key_wait_s`.
        """
        before = self.epoch
        running = {task for source in self._may_know(issuer) if (task := source.refetch()) is not None}
        if running:
            await asyncio.wait(running, timeout=self._wait_s)
        return self.epoch != before

    def refetch_in_s(self, issuer: str) -> float | None:
        """Seconds until `refetch` would ask again; None where it never asks anyone."""
        return min((source.refetch_in_s() for source in self._may_know(issuer)), default=None)

    def _may_know(self, issuer: str) -> list[IssuerKeys]:
        return [] if issuer == self._service_name else self._bound(issuer) or self._issuers

    def _bound(self, issuer: str) -> list[IssuerKeys]:
        name = issuer.rstrip("/")
        return [source for source in self._issuers if source.issuer == name]

    async def _report(self, meter: KeyMeter) -> None:
        # Again and again, because ages grow by themselves, and a scrape may reach any worker.
        while True:
            for state in self.states():
                meter.issuer(state.base_url, keys=state.keys, is_up=state.ok, age_s=state.age_s)
            await asyncio.sleep(REPORT_S)

    async def _adopt(self) -> None:
        # Also while no token asks for it: a key that an issuer has taken back must not verify here any longer.
        while True:
            for issuer in self._issuers:
                issuer.adopt()
            await asyncio.sleep(REPORT_S)

    def _count_change(self) -> None:
        self.epoch += 1
