"""How a limit is put to the shared counts: keys and arguments of take.lua, and what its numbers mean."""

import secrets
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from torana.limits.rules import SECOND, FlowRule, Rule
from torana.limits.table import Key

LIVING = "{torana}:living"
"""Who counts. All keys have one hash tag, so that one question may be about several of them, also in a cluster."""
LATE_MS = 3_600_000
"""A store that was frozen reads, when it goes on, what came before its connection broke."""

MAX_NUMBER, MAX_RESET_MS = 2**53, 2**42
"""Of what take.lua keeps exactly; of milliseconds, a century: as nanoseconds they fit into the table."""

Command = list[str | int]


class Answer(NamedTuple):
    """What the store says of one limit."""

    granted: int
    """-1: this limit refused."""
    left: int
    reset_ms: int
    end: int
    """Of the window, in the store's milliseconds; tells it from others."""


class Answers(NamedTuple):
    alive: int
    """Workers of all servers."""
    limits: list[Answer]


class Asker:
    """Puts questions under a name of its own, each with a number, and keeps in mind which of them were answered.

    So that a question whose answer never came counts once or not at all: `close` undoes it, whether the store has read
    it already or is still to read it.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self._last = 0
        self._answered = 0
        self._told = 0
        """Up to which the store knows that they were answered."""

    def ask(self, alive_s: float, limits: Sequence[tuple[Key, Command]]) -> tuple[Command, int]:
        """A question, and its number. It goes out as EVAL with its text: a store that was started anew knows it too.

        alive_s  for so long the asker counts as alive from now on
        limits   keys and their `arguments`
        """
        number = 0
        if limits:
            self._last = number = self._last + 1
        keys: Command = [LIVING, _done(self.name)]
        words: Command = [self.name, int(alive_s * 1000), number, self._told + 1, self._answered]
        self._told = self._answered
        for key, arguments in limits:
            keys.append(_name_of(key))
            words += arguments
        return ["EVAL", _text("take.lua"), len(keys), *keys, *words], number

    @property
    def has_asked(self) -> bool:
        """For something, and not only said that it lives."""
        return self._last > 0

    def answered(self, number: int) -> None:
        """Answers come in the order of their questions."""
        self._answered = max(self._answered, number)

    def leave(self) -> list[Command]:
        """The last words at the end of a server that holds nothing any more."""
        return [["ZREM", LIVING, self.name], ["DEL", _done(self.name)]]

    def close(self) -> Command:
        """The last word after a break, on another connection and under another name."""
        return ["EVAL", _text("close.lua"), 2, LIVING, _done(self.name), self.name, self._answered, LATE_MS]


@cache
def _text(name: str) -> str:
    return files("torana.limits").joinpath(name).read_text(encoding="utf-8")


def _done(name: str) -> str:
    return f"{{torana}}:done:{name}"


def is_sound(limits: int, reply: Any) -> bool:
    """Whether that is a reply to a question about so many limits: what it grants goes into tables of whole numbers."""
    return (
        isinstance(reply, list)
        and len(reply) == 1 + 4 * limits
        and all(type(each) is int and abs(each) <= MAX_NUMBER for each in reply)
        and all(each <= MAX_RESET_MS for each in reply[3::4])
    )


def read_answers(reply: Sequence[int]) -> Answers:
    rows = [Answer(*reply[start : start + 4]) for start in range(1, len(reply), 4)]
    return Answers(max(1, abs(reply[0])), rows)


def is_forgotten(reply: Sequence[int]) -> bool:
    """The store did not know the asker any more, although a question of it has been answered before."""
    return reply[0] < 0


def is_held(rule: Rule) -> bool:
    """What calls take of it is written down under the worker's name until they end."""
    return rule.is_exact and rule.is_metered and not isinstance(rule, FlowRule)


def arguments(
    rule: Rule, *, need: int = 0, sure: int = 0, want: int = 0, back: int = 0, back_end: int = 0, freed: int = 0
) -> Command:
    """A limit's part of a question, see take.lua."""
    if rule.unit == "streams":
        kind, amount, period = "streams", rule.amount, "0"
    elif isinstance(rule, FlowRule):
        kind, amount, period = "flow", rule.burst, repr(rule.period_s * 1000 / rule.amount)
    else:
        kind = rule.period if rule.is_calendar else "window"
        amount, period = rule.amount, str(int(rule.period_s * 1000))
    return [kind, amount, period, need, sure, want, back, back_end, int(is_held(rule)), freed]


def minute_arguments(limit: int, count: int) -> Command:
    """So many more were counted, in a minute of their own."""
    return ["window", limit, 60_000, 0, 0, 0, -count, 0, 0, 0]


def wait_ns(rule: Rule, amount: int, answer: Answer) -> int:
    """How long a refused call would have to wait, if nobody else takes."""
    if rule.unit == "streams":
        return SECOND
    reset_ns = answer.reset_ms * 1_000_000
    return rule.flow_ns(reset_ns, amount) if isinstance(rule, FlowRule) else reset_ns


def _name_of(key: Key) -> str:
    """A hash: no name of a caller, however strange, gets into a key."""
    return f"{{torana}}:{key[0] & (2**64 - 1):016x}{key[1] & (2**64 - 1):016x}"
