"""Copies of calls for deployments on trial: sent in the background, answered to nobody, booked apart.

A shadow begins once the caller's own answer has begun, has no part in the caller's limits and record, and is dropped
rather than waited for.
"""

import asyncio
import logging
from contextlib import aclosing

from torana.background import Background
from torana.chat import ChatRequest, Usage
from torana.clock import Clock
from torana.counting import estimate_tokens
from torana.errors import ProviderError, Refusal
from torana.providers.send import Sender
from torana.routing.health import Health, Meter
from torana.routing.tries import Candidate
from torana.usage.event import Status
from torana.usage.ledger import Record
from torana.usage.told import complete, is_told

logger = logging.getLogger("torana.routing")

NOBODY = ""
"""Whose place a copy takes."""

MAX_UNDER_WAY = 8
"""Shadows of one worker at a time: a deployment on trial must not take what callers need."""


class Shadows:
    """Those that are under way in one worker."""

    def __init__(self, clock: Clock, meter: Meter) -> None:
        self._clock = clock
        self._meter = meter
        self._background = Background(MAX_UNDER_WAY)
        self.aclose = self._background.aclose

    def has_room(self, health: Health) -> bool:
        """Otherwise the copy is dropped, and counted as such."""
        if not self._background.is_full and health.is_ready(self._clock.monotonic()):
            return True
        self._meter.shadowed(health.name, "dropped")
        return False

    def begin(self, sender: Sender, candidate: Candidate, chat: ChatRequest, record: Record) -> None:
        """record  the copy's own usage record; it is closed here"""
        self._background.begin(self._run(sender, candidate, chat, record))

    async def _run(self, sender: Sender, candidate: Candidate, chat: ChatRequest, record: Record) -> None:
        health, clock = candidate.health, self._clock
        started = clock.monotonic()
        ways = [way for way in (health.places, health.gate) if way is not None]
        entered = [way for way in ways if way.take(NOBODY)]
        turn = health.begin(started) if entered == ways else 0
        if not turn:
            for way in entered:
                way.leave(NOBODY)
            self._end(health, "dropped", "not_ready", None, record)
            return
        usage: Usage | None = None
        first_s, said_chars = 0.0, 0
        try:
            async with (
                asyncio.timeout(sender.settings.request_s),
                aclosing(sender.stream(candidate.deployment, chat)) as batches,
            ):
                async for batch in batches:
                    first_s = first_s or clock.monotonic() - started
                    for chunk in batch:
                        said_chars += len(chunk.text) + len(chunk.reasoning)
                        usage = chunk.usage or usage
            health.good(clock.monotonic(), turn, first_s)
            self._end(health, "answered", "", usage if is_told(usage) else _so_far(chat, usage, said_chars), record)
        except ProviderError as failure:
            health.bad(clock.monotonic(), turn, failure)
            self._end(health, "failed", failure.code, _begun(chat, usage, said_chars), record)
        except (Refusal, TimeoutError) as failure:
            # It cannot be asked this, or it dawdles: nobody waits for it.
            health.breaker.left(turn)
            code = failure.code if isinstance(failure, Refusal) else "provider_timeout"
            self._end(health, "failed", code, _begun(chat, usage, said_chars), record)
        except asyncio.CancelledError:
            self._end(health, "stopped", "server_draining", _so_far(chat, usage, said_chars), record)
            raise
        finally:
            health.end()
            for way in entered:
                way.leave(NOBODY)

    def _end(self, health: Health, outcome: str, code: str, usage: Usage | None, record: Record) -> None:
        self._meter.shadowed(health.name, outcome)
        record.close(_STATUSES[outcome], usage, error_code=code)
        logger.info("shadow ended", extra={"deployment": health.name, "outcome": outcome, "code": code})


_STATUSES: dict[str, Status] = {
    "answered": "completed",
    "failed": "upstream_error",
    "dropped": "upstream_error",
    "stopped": "interrupted",
}


def _begun(chat: ChatRequest, told: Usage | None, said_chars: int) -> Usage | None:
    """What an answer took that broke off; nothing where it had not begun."""
    return _so_far(chat, told, said_chars) if told is not None or said_chars else None


def _so_far(chat: ChatRequest, told: Usage | None, said_chars: int) -> Usage:
    asked = sum(estimate_tokens(message.text) for message in chat.messages)
    return complete(told, asked, (said_chars + 3) // 4)
