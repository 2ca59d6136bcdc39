"""The environment, read once and checked: names and texts → `Settings`. The only reader of it.

Which source wins is in `docs/reference/settings.md`: flag, environment, `.env`, default. An empty
value counts as unset. For every secret `NAME`, `NAME_FILE` may name a file that holds it. A bad
value of a known name raises BadSetting; unknown `AIGW_*` names are reported, never fatal.
"""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from torana.auth_settings import MAX_USER_TOKEN_S, MINTABLE, AuthSettings
from torana.cloud_settings import check_google
from torana.errors import BadSetting, BadSettings
from torana.setting_checks import check_values
from torana.setting_values import (
    Secret,
    check_hosts,
    check_key,
    check_name,
    check_networks,
    check_path,
    check_prefix,
    check_tls,
    check_url,
    check_version,
    is_redis_url,
    read_bool,
    read_float,
    read_int,
    read_list,
    read_object,
)
from torana.settings import (
    MAX_WORKERS,
    MIN_OPERATOR_TOKEN_CHARS,
    LimitSettings,
    SearchSettings,
    ServeSettings,
    Settings,
)

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
    "AIGW_INSTRUMENTATOR__",
)
"""Names of contract 16 and interface 4 that this version takes without acting on them; `…__` are prefixes."""


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "WARN", "FATAL")
"""Of the log; the last two are old names that Python's own takes as well."""

_SENT = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_SESSION_TOKEN",
    "AIGW_CUSTOMERSDOT__API_TOKEN",
    "CUSTOMER_PORTAL_USAGE_QUOTA_API_TOKEN",
    "AIGW_OPERATOR_TOKEN",
)
"""Secrets that requests bring as they are. Other vendors' keys are checked where a row of providers.yml names them."""

