"""Memory for large bodies: kept while they come, given back afterwards."""

import ctypes
import resource
from pathlib import Path

import pytest
from tests.support.waiting import eventually

from torana.heap import Heap

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")

LARGE = 4 << 20


def use_large_buffers(count: int) -> int:
    """So many one after another; pages that the system had to hand out for them."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for number in range(count):
        buffer = bytes([number % 251]) * LARGE
        del buffer
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def is_over(heap: Heap) -> None:
    async def has_given_back() -> bool:
        return not heap.is_keeping

    await eventually(has_given_back)


async def test_while_large_bodies_come_their_memory_is_used_again() -> None:
    heap = Heap(over_s=0.01)
    heap.keep()
    use_large_buffers(1)  # the first one has to be fetched

    assert use_large_buffers(20) < LARGE // resource.getpagesize()
    await is_over(heap)


async def test_what_they_took_is_given_back_when_no_more_come() -> None:
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes()
    heap = Heap(over_s=0.01)
    heap.keep()
    buffers = [bytes([number]) * LARGE for number in range(6)]
    del buffers
    assert resident_bytes() > before + 3 * LARGE

    await is_over(heap)
    assert resident_bytes() < before + LARGE
