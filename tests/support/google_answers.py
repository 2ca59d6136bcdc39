"""Good answers in Google's wire formats, as the Gemini and Vertex AI references describe them.

Pure: what is to be said → one JSON value, or the events of a stream, each as its bytes. Lines end in CRLF, and
JSON has a blank behind its colons, as Google's servers write it.
"""

import json
from typing import Any

from tests.support.saying import Events, Saying, Whole

MODEL = "gemini-scripted-001"


def content_whole(said: Saying, _asked: dict[str, Any]) -> Whole:
    parts = [{"text": said.text}] if said.text else []
    return _answer([*parts, *_call(said)], _finish(said), _usage(said, said.output_tokens))


def content_events(said: Saying, asked: dict[str, Any]) -> Events:
    return [_event(answer) for answer in _answers(said)]


def content_array(said: Saying, asked: dict[str, Any]) -> Events:
    """What comes where `alt=sse` is not asked for: one JSON array, an element at a time."""
    texts = [json.dumps(answer, indent=2, ensure_ascii=False) for answer in _answers(said)]
    return [f"{'[' if at == 0 else ','}{text}\r\n".encode() for at, text in enumerate(texts)] + [b"]"]


def predict_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    """A vector for each instance, as the text embedding models of old answer."""
    statistics = {"truncated": False, "token_count": said.input_tokens}
    row = {"embeddings": {"statistics": statistics, "values": [0.25, -0.5]}}
    return {"predictions": [row for _ in asked.get("instances", [{}])], "metadata": {"billableCharacterCount": 11}}


def batch_embeddings(said: Saying, asked: dict[str, Any]) -> Whole:
    """A vector for each text, the first number of which counts them."""
    return {"embeddings": [{"values": [at, -0.5]} for at, _ in enumerate(asked["requests"], 1)]}


def predict_array(said: Saying, _asked: dict[str, Any]) -> Events:
    """The text models of old, streamed."""
    outputs = [{"structVal": {"content": {"stringVal": [piece]}}} for piece in said.pieces]
    texts = [json.dumps({"outputs": [output]}, indent=1) for output in outputs]
    return [f"{'[' if at == 0 else ','}{text}\n".encode() for at, text in enumerate(texts)] + [b"]"]


def _answers(said: Saying) -> list[Whole]:
    pieces = [_answer([{"text": piece}], None, _usage(said, 0)) for piece in said.pieces]
    return [*pieces, _answer(_call(said) or [{"text": ""}], _finish(said), _usage(said, said.output_tokens))]


def _event(answer: Whole) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps(answer, ensure_ascii=False).encode()


def _answer(parts: list[Whole], finish: str | None, usage: Whole) -> Whole:
    candidate: Whole = {"content": {"parts": parts, "role": "model"}}
    if finish:
        candidate["finishReason"] = finish
    candidate["index"] = 0
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": MODEL,
        "responseId": "scripted-response",
    }


def _call(said: Saying) -> list[Whole]:
    calls: list[Whole] = [
        {"functionCall": {"name": call.name, "args": call.arguments, "id": call.id}} for call in said.calls
    ]
    # Of several calls the first one alone is signed.
    return [{**calls[0], "thoughtSignature": "c2NyaXB0ZWQ="}, *calls[1:]] if calls else []


def _finish(said: Saying) -> str:
    return "MAX_TOKENS" if said.is_cut_by_limit else "STOP"


def _usage(said: Saying, output_tokens: int) -> Whole:
    usage: Whole = {"promptTokenCount": said.input_tokens, "totalTokenCount": said.input_tokens + output_tokens}
    return usage | {"candidatesTokenCount": output_tokens} if output_tokens else usage


STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(status: int) -> Whole:
    """The usual body for an error status."""
    name = STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "UNAVAILABLE")
    return {"error": {"code": status, "message": "scripted failure", "status": name}}


def models(names: list[str]) -> Whole:
    return {"models": [{"name": f"models/{name}", "displayName": name.title()} for name in names]}
