"""Clients of several instances that ask for everything that costs tokens, and remember what became of each request."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.charging import ChargingProvider
from tests.support.gateway import gitlab_headers
from tests.support.http_client import connect, write_request
from tests.support.issuer import FakeIssuer

PROXY = "ai_gateway_model_provider_proxy"
INSTANCES = ("instance-a", "instance-b", "instance-c")
CODE = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
FREE = ("/anthropic/v1/messages/count_tokens", "/v1/code/user_access_token")
"""Paths that no usage record is written for."""
SAID = [{"role": "user", "content": "Hi"}]
Order = tuple[str, str, dict[str, Any]]
"""Path, unit primitive, body."""
Orders = Callable[[random.Random, str], Order]
"""One of them, for the request of this name."""
CHAT: Order = ("/v2/chat/agent", "duo_chat", {"messages": SAID})

_FAILURE = re.compile(rb'"error"(?!: ?null)')

Sums = Counter[tuple[str, str, str, str]]
"""(instance, unit primitive, model, kind of token) → tokens."""


@dataclass(slots=True)
class Asked:
    """One request, as its client remembers it."""

    instance: str
    unit_primitive: str
    is_free: bool = False
    """It leaves no usage record."""
    has_begun: bool = False
    """The head of a good answer came."""
    is_whole: bool = False
    """All of it came, and no failure was told in it."""
    is_over: bool = False
    """Nothing more of it will come."""


class Load:
    """Asks `port` until it is told to stop."""

    def __init__(self, port: int, issuer: FakeIssuer, seed: int, orders: Orders | None = None) -> None:
        """orders: what is asked for; None: `usual_orders`"""
        self.port = port
        self.asked: dict[str, Asked] = {}
        """By request id."""
        self.statuses: Counter[int] = Counter()
        self._orders = orders or usual_orders
        self._issuer = issuer
        self._random = random.Random(seed)
        self._seed = seed
        self._tokens: dict[tuple[str, str], str] = {}
        self._is_stopping = False

    @property
    def whole(self) -> int:
        """Answers that came to their end."""
        return sum(asked.is_whole for asked in self.asked.values())

    @property
    def under_way(self) -> int:
        """Streams whose end has not come."""
        return sum(asked.has_begun and not asked.is_over for asked in self.asked.values())

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    def stop(self) -> None:
        self._is_stopping = True

    async def ask(self, name: str) -> None:
        """One request, of any kind; failures of the connection are noted and forgiven."""
        await self._ask(name, self._random.choice(INSTANCES), *self._orders(self._random, name))

    async def chat(self, name: str, instance: str) -> bool:
        """One streamed chat of an instance; whether it went well."""
        return (await self._ask(name, instance, *CHAT)).is_whole

    async def _ask(self, name: str, instance: str, path: str, unit_primitive: str, body: dict[str, Any]) -> Asked:
        asked = self.asked[name] = Asked(instance, unit_primitive, is_free=path in FREE)
        headers = self._headers(instance, unit_primitive) | {"X-Request-ID": name, "X-Gitlab-Global-User-Id": name}
        if unit_primitive == PROXY:
            headers["X-Gitlab-Unit-Primitive"] = PROXY
        try:
            async with await connect(self.port) as connection:
                await connection.send(write_request("POST", path, headers, json.dumps(body).encode()))
                head = await connection.read_head()
                self.statuses[head.status] += 1
                asked.has_begun = head.status == 200
                answer = await head.rest()
                asked.is_whole = asked.has_begun and answer.is_whole and not _FAILURE.search(answer.body)
        except (OSError, asyncio.IncompleteReadError):
            pass  # what became of it is in its record
        finally:
            asked.is_over = True
        return asked

    async def _client(self, number: int) -> None:
        count = 0
        while not self._is_stopping:
            count += 1
            await self.ask(f"r{self._seed}-{number}-{count}")
            await asyncio.sleep(0.002)  # a refused connection must not become a busy loop

    def _headers(self, instance: str, unit_primitive: str) -> dict[str, str]:
        key = (instance, unit_primitive)
        if key not in self._tokens:
            self._tokens[key] = self._issuer.token(
                unit_primitives=[unit_primitive], sub=instance, gitlab_instance_id=instance
            )
        return gitlab_headers(self._tokens[key]) | {"Content-Type": "application/json"}


def usual_orders(chance: random.Random, name: str) -> Order:
    """Chats, completions, a named prompt, and both ways through to a vendor; most of them streamed."""
    stream = chance.random() < 0.7
    match chance.randrange(7):
        case 0:
            body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": SAID, "stream": stream}
            return "/v1/proxy/anthropic/v1/messages", PROXY, body | {"metadata": {"user_id": name}}
        case 1:
            body = {"model": "gpt-5-mini-2025-08-07", "messages": SAID, "stream": stream, "user": name}
            usage = {"stream_options": {"include_usage": True}} if stream else {}
            return "/v1/proxy/openai/v1/chat/completions", PROXY, body | usage
        case 2:
            return "/v2/code/completions", "complete_code", {"current_file": CODE, "stream": stream}
        case 3:
            body = {"model": "chat_default", "messages": SAID, "stream": stream, "user": name}
            return "/openai/v1/chat/completions", PROXY, body  # the vendor behind it speaks another dialect
        case 4:
            body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": SAID, "stream": stream}
            return "/anthropic/v1/messages", PROXY, body | {"metadata": {"user_id": name}}
        case 5:
            body = {"inputs": {"input": "Hi", "selected_text": "x = 1"}, "stream": stream}
            return "/v1/prompts/chat/explain_code", "explain_code", body
        case _:
            return CHAT


def check_books(load: Load, provider: ChargingProvider, records: list[dict[str, Any]]) -> Counter[str]:
    """What the receiver has, held against what the clients and the vendor know; the records' states, counted."""
    by_request: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_request.setdefault(record["request_id"], []).append(record)
    strangers = by_request.keys() - load.asked.keys()
    assert not strangers, f"records of requests that nobody made: {sorted(strangers)[:5]}"
    doubled = {name: found for name, found in by_request.items() if len(found) > 1}
    assert not doubled, f"requests with more than one record: {doubled}"
    lost = [
        name for name, asked in load.asked.items() if asked.is_whole and not asked.is_free and name not in by_request
    ]
    assert not lost, f"answered in full, and no record: {lost[:5]}"
    unbilled = [name for name in provider.ledger if name not in by_request]
    assert not unbilled, f"the vendor was asked, and there is no record: {unbilled[:5]}"
    for name, (record,) in by_request.items():
        asked = load.asked[name]
        assert not asked.is_free, record
        assert (record["instance"], record["unit_primitive"]) == (asked.instance, asked.unit_primitive)
        if asked.is_whole:
            assert record["status"] == "completed", (name, record)
    done = [record for record in records if record["status"] == "completed"]
    assert sums(done) == charges(load, provider, {record["request_id"] for record in done})
    return Counter(record["status"] for record in records)


def sums(records: list[dict[str, Any]]) -> Sums:
    found: Sums = Counter()
    for record in records:
        key = (record["instance"], record["unit_primitive"], record["upstream_model"])
        found[*key, "input"] += record["input_tokens"]
        found[*key, "output"] += record["output_tokens"]
    return found


def charges(load: Load, provider: ChargingProvider, names: set[str]) -> Sums:
    """The vendor's bill for these requests."""
    found: Sums = Counter()
    for name in names:
        asked = load.asked[name]
        for charge in provider.ledger[name][-1:]:  # whoever was asked before did not answer to the end
            key = (asked.instance, asked.unit_primitive, charge.model)
            found[*key, "input"] += charge.input_tokens
            found[*key, "output"] += charge.output_tokens
    return found
