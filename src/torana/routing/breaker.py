"""When to leave a deployment alone: a window of outcomes, a rest after too many failures, a careful return.

closed     every call goes out; the last ten seconds are remembered
open       nothing goes out until the rest is over
half open  one call at a time looks whether it is better, then three, then nine; ten good ones in all close it

All times are a monotonic clock's seconds, handed in: nothing here waits.
"""

import random

WINDOW_S = 10
"""Seconds of outcomes that count."""
GOOD_TO_CLOSE = 10
"""Good calls after a rest that close the breaker."""
RAMP = 3
"""Each good call after a rest lets this many times as many out at once: recovery is no stampede, and no crawl."""
JITTER = 0.2
"""A rest is up to this part shorter or longer, so that workers do not come back in step."""


class Breaker:
    """One deployment's. A call that `begin` lets out ends in one of `good`, `bad`, `left`, with the turn it was given.

    failures_to_rest  failures in the window that open it, where they are at least half of all outcomes; 0: never
    rest_s            how long it stays open
    """

    __slots__ = (
        "_allowed",
        "_bad",
        "_good",
        "_last_second",
        "_probes",
        "_probing_since",
        "_returned",
        "failures_to_rest",
        "is_open",
        "rest_s",
        "turn",
        "until",
    )

    def __init__(self, failures_to_rest: int, rest_s: float) -> None:
        self.failures_to_rest = failures_to_rest
        self.rest_s = rest_s
        self.is_open = False
        """Open or half open."""
        self.until = 0.0
        """End of the rest."""
        self.turn = 1
        """Grows whenever it opens or closes: what a call of an earlier turn tells is no news."""
        self._good = [0] * WINDOW_S
        self._bad = [0] * WINDOW_S
        self._last_second = 0
        self._allowed = 1
        self._probes = 0
        self._probing_since = 0.0
        self._returned = 0

    def may_begin(self, now: float) -> bool:
        """Whether `begin` would let a call out."""
        if not self.is_open:
            return True
        if now < self.until:
            return False
        # One that looks and does not come back must not keep all others waiting.
        return self._probes < self._allowed or now - self._probing_since > max(self.rest_s, 1.0)

    def begin(self, now: float) -> int:
        """A call wants out: the turn to end it with, or 0: not now."""
        if self.is_open:
            if not self.may_begin(now):
                return 0
            self._probes += 1
            self._probing_since = now
        return self.turn

    def good(self, now: float, turn: int) -> bool:
        """A call was answered. True where that closed the breaker."""
        if turn != self.turn:
            return False
        if not self.is_open:
            self._forget_until(now)
            self._good[self._last_second % WINDOW_S] += 1
            return False
        self.left(turn)
        self._returned += 1
        self._allowed *= RAMP
        if self._returned < GOOD_TO_CLOSE:
            return False
        self._begin_turn(is_open=False)
        return True

    def bad(self, now: float, turn: int) -> bool:
        """A call failed by the deployment's fault. True where that opened the breaker, or opened it again."""
        if turn != self.turn:
            return False
        if not self.is_open:
            self._forget_until(now)
            self._bad[self._last_second % WINDOW_S] += 1
            bad = sum(self._bad)
            if not self.failures_to_rest or bad < self.failures_to_rest or bad < sum(self._good):
                return False
        self.open(now)
        return True

    def left(self, turn: int) -> None:
        """A call ended without telling anything about the deployment: its caller went, or asked for nonsense."""
        if turn == self.turn and self._probes:
            self._probes -= 1

    def open(self, now: float) -> None:
        """Let nothing out for a while, whatever the window says."""
        self.until = now + self.rest_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 jitter, no secret
        self._begin_turn(is_open=True)

    def _begin_turn(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.turn += 1
        self._allowed, self._returned, self._probes = 1, 0, 0
        self._good = [0] * WINDOW_S
        self._bad = [0] * WINDOW_S

    def _forget_until(self, now: float) -> None:
        """Forget the seconds that have left the window."""
        gone = int(now) - self._last_second
        if gone <= 0:
            return
        for step in range(1, min(gone, WINDOW_S) + 1):
            place = (self._last_second + step) % WINDOW_S
            self._good[place] = self._bad[place] = 0
        self._last_second = int(now)
