"""Bodies that end together are worked on one in a turn."""

import asyncio

from torana.api.large_bodies import LargeBodies
from torana.heap import Heap


async def test_no_two_large_bodies_share_a_turn() -> None:
    bodies, turn = LargeBodies(Heap()), 0
    taken: list[tuple[int, str]] = []
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    async def take(name: str) -> None:
        await bodies.take_turn()
        taken.append((turn, name))

    loop.call_soon(count)
    gone = asyncio.create_task(take("gone"))
    others = [asyncio.create_task(take(name)) for name in "abc"]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*others)
    late = [asyncio.create_task(take(name)) for name in "de"]
    await asyncio.gather(*late)

    turns = [at for at, _ in taken]
    assert [name for _, name in taken] == list("abcde")
    assert sorted(set(turns)) == turns
