"""Good answers in OpenAI's wire formats, as its public API reference describes them.

Pure: what is to be said → one JSON value, or the events of a stream, each as its bytes.
"""

import base64
import json
import struct
from typing import Any

from tests.support.saying import Events, Saying, Whole, event

CREATED = 1_780_000_000


def chat_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    message: Whole = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in said.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(said)}
    return _completion("chat.completion", asked) | {"choices": [choice], "usage": _completion_usage(said)}


def chat_events(said: Saying, asked: dict[str, Any]) -> Events:
    deltas: list[Whole] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": piece} for piece in said.pieces]
    for at, call in enumerate(said.calls):
        function = {"name": call.name, "arguments": ""}
        deltas.append({"tool_calls": [{"index": at, "id": call.id, "type": "function", "function": function}]})
        deltas += [{"tool_calls": [{"index": at, "function": {"arguments": piece}}]} for piece in call.in_pieces()]
    choices: list[Whole] = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": _finish_reason(said)})
    return _completion_events("chat.completion.chunk", said, asked, choices)


def text_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    choice = {"index": 0, "text": said.text, "logprobs": None, "finish_reason": _finish_reason(said)}
    return _completion("text_completion", asked) | {"choices": [choice], "usage": _completion_usage(said)}


def text_events(said: Saying, asked: dict[str, Any]) -> Events:
    choices: list[Whole] = [
        {"index": 0, "text": piece, "logprobs": None, "finish_reason": None} for piece in said.pieces
    ]
    choices.append({"index": 0, "text": "", "logprobs": None, "finish_reason": _finish_reason(said)})
    return _completion_events("text_completion", said, asked, choices)


def _completion(kind: str, asked: dict[str, Any]) -> Whole:
    return {
        "id": "cmpl-scripted",
        "object": kind,
        "created": CREATED,
        "model": asked.get("model"),
        "system_fingerprint": "fp_scripted",
    }


def _completion_events(kind: str, said: Saying, asked: dict[str, Any], choices: list[Whole]) -> Events:
    wants_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
    filler = {"usage": None} if wants_usage else {}
    events = [event(_completion(kind, asked) | {"choices": [choice]} | filler) for choice in choices]
    if wants_usage:
        events.append(event(_completion(kind, asked) | {"choices": [], "usage": _completion_usage(said)}))
    return [*events, event("[DONE]")]


def _completion_usage(said: Saying) -> Whole:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _finish_reason(said: Saying) -> str:
    return "tool_calls" if said.tool_call else "length" if said.is_cut_by_limit else "stop"


def responses_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    usage = {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.input_tokens + said.output_tokens,
    }
    state = {"status": "completed"}
    if said.is_cut_by_limit:
        state = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}  # type: ignore[dict-item]
    return _response(asked) | state | {"output": _output_items(said), "usage": usage}


def responses_events(said: Saying, asked: dict[str, Any]) -> Events:
    begun = _response(asked)
    parts: list[Whole] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    calls = {call.id: call for call in said.calls}
    for index, item in enumerate(_output_items(said)):
        where = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            content = item["content"][0]
            place = {**where, "content_index": 0}
            parts.append(
                {
                    "type": "response.output_item.added",
                    "output_index": index,
                    "item": item | {"status": "in_progress", "content": []},
                }
            )
            parts.append({"type": "response.content_part.added", **place, "part": content | {"text": ""}})
            parts += [
                {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in said.pieces
            ]
            parts.append({"type": "response.output_text.done", **place, "text": said.text, "logprobs": []})
            parts.append({"type": "response.content_part.done", **place, "part": content})
        else:
            parts.append(
                {
                    "type": "response.output_item.added",
                    "output_index": index,
                    "item": item | {"status": "in_progress", "arguments": ""},
                }
            )
            parts += [
                {"type": "response.function_call_arguments.delta", **where, "delta": piece}
                for piece in calls[item["call_id"]].in_pieces()
            ]
            parts.append(
                {
                    "type": "response.function_call_arguments.done",
                    **where,
                    "name": item["name"],
                    "arguments": item["arguments"],
                }
            )
        parts.append({"type": "response.output_item.done", "output_index": index, "item": item})
    ended = responses_whole(said, asked)
    parts.append({"type": f"response.{ended['status']}", "response": ended})
    return [event(part | {"sequence_number": number}, part["type"]) for number, part in enumerate(parts)]


def _response(asked: dict[str, Any]) -> Whole:
    return {
        "id": "resp_scripted",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.get("instructions"),
        "model": asked.get("model"),
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": asked.get("tools") or [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "usage": None,
    }


def _output_items(said: Saying) -> list[Whole]:
    items: list[Whole] = []
    if said.text:
        content = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        items.append(
            {"id": "msg_scripted", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
        )
    for at, call in enumerate(said.calls):
        items.append(
            {
                "id": f"fc_scripted_{at}",
                "type": "function_call",
                "status": "completed",
                "call_id": call.id,
                "name": call.name,
                "arguments": json.dumps(call.arguments),
            }
        )
    return items


def embeddings(asked: dict[str, Any], dimensions: int = 4) -> Whole:
    """One vector an input, each different; as floats or, as SDKs ask by default, in base64."""
    inputs = asked["input"] if isinstance(asked.get("input"), list) else [asked.get("input")]
    rows: list[Whole] = []
    for index, _ in enumerate(inputs):
        vector = [(index + 1) / (place + 1) for place in range(int(asked.get("dimensions") or dimensions))]
        in_base64 = asked.get("encoding_format") == "base64"
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if in_base64 else vector
        rows.append({"object": "embedding", "index": index, "embedding": packed})
    usage = {"prompt_tokens": 5 * len(rows), "total_tokens": 5 * len(rows)}
    return {"object": "list", "data": rows, "model": asked.get("model"), "usage": usage}


def models(names: list[str]) -> Whole:
    rows = [{"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in names]
    return {"object": "list", "data": rows}


def error(status: int) -> Whole:
    """The usual body for an error status."""
    kind = {429: "rate_limit_exceeded", 401: "invalid_api_key"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    return {"error": {"message": "scripted failure", "type": kind, "param": None, "code": None}}
