"""Tokens and requests made to fool the gateway: every attack in several forms, none may pass (promises 3.1 to 3.8).

Each case changes one thing about a token that passes, so that it is refused for that thing alone; where
a good signature is possible, it has one.
"""

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from jwt.algorithms import RSAAlgorithm
from tests.conftest import StartGateway
from tests.support.gateway import USER_ID, RunningGateway, gitlab_headers
from tests.support.http_client import Answer, write_request
from tests.support.issuer import AUDIENCE, DISCOVERY, INSTANCE_ID
from tests.support.keys import rsa_key

KEYS = "/oauth/discovery/keys"
STRANGE = 777
CURSOR = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
BODY = json.dumps({"prompt_version": 1, "current_file": CURSOR}).encode()
PATH = "/v2/completions"


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    # Without the bound on failures, each case reaches the check that it is about.
    return await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "0"})


class Forge:
    """What an attacker has: a good token, public keys, keys of his own, and all the time in the world."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.issuer = gateway.issuer
        self.good = gateway.token(unit_primitives=["complete_code"])
        head, body, _ = self.good.split(".")
        self.header: dict[str, Any] = json.loads(unpart(head))
        self.claims: dict[str, Any] = json.loads(unpart(body))
        self.public = self.issuer.key.public_key()

    def sign(
        self,
        header: dict[str, Any] | str | bytes | None = None,
        claims: dict[str, Any] | str | bytes | None = None,
        key: rsa.RSAPrivateKey | None = None,
    ) -> str:
        """RS256 over exactly these bytes; with the issuer's own key where none is given."""
        said = f"{part(self.header if header is None else header)}.{part(self.claims if claims is None else claims)}"
        return f"{said}.{part((key or self.issuer.key).sign(said.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def unsigned(self, signature: bytes, **header: Any) -> str:
        """Any signature under a header with these changes."""
        said = f"{part(self.header | header)}.{part(self.claims)}"
        return f"{said}.{part(signature)}"

    def hashed(self, algorithm: str, secret: bytes) -> str:
        """HMAC, as if a public key were a shared secret."""
        said = f"{part(self.header | {'alg': algorithm})}.{part(self.claims)}"
        digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
        return f"{said}.{part(hmac.new(secret, said.encode(), digest).digest())}"

    def text(self, **changes: Any) -> str:
        """The claims as JSON text."""
        return json.dumps(self.claims | changes)


def part(value: dict[str, Any] | str | bytes) -> str:
    raw = json.dumps(value).encode() if isinstance(value, dict) else value.encode() if isinstance(value, str) else value
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unpart(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def own_jwk() -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(rsa_key(STRANGE).public_key(), as_dict=True), "kid": "own", "alg": "RS256"}


def secrets_from(key: rsa.RSAPublicKey) -> list[bytes]:
    """Every spelling of a public key that a careless verifier might take for a shared secret."""
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    spki, pkcs1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1
    spelled = [key.public_bytes(encoding, form) for encoding in (pem, der) for form in (spki, pkcs1)]
    numbers = key.public_numbers()
    modulus = numbers.n.to_bytes(256, "big")
    return [
        *spelled,
        spelled[0].strip(),
        modulus,
        part(modulus).encode(),
        b"",
        b"secret",
        part({"kid": "key-100"}).encode(),
    ]


