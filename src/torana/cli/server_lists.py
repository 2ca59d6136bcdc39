"""What a model server says that it serves: its own list, asked under every address that could be meant.

Source: OpenAI API reference, "List models"; Anthropic API reference, "List Models"; Ollama docs, "List Local Models";
vLLM (`max_model_len`), OpenRouter (`context_length`) and llama.cpp server (`meta.n_ctx_train`) add their limits.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torana.transport import Fetcher, FetchFailed

TIMEOUT_S = 10.0
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One address, and what came of it."""

    url: str
    status: int = 0
    """0: nothing answered."""
    problem: str = ""
    """Empty: it answered with a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One line of a server's list."""

    id: str
    title: str = ""
    input_limit: int = 0
    """Tokens; 0: the server does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerList:
    """What was found; `models` is empty where no address gave a list."""

    base_url: str = ""
    """What belongs into a catalogue, without the final /v1."""
    client_url: str = ""
    """What a client that brings its own server must name: with the /v1 that is called."""
    is_ollama: bool = False
    models: tuple[ServedModel, ...] = ()
    attempts: tuple[Attempt, ...] = ()


async def read_list(fetcher: Fetcher, url: str, headers: Mapping[str, str]) -> ServerList:
    """Try the address with and without /v1; Ollama's own list where none of both answers.

    The first list counts, but every address is tried: which ones work is what users ask.
    """
    root = url.rstrip("/").removesuffix("/v1")
    attempts: list[Attempt] = []
    found: tuple[ServedModel, ...] | None = None
    base, client = "", ""
    for candidate in (f"{root}/v1", root):
        attempt, models = await _ask(fetcher, f"{candidate}/models", headers, _read_openai)
        attempts.append(attempt)
        if models is not None and found is None:
            found, base, client = models, root, candidate
    is_ollama = False
    if not found:
        attempt, models = await _ask(fetcher, f"{root}/api/tags", headers, _read_ollama)
        attempts.append(attempt)
        if models is not None:
            found, base, client, is_ollama = models, root, f"{root}/v1", True
    return ServerList(
        base_url=base, client_url=client, is_ollama=is_ollama, models=found or (), attempts=tuple(attempts)
    )


async def _ask(
    fetcher: Fetcher, url: str, headers: Mapping[str, str], read: Any
) -> tuple[Attempt, tuple[ServedModel, ...] | None]:
    try:
        answer = await fetcher.fetch(url, headers=headers, timeout_s=TIMEOUT_S, limit_bytes=MAX_BYTES)
    except FetchFailed as error:
        return Attempt(url=url, problem=str(error)), None
    if answer.status != 200:
        return Attempt(url=url, status=answer.status, problem=f"status {answer.status}"), None
    try:
        models = tuple(read(json.loads(answer.body)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Attempt(url=url, status=200, problem="no list of models"), None
    return Attempt(url=url, status=200), models


def _read_openai(value: Any) -> Iterator[ServedModel]:
    for row in value["data"]:
        meta = row.get("meta") or {}
        limits = (
            row.get("max_model_len"),
            row.get("context_length"),
            row.get("max_input_tokens"),
            meta.get("n_ctx_train"),
        )
        limit = next((each for each in limits if isinstance(each, int) and each > 0), 0)
        yield ServedModel(
            id=str(row["id"]), title=str(row.get("display_name") or row.get("name") or ""), input_limit=limit
        )


def _read_ollama(value: Any) -> Iterator[ServedModel]:
    for row in value["models"]:
        yield ServedModel(id=str(row.get("model") or row["name"]))
