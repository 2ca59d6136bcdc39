"""What lies on the disk, and what is left of it after a death: frames, segments, the table of running calls, ids."""

import errno
import gc
import json
import os
import struct
import tracemalloc
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.clock import HandClock
from tests.support.usage import BrokenDisk, is_killed
from tests.support.waiting import eventually

from torana.caller import Caller
from torana.chat import Usage
from torana.telemetry.metrics import Known, Metrics
from torana.usage.adoption import Adopted, Orphans, adopt
from torana.usage.cursor import Cursor, CursorFile
from torana.usage.deliveries import Deliveries
from torana.usage.disk import Disk
from torana.usage.event import MAX_TEXT, decode_event, id_of
from torana.usage.folder import READ_BYTES, RESENT, Folder, Position, make_folder, new_name, orphans, take_orphan
from torana.usage.frames import HEAD_BYTES, MARK, MAX_PAYLOAD_BYTES, read_frames, write_frame
from torana.usage.ids import Ids
from torana.usage.ledger import Ledger, NoOrigin, Record, Site
from torana.usage.parking import Parking
from torana.usage.prices import Price
from torana.usage.resending import resend
from torana.usage.running import FIRST_SLOTS, MAX_ADMITTED_BYTES, SLOT_BYTES, RunningTable, read_table
from torana.usage.segments import Segments, segment_path
from torana.usage.spool import SEGMENT_BYTES, Spool

DEAD = new_name("dead")

payloads = st.lists(st.binary(max_size=300) | st.just(MARK) | st.just(MARK * 5), max_size=8)


# Frames


@given(payloads)
def test_what_was_written_is_read(written: list[bytes]) -> None:
    scan = read_frames(b"".join(map(write_frame, written)), is_all=True)

    assert (scan.payloads, scan.damaged) == (written, [])


@given(payloads, st.integers(0, 3000))
def test_a_torn_end_is_skipped_and_everything_before_it_is_read(written: list[bytes], cut: int) -> None:
    frames = b"".join(map(write_frame, written))
    data = frames[: min(cut, len(frames))]
    whole, end = 0, 0
    for payload in written:
        if end + HEAD_BYTES + len(payload) > len(data):
            break
        whole, end = whole + 1, end + HEAD_BYTES + len(payload)

    scan = read_frames(data, is_all=True)

    assert scan.payloads == written[:whole]
    assert len(scan.damaged) == (end < len(data))
    assert scan.end == len(data)


