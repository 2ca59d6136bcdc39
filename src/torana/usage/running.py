"""The calls that are running, in a file that outlives the process: what a killed worker leaves behind.

A table of slots, mapped into memory. Writing one is a copy of some hundred bytes, without a system call, and the
kernel keeps it when the process is killed. Whoever finds the table of a dead worker makes one `interrupted` record
of each slot in use. That may be another version of torana: what is here stays where it is, and what is new stands
beside it, behind a checksum of its own.
"""

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from msgspec.structs import replace

from torana.chat import Usage
from torana.usage.disk import Disk

SLOT_BYTES = 2048
FIRST_SLOTS = 64

_HEAD = struct.Struct("<II")
"""Length and checksum of what was admitted; a length of 0 is a free slot."""
_COUNTS = struct.Struct("<QQQQQ?d")
"""Tokens so far, in the order of Usage, whether we counted them, and the seconds since admission."""
_TIERS_BYTES = 48
_MORE = struct.Struct(f"<Q{_TIERS_BYTES}s")
"""What the cache keeps for an hour, and the tiers."""
_UNKNOWN_TIER = "?"
"""In place of tiers too long to be kept: what no price list names has no price."""
_CHECKED = struct.Struct("<II")
"""Number of the checkpoint, and checksum of it with what it holds."""
_COUNTS_BYTES, _MORE_BYTES = 72, _CHECKED.size + _MORE.size
_COUNTS_AT = SLOT_BYTES - 2 * _COUNTS_BYTES
_MORE_AT = _COUNTS_AT - 2 * _MORE_BYTES
_PAYLOAD_AT = _HEAD.size
MAX_ADMITTED_BYTES = _MORE_AT - _PAYLOAD_AT
_FREE = bytes(_HEAD.size)
_MOST = 2**63


@dataclass(frozen=True, slots=True)
class Left:
    """A slot that was in use when its worker died."""

    admitted: bytes
    usage: Usage
    duration_s: float
    tries: bytes = b""


class RunningTable:
    """One worker's slots. Grows by itself; space on the disk is reserved first, so that no later write can fail."""

    def __init__(self, disk: Disk, fd: int) -> None:
        """`fd` is its own from now on. Raises OSError."""
        self._disk = disk
        self._fd = fd
        self._extents: list[mmap.mmap] = []
        self._places: list[tuple[mmap.mmap, int]] = []
        self._free: deque[int] = deque()
        try:
            self._grow(FIRST_SLOTS)
        except OSError:
            disk.close(fd)
            raise

    @property
    def used(self) -> int:
        return len(self._places) - len(self._free)

    def take(self, admitted: bytes) -> int:
        """Put a call down; the slot's number. Raises OSError where the table cannot grow."""
        if not self._free:
            self._grow(len(self._places))
        # The one used last is still in the processor's cache.
        slot = self._free.pop()
        self.rewrite(slot, admitted)
        return slot

    def rewrite(self, slot: int, admitted: bytes, tries: bytes = b"") -> None:
        """What is known of the call has changed.

        admitted  at most MAX_ADMITTED_BYTES
        tries     its sendings until now; left out where there is no room for them
        """
        extent, start = self._places[slot]
        # Older checkpoints in the slot end with this, and older tries: theirs are made with another head.
        head = _HEAD.pack(len(admitted), crc32(admitted))
        data = head + admitted
        if tries and len(data) + _HEAD.size + len(tries) <= _MORE_AT:
            data += _HEAD.pack(len(tries), _seal(head, 0, tries)) + tries
        extent[start : start + len(data)] = data

    def note(self, slot: int, number: int, usage: Usage, duration_s: float) -> None:
        """Counts so far. Two places take turns, so that a death in the middle of one leaves the other."""
        if usage.cache_write_1h_tokens or usage.tiers:  # first, for it counts with the counts of its number alone
            more = _MORE.pack(_bounded(usage.cache_write_1h_tokens), _write_tiers(usage.tiers))
            self._write(slot, _MORE_AT + number % 2 * _MORE_BYTES, number, more)
        counts = _COUNTS.pack(
            _bounded(usage.input_tokens),
            _bounded(usage.output_tokens),
            _bounded(usage.cache_read_tokens),
            _bounded(usage.cache_write_tokens),
            _bounded(usage.reasoning_tokens),
            usage.is_counted,
            duration_s,
        )
        self._write(slot, _COUNTS_AT + number % 2 * _COUNTS_BYTES, number, counts)

    def _write(self, slot: int, at: int, number: int, what: bytes) -> None:
        extent, start = self._places[slot]
        data = _CHECKED.pack(number, _seal(extent[start : start + _PAYLOAD_AT], number, what)) + what
        extent[start + at : start + at + len(data)] = data

    def release(self, slot: int) -> None:
        extent, start = self._places[slot]
        extent[start : start + _PAYLOAD_AT] = _FREE
        self._free.append(slot)

    def close(self) -> None:
        for extent in self._extents:
            extent.close()
        self._extents = []
        self._disk.close(self._fd)

    def _grow(self, slots: int) -> None:
        length = slots * SLOT_BYTES
        start = len(self._places) * SLOT_BYTES
        self._disk.reserve(self._fd, start, length)
        extent = mmap.mmap(self._fd, length, offset=start)
        self._extents.append(extent)
        first = len(self._places)
        self._places += [(extent, index * SLOT_BYTES) for index in range(slots)]
        self._free.extend(range(first + slots - 1, first - 1, -1))


