"""What the claims of a token say: read strictly, checked against clock, audience and issuers.

Nothing here knows keys; `tokens` asks for the signature as well. `torana token inspect` shows every
fault that `faults` finds, a request is refused for the first one.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torana.access.jose import BadToken, read_object
from torana.auth_settings import AuthSettings
from torana.caller import Caller
from torana.catalog.records import UnitPrimitive

_TIMES = ("exp", "nbf", "iat")
_MAX_TIME_S = float(2**53)
"""Beyond this a JSON number is no exact count of seconds any more."""


@dataclass(frozen=True, slots=True)
class Claims:
    """A token's claims, types checked, nothing believed yet."""

    all: Mapping[str, Any]
    issuer: str
    expires_at: float
    not_before: float


def read_claims(payload: bytes) -> Claims:
    """Parse and check types; raises BadToken. A token without `exp` is refused."""
    claims = read_object(payload, "payload")
    for name in _TIMES:
        if name in claims and not _is_time(claims[name]):
            raise BadToken("token_malformed", f"claim {name} is no time")
    if "exp" not in claims:
        raise BadToken("token_malformed", "claim exp is missing")
    for name in ("iss", "sub", "gitlab_realm", "gitlab_instance_id", "gitlab_instance_uid"):
        claim_text(claims, name)
    issuer = claims.get("iss")
    if issuer is not None and not isinstance(issuer, str):
        raise BadToken("token_malformed", "claim iss is no text")
    return Claims(claims, issuer or "", float(claims["exp"]), float(claims.get("nbf", 0)))


REGION_CLAIM = "torana_region"
"""Binds a user token to the gateways of one region. Ours alone: on any other issuer's token it means nothing."""


def faults(claims: Claims, settings: AuthSettings, now: float) -> Iterator[BadToken]:
    """Every reason to refuse the claims, the clock's and the address's."""
    audience = claims.all.get("aud")
    named: Collection[Any] = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    if settings.service_name not in named:
        yield BadToken("token_audience", f"aud does not name {settings.service_name}")
    if claims.expires_at + settings.leeway_s <= now:
        yield BadToken("token_expired", f"expired {now - claims.expires_at:.0f} s ago")
    if claims.not_before - settings.leeway_s > now:
        yield BadToken("token_not_yet_valid", f"valid in {claims.not_before - now:.0f} s")
    if settings.issuers and claims.issuer != settings.service_name:
        allowed = {issuer.rstrip("/") for issuer in settings.issuers}
        if claims.issuer.rstrip("/") not in allowed:
            yield BadToken("token_issuer", "iss is not in AIGW_AUTH__ISSUERS")
    if claims.issuer == settings.service_name and REGION_CLAIM in claims.all:
        region = claims.all[REGION_CLAIM]
        if region != settings.user_token_region:
            yield BadToken("token_region", f"bound to the region {str(region)[:60]}")


def caller_of(claims: Claims, service_name: str, old_names: Mapping[str, frozenset[str]]) -> Caller:
    """The caller that verified claims speak for."""
    is_user = claims.issuer == service_name
    subject = claim_text(claims.all, "sub")
    token_id = claims.all.get("jti")
    return Caller(
        issuer=claims.issuer,
        subject=subject,
        realm=claim_text(claims.all, "gitlab_realm"),
        instance_id=claim_text(claims.all, "gitlab_instance_id") or ("" if is_user else subject),
        instance_uid=claim_text(claims.all, "gitlab_instance_uid"),
        scopes=read_scopes(claims.all.get("scopes"), old_names),
        is_user=is_user,
        token_id=token_id if isinstance(token_id, str) else "",
        expires_at=claims.expires_at,
        claims=claims.all,
    )


def claim_text(claims: Mapping[str, Any], name: str) -> str:
    """A claim as the header that goes with it spells it; null and absent read as empty."""
    value = claims.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadToken("token_malformed", f"claim {name} is no text")


def read_scopes(scopes: Any, old_names: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Unit primitives of a token; anything but a list of texts grants nothing, unknown names do no harm."""
    if not isinstance(scopes, list) or not all(isinstance(name, str) for name in scopes):
        return frozenset()
    held = frozenset(scopes)
    for old, new in old_names.items():
        if old in held and not new & held:
            held |= new
    return held


def read_old_names(unit_primitives: Mapping[str, UnitPrimitive]) -> dict[str, frozenset[str]]:
    """Old name → the names that it is read as, from the catalogue's `aliases`."""
    found: dict[str, frozenset[str]] = {}
    for record in unit_primitives.values():
        for old in record.aliases:
            found[old] = found.get(old, frozenset()) | {record.name}
    return found


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MAX_TIME_S <= value <= _MAX_TIME_S
