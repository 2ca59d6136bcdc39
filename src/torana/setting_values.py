"""How a setting is declared, and one text of the environment → its value.

Whatever is wrong is told with BadSetting: `NAME: what is wrong, what is expected`.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import field
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, urlsplit

from torana.errors import BadSetting

_URL_CHARS = re.compile(r"[!-\[\]-~]+")
"""Printable ASCII without the backslash, which others read as a slash."""
_PATH_CHARS = r"A-Za-z0-9._~!$&'()*+,;=:@-"
"""Those that requests spell as they are, between two slashes."""
_LINE = re.compile(r"[\t -~\x80-\xff]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Secret:
    """A text that never prints itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "***" if self._value else "(none)"

    __str__ = __repr__


def setting(default: Any, env: str | tuple[str, ...], doc: str) -> Any:
    """One field that comes from the environment.

    env   the name, or several: the first one that is set wins
    doc   one line for the generated settings table, unit included
    """
    names = (env,) if isinstance(env, str) else env
    metadata = {"env": names, "doc": doc}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def read_bool(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise BadSetting(name, f"{text!r} is no boolean", "expected true or false")


def read_int(name: str, text: str) -> int:
    try:
        number = int(text.strip())
    except ValueError:
        raise BadSetting(name, f"{text!r} is no whole number", "expected a whole number such as 5052") from None
    if number < 0 or (name.endswith("_PORT") and number > 65535):
        raise BadSetting(
            name, f"{number} is out of range", "expected 0 to 65535" if name.endswith("_PORT") else "expected 0 or more"
        )
    return number


def read_float(name: str, text: str) -> float:
    try:
        number = float(text.strip())
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        if name.endswith("_RATE"):
            raise BadSetting(name, f"{text!r} is no share", "expected 0 to 1")
        raise BadSetting(name, f"{text!r} is no duration", "expected seconds as a decimal number, 0 or more")
    return number


def read_list(name: str, text: str) -> tuple[str, ...]:
    if text.lstrip().startswith(("[", "{")):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if not isinstance(items, list) or not all(
            isinstance(item, str | int) and not isinstance(item, bool) for item in items
        ):
            raise BadSetting(name, "is no JSON list of texts", 'expected a,b or ["a","b"]')
        return tuple(str(item) for item in items)
    return tuple(item.strip() for item in text.split(",") if item.strip())


def read_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadSetting(name, "is no JSON object", 'expected {"name": …}')
    return value


def check_networks(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise BadSetting(name, f"{text!r} is no address", "expected addresses or networks: 10.0.0.0/8") from None


def check_hosts(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        if set(text) & set("/@?#* "):  # an address, or a pattern: no host is called so
            raise BadSetting(name, f"{text!r} is no host", "expected names such as keys.example.com, or host:port")


def is_url(text: str) -> bool:
    """Whether it is an absolute http or https URL that can be called as it stands."""
    return not url_fault(text)


def url_fault(text: str, *, is_base: bool = False, is_azures: bool = False) -> str:
    """What keeps an absolute http or https URL from being called; empty: nothing. Never repeats a password.

    is_base    paths are put behind it, so that it ends with its own
    is_azures  all the same its version may follow
    """
    if not _is_absolute(text):
        return "is no URL" if "@" in text else f"{text!r} is no URL"
    parts = urlsplit(text)
    if "@" in parts.netloc:
        return "names a user or a password, which would not be sent"
    tells_version = is_azures and parse_qs(parts.query, keep_blank_values=True).keys() <= {"api-version"}
    if is_base and ("#" in text or ("?" in text and not tells_version)):
        return "has a query or a fragment, behind which no path can stand"
    return ""


def _is_absolute(text: str) -> bool:
    return _scheme_of(text) in ("http", "https") and bool(urlsplit(text).hostname)


def is_redis_url(text: str) -> bool:
    """The host may be left out, and a socket has none."""
    return _scheme_of(text) in ("redis", "rediss", "unix")


def _scheme_of(url: str) -> str:
    """Empty for what no client can read."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for a port that is none
    except ValueError:
        return ""
    return parts.scheme if _URL_CHARS.fullmatch(url) else ""


def is_header(name: str, value: str) -> bool:
    """Whether a request can bring it: those that say where a request ends, or whom it is for, are the client's own."""
    own = ("host", "content-length", "transfer-encoding")
    return bool(_TOKEN.fullmatch(name) and _LINE.fullmatch(value)) and name.lower() not in own


def check_key(name: str, text: str) -> None:
    """What is sent as a header's value, or compared with one. It is never repeated."""
    if not _LINE.fullmatch(text):
        raise BadSetting(name, "is no key that a request can bring", "expected one line, without control characters")


def check_url(name: str, text: str, *, is_base: bool = False, is_azures: bool = False) -> None:
    """An absolute URL, or nothing."""
    if text and (fault := url_fault(text, is_base=is_base, is_azures=is_azures)):
        raise BadSetting(name, fault, "expected http://… or https://…")


def check_proxy(name: str, text: str) -> None:
    """As the usual tools read it: the scheme may be left out. It may hold a password, so it is not repeated."""
    if not _is_absolute(text if "://" in text else f"http://{text}"):
        raise BadSetting(name, "is no address of a proxy", "expected http://host:port, https:// or host:port")


def check_path(name: str, text: str) -> None:
    """A path, `null`, or nothing."""
    if text not in ("", "null") and not re.fullmatch(rf"/[/{_PATH_CHARS}]*", text, re.ASCII):
        raise BadSetting(name, f"{text!r} is no path", "expected a path such as /docs, or null")


def check_prefix(name: str, text: str) -> None:
    """A path prefix as requests spell it, or nothing; the slashes at its ends are free."""
    is_walked = {".", ".."} & set(text.split("/"))  # clients take such steps themselves, and ask for what is left
    if is_walked or not re.fullmatch(rf"/?(?:[{_PATH_CHARS}]+/)*[{_PATH_CHARS}]*", text, re.ASCII):
        raise BadSetting(name, f"{text!r} is no path", "expected a path prefix such as /gateway")
    if re.match(r"/?(?:ai/)?(?:v\d+|monitoring|auth|openai|anthropic|\.well-known)(?:/|$)", text):
        raise BadSetting(name, f"{text!r} hides routes of the gateway's own", "expected a prefix such as /gateway")


def check_name(name: str, text: str) -> None:
    """One word that a header can hold, or nothing."""
    if text and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text, re.ASCII):
        raise BadSetting(name, f"{text!r} is no id", "expected 1 to 64 letters, digits, dots, underscores and hyphens")


def check_version(name: str, text: str) -> None:
    if not re.match(r"\d+\.\d+\.\d+", text, re.ASCII):
        raise BadSetting(name, f"{text!r} is no version", "expected X.Y.Z such as 6.3.0")


def check_tls(cert_file: str, key_file: str, ciphers: str) -> None:
    """What HTTPS is served with. Without a look at it now, a server would come up that nobody can talk to."""
    import ssl

    expected = (
        "expected PEM files, the key in AIGW_FASTAPI__TLS__KEY_FILE or beside the certificate, without a password"
    )
    if not cert_file:
        raise BadSetting("AIGW_FASTAPI__TLS__CERT_FILE", "is not set, and AIGW_FASTAPI__TLS__ENABLED is", expected)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password would be asked for on the terminal.
        context.load_cert_chain(cert_file, key_file or None, password="")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadSetting(
            "AIGW_FASTAPI__TLS__CERT_FILE",
            f"{cert_file!r} and its key cannot be used ({reason})",
            expected,
        ) from error
    try:
        context.set_ciphers(ciphers or "DEFAULT")
    except ssl.SSLError as error:
        raise BadSetting(
            "AIGW_FASTAPI__TLS__SSL_CIPHERS", f"{ciphers!r} names no cipher", "expected an OpenSSL cipher list"
        ) from error
