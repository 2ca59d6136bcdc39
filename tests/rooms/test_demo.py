import asyncio
import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.chat import AnswerSchema, ChatRequest, Chunk, FillIn, Message, Text, Tool
from torana.errors import BadSetting
from torana.providers.demo.demo import SMALL_CHARS, DemoProvider
from torana.providers.demo.embed import embed


def ask(text: str, **members: object) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", parts=(Text(text=text),)),), **members)  # type: ignore[arg-type]


async def collect(chat: ChatRequest) -> list[Chunk]:
    return [chunk async for batch in DemoProvider().answer(chat) for chunk in batch]


async def text_of(chat: ChatRequest) -> str:
    return "".join(chunk.text for chunk in await collect(chat))


async def test_an_answer_comes_in_several_batches_and_ends_with_counted_usage() -> None:
    batches = [batch async for batch in DemoProvider().answer(ask("What is a merge request?"))]

    last = batches[-1][-1]
    assert len(batches) > 2
    assert all(batches)
    assert [chunk.is_last for batch in batches for chunk in batch].count(True) == 1
    assert (last.is_last, last.finish) == (True, "stop")
    assert last.usage is not None
    assert last.usage.is_counted
    assert last.usage.input_tokens > 0
    assert last.usage.output_tokens > 0


async def test_the_same_request_gives_the_same_chunks() -> None:
    chat = ask("Explain:\n```python\ndef add(a, b):\n    return a + b\n```")

    assert await collect(chat) == await collect(chat)


async def test_a_text_answer_says_first_that_it_is_a_demo_and_how_to_get_a_model() -> None:
    text = await text_of(ask("Who wrote issue 12?"))

    assert text.startswith("This is torana's built-in demo")
    assert "Who wrote issue 12?" in text
    assert "ANTHROPIC_API_KEY" in text
    assert "OPENAI_BASE_URL" in text


async def test_code_in_the_question_is_described_by_what_can_be_seen() -> None:
    code = "import os\n\nclass Box:\n    def size(self):\n        return os.stat(self.path)\n"

    for question in (f"Explain:\n```python\n{code}```", f"<file>\nx = 1\n</file>\n<code>\n{code}</code>\nExplain it."):
        text = await text_of(ask(question))
        assert all(word in text for word in ("python", "5 lines", "`Box`", "`size`", "`os`"))


async def test_what_an_agent_says_of_its_surroundings_is_not_the_question() -> None:
    parts = ("<system-reminder>\nToday is Sunday.\n</system-reminder>", "Fix the bug")
    chat = ChatRequest(messages=(Message("user", tuple(map(Text, parts))),))

    assert "You asked: “Fix the bug”" in await text_of(chat)


async def test_a_react_answer_has_its_markers_and_the_demo_sentence() -> None:
    text = await text_of(ask("Question: Who wrote #12?\n\nSteps taken so far:\n<steps>\n</steps>", answer="react"))

    thought, _, answer = text.partition("\nFinal Answer: ")
    assert thought.startswith("Thought: ")
    assert answer.startswith("This is torana's built-in demo")
    assert "Who wrote #12?" in answer
    assert "Steps taken" not in answer


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('Classify. Answer like {"category": "x", "labels": ["a"]}.', {"category": "x", "labels": ["a"]}),
        ('Answer with an object with the keys "title" and "body".', {"title": "", "body": ""}),
        ("Answer as JSON with fields: title, body", {"title": "", "body": ""}),
        ("Anything at all", {}),
        ("", {}),
        ('{"a": ' * 3000, {}),
    ],
)
async def test_a_json_answer_is_one_object_with_the_keys_that_were_shown(prompt: str, expected: object) -> None:
    assert json.loads(await text_of(ask(prompt, answer="json"))) == expected


async def test_a_json_answer_follows_a_schema_that_came_along() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    assert json.loads(await text_of(ask("go", answer_schema=AnswerSchema("n", schema)))) == {"n": 1}


