"""Plays all parts but the client: a scripted vendor, an issuer, the gateway, and a GitLab instance.

The client is GitLab's own provider for the Vercel AI SDK, unmodified, in turns.mjs. This checks what it
got, and what reached the vendor. Run by `run`; not a test of pytest's, since it needs packages for Node.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.clients.conftest import PRIMITIVE
from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY, USER_ID, RunningGateway, gitlab_headers, running_gateway
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.issuer import FakeIssuer
from tests.support.provider import Script, ScriptedProvider
from tests.support.saying import PIECES, ToolUse

HERE = Path(__file__).parent
TEXT = "".join(PIECES)
MODELS = {
    "duo-chat-sonnet-4-5": "/v1/messages",
    "duo-chat-gpt-5-mini": "/v1/chat/completions",
    "duo-chat-gpt-5-codex": "/v1/responses",
}
"""The provider's model names, and where at the vendor their calls must arrive."""


class FakeInstance:
    """The one endpoint of a GitLab instance that the client calls; it mints through the gateway as Rails does."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.server = LoopbackServer(self._handle)
        self.given = 0

    async def _handle(self, request: Request, answering: Answering) -> None:
        if (request.method, request.path) != ("POST", "/api/v4/ai/third_party_agents/direct_access"):
            await answering.whole(404, b"", [])
            return
        self.given += 1
        instance_token = self.gateway.token(unit_primitives=[PRIMITIVE])
        minted = (await self.gateway.post("/auth/v1/code/user_access_token", token=instance_token)).json()
        headers = gitlab_headers(minted["token"]) | {"X-Gitlab-Unit-Primitive": PRIMITIVE}
        del headers["Authorization"], headers["User-Agent"]
        assert headers["X-Gitlab-Global-User-Id"] == USER_ID
        await answering.whole(
            200, json.dumps({"headers": headers, **minted}).encode(), [("Content-Type", "application/json")]
        )


async def play() -> list[str]:
    """Everything that was not as promised; empty when all was well."""
    with tempfile.TemporaryDirectory() as state:
        async with (
            ScriptedProvider() as provider,
            FakeIssuer() as issuer,
            running_gateway(provider, issuer, Path(state), {"AIGW_LOGGING__LEVEL": "WARNING"}) as gateway,
        ):
            instance = FakeInstance(gateway)
            async with instance.server:
                for _ in MODELS:
                    provider.follow(Script(), times=2)
                    provider.answer_with(tool_call=ToolUse(name="weather", arguments={"town": "Tromsø"}), times=1)
                    provider.follow(Script(), times=1)
                turns, complaint = await run_client(instance.server.url, gateway.url)
            return [*complaint, *check_turns(turns), *check_calls(provider)]


async def run_client(instance_url: str, gateway_url: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What turns.mjs printed, a line a turn, and a complaint if it failed."""
    # Only what Node needs: the real environment may hold keys and addresses of real services.
    env = {"PATH": os.environ["PATH"], "INSTANCE_URL": instance_url, "GATEWAY_URL": gateway_url}
    client = await asyncio.create_subprocess_exec(
        "node", "turns.mjs", *MODELS, cwd=HERE, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(client.communicate(), timeout=60)
    except TimeoutError:
        client.kill()
        await client.wait()
        return [], ["the client did not finish within 60 s"]
    turns = [json.loads(line) for line in out.splitlines()]
    return turns, [f"the client failed: {err.decode()}"] if client.returncode else []


def check_turns(turns: list[dict[str, Any]]) -> list[str]:
    wrong = []
    expected: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        expected[f"{model} whole"] = {"text": TEXT, "finish": "stop"}
        expected[f"{model} streamed"] = {"pieces": list(PIECES), "finish": "stop"}
        call = {"toolName": "weather", "input": {"town": "Tromsø"}}
        expected[f"{model} tool"] = {"calls": [call], "results": ["Snow in Tromsø"], "text": TEXT}
    by_name = {turn["turn"]: turn for turn in turns}
    for name, facts in expected.items():
        turn = by_name.get(name, {})
        is_right = all(turn.get(fact) == value for fact, value in facts.items())
        if "usage" in turn:
            is_right = is_right and (turn["usage"]["inputTokens"], turn["usage"]["outputTokens"]) == (25, 7)
        print(f"{'ok  ' if is_right else 'FAIL'} {name}")
        if not is_right:
            wrong.append(f"{name}: expected {facts}, got {turn}")
    return wrong


def check_calls(provider: ScriptedProvider) -> list[str]:
    paths = [path for path in MODELS.values() for _ in range(4)]
    wrong = []
    if [request.path for request in provider.requests] != paths:
        wrong.append(f"the vendor was called at {[request.path for request in provider.requests]}")
    for request in provider.requests:
        keys = (request.header("x-api-key"), request.header("authorization"))
        if keys != ((ANTHROPIC_KEY, None) if request.path == "/v1/messages" else (None, f"Bearer {OPENAI_KEY}")):
            wrong.append(f"{request.path} did not carry the gateway's own key, and nothing else")
        if any(name.lower().startswith(b"x-gitlab") for name, _ in request.headers):
            wrong.append(f"{request.path} carried headers of GitLab's")
    return wrong


if __name__ == "__main__":
    complaints = asyncio.run(play())
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    sys.exit(1 if complaints else 0)
