"""Vendors that follow OpenAI, each in its own way: what a row's quirks do to a request, and what answers do."""

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.golden.compare import read
from tests.support import vendor_answers as vendors

from torana.catalog.load import load_catalogue
from torana.catalog.model_records import Quirks
from torana.chat import (
    AnswerSchema,
    ChatRequest,
    Chunk,
    FillIn,
    Image,
    Message,
    Reasoning,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
)
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.collecting import collect
from torana.dialects.dialect import Dialect
from torana.dialects.manners import chat_completions_of, text_completions_of
from torana.dialects.messages import MESSAGES
from torana.dialects.openai_style import read_error
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.errors import (
    PromptTooLong,
    ProviderLimited,
    ProviderOverloaded,
    ProviderRefused,
    ProviderRefusedKey,
    ProviderSpent,
)

ROWS = load_catalogue().providers
HI = (Message("user", (Text("Hi."),)),)


def speak(provider: str) -> Dialect:
    return chat_completions_of(ROWS[provider].quirks)


def body(dialect: Dialect, chat: ChatRequest, model: str = "m") -> Any:
    return json.loads(dialect.write_request(chat, model, stream=True))


def read_stream(dialect: Dialect, events: list[bytes]) -> list[Chunk]:
    reader = dialect.read_events()
    return [chunk for event in events for chunk in reader.feed(event)] + reader.close()


# Requests


def test_a_row_without_quirks_speaks_the_dialect_itself() -> None:
    chat = ChatRequest(messages=HI)
    assert speak("openai").passes_on
    assert body(chat_completions_of(Quirks()), chat) == body(CHAT_COMPLETIONS, chat)
    assert body(text_completions_of(Quirks()), chat) == body(TEXT_COMPLETIONS, chat)


def test_mistral_gets_nothing_that_it_refuses() -> None:
    chat = ChatRequest(
        messages=(
            *HI,
            Message("assistant", (Thought("Hm.", dialect="chat_completions"), ToolCall("call_1", "look", "{}"))),
            Message("user", (ToolResult("call_1", (Text("x"),)), ToolResult("abcDEF123", (Text("y"),)))),
        ),
        tools=(Tool("look", strict=True),),
        tool_choice="any",
        user="user-1",
        reasoning=Reasoning("high"),
        extra={"store": True, "metadata": {"a": "b"}, "safe_prompt": True},
        extra_dialect="chat_completions",
    )

    sent = body(speak("mistral"), chat)

    assert {"user", "stream_options", "reasoning_effort", "store", "metadata"}.isdisjoint(sent)
    assert (sent["tool_choice"], sent["safe_prompt"]) == ("any", True)
    call = sent["messages"][1]["tool_calls"][0]["id"]
    assert (len(call), call.isalnum()) == (9, True)
    assert [row["tool_call_id"] for row in sent["messages"][2:]] == [call, "abcDEF123"]
    assert "reasoning_content" not in sent["messages"][1]
    assert speak("mistral").losses(chat, "m") == ("reasoning", "thought")
    assert not speak("mistral").tells_usage_when_asked


@pytest.mark.parametrize(
    ("provider", "name"),
    [("azure", "max_completion_tokens"), ("groq", "max_completion_tokens"), ("deepseek", "max_tokens")],
)
def test_each_vendor_gets_the_limit_by_its_own_name(provider: str, name: str) -> None:
    theirs = ChatRequest(
        messages=HI, max_tokens=5, extra={"max_completion_tokens": 5}, extra_dialect="chat_completions"
    )

    for chat in (ChatRequest(messages=HI, max_tokens=5), theirs):
        sent = body(speak(provider), chat)
        assert {key: value for key, value in sent.items() if key.startswith("max_")} == {name: 5}