def read_table(fd: int) -> tuple[list[Left], int]:
    """(the slots in use, how many more are damaged) of a table whose worker is dead. Raises OSError."""
    found: list[Left] = []
    damaged = 0
    for data in _slots(fd):
        length, checksum = _HEAD.unpack_from(data)
        if not length:
            continue
        admitted = data[_PAYLOAD_AT : _PAYLOAD_AT + length]
        if crc32(admitted) != checksum:
            # Killed in the middle of admitting, so nothing was sent; or the disk has flipped a bit.
            damaged += 1
            continue
        usage, duration_s = _latest(data)
        found.append(Left(admitted, usage, duration_s, _tries(data, _PAYLOAD_AT + length)))
    return found, damaged


def _slots(fd: int) -> Iterator[bytes]:
    position = 0
    while len(data := os.pread(fd, SLOT_BYTES, position)) == SLOT_BYTES:
        yield data
        position += SLOT_BYTES


def _tries(data: bytes, at: int) -> bytes:
    """What stands behind the admission, at `at`, where that is of the same call."""
    if at + _HEAD.size > _MORE_AT:
        return b""
    length, seal = _HEAD.unpack_from(data, at)
    told = data[at + _HEAD.size : at + _HEAD.size + length]
    return told if len(told) == length and seal == _seal(data[:_PAYLOAD_AT], 0, told) else b""


def _latest(data: bytes) -> tuple[Usage, float]:
    newest, found = 0, (Usage(is_counted=True), 0.0)
    for turn in (0, 1):
        number, counts = _read(data, _COUNTS_AT + turn * _COUNTS_BYTES, _COUNTS)
        if counts and number > newest:
            of_more, more = _read(data, _MORE_AT + turn * _MORE_BYTES, _MORE)
            usage = Usage(*counts[:6])
            if more and of_more == number:
                usage = replace(usage, cache_write_1h_tokens=more[0], tiers=_read_tiers(more[1].rstrip(b"\0")))
            newest, found = number, (usage, counts[6])
    return found


def _read(data: bytes, at: int, form: struct.Struct) -> tuple[int, tuple[Any, ...]]:
    """(number of the checkpoint, what it holds); nothing where the checksum is another."""
    number, seal = _CHECKED.unpack_from(data, at)
    what = data[at + _CHECKED.size : at + _CHECKED.size + form.size]
    return number, form.unpack(what) if seal == _seal(data[:_PAYLOAD_AT], number, what) else ()


def _seal(head: bytes, number: int, what: bytes) -> int:
    """Bound to the admission, or the counts of the slot's last call would pass for this one's."""
    return crc32(what, crc32(head, number))


def _write_tiers(tiers: tuple[str, ...]) -> bytes:
    text = "\n".join(tiers).encode("utf-8", "replace")
    return text if len(text) <= _TIERS_BYTES else _UNKNOWN_TIER.encode()


def _read_tiers(text: bytes) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "replace").split("\n")) if text else ()


def _bounded(tokens: int) -> int:
    return min(max(tokens, 0), _MOST)
