"""How a conversation is laid out for the prompt."""

from hypothesis import given, settings
from hypothesis import strategies as st

from torana.agents.step import Attachment, OpenFile, Page, PastStep, StepOrder, Turn, step_inputs
from torana.agents.tools import TOOLS


def user(text: str, **more: object) -> Turn:
    return Turn(role="user", text=text, **more)  # type: ignore[arg-type]


def assistant(text: str = "", *steps: PastStep) -> Turn:
    return Turn(role="assistant", text=text, steps=steps)


def test_the_latest_user_turn_is_the_question_and_the_others_are_history() -> None:
    inputs = step_inputs(StepOrder(turns=(user("Hi"), assistant("Hello"), user("Who wrote #12?"))))

    assert inputs["history"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert inputs["question"] == "Who wrote #12?"


def test_every_input_is_there_even_for_an_empty_order() -> None:
    assert step_inputs(StepOrder(turns=())) == {
        "instructions": "",
        "history": [],
        "question": "",
        "page": None,
        "file": None,
        "attachments": [],
        "steps": [],
        "tools": [],
        "unavailable_resources": [],
    }


def test_system_turns_become_instructions_and_unanswered_questions_join_the_question() -> None:
    turns = (
        Turn(role="system", text="Be kind."),
        assistant("Welcome!"),
        user("A?"),
        user("B?"),
        assistant(),
        user("C?"),
    )

    inputs = step_inputs(StepOrder(turns=turns))

    assert (inputs["instructions"], inputs["history"], inputs["question"]) == ("Be kind.", [], "A?\n\nB?\n\nC?")


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", " ", "x"])), max_size=8)
)
def test_history_alternates_from_the_user_to_the_assistant(rows: list[tuple[str, str]]) -> None:
    turns = tuple(Turn(role=role, text=text) for role, text in rows)  # type: ignore[arg-type]

    roles = [turn["role"] for turn in step_inputs(StepOrder(turns=turns))["history"]]

    assert roles == ["user", "assistant"] * (len(roles) // 2)


STEP = PastStep(thought=r"see issue\_12", tool=r"issue\_reader", tool_input=r"a\_b", observation=r"c\_d")
PLAIN = {"thought": "see issue_12", "tool": "issue_reader", "tool_input": r"a\_b", "observation": r"c\_d"}


def test_both_scratchpads_are_taken_and_underscores_unescaped_in_thought_and_tool_only() -> None:
    nested = StepOrder(turns=(user("Q"), assistant("", STEP)))
    flat = StepOrder(turns=(user("Q"),), steps=(STEP,))

    assert step_inputs(nested)["steps"] == step_inputs(flat)["steps"] == [PLAIN]


def test_the_scratchpad_beside_the_turns_wins() -> None:
    order = StepOrder(turns=(user("Q"), assistant("", PastStep(thought="inside"))), steps=(STEP,))

    assert step_inputs(order)["steps"] == [PLAIN]


def test_steps_of_earlier_questions_are_left_out_and_text_behind_the_question_is_a_thought() -> None:
    order = StepOrder(turns=(user("A"), assistant("B", STEP), user("C"), assistant("half an answer")))

    steps = step_inputs(order)["steps"]

    assert [step["thought"] for step in steps] == ["half an answer"]


def test_page_and_file_are_those_of_the_question() -> None:
    page, file = Page(kind="issue", title="T"), OpenFile(path="a.py", text="x", is_selection=True)

    now = step_inputs(StepOrder(turns=(user("Q", page=page, file=file),)))
    before = step_inputs(StepOrder(turns=(user("Q", page=page, file=file), assistant("A"), user("R"))))

    assert now["page"] == {"kind": "issue", "title": "T", "content": ""}
    assert now["file"] == {"path": "a.py", "text": "x", "is_selection": True}
    assert (before["page"], before["file"]) == (None, None)


def test_attachments_of_all_turns_count_and_the_latest_of_one_id_stands() -> None:
    old, new = (Attachment(category="file", id="1", text=text) for text in ("old", "new"))
    other = Attachment(category="snippet", id="1", text="s")
    unnamed = Attachment(category="snippet", text="u")
    order = StepOrder(
        turns=(user("A", attachments=(old, unnamed)), assistant("B"), user("C", attachments=(other, new, unnamed)))
    )

    assert [item["text"] for item in step_inputs(order)["attachments"]] == ["s", "new", "u"]
    assert order.categories == ["file", "snippet"]


def test_tools_are_named_as_they_are_offered() -> None:
    inputs = step_inputs(StepOrder(turns=(user("Q"),), tools=TOOLS[:1], unavailable_resources=("Pipelines",)))

    assert [tool["name"] for tool in inputs["tools"]] == ["issue_reader"]
    assert inputs["unavailable_resources"] == ["Pipelines"]
