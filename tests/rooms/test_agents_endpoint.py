"""POST /v2/chat/agent: who may, and the bytes of its answer. The gateway behind it is scripted."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from torana.agents.step import StepOrder
from torana.api.chat import ChatEndpoints
from torana.api.exchange import Exchange, Reply, StreamReply
from torana.auth_settings import AuthSettings
from torana.caller import DEBUG_CALLER, Caller, Permit
from torana.chat import Chunk, ModelWish, ToolCallPiece, Usage
from torana.errors import (
    NoCredentials,
    ProviderBroke,
    ProviderError,
    ProviderLimited,
    ProviderOverloaded,
    ProviderTimedOut,
    ProviderUnreachable,
    Refusal,
)
from torana.headers import Headers
from torana.settings import Settings

USAGE = Usage(input_tokens=120, output_tokens=14)
USAGE_LINE = b'{"type": "usage", "data": {"usage": {"model-x": {"input_tokens": 120, "output_tokens": 14}}}}\n'
ACTION_TEXT = "Thought: I need the issue.\nAction: issue_reader\nAction Input: who wrote #12?"
ACTION_LINE = (
    b'{"type": "action", "data": {"tool": "issue_reader", "tool_input": "who wrote #12?", '
    b'"thought": "I need the issue."}}\n'
)


@dataclass
class ScriptedAnswer:
    """Gives its batches; an error among them is raised."""

    script: list[list[Chunk] | ProviderError]
    usage: Usage | None = USAGE
    upstream_model: str = "model-x"
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"x-aigw-model", b"p/model-x")])
    closed: int = 0

    async def __aiter__(self) -> AsyncIterator[list[Chunk]]:
        for batch in self.script:
            if isinstance(batch, ProviderError):
                raise batch
            yield batch

    async def aclose(self) -> None:
        self.closed += 1


class KnownModels:
    def find(self, wish: ModelWish) -> object:
        return wish


@dataclass
class ScriptedGateway:
    answer: ScriptedAnswer | ProviderError
    orders: list[StepOrder] = field(default_factory=list)
    models: KnownModels = field(default_factory=KnownModels)

    async def step(self, permit: Permit, order: StepOrder, facts: dict[str, Any]) -> ScriptedAnswer:
        self.orders.append(order)
        if isinstance(self.answer, ProviderError):
            raise self.answer
        return self.answer


def texts(*pieces: str) -> list[list[Chunk] | ProviderError]:
    return [[Chunk(text=piece)] for piece in pieces]


CALLER = Caller(scopes=frozenset({"duo_chat", "ask_issue", "include_file_context"}))


def exchange(caller: Caller = CALLER, body: dict[str, Any] | None = None, **headers: str) -> Exchange:
    pairs = Headers.of([(name.replace("_", "-"), value) for name, value in headers.items()])
    made = Exchange("POST", "/v2/chat/agent", b"", pairs, "127.0.0.1", "r1")
    made.caller = caller
    made.body = json.dumps(body or {"messages": [{"role": "user", "content": "Who wrote #12?"}]}).encode()
    return made


async def answer_of(
    answer: ScriptedAnswer | ProviderError, request: Exchange | None = None
) -> tuple[Reply | StreamReply, list[bytes]]:
    """The reply as the entrance gets it, and its parts."""
    request = request or exchange()
    (route,) = ChatEndpoints(ScriptedGateway(answer), Settings()).routes()
    assert route.read is not None
    assert route.policy is not None
    order = route.read(request)
    reply = await route.handle(request, route.policy(request, order), order)
    if isinstance(reply, Reply):
        return reply, [reply.body]
    try:
        return reply, [part async for part in reply.parts]
    finally:
        await reply.parts.aclose()  # type: ignore[attr-defined]


async def test_an_action_is_one_line_and_usage_the_last() -> None:
    reply, parts = await answer_of(ScriptedAnswer(texts(*ACTION_TEXT)))

    assert b"".join(parts) == ACTION_LINE + USAGE_LINE
    assert reply.status == 200
    assert isinstance(reply, StreamReply)
    assert reply.content_type == b"application/x-ndjson; charset=utf-8"
    assert {(b"x-accel-buffering", b"no"), (b"x-aigw-model", b"p/model-x")} <= set(reply.headers)


async def test_answer_deltas_leave_with_the_batch_that_brought_them() -> None:
    _, parts = await answer_of(ScriptedAnswer(texts("Thought: I know.\nFinal Ans", "wer: It was ", "written by Mia.")))

    assert parts == [
        b'{"type": "final_answer_delta", "data": {"text": "It was "}}\n',
        b'{"type": "final_answer_delta", "data": {"text": "written by Mia."}}\n',
        USAGE_LINE,
    ]


async def test_every_line_is_one_json_object_whatever_the_text() -> None:
    text = 'a\nb\r\u2028\u0085"\\ 🦊 ü'

    _, parts = await answer_of(ScriptedAnswer(texts("Final Answer: " + text)))

    first, last, rest = b"".join(parts).split(b"\n")
    assert json.loads(first)["data"] == {"text": text}
    assert (last + b"\n", rest) == (USAGE_LINE, b"")
    assert len(first.decode().splitlines()) == 1


async def test_text_of_neither_form_is_one_unknown() -> None:
    _, parts = await answer_of(ScriptedAnswer(texts("Hello", " there")))

    assert b"".join(parts) == b'{"type": "unknown", "data": {"text": "Hello there"}}\n' + USAGE_LINE


async def test_a_tool_that_was_not_offered_is_an_error_without_usage() -> None:
    _, parts = await answer_of(ScriptedAnswer(texts("Action: epic_reader\nAction Input: &1")))

    assert parts == [b'{"type": "error", "data": {"message": "tool not available", "retryable": false}}\n']


async def test_a_native_tool_call_is_an_action() -> None:
    call = ToolCallPiece(position=0, name="issue_reader", arguments='{"question": "who wrote #12?"}')

    _, parts = await answer_of(ScriptedAnswer([[Chunk(text="I need the issue."), Chunk(tool_call=call)]]))

    assert b"".join(parts) == ACTION_LINE + USAGE_LINE


@pytest.mark.parametrize(
    ("error", "message", "is_retryable"),
    [
        (ProviderOverloaded(529, "secret"), "upstream overloaded", True),
        (ProviderOverloaded(503, "secret"), "upstream overloaded", True),
        (ProviderLimited(429, "secret"), "upstream rate limit reached", True),
        (ProviderTimedOut("secret"), "upstream failed: 504: Gateway Timeout", False),
        (ProviderUnreachable("secret"), "upstream failed: 503: Service Unavailable", False),
        (ProviderBroke("secret"), "upstream failed: 502: Bad Gateway", False),
        (NoCredentials("secret"), "upstream failed: 401: Unauthorized", False),
    ],
)
async def test_a_failing_model_is_an_error_line_before_the_first_chunk_and_after_it(
    error: ProviderError, message: str, is_retryable: bool
) -> None:
    line = json.dumps({"type": "error", "data": {"message": message, "retryable": is_retryable}}).encode() + b"\n"

    reply, before = await answer_of(error)
    _, after = await answer_of(ScriptedAnswer([[Chunk(text="Final Answer: It")], error]))
    _, within_action = await answer_of(ScriptedAnswer([[Chunk(text=ACTION_TEXT)], error]))

    assert (reply.status, before) == (200, [line])
    assert (b"content-type", b"application/x-ndjson; charset=utf-8") in reply.headers
    assert after == [b'{"type": "final_answer_delta", "data": {"text": "It"}}\n', line]
    assert within_action == [line]


async def test_the_answer_is_closed_even_when_nobody_reads_it() -> None:
    answer = ScriptedAnswer(texts(ACTION_TEXT))
    endpoints = ChatEndpoints(ScriptedGateway(answer), Settings())
    request = exchange()
    order = endpoints.read(request)

    reply = await endpoints.handle(request, endpoints.policy(request, order), order)
    assert isinstance(reply, StreamReply)
    await reply.parts.aclose()  # type: ignore[attr-defined]

    assert answer.closed == 1


async def test_the_access_line_learns_which_tools_were_offered_and_which_was_asked_for() -> None:
    request = exchange()

    await answer_of(ScriptedAnswer(texts(ACTION_TEXT)), request)

    assert request.facts["duo_chat.agent_available_tools"] == ["issue_reader"]
    assert request.facts["duo_chat.agent_tool_action"] == "issue_reader"


def test_tools_and_user_come_from_the_caller_and_the_headers() -> None:
    caller = Caller(scopes=frozenset({"ask_issue", "ask_commit", "ask_build"}))
    request = exchange(caller, X_Gitlab_Version="17.6.0-ee", X_Gitlab_Global_User_Id="u1")
    request.flags = frozenset({"ai_commit_reader_for_chat"})

    order = ChatEndpoints(ScriptedGateway(ScriptedAnswer([])), Settings()).read(request)

    assert [tool.name for tool in order.tools] == ["issue_reader", "commit_reader", "build_reader"]
    assert order.user == "u1"


def decide(caller: Caller, *, text: str = "Hi", context: tuple[str, ...] = (), classic_only: bool = False) -> Permit:
    attached = [{"category": category} for category in context]
    messages = [
        {"role": "user", "content": "before", "additional_context": attached},
        {"role": "assistant", "content": "yes @GitLabDuo"},
        {"role": "user", "content": text},
    ]
    endpoints = ChatEndpoints(
        ScriptedGateway(ScriptedAnswer([])), Settings(auth=AuthSettings(classic_only=classic_only))
    )
    request = exchange(caller, {"messages": messages})
    return endpoints.policy(request, endpoints.read(request))


def refused(caller: Caller, **more: Any) -> tuple[int, Any]:
    with pytest.raises(Refusal) as caught:
        decide(caller, **more)
    return caught.value.status, caught.value.members["detail"]


def having(*scopes: str) -> Caller:
    return Caller(scopes=frozenset(scopes))


@pytest.mark.parametrize("scope", ["duo_chat", "duo_classic_chat"])
def test_either_chat_unit_primitive_opens_the_chat(scope: str) -> None:
    assert scope in decide(having(scope)).unit_primitives


def test_a_caller_without_a_chat_unit_primitive_is_turned_away() -> None:
    assert refused(having("complete_code", "ask_issue")) == (403, "Unauthorized to access duo chat")


def test_classic_only_asks_for_the_classic_one_unless_the_question_mentions_duo() -> None:
    assert refused(having("duo_chat"), classic_only=True) == (403, "Unauthorized to access duo chat")
    assert decide(having("duo_classic_chat"), classic_only=True)
    assert decide(having("duo_chat"), classic_only=True, text="hey @GitLabDuo, hi")


@pytest.mark.parametrize(
    "category",
    [
        "file",
        "snippet",
        "merge_request",
        "issue",
        "dependency",
        "local_git",
        "terminal",
        "repository",
        "directory",
        "os_information",
        "agent_user_environment",
        "category_of_the_future",
    ],
)
def test_each_attached_category_needs_its_unit_primitive_in_every_turn(category: str) -> None:
    wanted = f"include_{category}_context"

    assert refused(having("duo_chat"), context=(category,)) == (403, f"Unauthorized to access {wanted}")
    assert decide(having("duo_chat", wanted), context=(category, category))


def test_one_missing_category_of_several_refuses_the_request() -> None:
    caller = having("duo_chat", "include_file_context")

    assert refused(caller, context=("file", "snippet")) == (403, "Unauthorized to access include_snippet_context")


def test_a_debug_caller_may_attach_anything() -> None:
    assert decide(DEBUG_CALLER, context=("file", "category_of_the_future"))


async def test_amazon_q_is_not_available_to_a_permitted_caller() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "model_metadata": {"provider": "amazon_q"}}

    with pytest.raises(Refusal) as caught:
        await answer_of(ScriptedAnswer([]), exchange(body=body))

    assert (caught.value.status, caught.value.code) == (501, "amazon_q_unavailable")
