"""The ReAct form, read piece by piece."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.agents.react import Action, AnswerDelta, Event, Failed, StepReader, Unknown, unescape_underscores
from torana.chat import ToolCallPiece

TOOLS = ("issue_reader", "merge_request_reader", "gitlab_documentation")

ACTION_TEXT = "Thought: I need the issue.\nAction: issue_reader\nAction Input: who wrote #12?"
ACTION = Action("issue_reader", "who wrote #12?", "I need the issue.")


def read(pieces: list[str]) -> list[Event]:
    """The events of a text, neighbouring deltas joined."""
    reader = StepReader(TOOLS)
    events = [event for piece in pieces for event in reader.feed(piece)] + reader.close()
    joined: list[Event] = []
    for event in events:
        if isinstance(event, AnswerDelta) and joined and isinstance(joined[-1], AnswerDelta):
            event = AnswerDelta(joined.pop().text + event.text)
        joined.append(event)
    return joined


CASES = [
    (ACTION_TEXT, ACTION),
    (f"{ACTION_TEXT}\n", ACTION),
    ("Thought: Known.\nFinal Answer: It was Mia.", AnswerDelta("It was Mia.")),
    ("Final Answer:\n\n  It was Mia. \n", AnswerDelta("It was Mia. \n")),
    ("Thought: I know it now. Final Answer: 42", AnswerDelta("42")),
    # The three parts may share a line, and a thought may be missing or unmarked.
    ("Thought: Look. Action: issue_reader Action Input: #1", Action("issue_reader", "#1", "Look.")),
    ("Action: issue_reader\nAction Input: #1", Action("issue_reader", "#1", "")),
    (" I look.\nAction: issue_reader\nAction Input: #1", Action("issue_reader", "#1", "I look.")),
    ("Action: issue_reader\nAction Input:", Action("issue_reader", "", "")),
    ("Action: issue_reader\nAction Input:\nline 1\nline 2", Action("issue_reader", "line 1\nline 2", "")),
    (
        "Thought: The Action: is clear.\nAction: issue_reader\nAction Input: #1",
        Action("issue_reader", "#1", "The Action: is clear."),
    ),
    # Markers may be emphasized, and what an answer emphasizes itself stays.
    ("**Thought:** Known.\n**Final Answer:** It was Mia.", AnswerDelta("It was Mia.")),
    ("__Final Answer:__\nIt was **Mia**.", AnswerDelta("It was **Mia**.")),
    ("Final Answer: **Mia** wrote it.", AnswerDelta("**Mia** wrote it.")),
    ("**Final Answer:** **Mia** wrote it.", AnswerDelta("**Mia** wrote it.")),
    ("**Final Answer:** *", AnswerDelta("*")),
    ("**Thought:** I need the issue.\n**Action:** issue_reader\n**Action Input:** who wrote #12?", ACTION),
    ("**Thought: I need the issue.**\n**Action: issue_reader**\n**Action Input: who wrote #12?**", ACTION),
    ("**Action:** issue_reader\n**Action Input:** **#1**\n**Observation:** Mia", Action("issue_reader", "**#1**", "")),
    ("**Thought**: Known.\n**Final Answer**: It was **Mia**.", AnswerDelta("It was **Mia**.")),
    ("__Final Answer__:\n__Mia__", AnswerDelta("__Mia__")),
    ("**Thought**: I need the issue.\n**Action**: issue_reader\n**Action Input**: who wrote #12?", ACTION),
    ("**Action**: issue_reader\n**Action Input**: #1\n**Observation**: Mia", Action("issue_reader", "#1", "")),
    ("Final Answer: write **Final Answer**: x", AnswerDelta("write **Final Answer**: x")),
    # A whole step may stand in a code fence, which is no part of it.
    ("```\nThought: Known.\nFinal Answer: It was Mia.\n```\n", AnswerDelta("It was Mia.")),
    ("```text\nFinal Answer: run\n```sh\nls\n```\n```", AnswerDelta("run\n```sh\nls\n```")),
    ("```text\nFinal Answer: run\n```sh\nls\n```", AnswerDelta("run\n```sh\nls\n```")),
    ("Final Answer: run\n```sh\nls\n```\n", AnswerDelta("run\n```sh\nls\n```\n")),
    ("Thought: I ran\n```\nls\n```\nFinal Answer: `ls`", AnswerDelta("`ls`")),
    ("```\nFinal Answer: `ls` ~", AnswerDelta("`ls` ~")),
    ("```\nFinal Answer:\n```", Unknown("```\nFinal Answer:\n```")),
    (f"```\n{ACTION_TEXT}\n```", ACTION),
    (f"~~~markdown\n\n{ACTION_TEXT}\n~~~\nObservation: Mia", ACTION),
    ("```\nAction: issue_reader\nAction Input: #1\n```", Action("issue_reader", "#1", "")),
    ("I look.\n```\nAction: issue_reader\nAction Input: #1\n```", Action("issue_reader", "#1", "I look.")),
    ("Action: issue_reader\nAction Input:\n```\n#1\n```", Action("issue_reader", "```\n#1\n```", "")),
    (f"{ACTION_TEXT}\n**Thought:** more\n**Action:** issue_reader\n**Action Input:** #13", ACTION),
    # What the model invents behind its input is not the input.
    (f"{ACTION_TEXT}\nObservation: Mia\nThought: done", ACTION),
    (f"{ACTION_TEXT}\nThought: more\nAction: issue_reader\nAction Input: #13", ACTION),
    # Names are corrected.
    (
        "Action: MergeRequestReader\nAction Input: !1",
        Action("merge_request_reader", "!1", ""),
    ),
    ("Action: issue\\_reader\nAction Input: #1", Action("issue_reader", "#1", "")),
    ("Action: `issue_reader`\nAction Input: #1", Action("issue_reader", "#1", "")),
    ("Action: GitlabDocumentation\nAction Input: x", Action("gitlab_documentation", "x", "")),
    ("Action: Merge Request Reader.\nAction Input: !1", Action("merge_request_reader", "!1", "")),
    ("Action: issue-reader\nAction Input: #1", Action("issue_reader", "#1", "")),
    ("Action: Use the `issue_reader` tool (it knows issues)\nAction Input: #1", Action("issue_reader", "#1", "")),
    ('Action: issue_reader("#1")\nAction Input: #1', Action("issue_reader", "#1", "")),
    ("### Action:\nissue_reader\n### Action Input:\n#1", Action("issue_reader", "#1", "")),
    ("Action: commit_reader, not issue_reader\nAction Input: x", Failed("tool not available", retryable=False)),
    ("Action: issue_reader_of_old\nAction Input: x", Failed("tool not available", retryable=False)),
    ("Action: commit_reader\nAction Input: x", Failed("tool not available", retryable=False)),
    ("Action: None\nAction Input: none", Failed("tool not available", retryable=False)),
    # An answer wins over an action, wherever it stands.
    (f"{ACTION_TEXT}\nFinal Answer: It was Mia.", AnswerDelta("It was Mia.")),
    # But not one that rests on an observation which the model invented: the stop text ended the step before.
    (f"{ACTION_TEXT}\nObservation: Mia\nFinal Answer: Mia", ACTION),
    (f"{ACTION_TEXT}\nObservation: Mia\nThought: done\nFinal Answer: Mia\nFinal Answer: Max", ACTION),
    (f"Observation: Mia\n{ACTION_TEXT}\nFinal Answer: Mia", AnswerDelta("Mia")),
    ("Thought: the Observation: says it\nFinal Answer: Mia", AnswerDelta("Mia")),
    (f"Final Answer: It was Mia.\n{ACTION_TEXT}", AnswerDelta(f"It was Mia.\n{ACTION_TEXT}")),
    # A thought may quote the marker.
    (
        f'Thought: Is it time for the "Final Answer:"? No.\n{ACTION_TEXT.partition(chr(10))[2]}',
        Action("issue_reader", "who wrote #12?", 'Is it time for the "Final Answer:"? No.'),
    ),
    ("Thought: after `Final Answer:` I write it.\nFinal Answer: Mia", AnswerDelta("Mia")),
    ('"Final Answer: Mia"', AnswerDelta('Mia"')),
    # Inside an answer a marker is text.
    (
        "Final Answer: write `Final Answer: x`\n```\nAction: y\nAction Input: z\n```\nObservation: w",
        AnswerDelta("write `Final Answer: x`\n```\nAction: y\nAction Input: z\n```\nObservation: w"),
    ),
    # An answer without text is none.
    (f"{ACTION_TEXT}\nFinal Answer: \n", ACTION),
    ("Final Answer: \n", Unknown("Final Answer: \n")),
    # Neither form.
    ("", Unknown("")),
    ("Hello!", Unknown("Hello!")),
    (" Thought: hm\n", Unknown(" Thought: hm\n")),
    ("Action: issue_reader", Unknown("Action: issue_reader")),
    ("Action:\nAction Input: x", Unknown("Action:\nAction Input: x")),
    ("Action Input: x\nAction: issue_reader", Unknown("Action Input: x\nAction: issue_reader")),
    ("final answer: no", Unknown("final answer: no")),
    ("Final Answe", Unknown("Final Answe")),
    ("<think>x</think>Final Answer: y", AnswerDelta("y")),
]


@pytest.mark.parametrize(("text", "event"), CASES)
def test_a_text_is_one_kind_of_event_however_it_is_cut(text: str, event: Event) -> None:
    assert read([text]) == [event]
    assert read(list(text)) == [event]
    for at in range(len(text) + 1):
        assert read([text[:at], text[at:]]) == [event]


MARKERS = ("Thought:", "Action:", "Action Input:", "Observation:", "Final Answer:", "Final ", "Final Answer", ":")
PIECES = st.sampled_from(
    (
        *MARKERS,
        "**",
        "__",
        '"',
        "```\n",
        "`",
        "issue_reader",
        "MergeRequestReader",
        "commit_reader",
        "\n",
        " ",
        "ä",
        "🦊",
        "e\u0301",
        "\u2028",
        "x",
    )
)


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=14).map("".join), st.lists(st.integers(0, 150), max_size=8))
def test_any_split_of_a_text_gives_the_same_events(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]

    whole = read([text])

    assert read(pieces) == whole
    assert len(whole) == 1


def test_deltas_start_as_soon_as_the_answer_does() -> None:
    reader = StepReader(TOOLS)

    assert reader.feed("Thought: I know.\nFinal Ans") == []
    assert reader.feed("wer:") == []
    assert reader.feed(" ") == []
    assert reader.feed("It") == [AnswerDelta("It")]
    assert reader.feed(" was ") == [AnswerDelta(" was ")]
    assert reader.close() == []


def test_a_native_tool_call_is_an_action_with_its_text_as_the_thought() -> None:
    reader = StepReader(TOOLS)
    reader.feed("Thought: I need the issue.")

    reader.feed_call(ToolCallPiece(position=0, id="c1", name="issue_reader"))
    reader.feed_call(ToolCallPiece(position=1, id="c2", name="gitlab_documentation", arguments="{}"))
    reader.feed_call(ToolCallPiece(position=0, arguments='{"question": "who '))
    reader.feed_call(ToolCallPiece(position=0, arguments='wrote #12?"}'))

    assert reader.close() == [ACTION]


@pytest.mark.parametrize(
    ("arguments", "tool_input"),
    [
        ("", ""),
        ("{}", "{}"),
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": "x", "b": "y"}', '{"a": "x", "b": "y"}'),
        ("not json", "not json"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_that_are_not_one_text_are_passed_on_as_they_came(arguments: str, tool_input: str) -> None:
    reader = StepReader(TOOLS)
    reader.feed_call(ToolCallPiece(position=0, name="issue_reader", arguments=arguments))

    assert reader.close() == [Action("issue_reader", tool_input, "")]


def test_an_answer_wins_over_a_native_tool_call() -> None:
    reader = StepReader(TOOLS)
    reader.feed_call(ToolCallPiece(position=0, name="issue_reader", arguments="{}"))

    assert reader.feed("Final Answer: yes") == [AnswerDelta("yes")]
    assert reader.close() == []


def test_a_native_call_of_a_tool_that_was_not_offered_fails() -> None:
    reader = StepReader(())
    reader.feed_call(ToolCallPiece(position=0, name="issue_reader", arguments="{}"))

    assert reader.close() == [Failed("tool not available", retryable=False)]


@pytest.mark.drill
def test_reading_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        started = time.perf_counter()
        for unit in ("Final Answe", "Action: Action Input ", "x", "```\n", "\n``` ", "\n#", " ", 'x"Final Answer:'):
            text = unit * (size // len(unit))
            reader = StepReader(TOOLS)
            for at in range(0, len(text), 3):
                reader.feed(text[at : at + 3])
            reader.close()
        return time.perf_counter() - started

    # Sixteen times the text may take sixteen times as long; quadratic reading would take 256 times.
    assert min(seconds(320_000) for _ in range(2)) < 80 * min(seconds(20_000) for _ in range(3))


@pytest.mark.parametrize(("begun", "piece"), [("Final Answer: It was Mia.", "\n"), ("Final Answer:", "`")])
def test_what_may_end_a_fence_and_never_does_is_read_in_linear_time(begun: str, piece: str) -> None:
    reader = StepReader(TOOLS)
    told = reader.feed(f"```\nThought: Known.\n{begun}")
    before = time.thread_time()

    for _ in range(20_000):
        told += reader.feed(piece)

    assert time.thread_time() - before < 0.5
    assert sum(len(delta.text) for delta in told) > 18_000


def test_a_tool_without_an_end_is_looked_for_at_its_beginning() -> None:
    reader = StepReader(TOOLS)
    reader.feed(f"Action: issue_reader {'a ' * 900_000}\nAction Input: #1")
    before = time.thread_time()

    assert reader.close() == [Action("issue_reader", "#1", "")]
    assert time.thread_time() - before < 0.4


def test_escaped_underscores_are_unescaped() -> None:
    assert unescape_underscores(r"issue\_reader and \*") == r"issue_reader and \*"
