"""Answers as vendors that follow OpenAI really give them: each with what it does its own way.

Pure: events of a stream as their bytes, and error bodies. Sources: the vendors' API references and what their
servers are known to send, named at each.
"""

import json
from typing import Any

Chunk = dict[str, Any]


def data(chunk: Chunk) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def piece(
    delta: Chunk,
    finish: str | None = None,
    *,
    model: str = "m",
    id: str = "chatcmpl-1",
    choice: Chunk | None = None,
    **more: Any,
) -> bytes:
    row = {"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}
    head = {"id": id, "object": "chat.completion.chunk", "created": 1_780_000_000, "model": model}
    return data({**head, "choices": [row], **more})


def usage(taken: int = 25, given: int = 7, **more: Any) -> Chunk:
    return {"prompt_tokens": taken, "completion_tokens": given, "total_tokens": taken + given, **more}


SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}


def azure_events(text: str = "Hello") -> list[bytes]:
    """The first event has no choices, but the prompt's filter results; each piece has its own.

    Source: Azure OpenAI, "Content filtering", streaming.
    """
    first = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
    }
    filtered = {"content_filter_results": SAFE}
    return [
        data(first),
        piece({"role": "assistant", "content": "", "refusal": None}, choice={"content_filter_results": {}}),
        *(piece({"content": letter}, choice=filtered) for letter in text),
        piece({}, "stop", choice={"content_filter_results": {}}),
        data({"id": "chatcmpl-1", "model": "m", "object": "chat.completion.chunk", "choices": [], "usage": usage()}),
        DONE,
    ]


def azure_filtered_events(text: str = "Half") -> list[bytes]:
    """The asynchronous filter stops an answer that has begun, with offsets in an event of their own."""
    offsets = {"check_offset": 44, "start_offset": 44, "end_offset": 198}
    late = {"content_filter_offsets": offsets, "content_filter_results": SAFE, "finish_reason": None, "index": 0}
    return [
        azure_events()[0],
        piece({"role": "assistant", "content": text}),
        data({"id": "", "object": "", "created": 0, "model": "", "choices": [late]}),
        piece({}, "content_filter"),
        DONE,
    ]


AZURE_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": SAFE},
    }
}
AZURE_UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, or expired."}


def groq_events(text: str = "Hello") -> list[bytes]:
    """The first event names the request; the last one tells the usage in `x_groq` as well as where others do."""
    return [
        piece({"role": "assistant", "content": ""}, x_groq={"id": "req_1"}),
        piece({"reasoning": "Hm."}),
        piece({"content": text}),
        piece({}, "stop", x_groq={"id": "req_1", "usage": {**usage(), "queue_time": 0.01, "total_time": 0.1}}),
        DONE,
    ]


def deepseek_events(text: str = "Hello") -> list[bytes]:
    """Comments keep the line alive while the request waits; cached tokens stand beside the others."""
    cached = usage(25, 7, prompt_cache_hit_tokens=20, prompt_cache_miss_tokens=5)
    return [
        b": keep-alive\n\n",
        b": keep-alive\n\n",
        piece({"role": "assistant", "content": None, "reasoning_content": ""}),
        piece({"content": None, "reasoning_content": "Hm."}),
        piece({"content": text, "reasoning_content": None}),
        piece({"content": ""}, "stop", usage=cached),
        DONE,
    ]


def deepseek_starved_events(text: str = "Half") -> list[bytes]:
    """The answer is cut because the machines are too busy."""
    return [
        piece({"role": "assistant", "content": text}),
        piece({}, "insufficient_system_resource", usage=usage()),
        DONE,
    ]


