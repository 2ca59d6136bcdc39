"""Requests of every family that a typical instance never mixes, and of those that cost nothing."""

import random
from typing import Any

from tests.support.usage_load import CODE, FREE, PROXY, SAID, Order, usual_orders

_CLAUDE, _GPT, _EMBEDDING = "claude-sonnet-4-6", "gpt-5-mini-2025-08-07", "text-embedding-3-small"
_TOOL = {"name": "look", "description": "Looks", "input_schema": {"type": "object", "properties": {}}}


def wide_orders(chance: random.Random, name: str) -> Order:
    """One in four is a usual one."""
    stream = chance.random() < 0.7
    said: dict[str, Any] = {"stream": stream, "user": name}
    match chance.randrange(12):
        case 0:
            part = {"type": "code_editor_completion", "payload": CODE | {"stream": stream}}
            return "/v4/code/suggestions", "complete_code", {"prompt_components": [part]}
        case 1:
            part = {"type": "code_editor_generation", "payload": CODE | {"stream": stream}}
            return "/v4/code/suggestions", "generate_code", {"prompt_components": [part]}
        case 2:
            return "/v2/code/generations", "generate_code", {"current_file": CODE, "stream": stream}
        case 3:
            return "/openai/v1/responses", PROXY, {"model": chance.choice((_CLAUDE, _GPT)), "input": "Hi", **said}
        case 4:
            return "/v1/proxy/openai/v1/responses", PROXY, {"model": _GPT, "input": "Hi", **said}
        case 5:
            return "/openai/v1/embeddings", PROXY, {"model": _EMBEDDING, "input": ["a", "b"], "user": name}
        case 6:
            return "/v1/proxy/openai/v1/embeddings", PROXY, {"model": _EMBEDDING, "input": "a", "user": name}
        case 7:
            body = {"model": _CLAUDE, "max_tokens": 9, "messages": SAID, "stream": stream, "tools": [_TOOL]}
            return "/anthropic/v1/messages", PROXY, body | {"metadata": {"user_id": name}}
        case 8:
            counting, minting = FREE
            if stream:
                return counting, PROXY, {"model": _CLAUDE, "messages": SAID}
            return minting, "complete_code", {}
        case _:
            return usual_orders(chance, name)
