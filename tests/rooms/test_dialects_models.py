"""What is asked of a model by its name: what it takes is written, what it refuses is left out and told."""

import json
from typing import Any

import msgspec
import pytest

from torana.chat import (
    AnswerSchema,
    ChatRequest,
    Document,
    Image,
    Message,
    Reasoning,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
)
from torana.dialects import claude, openai_models
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.thoughts import find_budget, find_effort, nearest_effort

ADAPTIVE = {"type": "adaptive", "display": "summarized"}
HELLO = (Message("user", (Text("Hello"),)),)
HAIKU_45, SONNET_46, OPUS_47, OPUS_5 = (
    "claude-haiku-4-5-20251001",
    "claude-sonnet-4-6",
    "claude-opus-4-7",
    "claude-opus-5",
)
SONNET_55, OPUS_55, HAIKU_55 = "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5"


def write(dialect: Dialect, chat: ChatRequest, model: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(dialect.write_request(chat, model, stream=False))
    return members


def asking(**members: Any) -> ChatRequest:
    return ChatRequest(messages=HELLO, **{"max_tokens": 20_000, **members})


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "said"),
    [
        (HAIKU_45, "low", {"type": "enabled", "budget_tokens": 4096}, None),
        (HAIKU_45, "max", {"type": "enabled", "budget_tokens": 10_000}, None),
        (HAIKU_45, "none", None, None),
        ("claude-3-5-sonnet-20241022", "low", None, None),
        (SONNET_46, "medium", ADAPTIVE, "medium"),
        (SONNET_46, "xhigh", ADAPTIVE, "high"),
        (SONNET_46, "none", None, None),
        (OPUS_47, "xhigh", ADAPTIVE, "xhigh"),
        (OPUS_47, "minimal", ADAPTIVE, "low"),
        (OPUS_5, "none", {"type": "disabled"}, None),
        (SONNET_55, "none", {"type": "between_tools"}, None),
        (HAIKU_55, "none", {"type": "disabled"}, None),
        (OPUS_55, "none", None, "low"),
        ("claude-fable-5-1", "high", ADAPTIVE, "high"),
        ("deepseek-chat", "high", {"type": "enabled", "budget_tokens": 10_000}, None),
    ],
)
def test_claude_thinks_as_much_as_it_is_asked_to_in_its_own_way(
    model: str, effort: Any, thinking: Any, said: str | None
) -> None:
    members = write(MESSAGES, asking(reasoning=Reasoning(effort)), model)

    assert (members.get("thinking"), members.get("output_config", {}).get("effort")) == (thinking, said)


@pytest.mark.parametrize(
    ("members", "budget", "max_tokens", "lost"),
    [
        ({"reasoning": Reasoning(budget_tokens=2000), "max_tokens": 4096}, 2000, 4096, ()),
        ({"reasoning": Reasoning(budget_tokens=9000), "max_tokens": 4096}, 4095, 4096, ()),
        ({"reasoning": Reasoning("high"), "max_tokens": 4096}, 2048, 4096, ()),
        ({"reasoning": Reasoning("high"), "max_tokens": 1500}, 1024, 1500, ()),
        ({"reasoning": Reasoning("high"), "max_tokens": 1024}, None, 1024, ("reasoning",)),
        ({"reasoning": Reasoning("low"), "max_tokens": None}, 4096, 8192, ()),
        ({"reasoning": Reasoning(), "max_tokens": None}, 8192, 12_288, ()),
    ],
)
def test_a_budget_of_thoughts_leaves_room_for_the_answer(
    members: Any, budget: int | None, max_tokens: int, lost: tuple[str, ...]
) -> None:
    chat = ChatRequest(messages=HELLO, **members)
    written = write(MESSAGES, chat, HAIKU_45)

    assert (written.get("thinking", {}).get("budget_tokens"), written["max_tokens"]) == (budget, max_tokens)
    assert MESSAGES.losses(chat, HAIKU_45) == lost


SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 4}


@pytest.mark.parametrize(
    ("model", "members", "left"),
    [
        (HAIKU_45, {}, {"temperature": 0.5, "top_k": 4}),
        ("claude-sonnet-4-20250514", {}, SAMPLING),
        (SONNET_46, {}, {"temperature": 0.5, "top_k": 4}),
        (SONNET_46, {"reasoning": Reasoning("low")}, {}),
        (OPUS_47, {}, {}),
        (OPUS_55, {}, {}),
        ("m", {}, SAMPLING),
        ("m", {"reasoning": Reasoning("low"), "top_p": 0.97}, {"top_p": 0.97}),
    ],
)
def test_claude_is_told_how_to_sample_only_where_it_listens(model: str, members: Any, left: dict[str, float]) -> None:
    chat = asking(**{**SAMPLING, **members})

    written = write(MESSAGES, chat, model)

    assert {name: written[name] for name in SAMPLING if name in written} == left
    assert MESSAGES.losses(chat, model) == tuple(sorted(set(SAMPLING) - set(left)))


