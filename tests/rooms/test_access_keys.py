"""Keys: contract 2.5 and 2.6; checklist A7, A8; drills JW1 to JW7 at room level."""

import asyncio
import base64
import json
import logging
import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.access import (
    GITLAB,
    GITLAB_KEY,
    LOCAL_KEY,
    PORTAL,
    PORTAL_KEY,
    SERVICE,
    STRANGE_KEY,
    Access,
    FakeFetcher,
    headers_for,
    json_answer,
    jwk,
    sign,
)
from tests.support.keys import pem, rsa_key
from tests.support.waiting import eventually

from torana.access.issuer_keys import IssuerKeys
from torana.access.jose import BadKey, read_key
from torana.access.local_keys import LocalKeys, keep_signing_key, load_local_keys, load_token_keys, read_private_key
from torana.auth_settings import AuthSettings
from torana.errors import Refusal
from torana.settings import Secret, Settings
from torana.transport import Fetched

DISCOVERY = f"{GITLAB}/.well-known/openid-configuration"
KEYS = f"{GITLAB}/keys"


@pytest.fixture
def access() -> Access:
    access = Access(failures_per_minute=0, customer_portal_url="")
    access.fetcher.publish(GITLAB, jwk(GITLAB_KEY, "gitlab-1"))
    return access


async def accepts(access: Access, token: str) -> bool:
    try:
        await access.verifier.authenticate(headers_for(token), "192.0.2.1")
    except Refusal:
        return False
    return True


async def refetched(access: Access) -> bool:
    access.clock.advance(access.settings.key_refetch_s)
    return await access.ring.refetch("")


def kids(access: Access) -> list[str]:
    return [key.kid for _, key in access.ring.all_keys()]


# What is fetched


Poison = Callable[[FakeFetcher], Any]


def put(url: str, answer: Fetched) -> Poison:
    return lambda fetcher: fetcher.answers.__setitem__(url, answer)


def raw(body: bytes, content_type: str = "application/json", status: int = 200) -> Fetched:
    return Fetched(status=status, headers={"content-type": content_type}, body=body)


def discovery(**members: Any) -> Poison:
    return put(DISCOVERY, json_answer({"issuer": GITLAB, "jwks_uri": KEYS} | members))


def elsewhere(jwks_uri: str) -> Poison:
    return lambda fetcher: fetcher.publish(GITLAB, jwk(STRANGE_KEY, "evil"), jwks_uri=jwks_uri)


ONE_KEY = {"keys": [jwk(STRANGE_KEY)]}
POISONS: dict[str, Poison] = {
    "nobody answers": lambda fetcher: fetcher.answers.clear(),
    "the key set is gone": lambda fetcher: fetcher.answers.pop(KEYS),
    "discovery is HTML": put(DISCOVERY, raw(b"<html></html>", "text/html")),
    "keys are HTML": put(KEYS, raw(b"<html></html>", "text/html; charset=utf-8")),
    "keys are JSON that says it is HTML": put(
        KEYS, raw(json.dumps({"keys": [jwk(STRANGE_KEY)]}).encode(), "text/html")
    ),
    "keys are text": put(KEYS, raw(json.dumps({"keys": [jwk(STRANGE_KEY)]}).encode(), "text/plain")),
    "keys are empty": put(KEYS, json_answer({"keys": []})),
    "keys are no list": put(KEYS, json_answer({"keys": {"a": jwk(STRANGE_KEY)}})),
    "keys are a list alone": put(KEYS, json_answer([jwk(STRANGE_KEY)])),
    "no bytes at all": put(KEYS, raw(b"")),
    "truncated": put(KEYS, raw(json.dumps(ONE_KEY).encode()[:-9])),
    "not UTF-8": put(KEYS, raw(b'{"keys":[{"kty":"\xff"}]}')),
    "deep": put(KEYS, raw(b'{"keys":' + b"[" * 100_000)),
    "too large": put(KEYS, raw(json.dumps({"keys": [jwk(STRANGE_KEY, pad="x" * (1 << 20))]}).encode())),
    "too many": put(KEYS, json_answer({"keys": [jwk(STRANGE_KEY, str(number)) for number in range(101)]})),
    "compressed": put(KEYS, json_answer(ONE_KEY, content_encoding="gzip")),
    "only a symmetric key": put(KEYS, json_answer({"keys": [{"kty": "oct", "k": "c2VjcmV0" * 8}]})),
    "only an elliptic key": put(KEYS, json_answer({"keys": [{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}]})),
    "only for encryption": put(KEYS, json_answer({"keys": [jwk(STRANGE_KEY, use="enc")]})),
    "only for another algorithm": put(KEYS, json_answer({"keys": [jwk(STRANGE_KEY, alg="RS512")]})),
    "only alg none": put(KEYS, json_answer({"keys": [jwk(STRANGE_KEY, alg="none")]})),
    "redirect": put(KEYS, json_answer(ONE_KEY, 302, location="http://127.0.0.1/")),
    "discovery redirects": put(DISCOVERY, json_answer({}, 301, location="https://evil.example/")),
    "error with keys": put(KEYS, json_answer(ONE_KEY, 500)),
    "no issuer": discovery(issuer=""),
    "issuer is no text": discovery(issuer=["x"]),
    "issuer is ourselves": discovery(issuer=SERVICE),
    "no jwks_uri": put(DISCOVERY, json_answer({"issuer": GITLAB})),
    "another host": elsewhere("https://evil.example/keys"),
    "plain http": elsewhere("http://gitlab.example/keys"),
    "user part": elsewhere("https://gitlab.example@evil.example/keys"),
    "user part of ours": elsewhere("https://x@gitlab.example/keys"),
    "backslash": elsewhere("https://evil.example\\@gitlab.example/keys"),
    "file": elsewhere("file:///etc/passwd"),
    "no scheme": elsewhere("//gitlab.example/keys"),
    "bad port": elsewhere("https://gitlab.example:99999/keys"),
    "look-alike letters": elsewhere("https://gıtlab.example/keys"),
    "white space": elsewhere("https://gitlab.example/ keys"),
}


