"""POST /openai/v1/embeddings: vectors, by any model of the registry that makes them."""

from typing import Any

from msgspec.structs import replace as replace_fields

from torana.api.dialect_front import OPENAI
from torana.api.dialect_gate import QUOTA, DialectGate
from torana.api.exchange import JSON_HEADER, Exchange, Reply, Route
from torana.caller import Permit
from torana.dialects import embeddings
from torana.dialects.embedding_dialect import MAX_DIMENSIONS
from torana.errors import Invalid, ProviderError
from torana.gateway import Gateway


class DialectEmbeddings:
    def __init__(self, gateway: Gateway, gate: DialectGate) -> None:
        self.gateway = gateway
        self.gate = gate

    def routes(self) -> list[Route]:
        path = OPENAI.prefix + embeddings.PATH
        return [Route(path=path, policy=self.gate.policy, handle=self.answer, body="proxy", quota=QUOTA)]

    async def answer(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        name, _, _ = self.gate.peek(exchange.body)
        model = self.gate.offered.answering(name, embeds=True)
        if not model.dimensions:
            raise Invalid(("model",), "This model makes no embeddings")
        request, _ = embeddings.read_request(exchange.body)
        if len(request.inputs) > embeddings.MAX_INPUTS:
            raise Invalid(("input",), f"List should have at most {embeddings.MAX_INPUTS} items", "too_long")
        if request.dimensions is not None and not 1 <= request.dimensions <= MAX_DIMENSIONS:
            raise Invalid(("dimensions",), f"Input should be from 1 to {MAX_DIMENSIONS}")
        request = replace_fields(request, source=exchange.body)
        try:
            found = await self.gateway.walk.embed(permit, model, request, exchange.facts)
            body = found.raw or embeddings.write_answer(found.rows, found.upstream_model, found.usage, request.encoding)
        except ProviderError as error:
            raise self.gate.failed(OPENAI, error) from error
        return Reply(200, body, [JSON_HEADER, *found.headers, *OPENAI.write_limits(found.standings)])
