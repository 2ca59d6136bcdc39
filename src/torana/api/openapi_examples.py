"""Requests that work as they stand, for the page on which one can try them. A test sends each."""

from typing import Any

from torana.catalog.records import FeatureInput, FeatureRecord

_CODE = {
    "current_file": {"file_name": "hello.py", "content_above_cursor": "def hello_world", "content_below_cursor": ""}
}
_COMPONENT = {"prompt_components": [{"type": "code_editor_completion", "payload": _CODE["current_file"]}]}
_CHAT = {"messages": [{"role": "user", "content": "What can you do?"}]}
_PROMPT = {"inputs": {"input": "explain", "selected_text": "print(sum(range(10)))"}}
_METADATA = {"source": "GitLab EE", "version": "18.6.0"}
_VECTORS = {"model_metadata": {"provider": "gitlab"}, "contents": ["print(sum(range(10)))"]}
_ROLE = {"role_arn": "arn:aws:iam::123456789012:role/amazon-q"}

EXAMPLES: dict[str, Any] = {
    "/v2/code/completions": _CODE,
    "/v2/completions": _CODE,
    "/v2/code/generations": _CODE,
    "/v3/code/completions": _COMPONENT,
    "/v4/code/suggestions": _COMPONENT,
    "/v2/chat/agent": _CHAT,
    "/v1/prompts/{tail}": _PROMPT,
    "/v2/prompts/{tail}": _PROMPT,
    "/v1/proxy/anthropic/{tail}": {"model": "claude-sonnet-4-6", "max_tokens": 100, **_CHAT},
    "/v1/proxy/openai/{tail}": {"model": "gpt-5.4-mini", **_CHAT},
    "/v1/proxy/vertex-ai/{tail}": {"contents": [{"role": "user", "parts": [{"text": "What can you do?"}]}]},
    "/openai/v1/chat/completions": {"model": "chat_default", **_CHAT},
    "/openai/v1/responses": {"model": "chat_default", "input": "What can you do?"},
    "/openai/v1/embeddings": {"model": "embeddings_default", "input": "print(sum(range(10)))"},
    "/anthropic/v1/messages": {"model": "chat_default", "max_tokens": 100, **_CHAT},
    "/anthropic/v1/messages/count_tokens": {"model": "chat_default", **_CHAT},
    "/v1/chat/{tail}": {
        "prompt_components": [{"type": "prompt", "metadata": _METADATA, "payload": {"content": "What can you do?"}}]
    },
    "/v1/search/gitlab-docs": {"type": "search", "metadata": _METADATA, "payload": {"query": "runner"}},
    "/v1/embeddings/code_embeddings": _VECTORS,
    "/v1/embeddings/code_embeddings/index": _VECTORS,
    "/v1/embeddings/code_embeddings/search": _VECTORS,
    "/v1/x-ray/libraries": {
        "prompt_components": [{"type": "x_ray_package_file_prompt", "payload": {"prompt": "gem 'rails'"}}]
    },
    "/v1/amazon_q/oauth/application": {
        "client_id": "id",
        "client_secret": "secret",
        "instance_url": "https://gitlab.example.com",
        "redirect_url": "https://gitlab.example.com/q",
        **_ROLE,
    },
    "/v1/amazon_q/oauth/application/delete": _ROLE,
    "/v1/amazon_q/oauth/application/verify": {"code": "code", **_ROLE},
    "/v1/amazon_q/events": {"code": "code", "payload": {"source": "web_hook", "data": {}}, **_ROLE},
}
"""Path of a route → a body for it."""

_PROMPT_ID = ("the prompt's id; `torana prompts list` shows them", "chat/explain_code")
_MODEL = ("an alias, a name of the catalogue, or the provider's own name of the model", "chat_default")

TAILS: dict[str, tuple[str, str]] = {
    "/v1/prompts/{tail}": _PROMPT_ID,
    "/v2/prompts/{tail}": _PROMPT_ID,
    "/v1/chat/{tail}": ("the client's name for what it does", "agent"),
    "/v1/proxy/anthropic/{tail}": ("path of the vendor's own API", "v1/messages"),
    "/v1/proxy/openai/{tail}": ("path of the vendor's own API", "v1/chat/completions"),
    "/v1/proxy/vertex-ai/{tail}": (
        "path of the vendor's own API; project and location give way to the gateway's own",
        "v1/projects/p/locations/global/publishers/google/models/gemini-3.5-flash:generateContent",
    ),
    "/openai/v1/models/{tail}": _MODEL,
    "/anthropic/v1/models/{tail}": _MODEL,
}
"""Path of a route that ends in `{tail}` → (what stands there, for instance)."""


def feature_example(feature: FeatureRecord) -> dict[str, Any]:
    """A body for an endpoint that the catalogue declares: what it requires, and no more."""
    payload = {name: _value(each) for name, each in feature.inputs.items() if each.is_required}
    return {"prompt_components": [{"type": feature.components[0], "payload": payload}]}


def _value(each: FeatureInput) -> Any:
    return {"string": "a text", "integer": 1, "boolean": True, "list": ["a text"]}[each.type]
