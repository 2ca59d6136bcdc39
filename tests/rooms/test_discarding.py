"""What is thrown away of refused requests is read slowly, by all connections together (OV9)."""

from hypothesis import given
from hypothesis import strategies as st
from tests.support.clock import HandClock

from torana.api.discarding import BYTES_PER_S, LEAST_READ_BYTES, MOST_WAIT_S, Discarding

READ = 262_144
"""What a connection is read at once."""


def test_who_is_alone_waits_as_long_as_the_rate_says() -> None:
    clock = HandClock()

    assert Discarding(clock.monotonic).wait_s(READ) == READ / BYTES_PER_S


def test_a_piece_of_one_byte_is_not_for_nothing() -> None:
    clock = HandClock()

    assert Discarding(clock.monotonic).wait_s(1) == LEAST_READ_BYTES / BYTES_PER_S


@given(st.integers(1, 500), st.integers(1, READ))
def test_all_connections_together_are_read_no_faster_than_the_rate(connections: int, size: int) -> None:
    clock, second, taken = HandClock(), 1.0, 0
    discarding = Discarding(clock.monotonic)
    ready = [0.0] * connections
    while min(ready) < second:
        at = min(range(connections), key=ready.__getitem__)
        clock.advance(max(0.0, ready[at] - clock.monotonic()))
        ready[at] = clock.monotonic() + discarding.wait_s(size)
        taken += size

    assert taken <= BYTES_PER_S * second + connections * size


def test_a_thousand_who_left_keep_nobody_waiting_for_long() -> None:
    clock = HandClock()
    discarding = Discarding(clock.monotonic)
    for _ in range(1_000):
        discarding.wait_s(READ)

    assert discarding.wait_s(READ) == MOST_WAIT_S
    clock.advance(MOST_WAIT_S)
    assert discarding.wait_s(READ) == READ / BYTES_PER_S
