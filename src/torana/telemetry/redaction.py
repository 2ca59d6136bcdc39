"""Credentials never reach a log. The last look at a text before it is written down."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from torana.settings import Settings

MASK = "***"

SECRET_NAMES = frozenset(
    (
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "api_key", "apikey",
        "token", "access_token", "refresh_token", "id_token", "user_token", "jwt", "password", "passwd", "secret",
        "client_secret", "signing_key", "validation_key", "private_key", "model_api_key", "x-goog-api-key",
    )
)  # fmt: skip
"""Members and query parameters whose value is masked whatever it looks like."""

_NAMES = "|".join(sorted((re.escape(name) for name in SECRET_NAMES), key=len, reverse=True))
_SHAPES = (
    r"(?s:-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))"
    r"|(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"
    r"|\b(?:sk|gsk|glpat|ghp|xox[a-z])-[A-Za-z0-9_-]{6,}"
    r"|\bAIza[A-Za-z0-9_-]{20,}"
    r"|\bAKIA[A-Z0-9]{12,}"
)
# Looked for in what a dot ends alone, and from its beginning: it may hold thousands of places where one might begin.
_JWT = (
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*+\.)(?P<before>[A-Za-z0-9_-]*?\b)"
    r"eyJ[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]*+){1,2}"
)
# `key=value`, `key: value`, `"key": "value"`; the value ends where a list, query or JSON text goes on.
# Our own words about a setting, `…_TOKEN: is not set`, hold none.
_NAMED = rf"""(?i:(?<![A-Za-z0-9])(?P<name>(?:{_NAMES})\\*["']?\s*[=:]\s*\\*["']?))(?!\*\*\*|is\s)[^\s"'&,;\\}}\])]+"""


class Redactor:
    """Masks what looks like a credential, and the configured ones wherever they stand.

    secrets  values of the settings' own keys; short ones would mask ordinary words and are left out
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = [re.escape(secret) for secret in secrets if len(secret) >= 8]
        self._shapes = re.compile("|".join([*known, _SHAPES]))
        self._jwt = re.compile(_JWT)
        self._named = re.compile(_NAMED)

    def text(self, text: str) -> str:
        if "eyJ" in text:  # first: what looks like a key may stand within a token
            text = self._jwt.sub(rf"\g<before>{MASK}", text)
        return self._named.sub(rf"\g<name>{MASK}", self._shapes.sub(MASK, text))

    def value(self, value: Any, name: str = "") -> Any:
        """A log member of any kind, with everything inside it."""
        if isinstance(value, str | bytes):
            if name.lower() in SECRET_NAMES:
                return MASK
            return self.text(value if isinstance(value, str) else value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            return {str(key): self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, name) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))


def secrets_of(settings: Settings) -> list[str]:
    """Every key that the process holds; the log masks them wherever they turn up; those in PEM by their form."""
    providers, auth = settings.providers, settings.auth
    held = (
        providers.anthropic_api_key,
        providers.openai_api_key,
        auth.portal_token,
        auth.operator_token,
        settings.transport.mtls_key_password,
        *providers.vendor_keys.values(),
        providers.google.service_account_key,
        providers.aws_bearer_token,
        providers.aws_secret_access_key,
        providers.aws_session_token,
        *settings.usage.sink_secrets.values(),
    )
    addresses = (settings.limits.redis_url, *settings.usage.sink_secrets.values())
    passwords = [_password_in(address.reveal()) for address in addresses]
    return [*(secret.reveal() for secret in held if secret), *filter(None, passwords)]


def _password_in(address: str) -> str:
    """Empty where there is none, or where the text is no address."""
    try:
        return unquote(urlsplit(address).password or "")
    except ValueError:
        return ""
