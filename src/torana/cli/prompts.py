"""`torana prompts`: what is there, which file a request leads to and why, what it becomes, and how models answer."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from decimal import Decimal

    from torana.catalog.snapshot import PromptSource
    from torana.chat import ChatRequest
    from torana.cli.prompt_runs import Run
    from torana.cli.workshop import Choice, Workshop

T = TypeVar("T")

EXAMPLES = "examples.jsonl"
"""The data set that lies beside a prompt's variants."""


def _options(*wanted: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """The options that several commands share, by name."""
    known = {
        "catalog": click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; repeatable."),
        "version": click.option("--version", "constraint", metavar="C", help="A constraint; default ^1.0.0."),
        "model": click.option("--model", default="", metavar="NAME", help="An alias or a model of the catalogue."),
        "family": click.option("--family", default="", metavar="NAME", help="Variants of this model family."),
        "inputs": click.option("--inputs", "file", metavar="FILE|-", help="A JSON object with the inputs."),
        "input": click.option("--input", "pairs", multiple=True, metavar="NAME=TEXT", help="One input; repeatable."),
        "json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    }

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        for name in reversed(wanted):
            command = known[name](command)
        return command

    return decorate


@click.group()
def prompts() -> None:
    """Look at prompts, try them, compare them."""


@prompts.command("list")
@click.argument("pattern", required=False, default="")
@_options("catalog", "json")
def list_prompts(pattern: str, folders: tuple[str, ...], as_json: bool) -> None:
    """Every prompt with its variants and versions; PATTERN is a part of the id."""
    from torana.cli.workshop import open_workshop
    from torana.prompts.versions import read_version

    shop = open_workshop(folders)
    rows = {
        prompt_id: {variant: sorted(versions, key=read_version) for variant, versions in sorted(variants.items())}
        for prompt_id, variants in sorted(shop.catalogue.prompts.items())
        if pattern in prompt_id
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"no prompt has {pattern!r} in its id; without it all are listed", err=True)
    for prompt_id, variants in rows.items():
        told = "; ".join(f"{variant} {', '.join(versions)}" for variant, versions in variants.items())
        click.echo(f"{prompt_id}  {told}")


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@_options("version", "model", "family", "catalog", "json")
def show(
    prompt_id: str, constraint: str | None, model: str, family: str, folders: tuple[str, ...], as_json: bool
) -> None:
    """Which file a request for ID leads to, why, and what stands in it."""
    from torana.cli.workshop import choose, open_workshop, refusals_told, show_path

    shop = open_workshop(folders)
    with refusals_told():
        choice = choose(shop, prompt_id, constraint, model=model, family=family)
    prompt = choice.prompt
    facts = {
        **_chosen(choice),
        "name": prompt.name,
        "unit_primitives": list(prompt.unit_primitives),
        "any_of": list(prompt.any_of),
        "needs": sorted(prompt.variables),
        "params": dict(prompt.params),
        "stop": list(prompt.stop),
        "timeout_s": prompt.timeout_s,
        "answer": prompt.answer,
    }
    if as_json:
        click.echo(json.dumps({**facts, "text": choice.source.text}, indent=2))
        return
    _print_choice(choice)
    every = [*prompt.unit_primitives, *([" or ".join(prompt.any_of)] if prompt.any_of else [])]
    click.echo(f"unit primitives  {', '.join(every)}")
    click.echo(f"needs            {', '.join(sorted(prompt.variables)) or 'no inputs'}")
    click.echo(f"\n# {show_path(choice.source.path)}\n{choice.source.text.rstrip()}")


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@_options("version", "model", "family", "inputs", "input", "catalog", "json")
def render(
    prompt_id: str,
    constraint: str | None,
    model: str,
    family: str,
    file: str | None,
    pairs: tuple[str, ...],
    folders: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fill ID in and print what a model would be sent."""
    from torana.cli.workshop import choose, note_unread, open_workshop, refusals_told, render_as_feature

    shop = open_workshop(folders)
    inputs = _read_inputs(file, pairs)
    with refusals_told():
        choice = choose(shop, prompt_id, constraint, model=model, family=family)
        note_unread(shop, choice, inputs)
        chat = render_as_feature(shop, choice, inputs)
    if as_json:
        messages = [{"role": message.role, "content": message.text} for message in chat.messages]
        more = {"max_tokens": chat.max_tokens, "temperature": chat.temperature, "stop": list(chat.stop), **chat.extra}
        click.echo(json.dumps({**_chosen(choice), "messages": messages, **more}, indent=2, ensure_ascii=False))
        return
    _print_choice(choice)
    click.echo(f"\n{_as_text(chat)}")


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.argument("one")
@click.argument("other")
@_options("inputs", "input", "catalog", "json")
def diff(
    prompt_id: str,
    one: str,
    other: str,
    file: str | None,
    pairs: tuple[str, ...],
    folders: tuple[str, ...],
    as_json: bool,
) -> None:
    """What differs between two versions of ID, each VERSION or VARIANT/VERSION.

    Compares the files; with inputs, what they become.
    """
    from torana.cli.workshop import open_workshop, refusals_told, render_as_feature

    shop = open_workshop(folders)
    inputs = _read_inputs(file, pairs)
    with refusals_told():
        choices = [_choose_exactly(shop, prompt_id, wanted) for wanted in (one, other)]
        texts = [
            (each.key, _as_text(render_as_feature(shop, each, inputs)) if inputs else each.source.text)
            for each in choices
        ]
    (from_name, from_text), (to_name, to_text) = texts
    lines = diff_lines(from_text, to_text, from_name, to_name)
    if as_json:
        click.echo(json.dumps({"from": from_name, "to": to_name, "equal": not lines, "diff": lines}, indent=2))
    else:
        click.echo("\n".join(lines) if lines else f"{from_name} and {to_name} are equal")


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.option("--data", "file", metavar="FILE|-", help=f"JSON lines; default: {EXAMPLES} beside the prompt.")
@_options("version", "model", "family")
@click.option("--against", metavar="C", help="Compare with this version.")
@click.option("--against-model", default="", metavar="NAME", help="Compare with this model.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many rows.")
@click.option("--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="Calls at a time.")
@_options("catalog", "json")
def test(
    prompt_id: str,
    file: str | None,
    constraint: str | None,
    model: str,
    family: str,
    against: str | None,
    against_model: str,
    limit: int | None,
    parallel: int,
    folders: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run ID over a data set and say how each answer came out; exit 1 if one did not.

    A row is {"inputs": {…}, "name": "…", "contains": ["…"], "lacks": ["…"], "max_chars": 500}; all but the
    inputs are optional. Calls real models, unless only the demo is configured.
    """
    import asyncio

    from torana.cli.prompt_runs import read_cases, run_all
    from torana.cli.workshop import choose, note_unread, open_workshop, refusals_told

    shop = open_workshop(folders)
    with refusals_told():
        choices = [choose(shop, prompt_id, constraint, model=model, family=family)]
        if against or against_model:
            choices.append(choose(shop, prompt_id, against or constraint, model=against_model or model, family=family))
    if against and not against_model:
        _refuse_equals(*choices)
    text, name = _read_data(shop, prompt_id, file)
    try:
        cases = read_cases(text, name)[:limit]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    note_unread(shop, choices[0], dict.fromkeys(name for case in cases for name in case.inputs))
    runs = asyncio.run(run_all(shop, choices, cases, parallel))
    if as_json:
        told = [{**_chosen(choice), **run.as_json()} for choice, run in zip(choices, runs, strict=True)]
        change = {"change": _changes(*runs)} if len(runs) == 2 else {}
        click.echo(json.dumps({"data": name, "runs": told, **change}, indent=2, ensure_ascii=False))
    else:
        _print_runs(choices, runs)
    sys.exit(0 if all(run.is_good for run in runs) else 1)


def _refuse_equals(one: "Choice", other: "Choice") -> None:
    """Calls that cost money and tell nothing: without --version the first run has the newest version already."""
    if one.key == other.key:
        raise click.UsageError(
            f"both runs would be {one.key} ({other.why_version}), expected an older one with --against, or another "
            "first one with --version"
        )


def _choose_exactly(shop: "Workshop", prompt_id: str, wanted: str) -> "Choice":
    """The file that `[VARIANT/]VERSION` names; a client's pin that misses leads to the nearest, an author's may not."""
    from torana.cli.workshop import choose
    from torana.prompts.versions import read_constraint, read_version

    variant, _, version = wanted.rpartition("/")
    choice = choose(shop, prompt_id, version, family=variant)
    pin = read_constraint(version).pin
    if choice.prompt.variant != (variant or choice.prompt.variant) or (
        pin is not None and pin != read_version(choice.prompt.version)
    ):
        there = [f"{name}/{each}" for name, versions in shop.catalogue.prompts[prompt_id].items() for each in versions]
        raise click.UsageError(f"{prompt_id} has no {wanted}, expected one of {', '.join(sorted(there))}")
    return choice


def diff_lines(one: str, other: str, one_name: str, other_name: str) -> list[str]:
    """A unified diff; empty where both are equal."""
    from difflib import unified_diff

    return list(unified_diff(one.splitlines(), other.splitlines(), one_name, other_name, lineterm=""))


def _chosen(choice: "Choice") -> dict[str, Any]:
    prompt = choice.prompt
    return {
        "id": prompt.id,
        "variant": prompt.variant,
        "version": prompt.version,
        "file": str(choice.source.path),
        "model": choice.model.name,
        "deployment": choice.model.deployments[0].name,
        "why": {"variant": choice.why_variant, "version": choice.why_version, "model": choice.why_model},
    }


def _print_choice(choice: "Choice") -> None:
    prompt = choice.prompt
    click.echo(f"prompt           {prompt.id}  ({'overlay' if choice.source.is_overlay else 'shipped'})")
    click.echo(f"version          {prompt.version}  ({choice.why_version})")
    click.echo(f"variant          {prompt.variant}  ({choice.why_variant})")
    click.echo(f"model            {choice.model.name} on {choice.model.deployments[0].name}  ({choice.why_model})")


def _as_text(chat: "ChatRequest") -> str:
    return "\n\n".join(f"--- {message.role} ---\n{message.text}" for message in chat.messages)


def _read_inputs(file: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if file is not None:
        try:
            inputs = json.loads(_read_file(file))
        except (ValueError, RecursionError):
            raise click.UsageError(f"{file}: is no JSON, expected an object with the inputs") from None
        if not isinstance(inputs, dict):
            raise click.UsageError(f"{file}: expected a JSON object with the inputs")
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise click.UsageError(f"--input {pair!r}: expected NAME=TEXT")
        inputs[name] = value
    return inputs


def _read_data(shop: "Workshop", prompt_id: str, file: str | None) -> tuple[str, str]:
    """The data set's text, and what to call it."""
    if file is not None:
        return _read_file(file), file
    # An overlay of one version need not bring the data along.
    folders = {source.path.parent.parent for source in _sources(shop, prompt_id)}
    for folder in sorted(folders):
        if (folder / EXAMPLES).is_file():
            return _read_file(str(folder / EXAMPLES)), str(folder / EXAMPLES)
    raise click.UsageError(f"no {EXAMPLES} beside the prompt; name a data set with --data FILE")


def _sources(shop: "Workshop", prompt_id: str) -> list["PromptSource"]:
    variants = shop.catalogue.prompts[prompt_id].values()
    return [source for versions in variants for source in versions.values()]


def _read_file(name: str) -> str:
    try:
        # Windows' editors begin a file with a mark, in which JSON sees a mistake.
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise click.UsageError(f"{name}: cannot be read ({type(error).__name__})") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{name}: is no UTF-8, expected text in UTF-8") from None


def _print_runs(choices: list["Choice"], runs: list["Run"]) -> None:
    from decimal import Decimal

    from torana.cli.prompt_runs import cost_text

    for choice, run in zip(choices, runs, strict=True):
        click.echo(f"{choice.key} on {choice.model.deployments[0].name}")
        for outcome in run.outcomes:
            tokens = f"{outcome.input_tokens} -> {outcome.output_tokens} tokens{' (counted)' * outcome.is_counted}"
            state = "ok    " if outcome.is_good else "FAILED"
            cost = cost_text(None if outcome.cost_usd is None else Decimal(outcome.cost_usd))
            click.echo(f"  {state}  {outcome.name:<24}  {outcome.seconds:6.2f} s  {tokens}, {cost}")
            for problem in outcome.problems:
                click.echo(f"          {problem}")
        click.echo(f"  {run.summary()}")
    if len(runs) == 2:
        _print_comparison(runs[0], runs[1])


def _changes(one: "Run", other: "Run") -> dict[str, Any]:
    """What the second run spends more than the first; the cost is null where one of both is unknown."""
    tokens = {kind: other.total(kind) - one.total(kind) for kind in ("input_tokens", "output_tokens")}
    was, now = one.cost_usd, other.cost_usd
    return {**tokens, "cost_usd": None if was is None or now is None else f"{now - was:f}"}


def _change(was: "int | Decimal", now: "int | Decimal") -> str:
    """`+12, +40 %`."""
    share = f", {(now - was) / was * 100:+.0f} %" if was else ""
    more = now - was
    return f"{more:+d}{share}" if isinstance(more, int) else f"{more:+f}{share}"


def _print_comparison(one: "Run", other: "Run") -> None:
    """Tokens and cost as a difference, and the answers that differ."""
    from torana.cli.prompt_runs import cost_text

    for kind in ("input_tokens", "output_tokens"):
        was, now = one.total(kind), other.total(kind)
        click.echo(f"{kind.replace('_', ' ')}: {was} -> {now} ({_change(was, now)})")
    cost_was, cost_now = one.cost_usd, other.cost_usd
    change = "" if cost_was is None or cost_now is None else f" ({_change(cost_was, cost_now)})"
    click.echo(f"cost: {cost_text(cost_was)} -> {cost_text(cost_now)}{change}")
    for before, after in zip(one.outcomes, other.outcomes, strict=True):
        lines = diff_lines(before.text, after.text, f"{before.name}, first", f"{after.name}, second")
        click.echo("\n".join(lines) if lines else f"{before.name}: equal answers")
