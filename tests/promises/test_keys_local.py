"""Our own keys and the user tokens under them: minting, rotation, narrowing, revocation (contract 2.6, 5; JW9)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import SIGNING_KEY, USER_ID, RunningGateway
from tests.support.http_client import Answer
from tests.support.issuer import AUDIENCE, INSTANCE_ID
from tests.support.keys import pem, rsa_key

from torana.errors import BadSetting

MINT = "/v1/code/user_access_token"
PROXY = "ai_gateway_model_provider_proxy"
CURSOR = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
COMPLETION = {"prompt_version": 1, "current_file": CURSOR}
NEW_KEY = 3
SIGNING, VALIDATION = "AIGW_SELF_SIGNED_JWT__SIGNING_KEY", "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY"


async def mint(gateway: RunningGateway, scopes: tuple[str, ...] = ("complete_code",), **claims: Any) -> Answer:
    return await gateway.post(MINT, token=gateway.token(unit_primitives=scopes, **claims))


async def complete(gateway: RunningGateway, token: str, headers: dict[str, str | None] | None = None) -> Answer:
    return await gateway.post("/v2/completions", json=COMPLETION, token=token, headers=headers)


def read(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


async def test_a_minted_token_works_for_an_hour_and_says_when_it_ends(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(clock=clock)

    answer = (await mint(gateway, ("complete_code", PROXY, "duo_chat"))).json()

    claims = read(answer["token"])
    assert answer["expires_at"] == claims["exp"] == int(clock.now()) + 3600
    assert claims["scopes"] == ["complete_code", PROXY]
    assert (claims["iss"], claims["sub"], claims["gitlab_instance_id"]) == (AUDIENCE, USER_ID, INSTANCE_ID)
    assert (await complete(gateway, answer["token"])).status == 200
    clock.advance(3661)
    assert (await complete(gateway, answer["token"])).refusal.code == "token_expired"


async def test_other_services_can_verify_a_user_token_with_what_we_publish(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_PUBLIC_URL": "https://ai.example.com/"})
    token = (await mint(gateway)).json()["token"]

    document = (await gateway.get("/.well-known/openid-configuration", headers={"Host": "evil.example"})).json()
    assert document["jwks_uri"] == "https://ai.example.com/.well-known/jwks.json"
    keys = jwt.PyJWKSet.from_dict((await gateway.get("/.well-known/jwks.json")).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=document["issuer"])
    assert claims["sub"] == USER_ID
    assert {entry.key_id for entry in keys.keys} == {f"{AUDIENCE}_signing_key", f"{AUDIENCE}_validation_key"}


async def test_rotation_loses_no_token(start_gateway: StartGateway) -> None:
    before = await start_gateway()
    old = (await mint(before)).json()["token"]
    swapped = {SIGNING: pem(rsa_key(NEW_KEY)), VALIDATION: pem(rsa_key(SIGNING_KEY))}
    during = await start_gateway(env=swapped)
    new = (await mint(during)).json()["token"]

    assert [(await complete(during, token)).status for token in (old, new)] == [200, 200]
    after = await start_gateway(env={SIGNING: pem(rsa_key(NEW_KEY)), VALIDATION: ""})
    assert [(await complete(after, token)).status for token in (old, new)] == [401, 200]


async def test_a_key_file_that_turns_to_garbage_keeps_the_old_key_until_the_restart(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    file = tmp_path / "signing.pem"
    file.write_text(pem(rsa_key(NEW_KEY)))
    env = {SIGNING: "", f"{SIGNING}_FILE": str(file)}
    gateway = await start_gateway(env=env)
    token = (await mint(gateway)).json()["token"]

    file.write_bytes(b"\xff\x00garbage")
    assert await gateway.running.reloader.reload()  # the environment is read at start only, its files too
    assert (await mint(gateway)).status == 200
    assert (await complete(gateway, token)).status == 200

    again = await start_gateway(env=env)  # left out, and no reason not to start
    failed = await mint(again)
    assert (failed.status, failed.json()["detail"]) == (500, "Failed to generate JWT")
    assert failed.refusal.code == "mint_key_unavailable"
    assert (await again.log.find(setting=SIGNING))["level"] == "error"
    still = again.user_token(unit_primitives=["complete_code"])
    assert (await complete(again, still)).status == 401
    assert (await again.get("/monitoring/ready")).status == 200


@pytest.mark.parametrize("garbage", ["rubbish", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"])
async def test_a_bad_key_leaves_only_itself_out(start_gateway: StartGateway, garbage: str) -> None:
    gateway = await start_gateway(env={SIGNING: garbage})

    kids = [key["kid"] for key in (await gateway.get("/.well-known/jwks.json")).json()["keys"]]
    assert kids == [f"{AUDIENCE}_validation_key"]
    assert garbage not in b"".join(gateway.log.raw).decode()


async def test_a_key_whose_signatures_nobody_could_verify_is_left_out(start_gateway: StartGateway) -> None:
    whole = rsa_key(NEW_KEY).private_numbers()
    broken = rsa.RSAPrivateNumbers(
        whole.p, whole.q, whole.d + 2, whole.dmp1, whole.dmq1, whole.iqmp + 2, whole.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)

    gateway = await start_gateway(env={SIGNING: pem(broken)})

    assert (await gateway.log.find(setting=SIGNING))["level"] == "error"
    assert (await mint(gateway)).refusal.code == "mint_key_unavailable"


async def test_each_instance_mints_so_many_tokens_a_minute_and_no_more(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__MINT_PER_MINUTE": "5"}, clock=clock)

    answers = await asyncio.gather(*(mint(gateway) for _ in range(50)))

    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 45
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.json()["detail"] == "Too many requests. Please try again later."
    assert int(refused.header("Retry-After") or 0) in range(1, 61)
    assert (refused.refusal.code, refused.refusal.layer) == ("mint_limit", "limit")
    line = await gateway.log.find(logger="api.access", correlation_id=refused.refusal.request_id)
    assert (line["refusal_code"], line["refusal_layer"]) == ("mint_limit", "limit")
    assert line["refusal_missing"] == "AIGW_AUTH__MINT_PER_MINUTE"
    assert (await mint(gateway, instance_id="another-instance")).status == 200
    clock.advance(60)
    assert (await mint(gateway)).status == 200


async def test_a_user_token_mints_nothing_whatever_it_holds(gateway: RunningGateway) -> None:
    for token in (
        (await mint(gateway)).json()["token"],
        gateway.user_token(unit_primitives=["complete_code", PROXY]),
    ):
        answer = await gateway.post(MINT, token=token)
        assert (answer.status, answer.refusal.code) == (403, "user_token_not_accepted")


# Narrower by configuration


async def test_user_tokens_may_be_made_shorter_and_poorer(start_gateway: StartGateway, clock: HandClock) -> None:
    env = {"AIGW_USER_TOKEN__LIFETIME_S": "600", "AIGW_USER_TOKEN__UNIT_PRIMITIVES": PROXY}
    gateway = await start_gateway(env=env, clock=clock)

    answer = (await mint(gateway, ("complete_code", PROXY))).json()

    assert answer["expires_at"] == read(answer["token"])["exp"] == int(clock.now()) + 600
    assert read(answer["token"])["scopes"] == [PROXY]
    refused = await mint(gateway, ("complete_code",))
    assert (refused.status, refused.json()["detail"]) == (403, "Unauthorized to create user access token")
    assert refused.refusal.missing == PROXY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIGW_USER_TOKEN__LIFETIME_S", "3601"),
        ("AIGW_USER_TOKEN__LIFETIME_S", "59"),
        ("AIGW_USER_TOKEN__UNIT_PRIMITIVES", "complete_code,duo_chat"),
    ],
)
async def test_user_tokens_are_never_made_wider(start_gateway: StartGateway, name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name):
        await start_gateway(env={name: value})


async def test_a_user_token_of_a_region_is_refused_everywhere_else(start_gateway: StartGateway) -> None:
    region = "AIGW_USER_TOKEN__REGION"
    europe, america, nowhere = [await start_gateway(env={region: name}) for name in ("europe", "america", "")]

    bound = (await mint(europe)).json()["token"]
    free = (await mint(nowhere)).json()["token"]

    assert read(bound)["torana_region"] == "europe"
    assert (await complete(europe, bound)).status == 200
    for gateway in (america, nowhere):
        refused = await complete(gateway, bound)
        assert (refused.status, refused.refusal.code) == (401, "token_region")
        assert refused.refusal.layer == "user_token"
    assert [(await complete(gateway, free)).status for gateway in (europe, america, nowhere)] == [200] * 3


async def test_an_instance_cannot_choose_the_region_of_its_users(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_USER_TOKEN__REGION": "europe"})

    minted = (await mint(gateway, torana_region="america", more="kept")).json()["token"]

    assert (read(minted)["torana_region"], read(minted)["more"]) == ("europe", "kept")


# Revocation


def deny(folder: Path, **members: str) -> None:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"- {json.dumps({'name': name, **row})}\n" for name, row in [("row", members)] if row)
    (folder / "deny.yml").write_text(rows or "[]\n")


async def test_a_reloaded_deny_list_revokes_at_once_what_was_verified_before(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = tmp_path / "overlay"
    deny(folder)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})
    user = (await mint(gateway)).json()["token"]
    other_user = gateway.user_token(unit_primitives=["complete_code"], user_id="another", jti="other")
    instance = gateway.token(unit_primitives=["complete_code"])
    other = gateway.token(unit_primitives=["complete_code"], instance_id="another")
    tokens = {"user": user, "other_user": other_user, "instance": instance, "other": other}

    async def refused() -> set[str]:
        answers = {name: await complete(gateway, token) for name, token in tokens.items()}
        for answer in answers.values():
            assert answer.status == 200 or (answer.status, answer.refusal.code) == (401, "token_revoked")
        return {name for name, answer in answers.items() if answer.status == 401}

    assert await refused() == set()
    for row, expected in (
        ({"instance": INSTANCE_ID}, {"user", "other_user", "instance"}),
        ({"user": USER_ID}, {"user", "instance", "other"}),  # instances that speak for this user are refused too
        ({"token_id": read(instance)["jti"]}, {"instance"}),
        ({"token_id": read(user)["jti"]}, {"user"}),
        ({"instance": INSTANCE_ID, "user": "another"}, {"other_user"}),
        ({"instance": "another", "user": "another"}, set()),
        ({}, set()),
    ):
        deny(folder, **row)
        assert await gateway.running.reloader.reload()
        assert await refused() == expected, row


async def test_a_denied_user_is_refused_where_no_header_names_them(start_gateway: StartGateway, tmp_path: Path) -> None:
    deny(tmp_path / "overlay", user=USER_ID)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})
    scope = ["ai_gateway_model_provider_proxy"]

    async def ask_with(token: str) -> Answer:
        body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        return await gateway.post("/anthropic/v1/messages", json=body, headers={"Authorization": f"Bearer {token}"})

    denied = await ask_with(gateway.user_token(unit_primitives=scope))
    other = await ask_with(gateway.user_token(unit_primitives=scope, user_id="another"))

    assert (denied.status, denied.header("x-torana-code"), other.status) == (401, "token_revoked", 200)


async def test_a_denied_instance_mints_nothing(start_gateway: StartGateway, tmp_path: Path) -> None:
    deny(tmp_path / "overlay", instance=INSTANCE_ID)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(tmp_path / "overlay")})

    assert (await mint(gateway)).refusal.code == "token_revoked"


async def test_a_deny_list_with_an_error_is_refused_and_the_old_one_stays(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = tmp_path / "overlay"
    deny(folder, instance=INSTANCE_ID)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})

    (folder / "deny.yml").write_text("- name: row\n  instanz: x\n")

    assert not await gateway.running.reloader.reload()
    assert (await mint(gateway)).refusal.code == "token_revoked"
