"""The portal's usage quota: may this consumer spend more (contract 13). The one remote check of a call.

Answers are remembered, identical questions that run at once are asked once, and a portal that does
not answer within a second refuses: the gate fails closed, but asks again after five seconds.
"""

import asyncio
import hashlib
import logging
import random
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

from torana.access.claims import claim_text
from torana.access.memory import Bounded
from torana.access.permissions import header_id, id_claim
from torana.caller import Caller
from torana.clock import Clock
from torana.errors import Refusal
from torana.headers import Headers
from torana.settings import Settings
from torana.transport import Fetcher, FetchFailed

logger = logging.getLogger("torana.access")

TIMEOUT_S = 1.0
TTL_S = 3600.0
FAILURE_TTL_S = 5.0
JITTER = 0.1
CACHE_ENTRIES = 10_000
SOURCE = "torana"

_FEATURES = {"code_completions": "code_suggestions", "code_generations": "code_suggestions"}
"""Event types whose feature has another name."""
_HEADERS = {
    "instance_id": b"x-gitlab-instance-id",
    "host_name": b"x-gitlab-host-name",
    "instance_version": b"x-gitlab-version",
    "deployment_type": b"x-gitlab-deployment-type",
    "feature_enablement_type": b"x-gitlab-feature-enablement-type",
    "user_id": b"x-gitlab-user-id",
    "global_user_id": b"x-gitlab-global-user-id",
    "project_id": b"x-gitlab-project-id",
    "namespace_id": b"x-gitlab-namespace-id",
    "root_namespace_id": b"x-gitlab-root-namespace-id",
    "organization_id": b"x-gitlab-organization-id",
}
_CACHE_KEY = (
    "environment",
    "realm",
    "user_id",
    "global_user_id",
    "root_namespace_id",
    "unique_instance_id",
    "feature_enablement_type",
    "feature_qualified_name",
    "event_type",
    "model_id",
)
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})", re.ASCII | re.IGNORECASE)


class QuotaMeter(Protocol):
    """Who counts for the metrics `usage_quota_*`."""

    def checked(self, result: str, realm: str) -> None: ...
    def asked(self, outcome: str, status: int, realm: str, seconds: float) -> None: ...


class _Verdict(NamedTuple):
    """`status` 0: the portal gave no usable answer."""

    status: int
    until: float
    """Monotonic seconds."""