def test_what_stands_at_its_default_is_no_loss() -> None:
    assert MESSAGES.losses(asking(temperature=1.0, top_p=1.0), OPUS_47) == ()
    assert CHAT_COMPLETIONS.losses(asking(temperature=1.0, top_p=1.0), "gpt-5.4") == ()


@pytest.mark.parametrize(
    ("model", "reasoning", "choice", "thinking", "lost"),
    [
        (SONNET_46, None, {"type": "tool", "name": "f"}, None, ()),
        (SONNET_46, Reasoning("high"), {"type": "tool", "name": "f"}, None, ("reasoning",)),
        (OPUS_5, None, {"type": "tool", "name": "f"}, {"type": "disabled"}, ()),
        (OPUS_55, None, None, None, ("tool_choice",)),
        (SONNET_55, Reasoning("high"), None, ADAPTIVE, ("tool_choice",)),
    ],
)
def test_a_tool_is_not_forced_on_claude_while_it_thinks(
    model: str, reasoning: Any, choice: Any, thinking: Any, lost: tuple[str, ...]
) -> None:
    chat = asking(tools=(Tool("f"),), tool_choice="f", reasoning=reasoning)

    written = write(MESSAGES, chat, model)

    assert (written.get("tool_choice"), written.get("thinking")) == (choice, thinking)
    assert MESSAGES.losses(chat, model) == lost


def test_within_a_budget_claude_goes_on_thinking_only_where_its_thoughts_came_back() -> None:
    call, result = ToolCall("c1", "f", "{}"), Message("user", (ToolResult("c1", (Text("1"),)),))
    proven = Thought("Hm.", "c2ln", dialect="messages")
    lost = asking(reasoning=Reasoning("low"))
    lost = msgspec.structs.replace(lost, messages=(*HELLO, Message("assistant", (call,)), result))
    kept = msgspec.structs.replace(lost, messages=(*HELLO, Message("assistant", (proven, call)), result))

    assert "thinking" not in write(MESSAGES, lost, HAIKU_45)
    assert MESSAGES.losses(lost, HAIKU_45) == ("reasoning",)
    assert write(MESSAGES, kept, HAIKU_45)["thinking"]["type"] == "enabled"
    # Where it thinks as it sees fit, nothing has to come back.
    assert write(MESSAGES, lost, SONNET_46)["thinking"] == ADAPTIVE


@pytest.mark.parametrize(("model", "turns"), [(HAIKU_45, 2), (SONNET_46, 3), (OPUS_55, 3)])
def test_a_begun_answer_is_carried_on_or_asked_for(model: str, turns: int) -> None:
    chat = msgspec.structs.replace(asking(), messages=(*HELLO, Message("assistant", (Text("Once "),))))

    messages = write(MESSAGES, chat, model)["messages"]

    assert (len(messages), messages[1]["content"]) == (turns, "Once")
    assert MESSAGES.losses(chat, model) == (("begun_answer",) if turns == 3 else ())


SHAPE = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}


def test_claude_is_given_schemas_in_the_part_of_the_language_that_it_takes() -> None:
    chat = asking(
        answer_schema=AnswerSchema("a", SHAPE, strict=True), tools=(Tool("f", parameters=SHAPE, strict=True),)
    )
    closed = {
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "{minimum: 1}"}},
        "required": ["n"],
        "additionalProperties": False,
    }

    written = write(MESSAGES, chat, SONNET_46)
    older = write(MESSAGES, chat, "claude-sonnet-4-20250514")

    assert written["output_config"] == {"format": {"type": "json_schema", "schema": closed}}
    assert (written["tools"][0]["input_schema"], written["tools"][0]["strict"]) == (closed, True)
    assert '"minimum":1' in older["system"]
    assert "output_config" not in older
    assert MESSAGES.losses(chat, "claude-sonnet-4-20250514") == ("answer_schema.strict", "tool.strict")