def test_deepseek_is_given_a_schema_in_words_and_a_switch_for_thinking() -> None:
    schema = AnswerSchema("shape", {"type": "object"}, strict=True)
    chat = ChatRequest(messages=HI, answer_schema=schema, reasoning=Reasoning("high"))

    sent = body(speak("deepseek"), chat)

    assert sent["response_format"] == {"type": "json_object"}
    assert '{"type":"object"}' in sent["messages"][0]["content"]
    assert (sent["thinking"], sent["reasoning_effort"]) == ({"type": "enabled"}, "high")
    assert body(speak("deepseek"), ChatRequest(messages=HI, reasoning=Reasoning("max")))["reasoning_effort"] == "max"
    assert body(speak("deepseek"), ChatRequest(messages=HI, reasoning=Reasoning("none")))["thinking"] == {
        "type": "disabled"
    }
    assert speak("deepseek").losses(chat, "m") == ("answer_schema.strict",)


@pytest.mark.parametrize("choice", ["any", "look"])
def test_deepseek_is_kept_from_thinking_where_a_tool_is_forced_on_it(choice: str) -> None:
    forced = ChatRequest(messages=HI, tools=(Tool("look"),), tool_choice=choice)
    asked = ChatRequest(messages=HI, tools=(Tool("look"),), tool_choice=choice, reasoning=Reasoning("high"))

    for chat in (forced, asked):
        sent = body(speak("deepseek"), chat)
        assert (sent["thinking"], "reasoning_effort" in sent) == ({"type": "disabled"}, False)
    assert speak("deepseek").losses(forced, "m") == ()
    assert speak("deepseek").losses(asked, "m") == ("reasoning",)
    assert "thinking" not in body(speak("deepseek"), ChatRequest(messages=HI, tools=(Tool("look"),)))


def test_deepseek_is_kept_from_thinking_whatever_a_client_says_of_it_in_another_format() -> None:
    """Claude Code names an effort with every request, and no `thinking` where it forces a tool."""
    asked = {
        "model": "m",
        "max_tokens": 9000,
        "messages": [{"role": "user", "content": "Hi."}],
        "tools": [{"name": "look", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "look"},
        "output_config": {"effort": "medium"},
    }
    chat, _ = MESSAGES.read_request(json.dumps(asked).encode())
    switched = replace(chat, extra={"thinking": {"type": "enabled"}}, extra_dialect="")

    assert body(speak("deepseek"), chat)["thinking"] == {"type": "disabled"}
    assert body(speak("deepseek"), switched)["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize(
    ("provider", "model", "effort"),
    [
        ("ollama", "qwen3:8b", "none"),
        ("hosted_vllm", "Qwen/Qwen3-8B", "none"),
        ("groq", "qwen/qwen3.6-27b", "none"),
        ("groq", "openai/gpt-oss-120b", "low"),
        ("hosted_vllm", "openai/gpt-oss-20b", "low"),
        ("together_ai", "m", "low"),
    ],
)
def test_who_is_not_to_think_is_kept_from_it_where_there_is_a_word_for_it(
    provider: str, model: str, effort: str
) -> None:
    kept = ChatRequest(messages=HI, reasoning=Reasoning("none"))
    asked = ChatRequest(messages=HI, reasoning=Reasoning("high"))

    assert body(speak(provider), kept, model)["reasoning_effort"] == effort
    assert body(speak(provider), asked, model)["reasoning_effort"] == "high"
    assert "reasoning_effort" not in body(speak(provider), ChatRequest(messages=HI), model)


@pytest.mark.parametrize(
    ("model", "asked", "effort"),
    [
        ("mistral-small-latest", Reasoning("low"), "high"),
        ("mistral-medium-3-5", Reasoning("", 2000), "high"),
        ("mistral-medium-2604", Reasoning(), "high"),
        ("mistral-small-2603", Reasoning("none"), "none"),
        ("mistral-small-latest", None, None),
        ("mistral-large-latest", Reasoning("high"), None),
        ("devstral-small-2512", Reasoning("high"), None),
    ],
)
def test_mistrals_models_that_think_when_asked_are_asked(
    model: str, asked: Reasoning | None, effort: str | None
) -> None:
    chat = ChatRequest(messages=HI, reasoning=asked)

    assert body(speak("mistral"), chat, model).get("reasoning_effort") == effort
    is_lost = asked is not None and effort is None
    assert speak("mistral").losses(chat, model) == (("reasoning",) if is_lost else ())


def test_a_begun_answer_is_marked_for_mistral() -> None:
    chat = ChatRequest(messages=(*HI, Message("assistant", (Text("Hello,"),))))
    called = (Message("assistant", (ToolCall("abcDEF123", "look", "{}"),)),)

    assert body(speak("mistral"), chat)["messages"][-1] == {"role": "assistant", "content": "Hello,", "prefix": True}
    assert "prefix" not in body(speak("groq"), chat)["messages"][-1]
    assert "prefix" not in body(speak("mistral"), ChatRequest(messages=HI + called))["messages"][-1]


def test_what_one_vendor_is_told_of_a_clients_messages_is_not_told_to_the_next() -> None:
    begun = {"role": "assistant", "content": [{"type": "text", "text": "Hello,"}], "reasoning_content": "Hm."}
    asked = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}, begun]}
    chat, _ = CHAT_COMPLETIONS.read_request(json.dumps(asked).encode())

    for marked in (Quirks(begun_answer="prefix"), Quirks(thoughts="reasoning")):
        body(chat_completions_of(marked), chat)

    assert body(speak("deepseek"), chat)["messages"] == asked["messages"]


