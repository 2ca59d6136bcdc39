"""When a supervisor takes a worker for stuck."""

from torana.cli.pulse import STUCK_LOOKS, Pulse


def test_a_worker_is_stuck_that_gave_no_sign_for_ten_looks() -> None:
    pulse = Pulse(2)
    beat = pulse.beater(1)
    beat()

    assert [pulse.look(1) for _ in range(STUCK_LOOKS + 1)] == [False] * STUCK_LOOKS + [True]
    beat()
    assert not pulse.look(1)


def test_a_worker_that_is_still_starting_is_not_stuck() -> None:
    pulse = Pulse(1)

    assert not any(pulse.look(0) for _ in range(10 * STUCK_LOOKS))


def test_the_next_worker_begins_anew() -> None:
    pulse = Pulse(1)
    pulse.beater(0)()
    assert any(pulse.look(0) for _ in range(2 * STUCK_LOOKS))

    pulse.begin(0)

    assert not any(pulse.look(0) for _ in range(2 * STUCK_LOOKS))


def test_a_worker_that_never_begins_is_stuck_where_all_are_to_end() -> None:
    pulse = Pulse(workers=1)
    pulse.begin(0)
    assert not any(pulse.look(0) for _ in range(STUCK_LOOKS))

    assert [pulse.look(0, is_ending=True) for _ in range(STUCK_LOOKS)] == [False] * (STUCK_LOOKS - 1) + [True]
