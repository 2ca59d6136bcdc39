"""`torana models test`: real calls that show whether a model can do what its record says."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torana.setting_values import url_fault

if TYPE_CHECKING:
    from torana.catalog.model_records import ModelRecord
    from torana.cli.model_probes import Finding
    from torana.cli.workshop import Workshop
    from torana.providers.provider import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is tested: a record of the catalogue, or a server that is not in it yet."""

    name: str
    record: "ModelRecord | None" = None
    declared: frozenset[str] = frozenset()
    fill_in: str = ""
    deployments: "tuple[Deployment, ...]" = ()


@click.command()
@click.argument("name", required=False, default="")
@click.option("--url", default="", metavar="URL", help="Test a server instead of a record, with or without /v1.")
@click.option("--model", default="", metavar="ID", help="With --url: the server's name of the model.")
@click.option("--api-key-env", "key_name", default="", metavar="NAME", help="With --url: where the key is.")
@click.option("--family", default="", metavar="NAME", help="Whose fill-in-the-middle marks to use.")
@click.option("--deployment", "only", default="", metavar="NAME", help="Only this deployment of the model.")
@click.option("--out", metavar="FILE", help="Write the report there as well.")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def test(
    name: str,
    url: str,
    model: str,
    key_name: str,
    family: str,
    only: str,
    out: str | None,
    folders: tuple[str, ...],
    as_json: bool,
) -> None:
    """Try what NAME can do, ability by ability, on each of its deployments; exit 1 if one that is declared fails.

    The calls are real and cost a few cents at most. NAME may be in any stage; its report is kept, and
    `torana models promote` asks for it.
    """
    import asyncio

    from torana.cli.model_reports import as_text, keep, model_report
    from torana.cli.workshop import open_workshop

    if bool(name) == bool(url):
        raise click.UsageError("name a model of the catalogue, or a server with --url")
    if url and (fault := url_fault(url, is_base=True)):
        raise click.UsageError(f"{fault}, expected http://host:port or https://host, with or without /v1")
    shop = open_workshop(folders)
    if family and family not in shop.catalogue.families:
        raise click.UsageError(f"--family {family}: expected one of {', '.join(shop.catalogue.families)}")
    if url:
        subject = asyncio.run(_find_server(shop, url, model, key_name, family))
    else:
        subject = _find_record(shop, name, family, only)
    told = asyncio.run(_test(shop, subject, as_json=as_json))
    report = model_report(subject.name, subject.record, subject.declared, told)
    if as_json:
        click.echo(as_text(report), nl=False)
    else:
        _print_verdict(report)
    if subject.record is not None and not only:
        kept = keep(shop.settings.state_path, report)
        click.echo(f"report kept in {kept}" if kept else "the state directory takes no files: use --out", err=True)
    if out is not None:
        try:
            Path(out).write_text(as_text(report), "utf-8")
        except OSError as error:
            raise click.UsageError(f"--out {out}: cannot be written ({type(error).__name__})") from None
    sys.exit(0 if report["passed"] else 1)


def _find_record(shop: "Workshop", name: str, family: str, only: str) -> Subject:
    from torana.errors import Invalid

    try:
        # An alias means whatever it leads to now; a model is tested in whatever stage it is.
        known = name in shop.catalogue.models
        model = shop.models.find_in_any_stage(name) if known else shop.models.find_by_name(name)
    except Invalid:
        click.echo(f"unknown model {name!r}; `torana models list` shows them", err=True)
        sys.exit(1)
    record = shop.catalogue.models[model.name]
    wanted = tuple(each for each in model.deployments if only in ("", each.name))
    if not wanted:
        names = ", ".join(each.name for each in model.deployments)
        raise click.UsageError(f"--deployment {only}: {model.name} has none of this name, expected one of {names}")
    reachable = tuple(each for each in wanted if each.is_configured)
    if not reachable:
        names = ", ".join(each.name for each in wanted)
        click.echo(f"no credentials for {names}: set the provider's key (`torana models show {name}`)", err=True)
        sys.exit(1)
    families = [family] if family else list(record.families[:1])
    formats = [each.fill_in for each in map(shop.catalogue.families.get, families) if each is not None]
    return Subject(
        name=model.name,
        record=record,
        declared=record.abilities,
        fill_in=formats[0] if formats else "",
        deployments=reachable,
    )


async def _find_server(shop: "Workshop", url: str, model: str, key_name: str, family: str) -> Subject:
    from torana.cli.server_lists import read_list
    from torana.providers.provider import Deployment
    from torana.settings import Secret
    from torana.transport import Transport

    keys = shop.settings.providers.vendor_keys
    if key_name and key_name not in keys:
        raise click.UsageError(f"--api-key-env {key_name}: no such key in the environment")
    secret = keys.get(key_name, Secret())
    transport = Transport(shop.settings.transport)
    try:
        found = await read_list(transport, url, {"Authorization": f"Bearer {secret.reveal()}"} if secret else {})
    finally:
        await transport.aclose()
    if not model:
        if len(found.models) != 1:
            names = ", ".join(each.id for each in found.models[:10])
            helps = f"expected one of: {names}" if names else f"{url} tells none: is the server running?"
            raise click.UsageError(f"--model is missing; {helps}")
        model = found.models[0].id
    # A server without a list is called as one with /v1, which is what most are.
    address = found.client_url or url.rstrip("/").removesuffix("/v1") + "/v1"
    record = shop.catalogue.families.get(family)
    deployment = Deployment(
        provider="openai",
        model=model,
        base_url=address,
        secret=secret,
        label=f"{address} {model}",
        is_client_given=True,
    )
    return Subject(name=model, fill_in=record.fill_in if record is not None else "", deployments=(deployment,))


async def _test(shop: "Workshop", subject: Subject, *, as_json: bool) -> list[Any]:
    from torana.cli.calls import open_sender
    from torana.cli.model_probes import Bench, probe
    from torana.cli.model_reports import deployment_report

    rows = []
    async with open_sender(shop.settings) as sender:
        for deployment in subject.deployments:
            # On stderr where stdout is the report: a test takes a while, and says how far it is.
            click.echo(f"{subject.name} on {deployment.name}", err=as_json)
            findings = []
            async for finding in probe(Bench(sender, deployment, subject.fill_in)):
                findings.append(finding)
                click.echo(_line(finding, subject.declared), err=as_json)
            rows.append(deployment_report(deployment.name, subject.declared, findings))
    return rows


def _line(finding: "Finding", declared: frozenset[str]) -> str:
    state = "works" if finding.works else "fails" if finding.ability in declared else "no"
    tokens = f"{finding.input_tokens} -> {finding.output_tokens} tokens"
    return f"  {finding.ability:<15}  {state:<5}  {finding.seconds:6.2f} s  {tokens:<20}  {finding.detail}"


def _print_verdict(report: dict[str, Any]) -> None:
    for row in report["deployments"]:
        _print_names(f"{row['deployment']}: declared, and fails", row["broken"])
        _print_names(f"{row['deployment']}: works, and is not declared", row["undeclared"])
        _print_names(f"{row['deployment']}: declared, and not asked for", row["unasked"])
    click.echo("passed" if report["passed"] else "NOT PASSED")


def _print_names(what: str, names: Sequence[str]) -> None:
    if names:
        click.echo(f"{what}: {', '.join(names)}")