def openrouter_events(text: str = "Hello") -> list[bytes]:
    """Comments while it waits; each event names the provider behind."""
    return [
        b": OPENROUTER PROCESSING\n\n",
        b": OPENROUTER PROCESSING\n\n",
        piece({"role": "assistant", "content": ""}, provider="Acme"),
        piece({"content": "", "reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}),
        piece({"content": text}, choice={"native_finish_reason": None}, provider="Acme"),
        piece({"content": ""}, "stop", choice={"native_finish_reason": "end_turn"}, provider="Acme"),
        piece({"content": ""}, usage=usage(25, 7, cost=0.00014)),
        DONE,
    ]


def openrouter_broken_events(text: str = "Half") -> list[bytes]:
    """A provider behind it fails midway: an error beside a choice that ended with one."""
    failure = {"code": 502, "message": "Provider disconnected", "metadata": {"provider_name": "Acme"}}
    return [
        b": OPENROUTER PROCESSING\n\n",
        piece({"role": "assistant", "content": text}, provider="Acme"),
        piece({"content": ""}, "error", error=failure, provider="Acme"),
    ]


WATSONX_INVALID = {
    "errors": [
        {"code": "invalid_request_entity", "message": "The Json field 'x' is required", "more_info": "https://x"}
    ],
    "trace": "0a6a",
    "status_code": 400,
}
ZAI_NOT_FOUND = {"code": 500, "msg": "404 NOT_FOUND", "success": False}
"""With 200, for a path that it does not serve."""
MINIMAX_SPENT = {
    "error": {"http_code": "429", "message": "insufficient balance (1008)", "type": "insufficient_balance_error"}
}
"""With 429 or 402; with 500 and the type `api_error` elsewhere."""
TGI_FAILED = {"error": "Request failed during generation: Server error: out of memory", "error_type": "generation"}
"""With 424. Source: text-generation-inference, router, `ErrorResponse`."""

XAI_UNSAFE = {
    "code": "The caller does not have permission to execute the specified operation",
    "error": "Content violates usage guidelines. Team: t, API key ID: k, Model: m, Failed check: SAFETY_CHECK_TYPE_BIO",
}
"""With 403. Source: its answers, as users of its API report them."""
MOONSHOT_SPENT = {
    "error": {
        "message": "Your account is suspended due to insufficient balance, please recharge your account",
        "type": "exceeded_current_quota_error",
    }
}
ZAI_SPENT = {"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}}
"""Both with 429."""
DASHSCOPE_SPENT = {
    "error": {
        "message": "Access denied, please make sure your account is in good standing.",
        "type": "Arrearage",
        "param": None,
        "code": "Arrearage",
    }
}
"""With 400."""
XAI_SPENT = {
    "code": "The caller does not have permission to execute the specified operation",
    "error": "Your team fae4735c has either used all available credits or reached its monthly spending limit. "
    "To continue making API requests, please purchase more credits or raise your spending limit.",
}
"""With 403 or 429."""
XAI_WRONG_KEY = {
    "code": "Client specified an invalid argument",
    "error": "Incorrect API key provided: ke***ey. You can obtain an API key from https://console.x.ai.",
}
"""With 400."""

OPENROUTER_TOO_LONG = {
    "error": {
        "message": "Provider returned error",
        "code": 400,
        "metadata": {
            "raw": '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: '
            '210000 tokens > 200000 maximum"}}',
            "provider_name": "Acme",
        },
    }
}
"""What the provider behind it said, as its JSON or in plain words."""
OPENROUTER_MODERATED = {
    "error": {
        "code": 403,
        "message": "Input was flagged",
        "metadata": {"reasons": ["violence"], "flagged_input": "…", "provider_name": "Acme", "model_slug": "m"},
    }
}
FIREWORKS_SUSPENDED = {
    "error": {
        "message": "Account acme is suspended, possibly due to reaching the monthly spending limit or failure to pay"
        " past invoices. Please go to https://fireworks.ai/account/billing for more information.",
        "object": "error",
        "type": "error",
        "code": "PRECONDITION_FAILED",
    }
}


def ollama_calls_events() -> list[bytes]:
    """Older servers send each call whole, all with number 0, and end with `stop`."""

    def call(name: str, number: int) -> Chunk:
        function = {"name": name, "arguments": json.dumps({"n": number})}
        return {"index": 0, "id": f"call_{name}", "type": "function", "function": function}

    return [
        piece({"role": "assistant", "content": "", "tool_calls": [call("first", 1)]}),
        piece({"role": "assistant", "content": "", "tool_calls": [call("second", 2)]}),
        piece({"role": "assistant", "content": ""}, "stop"),
        data({"id": "chatcmpl-1", "model": "m", "object": "chat.completion.chunk", "choices": [], "usage": usage()}),
        DONE,
    ]


def mistral_thinking_events(text: str = "Hello") -> list[bytes]:
    """Reasoning models give content as a list of parts; the last event tells the usage unasked."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    return [
        piece({"role": "assistant", "content": ""}),
        piece({"content": [thinking]}),
        piece({"content": [{"type": "text", "text": text}]}),
        piece({"content": ""}, "stop", usage=usage()),
        DONE,
    ]


def mistral_fim_events(text: str = "pass") -> list[bytes]:
    """Fill-in-the-middle answers have the shape of chat completions."""
    return [
        piece({"role": "assistant", "content": ""}),
        piece({"content": text}),
        piece({"content": ""}, "stop", usage=usage()),
        DONE,
    ]


MISTRAL_EXTRA = {
    "object": "error",
    "message": {
        "detail": [
            {"type": "extra_forbidden", "loc": ["body", "user"], "msg": "Extra inputs are not permitted", "input": "u"}
        ]
    },
    "type": "invalid_request_error",
    "param": None,
    "code": None,
}
MISTRAL_CALL_ID = {
    "object": "error",
    "message": "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.",
    "type": "invalid_function_call",
    "param": None,
    "code": "3280",
}
LLAMA_CPP_LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
LITELLM_BUDGET = {
    "error": {"message": "Budget has been exceeded!", "type": "budget_exceeded", "param": None, "code": "400"}
}


def vllm_broken_events(text: str = "Half") -> list[bytes]:
    """An error without an `error` around it, and then the end as if all were well. vLLM before 0.10."""
    failure = {"object": "error", "message": "CUDA error", "type": "InternalServerError", "param": None, "code": 500}
    return [piece({"role": "assistant", "content": text}), data(failure), DONE]