def test_of_many_cache_marks_the_last_four_are_written() -> None:
    texts = tuple(Text(str(number), cached=True) for number in range(6))
    chat = msgspec.structs.replace(asking(), messages=(Message("system", texts[:3]), Message("user", texts[3:])))

    written = write(MESSAGES, chat, SONNET_46)

    blocks = [*written["system"], *written["messages"][0]["content"]]
    assert ["cache_control" in block for block in blocks] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("model", "effort", "said"),
    [
        ("gpt-4.1", "low", None),
        ("gpt-4o-mini", "high", None),
        ("o3-mini", "minimal", "low"),
        ("gpt-5-mini", "none", "minimal"),
        ("gpt-5.1", "none", "none"),
        ("gpt-5.4", "max", "xhigh"),
        ("gpt-5.6-sol", "max", "max"),
        ("gpt-6-astra", "none", "low"),
        ("gpt-6.1-sol", "minimal", "low"),
        ("gpt-6-luna", "minimal", "none"),
        ("gpt-oss-120b", "xhigh", "high"),
        ("qwen3", "low", "low"),
    ],
)
@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_openais_models_are_asked_for_the_nearest_effort_they_know(
    dialect: Dialect, model: str, effort: Any, said: str | None
) -> None:
    chat = asking(reasoning=Reasoning(effort))

    written = write(dialect, chat, model)

    assert (written.get("reasoning_effort") or written.get("reasoning", {}).get("effort")) == said
    assert dialect.losses(chat, model) == (("reasoning",) if said is None else ())


@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(("budget", "said"), [(1024, "low"), (16_384, "high"), (0, "none")])
def test_who_names_a_budget_of_thoughts_is_thought_for(dialect: Dialect, budget: int, said: str) -> None:
    written = write(dialect, asking(reasoning=Reasoning("", budget)), "gpt-5.4")

    assert (written.get("reasoning_effort") or written["reasoning"]["effort"]) == said


@pytest.mark.parametrize(("model", "marked"), [("gpt-5.6-sol", True), ("gpt-5.5", False), ("qwen3", False)])
@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_openais_newer_models_are_told_where_a_cached_prompt_ends(dialect: Dialect, model: str, marked: bool) -> None:
    chat = ChatRequest(messages=(Message("user", (Text("a", cached=True), Text("b"))),))

    body = dialect.write_request(chat, model, stream=False)

    assert (b'"prompt_cache_breakpoint":{"mode":"explicit"}' in body) == marked
    again = dialect.read_request(body)[0].messages[0].parts
    assert [getattr(part, "cached", None) for part in again] == ([True, False] if marked else [False])


def test_responses_leave_nothing_with_the_provider_and_ask_for_sealed_thoughts() -> None:
    written = write(RESPONSES, asking(max_tokens=5, tools=(Tool("f"),)), "gpt-5.4")

    assert (written["store"], written["include"]) == (False, ["reasoning.encrypted_content"])
    assert written["max_output_tokens"] == 16
    assert written["tools"][0]["strict"] is False


def test_the_older_way_of_functions_is_understood() -> None:
    body = {
        "model": "m",
        "functions": [{"name": "f", "parameters": SHAPE}],
        "function_call": {"name": "f"},
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        ],
    }

    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(body).encode())
    chunks = CHAT_COMPLETIONS.read_answer(
        b'{"choices":[{"message":{"function_call":{"name":"f","arguments":"{}"}},"finish_reason":"function_call"}]}'
    )

    assert (chat.tools, chat.tool_choice) == ((Tool("f", parameters=SHAPE),), "f")
    assert chat.messages[1].parts == (ToolCall("f", "f", "{}"),)
    assert chat.messages[2].parts == (ToolResult("f", (Text("1"),)),)
    assert [chunk.tool_call.name for chunk in chunks if chunk.tool_call] == ["f"]
    assert json.loads(CHAT_COMPLETIONS.write_request(chat, "m", stream=False)) == body