@given(payloads.filter(bool), st.data())
def test_a_flipped_bit_costs_its_own_record_and_no_other(written: list[bytes], data: st.DataObject) -> None:
    frames = b"".join(map(write_frame, written))
    bit = data.draw(st.integers(0, len(frames) * 8 - 1))
    flipped = bytearray(frames)
    flipped[bit // 8] ^= 1 << bit % 8
    ends = list(accumulate(HEAD_BYTES + len(payload) for payload in written))
    hit = bisect_right(ends, bit // 8)

    scan = read_frames(bytes(flipped), is_all=True)

    assert scan.payloads == written[:hit] + written[hit + 1 :]
    assert len(scan.damaged) == 1


@given(payloads, st.integers(0, 3000))
def test_what_has_not_come_yet_is_waited_for(written: list[bytes], cut: int) -> None:
    frames = b"".join(map(write_frame, written))

    first = read_frames(frames[:cut], is_all=False)
    rest = read_frames(frames[first.end :], is_all=True)

    assert first.payloads + rest.payloads == written
    assert first.damaged == rest.damaged == []


@given(st.binary(max_size=2000))
def test_anything_at_all_can_be_read(data: bytes) -> None:
    assert read_frames(data, is_all=True).end == len(data)


def test_space_that_was_only_reserved_is_no_damage() -> None:
    scan = read_frames(write_frame(b"one") + bytes(100_000), is_all=True)

    assert (scan.payloads, scan.damaged) == ([b"one"], [])


# Segments and folders


def everything(folder: Folder, max_records: int = 3) -> tuple[list[bytes], int]:
    """(all records, damaged stretches), read part by part."""
    found: list[bytes] = []
    damaged, position = 0, Position()
    while (part := folder.read(position, max_records)).next != position:
        found += part.payloads
        damaged += len(part.damaged)
        position = part.next
    return found, damaged


def write(folder: Folder, segments: Segments, *written: bytes) -> None:
    segments.append(b"".join(map(write_frame, written)))
    folder.end = Position(segments.number, segments.end)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(Disk(), tmp_path / "spool", "mine")


def test_records_are_read_in_order_over_the_ends_of_segments(folder: Folder) -> None:
    segments = Segments(Disk(), folder.path, max_bytes=500)
    written = [b"%d" % number * 20 for number in range(100, 150)]
    for record in written:
        write(folder, segments, record)

    assert everything(folder) == (written, 0)
    assert len(folder.segments()) > 3


def test_a_part_that_ends_for_its_size_says_that_more_is_there(folder: Folder) -> None:
    segments = Segments(folder.disk, folder.path, 8 << 20)
    write(folder, segments, *[b"x" * 1000] * (READ_BYTES // 1000 + 50))
    segments.begin_next()
    write(folder, segments, b"y", b"z")

    parts = [folder.read(Position(), 10_000)]
    while (part := folder.read(parts[-1].next, 10_000)).payloads:
        parts.append(part)

    assert [len(part.payloads) < 10_000 and part.is_full for part in parts] == [True, True, False]
    assert folder.read(Position(), 7).is_full


def test_what_is_not_durable_yet_is_not_delivered(folder: Folder) -> None:
    segments = Segments(Disk(), folder.path, max_bytes=10_000)
    write(folder, segments, b"one")

    segments.append(write_frame(b"two"))

    assert everything(folder) == ([b"one"], 0)


def test_a_failed_append_counts_nowhere_although_its_bytes_are_in_a_file(tmp_path: Path) -> None:
    disk = BrokenDisk()
    disk.operations = frozenset(("sync",))
    folder = make_folder(disk, tmp_path / "spool", "mine")
    segments = Segments(disk, folder.path, max_bytes=10_000)
    write(folder, segments, b"one")
    disk.breaks = 5
    with pytest.raises(OSError, match="EIO"):
        segments.append(write_frame(b"two"))
    disk.breaks = 0
    # As if the file could not be cut back either.
    with segment_path(folder.path, 1).open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(write_frame(b"two"))

    write(folder, segments, b"two", b"three")

    assert everything(folder) == ([b"one", b"two", b"three"], 0)


def test_room_taken_ahead_leaves_the_records_that_outgrew_the_last_room(folder: Folder) -> None:
    segments = Segments(Disk(), folder.path, max_bytes=1 << 30)
    written = [b"%06d" % number + b"r" * 1000 for number in range(300)]
    write(folder, segments, *written)
    assert segments.room < 0

    segments.make_room(1)

    assert everything(folder, max_records=10_000) == (written, 0)


def test_damage_in_a_long_segment_is_skipped_whatever_lies_around_it(folder: Folder) -> None:
    segments = Segments(Disk(), folder.path, max_bytes=1 << 30)
    written = [b"%06d" % number + bytes([number % 251]) * 3000 for number in range(400)]
    write(folder, segments, *written)
    assert segments.end > 4 * READ_BYTES
    data = bytearray(segment_path(folder.path, 1).read_bytes())
    place = data.index(written[200])
    data[place + 10] ^= 4
    segment_path(folder.path, 1).write_bytes(data)

    found, damaged = everything(folder, max_records=10_000)

    assert found == written[:200] + written[201:]
    assert damaged == 1


def test_a_folder_is_taken_over_once_and_only_when_its_worker_is_dead(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    mine = make_folder(Disk(), spool, "mine")
    write(mine, Segments(Disk(), mine.path, max_bytes=1000), b"one")
    assert take_orphan(Disk(), mine.path) is None
    mine.release()

    first, second = take_orphan(Disk(), mine.path), take_orphan(Disk(), mine.path)

    assert first is not None
    assert everything(first) == ([b"one"], 0)
    assert second is None


def test_a_folder_that_cannot_be_read_keeps_no_other_from_being_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / new_name("unreadable") / "lock").mkdir(parents=True)  # opening it fails, whoever asks
    dead = make_folder(Disk(), tmp_path, DEAD)
    write(dead, Segments(Disk(), dead.path, max_bytes=1000), b"one")
    dead.release()
    orphans = Orphans(Disk())

    ((taken, _),) = orphans.take(tmp_path, set())
    again = list(orphans.take(tmp_path, {DEAD}))

    assert everything(taken) == ([b"one"], 0)
    assert again == []
    assert [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()] == [
        "a dead worker's usage records cannot be read yet"
    ]


@pytest.mark.parametrize("gateway_id", ["", "_eu", ".eu", "eu-1"])
def test_whatever_a_gateway_is_called_its_records_are_taken_over(tmp_path: Path, gateway_id: str) -> None:
    dead = make_folder(Disk(), tmp_path, new_name(gateway_id))
    dead.release()

    ((taken, _),) = Orphans(Disk()).take(tmp_path, set())

    assert taken.name == dead.name


def test_what_another_program_keeps_in_the_folder_of_the_spool_is_left_to_it(tmp_path: Path) -> None:
    theirs = tmp_path / "prometheus"
    theirs.mkdir()
    (theirs / "lock").touch()
    (theirs / "00000001.log").write_text("theirs")
    dead = make_folder(Disk(), tmp_path, DEAD)
    dead.release()

    taken = [folder.name for folder, _ in Orphans(Disk()).take(tmp_path, set())]

    assert taken == [DEAD]


def test_a_call_noted_by_another_version_keeps_no_other_from_its_record(tmp_path: Path) -> None:
    dead = make_folder(Disk(), tmp_path, DEAD)
    table = RunningTable(Disk(), Disk().open(dead.path / "running"))
    for number, price in ((1, b"null"), (2, b'{"per":"hour"}')):
        table.take(b'{"id":"%036d","started_at":"2026-01-01T00:00:00.000Z"}\n%b' % (number, price))
    dead.release()

    ((taken, found),) = Orphans(Disk()).take(tmp_path, set())

    (record,), damaged = everything(taken)
    assert (found.interrupted, found.damaged, damaged) == (1, 1, 0)
    assert id_of(record) == b"%036d" % 1


def test_a_torn_line_among_the_parked_keeps_no_record_from_being_sent_again(tmp_path: Path) -> None:
    parking = Parking(tmp_path, "billing")
    parking.park([(b'{"id":"one"}', "refused")], "now")
    with parking.path.open("ab") as file:
        file.write(b'{"at": "no')  # killed in the middle
    parking.park([(b'{"id":"two"}', "refused")], "now")

    count = resend(tmp_path, "billing")

    ((taken, _),) = Orphans(Disk()).take(tmp_path, set())
    assert (count, everything(taken)) == (2, ([b'{"id":"one"}', b'{"id":"two"}'], 0))
    assert parking.path.read_bytes() == b'{"at": "no\n'
    assert resend(tmp_path, "billing") == 0


def test_parked_records_that_an_operator_has_edited_keep_their_ids(tmp_path: Path) -> None:
    event = {"id": "0198c5f2-3a4b-7c1d-9e2f-000000000001", "user": "größe \u2028", "cost_usd": None}
    parking = Parking(tmp_path, "billing")
    parking.park([(b"{}", "refused")], "now")
    parking.path.write_text(json.dumps({"event": event, "why": "looked at"}) + "\n")

    resend(tmp_path, "billing")

    ((taken, _),) = Orphans(Disk()).take(tmp_path, set())
    ((sent,), _) = everything(taken)
    assert (id_of(sent).decode(), json.loads(sent)) == (event["id"], event)


def test_whoever_is_killed_while_he_sends_parked_records_again_loses_and_doubles_none(tmp_path: Path) -> None:
    events = [b'{"id":"%d"}' % number for number in range(2500)]
    killed_at = 0
    while True:
        spool = tmp_path / str(killed_at)
        parking = Parking(spool, "billing")
        parking.park([(event, "refused") for event in events], "now")
        is_dead = is_killed(killed_at, lambda disk, spool=spool: resend(spool, "billing", disk))

        with suppress(FileExistsError):  # on their way already, and still parked
            assert resend(spool, "billing") == (len(events) if is_dead else 0)

        assert [path.name for path in spool.iterdir() if path.name.startswith(f".{RESENT}")] == []
        assert [name.partition(".")[0] for name in orphans(spool, set())] == [f"{RESENT}billing"]
        ((taken, _),) = Orphans(Disk()).take(spool, set())
        assert everything(taken) == (events, 0)
        if not is_dead:
            break
        killed_at += 1
    assert killed_at > 10


def test_parked_records_that_are_on_their_way_already_are_not_sent_twice(tmp_path: Path) -> None:
    parking = Parking(tmp_path, "billing")
    parking.park([(b'{"id":"one"}', "refused")], "now")
    whole = parking.path.read_bytes()
    resend(tmp_path, "billing")
    parking.path.write_bytes(whole)  # killed before it was emptied

    with pytest.raises(FileExistsError, match="on their way"):
        resend(tmp_path, "billing")

    assert parking.path.read_bytes() == whole
    assert len(list(tmp_path.glob("resent-billing.*"))) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_sends_again_belongs_to_whom_the_spool_belongs(tmp_path: Path) -> None:
    Parking(tmp_path, "billing").park([(b'{"id":"one"}', "refused")], "now")
    os.chown(tmp_path, 12_345, 12_346)

    resend(tmp_path, "billing")

    (folder,) = tmp_path.glob("resent-billing.*")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.iterdir())} == {(12_345, 12_346)}


def test_a_cursor_survives_and_a_torn_one_says_that_anything_may_have_arrived(folder: Folder) -> None:
    file = CursorFile(Disk(), folder.path, "billing")
    cursor = Cursor(Position(3, 400), Position(3, 900), 1234.5)
    assert file.read(now=0.0) == Cursor()

    file.write(cursor)
    assert file.read(now=0.0) == cursor
    path = folder.path / "cursor-billing"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    assert file.read(now=1.0).is_doubtful


def test_a_torn_cursor_says_that_anything_may_have_arrived_since_its_folder_was_made(tmp_path: Path) -> None:
    folder = make_folder(Disk(), tmp_path, DEAD)
    os.utime(folder.path / "lock", (1_000.0, 1_000.0))
    file = CursorFile(Disk(), folder.path, "billing")
    file.write(Cursor(Position(3, 400)))
    (folder.path / "cursor-billing").write_bytes(b"torn")

    assert file.read(now=9e9).tried_at == 1_000.0
    folder.release()


# The spool


class Waiting:
    """A record on its way to the disk."""

    slot = -1
    is_settled = False

    def __init__(self, event: bytes) -> None:
        self.event = event

    def durable(self, is_safe: bool) -> None:
        self.is_settled = is_safe


def test_of_a_folder_that_is_deleted_nothing_is_left_without_what_is_known_of_its_deliveries(tmp_path: Path) -> None:
    number = 0
    while True:
        spool = tmp_path / str(number)
        dead = make_folder(Disk(), spool, DEAD)
        write(dead, Segments(Disk(), dead.path, max_bytes=1000), b"one")
        CursorFile(Disk(), dead.path, "billing").write(Cursor(dead.end))
        dead.release()
        if not is_killed(number, lambda disk, path=dead.path: Folder(disk, path, -1).remove()):  # type: ignore[misc]
            break
        number += 1

        for taken, _ in Orphans(Disk()).take(spool, set()):
            cursor = CursorFile(Disk(), taken.path, "billing").read(now=1.0)
            assert taken.read(cursor.position, 10).payloads == []
            taken.remove()
        assert list(spool.glob("*/*")) == []

    assert number >= 3


async def test_a_delivered_folder_that_could_not_be_deleted_is_deleted_later(tmp_path: Path) -> None:
    dead = make_folder(Disk(), tmp_path, DEAD)
    write(dead, Segments(Disk(), dead.path, max_bytes=1000), b"one")
    dead.release()
    disk = BrokenDisk()
    disk.breaks, disk.operations = errno.EIO, frozenset({"remove"})
    spool = Spool(tmp_path, "me", disk, Metrics(Known()).usage)
    Deliveries(spool, {})

    async def is_ours() -> bool:
        return DEAD in [folder.name for folder in spool.folders]

    async def is_gone() -> bool:
        spool.put(Waiting(b"two"))
        return not dead.path.exists()

    await eventually(is_ours)
    spool.put(Waiting(b"two"))
    disk.breaks = 0
    await eventually(is_gone)
    await spool.stop()
    spool.release()


async def test_a_folder_that_is_deleted_while_its_size_is_taken_is_no_full_disk(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Deleted(Folder):
        def size(self) -> int:
            spool.folders.remove(self)
            self.remove()
            return super().size()

    dead = make_folder(Disk(), tmp_path, DEAD)
    dead.release()
    spool.folders.append(Deleted(Disk(), dead.path, -1))

    async def is_looked_at() -> bool:
        return len(spool.folders) == 1

    await eventually(is_looked_at)
    record = open_record(ledger_of(spool))
    record.close("completed", Usage(1, 1))
    await record.settled()  # by the same thread, so that the look is over

    assert caplog.messages == []


async def test_what_every_sink_has_takes_no_space(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "me", Disk(), Metrics(Known()).usage)
    Deliveries(spool, {})  # no sink at all: what is durable everybody has
    records = [Waiting(bytes(MAX_PAYLOAD_BYTES)) for _ in range(2 * SEGMENT_BYTES // MAX_PAYLOAD_BYTES)]
    for record in records:
        spool.put(record)

    async def are_durable() -> bool:
        return all(record.is_settled for record in records)

    async def is_one_segment() -> bool:
        return spool.own is not None and len(spool.own.segments()) == 1

    await eventually(are_durable)
    await eventually(is_one_segment)
    await spool.stop()
    spool.release()


# The table of running calls


def table_of(tmp_path: Path) -> tuple[RunningTable, int]:
    fd = os.open(tmp_path / "running", os.O_RDWR | os.O_CREAT)
    return RunningTable(Disk(), fd), fd


def test_a_dead_workers_table_tells_what_was_running_and_how_far(tmp_path: Path) -> None:
    table, fd = table_of(tmp_path)
    first, second, third = (table.take(name) for name in (b"first", b"second", b"third"))
    table.note(first, 1, Usage(10, 1), 0.5)
    table.note(first, 2, Usage(10, 2, 3, 4, 1), 1.5)
    table.release(second)

    left, damaged = read_table(fd)

    assert damaged == 0
    assert {each.admitted: (each.usage, each.duration_s) for each in left} == {
        b"first": (Usage(10, 2, 3, 4, 1), 1.5),
        b"third": (Usage(is_counted=True), 0.0),
    }
    assert table.used == 2
    assert third != first


def test_a_slot_used_again_has_nothing_of_the_call_before(tmp_path: Path) -> None:
    table, fd = table_of(tmp_path)
    slot = table.take(b"before")
    table.note(slot, 7, Usage(1000, 1000), 9.0)
    table.release(slot)

    assert table.take(b"after") == slot

    (left,), _ = read_table(fd)
    assert (left.admitted, left.usage.input_tokens) == (b"after", 0)


def test_tries_stand_behind_an_admission_where_there_is_room_and_belong_to_it_alone(tmp_path: Path) -> None:
    table, fd = table_of(tmp_path)
    slot, full = table.take(b"call"), table.take(b"full")
    table.rewrite(slot, b"call", b"its tries")
    table.rewrite(full, b"f" * MAX_ADMITTED_BYTES, b"its tries")

    before, _ = read_table(fd)
    table.release(slot)
    table.take(b"next")
    after, _ = read_table(fd)

    assert [(each.admitted[:4], each.tries) for each in before] == [(b"call", b"its tries"), (b"ffff", b"")]
    assert [(each.admitted[:4], each.tries) for each in after] == [(b"next", b""), (b"ffff", b"")]


def test_the_table_grows_and_keeps_what_it_has(tmp_path: Path) -> None:
    table, fd = table_of(tmp_path)
    names = {b"%d" % number for number in range(FIRST_SLOTS * 5)}
    for name in names:
        table.take(name)

    left, _ = read_table(fd)

    assert {each.admitted for each in left} == names


@settings(deadline=None)
@given(st.integers(0, 2048))
def test_a_death_in_the_middle_of_a_checkpoint_leaves_the_one_before(offset: int) -> None:
    import tempfile

    with tempfile.TemporaryFile() as file:
        table = RunningTable(Disk(), os.dup(file.fileno()))
        slot = table.take(b"call")
        table.note(slot, 1, Usage(5, 5, tiers=("slow",)), 1.0)
        before = os.pread(file.fileno(), 2048, 0)
        table.note(slot, 2, Usage(5, 9, tiers=("fast",)), 2.0)
        after = os.pread(file.fileno(), 2048, 0)
        # Killed after so many bytes of the second one.
        torn = after[:offset] + before[offset:]
        os.pwrite(file.fileno(), torn, 0)

        (left,), damaged = read_table(file.fileno())
        table.close()

    assert damaged == 0
    assert (left.usage.output_tokens, left.usage.tiers) in ((5, ("slow",)), (9, ("fast",)))


def earlier_slot(admitted: bytes, number: int, counts: tuple[int, int, int, int, int, bool, float]) -> bytes:
    """As versions wrote it that kept neither tiers nor what the cache keeps for an hour."""
    head = struct.pack("<II", len(admitted), crc32(admitted))
    packed = struct.pack("<QQQQQ?d", *counts)
    checked = struct.pack("<II", number, crc32(packed, crc32(head, number))) + packed
    return (head + admitted).ljust(SLOT_BYTES - 144 + number % 2 * 72, b"\0") + checked.ljust(
        144 - number % 2 * 72, b"\0"
    )


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("length", [4, SLOT_BYTES - 144 - 8])
def test_a_table_of_an_earlier_version_is_read_whole(tmp_path: Path, number: int, length: int) -> None:
    admitted = b"call".ljust(length, b".")
    (tmp_path / "running").write_bytes(earlier_slot(admitted, number, (10, 2, 3, 4, 1, True, 1.5)))

    left, damaged = read_table(os.open(tmp_path / "running", os.O_RDONLY))

    assert [(each.admitted, each.usage, each.duration_s) for each in left] == [
        (admitted, Usage(10, 2, 3, 4, 1, is_counted=True), 1.5)
    ]
    assert damaged == 0


@pytest.mark.parametrize("number", [1, 2])
def test_an_earlier_version_reads_what_it_knows_of_a_table(tmp_path: Path, number: int) -> None:
    table, fd = table_of(tmp_path)
    slot = table.take(b"call")
    table.note(slot, number, Usage(10, 2, 3, 4, 1, cache_write_1h_tokens=4, tiers=("fast",)), 1.5)

    written = os.pread(fd, SLOT_BYTES, slot * SLOT_BYTES)

    earlier = earlier_slot(b"call", number, (10, 2, 3, 4, 1, False, 1.5))
    assert (written[:12], written[-144:]) == (earlier[:12], earlier[-144:])


def test_a_slot_that_was_torn_is_told_and_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    table, fd = table_of(tmp_path)
    torn, long, _ = (table.take(name) for name in (b"torn", b"long", b"whole"))
    os.pwrite(fd, b"T", torn * SLOT_BYTES + 8)
    os.pwrite(fd, (2**31).to_bytes(4, "little"), long * SLOT_BYTES)

    left, damaged = read_table(fd)

    assert ([each.admitted for each in left], damaged) == ([b"whole"], 2)


# The ledger


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool(tmp_path / "spool", "me", BrokenDisk(), Metrics(Known()).usage)
    yield spool
    await spool.stop()
    spool.release()


def ledger_of(spool: Spool) -> Ledger:
    return Ledger(spool, HandClock(), "gateway", "continue")


def open_record(ledger: Ledger, price: Price | None = None, **origin: str) -> Record:
    site = Site(provider="anthropic", model="m", deployment="d", region="", price=price)
    caller = Caller(instance_id="acme")
    return ledger.open(replace(NoOrigin(), **origin), caller, site, unit_primitive="duo_chat", model="m")


async def settled_records(spool: Spool, *records: Record) -> list[dict[str, Any]]:
    for record in records:
        await record.settled()
    assert spool.own is not None
    return [json.loads(event) for event in everything(spool.own)[0]]


async def test_only_the_first_final_word_on_a_call_counts(spool: Spool) -> None:
    record = open_record(ledger_of(spool))

    record.close("completed", Usage(10, 5))
    record.close("client_cancelled", Usage(10, 7))

    (written,) = await settled_records(spool, record)
    assert (written["status"], written["output_tokens"]) == ("completed", 5)


async def test_calls_are_booked_also_where_the_table_of_running_ones_cannot_grow(spool: Spool) -> None:
    ledger = ledger_of(spool)
    first = open_record(ledger)
    first.close("completed", Usage(1, 1))
    await settled_records(spool, first)
    assert spool.own is not None
    disk = spool.own.disk
    assert isinstance(disk, BrokenDisk)
    disk.operations, disk.breaks = frozenset({"reserve"}), errno.ENOSPC

    records = [open_record(ledger) for _ in range(FIRST_SLOTS + 2)]
    for record in records:
        record.close("completed", Usage(1, 1))

    assert len(await settled_records(spool, *records)) == FIRST_SLOTS + 3


@pytest.mark.parametrize(
    ("breaks", "operations"), [(errno.EACCES, {"make_folder"}), (errno.ENOSPC, {"reserve", "write", "sync"})]
)
async def test_records_of_a_server_without_a_spool_are_written_once_it_has_one(
    tmp_path: Path, breaks: int, operations: set[str]
) -> None:
    disk = BrokenDisk()
    disk.breaks, disk.operations = breaks, frozenset(operations)
    spool = Spool(tmp_path / "spool", "me", disk, Metrics(Known()).usage)
    record = open_record(ledger_of(spool))
    record.close("completed", Usage(1, 1))
    await record.settled()  # nobody waits for a disk that is not there
    assert (spool.own, spool.is_full) == (None, True)
    assert not [name for name in open_files() if str(tmp_path) in name]

    disk.breaks = 0

    async def is_written() -> bool:
        return spool.own is not None and len(everything(spool.own)[0]) == 1

    await eventually(is_written)
    await spool.stop()
    spool.release()
    assert not [name for name in open_files() if str(tmp_path) in name]


def open_files() -> list[str]:
    links = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if link.is_symlink()]


async def test_long_names_that_clients_make_up_fill_no_memory(spool: Spool) -> None:
    ledger = ledger_of(spool)
    open_record(ledger).close("completed", Usage(1, 1))
    tracemalloc.start()
    try:
        for number in range(100):
            open_record(ledger, client_name=f"{number:0>30000}").close("completed", Usage(1, 1))
        await settled_records(spool)
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept_bytes < 1_000_000


@pytest.mark.parametrize("letter", ["x", "ß", "\U0001f600", "\x01"])
async def test_a_call_of_absurd_names_has_a_whole_record_when_its_worker_dies(
    spool: Spool, tmp_path: Path, letter: str
) -> None:
    absurd = letter * 5_000
    site = Site(provider="own", model=absurd, deployment=absurd, region="", price=Price.of("2026-05-01", input="3"))
    origin = NoOrigin(request_id=absurd, user=absurd, endpoint="/" + "e" * 1_000, client_name=absurd)
    ledger = ledger_of(spool)
    record = ledger.open(origin, Caller(instance_id=absurd), site, unit_primitive="duo_chat", model=absurd)
    assert len(record.admitted()) <= MAX_ADMITTED_BYTES
    path = make_folder(Disk(), tmp_path / "dead", "dead").path
    RunningTable(Disk(), Disk().open(path / "running")).take(record.admitted())

    dead = Folder(Disk(), path, -1)
    assert adopt(Disk(), dead) == Adopted(interrupted=1, damaged=0)

    written = decode_event(everything(dead)[0][0])
    assert (written.id, written.provider, written.price_as_of) == (record.id, "own", "2026-05-01")
    assert absurd.startswith(written.upstream_model)
    record.close("completed", Usage(1, 1))
    assert len(record.event) <= MAX_PAYLOAD_BYTES
    assert decode_event(record.event).upstream_model == absurd[:MAX_TEXT]


@pytest.mark.parametrize(
    ("tiers", "told", "cost"),
    [
        ((), [], "0.0065"),  # 1,000 for an hour at 6 $ a million, 100 at 5
        (("fast", "us"), ["fast", "us"], "0.0429"),
        (("priority",), ["priority"], None),
        (("a" * 30, "b" * 30), ["?"], None),
    ],
)
async def test_a_call_of_a_dead_worker_costs_what_its_tier_and_its_cache_cost(
    spool: Spool, tmp_path: Path, tiers: tuple[str, ...], told: list[str], cost: str | None
) -> None:
    price = Price.of("2026-05-01", input="3", output="5", cache_write_1h="6", times={"fast": "6", "us": "1.1"})
    record = open_record(ledger_of(spool), price=price)
    path = make_folder(Disk(), tmp_path / "dead", "dead").path
    table = RunningTable(Disk(), Disk().open(path / "running"))
    usage = Usage(1_000, 100, cache_write_tokens=1_000, cache_write_1h_tokens=1_000, tiers=tiers)
    table.note(table.take(record.admitted()), 1, usage, 1.0)

    dead = Folder(Disk(), path, -1)
    adopt(Disk(), dead)

    written = json.loads(everything(dead)[0][0])
    assert (written["tiers"], written["cost_usd"]) == (told, cost)


async def test_a_call_of_a_dead_worker_ended_when_it_was_last_seen(spool: Spool, tmp_path: Path) -> None:
    record = open_record(ledger_of(spool))
    path = make_folder(Disk(), tmp_path / "dead", "dead").path
    table = RunningTable(Disk(), Disk().open(path / "running"))
    table.note(table.take(record.admitted()), 1, Usage(1_000, 100), 90.0)

    dead = Folder(Disk(), path, -1)
    adopt(Disk(), dead)

    written = json.loads(everything(dead)[0][0])
    started, ended = (datetime.fromisoformat(written[name]) for name in ("started_at", "ended_at"))
    assert ended - started == timedelta(seconds=90)


async def test_a_call_whose_record_was_written_before_its_worker_died_has_no_other(
    spool: Spool, tmp_path: Path
) -> None:
    ledger = ledger_of(spool)
    ended, running = open_record(ledger), open_record(ledger)
    path = make_folder(Disk(), tmp_path / "dead", "dead").path
    table = RunningTable(Disk(), Disk().open(path / "running"))
    for record in (ended, running):
        table.take(record.admitted())
    ended.close("completed", Usage(10, 5))
    segments = Segments(Disk(), path, 1 << 20)
    segments.append(write_frame(ended.event))
    segments.close()

    dead = Folder(Disk(), path, -1)
    dead.end = Position(segments.number, segments.end)
    assert adopt(Disk(), dead).interrupted == 1

    found = [json.loads(event) for event in everything(dead)[0]]
    assert [(each["id"], each["status"]) for each in found] == [(ended.id, "completed"), (running.id, "interrupted")]


# Ids


def test_ids_are_version_7_and_only_ever_grow_whatever_the_clock_does() -> None:
    clock = HandClock()
    ids = Ids(clock)
    found = []
    for step in range(2000):
        found.append(ids.make())
        if step % 100 == 50:
            clock.advance(0.003)
        if step == 700:
            clock.jump(-3600)

    assert found == sorted(set(found))
    assert all(id_[14] == "7" and id_[19] in "89ab" and len(id_) == 36 for id_ in found)


def test_an_id_tells_when_the_call_was_admitted() -> None:
    clock = HandClock(1_800_000_000.0)

    id_ = Ids(clock).make()

    assert abs(int(id_.replace("-", "")[:12], 16) - 1_800_000_000_000) <= 1


def test_frames_have_room_for_the_largest_record() -> None:
    assert read_frames(write_frame(bytes(MAX_PAYLOAD_BYTES)), is_all=True).payloads == [bytes(MAX_PAYLOAD_BYTES)]