@pytest.mark.parametrize("what", POISONS)
async def test_a_poisoned_answer_never_removes_or_adds_keys(access: Access, what: str) -> None:
    await access.ring.refetch("")
    assert kids(access) == ["gitlab-1"]
    token = sign(access.claims())

    POISONS[what](access.fetcher)
    assert not await refetched(access)

    assert kids(access) == ["gitlab-1"]
    assert await accepts(access, token)
    [state] = access.ring.states()
    assert not state.ok
    assert state.detail


@pytest.mark.parametrize("what", POISONS)
async def test_a_poisoned_answer_at_the_start_leaves_no_keys_and_no_crash(access: Access, what: str) -> None:
    POISONS[what](access.fetcher)

    await access.ring.refetch("")

    assert not access.ring.has_keys


async def test_bad_keys_of_a_set_are_dropped_one_by_one(access: Access) -> None:
    weak = {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}
    oct_key = {"kty": "oct", "kid": "oct", "k": "c2VjcmV0" * 8}
    access.fetcher.publish(
        GITLAB,
        weak,
        jwk(GITLAB_KEY, "a"),
        oct_key,
        jwk(STRANGE_KEY, "a"),
        {"kty": 5},
        jwk(PORTAL_KEY),
        jwk(STRANGE_KEY),
    )

    await access.ring.refetch("")

    assert kids(access) == ["a", "", ""]


async def test_a_key_with_letters_that_no_utf_8_has_is_dropped_alone(access: Access) -> None:
    odd = b'{"kty":"RSA","kid":"gr\xfc\xdfe","n":"AQAB","e":"AQAB"}'
    access.fetcher.answers[KEYS] = raw(b'{"keys":[%b,%b]}' % (odd, json.dumps(jwk(GITLAB_KEY, "a")).encode()))

    await access.ring.refetch("")

    assert kids(access) == ["a"]


@pytest.mark.parametrize("count", [1, 100])
async def test_a_set_of_up_to_a_hundred_keys_is_read(access: Access, count: int) -> None:
    access.fetcher.publish(GITLAB, *(jwk(GITLAB_KEY, str(number)) for number in range(count)))

    await access.ring.refetch("")

    assert len(kids(access)) == count


@pytest.mark.parametrize("media_type", ["application/json", "application/jwk-set+json; charset=utf-8", "text/JSON"])
async def test_any_json_media_type_is_taken(access: Access, media_type: str) -> None:
    access.fetcher.answers[KEYS] = raw(json.dumps({"keys": [jwk(GITLAB_KEY)]}).encode(), media_type)

    assert await access.ring.refetch("")