def test_a_picture_of_a_result_stands_behind_the_results_where_they_are_text() -> None:
    results = (ToolResult("c1", (Image("image/png", "aQ=="),)), ToolResult("c2", (Text("2"),)))
    calls = Message("assistant", (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}")))
    chat = ChatRequest(messages=(*HELLO, calls, Message("user", (*results, Text("And?")))))

    rows = write(CHAT_COMPLETIONS, chat, "m")["messages"][2:]

    assert [row["role"] for row in rows] == ["tool", "tool", "user"]
    assert rows[0]["content"] == "The result is shown in the next message."
    assert [part["type"] for part in rows[2]["content"]] == ["image_url", "text"]


@pytest.mark.parametrize(
    ("document", "written"),
    [
        (Document("application/pdf", "JVBERi0="), {"filename": "document.pdf"}),
        (Document("application/pdf", "JVBERi0=", title="a.pdf"), {"filename": "a.pdf"}),
        (Document("application/pdf", "JVBERi0=", title="A.PDF"), {"filename": "A.PDF"}),
        (Document("application/pdf", "JVBERi0=", title="Report 1.2"), {"filename": "Report 1.2.pdf"}),
        (Document("text/plain", "aGk="), None),
        (Document("text/markdown", text="hi", title="a.md"), None),
    ],
)
def test_documents_of_text_are_texts_where_there_is_no_such_thing(document: Document, written: Any) -> None:
    chat = ChatRequest(messages=(Message("user", (document, Image(url="https://example.com/a.png"))),))

    part = write(CHAT_COMPLETIONS, chat, "m")["messages"][0]["content"][0]

    if written is None:
        assert part == {"type": "text", "text": "a.md\n\nhi" if document.title else "hi"}
    else:
        assert part["file"] == {**written, "file_data": "data:application/pdf;base64,JVBERi0="}


@pytest.mark.parametrize(
    ("name", "thinking", "takes_sampling"),
    [
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", "budget", True),
        ("anthropic.claude-opus-4-6-v1", "adaptive", True),
        ("claude-opus-4-8@20260528", "adaptive", False),
        ("anthropic/claude-4.7-opus", "adaptive", False),
        ("claude-mythos-preview", "adaptive", False),
        ("claude-sonnet-latest", "adaptive", False),
        ("claude-3-7-sonnet-latest", "budget", True),
        ("claude-3-opus-20240229", "none", True),
        ("claude-next", "budget", True),
    ],
)
def test_claude_is_known_by_every_clouds_spelling(name: str, thinking: str, takes_sampling: bool) -> None:
    traits = claude.traits_of(name)

    assert (traits.thinking, traits.takes_sampling) == (thinking, takes_sampling)


@pytest.mark.parametrize(
    ("name", "is_openais", "reasons"),
    [
        ("gpt-4o", True, False),
        ("gpt-5-chat-latest", True, False),
        ("openai/gpt-5.4-mini", True, True),
        ("o4-mini-2025-04-16", True, True),
        ("gpt-oss-20b", False, False),
        ("foo-o3", False, False),
        ("gpt-neo", False, False),
    ],
)
def test_openais_models_are_told_from_others(name: str, is_openais: bool, reasons: bool) -> None:
    traits = openai_models.traits_of(name)

    assert (traits.is_openais, traits.reasons) == (is_openais, reasons)


def test_efforts_and_budgets_convert() -> None:
    assert [find_effort(Reasoning(budget_tokens=n)) for n in (0, 1, 1024, 1025, 8192, 10**6)] == [
        "none", "minimal", "minimal", "low", "medium", "max",
    ]  # fmt: skip
    assert [find_budget(each) for each in (Reasoning(), Reasoning("none"), Reasoning("low", 5))] == [None, 0, 5]
    assert nearest_effort("xhigh", ("low", "medium", "high")) == "high"
    assert nearest_effort("minimal", ("none", "low")) == "none"


@pytest.mark.parametrize(("model", "sent"), [("gpt-4.1", 4), ("gpt-oss-120b", 6)])
def test_openais_own_models_get_as_many_stops_as_they_take(model: str, sent: int) -> None:
    chat = asking(stop=tuple("abcdef"))

    assert write(CHAT_COMPLETIONS, chat, model)["stop"] == list("abcdef")[:sent]
    assert CHAT_COMPLETIONS.losses(chat, model) == (("stop",) if sent < 6 else ())


@pytest.mark.parametrize(
    ("model", "turns"),
    [
        ("gemini-2.5-flash", 2),
        ("gemini-3.5-flash", 2),
        ("gemini-3.5-flash-lite", 3),
        ("gemini-3.6-flash", 3),
        ("gemini-3.8-flash", 3),
        ("gemini-4-argon", 3),
    ],
)
def test_gemini_carries_a_begun_answer_on_or_is_asked_to_go_on(model: str, turns: int) -> None:
    chat = ChatRequest(messages=(Message("user", (Text("Hi"),)), Message("assistant", (Text("Hello,"),))))

    contents = json.loads(GENERATE_CONTENT.write_request(chat, model, stream=False))["contents"]

    assert [each["role"] for each in contents] == ["user", "model", "user"][:turns]
    assert GENERATE_CONTENT.losses(chat, model) == (("begun_answer",) if turns == 3 else ())
