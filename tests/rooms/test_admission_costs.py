"""The line in front of a busy worker: what large requests cost their instance."""

from collections import Counter

from tests.rooms.test_admission import Crowd

from torana.api.admission import BYTES_PER_TURN, MOST_BYTES, STARTS_PER_TURN, SWEEP_S, Standing


async def test_large_requests_take_as_many_turns_as_they_cost() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    for name, body_bytes in (("large", 7 * BYTES_PER_TURN), ("small", 0)):
        for _ in range(60):
            crowd.come(name, Standing(instance=name), body_bytes)

    begun = Counter(await crowd.turns(1))

    assert begun == {"large": 4, "small": STARTS_PER_TURN - 4}


async def test_a_first_large_request_waits_for_its_turn_and_no_longer() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    for _ in range(60):
        crowd.come("small", Standing(instance="small"))
    crowd.come("large", Standing(instance="large"), 100 * BYTES_PER_TURN)

    assert (await crowd.turns(1)).index("large") <= 1


async def test_whoever_had_large_turns_still_owes_them_when_it_comes_again() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    for _ in range(3 * STARTS_PER_TURN):
        crowd.come("small", Standing(instance="small"))
    crowd.come("large", Standing(instance="large"), 70 * BYTES_PER_TURN)
    assert "large" in await crowd.turns(1)
    crowd.told.clear()

    crowd.come("large", Standing(instance="large"), 70 * BYTES_PER_TURN)

    assert "large" not in await crowd.turns(1)
    assert "large" in await crowd.turns(1)


async def test_nobody_owes_anything_once_the_line_was_empty() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    crowd.come("large", Standing(instance="large"), MOST_BYTES)
    await crowd.turns(2)
    crowd.fill_turn()
    for _ in range(2 * STARTS_PER_TURN):
        crowd.come("small", Standing(instance="small"))

    crowd.come("large", Standing(instance="large"))

    assert "large" in await crowd.turns(1)


async def test_where_an_instance_is_alone_its_large_requests_cost_nothing() -> None:
    crowd = Crowd()
    crowd.fill_turn()
    for _ in range(STARTS_PER_TURN):
        crowd.come("large", Standing(instance="large"), MOST_BYTES)

    assert len(await crowd.turns(1)) == STARTS_PER_TURN


async def test_a_length_that_nobody_could_send_counts_as_the_longest() -> None:
    async def turns_until_it_begins_again(body_bytes: int) -> int:
        crowd = Crowd()
        crowd.fill_turn()
        for _ in range(900):
            crowd.come("small", Standing(instance="small"))
        for name in ("first", "second"):
            crowd.come(name, Standing(instance="large"), body_bytes)
        turns = 0
        while ("second", "begun") not in crowd.told:
            turns += 1
            await crowd.turns(1)
        return turns

    assert await turns_until_it_begins_again(10**18) == await turns_until_it_begins_again(MOST_BYTES)


async def test_whoever_waits_too_long_for_its_turn_hears_so_before_it_comes() -> None:
    crowd = Crowd(max_age_s=SWEEP_S)
    crowd.fill_turn()
    for name in ("first", "second"):
        crowd.come(name, Standing(instance="large"), MOST_BYTES)
    gone = crowd.come("gone", Standing(instance="gone"))
    crowd.come("kept", Standing(instance="small"))
    gone.is_gone = True
    crowd.time_s = 2 * SWEEP_S
    for _ in range(2 * STARTS_PER_TURN):
        crowd.come("small", Standing(instance="small"))

    await crowd.turns(1)

    assert crowd.told[:3] == [("first", "overloaded"), ("second", "overloaded"), ("kept", "overloaded")]
    assert crowd.reasons == {"aged": 3}
    assert await crowd.turns(2 * STARTS_PER_TURN) == ["small"] * (2 * STARTS_PER_TURN)
