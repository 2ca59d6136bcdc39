"""What the authors' commands open before they begin: the catalogue, its prompts and models, and which are meant."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from torana.api.prompts import usual_wish
from torana.catalog.document import nearest
from torana.catalog.feature_file import EMPTY
from torana.catalog.load import Catalogue, load_catalogue, overlay_paths
from torana.catalog.snapshot import PromptSource
from torana.chat import ChatRequest, ModelWish
from torana.cli.surroundings import read_settings
from torana.errors import BadCatalogue, Invalid, Refusal
from torana.prompts.prompt import Prompt
from torana.prompts.reasons import explain_variant, explain_version
from torana.prompts.registry import Prompts
from torana.refusals import CODES, refusal_text
from torana.routing.models import Model, Models
from torana.settings import Settings


@dataclass(frozen=True, slots=True)
class Workshop:
    """One catalogue, as a server with these settings would serve it."""

    settings: Settings
    catalogue: Catalogue
    prompts: Prompts
    models: Models


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A prompt file and a model, and why these."""

    prompt: Prompt
    source: PromptSource
    why_variant: str
    why_version: str
    model: Model
    why_model: str

    @property
    def key(self) -> str:
        return f"{self.prompt.id}/{self.prompt.variant}/{self.prompt.version}"


def open_workshop(folders: tuple[str, ...] = ()) -> Workshop:
    """Ends the command with exit code 2 where settings or catalogue are wrong."""
    settings = read_settings({"AIGW_CATALOG": ":".join(folders)} if folders else None)
    try:
        catalogue = load_catalogue(overlay_paths(settings.catalogue.overlays))
        prompts = Prompts(catalogue, settings.catalogue)
    except BadCatalogue as bad:
        click.echo(str(bad), err=True)
        sys.exit(2)
    return Workshop(settings, catalogue, prompts, Models(catalogue, settings.providers))


def choose(
    shop: Workshop, prompt_id: str, constraint: str | None = None, *, model: str = "", family: str = ""
) -> Choice:
    """What a request for the prompt leads to. Raises Refusal as the endpoint would.

    model    an alias or a model; empty: that of the feature which uses the prompt, else the endpoint's default
    family   a model family whose variants are looked for instead of the model's
    """
    if model:
        wish, why_model = ModelWish(role=model), "asked for"
    else:
        feature = next((each for each in shop.catalogue.features.values() if each.prompt_id == prompt_id), None)
        wish = usual_wish(prompt_id)
        if feature is not None:
            wish = ModelWish(role=feature.model, feature_setting=feature.feature_setting)
        why_model = f"{wish.role}, as {f'feature {feature.name}' if feature else 'the endpoint'} says"
    try:
        found = shop.models.find(wish)
    except Invalid as error:
        if not model:
            raise
        raise click.ClickException(f"unknown model {model!r}; `torana models list` shows them") from error
    families = variants_of(shop.catalogue, family) if family else found.families
    prompt = shop.prompts.find(prompt_id, constraint, families)
    return Choice(
        prompt=prompt,
        source=shop.catalogue.prompts[prompt_id][prompt.variant][prompt.version],
        why_variant=explain_variant(shop.settings.catalogue, prompt, families),
        why_version=explain_version(prompt, constraint),
        model=found,
        why_model=why_model,
    )


def note_unread(shop: Workshop, choice: Choice, names: Iterable[str]) -> None:
    """Tell on stderr of inputs that no template can read; an endpoint passes over them."""
    texts = (choice.source.text, *shop.catalogue.templates.values())
    for name in names:
        if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
            hint = nearest(name, choice.prompt.variables, "expected the name of an input")
            click.echo(f"note: {choice.key} reads no {name!r}, {hint}", err=True)


def render_as_feature(shop: Workshop, choice: Choice, inputs: dict[str, Any]) -> ChatRequest:
    """The prompt, filled in; a feature that uses it adds its defaults, as its endpoint would."""
    prompt = choice.prompt
    feature = next((each for each in shop.catalogue.features.values() if each.prompt_id == prompt.id), None)
    if feature is not None:
        optional = {name: each for name, each in feature.inputs.items() if not each.is_required}
        defaults = {name: EMPTY[each.type] if each.default is None else each.default for name, each in optional.items()}
        inputs = {**defaults, **inputs}
    return shop.prompts.render(prompt, inputs, model_params=choice.model.params)


def variants_of(catalogue: Catalogue, family: str) -> tuple[str, ...]:
    record = catalogue.families.get(family)
    return (record.variants if record is not None else ()) or (family,)


def show_path(path: Path) -> str:
    """Relative to where one stands, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def refusals_told() -> Iterator[None]:
    """A refusal ends the command with its text, its remedy and exit code 1, as it would end a request.

    What a template could not do with its inputs is told as well; what is invalid says itself what is to be done.
    """
    try:
        yield
    except Refusal as refusal:
        why = f" ({refusal.__cause__})" if refusal.__cause__ else ""
        known = CODES.get(refusal.code) if not isinstance(refusal, Invalid) else None
        remedy = f"\nremedy: {refusal.remedy or known.remedy}" if known is not None else ""
        click.echo(f"refused: {refusal_text(refusal)}{why}{remedy}", err=True)
        sys.exit(1)
