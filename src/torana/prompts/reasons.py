"""Why a request got this version and this variant of a prompt, in words for its author."""

from torana.prompts.prompt import Prompt
from torana.prompts.registry import BASE
from torana.prompts.versions import DEFAULT_CONSTRAINT, read_constraint, read_version
from torana.settings import CatalogueSettings


def explain_variant(settings: CatalogueSettings, prompt: Prompt, families: tuple[str, ...]) -> str:
    if prompt.variant in families:
        return f"the first of {', '.join(families)} that exists"
    if prompt.variant == settings.default_prompts.get(prompt.id) != BASE:
        return "AIGW_DEFAULT_PROMPTS"
    return f"none for {', '.join(families)}" if families else "the model has no family"


def explain_version(prompt: Prompt, constraint: str | None) -> str:
    wanted = read_constraint(constraint or DEFAULT_CONSTRAINT)
    if wanted.pin is None:
        return f"the highest that {constraint or f'{DEFAULT_CONSTRAINT} (default)'} allows"
    if wanted.pin == read_version(prompt.version):
        return f"pinned by {constraint}"
    return f"the nearest one: {constraint} does not exist"
