"""Signed tokens in compact form, read strictly: bytes in, parts out; no clock, no settings.

Stricter than the standards where laxness has been an attack: one spelling of base64url, no
duplicate members, no header that brings its own key or changes how the token is read, finite
numbers, 8 KiB. PyJWT does the arithmetic of signatures and nothing else.
"""

import json
import math
from base64 import urlsafe_b64encode
from binascii import Error as NoBase64
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

from torana.dialects.bodies import mend_half_letters

MAX_TOKEN_BYTES = 8192
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""A larger key makes each verification dear for us and adds nothing."""

_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
"""The URL's alphabet read with the other one's table; what is no letter of it stays none."""
_LAST_LETTERS = {0: b"", 2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
"""Letters in the last group of four → those that may end it: unused bits would give one token several spellings."""
_REFUSED_MEMBERS = frozenset({"crit", "jku", "x5u", "x5c", "jwk", "zip", "b64"})
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}
_CURVE_OF = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "ES256K": "secp256k1"}
_HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | bytes


class BadToken(Exception):
    """The token is refused; `code` is a key of `refusals.CODES`, `detail` is for whoever inspects it."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code
        self.detail = detail


class BadKey(Exception):
    """A key that is not used; the text says why."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A token taken apart; nothing in it is verified."""

    header: Mapping[str, Any]
    payload: bytes
    signed: bytes
    """What the signature covers: header and payload as they were sent."""
    signature: bytes

    @property
    def algorithm(self) -> str:
        return str(self.header["alg"])

    @property
    def kid(self) -> str:
        return str(self.header.get("kid", ""))


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of a key set."""

    kid: str
    kind: str
    """The JWK's `kty`: RSA, EC, OKP or oct."""
    public: PublicKey
    algorithm: str = ""
    """The only algorithm the key is for; empty: any of its kind."""
    curve: str = ""

    def serves(self, algorithm: str) -> bool:
        """The key is of the kind that the algorithm asks for; this is what stops algorithm confusion."""
        if self.algorithm not in ("", algorithm):
            return False
        if algorithm in _HMAC_BYTES:
            return isinstance(self.public, bytes) and len(self.public) >= _HMAC_BYTES[algorithm]
        if algorithm in _CURVE_OF:
            return self.kind == "EC" and self.curve == _CURVE_OF[algorithm]
        if algorithm == "EdDSA":
            return self.kind == "OKP"
        return algorithm[:2] in ("RS", "PS") and self.kind == "RSA"


def parse(token: bytes, max_bytes: int = MAX_TOKEN_BYTES) -> Jws:
    """Take a token apart and check its header; raises BadToken."""
    if len(token) > max_bytes:
        raise BadToken("token_too_large", f"{len(token)} bytes, at most {max_bytes}")
    parts = token.split(b".")
    if len(parts) != 3:
        raise BadToken("token_malformed", f"{len(parts)} parts instead of 3")
    header = read_object(_decode(parts[0]), "header")
    refused = _REFUSED_MEMBERS & header.keys()
    if refused:
        raise BadToken("token_header_refused", f"header member {min(refused)}")
    if not isinstance(header.get("alg"), str):
        raise BadToken("token_malformed", "the header names no algorithm")
    if not isinstance(header.get("kid", ""), str):
        raise BadToken("token_malformed", "the header's kid is no text")
    return Jws(header, _decode(parts[1]), parts[0] + b"." + parts[1], _decode(parts[2]))


def is_known(algorithm: str) -> bool:
    """Whether we can verify the algorithm at all; `none` is no algorithm."""
    return algorithm in _algorithms()


def is_signed_by(jws: Jws, key: Key) -> bool:
    """Whether `key` verifies the signature, by the algorithm that the header names."""
    if not is_known(jws.algorithm) or not key.serves(jws.algorithm):
        return False
    return bool(_algorithms()[jws.algorithm].verify(jws.signed, key.public, jws.signature))


def read_object(raw: bytes, what: str) -> dict[str, Any]:
    """JSON object without duplicate members, at any depth, and with finite numbers; raises BadToken.

    Half a letter in an escape reads as U+FFFD: addresses and records, where claims go, have no way to say it.
    """
    try:
        value = _strict_json.decode(mend_half_letters(raw).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadToken("token_malformed", f"the {what} is no plain JSON") from error
    if not isinstance(value, dict):
        raise BadToken("token_malformed", f"the {what} is no JSON object")
    return value


def read_key(jwk: Any) -> Key:
    """One member of a key set, private members ignored; raises BadKey with the reason."""
    if not isinstance(jwk, dict):
        raise BadKey("is no object")
    kid, algorithm = jwk.get("kid", ""), jwk.get("alg", "")
    if not isinstance(kid, str) or not isinstance(algorithm, str):
        raise BadKey("has a kid or alg that is no text")
    if jwk.get("use", "sig") != "sig":
        raise BadKey("is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise BadKey("is not for verifying")
    kind = jwk.get("kty")
    try:
        if kind == "RSA":
            return Key(kid, kind, rsa_key(_number(jwk, "n"), _number(jwk, "e")), algorithm)
        if kind == "EC":
            curve = str(jwk.get("crv"))
            point = ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), _CURVES[curve]())
            return Key(kid, kind, point.public_key(), algorithm, curve)
        if kind == "OKP":
            loader: Any = {"Ed25519": ed25519.Ed25519PublicKey, "Ed448": ed448.Ed448PublicKey}[str(jwk.get("crv"))]
            return Key(kid, kind, loader.from_public_bytes(_octets(jwk, "x")), algorithm)
        if kind == "oct":
            return Key(kid, kind, _octets(jwk, "k"), algorithm)
    except (ValueError, KeyError) as error:
        raise BadKey(f"is no valid {kind} key") from error
    raise BadKey("is of an unknown kind")


def rsa_key(modulus: int, exponent: int) -> rsa.RSAPublicKey:
    """A public RSA key of acceptable size; raises BadKey."""
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise BadKey(f"has {modulus.bit_length()} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if exponent.bit_length() > 32:  # no one has a reason for more, and it makes verifying slow
        raise BadKey("has an oversized exponent")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise BadKey("has numbers that no key has") from error


def encode_part(raw: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def encode_number(value: int) -> str:
    """A JWK's big integer."""
    return encode_part(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def _algorithms() -> dict[str, Algorithm]:
    return {name: algorithm for name, algorithm in get_default_algorithms().items() if name != "none"}


def _decode(part: bytes) -> bytes:
    rest = len(part) % 4
    if rest == 1:
        raise BadToken("token_malformed", "a part is no base64url")
    try:
        raw = a2b_base64(part.translate(_TO_BASE64) + b"=" * (-rest % 4), strict_mode=True)
    except NoBase64:
        raise BadToken("token_malformed", "a part is no base64url") from None
    if rest and part[-1] not in _LAST_LETTERS[rest]:
        raise BadToken("token_malformed", "a part is no canonical base64url")
    return raw


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk[name]
    if not isinstance(text, str):
        raise ValueError(name)
    try:
        return _decode(text.encode("utf-8", "replace").rstrip(b"="))
    except BadToken as error:
        raise ValueError(name) from error


def _number(jwk: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(_octets(jwk, name), "big")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


_strict_json = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_finite)