def confused(forge: Forge) -> list[str]:
    """alg none, and a public key as a secret."""
    nones = [
        forge.unsigned(b"", alg=name) for name in ("none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "\u017fS256")
    ]
    nones += [
        forge.sign(forge.header | {"alg": name}) for name in ("none", "HS256", "RS384", "RS512", "PS256", "ES256")
    ]
    nones += [forge.sign({"kid": "key-100"}), forge.sign(forge.header | {"alg": None}), forge.sign({"alg": ["RS256"]})]
    keyed = [forge.hashed(alg, secret) for alg in ("HS256", "HS384", "HS512") for secret in secrets_from(forge.public)]
    return nones + keyed


def of_other_keys(forge: Forge) -> list[str]:
    """Good signatures of keys that may not sign."""
    elliptic = ec.generate_private_key(ec.SECP256R1())
    edwards = ed25519.Ed25519PrivateKey.generate()
    said_es = f"{part(forge.header | {'alg': 'ES256'})}.{part(forge.claims)}"
    said_ed = f"{part(forge.header | {'alg': 'EdDSA'})}.{part(forge.claims)}"
    return [
        forge.sign(key=rsa_key(STRANGE)),
        forge.sign({"alg": "RS256"}, key=rsa_key(STRANGE)),
        forge.sign(claims=forge.claims | {"iss": AUDIENCE}, key=rsa_key(STRANGE)),
        forge.sign(claims=forge.claims | {"iss": "https://own.example"}, key=rsa_key(STRANGE)),
        forge.sign(claims=forge.claims | {"iss": None}, key=rsa_key(STRANGE)),
        f"{said_es}.{part(elliptic.sign(said_es.encode(), ec.ECDSA(hashes.SHA256())))}",
        f"{said_ed}.{part(edwards.sign(said_ed.encode()))}",
    ]


def with_embedded_keys(forge: Forge) -> list[str]:
    """Headers that bring a key or say where one lies, under the attacker's key and under the issuer's."""
    url = f"{forge.issuer.url}/attacker"
    brought = [
        {"jwk": own_jwk()}, {"jku": url}, {"x5u": url}, {"x5c": ["MIIB"]}, {"jwk": None}, {"jku": ""}, {"x5c": []},
        {"jwk": own_jwk(), "kid": "own"}, {"jku": url, "kid": "own"},
    ]  # fmt: skip
    keys = (rsa_key(STRANGE), forge.issuer.key)
    return [forge.sign(forge.header | member, key=key) for member in brought for key in keys]


def with_extensions(forge: Forge) -> list[str]:
    """Members that change how the token is read."""
    members = [
        {"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"b64": True},
        {"zip": "DEF"}, {"crit": ["unknown"], "unknown": 1}, {"crit": None}, {"crit": "exp"},
    ]  # fmt: skip
    packed = zlib.compress(json.dumps(forge.claims).encode())
    return [
        *(forge.sign(forge.header | member) for member in members),
        forge.sign(forge.header | {"zip": "DEF"}, packed),
    ]


def with_strange_kids(forge: Forge) -> list[str]:
    """A kid is a hint: whatever it says, the signature must hold, and it must be text."""
    kids: list[Any] = ["../../dev/null", "/dev/null", "' OR '1'='1", "key-100\u0000", "key-100", "http://127.0.0.1:1/"]
    kids += [f"{AUDIENCE}_signing_key", "x" * 4000, ""]
    not_text: list[Any] = [1, None, ["key-100"], {"kid": "key-100"}, True]
    return [
        *(forge.sign(forge.header | {"kid": kid}, key=rsa_key(STRANGE)) for kid in kids),
        *(forge.sign(forge.header | {"kid": kid}) for kid in not_text),
    ]


def with_duplicates(forge: Forge) -> list[str]:
    """Two readers, two meanings."""
    header = json.dumps(forge.header)
    both = [
        forge.sign('{"alg":"RS256",' + header[1:]),
        forge.sign('{"alg":"none",' + header[1:]),
        forge.sign(header[:-1] + ',"alg":"RS256"}'),
        forge.sign(header[:-1] + ',"kid":"key-100"}'),
        forge.sign(header[:-1] + ',"\\u0061lg":"RS256"}'),
    ]
    claims = forge.text()
    for name in ("exp", "aud", "iss", "sub", "scopes", "gitlab_realm", "gitlab_instance_id", "jti"):
        value = json.dumps(forge.claims[name])
        both += [
            forge.sign(claims=f'{{"{name}":{value},{claims[1:]}'),
            forge.sign(claims=f'{claims[:-1]},"{name}":{value}}}'),
        ]
    return [*both, forge.sign(claims=claims[:-1] + ',"other":{"a":1,"a":2}}')]


def malformed(forge: Forge) -> list[str]:
    """Not the one spelling of three parts in base64url."""
    head, body, signature = forge.good.split(".")
    other_letters = signature.replace("-", "+").replace("_", "/")
    last = signature[-1]
    alias = signature[:-1] + chr(ord(last) + 1)
    return [
        "", "a", ".", "..", "...", f"{head}.{body}", f"{head}.{body}.", f"{forge.good}.", f".{forge.good}",
        f"{forge.good}.{signature}", f"{head}..{signature}", f".{body}.{signature}", f"{head}.{body}.{signature}=",
        f"{head}=.{body}.{signature}", f"{head}.{body}=.{signature}", f"{head}.{body}.{signature}==",
        f"{head}.{body}.{alias}", f"{head[:-1]}.{body}.{signature}", f"{head}.{body}.{signature[:-1]}",
        f"{head}. {body}.{signature}", f"{head}.{body}.{signature}\u00e9", f"{head}%2E{body}%2E{signature}",
        f'"{forge.good}"', f"<{forge.good}>", f"{forge.good},{forge.good}", f"{forge.good} {forge.good}",
        f"{head}.{body}.{other_letters}~", f"{head}\t.{body}.{signature}",
        f"{head}.{part('[]')}.{signature}", f"{part('{}')}.{body}.{signature}", f"{part('null')}.{body}.{signature}",
        f"{head}.{body}.{signature}.{body}.{signature}", json.dumps({"payload": body, "protected": head}),
    ]  # fmt: skip


def of_impossible_claims(forge: Forge) -> list[str]:
    """Well signed, and nonsense."""
    claims = forge.text()[:-1]
    endless = claims.replace('"exp"', '"x"')
    ends = ("NaN", "Infinity", "-Infinity", "1e999", "null", "true", '"9999999999"', "[]", "{}", "9" * 400)
    texts = [
        "", "[]", "null", '"text"', "{", "{}", "{} {}", claims, "\ufeff" + forge.text(),
        *(f'{endless},"exp":{value}}}' for value in ends),
        *(f'{claims},"{name}":{value}}}' for name in ("nbf2", "x") for value in ("NaN", "Infinity", "-1e999")),
        forge.text(more="x" * 8000),
    ]  # fmt: skip
    changes: list[dict[str, Any]] = [
        {"exp": None}, {"exp": "soon"}, {"exp": 1}, {"exp": True}, {"nbf": 9e12}, {"nbf": "x"}, {"iat": "x"},
        {"aud": "other"}, {"aud": []}, {"aud": None}, {"aud": f"{AUDIENCE} "}, {"aud": {"x": AUDIENCE}},
        {"aud": f"x {AUDIENCE}"}, {"aud": AUDIENCE.upper()}, {"aud": ["other"]}, {"aud": [[AUDIENCE]]},
        {"iss": 1}, {"iss": [forge.issuer.url]}, {"sub": {}}, {"sub": ["x"]}, {"gitlab_realm": []},
        {"gitlab_instance_id": {"x": 1}}, {"gitlab_realm": 1.5}, {"gitlab_realm": True},
    ]  # fmt: skip
    deep = "[" * 3000 + "]" * 3000
    return [
        *(forge.sign(claims=text) for text in texts),
        *(forge.sign(claims=forge.claims | change) for change in changes),
        forge.sign(claims=f'{claims},"deep":{deep}}}'),
        forge.sign(claims=b"\xff" + forge.text().encode()),
    ]


def psychic(forge: Forge) -> list[str]:
    """Signatures that hold for anything where arithmetic is done carelessly."""
    size = 256
    prefix = bytes.fromhex("3031300d060960864801650304020105000420")
    digest = hashlib.sha256(f"{part(forge.header)}.{part(forge.claims)}".encode()).digest()
    padded = b"\x00\x01" + b"\xff" * (size - 3 - len(prefix) - 32) + b"\x00" + prefix + digest
    short = b"\x00\x01\xff\x00" + prefix + digest
    modulus = forge.public.public_numbers().n
    values = [
        b"", b"\x00", bytes(size), b"\x00" * 64, b"\x01" + bytes(size - 1), bytes(size - 1) + b"\x01",
        modulus.to_bytes(size, "big"), (modulus - 1).to_bytes(size, "big"), b"\xff" * size, padded,
        short + bytes(size - len(short)), b"\x30\x06\x02\x01\x00\x02\x01\x00", bytes(8000),
    ]  # fmt: skip
    signature = int.from_bytes(unpart(forge.good.split(".")[2]), "big")
    values += [(signature + modulus).to_bytes(size + 1, "big"), b"\x00" + unpart(forge.good.split(".")[2])]
    algorithms = ("RS256", "ES256", "ES512", "EdDSA", "HS256", "PS256")
    return [forge.unsigned(value, alg=algorithm) for value in values for algorithm in algorithms]


def too_large(forge: Forge) -> list[str]:
    sizes = (8193, 9000, 16_000, 30_000)
    return [
        *(forge.good + "A" * (size - len(forge.good)) for size in sizes),
        *("A" * size for size in sizes),
        *("." * size for size in sizes),
        forge.sign(claims=forge.claims | {"more": "x" * 5800}),
    ]


def with_shared_beginnings(forge: Forge) -> list[str]:
    """A cache that remembers less than the whole token would take these for the good one."""
    good = forge.good
    ends = ["A", "AAAA", ".", "=", "\u00ff", "%00", "x" * 10]
    flipped = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in (0, 20, len(good) // 2, -2)]
    return [*(good + end for end in ends), *(good[:-length] for length in (1, 2, 4, 100)), *flipped, good.swapcase()]


def user_tokens_of_others(forge: Forge) -> list[str]:
    """The service's own name as issuer: only the local keys may sign that."""
    claims = {"sub": USER_ID, "iss": AUDIENCE}
    return [
        forge.sign(claims=forge.claims | claims),
        forge.sign(forge.header | {"kid": f"{AUDIENCE}_signing_key"}, forge.claims | claims),
        forge.sign(claims=forge.claims | claims, key=rsa_key(STRANGE)),
        forge.sign(forge.header | {"kid": f"{AUDIENCE}_validation_key"}, forge.claims | claims, rsa_key(STRANGE)),
    ]


ATTACKS: dict[str, Callable[[Forge], list[str]]] = {
    "algorithm confusion": confused,
    "keys that may not sign": of_other_keys,
    "embedded keys": with_embedded_keys,
    "extensions": with_extensions,
    "strange key ids": with_strange_kids,
    "duplicate members": with_duplicates,
    "malformed": malformed,
    "impossible claims": of_impossible_claims,
    "psychic signatures": psychic,
    "too large": too_large,
    "shared beginnings": with_shared_beginnings,
    "user tokens of others": user_tokens_of_others,
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_no_token_of_an_attack_is_accepted(gateway: RunningGateway, name: str) -> None:
    forge = Forge(gateway)
    assert (await send(forge, forge.good)).status == 200  # what is changed below passes as it is
    assert (await send(forge, forge.sign())).status == 200
    sent = len(gateway.provider.requests)
    known = {f"{path}{end}" for path in ("", "/portal") for end in (DISCOVERY, KEYS)}
    wrong = []

    tokens = ATTACKS[name](forge)
    for token in tokens:
        answer = await send(forge, token)
        # A header that is no header, or too much of it, ends before anyone reads the token.
        if answer.status not in (401, 400, 431) or (answer.status == 401 and "error" not in answer.json()):
            wrong.append((token[:200], answer))

    assert wrong == []
    assert len(tokens) >= 4
    assert len(gateway.provider.requests) == sent
    assert {request.path for request in gateway.issuer.requests} <= known  # no address of an attacker's was asked
    assert (await send(forge, forge.good)).status == 200
    assert "unexpected error" not in {line["message"] for line in gateway.log.lines}


async def send(forge: Forge, token: str) -> Answer:
    gateway, headers = forge.gateway, gitlab_headers(forge.good)
    text = token.encode("utf-8").decode("latin-1")
    async with await gateway.connect() as connection:
        await connection.send(write_request("POST", PATH, headers | {"Authorization": f"Bearer {text}"}, BODY))
        return await connection.read_answer()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/code/user_access_token", None),
        ("/v2/code/generations", json.loads(BODY)),
        ("/v3/code/completions", {"prompt_components": [{"type": "code_editor_completion", "payload": CURSOR}]}),
        ("/v4/code/suggestions", {"prompt_components": [{"type": "code_editor_generation", "payload": CURSOR}]}),
    ],
)
async def test_a_user_token_never_passes_for_an_instance(gateway: RunningGateway, path: str, body: Any) -> None:
    rights = ["complete_code", "generate_code", "ai_gateway_model_provider_proxy"]
    for changes in ({}, {"sub": INSTANCE_ID}, {"gitlab_instance_uid": "uid"}, {"gitlab_realm": "saas"}):
        token = gateway.user_token(unit_primitives=rights, **changes)
        answer = await gateway.post(path, json=body, token=token)
        assert (answer.status, answer.refusal.code) == (403, "user_token_not_accepted")


async def test_a_user_cannot_speak_for_another_user_instance_or_realm(gateway: RunningGateway) -> None:
    token = gateway.user_token(unit_primitives=["complete_code"])
    for name in ("X-Gitlab-Global-User-Id", "X-Gitlab-Instance-Id", "X-Gitlab-Realm"):
        for value in ("another", "", None, f"{USER_ID} ", USER_ID.upper()):
            if name == "X-Gitlab-Global-User-Id" and value is not None and value.strip() == USER_ID:
                continue  # white space around a value is none of it
            answer = await gateway.post(PATH, body=BODY, token=token, headers={name: value})
            assert (answer.status, answer.refusal.code) == (401, "header_mismatch"), (name, value)
            assert answer.json()["error"] == f"Header mismatch '{name}'"
