"""The body of the chat endpoint."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.agents.step import Attachment, OpenFile, Page, PastStep, StepOrder
from torana.api.chat_reading import CATEGORY_CHARS, read_order
from torana.chat import ModelWish
from torana.errors import Invalid, Refusal
from torana.settings import ProviderSettings

USER = {"role": "user", "content": "Who wrote #12?"}


def read(body: Any, *, custom_models: bool = False) -> StepOrder:
    return read_order(json.dumps(body).encode(), ProviderSettings(custom_models=custom_models))


def read_messages(*messages: dict[str, Any], **more: Any) -> StepOrder:
    return read({"messages": list(messages), **more})


def test_one_message_is_enough() -> None:
    order = read_messages(USER)

    assert [(turn.role, turn.text) for turn in order.turns] == [("user", "Who wrote #12?")]
    assert (order.steps, order.unavailable_resources, order.tools) == ((), (), ())
    assert order.wish == ModelWish(feature_setting="duo_chat", role="chat_default")


def test_unknown_members_are_ignored_everywhere() -> None:
    message = {
        **USER,
        "x": 1,
        "context": {"type": "issue", "x": 1},
        "additional_context": [{"category": "file", "x": []}],
    }

    assert read_messages(message, x={}, options={"x": 1}).turns[0].text == "Who wrote #12?"


def test_members_that_may_be_null_read_as_absent() -> None:
    nothing = dict.fromkeys(("context", "current_file", "additional_context", "agent_scratchpad", "resource_content"))

    order = read_messages({**USER, **nothing}, options=None, model_metadata=None, unavailable_resources=None)

    assert order == read_messages(USER)


def invalid(loc: list[Any], type: str) -> tuple[list[Any], str]:
    return ["body", *loc], type


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ([], invalid([], "json_invalid")),
        ({}, invalid(["messages"], "missing")),
        ({"messages": None}, invalid(["messages"], "list_type")),
        ({"messages": "x"}, invalid(["messages"], "list_type")),
        ({"messages": []}, invalid(["messages"], "too_short")),
        ({"messages": [1]}, invalid(["messages", 0], "dict_type")),
        ({"messages": [{"content": "x"}]}, invalid(["messages", 0, "role"], "missing")),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, invalid(["messages", 1, "role"], "literal_error")),
        ({"messages": [{"role": "user", "content": 1}]}, invalid(["messages", 0, "content"], "string_type")),
        ({"messages": [{**USER, "context": []}]}, invalid(["messages", 0, "context"], "dict_type")),
        ({"messages": [{**USER, "context": {"title": "x"}}]}, invalid(["messages", 0, "context", "type"], "missing")),
        (
            {"messages": [{**USER, "current_file": {"data": 1}}]},
            invalid(["messages", 0, "current_file", "data"], "string_type"),
        ),
        (
            {"messages": [{**USER, "current_file": {"selected_code": "maybe"}}]},
            invalid(["messages", 0, "current_file", "selected_code"], "bool_type"),
        ),
        (
            {"messages": [{**USER, "additional_context": [{"id": "1"}]}]},
            invalid(["messages", 0, "additional_context", 0, "category"], "missing"),
        ),
        (
            {"messages": [{**USER, "additional_context": [{"category": "c" * (CATEGORY_CHARS + 1)}]}]},
            invalid(["messages", 0, "additional_context", 0, "category"], "string_too_long"),
        ),
        (
            {"messages": [{"role": "assistant", "agent_scratchpad": [{"action": 1}]}]},
            invalid(["messages", 0, "agent_scratchpad", 0, "action"], "dict_type"),
        ),
        ({"messages": [USER], "options": 1}, invalid(["options"], "dict_type")),
        (
            {"messages": [USER], "options": {"agent_scratchpad": {"steps": [{"tool": 1}]}}},
            invalid(["options", "agent_scratchpad", "steps", 0, "tool"], "string_type"),
        ),
        ({"messages": [USER], "unavailable_resources": ["a", 1]}, invalid(["unavailable_resources", 1], "string_type")),
    ],
)
def test_a_wrong_member_is_named(body: Any, fault: tuple[list[Any], str]) -> None:
    with pytest.raises(Invalid) as caught:
        read(body)

    (row,) = caught.value.members["detail"]
    assert (row["loc"], row["type"]) == fault


@pytest.mark.parametrize(
    ("message", "page"),
    [
        ({"context": {"type": "issue", "content": "text"}}, Page(kind="issue", content="text")),
        ({"context": {"type": "merge_request", "title": "T"}}, Page(kind="merge_request", title="T")),
        ({"context": {"type": "build"}}, Page(kind="build")),
        ({"context": {"type": "wiki_of_the_future"}}, Page(kind="wiki_of_the_future")),
        ({"context": {"type": "issue"}, "resource_content": "old"}, Page(kind="issue", content="old")),
        ({"resource_content": "old"}, Page(kind="page", content="old")),
        ({"context": {}}, None),
        ({}, None),
    ],
)
def test_the_page_is_read_in_its_older_and_newer_form(message: dict[str, Any], page: Page | None) -> None:
    assert read_messages({**USER, **message}).turns[0].page == page


def test_file_and_attachments_are_read() -> None:
    turn = read_messages(
        {
            **USER,
            "current_file": {"file_path": "a.py", "data": "x = 1", "selected_code": True},
            "additional_context": [
                {"category": "file", "id": "1", "content": "y", "metadata": {"title": "b.py", "enabled": True}},
                {"category": "local_git", "content": None, "metadata": None},
                {"category": "snippet", "content": "z", "metadata": '{"freeform":"json"}'},
            ],
        }
    ).turns[0]

    assert turn.file == OpenFile(path="a.py", text="x = 1", is_selection=True)
    assert turn.attachments == (
        Attachment(category="file", id="1", title="b.py", text="y"),
        Attachment(category="local_git"),
        Attachment(category="snippet", text="z"),
    )


FLAT = {"thought": "t", "tool": "issue_reader", "tool_input": "i", "observation": "o"}
NESTED = {"action": {"thought": "t", "tool": "issue_reader", "tool_input": "i"}, "observation": "o"}
STEP = PastStep(thought="t", tool="issue_reader", tool_input="i", observation="o")


def test_both_forms_of_the_scratchpad_are_read() -> None:
    older = read_messages(USER, options={"agent_scratchpad": {"agent_type": "react", "steps": [FLAT]}})
    newer = read_messages(
        USER,
        {"role": "assistant", "content": None, "agent_scratchpad": [NESTED, {"action": None, "observation": "p"}]},
    )

    assert older.steps == (STEP,)
    assert newer.turns[1].steps == (STEP, PastStep(observation="p"))


def test_the_first_form_of_a_step_is_read() -> None:
    options = {
        "chat_history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "agent_scratchpad": {"agent_type": "react", "steps": [FLAT]},
        "context": {"type": "issue", "content": "#12 Broken"},
        "current_file": {"file_path": "a.py", "data": "x = 1", "selected_code": True},
        "additional_context": [{"category": "file", "id": "b.py", "content": "y"}],
    }

    order = read({"prompt": "Who wrote #12?", "options": options, "unavailable_resources": ["Pipelines"]})

    newer = {name: options[name] for name in ("context", "current_file", "additional_context")}
    turns = [*options["chat_history"], {**USER, **newer}]
    written_new = read_messages(*turns, options={"agent_scratchpad": options["agent_scratchpad"]})
    assert (order.turns, order.steps, order.wish) == (written_new.turns, written_new.steps, written_new.wish)
    assert order.unavailable_resources == ("Pipelines",)
    assert (order.is_first_form, written_new.is_first_form) == (True, False)


@pytest.mark.parametrize(
    ("history", "told"),
    [(None, []), ("", []), ([], []), ("user: Hi", ["user: Hi"]), (["Hi", "Hello"], ["Hi", "Hello"])],
)
def test_the_history_of_the_first_form_may_be_text(history: Any, told: list[str]) -> None:
    order = read({"prompt": "Q", "options": {"chat_history": history, "context": None}})

    assert [(turn.role, turn.text) for turn in order.turns] == [("user", text) for text in (*told, "Q")]


@pytest.mark.parametrize("prompt", [None, "", 1])
def test_neither_messages_nor_a_prompt_is_a_fault(prompt: Any) -> None:
    with pytest.raises(Invalid) as caught:
        read({"prompt": prompt})

    assert caught.value.members["detail"][0]["loc"] == ["body", "messages"]


@pytest.mark.parametrize("role", ["user", "system"])
def test_a_scratchpad_on_a_turn_that_is_not_the_assistants_is_refused(role: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_messages({"role": role, "content": "x", "agent_scratchpad": [NESTED]})

    assert (caught.value.status, caught.value.code) == (400, "scratchpad_misplaced")


def test_a_chosen_model_is_wished_for_and_the_chat_role_stands_behind_it() -> None:
    chosen = {"provider": "gitlab", "identifier": "claude_sonnet_4_6", "feature_setting": "duo_chat"}

    wish = read_messages(USER, model_metadata=chosen).wish

    assert (wish.identifier, wish.feature_setting, wish.role) == ("claude_sonnet_4_6", "duo_chat", "chat_default")


def test_a_clients_own_model_has_no_role_to_fall_back_to() -> None:
    own = {"provider": "openai", "name": "mistral", "endpoint": "http://127.0.0.1:8000/v1"}

    wish = read({"messages": [USER], "model_metadata": own}, custom_models=True).wish

    assert (wish.is_own, wish.family, wish.role) == (True, "mistral", "")


def test_a_clients_own_model_is_refused_while_the_switch_is_off() -> None:
    with pytest.raises(Refusal) as caught:
        read_messages(USER, model_metadata={"provider": "openai", "endpoint": "http://127.0.0.1:8000/v1"})

    assert (caught.value.status, caught.value.members) == (400, {"detail": "Custom models are disabled"})


NAMES = ("messages", "role", "content", "context", "current_file", "additional_context", "agent_scratchpad", "action")
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["user", "assistant", "", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*NAMES, "options", "steps", "category", "metadata", "type"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"])}, optional=dict.fromkeys(NAMES[2:], JUNK)),
    JUNK,
)
def test_whatever_is_sent_is_read_or_refused(message: dict[str, Any], options: Any) -> None:
    with contextlib.suppress(Refusal):  # 400 or 422, and no other error
        assert len(read_messages(message, options=options).turns) == 1
