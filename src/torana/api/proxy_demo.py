"""The vendors' APIs as the built-in demo speaks them: AIGW_MOCK_MODEL_RESPONSES without any upstream."""

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from torana.answers import Answer
from torana.api.exchange import Exchange, Reply, StreamReply, json_reply
from torana.api.streaming import STREAM_HEADERS, ClosingStream
from torana.caller import Permit
from torana.chat import Usage
from torana.counting import estimate_tokens
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import EventWriter
from torana.dialects.embeddings import read_request as read_embeddings
from torana.dialects.embeddings import write_answer as write_embeddings
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.errors import Invalid, Refusal
from torana.gateway import Gateway
from torana.providers.demo.embed import embed

DIALECTS: dict[str, Any] = {
    "/v1/messages": MESSAGES,
    "/v1/chat/completions": CHAT_COMPLETIONS,
    "/v1/responses": RESPONSES,
}


async def answer_as_demo(
    gateway: Gateway, permit: Permit, path: str, body: bytes, model: str, is_streamed: bool, exchange: Exchange
) -> Reply | StreamReply:
    """What the vendor's API would look like if the demo stood behind it."""
    mark = [(b"x-torana-demo", b"true")]
    if path in DIALECTS:
        return await _chat(gateway, permit, path, body, model, is_streamed, exchange)
    if path == "/v1/embeddings":
        wanted, _ = read_embeddings(body)
        vectors = [embed(str(item), wanted.dimensions or 256) for item in wanted.inputs]
        usage = Usage(input_tokens=sum(estimate_tokens(str(item)) for item in wanted.inputs), is_counted=True)
        reply = Reply(200, write_embeddings(vectors, model, usage))
    elif path == "/v1/models":
        created = 1_700_000_000
        row = {"id": "torana-demo", "object": "model", "created": created, "owned_by": "torana"}
        reply = json_reply({"object": "list", "data": [row]})
    elif path == "/v1/messages/count_tokens":
        reply = json_reply({"input_tokens": estimate_tokens(body.decode("utf-8", "replace"))})
    else:
        raise Refusal(404, "not_found", "Not found")
    reply.headers.extend(mark)
    return reply


async def _chat(
    gateway: Gateway, permit: Permit, path: str, body: bytes, model: str, is_streamed: bool, exchange: Exchange
) -> Reply | StreamReply:
    dialect = DIALECTS[path]
    try:
        chat, _ = dialect.read_request(body)
    except Invalid as error:
        raise Refusal(400, "request_invalid", "Invalid JSON") from error
    chat = msgspec.structs.replace(chat, stream=is_streamed)
    answer = await gateway.answer_as_demo(permit, chat, exchange.facts)
    created = int(time.time())
    if is_streamed:
        writer = dialect.write_events(model, f"demo-{exchange.request_id[:24]}", created)
        parts = ClosingStream(answer, _events(answer, writer))
        return StreamReply(b"text/event-stream; charset=utf-8", parts, headers=STREAM_HEADERS + answer.headers)
    chunks = [chunk async for batch in answer.batches() for chunk in batch]
    reply = Reply(200, dialect.write_answer(chunks, model, f"demo-{exchange.request_id[:24]}", created))
    reply.headers.extend(answer.headers)
    return reply


async def _events(answer: Answer, writer: EventWriter) -> AsyncIterator[bytes]:
    async for batch in answer.batches():
        if data := writer.write(batch):
            yield data
