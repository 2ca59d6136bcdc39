"""The vendors' APIs as the built-in demo speaks them: AIGW_MOCK_MODEL_RESPONSES without any upstream."""

import time
from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import replace as replace_fields

from torana.answers import Answer
from torana.api.exchange import JSON_HEADER, Exchange, Reply, StreamReply, json_reply
from torana.api.proxy_targets import Target
from torana.api.streaming import STREAM_HEADERS, ClosingStream
from torana.caller import Permit
from torana.chat import ChatRequest, Message, Text
from torana.counting import estimate_tokens
from torana.dialects.dialect import EventWriter
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.dialects.embeddings import read_request as read_embeddings
from torana.dialects.embeddings import write_answer as write_embeddings
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.members import decode_request
from torana.dialects.messages import MESSAGES
from torana.errors import Invalid, Refusal
from torana.gateway import Gateway

USUAL_DIMENSIONS, MAX_DIMENSIONS = 256, 4096
"""Of a demo vector; vendors' largest have fewer than the latter."""


async def answer_as_demo(
    gateway: Gateway, permit: Permit, target: Target, body: bytes, is_streamed: bool, exchange: Exchange
) -> Reply | StreamReply:
    """What the vendor's API would look like if the demo stood behind it.

    target  with the query behind its path, and the model, wherever it was named
    """
    path, _, query = target.path.partition("?")
    try:
        if target.dialect is GENERATE_CONTENT and is_streamed and "alt=sse" not in query:
            whole = await _chat(gateway, permit, target, body, False, exchange)
            return Reply(200, b"[%b]\n" % whole.body, whole.headers) if isinstance(whole, Reply) else whole
        if target.dialect is not None:
            return await _chat(gateway, permit, target, body, is_streamed, exchange)
        if path == "/v1/complete":
            return await _complete(gateway, permit, body, target.model, is_streamed, exchange)
        if path == "/v1/embeddings":
            return await _embed(gateway, permit, body, target.model, exchange)
        if target.names_model:
            reply = await _predict(gateway, permit, target, body, is_streamed, exchange)
        else:
            reply = _look_up(path, body)
    except Invalid as error:
        raise Refusal(400, "request_invalid", f"Invalid request: {error.missing}") from error
    reply.headers.append((b"x-torana-demo", b"true"))
    return reply


async def _embed(gateway: Gateway, permit: Permit, body: bytes, model: str, exchange: Exchange) -> Reply:
    wanted, _ = read_embeddings(body)
    dimensions = USUAL_DIMENSIONS if wanted.dimensions is None else wanted.dimensions
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise Invalid(("dimensions",), f"Input should be 1 to {MAX_DIMENSIONS}")
    wanted = replace_fields(wanted, dimensions=dimensions, source=b"")
    found = await gateway.embed_as_demo(permit, wanted, exchange.facts)
    body = write_embeddings(found.rows, model, found.usage, wanted.encoding)
    return Reply(200, body, [JSON_HEADER, *found.headers])


def _look_up(path: str, body: bytes) -> Reply:
    if path == "/v1/messages/count_tokens":
        return json_reply({"input_tokens": estimate_tokens(body.decode("utf-8", "replace"))})
    # A name of the shipped allow-list, so that a client can ask for what is listed.
    row = {"id": "gpt-torana-demo", "object": "model", "created": 1_700_000_000, "owned_by": "torana"}
    return json_reply({"object": "list", "data": [row]})


async def _chat(
    gateway: Gateway, permit: Permit, target: Target, body: bytes, is_streamed: bool, exchange: Exchange
) -> Reply | StreamReply:
    dialect, model = target.dialect, target.model
    assert dialect is not None
    if target.names_model and dialect is MESSAGES:
        # Vertex AI's way to ask Claude; the dialect's own has the model in the body.
        body = msgspec.json.encode({**decode_request(body), "model": model})
    chat, _ = dialect.read_request(body)
    answer = await gateway.answer_as_demo(permit, replace_fields(chat, stream=is_streamed), exchange.facts)
    id_, created = f"demo-{exchange.request_id[:24]}", int(time.time())
    if is_streamed:
        writer = dialect.write_events(model, id_, created, chat)
        return _stream(answer, _events(answer, writer))
    chunks = [chunk async for batch in answer for chunk in batch]
    return Reply(200, dialect.write_answer(chunks, model, id_, created, chat), [JSON_HEADER, *answer.headers])


async def _complete(
    gateway: Gateway, permit: Permit, body: bytes, model: str, is_streamed: bool, exchange: Exchange
) -> Reply | StreamReply:
    """Anthropic's text completions of old. Source: Anthropic API reference, "Text Completions (legacy)"."""
    prompt = msgspec.json.decode(body).get("prompt")
    if not isinstance(prompt, str):
        raise Invalid(("prompt",), "Field required", "missing")
    asked = ChatRequest(messages=(Message("user", (Text(prompt),)),), stream=is_streamed)
    answer = await gateway.answer_as_demo(permit, asked, exchange.facts)
    usual = {"type": "completion", "id": f"compl_{exchange.request_id[:24]}", "model": model}
    if is_streamed:
        return _stream(answer, _completions(answer, usual))
    texts = (await answer.collect()).texts
    return json_reply({**usual, "completion": texts[0], "stop_reason": "stop_sequence"}, answer.headers)


async def _predict(
    gateway: Gateway, permit: Permit, target: Target, body: bytes, is_streamed: bool, exchange: Exchange
) -> Reply:
    """Vertex AI's older models: vectors, or text. Source: Vertex AI reference, "Text embeddings API", "PaLM API"."""
    rows = msgspec.json.decode(body).get("instances")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Invalid(("instances",), "Field required", "missing")
    texts = [str(row.get("content") or row.get("prompt") or row.get("prefix") or "") for row in rows]
    if "embedding" in target.model:
        asked = EmbeddingsRequest(inputs=tuple(texts), dimensions=USUAL_DIMENSIONS)
        found = await gateway.embed_as_demo(permit, asked, exchange.facts)
        vectors = [
            {"embeddings": {"values": row, "statistics": {"token_count": estimate_tokens(text)}}}
            for row, text in zip(found.rows, texts, strict=True)
        ]
        return json_reply({"predictions": vectors})
    chat = ChatRequest(messages=(Message("user", (Text("\n".join(texts)),)),), stream=False)
    answer = await gateway.answer_as_demo(permit, chat, exchange.facts)
    said = (await answer.collect()).texts[0]
    if is_streamed:
        return json_reply([{"outputs": [{"structVal": {"content": {"stringVal": [said]}}}]}])
    return json_reply({"predictions": [{"content": said}]})


async def _completions(answer: Answer, usual: dict[str, str]) -> AsyncIterator[bytes]:
    async for batch in answer:
        text = "".join([chunk.text for chunk in batch])
        event = {**usual, "completion": text, "stop_reason": "stop_sequence" if batch[-1].is_last else None}
        yield b"event: completion\ndata: %b\n\n" % msgspec.json.encode(event)


async def _events(answer: Answer, writer: EventWriter) -> AsyncIterator[bytes]:
    async for batch in answer:
        if data := writer.write(batch):
            yield data


def _stream(answer: Answer, events: AsyncIterator[bytes]) -> StreamReply:
    parts = ClosingStream(answer, events)
    return StreamReply(b"text/event-stream; charset=utf-8", parts, headers=STREAM_HEADERS + answer.headers)
