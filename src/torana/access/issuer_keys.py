"""The keys of one issuer: discovered, fetched, kept through outages, never waited for at start.

A failed or poisoned answer never removes keys that are there; only a good answer replaces them.
What is fetched is small, JSON, from the expected hosts, and never follows a redirect.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from torana.access.jose import BadKey, Key, read_key
from torana.access.shelf import Shelf, Shelved
from torana.auth_settings import AuthSettings
from torana.clock import Clock
from torana.transport import Fetched, Fetcher, FetchFailed

logger = logging.getLogger("torana.access")

FETCH_TIMEOUT_S = 10.0
FETCH_LIMIT_BYTES = 1 << 20
MAX_KEYS = 100
RETRY_S = 2.0
"""Pause after a failure while there are no keys; with the transport's connect time-out below the contract's 5 s."""
RETRY_WITH_KEYS_S = 30.0
LISTEN_S, LISTEN_EVERY_S = 3.0, 0.02
"""How long, and how often, one looks for the answer to another worker's question."""
HANG_S = 3.0
"""While there are no keys, an issuer that hangs is asked once more beside the question that hangs."""


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[msgspec.Raw]


_Shape = TypeVar("_Shape", _Discovery, _KeySet)


@dataclass(frozen=True, slots=True)
class IssuerState:
    """What readiness and metrics tell about one issuer."""

    base_url: str
    """As configured."""
    issuer: str
    """The name its tokens carry; its base URL until it has told us."""
    ok: bool
    """The last answer was good and there are keys."""
    detail: str
    keys: int
    age_s: float | None
    """Since the keys were fetched; None before the first time."""
    skew_s: float | None
    """Its clock minus ours, by its last answer's Date."""


class BadDocument(Exception):
    """An answer that is not used; the text says why."""