@pytest.mark.parametrize(
    ("base", "issuer", "jwks_uri", "hosts"),
    [
        ("http://gitlab.internal:8080", "https://gitlab.example/", "http://gitlab.internal:8080/keys", ()),
        ("http://gitlab.internal:8080", "https://gitlab.example", "https://gitlab.example/keys", ()),
        ("https://gitlab.internal", "https://gitlab.example", "https://GitLab.Internal:8443/keys", ()),
        ("https://gitlab.internal", "https://gitlab.example", "https://keys.example/all", ("Keys.Example",)),
        ("https://gitlab.internal", "https://gitlab.example", "https://keys.example:1/all", ("keys.example:1",)),
    ],
)
async def test_an_internal_base_url_speaks_for_its_external_issuer(
    base: str, issuer: str, jwks_uri: str, hosts: tuple[str, ...]
) -> None:
    access = Access(gitlab_url=base, issuer_hosts=hosts)
    access.fetcher.publish(base, jwk(GITLAB_KEY), issuer=issuer, jwks_uri=jwks_uri)
    access.fetcher.publish(PORTAL, jwk(PORTAL_KEY))
    await access.ring.refetch("")

    assert await accepts(access, sign(access.claims(iss="https://gitlab.example")))
    assert not await accepts(access, sign(access.claims(iss="https://gitlab.example"), PORTAL_KEY))


async def test_one_issuer_cannot_speak_for_another_configured_one() -> None:
    access = Access()
    access.publish_all()
    access.fetcher.publish(PORTAL, jwk(PORTAL_KEY), issuer=GITLAB)

    await access.ring.refetch("")

    assert not await accepts(access, sign(access.claims(), PORTAL_KEY))
    assert await accepts(access, sign(access.claims()))


# When it is fetched


async def test_an_unknown_key_is_fetched_at_once_and_then_once_in_the_interval(access: Access) -> None:
    assert await accepts(access, sign(access.claims()))
    asked = len(access.fetcher.requests)
    assert asked == 2

    for number in range(50):
        assert not await accepts(access, sign(access.claims(jti=str(number)), STRANGE_KEY, kid=f"random-{number}"))
    assert len(access.fetcher.requests) == asked
    access.clock.advance(30)
    for number in range(50):
        assert not await accepts(access, sign(access.claims(jti=f"b{number}"), STRANGE_KEY, kid=f"random-{number}"))

    assert len(access.fetcher.requests) == asked + 2


async def test_a_new_key_is_picked_up_after_at_most_the_refetch_interval(access: Access) -> None:
    assert await accepts(access, sign(access.claims()))
    access.fetcher.publish(GITLAB, jwk(STRANGE_KEY, "gitlab-2"))
    token = sign(access.claims(jti="new"), STRANGE_KEY, kid="gitlab-2")
    assert not await accepts(access, token)

    access.clock.advance(30)

    assert await accepts(access, token)


async def test_a_removed_key_is_refused_after_the_refresh_for_remembered_tokens_too(access: Access) -> None:
    token = sign(access.claims())
    assert await accepts(access, token)

    access.fetcher.publish(GITLAB, jwk(STRANGE_KEY, "gitlab-2"))
    assert await refetched(access)

    assert not await accepts(access, token)


