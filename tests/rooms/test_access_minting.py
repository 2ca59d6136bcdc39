"""Minting user tokens: contract 5, checklist A6, drill JW9 at room level."""

from typing import Any

import jwt
import pytest
from tests.support.access import GITLAB_KEY, LOCAL_KEY, SERVICE, Access, headers_for, sign
from tests.support.keys import rsa_key

from torana.access.local_keys import LocalKeys
from torana.access.minting import Minter
from torana.access.permissions import permit
from torana.caller import DEBUG_CALLER, Caller
from torana.errors import Refusal

BOTH = ["ai_gateway_model_provider_proxy", "complete_code", "duo_chat"]


@pytest.fixture
def access() -> Access:
    access = Access(signing=rsa_key(LOCAL_KEY), mint_per_minute=3)
    access.publish_all()
    return access


@pytest.fixture
def minter(access: Access) -> Minter:
    return Minter(access.settings, access.local, access.clock, new_id=lambda: "id-1")


async def caller(access: Access, **claims: Any) -> Caller:
    return await access.verifier.verify(sign(access.claims(**claims), GITLAB_KEY), "192.0.2.1")


def read(access: Access, token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(
        token, rsa_key(LOCAL_KEY).public_key(), algorithms=["RS256"], audience=SERVICE, options={"verify_exp": False}
    )
    return found


async def test_a_user_token_says_what_the_contract_lists_and_nothing_else(access: Access, minter: Minter) -> None:
    now = int(access.clock.now())
    instance = await caller(
        access, scopes=BOTH, gitlab_instance_uid="uid-1", duo_seat_count="7", skip_usage_cutoff=True
    )

    minted = minter.mint(instance, headers_for())

    assert minted.expires_at == now + 3600
    assert read(access, minted.token) == {
        "iss": SERVICE,
        "sub": "user-1",
        "aud": SERVICE,
        "exp": now + 3600,
        "nbf": now,
        "iat": now,
        "jti": "id-1",
        "gitlab_realm": "self-managed",
        "scopes": ["complete_code", "ai_gateway_model_provider_proxy"],
        "gitlab_instance_id": "instance-1",
        "gitlab_instance_uid": "uid-1",
        "duo_seat_count": "7",
        "skip_usage_cutoff": True,
    }
    assert jwt.get_unverified_header(minted.token)["kid"] == f"{SERVICE}_signing_key"


async def test_a_user_token_works_on_completions_only_with_its_own_headers(access: Access, minter: Minter) -> None:
    minted = minter.mint(await caller(access, scopes=BOTH), headers_for())

    user = await access.verifier.authenticate(headers_for(minted.token), "192.0.2.9")

    assert user.is_user
    permit(user, "complete_code", denied="Unauthorized to access code completions")
    for denied in ("Unauthorized to access code generations", "Unauthorized to access code suggestions"):
        with pytest.raises(Refusal) as caught:
            permit(user, "complete_code", denied=denied, instance_only=True)
        assert (caught.value.status, caught.value.code) == (403, "user_token_not_accepted")
        assert caught.value.members == {"detail": denied}
    with pytest.raises(Refusal, match="X-Gitlab-Global-User-Id"):
        await access.verifier.authenticate(headers_for(minted.token, x_gitlab_global_user_id="user-2"), "192.0.2.9")


async def test_a_user_token_mints_nothing(access: Access, minter: Minter) -> None:
    minted = minter.mint(await caller(access, scopes=BOTH), headers_for())
    user = await access.verifier.authenticate(headers_for(minted.token), "192.0.2.9")

    for attempt in (minter.permit, lambda one: minter.mint(one, headers_for())):
        with pytest.raises(Refusal) as caught:
            attempt(user)
        assert (caught.value.status, caught.value.code) == (403, "user_token_not_accepted")
        assert caught.value.members == {"detail": "Unauthorized to create user access token"}


@pytest.mark.parametrize(
    ("scopes", "minted"),
    [
        (["complete_code"], ["complete_code"]),
        (["ai_gateway_model_provider_proxy"], ["ai_gateway_model_provider_proxy"]),
        (["code_suggestions"], ["complete_code"]),
        (["duo_chat", "generate_code"], None),
        ([], None),
    ],
)
async def test_an_instance_delegates_only_what_it_holds(
    access: Access, minter: Minter, scopes: list[str], minted: list[str] | None
) -> None:
    instance = await caller(access, scopes=scopes)

    if minted is None:
        with pytest.raises(Refusal) as caught:
            minter.mint(instance, headers_for())
        assert (caught.value.status, caught.value.code) == (403, "unit_primitive_missing")
    else:
        assert read(access, minter.mint(instance, headers_for()).token)["scopes"] == minted


@pytest.mark.parametrize(
    ("removed", "text"),
    [
        (["x_gitlab_global_user_id"], "Missing X-Gitlab-Global-User-Id header"),
        (["x_gitlab_global_user_id", "x_gitlab_instance_id"], "Missing X-Gitlab-Global-User-Id header"),
        (["x_gitlab_instance_id"], "Missing X-Gitlab-Instance-Id header"),
        (["x_gitlab_instance_id", "x_gitlab_realm"], "Missing X-Gitlab-Instance-Id header"),
        (["x_gitlab_realm"], "Missing X-Gitlab-Realm header"),
    ],
)
@pytest.mark.parametrize("value", [None, ""])
async def test_what_neither_claims_nor_headers_name_is_asked_for_in_order(
    access: Access, minter: Minter, removed: list[str], text: str, value: str | None
) -> None:
    instance = await caller(access, sub=..., gitlab_realm=...)

    with pytest.raises(Refusal) as caught:
        minter.mint(instance, headers_for(**dict.fromkeys(removed, value)))

    assert (caught.value.status, caught.value.code, caught.value.members) == (
        400,
        "mint_header_missing",
        {"detail": text},
    )


async def test_the_missing_scope_is_told_before_the_missing_header(access: Access, minter: Minter) -> None:
    with pytest.raises(Refusal) as caught:
        minter.mint(await caller(access, scopes=[]), headers_for(x_gitlab_global_user_id=None))

    assert caught.value.status == 403


async def test_claims_stand_above_headers_and_headers_fill_in(access: Access, minter: Minter) -> None:
    by_claims = await caller(access, gitlab_instance_id="claimed", sub=...)
    by_headers = await caller(access, sub=..., gitlab_realm=...)
    headers = headers_for(x_gitlab_instance_id="sent", x_gitlab_realm="sent-realm")

    first, second = (read(access, minter.mint(one, headers).token) for one in (by_claims, by_headers))

    assert (first["gitlab_instance_id"], first["gitlab_realm"]) == ("claimed", "self-managed")
    assert (second["gitlab_instance_id"], second["gitlab_realm"]) == ("sent", "sent-realm")


@pytest.mark.parametrize(
    ("claim", "header", "root"),
    [
        (42, "7", 42),
        ("42", "7", 42),
        (None, "7", 7),
        (..., "7", 7),
        (..., "null", None),
        (..., None, None),
        (0, "7", 7),
        (-1, "0", None),
        (True, "x", None),
        ("x", "-3", None),
        (..., "9" * 30, None),
        (1.5, "٣", None),
    ],
)
async def test_a_saas_token_carries_its_namespaces(
    access: Access, minter: Minter, claim: Any, header: str | None, root: int | None
) -> None:
    if header == "٣":
        header = header.encode().decode("latin-1")
    instance = await caller(access, gitlab_realm="saas", gitlab_root_namespace_id=claim, gitlab_instance_uid="uid-1")
    headers = headers_for(
        x_gitlab_root_namespace_id=header, x_gitlab_project_id="11", x_gitlab_namespace_id="null", x_gitlab_realm="saas"
    )

    found = read(access, minter.mint(instance, headers).token)

    assert found["gitlab_root_namespace_id"] == root
    assert (found["gitlab_project_id"], found["gitlab_namespace_id"]) == ("11", None)
    assert "gitlab_instance_uid" not in found


@pytest.mark.parametrize(
    ("seats", "kept"), [(7, True), ("7", True), ("", False), (" ", False), (None, False), (..., False)]
)
async def test_a_blank_seat_count_is_left_out(access: Access, minter: Minter, seats: Any, kept: bool) -> None:
    minted = minter.mint(await caller(access, duo_seat_count=seats), headers_for())

    assert ("duo_seat_count" in read(access, minted.token)) == kept


async def test_without_a_signing_key_the_answer_is_500(access: Access) -> None:
    minter = Minter(access.settings, LocalKeys(SERVICE, validation=rsa_key(LOCAL_KEY)), access.clock)

    with pytest.raises(Refusal) as caught:
        minter.mint(await caller(access), headers_for())

    assert (caught.value.status, caught.value.code) == (500, "mint_key_unavailable")
    assert caught.value.members == {"detail": "Failed to generate JWT"}


async def test_each_instance_has_its_own_minting_limit(access: Access, minter: Minter) -> None:
    first, second = await caller(access), await caller(access, sub="instance-2")
    for _ in range(3):
        minter.mint(first, headers_for())
    access.clock.advance(20.5)

    with pytest.raises(Refusal) as caught:
        minter.mint(first, headers_for())

    assert (caught.value.status, caught.value.code) == (429, "mint_limit")
    assert caught.value.members == {"detail": "Too many requests. Please try again later."}
    assert caught.value.headers == ((b"retry-after", b"40"),)
    minter.mint(second, headers_for())
    access.clock.advance(39.5)
    minter.mint(first, headers_for())


def test_a_bypassed_caller_mints_from_headers_alone(access: Access, minter: Minter) -> None:
    found = read(access, minter.mint(DEBUG_CALLER, headers_for()).token)

    assert (found["sub"], found["gitlab_instance_id"], found["gitlab_realm"]) == (
        "user-1",
        "instance-1",
        "self-managed",
    )
    assert found["scopes"] == ["complete_code", "ai_gateway_model_provider_proxy"]
