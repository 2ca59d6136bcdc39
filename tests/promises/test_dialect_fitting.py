"""What one vendor's clients may write and another's model refuses is made fit on the way, and comes back as it was."""

import json
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_dialect_routes import CHAT, CLAUDE, GPT, HI, MESSAGES, RESPONSES, ask, data_of
from tests.promises.test_google import gemini_env
from tests.support.gateway import RunningGateway
from tests.support.saying import ToolUse, event

__all__ = ["gemini_env"]

MAGIC, DOTTED = "21st_magic_component_builder", "files.read/all"
FITTED_MAGIC, FITTED_DOTTED = "_21st_magic_component_builder_4aec9cc1", "files_read_all_c4acc06c"


def calling(name: str) -> list[Any]:
    """A conversation in which a tool was called, as chat completions tell it."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]


@pytest.mark.parametrize("model", [CLAUDE, GPT, "gemini_3_8_flash"])
async def test_a_schema_that_is_none_is_its_models_own_affair(
    start_gateway: StartGateway, gemini_env: dict[str, str], model: str
) -> None:
    gateway = await start_gateway(env=gemini_env)
    odd = {"type": "string", "format": ["date"], "minLength": 1, "description": [1], "enum": 5}
    schema = {"type": "object", "properties": {"a": odd}, "required": [{}], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    tool = {"name": "f", "input_schema": schema, "strict": True}

    asked = await ask(gateway, CHAT, model, messages=HI, response_format=form)
    offered = await ask(gateway, MESSAGES, model, messages=HI, tools=[tool])

    assert (asked.status, offered.status) == (200, 200)
    assert len(gateway.provider.requests) == 2


@pytest.mark.parametrize(("mode", "choice"), [("required", {"type": "any"}), ("auto", None)])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_of_tools_that_may_not_be_called_this_time_another_vendor_hears_nothing(
    gateway: RunningGateway, path: str, mode: str, choice: Any
) -> None:
    kinds: list[Any] = [("function", "look"), ("custom", "note"), ("function", "delete")]
    allowed: Any = {"mode": mode, "tools": [tell_tool(path, *kind) for kind in kinds[:2]]}
    asked: dict[str, Any] = {
        "tools": [tell_tool(path, *kind) for kind in kinds],
        "tool_choice": {"type": "allowed_tools", **({"allowed_tools": allowed} if path == CHAT else allowed)},
    }

    answer = await ask(gateway, path, CLAUDE, **{"messages" if path == CHAT else "input": HI}, **asked)

    sent = gateway.provider.requests[-1].json()
    assert answer.status == 200
    assert [tool["name"] for tool in sent["tools"]] == ["look", "note"]
    assert sent.get("tool_choice") == choice


def tell_tool(path: str, kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, kind: {"name": name}} if path == CHAT else {"type": kind, "name": name}


@pytest.mark.parametrize("stream", [False, True])
async def test_gemini_is_told_of_no_tool_whose_name_begins_with_a_digit(
    start_gateway: StartGateway, gemini_env: dict[str, str], stream: bool
) -> None:
    gateway = await start_gateway(env=gemini_env)
    gateway.provider.answer_with(pieces=(), tool_call=ToolUse(name=FITTED_MAGIC, arguments={}))
    tools = [{"type": "function", "function": {"name": name}} for name in (MAGIC, "read", "read.all")]

    answer = await ask(
        gateway,
        CHAT,
        "gemini_3_8_flash",
        messages=calling(MAGIC),
        tools=tools,
        tool_choice={"type": "function", "function": {"name": MAGIC}},
        stream=stream,
    )

    asked = gateway.provider.requests[0].json()
    declared = [each["name"] for each in asked["tools"][0]["functionDeclarations"]]
    assert declared == [FITTED_MAGIC, "read", "read.all"]
    assert asked["contents"][1]["parts"][0]["functionCall"]["name"] == FITTED_MAGIC
    assert asked["contents"][2]["parts"][0]["functionResponse"]["name"] == FITTED_MAGIC
    assert asked["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == [FITTED_MAGIC]
    assert called_name(answer.json() if not stream else data_of(answer)) == MAGIC


async def test_claude_is_told_of_no_tool_with_a_dot_in_its_name(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(pieces=(), tool_call=ToolUse(name=FITTED_DOTTED, arguments={}))
    tools = [{"type": "function", "function": {"name": name}} for name in (DOTTED, MAGIC)]

    answer = await ask(gateway, CHAT, CLAUDE, messages=calling(DOTTED), tools=tools)

    asked = gateway.provider.requests[0].json()
    assert [tool["name"] for tool in asked["tools"]] == [FITTED_DOTTED, MAGIC]
    assert asked["messages"][1]["content"][0]["name"] == FITTED_DOTTED
    assert called_name(answer.json()) == DOTTED


def called_name(said: Any) -> str:
    if isinstance(said, dict):
        return str(said["choices"][0]["message"]["tool_calls"][0]["function"]["name"])
    calls = [row["choices"][0]["delta"].get("tool_calls") for row in said if row != "[DONE]"]
    return str(next(filter(None, calls))[0]["function"]["name"])


async def test_an_answer_that_was_refused_stays_in_the_conversation(gateway: RunningGateway) -> None:
    """As OpenAI's SDKs send a message back that they were given."""
    refused = {"role": "assistant", "content": None, "refusal": "I will not."}

    await ask(gateway, CHAT, CLAUDE, messages=[*HI, refused, {"role": "user", "content": "Why?"}])

    assert gateway.provider.requests[0].json()["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "I will not."},
        {"role": "user", "content": "Why?"},
    ]


