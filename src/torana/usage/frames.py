"""How records lie in a file: each behind its length and checksum, so that a torn or flipped one is known as such."""

import struct
from dataclasses import dataclass, field
from zlib import crc32

MARK = b"\xf5TU1"
"""Begins a frame. No JSON text holds its first byte, so the next frame is found behind a damaged one."""
_HEAD = struct.Struct("<4sII")
HEAD_BYTES = _HEAD.size

MAX_PAYLOAD_BYTES = 64 * 1024


def write_frame(payload: bytes) -> bytes:
    """mark · length · CRC-32 of the payload · payload."""
    return _HEAD.pack(MARK, len(payload), crc32(payload)) + payload


@dataclass(slots=True)
class Scan:
    """What `read_frames` found."""

    payloads: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Where each of them ends, from the beginning of the data."""
    end: int = 0
    """Up to here the data is read; what follows needs more of it."""
    damaged: list[int] = field(default_factory=list)
    """Where the stretches begin that were skipped: torn, flipped, or no frame at all."""


def read_frames(data: bytes, *, is_all: bool, max_payloads: int = 1_000_000) -> Scan:
    """Every whole frame of `data`, in order.

    is_all  nothing follows: a frame that is cut short is torn. False: it may come whole with more data
    """
    found = Scan()
    position = 0
    while position < len(data) and len(found.payloads) < max_payloads:
        end = _end_of_frame(data, position)
        if end > 0:
            found.payloads.append(data[position + HEAD_BYTES : end])
            found.ends.append(end)
            position = found.end = end
            continue
        if end == 0 and not is_all:
            return found
        if not data[position : position + 4096].strip(b"\0") and not data[position:].strip(b"\0"):
            # Reserved and never written.
            found.end = len(data)
            return found
        found.damaged.append(position)
        position = _find_frame(data, position + 1)
        if position < 0:
            # Half a mark may stand at the very end.
            found.end = len(data) if is_all else max(found.end, len(data) - HEAD_BYTES - MAX_PAYLOAD_BYTES)
            return found
        found.end = position
    return found


def _end_of_frame(data: bytes, position: int) -> int:
    """Where the frame at `position` ends; 0: it is cut short, -1: it is none."""
    head = data[position : position + HEAD_BYTES]
    if len(head) < HEAD_BYTES:
        return 0 if MARK.startswith(head[:4]) else -1
    mark, length, checksum = _HEAD.unpack(head)
    if mark != MARK or length > MAX_PAYLOAD_BYTES:
        return -1
    end = position + HEAD_BYTES + length
    if end > len(data):
        return 0
    return end if crc32(data[position + HEAD_BYTES : end]) == checksum else -1


def _find_frame(data: bytes, position: int) -> int:
    """The next place from `position` on at which a whole frame begins; -1 where there is none."""
    while (position := data.find(MARK, position)) >= 0:
        if _end_of_frame(data, position) > 0:
            return position
        position += 1
    return -1
