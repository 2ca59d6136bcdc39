"""POST /v2/chat/agent: one step of the client's ReAct loop, as lines of JSON (contract 7.1)."""

import json
import re
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.anthropic_answers import messages_events
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.openai_answers import chat_events
from tests.support.provider import Malformation
from tests.support.saying import Saying, ToolUse

one_gateway = pytest.mark.asyncio(loop_scope="session")

PATH = "/v2/chat/agent"
SONNET = "claude-sonnet-4-6"
ALL_TOOLS = {
    "issue_reader": "ask_issue",
    "epic_reader": "ask_epic",
    "work_item_reader": "ask_work_item",
    "gitlab_documentation": "documentation_search",
    "merge_request_reader": "ask_merge_request",
    "commit_reader": "ask_commit",
    "build_reader": "ask_build",
}
SCOPES = ("duo_chat", *ALL_TOOLS.values())
ACTION = "Thought: I need the issue.\nAction: issue_reader\nAction Input: who wrote #12?"
ANSWER = "Thought: I know it.\nFinal Answer: It was written by Mia, grüße 😀."


def body(question: str = "Who wrote #12?", **members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], **members}


async def ask(
    gateway: RunningGateway, asked: Any = None, *, scopes: tuple[str, ...] = SCOPES, **headers: str | None
) -> Answer:
    token = gateway.token(unit_primitives=scopes)
    return await gateway.post(PATH, json=asked or body(), token=token, headers=headers)


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    """The lines; checks what clients rely on to put them together. Those of GitLab 17 read each HTTP chunk as one."""
    assert (answer.status, answer.is_whole) == (200, True)
    assert answer.header("content-type") == "application/x-ndjson; charset=utf-8"
    assert all(chunk.endswith(b"\n") for chunk in answer.chunks)
    assert len(answer.chunks) == answer.body.count(b"\n")
    return [json.loads(line) for line in answer.body.removesuffix(b"\n").split(b"\n")]


def usage_line(model: str = SONNET) -> dict[str, Any]:
    return {"type": "usage", "data": {"usage": {model: {"input_tokens": 25, "output_tokens": 7}}}}


def sent_text(gateway: RunningGateway) -> str:
    """Everything the model was told, as text."""
    asked = gateway.provider.requests[-1].json()
    return json.dumps([asked.get("system"), asked["messages"]], ensure_ascii=False).replace("\\n", "\n")


@one_gateway
async def test_an_action_is_one_line_and_usage_the_last(shared: RunningGateway) -> None:
    shared.provider.answer_with(text=ACTION)

    answer = await ask(shared)

    assert answer.body == (
        b'{"type": "action", "data": {"tool": "issue_reader", "tool_input": "who wrote #12?", '
        b'"thought": "I need the issue."}}\n'
        b'{"type": "usage", "data": {"usage": {"claude-sonnet-4-6": {"input_tokens": 25, "output_tokens": 7}}}}\n'
    )
    assert len(answer.chunks) == 2
    assert answer.header("x-accel-buffering") == "no"
    request = shared.provider.requests[0].json()
    assert (request["model"], request["stream"]) == (SONNET, True)
    assert request["stop_sequences"] == ["Observation:"]


@pytest.mark.parametrize("segment_bytes", [None, 1, 7])
@one_gateway
async def test_an_answer_comes_as_deltas_without_what_stands_before_it(
    shared: RunningGateway, segment_bytes: int | None
) -> None:
    pieces = [ANSWER[i : i + 3] for i in range(0, len(ANSWER), 3)]
    shared.provider.answer_with(pieces=pieces, segment_bytes=segment_bytes)

    lines = lines_of(await ask(shared))

    assert lines[-1] == usage_line()
    assert {line["type"] for line in lines[:-1]} == {"final_answer_delta"}
    assert "".join(line["data"]["text"] for line in lines[:-1]) == "It was written by Mia, grüße 😀."


MARKED_UP = {
    "answer": 'Thought: I "know".\nFinal Answer: It was\twritten by "Mia", grüße 😀 \\ done.\n\n日本語',
    "action": "Thought: Ümlaut 😀.\nAction: issue_reader\nAction Input: who \\wrote #12? é",
    "unknown": 'Just 😀 "text".',
}


