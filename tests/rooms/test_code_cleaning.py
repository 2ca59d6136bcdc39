"""Code room: the process for syntax trees, and who waits for it."""

import asyncio
import os
import signal
import time
from pathlib import Path

import uvloop
from tests.support.waiting import eventually

from torana.code.cleaning import WAIT_S, Cleaner
from torana.code.orders import Cursor

CURSOR = Cursor(prefix="def add(a, b)\n  ", file_name="a.rb")
METHOD = "a + b\nend"
MORE = f"{METHOD}\n\nx = 1\n"
"""Only a syntax tree tells that the method ends before `x`: without one, it stays."""


async def sees_the_block(cleaner: Cleaner) -> bool:
    return await cleaner.clean(MORE, CURSOR, "completion", excluded=frozenset(), is_cut=False) == METHOD


async def stand_still_while_one_waits() -> bool:
    """Whether answers have trees afterwards."""
    cleaner = Cleaner()
    try:
        await eventually(lambda: sees_the_block(cleaner))
        waiting = asyncio.ensure_future(sees_the_block(cleaner))
        await asyncio.sleep(0)
        time.sleep(WAIT_S)  # noqa: ASYNC251  nothing else stops the loop
        await waiting
        return await sees_the_block(cleaner)
    finally:
        await cleaner.aclose()


def test_an_event_loop_that_stood_still_costs_no_later_answer_its_tree() -> None:
    # The server's own loop: it looks at its clock before it hands on what has come.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(stand_still_while_one_waits())


def children() -> set[int]:
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


async def test_a_process_that_is_stuck_is_ended_even_if_nobody_waits_for_its_end() -> None:
    cleaner, others = Cleaner(), children()
    await eventually(lambda: sees_the_block(cleaner))
    (pid,) = children() - others
    os.kill(pid, signal.SIGSTOP)

    leaving = asyncio.create_task(cleaner.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
    leaving.cancel()

    async def is_gone() -> bool:
        return pid not in children()

    await eventually(is_gone)
