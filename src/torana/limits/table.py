"""The counts of one server: whole numbers in one block of memory, a slot for each limit and caller.

A slot is found by the hash of its key and holds no name of anybody. It is dead once its window is over, and
the next key takes its place; so the table is bounded, however many callers there are.
"""

import mmap
import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol, TypeAlias

SLOT_NUMBERS = 11
KEY_A, KEY_B, UNTIL, USED = 0, 1, 2, 3
"""Places in a slot. UNTIL: nanoseconds of the monotonic clock; the slot is dead from then on."""
GRANTED, END, SHUT, LEFT, TOUCHED, IS_EXACT, ALONE_TO = 4, 5, 6, 7, 8, 9, 10
"""Of counts that servers share (leases.py): what this one may use, of which window, since when nothing is left, …"""

FOREVER = 2**62
SLOTS = 65_536
PROBES = 16
"""How many neighbours of its place a key may stand in."""

SALT_BYTES = 16

_UNUSED = memoryview(bytes(8 * (SLOT_NUMBERS - UNTIL))).cast("q")

Key = tuple[int, int]
Numbers: TypeAlias = "memoryview[int]"


class Seat(Protocol):
    """Whoever looks for its slot again and again."""

    key: Key
    slot: int
    """Where it was last; another key may stand there by now."""


class Table:
    """`numbers[slot + USED]` and its like; look and change between `lock` and `unlock` only."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._mask = slots - 1
        assert slots & self._mask == 0, "a power of two"
        self.numbers = memoryview(mmap.mmap(-1, slots * SLOT_NUMBERS * 8)).cast(
            "q"
        )  # a page is there once it is written to
        self.salt = secrets.token_bytes(SALT_BYTES)
        """Decides about places: keys are no secret, and whoever knew who stands beside whom could push counts out."""
        self.lost = 0
        """Live counts that had to give way because all their neighbours were taken."""
        self.gave_way: Callable[[], None] = _nothing
        """Told of each of them."""
        self.lock: Callable[[], None] = _nothing
        self.unlock: Callable[[], None] = _nothing
        self.note: Callable[[Key, int, int], int] | None = None
        """(key, until, amount) → a line that says so should this worker die. None: the counts die with it."""
        self.forget: Callable[[int], None] = _nothing_to_forget

    def find_all(self, seats: Sequence[Seat], now: int) -> list[int]:
        """The slots of several, each its own."""
        numbers = self.numbers
        found: list[int] = []
        for seat in seats:
            key, slot = seat.key, seat.slot
            if numbers[slot] != key[0] or numbers[slot + KEY_B] != key[1]:
                slot = seat.slot = self.find(key, now, found)
            found.append(slot)
        return found

    def look_for(self, seat: Seat) -> int:
        """As `look`, where it was last first."""
        slot = seat.slot
        if not self.holds(slot, seat.key) and (slot := self.look(seat.key)) >= 0:
            seat.slot = slot
        return slot

    def find(self, key: Key, now: int, kept: Sequence[int] = ()) -> int:
        """The slot of `key`, an empty one where there was none; never one of `kept`."""
        numbers = self.numbers
        first, second = key
        place = self._place(first)
        slot = place * SLOT_NUMBERS
        if (found := numbers[slot]) == first and numbers[slot + KEY_B] == second:
            return slot
        if found:
            slot, is_there = self._search(key, place, now, kept)
            if is_there:
                return slot
        numbers[slot + KEY_A], numbers[slot + KEY_B] = key
        numbers[slot + UNTIL : slot + SLOT_NUMBERS] = _UNUSED
        return slot

    def _search(self, key: Key, place: int, now: int, kept: Sequence[int]) -> tuple[int, bool]:
        """(the slot of `key`, True), or (one that is free for it, False)."""
        slots, firsts, ends = self._neighbours(place)
        if 0 in firsts:  # never used: the key cannot stand behind it
            count = firsts.index(0) + 1
            slots, firsts, ends = slots[:count], firsts[:count], ends[:count]
        # Each look at all of them is one step: number by number takes most of the time of a table that is full.
        if key[0] in firsts:
            for slot, first in zip(slots, firsts, strict=True):
                if first == key[0] and self.numbers[slot + KEY_B] == key[1]:
                    return slot, True
        soonest = min(ends)
        if soonest <= now:
            for slot, end in zip(slots, ends, strict=True):
                if end <= now and slot not in kept:
                    return slot, False
        self.lost += 1
        self.gave_way()
        slot = slots[ends.index(soonest)]
        if slot in kept:
            slot = min((end, slot) for slot, end in zip(slots, ends, strict=True) if slot not in kept)[1]
        return slot, False

    def look(self, key: Key) -> int:
        """The slot of `key`, or -1; makes none."""
        numbers, (first, second) = self.numbers, key
        place = self._place(first)
        for _ in range(PROBES):
            slot = place * SLOT_NUMBERS
            found = numbers[slot]
            if found == first and numbers[slot + KEY_B] == second:
                return slot
            if not found:
                break
            place = (place + 1) & self._mask
        return -1

    def close(self) -> None:
        """At the end of the worker."""

    def give_back_for_the_dead(self) -> int:
        """What workers held that are no more; returns how many takings."""
        return 0

    def holds(self, slot: int, key: Key) -> bool:
        """True while the slot is still that of `key`."""
        return self.numbers[slot] == key[0] and self.numbers[slot + KEY_B] == key[1]

    def _place(self, first: int) -> int:
        digest = blake2b(first.to_bytes(8, "big", signed=True), digest_size=8, key=self.salt).digest()
        return int.from_bytes(digest, "big") & self._mask

    def _neighbours(self, place: int) -> tuple[Sequence[int], list[int], list[int]]:
        """(the slots a key of this place may stand in, the first halves of their keys, when they are over)"""
        start, stop = place * SLOT_NUMBERS, (place + PROBES) * SLOT_NUMBERS
        numbers, end = self.numbers, (self._mask + 1) * SLOT_NUMBERS
        slots = range(start, stop, SLOT_NUMBERS)
        firsts = numbers[start + KEY_A : min(stop, end) : SLOT_NUMBERS].tolist()
        ends = numbers[start + UNTIL : min(stop, end) : SLOT_NUMBERS].tolist()
        if stop <= end:
            return slots, firsts, ends
        # Behind the last slot comes the first one.
        firsts += numbers[KEY_A : stop - end : SLOT_NUMBERS].tolist()
        ends += numbers[UNTIL : stop - end : SLOT_NUMBERS].tolist()
        return [slot % end for slot in slots], firsts, ends


def _nothing_to_forget(_line: int) -> None:
    pass


def _nothing() -> None:
    """Of the lock: one worker alone needs none, for nothing else runs between two lines without an await."""
