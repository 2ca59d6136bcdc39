"""The vendors' APIs as the built-in demo speaks them: AIGW_MOCK_MODEL_RESPONSES without any upstream."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace as replace_fields

from torana.answers import Answer
from torana.api.exchange import JSON_HEADER, Exchange, Reply, StreamReply, json_reply
from torana.api.proxy_targets import Target
from torana.api.streaming import STREAM_HEADERS, ClosingStream
from torana.caller import Permit
from torana.chat import ChatRequest, Message, Text
from torana.counting import estimate_tokens
from torana.dialects.bodies import decode_request
from torana.dialects.dialect import EventWriter, ServedDialect
from torana.dialects.embedding_dialect import MAX_DIMENSIONS, EmbeddingsRequest
from torana.dialects.embeddings import read_request as read_embeddings
from torana.dialects.embeddings import write_answer as write_embeddings
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.errors import Invalid, Refusal
from torana.gateway import Gateway

USUAL_DIMENSIONS = 256
"""Of a demo vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCall:
    """One request to a vendor's API, answered as that would look if the demo stood behind it."""

    gateway: Gateway
    permit: Permit
    exchange: Exchange
    target: Target
    """With the query behind its path, and the model, wherever it was named."""
    is_streamed: bool

    async def answer(self) -> Reply | StreamReply:
        """Raises Refusal 400 for a body that the vendor would not take."""
        target, body = self.target, self.exchange.body
        path, _, query = target.path.partition("?")
        try:
            if target.dialect is GENERATE_CONTENT and self.is_streamed and "alt=sse" not in query:
                whole = await self._chat(target.dialect, body, is_streamed=False)
                return Reply(200, b"[%b]\n" % whole.body, whole.headers) if isinstance(whole, Reply) else whole
            if target.dialect is not None:
                return await self._chat(target.dialect, body, is_streamed=self.is_streamed)
            if path == "/v1/complete":
                return await self._complete(body)
            if path == "/v1/embeddings":
                return await self._embed(body)
            reply = await self._predict(body) if target.names_model else _look_up(path, body)
        except Invalid as error:
            raise Refusal(400, "request_invalid", f"Invalid request: {error.missing}", missing=error.missing) from error
        reply.headers.append((b"x-torana-demo", b"true"))
        return reply

    async def _ask(self, chat: ChatRequest) -> Answer:
        return await self.gateway.answer_as_demo(self.permit, chat, self.exchange.facts)

    async def _embed(self, body: bytes) -> Reply:
        wanted, _ = read_embeddings(body)
        dimensions = USUAL_DIMENSIONS if wanted.dimensions is None else wanted.dimensions
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise Invalid(("dimensions",), f"Input should be 1 to {MAX_DIMENSIONS}")
        wanted = replace_fields(wanted, dimensions=dimensions, source=b"")
        found = await self.gateway.embed_as_demo(self.permit, wanted, self.exchange.facts)
        written = write_embeddings(found.rows, self.target.model, found.usage, wanted.encoding)
        return Reply(200, written, [JSON_HEADER, *found.headers])

    async def _chat(self, dialect: ServedDialect, body: bytes, *, is_streamed: bool) -> Reply | StreamReply:
        model = self.target.model
        if self.target.names_model and dialect is MESSAGES:
            # Vertex AI's way to ask Claude; the dialect's own has the model in the body.
            body = msgspec.json.encode({**decode_request(body), "model": model})
        chat, _ = dialect.read_request(body)
        answer = await self._ask(replace_fields(chat, stream=is_streamed))
        id_, created = f"demo-{self.exchange.request_id[:24]}", int(time.time())
        if is_streamed:
            return _stream(answer, _events(answer, dialect.write_events(model, id_, created, chat)))
        chunks = [chunk async for batch in answer for chunk in batch]
        return Reply(200, dialect.write_answer(chunks, model, id_, created, chat), [JSON_HEADER, *answer.headers])

    async def _complete(self, body: bytes) -> Reply | StreamReply:
        """Anthropic's text completions of old. Source: Anthropic API reference, "Text Completions (legacy)"."""
        prompt = decode_request(body).get("prompt")
        if not isinstance(prompt, str):
            raise Invalid(("prompt",), "Field required", "missing")
        answer = await self._ask(ChatRequest(messages=(Message("user", (Text(prompt),)),), stream=self.is_streamed))
        usual = {"type": "completion", "id": f"compl_{self.exchange.request_id[:24]}", "model": self.target.model}
        if self.is_streamed:
            return _stream(answer, _completions(answer, usual))
        texts = (await answer.collect()).texts
        return json_reply({**usual, "completion": texts[0], "stop_reason": "stop_sequence"}, answer.headers)

    async def _predict(self, body: bytes) -> Reply:
        """Vertex AI's older models: vectors, or text. Source: its reference, "Text embeddings API", "PaLM API"."""
        rows = decode_request(body).get("instances")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Invalid(("instances",), "Field required", "missing")
        texts = [str(row.get("content") or row.get("prompt") or row.get("prefix") or "") for row in rows]
        if "embedding" in self.target.model:
            asked = EmbeddingsRequest(inputs=tuple(texts), dimensions=USUAL_DIMENSIONS)
            found = await self.gateway.embed_as_demo(self.permit, asked, self.exchange.facts)
            vectors = [
                {"embeddings": {"values": row, "statistics": {"token_count": estimate_tokens(text)}}}
                for row, text in zip(found.rows, texts, strict=True)
            ]
            return json_reply({"predictions": vectors})
        answer = await self._ask(ChatRequest(messages=(Message("user", (Text("\n".join(texts)),)),), stream=False))
        said = (await answer.collect()).texts[0]
        if self.is_streamed:
            return json_reply([{"outputs": [{"structVal": {"content": {"stringVal": [said]}}}]}])
        return json_reply({"predictions": [{"content": said}]})


def _look_up(path: str, body: bytes) -> Reply:
    if path == "/v1/messages/count_tokens":
        return json_reply({"input_tokens": estimate_tokens(body.decode("utf-8", "replace"))})
    # A name of the shipped allow-list, so that a client can ask for what is listed.
    row = {"id": "gpt-torana-demo", "object": "model", "created": 1_700_000_000, "owned_by": "torana"}
    return json_reply({"object": "list", "data": [row]})


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
