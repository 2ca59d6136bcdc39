"""Hostile tokens against the strict reader and the verifier behind it."""

import contextlib
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.access import GITLAB_KEY, STRANGE_KEY, Access, headers_for, jwk, public_key, sign, sign_raw
from tests.support.keys import rsa_key

from torana.access.jose import (
    BadKey,
    BadToken,
    Key,
    encode_number,
    encode_part,
    is_signed_by,
    parse,
    read_key,
    read_object,
)
from torana.errors import Refusal

RS256 = '{"alg":"RS256"}'
PUBLIC = rsa_key(GITLAB_KEY).public_key()
PUBLIC_PEM = PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
PUBLIC_DER = PUBLIC.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def access() -> Access:
    access = Access(failures_per_minute=0)
    access.publish_all()
    return access


async def refused(access: Access, token: str) -> str:
    """The code that a token is refused with; fails where it is accepted."""
    with pytest.raises(Refusal) as caught:
        await access.verifier.authenticate(headers_for(token), "192.0.2.1")
    assert caught.value.status == 401
    assert caught.value.members == {"error": "Forbidden by auth provider"}
    return caught.value.code


def hmac_token(header: dict[str, Any], payload: dict[str, Any], secret: bytes) -> str:
    signed = f"{encode_part(json.dumps(header).encode())}.{encode_part(json.dumps(payload).encode())}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[header["alg"]]
    return f"{signed}.{encode_part(hmac.new(secret, signed.encode(), digest).digest())}"


def unsigned(header: Any, payload: dict[str, Any], signature: str = "") -> str:
    return f"{encode_part(json.dumps(header).encode())}.{encode_part(json.dumps(payload).encode())}.{signature}"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "RS384", "PS256"])
@pytest.mark.parametrize("signature", ["", "AA"])
async def test_a_token_of_another_algorithm_is_refused_whatever_its_signature(
    access: Access, alg: str, signature: str
) -> None:
    assert await refused(access, unsigned({"alg": alg}, access.claims(), signature)) == "token_algorithm"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", [PUBLIC_PEM, PUBLIC_PEM.strip(), PUBLIC_DER, b"", b"gitlab-1"])
async def test_the_public_key_is_no_shared_secret(access: Access, alg: str, secret: bytes) -> None:
    token = hmac_token({"alg": alg, "kid": "gitlab-1"}, access.claims(), secret)

    assert await refused(access, token) == "token_algorithm"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_key_of_one_kind_never_serves_another_kinds_algorithm(alg: str) -> None:
    token = hmac_token({"alg": alg}, {}, PUBLIC_PEM)

    assert not is_signed_by(parse(token.encode()), public_key(GITLAB_KEY))


async def test_an_elliptic_curve_token_is_refused(access: Access) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    assert await refused(access, jwt.encode(access.claims(), key, algorithm="ES256")) == "token_algorithm"


