"""The time, as a part that is passed in, so that tests move it by hand."""

import time


class Clock:
    """`now` is Unix seconds; `monotonic` only ever grows and has no meaning of its own."""

    # The system's own functions, without a call of ours around them: each request asks a dozen times.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