async def test_callers_with_unknown_keys_share_one_fetch(access: Access) -> None:
    access.fetcher.held = asyncio.Event()
    waiting = [asyncio.create_task(accepts(access, sign(access.claims(jti=str(number))))) for number in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    access.fetcher.held.set()

    assert await asyncio.gather(*waiting) == [True] * 20
    assert len(access.fetcher.requests) == 2


async def test_no_caller_waits_for_a_slow_issuer_to_the_end(access: Access) -> None:
    access.fetcher.held = asyncio.Event()

    found = await accepts(access, sign(access.claims()))

    assert not found
    access.fetcher.held.set()
    await access.ring.aclose()


async def test_a_slow_issuer_does_not_hold_up_tokens_of_known_keys(access: Access) -> None:
    await access.ring.refetch("")
    access.clock.advance(30)
    access.fetcher.held = asyncio.Event()
    stranger = asyncio.create_task(accepts(access, sign(access.claims(), STRANGE_KEY)))
    await asyncio.sleep(0)

    assert await accepts(access, sign(access.claims(jti="other")))

    access.fetcher.held.set()
    assert not await stranger


async def test_a_user_token_with_a_bad_signature_asks_no_issuer() -> None:
    access = Access(signing=rsa_key(LOCAL_KEY))

    assert not await accepts(access, sign(access.claims(iss=SERVICE, sub="user-1"), STRANGE_KEY))
    assert access.fetcher.requests == []


async def test_a_failing_issuer_hides_no_other() -> None:
    access = Access()
    access.fetcher.publish(PORTAL, jwk(PORTAL_KEY))

    assert await accepts(access, sign(access.claims(iss=PORTAL), PORTAL_KEY))
    await access.ring.refetch("")
    assert [state.ok for state in access.ring.states()] == [False, True]


async def test_stale_keys_serve_through_an_outage_up_to_their_limit(access: Access) -> None:
    await access.ring.refetch("")
    access.fetcher.answers.clear()
    access.clock.advance(86400)
    assert await accepts(access, sign(access.claims()))

    access.clock.advance(1)

    assert not await accepts(access, sign(access.claims()))
    assert not access.ring.has_keys


async def test_the_next_fetch_comes_before_the_keys_are_old_and_soon_after_a_failure(access: Access) -> None:
    [issuer] = access.ring._issuers
    assert issuer.due_in_s() <= 5

    await issuer.fetch()
    assert issuer.due_in_s() < access.settings.key_ttl_s
    access.clock.advance(3600)
    assert issuer.due_in_s() == 1

    access.fetcher.answers.clear()
    await issuer.fetch()
    assert issuer.due_in_s() <= 30


async def test_a_fetch_for_a_token_that_fails_is_made_good_soon_and_not_when_the_keys_are_old(access: Access) -> None:
    issuer = IssuerKeys(
        GITLAB, access.settings, access.fetcher, access.clock, changed=lambda: None, retry_with_keys_s=0.01
    )
    keeping = asyncio.create_task(issuer.keep_fresh())
    await eventually(is_well(issuer))

    answers, access.fetcher.answers = access.fetcher.answers, {}
    access.clock.advance(access.settings.key_refetch_s)
    asked = issuer.refetch()
    assert asked is not None
    await asked
    assert not issuer.state().ok
    access.fetcher.answers = answers

    await eventually(is_well(issuer))
    keeping.cancel()


def is_well(issuer: IssuerKeys) -> Callable[[], Awaitable[bool]]:
    async def is_it() -> bool:
        return issuer.state().ok

    return is_it


async def test_start_fetches_in_the_background_and_aclose_ends_it(access: Access) -> None:
    access.fetcher.held = asyncio.Event()
    access.ring.start()
    assert not access.ring.has_keys

    access.fetcher.held.set()
    await access.ring._issuers[0].fetch()

    assert access.ring.has_keys
    await access.ring.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_an_issuer_without_a_url_is_off() -> None:
    access = Access(gitlab_url="", customer_portal_url="")

    await access.ring.refetch("")

    assert access.ring.states() == []
    assert access.fetcher.requests == []


async def test_the_same_base_url_twice_is_one_issuer() -> None:
    access = Access(gitlab_url=GITLAB, customer_portal_url=f"{GITLAB}/")

    assert [state.issuer for state in access.ring.states()] == [GITLAB]


async def test_states_tell_keys_age_and_clock_skew(access: Access) -> None:
    ahead = datetime.fromtimestamp(access.clock.now() + 300, UTC)
    access.fetcher.answers[KEYS] = json_answer({"keys": [jwk(GITLAB_KEY)]}, date=format_datetime(ahead, usegmt=True))
    [before] = access.ring.states()
    await access.ring.refetch("")
    access.clock.advance(7)

    [state] = access.ring.states()

    assert (before.ok, before.keys, before.age_s) == (False, 0, None)
    assert (state.issuer, state.ok, state.keys, state.age_s, state.skew_s) == (GITLAB, True, 1, 7, 300)


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 2026", "Thu, 01 Jan 99999 00:00:00 GMT"])
async def test_a_garbled_date_does_no_harm(access: Access, date: str) -> None:
    access.fetcher.answers[KEYS] = json_answer({"keys": [jwk(GITLAB_KEY)]}, date=date)

    assert await access.ring.refetch("")


async def test_a_lasting_outage_is_logged_once(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    access.fetcher.answers.clear()
    for _ in range(5):
        await refetched(access)

    assert len(caplog.records) == 1


# Our own keys


def settings_with(tmp_path: Path, environment: str = "production", **auth: str) -> Settings:
    secrets = {name: Secret(value) for name, value in auth.items()}
    return Settings(environment=environment, state_dir=str(tmp_path / "state"), auth=AuthSettings(**secrets))


def other_pem(key: Any) -> str:
    return str(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    )


def odd_pem(exponent: int) -> str:
    """A key as PEM that is well-formed in all but its exponent."""
    numbers = rsa_key(LOCAL_KEY).private_numbers()
    told = (0, numbers.public_numbers.n, exponent, numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1)
    body = b"".join(map(_der_integer, (*told, numbers.iqmp)))
    text = base64.encodebytes(b"\x30" + _der_length(body) + body).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{text}-----END RSA PRIVATE KEY-----\n"


def _der_integer(number: int) -> bytes:
    body = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return b"\x02" + _der_length(body) + body


def _der_length(body: bytes) -> bytes:
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return size if len(body) < 128 else bytes([0x80 | len(size)]) + size


def test_both_public_halves_are_published_and_nothing_private(tmp_path: Path) -> None:
    escaped = pem(rsa_key(STRANGE_KEY)).replace("\n", "\\n")
    keys = load_local_keys(settings_with(tmp_path, signing_key=pem(rsa_key(LOCAL_KEY)), validation_key=escaped))

    found = keys.jwks()["keys"]

    assert [row["kid"] for row in found] == [f"{SERVICE}_signing_key", f"{SERVICE}_validation_key"]
    assert all(row.keys() == {"kty", "use", "alg", "kid", "n", "e"} for row in found)
    assert [read_key(row).public for row in found] == [
        rsa_key(number).public_key() for number in (LOCAL_KEY, STRANGE_KEY)
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "garbage",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        other_pem(ec.generate_private_key(ec.SECP256R1())),
        other_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        pem(rsa_key(LOCAL_KEY))[:-200],
        odd_pem(1),
        odd_pem(65536),
        "\x00\ud800",
    ],
)
def test_a_bad_key_is_logged_and_left_out_and_the_other_stays(
    tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = load_local_keys(
        settings_with(tmp_path, "development", signing_key=bad, validation_key=pem(rsa_key(LOCAL_KEY)))
    )

    assert keys.signing is None
    assert [row["kid"] for row in keys.jwks()["keys"]] == [f"{SERVICE}_validation_key"]
    assert "AIGW_SELF_SIGNED_JWT__SIGNING_KEY" in caplog.text
    assert not (tmp_path / "state").exists()
    with pytest.raises(BadKey):
        read_private_key(bad)


@pytest.mark.parametrize("environment", ["production", "staging", "Development", "test"])
def test_no_key_is_made_outside_development(tmp_path: Path, environment: str) -> None:
    settings = settings_with(tmp_path, environment)

    assert load_local_keys(settings).signing is None
    assert load_token_keys(settings).signing is None
    assert not (tmp_path / "state").exists()


def test_development_keeps_one_key_that_tokens_use_everywhere(tmp_path: Path) -> None:
    first = load_local_keys(settings_with(tmp_path, "development"))
    again = load_local_keys(settings_with(tmp_path, "development"))
    kept = tmp_path / "state" / "signing_key.pem"

    assert first.jwks() == again.jwks() != {"keys": []}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert list(kept.parent.iterdir()) == [kept]
    assert load_token_keys(settings_with(tmp_path, "production")).jwks() == first.jwks()
    assert load_local_keys(settings_with(tmp_path, "production")).signing is None


async def test_workers_that_start_at_once_agree_on_the_key(tmp_path: Path) -> None:
    made = await asyncio.gather(*(asyncio.to_thread(keep_signing_key, tmp_path / "state") for _ in range(4)))

    assert len({key.private_numbers().p for key in made if key}) == 1


def test_an_unwritable_state_directory_is_logged_and_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file in the way")

    assert load_local_keys(settings_with(tmp_path, "development")).signing is None
    assert "state directory" in caplog.text


def test_the_discovery_document_needs_our_public_url() -> None:
    keys = LocalKeys(SERVICE, rsa_key(LOCAL_KEY))

    assert keys.discovery("") is None
    found = keys.discovery("https://gateway.example/ai/")
    assert found is not None
    assert (found["issuer"], found["jwks_uri"]) == (SERVICE, "https://gateway.example/ai/.well-known/jwks.json")


def test_the_gateway_id_is_the_same_wherever_the_signing_key_is() -> None:
    first, second = LocalKeys(SERVICE, rsa_key(LOCAL_KEY)), LocalKeys(SERVICE, rsa_key(LOCAL_KEY))

    assert first.gateway_id() == second.gateway_id() != LocalKeys(SERVICE, rsa_key(STRANGE_KEY)).gateway_id()
    assert len(first.gateway_id()) == len(LocalKeys(SERVICE).gateway_id()) == 8
    assert LocalKeys(SERVICE).gateway_id() != LocalKeys(SERVICE).gateway_id()


def test_signing_without_a_key_is_an_error() -> None:
    with pytest.raises(LookupError):
        LocalKeys(SERVICE, validation=rsa_key(LOCAL_KEY)).sign({})


def test_no_log_line_shows_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load_local_keys(settings_with(tmp_path, signing_key="-----BEGIN secret-----"))

    assert "secret" not in json.dumps([str(record.__dict__) for record in caplog.records])
