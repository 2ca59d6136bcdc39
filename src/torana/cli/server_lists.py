"""What a model server says that it serves: its own list, asked under every address that could be meant.

Source: OpenAI API reference, "List models"; Anthropic API reference, "List Models"; Ollama docs, "List Local Models";
vLLM (`max_model_len`), OpenRouter (`context_length`), Groq (`context_window`), Mistral (`max_context_length`) and
llama.cpp server (`meta.n_ctx_train`, what the model was trained for, and in `/props` what it was started with) add
their limits.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torana.transport import Fetcher, FetchFailed

T = TypeVar("T")

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
    is_models_own: bool = False
    """The limit is the model's, and the server may have been started with less."""
    is_anthropics: bool = False
    """Told as Anthropic tells of its models, so that it is asked in `messages`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerList:
    """What was found; `models` is empty where no address gave a list."""

    base_url: str = ""
    """What belongs into a catalogue, without the final /v1."""
    client_url: str = ""
    """What a client that brings its own server must name: with the /v1 that is called."""
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
    if found and any(model.is_models_own for model in found):
        attempt, started_with = await _ask(fetcher, f"{root}/props", headers, _read_props)
        attempts.append(attempt)
        found = tuple(_cap(model, *(started_with or ())) for model in found)
    if not found:
        attempt, models = await _ask(fetcher, f"{root}/api/tags", headers, _read_ollama)
        attempts.append(attempt)
        if models is not None:
            found, base, client = models, root, f"{root}/v1"
    return ServerList(base_url=base, client_url=client, models=found or (), attempts=tuple(attempts))


async def _ask(
    fetcher: Fetcher, url: str, headers: Mapping[str, str], read: Callable[[Any], Iterable[T]]
) -> tuple[Attempt, tuple[T, ...] | None]:
    try:
        answer = await fetcher.fetch(url, headers=headers, timeout_s=TIMEOUT_S, limit_bytes=MAX_BYTES)
    except FetchFailed as error:
        return Attempt(url=url, problem=str(error)), None
    if answer.status != 200:
        return Attempt(url=url, status=answer.status, problem=f"status {answer.status}"), None
    try:
        found = tuple(read(json.loads(answer.body)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return Attempt(url=url, status=200, problem="no list of models"), None
    return Attempt(url=url, status=200), found


def _read_openai(value: Any) -> Iterator[ServedModel]:
    """Together's list stands alone, without an object around it."""
    for row in value if isinstance(value, list) else value["data"]:
        if not row.get("id"):
            continue
        meta = row.get("meta") or {}
        limits = (
            row.get("max_model_len"),
            row.get("context_length"),
            row.get("max_input_tokens"),
            row.get("context_window"),
            row.get("max_context_length"),
            meta.get("n_ctx_train"),
        )
        known = [(each, place) for place, each in enumerate(limits) if isinstance(each, int) and each > 0]
        yield ServedModel(
            id=str(row["id"]),
            title=str(row.get("display_name") or row.get("name") or ""),
            input_limit=known[0][0] if known else 0,
            is_models_own=bool(known) and known[0][1] == len(limits) - 1,
            is_anthropics=row.get("type") == "model" and "object" not in row,
        )


def _read_props(value: Any) -> Iterator[int]:
    yield int(value["default_generation_settings"]["n_ctx"])


def _cap(model: ServedModel, started_with: int = 0) -> ServedModel:
    if model.is_models_own and 0 < started_with < model.input_limit:
        return replace(model, input_limit=started_with)
    return model


def _read_ollama(value: Any) -> Iterator[ServedModel]:
    for row in value["models"]:
        yield ServedModel(id=str(row.get("model") or row["name"]))
