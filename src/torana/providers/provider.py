"""What a provider is: where a vendor is and how it wants to be greeted. Nothing of the wire format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torana.catalog.model_records import Quirks
from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.settings import Secret
from torana.transport import WireRequest
from torana.usage.prices import Price

PLACEHOLDER_KEY = "no-key-needed"
"""Sent to servers without a key; some clients and servers refuse an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model at one provider, region and account; what a call is sent to."""

    provider: str
    model: str
    """The provider's own name of the model."""
    label: str = ""
    """A name of its own, where the catalogue gives one."""
    like: str = ""
    """Greeted as this provider is; empty: as itself. For rows of providers.yml without a file of their own."""
    base_url: str = ""
    """Without the final /v1 for configured providers; as the client gave it for its own server."""
    secret: Secret = field(default_factory=Secret)
    is_configured: bool = True
    """False: there are no credentials for it."""
    region: str = ""
    account: str = ""
    weight: int = 1
    """Its share among deployments of the same `order`."""
    order: int = 0
    """Lower ones are tried first."""
    concurrency: int = 0
    """Calls at the same time; 0: no bound."""
    canary_percent: float = 0.0
    shadow_percent: float = 0.0
    timeout_s: float = 0.0
    """Patience for the first byte; 0: the gateway's default."""
    idle_s: float = 0.0
    """Silence within an answer; 0: the gateway's default."""
    prices: Price | None = None
    """US dollars per million tokens; None: unknown."""
    dialect: str = ""
    """What its row says that it speaks; empty: as whoever it is like."""
    also: tuple[str, ...] = ()
    """Further dialects that it speaks: to a client of one of them it answers in its own bytes."""
    as_text_completion: bool = False
    """Asked through POST …/completions."""
    is_client_given: bool = False
    auth: str = ""
    """How it wants to be told who calls (catalog/model_records.py); empty: as its dialect's own vendor has it."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """What is asked → path below `base_url`, where it is not the dialect's own."""
    quirks: Quirks = field(default_factory=Quirks)
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def greeted_as(self) -> str:
        """The provider whose address and greeting are its own."""
        return self.like or self.provider

    @property
    def name(self) -> str:
        """What it is called in logs, metrics and breakers."""
        return self.label or f"{self.provider}/{self.model}" + (f"/{self.region}" if self.region else "")

    @property
    def shown(self) -> str:
        """As `name`, for people: in words where the server itself is still to be asked for a model."""
        return self.name if self.label or self.model else f"{self.provider}/(the first model it lists)"


class Provider(Protocol):
    """One vendor, or one kind of server."""

    name: str

    def dialect_for(self, deployment: Deployment) -> Dialect:
        """The format to speak with this deployment."""
        ...

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        """The format that it makes vectors in; None: it makes none."""
        ...

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        """Address and greet; may wait for credentials that have to be fetched first.

        path     of the dialect, with its /v1: `/v1/messages`; vendors that name the model in the path have their own
        body     as the dialect wrote it, or as the client sent it
        headers  what else goes out; the provider adds credentials
        stream   whether a streamed answer is asked for: with some vendors the path says so, not the body

        Raises ProviderError where there is nothing to greet with.
        """
        ...


def join_url(base_url: str, path: str) -> str:
    """`<base>/v1/…` with exactly one /v1, whether or not the base ends in `/` or in /v1."""
    return base_url.rstrip("/").removesuffix("/v1") + path


def greet(deployment: Deployment, usual: str) -> dict[str, str]:
    """The header that tells who calls.

    usual  how the dialect's own vendor has it: `bearer`, or a header that holds the key
    """
    way = deployment.auth or usual
    if way == "none":
        return {}
    key = deployment.secret.reveal() or PLACEHOLDER_KEY
    return {"Authorization": f"Bearer {key}"} if way == "bearer" else {way: key}


def add_own(headers: Mapping[str, str], deployment: Deployment) -> Mapping[str, str]:
    """The headers with those of the deployment's row, which win over ours of the same name, in whatever case."""
    own = deployment.extra_headers
    if not own:
        return headers
    names = {name.lower() for name in own}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **own}
