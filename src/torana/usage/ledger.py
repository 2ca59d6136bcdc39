"""One record for each admitted call, and exactly one final word on it, whatever happens.

admitted ─▶ completed | upstream_error | client_cancelled | interrupted

A call is put into the table of running calls before anything is sent for it, and its record is durable before the
last byte of its answer goes out. Between the two, its worker may be killed at any moment.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from torana.caller import Caller
from torana.chat import Usage
from torana.clock import Clock
from torana.errors import Refusal
from torana.usage.event import MAX_TEXT, Ending, Kind, Place, Status, ToldTry, encode
from torana.usage.ids import Ids
from torana.usage.prices import Price, price_text, why_unknown
from torana.usage.running import MAX_ADMITTED_BYTES
from torana.usage.spool import Spool

logger = logging.getLogger("torana.usage")

WhenFull = Literal["refuse", "continue"]

JUMP_S = 1.0
"""The wall clock may be slewed by so much within a call; more is a jump."""

MAX_KINDS, MAX_KIND_LETTERS = 4096, 1024
"""Combinations of what many calls have in common that are kept ready; letters of what callers chose of each."""

_SHORTER = (48, 24, 8)
"""Letters kept of each text, where a slot of the table has no room for all; a letter may take six bytes."""
_WHOLE = frozenset(("id", "started_at"))

_Key = tuple[str, str, str, str, str, str, str, bool, str, str, tuple[str, ...]]

NOTHING = Usage(is_counted=True)


class Origin(Protocol):
    """What a record says about the request that the call belongs to. Texts of any length."""

    @property
    def request_id(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def feature(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def client_name(self) -> str: ...
    @property
    def client_version(self) -> str: ...
    @property
    def body_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class NoOrigin:
    """A call that no request stands behind."""

    request_id: str = ""
    endpoint: str = ""
    feature: str = ""
    user: str = ""
    client_name: str = ""
    client_version: str = ""
    body_bytes: int = 0


NO_ORIGIN: Origin = NoOrigin()


def asked_for(feature: str, prompt_id: str, endpoint: str) -> str:
    """What a call was asked for by name: a feature, else a prompt, else the endpoint without the version that it may
    begin with, `code/completions`, `anthropic/v1/messages`."""
    return feature or prompt_id or endpoint[4 if endpoint.startswith("/v") else 1 :]


class Site(msgspec.Struct):
    """Where a call is sent, and at what price. Made once for many calls."""

    provider: str
    model: str
    """The provider's own name."""
    deployment: str
    region: str
    price: Price | None = None
    written: tuple[bytes, bytes] | None = None
    """As `_write_site` has it, from the first time on."""


