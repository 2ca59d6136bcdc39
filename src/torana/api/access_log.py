"""One request's access line, made of what the entrance knows at its end (contract 15)."""

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from torana.api.exchange import Exchange
from torana.telemetry.log import AccessLine, Log

QUIET_PATHS = frozenset({"/monitoring/healthz", "/monitoring/ready", "/metrics"})
"""Logged at debug level only."""


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
    header = exchange.headers.get
    facts = exchange.facts
    if exchange.caller.issuer:
        facts["token_issuer"] = exchange.caller.issuer
    if exchange.flags:
        facts["enabled_feature_flags"] = sorted(exchange.flags)
    now = datetime.now(UTC)
    client = scope["client"]
    line = AccessLine(
        timestamp=now,
        correlation_id=exchange.request_id,
        url=_url(scope, exchange),
        path=exchange.path,
        status_code=status,
        method=exchange.method,
        http_version=scope["http_version"],
        client_ip=exchange.client,
        client_port=client[1] if client else 0,
        duration_s=round(duration_s, 6),
        duration_request=_network_delay_s(header(b"x-gitlab-rails-send-start"), now.timestamp() - duration_s),
        request_arrived_at=datetime.fromtimestamp(now.timestamp() - duration_s, UTC),
        response_start_duration_s=round(response_start_s, 6),
        first_chunk_duration_s=None if first_chunk_s is None else round(first_chunk_s, 6),
        cpu_s=round(cpu_s, 6),
        content_type=content_type.decode("latin-1"),
        user_agent=header(b"user-agent"),
        gitlab_language_server_version=header(b"x-gitlab-language-server-version"),
        gitlab_instance_id=header(b"x-gitlab-instance-id"),
        gitlab_global_user_id=header(b"x-gitlab-global-user-id"),
        gitlab_host_name=header(b"x-gitlab-host-name"),
        gitlab_version=header(b"x-gitlab-version"),
        gitlab_saas_duo_pro_namespace_ids=header(b"x-gitlab-saas-duo-pro-namespace-ids"),
        gitlab_feature_enabled_by_namespace_ids=header(b"x-gitlab-feature-enabled-by-namespace-ids"),
        gitlab_feature_enablement_type=header(b"x-gitlab-feature-enablement-type"),
        gitlab_realm=header(b"x-gitlab-realm"),
        gitlab_root_namespace_id=header(b"x-gitlab-root-namespace-id"),
        gitlab_organization_id=header(b"x-gitlab-organization-id"),
        is_gitlab_team_member=header(b"x-gitlab-is-team-member"),
        gitlab_duo_seat_count=header(b"x-gitlab-duo-seat-count"),
        level="debug" if exchange.path in QUIET_PATHS else "info",
    )
    log.write_access(line, facts)


def _url(scope: MutableMapping[str, Any], exchange: Exchange) -> str:
    # The query may carry anything a client likes; the path tells what was asked for.
    return f"{scope['scheme']}://{exchange.headers.text(b'host')[:255]}{scope['path']}"


def _network_delay_s(sent: str | None, arrived_at: float) -> float:
    """Seconds since Rails sent the request, -1 where it does not say."""
    if sent is None:
        return -1
    try:
        delay_s = arrived_at - float(sent)
    except ValueError:
        return -1
    return round(delay_s, 6) if 0 <= delay_s < 86_400 else -1
