"""The watch over workers: who is stuck, and who is not."""

from torana.cli.pulse import STUCK_LOOKS, Pulse


def test_a_worker_is_stuck_that_gives_no_sign_for_so_many_looks() -> None:
    pulse = Pulse(2)
    well, silent = pulse.beater(0), pulse.beater(1)
    silent()
    found = []
    for _ in range(STUCK_LOOKS + 1):
        well()
        found.append((pulse.look(0), pulse.look(1)))

    assert found == [(False, False)] * STUCK_LOOKS + [(False, True)]


def test_a_worker_that_is_still_starting_is_not_stuck() -> None:
    pulse = Pulse(1)

    assert not any(pulse.look(0) for _ in range(10 * STUCK_LOOKS))


def test_a_worker_that_takes_the_place_of_another_begins_anew() -> None:
    pulse = Pulse(1)
    pulse.beater(0)()
    assert any(pulse.look(0) for _ in range(2 * STUCK_LOOKS))

    pulse.begin(0)

    assert not any(pulse.look(0) for _ in range(2 * STUCK_LOOKS))
