"""POST /v2/chat/agent: one step of a ReAct loop that the client runs (contract 7.1), as JSON lines."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from torana.access.permissions import all_of, permit
from torana.agents.react import Action, AnswerDelta, Event, Failed, StepReader
from torana.agents.step import StepOrder
from torana.agents.tools import offer, warns_of_cuts
from torana.answers import Answer
from torana.api.amazon_q import amazon_q_unavailable
from torana.api.chat_reading import read_order
from torana.api.connection import DRAINING
from torana.api.exchange import Exchange, Reply, Route, StreamReply
from torana.api.metadata import AMAZON_Q
from torana.api.streaming import STREAM_HEADERS, ClosingStream
from torana.caller import Permit
from torana.chat import Chunk, FinishReason, Usage
from torana.errors import PromptTooLong, ProviderError, ProviderLimited, ProviderOverloaded
from torana.facts import Facts
from torana.gateway import Gateway
from torana.settings import Settings

CONTENT_TYPE = b"application/x-ndjson; charset=utf-8"
CLASSIC_MENTION = "@GitLabDuo"
_ENDS: dict[FinishReason | None, str] = {"length": "length", "content_filter": "content_filter"}
"""How an answer ended, where it did not just stop."""


class ChatEndpoints:
    """Reads a step, asks who may have it, and writes the model's text as events."""

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self.gateway = gateway
        self.settings = settings

    def routes(self) -> list[Route]:
        return [Route(path="/v2/chat/agent", read=self.read, policy=self.policy, handle=self.handle)]

    def read(self, exchange: Exchange) -> StepOrder:
        order = read_order(exchange.body, self.settings.providers)
        # A name that nobody knows is a fault of the body, and those are told before permissions.
        if order.wish.client_name != AMAZON_Q.client_name:
            self.gateway.models.find(order.wish)
        caller, headers = exchange.caller, exchange.headers
        version = headers.text(b"x-gitlab-version")
        tools = offer(caller.scopes, version, exchange.flags, is_debug=caller.is_debug)
        exchange.facts["duo_chat.agent_available_tools"] = [tool.name for tool in tools]
        return replace(order, tools=tools, user=headers.text(b"x-gitlab-global-user-id"))

    def policy(self, exchange: Exchange, order: StepOrder) -> Permit:
        """The chat itself, then one unit primitive for each category that is attached."""
        is_classic = self.settings.auth.classic_only and CLASSIC_MENTION not in order.question.text
        wanted = ("duo_classic_chat",) if is_classic else ("duo_chat", "duo_classic_chat")
        chat = permit(exchange.caller, any_of=wanted, denied="Unauthorized to access duo chat")
        attached = [f"include_{category}_context" for category in order.categories]
        return all_of(
            chat, *(permit(exchange.caller, name, denied=f"Unauthorized to access {name}") for name in attached)
        )

    async def handle(self, exchange: Exchange, permit: Permit, order: StepOrder) -> Reply | StreamReply:
        if order.wish.client_name == AMAZON_Q.client_name:
            raise amazon_q_unavailable()
        try:
            answer = await self.gateway.step(permit, order, exchange.facts)
        except ProviderError as error:
            # Clients of this endpoint look for failures in the lines, never at the status.
            exchange.facts["exception_class"] = type(error).__name__
            return Reply(200, write_line(_failure(error)), [(b"content-type", CONTENT_TYPE), *STREAM_HEADERS])
        reader = StepReader([tool.name for tool in order.tools])
        tells_end = warns_of_cuts(exchange.headers.text(b"x-gitlab-version"))
        lines = write_step(answer, reader, exchange.facts, tells_end=tells_end, tells_usage=not order.is_first_form)
        return StreamReply(CONTENT_TYPE, ClosingStream(answer, lines), headers=STREAM_HEADERS + answer.headers)


async def write_step(
    answer: Answer, reader: StepReader, facts: Facts, *, tells_end: bool = False, tells_usage: bool = True
) -> AsyncIterator[bytes]:
    """The lines of one step, each a part of its own: GitLab 17 reads an HTTP chunk as one line, and nothing of two.

    A failing model is a line as well, then a clean end.

    tells_end    the last piece of an answer tells how it ended; until that is known, its last letter waits
    tells_usage  a step that did not fail ends with a line of its usage
    """
    held = ""
    failed: Failed | None = None
    try:
        async for batch in answer:
            for delta in read_batch(reader, batch):
                text = held + delta.text
                held = text[-1:] if tells_end else ""
                if text := text.removesuffix(held):
                    yield write_line(AnswerDelta(text))
    except ProviderError as error:
        facts["exception_class"] = type(error).__name__
        failed = _failure(error)
    except asyncio.CancelledError as stopped:
        if stopped.args != (DRAINING,):
            raise
        failed = Failed("the gateway is stopping; ask again", retryable=True)
    events: list[Event] = reader.close() if failed is None else [failed]
    if held and failed is not None:
        yield write_line(AnswerDelta(held))
    elif held:
        rest = "".join(event.text for event in events if isinstance(event, AnswerDelta))
        events = [AnswerDelta(held + rest, _ENDS.get(answer.finish, "stop"))]
    for event in events:
        if isinstance(event, Action):
            facts["duo_chat.agent_tool_action"] = event.tool
        yield write_line(event)
    if tells_usage and answer.usage is not None and not any(isinstance(event, Failed) for event in events):
        yield write_usage(answer.upstream_model, answer.usage)


def read_batch(reader: StepReader, batch: Sequence[Chunk]) -> list[AnswerDelta]:
    """What a batch adds to the answer."""
    said: list[AnswerDelta] = []
    for chunk in batch:
        if chunk.text:
            said += reader.feed(chunk.text)
        if chunk.tool_call is not None:
            reader.feed_call(chunk.tool_call)
    return said


def write_line(event: Event) -> bytes:
    """One event as a line of its own."""
    match event:
        case Action():
            return _line("action", {"tool": event.tool, "tool_input": event.tool_input, "thought": event.thought})
        case AnswerDelta():
            told = {"finish_reason": event.finish_reason} if event.finish_reason else {}
            return _line("final_answer_delta", {"text": event.text, **told})
        case Failed():
            return _line("error", {"message": event.message, "retryable": event.retryable})
        case _:
            return _line("unknown", {"text": event.text})


def write_usage(model: str, usage: Usage) -> bytes:
    tokens = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return _line("usage", {"usage": {model: tokens}})


def _line(kind: str, data: dict[str, Any]) -> bytes:
    # ASCII only: some line readers also break at U+2028 and its like.
    return json.dumps({"type": kind, "data": data}).encode() + b"\n"


def _failure(error: ProviderError) -> Failed:
    """A safe text: what a provider says about itself may quote the prompt or a key."""
    if isinstance(error, ProviderLimited):
        return Failed("upstream rate limit reached", retryable=True)
    if isinstance(error, ProviderOverloaded):
        return Failed("upstream overloaded", retryable=True)
    if isinstance(error, PromptTooLong):
        # Clients look for these words, and tell their user to begin anew.
        return Failed("prompt is too long", retryable=False)
    return Failed(f"upstream failed: {error.phrase}", retryable=False)
