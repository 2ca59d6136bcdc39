"""Which models there are, as OpenAI's and Anthropic's SDKs ask for them: what is configured, with our registry's facts.

Source: OpenAI API reference, "Models"; Anthropic API reference, "Models".
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from torana.api.dialect_front import ANTHROPIC, OPENAI
from torana.api.dialect_gate import DialectGate
from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.caller import Permit
from torana.catalog.model_records import ModelRecord
from torana.errors import Refusal
from torana.routing.offered import Offer
from torana.routing.price_list import price_of

UNKNOWN_DAY = "1970-01-01T00:00:00Z"
"""Anthropic's word for a release whose day nobody knows."""

USUAL_PAGE, MAX_PAGE = 20, 1000


class DialectModels:
    """`/openai/v1/models` and `/anthropic/v1/models`, each also with one model's name behind it."""

    def __init__(self, gate: DialectGate) -> None:
        self.offered = gate.offered
        self.policy = gate.policy

    def routes(self) -> list[Route]:
        get = partial(Route, methods=("GET",), policy=self.policy, body="none", asks_no_model=True)
        return [
            get(path=f"{OPENAI.prefix}/v1/models", handle=self.list_openai),
            get(path=f"{OPENAI.prefix}/v1/models/{{tail}}", handle=self.show_openai),
            get(path=f"{ANTHROPIC.prefix}/v1/models", handle=self.list_anthropic),
            get(path=f"{ANTHROPIC.prefix}/v1/models/{{tail}}", handle=self.show_anthropic),
        ]

    async def list_openai(self, _exchange: Exchange, _permit: Permit, _order: Any) -> Reply:
        return json_reply({"object": "list", "data": [_openai(offer, self._now()) for offer in self.offered.list()]})

    async def show_openai(self, exchange: Exchange, _permit: Permit, _order: Any) -> Reply:
        return json_reply(_openai(self.offered.offer(exchange.tail), self._now()))

    async def list_anthropic(self, exchange: Exchange, _permit: Permit, _order: Any) -> Reply:
        rows, has_more = _page(list(self.offered.list()), dict(parse_qsl(exchange.query.decode("latin-1"))))
        return json_reply(
            {
                "data": [_anthropic(offer, self._now()) for offer in rows],
                "has_more": has_more,
                "first_id": rows[0].id if rows else None,
                "last_id": rows[-1].id if rows else None,
            }
        )

    async def show_anthropic(self, exchange: Exchange, _permit: Permit, _order: Any) -> Reply:
        return json_reply(_anthropic(self.offered.offer(exchange.tail), self._now()))

    def _now(self) -> float:
        return self.offered.models.clock.now()


def _page(rows: Sequence[Offer], asked: dict[str, str]) -> tuple[Sequence[Offer], bool]:
    """One page of the list, and whether more follows in the direction that was asked for."""
    limit = asked.get("limit", str(USUAL_PAGE))
    if not (re.fullmatch(r"[0-9]{1,9}", limit) and 1 <= int(limit) <= MAX_PAGE):
        raise Refusal(400, "request_invalid", f"limit: Input should be from 1 to {MAX_PAGE}", missing="limit")
    size, ids = int(limit), [row.id for row in rows]
    if (before := asked.get("before_id")) is not None:
        end = ids.index(before) if before in ids else 0
        start = max(0, end - size)
        return rows[start:end], start > 0
    after = asked.get("after_id")
    start = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
    return rows[start : start + size], start + size < len(rows)


def _openai(offer: Offer, now: float) -> dict[str, Any]:
    shown = {"id": offer.id, "object": "model", "created": 0, "owned_by": offer.owner}
    return {**shown, "registry": _facts(offer.record, now)}


def _anthropic(offer: Offer, now: float) -> dict[str, Any]:
    record = offer.record
    ends = record.deprecation.deprecation_date if record.deprecation is not None else ""
    return {
        "type": "model",
        "id": offer.id,
        "display_name": record.title,
        "created_at": UNKNOWN_DAY,
        "lifecycle": "deprecated" if record.stage == "deprecated" else "active",
        "retires_at": f"{ends}T00:00:00Z" if ends else None,
        "max_input_tokens": record.input_limit,
        "max_tokens": record.output_limit,
        "registry": _facts(record, now),
    }


def _facts(record: ModelRecord, now: float) -> dict[str, Any]:
    """What our registry says at this moment, beside the vendor's members."""
    facts: dict[str, Any] = {
        "title": record.title,
        "capabilities": sorted(record.abilities),
        "input_limit": record.input_limit,
        "output_limit": record.output_limit,
        "stage": record.stage,
        "deployments": [item.label for item in record.deployments],
    }
    if record.dimensions:
        facts["dimensions"] = record.dimensions
    price = price_of(record.prices, now)
    if price is not None:
        facts["prices_usd_per_million_tokens"] = {**price.figures(), "as_of": price.as_of}
    if record.successor:
        facts["successor"] = record.successor
    return facts
