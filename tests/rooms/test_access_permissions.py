"""May they: contract 3, 4 (feature flags), 9 up to the id checks; checklist F2."""

from typing import Any

import pytest
from tests.support.access import UNIT_PRIMITIVES, headers_for

from torana.access.permissions import enabled_flags, permit, permit_proxy
from torana.auth_settings import AuthSettings
from torana.caller import DEBUG_CALLER, Caller, Permit
from torana.errors import Refusal

PROXY = "ai_gateway_model_provider_proxy"


def caller(*scopes: str, **members: Any) -> Caller:
    claims = members.pop("claims", {})
    return Caller(**{"scopes": frozenset(scopes), "realm": "self-managed", "claims": claims, **members})


def denied(refusal: Refusal) -> tuple[int, str, Any]:
    return refusal.status, refusal.code, refusal.members["detail"]


@pytest.mark.parametrize(
    ("held", "wanted", "any_of", "permitted"),
    [
        (["a"], "a", (), ("a",)),
        (["a", "b"], ("a", "b"), (), ("a", "b")),
        (["a", "c"], "a", ("b", "c"), ("a", "c")),
        (["c", "b"], (), ("b", "c"), ("b",)),
        ([], "a", (), None),
        (["A", "a "], "a", (), None),
        (["a"], ("a", "b"), (), None),
        (["a"], "a", ("b", "c"), None),
        (["a"], (), ("b", "c"), None),
    ],
)
def test_a_permit_needs_every_named_unit_primitive_and_one_of_the_choices(
    held: list[str], wanted: Any, any_of: tuple[str, ...], permitted: tuple[str, ...] | None
) -> None:
    one = caller(*held)

    if permitted is not None:
        assert permit(one, wanted, any_of=any_of, denied="no") == Permit(one, permitted)
    else:
        with pytest.raises(Refusal) as caught:
            permit(one, wanted, any_of=any_of, denied="Unauthorized to access it")
        assert denied(caught.value) == (403, "unit_primitive_missing", "Unauthorized to access it")
        assert caught.value.missing


def test_a_permit_for_nothing_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="at least one"):
        permit(caller("a"), denied="no")


def test_a_user_token_is_refused_on_instance_endpoints_whatever_its_scopes() -> None:
    with pytest.raises(Refusal) as caught:
        permit(caller("a", is_user=True), "a", denied="no", instance_only=True)

    assert denied(caught.value) == (403, "user_token_not_accepted", "no")


def test_a_bypassed_caller_may_do_everything() -> None:
    assert permit(DEBUG_CALLER, "a", any_of=("b", "c"), denied="no", instance_only=True).unit_primitives == ("a", "b")