class QuotaGate:
    """Asks the portal, rarely. Off unless both portal credentials are configured."""

    def __init__(
        self,
        settings: Settings,
        fetcher: Fetcher,
        clock: Clock,
        *,
        meter: QuotaMeter | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """draw: a number from 0 to 1, for the jitter of what is remembered."""
        auth = settings.auth
        self._url = f"{auth.customer_portal_url.rstrip('/')}/api/v1/consumers/resolve"
        self._credentials = {"x-admin-email": auth.portal_user, "x-admin-token": auth.portal_token.reveal()}
        self.is_on = bool(auth.portal_user and auth.portal_token and auth.customer_portal_url)
        if bool(auth.portal_user) != bool(auth.portal_token):
            missing = "AIGW_CUSTOMERSDOT__API_TOKEN" if auth.portal_user else "AIGW_CUSTOMERSDOT__API_USER"
            logger.warning(
                "usage quota is not checked: one of its two credentials is not set", extra={"missing": missing}
            )
        self._environment = settings.environment
        self._fetcher = fetcher
        self._clock = clock
        self._meter = meter
        self._draw = draw
        self._known: Bounded[bytes, _Verdict] = Bounded(CACHE_ENTRIES)
        self._asking: dict[bytes, asyncio.Task[_Verdict]] = {}

    async def check(self, caller: Caller, headers: Headers, event_type: str, model_id: str, request_id: str) -> None:
        """Pass, or raise Refusal 402 (credits used up) or 403 (not entitled, or the portal is down)."""
        if not self.is_on or not event_type or caller.is_debug or caller.claims.get("skip_usage_cutoff") is True:
            return
        question = self._question(caller, headers, event_type, model_id)
        key = _key_of(question)
        verdict = self._known.get(key)
        if verdict is None or self._clock.monotonic() >= verdict.until:
            verdict = await self._ask_once(key, {**question, "correlation_id": request_id})
        if self._meter:
            result = {200: "allow", 402: "deny", 403: "deny"}.get(verdict.status, "error")
            self._meter.checked(result, caller.realm)
        if verdict.status != 200:
            raise _refusal(verdict.status)

    async def aclose(self) -> None:
        """End the questions that still run."""
        running = list(self._asking.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _question(self, caller: Caller, headers: Headers, event_type: str, model_id: str) -> dict[str, str]:
        found = {name: header_id(headers, header) for name, header in _HEADERS.items()}
        # Nobody escapes their own account by leaving a header out, and no user by naming another one.
        vouched = _vouched(caller)
        found |= {name: value for name, value in vouched.items() if value and (caller.is_user or not found[name])}
        found |= {
            "event_type": event_type,
            "feature_qualified_name": _FEATURES.get(event_type, event_type),
            "model_id": model_id,
            "realm": claim_text(caller.claims, "gitlab_realm"),
            "unique_instance_id": claim_text(caller.claims, "gitlab_instance_uid"),
            "environment": self._environment,
            "source": SOURCE,
        }
        return {name: value for name, value in found.items() if value} | {"feature_ai_catalog_item": ""}

    async def _ask_once(self, key: bytes, question: dict[str, str]) -> _Verdict:
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, question))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # Shielded: a caller who hangs up must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, question: dict[str, str]) -> _Verdict:
        begun_at = self._clock.monotonic()
        outcome, status, ttl_s = "error", 0, FAILURE_TTL_S
        try:
            answer = await self._fetcher.fetch(
                f"{self._url}?{urlencode(question)}",
                method="HEAD",
                headers=self._credentials,
                timeout_s=TIMEOUT_S,
                limit_bytes=65536,
            )
        except FetchFailed as error:
            logger.warning("the quota check got no answer; the call is refused", extra={"reason": str(error)})
        else:
            status = answer.status
            if status in (200, 402, 403):
                outcome, ttl_s = "answered", _ttl_s(answer.headers.get("cache-control", ""))
            else:
                logger.warning("the quota check got no usable answer; the call is refused", extra={"status": status})
        now = self._clock.monotonic()
        if self._meter:
            self._meter.asked(outcome, status, question.get("realm", ""), now - begun_at)
        if outcome == "answered":
            ttl_s *= 1 + JITTER * (2 * self._draw() - 1)
        verdict = _Verdict(status if outcome == "answered" else 0, now + ttl_s)
        self._known.put(key, verdict)
        return verdict


def _key_of(question: dict[str, str]) -> bytes:
    """Of one length: the ids are the client's, as long as its headers may be."""
    named = [question.get(name, "") for name in _CACHE_KEY]
    return hashlib.sha256(repr(named).encode()).digest()


def _vouched(caller: Caller) -> dict[str, str]:
    """What the token itself says of the consumer."""
    return {
        "instance_id": caller.instance_id,
        "global_user_id": caller.subject if caller.is_user else "",
        **{f"{name}_id": id_claim(caller, f"gitlab_{name}_id") for name in ("project", "namespace", "root_namespace")},
    }


def _ttl_s(cache_control: str) -> float:
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else TTL_S


def _refusal(status: int) -> Refusal:
    if status == 402:
        members = {
            "error": "insufficient_credits",
            "error_code": "USAGE_QUOTA_EXCEEDED",
            "message": "The usage credits of this consumer are used up.",
        }
        return Refusal(402, "insufficient_credits", members=members)
    members = {
        "error": "not_entitled",
        "error_code": "USAGE_QUOTA_NOT_ENTITLED",
        "message": "This consumer is not entitled to the feature, or its entitlement could not be checked.",
    }
    return Refusal(403, "not_entitled" if status == 403 else "quota_unavailable", members=members)