@pytest.mark.parametrize("provider", ["mistral", "azure"])
def test_a_turn_of_which_only_thoughts_are_left_is_left_out_where_these_are(provider: str) -> None:
    """An answer that was cut; "Assistant message must have either content or tool_calls"."""
    cut = Message("assistant", (Thought("Hm.", "proof", dialect="messages"),))
    chat = ChatRequest(messages=(*HI, cut, *HI))

    assert [row["role"] for row in body(speak(provider), chat)["messages"]] == ["user", "user"]
    assert speak(provider).losses(chat, "m") == ("thought",)


def test_a_model_that_carries_on_no_answer_is_asked_to_go_on() -> None:
    chat = ChatRequest(messages=(*HI, Message("assistant", (Text("Hello,"),))), carries_on=False)

    rows = body(speak("hosted_vllm"), chat)["messages"]

    assert [row["role"] for row in rows] == ["user", "assistant", "user"]


def test_a_client_of_openais_format_finds_its_limit_and_seed_at_mistral() -> None:
    extra = {"max_completion_tokens": 5, "seed": 7}
    chat = ChatRequest(messages=HI, max_tokens=5, extra=extra, extra_dialect="chat_completions")

    sent = body(speak("mistral"), chat)

    assert (sent["max_tokens"], sent["random_seed"]) == (5, 7)
    assert {"max_completion_tokens", "seed"}.isdisjoint(sent)


@pytest.mark.parametrize(
    ("provider", "member"),
    [("deepseek", "reasoning_content"), ("openrouter", "reasoning"), ("hosted_vllm", "reasoning"), ("azure", None)],
)
def test_thoughts_go_back_under_the_name_that_the_vendor_gave_them(provider: str, member: str | None) -> None:
    thought = Thought("Hm.", dialect="chat_completions")
    chat = ChatRequest(messages=(*HI, Message("assistant", (thought, Text("Yes."))), *HI))

    row = body(speak(provider), chat)["messages"][1]

    assert {name: row[name] for name in row.keys() & {"reasoning_content", "reasoning"}} == (
        {member: "Hm."} if member else {}
    )


def test_top_k_goes_to_those_who_know_it() -> None:
    chat = ChatRequest(messages=HI, top_k=7)

    assert body(speak("together_ai"), chat)["top_k"] == 7
    assert speak("together_ai").losses(chat, "m") == ()
    assert "top_k" not in body(speak("groq"), chat)
    assert speak("groq").losses(chat, "m") == ("top_k",)


def test_a_vendor_that_cannot_force_one_tool_is_offered_that_one_alone() -> None:
    dialect = chat_completions_of(Quirks(named_tool=False, strict_tools=False, parallel_tools=False))
    chat = ChatRequest(
        messages=HI, tools=(Tool("a", strict=True), Tool("b")), tool_choice="b", parallel_tool_calls=False
    )

    sent = body(dialect, chat)

    assert [row["function"]["name"] for row in sent["tools"]] == ["b"]
    assert sent["tool_choice"] == "required"
    assert "parallel_tool_calls" not in sent
    assert dialect.losses(chat, "m") == ("parallel_tool_calls", "tool.strict")
    never = chat_completions_of(Quirks(forced_tool="never"))
    assert ("tool_choice" in body(never, chat), "tool_choice" in never.losses(chat, "m")) == (False, True)


