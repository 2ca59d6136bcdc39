"""The time, as a part that is passed in, so that tests move it by hand."""

import time


class Clock:
    """`now` is Unix seconds; `monotonic` only ever grows and has no meaning of its own."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
