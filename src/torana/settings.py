"""The environment, read once, checked, and handed out as frozen structs. The only reader of it.

Which source wins is in `docs/reference/settings.md`: flag, environment, `.env`, default. An empty
value counts as unset. For every secret `NAME`, `NAME_FILE` may name a file that holds it. A bad
value of a known name raises BadSetting; unknown `AIGW_*` names are reported, never fatal.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from torana.cloud_settings import GoogleSettings, check_google
from torana.errors import BadSetting
from torana.setting_checks import check_values
from torana.setting_values import (
    Secret,
    check_name,
    check_networks,
    check_path,
    check_prefix,
    check_tls,
    check_url,
    check_version,
    read_bool,
    read_float,
    read_int,
    read_list,
    read_object,
    setting,
)

__all__ = ["Secret", "Settings", "load_settings"]


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


MINTABLE = ("complete_code", "ai_gateway_model_provider_proxy")
"""All that a user token may hold, by contract 5."""
MAX_USER_TOKEN_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Whom the gateway believes."""

    service_name: str = setting(
        "gitlab-ai-gateway",
        ("AIGW_CLOUD_CONNECTOR_SERVICE_NAME", "CLOUD_CONNECTOR_SERVICE_NAME"),
        "audience of tokens and our own issuer name",
    )
    gitlab_url: str = setting("https://gitlab.com", "AIGW_GITLAB_URL", "first OIDC issuer base")
    gitlab_api_url: str = setting("https://gitlab.com/api/v4/", "AIGW_GITLAB_API_URL", "API base of that instance")
    customer_portal_url: str = setting(
        "https://customers.gitlab.com", "AIGW_CUSTOMER_PORTAL_URL", "second OIDC issuer base"
    )
    signing_key: Secret = setting(Secret(), "AIGW_SELF_SIGNED_JWT__SIGNING_KEY", "PEM; signs user tokens")
    validation_key: Secret = setting(Secret(), "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY", "PEM; accepted, never signs")
    bypass_external: bool = setting(False, "AIGW_AUTH__BYPASS_EXTERNAL", "every request passes with all rights")
    bypass_with_header: bool = setting(
        False, "AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER", "requests with Bypass-Auth: true pass"
    )
    bypass_jwt_signature: bool = setting(False, "AIGW_AUTH__BYPASS_JWT_SIGNATURE", "signatures are not checked")
    leeway_s: float = setting(60.0, "AIGW_AUTH__LEEWAY_S", "clock leeway")
    key_ttl_s: float = setting(3600.0, "AIGW_AUTH__KEY_TTL_S", "age at which issuers' keys are refreshed")
    key_refetch_s: float = setting(
        30.0, "AIGW_AUTH__KEY_REFETCH_S", "shortest time between refetches for an unknown key"
    )
    key_stale_s: float = setting(86400.0, "AIGW_AUTH__KEY_STALE_S", "how long stale keys serve")
    issuers: tuple[str, ...] = setting((), "AIGW_AUTH__ISSUERS", "allow-list of iss; empty: any")
    issuer_hosts: tuple[str, ...] = setting((), "AIGW_AUTH__ISSUER_HOSTS", "further hosts where jwks_uri may live")
    failures_per_minute: int = setting(
        50,
        "AIGW_AUTH__FAILURES_PER_MINUTE",
        "refused tokens per client address before no more cryptography; 0: no bound",
    )
    mint_per_minute: int = setting(600, "AIGW_AUTH__MINT_PER_MINUTE", "tokens minted per instance; 0: no bound")
    operator_token: Secret = setting(
        Secret(), "AIGW_OPERATOR_TOKEN", "opens dry runs (X-Torana-Dry-Run) to whoever sends it; 16 characters or more"
    )
    user_token_lifetime_s: float = setting(
        3600.0, "AIGW_USER_TOKEN__LIFETIME_S", "lifetime of user tokens, 60 to 3600 s"
    )
    user_token_unit_primitives: tuple[str, ...] = setting(
        (),
        "AIGW_USER_TOKEN__UNIT_PRIMITIVES",
        "unit primitives that user tokens may hold; empty: complete_code and ai_gateway_model_provider_proxy",
    )
    user_token_region: str = setting(
        "",
        "AIGW_USER_TOKEN__REGION",
        "region that user tokens are bound to; a gateway of another region, or of none, refuses them",
    )
    require_instance_uid: bool = setting(
        False,
        "AIGW_PROXY_ENDPOINTS__REQUIRE_INSTANCE_UID",
        "proxies refuse self-managed tokens without gitlab_instance_uid",
    )
    proxy_self_managed: tuple[str, ...] = setting(
        (), "AIGW_PROXY_ENDPOINTS__SELF_MANAGED_ENABLED", "instance uids that may use the proxies; empty: all"
    )
    proxy_saas: tuple[str, ...] = setting(
        (), "AIGW_PROXY_ENDPOINTS__SAAS_ENABLED", "root namespace ids that may use the proxies; empty: all"
    )
    classic_only: bool = setting(
        False, "AIGW_DUO_CHAT__CLASSIC_ONLY", "v2 chat asks for duo_classic_chat (contract 7.1)"
    )
    disallowed_flags: dict[str, Any] = setting(
        {}, "AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS", "JSON: realm → list of feature flags that are ignored"
    )
    portal_user: str = setting(
        "",
        ("AIGW_CUSTOMERSDOT__API_USER", "CUSTOMER_PORTAL_USAGE_QUOTA_API_USER"),
        "portal credentials; set both to switch the usage quota on",
    )
    portal_token: Secret = setting(
        Secret(), ("AIGW_CUSTOMERSDOT__API_TOKEN", "CUSTOMER_PORTAL_USAGE_QUOTA_API_TOKEN"), "portal credentials"
    )


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
    mtls_ca_bundle: str = setting("", "AIGW_MTLS__CA_BUNDLE", "PEM file trusted upstream")
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
        {}, "AIGW_CUSTOM_MODELS__EXTRA_HEADERS", "JSON: headers added to calls to clients' own servers"
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
        "post-processing steps left out",
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
    limits: LimitSettings = field(default_factory=LimitSettings)
    log: LogSettings = field(default_factory=LogSettings)
    warnings: tuple[str, ...] = ()
    """Lines for the log: names that mean nothing here."""

    @property
    def is_development(self) -> bool:
        return self.environment == "development"

    @property
    def state_path(self) -> Path:
        if self.state_dir:
            return Path(self.state_dir)
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser() / "torana"

    @property
    def spool_path(self) -> Path:
        return Path(self.usage.spool_dir) if self.usage.spool_dir else self.state_path / "usage"


