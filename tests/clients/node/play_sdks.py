"""Plays all parts but the client: a scripted vendor of every dialect, an issuer, the gateway.

The client is sdks.mjs, which uses OpenAI's and Anthropic's own SDKs for JavaScript. Run by `run`.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.clients.behind import BEHIND, stand_behind
from tests.clients.conftest import sdk_token
from tests.support.gateway import running_gateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import Script, ScriptedProvider
from tests.support.saying import PIECES, ToolUse

HERE = Path(__file__).parent
TEXT = "".join(PIECES)
TOWNS = ["Tromsø", "Bergen"]


def script(provider: ScriptedProvider) -> None:
    """What the vendor answers, for each model in turn; the order is that of sdks.mjs."""
    first, second = (ToolUse(name="weather", arguments={"town": town}, id=f"call_{town[0]}") for town in TOWNS)
    for model in BEHIND:
        provider.follow(Script(), times=2)
        provider.answer_with(tool_call=first, further_calls=[second], times=1)
        provider.follow(Script(), times=4)
        provider.answer_with(tool_call=first, further_calls=[second], times=1)
        if model == "by_messages":
            provider.follow(Script(), times=1)  # it counts; the others are estimated
        provider.fail_with(429, times=1)
        provider.fail_with(503, times=1)
        provider.cut_after(2, times=1)


def expected() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for model in BEHIND:
        found |= {
            f"{model} chat": {"text": TEXT, "tokens": 32},
            f"{model} chat streamed": {"pieces": list(PIECES)},
            f"{model} chat tools": {"towns": TOWNS},
            f"{model} chat answered": {"text": TEXT},
            f"{model} response": {"text": TEXT, "tokens": 32},
            f"{model} response streamed": {"pieces": list(PIECES), "text": TEXT},
            f"{model} message": {"text": TEXT, "tokens": 7},
            f"{model} message tools": {"towns": TOWNS, "stop_reason": "tool_use"},
            f"{model} count": {"counted": True},
            f"{model} limited": {"name": "RateLimitError", "status": 429, "id": True},
            f"{model} overloaded": {"name": "ServiceUnavailableError", "status": 503, "id": True},
            f"{model} broken": {"raised": True},
        }
    return found | {
        "embeddings": {"lengths": [4, 4]},
        "models": {"same": True, "some": True},
        "stranger": {"name": "AuthenticationError", "status": 401, "id": True, "code": "token_malformed"},
    }


async def play() -> list[str]:
    """Everything that was not as promised; empty when all was well."""
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedProvider() as provider, FakeIssuer() as issuer:
            # One try each, so that every answer of the script meets the turn it is for.
            env = stand_behind(provider.url, Path(folder, "overlay"))
            env |= {
                "AIGW_LOGGING__LEVEL": "CRITICAL",
                "AIGW_ROUTING__TRIES": "1",
                "AIGW_ROUTING__FAILURES_TO_REST": "0",
            }
            async with running_gateway(provider, issuer, Path(folder, "state"), env) as gateway:
                script(provider)
                # Only what Node needs: the real environment may hold keys and addresses of real services.
                env = {"PATH": os.environ["PATH"], "GATEWAY_URL": gateway.url, "TOKEN": sdk_token(gateway)}
                client = await asyncio.create_subprocess_exec(
                    "node", "sdks.mjs", *BEHIND, cwd=HERE, env=env,
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                )  # fmt: skip
                try:
                    out, err = await asyncio.wait_for(client.communicate(), timeout=120)
                except TimeoutError:
                    client.kill()
                    await client.wait()
                    return ["the client did not finish within 120 s"]
    turns = {turn.pop("turn"): turn for turn in map(json.loads, out.splitlines())}
    return [*([f"the client failed: {err.decode()}"] if client.returncode else []), *check(turns)]


def check(turns: dict[str, Any]) -> list[str]:
    wrong = []
    for name, facts in expected().items():
        is_right = turns.get(name) == facts
        print(f"{'ok  ' if is_right else 'FAIL'} {name}")
        if not is_right:
            wrong.append(f"{name}: expected {facts}, got {turns.get(name)}")
    return wrong


if __name__ == "__main__":
    complaints = asyncio.run(play())
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    sys.exit(1 if complaints else 0)
