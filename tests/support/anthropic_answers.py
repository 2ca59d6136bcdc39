"""Good answers in Anthropic's wire formats, as its public API reference describes them.

Pure: what is to be said → one JSON value, or the events of a stream, each as its bytes.
"""

from typing import Any

from tests.support.saying import Events, Saying, Whole, event


def messages_whole(said: Saying, asked: dict[str, Any]) -> Whole:
    content: list[Whole] = [{"type": "text", "text": said.text}] if said.text else []
    for call in said.calls:
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
    return _message(asked) | {
        "content": content,
        "stop_reason": _stop_reason(said),
        "usage": _messages_usage(said, said.output_tokens),
    }


def messages_events(said: Saying, asked: dict[str, Any]) -> Events:
    start = _message(asked) | {"usage": _messages_usage(said, 1)}
    parts: list[Whole] = [{"type": "message_start", "message": start}]
    index = 0
    if said.pieces:
        parts.append({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}})
        parts.append({"type": "ping"})
        parts += [
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}}
            for piece in said.pieces
        ]
        parts.append({"type": "content_block_stop", "index": index})
        index += 1
    for call in said.calls:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        parts.append({"type": "content_block_start", "index": index, "content_block": block})
        parts += [
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in call.in_pieces()
        ]
        parts.append({"type": "content_block_stop", "index": index})
        index += 1
    delta = {"stop_reason": _stop_reason(said), "stop_sequence": None}
    parts.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": said.output_tokens}})
    parts.append({"type": "message_stop"})
    return [event(part, part["type"]) for part in parts]


def _message(asked: dict[str, Any]) -> Whole:
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": asked.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _messages_usage(said: Saying, output_tokens: int) -> Whole:
    return {
        "input_tokens": said.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _stop_reason(said: Saying) -> str:
    return "tool_use" if said.tool_call else "max_tokens" if said.is_cut_by_limit else "end_turn"


def legacy_complete(said: Saying, asked: dict[str, Any]) -> Whole:
    """Anthropic's text completion of old, /v1/complete."""
    return {
        "type": "completion",
        "id": "compl_scripted",
        "completion": said.text,
        "stop_reason": "stop_sequence",
        "model": asked.get("model"),
    }


def models(names: list[str]) -> Whole:
    rows = [
        {"type": "model", "id": name, "display_name": name.title(), "created_at": "2026-01-01T00:00:00Z"}
        for name in names
    ]
    return {
        "data": rows,
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def error(status: int) -> Whole:
    """The usual body for an error status."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    kinds |= {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}
    kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": "scripted failure"}, "request_id": "req_scripted"}