@pytest.mark.parametrize("provider", sorted(name for name, row in ROWS.items() if row.dialect == "chat_completions"))
def test_everything_our_words_carry_is_written_for_every_vendor(provider: str) -> None:
    """What a vendor's row leaves out is named, and the rest can be read again."""
    chat = msgspec.json.decode(read("full.json"), type=ChatRequest)

    again, model = CHAT_COMPLETIONS.read_request(speak(provider).write_request(chat, "the-model", stream=True))

    lost = speak(provider).losses(chat, "the-model")
    assert model == "the-model"
    assert (again.answer_schema is None) == (not ROWS[provider].quirks.answer_schema)
    assert (again.top_k is None) == ("top_k" in lost)
    assert again.user == (chat.user if ROWS[provider].quirks.user else "")
    assert [tool.name for tool in again.tools] == [tool.name for tool in chat.tools]
    assert sum(isinstance(part, Image) for message in again.messages for part in message.parts) == 3


@pytest.mark.parametrize("provider", ["mistral", "deepseek"])
def test_nobody_is_asked_to_think_about_a_text_that_is_carried_on(provider: str) -> None:
    chat = ChatRequest(messages=HI, reasoning=Reasoning("high"))
    dialect = text_completions_of(ROWS[provider].quirks)

    assert body(dialect, chat).keys() <= {"model", "prompt", "stream", "stream_options"}
    assert dialect.losses(chat, "m") == ("reasoning",)


def test_code_around_a_cursor_goes_to_mistral_apart_and_to_fireworks_between_markers() -> None:
    fill_in = FillIn(prefix="def f(", suffix="):\n", context="# other.py", marked_prompt="[SUFFIX]):\n[PREFIX]def f(")
    chat = ChatRequest(messages=HI, fill_in=fill_in, max_tokens=9, user="user-1")
    apart, marked = (text_completions_of(ROWS[name].quirks) for name in ("mistral", "fireworks_ai"))

    to_mistral, to_fireworks = body(apart, chat), body(marked, chat)

    assert (to_mistral["prompt"], to_mistral["suffix"]) == ("# other.py\ndef f(", "):\n")
    assert {"user", "stream_options"}.isdisjoint(to_mistral)
    assert to_fireworks["prompt"] == "[SUFFIX]):\n[PREFIX]def f("
    assert ("suffix" in to_fireworks, to_fireworks["user"]) == (False, "user-1")


# Answers


@pytest.mark.parametrize(
    ("events", "reasoning", "cached"),
    [
        (vendors.azure_events(), "", 0),
        (vendors.groq_events(), "Hm.", 0),
        (vendors.deepseek_events(), "Hm.", 20),
        (vendors.openrouter_events(), "Hm.", 0),
        (vendors.mistral_thinking_events(), "Hm.", 0),
    ],
    ids=["azure", "groq", "deepseek", "openrouter", "mistral"],
)
def test_each_vendors_stream_is_read_as_what_it_says(events: list[bytes], reasoning: str, cached: int) -> None:
    chunks = read_stream(CHAT_COMPLETIONS, events)

    (choice,) = collect(chunks).choices
    assert (choice.text, choice.reasoning, choice.finish) == ("Hello", reasoning, "stop")
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (25, 7, cached)


def test_calls_that_all_have_the_number_0_are_told_apart_by_their_ids() -> None:
    (choice,) = collect(read_stream(CHAT_COMPLETIONS, vendors.ollama_calls_events())).choices

    assert [(call.id, call.name, call.arguments) for call in choice.tool_calls] == [
        ("call_first", "first", '{"n": 1}'),
        ("call_second", "second", '{"n": 2}'),
    ]
    assert choice.finish == "tool_calls"


