"""Providers' own bills, in one shape, held against what we have counted."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

MEASURES = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")
NOTHING = Decimal(0)

ALL = ""
"""The model's name in lines that are about no single one."""

_DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
_BEDROCK = re.compile(r"^([a-z-]+\.)?(amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen)\.(?=.)|:\d+$")
"""`us.anthropic.` and `:0`, around a model's name."""
_REVISION = re.compile(r"^(claude-.+)-v\d+$")
"""`claude-opus-4-6-v1`; of others it is another model."""
_REMARK = re.compile(r"\s*\([^()]*\)\s*$")
"""`Claude Sonnet 4.6 (Amazon Bedrock Edition)`."""


@dataclass(slots=True)
class Line:
    """One day and model."""

    amounts: dict[str, Decimal] = field(default_factory=dict)
    """Measure → how much; measures of which nothing is said are absent."""
    rounded: int = 0
    """Of how many amounts of money, rounded to cents, this one is the sum."""
    failed: int = 0
    """Calls of ours that came to no end: a provider may have counted them, or not."""
    uncertain: int = 0
    """Calls of ours whose tokens we counted ourselves."""
    unpriced: int = 0
    """Calls of ours without a known price."""

    def add(self, amounts: Mapping[str, Decimal]) -> None:
        for measure, amount in amounts.items():
            self.amounts[measure] = self.amounts.get(measure, NOTHING) + amount


@dataclass(slots=True)
class Bill:
    """What somebody says was used: the provider, or we."""

    lines: dict[tuple[date, str], Line] = field(default_factory=dict)
    """(day in UTC, model as `model_name` has it) → what is said of it."""
    days: set[date] = field(default_factory=set)
    """Also those on which there was nothing."""
    is_cut: bool = False
    """It says itself that there is more."""

    def line(self, day: date, model: str) -> Line:
        self.days.add(day)
        return self.lines.setdefault((day, model), Line())

    @property
    def names_models(self) -> bool:
        return any(model for _, model in self.lines)

    @property
    def span(self) -> tuple[date, date]:
        """The first and the last day; a day between them that it does not mention is one without use."""
        return min(self.days), max(self.days)


def model_name(text: str) -> str:
    """One spelling for what bills call a model and what calls name: `Claude Haiku 4.5`, `claude-haiku-4-5-20251001`."""
    name = _BEDROCK.sub("", _REMARK.sub("", text.rpartition("/")[2].lower()))
    return _DATED.sub("", re.sub(r"[^a-z0-9]+", "-", _REVISION.sub(r"\1", name)).strip("-"))


@dataclass(frozen=True, slots=True)
class Difference:
    """One day and model on which the bill and we do not agree in one measure."""

    day: date
    model: str
    measure: str
    billed: Decimal | None
    """None: the bill has nothing of this model on this day."""
    counted: Decimal | None
    uncertain: int = 0
    unpriced: int = 0
    """Calls of ours that may be why."""

    @property
    def why(self) -> str:
        if self.billed is None:
            return "only here"
        if self.counted is None and not self.unpriced:
            return "only on the bill"
        notes = [f"{self.unpriced} unpriced"] if self.unpriced else []
        notes += [f"{self.uncertain} uncertain"] if self.uncertain else []
        return ", ".join(["differs", *notes])


def compare(bill: Bill, ours: Bill, tolerances: Mapping[str, Decimal]) -> list[Difference]:
    """What differs by more than is tolerated, in order of days.

    ours        may have more days than the bill: those are left out
    tolerances  measure → the largest difference that is none
    """
    first, last = bill.span
    days = {first + timedelta(days=number) for number in range((last - first).days + 1)}
    measures = {measure for line in bill.lines.values() for measure in line.amounts}
    keys = bill.lines.keys() | {key for key in ours.lines if key[0] in days}
    return [
        found
        for key in sorted(keys)
        for measure in MEASURES
        if measure in measures
        for found in _differs(key, measure, bill.lines.get(key), ours.lines.get(key), tolerances)
    ]


def _differs(
    key: tuple[date, str], measure: str, billed: Line | None, counted: Line | None, tolerances: Mapping[str, Decimal]
) -> Iterator[Difference]:
    """The difference in one measure, where there is one."""
    theirs = NOTHING if billed is None else billed.amounts.get(measure)
    mine = NOTHING if counted is None else counted.amounts.get(measure)
    if theirs is None:
        return
    is_money = measure == "cost_usd"
    tolerance = tolerances.get(measure, NOTHING)
    if mine is not None:
        more = mine - theirs
        if is_money and billed is not None:
            tolerance = max(tolerance, billed.rounded * Decimal("0.005"))
        if measure == "calls" and counted is not None:
            more = max(NOTHING, more - counted.failed) if more > 0 else more
        if abs(more) <= tolerance:
            return
    doubts = counted if counted is not None and measure != "calls" else Line()
    yield Difference(
        *key,
        measure,
        None if billed is None else theirs,
        None if counted is None else mine,
        doubts.uncertain,
        doubts.unpriced if is_money else 0,
    )
