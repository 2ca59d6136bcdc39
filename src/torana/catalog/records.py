"""What catalogue files may hold. Unknown members are errors; docs on members are for their authors."""

from typing import Annotated, Any, Literal

import msgspec

Capability = Literal[
    "chat", "stream", "tools", "parallel_tools", "json", "images", "documents", "reasoning", "fill_in", "embeddings",
    "prompt_cache",
]  # fmt: skip
"""What a model can do; features ask for these."""


# `description` is what `torana check` says was expected.
Seconds = Annotated[float, msgspec.Meta(ge=0, description="seconds from 0 on")]
SomeText = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all catalogue records, for these options only."""


class UnitPrimitive(Record, frozen=True, kw_only=True):
    """`unit_primitives.yml`, one item. Add-ons, versions and dates inform; nothing enforces them."""

    name: str
    description: str
    feature_category: str
    backend_services: tuple[str, ...] = ("ai_gateway",)
    add_ons: tuple[str, ...] = ()
    min_gitlab_version: str = ""
    cut_off_date: str = ""
    proxy_allowed: bool = False
    aliases: tuple[str, ...] = ()
    """Old names in tokens that are read as this one where the token holds no newer name."""
    prompts: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()


class LimitMatch(Record, frozen=True, kw_only=True):
    """Which calls a limit is for: of each member that is given, one value must be the call's."""

    instances: tuple[str, ...] = ()
    """Instances' ids, as vouched for."""
    realms: tuple[str, ...] = ()
    unit_primitives: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    """Features of the catalogue, or ids of prompts."""
    models: tuple[str, ...] = ()
    """Names of the catalogue, or the providers' own."""
    providers: tuple[str, ...] = ()


class LimitRecord(Record, frozen=True, kw_only=True):
    """`limits.yml`, one item (docs/reference/limits.md)."""

    name: str
    """Shown to callers and in metrics."""
    limit: str
    """`60 per minute per user`, `2M tokens per day per instance`, `20 concurrent streams per user`."""
    match: LimitMatch = LimitMatch()
    exact: bool = False
    """With shared counts, each call asks the store: neither one more nor one fewer than the limit passes."""
    when_down: Literal["local", "closed"] = "local"
    """While the shared counts cannot be reached: this server's share of the limit, or nothing."""
    burst: int = 0
    """So many at once, then evenly over the period; 0: the whole amount at any time within it."""
    description: str = ""


class KeepRecord(Record, frozen=True, kw_only=True):
    """`keep` of a roll-up: days for which its rows stay."""

    minute: float = 2
    hour: float = 45
    day: float = 800


class SinkRecord(Record, frozen=True, kw_only=True):
    """`sinks.yml`, one item: a receiver of usage records (docs/reference/usage.md)."""

    name: str
    """Names its cursor, its metrics and its file of parked records; under a new name everything is sent anew."""
    type: Literal["rollup", "file", "stdout", "http", "otlp", "redis", "postgres"]
    enabled: bool = True
    path: str = ""
    """file: the file of JSON lines. rollup: the database; empty: `rollup.sqlite3` in the spool."""
    url: str = ""
    """http, otlp: where batches are posted. redis: `redis://…`; empty: AIGW_REDIS_URL."""
    url_env: str = ""
    """Environment name, `AIGW_SINK__…`, of a `url` that holds a password."""
    token_env: str = ""
    """Environment name, `AIGW_SINK__…`, of the bearer token that http and otlp send."""
    headers: dict[str, str] = {}
    """http, otlp: further headers; nothing secret."""
    stream: str = "torana:usage"
    """redis: key of the stream."""
    max_length: int = 0
    """redis: the stream is cut to about so many entries; 0: never."""
    table: str = "torana_usage"
    """postgres: name of the table; it is made where it is missing."""
    keep: KeepRecord = KeepRecord()
    """rollup: how long its rows stay."""
    max_bytes: int = 134_217_728
    """file: moved on to `.1` at this size."""
    keep_files: int = 10
    """file: how many moved ones there are."""
    regions: tuple[str, ...] | None = None
    """Where the receiver keeps what it gets. Records of fenced instances go only where all of it may be, and to sinks
    on this machine (rollup, file) that name no region."""
    batch: int = 500
    """Records in one go, at most."""
    linger_s: float = 1.0
    """How long records gather before they are sent."""
    timeout_s: float = 10.0
    retry_s: float = 0.5
    """The first pause after a failure; doubled with each further one, and jittered."""
    retry_max_s: float = 60.0
    tries: int = 3
    """Sendings of a record that is refused by itself, before it is parked."""
    dedupe_window_s: float = 0.0
    """How long the receiver remembers ids; what may have arrived longer ago is parked. 0: for ever."""


