"""Who is let in: the texts of 401, what a token must be, headers against claims, user tokens, keys, bypasses."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import SIGNING_KEY, USER_ID, VALIDATION_KEY, RunningGateway
from tests.support.http_client import Answer, connect
from tests.support.issuer import AUDIENCE, INSTANCE_ID, sign
from tests.support.keys import pem, rsa_key

COMPLETION = {"current_file": {"file_name": "app.py", "content_above_cursor": "def hi", "content_below_cursor": ""}}
ENVELOPE = {"prompt_components": [{"type": "code_editor_completion", "payload": COMPLETION["current_file"]}]}
MINT = "/v1/code/user_access_token"
FORBIDDEN = "Forbidden by auth provider"
MANY = 3600
"""Seconds that no leeway covers."""


def reason(answer: Answer) -> str:
    assert answer.status == 401, answer
    assert "detail" not in answer.json()
    return str(answer.json()["error"])


async def complete(gateway: RunningGateway, token: str, **headers: str | None) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.post("/v2/completions", json=COMPLETION, token=token, headers=named)


# The texts of 401, in their order


async def test_the_reasons_of_401_come_in_their_order(gateway: RunningGateway) -> None:
    bad = gateway.token(unit_primitives=["complete_code"], aud="somebody else", realm="saas")
    good = gateway.token(unit_primitives=["complete_code"])
    wrong_realm = {"X-Gitlab-Realm": "saas"}
    oidc = {"X-Gitlab-Authentication-Type": "oidc"}
    steps: list[tuple[dict[str, str | None], str]] = [
        ({}, "No authorization header presented"),
        ({"Authorization": f"Basic {bad}"}, "Invalid authorization header"),
        (
            {"Authorization": f"Bearer {bad}"},
            "Invalid authentication token type - only OIDC is supported",
        ),
        ({"Authorization": f"Bearer {bad}", **oidc, **wrong_realm}, FORBIDDEN),
        ({"Authorization": f"Bearer {good}", **oidc, **wrong_realm}, "Header mismatch 'X-Gitlab-Realm'"),
    ]

    assert [reason(await gateway.post("/v2/completions", json=COMPLETION, headers=sent)) for sent, _ in steps] == [
        text for _, text in steps
    ]


async def test_the_scheme_is_read_in_any_case(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])

    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
        assert (await complete(gateway, token, Authorization=f"{scheme} {token}")).status == 200


async def test_an_authorization_of_another_kind_is_no_token(gateway: RunningGateway) -> None:
    for value in ("", "Token x", "Basic dTpw", "eyJhbGciOiJSUzI1NiJ9.e30.x"):
        answer = await gateway.post("/v2/completions", headers={"Authorization": value})
        assert reason(answer) == "Invalid authorization header"


async def test_the_authentication_type_is_exactly_oidc(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])

    for kind in (None, "", "OIDC", "Oidc", "oidc2", "token"):
        answer = await complete(gateway, token, X_Gitlab_Authentication_Type=kind)
        assert reason(answer) == "Invalid authentication token type - only OIDC is supported"


async def test_an_sdk_that_is_led_to_the_wrong_place_is_told_the_right_one(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])

    for path, headers in (
        ("/v1/chat/completions", {"Authorization": f"Bearer {token}"}),
        ("/v1/messages", {"x-api-key": token}),
    ):
        answer = await gateway.post(path, headers=headers)
        assert (answer.status, "below /openai/v1 and /anthropic" in answer.refusal.remedy) == (401, True)


# What a token must be


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(gateway: RunningGateway, name: str) -> str:
    """A token that is wrong in one way."""
    token = gateway.token
    usual = {"unit_primitives": ["complete_code"]}
    now = int(time.time())
    claims = jwt.decode(token(**usual), options={"verify_signature": False})
    good_header, good_claims, good_signature = token(**usual).split(".")
    if name.startswith("HS256"):
        # The classic: the published key's text as the secret of an HMAC.
        public = gateway.issuer.key.public_key()
        secret = str(public.public_numbers().n).encode() if name.endswith("number") else b""
        text = f"{part({'alg': 'HS256', 'kid': gateway.issuer.key_id})}.{part(claims)}"
        return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"
    match name:
        case "alg none":
            return f"{part({'alg': 'none'})}.{part(claims)}."
        case "alg None with the old signature":
            return f"{part({'alg': 'None', 'kid': gateway.issuer.key_id})}.{good_claims}.{good_signature}"
        case "RS512":
            return jwt.encode(claims, gateway.issuer.key, algorithm="RS512", headers={"kid": gateway.issuer.key_id})
        case "PS256":
            return jwt.encode(claims, gateway.issuer.key, algorithm="PS256", headers={"kid": gateway.issuer.key_id})
        case "claims changed":
            return f"{good_header}.{part(claims | {'scopes': ['duo_chat']})}.{good_signature}"
        case "no signature":
            return f"{good_header}.{good_claims}."
        case "a strange key":
            return token(**usual, key=rsa_key(555))
        case "a strange key under the own issuer's name":
            return sign(claims | {"iss": AUDIENCE}, rsa_key(555), {})
        case "another issuer's key under our own name":
            return token(**usual, iss=AUDIENCE)
        case "our own key under the issuer's name":
            return sign(claims, rsa_key(SIGNING_KEY), {})
        case "expired":
            return token(**usual, exp=now - 300)
        case "expired by text":
            return token(**usual, exp=str(now - 300))
        case "no exp":
            return token(**usual, exp=None)
        case "exp is no number":
            return f"{good_header}.{part(claims | {'exp': 'later'})}.{good_signature}"
        case "not yet valid":
            return token(**usual, nbf=now + 300)
        case "wrong audience":
            return token(**usual, aud="gitlab-workflow")
        case "wrong audiences":
            return token(**usual, aud=["gitlab", "gitlab-ai-gateway-2"])
        case "no audience":
            return token(**usual, aud=None)
        case "crit":
            return token(**usual, jose={"crit": ["b64"], "b64": True})
        case "two parts":
            return f"{good_header}.{good_claims}"
        case "five parts":
            return f"{good_header}.{good_claims}.{good_signature}.a.b"
        case "a claim twice":
            text = json.dumps(claims)[:-1].encode() + b', "aud": "gitlab-ai-gateway"}'
            return f"{good_header}.{part(text)}.{good_signature}"
        case "too large":
            return token(**usual, padding="x" * 9000)
        case _:
            return "x"


FORGERIES = [
    "alg none",
    "alg None with the old signature",
    "HS256 with an empty secret",
    "HS256 with the key's number",
    "RS512",
    "PS256",
    "claims changed",
    "no signature",
    "a strange key",
    "a strange key under the own issuer's name",
    "another issuer's key under our own name",
    "our own key under the issuer's name",
    "expired",
    "expired by text",
    "no exp",
    "exp is no number",
    "not yet valid",
    "wrong audience",
    "wrong audiences",
    "no audience",
    "crit",
    "two parts",
    "five parts",
    "a claim twice",
    "too large",
    "no token at all",
]


async def test_a_token_that_is_wrong_in_one_way_is_forbidden(gateway: RunningGateway) -> None:
    good = gateway.token(unit_primitives=["complete_code"])
    assert (await complete(gateway, good)).status == 200
    gateway.provider.requests.clear()

    for name in FORGERIES:
        for _ in range(2):  # the second one meets the memory of refused tokens
            answer = await complete(gateway, good, Authorization=f"Bearer {forged(gateway, name)}")
            assert (name, answer.status, answer.json()["error"]) == (name, 401, FORBIDDEN)
    assert gateway.provider.requests == []
    assert (await complete(gateway, good)).status == 200


async def test_a_token_needs_no_more_than_a_key_an_expiry_and_an_audience(gateway: RunningGateway) -> None:
    now = int(time.time())
    sufficient: list[dict[str, Any]] = [
        {"jose": {"kid": None}},
        {"jose": {"kid": "nobody-knows"}},
        {"aud": [AUDIENCE]},
        {"aud": ["gitlab", AUDIENCE, "other"]},
        {"nbf": None, "iat": None, "jti": None},
        {"nbf": now + 30},  # within the leeway
        {"exp": now - 30},
        {"iss": "https://an-issuer-that-nobody-listed.example"},
        {"iss": None},
        {"gitlab_realm": None, "gitlab_instance_id": None},
        {"anything": {"else": [1, None]}},
    ]

    for claims in sufficient:
        token = gateway.token(unit_primitives=["complete_code"], **claims)
        assert (claims, (await complete(gateway, token)).status) == (claims, 200)


async def test_scopes_that_are_no_list_of_texts_grant_nothing(gateway: RunningGateway) -> None:
    for scopes in (None, "complete_code", {"complete_code": True}, [["complete_code"]], [1], []):
        answer = await complete(gateway, gateway.token(unit_primitives=[], scopes=scopes))
        assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to access code completions")


async def test_an_expired_token_is_forgotten_although_it_was_verified_before(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(clock=clock)
    token = gateway.token(unit_primitives=["complete_code"], lifetime_s=60)

    assert (await complete(gateway, token)).status == 200
    clock.advance(60 + 61)
    assert reason(await complete(gateway, token)) == FORBIDDEN


# Headers against claims


async def test_a_header_that_disagrees_with_its_claim_is_named(gateway: RunningGateway) -> None:
    disagreeing: list[tuple[dict[str, Any], str, str | None]] = [
        ({}, "X-Gitlab-Realm", "saas"),
        ({}, "X-Gitlab-Realm", None),
        ({}, "X-Gitlab-Realm", "Self-Managed"),
        ({"gitlab_realm": "dedicated"}, "X-Gitlab-Realm", "self-managed"),
        ({}, "X-Gitlab-Instance-Id", "another"),
        ({}, "X-Gitlab-Instance-Id", None),
        ({"gitlab_instance_id": None}, "X-Gitlab-Instance-Id", "not the subject"),
        ({"gitlab_instance_id": None}, "X-Gitlab-Instance-Id", None),
        # The instance id agrees, the subject does not.
        ({"sub": "another"}, "X-Gitlab-Instance-Id", INSTANCE_ID),
    ]

    for claims, header, value in disagreeing:
        token = gateway.token(unit_primitives=["complete_code"], **claims)
        answer = await gateway.post("/v2/completions", json=COMPLETION, token=token, headers={header: value})
        assert reason(answer) == f"Header mismatch '{header}'"


async def test_a_claim_beyond_ascii_agrees_with_its_utf8_bytes_in_the_header(gateway: RunningGateway) -> None:
    # The last byte of an a with grave accent is a blank in Latin-1.
    for realm in ("Zürich", "città"):
        token = gateway.token(unit_primitives=["complete_code"], gitlab_realm=realm)
        assert (await complete(gateway, token, X_Gitlab_Realm=realm.encode().decode("latin-1"))).status == 200


async def test_a_user_tokens_subject_is_the_global_user(gateway: RunningGateway) -> None:
    token = gateway.user_token(unit_primitives=["complete_code"])

    for value in ("another", None, ""):
        answer = await complete(gateway, token, X_Gitlab_Global_User_Id=value)
        assert reason(answer) == "Header mismatch 'X-Gitlab-Global-User-Id'"
    assert (await complete(gateway, token)).status == 200


async def test_an_empty_or_absent_claim_is_not_compared(gateway: RunningGateway) -> None:
    uncompared: list[tuple[dict[str, Any], dict[str, str | None]]] = [
        ({"gitlab_realm": ""}, {"X_Gitlab_Realm": "saas"}),
        ({"gitlab_realm": None}, {"X_Gitlab_Realm": None}),
        ({"gitlab_instance_id": "", "sub": ""}, {"X_Gitlab_Instance_Id": "any"}),
        ({}, {"X_Gitlab_Global_User_Id": "any user of the instance"}),
    ]

    for claims, headers in uncompared:
        token = gateway.token(unit_primitives=["complete_code"], **claims)
        assert (claims, (await complete(gateway, token, **headers)).status) == (claims, 200)


async def test_a_seat_count_that_disagrees_passes(gateway: RunningGateway) -> None:
    for seats in (5, "5"):
        token = gateway.token(unit_primitives=["complete_code"], duo_seat_count=seats)
        for sent in (None, "7", "", "five", "5"):
            assert (await complete(gateway, token, X_Gitlab_Duo_Seat_Count=sent)).status == 200


# User tokens


async def mint(gateway: RunningGateway, **claims: Any) -> dict[str, Any]:
    scopes = ["complete_code", "generate_code", "ai_gateway_model_provider_proxy"]
    answer = await gateway.post(MINT, token=gateway.token(unit_primitives=scopes, **claims))
    assert answer.status == 200, answer
    return dict(answer.json())


async def test_a_minted_token_says_who_may_what_for_an_hour(start_gateway: StartGateway, clock: HandClock) -> None:
    gateway = await start_gateway(clock=clock)

    minted = await mint(gateway, duo_seat_count=" 7", gitlab_instance_uid="uid-1", custom={"kept": [1]})

    claims = jwt.decode(minted["token"], rsa_key(SIGNING_KEY).public_key(), algorithms=["RS256"], audience=AUDIENCE)
    now = int(clock.now())
    jti = claims.pop("jti")
    assert set(minted) == {"token", "expires_at"}
    assert minted["expires_at"] == claims["exp"] == now + 3600
    assert claims == {
        "iss": AUDIENCE,
        "sub": USER_ID,
        "aud": AUDIENCE,
        "exp": now + 3600,
        "nbf": now,
        "iat": now,
        "gitlab_realm": "self-managed",
        "gitlab_instance_id": INSTANCE_ID,
        "gitlab_instance_uid": "uid-1",
        "scopes": ["complete_code", "ai_gateway_model_provider_proxy"],
        "duo_seat_count": " 7",
        "custom": {"kept": [1]},
    }
    assert len(jti) == 36
    assert jti != jwt.decode((await mint(gateway))["token"], options={"verify_signature": False})["jti"]


async def test_a_saas_token_names_project_namespace_and_root(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"], realm="saas", gitlab_root_namespace_id=9)

    answer = await gateway.post(
        MINT,
        token=token,
        headers={
            "X-Gitlab-Project-Id": "null",
            "X-Gitlab-Namespace-Id": "22",
            "X-Gitlab-Root-Namespace-Id": "33",
        },
    )

    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    assert claims["gitlab_realm"] == "saas"
    assert (claims["gitlab_project_id"], claims["gitlab_namespace_id"]) == (None, "22")
    assert claims["gitlab_root_namespace_id"] == 9


async def test_a_user_token_completes_code_and_does_nothing_else(gateway: RunningGateway) -> None:
    token = (await mint(gateway))["token"]
    allowed = ["/v2/completions", "/v2/code/completions", "/ai/v2/completions"]
    refused = [
        ("/v2/code/generations", COMPLETION, "Unauthorized to access code generations"),
        ("/v3/code/completions", ENVELOPE, "Unauthorized to access code suggestions"),
        ("/v4/code/suggestions", ENVELOPE, "Unauthorized to access code suggestions"),
        (MINT, None, "Unauthorized to create user access token"),
        ("/auth" + MINT, None, "Unauthorized to create user access token"),
    ]

    for path in allowed:
        assert (await gateway.post(path, json=COMPLETION, token=token)).status == 200
    for path, body, text in refused:
        answer = await gateway.post(path, json=body, token=token)
        assert (path, answer.status, answer.json()["detail"]) == (path, 403, text)
        assert answer.refusal.layer == "user_token"


async def test_a_user_token_is_refused_however_many_scopes_it_claims(gateway: RunningGateway) -> None:
    token = gateway.user_token(unit_primitives=["complete_code", "generate_code"])

    assert (await gateway.post("/v2/code/generations", json=COMPLETION, token=token)).status == 403
    assert (await gateway.post(MINT, token=token)).status == 403


async def test_a_user_token_lives_an_hour(start_gateway: StartGateway, clock: HandClock) -> None:
    gateway = await start_gateway(clock=clock)
    token = (await mint(gateway))["token"]

    clock.advance(3599)
    assert (await complete(gateway, token)).status == 200
    clock.advance(62)
    assert reason(await complete(gateway, token)) == FORBIDDEN


async def test_minting_needs_a_mintable_scope_and_the_three_names(gateway: RunningGateway) -> None:
    nothing = await gateway.post(MINT, token=gateway.token(unit_primitives=["duo_chat"]))
    bare = gateway.token(unit_primitives=["complete_code"], gitlab_realm=None, gitlab_instance_id=None, sub=None)
    names: dict[str, str | None] = {
        "X-Gitlab-Global-User-Id": None,
        "X-Gitlab-Instance-Id": None,
        "X-Gitlab-Realm": None,
    }

    assert (nothing.status, nothing.json()["detail"]) == (403, "Unauthorized to create user access token")
    for name in list(names):
        answer = await gateway.post(MINT, token=bare, headers=names)
        assert (answer.status, answer.json()["detail"]) == (400, f"Missing {name} header")
        names[name] = "now given"
    assert (await gateway.post(MINT, token=bare, headers=names)).status == 200


async def test_the_body_of_minting_is_ignored(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])

    for body in (b"", b"no JSON", b"{}", b"[" * 1000):
        assert (await gateway.post(MINT, body=body, token=token)).status == 200


async def test_minting_is_limited_for_each_instance(start_gateway: StartGateway, clock: HandClock) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__MINT_PER_MINUTE": "2"}, clock=clock)
    one = gateway.token(unit_primitives=["complete_code"])
    other = gateway.token(unit_primitives=["complete_code"], instance_id="another-instance")

    first = [(await gateway.post(MINT, token=one)) for _ in range(3)]

    assert [answer.status for answer in first] == [200, 200, 429]
    assert first[2].json()["detail"] == "Too many requests. Please try again later."
    assert 1 <= int(first[2].header("retry-after") or "0") <= 60
    assert (await gateway.post(MINT, token=other)).status == 200
    clock.advance(61)
    assert (await gateway.post(MINT, token=one)).status == 200


# Keys


async def test_tokens_of_the_old_key_verify_after_the_rotation(start_gateway: StartGateway) -> None:
    before = await start_gateway()
    token = (await mint(before))["token"]
    after = await start_gateway(
        env={
            "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(3)).replace("\n", "\\n"),
            "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": pem(rsa_key(SIGNING_KEY)),
        }
    )
    later = await start_gateway(
        env={
            "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(3)),
            "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": pem(rsa_key(VALIDATION_KEY)),
        }
    )

    new = (await mint(after))["token"]
    assert [(await complete(gateway, token)).status for gateway in (before, after, later)] == [200, 200, 401]
    assert [(await complete(gateway, new)).status for gateway in (before, after, later)] == [401, 200, 200]


async def test_our_keys_are_published_with_their_ids_and_nothing_private(gateway: RunningGateway) -> None:
    keys = (await gateway.get("/.well-known/jwks.json")).json()["keys"]

    assert [key["kid"] for key in keys] == [f"{AUDIENCE}_signing_key", f"{AUDIENCE}_validation_key"]
    assert all(not {"d", "p", "q", "dp", "dq", "qi"} & set(key) for key in keys)
    token = (await mint(gateway))["token"]
    jwt.decode(token, jwt.PyJWK(keys[0]), algorithms=["RS256"], audience=AUDIENCE)


async def test_a_bad_signing_key_stops_minting_and_nothing_else(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": "no PEM"})
    token = gateway.token(unit_primitives=["complete_code"])

    answer = await gateway.post(MINT, token=token)

    assert (answer.status, answer.json()["detail"]) == (500, "Failed to generate JWT")
    assert (await complete(gateway, token)).status == 200


async def test_the_keys_of_an_issuer_that_went_down_go_on_serving(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(clock=clock)
    token = gateway.token(unit_primitives=["complete_code"], lifetime_s=3 * 86_400)
    assert (await complete(gateway, token)).status == 200

    gateway.issuer.go_down()
    clock.advance(4000)  # past AIGW_AUTH__KEY_TTL_S

    fresh = gateway.token(unit_primitives=["complete_code"], lifetime_s=3 * 86_400, jti="never seen")
    assert (await complete(gateway, token)).status == 200
    assert (await complete(gateway, fresh)).status == 200


async def test_a_new_key_is_picked_up_at_once_and_strange_keys_cost_one_fetch(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(clock=clock)
    assert (await complete(gateway, gateway.token(unit_primitives=["complete_code"]))).status == 200
    clock.advance(31)
    gateway.issuer.rotate()

    assert (await complete(gateway, gateway.token(unit_primitives=["complete_code"]))).status == 200

    fetches = len(gateway.issuer.requests)
    for number in range(5):
        strange = gateway.token(unit_primitives=["complete_code"], key=rsa_key(555), jti=str(number))
        assert (await complete(gateway, strange)).status == 401
    assert len(gateway.issuer.requests) == fetches


async def test_without_any_key_tokens_cannot_be_judged(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        env={
            "AIGW_GITLAB_URL": "http://127.0.0.1:9",
            "AIGW_CUSTOMER_PORTAL_URL": "http://127.0.0.1:9/portal",
            "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": "",
            "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": "",
        }
    )

    answer = await complete(gateway, gateway.token(unit_primitives=["complete_code"]))

    assert (answer.status, answer.refusal.code) == (503, "keys_unavailable")
    assert set(answer.json()) == {"error", "refusal"}
    assert (await gateway.get("/monitoring/ready")).status == 503
    assert (await gateway.get("/monitoring/healthz")).status == 200


async def test_an_address_that_keeps_failing_is_refused_unseen_but_its_known_tokens_pass(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "3"}, clock=clock)
    known = gateway.token(unit_primitives=["complete_code"])
    unknown = gateway.token(unit_primitives=["complete_code"], jti="not seen before")
    assert (await complete(gateway, known)).status == 200

    for number in range(3):
        strange = gateway.token(unit_primitives=["complete_code"], key=rsa_key(555), jti=str(number))
        assert (await complete(gateway, strange)).refusal.code == "token_signature"

    refused = await complete(gateway, unknown)
    assert (reason(refused), refused.refusal.code) == (FORBIDDEN, "auth_failures_exceeded")
    assert (await complete(gateway, known)).status == 200
    clock.advance(61)
    assert (await complete(gateway, unknown)).status == 200


@pytest.mark.parametrize("denied", ["[]", "[{name: row, instance: somebody-else}]"])
async def test_a_reload_makes_no_stranger_of_a_known_token(
    start_gateway: StartGateway, tmp_path: Path, denied: str
) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    gateway = await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "1", "AIGW_CATALOG": str(overlay)})
    known = gateway.token(unit_primitives=["complete_code"])
    assert (await complete(gateway, known)).status == 200
    strange = gateway.token(unit_primitives=["complete_code"], key=rsa_key(555))
    assert (await complete(gateway, strange)).refusal.code == "token_signature"
    (overlay / "deny.yml").write_text(denied)

    assert await gateway.running.reloader.reload()

    assert (await complete(gateway, known)).status == 200
    unknown = gateway.token(unit_primitives=["complete_code"], jti="not seen before")
    assert (await complete(gateway, unknown)).refusal.code == "auth_failures_exceeded"


async def test_a_reload_that_knows_an_old_name_gives_its_right_to_tokens_seen_before(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    record = "- {name: explain_code, description: d, feature_category: c%s}\n"
    file = tmp_path / "overlay" / "unit_primitives.yml"
    file.parent.mkdir()
    file.write_text(record % "")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(file.parent)})
    token = gateway.token(unit_primitives=["explain_old_code"])

    async def reload_and_ask(more: str) -> int:
        file.write_text(record % more)
        assert await gateway.running.reloader.reload()
        body = {"inputs": {"input": "why", "selected_text": "x = 1"}}
        return (await gateway.post("/v1/prompts/chat/explain_code", json=body, token=token)).status

    assert [await reload_and_ask(more) for more in ("", ", aliases: [explain_old_code]", "")] == [403, 200, 403]


@pytest.mark.parametrize("names", [("x-api-key", "x-api-key"), ("api-key", "api-key"), ("authorization",) * 2])
async def test_credentials_that_are_sent_twice_and_differ_are_nobodys(
    gateway: RunningGateway, names: tuple[str, str]
) -> None:
    token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"])
    body = b'{"model":"claude_sonnet_4_6","max_tokens":9,"messages":[{"role":"user","content":"?"}]}'
    scheme = "Bearer " if "authorization" in names else ""
    lines = [f"{name}: {scheme}{value}" for name, value in zip(names, (token, "another"), strict=True)]
    head = "\r\n".join(["POST /anthropic/v1/messages HTTP/1.1", "Host: g", *lines, f"Content-Length: {len(body)}"])

    async with await connect(gateway.port) as connection:
        await connection.send(f"{head}\r\n\r\n".encode() + body)
        answer = await connection.read_answer("POST")

    assert (answer.status, answer.header("x-torana-code")) == (401, "header_repeated")
    assert gateway.provider.requests == []


# Bypasses


async def test_a_bypass_lets_everyone_in_with_all_rights_and_is_said_aloud(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__BYPASS_EXTERNAL": "true", "AIGW_ENVIRONMENT": "production"})

    answers = [
        await gateway.post("/v2/completions", json=COMPLETION),
        await gateway.post("/v2/code/generations", json=COMPLETION),
        await gateway.post("/v3/code/completions", json=ENVELOPE, headers={"Authorization": "Bearer nonsense"}),
    ]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert (await gateway.get("/nowhere")).status == 404
    await gateway.log.find(level="critical", correlation_id=answers[0].header("x-request-id"))


async def test_a_bypass_by_header_is_for_requests_with_that_header(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER": "true"})

    statuses = {
        value: (await gateway.post("/v2/completions", json=COMPLETION, headers={"Bypass-Auth": value})).status
        for value in ("true", "True", "true, true", "false", "", "1", None)
    }

    assert statuses == {"true": 200, "True": 401, "true, true": 401, "false": 401, "": 401, "1": 401, None: 401}


async def test_the_bypass_header_alone_bypasses_nothing(gateway: RunningGateway) -> None:
    answer = await gateway.post("/v2/completions", json=COMPLETION, headers={"Bypass-Auth": "true"})

    assert answer.status == 401


async def test_a_bypass_of_signatures_leaves_every_other_check(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__BYPASS_JWT_SIGNATURE": "true"})

    def strange(**claims: Any) -> str:
        return gateway.token(unit_primitives=["complete_code"], key=rsa_key(555), **claims)

    assert (await complete(gateway, strange())).status == 200
    assert reason(await complete(gateway, strange(exp=int(time.time()) - MANY))) == FORBIDDEN
    assert reason(await complete(gateway, strange(aud="another"))) == FORBIDDEN
    assert reason(await complete(gateway, strange(), X_Gitlab_Realm="saas")) == "Header mismatch 'X-Gitlab-Realm'"
    assert (await gateway.post("/v2/code/generations", json=COMPLETION, token=strange())).status == 403
