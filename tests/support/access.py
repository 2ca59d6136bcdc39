"""Parts for tests of the access room: an issuer and a portal in memory, and tokens of every kind."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.clock import HandClock
from tests.support.keys import rsa_key

from torana.access.jose import Key, encode_number, encode_part
from torana.access.keys import KeyRing
from torana.access.local_keys import LocalKeys
from torana.access.tokens import Verifier
from torana.auth_settings import AuthSettings
from torana.catalog.records import UnitPrimitive
from torana.headers import Headers
from torana.transport import Fetched, FetchFailed

SERVICE = "gitlab-ai-gateway"
GITLAB = "https://gitlab.example"
PORTAL = "https://portal.example"
LOCAL_KEY, GITLAB_KEY, PORTAL_KEY, STRANGE_KEY = 90, 91, 92, 93
"""Numbers of test keys: our own, two issuers', and one that nobody publishes."""

UNIT_PRIMITIVES = {
    row.name: row
    for row in (
        UnitPrimitive(name="complete_code", description="", feature_category="", aliases=("code_suggestions",)),
        UnitPrimitive(name="generate_code", description="", feature_category="", aliases=("code_suggestions",)),
        UnitPrimitive(name="duo_chat", description="", feature_category="", proxy_allowed=True),
        UnitPrimitive(name="ai_gateway_model_provider_proxy", description="", feature_category="", proxy_allowed=True),
    )
}


class FakeFetcher:
    """Answers from a dictionary; what is not in it is unreachable."""

    def __init__(self) -> None:
        self.answers: dict[str, Fetched] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.held: asyncio.Event | None = None
        """Set to an event: no answer before it is set."""
        self.drop_query = False

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        limit_bytes: int,
    ) -> Fetched:
        self.requests.append((method, url))
        self.headers.append(headers or {})
        if self.held is not None:
            await self.held.wait()
        answer = self.answers.get(url.partition("?")[0] if self.drop_query else url)
        if answer is None:
            raise FetchFailed("nobody there")
        if len(answer.body) > limit_bytes:
            raise FetchFailed(f"larger than {limit_bytes} bytes")
        return answer

    def publish(self, base: str, *keys: Mapping[str, Any], issuer: str = "", jwks_uri: str = "") -> None:
        """An issuer at `base` with these keys."""
        where = jwks_uri or f"{base}/keys"
        self.answers[f"{base}/.well-known/openid-configuration"] = json_answer(
            {"issuer": issuer or base, "jwks_uri": where}
        )
        self.answers[where] = json_answer({"keys": list(keys)})


def json_answer(value: Any, status: int = 200, **headers: str) -> Fetched:
    found = {"content-type": "application/json; charset=utf-8"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return Fetched(status=status, headers=found, body=json.dumps(value).encode())


def jwk(number: int, kid: str = "", **members: Any) -> dict[str, Any]:
    """The public half of a test key."""
    numbers = rsa_key(number).public_key().public_numbers()
    found = {"kty": "RSA", "n": encode_number(numbers.n), "e": encode_number(numbers.e)}
    return found | ({"kid": kid} if kid else {}) | members


def public_key(number: int, kid: str = "") -> Key:
    return Key(kid, "RSA", rsa_key(number).public_key(), "RS256")


def claims(now: float, **changes: Any) -> dict[str, Any]:
    """What an instance's token says; a change to `...` removes the claim."""
    found = {
        "iss": GITLAB,
        "sub": "instance-1",
        "aud": SERVICE,
        "exp": int(now) + 3600,
        "nbf": int(now) - 5,
        "iat": int(now),
        "jti": "token-1",
        "gitlab_realm": "self-managed",
        "scopes": ["complete_code", "duo_chat"],
    } | changes
    return {name: value for name, value in found.items() if value is not ...}


def sign(payload: Mapping[str, Any], number: int = GITLAB_KEY, kid: str | None = None, **header: Any) -> str:
    return jwt.encode(dict(payload), rsa_key(number), algorithm="RS256", headers=header | ({"kid": kid} if kid else {}))


def sign_raw(header: str | bytes, payload: str | bytes, number: int = GITLAB_KEY) -> str:
    """A token with a good RS256 signature over any bytes at all."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    head, body = (encode_part(part.encode() if isinstance(part, str) else part) for part in (header, payload))
    signature = rsa_key(number).sign(f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{head}.{body}.{encode_part(signature)}"


def headers_for(token: str | None = None, **changes: str | None) -> Headers:
    """What an unmodified instance sends; a change to None removes the header."""
    found: dict[str, str | None] = {
        "authorization": None if token is None else f"Bearer {token}",
        "x-gitlab-authentication-type": "oidc",
        "x-gitlab-realm": "self-managed",
        "x-gitlab-instance-id": "instance-1",
        "x-gitlab-global-user-id": "user-1",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return Headers.of((name, value) for name, value in found.items() if value is not None)


class Access:
    """Key ring and verifier over a fake fetcher, with a hand-moved clock."""

    def __init__(
        self,
        *,
        signing: rsa.RSAPrivateKey | None = None,
        validation: rsa.RSAPrivateKey | None = None,
        trusted_proxies: tuple[str, ...] = (),
        now: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        self.clock = HandClock(float(int(time.time())))
        self.fetcher = FakeFetcher()
        self.settings = AuthSettings(**{"gitlab_url": GITLAB, "customer_portal_url": PORTAL, **settings})
        self.local = LocalKeys(self.settings.service_name, signing, validation)
        self.ring = KeyRing(self.settings, self.local, self.fetcher, self.clock, unknown_key_wait_s=0.2)
        self.verifier = Verifier(
            self.settings,
            self.ring,
            self.clock,
            unit_primitives=UNIT_PRIMITIVES,
            trusted_proxies=trusted_proxies,
            now=now,
        )

    def publish_all(self) -> None:
        self.fetcher.publish(GITLAB, jwk(GITLAB_KEY, "gitlab-1"))
        self.fetcher.publish(PORTAL, jwk(PORTAL_KEY, "portal-1"))

    def claims(self, **changes: Any) -> dict[str, Any]:
        return claims(self.clock.now(), **changes)