class IssuerKeys:
    """Fetches and keeps one issuer's keys. `changed` is called whenever the usable set changes."""

    def __init__(
        self,
        base_url: str,
        settings: AuthSettings,
        fetcher: Fetcher,
        clock: Clock,
        *,
        changed: Callable[[], None],
        other_bases: Collection[str] = (),
        shelf: Shelf | None = None,
        retry_with_keys_s: float = RETRY_WITH_KEYS_S,
    ) -> None:
        """shelf: what other workers of this server know; None: this one is alone."""
        self.base_url = base_url.rstrip("/")
        self.issuer = self.base_url
        """What tokens' `iss` is compared with, without a trailing slash."""
        self.keys: tuple[Key, ...] = ()
        self._settings = settings
        self._fetcher = fetcher
        self._clock = clock
        self._changed = changed
        self._other_bases = frozenset(url.rstrip("/") for url in other_bases) - {self.base_url}
        self._problem = "has not answered yet"
        self._fetched_at: float | None = None
        self._refetched_at: float | None = None
        self._skew_s: float | None = None
        self._running: asyncio.Task[None] | None = None
        self._all_running: set[asyncio.Task[None]] = set()
        self._shelf = shelf
        self._listening: asyncio.Task[None] | None = None
        self._retry_with_keys_s = retry_with_keys_s

    async def keep_fresh(self) -> None:
        """Fetch for ever: before the keys are too old, and soon again after a failure."""
        while True:
            await asyncio.wait({self.fetch()}, timeout=None if self.keys else HANG_S)
            if self._running is not None and self._running.done():
                await self._pause()
            else:
                self._running = None  # it may still end well, but it must not hold up the next one

    async def _pause(self) -> None:
        """Until the next background fetch. One that a token asks for meanwhile, and that fails, brings it forward."""
        left_s = self.due_in_s()
        while left_s > self._retry_with_keys_s:
            await asyncio.sleep(self._retry_with_keys_s)
            left_s = self.due_in_s()
        await asyncio.sleep(left_s)

    def due_in_s(self) -> float:
        """Pause until the next background fetch."""
        if not self.keys:
            return RETRY_S
        if self._problem:
            return self._retry_with_keys_s
        age_s = self._clock.monotonic() - (self._fetched_at or 0.0)
        return max(1.0, self._settings.key_ttl_s * 0.8 - age_s)

    def fetch(self) -> asyncio.Task[None]:
        """Start a fetch, or join the one that runs."""
        if self._running is None or self._running.done():
            self._running = self._run(self._fetch())
        return self._running

    def refetch(self) -> asyncio.Task[None] | None:
        """A fetch because of an unknown key, this worker's or another's; None while the last one is too recent."""
        for running in (self._running, self._listening):
            if running is not None and not running.done():
                return running
        if self.refetch_in_s() > 0:
            return None
        now = self._clock.monotonic()
        asked_at = self._claim(now)
        self._refetched_at = now if asked_at is None else asked_at
        if asked_at is None:
            return self.fetch()
        self._listening = self._run(self._listen(asked_at))
        return self._listening

    def adopt(self) -> None:
        """Take over what another worker has fetched since."""
        found = self._shelf.take(self.base_url) if self._shelf is not None else None
        if found is None or found.fetched_at <= (self._fetched_at or 0.0):
            return
        try:
            keys = read_keys(found.keys, found.issuer)
        except BadDocument:
            return
        self._succeeded(found.issuer, keys, found.fetched_at)

    def _claim(self, now: float) -> float | None:
        """None where it is this worker's turn to ask, else when another did."""
        if self._shelf is None:
            return None
        try:
            return self._shelf.claim(self.base_url, now, self._settings.key_refetch_s)
        except OSError:
            logger.exception("the workers' directory cannot be used; this worker asks an issuer by itself")
            return None

    async def _listen(self, asked_at: float) -> None:
        self.adopt()
        for _ in range(int(LISTEN_S / LISTEN_EVERY_S)):
            if (self._fetched_at or 0.0) >= asked_at or self._clock.monotonic() - asked_at > LISTEN_S:
                break  # it is answered, or was long ago and ended badly
            await asyncio.sleep(LISTEN_EVERY_S)
            self.adopt()

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._all_running.add(task)
        task.add_done_callback(self._all_running.discard)
        return task

    def refetch_in_s(self) -> float:
        """Seconds until an unknown key may cause a fetch again; 0 when it may now."""
        if self._refetched_at is None:
            return 0.0
        return max(0.0, self._settings.key_refetch_s - (self._clock.monotonic() - self._refetched_at))

    def drop_stale(self) -> None:
        """Forget keys that have not been confirmed for too long."""
        if self.keys and self._fetched_at is not None:
            age_s = self._clock.monotonic() - self._fetched_at
            # Until they are due for a refresh they are not stale.
            if age_s > max(self._settings.key_ttl_s, self._settings.key_stale_s):
                logger.error("an issuer's keys are too old and no longer used", extra={"issuer": self.issuer})
                self._replace(())

    def state(self) -> IssuerState:
        age_s = None if self._fetched_at is None else self._clock.monotonic() - self._fetched_at
        is_ok = not self._problem and bool(self.keys)
        detail = self._problem or "answers"
        return IssuerState(self.base_url, self.issuer, is_ok, detail, len(self.keys), age_s, self._skew_s)

    async def aclose(self) -> None:
        running = set(self._all_running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _fetch(self) -> None:
        begun_at = self._clock.monotonic()
        try:
            issuer, keys, entries = await self._ask()
        except (FetchFailed, BadDocument) as error:
            if self._fetched_at is None or self._fetched_at <= begun_at:  # a later question may have ended well
                self._failed(str(error) or type(error).__name__)
            return
        except Exception as error:  # the loop that keeps keys fresh must outlive any answer
            logger.exception("fetching an issuer's keys failed", extra={"issuer": self.issuer})
            self._failed(type(error).__name__)
            return
        self._succeeded(issuer, keys, self._clock.monotonic())
        if self._shelf is not None and self._fetched_at is not None:
            try:
                self._shelf.put(self.base_url, Shelved(issuer, entries, self._fetched_at))
            except OSError:
                logger.exception("the workers' directory cannot be used; each worker asks an issuer by itself")

    def _succeeded(self, issuer: str, keys: tuple[Key, ...], fetched_at: float) -> None:
        if self._problem:
            logger.info("an issuer's keys are there", extra={"issuer": issuer, "keys": len(keys)})
        self._problem = ""
        self._fetched_at = fetched_at
        if issuer != self.issuer or keys != self.keys:
            self.issuer = issuer
            self._replace(keys)

    def _failed(self, problem: str) -> None:
        if problem != self._problem:  # one line for each change of state, however long it lasts
            logger.warning("an issuer's keys could not be fetched", extra={"issuer": self.issuer, "reason": problem})
        self._problem = problem
        self.drop_stale()

    def _replace(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self._changed()

    async def _ask(self) -> tuple[str, tuple[Key, ...], list[msgspec.Raw]]:
        found = await self._get(f"{self.base_url}/.well-known/openid-configuration", _Discovery)
        issuer = found.issuer.rstrip("/")
        if not issuer:
            raise BadDocument("the discovery document names no issuer")
        if issuer == self._settings.service_name or issuer in self._other_bases:
            raise BadDocument("the discovery document names somebody else as issuer")
        self._check_location(found.jwks_uri, issuer)
        entries = (await self._get(found.jwks_uri, _KeySet)).keys
        return issuer, read_keys(entries, self.issuer), entries

    def _check_location(self, jwks_uri: str, issuer: str) -> None:
        base = urlsplit(self.base_url)
        try:
            where = urlsplit(jwks_uri)
            host = (where.hostname or "").lower()
            named = (urlsplit(issuer).hostname or "").lower()
            where.port  # noqa: B018  raises for a port that is none
        except ValueError as error:
            raise BadDocument("jwks_uri is no URL") from error
        # URL readers disagree about these letters; none belongs into an honest address.
        if not jwks_uri.isascii() or any(letter in jwks_uri for letter in "\\@ \t\r\n"):
            raise BadDocument("jwks_uri holds letters that no key address needs")
        if where.scheme != "https" and not (where.scheme == "http" and base.scheme == "http"):
            raise BadDocument("jwks_uri is not https")
        allowed = {(base.hostname or "").lower(), named, *(name.lower() for name in self._settings.issuer_hosts)}
        if not host or not {host, where.netloc.lower()} & allowed:
            raise BadDocument("jwks_uri is on another host; AIGW_AUTH__ISSUER_HOSTS would allow it")

    async def _get(self, url: str, shape: type[_Shape]) -> _Shape:
        answer = await self._fetcher.fetch(
            url,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout_s=FETCH_TIMEOUT_S,
            limit_bytes=FETCH_LIMIT_BYTES,
        )
        self._note_skew(answer)
        what = urlsplit(url).path
        if answer.status != 200:
            raise BadDocument(f"{what} answered {answer.status}")
        if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise BadDocument(f"{what} is compressed, which was not asked for")
        media_type = answer.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if not (media_type.endswith(("/json", "+json"))):
            raise BadDocument(f"{what} is {media_type[:60] or 'of no type'}, expected JSON")
        if len(answer.body) > FETCH_LIMIT_BYTES:
            raise BadDocument(f"{what} is larger than {FETCH_LIMIT_BYTES} bytes")
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadDocument(f"{what} is not the JSON document it should be") from error

    def _note_skew(self, answer: Fetched) -> None:
        try:
            told = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return
        self._skew_s = round(told - self._clock.now(), 1)
        if abs(self._skew_s) > self._settings.leeway_s:
            logger.warning("an issuer's clock differs from ours", extra={"issuer": self.issuer, "skew_s": self._skew_s})


def read_keys(entries: list[msgspec.Raw], issuer: str) -> tuple[Key, ...]:
    """The usable keys of a set; bad entries are dropped one by one. Raises BadDocument when none is left."""
    if len(entries) > MAX_KEYS:
        raise BadDocument(f"the key set holds {len(entries)} keys, at most {MAX_KEYS} are read")
    found: list[Key] = []
    for position, entry in enumerate(entries):
        try:
            key = read_key(msgspec.json.decode(entry))
            if not key.serves("RS256"):
                raise BadKey("is not for RS256")
            if key.kid and any(other.kid == key.kid for other in found):
                raise BadKey("has the id of another key")
        except (BadKey, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            extra = {"issuer": issuer, "position": position, "reason": str(error)}
            logger.warning("a key of an issuer is not used", extra=extra)
        else:
            found.append(key)
    if not found:
        raise BadDocument("the key set holds no usable key")
    return tuple(found)