NOT_PERMITTED = {
    "header missing": ({}, {"x_gitlab_unit_primitive": None}, 400, "unit_primitive_header_missing",
                       "Missing x-gitlab-unit-primitive header"),
    "header empty": ({}, {"x_gitlab_unit_primitive": " "}, 400, "unit_primitive_header_missing",
                     "Missing x-gitlab-unit-primitive header"),
    "unknown": ({}, {"x_gitlab_unit_primitive": "Duo_Chat"}, 400, "unit_primitive_unknown",
                "Unknown unit primitive header Duo_Chat"),
    "realm list": ({"proxy_self_managed": ("uid-9",)}, {}, 402, "realm_not_enabled",
                   "Proxy endpoints are not enabled for this instance"),
    "scope": ({}, {}, 403, "unit_primitive_missing", "Unauthorized to access complete_code"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_PERMITTED)
def test_the_proxies_check_in_the_contracts_order(case: str) -> None:
    # Each request is also wrong in everything that is checked later.
    settings, headers, status, code, text = NOT_PERMITTED[case]
    sent = {"x_gitlab_unit_primitive": "complete_code", "x_gitlab_instance_id": "wrong"} | headers
    known = AuthSettings(**{"proxy_self_managed": ("uid-9",) if status == 400 else (), **settings})

    with pytest.raises(Refusal) as caught:
        permit_proxy(caller(instance_uid="uid-1"), headers_for(**sent), UNIT_PRIMITIVES, known)

    assert denied(caught.value) == (status, code, text)


def test_a_unit_primitive_of_features_is_not_for_proxies_and_that_is_told_before_the_ids() -> None:
    sent = headers_for(x_gitlab_unit_primitive="complete_code", x_gitlab_instance_id="wrong")

    with pytest.raises(Refusal) as caught:
        permit_proxy(caller("complete_code", instance_uid="uid-1"), sent, UNIT_PRIMITIVES, AuthSettings())

    text = "This endpoint cannot be used for complete_code purpose"
    assert denied(caught.value) == (400, "unit_primitive_not_for_proxy", text)


@pytest.mark.parametrize(
    ("realm", "members", "settings", "text"),
    [
        ("saas", {"claims": {"gitlab_root_namespace_id": 9}}, {"proxy_saas": ("9", "10")}, None),
        ("saas", {"claims": {"gitlab_root_namespace_id": "9"}}, {"proxy_saas": ("9",)}, None),
        ("saas", {"claims": {"gitlab_root_namespace_id": 9}}, {"proxy_self_managed": ("x",)}, None),
        ("saas", {"claims": {"gitlab_root_namespace_id": 8}}, {"proxy_saas": ("9",)}, "namespace"),
        ("saas", {}, {"proxy_saas": ("9",)}, "namespace"),
        ("self-managed", {"instance_uid": "uid-1"}, {"proxy_self_managed": ("uid-1",)}, None),
        ("self-managed", {"instance_id": "id-1"}, {"proxy_self_managed": ("id-1",)}, None),
        ("self-managed", {"instance_uid": "uid-1"}, {"proxy_saas": ("9",)}, None),
        (
            "self-managed",
            {"instance_uid": "uid-1", "instance_id": "id-1"},
            {"proxy_self_managed": ("id-1",)},
            "instance",
        ),
        ("dedicated", {"instance_uid": "uid-1"}, {"proxy_self_managed": ("uid-2",)}, "instance"),
        ("", {}, {"proxy_self_managed": ("uid-2",)}, "instance"),
    ],
)
def test_realm_lists_open_the_proxies_for_some(
    realm: str, members: dict[str, Any], settings: dict[str, Any], text: str | None
) -> None:
    one = caller(PROXY, realm=realm, **members)
    claimed = one.claims.get("gitlab_root_namespace_id")
    sent = headers_for(
        x_gitlab_unit_primitive=PROXY,
        x_gitlab_instance_uid=one.instance_uid or None,
        x_gitlab_root_namespace_id=None if claimed is None else str(claimed),
    )

    if text is None:
        assert permit_proxy(one, sent, UNIT_PRIMITIVES, AuthSettings(**settings)).unit_primitives == (PROXY,)
    else:
        with pytest.raises(Refusal) as caught:
            permit_proxy(one, sent, UNIT_PRIMITIVES, AuthSettings(**settings))
        expected = f"Proxy endpoints are not enabled for this {text}"
        assert denied(caught.value) == (402, "realm_not_enabled", expected)


@pytest.mark.parametrize(
    ("uid", "instance_id", "instance_uid", "required", "passes"),
    [
        ("uid-1", "uid-1", None, False, True),
        ("uid-1", "instance-1", "uid-1", False, True),
        ("uid-1", "uid-1", "other", False, True),
        ("uid-1", "instance-1", None, False, False),
        ("uid-1", "instance-1", "other", False, False),
        ("uid-1", None, None, False, False),
        ("", "instance-1", "anything", False, True),
        ("", "instance-1", "anything", True, False),
        ("uid-1", "uid-1", None, True, True),
    ],
)
def test_a_self_managed_instance_is_who_its_uid_says(
    uid: str, instance_id: str | None, instance_uid: str | None, required: bool, passes: bool
) -> None:
    sent = headers_for(
        x_gitlab_unit_primitive=PROXY, x_gitlab_instance_id=instance_id, x_gitlab_instance_uid=instance_uid
    )
    settings = AuthSettings(require_instance_uid=required)

    if passes:
        permit_proxy(caller(PROXY, instance_uid=uid), sent, UNIT_PRIMITIVES, settings)
    else:
        with pytest.raises(Refusal) as caught:
            permit_proxy(caller(PROXY, instance_uid=uid), sent, UNIT_PRIMITIVES, settings)
        assert denied(caught.value) == (403, "instance_uid_mismatch", "Gitlab instance uid mismatch")


@pytest.mark.parametrize(
    ("part", "text"), [("project", "project"), ("namespace", "namespace"), ("root_namespace", "root namespace")]
)
@pytest.mark.parametrize(
    ("claim", "header", "passes"),
    [
        (5, "5", True),
        ("5", "5", True),
        (None, None, True),
        (None, "null", True),
        ("null", None, True),
        ("", None, True),
        (5, "6", False),
        (5, None, False),
        (5, "null", False),
        (None, "5", False),
        ([5], "5", False),
        (True, "True", False),
    ],
)
def test_saas_ids_equal_their_claims(part: str, text: str, claim: Any, header: str | None, passes: bool) -> None:
    one = caller(PROXY, realm="saas", claims={f"gitlab_{part}_id": claim})
    sent = headers_for(**{"x_gitlab_unit_primitive": PROXY, f"x_gitlab_{part}_id": header})

    if passes:
        permit_proxy(one, sent, UNIT_PRIMITIVES, AuthSettings())
    else:
        with pytest.raises(Refusal) as caught:
            permit_proxy(one, sent, UNIT_PRIMITIVES, AuthSettings())
        assert denied(caught.value) == (403, f"{part}_id_mismatch", f"Gitlab {text} id mismatch")


def test_dialect_routes_name_a_default_and_let_absent_ids_pass() -> None:
    saas = caller(PROXY, realm="saas", claims={"gitlab_project_id": 5})
    own = caller(PROXY, instance_uid="uid-1")
    bare = headers_for(x_gitlab_instance_id=None)

    for one in (saas, own):
        assert permit_proxy(one, bare, UNIT_PRIMITIVES, AuthSettings(), default=PROXY, lenient=True)
    with pytest.raises(Refusal):
        permit_proxy(
            saas, headers_for(x_gitlab_project_id="6"), UNIT_PRIMITIVES, AuthSettings(), default=PROXY, lenient=True
        )
    with pytest.raises(Refusal):
        permit_proxy(own, headers_for(), UNIT_PRIMITIVES, AuthSettings(), default=PROXY, lenient=True)


def test_a_bypassed_caller_passes_lists_and_ids_but_not_the_proxy_rule() -> None:
    settings = AuthSettings(proxy_self_managed=("x",), proxy_saas=("y",), require_instance_uid=True)

    assert permit_proxy(DEBUG_CALLER, headers_for(x_gitlab_unit_primitive=PROXY), UNIT_PRIMITIVES, settings)
    with pytest.raises(Refusal, match="cannot be used"):
        permit_proxy(DEBUG_CALLER, headers_for(x_gitlab_unit_primitive="complete_code"), UNIT_PRIMITIVES, settings)


@pytest.mark.parametrize(
    ("header", "realm", "disallowed", "flags"),
    [
        (None, "saas", {}, set()),
        ("", "saas", {}, set()),
        ("a", "saas", {}, {"a"}),
        ("a, b ,,a", "saas", {}, {"a", "b"}),
        ("a,b", "saas", {"saas": ["b", "c"]}, {"a"}),
        ("a,b", "self-managed", {"saas": ["b"]}, {"a", "b"}),
        ("a,b", "", {"saas": ["b"]}, {"a", "b"}),
        ("a,b", "saas", {"saas": "b"}, {"a", "b"}),
    ],
)
def test_flags_are_those_enabled_and_not_disallowed_for_the_realm(
    header: str | None, realm: str, disallowed: dict[str, Any], flags: set[str]
) -> None:
    sent = headers_for(x_gitlab_enabled_feature_flags=header)

    assert enabled_flags(sent, realm, AuthSettings(disallowed_flags=disallowed)) == flags