MIN_OPERATOR_TOKEN_CHARS = 16

ACCEPTED_UNUSED = (
    "AIGW_GLGO_BASE_URL",
    "AIGW_AMAZON_Q__REGION",
    "AIGW_AMAZON_Q__ENDPOINT_URL",
    "AIGW_FASTAPI__RELOAD",
    "AIGW_SINK__",
    "AIGW_VERTEX_TEXT_MODEL__",
    "AIGW_VERTEX_SEARCH__",
    "AIGW_INTERNAL_EVENT__",
    "AIGW_BILLING_EVENT__",
    "AIGW_SNOWPLOW__",
    "AIGW_AUDIT_EVENT__",
    "AIGW_ABUSE_DETECTION__",
    "AIGW_INSTRUMENTATOR__",
)
"""Names of contract 16 and interface 4 that this version takes without acting on them; `…__` are prefixes."""


ADDRESS_NAMES = ("_BASE_URL", "_API_BASE", "_API_BASE_URL", "_ENDPOINT", "_HOST", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
"""How the environment names of vendors' addresses end."""


def is_address_name(name: str) -> bool:
    return name.endswith(ADDRESS_NAMES)


def load_settings(
    environ: Mapping[str, str], dotenv: Path | None = None, flags: Mapping[str, str] | None = None
) -> Settings:
    """Read flags, environment and `.env`, in this order of weight.

    flags   texts keyed by environment name, as the command line gave them
    Raises BadSetting for the first bad value of a known name.
    """
    found: dict[str, str] = {}
    for source in (_read_dotenv(dotenv), environ, flags or {}):
        found.update({name: value for name, value in source.items() if value != ""})
    check_values(found)
    settings: Settings = _read_struct(Settings, found)
    names = {name.removesuffix("_FILE") for name in found if name.removesuffix("_FILE").endswith("_API_KEY")}
    keys = {name: Secret(text) for name in names if (text := _text_of(name, Secret, found)) is not None}
    urls = {name: text.strip() for name, text in found.items() if is_address_name(name)}
    google = check_google(settings.providers.google)
    providers = replace(settings.providers, google=google, vendor_keys=keys, vendor_urls=urls)
    names = {name.removesuffix("_FILE") for name in found if name.startswith("AIGW_SINK__")}
    sink_secrets = {name: Secret(text) for name in names if (text := _text_of(name, Secret, found)) is not None}
    settings = replace(settings, providers=providers, usage=replace(settings.usage, sink_secrets=sink_secrets))
    object.__setattr__(settings, "warnings", tuple(_unknown_names(found)))
    if settings.log.level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise BadSetting(
            "AIGW_LOGGING__LEVEL",
            f"{settings.log.level!r} is no level",
            "expected DEBUG, INFO, WARNING, ERROR or CRITICAL",
        )
    if settings.serve.workers < 1:
        raise BadSetting("WEB_CONCURRENCY", f"{settings.serve.workers} is too few", "expected 1 or more")
    _check_serving(settings.serve)
    _check_limits(settings.limits)
    _check_urls(settings)
    _check_user_tokens(settings.auth)
    _check_search(settings.search)
    check_version("AIGW_CODE_CONTEXT_MIN_LS_VERSION", settings.catalogue.context_min_ls_version)
    if settings.usage.when_full not in ("refuse", "continue"):
        raise BadSetting(
            "AIGW_USAGE__WHEN_FULL", f"{settings.usage.when_full!r} is no policy", "expected refuse or continue"
        )
    if settings.providers.losses not in ("warn", "refuse", "drop"):
        raise BadSetting(
            "AIGW_DIALECT__LOSSES", f"{settings.providers.losses!r} is no policy", "expected warn, refuse or drop"
        )
    if settings.providers.demo_engine not in ("ngram", "local"):
        raise BadSetting(
            "AIGW_DEMO__ENGINE", f"{settings.providers.demo_engine!r} is no engine", "expected ngram or local"
        )
    return settings


def _check_limits(limits: LimitSettings) -> None:
    scheme = limits.redis_url.reveal().partition("://")[0]
    if limits.redis_url and scheme not in ("redis", "rediss", "unix"):
        raise BadSetting("AIGW_REDIS_URL", "is no address of Redis", "expected redis://, rediss:// or unix://")
    if not 0.001 <= limits.patience_s <= 5:
        raise BadSetting(
            "AIGW_LIMITS__PATIENCE_S", f"{limits.patience_s} is out of range", "expected 0.001 to 5 seconds"
        )
    if limits.replicas < 0:
        raise BadSetting("AIGW_LIMITS__REPLICAS", f"{limits.replicas} is too few", "expected 0 or more")


def _check_serving(serve: ServeSettings) -> None:
    check_networks("AIGW_TRUSTED_PROXIES", serve.trusted_proxies)
    check_path("AIGW_FASTAPI__DOCS_URL", serve.docs_url)
    check_path("AIGW_FASTAPI__OPENAPI_URL", serve.openapi_url)
    check_path("AIGW_FASTAPI__REDOC_URL", serve.redoc_url)
    check_prefix("AIGW_ROOT_PATH", serve.root_path)
    check_name("AIGW_GATEWAY_ID", serve.gateway_id)
    _check_weights(serve.queue_weights)
    if serve.tls_enabled:
        check_tls(serve.tls_cert_file, serve.tls_key_file, serve.tls_ciphers)


def _check_urls(settings: Settings) -> None:
    check_url("AIGW_PUBLIC_URL", settings.serve.public_url)
    check_url("AIGW_GITLAB_URL", settings.auth.gitlab_url)
    check_url("AIGW_GITLAB_API_URL", settings.auth.gitlab_api_url)
    check_url("AIGW_CUSTOMER_PORTAL_URL", settings.auth.customer_portal_url)
    check_url("ANTHROPIC_BASE_URL", settings.providers.anthropic_base_url)
    check_url("OPENAI_BASE_URL", settings.providers.openai_base_url)
    check_url("AIGW_INTERNAL_EVENT__ENDPOINT", settings.internal_events.endpoint)


def _check_weights(weights: Mapping[str, Any]) -> None:
    for instance, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1e6:
            raise BadSetting("AIGW_ADMISSION__WEIGHTS", f"{instance!r} has no share", "expected a number above 0")


def _check_user_tokens(auth: AuthSettings) -> None:
    """These settings may only narrow what the contract promises."""
    if auth.operator_token and len(auth.operator_token.reveal()) < MIN_OPERATOR_TOKEN_CHARS:
        expected = f"expected {MIN_OPERATOR_TOKEN_CHARS} characters or more, such as `openssl rand -hex 16` prints"
        raise BadSetting("AIGW_OPERATOR_TOKEN", "is too short", expected)
    if not 60 <= auth.user_token_lifetime_s <= MAX_USER_TOKEN_S:
        raise BadSetting(
            "AIGW_USER_TOKEN__LIFETIME_S",
            f"{auth.user_token_lifetime_s:g} is out of range",
            f"expected 60 to {MAX_USER_TOKEN_S} seconds",
        )
    unknown = set(auth.user_token_unit_primitives).difference(MINTABLE)
    if unknown:
        raise BadSetting(
            "AIGW_USER_TOKEN__UNIT_PRIMITIVES",
            f"{min(unknown)!r} may not be delegated",
            f"expected some of {', '.join(MINTABLE)}",
        )


def _check_search(search: SearchSettings) -> None:
    if search.fallback_release and not re.fullmatch(r"\d{1,4}\.\d{1,4}", search.fallback_release.strip(), re.ASCII):
        raise BadSetting(
            "AIGW_VERTEX_SEARCH__FALLBACK_DATASTORE_VERSION",
            f"{search.fallback_release!r} is no version",
            "expected X.Y such as 18.6",
        )


VENDORS_OWN = (
    "AIGW_MODEL_KEYS__MISTRAL_API_KEY",
    "AIGW_MODEL_KEYS__FIREWORKS_API_KEY",
    "AIGW_MODEL_KEYS__FIREWORKS_PROVIDER_API_KEY",
    "AIGW_FIREWORKS_API_BASE_URL",
)
"""Names of contract 16 that rows of providers.yml read (docs/reference/providers.md)."""


def known_settings() -> list[tuple[tuple[str, ...], str, str, str]]:
    """(names, type, default, doc) of every setting, for help texts and the generated table."""
    rows: list[tuple[tuple[str, ...], str, str, str]] = []
    for _, part, kind in _walk(Settings):
        default = part.default_factory() if callable(part.default_factory) else part.default
        rows.append(
            (
                part.metadata["env"],
                kind.__name__ if isinstance(kind, type) else str(kind),
                str(default),
                part.metadata["doc"],
            )
        )
    return rows


def _walk(struct: type) -> list[tuple[type, Field[Any], Any]]:
    found: list[tuple[type, Field[Any], Any]] = []
    hints = get_type_hints(struct)
    for part in fields(struct):
        if "env" in part.metadata:
            found.append((struct, part, hints[part.name]))
        elif is_dataclass(hints[part.name]):
            found.extend(_walk(hints[part.name]))
    return found


def _read_struct(struct: type, found: Mapping[str, str]) -> Any:
    hints = get_type_hints(struct)
    values: dict[str, Any] = {}
    for part in fields(struct):
        kind = hints[part.name]
        if is_dataclass(kind) and isinstance(kind, type):
            values[part.name] = _read_struct(kind, found)
            continue
        for name in part.metadata.get("env", ()):
            text = _text_of(name, kind, found)
            if text is not None:
                values[part.name] = _READERS[kind](name, text)
                break
    return struct(**values)


def _text_of(name: str, kind: Any, found: Mapping[str, str]) -> str | None:
    if name in found:
        return found[name]
    if kind is Secret and f"{name}_FILE" in found:
        try:
            # Bytes that are no text are whoever reads the secret to judge: a bad PEM key must not stop the start.
            return Path(found[f"{name}_FILE"]).read_text(encoding="utf-8", errors="replace").strip() or None
        except OSError as error:
            raise BadSetting(
                f"{name}_FILE", f"cannot be read ({type(error).__name__})", "expected a readable text file"
            ) from error
    return None


_READERS: dict[Any, Callable[[str, str], Any]] = {
    str: lambda _name, text: text,
    Secret: lambda _name, text: Secret(text),
    bool: read_bool,
    int: read_int,
    float: read_float,
    tuple[str, ...]: read_list,
    dict[str, Any]: read_object,
}


def _read_dotenv(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    from dotenv import dotenv_values  # only where there is such a file

    return {name: value for name, value in dotenv_values(path).items() if value is not None}


def _unknown_names(found: Mapping[str, str]) -> list[str]:
    known = {name for names, *_ in known_settings() for name in names}
    secrets = {f"{name}_FILE" for _, part, kind in _walk(Settings) if kind is Secret for name in part.metadata["env"]}
    accepted = (*ACCEPTED_UNUSED, *VENDORS_OWN, *(f"{name}_FILE" for name in VENDORS_OWN))
    lines = []
    for name in sorted(found):
        if not name.startswith("AIGW_") or name in known or name in secrets:
            continue
        if any(name == used or (used.endswith("__") and name.startswith(used)) for used in accepted):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        lines.append(f"{name}: unknown setting, ignored; the nearest known name is {near[0]}")
    return lines
