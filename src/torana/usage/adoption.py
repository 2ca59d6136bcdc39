"""What a killed worker leaves behind: each call that was running becomes one `interrupted` record."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from torana.usage.disk import Disk
from torana.usage.event import Ending, ToldTry, encode, id_of
from torana.usage.folder import RESENT, Folder, Position, orphans, take_orphan
from torana.usage.frames import write_frame
from torana.usage.prices import Price, price_text
from torana.usage.running import Left, read_table
from torana.usage.segments import Segments

logger = logging.getLogger("torana.usage")

_LAST_SEGMENTS = 3
"""A call's record and its slot stand side by side for one sync at most; that may span the end of a segment."""


@dataclass(frozen=True, slots=True)
class Adopted:
    interrupted: int
    damaged: int
    """Slots that cannot be read."""


class _Started(msgspec.Struct):
    started_at: str


class Orphans:
    """Looks for folders of dead workers. One that cannot be read keeps no other from being taken."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._unread: set[str] = set()
        """Of which the log has told that they cannot be read."""

    def take(self, spool: Path, own: set[str]) -> Iterator[tuple[Folder, Adopted]]:
        """Those that are ours from now on, with the records that they owed. Raises OSError.

        own  the folders that were ours before
        """
        for name in orphans(spool, own):
            try:
                taken = self._take(spool / name)
            except OSError as error:
                if name not in self._unread:
                    self._unread.add(name)
                    logger.warning(
                        "a dead worker's usage records cannot be read yet",
                        extra={"folder": str(spool / name), "reason": str(error)},
                    )
                continue
            self._unread.discard(name)
            if taken is not None:
                is_resent = name.startswith(RESENT)
                logger.log(
                    logging.INFO if is_resent else logging.WARNING,
                    "parked usage records are sent again" if is_resent else "took over a dead worker's usage records",
                    extra={
                        "folder": str(spool / name), "interrupted": taken[1].interrupted, "damaged": taken[1].damaged,
                    },
                )  # fmt: skip
                yield taken

    def _take(self, path: Path) -> tuple[Folder, Adopted] | None:
        folder = take_orphan(self._disk, path)
        if folder is None:
            return None
        try:
            return folder, adopt(self._disk, folder)
        except OSError:
            folder.release()
            raise


def adopt(disk: Disk, folder: Folder) -> Adopted:
    """Write the records that a dead worker owes, and empty its table. Raises OSError; it may be called again.

    Killed in the middle of this, the next taker finds the slots or the records, and makes none twice.
    """
    table = folder.path / "running"
    if not table.exists():
        return Adopted(0, 0)
    fd = disk.open(table)
    try:
        left, damaged = read_table(fd)
    finally:
        disk.close(fd)
    done = _ids_at_the_end(folder) if left else set()
    owed: list[bytes] = []
    for each in left:
        if id_of(each.admitted) in done:
            continue
        try:
            owed.append(_interrupt(each))
        except ValueError:  # of another version, before or after this one
            damaged += 1
    if owed:
        segments = Segments(disk, folder.path, 1 << 40, folder.end.segment, folder.end.offset)
        segments.append(b"".join(map(write_frame, owed)))
        folder.end = Position(segments.number, segments.end)
        segments.close()
    # Only now: until the records are durable, the slots are all there is.
    disk.remove(table)
    with suppress(OSError):
        disk.sync_folder(folder.path)
    return Adopted(len(owed), damaged)


def _ids_at_the_end(folder: Folder) -> set[bytes]:
    numbers = folder.segments()[-_LAST_SEGMENTS:]
    found: set[bytes] = set()
    position = Position(numbers[0]) if numbers else Position()
    while (part := folder.read(position, 10_000)).next != position:
        found.update(map(id_of, part.payloads))
        position = part.next
    return found


def _interrupt(left: Left) -> bytes:
    usage = left.usage
    admitted, _, price_json = left.admitted.partition(b"\n")
    started = datetime.fromisoformat(msgspec.json.decode(admitted, type=_Started).started_at)
    cost, price_as_of = price_text(usage, msgspec.json.decode(price_json, type=Price | None))
    ended = started + timedelta(seconds=left.duration_s)
    ending = Ending(
        ended_at=ended.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        duration_s=round(left.duration_s, 6),
        status="interrupted",
        error_code="worker_killed",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        source="counted" if usage.is_counted else "provider",
        tiers=usage.tiers,
        cost_usd=cost,
        price_as_of=price_as_of,
        tries=tuple(
            each
            if each.outcome != "answered"
            else replace(each, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_usd=cost)
            for each in msgspec.json.decode(left.tries or b"[]", type=tuple[ToldTry, ...])
        ),
    )
    return b"%b,%b" % (admitted[:-1], encode(ending)[1:])