def escaped(event: bytes) -> bytes:
    """The same event with JSON escapes, pairs of surrogates included, for every letter beyond ASCII."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], event.decode()).encode()


@pytest.mark.parametrize("text", MARKED_UP)
@pytest.mark.parametrize("dialect", ["messages", "chat completions"])
@one_gateway
async def test_a_step_is_the_same_however_its_providers_bytes_are_cut(
    shared: RunningGateway, dialect: str, text: str
) -> None:
    said = Saying(pieces=tuple(MARKED_UP[text][i : i + 4] for i in range(0, len(MARKED_UP[text]), 4)))
    events, asked = messages_events(said, {"model": SONNET}), body()
    if dialect == "chat completions":
        events = chat_events(said, {"model": "m", "stream_options": {"include_usage": True}})
        asked["model_metadata"] = {
            "provider": "openai", "name": "llama3", "endpoint": f"{shared.provider.url}/own/v1", "identifier": "m"
        }  # fmt: skip
    answers = set()
    for sent in (events, [escaped(each) for each in events]):
        for segment_bytes in (1_000_000, None, 1, 2, 3, 5):
            shared.provider.answer_with(events=sent, segment_bytes=segment_bytes)
            answer = await ask(shared, asked)
            lines_of(answer)
            answers.add(answer.body)

    (whole,) = answers
    assert [json.loads(line)["type"] for line in whole.splitlines()][-1] == "usage"


async def test_the_first_delta_does_not_wait_for_the_end(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(pieces=["Final Answer: It was", " Mia."], hold_after=4)
    token = gateway.token(unit_primitives=SCOPES)

    async with gateway.stream(PATH, json=body(), token=token) as answer:
        first = await answer.next_chunk()
        gateway.provider.release()
        rest = await answer.rest()

    assert first == b'{"type": "final_answer_delta", "data": {"text": "It was"}}\n'
    assert rest.is_whole


@pytest.mark.parametrize("version", ["19.0.0-pre", "19.2.1-ee"])
@pytest.mark.parametrize("is_cut", [False, True])
@one_gateway
async def test_clients_who_warn_of_cut_answers_are_told_how_each_ended(
    shared: RunningGateway, version: str, is_cut: bool
) -> None:
    shared.provider.answer_with(pieces=("Final Answer: It", " was", " Mia."), is_cut_by_limit=is_cut)

    *deltas, usage = lines_of(await ask(shared, **{"X-Gitlab-Version": version}))

    assert usage == usage_line()
    assert {line["type"] for line in deltas} == {"final_answer_delta"}
    assert "".join(line["data"]["text"] for line in deltas) == "It was Mia."
    assert deltas[-1]["data"] == {"text": ".", "finish_reason": "length" if is_cut else "stop"}
    assert [line for line in deltas[:-1] if "finish_reason" in line["data"] or not line["data"]["text"]] == []


@one_gateway
async def test_an_answer_that_breaks_off_does_not_tell_that_it_ended(shared: RunningGateway) -> None:
    events = messages_events(Saying(pieces=("Final Answer: It", " was")), {"model": SONNET})
    shared.provider.answer_with(events=[each for each in events if b"message_" not in each or b"_start" in each])

    lines = lines_of(await ask(shared, **{"X-Gitlab-Version": "19.0.0"}))

    assert "".join(line["data"]["text"] for line in lines[:-1]) == "It was"
    assert lines[-1]["type"] == "error"
    assert [line for line in lines if "finish_reason" in line["data"]] == []


@pytest.mark.parametrize("said", [ACTION, "Hello."])
@one_gateway
async def test_what_is_no_answer_has_no_end_to_tell(shared: RunningGateway, said: str) -> None:
    shared.provider.answer_with(text=said)

    lines = lines_of(await ask(shared, **{"X-Gitlab-Version": "19.0.0"}))

    assert [line["type"] for line in lines] == ["action" if said == ACTION else "unknown", "usage"]
    assert "finish_reason" not in lines[0]["data"]


@one_gateway
async def test_text_of_neither_form_is_unknown_and_whole(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=["Hello, ", "I am a model."])

    lines = lines_of(await ask(shared))

    assert lines == [{"type": "unknown", "data": {"text": "Hello, I am a model."}}, usage_line()]


@one_gateway
async def test_an_answer_wins_over_an_action_of_the_same_text(shared: RunningGateway) -> None:
    shared.provider.answer_with(text=f"{ACTION}\nFinal Answer: Mia.")

    lines = lines_of(await ask(shared))

    assert lines == [{"type": "final_answer_delta", "data": {"text": "Mia."}}, usage_line()]


@one_gateway
async def test_a_native_tool_call_is_an_action_too(shared: RunningGateway) -> None:
    call = ToolUse(name="issue_reader", arguments={"question": "who wrote #12?"})
    shared.provider.answer_with(text="I need the issue.", tool_call=call)

    lines = lines_of(await ask(shared))

    expected = {"tool": "issue_reader", "tool_input": "who wrote #12?", "thought": "I need the issue."}
    assert lines == [{"type": "action", "data": expected}, usage_line()]


@pytest.mark.parametrize("name", ["MergeRequestReader", "merge\\_request\\_reader", "`merge_request_reader`"])
@one_gateway
async def test_a_tools_name_is_corrected_to_the_one_that_clients_know(shared: RunningGateway, name: str) -> None:
    shared.provider.answer_with(text=f"Thought: t\nAction: {name}\nAction Input: !1")

    assert lines_of(await ask(shared))[0]["data"]["tool"] == "merge_request_reader"


@one_gateway
async def test_escaped_underscores_of_a_thought_are_unescaped_and_the_input_is_left_alone(
    shared: RunningGateway,
) -> None:
    shared.provider.answer_with(text="Thought: I look into \\_main\\_.\nAction: issue\\_reader\nAction Input: a\\_b")

    expected = {"tool": "issue_reader", "tool_input": "a\\_b", "thought": "I look into _main_."}
    assert lines_of(await ask(shared))[0] == {"type": "action", "data": expected}


@one_gateway
async def test_the_first_form_of_a_step_is_answered_without_the_line_of_usage(shared: RunningGateway) -> None:
    shared.provider.answer_with(text=ANSWER)
    step = {"thought": "I need it.", "tool": "issue_reader", "tool_input": "#12", "observation": "by Mia"}
    scratchpad = {"agent_type": "react", "steps": [step]}
    options = {"chat_history": [{"role": "user", "content": "Hi"}], "agent_scratchpad": scratchpad}

    lines = lines_of(await ask(shared, {"prompt": "Who wrote #12?", "options": options}))

    # What GitLab 17.3 does not know stops it: it takes every line of an answer for a piece of text.
    assert {line["type"] for line in lines} == {"final_answer_delta"}
    assert "".join(line["data"]["text"] for line in lines) == "It was written by Mia, grüße 😀."
    assert "Who wrote #12?" in sent_text(shared)
    assert "Observation: by Mia" in sent_text(shared)


@pytest.mark.parametrize("tool", ["issue_reader", "rm"])
@one_gateway
async def test_a_tool_that_was_not_offered_is_an_error_without_usage(shared: RunningGateway, tool: str) -> None:
    shared.provider.answer_with(text=f"Thought: t\nAction: {tool}\nAction Input: x")

    lines = lines_of(await ask(shared, scopes=("duo_chat", "ask_epic")))

    assert lines == [{"type": "error", "data": {"message": "tool not available", "retryable": False}}]


# --- Failures (contract 1.5): status 200 and a line, always ---


@pytest.mark.parametrize(
    ("status", "retryable"), [(429, True), (529, True), (503, True), (500, True), (400, False), (401, False)]
)
@one_gateway
async def test_a_failing_model_is_an_error_line(shared: RunningGateway, status: int, retryable: bool) -> None:
    shared.provider.fail_with(status)

    (line,) = lines_of(await ask(shared))

    assert (line["type"], line["data"]["retryable"]) == ("error", retryable)
    assert "scripted failure" not in line["data"]["message"]


@one_gateway
async def test_a_conversation_that_is_too_long_is_told_in_the_words_that_clients_look_for(
    shared: RunningGateway,
) -> None:
    said = {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}
    shared.provider.answer_with(status=400, body={"type": "error", "error": said})

    (line,) = lines_of(await ask(shared))

    assert line == {"type": "error", "data": {"message": "prompt is too long", "retryable": False}}


async def test_a_silent_model_is_an_error_line(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_DUO_CHAT__MODEL_REQUEST_TIMEOUT": "0.05"})
    gateway.provider.stall()

    (line,) = lines_of(await ask(gateway))

    assert (line["type"], line["data"]["retryable"]) == ("error", False)


async def test_an_unreachable_model_is_an_error_line(gateway: RunningGateway) -> None:
    gateway.provider.server.stop_listening()

    assert [line["type"] for line in lines_of(await ask(gateway))] == ["error"]


@one_gateway
async def test_a_step_without_an_end_is_an_error_line(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=("and so on " * 1_000,) * 250)

    assert [line["type"] for line in lines_of(await ask(shared))] == ["error"]


@pytest.mark.parametrize("how", ["no_end", "html", "error_event", "bad_chunk"])
@one_gateway
async def test_a_stream_that_breaks_ends_with_an_error_line_and_no_usage(
    shared: RunningGateway, how: Malformation
) -> None:
    shared.provider.answer_malformed(how)

    lines = lines_of(await ask(shared))

    assert lines[-1]["type"] == "error"
    assert [line for line in lines if line["type"] == "usage"] == []


@pytest.mark.parametrize("segment_bytes", [None, 1])
async def test_what_a_model_invents_behind_its_action_is_never_an_answer(
    start_gateway: StartGateway, segment_bytes: int | None
) -> None:
    # OpenAI's reasoning models take no stop text.
    gateway = await start_gateway(env={"ANTHROPIC_API_KEY": "", "AIGW_OPENAI_MODEL": "gpt-5.4-mini-2026-03-17"})
    invented = "\nObservation: It was Max.\nThought: I know it.\nFinal Answer: It was written by Max."
    gateway.provider.answer_with(pieces=(ACTION, invented), segment_bytes=segment_bytes)

    lines = lines_of(await ask(gateway))

    assert "stop" not in gateway.provider.requests[0].json()
    assert lines[0]["data"]["tool"] == "issue_reader"
    assert [line["type"] for line in lines] == ["action", "usage"]


# --- Tools by scope and version ---


def offered(gateway: RunningGateway) -> set[str]:
    return {name for name in ALL_TOOLS if f"- {name}:" in sent_text(gateway)}


@pytest.mark.parametrize("tool", ALL_TOOLS)
@one_gateway
async def test_each_tool_needs_its_own_unit_primitive(shared: RunningGateway, tool: str) -> None:
    await ask(shared, scopes=("duo_chat", ALL_TOOLS[tool]))

    assert offered(shared) == {tool}


GATED = {"merge_request_reader", "build_reader"}
NEW = "work_item_reader"
"""Clients before 18 have no such tool (contract 7.1, [18]+), and end the chat with an error when it is chosen."""


@pytest.mark.parametrize(
    ("version", "flags", "hidden"),
    [
        ("18.6.1-ee", "", set()),
        ("18.4.0-pre", "", set()),
        ("17.9.2-ee", "", {"commit_reader", NEW}),
        ("17.9.2-ee", "ai_commit_reader_for_chat", {NEW}),
        ("17.5.0", "", {"commit_reader", NEW}),
        ("17.5.0-pre", "", {"commit_reader", NEW}),
        ("17.4.9-ee", "ai_commit_reader_for_chat", {*GATED, "commit_reader", NEW}),
        ("16.11.0", "", {*GATED, "commit_reader", NEW}),
        ("garbage", "", {*GATED, "commit_reader"}),
        (None, "", {*GATED, "commit_reader"}),
    ],
)
@one_gateway
async def test_tools_wait_for_the_clients_version(
    shared: RunningGateway, version: str | None, flags: str, hidden: set[str]
) -> None:
    await ask(shared, **{"X-Gitlab-Version": version, "X-Gitlab-Enabled-Feature-Flags": flags})

    assert offered(shared) == set(ALL_TOOLS) - hidden


@one_gateway
async def test_without_tools_the_model_is_told_so(shared: RunningGateway) -> None:
    await ask(shared, scopes=("duo_chat",))

    assert offered(shared) == set()
    assert "You have no tools" in sent_text(shared)


@one_gateway
async def test_resources_that_cannot_be_read_are_named(shared: RunningGateway) -> None:
    await ask(shared, body(unavailable_resources=["Pipelines", "Vulnerabilities"]))

    assert "Pipelines, Vulnerabilities" in sent_text(shared)


# --- Who may ---


@pytest.mark.parametrize(
    ("scope", "env", "question", "status"),
    [
        ("duo_chat", {}, "Hi", 200),
        ("duo_classic_chat", {}, "Hi", 200),
        ("ask_issue", {}, "Hi", 403),
        ("duo_chat", {"AIGW_DUO_CHAT__CLASSIC_ONLY": "true"}, "Hi", 403),
        ("duo_chat", {"AIGW_DUO_CHAT__CLASSIC_ONLY": "true"}, "@GitLabDuo hi", 200),
        ("duo_classic_chat", {"AIGW_DUO_CHAT__CLASSIC_ONLY": "true"}, "Hi", 200),
    ],
)
async def test_the_chat_needs_a_chat_unit_primitive(
    start_gateway: StartGateway, scope: str, env: dict[str, str], question: str, status: int
) -> None:
    gateway = await start_gateway(env=env)

    answer = await ask(gateway, body(question), scopes=(scope,))

    assert answer.status == status
    if status == 403:
        assert answer.json()["detail"] == "Unauthorized to access duo chat"
        assert gateway.provider.requests == []


CATEGORIES = [
    "file", "snippet", "merge_request", "issue", "dependency", "local_git",
    "terminal", "repository", "directory", "os_information", "agent_user_environment",
]  # fmt: skip


@pytest.mark.parametrize("category", CATEGORIES)
@one_gateway
async def test_each_attachment_needs_the_unit_primitive_of_its_category(shared: RunningGateway, category: str) -> None:
    message = {
        "role": "user",
        "content": "What is this?",
        "additional_context": [{"category": category, "id": "1", "content": "attached text"}],
    }
    asked = {"messages": [message]}

    denied = await ask(shared, asked)
    permitted = await ask(shared, asked, scopes=("duo_chat", f"include_{category}_context"))

    assert (denied.status, denied.json()["detail"]) == (403, f"Unauthorized to access include_{category}_context")
    assert permitted.status == 200
    assert len(shared.provider.requests) == 1
    assert "attached text" in sent_text(shared)


@one_gateway
async def test_a_body_that_is_wrong_is_told_before_a_permission_that_lacks(shared: RunningGateway) -> None:
    unknown = body(model_metadata={"provider": "gitlab", "identifier": "nobody_knows"})

    answers = [await ask(shared, asked, scopes=("ask_issue",)) for asked in ({"messages": []}, unknown)]

    assert [answer.status for answer in answers] == [422, 422]


# --- What the model is told ---


@one_gateway
async def test_page_file_and_history_reach_the_model(shared: RunningGateway) -> None:
    asked = {
        "messages": [
            {"role": "system", "content": "Speak like a pirate."},
            {"role": "user", "content": "First question"},
            {"role": "assistant", "content": "First answer"},
            {
                "role": "user",
                "content": "Second question",
                "context": {"type": "issue", "title": "Broken door", "content": "It creaks."},
                "current_file": {"file_path": "door.rb", "data": "def open", "selected_code": True},
            },
        ]
    }

    await ask(shared, asked)

    text = sent_text(shared)
    told = ["pirate", "First question", "First answer", "Second question", "Broken door", "It creaks.", "def open"]
    assert [part for part in told if part not in text] == []
    roles = [message["role"] for message in shared.provider.requests[0].json()["messages"]]
    assert roles == ["user", "assistant", "user"]


STEP = {"thought": "I need\\_it", "tool": "issue\\_reader", "tool_input": "who wrote #12?"}
OLD = {"agent_type": "react", "steps": [{**STEP, "observation": "Mia wrote it."}]}
NEW = {
    "role": "assistant",
    "content": None,
    "agent_scratchpad": [{"action": STEP, "observation": "Mia wrote it."}, {"action": None, "observation": "More."}],
}


@pytest.mark.parametrize("form", ["options", "message"])
@one_gateway
async def test_both_scratchpads_tell_the_model_what_was_done(shared: RunningGateway, form: str) -> None:
    asked = body(options={"agent_scratchpad": OLD}) if form == "options" else body()
    if form == "message":
        asked["messages"].append(NEW)

    await ask(shared, asked)

    text = sent_text(shared)
    assert "Thought: I need_it\nAction: issue_reader\nAction Input: who wrote #12?\nObservation: Mia wrote it." in text
    assert ("Observation: More." in text) is (form == "message")


@one_gateway
async def test_the_scratchpad_of_the_options_wins(shared: RunningGateway) -> None:
    asked = body(options={"agent_scratchpad": {**OLD, "steps": [{**STEP, "observation": "From options."}]}})
    asked["messages"].append(NEW)

    await ask(shared, asked)

    assert "From options." in sent_text(shared)
    assert "Mia wrote it." not in sent_text(shared)


@one_gateway
async def test_a_scratchpad_on_a_users_turn_is_400(shared: RunningGateway) -> None:
    asked = {"messages": [{**NEW, "role": "user", "content": "Hi"}]}

    answer = await ask(shared, asked)

    assert answer.status == 400
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("metadata", "model"),
    [
        ({"provider": "gitlab", "identifier": "claude_opus_4_6", "feature_setting": "duo_chat"}, "claude-opus-4-6"),
        ({"provider": "gitlab", "identifier": None, "feature_setting": "duo_chat"}, SONNET),
        ({"provider": "gitlab", "identifier": "", "feature_setting": "unheard_of"}, SONNET),
    ],
)
@one_gateway
async def test_the_metadata_chooses_the_model(shared: RunningGateway, metadata: dict[str, Any], model: str) -> None:
    shared.provider.answer_with(text=ANSWER)

    lines = lines_of(await ask(shared, body(model_metadata=metadata)))

    assert shared.provider.requests[0].json()["model"] == model
    assert lines[-1] == usage_line(model)


@pytest.mark.parametrize(("env", "max_tokens"), [({}, 2048), ({"AIGW_DUO_CHAT__MAX_TOKENS": "99"}, 99)])
async def test_the_operator_caps_the_answer(start_gateway: StartGateway, env: dict[str, str], max_tokens: int) -> None:
    gateway = await start_gateway(env=env)

    await ask(gateway)

    assert gateway.provider.requests[0].json()["max_tokens"] == max_tokens


@one_gateway
async def test_amazon_q_is_501(shared: RunningGateway) -> None:
    answer = await ask(shared, body(model_metadata={"provider": "amazon_q", "name": "amazon_q", "role_arn": "r"}))

    assert (answer.status, answer.json()["detail"]) == (501, "Amazon Q is not available in this gateway")


@pytest.mark.parametrize("after_events", [None, 0, 4])
@one_gateway
async def test_a_client_that_leaves_takes_the_upstream_call_with_it(
    shared: RunningGateway, after_events: int | None
) -> None:
    shared.provider.stall(after_events=after_events)
    token = shared.token(unit_primitives=SCOPES)

    async with await shared.connect() as connection:
        await connection.send(shared.request_bytes("POST", PATH, json=body(), token=token))
        request = await shared.provider.request()

    await request.hung_up.wait()


async def test_the_access_line_names_the_tools(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text=ACTION)

    await ask(gateway, scopes=("duo_chat", "ask_issue"))

    line = await gateway.log.find(path=PATH)
    assert line["duo_chat.agent_available_tools"] == ["issue_reader"]
    assert line["duo_chat.agent_tool_action"] == "issue_reader"
    assert line["meta.unit_primitive"] == "duo_chat"
    assert line["prompt"].startswith("chat/react@")
