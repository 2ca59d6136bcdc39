"""`torana models`: which models the catalogue holds, and what each name leads to."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from torana.cli.models_discover import discover
from torana.cli.models_promote import promote
from torana.cli.models_test import test

if TYPE_CHECKING:
    from torana.catalog.model_records import ModelRecord, PriceRecord
    from torana.cli.workshop import Workshop
    from torana.routing.models import Model
    from torana.usage.prices import Price


@click.group()
def models() -> None:
    """The models of the catalogue, and those of servers that are to come into it."""


for command in (discover, test, promote):
    models.add_command(command)


@models.command("list")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(folders: tuple[str, ...], as_json: bool) -> None:
    """Models, their deployments, and what the aliases resolve to with these settings."""
    from torana.cli.workshop import open_workshop

    shop = open_workshop(folders)
    rows: list[dict[str, Any]] = [_summary(shop, record) for record in shop.catalogue.models.values()]
    aliases: dict[str, dict[str, Any]] = {
        name: {"model": found.name, "deployment": found.deployments[0].shown, "of": list(record.models)}
        for name, record in shop.catalogue.aliases.items()
        for found in [shop.models.find_by_name(name)]
    }
    if as_json:
        click.echo(json.dumps({"models": rows, "aliases": aliases}, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        state = "configured" if row["configured"] else "no credentials"
        hidden = "" if row["listed"] else ", not listed"
        until = f" until {row['ends']}, then {row['successor']}" if row["ends"] else ""
        click.echo(f"{row['name']:<{width}}  {row['stage']}{until}  ({state}{hidden})")
        click.echo(f"{'':<{width}}  {', '.join(row['deployments'])}")
        click.echo(f"{'':<{width}}  {_price_text(row['prices'])}; {', '.join(row['capabilities'])}")
    click.echo("\naliases:")
    for name, each in aliases.items():
        click.echo(f"{name}  -> {each['model']} on {each['deployment']}  (of {', '.join(each['of'])})")


@models.command()
@click.argument("name")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, folders: tuple[str, ...], as_json: bool) -> None:
    """What NAME leads to: a model, an alias, a feature setting, or a client's `provider/name`."""
    from torana.cli.workshop import open_workshop

    shop = open_workshop(folders)
    found, steps = _resolve(shop, name)
    answer = _detail(shop, name, found, steps)
    click.echo(json.dumps(answer, indent=2) if as_json else _as_text(answer, found))


def _resolve(shop: "Workshop", name: str) -> "tuple[Model, list[dict[str, str]]]":
    """The model that a name leads to, and the records on the way; ends the command where there is none."""
    catalogue = shop.catalogue
    steps: list[dict[str, str]] = []
    at = name
    for kind, member in (("client_names", "model"), ("feature_settings", "default")):
        records: dict[str, Any] = dict(getattr(catalogue, kind))
        if at in records:
            steps.append({"name": at, "kind": kind, "place": catalogue.places[f"{kind} {at}"]})
            at = getattr(records[at], member)
    for kind in ("aliases", "models"):
        if at in getattr(catalogue, kind):
            steps.append({"name": at, "kind": kind, "place": catalogue.places[f"{kind} {at}"]})
            break
    else:
        import difflib

        known = [*catalogue.models, *catalogue.aliases, *catalogue.feature_settings, *catalogue.client_names]
        near = difflib.get_close_matches(name, known, n=1)
        click.echo(f"unknown model {name!r}" + (f", did you mean {near[0]!r}?" if near else ""), err=True)
        sys.exit(1)
    if at not in catalogue.aliases:
        return shop.models.find_in_any_stage(at), steps
    found = shop.models.find_by_name(at)
    return found, [*steps, {"name": found.name, "kind": "models", "place": catalogue.places[f"models {found.name}"]}]


