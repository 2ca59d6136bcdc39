"""A receiver of usage records on loopback: takes CloudEvents, keeps what it was given, and fails as told."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.http_server import Answering, LoopbackFake, LoopbackServer, Request

Verdict = Callable[[list[dict[str, Any]]], int]
"""Records of a batch → the status they get."""


class UsageSink(LoopbackFake):
    """Use it with `async with`. A batch counts as received when it was answered 2xx, or kept all the same."""

    def __init__(self) -> None:
        self.server = LoopbackServer(self._handle)
        self.received: list[dict[str, Any]] = []
        """Every record, as often as it came; first come, first."""
        self.requests: list[Request] = []
        self.verdict: Verdict = lambda records: 204
        self.headers: list[tuple[str, str]] = []
        """Of every answer."""
        self.is_mute = False
        """Takes a batch, and never answers."""
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"{self.server.url}/usage"

    @property
    def ids(self) -> Counter[str]:
        """Id → how often it was received."""
        return Counter(record["id"] for record in self.received)

    @property
    def records(self) -> list[dict[str, Any]]:
        """As a receiver that drops ids that it has seen."""
        return list({record["id"]: record for record in self.received}.values())

    async def asked(self, requests: int) -> None:
        """Returns once so many batches have come."""
        await self._until(lambda: len(self.requests) >= requests)

    async def has(self, records: int) -> list[dict[str, Any]]:
        """Returns once so many different records are here."""
        await self._until(lambda: len(self.ids) >= records)
        return self.records

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(holds)

    async def _handle(self, request: Request, answer: Answering) -> None:
        events = json.loads(request.body)
        records = [event["data"] for event in events]
        assert [event["id"] for event in events] == [record["id"] for record in records]
        status = self.verdict(records)
        async with self._arrived:
            self.requests.append(request)
            if status < 300:
                self.received += records
            self._arrived.notify_all()
        if self.is_mute:
            await asyncio.Event().wait()
        await answer.whole(status, b"", self.headers)


def write_sinks(folder: Path, *sinks: dict[str, Any]) -> Path:
    """A catalogue directory with these sinks; members that are not told are quick."""
    quick = {"linger_s": 0.0, "retry_s": 0.01, "retry_max_s": 0.05, "timeout_s": 5.0}
    folder.mkdir(exist_ok=True)
    (folder / "sinks.yml").write_text(json.dumps([{**quick, **sink} for sink in sinks]))
    return folder
