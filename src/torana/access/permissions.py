"""permit(caller, unit primitive) → Permit: may they (contract 3, and the checks of 9).

A gateway never decides who has bought what; it checks that the token's scopes hold the unit
primitive that the endpoint needs. Only this module makes a Permit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torana.access.claims import claim_text
from torana.auth_settings import AuthSettings
from torana.caller import Caller, Permit
from torana.catalog.records import UnitPrimitive
from torana.errors import Refusal
from torana.headers import Headers

SAAS = "saas"


def permit(
    caller: Caller,
    unit_primitives: str | Sequence[str] = (),
    *,
    denied: str,
    instance_only: bool = False,
    any_of: Sequence[str] = (),
) -> Permit:
    """The proof that `caller` holds all of `unit_primitives`, and at least one of `any_of` if given.

    denied         the endpoint's 403 text
    instance_only  user tokens are refused whatever their scopes

    Raises Refusal 403.
    """
    wanted = (unit_primitives,) if isinstance(unit_primitives, str) else tuple(unit_primitives)
    if not wanted and not any_of:
        raise ValueError("a permit is for at least one unit primitive")
    if instance_only and caller.is_user:
        raise Refusal(403, "user_token_not_accepted", denied, missing="an instance token")
    if caller.is_debug:
        return Permit(caller, wanted + tuple(any_of[:1]))
    for name in wanted:
        if name not in caller.scopes:
            raise Refusal(403, "unit_primitive_missing", denied, missing=name)
    held = tuple(name for name in any_of if name in caller.scopes)
    if any_of and not held:
        raise Refusal(403, "unit_primitive_missing", denied, missing=" or ".join(any_of))
    return Permit(caller, wanted + held[:1])


def all_of(first: Permit, *others: Permit) -> Permit:
    """One proof of what several prove for the same caller; the first one's rights come first."""
    return Permit(first.caller, first.unit_primitives + tuple(name for each in others for name in each.unit_primitives))


def permit_ourselves(unit_primitive: str) -> Permit:
    """For a call of the gateway's own: on the operator's account, and nobody's limits but those on everybody."""
    return Permit(Caller(), (unit_primitive,))


def permit_proxy(
    caller: Caller,
    headers: Headers,
    unit_primitives: Mapping[str, UnitPrimitive],
    settings: AuthSettings,
    *,
    default: str = "",
    lenient: bool = False,
) -> Permit:
    """The policy of the provider proxies, in the order of contract 9 up to the id checks.

    default  the unit primitive where the header names none; empty: the header is demanded
    lenient  absent id headers pass (dialect routes)

    Raises Refusal 400, 402 or 403.
    """
    name = headers.text(b"x-gitlab-unit-primitive") or default
    if not name:
        text = "Missing x-gitlab-unit-primitive header"
        raise Refusal(400, "unit_primitive_header_missing", text, missing="X-Gitlab-Unit-Primitive")
    record = unit_primitives.get(name)
    if record is None:
        raise Refusal(400, "unit_primitive_unknown", f"Unknown unit primitive header {name}", missing=name)
    if not caller.is_debug:
        _check_realm_list(caller, settings)
    permitted = permit(caller, name, denied=f"Unauthorized to access {name}")
    if not record.proxy_allowed:
        text = f"This endpoint cannot be used for {name} purpose"
        raise Refusal(400, "unit_primitive_not_for_proxy", text, missing=name)
    if not caller.is_debug:
        _check_ids(caller, headers, settings, lenient)
    return permitted


def user_of(caller: Caller, headers: Headers) -> str:
    """For whom it calls: of a user's token its subject, else whom the instance names, which vouches for it."""
    return caller.subject if caller.is_user else headers.text(b"x-gitlab-global-user-id")


def for_user(permit: Permit, headers: Headers) -> Permit:
    """The same proof, with the user named."""
    user = user_of(permit.caller, headers)
    return permit if permit.user == user else Permit(permit.caller, permit.unit_primitives, user)


def enabled_flags(headers: Headers, realm: str, settings: AuthSettings) -> frozenset[str]:
    """Feature flags the client enabled, without those the operator disallows for its realm."""
    listed = headers.get(b"x-gitlab-enabled-feature-flags")
    if not listed:
        return frozenset()
    names = frozenset(name for part in listed.split(",") if (name := part.strip()))
    disallowed: Any = settings.disallowed_flags.get(realm)
    return names.difference(disallowed) if isinstance(disallowed, list) else names


def _check_realm_list(caller: Caller, settings: AuthSettings) -> None:
    if caller.realm == SAAS:
        allowed, id_, where = settings.proxy_saas, id_claim(caller, "gitlab_root_namespace_id"), "namespace"
    else:
        allowed, id_, where = settings.proxy_self_managed, caller.instance_uid or caller.instance_id, "instance"
    if allowed and id_ not in allowed:
        text = f"Proxy endpoints are not enabled for this {where}"
        raise Refusal(402, "realm_not_enabled", text, missing=where)


def _check_ids(caller: Caller, headers: Headers, settings: AuthSettings, lenient: bool) -> None:
    if caller.realm != SAAS:
        _check_instance_uid(caller, headers, settings, lenient)
        return
    for part in ("project", "namespace", "root_namespace"):
        words = part.replace("_", "-")
        sent = header_id(headers, f"x-gitlab-{words}-id".encode())
        if lenient and not sent:
            continue
        if sent != id_claim(caller, f"gitlab_{part}_id"):
            text = f"Gitlab {part.replace('_', ' ')} id mismatch"
            raise Refusal(403, f"{part}_id_mismatch", text, missing=f"X-Gitlab-{words.title()}-Id")


def _check_instance_uid(caller: Caller, headers: Headers, settings: AuthSettings, lenient: bool) -> None:
    sent = {headers.text(b"x-gitlab-instance-id"), headers.text(b"x-gitlab-instance-uid")} - {""}
    if not caller.instance_uid:
        agrees = not settings.require_instance_uid
    else:
        agrees = caller.instance_uid in sent or (lenient and not sent)
    if not agrees:
        raise Refusal(403, "instance_uid_mismatch", "Gitlab instance uid mismatch", missing="gitlab_instance_uid")


def header_id(headers: Headers, name: bytes) -> str:
    """An id of contract 4; the text `null` counts as absent."""
    value = headers.text(name)
    return "" if value == "null" else value


def id_claim(caller: Caller, name: str) -> str:
    """An id of the token's; null, the text `null` and what is no id count as absent."""
    value = caller.claims.get(name)
    return "" if value == "null" or isinstance(value, (dict, list, bool, float)) else claim_text(caller.claims, name)
