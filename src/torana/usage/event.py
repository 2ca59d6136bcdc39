"""One usage record: what is known when a call is admitted, and what its end adds. Never a prompt, never an answer.

Its parts are encoded apart, each once, as soon as they are known, and stand as one JSON object in the spool and at
every sink.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from torana.regions import is_in

MAX_TEXT = 256
"""Letters kept of a text that a caller chooses."""

Status = Literal["completed", "upstream_error", "client_cancelled", "interrupted"]
"""completed         the provider's answer was whole
upstream_error    the provider failed, or refused
client_cancelled  the client left before the end
interrupted       the gateway stopped or was killed before the end
"""

Source = Literal["provider", "counted", "suspect"]
"""Who counted the tokens: the provider; we, because it said nothing; we, because what it said cannot be."""


class ToldTry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sending. Several belong to one record where others failed or were outrun; the customer pays for one."""

    deployment: str
    outcome: str
    """answered, failed, left (its client went) or outrun (another one was faster)."""
    status: int = 0
    """HTTP status; 0 where none came."""
    error_code: str = ""
    is_charged: bool = False
    """Its provider may have worked on it, and may want money for that."""
    input_tokens: int | None = None
    """None: nobody knows."""
    output_tokens: int | None = None
    cost_usd: str | None = None
    duration_s: float = 0.0
    """Until its first chunk, or until it ended without one."""


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The whole record, as sinks read it; `id` comes first. Most members are those of `Kind`, `Place` and `Ending`."""

    id: str
    """UUIDv7; the same on every delivery."""
    request_id: str
    started_at: str
    """RFC 3339 in UTC, by the wall clock."""
    gateway: str
    """The gateway's id, the same on all replicas."""
    worker: str
    """`host:process id`."""
    instance: str
    realm: str
    user: str
    """Opaque, as the caller's headers or token name them; empty where no user is known."""
    feature: str
    unit_primitive: str
    endpoint: str
    """The route, without prefix and ids."""
    prompt: str
    """`id@version` of the catalogue's prompt; empty for a client's own."""
    model: str
    """The catalogue's name."""
    stream: bool
    client: str
    client_version: str
    residency: tuple[str, ...]
    """Regions in which this record may be, `eu-*` for all that begin so; empty: anywhere."""

    provider: str
    upstream_model: str
    """The provider's name of the model."""
    deployment: str
    """The one that answered, or was asked last."""
    region: str

    ended_at: str
    """`started_at` and the duration: never before it, whatever the wall clock did."""
    duration_s: float
    """By a clock that only grows."""
    clock_jumped: bool
    """The wall clock and the other one disagree by more than a second: mistrust the times, not the duration."""
    status: Status
    error_code: str
    finish_reason: str
    input_tokens: int
    """Cache reads and writes included."""
    output_tokens: int
    """Reasoning included."""
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    source: Source
    tiers: tuple[str, ...] = ()
    """What of the provider's service was not the usual, in its words: `fast`, `priority`, `flex` …"""
    cost_usd: str | None
    """Decimal text; None: the price is unknown."""
    price_as_of: str
    """Day of the price list that `cost_usd` comes from."""
    tries: tuple[ToldTry, ...]
    """Every sending, where there was more than the one that answered."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a call has in common with many others; known when it is admitted, as `id`, `user` and its times are."""

    gateway: str
    worker: str
    instance: str
    realm: str
    feature: str
    unit_primitive: str
    endpoint: str
    prompt: str
    model: str
    stream: bool
    client: str
    client_version: str
    residency: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the call is sent; another try may change it."""

    provider: str
    upstream_model: str
    deployment: str
    region: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What the end adds."""

    ended_at: str
    duration_s: float
    clock_jumped: bool = False
    status: Status
    error_code: str = ""
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: Source = "counted"
    tiers: tuple[str, ...] = ()
    cost_usd: str | None = None
    price_as_of: str = ""
    tries: tuple[ToldTry, ...] = ()


encode = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(UsageEvent).decode


def id_of(event: bytes) -> bytes:
    """The id at the head of an encoded record, without decoding it."""
    return event[7:43]


def text_of(event: bytes, member: bytes) -> str:
    """A text member of an encoded record that is never escaped: a time, a status."""
    start = event.find(b'"%b":"' % member)
    if start < 0:
        return ""
    start += len(member) + 4
    return event[start : event.index(b'"', start)].decode()


def time_of(event: bytes) -> float:
    """When the call ended, in Unix seconds."""
    return datetime.fromisoformat(text_of(event, b"ended_at")).timestamp()


def may_be_in(event: bytes, regions: Sequence[str]) -> bool:
    """Whether a record may be kept by somebody who keeps it in all of these regions; none: nobody knows where."""
    if b'"residency":[]' in event:
        return True
    allowed = decode_event(event).residency
    return bool(regions) and all(is_in(region, allowed) for region in regions)