@pytest.mark.parametrize("length", [0, 2, 64, 128])
def test_a_psychic_signature_of_zeros_verifies_under_nothing(length: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    token = parse(unsigned({"alg": "ES256"}, {"a": 1}, encode_part(bytes(length))).encode())

    assert not is_signed_by(token, Key("", "EC", key, "ES256", "P-256"))


@pytest.mark.parametrize("signature", [b"", bytes(256), b"\x00" * 255 + b"\x01", b"\xff" * 256, b"\x01" * 512])
async def test_an_invented_rsa_signature_is_refused(access: Access, signature: bytes) -> None:
    token = unsigned({"alg": "RS256", "kid": "gitlab-1"}, access.claims(), encode_part(signature))

    assert await refused(access, token) == "token_signature"


@pytest.mark.parametrize(
    "member",
    [
        {"jwk": jwk(STRANGE_KEY)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/chain"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": None},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
    ],
)
@pytest.mark.parametrize("number", [GITLAB_KEY, STRANGE_KEY])
async def test_a_header_that_brings_its_key_or_changes_the_reading_is_refused(
    access: Access, member: dict[str, Any], number: int
) -> None:
    header = json.dumps({"alg": "RS256", **member})

    assert await refused(access, sign_raw(header, json.dumps(access.claims()), number)) == "token_header_refused"


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"none","alg":"RS256"}',
        '{"alg":"RS256","alg":"RS256"}',
        '{"alg":"RS256","al\\u0067":"RS256"}',
        '{"alg":"RS256","x":{"a":1,"a":2}}',
        '{"alg":["RS256"]}',
        '{"alg":null}',
        '{"kid":"gitlab-1"}',
        '{"alg":"RS256","kid":7}',
        '["RS256"]',
        '"RS256"',
        "{}",
        "",
        '{"alg":"RS256"',
        '{"alg":"RS256"}x',
        "\ufeff" + RS256,
        b'{"alg":"RS256","kid":"\xff"}',
    ],
)
async def test_a_malformed_header_is_refused_although_the_signature_is_good(
    access: Access, header: str | bytes
) -> None:
    assert await refused(access, sign_raw(header, json.dumps(access.claims()))) == "token_malformed"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exp", "NaN"),
        ("exp", "Infinity"),
        ("exp", "-Infinity"),
        ("exp", "1e999"),
        ("exp", "9" * 400),
        ("exp", "1" + "0" * 5000),
        ("exp", '"99999999999"'),
        ("exp", "true"),
        ("exp", "null"),
        ("exp", "[99999999999]"),
        ("nbf", "NaN"),
        ("nbf", '"0"'),
        ("iat", "1e999"),
        ("iss", "7"),
        ("iss", '["gitlab-ai-gateway"]'),
        ("sub", "{}"),
        ("gitlab_realm", "[]"),
        ("gitlab_instance_id", "1.5"),
        ("gitlab_instance_uid", "false"),
    ],
)
async def test_a_claim_of_an_impossible_value_is_refused(access: Access, name: str, text: str) -> None:
    payload = json.dumps(access.claims(**{name: "@"})).replace('"@"', text)

    assert await refused(access, sign_raw(RS256, payload)) == "token_malformed"


@pytest.mark.parametrize("duplicate", ['"scopes":["generate_code"]', '"exp":99999999999', '"iss":"x"', '"z":1,"z":1'])
async def test_duplicate_claims_are_refused(access: Access, duplicate: str) -> None:
    payload = json.dumps(access.claims())[:-1] + "," + duplicate + "}"

    assert await refused(access, sign_raw(RS256, payload)) == "token_malformed"


@pytest.mark.parametrize("payload", ["[]", "null", "", "{", '{"a":1}{"b":2}', "[" * 3000, b"\xff{}"])
async def test_a_payload_that_is_no_object_is_refused(access: Access, payload: str | bytes) -> None:
    assert await refused(access, sign_raw(RS256, payload)) == "token_malformed"


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "=",
        lambda token: token + ".",
        lambda token: token + ".e30",
        lambda token: "." + token,
        lambda token: token.replace(".", "..", 1),
        lambda token: token.replace(".", ". ", 1),
        lambda token: token.replace(".", "\n.", 1),
        lambda token: token[:40] + "+" + token[41:],
        lambda token: token[:40] + "é" + token[41:],
        lambda token: token.split(".")[0],
        lambda token: ".".join(token.split(".")[:2]),
        lambda token: json.dumps(dict(zip(("protected", "payload", "signature"), token.split("."), strict=True))),
        lambda token: "..",
        lambda token: "",
        lambda token: "undefined",
    ],
)
async def test_another_spelling_of_a_good_token_is_refused(access: Access, change: Any) -> None:
    token = change(sign(access.claims()))

    assert await refused(access, token) == "token_malformed"


async def test_unused_bits_give_no_second_spelling(access: Access) -> None:
    token = sign(access.claims())  # 256 bytes of signature: the last letter has four unused bits
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = token[:-1] + letters[letters.index(token[-1]) + 1]

    assert await refused(access, twin) == "token_malformed"


def test_a_token_may_be_as_large_as_the_limit_and_no_byte_more() -> None:
    token = sign({"exp": 1}).encode()

    assert parse(token, max_bytes=len(token)).algorithm == "RS256"
    with pytest.raises(BadToken) as caught:
        parse(token, max_bytes=len(token) - 1)
    assert caught.value.code == "token_too_large"


async def test_the_limit_is_8_kib(access: Access) -> None:
    small, large = sign(access.claims(pad="x" * 5000)), sign(access.claims(pad="x" * 6000))
    assert len(small) < 8192 < len(large)

    await access.verifier.authenticate(headers_for(small), "192.0.2.1")
    assert await refused(access, large) == "token_too_large"


async def test_a_megabyte_is_refused_before_it_is_read(access: Access) -> None:
    assert await refused(access, "a" * 1_000_000) == "token_too_large"


