"""`torana models discover URL`: a server's own list as records for a catalogue."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from torana.setting_values import url_fault

if TYPE_CHECKING:
    from torana.cli.server_lists import ServedModel, ServerList
    from torana.cli.workshop import Workshop

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*", re.ASCII)
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})
_NOT_WORD = re.compile(r"[^a-z0-9]+")


@click.command()
@click.argument("url")
@click.option("--api-key-env", "key_name", default="", metavar="NAME", help="The variable that holds the server's key.")
@click.option("--provider", default="", metavar="NAME", help="What to call the server; default: after its host.")
@click.option("--match", default="", metavar="TEXT", help="Only models whose name contains this.")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def discover(url: str, key_name: str, provider: str, match: str, folders: tuple[str, ...], as_json: bool) -> None:
    """Ask the server at URL for its models and print records for providers.yml and models.yml; exit 1 if it tells none.

    URL with or without /v1: both are tried, and what works is said. The records come in stage registered: try one
    with `torana models test`, then `torana models promote` it.
    """
    import asyncio

    from torana.cli.server_lists import read_list
    from torana.cli.workshop import open_workshop

    if fault := url_fault(url, is_base=True):
        raise click.UsageError(f"{fault}, expected http://host:port or https://host, with or without /v1")
    shop = open_workshop(folders)
    known = _known_provider(shop, url)
    headers = _greeting(shop, url, known, key_name)
    found = asyncio.run(_read(shop, url, headers, read_list))
    if not found.models:
        _tell_nothing(found, key_name, as_json=as_json)
        sys.exit(1)
    name = provider or known or _slug(urlsplit(url).hostname or "server")
    elsewhere = _elsewhere(shop, name, found) if name in shop.catalogue.providers and name != known else ""
    served = [each for each in found.models if match in each.id]
    if not served:
        names = ", ".join(each.id for each in found.models[:10])
        click.echo(f"none of its {len(found.models)} models has {match!r} in its name; they begin: {names}", err=True)
        sys.exit(1)
    rows = list(_rows(shop, name, served))
    yaml = _provider_yaml(name, found, key_name) if name not in shop.catalogue.providers else ""
    models_yaml = _models_yaml(shop, name, rows)
    if as_json:
        told = {
            "provider": name,
            "base_url": found.base_url,
            "client_url": found.client_url,
            "note": elsewhere,
            "tried": [{"url": each.url, "status": each.status, "problem": each.problem} for each in found.attempts],
            "models": [
                {"id": each.id, "name": record, "input_limit": each.input_limit, "known_as": known_as}
                for each, record, known_as in rows
            ],
            "providers_yml": yaml,
            "models_yml": models_yaml,
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for line in _findings(found, rows):
        click.echo(f"# {line}")
    if elsewhere:
        click.echo(f"# {elsewhere}")
    if yaml:
        click.echo(f"\n# --- providers.yml ---\n{yaml}", nl=False)
    click.echo(f"\n# --- models.yml ---\n{models_yaml}", nl=False)


async def _read(shop: "Workshop", url: str, headers: Mapping[str, str], read_list: Any) -> "ServerList":
    from torana.transport import Transport

    transport = Transport(shop.settings.transport)
    try:
        found: ServerList = await read_list(transport, url, headers)
    finally:
        await transport.aclose()
    return found


def _known_provider(shop: "Workshop", url: str) -> str:
    """The provider of the catalogue that lives at this address; empty where none does."""
    from torana.catalog.model_records import DeploymentRecord

    def bare(address: str) -> str:
        return address.rstrip("/").removesuffix("/v1")

    for name in shop.catalogue.providers:
        address = shop.models.vendors.deploy(DeploymentRecord(provider=name, model="-")).base_url
        if address and bare(address) == bare(url):
            return name
    return ""


def _elsewhere(shop: "Workshop", name: str, found: "ServerList") -> str:
    """What to do about a provider of the catalogue that lives at another address, or has none yet."""
    row = shop.catalogue.providers[name]
    variables = getattr(row, "base_url_env", ())
    if variables:
        return f"{name} is in the catalogue, and is asked here only with {variables[0]}={found.base_url}"
    return f"{name} is in the catalogue, at another address: choose another name with --provider"


def _greeting(shop: "Workshop", url: str, known: str, key_name: str) -> dict[str, str]:
    """Credentials, as the server's kind wants them; none where nobody named a key."""
    from torana.catalog.model_records import DeploymentRecord
    from torana.providers.anthropic import API_VERSION

    if key_name and key_name not in shop.settings.providers.vendor_keys:
        expected = "expected one that is set and ends in _API_KEY"
        raise click.UsageError(f"--api-key-env {key_name}: no such key in the environment, {expected}")
    secret = shop.settings.providers.vendor_keys.get(key_name)
    if secret is None and known:
        secret = shop.models.vendors.deploy(DeploymentRecord(provider=known, model="-")).secret
    key = secret.reveal() if secret is not None else ""
    row = shop.catalogue.providers.get(known)
    if (row is not None and row.dialect == "messages") or (urlsplit(url).hostname or "").endswith("anthropic.com"):
        return {"anthropic-version": API_VERSION, **({"x-api-key": key} if key else {})}
    return {"Authorization": f"Bearer {key}"} if key else {}


