"""Thoughts left in the text: told apart at its beginning, however the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.chat import Chunk, Usage
from torana.dialects.collecting import collect
from torana.dialects.think_blocks import OpenedThinkBlock, ThinkBlock, ThinkBlocks, opens_blocks_itself

CASES = [
    ("<think>no</think>\nyes", "no", "yes"),
    (" \n<think>\na < b\n</think>\r\n\n  yes", "\na < b\n", "  yes"),
    ("<think></think>Hello", "", "Hello"),
    ("<think>never ends", "never ends", ""),
    ("<think>almost</thin", "almost</thin", ""),
    ("<thin", "", "<thin"),
    ("<thinker> x", "", "<thinker> x"),
    ("yes <think>x</think>", "", "yes <think>x</think>"),
    ("<think>a</think><think>b</think>c", "a", "<think>b</think>c"),
    ("    return x", "", "    return x"),
    ("<reasoning>no</reasoning>yes", "no", "yes"),
    ("<reason", "", "<reason"),
    (" \n ", "", " \n "),
    ("", "", ""),
]


def split(pieces: list[str], block: ThinkBlock | OpenedThinkBlock | None = None) -> tuple[str, str]:
    block = block or ThinkBlock()
    told = [block.feed(piece) for piece in pieces] + [block.close()]
    return "".join(thought for thought, _ in told), "".join(said for _, said in told)


@pytest.mark.parametrize(("text", "thought", "said"), CASES)
def test_a_block_at_the_beginning_is_a_thought(text: str, thought: str, said: str) -> None:
    assert split([text]) == (thought, said)
    assert split(list(text)) == (thought, said)


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        *(case for case in CASES if "yes <think>" not in case[0]),
        ("Hm, 2.\n</think>\n\nyes", "Hm, 2.\n", "yes"),
        ("yes, `<think>` and `</think>`", "", "yes, `<think>` and `</think>`"),
    ],
)
def test_where_a_template_opened_the_block_its_end_is_enough(text: str, thought: str, said: str) -> None:
    for pieces in ([text], list(text)):
        assert split(pieces, OpenedThinkBlock()) == (thought, said)


@pytest.mark.parametrize(
    ("model", "opens"),
    [
        ("Qwen/Qwen3-235B-A22B-Thinking-2507-FP8", True),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", True),
        ("Qwen/QwQ-32B", True),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", False),
        ("bar1-chat", False),
    ],
)
def test_who_opens_the_block_is_told_by_the_models_name(model: str, opens: bool) -> None:
    assert opens_blocks_itself(model) == opens


def test_a_server_that_tells_thoughts_apart_has_nothing_held_back() -> None:
    blocks = ThinkBlocks(OpenedThinkBlock, ThinkBlock)

    told = blocks.take([Chunk(reasoning="Hm.", dialect="chat_completions"), Chunk("yes")])

    assert [(chunk.reasoning, chunk.text) for chunk in told] == [("Hm.", ""), ("", "yes")]


PIECES = st.sampled_from(("<think>", "</think>", "<", "think>", "</", "\n", " ", "ä", "🦊", "x"))


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join), st.lists(st.integers(0, 80), max_size=8))
def test_any_split_of_a_text_gives_the_same(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    assert split([text[start:end] for start, end in pairwise(edges)]) == split([text])


def test_white_space_without_end_is_not_held_for_ever() -> None:
    block = ThinkBlock()

    said = "".join(block.feed(" ")[1] for _ in range(5_000))

    assert len(said) > 3_000


def test_a_thought_whose_end_never_comes_is_not_held_for_ever() -> None:
    block = OpenedThinkBlock()
    told = [block.feed("x" * 100_000) for _ in range(30)]

    assert told[0] == ("", "")
    assert told[-1] == ("", "x" * 100_000)
    assert sum(len(said) for _, said in told) == 3_000_000
    assert block.close() == ("", "")


def test_each_choice_has_its_own_block_and_the_end_comes_last() -> None:
    usage = Usage(1, 2)
    chunks = [
        Chunk(id="a", model="m"),
        Chunk("<think>one"),
        Chunk("two", 1),
        Chunk("</think>uno"),
        Chunk("<thi", 2),
        Chunk(finish="stop"),
        Chunk(choice=1, finish="length"),
        Chunk(usage=usage, is_last=True),
    ]
    blocks = ThinkBlocks()

    told = [chunk for one in chunks for chunk in blocks.take([one])]

    choices = collect(told).choices
    assert [(choice.reasoning, choice.text) for choice in choices] == [("one", "uno"), ("", "two"), ("", "<thi")]
    assert (told[0], told[-1]) == (chunks[0], chunks[-1])
    assert [choice.finish for choice in choices] == ["stop", "length", "stop"]
