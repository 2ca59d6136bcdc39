"""Settings: where they come from, what they may hold, what is said of bad ones (interface 3 and 4, contract 16)."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.environment import known_settings, load_settings
from torana.errors import BadSetting
from torana.setting_values import read_bool, read_float, read_int, read_list, read_object
from torana.settings import Secret


def test_a_flag_wins_over_the_environment_and_that_over_the_env_file_and_that_over_the_default(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text('WEB_CONCURRENCY=2\nAIGW_FASTAPI__API_PORT=2\nAIGW_ENVIRONMENT="from file" # a comment\n')

    found = load_settings({"WEB_CONCURRENCY": "3", "AIGW_FASTAPI__API_PORT": "3"}, dotenv, {"WEB_CONCURRENCY": "4"})

    assert (found.serve.workers, found.serve.port, found.environment) == (4, 3, "from file")
    assert found.serve.metrics_port == 8082


def test_an_empty_value_counts_as_unset_wherever_it_stands(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("WEB_CONCURRENCY=2\nAIGW_GITLAB_URL=\n")

    found = load_settings({"WEB_CONCURRENCY": "", "AIGW_FASTAPI__API_PORT": ""}, dotenv)

    assert (found.serve.workers, found.serve.port) == (2, 5052)
    assert found.auth.gitlab_url == "https://gitlab.com"


def test_what_stands_around_a_value_is_no_part_of_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-file\n")
    env = {"ANTHROPIC_API_KEY": "sk-env\n", "ACME_API_KEY": " sk-own\r\n", "OPENAI_API_KEY_FILE": f"{key}\r"}

    found = load_settings({**env, "AIGW_GITLAB_URL": "https://gitlab.example.com\r", "AIGW_REGION": " \n"})

    assert found.providers.anthropic_api_key.reveal() == "sk-env"
    assert found.providers.openai_api_key.reveal() == "sk-file"
    assert found.providers.vendor_keys["ACME_API_KEY"].reveal() == "sk-own"
    assert (found.auth.gitlab_url, found.routing.region) == ("https://gitlab.example.com", "")


def test_all_bad_values_are_told_at_once(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AIGW_FASTAPI__API_PORT=high\n")
    env = {"AIGW_LOGGING__LEVEL": "LOUD", "ANTHROPIC_API_KEY_FILE": "gone", "AIGW_GITLAB_URL": "gitlab.example.com"}

    with pytest.raises(BadSetting) as caught:
        load_settings(env, dotenv, {"WEB_CONCURRENCY": "0"})

    assert sorted(line.partition(": ")[0] for line in str(caught.value).splitlines()) == [
        "AIGW_FASTAPI__API_PORT",
        "AIGW_GITLAB_URL",
        "AIGW_LOGGING__LEVEL",
        "ANTHROPIC_API_KEY_FILE",
        "WEB_CONCURRENCY",
    ]


def test_without_any_source_the_defaults_are_those_of_the_contract() -> None:
    found = load_settings({}, Path("no such file"))

    assert (found.environment, found.serve.host, found.serve.port, found.serve.metrics_port) == (
        "production", "127.0.0.1", 5052, 8082,
    )  # fmt: skip
    assert (found.serve.max_body_bytes, found.serve.max_proxy_body_bytes) == (16 * 2**20, 32 * 2**20)
    assert (found.serve.max_header_bytes, found.serve.max_uri_bytes) == (32768, 8192)
    assert (found.auth.service_name, found.auth.leeway_s) == ("gitlab-ai-gateway", 60)
    assert (found.transport.connect_s, found.transport.first_byte_s, found.transport.idle_s) == (3, 30, 60)
    assert (found.serve.drain_s, found.transport.request_s, found.routing.tries) == (60, 600, 2)
    assert found.warnings == ()


def test_the_first_name_of_several_wins() -> None:
    both = {"AIGW_CLOUD_CONNECTOR_SERVICE_NAME": "new", "CLOUD_CONNECTOR_SERVICE_NAME": "old"}

    assert load_settings(both).auth.service_name == "new"
    assert load_settings({"CLOUD_CONNECTOR_SERVICE_NAME": "old"}).auth.service_name == "old"


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("AIGW_CLOUD_CONNECTOR_SERVICE_NAME=from the env file\n", "CLOUD_CONNECTOR_SERVICE_NAME"),
        ("CLOUD_CONNECTOR_SERVICE_NAME=from the env file\n", "AIGW_CLOUD_CONNECTOR_SERVICE_NAME"),
    ],
)
def test_the_environment_wins_over_the_env_file_whichever_name_each_uses(
    tmp_path: Path, weaker: str, stronger: str
) -> None:
    (tmp_path / ".env").write_text(weaker)

    assert load_settings({stronger: "environment"}, tmp_path / ".env").auth.service_name == "environment"


def test_a_name_that_several_settings_share_gives_way_only_where_each_reads_another(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RUNWAY_REGION=europe-west1\n")

    found = load_settings({"AIGW_REGION": "here"}, tmp_path / ".env")

    assert (found.routing.region, found.providers.google.location) == ("here", "europe-west1")


def test_a_bad_value_under_the_second_name_of_a_setting_is_named_too() -> None:
    both = {"AIGW_LOGGING__ENABLE_REQUEST_LOGGING": "true", "AIGW_LOGGING__ENABLE_LITELLM_LOGGING": "maybe"}

    with pytest.raises(BadSetting, match=r"^AIGW_LOGGING__ENABLE_LITELLM_LOGGING: 'maybe' is no boolean"):
        load_settings(both)


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  key-in-a-file\n")

    from_file = load_settings({"ANTHROPIC_API_KEY_FILE": str(file)})
    both = load_settings({"ANTHROPIC_API_KEY_FILE": str(file), "ANTHROPIC_API_KEY": "plain"})

    assert from_file.providers.anthropic_api_key.reveal() == "key-in-a-file"
    assert both.providers.anthropic_api_key.reveal() == "plain"
    assert from_file.warnings == ()


def test_a_secrets_file_of_the_environment_wins_over_the_secret_of_the_env_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from the environment")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=from the env file\n")

    found = load_settings({"OPENAI_API_KEY_FILE": str(tmp_path / "key")}, tmp_path / ".env")

    assert found.providers.openai_api_key.reveal() == "from the environment"


def test_what_stands_in_single_quotes_in_an_env_file_is_taken_as_it_is(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("A=1\nANTHROPIC_API_KEY='sk-${A}-$B'\nexport OPENAI_API_KEY = 'k${A}'\nAIGW_STATE_DIR=/x/${A}\n")

    found = load_settings({}, dotenv)

    keys = found.providers.anthropic_api_key, found.providers.openai_api_key
    assert [key.reveal() for key in keys if key] == ["sk-${A}-$B", "k${A}"]
    assert found.state_dir == "/x/1"


def test_a_line_of_an_env_file_that_says_nothing_is_told_without_its_words(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('WEB_CONCURRENCY=2\nOPENAI_API_KEY sk-secret\nANTHROPIC_API_KEY="sk-secret\n')

    found = load_settings({}, tmp_path / ".env")

    assert found.serve.workers == 2
    assert found.warnings == tuple(f"{tmp_path}/.env: line {line} is no NAME=value, ignored" for line in (2, 3))


def test_an_env_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"WEB_CONCURRENCY=\xff")

    with pytest.raises(BadSetting, match=r"\.env: cannot be read .*, expected NAME=value lines in UTF-8$"):
        load_settings({}, tmp_path / ".env")


@pytest.mark.parametrize("text", ["AIGW_STATE_DIR=/tmp/a\0b\n", "A\0I\0G\0W\0_\0X\0=\x001\0\n\0"])
def test_an_env_file_with_signs_that_no_text_has_is_named(tmp_path: Path, text: str) -> None:
    """As UTF-16 has them, without the mark at its beginning."""
    (tmp_path / ".env").write_text(text)

    with pytest.raises(BadSetting, match=r"\.env: cannot be read .*, expected NAME=value lines in UTF-8$"):
        load_settings({}, tmp_path / ".env")


def test_an_env_file_that_cannot_be_looked_for_is_named(tmp_path: Path) -> None:
    """As in the working directory of another user, whom the server is started by."""
    with pytest.raises(BadSetting, match=r"\.env: cannot be read .*, expected NAME=value lines in UTF-8$"):
        load_settings({}, tmp_path / ("x" * 300) / ".env")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None])
def test_a_secrets_file_that_cannot_be_read_is_named(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "key")

    with pytest.raises(BadSetting, match=r"^OPENAI_API_KEY_FILE: cannot be read .*, expected a readable text file$"):
        load_settings({"OPENAI_API_KEY_FILE": str(tmp_path / "key")})


def test_a_mark_that_editors_begin_a_file_with_is_no_part_of_the_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-1\r\n")

    found = load_settings({"OPENAI_API_KEY_FILE": str(tmp_path / "key")})

    assert found.providers.openai_api_key.reveal() == "sk-1"


def test_folders_may_be_named_from_the_home_directory_on() -> None:
    found = load_settings({"AIGW_STATE_DIR": "~/state", "AIGW_USAGE__SPOOL_DIR": "~/usage"})

    assert (found.state_path, found.spool_path) == (Path.home() / "state", Path.home() / "usage")


def test_secrets_never_print_themselves() -> None:
    found = load_settings({"OPENAI_API_KEY": "canary", "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": "canary"})

    assert "canary" not in f"{found!r} {found} {found.providers.openai_api_key!s}"
    assert (repr(Secret("x")), repr(Secret())) == ("***", "(none)")


@pytest.mark.parametrize("level", ["debug", "WARN", "Fatal"])
def test_levels_go_by_all_their_names(level: str) -> None:
    assert load_settings({"AIGW_LOGGING__LEVEL": level}).log.level == level


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("AIGW_FASTAPI__API_PORT", "many", "'many' is no whole number"),
        ("AIGW_FASTAPI__API_PORT", "65536", "65536 is out of range"),
        ("AIGW_FASTAPI__METRICS_PORT", "-1", "-1 is out of range"),
        ("WEB_CONCURRENCY", "1.5", "'1.5' is no whole number"),
        ("WEB_CONCURRENCY", "0", "0 is too few"),
        ("WEB_CONCURRENCY", "1025", "1025 is too many"),
        ("AIGW_AUTH__ISSUERS", '[{"iss": "a"}]', "is no JSON list of texts"),
        ("AIGW_AUTH__ISSUERS", "[true]", "is no JSON list of texts"),
        ("AIGW_TIMEOUTS__FIRST_BYTE_S", "0", "'0' leaves nothing"),
        ("AIGW_TIMEOUTS__IDLE_S", "0.0", "'0.0' leaves nothing"),
        ("AIGW_DUO_CHAT__MODEL_REQUEST_TIMEOUT", "0", "'0' leaves nothing"),
        ("AIGW_PROMPTS__MAX_OUTPUT_CHARS", "0", "'0' leaves nothing"),
        ("AIGW_PROMPTS__MAX_ITERATIONS", "0", "'0' leaves nothing"),
        ("AIGW_SERVER__HEADER_TIMEOUT_S", "0", "'0' leaves nothing"),
        ("AIGW_SERVER__BODY_TIMEOUT_S", "0", "'0' leaves nothing"),
        ("AIGW_SERVER__WRITE_TIMEOUT_S", "0", "'0' leaves nothing"),
        ("AIGW_USAGE__MAX_SPOOL_BYTES", "0", "'0' leaves nothing"),
        ("AIGW_MAX_BODY_BYTES", "16MB", "'16MB' is no whole number"),
        ("AIGW_SERVER__DRAIN_S", "1m", "'1m' is no duration"),
        ("AIGW_SERVER__DRAIN_S", "inf", "'inf' is no duration"),
        ("AIGW_AUTH__LEEWAY_S", "-1", "'-1' is no duration"),
        ("AIGW_AUTH__BYPASS_EXTERNAL", "maybe", "'maybe' is no boolean"),
        ("AIGW_AUTH__ISSUERS", "[1", "is no JSON list"),
        ("AIGW_AUTH__ISSUERS", "{}", "is no JSON list"),
        ("AIGW_DEFAULT_PROMPTS", "x", "is no JSON object"),
        ("AIGW_DEFAULT_PROMPTS", "[]", "is no JSON object"),
        ("AIGW_LOGGING__LEVEL", "loud", "'loud' is no level"),
        ("AIGW_DEMO__ENGINE", "gpt", "'gpt' is no engine"),
        ("AIGW_TRUSTED_PROXIES", "10.0.0.0/8,proxy", "'proxy' is no address"),
        ("AIGW_AUTH__ISSUER_HOSTS", "https://keys.example.com", "'https://keys.example.com' is no host"),
        ("AIGW_AUTH__ISSUER_HOSTS", "keys.example.com,*.example.org", "'*.example.org' is no host"),
        ("AIGW_FASTAPI__DOCS_URL", "docs", "'docs' is no path"),
        ("AIGW_FASTAPI__DOCS_URL", "/docs?all", "'/docs?all' is no path"),
        ("AIGW_FASTAPI__OPENAPI_URL", "/open api.json", "'/open api.json' is no path"),
        ("AIGW_PUBLIC_URL", "gateway.example", "'gateway.example' is no URL"),
        ("AIGW_GITLAB_URL", "gitlab.example", "'gitlab.example' is no URL"),
        ("ANTHROPIC_BASE_URL", "http://", "'http://' is no URL"),
        ("OPENAI_BASE_URL", "localhost:11434/v1", "'localhost:11434/v1' is no URL"),
        ("AIGW_GITLAB_API_URL", "gitlab.example/api/v4/", "'gitlab.example/api/v4/' is no URL"),
        ("AIGW_GITLAB_URL", "http://[gitlab", "'http://[gitlab' is no URL"),
        ("AIGW_GITLAB_URL", "http://gitlab.example:99999", "'http://gitlab.example:99999' is no URL"),
        ("AIGW_PUBLIC_URL", "https://gateway.example/ ai", "'https://gateway.example/ ai' is no URL"),
        ("OPENAI_BASE_URL", "http://user:canary@vllm/v1", "names a user or a password"),
        ("ANTHROPIC_BASE_URL", "http://proxy/?key=canary", "has a query or a fragment"),
        ("OPENAI_BASE_URL", "http://a.example/openai/v1?api-version=preview", "has a query or a fragment"),
        ("AIGW_GITLAB_URL", "https://gitlab.example?key=canary", "has a query or a fragment"),
        ("AIGW_CUSTOMER_PORTAL_URL", "https://portal.example/#canary", "has a query or a fragment"),
        ("AIGW_PUBLIC_URL", "https://gateway.example/ai?", "has a query or a fragment"),
        ("AIGW_GITLAB_URL", "https://user:canary@gitlab.example", "names a user or a password"),
        ("AIGW_GITLAB_URL", "user:canary@gitlab.example", "is no URL"),
        ("AIGW_REDIS_URL", "redis://[store", "is no address of Redis"),
        ("AIGW_REDIS_URL", "redis://store:port", "is no address of Redis"),
        ("HTTPS_PROXY", "http://[proxy", "is no address of a proxy"),
        ("http_proxy", "socks5://proxy:1080", "is no address of a proxy"),
        ("AIGW_TIMEOUTS__CONNECT_S", "0", "'0' leaves nothing"),
        ("AIGW_TIMEOUTS__REQUEST_S", "0.0", "'0.0' leaves nothing"),
        ("AIGW_ROUTING__TRIES", "0", "'0' leaves nothing"),
        ("AIGW_MAX_BODY_BYTES", "0", "'0' leaves nothing"),
        ("AIGW_ADMISSION__BODY_BYTES", "0", "'0' leaves nothing"),
        ("AIGW_MAX_HEADER_BYTES", "0", "'0' leaves nothing"),
        ("AIGW_MAX_URI_BYTES", "0", "'0' leaves nothing"),
        ("AIGW_GATEWAY_ID", "two words", "'two words' is no id"),
        ("AIGW_ROOT_PATH", "/a b", "'/a b' is no path"),
        ("AIGW_ROOT_PATH", "/a?b", "'/a?b' is no path"),
        ("AIGW_ROOT_PATH", "/a//b", "'/a//b' is no path"),
        ("AIGW_ROOT_PATH", "a" * 40 + "?", f"'{'a' * 40}?' is no path"),  # at once
        ("AIGW_ROOT_PATH", "/a/../b", "'/a/../b' is no path"),
        ("AIGW_ROOT_PATH", "./a", "'./a' is no path"),
        ("AIGW_ROOT_PATH", "/v1", "'/v1' hides routes"),
        ("AIGW_ROOT_PATH", "/ai/v1", "'/ai/v1' hides routes"),
        ("AIGW_ROOT_PATH", "monitoring/", "'monitoring/' hides routes"),
        ("AIGW_CODE_CONTEXT_MIN_LS_VERSION", "new", "'new' is no version"),
        ("AIGW_MODEL_SELECTION__MODEL_PARAMS", "[", "is no JSON object"),
        ("AIGW_MODEL_SELECTION__PROMPT_PARAMS", "[]", "is no JSON object"),
        ("AIGW_FEATURE_FLAGS__FIREWORKS_SCORE_THRESHOLD", "1", "is no JSON object"),
        ("AIGW_FASTAPI__RELOAD", "maybe", "'maybe' is no boolean"),
        ("AIGW_ABUSE_DETECTION__ENABLED", "maybe", "'maybe' is no boolean"),
        ("AIGW_SNOWPLOW__ENABLED", "maybe", "'maybe' is no boolean"),
        ("AIGW_ABUSE_DETECTION__SAMPLING_RATE", "often", "'often' is no share, expected 0 to 1"),
        ("AIGW_DEFAULT_PROMPTS", '{"chat/react": 1}', "'chat/react' is no text"),
        ("AIGW_MODEL_SELECTION__DEFAULT_MODELS", '{"duo_chat": ["a"]}', "'duo_chat' is no text"),
        ("AIGW_MODEL_SELECTION__MODEL_PARAMS", '{"m": 1}', "'m' is no object"),
        ("AIGW_MODEL_SELECTION__PROMPT_PARAMS", '{"p": {"max_tokens": 1.5}}', "p.max_tokens is 1.5"),
        ("AIGW_MODEL_SELECTION__PROMPT_PARAMS", '{"p": {"timeout": "x"}}', 'p.timeout is "x"'),
        ("AIGW_MODEL_ENGINE_LIMITS", '{"a": 1}', "'a' is no object"),
        ("AIGW_DIALECT__LOSSES", "maybe", "'maybe' is no policy"),
        ("AIGW_ABUSE_DETECTION__SAMPLING_RATE", "2", "2.0 is no share"),
        ("AIGW_LIMITS__PATIENCE_S", "9", "9.0 is out of range"),
        ("AIGW_LIMITS__REPLICAS", "-1", "-1 is out of range"),
        ("AIGW_ADMISSION__WEIGHTS", '{"a": -1}', "'a' has no share"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json", "cannot be read (FileNotFoundError)"),
        ("AIGW_GOOGLE_CLOUD_PLATFORM__PROJECT", "my/project", "'my/project' is no project"),
        ("AIGW_GOOGLE_CLOUD_PLATFORM__LOCATION", "eu/west", "'eu/west' is no location"),
        ("AIGW_MODEL_ENGINE_CONCURRENCY_LIMITS", '{"a": {"b": "c"}}', "a.b.concurrency is no known limit"),
        ("AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS", '{"saas": "a"}', "'saas' is no list of texts"),
        ("AIGW_FEATURE_FLAGS__FIREWORKS_SCORE_THRESHOLD", '{"m": "x"}', "'m' is no number"),
        ("AIGW_CUSTOM_MODELS__EXTRA_HEADERS", '{"X-A": 1}', "'X-A' is no text"),
        ("AIGW_CUSTOM_MODELS__EXTRA_HEADERS", '{"X A": "b"}', "'X A' cannot be sent"),
        ("AIGW_CUSTOM_MODELS__EXTRA_HEADERS", '{"X-A": "b\\nc"}', "'X-A' cannot be sent"),
        ("AIGW_CUSTOM_MODELS__EXTRA_HEADERS", '{"Host": "b"}', "'Host' cannot be sent"),
        ("AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS", '{"us": {}}', "'us' has no endpoint"),
        ("AIGW_CUSTOM_MODELS__EXTRA_HEADERS", '{"X-A": "\u2192"}', "'X-A' cannot be sent"),
        ("AIGW_CUSTOM_MODELS__EXTRA_HEADERS", '{"X-A": "b\\u0001c"}', "'X-A' cannot be sent"),
        ("AIGW_DEFAULT_PROMPTS", '{"a":' * 100_000, "is no JSON object"),
        ("AIGW_AUTH__ISSUERS", "[" * 100_000, "is no JSON list"),
        ("AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY", '{"a":' * 100_000, "is no key"),
        ("ANTHROPIC_API_KEY", "sk-old\nsk-new", "is no key that a request can bring"),
        ("OPENAI_API_KEY", "sk-\u2026", "is no key that a request can bring"),
        ("AWS_BEARER_TOKEN_BEDROCK", "a\0b", "is no key that a request can bring"),
        ("AIGW_OPERATOR_TOKEN", "open \u2192 sesame, and close", "is no key that a request can bring"),
        ("AIGW_CUSTOMERSDOT__API_TOKEN", "one\r\nother", "is no key that a request can bring"),
        ("VERTEXAI_PROJECT", "my/project", "'my/project' is no project"),
        ("RUNWAY_REGION", "eu/west", "'eu/west' is no location"),
    ],
)
def test_a_bad_value_is_named_with_what_is_wrong_and_what_is_expected(name: str, value: str, wrong: str) -> None:
    with pytest.raises(BadSetting) as raised:
        load_settings({name: value})

    said = str(raised.value)
    assert said.startswith(f"{name}: {wrong}")
    assert ", expected " in said
    assert "\n" not in said


def test_https_without_a_usable_certificate_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")

    for cert in ("", "missing.pem", str(tmp_path / "cert.pem")):
        with pytest.raises(BadSetting, match="AIGW_FASTAPI__TLS__CERT_FILE: "):
            load_settings({"AIGW_FASTAPI__TLS__ENABLED": "true", "AIGW_FASTAPI__TLS__CERT_FILE": cert})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("AIGW_LOGING__LEVEL", "AIGW_LOGGING__LEVEL"),
        ("AIGW_FASTAPI__PORT", "AIGW_FASTAPI__API_PORT"),
        ("AIGW_SELF_SIGNED_JWT_SIGNING_KEY", "AIGW_SELF_SIGNED_JWT__SIGNING_KEY"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest_known_one(name: str, nearest: str) -> None:
    assert load_settings({name: "x", "HOME": "/"}).warnings == (
        f"{name}: unknown setting, ignored; the nearest known name is {nearest}",
    )


NAMES = """
AIGW_ENVIRONMENT AIGW_GITLAB_URL AIGW_GITLAB_API_URL AIGW_CUSTOMER_PORTAL_URL AIGW_CLOUD_CONNECTOR_SERVICE_NAME
AIGW_GLGO_BASE_URL AIGW_MOCK_MODEL_RESPONSES AIGW_LOGGING__LEVEL AIGW_LOGGING__FORMAT_JSON AIGW_LOGGING__TO_FILE
AIGW_LOGGING__ENABLE_REQUEST_LOGGING AIGW_LOGGING__ENABLE_LITELLM_LOGGING AIGW_FASTAPI__API_HOST
AIGW_FASTAPI__API_PORT AIGW_FASTAPI__METRICS_HOST AIGW_FASTAPI__METRICS_PORT AIGW_FASTAPI__DOCS_URL
AIGW_FASTAPI__OPENAPI_URL AIGW_FASTAPI__REDOC_URL AIGW_FASTAPI__RELOAD AIGW_FASTAPI__TLS__ENABLED
AIGW_FASTAPI__TLS__CERT_FILE AIGW_FASTAPI__TLS__KEY_FILE AIGW_FASTAPI__TLS__SSL_CIPHERS AIGW_AUTH__BYPASS_EXTERNAL
AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER AIGW_AUTH__BYPASS_JWT_SIGNATURE AIGW_SELF_SIGNED_JWT__SIGNING_KEY
AIGW_SELF_SIGNED_JWT__VALIDATION_KEY AIGW_CUSTOM_MODELS__ENABLED AIGW_CUSTOM_MODELS__DISABLE_STREAMING
AIGW_CUSTOM_MODELS__EXTRA_HEADERS AIGW_MTLS__ENABLED AIGW_MTLS__CERT_FILE AIGW_MTLS__KEY_FILE AIGW_MTLS__KEY_PASSWORD
AIGW_MTLS__CA_BUNDLE AIGW_MTLS__VERIFY AIGW_MODEL_KEYS__MISTRAL_API_KEY AIGW_MODEL_KEYS__FIREWORKS_API_KEY
AIGW_MODEL_KEYS__FIREWORKS_PROVIDER_API_KEY AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS
AIGW_FIREWORKS_API_BASE_URL AIGW_MODEL_SELECTION__DEFAULT_MODELS AIGW_MODEL_SELECTION__MODEL_PARAMS
AIGW_MODEL_SELECTION__PROMPT_PARAMS AIGW_DEFAULT_PROMPTS AIGW_DUO_CHAT__MAX_TOKENS
AIGW_DUO_CHAT__MODEL_REQUEST_TIMEOUT AIGW_MODEL_ENGINE_LIMITS AIGW_MODEL_ENGINE_CONCURRENCY_LIMITS
AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS AIGW_FEATURE_FLAGS__EXCL_POST_PROCESS
AIGW_F__CODE_SUGGESTIONS__EXCL_POST_PROC AIGW_FEATURE_FLAGS__FIREWORKS_SCORE_THRESHOLD
AIGW_GOOGLE_CLOUD_PLATFORM__PROJECT AIGW_GOOGLE_CLOUD_PLATFORM__LOCATION
AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY AIGW_VERTEX_TEXT_MODEL__PROJECT
AIGW_VERTEX_SEARCH__FALLBACK_DATASTORE_VERSION AIGW_AMAZON_Q__REGION AIGW_AMAZON_Q__ENDPOINT_URL
AIGW_PROXY_ENDPOINTS__SELF_MANAGED_ENABLED AIGW_PROXY_ENDPOINTS__SAAS_ENABLED AIGW_INTERNAL_EVENT__ENABLED
AIGW_BILLING_EVENT__ENABLED AIGW_SNOWPLOW__ENDPOINT AIGW_AUDIT_EVENT__ENABLED AIGW_ABUSE_DETECTION__ENABLED
AIGW_ABUSE_DETECTION__SAMPLING_RATE AIGW_INSTRUMENTATOR__THREAD_MONITORING_ENABLED AIGW_CUSTOMERSDOT__API_USER
AIGW_CUSTOMERSDOT__API_TOKEN AIGW_CATALOG AIGW_CATALOG_WATCH AIGW_STATE_DIR AIGW_PUBLIC_URL AIGW_ROOT_PATH
AIGW_GATEWAY_ID AIGW_TRUSTED_PROXIES AIGW_EXTRA_CA AIGW_REDIS_URL AIGW_MAX_BODY_BYTES AIGW_MAX_PROXY_BODY_BYTES
AIGW_MAX_MINT_BODY_BYTES AIGW_MAX_HEADER_BYTES AIGW_MAX_URI_BYTES AIGW_SERVER__HEADER_TIMEOUT_S
AIGW_SERVER__BODY_TIMEOUT_S AIGW_SERVER__KEEPALIVE_IDLE_S AIGW_SERVER__WRITE_TIMEOUT_S AIGW_SERVER__DRAIN_S
AIGW_STREAM__KEEPALIVE_S AIGW_TIMEOUTS__CONNECT_S AIGW_TIMEOUTS__FIRST_BYTE_S AIGW_TIMEOUTS__IDLE_S
AIGW_TIMEOUTS__REQUEST_S AIGW_ROUTING__TRIES AIGW_AUTH__LEEWAY_S AIGW_AUTH__KEY_TTL_S AIGW_AUTH__KEY_REFETCH_S
AIGW_AUTH__KEY_STALE_S AIGW_AUTH__ISSUERS AIGW_AUTH__ISSUER_HOSTS AIGW_AUTH__FAILURES_PER_MINUTE
AIGW_AUTH__MINT_PER_MINUTE AIGW_PROXY_ENDPOINTS__REQUIRE_INSTANCE_UID AIGW_CODE_CONTEXT_MIN_LS_VERSION
AIGW_DUO_CHAT__CLASSIC_ONLY AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS AIGW_DOCS_SEARCH__INDEX
AIGW_PROMPTS__MAX_OUTPUT_CHARS AIGW_PROMPTS__MAX_ITERATIONS AIGW_OPENAI_MODEL AIGW_DEMO__ENGINE AIGW_DETAIL_HEADERS
AIGW_USAGE__SPOOL_DIR AIGW_USAGE__WHEN_FULL
"""
"""Contract 16 and interface 4."""


def test_no_name_of_the_contract_or_the_interface_is_unknown() -> None:
    for name in NAMES.split():
        try:
            found: Any = load_settings({name: "x"}).warnings
        except BadSetting:  # a bad value of a known name
            found = ()
        assert found == (), name


def test_every_setting_is_described_for_the_table() -> None:
    rows = known_settings()
    names = [name for group, *_ in rows for name in group]

    # Where the gateway stands is also where Google's models are asked for, unless one of both says otherwise.
    assert [name for name in set(names) if names.count(name) > 1] == ["RUNWAY_REGION"]
    assert all(doc and kind for _, kind, _, doc in rows)


@pytest.mark.parametrize("text", ["/gateway", "gateway", "/a/b-c/", "/"])
def test_a_path_prefix_may_have_slashes_at_its_ends_or_none(text: str) -> None:
    assert load_settings({"AIGW_ROOT_PATH": text}).serve.root_path == text


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "ON", " on "])
def test_booleans_are_true_in_four_ways(text: str) -> None:
    assert read_bool("N", text) is True


@pytest.mark.parametrize("text", ["false", "0", "No", "off"])
def test_booleans_are_false_in_four_ways(text: str) -> None:
    assert read_bool("N", text) is False


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a", ("a",)), ("a, b ,,c", ("a", "b", "c")),
        ('["a", "b,c"]', ("a", "b,c")), ("[]", ()), ("[1, 2]", ("1", "2")),
        (" , ", ()),
    ],
)  # fmt: skip
def test_lists_are_commas_or_json(text: str, items: tuple[str, ...]) -> None:
    assert read_list("N", text) == items


@settings(max_examples=150)
@given(text=st.text(max_size=20) | st.sampled_from(["[", "{", "[[[", "1e999", "-0", "٣", "nan", "{}", "[null]"]))
def test_any_text_is_read_or_refused_with_the_settings_name(text: str) -> None:
    for read in (read_bool, read_int, read_float, read_list, read_object):
        try:
            value: Any = read("NAME", text)  # type: ignore[operator]
        except BadSetting as error:
            value = error.name
        assert value == "NAME" or not isinstance(value, float | int) or value >= 0
