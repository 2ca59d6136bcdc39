"""A model vendor on loopback that says what the test scripts, good or bad, and keeps what it was asked.

Speaks Anthropic's, OpenAI's, Bedrock's and Google's formats under any path prefix. Without a script every model call
gets a good answer, "Hello from the scripted provider.", streamed where the request asks for it.

A script holds from then on, or for the next `times` model calls; those are used up in the order given.
GET /v1/models is not a model call: it answers with `models`, and uses up no script.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from tests.support import anthropic_answers, bedrock_answers, google_answers, openai_answers
from tests.support.http_server import Answering, LoopbackFake, LoopbackServer, Request
from tests.support.saying import PIECES, Events, Saying, ToolUse, Whole, event

GOOD = Saying()

Malformation = Literal[
    "html", "cut_json", "no_end", "short_body", "bad_chunk", "not_utf8", "endless_line", "error_event"
]
"""What can be wrong with an answer of status 200:

html          a web page instead of JSON or events
cut_json      JSON that stops in the middle, in a whole answer and in an event
no_end        all events but the last, then a clean end of HTTP
short_body    fewer bytes than promised, then the connection ends
bad_chunk     bytes where HTTP expects a chunk size
not_utf8      a byte in the text that no UTF-8 has
endless_line  an event of 2 MiB without a line end
error_event   the dialect's own error as the first event
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How one model call is answered. Made by the methods of ScriptedProvider."""

    says: Saying = GOOD
    status: int = 200
    body: bytes | None = None
    """Replaces the whole body, streaming or not."""
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    """Replaces everything, the status line included; then the connection ends."""
    events: tuple[bytes, ...] | None = None
    """Replaces the events of a stream."""
    first_byte_after: asyncio.Event | None = None
    hold_after: int | None = None
    """So many events go out, then nothing until `release`; 0: the headers only."""
    cut_after: int | None = None
    """So many events go out, then the connection ends."""
    cut_by: Literal["reset", "close"] = "reset"
    pause_s: float = 0.0
    """Between two events."""
    segment_bytes: int | None = None
    """HTTP chunks of this size instead of one an event; 1 splits every letter and line end."""
    malformed: Malformation | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to ask a model."""

    vendor: ModuleType
    whole: Callable[[Saying, dict[str, Any]], Whole]
    events: Callable[[Saying, dict[str, Any]], Events] | None = None
    streams: bool = False
    """By its path alone; otherwise where the body asks for it."""
    array: Callable[[Saying, dict[str, Any]], Events] | None = None
    """What streams where the query does not ask for `alt=sse`."""


ENDPOINTS = {
    "/v1/messages": Endpoint(anthropic_answers, anthropic_answers.messages_whole, anthropic_answers.messages_events),
    "/v1/messages/count_tokens": Endpoint(anthropic_answers, lambda said, _asked: {"input_tokens": said.input_tokens}),
    "/v1/complete": Endpoint(anthropic_answers, anthropic_answers.legacy_complete),
    "/v1/chat/completions": Endpoint(openai_answers, openai_answers.chat_whole, openai_answers.chat_events),
    "/v1/completions": Endpoint(openai_answers, openai_answers.text_whole, openai_answers.text_events),
    "/v1/responses": Endpoint(openai_answers, openai_answers.responses_whole, openai_answers.responses_events),
    "/invoke": Endpoint(bedrock_answers, bedrock_answers.invoke_whole),
    "/converse": Endpoint(bedrock_answers, bedrock_answers.converse_whole),
    "/converse-stream": Endpoint(
        bedrock_answers, bedrock_answers.converse_whole, bedrock_answers.converse_events, streams=True
    ),
    "/chat/completions": Endpoint(openai_answers, openai_answers.chat_whole, openai_answers.chat_events),
    "/completions": Endpoint(openai_answers, openai_answers.text_whole, openai_answers.text_events),
    "/v1/embeddings": Endpoint(openai_answers, lambda _said, asked: openai_answers.embeddings(asked)),
    ":generateContent": Endpoint(google_answers, google_answers.content_whole),
    ":streamGenerateContent": Endpoint(
        google_answers,
        google_answers.content_whole,
        google_answers.content_events,
        array=google_answers.content_array,
        streams=True,
    ),
    ":batchEmbedContents": Endpoint(google_answers, google_answers.batch_embeddings),
    ":rawPredict": Endpoint(anthropic_answers, anthropic_answers.messages_whole),
    ":streamRawPredict": Endpoint(
        anthropic_answers, anthropic_answers.messages_whole, anthropic_answers.messages_events
    ),
    ":predict": Endpoint(google_answers, google_answers.predict_whole),
    ":serverStreamingPredict": Endpoint(
        google_answers,
        google_answers.predict_whole,
        google_answers.predict_array,
        array=google_answers.predict_array,
        streams=True,
    ),
}
"""By the end of the path."""


