"""An OIDC issuer on loopback with keys of its own: signs tokens, publishes keys, fails on demand."""

import asyncio
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from tests.support.http_server import Answering, LoopbackFake, LoopbackServer, Request
from tests.support.keys import rsa_key

from torana.clock import Clock

AUDIENCE = "gitlab-ai-gateway"
INSTANCE_ID = "6f1a1c52-0c5e-4b43-9d5c-6a4f3d0c7b10"
DISCOVERY = "/.well-known/openid-configuration"

Failure = Literal["", "html", "error", "slow", "garbled"]
"""What is wrong with its answers: nothing, a web page, status 500, no answer until `release`, no JSON."""


class FakeIssuer(LoopbackFake):
    """Use it with `async with`, or as the fixture `issuer`.

    Below any path prefix it is a further issuer with the same keys: `<url>/portal` has a discovery
    document of its own. Requests are kept, so that tests can count them.
    """

    def __init__(self, clock: Clock | None = None, first_key: int = 100) -> None:
        self.clock = clock or Clock()
        self.failure: Failure = ""
        self.requests: list[Request] = []
        self.server = LoopbackServer(self._handle)
        self.issuer = ""
        """What the document says as `issuer` and tokens say as `iss`; empty: the URL."""
        self._number = first_key
        self._published = [first_key]
        self._released = asyncio.Event()

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """The key that signs now."""
        return rsa_key(self._number)

    @property
    def key_id(self) -> str:
        return f"key-{self._number}"

    def rotate(self, *, keep_old: bool = False) -> None:
        """Sign with a new key and publish it, with `keep_old` beside the earlier ones."""
        self._number += 1
        self._published = [*self._published, self._number] if keep_old else [self._number]

    def go_down(self) -> None:
        """Refuse connections until `come_back`."""
        self.server.stop_listening()

    async def come_back(self) -> None:
        """Answer again, on the same port."""
        await self.server.start()

    def release(self) -> None:
        """Let slow answers go on."""
        self._released.set()

    def token(
        self,
        *,
        unit_primitives: Iterable[str] = (),
        realm: str = "self-managed",
        instance_id: str = INSTANCE_ID,
        lifetime_s: float = 3600,
        jose: Mapping[str, Any] | None = None,
        key: rsa.RSAPrivateKey | None = None,
        **claims: Any,
    ) -> str:
        """An instance token of contract 2.3, valid now.

        jose    replaces the protected header's members; None as a value leaves one out
        key     signs instead of the issuer's own, for forgeries
        claims  replace the usual ones; None leaves one out, as in `exp=None`
        """
        now = int(self.clock.now())
        usual: dict[str, Any] = {
            "iss": self.issuer or self.url,
            "sub": instance_id,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now - 5,
            "exp": int(now + lifetime_s),
            "jti": str(uuid.uuid4()),
            "gitlab_realm": realm,
            "gitlab_instance_id": instance_id,
            "scopes": list(unit_primitives),
        }
        return sign(usual | claims, key or self.key, {"kid": self.key_id, **(jose or {})})

    async def _handle(self, request: Request, answering: Answering) -> None:
        self.requests.append(request)
        match self.failure:
            case "html":
                await answering.whole(200, b"<html><body>Please sign in</body></html>", [("Content-Type", "text/html")])
                return
            case "error":
                await answering.whole(500, b"", [])
                return
            case "garbled":
                await answering.whole(200, b'{"keys": [', [("Content-Type", "application/json")])
                return
            case "slow":
                await self._released.wait()
            case _:
                pass
        value: Any
        if request.path.endswith(DISCOVERY):
            base = self.url + request.path.removesuffix(DISCOVERY)
            is_main = base == self.url
            value = {
                "issuer": self.issuer if is_main and self.issuer else base,
                "jwks_uri": f"{base}/oauth/discovery/keys",
            }
        elif request.path.endswith("/oauth/discovery/keys"):
            value = {"keys": [_jwk(number) for number in self._published]}
        else:
            await answering.whole(404, b"", [])
            return
        await answering.whole(200, json.dumps(value).encode(), [("Content-Type", "application/json")])


def sign(claims: Mapping[str, Any], key: rsa.RSAPrivateKey, jose: Mapping[str, Any]) -> str:
    """A token under RS256; claims and header members that are None are left out."""
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        key,
        algorithm="RS256",
        headers={name: value for name, value in jose.items() if value is not None},
    )


def _jwk(number: int) -> dict[str, Any]:
    public: dict[str, Any] = RSAAlgorithm.to_jwk(rsa_key(number).public_key(), as_dict=True)
    return {**public, "kid": f"key-{number}", "use": "sig", "alg": "RS256"}
