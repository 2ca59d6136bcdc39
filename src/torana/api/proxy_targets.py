"""What the pass-through of each vendor lets by: paths, methods, headers (contract 9)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torana.chat import Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect, ServedDialect
from torana.dialects.embeddings import scan_answer as scan_embeddings
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.dialects.passing import said_in
from torana.dialects.responses import RESPONSES
from torana.dialects.vertex_predictions import said_in as said_in_predictions
from torana.dialects.vertex_predictions import scan_answer as scan_predictions

Scan = Callable[[bytes], Usage | None]
Said = Callable[[bytes], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one request is after."""

    path: str
    """As the vendor has it, `/v1/…`."""
    dialect: ServedDialect | None = None
    """None where nothing is known of the body but its model."""
    model: str = ""
    """Where the path names it; empty: the body does."""
    names_model: bool = False
    """The path does."""
    streams: bool | None = None
    """Where the path tells; None: the body does."""
    scan: Scan | None = None
    """Reads the usage out of a whole answer."""
    said: Said | None = None
    """All that a whole answer says, to be counted where no usage stands in it; raises ProviderError. None: its bytes
    are."""
    is_free: bool = False
    """Something is looked up; no model answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The pass-through of one vendor."""

    name: str
    """In our paths and in the catalogue's `proxy_models`."""
    provider: str
    """In the catalogue's `providers`."""
    find: Callable[[str, str], Target | None]
    """Method and path behind our prefix → what is asked; None: nothing that is let by."""
    gets: tuple[str, ...] = ()
    """Paths behind our prefix that are read, without a body and so without a model."""
    usual: ServedDialect
    """Says that a stream of events broke where the target has no dialect of its own."""
    request_headers: tuple[bytes, ...]
    answer_headers: tuple[str, ...]
    """Besides the content type."""
    answer_prefixes: tuple[str, ...] = ()
    key_missing: tuple[int, str, str]
    """Status and text where the server has no key for this vendor, and what to set."""


_TO_EVERY_CLIENT = ("retry-after", "x-should-retry")


def _speaking(dialect: Dialect, *, path: str = "", streams: bool | None = None) -> Target:
    said = partial(said_in, dialect)
    return Target(path=path, dialect=dialect, streams=streams, scan=dialect.scan_answer, said=said)


def _by_path(*targets: Target) -> Mapping[str, Target]:
    return {target.path: target for target in targets}


_ANTHROPIC_POSTS = _by_path(
    _speaking(MESSAGES, path="/v1/messages"),
    Target(path="/v1/messages/count_tokens", is_free=True),
    Target(path="/v1/complete"),
)
_OPENAI_POSTS = _by_path(
    _speaking(CHAT_COMPLETIONS, path="/v1/chat/completions"),
    _speaking(RESPONSES, path="/v1/responses"),
    Target(path="/v1/embeddings", scan=scan_embeddings, said=lambda _vectors: ""),
)
_OPENAI_GETS = _by_path(Target(path="/v1/models", streams=False, is_free=True))


def _find_anthropic(method: str, path: str) -> Target | None:
    return _ANTHROPIC_POSTS.get(path)


def _find_openai(method: str, path: str) -> Target | None:
    """Each path with or without its /v1."""
    if not path.startswith("/v1/"):
        path = f"/v1{path}"
    return (_OPENAI_GETS if method == "GET" else _OPENAI_POSTS).get(path)


_SEGMENT = r"(?!\.+/)[^/\x00-\x20?#%]+"
"""Any project, any location: they never leave, for the provider puts in its own."""

_vertex_path = re.compile(
    rf"/v1/projects/{_SEGMENT}/locations/{_SEGMENT}/publishers/(?P<publisher>google|anthropic)"
    r"/models/(?P<model>[A-Za-z0-9][A-Za-z0-9._@-]*):(?P<action>[A-Za-z]+)"
)
_VERTEX_ACTIONS = {
    ("google", "predict"): Target(path="", streams=False, scan=scan_predictions, said=said_in_predictions),
    ("google", "serverStreamingPredict"): Target(path="", streams=True),
    ("google", "generateContent"): _speaking(GENERATE_CONTENT, streams=False),
    ("google", "streamGenerateContent"): _speaking(GENERATE_CONTENT, streams=True),
    ("anthropic", "streamRawPredict"): _speaking(MESSAGES),
}


def _find_vertex(method: str, path: str) -> Target | None:
    found = _vertex_path.fullmatch(path)
    target = _VERTEX_ACTIONS.get((found["publisher"], found["action"])) if found is not None else None
    return (
        None if found is None or target is None else replace(target, path=path, model=found["model"], names_model=True)
    )


ANTHROPIC = Upstream(
    name="anthropic",
    provider="anthropic",
    find=_find_anthropic,
    usual=MESSAGES,
    request_headers=(b"accept", b"content-type", b"anthropic-version", b"anthropic-beta"),
    answer_headers=("anthropic-beta", "request-id", *_TO_EVERY_CLIENT),
    answer_prefixes=("anthropic-ratelimit-",),
    key_missing=(400, "API key not found", "ANTHROPIC_API_KEY"),
)

OPENAI = Upstream(
    name="openai",
    provider="openai",
    find=_find_openai,
    gets=("/v1/models", "/models"),
    usual=CHAT_COMPLETIONS,
    request_headers=(b"accept", b"content-type", b"user-agent"),
    answer_headers=_TO_EVERY_CLIENT,
    answer_prefixes=("x-ratelimit-",),
    key_missing=(500, "API key not found", "OPENAI_API_KEY"),
)

VERTEX_AI = Upstream(
    name="vertex-ai",
    provider="vertex_ai",
    find=_find_vertex,
    usual=GENERATE_CONTENT,
    request_headers=(b"content-type",),
    answer_headers=_TO_EVERY_CLIENT,
    key_missing=(500, "Credentials not found", "AIGW_GOOGLE_CLOUD_PLATFORM__PROJECT"),
)

UPSTREAMS = (ANTHROPIC, OPENAI, VERTEX_AI)