def _rows(shop: "Workshop", provider: str, served: list["ServedModel"]) -> Iterator[tuple["ServedModel", str, str]]:
    """Each model, the name for its record, and the record that it has already."""
    deployed = {
        (item.provider, item.model): record.name
        for record in shop.catalogue.models.values()
        for item in record.deployments
    }
    taken = {*shop.catalogue.models, *shop.catalogue.aliases}
    for each in served:
        known_as = deployed.get((provider, each.id), "")
        wishes = (_slug(each.id.rpartition("/")[2]), _slug(each.id), f"{provider}_{_slug(each.id)}")
        name = known_as or next((wish for wish in wishes if wish not in taken), "")
        number = 2
        while not name:
            wish = f"{wishes[-1]}_{number}"
            name, number = ("" if wish in taken else wish), number + 1
        taken.add(name)
        yield each, name, known_as


def _provider_yaml(name: str, found: "ServerList", key_name: str) -> str:
    dialect = "messages" if all(each.is_anthropics for each in found.models) else "chat_completions"
    lines = [f"- name: {_scalar(name)}", f"  dialect: {dialect}", f"  base_url: {_scalar(found.base_url)}"]
    return "\n".join([*lines, *([f"  key_env: {key_name}"] if key_name else [])]) + "\n"


def _models_yaml(shop: "Workshop", provider: str, rows: list[tuple["ServedModel", str, str]]) -> str:
    lines = ["models:"]
    for each, name, known_as in rows:
        if known_as:
            lines.append(f"# {each.id} is there already, as {known_as}.")
            continue
        makes_vectors = "embed" in each.id.lower()
        # The length of its vectors is for the operator to say, so that this record is no more than a draft.
        mark = "# " if makes_vectors else ""
        if makes_vectors:
            lines.append("# Makes vectors, it seems: `torana models test --url … --model …` says how long they are.")
        lines += [
            f"{mark}- name: {_scalar(name)}",
            f"{mark}  title: {_scalar(each.title or each.id)}",
            f"{mark}  stage: registered",
        ]
        if makes_vectors:
            lines += [f"{mark}  capabilities: [embeddings]", f"{mark}  dimensions: 0"]
        elif family := _family(shop, each.id):
            lines.append(f"{mark}  families: [{_scalar(family)}]")
        if each.input_limit:
            lines.append(f"{mark}  input_limit: {each.input_limit}")
        lines.append(f"{mark}  deployments: [{{provider: {_scalar(provider)}, model: {_scalar(each.id)}}}]")
    return "\n".join(lines) + "\n"


def _family(shop: "Workshop", model: str) -> str:
    """The longest name of a family that stands in the model's."""

    def bare(text: str) -> str:
        return re.sub(r"(\d)p(\d)", r"\1\2", _NOT_WORD.sub("", text.lower()))

    fitting = [name for name in shop.catalogue.families if bare(name) in bare(model)]
    return max(fitting, key=len, default="")


def _findings(found: "ServerList", rows: list[tuple["ServedModel", str, str]]) -> Iterator[str]:
    yield f"{len(rows)} of {len(found.models)} models of {found.base_url}"
    for each in found.attempts:
        yield f"{each.url}: {each.problem or 'works'}"
    yield f"as an endpoint that a client names: {found.client_url}"


def _tell_nothing(found: "ServerList", key_name: str, *, as_json: bool) -> None:
    remedy = _remedy(found, key_name)
    if as_json:
        tried = [{"url": each.url, "status": each.status, "problem": each.problem} for each in found.attempts]
        click.echo(json.dumps({"models": [], "tried": tried, "remedy": remedy}, indent=2))
        return
    click.echo("no list of models:", err=True)
    for each in found.attempts:
        click.echo(f"  {each.url}: {each.problem or 'an empty list'}", err=True)
    click.echo(remedy, err=True)


def _remedy(found: "ServerList", key_name: str) -> str:
    statuses = {each.status for each in found.attempts}
    if statuses & {401, 403}:
        if key_name:
            return f"the server refuses the key in {key_name}: is it this server's?"
        return "the server wants a key: put it into a variable that ends in _API_KEY and name that with --api-key-env"
    if statuses == {0}:
        return "nothing answers there: is the server running, and the address right as seen from here?"
    if any(not each.problem for each in found.attempts):
        return "the server answers, and serves no model yet: load one, then ask again"
    return "something answers, but no model server: is there a path before /v1, or another port?"


def _slug(text: str) -> str:
    return _NOT_WORD.sub("_", text.lower()).strip("_") or "model"


def _scalar(text: str) -> str:
    """As YAML reads it back for the same text, in a flow mapping too."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