async def test_a_sampling_that_openai_knows_no_word_for_is_named_beside_thoughts_too(gateway: RunningGateway) -> None:
    answer = await ask(gateway, MESSAGES, GPT, top_k=5, output_config={"effort": "low"})

    assert answer.header("x-torana-dropped") == "top_k"


async def test_three_calls_whose_pieces_come_in_turns_are_three_whole_blocks(gateway: RunningGateway) -> None:
    def piece(number: int, arguments: str, **more: str) -> bytes:
        call = {"index": number, **({"id": more["id"], "type": "function"} if more else {})}
        function = {"arguments": arguments, **({"name": more["name"]} if more else {})}
        delta = {"tool_calls": [{**call, "function": function}]}
        return event({"id": "a", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    names = ["one", "two", "three"]
    end = {"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    gateway.provider.answer_with(
        events=[
            *(piece(number, "", id=f"call_{number}", name=name) for number, name in enumerate(names)),
            *(piece(number, '{"p"') for number in (0, 2, 1)),
            *(piece(number, f":{number}}}") for number in (0, 2, 1)),
            event(end),
            b"data: [DONE]\n\n",
        ]
    )

    answer = await ask(gateway, MESSAGES, GPT, stream=True)

    said: dict[int, str] = {}
    is_open: set[int] = set()
    blocks: list[str] = []
    for row in data_of(answer):
        if row["type"] == "content_block_start":
            blocks.append(row["content_block"]["name"])
            is_open.add(row["index"])
        elif row["type"] == "content_block_delta":
            assert row["index"] in is_open
            said[row["index"]] = said.get(row["index"], "") + row["delta"]["partial_json"]
        elif row["type"] == "content_block_stop":
            is_open.remove(row["index"])
    assert [(name, json.loads(said[at])["p"]) for at, name in enumerate(blocks)] == [
        ("one", 0),
        ("two", 1),
        ("three", 2),
    ]


async def test_a_line_end_within_the_pieces_of_a_call_does_not_end_its_block(gateway: RunningGateway) -> None:
    """As vLLM tells what stands behind a call beside the last piece of it (its pull request 45287)."""

    def piece(arguments: str, content: str | None = None, **more: str) -> bytes:
        call = {"index": 0, **({"id": "call_1", "type": "function"} if more else {})}
        delta = {"content": content, "tool_calls": [{**call, "function": {"arguments": arguments, **more}}]}
        return event({"id": "a", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    end = {"id": "a", "choices": [{"index": 0, "delta": {"content": "Done."}, "finish_reason": "tool_calls"}]}
    gateway.provider.answer_with(
        events=[piece("", name="one"), piece('{"p":'), piece("1}", "\n"), event(end), b"data: [DONE]\n\n"]
    )

    answer = await ask(gateway, MESSAGES, GPT, stream=True)

    rows = data_of(answer)[1:-2]
    assert [(row["type"].removeprefix("content_block_"), row["index"]) for row in rows] == [
        *[("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1), ("delta", 1), ("stop", 1)],
    ]
    deltas = [row["delta"] for row in rows if "delta" in row]
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"p":1}'
    assert "".join(delta.get("text", "") for delta in deltas) == "\nDone."


async def test_pictures_of_parallel_results_stand_behind_all_of_them(gateway: RunningGateway) -> None:
    """400 "An assistant message with 'tool_calls' must be followed by tool messages responding to each"."""
    calls = [{"type": "tool_use", "id": f"call_{at}", "name": "look", "input": {}} for at in (1, 2)]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    shown = {"type": "tool_result", "tool_use_id": "call_1", "content": [picture]}
    told = {"type": "tool_result", "tool_use_id": "call_2", "content": "ok"}
    turns = [
        *HI,
        {"role": "assistant", "content": calls},
        {"role": "user", "content": [shown]},
        {"role": "user", "content": [told]},
    ]

    await ask(gateway, MESSAGES, GPT, messages=turns)

    rows = gateway.provider.requests[0].json()["messages"]
    assert [row.get("tool_call_id", row["role"]) for row in rows[2:]] == ["call_1", "call_2", "user"]
    assert rows[-1]["content"][0]["type"] == "image_url"


@pytest.mark.parametrize("proof", ["responses:c2ln", ""])
async def test_claude_keeps_its_own_tools_in_a_conversation_that_another_model_began(
    gateway: RunningGateway, proof: str
) -> None:
    """What that thought is left out, and so the conversation is told anew; the rest goes on as it came."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    kept = {"type": "ephemeral", "ttl": "1h"}
    system = [{"type": "text", "text": "Be brief.", "cache_control": kept}]
    thought = {"type": "thinking", "thinking": "Hm.", "signature": proof}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes."}]}
    turns = [*HI, said, {"role": "user", "content": "Go on."}]

    answer = await ask(gateway, MESSAGES, CLAUDE, messages=turns, tools=[search], system=system)

    asked = gateway.provider.requests[0].json()
    assert (asked["tools"], asked["system"]) == ([search], system)
    assert asked["messages"][1] == {"role": "assistant", "content": "Yes."}
    assert answer.header("x-torana-dropped") == "thought"


async def test_an_answer_that_was_cut_while_claude_thought_does_not_end_the_conversation(
    gateway: RunningGateway,
) -> None:
    """Claude refuses a turn that ends with a thought, and would refuse it again with every later question."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "messages:c2ln"}
    said = {"role": "assistant", "content": "Yes."}
    more = {"role": "user", "content": "Go on."}

    cut = await ask(gateway, RESPONSES, CLAUDE, input=[*HI, thought, more])
    whole = await ask(gateway, RESPONSES, CLAUDE, input=[*HI, thought, said, more])

    first, second = (request.json()["messages"] for request in gateway.provider.requests)
    assert [row["role"] for row in first] == ["user"]
    assert [block["type"] for block in second[1]["content"]] == ["thinking", "text"]
    assert (cut.header("x-torana-dropped"), whole.header("x-torana-dropped")) == ("thought", None)


def function_call(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "touch", "arguments": arguments}


def output_of(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": f"{call_id} is done"}


async def test_results_stand_right_behind_their_calls_whatever_was_said_meanwhile(gateway: RunningGateway) -> None:
    """In responses a result may stand anywhere later; elsewhere such a conversation is refused."""
    told = {"role": "developer", "content": "It is late."}
    said = {"role": "assistant", "content": "I am at it."}
    turns = [
        *HI,
        function_call("call_1"),
        function_call("call_2"),
        output_of("call_2"),
        told,
        said,
        output_of("call_1"),
    ]

    await ask(gateway, RESPONSES, CLAUDE, input=turns)
    await ask(gateway, RESPONSES, GPT, input=turns)

    claudes, gpts = (request.json()["messages"] for request in gateway.provider.requests)
    assert [row["role"] for row in claudes] == ["user", "assistant", "user", "assistant", "user"]
    *results, text = claudes[2]["content"]
    assert {block["tool_use_id"] for block in results} == {"call_1", "call_2"}
    assert text["text"] == "It is late."
    assert [row["role"] for row in gpts] == ["user", "assistant", "tool", "tool", "system", "assistant"]


async def test_arguments_that_are_none_do_not_end_the_conversation_with_a_server_that_reads_them_again(
    gateway: RunningGateway,
) -> None:
    turns = [*HI, function_call("call_1", '{"path": "a'), output_of("call_1"), function_call("call_2", '{"a": 1.0}')]

    await ask(gateway, RESPONSES, GPT, input=[*turns, output_of("call_2")])

    rows = gateway.provider.requests[0].json()["messages"]
    cut, whole = (row["tool_calls"][0]["function"]["arguments"] for row in rows if "tool_calls" in row)
    assert json.loads(cut) == {"INVALID_JSON": '{"path": "a'}
    assert whole == '{"a": 1.0}'


@pytest.mark.parametrize("model", [CLAUDE, "claude-haiku-4-5-20251001"])
async def test_what_a_developer_says_behind_an_answer_is_answered(gateway: RunningGateway, model: str) -> None:
    """Told ahead of all else it would leave the model to carry its own answer on."""
    rules = {"role": "developer", "content": "Be brief."}
    turns = [rules, *HI, {"role": "assistant", "content": "Hello."}, {"role": "developer", "content": "Say goodbye."}]

    answer = await ask(gateway, RESPONSES, model, input=turns)

    asked = gateway.provider.requests[0].json()
    assert (asked["system"], asked["messages"][1:]) == (
        "Be brief.",
        [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Say goodbye."}],
    )
    assert answer.header("x-torana-dropped") is None


async def test_gemini_is_asked_to_go_on_where_nothing_is_said_behind_its_answer(
    start_gateway: StartGateway, gemini_env: dict[str, str]
) -> None:
    """Its newer models refuse what ends with their own turn."""
    gateway = await start_gateway(env=gemini_env)
    turns = [*HI, {"role": "assistant", "content": "Hello."}, {"role": "system", "content": ""}]

    await ask(gateway, CHAT, "gemini_3_8_flash", messages=turns)

    assert [row["role"] for row in gateway.provider.requests[0].json()["contents"]] == ["user", "model", "user"]


async def test_tools_that_codex_tells_within_the_input_are_offered(gateway: RunningGateway) -> None:
    """As it does for some models, without `tools` and `instructions`."""
    touch = {"type": "function", "name": "touch", "parameters": {"type": "object", "properties": {}}, "strict": False}
    server = {"type": "namespace", "name": "mcp__files", "description": "", "tools": [{**touch, "name": "read"}]}
    more = {"type": "additional_tools", "role": "developer", "tools": [touch, server, {"type": "web_search"}]}
    found = [
        {"type": "tool_search_call", "call_id": "call_1", "execution": "client", "arguments": {"query": "look"}},
        {
            "type": "tool_search_output",
            "call_id": "call_1",
            "execution": "client",
            "tools": [{**touch, "name": "look"}, touch],
        },
    ]
    gateway.provider.answer_with(pieces=(), tool_call=ToolUse(name="mcp__files__read", arguments={}, id="toolu_1"))

    answer = await ask(gateway, RESPONSES, CLAUDE, input=[more, *HI, *found, {"role": "user", "content": "Go on."}])

    asked = gateway.provider.requests[0].json()
    assert [tool["name"] for tool in asked["tools"]] == ["touch", "mcp__files__read", "look"]
    assert [row["role"] for row in asked["messages"]] == ["user"]
    (call,) = answer.json()["output"]
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "mcp__files", "read")
    assert answer.header("x-torana-dropped") == "tool_search_call, tool_search_output, tools.web_search"


async def test_a_namespace_that_each_of_its_tools_would_repeat_without_an_end_is_refused(
    gateway: RunningGateway,
) -> None:
    """A megabyte of it before a thousand tools would be a gigabyte."""
    server = {"type": "namespace", "name": "n" * 257, "tools": [{"type": "function", "name": "read"}]}

    answer = await ask(gateway, RESPONSES, CLAUDE, tools=[server])

    assert (answer.status, answer.json()["error"]["param"]) == (400, "tools.0.name")
    assert gateway.provider.requests == []


async def test_a_text_whose_backslashes_a_model_did_not_double_comes_as_it_meant_it(gateway: RunningGateway) -> None:
    call = {"index": 0, "id": "call_1", "type": "function"}
    pieces = ['{"input":"', r"s/\d+/C:\users", '/"}']
    rows = [{**call, "function": {"name": "patch", "arguments": pieces[0]}}]
    rows += [{"index": 0, "function": {"arguments": piece}} for piece in pieces[1:]]
    deltas: list[Any] = [{"delta": {"tool_calls": [row]}, "finish_reason": None} for row in rows]
    ends = [*deltas, {"delta": {}, "finish_reason": "tool_calls"}]
    events = [event({"id": "a", "model": "m", "choices": [{"index": 0, **each}]}) for each in ends]
    gateway.provider.answer_with(events=[*events, b"data: [DONE]\n\n"])

    answer = await ask(gateway, RESPONSES, GPT, stream=True, tools=[{"type": "custom", "name": "patch"}])

    done = [row["item"] for row in data_of(answer) if row["type"] == "response.output_item.done"]
    assert [item["input"] for item in done] == [r"s/\d+/C:\users/"]


async def test_a_document_in_pieces_is_told_to_other_vendors_models_as_one(gateway: RunningGateway) -> None:
    pieces = [{"type": "text", "text": "Page one."}, {"type": "text", "text": "Page two."}]
    document = {"type": "document", "title": "Rules", "source": {"type": "content", "content": pieces}}

    await ask(gateway, MESSAGES, GPT, messages=[{"role": "user", "content": [document]}])

    assert gateway.provider.requests[0].json()["messages"][0]["content"] == "Rules\n\nPage one.\n\nPage two."


async def test_what_a_clients_own_search_found_is_told_to_other_vendors_models_in_words(
    gateway: RunningGateway,
) -> None:
    found = {
        "type": "search_result",
        "title": "Rules",
        "source": "https://example.com/rules",
        "content": [{"type": "text", "text": "No running."}, {"type": "text", "text": "No shouting."}],
    }
    written = {"type": "document", "title": "More", "source": {"type": "content", "content": "No diving."}}

    await ask(gateway, MESSAGES, GPT, messages=[{"role": "user", "content": [found, written]}])

    (message,) = gateway.provider.requests[0].json()["messages"]
    told = message["content"]
    said = told if isinstance(told, str) else "\n\n".join(part["text"] for part in told)
    assert said == "Rules\nhttps://example.com/rules\nNo running.\nNo shouting.\n\nMore\n\nNo diving."


async def test_openais_models_are_told_short_ids_whatever_another_model_hid_in_them(gateway: RunningGateway) -> None:
    """A conversation may have begun with Gemini, whose proofs LiteLLM puts into ids."""
    long = f"call_1__thought__{'c2ln' * 40}"
    turns = [
        *HI,
        {"role": "assistant", "content": [{"type": "tool_use", "id": long, "name": "touch", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": long, "content": "ok"}]},
    ]

    await ask(gateway, MESSAGES, GPT, messages=turns)

    _, call, result = gateway.provider.requests[0].json()["messages"]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 40
