"""Every kind of stream that the gateway writes: who asks for it, what is behind it, and how it tells a failure."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support import anthropic_answers, google_answers, openai_answers
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.google import FakeGoogle
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.saying import Saying
from tests.support.waiting import eventually

Behind = Literal["messages", "chat", "google", "array"]
"""The format that the provider speaks."""

PROXY = "ai_gateway_model_provider_proxy"
CLAUDE, GPT, GEMINI = "claude-sonnet-4-6", "gpt-5-mini-2025-08-07", "gemini-3.8-flash"
HI = [{"role": "user", "content": "Hi"}]
PIECES = ("Final ", "Answer: ", "one ", "two ", "three ", "four ", "five ", "six ")
"""What a model says in these drills; as a step of an agent it is an answer too."""

_VERTEX = "/v1/proxy/vertex-ai/v1/projects/x/locations/y/publishers"
_CURSOR = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
_CODE = {"current_file": _CURSOR, "stream": True}
_EDITOR = {"prompt_components": [{"type": "code_editor_completion", "payload": _CURSOR | {"stream": True}}]}
_PROMPT = {"inputs": {"diff": "a diff"}, "stream": True}
_OLD_CHAT = {
    "prompt_components": [
        {"type": "prompt", "metadata": {"source": "GitLab EE", "version": "17.11.0"}, "payload": {"content": "Hi"}}
    ],
    "stream": True,
}
_MESSAGES = {"model": CLAUDE, "max_tokens": 9, "messages": HI, "stream": True}
_CHAT = {"model": GPT, "messages": HI, "stream": True, "stream_options": {"include_usage": True}}
_RESPONSES = {"model": CLAUDE, "input": "Hi", "stream": True}
_GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
_CLAUDE_AT_GOOGLE = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 9, "messages": HI, "stream": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of stream.

    tells   how it says that it failed after its beginning: by a cut alone, by a line and a clean end, or by an
            event before the cut
    ends    bytes that only a whole stream holds; empty: none says so
    passes  the provider's bytes are the client's
    """

    name: str
    path: str
    body: Mapping[str, Any]
    unit_primitive: str = PROXY
    behind: Behind = "messages"
    tells: Literal["cut", "line", "event"] = "cut"
    ends: bytes = b""
    passes: bool = False
    has_comments: bool = False
    refused: int = 503
    """Status where the model fails before the first chunk (contract 1.2 and 1.5)."""

    @property
    def is_proxy(self) -> bool:
        return self.path.startswith("/v1/proxy/")

    @property
    def is_dialect(self) -> bool:
        return self.path.startswith(("/openai/", "/anthropic/"))

    def ask(self, gateway: RunningGateway, request_id: str, *, stream: bool = True) -> dict[str, Any]:
        """Keywords of `gateway.post`, `gateway.stream` and, with the method, of `gateway.request_bytes`."""
        headers: dict[str, str | None] = {"X-Request-ID": request_id}
        if self.is_proxy:
            headers["X-Gitlab-Unit-Primitive"] = PROXY
        path, body = (self.path, self.body) if stream else self._whole()
        return {
            "path": path, "json": body, "headers": headers,
            "token": gateway.token(unit_primitives=[self.unit_primitive]),
        }  # fmt: skip

    def _whole(self) -> tuple[str, Any]:
        path = self.path.replace("streamGenerateContent?alt=sse", "generateContent")
        path = path.replace("streamGenerateContent", "generateContent")
        body = json.loads(json.dumps(self.body).replace('"stream": true', '"stream": false'))
        body.pop("stream_options", None)
        return path, body

    def events(self, pieces: Sequence[str] = PIECES, **said: Any) -> list[bytes]:
        """What a good provider behind it sends, in the parts in which it may break off."""
        saying = Saying(pieces=tuple(pieces), **said)
        match self.behind:
            case "messages":
                return anthropic_answers.messages_events(saying, {"model": CLAUDE})
            case "chat":
                return openai_answers.chat_events(saying, {"model": GPT, **_CHAT})
            case "google":
                return google_answers.content_events(saying, {})
            case "array":
                return google_answers.content_array(saying, {})

    @property
    def head_events(self) -> int:
        """Events before the first piece of text."""
        return {"messages": 3, "chat": 1, "google": 0, "array": 0}[self.behind]

    @property
    def content_type(self) -> str:
        return "application/json" if self.behind == "array" else "text/event-stream"

    def text_of(self, body: bytes) -> str:
        """The model's text as far as it came; what is no text of the format fails here."""
        if self.tells == "cut" and not self.passes and self.name != "v2 prompts":
            return body.decode()
        if self.name == "v2 prompts":
            rows = [json.loads(line) for line in body.split(b"\n") if line]
            return "".join(row.get("content", "") for row in rows)
        if self.tells == "line":
            rows = [json.loads(line) for line in body.decode().split("\n") if line]
            return "".join(row["data"]["text"] for row in rows if row["type"] == "final_answer_delta")
        found = []
        for row in self.data_of(body):
            if row.get("choices"):
                found.append(row["choices"][0].get("delta", {}).get("content") or "")
            elif isinstance(row.get("delta"), dict):
                found.append(row["delta"].get("text", ""))
            elif row.get("type") == "response.output_text.delta":
                found.append(row["delta"])
            elif row.get("candidates"):
                found += [part.get("text", "") for part in row["candidates"][0]["content"]["parts"]]
        return "".join(found)

    def data_of(self, body: bytes) -> list[dict[str, Any]]:
        """The JSON of each event, read as a client reads it: whole events and lines only."""
        if self.behind == "array" and self.passes:
            # As far as whole elements came.
            return list(json.loads(body[: body.rindex(b"\r\n")] + b"]"))
        text = body.decode().replace("\r\n", "\n")
        lines = [line for event in text.split("\n\n")[:-1] for line in event.split("\n")]
        data = [line[6:] for line in lines if line.startswith("data: ")]
        return [json.loads(each) for each in data if each not in ("[DONE]", "null")]

    def failure_of(self, body: bytes) -> dict[str, Any] | None:
        """What the stream says of its failure, the dialects' own shells taken off; None where it says none."""
        if self.tells == "line":
            rows = [json.loads(line) for line in body.decode().split("\n") if line]
            failures = [row["data"] for row in rows if row["type"] == "error"]
            assert failures == [row["data"] for row in rows[-1:] if row["type"] == "error"], "not the last line"
            return failures[0] if failures else None
        if self.tells == "cut":
            return None
        rows = self.data_of(body)
        failures = [
            row.get("error", row)
            for row in rows
            if row.get("error") or row.get("type") == "error" or "retryable" in row
        ]
        assert len(failures) <= 1, "told more than once"
        return failures[0] if failures else None


