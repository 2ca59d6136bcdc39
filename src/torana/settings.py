"""What the environment may say, as frozen structs, one for each room; read by `environment.py`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torana.auth_settings import AuthSettings
from torana.cloud_settings import AwsSources, GoogleSettings
from torana.errors import BadSetting
from torana.setting_values import (
    Secret,
    setting,
)

__all__ = ["Secret", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where the gateway listens."""

    host: str = setting("127.0.0.1", "AIGW_FASTAPI__API_HOST", "address of the main port")
    port: int = setting(5052, "AIGW_FASTAPI__API_PORT", "main port")
    metrics_host: str = setting(
        "", "AIGW_FASTAPI__METRICS_HOST", "address of the metrics port; empty: that of the main port"
    )
    metrics_port: int = setting(8082, "AIGW_FASTAPI__METRICS_PORT", "metrics port")
    workers: int = setting(1, "WEB_CONCURRENCY", "worker processes")
    tables_dir: str = setting(
        "", "PROMETHEUS_MULTIPROC_DIR", "where several workers share tables; empty: the system's temporary folder"
    )
    docs_url: str = setting(
        "", "AIGW_FASTAPI__DOCS_URL", "path of the API page; `null` or unset: off (development: /docs)"
    )
    openapi_url: str = setting(
        "", "AIGW_FASTAPI__OPENAPI_URL", "path of the OpenAPI document; off unless set (development: /openapi.json)"
    )
    redoc_url: str = setting("", "AIGW_FASTAPI__REDOC_URL", "a second path of the API page")
    tls_enabled: bool = setting(False, "AIGW_FASTAPI__TLS__ENABLED", "serve HTTPS")
    tls_cert_file: str = setting("", "AIGW_FASTAPI__TLS__CERT_FILE", "PEM certificate chain")
    tls_key_file: str = setting("", "AIGW_FASTAPI__TLS__KEY_FILE", "PEM key")
    tls_ciphers: str = setting("", "AIGW_FASTAPI__TLS__SSL_CIPHERS", "OpenSSL cipher list")
    header_timeout_s: float = setting(5.0, "AIGW_SERVER__HEADER_TIMEOUT_S", "patience for a request's headers")
    body_timeout_s: float = setting(30.0, "AIGW_SERVER__BODY_TIMEOUT_S", "patience for a body without progress")
    keepalive_idle_s: float = setting(75.0, "AIGW_SERVER__KEEPALIVE_IDLE_S", "an idle connection is closed after this")
    write_timeout_s: float = setting(
        60.0, "AIGW_SERVER__WRITE_TIMEOUT_S", "a reader without progress is cut off after this"
    )
    drain_s: float = setting(60.0, "AIGW_SERVER__DRAIN_S", "how long running requests may finish after SIGTERM")
    queue_requests: int = setting(
        1024, "AIGW_ADMISSION__QUEUE", "requests of one worker that may wait for it to have time; more get 503"
    )
    queue_s: float = setting(
        0.25, "AIGW_ADMISSION__QUEUE_S", "longest wait there; who would wait longer gets 503 at once"
    )
    queue_weights: dict[str, Any] = setting(
        {}, "AIGW_ADMISSION__WEIGHTS", "JSON: instance id → its share of a busy gateway beside others', 1 unless named"
    )
    body_memory_bytes: int = setting(
        536870912,
        "AIGW_ADMISSION__BODY_BYTES",
        "memory of one worker for bodies over 64 KiB, until they are answered; who finds none gets 503",
    )
    max_header_bytes: int = setting(32768, "AIGW_MAX_HEADER_BYTES", "header block")
    max_uri_bytes: int = setting(8192, "AIGW_MAX_URI_BYTES", "request target")
    max_body_bytes: int = setting(16777216, "AIGW_MAX_BODY_BYTES", "body of a typed endpoint")
    max_proxy_body_bytes: int = setting(
        33554432, "AIGW_MAX_PROXY_BODY_BYTES", "body on /v1/proxy/* and the dialect routes"
    )
    max_mint_body_bytes: int = setting(65536, "AIGW_MAX_MINT_BODY_BYTES", "body of token minting")
    root_path: str = setting("", "AIGW_ROOT_PATH", "a further path prefix beside /ai")
    trusted_proxies: tuple[str, ...] = setting(
        (), "AIGW_TRUSTED_PROXIES", "addresses or networks whose X-Forwarded-For is believed"
    )
    detail_headers: bool = setting(True, "AIGW_DETAIL_HEADERS", "x-aigw-* and Server-Timing on answers")
    stream_keepalive_s: float = setting(15.0, "AIGW_STREAM__KEEPALIVE_S", "silence before a keep-alive comment")
    public_url: str = setting("", "AIGW_PUBLIC_URL", "absolute URL of this gateway, for its discovery document")
    gateway_id: str = setting("", "AIGW_GATEWAY_ID", "the loop mark; unset: from the signing key, else random")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How patient outbound HTTP is, and whom its TLS trusts."""

    connect_s: float = setting(3.0, "AIGW_TIMEOUTS__CONNECT_S", "connect to a provider, TLS included")
    first_byte_s: float = setting(30.0, "AIGW_TIMEOUTS__FIRST_BYTE_S", "patience for the first byte of an answer")
    idle_s: float = setting(60.0, "AIGW_TIMEOUTS__IDLE_S", "silence within an answer")
    request_s: float = setting(600.0, "AIGW_TIMEOUTS__REQUEST_S", "deadline over all tries")
    extra_ca: str = setting("", "AIGW_EXTRA_CA", "PEM file or folder trusted besides the system's store")
    mtls_enabled: bool = setting(False, "AIGW_MTLS__ENABLED", "present a client certificate upstream")
    mtls_cert_file: str = setting("", "AIGW_MTLS__CERT_FILE", "PEM client certificate")
    mtls_key_file: str = setting("", "AIGW_MTLS__KEY_FILE", "PEM key of it")
    mtls_key_password: Secret = setting(Secret(), "AIGW_MTLS__KEY_PASSWORD", "password of that key")
    mtls_ca_bundle: str = setting(
        "",
        "AIGW_MTLS__CA_BUNDLE",
        "PEM file trusted upstream in place of the system's store, client certificate or none",
    )
    mtls_verify: bool = setting(True, "AIGW_MTLS__VERIFY", "check upstream certificates")
    ssl_cert_file: str = setting("", ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), "PEM file used as the system's store")
    http_proxy: str = setting("", ("HTTP_PROXY", "http_proxy"), "proxy for operator-configured http hosts")
    https_proxy: str = setting("", ("HTTPS_PROXY", "https_proxy"), "proxy for operator-configured https hosts")
    no_proxy: tuple[str, ...] = setting((), ("NO_PROXY", "no_proxy"), "hosts reached without a proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Vendors' credentials and addresses."""

    anthropic_api_key: Secret = setting(Secret(), "ANTHROPIC_API_KEY", "Anthropic key")
    anthropic_base_url: str = setting("https://api.anthropic.com", "ANTHROPIC_BASE_URL", "with or without /v1")
    openai_api_key: Secret = setting(Secret(), "OPENAI_API_KEY", "OpenAI key")
    openai_base_url: str = setting("", "OPENAI_BASE_URL", "another OpenAI-compatible server; with or without /v1")
    openai_model: str = setting(
        "", "AIGW_OPENAI_MODEL", "model behind the default aliases where they resolve to OpenAI"
    )
    mock_responses: bool = setting(False, "AIGW_MOCK_MODEL_RESPONSES", "the demo provider answers everything")
    demo_engine: str = setting("ngram", "AIGW_DEMO__ENGINE", "`ngram`, or `local` with the extra [demo-model]")
    custom_models: bool = setting(False, "AIGW_CUSTOM_MODELS__ENABLED", "clients may name their own model servers")
    disable_streaming: bool = setting(
        False, "AIGW_CUSTOM_MODELS__DISABLE_STREAMING", "clients' own servers are asked without streaming"
    )
    extra_headers: dict[str, Any] = setting(
        {},
        "AIGW_CUSTOM_MODELS__EXTRA_HEADERS",
        "JSON: headers added to calls to clients' own servers: to any that a client names, unless "
        "`AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS` holds them to yours",
    )
    allowed_endpoints: tuple[str, ...] = setting(
        (),
        "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS",
        "URL prefixes clients may name; empty: any but link-local and metadata addresses",
    )
    losses: str = setting(
        "warn",
        "AIGW_DIALECT__LOSSES",
        "what of a client's request the model's own format cannot say: `warn` leaves it out and names it in "
        "`x-torana-dropped`, `refuse` answers 422, `drop` leaves it out silently",
    )
    default_models: dict[str, Any] = setting(
        {}, "AIGW_MODEL_SELECTION__DEFAULT_MODELS", "JSON: feature setting → model identifier"
    )
    model_params: dict[str, Any] = setting(
        {},
        "AIGW_MODEL_SELECTION__MODEL_PARAMS",
        "JSON: model identifier → parameters that replace those of models.yml; a prompt file's win over them",
    )
    google: GoogleSettings = field(default_factory=GoogleSettings)
    vendor_keys: Mapping[str, Secret] = field(default_factory=dict)
    """Every `…_API_KEY` of the environment, for the rows of providers.yml that name one as `key_env`."""
    vendor_urls: Mapping[str, str] = field(default_factory=dict)
    """Every name of the environment that ends as an address does, for the rows that name one as `base_url_env`."""
    aws_region: str = setting(
        "",
        ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
        "where Bedrock is called; deployments may name others",
    )
    aws_bearer_token: Secret = setting(Secret(), "AWS_BEARER_TOKEN_BEDROCK", "Bedrock API key; needs no extra library")
    aws_access_key_id: str = setting("", "AWS_ACCESS_KEY_ID", "AWS key; without it, what AWS's own libraries find")
    aws_secret_access_key: Secret = setting(Secret(), "AWS_SECRET_ACCESS_KEY", "belongs to it")
    aws_session_token: Secret = setting(Secret(), "AWS_SESSION_TOKEN", "belongs to it, where it is a temporary one")
    aws: AwsSources = field(default_factory=AwsSources)
    azure_api_version: str = setting(
        "",
        ("AZURE_API_VERSION", "OPENAI_API_VERSION"),
        "such as 2024-10-21: Azure OpenAI is called by deployment URLs; unset: by /openai/v1",
    )
    fireworks_regions: dict[str, Any] = setting(
        {},
        "AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS",
        "JSON: region → {endpoint, identifier} of Fireworks deployments for fast completions",
    )
    model_engine_limits: dict[str, Any] = setting(
        {},
        ("AIGW_MODEL_ENGINE_LIMITS", "AIGW_MODEL_ENGINE_CONCURRENCY_LIMITS"),
        "JSON: engine → model → limits shown as gauges",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """How hard the gateway tries, and when it leaves a deployment alone. All of it in each worker for itself."""

    tries: int = setting(2, "AIGW_ROUTING__TRIES", "sendings in all, the first included")
    region: str = setting(
        "", ("AIGW_REGION", "RUNWAY_REGION"), "where this gateway stands: deployments of this region come first"
    )
    failures_to_rest: int = setting(
        20,
        "AIGW_ROUTING__FAILURES_TO_REST",
        "failed calls within 10 s, if they are half of all, after which a deployment rests; 0: never",
    )
    rest_s: float = setting(5.0, "AIGW_ROUTING__REST_S", "how long a deployment rests before one call looks again")
    longest_wait_s: float = setting(
        5.0,
        "AIGW_ROUTING__LONGEST_WAIT_S",
        "longest Retry-After that a call itself waits for, where nothing else helps",
    )
    queue_s: float = setting(
        1.0,
        "AIGW_ROUTING__QUEUE_S",
        "how long a call waits for a place at a deployment whose `concurrency` is used up, or for a connection",
    )
    connections: int = setting(
        0,
        "AIGW_ROUTING__CONNECTIONS",
        "calls under way to one provider's address, the proxies' included; 0: as many as there are descriptors",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueSettings:
    """What operators lay over the shipped catalogue."""

    overlays: str = setting("", "AIGW_CATALOG", "overlay directories, separated by colons")
    watch: bool = setting(False, "AIGW_CATALOG_WATCH", "reload when a catalogue file changes")
    max_output_chars: int = setting(8_000_000, "AIGW_PROMPTS__MAX_OUTPUT_CHARS", "cap of a rendered prompt")
    max_iterations: int = setting(100_000, "AIGW_PROMPTS__MAX_ITERATIONS", "cap of loop turns in one template")
    prompt_params: dict[str, Any] = setting(
        {},
        "AIGW_MODEL_SELECTION__PROMPT_PARAMS",
        "JSON: prompt id → parameters that replace those of its files, such as max_tokens, temperature, timeout",
    )
    default_prompts: dict[str, Any] = setting({}, "AIGW_DEFAULT_PROMPTS", "JSON: prompt id → variant")
    context_min_ls_version: str = setting(
        "6.3.0", "AIGW_CODE_CONTEXT_MIN_LS_VERSION", "language-server version from which attached context is used"
    )
    excl_post_process: tuple[str, ...] = setting(
        (),
        ("AIGW_FEATURE_FLAGS__EXCL_POST_PROCESS", "AIGW_F__CODE_SUGGESTIONS__EXCL_POST_PROC"),
        "JSON: post-processing steps to leave out: drop_comments, remove_markers, trim_to_block, drop_suffix_repeat, "
        "drop_repeated_blocks, blank_to_empty, strip_fences, begin_on_new_line, strip_asterisks, back_up, "
        "drop_unsure",
    )
    score_thresholds: dict[str, Any] = setting(
        {},
        "AIGW_FEATURE_FLAGS__FIREWORKS_SCORE_THRESHOLD",
        "JSON: upstream model (without the path before it) → mean log probability, such as -1.5, below which a fast "
        "completion is dropped",
    )
    chat_max_tokens: int = setting(0, "AIGW_DUO_CHAT__MAX_TOKENS", "cap of a chat answer; 0: the prompt file's")
    chat_timeout_s: float = setting(30.0, "AIGW_DUO_CHAT__MODEL_REQUEST_TIMEOUT", "first-byte time-out of v2 chat")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Where documentation search looks."""

    index: str = setting("", "AIGW_DOCS_SEARCH__INDEX", "index file of `torana docs index`")
    fallback_release: str = setting(
        "",
        "AIGW_VERTEX_SEARCH__FALLBACK_DATASTORE_VERSION",
        "version `X.Y` searched for instances whose own version is not in the index; empty: they get 400",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSettings:
    """Where usage records wait until every sink has them."""

    spool_dir: str = setting("", "AIGW_USAGE__SPOOL_DIR", "where usage records wait; empty: `<state directory>/usage`")
    when_full: str = setting(
        "refuse",
        "AIGW_USAGE__WHEN_FULL",
        "no space for usage records: `refuse` billable requests with 503, or `continue` and count",
    )
    max_spool_bytes: int = setting(
        2147483648,
        "AIGW_USAGE__MAX_SPOOL_BYTES",
        "undelivered usage records of one worker above this count as a full disk",
    )
    sink_secrets: Mapping[str, Secret] = field(default_factory=dict)
    """Every `AIGW_SINK__…` of the environment, for the sinks of sinks.yml that name one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalEventSettings:
    """The product's own events, for its vendor's analytics (contract 15)."""

    enabled: bool = setting(False, "AIGW_INTERNAL_EVENT__ENABLED", "send internal events; needs the endpoint")
    endpoint: str = setting("", "AIGW_INTERNAL_EVENT__ENDPOINT", "URL of the Snowplow collector that takes them")
    app_id: str = setting("gitlab_ai_gateway", "AIGW_INTERNAL_EVENT__APP_ID", "their `aid`")
    namespace: str = setting("gl", "AIGW_INTERNAL_EVENT__NAMESPACE", "their `tna`")
    batch_size: int = setting(50, "AIGW_INTERNAL_EVENT__BATCH_SIZE", "events in one request")


@dataclass(frozen=True, slots=True, kw_only=True)
class AbuseSettings:
    """How many requests on the proxies are measured against their purpose (contract 9)."""

    enabled: bool = setting(
        False,
        "AIGW_ABUSE_DETECTION__ENABLED",
        "show requests on `/v1/proxy/*` to the model of `completions_default`, which tells how far they stray from "
        "their purpose; costs its calls",
    )
    sampling_rate: float = setting(0.1, "AIGW_ABUSE_DETECTION__SAMPLING_RATE", "share of requests, 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Where limits are counted."""

    redis_url: Secret = setting(
        Secret(), "AIGW_REDIS_URL", "Redis or Valkey in which all servers share one count; empty: each server its own"
    )
    patience_s: float = setting(
        0.05, "AIGW_LIMITS__PATIENCE_S", "longest wait for the shared counts; then a server counts alone"
    )
    replicas: int = setting(
        0, "AIGW_LIMITS__REPLICAS", "servers in all, for the share of one that counts alone; 0: as many as it last saw"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is written down."""

    level: str = setting("INFO", "AIGW_LOGGING__LEVEL", "DEBUG, INFO, WARNING, ERROR or CRITICAL")
    as_json: bool = setting(True, "AIGW_LOGGING__FORMAT_JSON", "JSON lines; false: key=value")
    to_file: str = setting("", "AIGW_LOGGING__TO_FILE", "a file that gets the log lines as well")
    contents: bool = setting(
        False,
        ("AIGW_LOGGING__ENABLE_REQUEST_LOGGING", "AIGW_LOGGING__ENABLE_LITELLM_LOGGING"),
        "prompts and answers may be logged",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the process is told from outside, read at start only."""

    environment: str = setting("production", "AIGW_ENVIRONMENT", "free text; `development` switches conveniences on")
    state_dir: str = setting("", "AIGW_STATE_DIR", "development keys, usage spool")
    serve: ServeSettings = field(default_factory=ServeSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    transport: TransportSettings = field(default_factory=TransportSettings)
    providers: ProviderSettings = field(default_factory=ProviderSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    usage: UsageSettings = field(default_factory=UsageSettings)
    internal_events: InternalEventSettings = field(default_factory=InternalEventSettings)
    abuse: AbuseSettings = field(default_factory=AbuseSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    log: LogSettings = field(default_factory=LogSettings)
    warnings: tuple[str, ...] = ()
    """Lines for the log: names that mean nothing here."""

    @property
    def is_development(self) -> bool:
        return self.environment == "development"

    @property
    def state_path(self) -> Path:
        """Raises BadSetting where nothing names it and the user has no home, as in some containers."""
        if self.state_dir:
            return folder_at("AIGW_STATE_DIR", self.state_dir)
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return folder_at("AIGW_STATE_DIR", base, "is not set, and this user has no home directory") / "torana"

    @property
    def spool_path(self) -> Path:
        given = self.usage.spool_dir
        return folder_at("AIGW_USAGE__SPOOL_DIR", given) if given else self.state_path / "usage"


def folder_at(name: str, text: str, reason: str = "is in a home directory that there is not") -> Path:
    """No shell has looked at what stands in `.env`: a `~` would become a folder of this name. Raises BadSetting."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BadSetting(name, reason, "expected a folder that may be written") from None


MIN_OPERATOR_TOKEN_CHARS = 16
MAX_WORKERS = 1024
