"""How far requests on the proxies stray from what their right is for (contract 9): sampled, and measured afterwards.

A model is asked in the background, on the operator's account: no caller's limits, no caller's usage. It never blocks
or slows a request, and what cannot be measured is let go. Off by default.
"""

import asyncio
import logging
import random
import re
from collections.abc import Mapping
from typing import Protocol

from torana.access.permissions import permit_ourselves
from torana.background import Background
from torana.caller import Permit
from torana.catalog.records import UnitPrimitive
from torana.chat import ModelWish
from torana.errors import Invalid, ProviderError, Refusal
from torana.facts import Facts
from torana.gateway import Gateway
from torana.settings import AbuseSettings
from torana.usage.ledger import NoOrigin

logger = logging.getLogger("torana.api.abuse")

PROMPT = "measure_abuse"
ORIGIN = NoOrigin(endpoint="abuse_detection", feature="abuse_detection")

MAX_UNDER_WAY = 4
"""Measurements of one worker at a time; further ones are left out."""
MAX_BYTES = 16_384
"""What is shown of a request: its beginning and its end."""
PATIENCE_S = 60.0

_NUMBER = re.compile(r"\s*+([01](?:\.\d{1,9})?|\.\d{1,9})\s*+\.?\s*+")


class AbuseMeter(Protocol):
    def abuse_score(self, score: float) -> None: ...


class AbuseWatch:
    """Takes requests without ever waiting; one for each worker, whatever catalogue it has."""

    def __init__(self, settings: AbuseSettings, meter: AbuseMeter) -> None:
        self._rate = settings.sampling_rate
        self._meter = meter
        self._background = Background(MAX_UNDER_WAY)
        self.aclose = self._background.aclose

    def look_at(self, gateway: Gateway, permit: Permit, purposes: Mapping[str, UnitPrimitive], body: bytes) -> None:
        """The provider has begun to answer a request. Callers whose data may not leave their regions are left alone."""
        if self._background.is_full or random.random() >= self._rate:  # noqa: S311 a sample, no secret
            return
        name = next(iter(permit.unit_primitives), "")
        purpose = purposes.get(name)
        if purpose is None or gateway.router.regions_of(permit):
            return
        shown = _show(body)
        self._background.begin(self._measure(gateway, name, purpose.description, shown))

    async def _measure(self, gateway: Gateway, name: str, purpose: str, request: str) -> None:
        told = {"unit_primitive": name}
        facts = Facts()
        facts.origin = ORIGIN
        permit = permit_ourselves(name)
        try:
            prompt, model = gateway.find_prompt(PROMPT, None, ModelWish(role="completions_default"), permit.caller)
            if model.is_demo:
                return  # it would make a number up
            async with asyncio.timeout(PATIENCE_S):
                answer = await gateway.run_prompt(
                    permit, prompt, model, {"purpose": purpose, "request": request}, facts, stream=False
                )
                try:
                    said = (await answer.collect()).texts[0]
                finally:
                    await answer.aclose()
        except (ProviderError, Refusal, Invalid, TimeoutError) as failure:
            logger.warning("a request was not measured", extra=told | {"reason": str(failure)[:200]})
            return
        score = _NUMBER.fullmatch(said)
        if score is None or float(score[1]) > 1:
            logger.warning("a request was not measured", extra=told | {"reason": "the model gave no number"})
            return
        self._meter.abuse_score(float(score[1]))
        logger.info("request measured", extra=told | {"score": float(score[1])})


def _show(body: bytes) -> str:
    """What is asked last weighs as much as what comes first."""
    if len(body) > MAX_BYTES:
        half = MAX_BYTES // 2
        body = body[:half] + b"\n[...]\n" + body[-half:]
    return body.decode(errors="replace")