class Ledger:
    """Opens records; each closes itself.

    when_full  what a disk without space means: `refuse` turns billable calls away, `continue` counts them at risk
    """

    def __init__(self, spool: Spool, clock: Clock, gateway_id: str, when_full: WhenFull) -> None:
        self.spool = spool
        self.clock = clock
        self.when_full = when_full
        self.is_stopping = False
        """From now on it is not the client who leaves."""
        self._ids = Ids(clock)
        self._kinds: dict[_Key, bytes] = {}
        self._told_unpriced: set[tuple[str, str]] = set()
        self._gateway_id = gateway_id
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def open(
        self,
        origin: Origin,
        caller: Caller,
        site: Site,
        *,
        unit_primitive: str,
        model: str,
        prompt: str = "",
        stream: bool = False,
        residency: tuple[str, ...] = (),
    ) -> "Record":
        """Admit a call; from here on it gets exactly one record. Raises Refusal 503 where none could be kept."""
        spool = self.spool
        if spool.is_full and self.when_full == "refuse":
            raise Refusal(503, "usage_spool_full", "Service Unavailable", headers=((b"retry-after", b"5"),))
        now, id_ = self.clock.now(), self._ids.make()
        key = (
            caller.instance_id, caller.realm, unit_primitive, origin.endpoint, origin.feature, prompt, model, stream,
            origin.client_name, origin.client_version, residency,
        )  # fmt: skip
        kind = self._kinds.get(key) or self._remember(key)
        request_id, user = origin.request_id[:MAX_TEXT], origin.user[:MAX_TEXT]
        head = write_head(id_, request_id, wall_text(now), user, kind)
        record = Record(self, id_, head, site, now, self.clock.monotonic())
        if spool.table is not None:
            try:
                record.slot = spool.table.take(record.admitted())
            except OSError:
                record.slot = -1  # the table cannot grow: the next look at the disk will say so
        spool.running[id_] = record
        return record

    def tell_unpriced(self, site: Site, price: Price, usage: Usage) -> None:
        """Once for each deployment and figure: a list that lacks one makes bills and budgets incomplete."""
        what = site.deployment, why_unknown(usage, price)
        if what not in self._told_unpriced and len(self._told_unpriced) < MAX_KINDS:
            self._told_unpriced.add(what)
            logger.warning("what a call costs is unknown", extra={"deployment": what[0], "reason": what[1]})

    def _remember(self, key: _Key) -> bytes:
        """The members that many calls have in common, as JSON without its braces."""
        instance, realm, unit_primitive, endpoint, feature, prompt, model, stream, client, version, residency = key
        kind = Kind(
            gateway=self._gateway_id,
            worker=self._worker,
            instance=instance[:MAX_TEXT],
            realm=realm[:MAX_TEXT],
            feature=asked_for(feature, prompt.partition("@")[0], endpoint),
            unit_primitive=unit_primitive,
            endpoint=endpoint,
            prompt=prompt[:MAX_TEXT],
            model=model[:MAX_TEXT],
            stream=stream,
            client=client[:MAX_TEXT],
            client_version=version[:MAX_TEXT],
            residency=residency,
        )
        found = encode_kind(kind)
        if len(instance) + len(model) + len(client) + len(version) <= MAX_KIND_LETTERS:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()  # clients have a say in some of them
            self._kinds[key] = found
        return found


class Record:
    """One admitted call, until its final word is durable. Only the first final word counts."""

    __slots__ = (
        "_future", "_head", "_ledger", "_monotonic", "_now", "event", "id", "is_settled", "progress", "site", "slot",
        "status",
    )  # fmt: skip

    def __init__(self, ledger: Ledger, id_: str, head: bytes, site: Site, now: float, monotonic: float) -> None:
        self.id = id_
        self.site = site
        self.slot = -1
        self.event = b""
        """The encoded record, once there is one."""
        self.status: Status | None = None
        """How the call ended, as it was booked."""
        self.progress: Callable[[], Usage | None] = _no_progress
        """Tokens so far, for the checkpoints; called from another thread."""
        self._ledger = ledger
        self._head = head
        self._now = now
        self._monotonic = monotonic
        self._future: asyncio.Future[None] | None = None
        self.is_settled = False

    @property
    def is_closed(self) -> bool:
        return bool(self.event)

    def admitted(self) -> bytes:
        """What the table of running calls holds: the record so far, and the price for whoever finishes it."""
        place, price = _write_site(self.site)
        admitted = b"%b,%b}\n%b" % (self._head, place, price)
        # Only a caller with absurd names gets here; the final record has more of them.
        return admitted if len(admitted) <= MAX_ADMITTED_BYTES else _shorten(b"%b,%b}" % (self._head, place), price)

    def move(self, site: Site, tries: Sequence[ToldTry] = ()) -> None:
        """Another deployment answers than the one that was asked first, or it was asked again.

        tries  every sending until now, where there was more than one
        """
        if self.is_closed or (not tries and (site is self.site or site == self.site)):
            return
        self.site = site
        table = self._ledger.spool.table
        if self.slot >= 0 and table is not None:
            table.rewrite(self.slot, self.admitted(), encode(tries) if tries else b"")

    def close(
        self,
        status: Status,
        usage: Usage | None,
        *,
        error_code: str = "",
        finish_reason: str = "",
        tries: Sequence[ToldTry] = (),
    ) -> None:
        """The final word, handed over without waiting. `usage` None: nothing was spent."""
        if self.event:
            return
        ledger, site = self._ledger, self.site
        if status == "client_cancelled" and ledger.is_stopping:
            status, error_code = "interrupted", "server_draining"
        duration_s = max(0.0, ledger.clock.monotonic() - self._monotonic)
        used = usage or NOTHING
        cost, price_as_of = price_text(used, site.price)
        if cost is None and site.price is not None:
            ledger.tell_unpriced(site, site.price, used)
        ending = Ending(
            ended_at=wall_text(self._now + duration_s),
            duration_s=round(duration_s, 6),
            clock_jumped=abs(ledger.clock.now() - self._now - duration_s) > JUMP_S,
            status=status,
            error_code=error_code,
            finish_reason=finish_reason,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cache_read_tokens,
            cache_write_tokens=used.cache_write_tokens,
            reasoning_tokens=used.reasoning_tokens,
            source="suspect" if used.is_suspect else "counted" if used.is_counted else "provider",
            tiers=used.tiers,
            cost_usd=cost,
            price_as_of=price_as_of,
            tries=tuple(tries),
        )
        self.event = b"%b,%b,%b" % (self._head, _write_site(site)[0], encode(ending)[1:])
        self.progress = _no_progress  # it led back here, and a ring waits for the collector, which stops the loop
        self.status = status
        ledger.spool.running.pop(self.id, None)
        ledger.spool.put(self)

    async def settled(self) -> None:
        """Returns once the final word is durable, or the disk has refused it and somebody has counted that."""
        if self.event and not self.is_settled:
            self._future = self._ledger.spool.loop.create_future()
            await self._future

    def durable(self, is_safe: bool) -> None:
        """The spool's answer; a record that is at risk gets another one later, which nobody waits for."""
        self.is_settled = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def so_far(self) -> Usage | None:
        return self.progress()

    def seconds(self) -> float:
        return max(0.0, self._ledger.clock.monotonic() - self._monotonic)


