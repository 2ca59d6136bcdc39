"""The access line: one per request, whatever became of it. Names and meaning: contract 15."""

from datetime import datetime

import msgspec


class AccessLine(msgspec.Struct, kw_only=True, gc=False):
    """The members that every line has. What only some come to stands beside it: `facts` of `Log.write_access`.

    Durations are seconds; what was never reached (no first chunk, no such header) is None.
    """

    timestamp: datetime
    """Aware, UTC; the end of the request."""
    correlation_id: str
    url: str
    path: str
    status_code: int
    method: str
    http_version: str = "1.1"
    client_ip: str = ""
    client_port: int = 0
    duration_s: float = 0.0
    duration_request: float = -1.0
    """Seconds the request took from Rails to us; -1 if unknown."""
    request_arrived_at: datetime | None = None
    response_start_duration_s: float | None = None
    first_chunk_duration_s: float | None = None
    cpu_s: float | None = None
    content_type: str | None = None
    user_agent: str | None = None
    gitlab_language_server_version: str | None = None
    gitlab_instance_id: str | None = None
    gitlab_global_user_id: str | None = None
    gitlab_host_name: str | None = None
    gitlab_version: str | None = None
    gitlab_saas_duo_pro_namespace_ids: str | None = None
    gitlab_feature_enabled_by_namespace_ids: str | None = None
    gitlab_feature_enablement_type: str | None = None
    gitlab_realm: str | None = None
    gitlab_root_namespace_id: str | None = None
    gitlab_organization_id: str | None = None
    is_gitlab_team_member: str | None = None
    gitlab_duo_seat_count: str | None = None
    message: str = "request"
    level: str = "info"
    """`debug` for health probes and scrapes: they are written only where debug lines are."""
    logger: str = "api.access"
    type: str = "mlops"
    stage: str = "main"
