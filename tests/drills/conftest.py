"""What drills of load share."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bench import processes


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """For what has to be ended. Load and probes are sent from the one core, the gateway has the other."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processes.LOAD_CORE})
    with ExitStack() as stack:
        yield stack
    os.sched_setaffinity(0, mine)
