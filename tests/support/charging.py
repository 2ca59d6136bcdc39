"""A vendor that charges: it answers in any format that `ScriptedProvider` speaks, and keeps a ledger of its own.

Every call is for a request that the caller names: `metadata.user_id` or `user` of the body, or the header
x-session-affinity. What is charged is chosen from that name, so that any two parties can be compared.
"""

import asyncio
import json
import zlib
from dataclasses import dataclass
from typing import Any

from tests.support import openai_answers
from tests.support.http_server import Answering, LoopbackFake, LoopbackServer, Request
from tests.support.provider import ENDPOINTS
from tests.support.saying import Saying


@dataclass(slots=True)
class Charge:
    """One call, as the vendor bills it."""

    model: str
    input_tokens: int
    output_tokens: int
    is_whole: bool = False
    """The answer was written to its end."""


class ChargingProvider(LoopbackFake):
    """Use it with `async with`. Each event of a stream is `pause_s` behind the one before."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.server = LoopbackServer(self._handle)
        self.ledger: dict[str, list[Charge]] = {}
        """Request → its calls."""

    async def _handle(self, request: Request, answer: Answering) -> None:
        asked: dict[str, Any] = request.json()
        endpoint = next(found for end, found in ENDPOINTS.items() if request.path.endswith(end))
        name = _name_of(asked, request)
        seed = zlib.crc32(name.encode())
        pieces = tuple(f"word{number} " for number in range(2 + seed % 9))
        says = Saying(pieces=pieces, input_tokens=10 + seed % 991, output_tokens=1 + seed % 97)
        charge = Charge(asked["model"], says.input_tokens, says.output_tokens)
        if request.path.endswith("/embeddings"):
            charge = Charge(asked["model"], openai_answers.embeddings(asked)["usage"]["prompt_tokens"], 0)
        if not request.path.endswith("/count_tokens"):
            self.ledger.setdefault(name, []).append(charge)
        if asked.get("stream") and endpoint.events is not None:
            await answer.head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])
            for event in endpoint.events(says, asked):
                await answer.chunk(event)
                await asyncio.sleep(self.pause_s)
            await answer.chunk(b"")
        else:
            await asyncio.sleep(self.pause_s * len(pieces))
            whole = json.dumps(endpoint.whole(says, asked)).encode()
            await answer.whole(200, whole, [("Content-Type", "application/json")])
        charge.is_whole = True

    async def aclose(self) -> None:
        # Peers that were killed in the middle have made handlers fail, as they may.
        self.server.failures.clear()
        await super().aclose()


def _name_of(asked: dict[str, Any], request: Request) -> str:
    metadata = asked.get("metadata") or {}
    return str(metadata.get("user_id") or asked.get("user") or request.header("x-session-affinity") or "?")
