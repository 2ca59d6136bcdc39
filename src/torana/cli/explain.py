"""`torana explain request`: every decision for a request, without calling a model."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click

if TYPE_CHECKING:
    from torana.caller import Caller
    from torana.cli.workshop import Workshop
    from torana.errors import Refusal


NO_BODY = "name the request's body with -f BODY.json, or - for standard input"


@click.group()
def explain() -> None:
    """Why a request is answered as it is."""


@explain.command()
@click.option("-f", "--file", "file", metavar="BODY.json|-", help="The request's body, where it has one.")
@click.option("--path", default="", metavar="PATH", help="Where it is sent, such as /v1/prompts/chat/explain_code.")
@click.option("--method", default="POST", show_default=True)
@click.option("--header", "headers", multiple=True, metavar="'Name: value'", help="A header of it; repeatable.")
@click.option("--token", "token_text", metavar="T|-", help="Also decide whether this token's bearer may.")
@click.option("--offline", is_flag=True, help="Ask no issuer for its keys; local keys only.")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def request(
    file: str | None,
    path: str,
    method: str,
    headers: tuple[str, ...],
    token_text: str | None,
    offline: bool,
    folders: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say who may send it, which prompt and model it leads to, and what would go out; exit 1 if it is refused.

    Without --path, bodies of chat, code and feature endpoints tell where they belong.
    """
    from torana.api.exchange import Exchange
    from torana.api.prefixes import Prefixes
    from torana.caller import Caller
    from torana.cli.workshop import open_workshop
    from torana.explaining import tell, tell_refusal
    from torana.headers import Headers
    from torana.rehearsal import Rehearsal

    if file is None and not path:
        raise click.UsageError(NO_BODY)
    body = b"" if file is None else _read_body(file)
    shop = open_workshop(folders)
    pairs = [_read_header(text) for text in headers]
    path, _, query = (_below_host(path) or _guess_path(body, shop)).partition("?")
    path = Prefixes(shop.settings.serve.root_path).strip(unquote(path))
    exchange = Exchange(method.upper(), path, query.encode(), Headers.of(pairs), "", "explain")
    exchange.body = body
    rehearsal = Rehearsal(shop.settings, shop.catalogue)
    caller = None if token_text is None else asyncio.run(_bearer(shop, token_text, offline=offline))
    notes, order = asyncio.run(rehearsal.walk(exchange, caller if isinstance(caller, Caller) else None))
    if file is None and notes.route is not None and notes.route.body in ("typed", "proxy"):
        raise click.UsageError(NO_BODY)
    told = tell(rehearsal, exchange, notes)
    refusal = notes.refusal
    if caller is not None:
        verdict = rehearsal.verdict(exchange, notes, order, caller) if isinstance(caller, Caller) else caller
        told["token"] = {"allowed": verdict is None, **(tell_refusal(verdict) if verdict is not None else {})}
        refusal = verdict or refusal
    click.echo(json.dumps(told, indent=2, ensure_ascii=False) if as_json else _as_text(told))
    sys.exit(0 if refusal is None else 1)


def _read_body(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file}: cannot be read ({type(error).__name__})") from None


def _read_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {text!r}: expected 'Name: value'")
    return name.strip(), value.strip()


def _below_host(path: str) -> str:
    """A path, or the whole address that the access line has."""
    path = re.sub(r"^https?://[^/]*", "", path)
    if path and not path.startswith("/"):
        raise click.UsageError(f"--path {path!r}: expected it to begin with /")
    return path


def _guess_path(body: bytes, shop: "Workshop") -> str:
    """Where a body of this form belongs; a prompt's id stands only in its path."""
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        raise click.UsageError("the body is no JSON; to see it refused, name where it is sent with --path") from None
    if isinstance(members, dict):
        if "messages" in members:
            return "/v2/chat/agent"
        if "current_file" in members:
            return "/v2/code/completions"
        components = members.get("prompt_components")
        for each in components if isinstance(components, list) else ():
            kind = each.get("type") if isinstance(each, dict) else None
            if kind in ("code_editor_completion", "code_editor_generation"):
                return "/v3/code/completions"
            for feature in shop.catalogue.features.values():
                if kind in feature.components:
                    return feature.path
    raise click.UsageError("the body does not tell where it is sent; name it with --path /v1/prompts/<id>")


async def _bearer(shop: "Workshop", token_text: str, *, offline: bool) -> "Caller | Refusal":
    """Whoever holds the token, or how it is refused."""
    from torana.access.tokens import Verifier
    from torana.cli.surroundings import open_keys, read_token
    from torana.clock import Clock
    from torana.errors import Refusal

    async with open_keys(shop.settings, offline=offline) as keys:
        known = shop.catalogue.unit_primitives
        verifier = Verifier(shop.settings.auth, keys, Clock(), unit_primitives=known)
        verifier.set_deny_list(shop.catalogue.deny.values())
        try:
            return await verifier.verify(read_token(token_text), "")
        except Refusal as refusal:
            return refusal


def _as_text(told: dict[str, Any]) -> str:
    lines = []
    for name, value in told.items():
        if not isinstance(value, dict):
            lines.append(f"{name}: {_word(value)}")
            continue
        lines.append(f"{name}:")
        for member, inner in value.items():
            lines += _member_lines(member, inner)
    return "\n".join(lines)


def _member_lines(member: str, value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        rows = [", ".join(f"{key} {_word(each)}" for key, each in row.items()) for row in value]
        return [f"  {member}:", *(f"  - {row}" for row in rows)]
    return [f"  {member}: {_word(value)}"]


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)
