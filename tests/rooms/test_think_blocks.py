"""Thoughts left in the text: told apart at its beginning, however the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.chat import Chunk, Usage
from torana.dialects.collecting import collect
from torana.dialects.think_blocks import ThinkBlock, ThinkBlocks, WholeThinkBlock

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


def split(pieces: list[str]) -> tuple[str, str]:
    block = ThinkBlock()
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
def test_of_a_whole_answer_the_end_of_a_block_is_enough(text: str, thought: str, said: str) -> None:
    for pieces in ([text], list(text)):
        block = WholeThinkBlock()
        assert [block.feed(piece) for piece in pieces] == [("", "")] * len(pieces)
        assert block.close() == (thought, said)


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
