"""The code endpoints with a scripted gateway: permissions, shapes, exact stream bytes, failures (contract 6, 1.5)."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from torana.api.answering import Answering
from torana.api.code import CodeEndpoints
from torana.api.exchange import Exchange, Reply, Route, StreamReply
from torana.caller import Caller, Permit
from torana.chat import Chunk, FinishReason, ModelWish, Usage
from torana.clock import Clock
from torana.code.orders import CompletionOrder, GenerationOrder
from torana.errors import Invalid, ProviderError, ProviderTimedOut, Refusal, provider_refused
from torana.headers import Headers
from torana.settings import ProviderSettings, ServeSettings, Settings

FLAT: dict[str, Any] = {
    "prompt_version": 1,
    "current_file": {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""},
}
FILE = {"file_name": "app.go", "content_above_cursor": "package main\n", "content_below_cursor": ""}
NOW = 1_760_000_000


def parts(type_: str = "code_editor_completion", **payload: Any) -> dict[str, Any]:
    return {"prompt_components": [{"type": type_, "payload": {**FILE, **payload}}]}


class StoppedClock(Clock):
    def now(self) -> float:
        return NOW + 0.9


@dataclass(frozen=True)
class Collected:
    texts: tuple[str, ...]
    usage: Usage | None
    finish: FinishReason | None


@dataclass(kw_only=True)
class ScriptedAnswer:
    """Batches in order; an error among them is raised, an event is waited for."""

    script: list[list[str] | ProviderError | asyncio.Event]
    texts: tuple[str, ...] = ()
    usage: Usage | None = None
    finish: FinishReason | None = "stop"
    engine: str = "agent"
    model: str = "Completion default"
    region: str = ""
    context_tokens_sent: int = 0
    context_tokens_used: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"x-aigw-model", b"a/b")])
    is_closed: bool = False

    async def __aiter__(self) -> AsyncIterator[list[Chunk]]:
        for step in self.script:
            if isinstance(step, ProviderError):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield [Chunk(text=text) for text in step]

    async def collect(self) -> Collected:
        for step in self.script:
            if isinstance(step, ProviderError):
                raise step
        return Collected(self.texts, self.usage, self.finish)

    async def aclose(self) -> None:
        self.is_closed = True


class KnownModels:
    def find(self, wish: ModelWish) -> object:
        if wish.client_name.endswith("/unknown"):
            raise Invalid(("model_name",), "Unknown model for this provider")
        return wish

    find_completing = find


class ScriptedGateway:
    def __init__(self, answer: ScriptedAnswer, failure: Exception | None = None) -> None:
        self.models = KnownModels()
        self.answer = answer
        self.failure = failure
        self.gate: asyncio.Event | None = None
        self.was_asked = asyncio.Event()
        self.was_cancelled = False
        self.orders: list[CompletionOrder | GenerationOrder] = []

    async def complete(self, permit: Permit, order: CompletionOrder, facts: dict[str, Any]) -> ScriptedAnswer:
        return await self._answer(order)

    async def generate(self, permit: Permit, order: GenerationOrder, facts: dict[str, Any]) -> ScriptedAnswer:
        return await self._answer(order)

    async def _answer(self, order: CompletionOrder | GenerationOrder) -> ScriptedAnswer:
        self.orders.append(order)
        self.was_asked.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.failure is not None:
            raise self.failure
        return self.answer


INSTANCE = Caller(scopes=frozenset({"complete_code", "generate_code"}))


class Front:
    """Walks a request through a route as the entrance does."""

    def __init__(self, answer: ScriptedAnswer, failure: Exception | None = None, keepalive_s: float = 60.0) -> None:
        self.gateway = ScriptedGateway(answer, failure)
        settings = Settings(
            serve=ServeSettings(stream_keepalive_s=keepalive_s), providers=ProviderSettings(custom_models=True)
        )
        endpoints = CodeEndpoints(self.gateway, settings, StoppedClock())
        self.routes: dict[str, Route] = {route.path: route for route in endpoints.routes()}

    async def send(
        self, path: str, body: Any, caller: Caller = INSTANCE, flags: frozenset[str] = frozenset()
    ) -> Reply | StreamReply:
        exchange = Exchange("POST", path, b"", Headers([]), "127.0.0.1", "r-1")
        exchange.body, exchange.caller, exchange.flags = json.dumps(body).encode(), caller, flags
        route = self.routes[path]
        assert route.read is not None
        assert route.policy is not None
        wanted = route.read(exchange)
        return await route.handle(exchange, route.policy(exchange, wanted), wanted)

    async def json(self, path: str, body: Any, **more: Any) -> Any:
        reply = await self.send(path, body, **more)
        assert isinstance(reply, Reply)
        assert (b"x-aigw-model", b"a/b") in reply.headers
        return json.loads(reply.body)

    async def stream(self, path: str, body: Any) -> StreamReply:
        reply = await self.send(path, body)
        assert isinstance(reply, StreamReply)
        return reply


class Sent:
    """A stream on its way to its client, as the entrance sends it."""

    def __init__(self, reply: StreamReply) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.headers: dict[bytes, bytes] = {}
        exchange = Exchange("POST", "/", b"", Headers([]), "127.0.0.1", "r-1")
        answering = Answering(exchange, self.messages.put, None, 0.0, False)
        self.task = asyncio.ensure_future(answering.parts(reply))

    async def next_part(self) -> bytes | None:
        """None at the end that HTTP marks."""
        message = await self.messages.get()
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
            message = await self.messages.get()
        return message["body"] if message.get("more_body") else None

    async def rest(self) -> tuple[bytes, bool]:
        """The bytes, and whether the stream was cut."""
        await self.task
        data = b""
        while not self.messages.empty():
            part = await self.next_part()
            if part is None:
                return data, False
            data += part
        return data, True

    async def leave(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def read_all(reply: StreamReply) -> tuple[bytes, bool]:
    return await Sent(reply).rest()


def answering(*texts: str, **more: Any) -> ScriptedAnswer:
    return ScriptedAnswer(script=[[text] for text in texts], texts=("".join(texts),), **more)


async def test_v2_answers_in_the_shape_of_the_contract() -> None:
    answer = answering("return a + b\n", usage=Usage(input_tokens=21, output_tokens=9), region="us-central1")

    reply = await Front(answer).send("/v2/code/completions", FLAT, flags=frozenset({"expanded_ai_logging"}))

    assert isinstance(reply, Reply)
    assert reply.body.decode() == (
        '{"id":"id","model":{"engine":"agent","name":"Completion default","lang":"python",'
        '"tokens_consumption_metadata":{"input_tokens":21,"output_tokens":9,"max_output_tokens_used":false,'
        '"context_tokens_sent":0,"context_tokens_used":0},"region":"us-central1"},'
        '"experiments":[],"object":"text_completion","created":1760000000,'
        '"choices":[{"text":"return a + b\\n","index":0,"finish_reason":"length"}],'
        '"metadata":{"enabled_feature_flags":["expanded_ai_logging"]}}'
    )
    assert answer.is_closed


async def test_an_empty_answer_is_no_choice_and_no_error() -> None:
    for path, body in [("/v2/code/completions", FLAT), ("/v3/code/completions", parts())]:
        assert (await Front(answering("")).json(path, body))["choices"] == []


async def test_several_choices_come_with_index_zero() -> None:
    answer = ScriptedAnswer(script=[], texts=("a", "", "b"))

    choices = (await Front(answer).json("/v2/completions", {**FLAT, "choices_count": 3}))["choices"]

    assert [(choice["text"], choice["index"]) for choice in choices] == [("a", 0), ("b", 0)]


async def test_an_answer_that_hit_its_cap_says_so() -> None:
    body = await Front(answering("x", finish="length")).json("/v2/completions", FLAT)

    assert body["model"]["tokens_consumption_metadata"]["max_output_tokens_used"] is True


async def test_v2_generations_tell_no_tokens() -> None:
    body = await Front(answering("x")).json("/v2/code/generations", FLAT)

    assert body["model"] == {"engine": "agent", "name": "Completion default", "lang": "python"}
    assert "region" not in body["model"]


@pytest.mark.parametrize("path", ["/v3/code/completions", "/v4/code/suggestions"])
async def test_v3_and_v4_answer_in_the_shape_of_the_contract(path: str) -> None:
    reply = await Front(answering("x")).send(path, parts(), flags=frozenset({"b", "a"}))

    assert isinstance(reply, Reply)
    assert reply.body.decode() == (
        '{"choices":[{"text":"x","index":0,"finish_reason":"length"}],'
        '"metadata":{"model":{"engine":"agent","name":"Completion default","lang":"go"},'
        '"timestamp":1760000000,"enabled_feature_flags":["a","b"]},'
        '"model":{"engine":"agent","name":"Completion default","lang":"go"}}'
    )


EMPTY = Caller()
USER = Caller(scopes=frozenset({"complete_code", "generate_code"}), is_user=True)
COMPLETER = Caller(scopes=frozenset({"complete_code"}))
GENERATOR = Caller(scopes=frozenset({"generate_code"}))
Q_LINK = Caller(scopes=frozenset({"amazon_q_integration"}))
Q_FLAT = {**FLAT, "model_provider": "amazon_q", "role_arn": "arn"}
Q_PARTS = parts(model_provider="amazon_q", role_arn="arn")
V3, V4 = "/v3/code/completions", "/v4/code/suggestions"


@pytest.mark.parametrize(
    ("path", "body", "caller", "text"),
    [
        ("/v2/code/completions", FLAT, EMPTY, "completions"),
        ("/v2/completions", FLAT, GENERATOR, "completions"),
        ("/v2/completions", Q_FLAT, COMPLETER, "completions"),
        ("/v2/completions", FLAT, Q_LINK, "completions"),
        ("/v2/code/generations", FLAT, COMPLETER, "generations"),
        ("/v2/code/generations", FLAT, USER, "generations"),
        (V3, parts(), USER, "suggestions"),
        (V4, parts(), USER, "suggestions"),
        (V3, parts(), GENERATOR, "suggestions"),
        (V3, parts("code_editor_generation"), COMPLETER, "suggestions"),
        (V4, parts("code_editor_generation"), USER, "suggestions"),
        (V4, Q_PARTS, COMPLETER, "suggestions"),
    ],
)
async def test_a_caller_without_the_unit_primitive_is_turned_away(
    path: str, body: Any, caller: Caller, text: str
) -> None:
    front = Front(answering("x"))

    with pytest.raises(Refusal) as caught:
        await front.send(path, body, caller=caller)

    assert caught.value.status == 403
    assert caught.value.members == {"detail": f"Unauthorized to access code {text}"}
    assert front.gateway.orders == []


@pytest.mark.parametrize(
    ("path", "body", "caller"),
    [
        ("/v2/completions", FLAT, USER),
        ("/v2/code/completions", FLAT, COMPLETER),
        ("/v2/code/generations", FLAT, GENERATOR),
        (V3, parts(), COMPLETER),
        (V4, parts("code_editor_generation"), GENERATOR),
    ],
)
async def test_a_caller_with_the_unit_primitive_is_served(path: str, body: Any, caller: Caller) -> None:
    assert (await Front(answering("x")).json(path, body, caller=caller))["choices"]


@pytest.mark.parametrize(
    ("path", "body"), [("/v2/completions", Q_FLAT), (V3, Q_PARTS), (V4, parts(**Q_PARTS, stream=True) | Q_PARTS)]
)
async def test_a_permitted_amazon_q_call_is_answered_with_501(path: str, body: Any) -> None:
    with pytest.raises(Refusal) as caught:
        await Front(answering("x")).send(path, body, caller=Q_LINK)

    assert caught.value.status == 501
    assert caught.value.members == {"detail": "Amazon Q is not available in this gateway"}


async def test_an_unknown_model_is_told_before_a_missing_permission() -> None:
    with pytest.raises(Invalid):
        await Front(answering("x")).send(
            "/v2/completions", {**FLAT, "model_provider": "vertex-ai", "model_name": "unknown"}, caller=EMPTY
        )


LIMITED = provider_refused(429, "slow down")
LIMITED.retry_after_s = 7.0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/completions", FLAT),
        ("/v2/completions", {**FLAT, "stream": True}),
        (V3, parts(stream=True)),
        (V4, parts(stream=True)),
    ],
)
@pytest.mark.parametrize(
    ("failure", "status", "text", "after"),
    [
        (LIMITED, 429, "Too many requests. Please try again later.", {b"7"}),
        # Nobody said when: soon, and not all at once.
        (provider_refused(500, "boom"), 503, "Inference failed", {b"1", b"2", b"3", b"4", b"5"}),
        (ProviderTimedOut("silence"), 503, "Inference failed", {None}),
    ],
)
async def test_a_failure_before_the_first_chunk_has_its_own_status(
    path: str, body: Any, failure: ProviderError, status: int, text: str, after: set[bytes | None]
) -> None:
    async def ask() -> None:
        reply = await Front(answering("x"), failure).send(path, body)
        # v4 opens its call with the stream, so that silence can be told meanwhile.
        assert isinstance(reply, StreamReply)
        await read_all(reply)

    with pytest.raises(Refusal) as caught:
        await ask()

    assert (caught.value.status, caught.value.members) == (status, {"detail": text})
    assert dict(caught.value.headers).get(b"retry-after") in after
    assert caught.value.code == failure.code


async def test_a_failure_while_collecting_is_the_same_503() -> None:
    answer = ScriptedAnswer(script=[["a"], ProviderTimedOut("silence")])

    with pytest.raises(Refusal) as caught:
        await Front(answer).send("/v2/completions", FLAT)

    assert caught.value.status == 503
    assert answer.is_closed


@pytest.mark.parametrize(("path", "body"), [("/v2/completions", {**FLAT, "stream": True}), (V3, parts(stream=True))])
async def test_v2_and_v3_stream_bare_text(path: str, body: Any) -> None:
    answer = answering("def ", "é\n")

    reply = await Front(answer).stream(path, body)

    assert reply.content_type == b"text/event-stream; charset=utf-8"
    assert {(b"x-accel-buffering", b"no"), (b"x-aigw-model", b"a/b")} <= set(reply.headers)
    assert b"x-streaming-format" not in dict(reply.headers)
    assert await read_all(reply) == ("def é\n".encode(), False)
    assert answer.is_closed


async def test_a_bare_stream_that_fails_later_is_cut() -> None:
    answer = ScriptedAnswer(script=[["a"], ProviderTimedOut("silence")])

    assert await read_all(await Front(answer).stream(V3, parts(stream=True))) == (b"a", True)
    assert answer.is_closed


START = (
    b'event: stream_start\r\ndata: {"metadata": {"model": {"engine": "agent", "name": "Completion default"}, '
    b'"timestamp": 1760000000, "region": ""}}\r\n\r\n'
)
END = b"event: stream_end\r\ndata: null\r\n\r\n"


def chunk_event(content: str) -> bytes:
    text = f'event: content_chunk\r\ndata: {{"choices": [{{"delta": {{"content": {content}}}, "index": 0}}]}}\r\n\r\n'
    return text.encode()


async def test_v4_streams_the_exact_bytes_of_the_contract() -> None:
    answer = ScriptedAnswer(script=[["\ndef", " hello"], [], ["\u2028\r"]])

    sent = Sent(await Front(answer).stream(V4, parts(stream=True)))
    got = [await sent.next_part() for _ in range(4)]

    assert sent.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert sent.headers[b"x-streaming-format"] == b"sse"
    assert sent.headers[b"cache-control"] == b"no-store"
    assert sent.headers[b"x-aigw-model"] == b"a/b"
    assert got == [START + chunk_event(r'"\ndef hello"'), chunk_event(r'"\u2028\r"'), END, None]


@pytest.mark.parametrize("script", [[], [[]], [[""]]])
async def test_an_empty_v4_stream_has_start_and_end(script: list[Any]) -> None:
    assert await read_all(await Front(ScriptedAnswer(script=script)).stream(V4, parts(stream=True))) == (
        START + END,
        False,
    )


async def test_a_v4_stream_that_fails_later_tells_it_and_has_no_end() -> None:
    answer = ScriptedAnswer(script=[["a"], provider_refused(529, "secret words")])

    data, is_cut = await read_all(await Front(answer).stream(V4, parts(stream=True)))

    assert is_cut
    # Part of the answer is out: asking again would give another one, not its rest.
    error = b'{"code": "provider_overloaded", "message": "Inference failed", "retryable": false}'
    assert data == START + chunk_event('"a"') + b"event: error\r\ndata: " + error + b"\r\n\r\n"
    assert answer.is_closed


async def test_silence_before_the_first_chunk_is_filled_with_comments() -> None:
    front = Front(answering("a"), keepalive_s=0.001)
    front.gateway.gate = asyncio.Event()

    sent = Sent(await front.stream(V4, parts(stream=True)))
    first = await sent.next_part()
    front.gateway.gate.set()
    data, is_cut = await sent.rest()

    assert first == b": keep-alive\r\n\r\n"
    assert first is not None
    assert data.replace(first, b"") == START + chunk_event('"a"') + END
    assert not is_cut


async def test_silence_within_an_answer_is_filled_with_comments() -> None:
    wait = asyncio.Event()
    front = Front(ScriptedAnswer(script=[["a"], wait, ["b"]]), keepalive_s=0.01)

    sent = Sent(await front.stream(V4, parts(stream=True)))
    first, second = await sent.next_part(), await sent.next_part()
    wait.set()
    data, _ = await sent.rest()

    assert (first, second) == (START + chunk_event('"a"'), b": keep-alive\r\n\r\n")
    assert second is not None
    assert data.replace(second, b"") == chunk_event('"b"') + END


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (LIMITED, {"code": "provider_limited", "message": "Too many requests. Please try again later."}),
        (ProviderTimedOut("secret words"), {"code": "provider_timeout", "message": "Inference failed"}),
        (Refusal(429, "limit_reached", "Slow down"), {"code": "limit_reached", "message": "Slow down"}),
    ],
)
async def test_a_failure_after_a_keep_alive_is_an_error_event(failure: Exception, error: dict[str, str]) -> None:
    front = Front(answering("a"), failure, keepalive_s=0.001)
    front.gateway.gate = asyncio.Event()

    sent = Sent(await front.stream(V4, parts(stream=True)))
    await sent.next_part()
    front.gateway.gate.set()
    data, is_cut = await sent.rest()

    last = data.removesuffix(b"\r\n\r\n").rpartition(b"\r\n\r\n")[2]
    name, _, value = last.partition(b"\r\ndata: ")
    assert name.endswith(b"event: error")
    assert json.loads(value) == {**error, "retryable": True}
    assert is_cut


async def test_no_comments_are_sent_where_they_are_switched_off() -> None:
    wait = asyncio.Event()
    reply = await Front(ScriptedAnswer(script=[wait, ["a"]]), keepalive_s=0.0).stream(V4, parts(stream=True))

    reading = asyncio.ensure_future(read_all(reply))
    wait.set()

    assert await reading == (START + chunk_event('"a"') + END, False)


async def test_a_client_that_leaves_before_the_first_chunk_ends_the_call() -> None:
    front = Front(answering("a"))
    front.gateway.gate = asyncio.Event()
    sent = Sent(await front.stream(V4, parts(stream=True)))
    await front.gateway.was_asked.wait()

    await sent.leave()

    assert front.gateway.was_cancelled


async def test_a_client_that_leaves_during_keep_alives_ends_the_call() -> None:
    front = Front(answering("a"), keepalive_s=0.001)
    front.gateway.gate = asyncio.Event()
    sent = Sent(await front.stream(V4, parts(stream=True)))
    await sent.next_part()

    await sent.leave()

    assert front.gateway.was_cancelled


@pytest.mark.parametrize("path", [V3, V4])
@pytest.mark.parametrize("says", [[["a"]], []])
async def test_a_client_that_leaves_a_stream_closes_the_answer(path: str, says: list[Any]) -> None:
    answer = ScriptedAnswer(script=[*says, asyncio.Event()])
    sent = Sent(await Front(answer).stream(path, parts(stream=True)))
    await asyncio.sleep(0)  # the sending begins
    if says:
        await sent.next_part()

    await sent.leave()

    assert answer.is_closed


async def test_a_stream_that_nobody_began_to_read_closes_its_answer() -> None:
    answer = ScriptedAnswer(script=[["a"]])
    reply = await Front(answer).stream(V3, parts(stream=True))

    await reply.parts.aclose()  # type: ignore[attr-defined]

    assert answer.is_closed
