"""`torana explain request`: every decision for a request, without calling a model."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torana.api.exchange import Exchange
    from torana.cli.rehearsal import Notes, Rehearsal
    from torana.cli.workshop import Workshop
    from torana.errors import Refusal


@click.group()
def explain() -> None:
    """Why a request is answered as it is."""


@explain.command()
@click.option("-f", "--file", "file", required=True, metavar="BODY.json|-", help="The request's body.")
@click.option("--path", default="", metavar="PATH", help="Where it is sent, such as /v1/prompts/chat/explain_code.")
@click.option("--method", default="POST", show_default=True)
@click.option("--header", "headers", multiple=True, metavar="'Name: value'", help="A header of it; repeatable.")
@click.option("--token", "token_text", metavar="T|-", help="Also decide whether this token's bearer may.")
@click.option("--offline", is_flag=True, help="Ask no issuer for its keys; local keys only.")
@click.option("--catalog", "folders", multiple=True, metavar="DIR", help="An overlay; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def request(
    file: str,
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
    from torana.cli.rehearsal import Rehearsal
    from torana.cli.workshop import open_workshop
    from torana.headers import Headers

    body = _read_body(file)
    shop = open_workshop(folders)
    pairs = [_read_header(text) for text in headers]
    path = path or _guess_path(body, shop)
    exchange = Exchange(method.upper(), path, b"", Headers.of(pairs), "", "explain")
    exchange.body = body
    rehearsal = Rehearsal(shop)
    notes, order = asyncio.run(rehearsal.walk(exchange))
    told = _tell(shop, exchange, notes)
    refusal = notes.refusal
    if token_text is not None:
        verdict = asyncio.run(_decide(shop, rehearsal, exchange, notes, order, token_text, offline=offline))
        told["token"] = {"allowed": verdict is None, **(_tell_refusal(verdict) if verdict is not None else {})}
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


def _guess_path(body: bytes, shop: "Workshop") -> str:
    """Where a body of this form belongs; a prompt's id stands only in its path."""
    try:
        members = json.loads(body)
    except ValueError:
        members = None
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


async def _decide(
    shop: "Workshop",
    rehearsal: "Rehearsal",
    exchange: "Exchange",
    notes: "Notes",
    order: Any,
    token_text: str,
    *,
    offline: bool,
) -> "Refusal | None":
    """The refusal that the token's bearer would get; None: the bearer may."""
    from torana.access.tokens import Verifier
    from torana.cli.surroundings import open_keys, read_token
    from torana.clock import Clock
    from torana.errors import Refusal

    async with open_keys(shop.settings, offline=offline) as keys:
        known = shop.catalogue.unit_primitives
        verifier = Verifier(shop.settings.auth, keys, Clock(), unit_primitives=known)
        verifier.set_deny_list(shop.catalogue.deny.values())
        try:
            caller = await verifier.verify(read_token(token_text), "")
        except Refusal as refusal:
            return refusal
    if notes.route is None or (order is None and notes.refusal is not None):
        return None
    return rehearsal.refusal_of(notes.route, exchange, order, caller)


def _tell(shop: "Workshop", exchange: "Exchange", notes: "Notes") -> dict[str, Any]:
    """The decisions in the order of the walk; what was not reached is left out."""
    told: dict[str, Any] = {"request": f"{exchange.method} {exchange.path}"}
    if notes.route is not None:
        told["route"] = notes.route.path
    if notes.unit_primitives:
        told["access"] = {
            "unit_primitives": notes.unit_primitives,
            "instance_token_only": notes.is_instance_only,
            "quota_event": notes.quota_event,
        }
    if notes.prompt is not None:
        told["prompt"] = _tell_prompt(shop, notes)
    if notes.model is not None:
        told["model"] = _tell_model(shop, notes)
    if notes.deployment is not None:
        told["sent_to"] = notes.deployment.name + (f" {notes.upstream_path}" if notes.upstream_path else "")
    if notes.chat is not None:
        told["sent"] = _tell_chat(shop, notes)
    told["limits"] = notes.limits or "none"
    if notes.refusal is not None:
        told["refused"] = _tell_refusal(notes.refusal)
    return told