def _detail(shop: "Workshop", name: str, found: "Model", steps: list[dict[str, str]]) -> dict[str, Any]:
    record = shop.catalogue.models[found.name]
    return {
        "name": name,
        "resolved": steps,
        "model": found.name,
        "title": record.title,
        "families": list(found.families),
        "input_limit": found.input_limit,
        "output_limit": record.output_limit,
        "capabilities": sorted(found.capabilities),
        "stage": record.stage,
        "ends": record.deprecation.deprecation_date if record.deprecation is not None else "",
        "successor": record.successor,
        "prices": _prices(record.prices),
        "params": dict(found.params),
        "deployments": [
            {
                "deployment": item.name,
                "region": item.region,
                "account": item.account,
                "weight": item.weight,
                "order": item.order,
                "concurrency": item.concurrency,
                "prices": _price_of(item.prices),
                "base_url": item.base_url,
                "text_completions": item.as_text_completion,
                "configured": item.is_configured,
            }
            for item in found.deployments
        ],
        "used_by": _users_of(shop.catalogue, {name, *(step["name"] for step in steps)}),
    }


def _as_text(answer: dict[str, Any], found: "Model") -> str:
    lines = [f"{step['kind']:<16}  {step['name']}  ({step['place']})" for step in answer["resolved"]]
    lines.append(f"{'title':<16}  {answer['title']}")
    until = f" until {answer['ends']}, then {answer['successor']}" if answer["ends"] else ""
    lines.append(f"{'stage':<16}  {answer['stage']}{until}")
    lines.append(f"{'capabilities':<16}  {', '.join(answer['capabilities'])}")
    lines.append(f"{'families':<16}  {', '.join(answer['families']) or 'none'}")
    lines.append(f"{'tokens':<16}  {answer['input_limit']} in, {answer['output_limit']} out")
    for item in found.deployments:
        state = "configured" if item.is_configured else "no credentials"
        lines.append(f"{'deployment':<16}  {item.shown}  ({state}) {item.base_url}")
        lines.append(f"{'':<16}  {_price_text(_price_of(item.prices))}")
    return "\n".join([*lines, f"{'used by':<16}  {', '.join(answer['used_by']) or 'nothing'}"])


def _summary(shop: "Workshop", record: "ModelRecord") -> dict[str, Any]:
    return {
        "name": record.name,
        "title": record.title,
        "stage": record.stage,
        "ends": record.deprecation.deprecation_date if record.deprecation is not None else "",
        "successor": record.successor,
        "capabilities": sorted(record.abilities),
        "prices": _prices(record.prices),
        "listed": record.is_listed,
        "deployments": [item.label for item in record.deployments],
        "configured": shop.models.answers(record),
    }


def _prices(record: "PriceRecord | None") -> dict[str, Any] | None:
    """US dollars per million tokens as the catalogue has them today; None: unknown."""
    from torana.routing.price_list import price_of

    return _price_of(price_of(record, time.time()))


def _price_of(price: "Price | None") -> dict[str, Any] | None:
    return None if price is None else {"as_of": price.as_of, **price.figures()}


def _price_text(prices: dict[str, Any] | None) -> str:
    if prices is None:
        return "price unknown"
    told = f"{_figures_text(prices)} per million tokens ({prices['as_of']})"
    if "long" in prices:
        told += f"; over {prices['long']['over']} tokens of input: {_figures_text(prices['long'])}"
    return "; ".join([told, *(f"{tier} {times} times that" for tier, times in prices.get("times", {}).items())])


def _figures_text(prices: dict[str, Any]) -> str:
    from torana.usage.prices import PARTS

    return ", ".join(f"{name.replace('_', ' ')} ${value}" for name, value in prices.items() if name in PARTS)


def _users_of(catalogue: Any, names: set[str]) -> list[str]:
    """Everything in the catalogue that names one of these."""
    return [
        *(f"alias {each.name}" for each in catalogue.aliases.values() if names & set(each.models)),
        *(f"feature setting {each.name}" for each in catalogue.feature_settings.values() if each.default in names),
        *(f"feature {each.name}" for each in catalogue.features.values() if each.model in names),
        *(f"client name {each.name}" for each in catalogue.client_names.values() if each.model in names),
    ]
