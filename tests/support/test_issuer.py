"""The fake issuer's documents and tokens are what a real issuer's are, and its failures are real."""

import json
from typing import Any

import jwt
import pytest
from tests.support.gateway import gitlab_headers
from tests.support.http_client import fetch
from tests.support.issuer import AUDIENCE, DISCOVERY, INSTANCE_ID, Failure, FakeIssuer
from tests.support.keys import rsa_key


async def published_keys(issuer: FakeIssuer, prefix: str = "") -> list[dict[str, Any]]:
    document = (await fetch(issuer.server.port, "GET", prefix + DISCOVERY)).json()
    assert document["issuer"] == issuer.url + prefix
    path = document["jwks_uri"].removeprefix(issuer.url)
    return list((await fetch(issuer.server.port, "GET", path)).json()["keys"])


async def test_a_token_verifies_under_the_published_key(issuer: FakeIssuer) -> None:
    token = issuer.token(unit_primitives=["duo_chat"])

    (key,) = await published_keys(issuer)

    claims = jwt.decode(token, jwt.PyJWK(key), algorithms=["RS256"], audience=AUDIENCE, issuer=issuer.url)
    assert claims["scopes"] == ["duo_chat"]
    assert claims["sub"] == claims["gitlab_instance_id"] == INSTANCE_ID
    assert "d" not in key  # nothing private is published


async def test_a_prefix_is_an_issuer_of_its_own(issuer: FakeIssuer) -> None:
    assert await published_keys(issuer, "/portal") == await published_keys(issuer)


async def test_claims_and_header_members_can_be_replaced_and_left_out(issuer: FakeIssuer) -> None:
    token = issuer.token(exp=None, duo_seat_count=7, aud=["a", AUDIENCE], jose={"kid": None}, key=rsa_key(999))

    claims = jwt.decode(token, options={"verify_signature": False})

    assert "exp" not in claims
    assert (claims["duo_seat_count"], claims["aud"]) == (7, ["a", AUDIENCE])
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT"}


async def test_a_rotation_replaces_the_published_key_or_adds_one(issuer: FakeIssuer) -> None:
    first = issuer.key_id
    issuer.rotate(keep_old=True)
    second = issuer.key_id
    both = await published_keys(issuer)
    issuer.rotate()
    last = await published_keys(issuer)

    assert [key["kid"] for key in both] == [first, second]
    assert [key["kid"] for key in last] == [issuer.key_id]
    assert first != second != issuer.key_id


async def test_an_issuer_that_is_down_refuses_and_comes_back(issuer: FakeIssuer) -> None:
    issuer.go_down()
    with pytest.raises(ConnectionRefusedError):
        await published_keys(issuer)

    await issuer.come_back()

    assert len(await published_keys(issuer)) == 1


@pytest.mark.parametrize(("failure", "status"), [("html", 200), ("error", 500), ("garbled", 200)])
async def test_each_failure_gives_no_document(issuer: FakeIssuer, failure: Failure, status: int) -> None:
    issuer.failure = failure

    answer = await fetch(issuer.server.port, "GET", DISCOVERY)

    assert answer.status == status
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_headers_match_the_claims_of_instance_and_user_tokens(issuer: FakeIssuer) -> None:
    instance = gitlab_headers(issuer.token(realm="saas"))
    user = gitlab_headers(issuer.token(iss=AUDIENCE, sub="user-1"))

    assert (instance["X-Gitlab-Realm"], instance["X-Gitlab-Instance-Id"]) == ("saas", INSTANCE_ID)
    assert (user["X-Gitlab-Global-User-Id"], user["X-Gitlab-Instance-Id"]) == ("user-1", INSTANCE_ID)
