"""The product's own events (contract 15): which rights were used, and with how many tokens. Off by default.

One `request_<unit primitive>` for each right that a request was permitted, one `token_usage_<unit primitive>` for what
its model call spent. Kept in memory, sent in batches; whatever cannot be sent is dropped and counted. Bills are made
of usage records, never of these.

Source: Snowplow tracker protocol (POST, `payload_data`), structured events; GitLab's public schema `gitlab_standard`.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from torana.api.exchange import Exchange
from torana.caller import Caller, Permit
from torana.dialects.members import finite
from torana.errors import ProviderError
from torana.headers import Headers
from torana.settings import InternalEventSettings
from torana.transport import Transport, WireRequest

logger = logging.getLogger("torana.api.internal_events")

_any_json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=finite)

PATH = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
STANDARD = "iglu:com.gitlab/gitlab_standard/jsonschema/1-1-7"

MAX_WAITING, MAX_WAITING_CHARS = 10_000, 16 << 20
"""Events, and letters of what clients' headers say in them: some 40,000 in each, where they like."""
LINGER_S = 1.0
TIMEOUT_S = 5.0
GRACE_S = 1.0
"""What is left at the end of the process has so long."""

_TEXTS = {
    b"x-gitlab-realm": "realm",
    b"x-gitlab-instance-id": "instance_id",
    b"x-gitlab-global-user-id": "global_user_id",
    b"x-gitlab-user-id": "user_id",
    b"x-gitlab-host-name": "host_name",
    b"x-gitlab-version": "instance_version",
    b"x-gitlab-deployment-type": "deployment_type",
    b"x-gitlab-feature-enablement-type": "feature_enablement_type",
    b"x-gitlab-client-name": "client_name",
    b"x-gitlab-client-version": "client_version",
    b"x-gitlab-client-type": "client_type",
    b"x-gitlab-interface": "interface",
}
_NUMBERS = {
    b"x-gitlab-project-id": "project_id",
    b"x-gitlab-namespace-id": "namespace_id",
    b"x-gitlab-root-namespace-id": "ultimate_parent_namespace_id",
    b"x-gitlab-organization-id": "organization_id",
}
"""Headers of contract 4 → members of the context."""


class EventMeter(Protocol):
    def internal_events(self, *, sent: int = 0, dropped: int = 0) -> None: ...


