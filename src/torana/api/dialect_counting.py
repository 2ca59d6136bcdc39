"""POST /anthropic/v1/messages/count_tokens: how long a prompt is, as its provider counts; else as we estimate."""

from typing import Any

from msgspec.structs import replace as replace_fields

from torana.api.dialect_front import ANTHROPIC
from torana.api.dialect_gate import QUOTA, DialectGate, beta_of, forwarded
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route
from torana.caller import Permit
from torana.chat import Source
from torana.dialects.messages import MESSAGES, read_count_request, write_count
from torana.errors import ProviderError
from torana.gateway import Gateway

ESTIMATED = (b"x-torana-estimated", b"true")
"""Nobody counted: agents that compact a conversation by this number had better leave a margin."""


class DialectCounting:
    def __init__(self, gateway: Gateway, gate: DialectGate) -> None:
        self.gateway = gateway
        self.gate = gate

    def routes(self) -> list[Route]:
        path = f"{ANTHROPIC.prefix}/v1/messages/count_tokens"
        return [
            Route(path=path, policy=self.gate.policy, handle=self.answer, body="proxy", quota=QUOTA, asks_no_model=True)
        ]

    async def answer(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        name, _, _ = self.gate.peek(exchange.body)
        model = self.gate.offered.answering(name)
        chat, _ = read_count_request(exchange.body)
        source = Source(
            dialect=MESSAGES.name,
            body=exchange.body,
            headers=forwarded(exchange, MESSAGES.name),
            query=beta_of(exchange.query),
        )
        try:
            counted = await self.gateway.count_tokens(permit, model, replace_fields(chat, source=source))
        except ProviderError as error:
            raise self.gate.failed(ANTHROPIC, error) from error
        estimated = [] if counted.is_exact else [ESTIMATED]
        return Reply(200, write_count(counted.tokens), [JSON_HEADER, *estimated, *counted.headers])
