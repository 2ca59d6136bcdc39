"""User tokens for direct connections: what an instance may delegate, for an hour (contract 5).

The operator may narrow them: a shorter life, fewer unit primitives, one region. A user token is never
made from a user token. Its claims make the header matching work when the
user's editor replays the headers that the instance handed out with it.
"""

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from torana.access.claims import REGION_CLAIM
from torana.access.local_keys import LocalKeys
from torana.access.memory import Counts, MinuteCounts
from torana.access.permissions import SAAS, header_id, permit
from torana.auth_settings import MINTABLE, AuthSettings
from torana.caller import Caller, Permit
from torana.clock import Clock
from torana.errors import Refusal
from torana.headers import Headers

DENIED = "Unauthorized to create user access token"

_OWN_CLAIMS = frozenset(
    {
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "scopes",
        "gitlab_realm",
        "gitlab_instance_id",
        "gitlab_instance_uid",
        "gitlab_project_id",
        "gitlab_namespace_id",
        "gitlab_root_namespace_id",
        "duo_seat_count",
        REGION_CLAIM,
    }
)
"""Written anew or by a rule of their own; every other claim is carried over as it is."""


class Minted(NamedTuple):
    """A new user token; `expires_at` is its `exp`, whole Unix seconds."""

    token: str
    expires_at: int


class Minter:
    """Signs user tokens, at most so many a minute for each instance."""

    def __init__(
        self,
        settings: AuthSettings,
        keys: LocalKeys,
        clock: Clock,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        minted: Counts | None = None,
    ) -> None:
        self._service_name = settings.service_name
        self._lifetime_s = int(settings.user_token_lifetime_s)
        allowed = settings.user_token_unit_primitives or MINTABLE
        self._mintable = tuple(name for name in MINTABLE if name in allowed)
        self._region = settings.user_token_region
        self._keys = keys
        self._clock = clock
        self._new_id = new_id
        self._minted = minted or MinuteCounts(settings.mint_per_minute, clock)

    def permit(self, caller: Caller) -> Permit:
        """Who may have user tokens made: an instance that holds at least one mintable unit primitive."""
        return permit(caller, any_of=self._mintable, denied=DENIED, instance_only=True)

    def mint(self, caller: Caller, headers: Headers) -> Minted:
        """A token for the user named in the headers; raises Refusal 403, 400, 429 or 500."""
        self.permit(caller)
        user_id = _needed(headers.text(b"x-gitlab-global-user-id"), "X-Gitlab-Global-User-Id")
        instance_id = caller.instance_id or headers.text(b"x-gitlab-instance-id")
        _needed(instance_id, "X-Gitlab-Instance-Id")
        realm = _needed(caller.realm or headers.text(b"x-gitlab-realm"), "X-Gitlab-Realm")
        self._hold(f"{caller.issuer} {instance_id}")
        now = int(self._clock.now())
        claims: dict[str, Any] = {
            "iss": self._service_name,
            "sub": user_id,
            "aud": self._service_name,
            "exp": now + self._lifetime_s,
            "nbf": now,
            "iat": now,
            "jti": self._new_id(),
            "gitlab_realm": realm,
            "gitlab_instance_id": instance_id,
            "scopes": [name for name in self._mintable if caller.is_debug or name in caller.scopes],
        }
        claims.update({name: value for name, value in caller.claims.items() if name not in _OWN_CLAIMS})
        claims.update(_realm_claims(caller, headers, realm))
        if self._region:
            claims[REGION_CLAIM] = self._region
        seats = caller.claims.get("duo_seat_count")
        if seats is not None and str(seats).strip():
            claims["duo_seat_count"] = seats
        try:
            return Minted(self._keys.sign(claims), claims["exp"])
        except LookupError as error:
            raise Refusal(500, "mint_key_unavailable", "Failed to generate JWT") from error

    def _hold(self, instance: str) -> None:
        wait_s = self._minted.wait_s(instance)
        if wait_s:
            raise Refusal(
                429,
                "mint_limit",
                "Too many requests. Please try again later.",
                missing="AIGW_AUTH__MINT_PER_MINUTE",
                headers=((b"retry-after", str(wait_s).encode()),),
            )
        self._minted.count(instance)


def _needed(value: str, header: str) -> str:
    if not value:
        raise Refusal(400, "mint_header_missing", f"Missing {header} header", missing=header)
    return value


def _realm_claims(caller: Caller, headers: Headers, realm: str) -> dict[str, Any]:
    if realm != SAAS:
        return {"gitlab_instance_uid": caller.instance_uid} if caller.instance_uid else {}
    root = _positive(caller.claims.get("gitlab_root_namespace_id"))
    return {
        "gitlab_project_id": header_id(headers, b"x-gitlab-project-id") or None,
        "gitlab_namespace_id": header_id(headers, b"x-gitlab-namespace-id") or None,
        "gitlab_root_namespace_id": root or _positive(header_id(headers, b"x-gitlab-root-namespace-id")),
    }


def _positive(value: Any) -> int | None:
    """A positive integer, also when it is written as text; None for anything else."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    return int(text) or None
