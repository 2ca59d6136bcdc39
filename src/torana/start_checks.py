"""Settings that can never work: better known at start than with every call."""

import re

from torana.errors import BadSetting
from torana.limits.line import Line, make_connection
from torana.settings import Settings, TransportSettings
from torana.transport import extra_certificates, tls_context
from torana.wire.endpoint import fault_of


def check_trust(settings: Settings) -> None:
    """Raises BadSetting for certificate files that cannot be used: better now than with every call."""
    found = settings.transport
    store = "" if found.mtls_ca_bundle else found.ssl_cert_file
    pem, ours = (
        "expected readable PEM files",
        (
            "expected PEM files, the key in AIGW_MTLS__KEY_FILE or beside the certificate, its password in "
            "AIGW_MTLS__KEY_PASSWORD"
        ),
    )
    for name, file, part, expected in (
        ("AIGW_EXTRA_CA", found.extra_ca, TransportSettings(extra_ca=found.extra_ca), pem),
        ("AIGW_MTLS__CA_BUNDLE", found.mtls_ca_bundle, TransportSettings(mtls_ca_bundle=found.mtls_ca_bundle), pem),
        ("SSL_CERT_FILE", store, TransportSettings(ssl_cert_file=store), f"{pem} there or in REQUESTS_CA_BUNDLE"),
        ("AIGW_MTLS__CERT_FILE", found.mtls_cert_file, found, ours),
    ):
        try:
            if file or (part is found and found.mtls_enabled):
                tls_context(part)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or type(error).__name__
            found_bad = f"{file!r} cannot be used ({reason})" if file else "is not set, and AIGW_MTLS__ENABLED is"
            raise BadSetting(name, found_bad, expected) from error


def check_store(url: str) -> None:
    """Raises BadSetting for an address of Redis with options that there are not: each server would count alone."""
    if "?" not in url:
        return
    try:
        make_connection(url)
    except (TypeError, ValueError) as error:
        named = re.search(r"argument '(\w+)'", str(error))
        which = f"the option `{named[1]}`, which there is not" if named else "options that cannot be read"
        raise BadSetting("AIGW_REDIS_URL", f"has {which}", "expected those of redis-py's connections") from None


async def ask_store(settings: Settings, patience_s: float) -> str:
    """How it stands with the shared counts, for the banner; empty: there are none. Without limits, nobody else asks
    until somebody is refused or mints."""
    url = settings.limits.redis_url.reveal()
    if not url:
        return ""
    told: list[str] = []
    trusted = extra_certificates(settings.transport)
    line = Line(url, patience_s, lambda: (b"PING",), lambda _is_up, reason: told.append(reason), trusted)
    line.start()
    await line.started()
    await line.aclose()
    silence = told[0] if told else "timeout"
    if silence:
        return f"AIGW_REDIS_URL does not answer ({silence}); until it does, each server counts as its limits say"
    return "AIGW_REDIS_URL answers"


def check_endpoints(allowed: tuple[str, ...]) -> None:
    """Raises BadSetting for a prefix that can never be one: it would let nothing through, and nobody would know why."""
    for prefix in allowed:
        if fault_of(prefix) == "no_url":
            raise BadSetting(
                "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS",
                "an entry is no URL prefix" if "@" in prefix or "?" in prefix else f"{prefix!r} is no URL prefix",
                "expected http(s)://host[:port][/path], without user, query or dots to walk",
            )