class ScriptedProvider(LoopbackFake):
    """Use it with `async with`, or as the fixture `provider`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """Every model call, in order of arrival."""
        self.model_lists: list[Request] = []
        """Every GET of the models."""
        self.models = ["claude-sonnet-4-6", "gpt-5-mini-2025-08-07"]
        self.lists_bare = False
        """The list of models stands alone, as Together's."""
        self.model_list = b""
        """The list of models as it stands; empty: it is written from `models`."""
        self.server = LoopbackServer(self._handle)
        self._standing = Script()
        self._next: list[Script] = []
        self._released = asyncio.Event()
        self._arrived = asyncio.Condition()

    @property
    def connections(self) -> int:
        """How many connections were ever made to it."""
        return self.server.connections

    def answer_with(
        self,
        *,
        text: str | None = None,
        pieces: Sequence[str] | None = None,
        tool_call: ToolUse | None = None,
        further_calls: Sequence[ToolUse] = (),
        input_tokens: int = 25,
        output_tokens: int = 7,
        is_cut_by_limit: bool = False,
        status: int = 200,
        body: bytes | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        events: Sequence[bytes] | None = None,
        first_byte_after: asyncio.Event | None = None,
        hold_after: int | None = None,
        segment_bytes: int | None = None,
        times: int | None = None,
    ) -> None:
        """Answer as told; what is not told is as in the good answer. With a tool call there is no text unless given."""
        if pieces is None:
            pieces = (text,) if text is not None else () if tool_call else PIECES
        says = Saying(
            pieces=tuple(pieces),
            tool_call=tool_call,
            further_calls=tuple(further_calls),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            is_cut_by_limit=is_cut_by_limit,
        )
        script = Script(
            says=says,
            status=status,
            body=json.dumps(body).encode() if isinstance(body, dict) else body,
            headers=tuple((headers or {}).items()),
            raw=raw,
            events=tuple(events) if events is not None else None,
            first_byte_after=first_byte_after,
            hold_after=hold_after,
            segment_bytes=segment_bytes,
        )
        self.follow(script, times)

    def fail_with(
        self,
        status: int,
        body: bytes | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        *,
        times: int | None = None,
    ) -> None:
        """Answer with an error status; without a body with the vendor's usual one."""
        self.answer_with(status=status, body=body, headers=headers, times=times)

    def cut_after(self, events: int, *, by: Literal["reset", "close"] = "reset", times: int | None = None) -> None:
        """End the connection after so many events, without the terminal one; `reset` is RST, `close` is FIN."""
        self.follow(Script(cut_after=events, cut_by=by), times)

    def stall(self, *, after_events: int | None = None, times: int | None = None) -> None:
        """Never answer, or fall silent after so many events, until `release` or until the peer hangs up."""
        if after_events is None:
            self.follow(Script(first_byte_after=self._released), times)
        else:
            self.follow(Script(hold_after=after_events), times)

    def release(self) -> None:
        """Let everything that stalls or holds go on, now and later."""
        self._released.set()

    def answer_malformed(self, how: Malformation, *, times: int | None = None) -> None:
        self.follow(Script(malformed=how), times)

    def follow(self, script: Script, times: int | None = None) -> None:
        """Answer by `script`: from now on, or the next `times` model calls."""
        if times is None:
            self._standing = script
        else:
            self._next += [script] * times

    async def request(self, number: int = 1) -> Request:
        """The model call of this number, counted from 1; waits until it has come."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    async def _handle(self, request: Request, answering: Answering) -> None:
        if request.method == "GET" and request.path.endswith("/v1/models"):
            self.model_lists.append(request)
            vendor = openai_answers if request.header("anthropic-version") is None else anthropic_answers
            told = vendor.models(self.models)
            if self.model_list:
                await answering.whole(200, self.model_list, (("content-type", "application/json"),))
                return
            await _send_json(answering, 200, told["data"] if self.lists_bare else told)
            return
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        endpoint = next((found for end, found in ENDPOINTS.items() if request.path.endswith(end)), None)
        if endpoint is None or request.method != "POST":
            await _send_json(answering, 404, openai_answers.error(404))
            return
        script = self._next.pop(0) if self._next else self._standing
        if script.first_byte_after is not None:
            await script.first_byte_after.wait()
        if script.raw is not None:
            await answering.write(script.raw)
            answering.close()
        elif script.body is not None:
            await answering.whole(script.status, script.body, _with_type(script, "application/json"))
        elif script.status >= 300:
            headers = (*script.headers, *_error_headers(endpoint.vendor, script.status))
            await _send_json(answering, script.status, endpoint.vendor.error(script.status), headers)
        else:
            asked = request.json()
            if ":" in request.path.rpartition("/")[2]:
                # These name the model in the path: `…/models/<model>:<action>`.
                asked.setdefault("model", request.path.rpartition("/")[2].partition(":")[0])
            if endpoint.events is not None and (endpoint.streams or asked.get("stream")):
                if endpoint.array is not None and "alt=sse" not in request.query:
                    parts, content_type = endpoint.array(script.says, asked), "application/json; charset=UTF-8"
                else:
                    parts, content_type = endpoint.events(script.says, asked), _stream_type(endpoint.vendor)
                await self._stream(script, parts, endpoint.vendor, answering, content_type)
            else:
                await self._send_whole(script, json.dumps(endpoint.whole(script.says, asked)).encode(), answering)

    async def _send_whole(self, script: Script, body: bytes, answering: Answering) -> None:
        headers = _with_type(script, "application/json")
        match script.malformed:
            case "html":
                await answering.whole(200, b"<html><body>Welcome</body></html>", [("Content-Type", "text/html")])
                return
            case "cut_json" | "no_end":
                body = body[: len(body) // 2]
            case "not_utf8":
                body = body.replace(b"Hello", b"Hel\xfflo")
            case "error_event":
                body = b'{"error":{"message":"scripted failure","type":"server_error"}}'
            case _:
                pass
        is_short = (
            script.malformed in ("short_body", "bad_chunk")
            or script.cut_after is not None
            or script.hold_after is not None
        )
        if not is_short:
            await answering.whole(script.status, body, headers)
            return
        await answering.head(script.status, [*headers, ("Content-Length", str(len(body)))])
        await answering.write(body[: len(body) // 2])
        if script.hold_after is not None:
            await self._released.wait()
            await answering.write(body[len(body) // 2 :])
        elif script.cut_after is not None and script.cut_by == "reset":
            answering.reset()
        else:
            answering.close()

    async def _stream(
        self, script: Script, events: list[bytes], vendor: ModuleType, answering: Answering, content_type: str
    ) -> None:
        if script.events is not None:
            events = list(script.events)
        match script.malformed:
            case "html":
                await answering.whole(200, b"<html><body>Welcome</body></html>", [("Content-Type", "text/html")])
                return
            case "cut_json":
                middle = events[2]
                events[2] = middle[: len(middle) // 2] + b"\n\n"
            case "no_end":
                # OpenAI's end is two events: the finish reason or usage may stand, [DONE] may not.
                events = events[:-1]
            case "not_utf8":
                events = [part.replace(b"Hello", b"Hel\xfflo") for part in events]
            case "endless_line":
                events.insert(1, b"data: " + b"x" * (2 * 2**20))
            case "error_event":
                if vendor is bedrock_answers:
                    events = [bedrock_answers.exception("serviceUnavailableException")]
                else:
                    events = [event(vendor.error(529), "error" if vendor is anthropic_answers else "")]
            case _:
                pass
        await answering.head(200, [*_with_type(script, content_type), ("Transfer-Encoding", "chunked")])
        cut_after = 2 if script.malformed in ("short_body", "bad_chunk") else script.cut_after
        for number, part in enumerate(events):
            if number == script.hold_after:
                await self._released.wait()
            if number == cut_after:
                break
            step = script.segment_bytes or len(part)
            for start in range(0, len(part), step):
                await answering.chunk(part[start : start + step])
            if script.pause_s:
                await asyncio.sleep(script.pause_s)
        if script.hold_after is not None and script.hold_after >= len(events):
            await self._released.wait()
        if script.malformed == "bad_chunk":
            await answering.write(b"this is no chunk size\r\n")
        if cut_after is None:
            await answering.chunk(b"")
        elif script.cut_after is not None and script.cut_by == "reset":
            answering.reset()
        else:
            answering.close()


def _stream_type(vendor: ModuleType) -> str:
    return bedrock_answers.CONTENT_TYPE if vendor is bedrock_answers else "text/event-stream; charset=utf-8"


def _error_headers(vendor: ModuleType, status: int) -> tuple[tuple[str, str], ...]:
    return bedrock_answers.error_headers(status) if vendor is bedrock_answers else ()


def _with_type(script: Script, content_type: str) -> list[tuple[str, str]]:
    """The script's headers, with this content type unless it has one."""
    headers = list(script.headers)
    if all(name.lower() != "content-type" for name, _ in headers):
        headers.insert(0, ("Content-Type", content_type))
    return headers


async def _send_json(answering: Answering, status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
    script = Script(headers=headers)
    await answering.whole(status, json.dumps(value).encode(), _with_type(script, "application/json"))
