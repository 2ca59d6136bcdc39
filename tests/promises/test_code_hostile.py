"""Code and answers that were chosen to keep the gateway busy, or to end it (promises 5: lag of 250 ms at most)."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.promises.test_code_v2 import GENERATIONS, body, text_of
from tests.support.gateway import RunningGateway
from tests.support.waiting import eventually

from torana.code.cleaning import WAIT_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

LAG_S = 0.25
RUBY = body("def add(a, b)\n  ", file_name="a.rb")
METHOD = "a + b\nend"
MORE = f"{METHOD}\n\nx = 1\n"
"""Only a syntax tree tells that the method ends before `x`: without one, it stays."""


async def sees_blocks(gateway: RunningGateway) -> bool:
    gateway.provider.answer_with(text=MORE)
    return await text_of(gateway, RUBY) == METHOD


def tree_processes() -> list[int]:
    """Those of the gateways in this process."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"torana.code.tree_process" in _read(path)
        and f"PPid:\t{os.getpid()}\n" in _read(path.parent / "status").decode()
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


@pytest.mark.parametrize(
    ("file_name", "above", "below"),
    [
        ("A.java", "%q(" * 2_000, "%q(" * 700),
        ("a.rs", "%q(" * 2_000, "%q(" * 700),
        ("a.c", "x=>" * 2_000, "x=>" * 700),
        ("a.cpp", "%w(" * 3_000, "%w(" * 300),
        ("a.sql", "\u3000" * 12_000, "\u3000" * 1_000),
        ("a.kt", '/"""${%q[' * 1_300, ""),
        ("a.md", "1. " * 1_000, '1f"@{#if'),
        ("a.yml", "? " * 3_000, "[^1]:" * 200),
        ("a.fs", "(" * 4_000, "(" * 1_000),
        ("a.pl", "s#", "a"),
    ],
)
async def test_code_that_its_grammar_needs_minutes_for_or_dies_of_holds_up_nobody(
    shared: RunningGateway, file_name: str, above: str, below: str
) -> None:
    await eventually(lambda: sees_blocks(shared))
    shared.provider.answer_with(text="a }\nb")
    before = time.thread_time()

    told = await text_of(shared, body(above, below, file_name))

    assert time.thread_time() - before < LAG_S
    assert told.startswith("a }")


async def test_trees_come_back_when_their_process_ended(shared: RunningGateway) -> None:
    await eventually(lambda: sees_blocks(shared))
    for process in tree_processes():
        os.kill(process, signal.SIGKILL)

    shared.provider.answer_with(text=MORE)
    assert await text_of(shared, RUBY) == MORE
    await eventually(lambda: sees_blocks(shared))


async def test_trees_are_there_while_a_server_drains_whose_processes_were_all_told_to_end(
    shared: RunningGateway,
) -> None:
    await eventually(lambda: sees_blocks(shared))
    for process in tree_processes():
        os.kill(process, signal.SIGTERM)

    assert await sees_blocks(shared)


async def test_a_process_for_trees_that_is_halted_is_not_waited_for_twice(shared: RunningGateway) -> None:
    await eventually(lambda: sees_blocks(shared))
    halted = tree_processes()
    for process in halted:
        os.kill(process, signal.SIGSTOP)

    shared.provider.answer_with(text=MORE)
    begun = time.monotonic()
    told = [await text_of(shared, RUBY) for _ in range(6)]
    taken_s = time.monotonic() - begun
    for process in halted:
        os.kill(process, signal.SIGCONT)

    assert told == [MORE] * 6
    assert WAIT_S <= taken_s < 6 * WAIT_S
    await eventually(lambda: sees_blocks(shared))


@pytest.mark.parametrize(
    ("answer", "above", "below"),
    [
        pytest.param("a\n" * 50_000, "a\n" * 50_000, "a\n" * 50_000, id="the same lines"),
        pytest.param('\\"' * 1_500, "x = ", '\\"', id="the rest of the line, again and again"),
        pytest.param("}\n" * 3_000, "f() {\n", "}\n", id="closing lines"),
        pytest.param("x" * 200_000, "x = ", "", id="one word"),
        pytest.param('\\"' * 50_000, 'x = "', '"', id="escaped quotes"),
        pytest.param("ab" * 50_000, "x = ab", "", id="the begun line, again and again"),
        pytest.param("`" * 100_000, "x = ", "", id="backticks"),
        pytest.param("```\n" + "\n" * 50_000, "x = ", "", id="a fence and line ends"),
        pytest.param("/*" * 50_000, "x = ", "", id="comments in comments"),
        pytest.param("<" * 100_000, "x = ", "", id="tags"),
    ],
)
@pytest.mark.parametrize("file_name", ["a.py", "a.go"])
async def test_an_answer_that_repeats_itself_holds_up_nobody(
    shared: RunningGateway, answer: str, above: str, below: str, file_name: str
) -> None:
    shared.provider.answer_with(text=answer)
    before = time.thread_time()

    await text_of(shared, body(above, below, file_name))

    assert time.thread_time() - before < LAG_S


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(("}" * 199 + "\n") * 500, id="closing brackets"),
        pytest.param("a\nb\nc\n" * 160, id="the same block"),
        pytest.param("".join(f"{'a' * (number % 7)}\n" for number in range(500)), id="nearly the same blocks"),
        pytest.param("```\n" + "\n" * 50_000, id="a fence and line ends"),
        pytest.param("```\n" + "\n" * 2_000_000, id="a fence and millions of line ends"),
        pytest.param("".join(f"{'a' * 4_000}{number % 7 % 4}\n" for number in range(98)), id="long lines"),
    ],
)
async def test_a_generation_that_repeats_itself_holds_up_nobody(shared: RunningGateway, answer: str) -> None:
    shared.provider.answer_with(text=answer)
    before = time.thread_time()

    await text_of(shared, body(above="# write\n"), GENERATIONS)

    assert time.thread_time() - before < LAG_S
