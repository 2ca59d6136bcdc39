"""The routes below `/openai` and `/anthropic`: any client, any model (interface 6)."""

from collections.abc import Mapping
from typing import Any

from torana.api.dialect_chat import DialectChat
from torana.api.dialect_counting import DialectCounting
from torana.api.dialect_embeddings import DialectEmbeddings
from torana.api.dialect_front import FRONTS
from torana.api.dialect_gate import DialectGate
from torana.api.dialect_models import DialectModels
from torana.api.exchange import Exchange, Reply, Route
from torana.caller import Permit
from torana.catalog.records import UnitPrimitive
from torana.gateway import Gateway
from torana.routing.offered import OfferedModels
from torana.settings import Settings
from torana.telemetry.redaction import Redactor

ENDS = ("", "/", "/v1", "/v1/")
"""What clients have behind the prefix when they ask whether anybody is there."""


class DialectEndpoints:
    def __init__(
        self, gateway: Gateway, unit_primitives: Mapping[str, UnitPrimitive], settings: Settings, redactor: Redactor
    ) -> None:
        offered = OfferedModels(gateway.models, gateway.router.first_model)
        gate = DialectGate(offered, unit_primitives, settings.auth, redactor)
        self.chat = DialectChat(gateway, gate, settings.serve.stream_keepalive_s)
        self.embeddings = DialectEmbeddings(gateway, gate)
        self.counting = DialectCounting(gateway, gate)
        self.models = DialectModels(gate)

    def routes(self) -> list[Route]:
        probes = ["/", *(front.prefix + end for front in FRONTS for end in ENDS)]
        return [
            *self.chat.routes(),
            *self.embeddings.routes(),
            *self.counting.routes(),
            *self.models.routes(),
            *(Route(path=path, methods=("HEAD",), handle=_show_life, body="none", is_open=True) for path in probes),
        ]


async def _show_life(_exchange: Exchange, _permit: Permit, _order: Any) -> Reply:
    return Reply(200)
