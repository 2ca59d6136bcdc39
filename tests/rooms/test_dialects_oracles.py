"""The vendors' own SDKs as judges: what we write, their models accept."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import anthropic.types as anthropic_types
import openai.types as openai_types
import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionContentPartParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.completion_create_params import CompletionCreateParamsStreaming as TextParamsStreaming
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseInputContentParam,
    ResponseInputItemParam,
    ResponseStreamEvent,
)
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter
from tests.golden.compare import WRITTEN, read

from torana.chat import Usage
from torana.dialects import embeddings
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import ServedDialect
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.sse import SseParser
from torana.dialects.text_completions import TEXT_COMPLETIONS

SERVED: list[ServedDialect] = [MESSAGES, CHAT_COMPLETIONS, TEXT_COMPLETIONS, RESPONSES]
REQUESTS: dict[str, Any] = {
    "messages": MessageCreateParamsStreaming,
    "chat_completions": CompletionCreateParamsStreaming,
    "text_completions": TextParamsStreaming,
    "responses": ResponseCreateParamsStreaming,
}
ANSWERS: dict[str, Any] = {
    "messages": anthropic_types.Message,
    "chat_completions": ChatCompletion,
    "text_completions": openai_types.Completion,
    "responses": Response,
}
EVENTS: dict[str, Any] = {
    "messages": anthropic_types.RawMessageStreamEvent,
    "chat_completions": ChatCompletionChunk,
    "text_completions": openai_types.Completion,
    "responses": ResponseStreamEvent,
}


def judge(shape: Any, value: Any) -> None:
    exhaust(TypeAdapter(shape).validate_python(value))


def exhaust(value: Any) -> None:
    """pydantic checks the items of an Iterable only when somebody asks for them."""
    if isinstance(value, Mapping):
        for item in value.values():
            exhaust(item)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            if item is not value:
                exhaust(item)


NAMES = ["full", "thinking"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dialect", ["chat_completions", "text_completions"])
def test_openais_model_accepts_our_request(dialect: str, name: str) -> None:
    body = json.loads(read(f"{dialect}/{name}.request.json"))

    judge_parts(ChatCompletionContentPartParam, body)
    judge(REQUESTS[dialect], body)


@pytest.mark.parametrize("name", NAMES)
def test_anthropics_model_accepts_our_request(name: str) -> None:
    body = json.loads(read(f"messages/{name}.request.json"))
    # The SDK's type lost these when the newest models did; the API did not.
    for sampling in ("temperature", "top_p", "top_k"):
        body.pop(sampling, None)

    judge_parts(anthropic_types.ContentBlockParam, body)
    for tool in body.pop("tools"):
        judge(anthropic_types.ToolParam, tool)
    judge(REQUESTS["messages"], body)


@pytest.mark.parametrize("name", NAMES)
def test_openais_model_accepts_our_request_for_a_response(name: str) -> None:
    body = json.loads(read(f"responses/{name}.request.json"))

    for item in body["input"]:
        for member in ("content", "output"):
            if isinstance(item.get(member), list):
                for part in item[member]:
                    judge(ResponseInputContentParam, part)
                item[member] = "looked at"
        judge(ResponseInputItemParam, item)
    for tool in body.pop("tools"):
        judge(FunctionToolParam, tool)
    judge(REQUESTS["responses"], {**body, "input": "looked at"})


def judge_parts(shape: Any, body: dict[str, Any]) -> None:
    """Each part alone, and taken out: pydantic cannot walk an Iterable within a union within an Iterable."""
    for message in body.get("messages", ()):
        if isinstance(message["content"], list):
            for part in message["content"]:
                for inner in part.pop("content") if isinstance(part.get("content"), list) else ():
                    judge(shape, inner)
                judge(shape, part)
            message["content"] = "looked at"


def test_the_judge_looks_into_messages() -> None:
    body = json.loads(read("chat_completions/full.request.json"))
    body["messages"][0] = {"role": "tool", "content": "without its id"}

    with pytest.raises(ValueError, match="tool_call_id"):
        judge(REQUESTS["chat_completions"], body)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("dialect", SERVED, ids=lambda dialect: dialect.name)
def test_the_vendors_model_accepts_our_answer(dialect: ServedDialect, name: str) -> None:
    judge(ANSWERS[dialect.name], json.loads(read(f"{dialect.name}/{name}.written.json")))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("dialect", SERVED, ids=lambda dialect: dialect.name)
def test_the_vendors_model_accepts_every_event_of_ours(dialect: ServedDialect, name: str) -> None:
    for event_name, data in SseParser().feed(read(f"{dialect.name}/{name}.written.sse")):
        if data == b"[DONE]":
            continue
        event = json.loads(data)
        assert event_name.decode() == event.get("type", "")
        if dialect is TEXT_COMPLETIONS:
            # Null until the end in OpenAI's own streams; its SDK's model knows whole answers only.
            event["choices"][0]["finish_reason"] = event["choices"][0]["finish_reason"] or "stop"
        judge(EVENTS[dialect.name], event)


def test_the_vendors_models_accept_our_error_events() -> None:
    responses = SseParser().feed(RESPONSES.write_events("m", "id", 0).error(502, "provider_failed", "No."))
    kinds = [json.loads(data)["type"] for _, data in responses]
    assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]
    messages = SseParser().feed(MESSAGES.write_error_event(529, "provider_overloaded", "Busy."))

    for _, data in responses:
        event = json.loads(data)
        event.pop("error", None)  # OpenAI's SDKs raise what stands here, which its reference leaves out
        judge(ResponseStreamEvent, event)
    judge(anthropic_types.ErrorResponse, {**json.loads(messages[0][1]), "request_id": None})
    judge(anthropic_types.ErrorResponse, json.loads(MESSAGES.write_error(401, "token_missing", "No token.", "req-1")))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_vendors_model_accepts_our_embeddings(encoding: embeddings.Encoding) -> None:
    answer = json.loads(embeddings.write_answer([[0.5, -1.0], [0.0, 2.0]], "m", Usage(input_tokens=3), encoding))
    if encoding == "base64":
        assert answer["data"][0]["embedding"] == "AAAAPwAAgL8="
        answer["data"] = []  # the SDK decodes base64 before its model looks

    judge(openai_types.CreateEmbeddingResponse, answer)
