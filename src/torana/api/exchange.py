"""One request and its answer, as endpoints see them. Nothing here decides anything."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from torana.access.permissions import user_of
from torana.api.dialect_front import Front, front_of
from torana.api.steady import steady_of
from torana.caller import DEBUG_CALLER, Caller, Permit
from torana.catalog.records import FeatureRecord
from torana.facts import Facts
from torana.headers import Headers

JSON_HEADER = (b"content-type", b"application/json")


class Exchange:
    """One request on its way through the entrance; endpoints read it, the access line is made of it."""

    __slots__ = (
        "body",
        "caller",
        "client",
        "client_name",
        "client_version",
        "facts",
        "flags",
        "front",
        "headers",
        "held_bytes",
        "method",
        "path",
        "query",
        "quota_event",
        "quota_model_id",
        "request_id",
        "route",
        "steady",
        "tail",
    )

    def __init__(self, method: str, path: str, query: bytes, headers: Headers, client: str, request_id: str) -> None:
        self.method = method
        self.path = path
        """Percent-decoded, prefix removed: `/v1/prompts/chat/explain_code`."""
        self.query = query
        self.headers = headers
        self.steady = steady = steady_of(headers)
        self.client_name = steady.client_name
        self.client_version = steady.client_version
        self.client = client
        """Address of the client, believed proxies taken into account."""
        self.request_id = request_id
        self.route: Route | None = None
        """The matched one; set by the entrance before it looks at anything else."""
        self.tail = ""
        """What the route's `{tail}` matched: `chat/explain_code`."""
        self.body = b""
        self.held_bytes = 0
        """Of the memory for bodies (body_memory.py)."""
        self.caller: Caller = DEBUG_CALLER
        """Set by the entrance before any handler runs."""
        self.flags: frozenset[str] = frozenset()
        """Feature flags the client enabled and the operator allows."""
        self.front: Front | None = front_of(path)
        """Set below the prefixes where clients speak a vendor's dialect."""
        self.quota_event = ""
        """What the quota is asked for, where `read` knows better than the route; empty: as the route says."""
        self.quota_model_id = ""
        """The model that the quota is told of; may be empty."""
        self.facts = Facts()
        """Further members of the access line, `meta.unit_primitive`, `provider_s`, …: every room adds its own."""

    # What a usage record says about its request

    @property
    def endpoint(self) -> str:
        return "" if self.route is None else self.route.name

    @property
    def feature(self) -> str:
        """The catalogue's, where the route is made from one."""
        return "" if self.route is None or self.route.feature is None else self.route.feature.name

    @property
    def user(self) -> str:
        return user_of(self.caller, self.headers)

    @property
    def body_bytes(self) -> int:
        return len(self.body)


class Reply(msgspec.Struct):
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=lambda: [JSON_HEADER])


class StreamReply(msgspec.Struct):
    """An answer in parts. `status` is honest: it is made, or its head waits, until the first part is certain.

    `parts` is closed by the entrance in every case. It may raise StreamCut to end the connection
    without the final HTTP chunk, so that the client sees a broken stream and not a whole answer.
    """

    content_type: bytes
    parts: AsyncIterator[bytes]
    status: int = 200
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    waits: bool = False
    """The head goes out with the first part: until then `headers` may grow, and `parts` may raise Refusal."""
    silence_s: float = 0.0
    """The longest time without a byte; then `comment` is sent, and the head with it. 0: any."""
    comment: bytes = b""
    """What the stream's format has for a sign of life; parts end where it may stand."""
    is_begun: bool = False
    """The head is out, whoever made it go: from now on only `parts` can say that something failed."""


class StreamCut(Exception):
    """Ends a started stream without its final HTTP chunk. Not an error of ours: the cause is logged apart."""


def json_reply(value: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> Reply:
    """`value` as JSON in UTF-8; `headers` beside its content type."""
    return Reply(200, msgspec.json.encode(value), [JSON_HEADER, *headers])


Policy = Callable[[Exchange, Any], Permit]
"""(exchange, what `read` returned) → the proof that the caller may; raises Refusal 400, 402 or 403."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """URL → handler and policy. The entrance walks: authenticate, body, `read`, `policy`, quota, `handle`.

    path      exact, or ending in `{tail}`, which matches the rest, slashes included
    read      body → what the endpoint works with; raises Invalid (422), Refusal 404 or 400
    policy    who may; None only with `is_open`, which also skips authentication
    handle    makes the answer
    body      which size limit applies: `typed`, `proxy`, `mint`, or `none` (body is not read)
    quota     event type of contract 13, empty where no quota is asked
    """

    methods: tuple[str, ...] = ("POST",)
    path: str
    handle: Callable[[Exchange, Permit, Any], Awaitable[Reply | StreamReply]]
    policy: Policy | None = None
    read: Callable[[Exchange], Any] | None = None
    body: str = "typed"
    quota: str = ""
    is_open: bool = False
    is_background: bool = False
    """Nobody waits for it at a screen: when the gateway is short of time, others go first."""
    label: str = ""
    """The metric label `handler`; empty: the path."""
    asks_no_model: bool = False
    """It is answered without a model call, so that the entrance takes its place among the limits on requests."""
    feature: FeatureRecord | None = None
    """What the catalogue declares, for a route that is made from it; the OpenAPI page is written from this."""

    name: str = field(init=False)
    """What metrics and usage records call it: `/v1/proxy/openai`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.label or self.path.removesuffix("/{tail}"))
