"""Work that comes in crowds, done a little in each turn of the event loop: clients that leave together (CL2), too."""

import asyncio

from torana.api.turns import Turns

PER_TURN = 32


async def crowd(count: int) -> list["asyncio.Task[None]"]:
    """Calls that wait for their providers."""
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(asyncio.Event().wait()) for _ in range(count)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return tasks


async def test_a_client_that_leaves_alone_ends_its_call_at_once() -> None:
    [task] = await crowd(1)

    Turns(PER_TURN).do(task.cancel)

    assert task.cancelling()


async def test_of_many_only_some_end_in_one_turn_and_all_in_the_end() -> None:
    tasks, leaving = await crowd(3 * PER_TURN + 1), Turns(PER_TURN)
    ended = []

    for task in tasks:
        leaving.do(task.cancel)
    for _ in range(4):
        ended.append(sum(map(asyncio.Task.cancelling, tasks)))
        await asyncio.sleep(0)

    assert ended == [PER_TURN, 2 * PER_TURN, 3 * PER_TURN, len(tasks)]


async def test_a_call_that_ends_by_itself_meanwhile_is_left_alone() -> None:
    first, leaving = await crowd(2 * PER_TURN), Turns(PER_TURN)
    last = asyncio.create_task(asyncio.sleep(0))

    for task in [*first, last]:
        leaving.do(task.cancel)
    await asyncio.wait([*first, last])

    assert not last.cancelled()


async def test_who_leaves_after_a_crowd_waits_for_nobody() -> None:
    tasks, leaving = await crowd(PER_TURN + 1), Turns(PER_TURN)
    for task in tasks:
        leaving.do(task.cancel)
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    [late] = await crowd(1)

    leaving.do(late.cancel)

    assert late.cancelling()


async def test_work_that_fails_ends_nobody_elses_turn() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
    tasks, leaving = await crowd(2 * PER_TURN), Turns(PER_TURN)

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    for work in [*[task.cancel for task in tasks[:PER_TURN]], fail, *[task.cancel for task in tasks[PER_TURN:]]]:
        leaving.do(work)
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    [late] = await crowd(1)
    leaving.do(late.cancel)

    assert [str(fault) for fault in faults] == ["a fault of ours"]
    assert late.cancelling()
