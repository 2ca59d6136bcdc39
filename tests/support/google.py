"""Google's token server on loopback, and a service account's key that leads to it."""

import json
import time
from typing import Any
from urllib.parse import parse_qs

import jwt
from tests.support.http_server import Answering, LoopbackFake, LoopbackServer, Request
from tests.support.keys import pem, rsa_key

PROJECT = "torana-test"
ACCOUNT_KEY = 7
"""Number of the account's key, see `keys.rsa_key`."""

EMAIL = f"gateway@{PROJECT}.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LIFETIME_S = 3599
AUDIENCE = "https://oauth2.googleapis.com/token"
"""What google-auth signs for, wherever the token server is."""


class FakeGoogle(LoopbackFake):
    """Hands out `ya29.token-1`, `ya29.token-2`, … for assertions that the account's key has signed."""

    def __init__(self) -> None:
        self.server = LoopbackServer(self._handle)
        self.asked: list[Request] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        """Answers instead of a token from now on."""

    @property
    def token_uri(self) -> str:
        return f"{self.server.url}/token"

    def key(self, **members: Any) -> str:
        """The text of the account's JSON key file; `members` replace the usual ones."""
        usual = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "key-1",
            "private_key": pem(rsa_key(ACCOUNT_KEY)),
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
        }
        return json.dumps(usual | members)

    async def _handle(self, request: Request, answering: Answering) -> None:
        self.asked.append(request)
        status, answer = self.refusal or self._grant(request)
        await answering.whole(
            status, json.dumps(answer).encode(), [("Content-Type", "application/json; charset=UTF-8")]
        )

    def _grant(self, request: Request) -> tuple[int, dict[str, Any]]:
        form = parse_qs(request.body.decode())
        if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            return 400, {"error": "unsupported_grant_type"}
        try:
            claims = jwt.decode(
                form["assertion"][0], rsa_key(ACCOUNT_KEY).public_key(), algorithms=["RS256"], audience=AUDIENCE
            )
        except (jwt.InvalidTokenError, KeyError) as error:
            return 400, {"error": "invalid_grant", "error_description": str(error)}
        if (claims["iss"], claims["scope"]) != (EMAIL, SCOPE) or claims["exp"] > time.time() + 3700:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT"}
        token = f"ya29.token-{len(self.asked)}"
        return 200, {"access_token": token, "expires_in": LIFETIME_S, "token_type": "Bearer"}