def _tell_prompt(shop: "Workshop", notes: "Notes") -> dict[str, Any]:
    from torana.cli.workshop import explain_variant, explain_version

    prompt = notes.prompt
    assert prompt is not None
    source = shop.catalogue.prompts[prompt.id][prompt.variant][prompt.version]
    return {
        "id": prompt.id,
        "version": prompt.version,
        "why_version": explain_version(prompt, notes.constraint),
        "variant": prompt.variant,
        "why_variant": explain_variant(shop, prompt, notes.families),
        "file": str(source.path),
    }


def _tell_model(shop: "Workshop", notes: "Notes") -> dict[str, Any]:
    model = notes.model
    assert model is not None
    return {
        "name": model.name,
        "why": _explain_model(shop, notes),
        "families": list(model.families),
        "input_limit": model.input_limit,
        "fill_in": model.fill_in,
        "candidates": [
            {
                "deployment": each.name,
                "configured": each.is_configured,
                "text_completions": each.as_text_completion,
            }
            for each in model.deployments
        ],
    }


def _explain_model(shop: "Workshop", notes: "Notes") -> str:
    """Which member of the request chose, in the order in which they are looked at."""
    wish, catalogue = notes.wish, shop.catalogue
    if wish is None:
        return "the endpoint's own"
    if wish.is_own:
        return f"the client's own server, family {wish.family or 'none'}"
    if wish.identifier:
        return f"identifier {wish.identifier}"
    if wish.client_name:
        record = catalogue.client_names.get(wish.client_name)
        return f"client name {wish.client_name}" + (f" -> {record.model}" if record is not None else "")
    override = shop.settings.providers.default_models.get(wish.feature_setting)
    if override:
        return f"AIGW_MODEL_SELECTION__DEFAULT_MODELS for feature setting {wish.feature_setting}"
    setting = catalogue.feature_settings.get(wish.feature_setting)
    name = setting.default if setting is not None else wish.role or "chat_default"
    why = f"feature setting {setting.name} -> {name}" if setting is not None else f"default {name}"
    alias = catalogue.aliases.get(name)
    return why + (f", the first configured of {', '.join(alias.models)}" if alias is not None else "")


def _tell_chat(shop: "Workshop", notes: "Notes") -> dict[str, Any]:
    """Sizes and settings; the texts are shown by `torana prompts render`."""
    from torana.counting import estimate_tokens

    chat = notes.chat
    assert chat is not None
    marked = chat.fill_in.marked_prompt if chat.fill_in is not None else ""
    texts = [marked] if marked else [message.text for message in chat.messages]
    return {
        "roles": [] if marked else [message.role for message in chat.messages],
        "estimated_input_tokens": sum(map(estimate_tokens, texts)),
        "max_tokens": chat.max_tokens,
        "temperature": chat.temperature,
        "stop": list(chat.stop),
        "stream": chat.stream,
        "choices": chat.choices,
        "first_byte_s": chat.timeout_s or shop.settings.transport.first_byte_s,
        "tries": shop.settings.routing.tries if chat.tries is None else chat.tries,
    }


def _tell_refusal(refusal: "Refusal") -> dict[str, Any]:
    from torana.cli.workshop import refusal_text
    from torana.refusals import CODES

    known = CODES.get(refusal.code)
    return {
        "status": refusal.status,
        "code": refusal.code,
        "text": refusal_text(refusal),
        "layer": refusal.layer or (known.layer if known is not None else "gateway"),
        "missing": refusal.missing,
        "remedy": refusal.remedy or (known.remedy if known is not None else ""),
    }


def _as_text(told: dict[str, Any]) -> str:
    lines = []
    for name, value in told.items():
        if not isinstance(value, dict):
            lines.append(f"{name}: {value}")
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
