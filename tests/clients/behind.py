"""One scripted vendor that is everybody: a model for each dialect that a provider may speak."""

import json
from pathlib import Path
from typing import Any

ABILITIES = ["chat", "stream", "tools", "parallel_tools", "json", "images", "documents", "reasoning"]
BEHIND = {
    "by_messages": ("anthropic", "claude-behind", "/v1/messages"),
    "by_chat_completions": ("openai", "gpt-behind", "/v1/chat/completions"),
    "by_responses": ("of_responses", "gpt-behind-responses", "/v1/responses"),
    "by_generate_content": ("gemini", "gemini-behind", "/v1beta/models/gemini-behind"),
    "by_converse": ("bedrock", "nova-behind", "/model/nova-behind/"),
}
"""The catalogue's name of a model → its provider, the provider's name for it, and how its paths begin."""

UNTIL_FIRST_PIECE = {
    "by_messages": 4,
    "by_chat_completions": 2,
    "by_responses": 5,
    "by_generate_content": 1,
    "by_converse": 2,
}
"""How many events of a stream bring the first piece of text."""


def stand_behind(vendor_url: str, folder: Path) -> dict[str, str]:
    """The environment of a gateway with all these models."""
    folder.mkdir(exist_ok=True)
    models: list[dict[str, Any]] = [
        {
            "name": name,
            "title": name,
            "capabilities": ABILITIES,
            "input_limit": 200_000,
            "output_limit": 64_000,
            "deployments": [{"provider": provider, "model": model}],
        }
        for name, (provider, model, _) in BEHIND.items()
    ]
    row = {"name": "of_responses", "dialect": "responses", "auth": "none", "base_url": vendor_url}
    (folder / "models.yml").write_text(json.dumps({"models": models}))  # JSON is YAML
    (folder / "providers.yml").write_text(json.dumps([row]))
    return {
        "AIGW_CATALOG": str(folder),
        "GEMINI_API_KEY": "gemini-key",
        "GEMINI_BASE_URL": vendor_url,
        "AWS_BEARER_TOKEN_BEDROCK": "bedrock-token",
        "AWS_REGION_NAME": "eu-west-1",
        "AWS_BEDROCK_RUNTIME_ENDPOINT": vendor_url,
    }
