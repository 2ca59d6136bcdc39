"""Code room: the process for syntax trees, and who waits for it."""

import asyncio
import time

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
