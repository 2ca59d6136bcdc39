"""Runs of a prompt over a data set, for `torana prompts test`: read the rows, ask the model, judge the answers."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import click

from torana.access.permissions import permit
from torana.caller import DEBUG_CALLER
from torana.chat import Usage
from torana.cli.calls import open_sender
from torana.cli.workshop import Choice, Workshop, render_as_feature
from torana.clock import Clock
from torana.counting import estimate_tokens
from torana.errors import ProviderError, Refusal
from torana.refusals import CODES, refusal_text
from torana.routing.discovery import FirstModel
from torana.routing.fences import Fences
from torana.routing.router import Router
from torana.routing.traffic import Traffic
from torana.telemetry.metrics import Known, Metrics
from torana.usage.prices import Price, UnknownPrice, cost_usd

_TEXTS = ("contains", "lacks")
_MEMBERS = ("inputs", "name", *_TEXTS, "max_chars")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of a data set, and what its answer must be like."""

    name: str
    inputs: dict[str, Any]
    contains: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    max_chars: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One answer."""

    name: str
    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    is_counted: bool = False
    """The provider told no tokens: these are our own estimate."""
    cost_usd: str | None = None
    """Decimal text; None: unknown, for want of a price or of an answer."""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Run:
    """All answers of one prompt and model, in the order of the rows."""

    outcomes: tuple[Outcome, ...]

    @property
    def is_good(self) -> bool:
        return all(outcome.is_good for outcome in self.outcomes)

    def total(self, kind: str) -> int:
        return sum(getattr(outcome, kind) for outcome in self.outcomes)

    @property
    def cost_usd(self) -> Decimal | None:
        """Of all answers; None where that of one is unknown."""
        costs = [outcome.cost_usd for outcome in self.outcomes]
        return None if None in costs else sum((Decimal(cost) for cost in costs if cost is not None), Decimal(0))

    def summary(self) -> str:
        good = sum(outcome.is_good for outcome in self.outcomes)
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        tokens = f"{self.total('input_tokens')} -> {self.total('output_tokens')} tokens"
        return f"{good} of {len(self.outcomes)} good, {seconds:.2f} s, {tokens}, {cost_text(self.cost_usd)}"

    def as_json(self) -> dict[str, Any]:
        totals: dict[str, Any] = {kind: self.total(kind) for kind in ("input_tokens", "output_tokens")}
        totals["cost_usd"] = None if self.cost_usd is None else f"{self.cost_usd:f}"
        return {"ok": self.is_good, "rows": [asdict(outcome) for outcome in self.outcomes], "totals": totals}


def cost_text(cost: Decimal | None) -> str:
    """`$0.0123`, with the digits that a small call needs."""
    return "cost unknown" if cost is None else f"${cost.quantize(Decimal('0.000001')).normalize():f}"


def read_cases(text: str, name: str) -> list[Case]:
    """The rows of a JSONL file; raises ValueError `file:line: what, expected`."""
    cases = []
    # At line feeds alone: JSON may hold other letters at which splitlines() breaks lines.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}:{number}: "
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{place}is no JSON, expected an object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("inputs"), dict):
            raise ValueError(f'{place}has no inputs, expected {{"inputs": {{…}}}}')
        unknown = sorted(row.keys() - set(_MEMBERS))
        if unknown:
            raise ValueError(f"{place}unknown member `{unknown[0]}`, expected one of {', '.join(_MEMBERS)}")
        for member in _TEXTS:
            texts = row.get(member, [])
            if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
                raise ValueError(f"{place}`{member}` is no list of texts")
        if not isinstance(row.get("max_chars"), (int, type(None))):
            raise ValueError(f"{place}`max_chars` is no whole number")
        cases.append(
            Case(
                name=str(row.get("name") or f"row {number}"),
                inputs=row["inputs"],
                contains=tuple(row.get("contains", ())),
                lacks=tuple(row.get("lacks", ())),
                max_chars=row.get("max_chars"),
            )
        )
    if not cases:
        raise ValueError(f"{name}:1: has no rows, expected one JSON object a line")
    return cases


async def run_all(shop: Workshop, choices: Sequence[Choice], cases: Sequence[Case], parallel: int) -> list[Run]:
    """Every row against every choice, so many at a time; progress on a terminal's stderr."""
    gate = asyncio.Semaphore(parallel)
    total = len(choices) * len(cases)
    # Hidden off a terminal: logs of a pipeline are no place for a bar.
    with click.progressbar(length=total, label="asking", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        async with _open_router(shop) as router:

            async def run(choice: Choice, case: Case) -> Outcome:
                async with gate:
                    outcome = await _ask(shop, router, choice, case)
                bar.update(1)
                return outcome

            return [Run(tuple(await asyncio.gather(*(run(choice, case) for case in cases)))) for choice in choices]


@asynccontextmanager
async def _open_router(shop: Workshop) -> AsyncIterator[Router]:
    settings = shop.settings
    async with open_sender(settings) as sender:
        first_model = FirstModel(settings.providers, sender.transport)
        if shop.models.vendors.has_own_openai:
            first_model.start()
        try:
            traffic = Traffic(settings.routing, Clock(), Metrics(Known()))
            # What is sent is the operator's own, no instance's.
            yield Router(shop.models, sender, traffic, first_model, Fences(()))
        finally:
            await first_model.aclose()


async def _ask(shop: Workshop, router: Router, choice: Choice, case: Case) -> Outcome:
    # Whoever may read the operator's keys may call the operator's models.
    prompt = choice.prompt
    permitted = permit(DEBUG_CALLER, prompt.unit_primitives, any_of=prompt.any_of, denied="")
    started = time.monotonic()
    parts: list[str] = []
    usage: Usage | None = None
    prices: Price | None = None
    problems: list[str] = []
    asked = 0
    try:
        chat = render_as_feature(shop, choice, case.inputs)
        asked = sum(estimate_tokens(message.text) for message in chat.messages)
        flow = await router.stream(await router.pick(permitted, choice.model, chat), chat)
        prices = flow.deployment.prices
        async with aclosing(flow):
            async for batch in flow:
                for chunk in batch:
                    parts.append(chunk.text)
                    usage = chunk.usage or usage
    except Refusal as refusal:
        problems = [refusal_text(refusal)]
    except ProviderError as error:
        known = CODES.get(error.code)
        problems = [f"the model failed: {error.phrase} ({error.code}{f': {known.meaning}' if known else ''})"]
    text = "".join(parts)
    if usage is None:
        usage = Usage(input_tokens=asked, output_tokens=estimate_tokens(text), is_counted=True)
    return Outcome(
        name=case.name,
        text=text,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        is_counted=usage.is_counted,
        cost_usd=_cost(usage, prices),
        seconds=round(time.monotonic() - started, 3),
        problems=problems or _judge(choice, case, text),
    )


def _cost(usage: Usage, prices: Price | None) -> str | None:
    try:
        return f"{cost_usd(usage, prices):f}"
    except UnknownPrice:
        return None


def _judge(choice: Choice, case: Case, text: str) -> list[str]:
    """What is wrong with an answer; a JSON prompt's must be an object."""
    problems = [f"lacks {wanted!r}" for wanted in case.contains if wanted not in text]
    problems += [f"contains {unwanted!r}" for unwanted in case.lacks if unwanted in text]
    if case.max_chars is not None and len(text) > case.max_chars:
        problems.append(f"has {len(text)} characters, at most {case.max_chars} are wanted")
    if not text.strip():
        problems.append("is empty")
    if choice.prompt.answer == "json" and not _is_object(text):
        problems.append("is no JSON object")
    return problems


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
