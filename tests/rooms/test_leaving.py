"""Clients that leave together: their calls end a few in each turn of the event loop (CL2)."""

import asyncio

from torana.api.leaving import CANCELS_PER_TURN, Leaving


async def crowd(count: int) -> list["asyncio.Task[None]"]:
    """Calls that wait for their providers."""
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(asyncio.Event().wait()) for _ in range(count)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return tasks


async def test_a_client_that_leaves_alone_ends_its_call_at_once() -> None:
    [task] = await crowd(1)

    Leaving().cancel(task, "gone")

    assert task.cancelling()


async def test_of_many_only_some_end_in_one_turn_and_all_in_the_end() -> None:
    tasks, leaving = await crowd(3 * CANCELS_PER_TURN + 1), Leaving()
    ended = []

    for task in tasks:
        leaving.cancel(task, "gone")
    for _ in range(4):
        ended.append(sum(map(asyncio.Task.cancelling, tasks)))
        await asyncio.sleep(0)

    assert ended == [CANCELS_PER_TURN, 2 * CANCELS_PER_TURN, 3 * CANCELS_PER_TURN, len(tasks)]


async def test_a_call_that_ends_by_itself_meanwhile_is_left_alone() -> None:
    first, leaving = await crowd(2 * CANCELS_PER_TURN), Leaving()
    last = asyncio.create_task(asyncio.sleep(0))

    for task in [*first, last]:
        leaving.cancel(task, "gone")
    await asyncio.wait([*first, last])

    assert not last.cancelled()


async def test_who_leaves_after_a_crowd_waits_for_nobody() -> None:
    tasks, leaving = await crowd(CANCELS_PER_TURN + 1), Leaving()
    for task in tasks:
        leaving.cancel(task, "gone")
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    [late] = await crowd(1)

    leaving.cancel(late, "gone")

    assert late.cancelling()