class DenyRecord(Record, frozen=True, kw_only=True):
    """`deny.yml`, one item: whose tokens are refused. Of several members all must match."""

    name: str
    instance: str = ""
    """The instance's id, as vouched for."""
    user: str = ""
    """The subject of a user's token, or `X-Gitlab-Global-User-Id` beside an instance's."""
    token_id: str = ""
    """The claim `jti`."""


class PromptModel(Record, frozen=True, kw_only=True):
    """`model` of a prompt file; `params` may hold provider extras."""

    params: dict[str, Any] = {}


class PromptParams(Record, frozen=True, kw_only=True):
    any_of: tuple[str, ...] = ()
    """Unit primitives of which one must be held, beside all of `unit_primitives`."""
    stop: tuple[SomeText, ...] = ()
    timeout: Seconds | None = None
    """Seconds to the first byte."""
    hedge_after: Seconds | None = None
    """Seconds without a first chunk after which a second deployment is asked as well; 0: never. The model's unless
    it is set. For what somebody waits for: both may be charged."""
    vertex_location: str = ""
    """Region in which Vertex AI is asked; before the deployment's own and the operator's."""
    answer: Literal["text", "code", "json", "react"] = "text"
    """What kind of text is expected; the demo provider writes accordingly."""
    requires: tuple[Capability, ...] = ()
    """What the model must be able to do, beside `chat`."""


class PromptFile(Record, frozen=True, kw_only=True):
    """`prompts/<id>/<variant>/<version>.yml` (contract 8.4)."""

    name: SomeText
    model: PromptModel = PromptModel()
    unit_primitives: tuple[str, ...] = ()
    unit_primitive: str = ""
    prompt_template: dict[str, str | list[str]]
    """Ordered role → text or texts; roles system, user, assistant, placeholder, system_…"""
    params: PromptParams = PromptParams()


class FeatureInput(Record, frozen=True, kw_only=True):
    """One input of a feature. One without a default is required, unless it says `required: false`."""

    type: Literal["string", "integer", "boolean", "list"]
    """A list holds texts."""
    description: str = ""
    max_chars: int = 100_000
    """Of a string; in a list, of each item."""
    max_items: int = 100
    """Of a list."""
    required: bool | None = None
    default: str | int | bool | list[str] | None = None
    """Without one, an optional input that is absent reads as "", 0, false or []."""

    @property
    def is_required(self) -> bool:
        return self.default is None if self.required is None else self.required


class FeatureRecord(Record, frozen=True, kw_only=True):
    """`features/<name>.yml`: an endpoint for one purpose, without any Python."""

    name: str = ""
    """The file's name; need not be written."""
    description: str = ""
    path: str = ""
    """Where it is served; empty: `/v1/<name>`."""
    unit_primitive: str
    components: tuple[str, ...] = ()
    """Types of `prompt_components` that it understands; empty: its own name."""
    inputs: dict[str, FeatureInput]
    prompt: str
    """Id and version constraint, `summarize_text@^1.0.0`; without a constraint ^1.0.0 is meant."""
    model: str = "chat_default"
    """An alias or a model, for requests that choose none."""
    feature_setting: str = ""
    """A feature setting whose model comes before `model`, so that administrators can choose it."""
    requires: tuple[Capability, ...] = ()
    """What every model that may answer it must be able to do, beside `chat`; `answer: json` asks for `json`."""
    limit: str = ""
    """Such as `60 per minute per user`; counted for this feature alone."""
    is_background: bool = False
    """Nobody waits for it at a screen: when the gateway is short of time, others go first."""
    answer: Literal["text", "json"] = "text"
    """`json`: the answer is one JSON object, without a fence around it; anything else counts as a failed call."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(("chat", *self.requires, *(("json",) if self.answer == "json" else ())))

    @property
    def prompt_id(self) -> str:
        return self.prompt.partition("@")[0]

    @property
    def prompt_constraint(self) -> str | None:
        return self.prompt.partition("@")[2] or None
