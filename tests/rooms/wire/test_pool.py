"""Connections at rest: who goes when, by a clock that the test moves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torana.wire.pool import IDLE_CONNECTION_S, KEPT_WARM, SURPLUS_S, Pool


class HandLoop:
    """As much of an event loop as a pool asks for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *args: Any) -> "Timer":
        self.timers.append(Timer(self, when, call, args))
        return self.timers[-1]

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> "Timer":
        return self.call_at(self.now + seconds, call, *args)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=Timer.when)
            self.timers.remove(timer)
            self.now = timer.at
            timer.call(*timer.args)
        self.now = end


@dataclass(eq=False)
class Timer:
    loop: HandLoop
    at: float
    call: Callable[..., None]
    args: tuple[Any, ...]

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.loop.timers.remove(self)


@dataclass(eq=False)
class Resting:
    """A connection that was just released."""

    loop: HandLoop
    pool: Pool
    key: str = "there"
    is_reusable: bool = True
    opened_at: float = 0.0
    idle_since: float = field(init=False)

    def __post_init__(self) -> None:
        self.idle_since = self.loop.now
        self.pool.add(self)  # type: ignore[arg-type]
        self.pool.release(self)  # type: ignore[arg-type]

    def abort(self) -> None:
        self.pool.forget(self)  # type: ignore[arg-type]


def test_what_a_burst_has_left_goes_soon_whenever_the_burst_was() -> None:
    for quiet_s in (0.0, SURPLUS_S - 1, SURPLUS_S + 1, IDLE_CONNECTION_S - 1):
        loop, pool = HandLoop(), Pool(IDLE_CONNECTION_S)
        for _ in range(KEPT_WARM):
            Resting(loop, pool)
        loop.advance(quiet_s)

        for _ in range(10):
            Resting(loop, pool)
        loop.advance(SURPLUS_S - 0.1)
        assert len(pool.open) >= 10
        loop.advance(IDLE_CONNECTION_S / 10 + 0.2)

        assert len(pool.open) == KEPT_WARM
        loop.advance(IDLE_CONNECTION_S * 1.1)
        assert not pool.open
        assert not loop.timers
