"""Good answers in Bedrock's Converse format, as its public API reference describes them, and its bad ones.

Pure: what is to be said → one JSON value, or the events of a stream, each as its bytes. The binary framing is
built from the specification of application/vnd.amazon.eventstream alone.
"""

import json
import struct
from typing import Any
from zlib import crc32

from tests.support.saying import Events, Saying, Whole

CONTENT_TYPE = "application/vnd.amazon.eventstream"

EXCEPTIONS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


def frame(payload: Any, name: str, kind: str = "event") -> bytes:
    """One message of the stream: `event` or `exception`."""
    texts = [(f":{kind}-type", name), (":content-type", "application/json"), (":message-type", kind)]
    headers = b"".join(
        struct.pack(">B", len(key)) + key.encode() + b"\x07" + struct.pack(">H", len(text)) + text.encode()
        for key, text in texts
    )
    body = json.dumps(payload, ensure_ascii=False).encode()
    lengths = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = lengths + struct.pack(">I", crc32(lengths)) + headers + body
    return message + struct.pack(">I", crc32(message))


def exception(name: str, message: str = "scripted failure", **members: Any) -> bytes:
    """What a stream says when it fails after its 200: `throttlingException`."""
    return frame({"message": message, **members}, name, "exception")


def converse_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    content: list[Whole] = [{"text": said.text}] if said.text else []
    for call in said.calls:
        content.append({"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}})
    return {
        "metrics": {"latencyMs": 551},
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": _stop_reason(said),
        "usage": _usage(said),
    }


def invoke_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    """Vectors: of Titan for one text, of Cohere for several."""
    if "inputText" in asked:
        return {"embedding": [len(asked["inputText"]), -0.5], "inputTextTokenCount": said.input_tokens}
    rows = [[at, -0.5] for at, _ in enumerate(asked["texts"], 1)]
    return {"id": "a", "texts": asked["texts"], "embeddings": {"float": rows}, "response_type": "embeddings_by_type"}


def converse_events(said: Saying, asked: dict[str, Any]) -> Events:
    parts = [frame({"p": "abcd", "role": "assistant"}, "messageStart")]
    block = 0
    if said.pieces:
        parts += [
            # `p` is padding against guessing by length; Bedrock sends it with every event.
            frame({"contentBlockIndex": block, "delta": {"text": piece}, "p": "abcdefgh"}, "contentBlockDelta")
            for piece in said.pieces
        ]
        parts.append(frame({"contentBlockIndex": block, "p": "ab"}, "contentBlockStop"))
        block += 1
    for call in said.calls:
        use = {"toolUseId": call.id, "name": call.name}
        parts.append(frame({"contentBlockIndex": block, "start": {"toolUse": use}}, "contentBlockStart"))
        parts += [
            frame({"contentBlockIndex": block, "delta": {"toolUse": {"input": piece}}}, "contentBlockDelta")
            for piece in call.in_pieces()
        ]
        parts.append(frame({"contentBlockIndex": block}, "contentBlockStop"))
        block += 1
    parts.append(frame({"p": "abc", "stopReason": _stop_reason(said)}, "messageStop"))
    parts.append(frame({"metrics": {"latencyMs": 551}, "p": "a", "usage": _usage(said)}, "metadata"))
    return parts


def _stop_reason(said: Saying) -> str:
    if said.is_cut_by_limit:
        return "max_tokens"
    return "tool_use" if said.tool_call else "end_turn"


def _usage(said: Saying) -> Whole:
    return {
        "inputTokens": said.input_tokens,
        "outputTokens": said.output_tokens,
        "serverToolUsage": {},
        "totalTokens": said.input_tokens + said.output_tokens,
    }


def error(status: int) -> Whole:
    """The usual body for an error status; which exception it is stands in a header."""
    return {"message": "scripted failure"}


def error_headers(status: int) -> tuple[tuple[str, str], ...]:
    name = EXCEPTIONS.get(status, "InternalServerException")
    kind = f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    return (("x-amzn-ErrorType", kind), ("x-amzn-RequestId", "4f1a6c6e-scripted"))
