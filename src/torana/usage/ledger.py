"""One record for each admitted call, and exactly one final word on it, whatever happens.

admitted ─▶ completed | upstream_error | client_cancelled | interrupted

A call is put into the table of running calls before anything is sent for it, and its record is durable before the
last byte of its answer goes out. Between the two, its worker may be killed at any moment.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import msgspec

from torana.caller import Caller
from torana.chat import Usage
from torana.clock import Clock
from torana.errors import Refusal
from torana.usage.event import MAX_TEXT, Ending, Opening, Place, Status, ToldTry, encode, join
from torana.usage.ids import Ids
from torana.usage.prices import Price, price_text
from torana.usage.running import MAX_ADMITTED_BYTES
from torana.usage.spool import Spool

WhenFull = Literal["refuse", "continue"]

JUMP_S = 1.0
"""The wall clock may be slewed by so much within a call; more is a jump."""

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


@dataclass(frozen=True, slots=True)
class NoOrigin:
    """A call that no request stands behind."""

    request_id: str = ""
    endpoint: str = ""
    feature: str = ""
    user: str = ""
    client_name: str = ""
    client_version: str = ""


NO_ORIGIN: Origin = NoOrigin()


class Site(msgspec.Struct, frozen=True):
    """Where a call is sent, and at what price."""

    provider: str
    model: str
    """The provider's own name."""
    deployment: str
    region: str
    price: Price | None = None


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
        self._gateway_id = gateway_id
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def open(
        self,
        origin: Origin | None,
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
        origin = origin or NO_ORIGIN
        spool = self.spool
        if spool.is_full and self.when_full == "refuse":
            raise Refusal(503, "usage_spool_full", "Service Unavailable", headers=((b"retry-after", b"5"),))
        now = self.clock.now()
        id_ = self._ids.make()
        opening = Opening(
            id=id_,
            request_id=origin.request_id[:MAX_TEXT],
            started_at=wall_text(now),
            gateway=self._gateway_id,
            worker=self._worker,
            instance=caller.instance_id[:MAX_TEXT],
            realm=caller.realm[:MAX_TEXT],
            user=origin.user[:MAX_TEXT],
            # What was asked for by name: a feature, else a prompt, else the endpoint, `code/completions`.
            feature=origin.feature or prompt.partition("@")[0] or origin.endpoint[4:],
            unit_primitive=unit_primitive,
            endpoint=origin.endpoint,
            prompt=prompt[:MAX_TEXT],
            model=model[:MAX_TEXT],
            stream=stream,
            client=origin.client_name[:MAX_TEXT],
            client_version=origin.client_version[:MAX_TEXT],
            residency=residency,
        )
        record = Record(self, id_, opening, site, now, self.clock.monotonic())
        if spool.table is not None:
            try:
                record.slot = spool.table.take(record.admitted())
            except OSError:
                record.slot = -1  # the table cannot grow: the next look at the disk will say so
        spool.running[id_] = record
        return record


class Record:
    """One admitted call, until its final word is durable. Only the first final word counts."""

    __slots__ = (
        "_future", "_is_settled", "_ledger", "_monotonic", "_now", "_opening", "_opening_json", "event", "id",
        "progress", "site", "slot",
    )  # fmt: skip

    def __init__(self, ledger: Ledger, id_: str, opening: Opening, site: Site, now: float, monotonic: float) -> None:
        self.id = id_
        self.site = site
        self.slot = -1
        self.event = b""
        """The encoded record, once there is one."""
        self.progress: Callable[[], Usage | None] = _no_progress
        """Tokens so far, for the checkpoints; called from another thread."""
        self._ledger = ledger
        self._opening = opening
        self._opening_json = encode_text(opening)
        self._now = now
        self._monotonic = monotonic
        self._future: asyncio.Future[None] | None = None
        self._is_settled = False

    @property
    def is_closed(self) -> bool:
        return bool(self.event)

    def admitted(self) -> bytes:
        """What the table of running calls holds: the record so far, and the price for whoever finishes it."""
        place, price = _write_site(self.site)
        admitted = join(self._opening_json, place) + b"\n" + price
        if len(admitted) > MAX_ADMITTED_BYTES:
            # Only a caller with absurd names gets here; the final record has them in full.
            short = {
                name: value[:64] for name, value in msgspec.structs.asdict(self._opening).items() if type(value) is str
            }
            admitted = join(encode_text(msgspec.structs.replace(self._opening, **short)), place) + b"\n" + price
        return admitted[:MAX_ADMITTED_BYTES]

    def move(self, site: Site) -> None:
        """Another deployment answers than the one that was asked first."""
        if site == self.site or self.is_closed:
            return
        self.site = site
        table = self._ledger.spool.table
        if self.slot >= 0 and table is not None:
            table.rewrite(self.slot, self.admitted())

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
            cost_usd=cost,
            price_as_of=price_as_of,
            tries=tuple(tries),
        )
        self.event = join(self._opening_json, _write_site(site)[0], encode(ending))
        ledger.spool.running.pop(self.id, None)
        ledger.spool.put(self)

    async def settled(self) -> None:
        """Returns once the final word is durable, or the disk has refused it and somebody has counted that."""
        if self.event and not self._is_settled:
            self._future = asyncio.get_running_loop().create_future()
            await self._future

    def durable(self, is_safe: bool) -> None:
        """The spool's answer; a record that is at risk gets another one later, which nobody waits for."""
        self._is_settled = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def so_far(self) -> Usage | None:
        return self.progress()

    def seconds(self) -> float:
        return max(0.0, self._ledger.clock.monotonic() - self._monotonic)


def encode_text(opening: Opening) -> bytes:
    try:
        return encode(opening)
    except UnicodeEncodeError:  # half a surrogate pair, from a client's text; JSON in UTF-8 has no way to say it
        clean = {
            name: value.encode("utf-8", "replace").decode()
            for name, value in msgspec.structs.asdict(opening).items()
            if type(value) is str
        }
        return encode(msgspec.structs.replace(opening, **clean))


class _WallText:
    """Unix seconds → RFC 3339; the part that changes once a second is kept."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def __call__(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._prefix = second, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{int((now - second) * 1000):03d}Z"


wall_text = _WallText()


@lru_cache(maxsize=1024)
def _write_site(site: Site) -> tuple[bytes, bytes]:
    """(the record's members about a place, its price) as JSON."""
    place = Place(provider=site.provider, upstream_model=site.model, deployment=site.deployment, region=site.region)
    return encode(place), encode(site.price)


def _no_progress() -> None:
    return None