def write_head(id_: str, request_id: str, started_at: str, user: str, kind: bytes) -> bytes:
    """The beginning of a record, its closing brace left out."""
    try:
        texts = encode(request_id), encode(user)
    except UnicodeEncodeError:  # half a surrogate pair, from a client's text; JSON in UTF-8 has no way to say it
        texts = encode(_clean(request_id)), encode(_clean(user))
    return b'{"id":"%b","request_id":%b,"started_at":"%b","user":%b,%b' % (
        id_.encode(), texts[0], started_at.encode(), texts[1], kind,
    )  # fmt: skip


def encode_kind(kind: Kind) -> bytes:
    try:
        return encode(kind)[1:-1]
    except UnicodeEncodeError:
        clean = {name: _clean(value) for name, value in msgspec.structs.asdict(kind).items() if type(value) is str}
        return encode(msgspec.structs.replace(kind, **clean))[1:-1]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _shorten(record: bytes, price: bytes) -> bytes:
    """What the table holds of a record whose texts are too long for it: the same members, cut until they fit.

    A slot takes no byte more: behind it stands another call.
    """
    found = msgspec.json.decode(record)
    for letters in _SHORTER:
        short = {
            name: value[:letters] if isinstance(value, str) and name not in _WHOLE else value
            for name, value in found.items()
        }
        admitted = b"%b\n%b" % (encode(short), price)
        if len(admitted) <= MAX_ADMITTED_BYTES:
            return admitted
    return admitted[:MAX_ADMITTED_BYTES]  # of an operator with an absurd price list: counted as damaged


class _WallText:
    """Unix seconds → RFC 3339; what changes once a second is kept for a few of them."""

    def __init__(self) -> None:
        self._seconds: dict[int, str] = {}

    def __call__(self, now: float) -> str:
        second = int(now)
        prefix = self._seconds.get(second)
        if prefix is None:
            if len(self._seconds) > 64:
                self._seconds.clear()
            prefix = self._seconds[second] = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{prefix}{int((now - second) * 1000):03d}Z"


wall_text = _WallText()


def _write_site(site: Site) -> tuple[bytes, bytes]:
    """(the record's members about a place, without braces; its price) as JSON."""
    if site.written is None:
        place = Place(
            provider=site.provider,
            upstream_model=site.model[:MAX_TEXT],
            deployment=site.deployment[:MAX_TEXT],
            region=site.region,
        )
        site.written = encode(place)[1:-1], encode(site.price)
    return site.written


def _no_progress() -> None:
    return None
