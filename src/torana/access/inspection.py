"""What would be refused about a token, and why: every check at once, for `torana token inspect`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torana.access import jose
from torana.access.claims import REGION_CLAIM, Claims, caller_of, faults, read_claims
from torana.access.deny import DenyList
from torana.access.jose import BadToken, Jws
from torana.access.keys import KeyRing
from torana.auth_settings import AuthSettings
from torana.caller import Caller
from torana.clock import Clock

_CLAIM_CHECKS = {
    "token_audience": "audience",
    "token_expired": "clock",
    "token_not_yet_valid": "clock",
    "token_issuer": "issuer",
    "token_region": "region",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer; `code` is the refusal's, empty where the check passed."""

    name: str
    code: str
    detail: str

    @property
    def ok(self) -> bool:
        return not self.code


@dataclass(slots=True)
class Inspection:
    """A token taken apart. Header and claims are empty where they cannot be read."""

    header: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Request headers that must go with the token."""

    @property
    def accepted(self) -> bool:
        return all(check.ok for check in self.checks)


async def inspect(token: str, settings: AuthSettings, keys: KeyRing, clock: Clock, deny: DenyList) -> Inspection:
    """Run every check; asks the issuers for keys only when none that is there verifies the token."""
    found = Inspection()
    try:
        jws = jose.parse(token.strip().encode("utf-8", "replace"))
        found.header = jws.header
        claims = read_claims(jws.payload)
        found.claims = claims.all
        caller = caller_of(claims, settings.service_name, {})
    except BadToken as fault:
        found.checks.append(Check("form", fault.code, fault.detail))
        return found
    found.checks.append(Check("form", "", "a signed token in compact form"))
    key = await _check_key(jws, claims, keys)  # first, because the issuer's answer tells its clock
    found.checks.extend(_check_claims(claims, settings, clock.now(), _skews(keys)))
    found.checks.append(key)
    found.checks.append(_check_deny(caller, deny))
    found.headers = expected_headers(caller)
    found.checks.append(Check("realm", "", f"X-Gitlab-Realm must be {caller.realm!r}" if caller.realm else "any realm"))
    return found


def expected_headers(caller: Caller) -> dict[str, str]:
    """The headers that claims are matched with (contract 2.4)."""
    wanted = {
        "X-Gitlab-Authentication-Type": "oidc",
        "X-Gitlab-Realm": caller.realm,
        "X-Gitlab-Instance-Id": caller.instance_id,
        "X-Gitlab-Global-User-Id": caller.subject if caller.is_user else "",
    }
    return {name: value for name, value in wanted.items() if value}


def _check_claims(claims: Claims, settings: AuthSettings, now: float, skews: str) -> list[Check]:
    failed = {_CLAIM_CHECKS[fault.code]: fault for fault in faults(claims, settings, now)}
    passed = {
        "audience": f"aud names {settings.service_name}",
        "clock": f"expires in {claims.expires_at - now:.0f} s",
        "issuer": f"iss is {claims.issuer!r}",
        "region": f"bound to {settings.user_token_region!r}" if REGION_CLAIM in claims.all else "any region",
    }
    checks = []
    for name, detail in passed.items():
        fault = failed.get(name)
        told = fault.detail if fault is not None else detail
        if name == "clock":
            told = "; ".join(filter(None, [told, f"{settings.leeway_s:g} s of leeway", _early(claims, now), skews]))
        checks.append(Check(name, fault.code if fault is not None else "", told))
    return checks


def _early(claims: Claims, now: float) -> str:
    """A token from the future tells that one of two clocks is off, also while the leeway covers it."""
    ahead_s = float(claims.all.get("iat", 0)) - now
    return f"issued {ahead_s:.0f} s from now: its issuer's clock is ahead of ours" if ahead_s >= 1 else ""


def _skews(keys: KeyRing) -> str:
    # The header Date has whole seconds; less says nothing.
    told = [f"the clock of {row.issuer} is {round(row.skew_s):+d} s from ours" for row in keys.states() if row.skew_s]
    return "; ".join(told)


async def _check_key(jws: Jws, claims: Claims, keys: KeyRing) -> Check:
    if jws.algorithm != "RS256":
        return Check("key", "token_algorithm", f"alg is {jws.algorithm[:20]}, expected RS256")
    key = _key_of(jws, claims, keys)
    if key is None and await keys.refetch(claims.issuer):
        key = _key_of(jws, claims, keys)
    if key is not None:
        caveat = keys.local.caveat(key.kid)
        return Check("key", "", f"verified by the key {key.kid or 'without an id'}" + (f", {caveat}" if caveat else ""))
    told = "; ".join(f"{state.issuer}: {state.detail}" for state in keys.states())
    code = "token_signature" if keys.has_keys else "keys_unavailable"
    return Check("key", code, f"no key that may sign for this issuer verifies it ({told or 'no issuers'})")


def _key_of(jws: Jws, claims: Claims, keys: KeyRing) -> jose.Key | None:
    return next((key for key in keys.candidates(claims.issuer, jws.kid) if jose.is_signed_by(jws, key)), None)


def _check_deny(caller: Caller, deny: DenyList) -> Check:
    if deny.holds(caller):
        return Check("deny list", "token_revoked", "the token, its user or its instance is on the deny list")
    return Check("deny list", "", "not on it")
