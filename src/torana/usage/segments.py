"""The files of one worker, written: numbered segments of frames, each append durable before it counts."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from torana.shared_files import CANNOT_RESERVE
from torana.usage.disk import Disk
from torana.usage.frames import write_frame

RESERVE_BYTES = 128 * 1024
"""Space that is taken ahead, so that what runs can still be put down when the disk is full."""
AHEAD_BYTES = 256 * 1024
"""Taken on top of what is wanted, where the disk has it: each look for room costs as much as a sync."""

HEADER_START = b'{"segment"'


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first frame of a segment."""

    segment: int
    previous_end: int
    """Where the one before it ends: what lies behind was never acknowledged, and stands here again."""


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.log"


class Segments:
    """The end that grows. One thread only.

    max_bytes    of one segment; the next one begins when it is reached
    number, end  of the newest segment that is there already; it is not written again
    """

    def __init__(self, disk: Disk, folder: Path, max_bytes: int, number: int = 0, end: int = 0) -> None:
        self._disk = disk
        self._folder = folder
        self._max_bytes = max_bytes
        self._fd = -1
        self._reserved = 0
        self._can_reserve = True
        self.number = number
        """Of the newest segment; the first one has 1."""
        self._begins_at = 0
        self.end = end
        """Everything up to here is durable."""

    def append(self, frames: bytes) -> None:
        """Durable when it returns. Raises OSError; then none of it counts, and it may be given again."""
        if self._fd < 0:
            self.begin_next(len(frames))
        elif self.end + len(frames) > self._max_bytes:
            with suppress(OSError):  # without space for the next one, the rest of this one's is used up first
                self.begin_next()
        try:
            self._disk.append(self._fd, frames, self.end)
        except OSError:
            self._abandon()
            raise
        self.end += len(frames)

    @property
    def has_records(self) -> bool:
        """The newest segment holds more than its header."""
        return self.number > 0 and self.end > self._begins_at

    @property
    def room(self) -> int:
        """Bytes that are sure to fit."""
        return self._reserved - self.end if self._can_reserve else 1 << 62

    def start_over(self) -> bool:
        """Delete the newest segment, whose records nobody needs any more; False where it holds none."""
        if not self.has_records:
            return False
        self.close()
        self._disk.remove(segment_path(self._folder, self.number))
        self.end = self._begins_at
        return True

    def make_room(self, wanted_bytes: int) -> None:
        """Reserve space, so that so much more is sure to fit. Raises OSError where it is not."""
        if self._fd < 0:
            self.begin_next()
        if not self._can_reserve or self._reserved - self.end >= wanted_bytes:
            return
        least = max(wanted_bytes, RESERVE_BYTES)
        for length in (least + AHEAD_BYTES, least):
            try:
                # A crowd of records may have outgrown the room: what is written is not written over.
                self._reserve(self._fd, max(self._reserved, self.end), self.end + length)
            except OSError as error:
                self._can_reserve = error.errno not in CANNOT_RESERVE
                if not self._can_reserve:
                    return
                if length == least:
                    raise
            else:
                self._reserved = self.end + length
                return

    def _reserve(self, fd: int, start: int, end: int) -> None:
        """Space from `start` to `end`, filled with zeros. Raises OSError.

        Syncing what has been written before takes no journal, which is half the time and half the work of a sync.
        """
        self._disk.reserve(fd, start, end - start)
        self._disk.write(fd, bytes(end - start), start)
        self._disk.sync(fd)

    def begin_next(self, least_bytes: int = RESERVE_BYTES) -> None:
        """Start a new segment, with the usual space ahead, or where there is less, with so much.

        Raises OSError, and then all is as it was.
        """
        number = self.number + 1
        path = segment_path(self._folder, number)
        fd = self._disk.create(path)
        header = write_frame(msgspec.json.encode(SegmentHeader(number, self.end)))
        try:
            reserved = self._reserve_first(fd, len(header) + least_bytes)
            self._disk.write(fd, header, 0)
            self._disk.sync(fd)
            self._disk.sync_folder(self._folder)
        except OSError:
            self._disk.close(fd)
            with suppress(OSError):
                self._disk.remove(path)
            raise
        self.close()
        self._fd, self.number, self.end, self._reserved = fd, number, len(header), reserved
        self._begins_at = self.end

    def _reserve_first(self, fd: int, least: int) -> int:
        """How many bytes of a new segment are reserved. Raises OSError where not even `least` can be."""
        for length in (RESERVE_BYTES, least) if least < RESERVE_BYTES else (RESERVE_BYTES,):
            if not self._can_reserve:
                break
            try:
                self._reserve(fd, 0, length)
            except OSError as error:
                self._can_reserve = error.errno not in CANNOT_RESERVE
                if self._can_reserve and length <= least:
                    raise
            else:
                return length
        return 0

    def close(self) -> None:
        """Give back what was reserved and not used."""
        if self._fd >= 0:
            with suppress(OSError):
                self._disk.truncate(self._fd, self.end)
            self._disk.close(self._fd)
            self._fd = -1

    def _abandon(self) -> None:
        """After a failed sync nobody knows what the disk holds: this file is not written again."""
        with suppress(OSError):
            os.ftruncate(self._fd, self.end)
        with suppress(OSError):
            self._disk.close(self._fd)
        self._fd = -1
