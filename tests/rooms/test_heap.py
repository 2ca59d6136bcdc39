"""Memory for large bodies: kept while they come, given back afterwards."""

import ctypes
import resource

import pytest
from tests.support.waiting import eventually

from torana.api.heap import Heap

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")

LARGE = 4 << 20


def faults_of_large_buffers(count: int) -> int:
    """Pages that the system had to hand out for so many buffers, one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for number in range(count):
        del_me = bytes([number % 251]) * LARGE
        del del_me
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


async def test_while_large_bodies_come_their_memory_is_used_again() -> None:
    heap = Heap(over_s=0.01)
    heap.keep()
    faults_of_large_buffers(1)  # the first one has to be fetched

    assert faults_of_large_buffers(20) < LARGE // 4096

    async def is_over() -> bool:
        return not heap.is_keeping

    await eventually(is_over)
    assert faults_of_large_buffers(20) >= 20 * LARGE // 4096 // 2


async def test_it_is_kept_for_as_long_as_they_come() -> None:
    heap = Heap(over_s=1000.0)

    heap.keep()
    heap.keep()

    assert heap.is_keeping