FAMILIES = [
    Family(name="v2 code", path="/v2/code/completions", body=_CODE, unit_primitive="complete_code"),
    Family(name="v3 code", path="/v3/code/completions", body=_EDITOR, unit_primitive="complete_code"),
    Family(
        name="v4 code", path="/v4/code/suggestions", body=_EDITOR, unit_primitive="complete_code",
        tells="event", ends=b"stream_end", has_comments=True,
    ),
    Family(name="v1 chat", path="/v1/chat/agent", body=_OLD_CHAT, unit_primitive="duo_chat", refused=502),
    Family(
        name="v1 prompts", path="/v1/prompts/generate_commit_message", body=_PROMPT,
        unit_primitive="generate_commit_message", refused=421,
    ),
    Family(
        name="v2 prompts", path="/v2/prompts/generate_commit_message", body=_PROMPT,
        unit_primitive="generate_commit_message", refused=421,
    ),
    Family(
        name="v2 chat", path="/v2/chat/agent", body={"messages": HI}, unit_primitive="duo_chat",
        tells="line", ends=b'"type": "usage"', refused=200,
    ),
    Family(
        name="anthropic proxy", path="/v1/proxy/anthropic/v1/messages", body=_MESSAGES,
        tells="event", ends=b"message_stop", passes=True, refused=502,
    ),
    Family(
        name="openai proxy", path="/v1/proxy/openai/v1/chat/completions", body=_CHAT, behind="chat",
        tells="event", ends=b"[DONE]", passes=True, refused=502,
    ),
    Family(
        name="vertex proxy", path=f"{_VERTEX}/google/models/{GEMINI}:streamGenerateContent?alt=sse", body=_GOOGLE,
        behind="google", tells="event", ends=b'"finishReason"', passes=True, refused=502,
    ),
    Family(
        name="vertex proxy, array", path=f"{_VERTEX}/google/models/{GEMINI}:streamGenerateContent", body=_GOOGLE,
        behind="array", ends=b'"finishReason"', passes=True, refused=502,
    ),
    Family(
        name="vertex proxy, Claude", path=f"{_VERTEX}/anthropic/models/{CLAUDE}:streamRawPredict",
        body=_CLAUDE_AT_GOOGLE, tells="event", ends=b"message_stop", passes=True, refused=502,
    ),
    Family(
        name="messages", path="/anthropic/v1/messages", body=_MESSAGES,
        tells="event", ends=b"message_stop", passes=True, has_comments=True, refused=502,
    ),
    Family(
        name="chat completions", path="/openai/v1/chat/completions", body=_CHAT, behind="chat",
        tells="event", ends=b"[DONE]", passes=True, has_comments=True, refused=502,
    ),
    Family(
        name="messages from chat", path="/anthropic/v1/messages", body={**_MESSAGES, "model": GPT}, behind="chat",
        tells="event", ends=b"message_stop", has_comments=True, refused=502,
    ),
    Family(
        name="chat from messages", path="/openai/v1/chat/completions", body={**_CHAT, "model": CLAUDE},
        tells="event", ends=b"[DONE]", has_comments=True, refused=502,
    ),
    Family(
        name="responses from messages", path="/openai/v1/responses", body=_RESPONSES,
        tells="event", ends=b"response.completed", has_comments=True, refused=502,
    ),
]  # fmt: skip

BY_NAME = {family.name: family for family in FAMILIES}


@asynccontextmanager
async def gateway_for_all(folder: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[RunningGateway]:
    """A gateway with all its vendors behind one scripted provider, Google's token server included."""
    async with (
        FakeGoogle() as google,
        ScriptedProvider() as provider,
        FakeIssuer() as issuer,
        running_gateway(provider, issuer, folder, google_env(provider, google) | dict(env or {})) as gateway,
    ):
        yield gateway


def google_env(provider: ScriptedProvider, google: FakeGoogle) -> dict[str, str]:
    return {
        "AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY": google.key(),
        "VERTEX_BASE_URL": provider.url,
    }


async def records_of(gateway: RunningGateway, request_id: str) -> list[dict[str, Any]]:
    """The usage records of one request, once there is one; they come after the answer where its client has left."""

    async def has_come() -> bool:
        return any(record["request_id"] == request_id for record in gateway.usage())

    await eventually(has_come)
    return [record for record in gateway.usage() if record["request_id"] == request_id]


async def line_of(gateway: RunningGateway, request_id: str) -> dict[str, Any]:
    """The one access line of a request."""
    await gateway.log.find(logger="api.access", correlation_id=request_id)
    (line,) = [
        line for line in gateway.log.lines
        if line["logger"] == "api.access" and line["correlation_id"] == request_id
    ]  # fmt: skip
    return line