ADDRESS_NAMES = ("_BASE_URL", "_API_BASE", "_API_BASE_URL", "_ENDPOINT", "_HOST", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
"""How the environment names of vendors' addresses end."""


_SINGLE_QUOTED = re.compile(r"[^#=]*=[^\S\r\n]*'")
"""How a line of `.env` begins whose value stands so."""


def is_address_name(name: str) -> bool:
    return name.endswith(ADDRESS_NAMES)


def load_settings(
    environ: Mapping[str, str], dotenv: Path | None = None, flags: Mapping[str, str] | None = None
) -> Settings:
    """Read flags, environment and `.env`, in this order of weight.

    flags   texts keyed by environment name, as the command line gave them
    Raises BadSetting for a bad value of a known name, BadSettings for several.
    """
    found = _merge(environ, dotenv, flags or {})
    faults: list[BadSetting] = []
    while True:
        try:
            settings = _read(found)
        except BadSetting as fault:
            # Read once more without it, for whatever else is wrong; what is no value of its own has a cause elsewhere.
            given = [name for name in (fault.name, f"{fault.name}_FILE") if found.pop(name, None) is not None]
            if given or not faults:
                faults.append(fault)
            if given:
                continue
        break
    if faults:
        raise faults[0] if len(faults) == 1 else BadSettings(faults)
    object.__setattr__(settings, "warnings", (*settings.warnings, *_unread_lines(dotenv)))
    return settings


def _merge(environ: Mapping[str, str], dotenv: Path | None, flags: Mapping[str, str]) -> dict[str, str]:
    """What is set, by name: of each setting what its strongest source says."""
    found: dict[str, str] = {}
    other_names = _other_names()
    for source in (_read_dotenv(dotenv), environ, flags):
        # Secrets of Kubernetes and files with Windows' line ends bring a line end along; no setting means one.
        told = {name: value.strip() for name, value in source.items() if value.strip()}
        for name in told:
            # A stronger source's word counts under whichever of its names a setting was given there. Vendors' keys
            # are no settings; their files are names of theirs all the same.
            for other in other_names.get(name, (name.removesuffix("_FILE"),)):
                found.pop(other, None)
        found.update(told)
    return found


def _read(found: Mapping[str, str]) -> Settings:
    """Raises BadSetting for the first fault."""
    check_values(found)
    settings: Settings = _read_struct(Settings, found)
    names = {name.removesuffix("_FILE") for name in found if name.removesuffix("_FILE").endswith("_API_KEY")}
    keys = {name: Secret(text) for name in names if (text := _text_of(name, Secret, found)) is not None}
    urls = {name: text.strip() for name, text in found.items() if is_address_name(name)}
    google = check_google(settings.providers.google, found)
    providers = replace(settings.providers, google=google, vendor_keys=keys, vendor_urls=urls)
    names = {name.removesuffix("_FILE") for name in found if name.startswith("AIGW_SINK__")}
    sink_secrets = {name: Secret(text) for name in names if (text := _text_of(name, Secret, found)) is not None}
    settings = replace(settings, providers=providers, usage=replace(settings.usage, sink_secrets=sink_secrets))
    object.__setattr__(settings, "warnings", tuple(_unknown_names(found)))
    if settings.log.level.upper() not in _LEVELS:
        raise BadSetting(
            "AIGW_LOGGING__LEVEL",
            f"{settings.log.level!r} is no level",
            "expected DEBUG, INFO, WARNING, ERROR or CRITICAL",
        )
    if not 1 <= settings.serve.workers <= MAX_WORKERS:
        amount = "few" if settings.serve.workers < 1 else "many"
        raise BadSetting("WEB_CONCURRENCY", f"{settings.serve.workers} is too {amount}", f"expected 1 to {MAX_WORKERS}")
    _check_serving(settings.serve)
    _check_limits(settings.limits)
    _check_urls(settings)
    check_hosts("AIGW_AUTH__ISSUER_HOSTS", settings.auth.issuer_hosts)
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
    if not 0 <= settings.abuse.sampling_rate <= 1:
        raise BadSetting(
            "AIGW_ABUSE_DETECTION__SAMPLING_RATE", f"{settings.abuse.sampling_rate} is no share", "expected 0 to 1"
        )
    return settings


def _check_limits(limits: LimitSettings) -> None:
    if limits.redis_url and not is_redis_url(limits.redis_url.reveal()):
        raise BadSetting("AIGW_REDIS_URL", "is no address of Redis", "expected redis://, rediss:// or unix://")
    if not 0.001 <= limits.patience_s <= 5:
        raise BadSetting(
            "AIGW_LIMITS__PATIENCE_S", f"{limits.patience_s} is out of range", "expected 0.001 to 5 seconds"
        )


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
    check_url("AIGW_PUBLIC_URL", settings.serve.public_url, is_base=True)
    check_url("AIGW_GITLAB_URL", settings.auth.gitlab_url, is_base=True)
    check_url("AIGW_GITLAB_API_URL", settings.auth.gitlab_api_url)
    check_url("AIGW_CUSTOMER_PORTAL_URL", settings.auth.customer_portal_url, is_base=True)
    check_url("ANTHROPIC_BASE_URL", settings.providers.anthropic_base_url, is_base=True)
    check_url("OPENAI_BASE_URL", settings.providers.openai_base_url, is_base=True)
    check_url("AIGW_INTERNAL_EVENT__ENDPOINT", settings.internal_events.endpoint, is_base=True)


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


def _other_names() -> dict[str, tuple[str, ...]]:
    """Each name of a setting → its others, a secret's file included. Names that several settings share are nobody's."""
    groups = [
        (*part.metadata["env"], *(f"{name}_FILE" for name in part.metadata["env"] if kind is Secret))
        for _, part, kind in _walk(Settings)
    ]
    uses = Counter(name for group in groups for name in group)
    own = [[name for name in group if uses[name] == 1] for group in groups]
    return {name: tuple(other for other in group if other != name) for group in own for name in group}


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
        # The first name that is set wins; the others are read too, for a bad value is one wherever it stands.
        for name in reversed(part.metadata.get("env", ())):
            text = _text_of(name, kind, found)
            if text is not None:
                values[part.name] = _READERS[kind](name, text)
    return struct(**values)


def _text_of(name: str, kind: Any, found: Mapping[str, str]) -> str | None:
    if name in found:
        return found[name]
    if kind is Secret and f"{name}_FILE" in found:
        try:
            # Bytes that are no text are whoever reads the secret to judge: a bad PEM key must not stop the start.
            return Path(found[f"{name}_FILE"]).read_text(encoding="utf-8-sig", errors="replace").strip() or None
        except OSError as error:
            raise BadSetting(
                f"{name}_FILE", f"cannot be read ({type(error).__name__})", "expected a readable text file"
            ) from error
    return None


def _read_secret(name: str, text: str) -> Secret:
    if name in _SENT:
        check_key(name, text)
    return Secret(text)


_READERS: dict[Any, Callable[[str, str], Any]] = {
    str: lambda _name, text: text,
    Secret: _read_secret,
    bool: read_bool,
    int: read_int,
    float: read_float,
    tuple[str, ...]: read_list,
    dict[str, Any]: read_object,
}


def _read_dotenv(path: Path | None) -> dict[str, str]:
    try:
        if path is None or not path.is_file():
            return {}
        from dotenv import dotenv_values  # only where there is such a file

        found = {name: value for name, value in dotenv_values(path).items() if value is not None}
        found |= _quoted_values(path)
        if "\0" in "".join((*found, *found.values())):  # the environment can hold none, and no path takes it
            raise ValueError("a sign that no text has")
        return found
    except (OSError, ValueError) as error:
        raise BadSetting(
            str(path), f"cannot be read ({type(error).__name__})", "expected NAME=value lines in UTF-8"
        ) from error


def _quoted_values(path: Path) -> dict[str, str]:
    """What stands in single quotes, as it is: as in a shell, `${NAME}` means another's value everywhere else."""
    from dotenv.parser import parse_stream

    with path.open(encoding="utf-8") as file:
        last = {each.key: each for each in parse_stream(file) if each.key is not None}
    return {
        name: each.value
        for name, each in last.items()
        if each.value is not None and _SINGLE_QUOTED.match(each.original.string)
    }


def _unread_lines(path: Path | None) -> list[str]:
    """Of a file that could be read as a whole. Never what stands there: it may be a key."""
    if path is None or not path.is_file():
        return []
    from dotenv.parser import parse_stream

    with path.open(encoding="utf-8") as file:
        return [
            f"{path}: line {each.original.line} is no NAME=value, ignored" for each in parse_stream(file) if each.error
        ]


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
