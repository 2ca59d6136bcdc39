"""One request of each family of endpoints that call a model, and what a failed call is there (contract 1.2, 1.5)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

FILE = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
HI = [{"role": "user", "content": "Hi"}]
PROXY = "ai_gateway_model_provider_proxy"
SCOPES = ("complete_code", "generate_code", "duo_chat", "explain_code", PROXY)

Failed = Callable[[int], tuple[int, str]]
"""What HTTP would call the provider's failure → status, and the text that the client reads."""


def _code(upstream: int) -> tuple[int, str]:
    if upstream == 429:
        return 429, "Too many requests. Please try again later."
    return 503, "Inference failed"


def _prompt(upstream: int) -> tuple[int, str]:
    phrase = "Overloaded" if upstream == 529 else HTTPStatus(upstream).phrase
    return 421, f"{upstream}: {phrase}"


def _step(upstream: int) -> tuple[int, str]:
    return 200, "upstream"


def _proxy(_upstream: int) -> tuple[int, str]:
    return 502, "Bad Gateway"


def _dialect(upstream: int) -> tuple[int, str]:
    known = {504: 504, 503: 503, 529: 529, 429: 429, 400: 400, 404: 404, 413: 413, 422: 400}
    return known.get(upstream, 502), "rovider"


@dataclass(frozen=True, slots=True)
class Family:
    path: str
    body: Callable[[bool], dict[str, Any]]
    """With its wish for a stream."""
    failed: Failed
    may_stream: bool = True

    async def ask(self, gateway: RunningGateway, *, stream: bool = False) -> Answer:
        token = gateway.token(unit_primitives=SCOPES)
        headers = {"X-Gitlab-Unit-Primitive": PROXY} if "/proxy/" in self.path else {}
        return await gateway.post(self.path, json=self.body(stream), token=token, headers=headers)

    def is_failed(self, answer: Answer, upstream: int) -> bool:
        """The status and text of the contract, with a code to look up beside them."""
        status, text = self.failed(upstream)
        if status == 200:
            lines = [json.loads(line) for line in answer.text.splitlines()]
            return answer.status == 200 and lines[-1]["type"] == "error" and text in lines[-1]["data"]["message"]
        return answer.status == status and text in answer.text


FAMILIES = {
    "completions v2": Family("/v2/code/completions", lambda stream: {"current_file": FILE, "stream": stream}, _code),
    "suggestions v4": Family(
        "/v4/code/suggestions",
        lambda stream: {
            "prompt_components": [{"type": "code_editor_completion", "payload": {**FILE, "stream": stream}}]
        },
        _code,
    ),
    "prompts v1": Family(
        "/v1/prompts/chat/explain_code",
        lambda stream: {"inputs": {"input": "Why?", "selected_text": "x = 1"}, "stream": stream},
        _prompt,
    ),
    "chat agent": Family("/v2/chat/agent", lambda _: {"messages": HI}, _step),
    "messages": Family(
        "/anthropic/v1/messages",
        lambda stream: {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": HI, "stream": stream},
        _dialect,
    ),
    "proxy": Family(
        "/v1/proxy/anthropic/v1/messages",
        lambda stream: {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": HI, "stream": stream},
        _proxy,
    ),
}