@pytest.mark.parametrize(
    ("language", "instruction", "expected"),
    [
        ("python", "Write a function that adds two numbers", "def add(a, b):\n    return a + b\n"),
        ("go", "serve /healthz", "func serveHealthz() {\n"),
        ("ruby", "a function called `total` that sums a list", "def total(numbers)\n  total = 0\n"),
        ("typescript", "the fibonacci numbers", "function fibonacci(n: number): number {\n"),
        ("rust", "check if a number is even", "fn is_even(number: i64) -> bool {\n    number % 2 == 0\n}\n"),
        ("sql", "all users", "FROM users\n"),
        ("", "print hello world in Ruby", 'puts "Hello, world!"\nend\n'),
    ],
)
async def test_a_generation_is_plain_code_for_the_instruction(language: str, instruction: str, expected: str) -> None:
    fill_in = FillIn(prefix="", language=language) if language else None
    prompt = f"<before_cursor>\n\n</before_cursor>\n\nInstruction: {instruction}"

    text = await text_of(ask(prompt, answer="code", stop=("</new_code>",), fill_in=fill_in))

    assert expected in text
    assert not any(mark in text for mark in ("```", "<", "demo")) or language == "typescript"


async def test_generated_code_begins_on_a_line_of_its_own() -> None:
    fill_in = FillIn(prefix="x = 1", file_name="a.py")

    text = await text_of(ask("Instruction: add", answer="code", stop=("</new_code>",), fill_in=fill_in))

    assert text.startswith("\n")


async def test_a_completion_carries_no_label() -> None:
    fill_in = FillIn(prefix="def hello_world", file_name="test.rb")

    text = await text_of(ask("Complete.", answer="code", fill_in=fill_in))

    assert text == '\n  puts "Hello, world!"\nend\n'


async def test_several_choices_differ_and_only_the_very_last_chunk_is_last() -> None:
    fill_in = FillIn(prefix="for i in range(", file_name="a.py")

    chunks = await collect(ChatRequest(messages=(), answer="code", fill_in=fill_in, choices=3))

    texts = {choice: "".join(c.text for c in chunks if c.choice == choice) for choice in range(3)}
    assert len(set(texts.values())) == 3
    assert [chunk.is_last for chunk in chunks].index(True) == len(chunks) - 1
    assert sum(chunk.finish is not None for chunk in chunks) == 3


@pytest.mark.parametrize(("max_tokens", "finish"), [(0, "length"), (1, "length"), (8, "length"), (4000, "stop")])
async def test_max_tokens_are_kept(max_tokens: int, finish: str) -> None:
    chunks = await collect(ask("Ready?", max_tokens=max_tokens))

    usage = chunks[-1].usage
    assert usage is not None
    assert usage.output_tokens <= max_tokens
    assert chunks[-1].finish == finish


async def test_a_letter_is_never_cut_in_two() -> None:
    for max_tokens in range(20, 40):
        text = await text_of(ask("日本語" * 10, max_tokens=max_tokens))
        assert "\ufffd" not in text


async def test_what_stands_behind_a_stop_text_is_not_said() -> None:
    chunks = await collect(ask("Ready?", stop=("not an AI", "built-in", "")))

    assert "".join(chunk.text for chunk in chunks) == "This is torana's "
    assert chunks[-1].finish == "stop_sequence"


LOOKUP = Tool(
    name="look_up",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "count": {"type": "integer", "minimum": 5},
            "kind": {"enum": ["issue", "epic"]},
            "where": {"$ref": "#/$defs/where"},
            "note": {"type": "string"},
        },
        "required": ["query", "count", "kind", "where"],
        "$defs": {"where": {"type": "object", "properties": {"all": {"type": "boolean"}}}},
    },
)


