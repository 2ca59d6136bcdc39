"""`torana limits`: what the catalogue's limits would do to traffic."""

import json
import re
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from torana.cli.surroundings import read_catalogue, read_settings
from torana.errors import BadCatalogue
from torana.usage.told import MAX_TOKENS

if TYPE_CHECKING:
    from torana.catalog.snapshot import Catalogue
    from torana.limits.simulation import Flow, Outcome

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 36_500 * 86400
"""Counts end by nanoseconds in 64 bits."""
_BOUNDS = {
    "users": (1, 10**9), "body_bytes": (0, 2**31), "input_tokens": (0, MAX_TOKENS), "output_tokens": (0, MAX_TOKENS),
    "max_tokens": (0, MAX_TOKENS), "seconds": (0, 366 * 86400),
}  # fmt: skip
"""Members of a flow → the least and the most."""


class FlowRecord(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One item of a profile: calls of one kind (docs/reference/limits.md)."""

    name: str
    calls: str
    users: int = 1
    instance: str = "instance-1"
    realm: str = "self-managed"
    unit_primitive: str = ""
    feature: str = ""
    model: str = ""
    body_bytes: int = 0
    """0: about as many as the input tokens take."""
    input_tokens: int = 1000
    output_tokens: int = 200
    max_tokens: int = 0
    seconds: float = 1.0


def _read_span(ctx: click.Context, param: click.Parameter, value: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd])", value, re.ASCII)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_S:
        raise click.BadParameter(f"{value!r} is no time; expected such as 90s, 10m, 1h or 2d")
    return float(seconds)


@click.group()
def limits() -> None:
    """How much may pass, of what, for whom."""


@limits.command()
@click.option(
    "-f",
    "profile",
    required=True,
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="The traffic, as YAML; `-` reads stdin.",
)
@click.option("--for", "lasts_s", callback=_read_span, default="1h", show_default=True, help="90s, 10m, 1h, 2d.")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay with limits; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(profile: str, lasts_s: float, folders: tuple[str, ...], as_json: bool) -> None:
    """Say what a traffic profile would meet: how many calls pass, which limit refuses the others, and when.

    A profile is a list of flows: name, calls ("60 per minute", of all users together), users, instance, realm,
    unit_primitive, feature, model, body_bytes, input_tokens, output_tokens, max_tokens, seconds.
    """
    from torana.labels import known_labels
    from torana.limits.simulation import MOST_CALLS
    from torana.limits.simulation import simulate as run
    from torana.limits.table import SLOTS
    from torana.telemetry.metrics import Metrics

    catalogue = read_catalogue(read_settings({"AIGW_CATALOG": ":".join(folders)} if folders else None))
    try:
        flows = _read_flows(profile, catalogue)
    except BadCatalogue as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    calls = float(sum(flow.calls_per_s for flow in flows)) * lasts_s
    if calls > MOST_CALLS:
        raise click.BadParameter(f"{calls:.0f} calls are too many, at most {MOST_CALLS}", param_hint="--for")
    outcomes, lost = run(catalogue, Metrics(known_labels(catalogue)), flows, lasts_s, time.time())
    click.echo(json.dumps([_row(each) for each in outcomes]) if as_json else _table(outcomes))
    if lost:
        full = (
            f"the table of {SLOTS:,} counts was full, and {lost:,} gave way before they were over, so that more passes"
        )
        click.echo(f"{full}; it is so at a server, too", err=True)


def _read_flows(profile: str, catalogue: "Catalogue") -> "list[Flow]":
    from torana.catalog.document import Document
    from torana.catalog.limit_text import BadLimit, read_limit
    from torana.counting import BYTES_PER_TOKEN
    from torana.limits.estimate import DEFAULT_OUTPUT_TOKENS
    from torana.limits.simulation import Flow
    from torana.routing.price_list import price_of

    now = time.time()
    try:
        text = sys.stdin.read() if profile == "-" else Path(profile).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{profile}: cannot be read ({type(error).__name__})", param_hint="-f") from error
    document = Document(profile, text)
    problems, flows = [], []
    for index, record in enumerate(document.convert(tuple[FlowRecord, ...])):
        try:
            terms = read_limit(record.calls)
        except BadLimit as bad:
            problems.append(document.problem(str(bad), "expected such as 60 per minute", index, "calls"))
            continue
        if terms.unit != "requests" or terms.per:
            problems.append(document.problem("`calls` is no rate", "expected such as 60 per minute", index, "calls"))
            continue
        for member, (least, most) in _BOUNDS.items():
            value = getattr(record, member)
            if not least <= value <= most:
                size, expected = ("small", "more") if value < least else ("large", f"at most {most}")
                problems.append(document.problem(f"`{member}` is too {size}", f"expected {expected}", index, member))
        known = catalogue.models.get(record.model)
        if record.model and known is None:
            problems.append(
                document.problem(f"unknown model `{record.model}`", "expected a name of models.yml", index, "model")
            )
        if record.unit_primitive and record.unit_primitive not in catalogue.unit_primitives:
            wrong = f"unknown unit primitive `{record.unit_primitive}`"
            problems.append(document.problem(wrong, "expected a name of unit_primitives.yml", index, "unit_primitive"))
        deployment = known.deployments[0] if known is not None and known.deployments else None
        flows.append(
            Flow(
                name=record.name,
                calls_per_s=Fraction(terms.amount, int(terms.period_s)),
                users=record.users,
                instance=record.instance,
                realm=record.realm,
                unit_primitive=record.unit_primitive,
                feature=record.feature,
                model_name=record.model,
                model=deployment.model if deployment is not None else "",
                provider=deployment.provider if deployment is not None else "",
                prices=price_of(deployment.prices or known.prices, now) if known is not None and deployment else None,
                body_bytes=record.body_bytes or int(record.input_tokens * BYTES_PER_TOKEN),
                input_tokens=record.input_tokens,
                output_tokens=record.output_tokens,
                allowed_tokens=record.max_tokens or (known.output_limit if known else 0) or DEFAULT_OUTPUT_TOKENS,
                seconds=record.seconds,
            )
        )
    if problems:
        raise BadCatalogue(problems)
    return flows


def _row(outcome: "Outcome") -> dict[str, Any]:
    return {
        "flow": outcome.flow.name,
        "sent": outcome.sent,
        "passed": outcome.passed,
        "refused": outcome.refused,
        "refused_by": dict(outcome.refused_by),
        "first_refused_s": outcome.first_refused_s,
        "longest_retry_after_s": outcome.longest_wait_s,
        "least_left": outcome.lowest,
        "uncounted": outcome.uncounted,
    }


def _table(outcomes: "list[Outcome]") -> str:
    lines = []
    for each in outcomes:
        lines.append(f"{each.flow.name:<24} {each.sent:>8} sent {each.passed:>8} passed {each.refused:>8} refused")
        if each.first_refused_s is not None:
            names = ", ".join(f"{name} ({number})" for name, number in each.refused_by.most_common())
            lines.append(f"    refused by {names}; first after {each.first_refused_s:.0f} s")
            lines.append(f"    longest Retry-After {each.longest_wait_s} s")
        elif not each.lowest:
            lines.append("    meets no limit")
        if each.lowest:
            lines.append(
                f"    least left: {', '.join(f'{left:,.10g} of {name}' for name, left in each.lowest.items())}"
            )
        if each.uncounted:
            lines.append(f"    no price is known, so that it passes uncounted: {', '.join(each.uncounted)}")
    return "\n".join(lines)
