"""One request's access line, made of what the entrance knows at its end (contract 15)."""

import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from torana.api.exchange import Exchange
from torana.headers import Headers
from torana.telemetry.log import AccessLine, Log

QUIET_PATHS = frozenset({"/monitoring/healthz", "/monitoring/ready", "/metrics"})
"""Logged at debug level only."""

_TOLD = {
    b"user-agent": "user_agent",
    b"x-gitlab-language-server-version": "gitlab_language_server_version",
    b"x-gitlab-instance-id": "gitlab_instance_id",
    b"x-gitlab-global-user-id": "gitlab_global_user_id",
    b"x-gitlab-host-name": "gitlab_host_name",
    b"x-gitlab-version": "gitlab_version",
    b"x-gitlab-saas-duo-pro-namespace-ids": "gitlab_saas_duo_pro_namespace_ids",
    b"x-gitlab-feature-enabled-by-namespace-ids": "gitlab_feature_enabled_by_namespace_ids",
    b"x-gitlab-feature-enablement-type": "gitlab_feature_enablement_type",
    b"x-gitlab-realm": "gitlab_realm",
    b"x-gitlab-root-namespace-id": "gitlab_root_namespace_id",
    b"x-gitlab-organization-id": "gitlab_organization_id",
    b"x-gitlab-is-team-member": "is_gitlab_team_member",
    b"x-gitlab-duo-seat-count": "gitlab_duo_seat_count",
}
"""Headers that the line repeats → its members."""
_IDS = frozenset({b"x-gitlab-root-namespace-id", b"x-gitlab-organization-id"})
"""Of these the text `null` means that there is none (contract 4)."""
_TOLD_KEPT = "told"


def write_access_line(
    log: Log,
    exchange: Exchange,
    scope: MutableMapping[str, Any],
    *,
    status: int,
    duration_s: float,
    response_start_s: float,
    first_chunk_s: float | None,
    cpu_s: float,
    content_type: bytes,
) -> None:
    """Exactly one for each request. Never a body, a prompt or a token."""
    facts = exchange.facts
    if exchange.caller.issuer:
        facts["token_issuer"] = exchange.caller.issuer
    if exchange.flags:
        facts["enabled_feature_flags"] = sorted(exchange.flags)
    kept = exchange.headers.kept
    told: dict[str, Any] | None = kept.get(_TOLD_KEPT)
    if told is None:
        told = kept[_TOLD_KEPT] = log.masked(_told(exchange.headers))
    sent_at = exchange.headers.get(b"x-gitlab-rails-send-start")
    ended = time.time()
    arrived = ended - duration_s
    client = scope["client"]
    line = AccessLine(
        timestamp=datetime.fromtimestamp(ended, UTC),
        correlation_id=exchange.request_id,
        url=_url(scope, exchange),
        path=exchange.path,
        status_code=status,
        method=exchange.method,
        http_version=scope["http_version"],
        client_ip=exchange.client,
        client_port=client[1] if client else 0,
        duration_s=round(duration_s, 6),
        duration_request=-1 if sent_at is None else _network_delay_s(sent_at, arrived),
        request_arrived_at=datetime.fromtimestamp(arrived, UTC),
        response_start_duration_s=round(response_start_s, 6),
        first_chunk_duration_s=None if first_chunk_s is None else round(first_chunk_s, 6),
        cpu_s=round(cpu_s, 6),
        content_type=content_type.decode("latin-1"),
        level="debug" if exchange.path in QUIET_PATHS else "info",
        **told,
    )
    log.write_access(line, facts)


def _told(headers: Headers) -> dict[str, Any]:
    """What the line repeats of the headers: texts."""
    told: dict[str, Any] = {}
    # One pass over what came is cheaper than a look-up for each of a dozen names.
    for name, value in headers.pairs:
        member = _TOLD.get(name)
        if member is not None and not (name in _IDS and value.strip() == b"null"):
            told.setdefault(member, value.strip().decode("latin-1"))
    return told


def refused_line(
    client: tuple[str, int],
    ended: datetime,
    status: int,
    request_id: str,
    *,
    path: str,
    method: str = "",
    instance: str = "",
) -> AccessLine:
    """The line of a request that was refused before it was read: little is known of it.

    method    of a request that was glanced at; empty: nothing was
    instance  that its token is known to name
    """
    path = path[:255]
    return AccessLine(
        timestamp=ended,
        correlation_id=request_id,
        url=path,
        path=path,
        status_code=status,
        method=method,
        client_ip=client[0],
        client_port=client[1],
        content_type="application/json" if method else "text/plain; charset=utf-8",
        gitlab_instance_id=instance or None,
    )


def _url(scope: MutableMapping[str, Any], exchange: Exchange) -> str:
    # The query may carry anything a client likes; the path tells what was asked for.
    return f"{scope['scheme']}://{exchange.steady.host[:255]}{scope['path']}"


def _network_delay_s(sent: str, arrived_at: float) -> float:
    """Seconds since Rails sent the request, -1 where it does not say."""
    try:
        delay_s = arrived_at - float(sent)
    except ValueError:
        return -1
    return round(delay_s, 6) if 0 <= delay_s < 86_400 else -1
