"""What `torana token inspect` says beyond yes and no: clocks, regions, everything at once."""

from email.utils import formatdate
from typing import Any

import pytest
from tests.support.access import GITLAB, LOCAL_KEY, SERVICE, Access, json_answer, jwk, sign
from tests.support.keys import rsa_key

from torana.access.deny import DenyList
from torana.access.inspection import Check, inspect

DISCOVERY = f"{GITLAB}/.well-known/openid-configuration"


async def check(access: Access, token: str, name: str) -> Check:
    found = await inspect(token, access.settings, access.ring, access.clock, DenyList())
    return next(row for row in found.checks if row.name == name)


@pytest.mark.parametrize(("skew_s", "told"), [(300, "+300 s"), (-45, "-45 s"), (0, "")])
async def test_the_issuers_clock_is_told_whether_or_not_it_is_the_reason(skew_s: int, told: str) -> None:
    access = Access(customer_portal_url="")
    access.fetcher.publish(GITLAB, jwk(91, "gitlab-1"))
    access.fetcher.answers[DISCOVERY] = json_answer(
        {"issuer": GITLAB, "jwks_uri": f"{GITLAB}/keys"}, date=formatdate(access.clock.now() + skew_s, usegmt=True)
    )

    row = await check(access, sign(access.claims()), "clock")

    assert row.ok
    assert (f"the clock of {GITLAB} is {told} from ours" in row.detail) == bool(told)


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"iat": 30, "nbf": 30}, "", "issued 30 s from now"),
        ({"iat": 300, "nbf": 300}, "token_not_yet_valid", "issued 300 s from now"),
        ({"exp": -300}, "token_expired", "expired 300 s ago"),
        ({}, "", "60 s of leeway"),
    ],
)
async def test_a_clock_that_is_ahead_shows_in_the_token(changes: dict[str, int], code: str, told: str) -> None:
    access = Access()
    access.publish_all()
    now = int(access.clock.now())

    row = await check(access, sign(access.claims(**{name: now + by for name, by in changes.items()})), "clock")

    assert row.code == code
    assert told in row.detail


@pytest.mark.parametrize(
    ("claim", "own", "code"),
    [
        ("europe", "europe", ""),
        ("europe", "", "token_region"),
        ("europe", "asia", "token_region"),
        (7, "7", "token_region"),
    ],
)
async def test_the_region_binds_user_tokens_only(claim: Any, own: str, code: str) -> None:
    access = Access(signing=rsa_key(LOCAL_KEY), user_token_region=own)
    access.publish_all()
    user = sign(access.claims(iss=SERVICE, torana_region=claim), LOCAL_KEY)

    assert (await check(access, user, "region")).code == code
    assert (await check(access, sign(access.claims(torana_region=claim)), "region")).code == ""


async def test_a_key_that_a_server_does_not_come_to_try_verifies_nothing_here_either() -> None:
    access = Access()
    access.fetcher.publish(GITLAB, *(jwk(93, f"strange-{number}") for number in range(16)), jwk(91, "gitlab-1"))

    assert (await check(access, sign(access.claims()), "key")).code == "token_signature"
    assert (await check(access, sign(access.claims(), kid="gitlab-1"), "key")).ok