async def test_tokens_that_share_a_beginning_are_strangers(access: Access) -> None:
    good = sign(access.claims())
    await access.verifier.authenticate(headers_for(good), "192.0.2.1")

    for twin in (good[:-4] + "AAAA", good[: len(good) // 2], good[:64] + "A" * (len(good) - 64)):
        await refused(access, twin)


def test_numbers_that_are_finite_and_members_that_differ_are_read() -> None:
    assert read_object(b'{"a":1.5,"b":{"a":-0,"c":1e3}}', "payload") == {"a": 1.5, "b": {"a": 0, "c": 1000.0}}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "key",
        {},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        jwk(GITLAB_KEY) | {"e": encode_number(1)},
        jwk(GITLAB_KEY) | {"e": encode_number(2**40 + 1)},
        jwk(GITLAB_KEY, use="enc"),
        jwk(GITLAB_KEY, key_ops=["encrypt"]),
        jwk(GITLAB_KEY, key_ops="verify"),
        jwk(GITLAB_KEY) | {"kid": 7},
        jwk(GITLAB_KEY) | {"n": encode_number((1 << 1023) + 1)},
        jwk(GITLAB_KEY) | {"n": encode_number((1 << 20000) + 1)},
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-1", "x": "AQ", "y": "AQ"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AQ"},
        {"kty": "what"},
    ],
)
def test_a_bad_key_is_named_and_not_used(entry: Any) -> None:
    with pytest.raises(BadKey):
        read_key(entry)


@pytest.mark.parametrize("alg", ["RS256", "RS512", "PS384", "ES256", "ES512", "EdDSA", "HS256"])
def test_each_algorithm_verifies_under_its_own_kind_of_key_only(alg: str) -> None:
    curves = {"ES256": ec.SECP256R1(), "ES512": ec.SECP521R1()}
    secret: Any = rsa_key(GITLAB_KEY)
    if alg in curves:
        secret = ec.generate_private_key(curves[alg])
    elif alg == "EdDSA":
        secret = ed25519.Ed25519PrivateKey.generate()
    elif alg == "HS256":
        secret = b"s" * 32
    public = secret if alg == "HS256" else secret.public_key()
    kind = {"E": "EC", "H": "oct"}.get(alg[0], "RSA") if alg != "EdDSA" else "OKP"
    key = Key("", kind, public, "", {"ES256": "P-256", "ES512": "P-521"}.get(alg, ""))
    token = parse(jwt.encode({"a": 1}, secret, algorithm=alg).encode())

    assert is_signed_by(token, key)
    others = {"RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"} - {alg}
    assert not any(is_signed_by(token, Key("", kind, public, other, key.curve)) for other in others)
    assert not is_signed_by(token, public_key(STRANGE_KEY))


def test_a_weak_shared_secret_serves_no_algorithm() -> None:
    assert not Key("", "oct", b"s" * 31).serves("HS256")
    assert Key("", "oct", b"s" * 32).serves("HS256")
    assert not Key("", "oct", b"s" * 32).serves("HS512")


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))))
@settings(max_examples=200)
def test_no_bytes_make_the_reader_raise_anything_but_its_own_error(token: bytes) -> None:
    with pytest.raises(BadToken):
        parse(token)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
claim_names = st.sampled_from(
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scopes", "gitlab_realm", "gitlab_instance_id", "duo_seat_count"]
)


@given(st.dictionaries(claim_names, json_values, max_size=6), st.dictionaries(st.text(max_size=4), json_values))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_no_claims_make_the_verifier_raise_anything_but_a_refusal(
    changes: dict[str, Any], header: dict[str, Any]
) -> None:
    access = Access(failures_per_minute=0)
    access.publish_all()
    token = sign_raw(json.dumps({**header, "alg": "RS256"}), json.dumps(access.claims(**changes)))

    with contextlib.suppress(Refusal):
        caller = await access.verifier.verify(token, "192.0.2.1")
        access.verifier.match_headers(caller, headers_for(token))


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
async def test_no_text_makes_the_verifier_raise_anything_but_a_refusal(text: str) -> None:
    with pytest.raises(Refusal):
        await Access(failures_per_minute=0).verifier.verify(text, "nowhere")


def test_an_rsa_key_of_2048_bits_is_the_smallest_that_is_read() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()

    with pytest.raises(BadKey, match="1024 bits"):
        read_key({"kty": "RSA", "n": encode_number(weak.n), "e": encode_number(weak.e)})
    assert read_key(jwk(GITLAB_KEY, "k")).kid == "k"