def test_a_fill_in_with_the_shape_of_a_chat_is_read() -> None:
    chunks = read_stream(text_completions_of(ROWS["mistral"].quirks), vendors.mistral_fim_events())
    whole = {
        "choices": [{"index": 0, "message": {"content": "pass"}, "finish_reason": "stop"}],
        "usage": vendors.usage(),
    }

    assert collect(chunks).choices[0].text == "pass"
    assert collect(TEXT_COMPLETIONS.read_answer(json.dumps(whole).encode())).choices[0].text == "pass"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (vendors.openrouter_broken_events(), 502),
        (vendors.deepseek_starved_events(), 503),
        (vendors.vllm_broken_events(), 500),
        ([vendors.piece({"content": "Half"}), vendors.piece({}, "error")], 502),
        ([vendors.piece({"content": "Half"}), vendors.piece({}, "abort"), vendors.DONE], 502),
        (
            [
                vendors.piece({"content": "Half"}),
                vendors.piece({}, "stop", x_groq={"id": "r", "error": "over_capacity"}),
            ],
            500,
        ),
    ],
    ids=["openrouter", "deepseek", "vllm", "error", "abort", "groq"],
)
def test_an_answer_that_was_given_up_is_a_failure(events: list[bytes], status: int) -> None:
    reader = CHAT_COMPLETIONS.read_events()

    chunks = reader.feed(b"".join(events))

    assert "".join(chunk.text for chunk in chunks) == "Half"
    assert not any(chunk.is_last for chunk in chunks)
    with pytest.raises(ProviderOverloaded) as caught:
        reader.close()
    assert caught.value.upstream_code == status


@pytest.mark.parametrize(
    ("status", "told", "error", "kind"),
    [
        (
            402,
            {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
            ProviderSpent,
            "invalid_request_error",
        ),
        (412, vendors.FIREWORKS_SUSPENDED, ProviderSpent, "PRECONDITION_FAILED"),
        (400, vendors.LITELLM_BUDGET, ProviderSpent, "budget_exceeded"),
        (403, vendors.OPENROUTER_MODERATED, ProviderRefused, "content_flagged"),
        (403, {"error": {"code": 403, "message": "Key limit"}}, ProviderRefusedKey, ""),
        (400, vendors.OPENROUTER_TOO_LONG, PromptTooLong, ""),
        (400, vendors.WATSONX_INVALID, ProviderRefused, "invalid_request_entity"),
        (429, vendors.MINIMAX_SPENT, ProviderSpent, "insufficient_balance_error"),
        (500, {"error": {**vendors.MINIMAX_SPENT["error"], "type": "api_error"}}, ProviderSpent, "api_error"),
        (429, vendors.MOONSHOT_SPENT, ProviderSpent, "exceeded_current_quota_error"),
        (429, vendors.ZAI_SPENT, ProviderSpent, "1113"),
        (400, vendors.DASHSCOPE_SPENT, ProviderSpent, "Arrearage"),
        (403, vendors.XAI_SPENT, ProviderSpent, vendors.XAI_SPENT["code"]),
        (429, vendors.XAI_SPENT, ProviderSpent, vendors.XAI_SPENT["code"]),
        (424, vendors.TGI_FAILED, ProviderOverloaded, ""),
        (403, vendors.XAI_UNSAFE, ProviderRefused, "content_flagged"),
        (400, vendors.AZURE_FILTERED, ProviderRefused, "content_filter"),
        (401, vendors.AZURE_UNAUTHORIZED, ProviderRefusedKey, ""),
        (400, vendors.MISTRAL_CALL_ID, ProviderRefused, "3280"),
        (422, vendors.MISTRAL_EXTRA, ProviderRefused, "invalid_request_error"),
        (422, {"detail": [{"type": "missing"}]}, ProviderRefused, ""),
        (503, vendors.LLAMA_CPP_LOADING, ProviderOverloaded, "unavailable_error"),
        (498, {"error": {"message": "flex capacity"}}, ProviderOverloaded, ""),
        (
            429,
            {"error": {"message": "slow", "type": "tokens", "code": "rate_limit_exceeded"}},
            ProviderLimited,
            "rate_limit_exceeded",
        ),
    ],
)
def test_each_vendors_refusal_is_what_it_means(
    status: int, told: dict[str, Any], error: type[ProviderRefused], kind: str
) -> None:
    refused = read_error(status, json.dumps(told).encode())

    assert (type(refused), refused.upstream_code, refused.kind) == (error, status, kind)
    assert str(refused) != ""
