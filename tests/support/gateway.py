"""The real gateway, listening on free ports inside the test's event loop, and what a test asks it with."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
from tests.support.http_client import Answer, RawConnection, StreamedAnswer, connect, fetch, write_request
from tests.support.issuer import AUDIENCE, INSTANCE_ID, FakeIssuer, sign
from tests.support.keys import pem, rsa_key
from tests.support.logs import MemoryLog
from tests.support.provider import ScriptedProvider
from tests.support.usage import read_spool
from tests.support.waiting import PATIENT

from torana.clock import Clock
from torana.code.orders import Cursor
from torana.environment import load_settings
from torana.usage.disk import Disk

SIGNING_KEY, VALIDATION_KEY = 1, 2
"""Numbers of the gateway's own keys, see `keys.rsa_key`."""

USER_ID = "dGVzdC11c2VyLTE="
ANTHROPIC_KEY = "test-anthropic-key"
OPENAI_KEY = "test-openai-key"


def default_env(provider: ScriptedProvider, issuer: FakeIssuer, state_dir: Path) -> dict[str, str]:
    """An environment that connects a gateway to the fakes and to nothing else."""
    return {
        "AIGW_ENVIRONMENT": "test",
        "AIGW_FASTAPI__API_PORT": "0",
        "AIGW_FASTAPI__METRICS_PORT": "0",
        "AIGW_GITLAB_URL": issuer.url,
        "AIGW_CUSTOMER_PORTAL_URL": f"{issuer.url}/portal",
        "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(SIGNING_KEY)),
        "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": pem(rsa_key(VALIDATION_KEY)),
        "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
        "ANTHROPIC_BASE_URL": provider.url,
        "OPENAI_API_KEY": OPENAI_KEY,
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "AIGW_STATE_DIR": str(state_dir),
        **PATIENT,
    }


def gitlab_headers(token: str) -> dict[str, str]:
    """What an unmodified GitLab, or an IDE on its behalf, sends with this token; they match its claims."""
    claims = jwt.decode(token, options={"verify_signature": False})
    is_user = claims.get("iss") == AUDIENCE
    return {
        "Authorization": f"Bearer {token}",
        "X-Gitlab-Authentication-Type": "oidc",
        "X-Gitlab-Realm": claims.get("gitlab_realm", ""),
        "X-Gitlab-Instance-Id": claims.get("gitlab_instance_id") or ("" if is_user else claims.get("sub", "")),
        "X-Gitlab-Global-User-Id": claims.get("sub", "") if is_user else USER_ID,
        "X-Gitlab-Host-Name": "gitlab.example.com",
        "X-Gitlab-Version": "18.6.1-ee",
        "X-Gitlab-Is-Team-Member": "false",
        "X-Gitlab-Feature-Enabled-By-Namespace-Ids": "",
        "X-Gitlab-Enabled-Feature-Flags": "",
        "User-Agent": "gitlab-test",
    }


class RunningGateway:
    """Made by `running_gateway`, or by the fixtures `gateway` and `start_gateway`.

    Requests carry the headers of `gitlab_headers` when a token is given; `headers` adds to them or
    replaces them, whatever the case of the name, and None as a value leaves one out.
    """

    def __init__(self, running: Any, provider: ScriptedProvider, issuer: FakeIssuer, log: MemoryLog) -> None:
        self.running = running
        self.provider = provider
        self.issuer = issuer
        self.log = log
        """What the gateway writes to stdout: `gateway.log.lines`, `await gateway.log.find(path=…)`."""
        self.asked = 0
        """Requests that `request` and `stream` have sent to the main port."""

    @property
    def port(self) -> int:
        return int(self.running.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, *, unit_primitives: Iterable[str], **claims: Any) -> str:
        """An instance token of the fake issuer; `claims` as in FakeIssuer.token."""
        return self.issuer.token(unit_primitives=unit_primitives, **claims)

    def user_token(self, *, unit_primitives: Iterable[str], user_id: str = USER_ID, **claims: Any) -> str:
        """A token as the gateway itself mints them for a user, signed with its signing key."""
        now = int(self.issuer.clock.now())
        usual = {
            "iss": AUDIENCE,
            "sub": user_id,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": "test-user-token",
            "gitlab_realm": "self-managed",
            "gitlab_instance_id": INSTANCE_ID,
            "scopes": list(unit_primitives),
        }
        return sign(usual | claims, rsa_key(SIGNING_KEY), {"kid": f"{AUDIENCE}_signing_key"})

    async def begin_trees(self) -> None:
        """Have the process for syntax trees up; else the first completion that needs one starts it."""
        cursor = Cursor(prefix="def a\n", file_name="a.rb")
        await self.running.parts.cleaner.clean("b\nend", cursor, "completion", excluded=frozenset(), is_cut=False)

    async def post(
        self,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        token: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        return await self.request("POST", path, json=json, body=body, token=token, headers=headers)

    async def get(
        self, path: str, *, token: str | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        return await self.request("GET", path, token=token, headers=headers)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        token: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Ask and read the whole answer, however it ends: see `Answer.is_whole`."""
        async with await connect(self.port) as connection:
            self.asked += 1
            await connection.send(self.request_bytes(method, path, json=json, body=body, token=token, headers=headers))
            return await connection.read_answer(method)

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        token: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        method: str = "POST",
    ) -> AsyncIterator[StreamedAnswer]:
        """Ask, and read the answer chunk by chunk; leaving the block early hangs up."""
        async with await connect(self.port) as connection:
            self.asked += 1
            await connection.send(self.request_bytes(method, path, json=json, body=body, token=token, headers=headers))
            answer = await connection.read_head(method)
            try:
                yield answer
            finally:
                await answer.aclose()

    def request_bytes(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        token: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> bytes:
        """The same request as bytes, for `connect` and for tests that send it in pieces."""
        payload = body if body is not None else b"" if json is None else _encode(json)
        sent = gitlab_headers(token) if token is not None else {}
        if payload:
            sent["Content-Type"] = "application/json"
        for name, value in (headers or {}).items():
            sent = {kept: text for kept, text in sent.items() if kept.lower() != name.lower()}
            if value is not None:
                sent[name] = value
        return write_request(method, path, sent, payload)

    async def connect(self) -> RawConnection:
        """A connection for tests that write bytes themselves."""
        return await connect(self.port)

    def usage(self) -> list[dict[str, Any]]:
        """Every usage record that lies on its disk, in order of writing."""
        return read_spool(self.running.parts.ledger.spool.path)

    async def monitoring(self, path: str) -> Answer:
        """GET from the metrics port."""
        return await fetch(int(self.running.metrics_port), "GET", path)


@asynccontextmanager
async def running_gateway(
    provider: ScriptedProvider,
    issuer: FakeIssuer,
    state_dir: Path,
    env: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    disk: Disk | None = None,
    metrics_dir: Path | None = None,
) -> AsyncIterator[RunningGateway]:
    """A gateway wired to the fakes. `env` overrides `default_env`; an empty value unsets a name.

    metrics_dir  shared by gateways that are workers of one server
    """
    from torana.app import start  # here, so that tests of the fakes alone need no gateway

    settings = load_settings(default_env(provider, issuer, state_dir) | dict(env or {}))
    log = MemoryLog()
    running = await start(settings, clock=clock, sink=log, disk=disk, metrics_dir=metrics_dir)
    try:
        yield RunningGateway(running, provider, issuer, log)
    finally:
        await running.aclose()


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8")