@pytest.mark.parametrize("tool_choice", ["any", "look_up"])
async def test_a_demanded_tool_is_called_with_arguments_of_its_schema(tool_choice: str) -> None:
    chunks = await collect(ask("Go", tools=(LOOKUP,), tool_choice=tool_choice))

    pieces = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    assert (pieces[0].name, chunks[-1].finish) == ("look_up", "tool_calls")
    arguments = json.loads("".join(piece.arguments for piece in pieces))
    assert arguments == {"query": "demo", "count": 5, "kind": "issue", "where": {"all": False}}


ARRAYS: dict[str, object] = {"type": "string"}
for _ in range(4):
    ARRAYS = {"type": "array", "minItems": 10, "items": ARRAYS}
LOOPING = {"type": "object", "properties": {f"p{number}": {"$ref": "#/$defs/x"} for number in range(12)}}
REPEATING = {"type": "array", "minItems": 10, "items": {"default": "x" * 15_000}}


@pytest.mark.parametrize(
    "schema",
    [{"properties": {"a": ARRAYS}}, LOOPING | {"$defs": {"x": LOOPING}}, {"properties": {"a": REPEATING}}],
)
async def test_a_schema_of_a_few_lines_makes_no_arguments_without_an_end(schema: dict[str, object]) -> None:
    chunks = await collect(ask("Go", tools=(Tool("t", parameters=schema),), tool_choice="any"))

    arguments = "".join(chunk.tool_call.arguments for chunk in chunks if chunk.tool_call)
    assert 100 < len(arguments) < 50_000
    json.loads(arguments)


@pytest.mark.parametrize("tool_choice", ["auto", "none"])
async def test_without_a_demand_no_tool_is_called(tool_choice: str) -> None:
    chunks = await collect(ask("Go", tools=(LOOKUP,), tool_choice=tool_choice))

    assert not any(chunk.tool_call for chunk in chunks)


async def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    tool = Tool(name="t", parameters={"properties": {"child": {"$ref": "#"}}, "required": ["child"]})

    chunks = await collect(ask("Go", tools=(tool,), tool_choice="any"))

    assert chunks[-1].finish == "tool_calls"


async def test_others_have_their_turn_while_a_large_request_is_answered() -> None:
    code = "def count(items):\n    return len(items)\n\n" * 2500
    chat = ChatRequest(
        messages=(), answer="code", fill_in=FillIn(prefix=code, suffix=code, context=code * 5, file_name="a.py")
    )
    assert len(code) > SMALL_CHARS
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    text = await text_of(chat)
    others.cancel()

    assert text.strip()
    assert turns > 3


def test_an_unknown_engine_stops_the_start() -> None:
    with pytest.raises(BadSetting, match="AIGW_DEMO__ENGINE"):
        DemoProvider("gpt")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from(["text", "code", "json", "react"]))
def test_any_message_gets_an_answer_that_ends(text: str, form: str) -> None:
    chunks = asyncio.run(collect(ask(text, answer=form)))

    assert chunks[-1].is_last
    if form == "json":
        assert isinstance(json.loads("".join(chunk.text for chunk in chunks)), dict)


@pytest.mark.parametrize("form", ["text", "react", "code"])
def test_a_wall_of_backticks_holds_nobody_up(form: str) -> None:
    before = time.process_time()
    asyncio.run(collect(ask("`" * 100_000 + "?", answer=form)))

    assert time.process_time() - before < 0.2


def cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_similar_texts_have_similar_vectors() -> None:
    text, near, far = (
        embed(words, 256)
        for words in ("read the file and count lines", "count the lines of a file", "purple elephants dance")
    )

    assert cosine(text, near) > cosine(text, far) + 0.2


@pytest.mark.parametrize("dimensions", [1, 2, 256, 3072])
@pytest.mark.parametrize("text", ["", "x", "日本語", "a b " * 10_000])
def test_an_embedding_is_a_unit_vector_and_always_the_same(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)

    assert len(vector) == dimensions
    assert math.isclose(sum(value * value for value in vector), 1.0)
    assert vector == embed(text, dimensions)