class InternalEvents:
    """Takes events without ever waiting, and sends them from a task of its own."""

    def __init__(
        self, settings: InternalEventSettings, transport: Transport, meter: EventMeter, environment: str
    ) -> None:
        self.may_tell: Callable[[Caller], bool] = lambda _caller: True
        """False for callers whose data must not leave their regions: nobody knows where the collector is."""
        self._settings = settings
        self._transport = transport
        self._meter = meter
        self._environment = environment
        self._waiting: deque[dict[str, Any]] = deque()
        self._waiting_chars = 0
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def requested(self, exchange: Exchange, permit: Permit) -> None:
        """A request has been permitted."""
        if not self.may_tell(permit.caller):
            return
        names = [f"request_{name}" for name in permit.unit_primitives]
        exchange.facts["tracked_internal_events"] = names
        for name in names:
            self._put(name, exchange, {})

    def used(self, exchange: Exchange) -> None:
        """A request is over; says what its model call has spent, if it had one."""
        facts = exchange.facts
        if "input_tokens" not in facts or not self.may_tell(exchange.caller):
            return
        name = f"token_usage_{facts.get('meta.unit_primitive', '')}"
        facts["tracked_internal_events"] = [*facts.get("tracked_internal_events", ()), name]
        read, written = facts["input_tokens"], facts["output_tokens"]
        extra = {
            "model_engine": facts.get("provider", ""),
            "model_name": facts.get("model", ""),
            "input_tokens": read,
            "output_tokens": written,
            "total_tokens": read + written,
        }
        self._put(name, exchange, extra)

    async def aclose(self) -> None:
        self._closing.set()
        self._wake.set()
        await asyncio.wait((self._task,), timeout=GRACE_S)
        self._task.cancel()
        await asyncio.wait((self._task,))

    def _put(self, name: str, exchange: Exchange, extra: dict[str, Any]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._meter.internal_events(dropped=1)
            return
        standard = _context(exchange.headers) | {
            "environment": self._environment,
            "source": "torana",
            "correlation_id": exchange.request_id,
            "context_generated_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "extra": _tracking(exchange.headers) | extra,
        }
        context = msgspec.json.encode({"schema": CONTEXTS, "data": [{"schema": STANDARD, "data": standard}]}).decode()
        if self._waiting_chars + len(context) > MAX_WAITING_CHARS:
            self._meter.internal_events(dropped=1)
            return
        self._waiting_chars += len(context)
        self._waiting.append(
            {
                "e": "se",
                "se_ca": exchange.endpoint or "torana",
                "se_ac": name,
                "eid": str(uuid.uuid4()),
                "dtm": str(int(time.time() * 1000)),
                "p": "srv",
                "tv": "torana-1",
                "aid": self._settings.app_id,
                "tna": self._settings.namespace,
                "co": context,
            }
        )
        self._wake.set()

    async def _run(self) -> None:
        while not (self._closing.is_set() and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._closing.wait()
            while self._waiting:
                batch = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), max(1, self._settings.batch_size)))
                ]
                self._waiting_chars -= sum(len(event["co"]) for event in batch)
                try:
                    await self._send(batch)
                except Exception as error:  # noqa: BLE001  it must never fail a request, nor fall silent for good
                    self._meter.internal_events(dropped=len(batch))
                    logger.warning("internal events are lost", extra={"events": len(batch), "reason": str(error)[:200]})
                else:
                    self._meter.internal_events(sent=len(batch))

    async def _send(self, batch: list[dict[str, Any]]) -> None:
        body = msgspec.json.encode({"schema": PAYLOAD, "data": batch})
        headers = {"Content-Type": "application/json; charset=utf-8"}
        request = WireRequest(url=self._settings.endpoint.rstrip("/") + PATH, headers=headers, body=body)
        answer = await self._transport.send(request, first_byte_s=TIMEOUT_S, idle_s=TIMEOUT_S)
        try:
            await answer.read_all(65536)
        finally:
            answer.close()
        if answer.status >= 300:
            raise ProviderError(f"status {answer.status}")


def _context(headers: Headers) -> dict[str, Any]:
    """What the product's headers say; absent and unreadable ones are null."""
    found: dict[str, Any] = {member: headers.get(name) or None for name, member in _TEXTS.items()}
    for name, member in _NUMBERS.items():
        found[member] = _number(headers.text(name))
    found["is_gitlab_team_member"] = {"true": True, "false": False}.get(headers.text(b"x-gitlab-is-team-member"))
    ids = _numbers(headers.text(b"x-gitlab-feature-enabled-by-namespace-ids"))
    found["feature_enabled_by_namespace_ids"] = ids or _numbers(headers.text(b"x-gitlab-saas-duo-pro-namespace-ids"))
    return found


def _tracking(headers: Headers) -> dict[str, Any]:
    """What instances send for events only; what cannot be read is left out."""
    found: dict[str, Any] = {}
    if subject := headers.text(b"x-gitlab-subject-type"):
        found["subject_type"] = subject
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        # Headers are read as Latin-1; JSON arrives as its UTF-8 bytes.
        context = _any_json.decode(headers.text(b"x-gitlab-tracking-context").encode("latin-1"))
        if isinstance(context, dict):
            found["tracking_context"] = context
    return found


def _numbers(listed: str) -> list[int] | None:
    """A comma list; None where it is not of whole numbers alone."""
    found = [number for part in listed.split(",") if (number := _number(part)) is not None]
    return found if len(found) == listed.count(",") + 1 else None


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 19 else None
