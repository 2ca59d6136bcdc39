"""How a limit is put to the shared counts: keys and arguments of take.lua, and what its numbers mean."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NamedTuple

from torana.limits.hold import Asked
from torana.limits.rules import SECOND, FlowRule, Rule
from torana.limits.table import Key

LIVING = "{torana}:living"
"""Who counts. All keys have one hash tag, so that one question may be about several of them, also in a cluster."""

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
    is_met: bool
    limits: list[Answer]


class Script:
    """take.lua, read once."""

    def __init__(self) -> None:
        self._text = files("torana.limits").joinpath("take.lua").read_text(encoding="utf-8")

    def ask(self, name: str, alive_s: float, limits: Iterable[tuple[Key, Command]]) -> Command:
        """One question. It goes out as EVAL with its text, so that a store that was started anew knows it too.

        name     of the worker that asks; it counts as alive for `alive_s` from now on
        limits   keys and their `arguments`
        """
        keys: Command = [LIVING]
        words: Command = [name, int(alive_s * 1000)]
        for key, arguments in limits:
            keys.append(_name_of(key))
            words += arguments
        return ["EVAL", self._text, len(keys), *keys, *words]


def read_answers(reply: Sequence[int]) -> Answers:
    rows = [Answer(*reply[start : start + 4]) for start in range(2, len(reply), 4)]
    return Answers(max(1, reply[0]), reply[1] == 1, rows)


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


def wait_ns(each: Asked, answer: Answer) -> int:
    """How long a refused call would have to wait, if nobody else takes."""
    rule = each.rule
    if rule.unit == "streams":
        return SECOND
    if isinstance(rule, FlowRule):
        return max(0, (min(each.amount, rule.burst) - answer.left) * rule.period_ns // rule.amount)
    return answer.reset_ms * 1_000_000


def _name_of(key: Key) -> str:
    """A hash: no name of a caller, however strange, gets into a key."""
    return f"{{torana}}:{key[0] & (2**64 - 1):016x}{key[1] & (2**64 - 1):016x}"
