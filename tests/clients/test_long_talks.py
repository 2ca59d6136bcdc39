"""What agents tell in later turns leaves the beginning of a prompt as it was: providers keep it in their caches."""

from typing import Any

import anthropic
import pytest
from tests.clients.behind import BEHIND
from tests.clients.conftest import sdk_token
from tests.support.gateway import RunningGateway

CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Tromsø"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Snow"}
TURNS: list[Any] = [
    {"role": "user", "content": "How is the weather?"},
    {"role": "system", "content": "You may ask other agents."},
    {"role": "assistant", "content": [CALL]},
    {"role": "user", "content": [RESULT]},
    {"role": "system", "content": "You have no list of tasks yet."},
    {"role": "assistant", "content": "It snows."},
    {"role": "system", "content": "It is late."},
    {"role": "user", "content": "And tomorrow?"},
]
"""As Claude Code tells its reminders."""


def said_in(asked: dict[str, Any]) -> list[Any]:
    """System text and turns, in order; the last turns may be told as one or as several."""
    turns = asked.get("messages") or asked.get("contents") or asked["input"]
    return [asked.get("system"), asked.get("systemInstruction"), asked.get("instructions"), *turns]


@pytest.mark.parametrize("model", BEHIND)
async def test_what_the_system_says_later_stands_where_it_was_said(anything: RunningGateway, model: str) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=f"{anything.url}/anthropic", auth_token=sdk_token(anything), max_retries=0
    ) as client:
        for length in (2, 5, 8):
            tools: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
            await client.messages.create(
                model=model, max_tokens=64, messages=TURNS[:length], system="Be brief.", tools=tools
            )

    first, second, third = (said_in(request.json()) for request in anything.provider.requests)
    assert second[: len(first)] == first
    assert third[: len(second)] == second
    texts = str(third)
    assert texts.index("Snow") < texts.index("no list") < texts.index("It snows.") < texts.index("late")
