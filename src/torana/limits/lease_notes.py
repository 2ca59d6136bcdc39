"""Lines in the books of leases."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torana.limits.questions import Command
from torana.limits.rules import Rule
from torana.limits.table import Key


@dataclass(slots=True)
class Streams:
    """What this worker has of one limit on streams."""

    rule: Rule
    granted: int = 0
    used: int = 0
    touched: int = 0


@dataclass(slots=True)
class Leased:
    """What this worker has leased of one window or flow, or may owe of it."""

    key: Key
    rule: Rule
    slot: int
    """Where the table had it last: all of them are gone through again and again."""


@dataclass(slots=True)
class Owed:
    """What the store is still to be told of one window."""

    rule: Rule
    back: int = 0
    freed: int = 0


@dataclass(slots=True)
class Told:
    """One line of housekeeping, and what it was about, should it be lost."""

    key: Key
    rule: Rule
    words: Command
    debt: int = 0
    end: int = 0
    back: int = 0
    """Not to be lost; nor is `freed`."""
    freed: int = 0


def in_questions(lines: Sequence[Told], most: int) -> list[Sequence[Told]]:
    """At most so many in each, no two about one count: the store reads all that a question is about, then writes."""
    rounds: list[list[Told]] = []
    seen: Counter[Key] = Counter()
    for told in lines:
        if seen[told.key] == len(rounds):
            rounds.append([])
        rounds[seen[told.key]].append(told)
        seen[told.key] += 1
    return [each[start : start + most] for each in rounds for start in range(0, len(each), most)]
